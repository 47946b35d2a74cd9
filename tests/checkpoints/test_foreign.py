"""Other people's files: dense tensors come out, code does not run, nothing grows beyond the file."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hostile import Malicious
from vltrack.checkpoints.torch_files import read_foreign
from vltrack.core.errors import CheckpointCorrupt, CheckpointUnsafe, ModelNotFound


class Built:
    """Sets itself up by what the file says, as BUILD does."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise AssertionError("built a foreign class")


def saved(path: Path, content: Any, **how: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own remarks on the odd tensors that are written here
        torch.save(content, path, **how)
    return path


def test_nested_dictionaries_become_names_with_dots(tmp_path: Path) -> None:
    weight = torch.randn(3, 4)
    content = {
        "model": OrderedDict(patch=weight, bias=torch.nn.Parameter(torch.ones(2))),
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0)}},
            "param_groups": [{"lr": 0.1, "params": [0]}],
        },
        "epoch": 300,
        "note": "text",
        "none": None,
        7: torch.arange(3, dtype=torch.int64),
    }
    tensors = read_foreign(saved(tmp_path / "m.pth", content))
    assert set(tensors) == {"model.patch", "model.bias", "optimizer.state.0.step", "7"}
    assert torch.equal(tensors["model.patch"], weight)
    assert not tensors["model.bias"].requires_grad


def test_tied_weights_and_half_precision(tmp_path: Path) -> None:
    table = torch.randn(200, 8).half()
    tensors = read_foreign(
        saved(tmp_path / "m.pth", {"table": table, "decoder": table, "turned": torch.zeros(9, 5).T})
    )
    assert torch.equal(tensors["table"], tensors["decoder"])
    assert tensors["table"].dtype == torch.float16
    assert tensors["turned"].shape == (5, 9)


def test_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    names = [f"a.{letter}" for letter in "qwertyuiopasdfghjklzxcvbnm"]
    save_file({name: torch.ones(2) for name in names}, tmp_path / "m.safetensors")
    assert list(read_foreign(tmp_path / "m.safetensors")) == sorted(names)
    (tmp_path / "bad.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointCorrupt, match="no safetensors"):
        read_foreign(tmp_path / "bad.safetensors")


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
    tensors = read_foreign(tmp_path / "m.npz")
    assert tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        assert tensors[name].shape == array.shape
        assert np.array_equal(tensors[name].numpy(), array)


@pytest.mark.fault("C01")
def test_numpy_archives_with_objects_or_more_than_they_hold_are_refused(tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "m.npz"
    np.savez(path, w=np.array([Malicious(mark)], dtype=object))
    with pytest.raises(CheckpointUnsafe, match="array w holds other things"):
        read_foreign(path)
    np.savez(path, w=np.ones(3, np.complex64))
    with pytest.raises(CheckpointUnsafe, match="array w holds other things"):
        read_foreign(path)
    np.savez_compressed(path, w=np.zeros(2_000_000))
    with pytest.raises(CheckpointUnsafe, match="compressed"):
        read_foreign(path)
    for header in (b"(1099511627776,), }", b"(-1, -3), }", b"(__import__('os').system('x'),), }"):
        text = b"{'descr': '<f4', 'fortran_order': False, 'shape': " + header
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(
                "w.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n" + bytes(12)
            )
        with pytest.raises(CheckpointCorrupt, match=r"broken archive of numpy\.savez"):
            read_foreign(path)
    path.write_bytes(pickle.dumps(Malicious(mark)))
    with pytest.raises(CheckpointCorrupt):
        read_foreign(path)
    assert not mark.exists()


@pytest.mark.fault("C13")
def test_a_missing_file_is_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=str(tmp_path / "gone.pth")):
        read_foreign(tmp_path / "gone.pth")


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
        archive.writestr("m/version", "3\n")


def nested_zip(path: Path, mark: Path) -> None:
    inside = path.with_suffix(".inside")
    saved(inside, {"w": Malicious(mark)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inside, "m/data.pkl")
        archive.writestr("m/version", "3\n")
    inside.unlink()


def object_array(path: Path, mark: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Malicious(mark)], dtype=object), allow_pickle=True)


MALICIOUS = {
    "reduce": lambda path, mark: saved(path, {"w": Malicious(mark)}),
    "build": lambda path, mark: saved(path, {"w": Built()}),
    "bare pickle": lambda path, mark: path.write_bytes(pickle.dumps({"w": Malicious(mark)})),
    "protocol 0": lambda path, mark: path.write_bytes(pickle.dumps({"w": Malicious(mark)}, protocol=0)),
    "legacy": lambda path, mark: saved(path, {"w": Malicious(mark)}, _use_new_zipfile_serialization=False),
    "legacy, honest": lambda path, mark: saved(
        path, {"w": torch.ones(2)}, _use_new_zipfile_serialization=False
    ),
    "tar": legacy_tar,
    "torchscript": torchscript,
    "nested zip": nested_zip,
    "object array": object_array,
    "empty": lambda path, mark: path.write_bytes(b""),
}


