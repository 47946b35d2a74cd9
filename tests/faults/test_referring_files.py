"""Faults D12 and D13 (docs/faults.md), and C01 for referring expressions: hostile JSON and pickles."""

from __future__ import annotations

import codecs
import io
import json
import pickle
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hostile import Malicious
from vltrack.core import torch_archive as reader
from vltrack.core import unpickle
from vltrack.core.errors import DataError
from vltrack.datasets import referring_convert
from vltrack.datasets.check import check_referring
from vltrack.datasets.miniatures_referring import torch_archive, write_referring_miniature
from vltrack.datasets.referring import open_referring
from vltrack.datasets.referring_convert import convert

ROW = ("a.jpg", "m", [1.0, 2.0, 3.0, 4.0], "a man", [])
_EVENTS = ("pickle.find_class", "import", "exec", "compile", "os.system", "os.exec", "os.posix_spawn")
_watched: list[list[str]] = []
for _name in ("ascii", "latin-1", "utf-8", "utf-8-sig", "raw-unicode-escape", "cp437"):
    codecs.lookup(_name)  # Python imports a codec when it is first used: not while we watch


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and arguments[1][1:4] == ["-I", "-S", unpickle.__file__]:
        return  # the process that reads pickles; what happens in it, tests/core/test_unpickle.py watches
    if _watched and (event in _EVENTS or event.startswith("subprocess")):
        _watched[-1].append(f"{event} {str(arguments)[:80]}")


@contextmanager
def nothing_runs() -> Iterator[None]:
    """Fail if anything is looked up, imported, compiled or started in the block."""
    if not hasattr(sys, "_phrases_hook"):
        sys.addaudithook(_hook)
        sys._phrases_hook = True  # a hook stays for the life of the process
    _watched.append([])
    try:
        yield
        seen = list(_watched[-1])
    finally:
        _watched.pop()
    assert not seen, ", ".join(seen)


def test_the_watch_sees_what_runs(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"pickle\.find_class.*os\.system"), nothing_runs():
        pickle.loads(pickle.dumps(Malicious(tmp_path / "mark")))  # noqa: S301
    assert (tmp_path / "mark").exists()


