"""Converting referring expressions from real pickles and files of torch, and exporting COCO's index."""

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

from vltrack.core.errors import DataError, ResourceError, UsageError
from vltrack.datasets.cutouts import polygon_mask
from vltrack.datasets.images import ImageSet
from vltrack.datasets.miniatures_referring import torch_archive, write_referring_miniature
from vltrack.datasets.referring import ReferringSplit, open_referring, read_lines
from vltrack.datasets.referring_convert import convert, export_pictures, open_plain

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
    read, other = (ReferringSplit(split=split, annotations=done.path) for split in ("testA", "val"))
    for columns in (read, other):
        read_lines(columns)
    assert read.phrases == ["the left man", "man – très près", "giraffe in front"]
    assert read.boxes.tolist() == [[1.5, 2.25, 30, 40]] * 2 + [[3, 4, 5, 6]]
    assert len(other) == 0


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16, torch.int64, torch.int32])
def test_boxes_that_are_tensors_are_read_from_their_bytes(tmp_path: Path, kind: torch.dtype, zipped: bool) -> None:
    file = tmp_path / "unc_train.pth"
    torch.save(tensor_rows(kind), file, _use_new_zipfile_serialization=zipped)
    assert [row["box"] for row in lines(convert(file).path)] == [[1, 2, 30, 40], [3, 4, 5, 6]]


