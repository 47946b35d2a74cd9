"""Miniatures of all data sets: the same bytes for a seed, without issues, and read back as drawn."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from vltrack.core.errors import DataError, ResourceError
from vltrack.datasets.catalogue import rows, videos, write_miniature
from vltrack.datasets.check import check_dataset, check_referring
from vltrack.datasets.miniatures import MINIATURES, draw_miniature, write_video_miniature
from vltrack.datasets.reader import open_dataset

WARNED = {  # oddities of the real ones
    "lasot": {"box"},
    "tnl2k": {"sentence"},
    "folder": {"sentence"},
}


drawn_of = cache(lambda name: draw_miniature(name, seed=5))


def tree_hash(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("miniatures")
    return {name: write_video_miniature(name, root / name, seed=5) for name in MINIATURES}


@pytest.mark.parametrize("name", MINIATURES)
def test_a_miniature_has_no_errors_and_is_read_back_as_drawn(miniatures: dict[str, Path], name: str) -> None:
    report = check_dataset(miniatures[name])
    assert report.issues.errors == []
    assert {issue.kind for issue in report.issues.warnings} == WARNED.get(name, set())
    assert report.detected.layout.name == name.removesuffix("-original")
    drawn = drawn_of(name)
    assert len(drawn) == sum(len(dataset.sequences) for dataset in report.datasets)
    everything = open_dataset(miniatures[name], split="all").sequences
    assert {one.name: len(one) for one in everything} == {one.clip.name: len(one.frames) for one in drawn}
    sequences = {(data.split, read.name): read for data in report.datasets for read in data.sequences}
    for one in drawn:
        read = sequences[one.clip.split, one.clip.name]
        wanted = one.annotation
        assert np.array_equal(read.boxes, wanted.boxes, equal_nan=True)
        assert np.array_equal(read.absent, wanted.absent)
        assert (read.sentence, read.attributes) == (wanted.sentence, wanted.attributes)
        assert (read.cover is None) == (wanted.cover is None)
        assert wanted.cover is None or np.array_equal(read.cover, wanted.cover)
        assert len(read) == len(one.frames)
        assert read.annotations_withheld == (len(wanted.boxes) == 1)
    images = [frame.image for frame in read.frames()]
    for image, frame in zip(images, one.frames, strict=True):
        shown = frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, axis=2)
        assert np.abs(image.astype(int) - shown).mean() < 6


def test_miniatures_have_the_quirks_of_the_real_data_sets() -> None:
    clips = {name: recipe.clips for name, recipe in MINIATURES.items()}
    boxes = {name: np.concatenate([one.annotation.boxes for one in drawn_of(name)]) for name in ("tnl2k", "uav123")}
    assert (boxes["tnl2k"][:, 0] == 0).sum() > (boxes["tnl2k"] == 0).all(axis=1).sum()  # x = 0, not absent
    assert np.isnan(boxes["uav123"]).all(axis=1).any()
    lasot = [one.annotation for one in drawn_of("lasot")]
    assert any((one.boxes[one.absent, 2] > 0).any() for one in lasot)  # absent, with a box
    assert any(clip.folder for clip in clips["uav123"])
    assert any(clip.empty_sentence for clip in clips["tnl2k"])
    assert [len(one.annotation.boxes) for one in drawn_of("got10k")][:2] == [1, 1]
    assert any(clip.gray for clip in clips["webuav3m"])
    assert any("," in one.annotation.sentence for one in drawn_of("tnl2k"))


def test_every_video_data_set_of_the_catalogue_has_one() -> None:
    assert {name.removesuffix("-original") for name in MINIATURES} == set(videos())
    pictures = [row["name"] for row in rows() if row["what"] == "pictures"]
    assert {"coco2017", "refcoco", "refcoco+", "refcocog", "visual-genome"} <= set(pictures)


@pytest.mark.parametrize("name", ["tnl2k", "mgit", "nfs-original"])
def test_a_seed_gives_its_bytes(tmp_path: Path, miniatures: dict[str, Path], name: str) -> None:
    again = write_video_miniature(name, tmp_path / "again", seed=5)
    assert tree_hash(again) == tree_hash(miniatures[name])
    other = write_video_miniature(name, tmp_path / "other", seed=6)
    assert tree_hash(other) != tree_hash(miniatures[name])


def test_referring_expressions_have_miniatures_too(tmp_path: Path) -> None:
    made = write_miniature("refcoco", tmp_path / "refcoco", seed=1)
    assert [issue for issue in check_referring(made) if issue.severity == "error"] == []


def test_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ResourceError, match=str(tmp_path)):
        write_video_miniature("lasot", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(DataError, match=r"'lassot'.*Did you mean lasot"):
        write_miniature("lassot", tmp_path / "x")
