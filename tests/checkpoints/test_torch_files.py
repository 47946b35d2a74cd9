"""Other people's files: dense tensors come out, code does not run, nothing grows beyond the file."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hostile import Malicious
from vltrack.checkpoints import torch_files
from vltrack.checkpoints.torch_files import read_tensors
from vltrack.core import torch_archive
from vltrack.core.errors import CheckpointCorrupt, CheckpointUnsafe, ModelError, ModelNotFound

REFUSED = (CheckpointCorrupt, CheckpointUnsafe)


class Settings:
    """Stands in for the settings and meters that training code saves next to the weights."""

    def __init__(self) -> None:
        self.lr, self.history, self.name = 0.1, [1.0, 2.0], "baseline"
        self.env = argparse.Namespace(workspace="somewhere")

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise AssertionError("built a foreign class")


class Attributes(dict):
    """A dictionary of another class, such as EasyDict."""


def parameter_with_attributes() -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(torch.arange(3.0))
    parameter.decay = False  # type: ignore[attr-defined]
    return parameter


TABLE = torch.randn(200, 8).half()
NET: dict[str, torch.Tensor] = {
    "backbone.proj.weight": torch.arange(12.0).view(3, 4),
    "backbone.turned": torch.arange(12.0).view(3, 4).T,
    "backbone.part": torch.arange(12.0)[4:9],
    "half": torch.tensor([1.5, -2.5]).half(),
    "brain": torch.tensor([1.5, -2.5]).bfloat16(),
    "double": torch.tensor([0.1], dtype=torch.float64),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "parameter with attributes": parameter_with_attributes(),
    "count": torch.tensor(7),
    "flag": torch.tensor([True, False]),
    "empty": torch.zeros(0, 3),
    "table": TABLE,
    "tied": TABLE,
}


def official() -> dict[Any, Any]:
    """As the training code of OSTrack, STARK and UVLTrack saves: the network among objects of its own."""
    return {
        "epoch": 300,
        "actor_type": "Actor",
        "net": OrderedDict(NET),
        "constructor": Settings(),
        "stats": collections.defaultdict(list, {"loss": [Settings(), np.float64(0.5)]}),
        "cfg": Attributes(a=Attributes(b={1, 2}, c=frozenset((3,)))),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
        7: torch.arange(3),
    }


def saved(path: Path, content: Any, **how: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path, **how)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None], **how: Any) -> Path:
    """The archive with ``change(name, bytes)`` in place of each entry's bytes; None leaves the entry out."""
    out = path.with_name("rewritten.pth")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w", **how) as target:
        for entry in source.infolist():
            data = change(entry.filename, source.read(entry))
            if data is not None:
                target.writestr(entry.filename, data)
    return out


