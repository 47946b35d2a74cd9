"""Success of one target in one video, by the rule ``visible-only``. Knows boxes; no file and no tracker.

The convention of our table over real video (``benchmarks/real_video.py``) and of clips of one's own:

- frames where the target is absent (annotation ``0, 0, 0, 0``, any side not positive, or ``absent`` set) are
  left out, of the numerator and of the count;
- the first frame counts with whatever box the tracker gave there: in the box modes that is the start box
  itself, in the mode by words it is what the words found;
- success at t is the share of frames with overlap strictly above t; 21 thresholds 0, 0.05, ..., 1; the AUC is
  their mean. A perfect tracker therefore gets 20/21: nothing is above 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vltrack.core.errors import DataError
from vltrack.metrics.rules import RULES
from vltrack.metrics.scoring import score
from vltrack.metrics.truth import Annotation, Floats, Truth

_RULE = RULES["visible-only"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Success:
    """The scores of one target.

    Attributes:
        curve: (21,) success at the rule's thresholds.
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


def success(pred: ArrayLike, gt: ArrayLike, absent: ArrayLike | None = None) -> Success:
    """All scores of one target at once.

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
    gone = np.zeros(len(truth), dtype=bool) if absent is None else np.asarray(absent, dtype=bool)
    one = Truth.join([Annotation(name="the target", boxes=truth, absent=gone)])
    scores = score(one, boxes, _RULE)
    if not scores.frames[0]:
        raise DataError("the target is absent in every frame; there is nothing to score.")
    return Success(
        curve=scores.success[0],
        auc=scores.value("auc"),
        mean_iou=scores.value("overlap"),
        sr50=scores.value("op50"),
        frames=int(scores.frames[0]),
    )


def success_auc(pred: ArrayLike, gt: ArrayLike, absent: ArrayLike | None = None) -> float:
    """The number that tracking papers call AUC. Arguments and errors as in ``success``."""
    return success(pred, gt, absent).auc
