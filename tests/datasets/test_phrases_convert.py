"""The converter: what real pickles and files of torch give, against Python's and torch's own readers."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vltrack.core.errors import DataError, UsageError
from vltrack.datasets.miniatures_referring import plain_pickle, torch_archive
from vltrack.datasets.referring_convert import convert, open_plain
from vltrack.datasets.referring_json import read_lines

ROWS: list[tuple[Any, ...]] = [
    ("COCO_train2014_000000000009.jpg", "9.pth", [1.5, 2.25, 30.0, 40.0], "the left man", [("r1", ["none"])]),
    ("COCO_train2014_000000000009.jpg", "9.pth", [1.5, 2.25, 30.0, 40.0], "man – très près", []),
    ("COCO_train2014_000000000025.jpg", "25.pth", (3, 4, 5, 6), "  giraffe\tin front ", None),
]
PLAIN = {
    "none": None,
    "numbers": [0, 1, -1, 127, 128, -128, 2**31, -(2**40), 10**30, 0.5, -1e300, True, False],
    "texts": ("", "ü🐒", "x" * 300),
    "nested": [({}, []), ({"a": (1,)},)],
}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def tensor_rows(kind: torch.dtype) -> list[tuple[Any, ...]]:
    both = torch.tensor([[9, 9, 9, 9], [1, 2, 30, 40], [3, 4, 5, 6]], dtype=kind)
    return [("a.jpg", None, both[1], "a man", None), ("b.jpg", None, both[2].clone(), "a dog", None)]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["unc", "unc+", "gref", "gref_umd"])
def test_a_list_of_torch_becomes_lines(tmp_path: Path, name: str, zipped: bool) -> None:
    file = tmp_path / f"{name}_testA.pth"
    torch.save(ROWS, file, _use_new_zipfile_serialization=zipped)
    done = convert(file)
    assert (done.path, done.phrases, done.splits) == (tmp_path / f"{name}_testA.jsonl", 3, {"testA": 3})
    found = lines(done.path)
    assert [row["image"] for row in found] == [row[0] for row in ROWS]
    assert [row["box"] for row in found] == [[1.5, 2.25, 30, 40]] * 2 + [[3, 4, 5, 6]]
    assert [row["phrase"] for row in found] == [row[3] for row in ROWS]
    assert [row["split"] for row in found] == ["testA"] * 3
    assert found[0]["reference"] == found[1]["reference"] != found[2]["reference"]
    columns = read_lines(done.path, "testA")
    assert columns.phrases == ["the left man", "man – très près", "giraffe in front"]
    assert list(columns.boxes) == [1.5, 2.25, 30, 40, 1.5, 2.25, 30, 40, 3, 4, 5, 6]
    assert read_lines(done.path, "val").phrases == []


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16, torch.int64, torch.int32])
def test_boxes_that_are_tensors_are_read_from_their_bytes(
    tmp_path: Path, kind: torch.dtype, zipped: bool
) -> None:
    file = tmp_path / "unc_train.pth"
    torch.save(tensor_rows(kind), file, _use_new_zipfile_serialization=zipped)
    assert [row["box"] for row in lines(convert(file).path)] == [[1, 2, 30, 40], [3, 4, 5, 6]]


@pytest.mark.parametrize("protocol", range(6))
def test_a_list_in_a_pickle_of_any_protocol(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "unc_train.p"
    file.write_bytes(pickle.dumps(ROWS, protocol=protocol))
    assert [row["phrase"] for row in lines(convert(file).path)] == [row[3] for row in ROWS]


def test_corners_become_corner_and_size(tmp_path: Path) -> None:
    file = tmp_path / "referit_val.pth"
    torch.save([("1.jpg", None, [10, 20, 110, 70], "sky", None)], file)
    assert lines(convert(file).path)[0]["box"] == [10, 20, 100, 50]
    file = tmp_path / "flickr_test.pth"
    torch.save([("1.jpg", [10, 20, 110, 70], "sky")], file)
    assert lines(convert(file).path)[0]["box"] == [10, 20, 100, 50]
    other = file.rename(tmp_path / "mine.pth")
    with pytest.raises(UsageError, match=r"mine\.pth is called like none of unc_SPLIT\.pth"):
        convert(other)
    assert not list(tmp_path.glob("mine*.jsonl"))
    assert lines(convert(other, boxes="xywh").path)[0]["box"] == [10, 20, 110, 70]


def refs(split: str = "val") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    sentences = [
        {"tokens": ["man"], "raw": "Man.", "sent_id": 1, "sent": "man"},
        {"tokens": ["he"], "raw": "he", "sent_id": 2},
    ]
    entry = {"ref_id": 7, "ann_id": 12, "image_id": 9, "category_id": 1, "file_name": "COCO_9_12.jpg"}
    images = [{"id": 9, "file_name": "COCO_9.jpg", "width": 50, "height": 40}]
    things = [{"id": n, "image_id": 9, "category_id": 1, "bbox": [1, 2.5, n, 4]} for n in (11, 12, 13)]
    return [entry | {"split": split, "sentences": sentences}], {"images": images, "annotations": things}


@pytest.mark.parametrize("protocol", range(6))
def test_refs_take_their_boxes_from_instances(tmp_path: Path, protocol: int) -> None:
    entries, instances = refs()
    file = tmp_path / "refs(unc).p"
    file.write_bytes(pickle.dumps(entries, protocol=protocol))
    with pytest.raises(DataError, match=r"instances\.json, which is not at"):
        convert(file)
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    done = convert(file)
    assert done.path == tmp_path / "refs(unc).jsonl"
    wanted = {"image": "COCO_9.jpg", "box": [1.0, 2.5, 12.0, 4.0], "split": "val", "reference": "7"}
    assert lines(done.path) == [wanted | {"phrase": "man"}, wanted | {"phrase": "he"}]
    (tmp_path / "instances.json").rename(tmp_path / "other.json")
    again = convert(file, tmp_path / "x.jsonl", instances=tmp_path / "other.json")
    assert again.path.read_bytes() == done.path.read_bytes()


def test_refs_as_python_2_wrote_them(tmp_path: Path) -> None:
    """Protocol 0 with byte strings, long numbers and unicode texts."""
    text = (
        b"(lp0\n(dp1\nS'ref_id'\np2\nI7\nsS'ann_id'\np3\nL12L\nsS'split'\np4\nS'val'\np5\ns"
        b"S'sentences'\np6\n(lp7\n(dp8\nS'sent'\np9\nVman \\u2013 he\np10\nsasa."
    )
    assert pickle.loads(text)[0]["sentences"] == [{"sent": "man – he"}]  # noqa: S301
    (tmp_path / "refs(google).p").write_bytes(text)
    (tmp_path / "instances.json").write_text(json.dumps(refs()[1]))
    (row,) = lines(convert(tmp_path / "refs(google).p").path)
    assert (row["phrase"], row["reference"], row["split"]) == ("man – he", "7", "val")


def test_what_is_written_as_a_pickle_is_what_python_and_torch_read(tmp_path: Path) -> None:
    assert pickle.loads(plain_pickle(PLAIN)) == PLAIN  # noqa: S301
    file = tmp_path / "x.pth"
    file.write_bytes(torch_archive(PLAIN, "x"))
    assert torch.load(file, weights_only=True) == PLAIN
    with open_plain(file) as opened:
        assert opened.content == json.loads(json.dumps(PLAIN))
    with pytest.raises(TypeError, match="set is no plain data"):
        plain_pickle([{1}])


@pytest.mark.parametrize(
    ("rows", "issue"),
    [
        ([("a.jpg", 1, [1, 2, 3], "x", 1)], "entry 1: box is a list of 3, not four numbers"),
        ([ROWS[0], ("a.jpg", 1, [1, 2, 3, "4"], "x", 1)], "entry 2: box is '4', not a number"),
        ([("a.jpg", 1, [1, 2, 3, True], "x", 1)], "box is True, not a number"),
        ([("a.jpg", 1, [1, 2, 3, float("nan")], "x", 1)], "not finite"),
        ([("a.jpg", 1, [1, 2, 3, 10**400], "x", 1)], "box is a huge number"),
        ([("../../a.jpg", 1, [1, 2, 3, 4], "x", 1)], "'../../a.jpg' is no file name below a folder"),
        ([("/a.jpg", 1, [1, 2, 3, 4], "x", 1)], "no file name"),
        ([("a.jpg", 1, [1, 2, 3, 4], 3, 1)], "phrase is 3, not a text"),
        ([("a.jpg", 1, [1, 2, 3, 4], None, 1)], "phrase is None, not a text"),
        ([("a.jpg", [1, 2, 3, 4])], r"a list of 2 where \(name, ..., box, phrase, ...\) should be"),
        ([3], "entry 1: 3 where"),
        ([], "a list of 0, not a list of phrases"),
        ("abc", "'abc', not a list of phrases"),
        ([("a.jpg", 1, torch.ones(5), "x", 1)], "not a tensor of four numbers"),
        ([("a.jpg", 1, torch.ones(2, 2), "x", 1)], "not a tensor of four numbers"),
        ([("a.jpg", 1, torch.ones(4, dtype=torch.complex64), "x", 1)], "it names torch.ComplexFloatStorage"),
        ([("a.jpg", 1, np.ones(4), "x", 1)], "more than plain data"),
    ],
)
def test_an_entry_at_fault_is_named_and_nothing_is_written(tmp_path: Path, rows: Any, issue: str) -> None:
    file = tmp_path / "unc_train.pth"
    torch.save(rows, file)
    with pytest.raises(DataError, match=issue) as caught:
        convert(file)
    assert str(file) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["unc_train.pth"]


@pytest.mark.parametrize(
    ("change", "issue"),
    [
        ({"ann_id": 99}, r"entry 1: its thing 99 is not in instances\.json"),
        ({"ann_id": "12"}, "ann_id is '12', not a whole number"),
        ({"ann_id": 2**70}, "ann_id is 1180591620717411303424, not a whole number"),
        ({"ref_id": None}, "ref_id is None"),
        ({"split": 3}, "split is 3, not a text"),
        ({"sentences": "man"}, "sentences is 'man', not a list of objects"),
        ({"sentences": [1]}, "sentences is a list of 1, not a list of objects"),
        ({"sentences": [{}]}, "raw is None, not a text"),
    ],
)
def test_a_ref_at_fault_is_named(tmp_path: Path, change: dict[str, Any], issue: str) -> None:
    entries, instances = refs()
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([entries[0] | change]))
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    with pytest.raises(DataError, match=issue):
        convert(tmp_path / "refs(unc).p")
    assert not (tmp_path / "refs(unc).jsonl").exists()


def test_converting_loads_no_torch(tmp_path: Path) -> None:
    file = tmp_path / "unc_val.pth"
    torch.save(tensor_rows(torch.float32), file)
    code = (
        "import sys; from pathlib import Path; from vltrack.datasets.referring_convert import convert; "
        "convert(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)
    assert len(lines(tmp_path / "unc_val.jsonl")) == 2
