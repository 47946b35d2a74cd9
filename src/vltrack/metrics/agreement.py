"""Agreement of several trackers on one target, without ground truth.

Agreement is the intersection over union of the boxes that two trackers report for one frame, whatever their
scores: the repeated box of a lost tracker counts. A tracker without a box in a frame has a row of NaN there,
which is left out.

Shapes: T trackers, N frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.types import Floats, iou_xywh


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Agreement of T trackers over N frames; NaN where there is nothing to compare.

    Attributes:
        mean_N: mean overlap of all pairs, frame by frame.
        each_TN: each tracker's mean overlap with the others, frame by frame.
        matrix_TT: mean overlap of each pair over the frames that both have a box in; NaN on the diagonal.
        overall_T: mean of ``each_TN`` over the frames.
    """

    mean_N: Floats
    each_TN: Floats
    matrix_TT: Floats
    overall_T: Floats


def agreement(boxes_TN4: ArrayLike) -> Agreement:
    """Compare the boxes (T, N, 4) xywh of T trackers; a row with NaN is a frame without a box.

    Raises:
        ValueError: not three axes with four numbers in the last.
    """
    boxes = np.asarray(boxes_TN4, dtype=np.float64)
    if boxes.ndim != 3 or boxes.shape[2] != 4:
        raise ValueError(f"Not (T, N, 4) boxes of several trackers: {boxes.shape}.")
    there_TN: NDArray[np.bool_] = np.array(np.isfinite(boxes).all(axis=2))
    overlap_TTN = iou_xywh(np.nan_to_num(boxes)[:, None], np.nan_to_num(boxes)[None])
    other_TT1 = np.eye(len(boxes))[..., None] == 0
    counts_TTN = there_TN[:, None] & there_TN[None] & other_TT1
    each_TN = _mean(overlap_TTN, counts_TTN, axis=1)
    return Agreement(
        mean_N=_mean(overlap_TTN, counts_TTN, axis=(0, 1)),
        each_TN=each_TN,
        matrix_TT=_mean(overlap_TTN, counts_TTN, axis=2),
        overall_T=_mean(np.nan_to_num(each_TN), np.isfinite(each_TN), axis=1),
    )


def _mean(values: Floats, counts: NDArray[np.bool_], axis: int | tuple[int, ...]) -> Floats:
    """Mean of the values that count; NaN if none does."""
    number = counts.sum(axis=axis)
    total = np.where(counts, values, 0.0).sum(axis=axis)
    mean: Floats = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return mean
