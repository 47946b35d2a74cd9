"""Files that hold more than tensors: the tensors come out, and nothing else in them is looked up or run."""

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
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hostile import Malicious
from vltrack.checkpoints.torch_files import extract_tensors, read_foreign
from vltrack.core.errors import CheckpointCorrupt, CheckpointUnsafe, ModelError, ModelNotFound
from vltrack.core.unpickle import Name, Outside, Thing, read_pickle


class Settings:
    """Stands in for the settings and meters that training code puts beside the weights."""

    def __init__(self) -> None:
        self.lr, self.history, self.name = 0.1, [1.0, 2.0], "baseline"
        self.env = argparse.Namespace(workspace="somewhere")

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise AssertionError("built a foreign class")


class Attributes(dict):
    """A dictionary of another class, such as EasyDict."""


NET: dict[str, torch.Tensor] = {
    "backbone.proj.weight": torch.arange(12.0).view(3, 4),
    "backbone.turned": torch.arange(12.0).view(3, 4).T,
    "backbone.part": torch.arange(12.0)[4:9],
    "half": torch.tensor([1.5, -2.5]).half(),
    "brain": torch.tensor([1.5, -2.5]).bfloat16(),
    "double": torch.tensor([0.1], dtype=torch.float64),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "count": torch.tensor(7),
    "flag": torch.tensor([True, False]),
    "empty": torch.zeros(0, 3),
}


def official() -> dict[str, Any]:
    """As the training code of OSTrack, STARK and UVLTrack saves: the network among objects of its own."""
    return {
        "epoch": 300,
        "actor_type": "Actor",
        "net": OrderedDict(NET),
        "constructor": Settings(),
        "settings": Settings(),
        "stats": collections.defaultdict(list, {"loss": [Settings(), np.float64(0.5)]}),
        "cfg": Attributes(a=Attributes(b={1, 2}, c=frozenset((3,)))),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
    }


def saved(path: Path, content: Any, **how: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path, **how)
    return path


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
    with pytest.raises(CheckpointUnsafe) as refused:
        read_foreign(path)
    assert "--extract-tensors" in refused.value.hint
    tensors = extract_tensors(path)
    assert set(tensors) == {f"net.{name}" for name in NET} | {"optimizer.state.0.exp_avg"}
    for name, tensor in NET.items():
        assert tensors[f"net.{name}"].dtype == tensor.dtype
        assert torch.equal(tensors[f"net.{name}"], tensor.detach()), name


def test_what_is_not_wanted_is_not_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pth", official())
    asked: list[str] = []

    def wanted(name: str) -> bool:
        asked.append(name)
        return not name.startswith("optimizer")

    assert {name.partition(".")[0] for name in extract_tensors(path, wanted=wanted)} == {"net"}
    assert "optimizer" in asked
    assert not any(name.startswith("optimizer.") for name in asked)


@pytest.mark.fault("C02")
def test_tensors_come_out_of_a_program(tmp_path: Path) -> None:
    """CLIP's ViT-L-14.pt is such an archive. Its code is not even read: here it is spoiled."""
    layers = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm2d(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(layers).save(str(tmp_path / "whole.pt"))
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as source,
        zipfile.ZipFile(tmp_path / "spoiled.pt", "w") as spoiled,
    ):
        for entry in source.infolist():
            code = "/code/" in entry.filename or entry.filename.endswith("constants.pkl")
            spoiled.writestr(entry.filename, b"import os" if code else source.read(entry))
    for name in ("whole.pt", "spoiled.pt"):
        with pytest.raises(CheckpointUnsafe, match="TorchScript"):
            read_foreign(tmp_path / name)
        tensors = extract_tensors(tmp_path / name)
        assert tensors.keys() == layers.state_dict().keys()
        assert all(torch.equal(tensors[key], value) for key, value in layers.state_dict().items())


