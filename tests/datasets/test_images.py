"""Image index, cut-and-paste objects and dominant colors: reading, errors, how exact an outline is."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from vltrack.core.errors import DataError
from vltrack.datasets.cutouts import CutoutSet, build_cutouts, dominant_color, make_patch, outline_of, polygon_mask
from vltrack.datasets.images import ByteCache, ImageSet, held_out, load_clips, plain_name


def test_index_is_read_and_images_decode(image_root: Path) -> None:
    images = ImageSet.load(image_root)
    assert len(images) == 18
    assert images[0].instances[0].name == "tile"
    assert images[0].instances[0].polygons[0].shape == (4, 2)
    assert images[17].main_object == "balls"
    assert images.image(3).shape == (160, 200, 3)
    assert images.image(3) is images.image(3)


def test_the_cache_keeps_memory_bounded(image_root: Path) -> None:
    images = ImageSet.load(image_root)
    images._cache = ByteCache(200_000)
    first = images.image(0).copy()
    for index in range(18):
        images.image(index)
        assert images._cache.size <= 200_000
    assert np.array_equal(images.image(0), first)


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"f": "a.png", "w": 1}', '{"f":"a","w":9,"h":9,"inst":[],"box":[{"c":"x","b":[0,0,0,5]}]}',
     '{"f":"a","w":9,"h":9,"inst":[{"c":"x","b":[0,0,1,5],"p":["q"]}]}'],
)  # fmt: skip
def test_damaged_index_names_file_and_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "index.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=r"index\.jsonl:1"):
        ImageSet.load(tmp_path)


def test_missing_root_file_and_damaged_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no/index\.jsonl"):
        ImageSet.load(tmp_path / "no")
    entry = {"f": "a.png", "w": 9, "h": 9, "box": [{"c": "cat", "b": [1, 1, 3, 3]}]}
    (tmp_path / "index.jsonl").write_text(json.dumps(entry))
    with pytest.raises(DataError, match=r"a\.png"):
        ImageSet.load(tmp_path)
    (tmp_path / "a.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"a\.png"):
        ImageSet.load(tmp_path).image(0)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((9, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"8x9.* 9x9"):
        ImageSet.load(tmp_path).image(0)
    (tmp_path / "index.jsonl").write_text(json.dumps(entry | {"box": [], "whole": "cat"}))
    assert ImageSet.load(tmp_path).image(0).shape == (9, 8, 3)


FULL = {
    "f": "coco2/a.png", "w": 90, "h": 60, "src": "made", "lic": "none", "only": "person", "cap": ["A street."],
    "crowd": [{"c": "person", "b": [50, 0, 40, 20]}, [0, 0, 9, 9]], "group": ["street"],
    "inst": [
        {"c": "person", "b": [5, 5, 30, 50], "p": [5, 5, 35, 5, 35, 30, 5, 30], "pp": [[8, 40, 20, 40, 20, 55, 8, 55]],
         "col": "grey", "q": ["the woman in the grey coat"], "who": "woman", "att": {"coat": "grey", "bag": None},
         "top": "white"},
        {"c": "dog", "b": [60, 30, 20, 20]},
    ],
    "box": [{"c": "dog", "b": [60, 30, 21, 20]}],
}  # fmt: skip


def test_all_keys_of_the_index_are_read(tmp_path: Path) -> None:
    (tmp_path / "coco2").mkdir()
    cv2.imwrite(str(tmp_path / "coco2/a.png"), np.zeros((60, 90, 3), np.uint8))
    (tmp_path / "index.jsonl").write_text(json.dumps(FULL))
    (entry,) = ImageSet.load(tmp_path)
    person, dog, again = entry.instances
    assert [outline.shape for outline in person.polygons] == [(4, 2), (4, 2)]
    assert (person.color, person.person, person.sentences) == ("gray", "woman", ("the woman in the gray coat",))
    assert dict(person.clothes) == {"coat": "gray", "bag": "", "top": "white"}
    assert (dog.polygons, dog.repeats, again.repeats, again.box) == ((), False, True, (60, 30, 21, 20))
    assert (entry.only, entry.captions, entry.groups, entry.transparent) == (
        "person",
        ("A street.",),
        ("street",),
        False,
    )
    assert [(crowd.name, crowd.box) for crowd in entry.crowds] == [("person", (50, 0, 40, 20)), ("", (0, 0, 9, 9))]


@pytest.mark.parametrize(
    "change",
    [{"q": "the dog"}, {"q": [3]}, {"att": ["coat"]}, {"pp": [[1, 2, 3]]}, {"pp": [1, 2]},
     {"p": [1e999, 2, 3, 4, 5, 6]}, {"b": [1, 2, 10**400, 4]}],
)  # fmt: skip
def test_a_wrong_type_or_number_in_a_further_key_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    row = FULL | {"inst": [FULL["inst"][0] | change]}
    (tmp_path / "index.jsonl").write_text(json.dumps(row, allow_nan=True).replace("Infinity", "1e999"))
    with pytest.raises(DataError, match=r"index\.jsonl:1"):
        ImageSet.load(tmp_path)


def test_several_folders_are_one_set(image_root: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "p00.png"), np.full((60, 90, 3), 77, np.uint8))
    (tmp_path / "index.jsonl").write_text(json.dumps({"f": "p00.png", "w": 90, "h": 60}))
    both = ImageSet.load(image_root, tmp_path)
    assert len(both) == 19
    assert both.path(both[0]) == image_root / "p00.png"
    assert both.path(both[18]) == tmp_path / "p00.png"
    assert (both.image(18) == 77).all()


def write_clip(root: Path, name: str, targets: list[dict[str, object]], numbers: tuple[int, ...] = (0, 2, 4)) -> Path:
    (root / name).mkdir(parents=True)
    for number in numbers:
        cv2.imwrite(str(root / name / f"{number:05d}.jpg"), np.zeros((60, 90, 3), np.uint8))
    (root / name / "clip.json").write_text(json.dumps({"targets": targets}))
    with (root / "clips.jsonl").open("a") as lines:
        lines.write(json.dumps({"d": name, "n": len(numbers)}) + "\n")
    return root


def test_clips_are_sequences(tmp_path: Path) -> None:
    cow = {"c": "cow", "sentences": ["the cow", "a brown cow"], "frames": [[4, [1, 2, 3, 4], [[1, 2, 4, 2, 4, 6]]]]}
    dog = {"c": "dog", "sentences": [], "frames": [[0, [9, 9, 9, 9]], [2, [8, 9, 9, 9]]]}
    write_clip(tmp_path, "a/field", [cow, dog])
    write_clip(tmp_path, "a/road", [cow])
    first, second, third = load_clips(tmp_path)
    assert [one.name for one in (first, second, third)] == ["a/field-1", "a/field-2", "a/road"]
    assert first.absent.tolist() == [True, True, False]
    assert second.absent.tolist() == [False, False, True]
    assert np.isnan(first.boxes[:2]).all()
    assert first.boxes[2].tolist() == [1, 2, 3, 4]
    assert (first.sentence, first.sentences) == ("the cow", ("the cow", "a brown cow"))
    assert (second.sentence, second.sentences) == ("", ())
    assert list(first.files) == [tmp_path / "a/field" / f"0000{number}.jpg" for number in (0, 2, 4)]
    assert [frame.image.shape for frame in third.frames()] == [(60, 90, 3)] * 3
    assert load_clips(tmp_path / "a") == ()


@pytest.mark.parametrize(
    ("target", "said"),
    [({"frames": [[1, [1, 2, 3, 4]]]}, "frame 1 has no image"), ({"frames": []}, "target 1 is in no frame"),
     ({"frames": [[0, [1, 2, 0, 4]]]}, r"target 0: box"), ({"frames": [["0", [1, 2, 3, 4]]]}, "frame '0'"),
     ({"frames": [[0, [1, 2, 3, 4]], [0, [1, 2, 3, 4]]]}, "frame 0"), ({"frames": 3}, "not iterable"),
     ({"sentences": "x", "frames": []}, "not a list of texts")],
)  # fmt: skip
def test_a_damaged_clip_names_file_and_place(tmp_path: Path, target: dict[str, object], said: str) -> None:
    write_clip(tmp_path, "field", [{"c": "cow"} | target])
    with pytest.raises(DataError, match=rf"clip\.json.*{said}"):
        load_clips(tmp_path)


def test_a_clip_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clips.jsonl").write_text('{"d": "../field"}')
    with pytest.raises(DataError, match=r"clips\.jsonl:1.*'\.\./field'"):
        load_clips(tmp_path)


def test_cutouts_round_trip_and_are_the_shapes(image_root: Path, tmp_path: Path) -> None:
    images = ImageSet.load(image_root)
    cache = tmp_path / "cut.npz"
    calls: list[tuple[int, int]] = []
    made = build_cutouts(images, cache, progress=lambda done, of: calls.append((done, of)))
    assert calls == [(number, len(images)) for number in range(1, len(images) + 1)]
    again = CutoutSet.load(cache)
    assert [c for c in made] == [c for c in again]
    assert [c.name for c in made].count("balls") == 3  # grabCut found the disc in every one
    assert {c.color for c in made if c.name != "balls"} == {"red", "blue", "green", "yellow"}
    for index, cut in enumerate(made):
        number = int(cut.file[1:3])
        outline = made.patch(index).outline * cut.origin[2] + cut.origin[:2]
        low, high = outline.min(axis=0), outline.max(axis=0)
        if images[number].instances:
            x, y, w, h = images[number].instances[0].box
            assert np.allclose([*low, *high], [x, y, x + w, y + h], atol=1.6)
        else:
            assert np.allclose([*low, *high], [42, 24, 143, 125], atol=3)


def test_a_damaged_cutout_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 damaged")
    for name in ("x.npz", "missing.npz"):
        with pytest.raises(DataError, match=name):
            CutoutSet.load(tmp_path / name)


def test_outline_is_tight_and_levels_halve() -> None:
    rgba = np.zeros((60, 80, 4), dtype=np.uint8)
    rgba[10:40, 20:70, 3] = 255
    points = outline_of(rgba[..., 3])
    assert points.min(axis=0).tolist() == [20, 10]
    assert points.max(axis=0).tolist() == [70, 40]
    assert [level.shape[:2] for level in make_patch(rgba).levels] == [(60, 80), (30, 40), (15, 20)]


def test_joined_parts_leave_no_line() -> None:
    square = np.array([[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]], dtype=np.float32)
    right = square + np.array([40, 5])
    joined = np.concatenate([square + 5, right, [[5, 5]]]).astype(np.float32)
    mask = polygon_mask(joined, 30, 60)
    assert mask[5:15, 5:15].min() == 255
    assert mask[5:15, 40:50].min() == 255
    assert mask[:, 20:36].max() == 0


@pytest.mark.parametrize(
    ("rgb", "color"),
    [((220, 30, 30), "red"), ((30, 60, 200), "blue"), ((250, 250, 250), "white"), ((15, 15, 15), "black"),
     ((110, 70, 35), "brown"), ((250, 140, 20), "orange"), ((240, 220, 40), "yellow"), ((40, 150, 50),
     "green"), ((130, 130, 132), "gray"), ((130, 40, 160), "purple"), ((250, 150, 190), "pink")],
)  # fmt: skip
def test_dominant_colors(rgb: tuple[int, int, int], color: str) -> None:
    assert dominant_color(np.tile(np.array(rgb, np.uint8), (50, 1))) == color


def test_mixed_colors_give_none_and_two_contrasting_ones_give_both() -> None:
    red, blue, gray = ([220, 30, 30], [30, 60, 200], [130, 130, 130])
    black, white = ([10, 10, 10], [250, 250, 250])
    assert dominant_color(np.array([red, blue, gray] * 20, dtype=np.uint8)) == ""
    assert dominant_color(np.array([black, black, white, white, gray] * 20, dtype=np.uint8)) in (
        "black and white",
        "white and black",
    )


def test_hold_out_is_stable_and_small() -> None:
    share = np.mean([held_out(f"caltech/{i}.jpg") for i in range(4000)])
    assert 0.035 < share < 0.065
    assert plain_name("dog6") == "dog"
    assert plain_name("airplanes") == "airplane"
