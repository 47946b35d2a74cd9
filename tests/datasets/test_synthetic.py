"""Synthetic clips: exact boxes, true sentences, round trip through an annotated folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vltrack.core.errors import ResourceError
from vltrack.core.types import iou_xywh
from vltrack.datasets.reader import open_dataset
from vltrack.datasets.synthetic import COLORS, SHAPES, synthesize, synthesize_clip


def test_a_seed_gives_its_pixels() -> None:
    first, again, other = (synthesize_clip(s, 5) for s in (3, 3, 4))
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.frames, other.frames)
    assert first.frames.shape == (5, 240, 320, 3)


@pytest.mark.parametrize("seed", range(8))
def test_boxes_are_tight_around_the_named_colour(seed: int) -> None:
    clip = synthesize_clip(seed, 24)
    word = next((w for w in clip.sentence.split() if w in COLORS), None)
    assert clip.sentence.split()[-1] in SHAPES
    assert np.array_equal(clip.absent, clip.boxes[:, 2] == 0)
    if word in (None, "white", "black"):  # the ground may have these
        return
    for image, box in zip(clip.frames[::4], clip.boxes[::4], strict=True):
        near = np.abs(image.astype(int) - COLORS[word]).max(axis=2) < 26
        near = cv2.morphologyEx(near.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        ys, xs = np.nonzero(near)
        if box[2] < 12:
            continue
        found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        inward = (found - [*box[:2], *(box[:2] + box[2:])]) * [1, 1, -1, -1]
        assert inward.min() >= -1
        assert inward.max() <= 1.5 + 0.16 * box[2:].max()  # sharp tips fall to the opening


def test_distractors_have_sentences_of_their_own_and_some_clips_have_absences() -> None:
    clips = [synthesize_clip(seed, 30, (96, 80)) for seed in range(30)]
    similar = [clip for clip in clips if clip.distractor_boxes is not None]
    assert 8 <= len(similar) <= 22
    for clip in similar:
        (_, color, shape), (_, other, same) = clip.sentence.split(), clip.distractor_sentence.split()
        assert shape == same
        assert color != other
        assert iou_xywh(clip.boxes, clip.distractor_boxes).mean() < 0.5
    away = [clip for clip in clips if clip.absent.any()]
    assert 4 <= len(away) <= 18
    assert all(not clip.absent[0] and not clip.absent[-1] for clip in away)


@pytest.mark.parametrize(("frames", "size"), [(0, (320, 240)), (3, (20, 240))])
def test_impossible_clips_are_refused(frames: int, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{frames} frames"):
        synthesize_clip(0, frames, size)


def test_round_trip(tmp_path: Path) -> None:
    folders = synthesize(tmp_path / "out", 2, 14, seed=3)
    assert [f.name for f in folders] == ["clip-0001", "clip-0002"]
    for number, sequence in enumerate(open_dataset(tmp_path / "out", name="folder").sequences):
        clip = synthesize_clip(3 + number, 14)
        assert sequence.sentence == clip.sentence
        assert np.allclose(sequence.boxes, clip.boxes, atol=0.006)
        assert np.array_equal(sequence.absent, clip.absent)
        frames = [frame.image for frame in sequence.frames()]
        assert len(frames) == 14
        assert np.abs(frames[5].astype(int) - clip.frames[5]).mean() < 4
    assert len(open_dataset(folders[0], name="folder").sequences) == 1
    synthesize(tmp_path / "out", 1, 3, seed=9)  # replaced
    assert len(open_dataset(folders[0], name="folder").sequences[0]) == 3
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["clip-0001", "clip-0002"]


def test_a_folder_with_other_files_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "clip-0001").mkdir()
    (tmp_path / "clip-0001" / "mine.txt").write_text("x")
    with pytest.raises(ResourceError, match="clip-0001"):
        synthesize(tmp_path, 1, 2, seed=0)
    assert (tmp_path / "clip-0001" / "mine.txt").read_text() == "x"


def test_real_sequences_are_complete(shared: Path) -> None:
    sequences = open_dataset(shared / "real" / "open", name="folder").sequences
    assert len(sequences) >= 20
    assert all(s.sentence and len(s) > 20 and not s.absent[0] for s in sequences)
    short = next(s for s in sequences if s.name == "davis_dogs-jump-1")
    assert sum(frame.image is not None for frame in short.frames()) == len(short)