@pytest.mark.fault("C02")
@pytest.mark.parametrize("row", [False, True], ids=["archive", "row of pickles"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_come_out_of_an_official_file(tmp_path: Path, row: bool, protocol: int) -> None:
    path = saved(
        tmp_path / "OSTrack_ep0300.pth.tar",
        official(),
        _use_new_zipfile_serialization=not row,
        pickle_protocol=protocol,
    )
    tensors = read_tensors(path)
    assert set(tensors) == {f"net.{name}" for name in NET} | {"optimizer.state.0.exp_avg", "7"}
    for name, tensor in NET.items():
        assert tensors[f"net.{name}"].dtype == tensor.dtype
        assert torch.equal(tensors[f"net.{name}"], tensor.detach()), name
        assert not tensors[f"net.{name}"].requires_grad


def test_what_is_not_wanted_is_not_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pth", official())
    asked: list[str] = []

    def wanted(name: str) -> bool:
        asked.append(name)
        return not name.startswith("optimizer")

    assert {name.partition(".")[0] for name in read_tensors(path, wanted=wanted)} == {"net", "7"}
    assert "optimizer" in asked
    assert not any(name.startswith("optimizer.") for name in asked)


@pytest.mark.fault("C02")
def test_tensors_come_out_of_a_program(tmp_path: Path) -> None:
    """CLIP's ViT-L-14.pt is such an archive. Its code is not even read: here it is spoiled."""
    layers = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm2d(3))
    whole = tmp_path / "whole.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(layers).save(str(whole))

    def spoil(name: str, data: bytes) -> bytes:
        return b"import os" if "/code/" in name or name.endswith("constants.pkl") else data

    for path in (whole, rewritten(whole, spoil)):
        tensors = read_tensors(path)
        assert tensors.keys() == layers.state_dict().keys()
        assert all(torch.equal(tensors[key], value) for key, value in layers.state_dict().items())


def test_safetensors(tmp_path: Path) -> None:
    names = [f"a.{letter}" for letter in "qwertyuiopasdfghjklzxcvbnm"]
    save_file({name: torch.ones(2) for name in names}, tmp_path / "m.safetensors")
    assert list(read_tensors(tmp_path / "m.safetensors")) == sorted(names)
    (tmp_path / "bad.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointCorrupt, match=r"bad\.safetensors"):
        read_tensors(tmp_path / "bad.safetensors")


def test_numpy_archives(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "a.b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">f4"),
        "half": np.ones(2, np.float16),
        "count": np.array(3),
        "none": np.zeros((0, 3), np.float32),
    }
    np.savez(tmp_path / "m.npz", **arrays)
    tensors = read_tensors(tmp_path / "m.npz")
    assert tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        assert tensors[name].shape == array.shape
        assert np.array_equal(tensors[name].numpy(), array)


@pytest.mark.fault("C01")
def test_numpy_archives_with_objects_or_more_than_they_hold_are_refused(tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "m.npz"
    for odd in (np.array([Malicious(mark)], dtype=object), np.ones(3, np.complex64)):
        np.savez(path, w=odd)
        with pytest.raises(CheckpointUnsafe, match="array w"):
            read_tensors(path)
    np.savez_compressed(path, w=np.zeros(2_000_000))
    with pytest.raises(CheckpointUnsafe, match="compressed"):
        read_tensors(path)
    for header in (b"(1099511627776,), }", b"(-1, -3), }", b"(__import__('os').system('x'),), }"):
        text = b"{'descr': '<f4', 'fortran_order': False, 'shape': " + header
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(
                "w.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n" + bytes(12)
            )
        with pytest.raises(CheckpointCorrupt):
            read_tensors(path)
    path.write_bytes(pickle.dumps(Malicious(mark)))
    with pytest.raises(CheckpointCorrupt):
        read_tensors(path)
    assert not mark.exists()


def legacy_tar(path: Path, mark: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(Malicious(mark))
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def torchscript(path: Path, mark: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps(Malicious(mark)))
        archive.writestr("m/constants.pkl", pickle.dumps(Malicious(mark)))
        archive.writestr("m/code/__torch__.py", "import os")


def nested_zip(path: Path, mark: Path) -> None:
    inside = saved(path.with_suffix(".inside"), {"w": Malicious(mark)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inside, "m/data.pkl")


def object_array(path: Path, mark: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Malicious(mark)], dtype=object), allow_pickle=True)


EVIL = {
    "reduce": lambda path, mark: saved(path, {"w": Malicious(mark), "t": torch.ones(2)}),
    "build": lambda path, mark: saved(path, {"w": Settings(), "t": torch.ones(2)}),
    "key": lambda path, mark: saved(path, {Path(mark): 1, (1, 2): 3, "t": torch.ones(2)}),
    "row": lambda path, mark: saved(
        path, {"w": Malicious(mark), "t": torch.ones(2)}, _use_new_zipfile_serialization=False
    ),
    "bare pickle": lambda path, mark: path.write_bytes(pickle.dumps({"w": Malicious(mark)})),
    "protocol 0": lambda path, mark: path.write_bytes(pickle.dumps({"w": Malicious(mark)}, protocol=0)),
    "tar": legacy_tar,
    "torchscript": torchscript,
    "nested": nested_zip,
    "object array": object_array,
    "empty": lambda path, mark: path.write_bytes(b""),
    "text": lambda path, mark: path.write_bytes(b"weights"),
}


@pytest.mark.fault("C01")
@pytest.mark.parametrize("suffix", [".pth", ".bin"])
@pytest.mark.parametrize("write", EVIL.values(), ids=EVIL.keys())
def test_nothing_is_run(tmp_path: Path, write: Any, suffix: str) -> None:
    path, mark = tmp_path / f"evil{suffix}", tmp_path / "mark"
    write(path, mark)
    try:
        assert list(read_tensors(path)) == ["t"]
    except ModelError as error:
        assert error.exit_code == 5
        assert "weights_only" not in str(error)  # no advice to switch the protection off
    assert not mark.exists()


FOREIGN = """
import pathlib
pathlib.Path(__file__).with_name("imported").touch()
class Settings:
    def __reduce__(self):
        return Settings, ()
class Plain:
    pass
"""
WATCHED = """
import sys
from pathlib import Path
import torch
from vltrack.checkpoints import torch_files
from vltrack.checkpoints.torch_files import read_tensors
from vltrack.core import unpickle
first, *rest = map(Path, sys.argv[1:])
read_tensors(first)  # what torch and zipfile load lazily is loaded now
seen, opened, started = [], [], []
WATCHED = "import exec compile pickle marshal os subprocess socket ctypes shutil".split()
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        opened.append(arguments[0])
    elif event == "subprocess.Popen":
        started.append(arguments[1][1:4])
    elif event.partition(".")[0] in WATCHED:
        seen.append((event, str(arguments[:1])))
sys.addaudithook(watch)
for path in rest:
    print(sorted(read_tensors(path)))
print("seen", seen)
print("opened", sorted(set(opened)) == sorted(map(str, rest)))
print("started", started == [["-I", "-S", unpickle.__file__]] * len(rest))
import pickle
try:
    pickle.loads(b"cforeign_code\\nSettings\\n.")  # the watch works, and the foreign code could be found
except pickle.UnpicklingError:
    pass
print("after", sorted({event for event, _ in seen} & {"import", "exec", "pickle.find_class"}))
"""


@pytest.mark.fault("C02")
def test_an_audit_hook_sees_nothing(tmp_path: Path) -> None:
    """No import, no code, no class looked up, no other process or file: though all of it could be had.

    What happens in the process that reads the pickles is watched in ``tests/core/test_unpickle.py``.
    """
    (tmp_path / "foreign_code.py").write_text(FOREIGN)
    names = {"archive.pth": True, "row.pth": False}
    maker = (
        "import sys, torch, os, foreign_code as f\n"
        "class Evil:\n"
        "    def __reduce__(self): return os.system, ('touch ran',)\n"
        "for name, new in " + repr(list(names.items())) + ":\n"
        "    torch.save({'net': {'w': torch.ones(2)}, 's': f.Settings(), 'p': f.Plain(), 'e': Evil()}, name,"
        " _use_new_zipfile_serialization=new)\n"
        "torch.save({'w': torch.ones(2)}, 'first.pth')\n"
    )
    here = {"cwd": tmp_path, "capture_output": True, "text": True, "check": True, "timeout": 110}
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", maker], env=environment, **here)
    (tmp_path / "imported").unlink()
    files = [str(tmp_path / name) for name in ("first.pth", *names)]
    done = subprocess.run([sys.executable, "-c", WATCHED, *files], env=environment, **here)
    assert done.stdout.splitlines() == [
        "['net.w']",
        "['net.w']",
        "seen []",
        "opened True",
        "started True",
        "after ['exec', 'import', 'pickle.find_class']",
    ]
    assert not (tmp_path / "ran").exists()


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"d": found}
    return found


def cyclic() -> dict[str, Any]:
    found: dict[str, Any] = {"t": torch.ones(2)}
    found["again"] = found
    return found


def wide() -> dict[str, Any]:
    found: dict[str, Any] = {"leaf": {}}
    for _ in range(7):
        found = dict.fromkeys((str(i) for i in range(100)), found)
    return found


@pytest.mark.fault("C03")
@pytest.mark.parametrize(
    "content",
    [nested(30), cyclic(), wide(), {"x" * 100_000: {str(i): torch.ones(1) for i in range(100)}}],
    ids=["deep", "cyclic", "wide", "a long name times many"],
)
def test_dictionaries_that_unfold_without_end_are_refused(
    tmp_path: Path, content: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_archive, "OBJECTS", 300_000)
    with pytest.raises(CheckpointUnsafe, match="nested too deeply"):
        read_tensors(saved(tmp_path / "m.pth", content))


# A tuple of itself twice, sixty times: to hash, compare or print it takes 2 ** 60 steps.
ENDLESS = b")q\x00" + b"".join(b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60))
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


@pytest.mark.fault("C01", "C03")
@pytest.mark.parametrize("crafted", CRAFTED.values(), ids=CRAFTED.keys())
def test_what_takes_for_ever_to_compare_ends(tmp_path: Path, crafted: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_archive, "SECONDS", 1)
    monkeypatch.setattr(torch_archive, "OBJECTS", 100_000)

    def craft(name: str, data: bytes) -> bytes:
        return data.removesuffix(b".") + crafted + b"." if name.endswith("data.pkl") else data

    try:
        assert list(read_tensors(rewritten(saved(tmp_path / "m.pth", {"w": torch.ones(3)}), craft))) == ["w"]
    except REFUSED as error:
        assert len(str(error)) < 1000


@pytest.mark.fault("C03")
def test_keys_of_a_row_of_pickles_are_text(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pth", {"w": torch.ones(3)}, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    at = data.rindex(b"\x80\x02]")
    path.write_bytes(data[:at] + b"\x80\x02]K\x01a" + data[data.index(b".", at) :])
    with pytest.raises(CheckpointCorrupt, match="not text"):
        read_tensors(path)


@pytest.mark.fault("C03")
@pytest.mark.parametrize(
    ("shape", "stride"),
    [
        (b"\x8a\x06\x00\x00\x00\x00\x00\x01\x85", b"K\x00\x85"),  # 2 ** 40 times the same number
        (b"K\nJ\x00\x00\x10\x00\x86", b"K\x01K\x00\x86"),
        (b"K\x03\x85", b"K\x05\x85"),  # beyond the end
        (b"(" + b"K\x01" * 17 + b"t", b"(" + b"K\x01" * 17 + b"t"),
        (b"K\x03\x85", b"K\x01K\x01\x86"),
        (b"J\xff\xff\xff\xff\x85", b"K\x01\x85"),
        (b"G\x40\x08\x00\x00\x00\x00\x00\x00\x85", b"K\x01\x85"),
        (b"\x88\x85", b"K\x01\x85"),
        (b"(" + (b"\x8b" + struct.pack("<i", 200_000) + b"\x7f" * 200_000) * 8 + b"t", b"K\x01\x85"),
    ],
    ids=[
        *("repeated", "repeated in two", "steps beyond", "17 sides", "sides and strides", "negative"),
        *("not whole", "true", "minutes to multiply"),
    ],
)
def test_a_tensor_that_does_not_fit_its_bytes_is_refused(tmp_path: Path, shape: bytes, stride: bytes) -> None:
    honest = saved(tmp_path / "m.pth", {"w": torch.ones(10), "s": Settings()})
    assert list(read_tensors(honest)) == ["w"]

    def change(name: str, data: bytes) -> bytes:
        if name.endswith("data.pkl"):
            start = data.index(b"K\n\x85")
            where = data.index(b"K\x01\x85", start)
            data = data[:start] + shape + data[start + 3 : where] + stride + data[where + 3 :]
        return data

    with pytest.raises(REFUSED, match="tensor w") as caught:
        read_tensors(rewritten(honest, change))
    assert len(str(caught.value)) < 1000


@pytest.mark.fault("C03")
def test_growth_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = torch.ones(10_000)
    with pytest.raises(CheckpointUnsafe, match="larger than the file"):
        read_tensors(saved(tmp_path / "m.pth", {f"v{i}": storage[i:] for i in range(50)}))
    with pytest.raises(CheckpointUnsafe, match="larger than its bytes"):
        read_tensors(saved(tmp_path / "m.pth", {"w": torch.ones(1).expand(1 << 30)}))
    path = saved(tmp_path / "m.pth", {"w": torch.zeros(2_000_000)})
    with pytest.raises(CheckpointUnsafe, match="compressed"):
        read_tensors(rewritten(path, lambda name, data: data, compression=zipfile.ZIP_DEFLATED))
    monkeypatch.setattr(torch_files, "MAX_BYTES", 100)
    with pytest.raises(CheckpointUnsafe, match="more than 100 bytes"):
        read_tensors(path)


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
        assert len(honest.infolist()) == count, "the file is not an archive, and nothing is shown"
    with pytest.raises(CheckpointUnsafe, match="too many entries"):
        read_tensors(path)


def test_the_table_of_contents_of_a_large_network_is_small(tmp_path: Path) -> None:
    """Ten times as many tensors as the largest published file holds."""
    torch.save({f"net.blocks.{i}.weight": torch.ones(1) for i in range(6000)}, tmp_path / "m.pth")
    assert len(read_tensors(tmp_path / "m.pth")) == 6000


ODD = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "compressed rows": lambda: torch.eye(3).to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "meta": lambda: torch.ones(3, device="meta"),
    "complex": lambda: torch.ones(3, dtype=torch.complex64),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
}


