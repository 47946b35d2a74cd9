"""Accuracy of grounding: ties, boxes that are none, a slow second computation."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from vltrack.core.errors import DataError
from vltrack.metrics.success import THRESHOLDS, Grounding, grounding


def above(scores: Grounding, threshold: float) -> float:
    return dict(zip(THRESHOLDS.tolist(), scores.accuracy.tolist(), strict=True))[threshold]


def test_by_hand_with_ties() -> None:
    truth = np.tile([0.0, 0, 10, 10], (5, 1))
    # Overlaps 1, 0.5 (a tie: not above 0.5), 0.75 (another), 0.3, 0.
    found = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 7.5, 10], [0, 0, 10, 3], [50, 50, 5, 5]])
    scores = grounding(found, truth)
    assert above(scores, 0.25) == 4 / 5
    assert above(scores, 0.5) == 2 / 5
    assert above(scores, 0.7) == 2 / 5
    assert above(scores, 0.75) == 1 / 5
    assert above(scores, 0.9) == 1 / 5
    assert scores.mean_iou == pytest.approx((1 + 0.5 + 0.75 + 0.3) / 5)
    told = scores.to_dict()
    assert told["acc_25"] == pytest.approx(80)
    assert list(told) == [
        "acc_25",
        *(f"acc_{t}" for t in range(50, 95, 5)),
        "mean_iou",
        "count",
        "without_box",
    ]


@pytest.mark.parametrize("twentieths", [5, *range(10, 19)])
def test_every_threshold_is_strict(twentieths: int) -> None:
    found, truth = [[0, 0, twentieths, 1]], [[0, 0, 20, 1]]
    scores = grounding(found, truth)
    assert above(scores, twentieths / 20) == 0
    assert above(grounding([[0, 0, twentieths + 0.01, 1]], truth), twentieths / 20) == 1


def test_what_is_no_box_overlaps_nothing() -> None:
    truth = np.tile([0.0, 0, 10, 10], (5, 1))
    found = [[np.nan, 0, 10, 10], [0, 0, 0, 10], [0, 0, 10, -10], [0, 0, np.inf, 10], [0, 0, 10, 10]]
    scores = grounding(found, truth)
    assert (scores.mean_iou, scores.without_box, scores.count) == (0.2, 4, 5)


def test_a_perfect_answer_and_read_only_input() -> None:
    boxes = np.random.default_rng(0).uniform(1, 50, (40, 4))
    boxes.setflags(write=False)
    scores = grounding(boxes, boxes)
    assert (scores.accuracy == 1).all()
    assert scores.mean_iou == pytest.approx(1)


def test_agrees_with_fractions() -> None:
    rng = np.random.default_rng(4)
    truth = rng.integers(1, 12, (300, 4))
    found = truth + rng.integers(-1, 2, (300, 4))
    found[:, 2:] = np.maximum(found[:, 2:], 1)
    exact = []
    for (ax, ay, aw, ah), (bx, by, bw, bh) in zip(found.tolist(), truth.tolist(), strict=True):
        both = max(0, min(ax + aw, bx + bw) - max(ax, bx)) * max(0, min(ay + ah, by + bh) - max(ay, by))
        exact.append(Fraction(both, aw * ah + bw * bh - both))
    scores = grounding(found, truth)
    for threshold in (Fraction(k, 20) for k in (5, *range(10, 19))):
        assert above(scores, float(threshold)) == sum(value > threshold for value in exact) / 300
    assert scores.mean_iou == pytest.approx(float(sum(exact) / 300))
    assert len(THRESHOLDS) == 10


@pytest.mark.parametrize(
    ("found", "truth", "words"),
    [
        ([], [], "must both be"),
        ([[1, 2, 3, 4]], [[1, 2, 3, 4]] * 2, "must both be"),
        ([1, 2, 3, 4], [1, 2, 3, 4], "must both be"),
        ([[1, 2, 3, 4]] * 2, [[1, 2, 3, 4], [1, 2, 0, 4]], "box 1 is not a box"),
        ([[1, 2, 3, 4]], [[1, np.nan, 3, 4]], "box 0 is not a box"),
    ],
)
def test_what_cannot_be_scored_is_refused(found, truth, words: str) -> None:
    with pytest.raises(DataError, match=words):
        grounding(found, truth)