def legacy_tar(path: Path, mark: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(Malicious(mark))
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def nested_zip(path: Path, mark: Path) -> None:
    inside = saved(path.with_suffix(".inside"), {"w": Malicious(mark)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inside, "m/data.pkl")


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
    "nested": nested_zip,
    "empty": lambda path, mark: path.write_bytes(b""),
    "text": lambda path, mark: path.write_bytes(b"weights"),
}


@pytest.mark.fault("C01")
@pytest.mark.parametrize("write", EVIL.values(), ids=EVIL.keys())
def test_nothing_is_run(tmp_path: Path, write) -> None:
    path, mark = tmp_path / "evil.pth", tmp_path / "mark"
    write(path, mark)
    try:
        assert list(extract_tensors(path)) == ["t"]
    except ModelError as error:
        assert error.exit_code == 5
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
from vltrack.checkpoints.torch_files import extract_tensors
first, *rest = map(Path, sys.argv[1:])
extract_tensors(first)  # what torch and zipfile load lazily is loaded now
seen, opened = [], []
WATCHED = "import exec compile pickle marshal os subprocess socket ctypes shutil".split()
def watch(event, arguments):
    if event == "open":
        opened.append(str(arguments[0]))
    elif event.partition(".")[0] in WATCHED:
        seen.append((event, str(arguments[:1])))
sys.addaudithook(watch)
for path in rest:
    print(sorted(extract_tensors(path)))
print("seen", seen)
print("opened", sorted(set(opened)) == sorted(map(str, rest)))
import pickle
try:
    pickle.loads(b"cforeign_code\\nSettings\\n.")  # the watch works, and the foreign code could be found
except pickle.UnpicklingError:
    pass
print("after", sorted({event for event, _ in seen} & {"import", "exec", "pickle.find_class"}))
"""


@pytest.mark.fault("C02")
def test_an_audit_hook_sees_nothing(tmp_path: Path) -> None:
    """No import, no code, no class looked up, no process, no other file: though all of it could be had."""
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
        "after ['exec', 'import', 'pickle.find_class']",
    ]
    assert not (tmp_path / "ran").exists()


def test_a_pickle_becomes_data_and_marks() -> None:
    content = {
        "a": [1, 2.5, "x", None, True, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), -(10**30)],
        "s": {1},
    }
    for protocol in range(2, 6):
        file = io.BytesIO(pickle.dumps(content, protocol=protocol) + b"rest")
        read, outside = read_pickle(file)
        assert read["a"] == content["a"]
        assert isinstance(read["s"], Thing)
        assert (outside, file.read()) == ([], b"rest")
    (thing, again), _ = read_pickle(io.BytesIO(pickle.dumps([argparse.Namespace(x=1)] * 2)))
    assert again is thing
    assert str(Name("os", "system")) == "os.system"
    assert isinstance(thing, Thing)
    assert thing.state == {"x": 1}
    assert isinstance(read_pickle(io.BytesIO(b"(S'ls'\nios\nsystem\n."))[0], Thing)
    assert isinstance(read_pickle(io.BytesIO(b"(cos\nsystem\nS'ls'\no."))[0], Thing)
    assert isinstance(read_pickle(io.BytesIO(b"Pkey\n."))[0], Outside)


BROKEN = {
    "no end": b"N",
    "nothing": b".",
    "no mark": b"t.",
    "unknown": b"\xff.",
    "memory": b"h\x07.",
    "registered": b"\x82\x01.",
    "buffer": b"\x97.",
    "set on a name": b"cos\nsystem\nNNs.",
    "odd": b"}(Nu.",
    "unhashed": b"}]Ns.",
    "cut": pickle.dumps({"a": list(range(50))})[:-9],
    "endless": b"N" * 2_000_000 + b".",
    "a long text that is not there": b"\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
    "long number": b"L" + b"9" * 10_000 + b"L\n.",
}


@pytest.mark.fault("C05")
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_broken_pickles_are_refused(data: bytes) -> None:
    declared = (ValueError, LookupError, TypeError, AttributeError)
    if data == BROKEN["unhashed"]:
        assert read_pickle(io.BytesIO(data))[0] == {}
        return
    with pytest.raises(declared):
        read_pickle(io.BytesIO(data))


@pytest.mark.fault("C03")
def test_what_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    """A few bytes may unfold to any depth; the process must neither hang nor overflow."""
    deep = b")" + b"\x85" * 300_000 + b"."
    read_pickle(io.BytesIO(deep))
    read_pickle(io.BytesIO(b"}" + deep[:-1] + b"Ns."))
    round_and_round: dict[str, Any] = {"t": torch.ones(2)}
    round_and_round["again"] = round_and_round
    wide: dict[str, Any] = {"leaf": {}}
    for _ in range(7):
        wide = dict.fromkeys((str(i) for i in range(100)), wide)
    for content in (round_and_round, wide):
        with pytest.raises(CheckpointUnsafe, match="nested too deeply or has too many"):
            extract_tensors(saved(tmp_path / "m.pth", content))


def rewritten(path: Path, change) -> Path:
    """The archive with ``change(name, bytes)`` in place of each entry's bytes."""
    out = path.with_name("rewritten.pth")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for entry in source.infolist():
            data = change(entry.filename, source.read(entry))
            if data is not None:
                target.writestr(entry.filename, data)
    return out


@pytest.mark.fault("C03")
@pytest.mark.parametrize(
    ("shape", "stride"), [((1 << 40,), (0,)), ((10, 1 << 20), (1, 0)), ((3,), (4,)), ((1,) * 17, (1,) * 17)]
)
def test_a_tensor_beyond_its_bytes_is_refused(tmp_path: Path, shape, stride) -> None:
    honest = saved(tmp_path / "m.pth", {"w": torch.ones(10), "s": Settings()})
    if len(shape) < 17 and stride != (4,):
        wide = torch.ones(10).as_strided(shape, stride)
        path = saved(tmp_path / "wide.pth", {"w": wide, "s": Settings()})
    else:  # torch does not write these; change the numbers of an honest file (K: one byte)
        sizes = b"(" + b"K\x01" * 17 + b"t" if len(shape) == 17 else b"K\x03\x85"
        steps = sizes if len(shape) == 17 else b"K\x05\x85"

        def change(name: str, data: bytes) -> bytes:
            if name.endswith("data.pkl"):
                assert data.count(b"K\n\x85") == 1
                data = data.replace(b"K\n\x85", sizes)
                at = data.index(sizes) + len(sizes)
                where = data.index(b"K\x01\x85", at)
                data = data[:where] + steps + data[where + 3 :]
            return data

        path = rewritten(honest, change)
    assert list(extract_tensors(honest)) == ["w"]
    with pytest.raises((CheckpointUnsafe, CheckpointCorrupt)):
        extract_tensors(path)


@pytest.mark.fault("C03")
def test_growth_is_refused(tmp_path: Path) -> None:
    storage = torch.ones(10_000)
    with pytest.raises(CheckpointUnsafe, match="larger than the file"):
        extract_tensors(saved(tmp_path / "m.pth", {f"v{i}": storage[i:] for i in range(50)}))
    path = saved(tmp_path / "m.pth", {"w": torch.zeros(2_000_000)})
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    with pytest.raises(CheckpointUnsafe, match="compressed"):
        extract_tensors(tmp_path / "bomb.pth")
    with pytest.raises(CheckpointUnsafe, match="limit of 100"):
        extract_tensors(path, max_bytes=100)


@pytest.mark.fault("C04")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        lambda: torch.ones(3, dtype=torch.complex64),
        lambda: torch.ones(3, device="meta"),
    ],
    ids=["sparse", "quantized", "complex", "meta"],
)
def test_tensors_that_are_not_dense_never_come_out(tmp_path: Path, make) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odd = make()
    path = saved(tmp_path / "m.pth", {"fine": torch.ones(2), "odd": odd})
    try:
        assert list(extract_tensors(path)) == ["fine"]
    except CheckpointUnsafe as error:
        assert "odd" in str(error)


