"""Success and grounding accuracy: the stated conventions, slow second computations, general properties."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vltrack.core.errors import DataError
from vltrack.core.types import iou_xywh
from vltrack.metrics.success import THRESHOLDS, Grounding, grounding, presence, success, success_auc

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
@given(PAIRS, st.floats(-50, 50), st.randoms())
def test_success_agrees_with_the_slow_computation_and_has_its_properties(pair, shift, random) -> None:
    pred, gt = pair
    values = iou_xywh(pred, gt)
    result = success(pred, gt)
    if np.abs(values[:, None] - np.arange(21) / 20).min() > 1e-6 or (values == 0).all():
        assert result.auc == pytest.approx(slow_auc(pred, gt), abs=1e-9)
    assert result.curve.shape == (21,)
    assert (np.diff(result.curve) <= 0).all()
    assert result.curve[-1] == 0
    assert 0 <= success_auc(pred, gt) == result.auc <= 20 / 21
    assert result.mean_iou == pytest.approx(values.mean())
    assert (result.sr50, result.frames) == ((values > 0.5).mean(), len(gt))
    order = random.sample(range(len(gt)), len(gt))
    assert success_auc(pred[order], gt[order]) == pytest.approx(result.auc)
    moved = np.array([shift, shift, 0, 0])
    assert success(pred + moved, gt + moved).mean_iou == pytest.approx(result.mean_iou, abs=1e-9)


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


def test_success_refuses_unusable_input() -> None:
    one = np.ones((1, 4))
    with pytest.raises(DataError, match="absent in every"):
        success_auc(one, np.zeros((1, 4)))
    with pytest.raises(DataError, match=r"\(2, 4\)"):
        success_auc(np.ones((2, 4)), one)
    with pytest.raises(DataError, match="but absent has shape"):
        success_auc(one, one, [0, 1])


# -- grounding ------------------------------------------------------------------------------------------


def above(scores: Grounding, threshold: float) -> float:
    return dict(zip(THRESHOLDS.tolist(), scores.accuracy.tolist(), strict=True))[threshold]


@pytest.mark.parametrize("twentieths", [5, *range(10, 19)])
def test_every_grounding_threshold_is_strict(twentieths: int) -> None:
    found, truth = [[0, 0, twentieths, 1]], [[0, 0, 20, 1]]
    scores = grounding(found, truth)
    assert above(scores, twentieths / 20) == 0
    assert above(grounding([[0, 0, twentieths + 0.01, 1]], truth), twentieths / 20) == 1


def test_a_row_that_is_not_a_box_has_overlap_0() -> None:
    truth = np.tile([0.0, 0, 10, 10], (5, 1))
    found = [[np.nan, 0, 10, 10], [0, 0, 0, 10], [0, 0, 10, -10], [0, 0, np.inf, 10], [0, 0, 10, 10]]
    scores = grounding(found, truth)
    assert (scores.mean_iou, scores.without_box, scores.count) == (0.2, 4, 5)


def test_grounding_agrees_with_fractions() -> None:
    rng = np.random.default_rng(4)
    truth = rng.integers(1, 12, (300, 4))
    found = truth + rng.integers(-1, 2, (300, 4))
    found[:, 2:] = np.maximum(found[:, 2:], 1)
    found.setflags(write=False)
    exact = []
    for (ax, ay, aw, ah), (bx, by, bw, bh) in zip(found.tolist(), truth.tolist(), strict=True):
        both = max(0, min(ax + aw, bx + bw) - max(ax, bx)) * max(0, min(ay + ah, by + bh) - max(ay, by))
        exact.append(Fraction(both, aw * ah + bw * bh - both))
    scores = grounding(found, truth)
    for threshold in (Fraction(k, 20) for k in (5, *range(10, 19))):
        assert above(scores, float(threshold)) == sum(value > threshold for value in exact) / 300
    assert scores.mean_iou == pytest.approx(float(sum(exact) / 300))
    record = scores.to_dict()
    assert list(record) == ["acc_25", *(f"acc_{t}" for t in range(50, 95, 5)), "mean_iou", "count", "without_box"]
    assert record["acc_25"] == pytest.approx(100 * above(scores, 0.25))
    assert (grounding(truth, truth).accuracy == 1).all()
    assert grounding(truth, truth).mean_iou == 1


@pytest.mark.parametrize(
    ("found", "truth", "message"),
    [
        ([], [], "must both be"),
        ([[1, 2, 3, 4]], [[1, 2, 3, 4]] * 2, "must both be"),
        ([1, 2, 3, 4], [1, 2, 3, 4], "must both be"),
        ([[1, 2, 3, 4]] * 2, [[1, 2, 3, 4], [1, 2, 0, 4]], "box 1 is not a box"),
        ([[1, 2, 3, 4]], [[1, np.nan, 3, 4]], "box 0 is not a box"),
    ],
)
def test_grounding_refuses_unusable_input(found, truth, message: str) -> None:
    with pytest.raises(DataError, match=message):
        grounding(found, truth)


def test_presence_compares_frames_on_the_target_with_frames_without_it() -> None:
    overlap = [0.9, 0.6, 0.3, 0.0, math.nan, math.nan]
    found = presence([0.9, 0.5, 0.1, 0.8, 0.5, 0.2], [True, True, False, True, True, False], overlap)
    assert found.auroc == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert (found.absent_visible, found.drifted_visible) == (0.5, 1.0)
    assert (found.threshold, found.absent_above) == (0.5, 0.5)
    none = presence([0.9], [True], [0.7])
    assert all(math.isnan(one) for one in (none.auroc, none.absent_visible, none.drifted_visible))
