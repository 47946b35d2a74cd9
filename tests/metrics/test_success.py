"""Success: the stated convention, a slow second computation, and what must hold for any boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vltrack.core.errors import DataError
from vltrack.core.types import iou_xywh
from vltrack.metrics.success import success, success_auc

COORDINATE = st.floats(-100, 300, width=32)
SIDE = st.floats(1, 200, width=32)


@st.composite
def box_rows(draw, count: int) -> np.ndarray:
    places = draw(arrays(np.float64, (count, 2), elements=COORDINATE))
    return np.hstack([places, draw(arrays(np.float64, (count, 2), elements=SIDE))])


PAIRS = st.integers(1, 12).flatmap(lambda n: st.tuples(box_rows(n), box_rows(n)))


def slow_auc(pred: np.ndarray, gt: np.ndarray) -> float:
    """The same by loops over corners and thresholds, integers as numerators."""
    total = 0
    for (ax, ay, aw, ah), (bx, by, bw, bh) in zip(pred, gt, strict=True):
        w = max(0.0, min(ax + aw, bx + bw) - max(ax, bx))
        h = max(0.0, min(ay + ah, by + bh) - max(ay, by))
        total += sum(w * h > k / 20 * (aw * ah + bw * bh - w * h) + 1e-9 for k in range(21))
    return total / (21 * len(gt))


@settings(max_examples=40, deadline=None)
@given(PAIRS)
def test_agrees_with_the_slow_way(pair) -> None:
    pred, gt = pair
    values = iou_xywh(pred, gt)
    if np.abs(values[:, None] - np.arange(21) / 20).min() > 1e-6 or (values == 0).all():
        assert success_auc(pred, gt) == pytest.approx(slow_auc(pred, gt), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.floats(-50, 50), st.randoms())
def test_properties(pair, shift, random) -> None:
    pred, gt = pair
    result = success(pred, gt)
    curve = result.curve
    assert curve.shape == (21,)
    assert (np.diff(curve) <= 0).all()
    assert curve[-1] == 0
    assert 0 <= success_auc(pred, gt) <= 20 / 21
    order = list(range(len(gt)))
    random.shuffle(order)
    assert success_auc(pred[order], gt[order]) == pytest.approx(success_auc(pred, gt))
    values = iou_xywh(pred, gt)
    moved = np.array([shift, shift, 0, 0])
    assert success(pred + moved, gt + moved).mean_iou == pytest.approx(result.mean_iou, abs=1e-9)
    assert result.mean_iou == pytest.approx(values.mean())
    assert result.sr50 == (values > 0.5).mean()
    assert result.frames == len(gt)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12).flatmap(box_rows))
def test_a_perfect_tracker_gets_20_of_21(gt) -> None:
    assert success_auc(gt, gt) == pytest.approx(20 / 21)
    assert success(gt, gt).sr50 == 1


def test_thresholds_are_strict() -> None:
    gt = np.array([[0.0, 0, 10, 10]])
    assert success([[0, 0, 10, 5]], gt).sr50 == 0  # overlap exactly one half
    assert success([[0, 0, 10, 5.01]], gt).sr50 == 1
    assert success([[20, 20, 5, 5]], gt).curve[0] == 0


def test_absent_frames_are_left_out_and_the_first_counts() -> None:
    gt = np.array([[0, 0, 10, 10], [0, 0, 0, 0], [5, 5, 10, 10], [5, 5, 10, 10]], dtype=float)
    pred = np.array([[0, 0, 10, 10], [50, 50, 9, 9], [5, 5, 10, 10], [90, 90, 10, 10]], dtype=float)
    assert (success(pred, gt).mean_iou, success(pred, gt).frames) == (2 / 3, 3)
    left = success(pred, gt, absent=[0, 1, 0, 1])
    assert (left.mean_iou, left.frames) == (1, 2)


def test_unusable_predictions_are_misses() -> None:
    gt = np.tile([0.0, 0, 10, 10], (4, 1))
    pred = np.array([[np.nan, 0, 10, 10], [0, 0, -10, -10], [0, 0, np.inf, 10], [0, 0, 0, 0]])
    found = success(pred, gt)
    assert (found.mean_iou, found.frames, found.curve.tolist()) == (0, 4, [0] * 21)


def test_faults() -> None:
    one = np.ones((1, 4))
    with pytest.raises(DataError, match="absent in every"):
        success_auc(one, np.zeros((1, 4)))
    with pytest.raises(DataError, match=r"\(2, 4\)"):
        success_auc(np.ones((2, 4)), one)
    with pytest.raises(DataError, match="but absent has shape"):
        success_auc(one, one, [0, 1])