@pytest.mark.fault("C04")
@pytest.mark.parametrize("make", ODD.values(), ids=ODD.keys())
def test_tensors_that_are_not_dense_never_come_out(tmp_path: Path, make: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = saved(tmp_path / "m.pth", {"fine": torch.ones(2), "odd": make()})
    try:
        assert "odd" not in read_tensors(path)
    except CheckpointUnsafe as error:
        assert "odd" in str(error)


@pytest.mark.fault("C05")
@pytest.mark.parametrize(
    "change",
    [
        lambda name, data: None if name.endswith("data/1") else data,
        lambda name, data: data[:-1] if name.endswith("data/1") else data,
        lambda name, data: data + b"x" if name.endswith("data/0") else data,
        lambda name, data: b"big" if name.endswith("byteorder") else data,
        lambda name, data: None if name.endswith("data.pkl") else data,
    ],
    ids=["missing", "cut", "longer", "byte order", "no pickle"],
)
def test_entries_that_are_missing_swapped_or_cut(tmp_path: Path, change: Any) -> None:
    path = saved(tmp_path / "m.pth", {"a": torch.ones(3), "b": torch.zeros(5), "s": Settings()})
    read_tensors(rewritten(path, lambda name, data: data))
    with pytest.raises(REFUSED):
        read_tensors(rewritten(path, change))


@pytest.mark.fault("C05")
def test_flips_and_cuts_never_give_other_numbers(tmp_path: Path) -> None:
    """An archive has checksums. A row of pickles has none: there only the class of the error is compared."""
    content = {"w": torch.randn(64, generator=torch.Generator().manual_seed(0)), "s": Settings()}
    rng = np.random.default_rng(0)
    path = tmp_path / "spoiled.pth"
    for new, count in ((True, 160), (False, 53)):
        data = saved(tmp_path / "m.pth", content, _use_new_zipfile_serialization=new).read_bytes()
        spoiled = [data[: int(n)] for n in rng.integers(0, len(data), count // 4)]
        for place in rng.integers(0, len(data), count):
            flipped = bytearray(data)
            flipped[place] ^= 1 << int(rng.integers(8))
            spoiled.append(bytes(flipped))
        for written in spoiled:
            path.write_bytes(written)
            try:
                tensors = read_tensors(path)
            except REFUSED:
                continue
            if new:
                assert tensors.keys() == {"w"}
                assert torch.equal(tensors["w"], content["w"])


def test_files_without_tensors(tmp_path: Path) -> None:
    for content in ({"s": Settings()}, {"epoch": 3}, [torch.ones(2)]):
        with pytest.raises(CheckpointCorrupt, match="no tensors"):
            read_tensors(saved(tmp_path / "m.pth", content))
    with pytest.raises(CheckpointCorrupt, match="a folder"):
        read_tensors(tmp_path)


@pytest.mark.fault("C13")
def test_a_missing_file_is_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=str(tmp_path / "gone.pth")):
        read_tensors(tmp_path / "gone.pth")


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    """Two readers may take different ones: what was checked would not be what is read."""
    path = saved(tmp_path / "m.pth", {"w": torch.ones(2)})
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        name = next(n for n in archive.namelist() if n.endswith("data/0"))
        archive.writestr(name, struct.pack("2f", 9.0, 9.0))
    with pytest.raises(CheckpointUnsafe, match="two entries"):
        read_tensors(path)
