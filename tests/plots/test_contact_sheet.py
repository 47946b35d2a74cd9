"""Contact sheets of tracks: even choice of frames, absent targets in gray."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.core.errors import DataError
from vltrack.core.types import Step
from vltrack.plots.compare import evenly
from vltrack.plots.contact_sheet import contact_sheet


def stream(count: int, lost: tuple[int, ...] = (), targets: int = 1) -> list[tuple]:
    frames = []
    for index in range(count):
        image = np.zeros((60, 80, 3), np.uint8)
        image[..., 0] = 200
        step = Step(
            box=np.array([10.0, 20, 20, 20]), score=0.7, visible=index not in lost, index=index, seconds=index / 25
        )
        frames.append((image, *[step] * targets))
    return frames


@settings(deadline=None)
@given(length=st.integers(1, 3000), count=st.integers(1, 20))
def test_choice_is_even_and_includes_both_ends(length, count) -> None:
    chosen = evenly(length, count)
    assert len(chosen) == len(set(chosen)) == min(length, count)
    assert chosen[0] == 0
    if len(chosen) > 1:
        assert chosen[-1] == length - 1
        gaps = np.diff(chosen)
        assert gaps.min() > 0
        assert gaps.max() <= length / (count - 1) + 1


def test_a_sheet_has_its_tiles() -> None:
    sheet = contact_sheet(stream(100), count=12, labels=["the dog"])
    rows, columns = sheet.shape[0] / 3, sheet.shape[1] / 4
    assert sheet.dtype == np.uint8
    for row in range(3):
        for column in range(4):
            tile = sheet[int(row * rows) + 20 : int((row + 1) * rows) - 40, int(column * columns) + 20 :][:, :100]
            assert tile[..., 0].mean() > 150
            assert tile[..., 2].mean() < 100


def test_absent_frames_are_gray() -> None:
    sheet = contact_sheet(stream(2, lost=(1,)), count=2)
    half = sheet.shape[1] // 2
    left, right = sheet[:, :half].astype(int), sheet[:, half:].astype(int)
    assert np.abs(left[..., 0] - left[..., 1]).max() > 100
    assert np.abs(right - right.mean(axis=2, keepdims=True)).max() <= 1


def test_few_frames_several_targets_and_no_frames() -> None:
    assert contact_sheet(stream(3, targets=2)).shape[1] == 3 * 328 + 8
    assert contact_sheet([(image,) for image, _ in stream(1)]).shape[1] == 336
    with pytest.raises(DataError):
        contact_sheet([])
