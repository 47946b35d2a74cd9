"""Cut-outs: what becomes one, its colors, and the cache: hit, miss, stale, damaged, two at once, not writable."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from vltrack.core.errors import ResourceError
from vltrack.core.files import cache_folder
from vltrack.datasets import cutouts as module
from vltrack.datasets.cutouts import build_cutouts, cached_cutouts
from vltrack.datasets.images import ImageSet

SQUARE = [10, 10, 60, 10, 60, 70, 10, 70]


def write_index(root: Path, *rows: dict[str, object]) -> ImageSet:
    """An index of images that are written before."""
    (root / "index.jsonl").write_text("\n".join(json.dumps({"w": 120, "h": 90} | row) for row in rows))
    return ImageSet.load(root)


@pytest.fixture
def dressed(tmp_path: Path) -> ImageSet:
    """A person in red whose annotation names a blue coat and a black bag, and a transparent green cup."""
    image = np.full((90, 120, 3), 128, np.uint8)
    image[10:70, 10:60] = (30, 30, 220)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    rgba = np.zeros((90, 120, 4), np.uint8)
    rgba[20:80, 30:90] = (60, 170, 40, 255)
    cv2.imwrite(str(tmp_path / "cup.webp"), rgba, [cv2.IMWRITE_WEBP_QUALITY, 101])
    person = {"c": "person", "b": [10, 10, 50, 60], "p": SQUARE, "att": {"bag": "black", "coat": "blue"}}
    return write_index(tmp_path, {"f": "a.png", "inst": [person]}, {"f": "cup.webp", "cut": "cup"})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLTRACK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cutouts"


def test_annotated_colors_and_transparent_images(dressed: ImageSet, tmp_path: Path) -> None:
    person, cup = made = build_cutouts(dressed, tmp_path / "cut.npz")
    assert (person.name, person.color, person.clothing_color, person.garment) == ("person", "red", "blue", "coat")
    assert (cup.name, cup.color, cup.garment) == ("cup", "green", "")
    outline = made.patch(1).outline * cup.origin[2] + cup.origin[:2]
    assert np.allclose([*outline.min(axis=0), *outline.max(axis=0)], [30, 20, 90, 80], atol=1.1)


def test_parts_of_an_object_are_in_its_cutout(tmp_path: Path) -> None:
    image = np.full((90, 120, 3), 128, np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    cup = {"c": "cup", "b": [10, 10, 80, 60], "p": SQUARE, "pp": [[60, 20, 90, 20, 90, 40, 60, 40]], "col": "purple"}
    (made,) = found = build_cutouts(write_index(tmp_path, {"f": "a.png", "inst": [cup]}), tmp_path / "cut.npz")
    assert made.color == "purple"
    assert np.allclose(found.patch(0).outline.max(axis=0) + made.origin[:2], [90, 70], atol=1.1)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of images that are cut from now on, one entry for each index."""
    calls: list[int] = []
    build = module.build_cutouts
    monkeypatch.setattr(
        module, "build_cutouts", lambda images, *given: (calls.append(len(images)), build(images, *given))
    )
    return calls


def test_cutouts_are_made_once_for_each_index(
    dressed: ImageSet, image_root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, root = counted(monkeypatch), dressed.roots[0]
    first = cached_cutouts(dressed)
    assert [cut.folder for cut in first] == [0, 0]
    both = cached_cutouts(ImageSet.load(image_root, root))
    assert calls == [2, 18]  # the second index is known, wherever it comes in the list
    assert list(cached_cutouts(ImageSet.load(root))) == list(first)
    assert [cut.name for cut in both if cut.folder == 1] == ["person", "cup"]
    assert np.array_equal(both.patch(len(both) - 1).levels[0], first.patch(1).levels[0])
    assert calls == [2, 18]
    assert len(list(cache.glob("*.npz"))) == 2


@pytest.mark.fault("D16")
def test_a_changed_index_or_image_is_cut_again(dressed: ImageSet, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, root = counted(monkeypatch), dressed.roots[0]
    cached_cutouts(dressed)
    index = root / "index.jsonl"
    index.write_text(index.read_text().replace('"blue"', '"pink"'))
    assert cached_cutouts(ImageSet.load(root))[0].clothing_color == "pink"
    image = np.full((90, 120, 3), 128, np.uint8)
    image[10:70, 10:60] = (20, 200, 240)
    cv2.circle(image, (90, 40), 9, (9, 9, 9), -1)
    cv2.imwrite(str(root / "a.png"), image)
    assert cached_cutouts(ImageSet.load(root))[0].color == "yellow"
    assert calls == [2, 2, 2]


def test_a_damaged_file_of_the_cache_is_made_again(
    dressed: ImageSet, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch)
    first = list(cached_cutouts(dressed))
    (file,) = cache.glob("*.npz")
    whole = file.read_bytes()
    for data in (whole[: len(whole) // 2], b"", whole[:200] + bytes(200) + whole[400:]):
        file.write_bytes(data)
        assert list(cached_cutouts(dressed)) == first
    assert calls == [2, 2, 2, 2]


def test_two_at_once_cut_once(dressed: ImageSet, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(cached_cutouts(dressed)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2, 2, 2]
    assert calls == [2]


def test_a_cache_that_cannot_be_written_is_told(
    dressed: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VLTRACK_CACHE", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="Set VLTRACK_CACHE"):
        cached_cutouts(dressed)


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    base = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
    monkeypatch.setenv("VLTRACK_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("VLTRACK_CACHE")
    monkeypatch.setenv(base, str(tmp_path))
    assert cache_folder() == tmp_path / "vltrack"
    monkeypatch.delenv(base)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "vltrack"