@pytest.mark.parametrize("protocol", range(6))
def test_a_list_in_a_pickle_of_any_protocol(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "unc_train.p"
    file.write_bytes(pickle.dumps(ROWS, protocol=protocol))
    assert [row["phrase"] for row in lines(convert(file).path)] == [row[3] for row in ROWS]


def test_corners_become_corner_and_size(tmp_path: Path) -> None:
    for name, row in (("referit_val", ("1.jpg", None, [10, 20, 110, 70], "sky", None)),
                      ("flickr_test", ("1.jpg", [10, 20, 110, 70], "sky"))):  # fmt: skip
        file = tmp_path / f"{name}.pth"
        torch.save([row], file)
        assert lines(convert(file).path)[0]["box"] == [10, 20, 100, 50]
    other = file.rename(tmp_path / "mine.pth")
    with pytest.raises(UsageError, match=r"mine\.pth"):
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
    with pytest.raises(DataError, match=r"instances\.json"):
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


def test_an_archive_of_ours_is_what_torch_reads(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    file.write_bytes(torch_archive(PLAIN, "x"))
    assert torch.load(file, weights_only=True) == PLAIN
    with open_plain(file) as opened:
        assert opened.content == json.loads(json.dumps(PLAIN))


@pytest.mark.parametrize(
    ("rows", "issue"),
    [
        ([("a.jpg", 1, [1, 2, 3], "x", 1)], "entry 1 of .* a list of 3"),
        ([ROWS[0], ("a.jpg", 1, [1, 2, 3, "4"], "x", 1)], "entry 2 of .*'4'"),
        ([("a.jpg", 1, [1, 2, 3, True], "x", 1)], "True"),
        ([("a.jpg", 1, [1, 2, 3, float("nan")], "x", 1)], "nan"),
        ([("a.jpg", 1, [1, 2, 3, 10**400], "x", 1)], "a huge number"),
        ([("../../a.jpg", 1, [1, 2, 3, 4], "x", 1)], "'../../a.jpg'"),
        ([("/a.jpg", 1, [1, 2, 3, 4], "x", 1)], "'/a.jpg'"),
        ([("a.jpg", 1, [1, 2, 3, 4], 3, 1)], "phrase is 3"),
        ([("a.jpg", 1, [1, 2, 3, 4], None, 1)], "phrase is None"),
        ([("a.jpg", [1, 2, 3, 4])], "a list of 2 where"),
        ([3], "entry 1 of .* 3 where"),
        ([], "a list of 0"),
        ("abc", "'abc'"),
        ([("a.jpg", 1, torch.ones(5), "x", 1)], "tensor of four numbers"),
        ([("a.jpg", 1, torch.ones(2, 2), "x", 1)], "tensor of four numbers"),
        ([("a.jpg", 1, torch.ones(4, dtype=torch.complex64), "x", 1)], "torch.ComplexFloatStorage"),
        ([("a.jpg", 1, np.ones(4), "x", 1)], "more than plain data"),
    ],
)
def test_an_invalid_entry_is_named_and_nothing_is_written(tmp_path: Path, rows: Any, issue: str) -> None:
    file = tmp_path / "unc_train.pth"
    torch.save(rows, file)
    with pytest.raises(DataError, match=issue) as caught:
        convert(file)
    assert str(file) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["unc_train.pth"]


@pytest.mark.parametrize(
    ("change", "issue"),
    [
        ({"ann_id": 99}, r"entry 1 of .* 99 .*instances\.json"),
        ({"ann_id": "12"}, "ann_id is '12'"),
        ({"ann_id": 2**70}, "ann_id is 1180591620717411303424"),
        ({"ref_id": None}, "ref_id is None"),
        ({"split": 3}, "split is 3"),
        ({"sentences": "man"}, "sentences is 'man'"),
        ({"sentences": [1]}, "sentences is a list of 1"),
        ({"sentences": [{}]}, "raw is None"),
    ],
)
def test_an_invalid_reference_is_named(tmp_path: Path, change: dict[str, Any], issue: str) -> None:
    entries, instances = refs()
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([entries[0] | change]))
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    with pytest.raises(DataError, match=issue):
        convert(tmp_path / "refs(unc).p")
    assert not (tmp_path / "refs(unc).jsonl").exists()


def test_torch_is_not_loaded(tmp_path: Path) -> None:
    file = tmp_path / "unc_val.pth"
    torch.save(tensor_rows(torch.float32), file)
    code = (
        "import sys; from pathlib import Path; from vltrack.datasets.referring_convert import convert; "
        "import vltrack.datasets.check, vltrack.datasets.miniatures_referring; "
        "convert(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)
    assert len(lines(tmp_path / "unc_val.jsonl")) == 2


# -- COCO as training images ---------------------------------------------------------------------------------


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return write_referring_miniature("coco2017", tmp_path / "coco")


def spoil(coco: Path, **changes: object) -> Path:
    file = coco / "annotations" / "instances_train2017.json"
    made = json.loads(file.read_text())
    made["annotations"][0] |= changes
    file.write_text(json.dumps(made))
    return file


def test_the_index_lists_what_coco_annotates(coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "else" / "images"
    out.mkdir(parents=True)
    assert export_pictures(coco, out, min_side=15) == 3
    images = ImageSet.load(out)
    listed = {(box.name, *box.box) for image in images for box in image.instances}
    wanted = {(one.phrase, *one.box) for one in open_referring(coco, split="train", min_side=15)}
    assert listed == wanted
    assert all(np.array_equal(images.image(k), images.image(k)) for k in range(3))
    for image in images:
        for thing in image.instances:
            x, y, w, h = thing.box
            (polygon,) = thing.polygons
            assert np.allclose([*polygon.min(axis=0), *np.ptp(polygon, axis=0)], [x, y, w, h])


def test_parts_are_joined_without_a_line_and_boxes_need_no_outline(coco: Path, tmp_path: Path) -> None:
    left, right = [10, 10, 40, 10, 40, 70, 10, 70], [120, 20, 150, 20, 150, 80, 120, 80]
    spoil(coco, bbox=[10, 10, 140, 70], segmentation=[left, right])
    export_pictures(coco, tmp_path, min_side=60)
    image = ImageSet.load(tmp_path)[0]
    mask = polygon_mask(image.instances[0].polygons[0], 240, 320)
    assert mask[15:65, 15:35].min() == 255
    assert mask[25:75, 125:145].min() == 255
    assert mask[:, 45:115].max() == 0
    spoil(coco, segmentation=[])
    export_pictures(coco, tmp_path, min_side=60)
    image = ImageSet.load(tmp_path)[0]
    assert [thing.polygons for thing in image.instances] == [()]


def test_licenses_are_those_of_coco(coco: Path, tmp_path: Path) -> None:
    file = coco / "annotations" / "instances_train2017.json"
    made = json.loads(file.read_text())
    made["licenses"] = [{"id": 4, "name": "Attribution License", "url": ""}]
    made["images"][0]["license"] = 4
    file.write_text(json.dumps(made))
    export_pictures(coco, tmp_path, min_side=1)
    assert [row["lic"] for row in lines(tmp_path / "index.jsonl")] == ["Attribution License", "", ""]


def test_export_errors(coco: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="above 500 pixels"):
        export_pictures(coco, tmp_path, min_side=500)
    with pytest.raises(DataError, match="'test'"):
        export_pictures(coco, tmp_path, split="test")
    with pytest.raises(ResourceError, match=str(tmp_path / "no")):
        export_pictures(coco, tmp_path / "no", min_side=1)
    for parts in ([[1, 2, 3]], [[1, 2, 3, 4, 5, 6, 7]], [["a"] * 6], [3], [[1, 2, 3, 4, 5, 1e999]]):
        file = spoil(coco, bbox=[1, 2, 90, 90], segmentation=parts)
        file.write_text(file.read_text().replace("Infinity", "1e999"))
        with pytest.raises(DataError, match="annotations entry 1: segmentation"):
            export_pictures(coco, tmp_path)
    assert not (tmp_path / "index.jsonl").exists()
