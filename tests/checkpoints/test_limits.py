"""Small files that ask for much: time by crafted keys, memory by tables of contents, names and numbers.

Each of these ended or stopped a process that reads them with the libraries' own readers. Here they are
refused, or what is harmless in them is read, at once.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vltrack.checkpoints import torch_files as limits
from vltrack.checkpoints.torch_files import extract_tensors, read_foreign
from vltrack.core.errors import CheckpointCorrupt, CheckpointUnsafe

# A tuple of itself twice, sixty times: to hash, compare or print it takes 2 ** 60 steps.
ENDLESS = b")q\x00" + b"".join(b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60))
READERS: dict[str, Callable[[Path], dict[str, torch.Tensor]]] = {
    "plain": read_foreign,
    "extract": extract_tensors,
}
# {"w": tensor, then what is crafted}: the bytes behind the entry of the tensor.
CRAFTED = {
    "key": ENDLESS + b"K\x01s",
    "key of an object": b"K\x02ccollections\nOrderedDict\n)R" + ENDLESS + b"K\x01ss",
    "counted": b"K\x02ccollections\nCounter\n(" + ENDLESS + b"tRs",
    "set": b"K\x02\x8f(" + ENDLESS + b"\x90s",
    "frozen set": b"K\x02(" + ENDLESS + b"\x91s",
    "name": b"K\x02" + ENDLESS + b"\x8c\x01x\x93s",
    "kind of a storage": b"K\x02(\x8c\x07storage" + ENDLESS + b"\x8c\x010\x8c\x03cpuK\x01tQs",
    "key of a storage": b"K\x02(\x8c\x07storagectorch\nFloatStorage\n" + ENDLESS + b"\x8c\x03cpuK\x01tQs",
}


def changed(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """The archive of ``{"w": three ones}`` with another pickle in it."""
    torch.save({"w": torch.ones(3)}, path.with_name("honest.pth"))
    with zipfile.ZipFile(path.with_name("honest.pth")) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            target.writestr(entry, change(data) if entry.filename.endswith("data.pkl") else data)
    return path


@pytest.mark.fault("C01", "C03")
@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("crafted", CRAFTED.values(), ids=CRAFTED.keys())
def test_what_takes_for_ever_to_compare_is_never_compared(tmp_path: Path, read, crafted: bytes) -> None:
    path = changed(tmp_path / "m.pth", lambda pickle: pickle.removesuffix(b".") + crafted + b".")
    try:
        assert list(read(path)) == ["w"]
    except (CheckpointUnsafe, CheckpointCorrupt) as error:
        assert len(str(error)) < 1000


@pytest.mark.fault("C03")
def test_keys_of_a_row_of_pickles_are_text(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save({"w": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    at = data.rindex(b"\x80\x02]")
    end = data.index(b".", at)
    path.write_bytes(data[:at] + b"\x80\x02]" + ENDLESS + b"a" + data[end:])
    with pytest.raises(CheckpointCorrupt, match="a key that is no text"):
        extract_tensors(path)


@pytest.mark.fault("C03")
@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_names_and_numbers_have_an_end(tmp_path: Path, read) -> None:
    """A long key times many entries; sizes whose product takes minutes to work out."""
    entries: dict[str, Any] = {str(i): torch.ones(1) for i in range(100)}
    torch.save({"x" * 100_000: entries}, tmp_path / "long.pth")
    with pytest.raises(CheckpointUnsafe, match="nested too deeply or has too many"):
        read(tmp_path / "long.pth")
    huge = b"\x8b" + struct.pack("<i", 2_000_000) + b"\x7f" * 2_000_000
    path = changed(
        tmp_path / "huge.pth", lambda pickle: pickle.replace(b"K\x03\x85", b"(" + huge * 8 + b"t", 1)
    )
    with pytest.raises(CheckpointUnsafe, match="not a dense tensor") as caught:
        read(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.fault("C03")
@pytest.mark.parametrize("name", ["m.pth", "m.npz"])
def test_a_table_of_contents_without_end_is_not_read(tmp_path: Path, name: str) -> None:
    """A hundred thousand entries that are not there: Python makes an object of each before anything else."""
    path, count = tmp_path / name, 100_000
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 10, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"x"
    entry = struct.pack("<4s4B4H3L5H2L", b"PK\1\2", 10, 0, 10, *[0] * 8, 10, *[0] * 6)
    table = b"".join(entry + b"%010d" % i for i in range(count))
    size, place = len(table), len(local)
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, place)
    end += struct.pack("<4sLQL", b"PK\6\7", 0, place + size, 1)
    end += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(local + table + end)
    with zipfile.ZipFile(path) as honest:
        assert len(honest.infolist()) == count, "the file is no archive, and nothing is shown"
    for read in READERS.values():
        with pytest.raises(CheckpointUnsafe, match="too many entries"):
            read(path)


def test_the_table_of_contents_of_a_large_network_is_small(tmp_path: Path) -> None:
    """Ten times as many tensors as the largest published file holds."""
    torch.save({f"net.blocks.{i}.weight": torch.ones(1) for i in range(6000)}, tmp_path / "m.pth")
    assert len(read_foreign(tmp_path / "m.pth")) == 6000
    assert limits.MAX_BYTES == 8 << 30


def test_a_parameter_with_attributes_is_a_tensor(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.arange(3.0))
    parameter.decay = False  # type: ignore[attr-defined]
    torch.save({"w": parameter}, tmp_path / "m.pth")
    for read in READERS.values():
        assert torch.equal(read(tmp_path / "m.pth")["w"], torch.arange(3.0))