class BySetState:
    """An object that runs code when it is restored."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return BySetState, (self.mark,), {"mark": self.mark}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state["mark"].touch()


def pickles(mark: Path) -> dict[str, bytes]:
    """Return files that the converter refuses; tests/core/test_unpickle.py has each instruction that calls."""
    evil = Malicious(mark)
    return {
        "call, protocol 0": pickle.dumps([(*ROW[:4], evil)], protocol=0),
        "call, protocol 4": pickle.dumps([(*ROW[:4], evil)], protocol=4),
        "call instead of a list": pickle.dumps(evil),
        "state": pickle.dumps([BySetState(mark)]),
        "as a key": pickle.dumps([{evil: 1}]),
        "as a box": pickle.dumps([("a.jpg", "m", evil, "x", [])]),
        "only a name": b"cbuiltins\neval\n.",
        "a name of torch's that calls": b"ctorch._utils\n_import_dotted_name\n(S'os.system'\ntR.",
        "a reference to the outside": b"(lPos.system\na.",
        "numpy objects": pickle.dumps([(*ROW[:2], np.array([1, 2, 3, None]), "x", [])]),
        "deep with names": b"\x80\x02" + b"(" * 50_000 + b"cos\nsystem\n" + b"t" * 50_000 + b".",
        "a list in itself": b"\x80\x02]q\x00h\x00a.",
        "two pickles": pickle.dumps([ROW]) + pickle.dumps([ROW]),
        "no end": pickle.dumps([ROW])[:-1],
        "nothing": b"",
    }


@pytest.mark.fault("D13")
@pytest.mark.parametrize("name", pickles(Path("mark")))
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "mark"
    data = pickles(mark)[name]
    (tmp_path / "instances.json").write_text('{"images": [], "annotations": []}')
    for file in ("unc_train.pth", "refs(unc).p"):
        (tmp_path / file).write_bytes(data)
        with nothing_runs(), pytest.raises(DataError) as caught:
            convert(tmp_path / file, boxes="xywh")
        assert caught.value.exit_code == 4
        assert len(str(caught.value)) < 600
    assert not mark.exists()
    assert not list(tmp_path.glob("*.jsonl"))
    if name.startswith("call"):
        assert "could run code" in str(caught.value)
        assert "posix.system" in str(caught.value)


@pytest.mark.fault("D13")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_hostile_file_of_torch_is_refused_and_runs_nothing(tmp_path: Path, zipped: bool) -> None:
    mark, file = tmp_path / "mark", tmp_path / "unc_train.pth"
    for evil in (Malicious(mark), BySetState(mark)):
        torch.save([(*ROW[:4], evil)], file, _use_new_zipfile_serialization=zipped)
        with nothing_runs(), pytest.raises(DataError, match="Nothing of it was run"):
            convert(file)
    assert not mark.exists()


@pytest.mark.fault("D13")
def test_the_first_pickles_of_the_old_layout_run_nothing_either(tmp_path: Path) -> None:
    mark, file = tmp_path / "mark", tmp_path / "unc_train.pth"
    torch.save([ROW], file, _use_new_zipfile_serialization=False)
    whole = io.BytesIO(file.read_bytes())
    parts = []
    for _ in range(5):
        start = whole.tell()
        pickle.load(whole)  # noqa: S301
        parts.append(whole.getvalue()[start : whole.tell()])
    for place in range(5):
        file.write_bytes(b"".join([*parts[:place], pickle.dumps(Malicious(mark)), *parts[place + 1 :]]))
        with nothing_runs(), pytest.raises(DataError, match=r"posix\.system"):
            convert(file)
    file.write_bytes(b"".join(parts))
    assert convert(file).phrases == 1
    assert not mark.exists()


def archive(entries: list[tuple[str, bytes]], kind: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", kind) as file:
        for name, data in entries:
            file.writestr(name, data)
    return made.getvalue()


@pytest.mark.fault("D13")
@pytest.mark.parametrize(
    "data",
    [
        archive([("x/data.pkl", pickle.dumps([ROW]))], zipfile.ZIP_DEFLATED),
        archive([("x/data.pkl", pickle.dumps([ROW])), ("y/data.pkl", pickle.dumps([ROW]))]),
        archive([("x/y/data.pkl", pickle.dumps([ROW]))]),
        archive([("x/data.pkl", pickle.dumps([ROW])), ("x/byteorder", b"big")]),
        archive([]),
        b"PK\x03\x04 not an archive",
        archive([("x/data.pkl", pickle.dumps([ROW]))])[:-30],
    ],
    ids=["compressed", "two", "elsewhere", "byte order", "empty", "no archive", "cut"],
)
def test_an_archive_that_torch_did_not_write_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "unc_train.pth"
    file.write_bytes(data)
    with nothing_runs(), pytest.raises(DataError, match=r"unc_train\.pth"):
        convert(file)


@pytest.mark.fault("D13")
def test_a_flipped_byte_never_does_more_than_an_error(tmp_path: Path) -> None:
    rng, file = np.random.default_rng(4), tmp_path / "unc_train.pth"
    boxed = [("a.jpg", "m", torch.tensor([1.0, 2, 3, 4]), "a man", [])]
    torch.save(boxed, file, _use_new_zipfile_serialization=False)
    for good in (file.read_bytes(), pickle.dumps([ROW] * 3, protocol=0), pickle.dumps([ROW] * 3, protocol=4)):
        for _ in range(80):
            data = bytearray(good)
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
            file.write_bytes(data)
            with nothing_runs():
                try:
                    convert(file)
                except DataError as error:
                    assert len(str(error)) < 600


@pytest.mark.fault("D13")
def test_a_damaged_entry_of_an_archive_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "unc_train.pth"
    torch.save([("a.jpg", "m", torch.tensor([1.0, 2, 3, 4]), "a man", [])], file)
    good = file.read_bytes()
    with zipfile.ZipFile(file) as opened:
        start = opened.getinfo("unc_train/data/0").header_offset
    numbers = np.array([1, 2, 3, 4], dtype="<f4").tobytes()
    for old, new in ((good[start : start + 4], b"noPK"), (numbers, numbers[::-1])):
        place = good.index(old, start)
        file.write_bytes(good[:place] + new + good[place + len(new) :])
        with pytest.raises(DataError, match=r"entry 1 of .*: a tensor whose bytes are damaged"):
            convert(file)


@pytest.mark.fault("D13")
def test_size_and_steps_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "unc_train.pth"
    file.write_bytes(b"\x80\x02](" + b"N" * 2000 + b"e.")
    with monkeypatch.context() as patch, pytest.raises(DataError, match="too many entries"):
        patch.setattr(reader, "OBJECTS", 1000)
        convert(file)
    with monkeypatch.context() as patch, pytest.raises(DataError, match="more than 2,000 bytes"):
        patch.setattr(referring_convert, "MAX_BYTES", 2000)
        convert(file)
    with file.open("wb") as large:
        large.truncate(4 << 30)
    with pytest.raises(DataError, match=r"more than [\d,]+ bytes"):
        convert(file)
    monkeypatch.setattr(referring_convert, "_TABLE_BYTES", 1000)
    file.write_bytes(archive([("x/data.pkl", pickle.dumps([ROW])), *((f"x/{n}", b"") for n in range(50))]))
    with pytest.raises(DataError, match="too many entries"):
        convert(file)


@pytest.mark.fault("D13")
def test_a_tensor_larger_than_its_bytes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "unc_train.pth"
    torch.save([("a.jpg", "m", torch.arange(8.0)[::2], "x", [])], file)
    assert convert(file).phrases == 1
    row = ("a.jpg", "m", torch.arange(8.0)[4:], "x", [])
    torch.save([row], file, _use_new_zipfile_serialization=False)
    data = file.read_bytes()
    assert data.count(b"K\x04K\x04\x85") == 1  # offset and shape
    file.write_bytes(data.replace(b"K\x04K\x04\x85", b"K\x05K\x04\x85"))
    with pytest.raises(DataError, match="larger than its bytes"):
        convert(file)
    torch.save([row], file)
    with zipfile.ZipFile(file) as opened:
        entries = [(name, opened.read(name)) for name in opened.namelist()]
    for old, new in ((b"K\x04K\x04\x85", b"K\x05K\x04\x85"), (b"K\x08tq", b"K\x09tq")):
        changed = [(name, data.replace(old, new)) for name, data in entries]
        assert changed != entries
        file.write_bytes(archive(changed))
        with pytest.raises(DataError, match=r"larger than its bytes|bytes are damaged"):
            convert(file)


NESTED = "[" * 100_000
COCO = '{"images": [%s], "annotations": [%s], "categories": [%s]}'
IMAGE = '{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}'
THING = '{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0}'
KIND = '{"id": 1, "name": "dog"}'
JSONS: dict[str, dict[str, str]] = {
    "coco2017": {
        "NaN": COCO % (IMAGE, THING.replace("2,", "NaN,"), KIND),
        "a key twice": COCO % (IMAGE, THING.replace("{", '{"id": 2, '), KIND),
        "depth": COCO % (IMAGE, NESTED, KIND),
        "a box of three": COCO % (IMAGE, THING.replace("1, 2, 3, 4", "1, 2, 3"), KIND),
        "a box of texts": COCO % (IMAGE, THING.replace("1, 2, 3, 4", '1, 2, 3, "4"'), KIND),
        "a box that is an object": COCO % (IMAGE, THING.replace("[1, 2, 3, 4]", "{}"), KIND),
        "a name that is a number": COCO % (IMAGE, THING, KIND.replace('"dog"', "7")),
        "a name that leads out": COCO % (IMAGE.replace("a.jpg", "../../a.jpg"), THING, KIND),
        "a number that is true": COCO % (IMAGE, THING.replace('"id": 1', '"id": true'), KIND),
        "a huge number": COCO % (IMAGE, THING.replace('"id": 1', '"id": ' + "9" * 30), KIND),
        "entries that are lists": COCO % (IMAGE, "[], []", KIND),
        "a list": "[]",
        "a number": "3",
        "nothing": "",
        "no annotations": '{"images": [], "categories": []}',
        "an object for a list": '{"images": {}, "annotations": {}, "categories": {}}',
        "GBK": "\udcb9\udcb7",
    },
    "visual-genome": {
        "NaN": '[{"id": 1, "regions": [{"region_id": 1, "x": NaN}]}]',
        "depth": "[" + NESTED,
        "regions that are a text": '[{"id": 1, "regions": "x"}]',
        "an object": '{"id": 1}',
        "a phrase that is null": '[{"id": 1, "regions": [{"region_id": 1, "x": 1, "y": 1, "width": 2, '
        '"height": 2, "phrase": null}]}]',
        "a picture that is a path": '[{"id": "../x", "regions": []}]',
    },
    "refcoco": {
        "NaN": '{"image": "a.jpg", "box": [1, 2, NaN, 4], "phrase": "x", "split": "train", "reference": "1"}',
        "other keys": '{"image": "a.jpg"}',
        "a list": "[1]",
        "depth": NESTED,
        "a name that leads out": '{"image": "../a.jpg", "box": [1, 2, 3, 4], "phrase": "x", '
        '"split": "train", "reference": "1"}',
        "a line without end": '"' + "x" * (1 << 20) + '"',
    },
}


@pytest.mark.fault("D12")
@pytest.mark.parametrize(("name", "what"), [(name, what) for name, files in JSONS.items() for what in files])
def test_hostile_annotations_are_refused_with_the_file_named(tmp_path: Path, name: str, what: str) -> None:
    root = write_referring_miniature(name, tmp_path / name)
    file = open_referring(root).splits[0].annotations
    file.write_bytes(JSONS[name][what].encode(errors="surrogateescape"))
    with nothing_runs(), pytest.raises(DataError, match=file.name.replace("(", r"\(")) as caught:
        open_referring(root)
    assert caught.value.exit_code == 4
    assert len(str(caught.value)) < 600
    assert any(issue.severity == "error" and file.name in issue.where for issue in check_referring(root))


@pytest.mark.fault("D12")
@pytest.mark.fault("D08")
def test_invalid_boxes_are_left_out_and_counted(tmp_path: Path) -> None:
    root = write_referring_miniature("coco2017", tmp_path / "coco")
    things = [THING, THING.replace("3, 4", "1e999, 4"), THING.replace("1, 2", "-1e12, 2")]
    things += [THING.replace("3, 4", "0, 4"), THING.replace("3, 4", "3, -4")]
    (root / "annotations" / "instances_val2017.json").write_text(COCO % (IMAGE, ",".join(things), KIND))
    found = open_referring(root, split="val")
    assert [tuple(one.box) for one in found] == [(1, 2, 3, 4)]
    assert dict(found.left_out) == {"a box without size": 4}


@pytest.mark.fault("D12")
def test_a_phrase_without_valid_text_is_left_out(tmp_path: Path) -> None:
    root = write_referring_miniature("refcoco", tmp_path / "refcoco")
    file = root / "split" / "data" / "unc" / "unc_val.jsonl"
    row = json.loads(file.read_text().splitlines()[0])
    words = ["\ud800 man", "...", " ", "the man"]
    file.write_text("\n".join(json.dumps(row | {"phrase": phrase}) for phrase in words))
    found = open_referring(root, split="val")
    assert [one.phrase for one in found] == ["the man"]
    assert found.left_out["a phrase without a word"] == 3


def test_an_archive_of_ours_is_opened_with_nothing_running(tmp_path: Path) -> None:
    file = tmp_path / "unc_train.pth"
    file.write_bytes(torch_archive([ROW], "unc_train"))
    with nothing_runs():
        assert convert(file).phrases == 1
