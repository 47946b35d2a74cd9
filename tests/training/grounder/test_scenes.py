"""Scenes: boxes lie where the pixels are, what is hardly seen is not named, mirrored sentences, one seed one scene."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from vltrack.core.errors import DataError
from vltrack.datasets.cutouts import dominant_color
from vltrack.datasets.images import held_out
from vltrack.training.grounder.phrases import Thing
from vltrack.training.grounder.scenes import LONG_SIDE, Material, Scene, draw_scene

COLORS = {"cup": (230, 20, 20), "kite": (20, 60, 230), "vase": (250, 220, 10)}
HELD_OUT = next(n for n in range(8, 999) if held_out(f"coco/{n}.png"))


def write_folder(root: Path) -> Path:
    """Gray images with a gray thing, saturated cut-outs of one color each, and a clip with two colored blocks."""
    entries = []
    for name in ("coco", "emoji3d", "clip"):
        (root / name).mkdir()
    for n in (*range(8), HELD_OUT):
        image = np.full((240, 320, 3), 150, np.uint8)
        cv2.imwrite(str(root / f"coco/{n}.png"), image)
        inst = [{"c": "bench", "b": [20, 150, 100, 60], "p": [20, 150, 120, 150, 120, 210, 20, 210]}]
        again = [{"c": "bench", "b": [20, 150, 100, 61]}]  # COCO's boxes once more
        entries.append({"f": f"coco/{n}.png", "w": 320, "h": 240, "inst": inst, "box": again})
    for n, (name, color) in enumerate(COLORS.items()):
        rgba = np.zeros((120, 100, 4), np.uint8)
        rgba[10:110, 10:90] = (*color[::-1], 255)
        for copy in range(4):
            file = f"emoji3d/{n}{copy}.webp"
            cv2.imwrite(str(root / file), rgba, [cv2.IMWRITE_WEBP_QUALITY, 101])
            entries.append({"f": file, "w": 100, "h": 120, "cut": name})
    frame = np.full((120, 200, 3), 150, np.uint8)
    frame[40:80, 20:60], frame[40:80, 140:180] = (20, 20, 230), (230, 60, 20)
    cv2.imwrite(str(root / "clip/00003.png"), frame)
    cv2.imwrite(str(root / "clip/00003.jpg"), frame)
    targets = [
        {"c": "block", "sentences": [f"the block on the {side}"], "frames": [[3, [x, 40, 40, 40], []]]}
        for side, x in (("left", 20), ("right", 140))
    ]
    (root / "clip/clip.json").write_text(json.dumps({"targets": targets}))
    (root / "clips.jsonl").write_text(json.dumps({"d": "clip"}) + "\n")
    (root / "index.jsonl").write_text("\n".join(map(json.dumps, entries)) + "\n")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module", autouse=True)
def none_drawn() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vltrack.training.grounder.scenes.DRAWN", 0.0)
        yield


@pytest.fixture(scope="module")
def scenes(folder: Path) -> list[Scene]:
    material = Material([folder], "all")
    return [draw_scene(material, np.random.default_rng(seed)) for seed in range(180)]


def test_drawn_scenes_have_one_shape_in_two_colors(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr("vltrack.training.grounder.scenes.DRAWN", 1.0)
    material = Material([folder], "all")
    for seed in range(5):
        first, second = draw_scene(material, np.random.default_rng(seed)).things
        assert first.name == second.name
        assert "" != first.color != second.color != ""


def test_a_thing_that_the_index_lists_twice_is_one(folder: Path) -> None:
    assert {len(source.things) for source in Material([folder], "all").scenes} == {1}


def colored(image: np.ndarray, box: tuple[float, float, float, float], margin: float) -> np.ndarray:
    """x0, y0, x1, y1 of the saturated pixels in and near a box, and how many there are."""
    x0, y0, x1, y1 = (
        int(np.clip(v + sign * margin, 0, n))
        for v, sign, n in zip(box, (-1, -1, 1, 1), (*image.shape[1::-1], *image.shape[1::-1]), strict=True)
    )
    part = cv2.blur(image, (3, 3))[y0:y1, x0:x1].astype(int)
    ys, xs = np.nonzero(part.max(axis=2) - part.min(axis=2) > 80)
    if not len(xs):
        return np.zeros(5)
    return np.array([xs.min() + x0, ys.min() + y0, xs.max() + 1 + x0, ys.max() + 1 + y0, len(xs)])


def touches(a: Thing, b: Thing) -> bool:
    return all(min(a.box[k + 2], b.box[k + 2]) + 12 > max(a.box[k], b.box[k]) - 12 for k in (0, 1))


def test_boxes_lie_where_the_pasted_pixels_are(scenes: list[Scene]) -> None:
    checked, colors = 0, Counter[tuple[str, str]]()
    for scene in scenes:
        for thing in scene.things:
            alone = not any(touches(thing, o) for o in scene.things[1:] if o is not thing)
            if thing.name not in COLORS or not thing.known or not alone or thing.height < 30:
                continue
            *found, count = colored(scene.image, thing.box, 12)
            assert np.abs(np.array(found) - thing.box).max() < 4 + 0.06 * thing.height, (found, thing)
            assert count > 0.5 * thing.width * thing.height
            x, y = map(int, thing.center)
            colors[thing.name, dominant_color(scene.image[y - 8 : y + 8, x - 8 : x + 8].reshape(-1, 3))] += 1
            colors[thing.name, thing.color] += 1
            checked += 1
    assert checked > 20
    most = {name: max(colors, key=lambda key: colors[key] * (key[0] == name))[1] for name in COLORS}
    assert most == {"cup": "red", "kite": "blue", "vase": "yellow"}


def test_what_is_covered_or_tiny_is_not_named(scenes: list[Scene]) -> None:
    hidden = 0
    for scene in scenes:
        height, width = scene.image.shape[:2]
        assert max(height, width) == pytest.approx(LONG_SIDE, abs=1)
        for number, thing in enumerate(scene.things):
            x0, y0, x1, y1 = thing.box
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
            later = [o for o in scene.things[number + 1 :] if o.name != "block"]  # blocks are not pasted
            covered = max((overlap(thing, o) for o in later), default=0.0) / (thing.width * thing.height)
            if covered > 0.41 or thing.width * thing.height < 0.0004 * height * width:
                assert not thing.known, thing
                hidden += 1
    assert hidden >= 3


def test_what_is_mostly_cut_off_is_not_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vltrack.training.grounder.scenes._paste_all", lambda m, image, things, *rest: (image, things))
    material, known = Material([folder], "all"), Counter[bool]()
    for seed in range(80):
        for thing in draw_scene(material, np.random.default_rng(seed)).things:
            shape = thing.width / thing.height / (100 / 60)  # what is left of 100 x 60 pixels
            if thing.name == "bench" and min(shape, 1 / shape) < 0.54:
                assert not thing.known
            known[thing.known] += thing.name == "bench"
    assert min(known[True], known[False]) >= 3


def overlap(a: Thing, b: Thing) -> float:
    sides = [min(a.box[k + 2], b.box[k + 2]) - max(a.box[k], b.box[k]) for k in (0, 1)]
    return max(sides[0], 0) * max(sides[1], 0)


def test_a_mirrored_image_has_mirrored_sentences(scenes: list[Scene]) -> None:
    colors: Counter[bool] = Counter()
    for scene in scenes:
        blocks = {t.sentences[0].split()[-1]: t for t in scene.things if t.name == "block" and t.known}
        if len(blocks) == 2:
            assert blocks["left"].center[0] < blocks["right"].center[0]
            x, y = map(int, blocks["left"].center)
            colors[bool(scene.image[y, x, 0] > scene.image[y, x, 2])] += 1
    assert min(colors[True], colors[False]) >= 2  # the red one was on either side


def test_a_scene_depends_only_on_its_seed(folder: Path, scenes: list[Scene]) -> None:
    material = Material([folder], "all")
    for seed in (140, 3, 77, 20):
        again = draw_scene(material, np.random.default_rng(seed))
        np.testing.assert_array_equal(again.image, scenes[seed].image)
        assert (again.things, again.complete) == (scenes[seed].things, scenes[seed].complete)
    assert not np.array_equal(scenes[0].image, scenes[1].image)


def test_only_listed_images_are_complete(folder: Path, scenes: list[Scene], tmp_path: Path) -> None:
    assert all(scene.complete == all(t.name != "block" for t in scene.things) for scene in scenes if scene.things)
    crowded = write_folder(tmp_path)
    lines = [json.loads(line) for line in (crowded / "index.jsonl").read_text().splitlines()]
    crowd = {"crowd": [[0, 0, 50, 50]]}
    text = "\n".join(json.dumps(line | (crowd if line["f"].startswith("coco") else {})) for line in lines)
    (crowded / "index.jsonl").write_text(text)
    material = Material([crowded], "all")
    assert not any(draw_scene(material, np.random.default_rng(seed)).complete for seed in range(10))


def test_held_out_images_are_left_out_and_missing_ones_are_refused(folder: Path, tmp_path: Path) -> None:
    every, train = ({s.file.name for s in Material([folder], split).scenes} for split in ("all", "train"))
    assert every - train == {f"{HELD_OUT}.png"}
    with pytest.raises(DataError):
        Material([tmp_path], "train")
    (tmp_path / "index.jsonl").write_text("")
    with pytest.raises(DataError):
        Material([tmp_path], "train")


def test_clothes_of_the_shared_people_have_colors(shared: Path) -> None:
    folder = shared / "train2"
    if not folder.is_dir():
        pytest.skip("no folder train2 in the shared material")
    material = Material([folder], "val")
    assert material.people
    people = [c.thing for source in material.people[:5] for c in material.cutouts(source) if c.thing.name == "person"]
    assert len(people) == 5
    assert all(any(replace(t).garments.values()) for t in people)
