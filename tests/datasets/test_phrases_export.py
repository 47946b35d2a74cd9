"""COCO as training pictures: the index that is written opens as docs/train.md says, with true outlines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vltrack.core.errors import DataError, ResourceError
from vltrack.datasets.cutouts import polygon_mask
from vltrack.datasets.images import ImageSet
from vltrack.datasets.miniatures_referring import write_referring_miniature
from vltrack.datasets.referring import open_referring
from vltrack.datasets.referring_convert import export_pictures


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
    out = tmp_path / "else" / "pictures"
    out.mkdir(parents=True)
    assert export_pictures(coco, out, min_side=15) == 3
    pictures = ImageSet.load(out)
    listed = {(box.name, *box.box) for picture in pictures for box in picture.instances}
    wanted = {(one.phrase, *one.box) for one in open_referring(coco, split="train", min_side=15)}
    assert listed == wanted
    assert all(np.array_equal(pictures.image(k), pictures.image(k)) for k in range(3))
    for picture in pictures:
        for thing in picture.instances:
            x, y, w, h = thing.box
            assert thing.polygon is not None
            assert np.allclose([*thing.polygon.min(axis=0), *np.ptp(thing.polygon, axis=0)], [x, y, w, h])


def test_parts_are_joined_without_a_line_and_boxes_may_stand_alone(coco: Path, tmp_path: Path) -> None:
    left, right = [10, 10, 40, 10, 40, 70, 10, 70], [120, 20, 150, 20, 150, 80, 120, 80]
    spoil(coco, bbox=[10, 10, 140, 70], segmentation=[left, right])
    export_pictures(coco, tmp_path, min_side=60)
    picture = ImageSet.load(tmp_path)[0]
    mask = polygon_mask(picture.instances[0].polygon, 240, 320)
    assert mask[15:65, 15:35].min() == 255
    assert mask[25:75, 125:145].min() == 255
    assert mask[:, 45:115].max() == 0
    spoil(coco, segmentation=[])
    export_pictures(coco, tmp_path, min_side=60)
    picture = ImageSet.load(tmp_path)[0]
    assert [thing.polygon for thing in picture.instances] == [None]


def test_the_licence_is_what_coco_says_of_the_picture(coco: Path, tmp_path: Path) -> None:
    file = coco / "annotations" / "instances_train2017.json"
    made = json.loads(file.read_text())
    made["licenses"] = [{"id": 4, "name": "Attribution License", "url": ""}]
    made["images"][0]["license"] = 4
    file.write_text(json.dumps(made))
    export_pictures(coco, tmp_path, min_side=1)
    assert [picture.license for picture in ImageSet.load(tmp_path)] == ["Attribution License", "", ""]


def test_what_cannot_be_exported_is_told(coco: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no thing above 500 pixels"):
        export_pictures(coco, tmp_path, min_side=500)
    with pytest.raises(DataError, match="no annotations of the split test"):
        export_pictures(coco, tmp_path, split="test")
    with pytest.raises(ResourceError, match="folder does not exist"):
        export_pictures(coco, tmp_path / "no", min_side=1)
    for parts in ([[1, 2, 3]], [[1, 2, 3, 4, 5, 6, 7]], [["a"] * 6], [3], [[1, 2, 3, 4, 5, 1e999]]):
        file = spoil(coco, bbox=[1, 2, 90, 90], segmentation=parts)
        file.write_text(file.read_text().replace("Infinity", "1e999"))
        with pytest.raises(DataError, match="annotations entry 1: segmentation"):
            export_pictures(coco, tmp_path)
    assert not (tmp_path / "index.jsonl").exists()
