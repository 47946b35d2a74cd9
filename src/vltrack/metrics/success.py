"""Success scores of one target in one video. Knows boxes and which frames count; knows no file and no
tracker.

The convention of our table over real video (``benchmarks/real_video.py``), stated once here:

- frames where the target is absent (annotation ``0, 0, 0, 0``, any side not positive, or ``absent`` set) are
left
  out, of the numerator and of the count;
- the first frame counts with whatever box the tracker gave there: in the box modes that is the start box
itself,
  in the mode by words it is what the words found;
- success at t is the share of frames with overlap strictly above t; 21 thresholds 0, 0.05, ..., 1; the AUC is
their
  mean. A perfect tracker therefore gets 20/21: nothing is above 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.boxes import iou_xywh
from vltrack.core.errors import DataError

THRESHOLDS: NDArray[np.float64] = np.arange(21) / 20
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Success:
    """The scores of one target.

    Attributes:
        curve: (21,) success at ``THRESHOLDS``.
        auc: mean of the curve.
        mean_iou: mean overlap.
        sr50: success at 0.5.
        frames: how many frames counted.
    """

    curve: Floats
    auc: float
    mean_iou: float
    sr50: float
    frames: int


def overlaps(pred: ArrayLike, gt: ArrayLike, absent: ArrayLike | None = None) -> Floats:
    """Overlap of each frame that counts, in order.

    Args:
        pred: (N, 4) xywh; rows that are not finite or have no size count as overlap 0.
        gt: (N, 4) xywh annotations.
        absent: (N,) true where the target is absent; ``None`` = only the annotation tells.

    Raises:
        DataError: the shapes do not fit, or no frame counts.
    """
    boxes, truth = np.asarray(pred, dtype=np.float64), np.asarray(gt, dtype=np.float64)
    if boxes.shape != truth.shape or truth.ndim != 2 or truth.shape[1] != 4:
        raise DataError(f"predictions {boxes.shape} and annotations {truth.shape} must both be (N, 4).")
    counts: NDArray[np.bool_] = np.array(np.isfinite(truth).all(axis=1) & (truth[:, 2:] > 0).all(axis=1))
    if absent is not None:
        gone = np.asarray(absent, dtype=bool)
        if gone.shape != counts.shape:
            raise DataError(f"absent has shape {gone.shape}, there are {len(counts)} frames.")
        counts[gone] = False
    if not counts.any():
        raise DataError("the target is absent in every frame; there is nothing to score.")
    boxes, truth = boxes[counts], truth[counts]
    usable: NDArray[np.bool_] = np.array(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1))
    # A stand-in where the prediction is unusable: its overlap is set to zero below.
    values = iou_xywh(np.where(usable[:, None], boxes, truth), truth)
    # Rounding can lift a perfect overlap just above 1, where no threshold may count it.
    return np.where(usable, np.minimum(values, 1.0), 0.0)


def curve_of(values: ArrayLike) -> Floats:
    """(N,) overlaps -> (21,) share strictly above each threshold."""
    curve: Floats = (np.asarray(values, dtype=np.float64)[:, None] > THRESHOLDS).mean(axis=0)
    return curve


def success_curve(pred: ArrayLike, gt: ArrayLike, absent: ArrayLike | None = None) -> Floats:
    """(21,) success at ``THRESHOLDS``. Arguments and errors as in ``overlaps``."""
    return curve_of(overlaps(pred, gt, absent))


def success_auc(pred: ArrayLike, gt: ArrayLike, absent: ArrayLike | None = None) -> float:
    """Mean of ``success_curve``: the number that the tracking papers call AUC."""
    return float(success_curve(pred, gt, absent).mean())


def success(pred: ArrayLike, gt: ArrayLike, absent: ArrayLike | None = None) -> Success:
    """All scores of one target at once. Arguments and errors as in ``overlaps``."""
    values = overlaps(pred, gt, absent)
    curve = curve_of(values)
    return Success(
        curve=curve,
        auc=float(curve.mean()),
        mean_iou=float(values.mean()),
        sr50=float(curve[10]),
        frames=len(values),
    )
