"""Contact sheets: even choice from a stream of any length, absent tiles in grey, one tile a frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.core.errors import DataError
from vltrack.core.track import Track
from vltrack.core.types import Frame, Step
from vltrack.plots.contact_sheet import _clock, _evenly, contact_sheet, track_sheet


def stream(count: int, lost: tuple[int, ...] = (), targets: int = 1):
    for index in range(count):
        image = np.zeros((60, 80, 3), np.uint8)
        image[..., 0] = 200
        step = Step(
            box=np.array([10.0, 20, 20, 20]),
            score=0.7,
            visible=index not in lost,
            index=index,
            seconds=index / 25,
        )
        yield (image, *[step] * targets)


@settings(deadline=None)
@given(length=st.integers(1, 3000), count=st.integers(1, 20))
def test_choice_is_even_and_holds_both_ends(length, count) -> None:
    chosen = _evenly(range(length), count, int)
    assert len(chosen) == len(set(chosen)) <= count
    assert len(chosen) == min(length, count)
    assert chosen[0] == 0
    if len(chosen) > 1:
        assert chosen[-1] == length - 1
        gaps = np.diff(chosen)
        assert gaps.min() > 0
        assert gaps.max() <= 1.5 * length / (count - 1) + 2


def test_a_sheet_has_its_tiles() -> None:
    sheet = contact_sheet(stream(100), columns=4, count=12, tile_width=160, labels=["the dog"])
    rows, columns = sheet.shape[0] / 3, sheet.shape[1] / 4
    assert sheet.dtype == np.uint8
    for row in range(3):
        for column in range(4):
            tile = sheet[int(row * rows) + 20 : int((row + 1) * rows) - 40, int(column * columns) + 20 :][
                :, :100
            ]
            assert tile[..., 0].mean() > 150
            assert tile[..., 2].mean() < 100


def test_absent_frames_are_grey() -> None:
    sheet = contact_sheet(stream(2, lost=(1,)), columns=2, count=2, tile_width=100)
    half = sheet.shape[1] // 2
    left, right = sheet[:, :half].astype(int), sheet[:, half:].astype(int)
    assert np.abs(left[..., 0] - left[..., 1]).max() > 100
    assert np.abs(right - right.mean(axis=2, keepdims=True)).max() <= 1


def test_few_frames_several_targets_and_no_frames() -> None:
    assert contact_sheet(stream(3, targets=2), columns=5, tile_width=100).shape[1] == 3 * 108 + 8
    assert contact_sheet(((image,) for image, _ in stream(1))).shape[1] == 336
    with pytest.raises(DataError):
        contact_sheet([])
    with pytest.raises(ValueError, match="columns"):
        contact_sheet(stream(1), columns=0)


def test_a_saved_track_makes_its_sheet() -> None:
    items = list(stream(6))
    track = Track.from_steps([step for _, step in items], {"sentence": "the dog"})
    frames = [
        Frame(image=None if step.index == 2 else image, index=step.index, seconds=0.0)
        for image, step in items
    ]
    same = contact_sheet((item for item in items if item[1].index != 2), labels=["the dog"])
    assert (track_sheet(frames, track) == same).all()


def test_clock() -> None:
    assert [_clock(t) for t in (0, 59.999, 61.5, 3600)] == ["0:00.00", "1:00.00", "1:01.50", "60:00.00"]
