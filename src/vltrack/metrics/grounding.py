"""Accuracy of boxes found by a sentence in single pictures. Knows boxes; knows no picture and no sentence.

Acc@t is the share of sentences whose box overlaps the true one by strictly more than t, as VLTVG and JointNLT
count it: no pixel is added to sides. t = 0.25, and 0.50 to 0.90 in steps of 0.05 (0.75 is one of them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.boxes import iou_xywh
from vltrack.core.errors import DataError

Floats = NDArray[np.float64]

# Quotients of whole numbers: rounded as overlaps of whole boxes are, so a tie is a tie.
THRESHOLDS: Floats = np.array([5, *range(10, 19)]) / 20
THRESHOLDS.setflags(write=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grounding:
    """Scores of N sentences.

    Attributes:
        accuracy: (10,) share with an overlap above each of ``THRESHOLDS``, 0..1.
        mean_iou: mean overlap, 0..1.
        count: N.
        without_box: how many predictions were no box (NaN, infinite, no width or height): overlap 0.
    """

    accuracy: Floats
    mean_iou: float
    count: int
    without_box: int

    def at(self, threshold: float) -> float:
        """Acc@threshold, one of ``THRESHOLDS``. Raises ``KeyError`` for another."""
        (found,) = np.nonzero(np.isclose(THRESHOLDS, threshold, rtol=0, atol=1e-9))
        if not len(found):
            raise KeyError(threshold)
        return float(self.accuracy[found[0]])

    def told(self) -> dict[str, Any]:
        """For JSON: ``acc_25``, ``acc_50`` ... ``acc_90`` and ``mean_iou`` in percent."""
        shares = zip(THRESHOLDS.tolist(), self.accuracy.tolist(), strict=True)
        told: dict[str, Any] = {f"acc_{round(100 * at)}": 100 * share for at, share in shares}
        counts = {"count": self.count, "without_box": self.without_box}
        return told | {"mean_iou": 100 * self.mean_iou} | counts


def grounding(found: ArrayLike, truth: ArrayLike) -> Grounding:
    """Acc@t and mean overlap.

    Args:
        found: (N, 4) xywh predicted boxes; a row that is no box counts as overlap 0.
        truth: (N, 4) xywh true boxes, finite and with positive sides.

    Raises:
        DataError: the shapes differ or are not (N, 4), N is 0, or a true box is none (named by row).
    """
    boxes, true = np.asarray(found, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if boxes.shape != true.shape or true.ndim != 2 or true.shape[1] != 4 or not len(true):
        raise DataError(f"found boxes {boxes.shape} and true boxes {true.shape} must both be (N, 4), N > 0.")
    good = _is_box(true)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise DataError(f"true box {row} is no box: {true[row].tolist()}.", hint="Leave this sentence out.")
    usable = _is_box(boxes)
    # Where there is no box the true one stands in; its overlap is set to zero.
    overlap = np.where(usable, np.minimum(iou_xywh(np.where(usable[:, None], boxes, true), true), 1.0), 0.0)
    return Grounding(
        accuracy=(overlap[:, None] > THRESHOLDS).mean(axis=0),
        mean_iou=float(overlap.mean()),
        count=len(true),
        without_box=int(np.count_nonzero(~usable)),
    )


def _is_box(boxes: Floats) -> NDArray[np.bool_]:
    return np.array(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1))
