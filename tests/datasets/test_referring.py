"""Referring expressions: every miniature opens, is checked, and damage is reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from vltrack.core.errors import DataError, ResourceError
from vltrack.datasets.check import check_referring
from vltrack.datasets.miniatures_referring import write_referring_miniature
from vltrack.datasets.referring import REFERRING_LAYOUTS, detect_referring, open_referring
from vltrack.datasets.synthetic import COLORS, SHAPES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the miniature of each set under its name."""
    root = tmp_path_factory.mktemp("referring")
    for name in REFERRING_LAYOUTS:
        write_referring_miniature(name, root / name)
    return root


@pytest.fixture
def copy(made: Path, tmp_path: Path):
    def take(name: str) -> Path:
        return Path(shutil.copytree(made / name, tmp_path / name))

    return take


def messages(path: Path, severity: str = "error", name: str | None = None) -> str:
    return "\n".join(f"{f} {f.hint}" for f in check_referring(path, name) if f.severity == severity)


@pytest.mark.parametrize("name", REFERRING_LAYOUTS)
def test_a_miniature_opens_under_its_name_without_errors(made: Path, name: str) -> None:
    phrases = open_referring(made / name)
    assert phrases.name == name
    assert [split.split for split in phrases.splits] == list(REFERRING_LAYOUTS[name].splits)
    assert len(list(phrases)) == len(phrases) > 4
    for one in phrases:
        assert one.box.dtype == np.float64
        assert one.box.shape == (4,)
        assert one.box[2:].min() > 0
        assert one.image().shape == (240, 320, 3)
    assert messages(made / name) == ""
    assert messages(made / name, "warning").count("\n") == 0  # Visual Genome has one


@pytest.mark.parametrize("name", ["refcoco", "refcoco+", "refcocog", "refcocog-umd", "visual-genome"])
def test_the_box_has_the_color_of_the_phrase(made: Path, name: str) -> None:
    checked = 0
    for image, phrase, box in open_referring(made / name).samples():
        colors = [color for color in COLORS if color in phrase]
        if colors:
            x, y, w, h = np.round(box).astype(int)
            off = np.abs(image[y : y + h, x : x + w].astype(int) - COLORS[colors[0]]).max(axis=-1)
            assert (off < 60).mean() > 0.2, phrase
            checked += 1
    assert checked > 2


def test_a_miniature_has_the_same_bytes_each_time(made: Path, tmp_path: Path) -> None:
    for name in ("coco2017", "refcoco", "visual-genome"):
        again = write_referring_miniature(name, tmp_path / name)
        files = sorted(file.relative_to(again) for file in again.rglob("*") if file.is_file())
        assert files == sorted(file.relative_to(made / name) for file in (made / name).rglob("*") if file.is_file())
        assert all((again / file).read_bytes() == (made / name / file).read_bytes() for file in files)
    with pytest.raises(ResourceError, match=str(tmp_path / "coco2017")):
        write_referring_miniature("coco2017", tmp_path / "coco2017")
    with pytest.raises(DataError, match=r"'coco'.* coco2017, refcoco"):
        write_referring_miniature("coco", tmp_path / "x")


def test_coco_leaves_out_crowds_and_on_demand_small_boxes(made: Path) -> None:
    everything = open_referring(made / "coco2017", split="val")
    assert dict(everything.left_out) == {"a crowd": 1}
    assert {one.phrase for one in everything} <= set(SHAPES)
    large = open_referring(made / "coco2017", split="val", min_side=50)
    sides = np.concatenate([split.boxes[:, 2:] for split in everything.splits])
    assert len(large) == int((sides > 50).all(axis=1).sum()) < len(everything)
    assert large.left_out["a box of 50 pixels or less"] == len(everything) - len(large)
    assert min(one.box[2:].min() for one in large) > 50


def test_coco_opens_with_either_folder_of_images(copy) -> None:
    root = copy("coco2017")
    (root / "images" / "train2017").rename(root / "train2017")
    first = open_referring(root, split="train")[0]
    assert first.file.parent == root / "train2017"
    assert first.image().any()


def test_both_ways_in_which_refcoco_is_written_hold_the_same(made: Path, copy) -> None:
    lists = [(one.file.name, *one.box, one.phrase, one.split) for one in open_referring(made / "refcoco")]
    root = copy("refcoco")
    shutil.rmtree(root / "split")
    refs = open_referring(root)
    assert [(one.file.name, *one.box, one.phrase, one.split) for one in refs] == lists
    assert refs.splits[0].annotations.name == "refs(unc).jsonl"
    assert refs[0].reference == refs[1].reference != refs[4].reference


