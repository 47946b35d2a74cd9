"""The two scores that only WebUAV-3M has: mAcc and cAUC. Knows arrays only.

Source: the MMOT toolkit of WebUAV-3M. Its attribute curves keep sequences without the attribute as rows of
zeros in the mean, which scales them by their share; ours are means over the sequences that have it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vltrack.core.boxes import iou_xywh
from vltrack.metrics.truth import Flags, Floats, Truth

_EPS = np.finfo(np.float64).eps
_THRESHOLDS = np.arange(21) / 20


@dataclass(frozen=True, kw_only=True, slots=True)
class UavScores:
    """Shares 0..1; ``accuracy`` (mAcc) and ``complete_auc`` (cAUC) are means of the (S,) rows below them."""

    accuracy: float
    complete_auc: float
    accuracy_each: Floats
    complete_auc_each: Floats


def webuav(truth: Truth, boxes: ArrayLike, said_absent: ArrayLike | None = None) -> UavScores:
    """Score (F, 4) xywh predictions, the first frame of each sequence replaced by the truth.

    ``said_absent`` (F,): frames for which the tracker gave no box. Where the target is absent only such a
    frame is accurate: a box there scores 0, however small.
    """
    predicted = np.array(boxes, dtype=np.float64)
    predicted[truth.starts[:-1]] = truth.boxes[truth.starts[:-1]]
    silent: Flags = (
        np.zeros(truth.frames, dtype=bool) if said_absent is None else np.asarray(said_absent, bool)
    )
    gone: Flags = np.array((truth.boxes == 0).all(axis=1))
    usable = np.isfinite(predicted).all(axis=1) & (predicted[:, 2:] > 0).all(axis=1)
    overlap = np.where(usable, np.minimum(iou_xywh(np.nan_to_num(predicted), truth.boxes), 1.0), 0.0)
    accurate = np.where(gone, silent.astype(np.float64), np.where(silent, 0.0, overlap))
    complete = np.where(usable & ~gone, complete_iou(np.nan_to_num(predicted), truth.boxes), 0.0)
    owner = np.repeat(np.arange(len(truth)), truth.lengths)
    accuracy = np.bincount(owner, weights=accurate) / truth.lengths
    bins = np.searchsorted(_THRESHOLDS, np.clip(complete, 0.0, 1.0), "left")
    # A frame above k thresholds adds k/21 to the area under the curve of its sequence.
    area = np.bincount(owner, weights=bins / len(_THRESHOLDS)) / truth.lengths
    return UavScores(
        accuracy=float(accuracy.mean()),
        complete_auc=float(area.mean()),
        accuracy_each=accuracy,
        complete_auc_each=area,
    )


def complete_iou(a: Floats, b: Floats) -> Floats:
    """(N, 4) xywh twice -> (N,) complete IoU: overlap less centre distance and difference of the shapes.

    ``b`` is the truth. Zheng et al., "Distance-IoU Loss", AAAI 2020, eq. 10-12, without the +1 of pixels.
    """
    overlap = iou_xywh(a, b)
    low = np.minimum(a[:, :2], b[:, :2])
    high = np.maximum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    diagonal = ((high - low) ** 2).sum(axis=1)
    apart = ((a[:, :2] + a[:, 2:] / 2 - b[:, :2] - b[:, 2:] / 2) ** 2).sum(axis=1)
    angle = np.arctan2(b[:, 2], b[:, 3]) - np.arctan2(a[:, 2], a[:, 3])
    shape = 4 / np.pi**2 * angle**2
    weight = shape / (1 - overlap + shape + _EPS)
    complete: Floats = overlap - apart / np.maximum(diagonal, _EPS) - weight * shape
    return complete
