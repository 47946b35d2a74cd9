"""Success of one target in one video, presence, and accuracy of visual grounding.

Success is scored by the rule ``visible-only``, the protocol of our table over real video
(``benchmarks/real_video.py``) and of clips of your own:

- frames where the target is absent (annotation ``0, 0, 0, 0``, a side that is not positive, or ``absent``
  set) are left out, of the numerator and of the count;
- the first frame counts with whatever box the tracker gave there: in the box modes that is the given box, in
  text-only mode the tracker's own;
- success at t is the share of frames with overlap strictly above t; 21 thresholds 0, 0.05, ..., 1; the AUC is
  their mean. A perfect tracker therefore gets 20/21: nothing is above 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vltrack.core.errors import DataError
from vltrack.core.types import Floats, iou_xywh
from vltrack.metrics.annotations import Annotation, Annotations, is_box
from vltrack.metrics.protocols import RULES
from vltrack.metrics.scoring import score


@dataclass(frozen=True, kw_only=True, slots=True)
class Success:
    """The scores of one target.

    Attributes:
        curve: (21,) success at the rule's thresholds.
        auc: mean of the curve.
        mean_iou: mean overlap.
        sr50: success at 0.5.
        frames: number of frames that count.
    """

    curve: Floats
    auc: float
    mean_iou: float
    sr50: float
    frames: int


def success(pred: ArrayLike, gt: ArrayLike, absent: ArrayLike | None = None) -> Success:
    """Compute all scores of one target.

    Args:
        pred: (N, 4) xywh; rows that are not finite or have no size count as overlap 0.
        gt: (N, 4) xywh annotations.
        absent: (N,) true where the target is absent; without it only ``gt`` decides.

    Raises:
        DataError: the shapes do not fit, or no frame counts.
    """
    boxes, annotated = np.asarray(pred, dtype=np.float64), np.asarray(gt, dtype=np.float64)
    if boxes.shape != annotated.shape or annotated.ndim != 2 or annotated.shape[1] != 4:
        raise DataError(f"Predictions {boxes.shape} and annotations {annotated.shape} must both be (N, 4).")
    gone = np.zeros(len(annotated), dtype=bool) if absent is None else np.asarray(absent, dtype=bool)
    one = Annotations.join([Annotation(name="the target", boxes=annotated, absent=gone)])
    scores = score(one, boxes, RULES["visible-only"])
    if not scores.frames[0]:
        raise DataError("The target is absent in every frame. There is nothing to score.")
    return Success(
        curve=scores.success[0],
        auc=scores.value("auc"),
        mean_iou=scores.value("overlap"),
        sr50=scores.value("op50"),
        frames=int(scores.frames[0]),
    )


def success_auc(pred: ArrayLike, gt: ArrayLike, absent: ArrayLike | None = None) -> float:
    """Compute the AUC of tracking papers, 0 to 1. Arguments and errors as in ``success``."""
    return success(pred, gt, absent).auc


# -- presence -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Presence:
    """Whether a tracker says when its target is not there.

    Attributes:
        auroc: probability that a frame with the target under the box scores higher than one without the target; NaN
            without both.
        absent_visible: share of the frames without the target that are called visible; NaN without any.
        drifted_visible: the same of the frames whose box does not touch the target.
        threshold: score that 95 % of the frames with the target under the box reach; NaN without any.
        absent_above: share of the frames without the target that reach it; NaN without any.
    """

    auroc: float
    absent_visible: float
    drifted_visible: float
    threshold: float
    absent_above: float


def presence(score: ArrayLike, visible: ArrayLike, overlap: ArrayLike) -> Presence:
    """Compute it over N frames, of one target or of several together.

    Args:
        score, visible: (N,) of the tracker.
        overlap: (N,) of its box with the annotation, NaN where the target is absent.
    """
    scores, shown, overlaps = np.asarray(score, dtype=np.float64), np.asarray(visible, dtype=bool), np.asarray(overlap)
    absent, drifted = np.isnan(overlaps), overlaps == 0
    on, off = np.sort(scores[overlaps >= 0.5]), scores[absent]
    wins = np.searchsorted(on, off, side="left") + np.searchsorted(on, off, side="right")
    threshold = float(np.quantile(on, 0.05, method="lower")) if len(on) else np.nan
    return Presence(
        auroc=float(1 - wins.mean() / (2 * len(on))) if len(on) and len(off) else np.nan,
        absent_visible=float(shown[absent].mean()) if absent.any() else np.nan,
        drifted_visible=float(shown[drifted].mean()) if drifted.any() else np.nan,
        threshold=threshold,
        absent_above=float((off >= threshold).mean()) if len(on) and len(off) else np.nan,
    )


# -- visual grounding ---------------------------------------------------------------------------------------

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
        without_box: number of predictions that are not a box (NaN, infinite, no width or height): overlap 0.
    """

    accuracy: Floats
    mean_iou: float
    count: int
    without_box: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``acc_25``, ``acc_50`` ... ``acc_90`` and ``mean_iou`` in percent."""
        shares = zip(THRESHOLDS.tolist(), self.accuracy.tolist(), strict=True)
        accuracies = {f"acc_{round(100 * at)}": 100 * share for at, share in shares}
        counts = {"count": self.count, "without_box": self.without_box}
        return {**accuracies, "mean_iou": 100 * self.mean_iou, **counts}


def grounding(found: ArrayLike, annotated: ArrayLike) -> Grounding:
    """Compute Acc@t and mean overlap.

    Acc@t is the share of sentences whose box overlaps the annotated one by strictly more than t, as VLTVG and
    JointNLT count it (no pixel is added to sides); t = 0.25, and 0.50 to 0.90 in steps of 0.05.

    Args:
        found: (N, 4) xywh predicted boxes; a row that is not a box counts as overlap 0.
        annotated: (N, 4) xywh boxes, finite and with positive sides.

    Raises:
        DataError: the shapes differ or are not (N, 4), N is 0, or an annotated box is invalid (named by row).
    """
    boxes, true = np.asarray(found, dtype=np.float64), np.asarray(annotated, dtype=np.float64)
    if boxes.shape != true.shape or true.ndim != 2 or true.shape[1] != 4 or not len(true):
        raise DataError(f"Predicted boxes {boxes.shape} and annotated boxes {true.shape} must both be (N, 4), N > 0.")
    good = is_box(true)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise DataError(f"Annotated box {row} is not a box: {true[row].tolist()}.", hint="Leave it out.")
    usable = is_box(boxes)
    # A missing box is replaced by the annotated one, and its overlap set to zero.
    overlap = np.where(usable, np.minimum(iou_xywh(np.where(usable[:, None], boxes, true), true), 1.0), 0.0)
    return Grounding(
        accuracy=(overlap[:, None] > THRESHOLDS).mean(axis=0),
        mean_iou=float(overlap.mean()),
        count=len(true),
        without_box=int(np.count_nonzero(~usable)),
    )