def test_index_out_of_range(made: Path) -> None:
    phrases = open_referring(made / "visual-genome")
    for index in (-1, len(phrases)):
        with pytest.raises(IndexError):
            phrases[index]


def test_an_image_with_several_phrases_is_decoded_once(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vltrack.datasets.referring as module

    read: list[Path] = []
    decode = module.read_rgb
    monkeypatch.setattr(module, "read_rgb", lambda path: (read.append(path), decode(path))[1])
    count = sum(1 for _ in open_referring(made / "refcoco", split="train").samples())
    assert len(read) == 3 < count


def test_the_set_is_detected_by_its_files(made: Path, tmp_path: Path) -> None:
    for root, choice, value in (
        (tmp_path / "no", {}, "no"),
        (tmp_path / "train2017.zip", {}, "train2017.zip"),
        (tmp_path, {}, "coco2017"),
        (made / "coco2017", {"name": "cocoa"}, "'cocoa'"),
        (made / "refcoco", {"split": "test"}, r"'test'.*train, val, testA"),
        (made / "coco2017", {"name": "refcoco"}, "fetch-help refcoco"),
    ):
        with pytest.raises(DataError, match=value) as caught:
            open_referring(root, **choice)
        assert caught.value.exit_code == 4
    shutil.copytree(made / "refcoco" / "refcoco", tmp_path / "both" / "refcoco")
    shutil.copytree(made / "refcocog" / "refcocog", tmp_path / "both" / "refcocog")
    with pytest.raises(DataError, match="refcoco, refcocog"):
        detect_referring(tmp_path / "both")


@pytest.mark.fault("D13")
@pytest.mark.parametrize("kind", [".p", ".pth"])
def test_a_pickle_is_not_read_but_the_converter_is_named(copy, kind: str) -> None:
    root = copy("refcoco")
    for file in root.rglob("*.jsonl"):
        file.unlink()
    for file in root.rglob("*.p" if kind == ".pth" else "*.pth"):
        file.unlink()
    with pytest.raises(DataError, match=r"datasets convert '.*\." + kind[1:]) as caught:
        open_referring(root)
    assert caught.value.exit_code == 4
    assert "vltrack datasets convert" in messages(root)


def test_check_reports_all_errors_at_once(copy) -> None:
    root = copy("refcoco")
    lists = root / "split" / "data" / "unc"
    (lists / "unc_testA.jsonl").unlink()
    shutil.rmtree(root / "refcoco")
    (lists / "unc_val.jsonl").write_text('{"image": 3}\n')
    images = sorted((root / "train2014").iterdir())
    images[0].unlink()
    images[1].write_bytes(b"not an image")
    errors, warnings = messages(root), messages(root, "warning")
    assert "unc_val.jsonl line 1" in errors
    assert "1 of 3 images are missing, such as COCO_train2014_000000000001.jpg" in errors
    assert errors.count(images[1].name) == 2
    assert errors.count("\n") == 2
    assert "'testA'" in warnings
    assert "unc_testA.pth" in warnings


def test_check_reports_odd_annotations(copy) -> None:
    root = copy("coco2017")
    file = root / "annotations" / "instances_val2017.json"
    made = json.loads(file.read_text())
    made["annotations"][0]["bbox"] = [300, 10, 90, 40]
    made["annotations"][1]["bbox"] = [3, 10, 0, 40]
    made["annotations"][2]["image_id"] = 77
    made["categories"].append({"id": 99, "name": "12, 7"})
    made["annotations"][3]["category_id"] = 99
    file.write_text(json.dumps(made))
    cv2.imwrite(str(next((root / "images" / "val2017").iterdir())), np.zeros((50, 60, 3), np.uint8))
    warnings = messages(root, "warning")
    assert "1 box more than a pixel outside" in warnings
    assert "a box without size" in warnings
    assert "not listed" in warnings
    assert "only numbers in 1 expression" in warnings
    assert warnings.count("\n") == 3
    assert "60x50, its annotation says 320x240" in messages(root)


def test_check_of_other_folders(tmp_path: Path) -> None:
    assert str(tmp_path / "no") in messages(tmp_path / "no")
    assert "coco2017" in messages(tmp_path)
    assert "'x'" in messages(tmp_path, name="x")
    assert "fetch-help coco2017" in messages(tmp_path, name="coco2017")


def test_nothing_is_written_next_to_the_data(copy) -> None:
    root = copy("refcocog")
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*")}
    check_referring(root)
    list(open_referring(root).samples())
    assert {file: file.stat().st_mtime_ns for file in root.rglob("*")} == before