@pytest.mark.fault("C01")
@pytest.mark.parametrize("suffix", [".pth", ".bin"])
@pytest.mark.parametrize("write", MALICIOUS.values(), ids=MALICIOUS.keys())
def test_nothing_that_could_run_is_run(tmp_path: Path, write, suffix: str) -> None:
    path, mark = tmp_path / f"evil{suffix}", tmp_path / "mark"
    write(path, mark)
    with pytest.raises(CheckpointUnsafe) as caught:
        read_foreign(path)
    assert caught.value.exit_code == 5
    assert "weights_only" not in str(caught.value)  # no advice to switch the protection off
    assert not mark.exists()


@pytest.mark.fault("C03")
def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    plain, bomb = saved(tmp_path / "m.pth", {"w": torch.zeros(2_000_000)}), tmp_path / "bomb.pth"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert bomb.stat().st_size < plain.stat().st_size / 100
    with pytest.raises(CheckpointUnsafe, match="compressed"):
        read_foreign(bomb)


@pytest.mark.fault("C03")
@pytest.mark.parametrize("stride", [(0,), (0, 0), (1, 0)])
def test_a_tensor_larger_than_its_bytes_is_refused(tmp_path: Path, stride: tuple[int, ...]) -> None:
    wide = torch.ones(10).as_strided(
        (10,) + (1 << 20,) * (len(stride) - 1) if len(stride) > 1 else (1 << 30,), stride
    )
    with pytest.raises(CheckpointUnsafe, match="larger than"):
        read_foreign(saved(tmp_path / "m.pth", {"w": wide}))


@pytest.mark.fault("C03")
def test_many_views_of_few_bytes_are_refused(tmp_path: Path) -> None:
    storage = torch.ones(10_000)
    views = {f"v{i}": storage[i:] for i in range(50)}
    with pytest.raises(CheckpointUnsafe, match="larger than the file"):
        read_foreign(saved(tmp_path / "m.pth", views))


@pytest.mark.fault("C03")
def test_dictionaries_that_unfold_without_end_are_refused(tmp_path: Path) -> None:
    wide: dict[str, Any] = {"leaf": 0}
    for _ in range(7):
        wide = dict.fromkeys((str(i) for i in range(100)), wide)
    deep: dict[str, Any] = {}
    for _ in range(30):
        deep = {"d": deep}
    round_and_round: dict[str, Any] = {}
    round_and_round["again"] = round_and_round
    for content in (wide, deep, round_and_round):
        with pytest.raises(CheckpointUnsafe, match="nested too deeply or has too many"):
            read_foreign(saved(tmp_path / "m.pth", content))


@pytest.mark.fault("C03")
def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(CheckpointUnsafe, match="limit of 100"):
        read_foreign(saved(tmp_path / "m.pth", {"w": torch.ones(99)}), max_bytes=100)


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
def test_tensors_that_are_not_dense_are_refused(tmp_path: Path, make) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = saved(tmp_path / "m.pth", {"fine": torch.ones(2), "odd": make()})
    with pytest.raises(CheckpointUnsafe):
        read_foreign(path)


@pytest.mark.fault("C05")
def test_cuts_and_flips_never_give_other_numbers(tmp_path: Path) -> None:
    """Some flips touch padding only; all others are noticed."""
    content = {"w": torch.randn(64), "b": torch.randn(8)}
    data = saved(tmp_path / "m.pth", content).read_bytes()
    rng = np.random.default_rng(0)
    spoiled = [data[: int(n)] for n in rng.integers(0, len(data), 40)]
    for place in rng.integers(0, len(data), 160):
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        spoiled.append(bytes(flipped))
    path = tmp_path / "spoiled.pth"
    for written in spoiled:
        path.write_bytes(written)
        try:
            tensors = read_foreign(path)
        except (CheckpointUnsafe, CheckpointCorrupt):
            continue
        assert tensors.keys() == content.keys()
        assert all(torch.equal(tensors[name], content[name]) for name in content)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointCorrupt, match="no tensors"):
        read_foreign(saved(tmp_path / "m.pth", {"epoch": 3}))
    with pytest.raises(CheckpointCorrupt, match="a folder"):
        read_foreign(tmp_path)


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    """Two readers may take different ones: what was checked would not be what is read."""
    path = saved(tmp_path / "m.pth", {"w": torch.ones(2)})
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        name = next(n for n in archive.namelist() if n.endswith("data/0"))
        archive.writestr(name, struct.pack("2f", 9.0, 9.0))
    with pytest.raises(CheckpointUnsafe, match="two entries"):
        read_foreign(path)