@pytest.mark.fault("C05")
def test_entries_that_are_missing_swapped_or_cut(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pth", {"a": torch.ones(3), "b": torch.zeros(5), "s": Settings()})
    changes = [
        lambda name, data: None if name.endswith("data/1") else data,
        lambda name, data: data[:-1] if name.endswith("data/1") else data,
        lambda name, data: data + b"x" if name.endswith("data/0") else data,
        lambda name, data: b"big" if name.endswith("byteorder") else data,
        lambda name, data: None if name.endswith("data.pkl") else data,
    ]
    extract_tensors(rewritten(path, lambda name, data: data))
    for change in changes:
        with pytest.raises((CheckpointCorrupt, CheckpointUnsafe)):
            extract_tensors(rewritten(path, change))


@pytest.mark.fault("C05")
def test_flips_and_cuts_never_give_other_numbers(tmp_path: Path) -> None:
    """The row of pickles has no checksum: there only that nothing undeclared is raised can be held."""
    content = {"w": torch.randn(64, generator=torch.Generator().manual_seed(0)), "s": Settings()}
    rng = np.random.default_rng(0)
    path = tmp_path / "spoiled.pth"
    for new in (True, False):
        data = saved(tmp_path / "m.pth", content, _use_new_zipfile_serialization=new).read_bytes()
        spoiled = [data[: int(n)] for n in rng.integers(0, len(data), 40)]
        for place in rng.integers(0, len(data), 160):
            flipped = bytearray(data)
            flipped[place] ^= 1 << int(rng.integers(8))
            spoiled.append(bytes(flipped))
        for written in spoiled:
            path.write_bytes(written)
            try:
                tensors = extract_tensors(path)
            except (CheckpointUnsafe, CheckpointCorrupt):
                continue
            if new:
                assert tensors.keys() == {"w"}
                assert torch.equal(tensors["w"], content["w"])


def test_files_without_tensors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointCorrupt, match="no tensors"):
        extract_tensors(saved(tmp_path / "m.pth", {"s": Settings()}))
    with pytest.raises(CheckpointCorrupt, match="a folder"):
        extract_tensors(tmp_path)
    with pytest.raises(ModelNotFound, match=r"gone\.pth"):
        extract_tensors(tmp_path / "gone.pth")
