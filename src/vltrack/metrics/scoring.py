"""Scores of one tracker under one rule: all frames of all sequences in one pass. Knows arrays and rules only.

An overlap or error is counted by how many thresholds lie below it, which is exact for "above", "at least" and
"at most" alike; the counts per sequence and bin are summed up into the curves. The long arrays are worked
through in blocks of whole sequences that stay in the processor's cache.

Shapes: S sequences, F frames, T thresholds. Boxes xywh in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.errors import DataError
from vltrack.core.types import Floats, iou_xywh
from vltrack.metrics.annotations import Annotations, Flags
from vltrack.metrics.frame_errors import NO_ROW, ZERO_ROW, FrameBlock, measure
from vltrack.metrics.protocols import Rule

Curve = Literal["success", "precision", "norm_precision"]
CURVES: tuple[Curve, ...] = ("success", "precision", "norm_precision")
_Pick = Callable[[Rule, Floats], Floats]
_BLOCK = 1 << 14
_CLOSE = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """What one tracker reaches under one rule.

    Attributes:
        rule: the convention.
        names: S names.
        success, precision, norm_precision: (S, T) share of the sequence's frames at each threshold.
        overlap: (S,) mean overlap of the frames that count; misses and invalid frames are 0.
        frames: (S,) how many frames count; a sequence of which none does is left out of every mean.
    """

    rule: Rule
    names: tuple[str, ...]
    success: Floats
    precision: Floats
    norm_precision: Floats
    overlap: Floats
    frames: NDArray[np.int64]

    def each(self, measure: str) -> Floats:
        """(S,) one measure of every sequence, 0 to 1; NaN where no frame counts. Names: ``MEASURES``."""
        curve, pick = MEASURES[measure]
        values = self.overlap if curve is None else pick(self.rule, getattr(self, curve))
        scored: Floats = np.where(self.frames > 0, values, np.nan)
        return scored

    def curve(self, which: Curve, among: Flags | None = None) -> Floats:
        """(T,) mean curve of the data set, or of the sequences ``among`` (S,); NaN where there is none."""
        rows = getattr(self, which)
        counted = self._counted(among)
        if self.rule.drops_empty:
            counted = counted & (rows.sum(axis=1) > np.finfo(np.float64).eps)
        if not counted.any():
            return np.full(rows.shape[1], np.nan)
        weights = self.frames[counted] if self.rule.pooled == "frames" else None
        return np.asarray(np.average(rows[counted], axis=0, weights=weights), dtype=np.float64)

    def value(self, measure: str, among: Flags | None = None) -> float:
        """One measure of the data set, or of the sequences ``among`` (S,), 0 to 1. Names: ``MEASURES``."""
        curve, pick = MEASURES[measure]
        if curve is not None:
            return float(pick(self.rule, self.curve(curve, among)[None])[0])
        counted = self._counted(among)
        if not counted.any():
            return float("nan")
        weights = self.frames[counted] if self.rule.pooled == "frames" else None
        return float(np.average(self.overlap[counted], weights=weights))

    def _counted(self, among: Flags | None) -> Flags:
        return self.frames > 0 if among is None else (self.frames > 0) & among


def _mean(rule: Rule, curves: Floats) -> Floats:
    mean: Floats = curves.mean(axis=1)
    return mean


def _area(thresholds: Floats, curves: Floats) -> Floats:
    steps = np.diff(thresholds / thresholds[-1])
    area: Floats = ((curves[:, 1:] + curves[:, :-1]) / 2 * steps).sum(axis=1)
    return area


def _auc(rule: Rule, curves: Floats) -> Floats:
    return _mean(rule, curves) if rule.success_score == "mean" else _area(rule.success_thresholds, curves)


def _precision(rule: Rule, curves: Floats) -> Floats:
    if rule.precision_score == "area":
        return _area(rule.precision_thresholds, curves)
    at20: Floats = curves[:, round(20 / rule.precision_step)]
    return at20


def _norm_at_20(rule: Rule, curves: Floats) -> Floats:
    at20: Floats = curves[:, round(0.20 / rule.norm_step)]
    return at20


def _norm(rule: Rule, curves: Floats) -> Floats:
    if rule.norm_score == "area":
        return _area(rule.norm_thresholds, curves)
    return _norm_at_20(rule, curves) if rule.norm_score == "at 0.20" else _mean(rule, curves)


def _success_at(share: float) -> _Pick:
    def pick(rule: Rule, curves: Floats) -> Floats:
        at: Floats = curves[:, round(share * rule.success_steps)]
        return at

    return pick


MEASURES: Mapping[str, tuple[Curve | None, _Pick]] = {
    "auc": ("success", _auc),
    "precision": ("precision", _precision),
    "norm_precision": ("norm_precision", _norm),
    "norm_precision_at_20": ("norm_precision", _norm_at_20),
    "norm_precision_mean": ("norm_precision", _mean),
    "op50": ("success", _success_at(0.5)),
    "op75": ("success", _success_at(0.75)),
    "overlap": (None, _mean),
}
"""What can be asked of ``Scores``. ``norm_precision`` is what the rule calls so; the next two are always the
value at 0.20 and the mean to 0.5. ``overlap`` is the mean overlap: AO of GOT-10k, whose SR are op50, op75.
"""


def score(truth: Annotations, boxes: ArrayLike, rule: Rule) -> Scores:
    """Score one tracker.

    Args:
        truth: the annotations.
        boxes: (F, 4) predictions in the order of ``truth`` (``align`` makes them). Not changed.
        rule: one of ``rules.RULES`` or one of your own.

    Raises:
        DataError: the shape does not fit.
    """
    predicted = np.asarray(boxes, dtype=np.float64)
    if predicted.shape != truth.boxes.shape:
        raise DataError(f"{predicted.shape} predicted numbers for {truth.boxes.shape} annotated ones.")
    thresholds = (rule.success_thresholds, rule.precision_thresholds, rule.norm_thresholds)
    tables = [np.zeros((len(truth), len(row) + 1), dtype=np.int64) for row in thresholds]
    total = np.zeros(len(truth))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for some in _groups(truth):
            rows = slice(int(truth.starts[some.start]), int(truth.starts[some.stop]))
            first = truth.starts[some] - rows.start
            found = measure(FrameBlock.cut(truth, predicted, rows, first, rule), rule)
            owner = np.repeat(np.arange(len(first)), np.diff(first, append=rows.stop - rows.start))
            values = [found.overlap, found.centre, found.norm]
            if found.counted is not None:
                owner, values = owner[found.counted], [column[found.counted] for column in values]
            at_least = (rule.reach == "at least", False, False)
            for table, row, value, at in zip(tables, thresholds, values, at_least, strict=True):
                keys = below(value, row, or_at=at) + owner * (len(row) + 1)
                count = np.bincount(keys, minlength=len(first) * (len(row) + 1))
                table[some] = count.reshape(len(first), -1)
            total[some] = np.bincount(owner, weights=np.maximum(values[0], 0), minlength=len(first))
    frames = tables[0].sum(axis=1)
    return Scores(
        rule=rule,
        names=truth.names,
        success=_shares(tables[0], frames, above=True),
        precision=_shares(tables[1], frames, above=False),
        norm_precision=_shares(tables[2], frames, above=False),
        overlap=total / np.maximum(frames, 1),
        frames=frames,
    )


def upper_bound(truth: Annotations, rule: Rule) -> Scores:
    """What a tracker that gives the annotation itself reaches: the most that the rule lets anybody reach."""
    return score(truth, truth.boxes, replace(rule, bad_prediction="keep"))


def below(values: Floats, thresholds: Floats, *, or_at: bool = False) -> NDArray[np.intp]:
    """(N,) how many of ``thresholds`` (rising evenly from 0) lie below each value, or at it too.

    What ``searchsorted`` says, several times as fast: by division, and by search only where that is close.
    """
    if or_at:
        return np.searchsorted(thresholds, values, "right")
    scaled = values / thresholds[1]
    whole = np.ceil(scaled)
    count: NDArray[np.intp] = np.minimum(np.maximum(whole, 0), len(thresholds)).astype(np.intp)
    if thresholds[1] != 1:  # whole pixels are exact
        close = np.abs(scaled - np.rint(scaled, out=whole)) < _CLOSE
        close &= values > 0
        if close.any():
            count[close] = np.searchsorted(thresholds, values[close], "left")
    return count


def _groups(truth: Annotations) -> Iterator[slice]:
    """Sequences in a row, so many that their frames fill a block."""
    begin = 0
    while begin < len(truth):
        end = int(np.searchsorted(truth.starts, truth.starts[begin] + _BLOCK, "right")) - 1
        end = max(end, begin + 1)
        yield slice(begin, end)
        begin = end


def _shares(table: NDArray[np.int64], frames: NDArray[np.int64], *, above: bool) -> Floats:
    """(S, T + 1) frames by how many thresholds lie below them -> (S, T) shares above, or up to, each."""
    up_to = table.cumsum(axis=1)[:, :-1]
    reached = frames[:, None] - up_to if above else up_to
    shares: Floats = reached / np.maximum(frames, 1)[:, None]
    return shares


# MERGED metrics/scoring.py
# Results laid beside the annotations as a rule wants it: missing, short and long ones. Knows no file.


_SHOWN = 8


def align(truth: Annotations, results: Mapping[str, Floats], rule: Rule) -> tuple[Annotations, Floats]:
    """The predictions (F, 4) in the order of the truth, and the truth (cut, where the rule cuts it).

    Args:
        truth: the annotations.
        results: (N, 4) xywh by the sequence's name; more sequences than the truth has are passed over.
        rule: says what happens to results with fewer or more rows than the annotation.

    Raises:
        DataError: results are missing, or too short or too long for the rule; all of them are listed.
    """
    missing = [name for name in truth.names if name not in results]
    if missing and rule.missing == "refuse":
        raise DataError(
            f"{len(missing)} of {len(truth)} sequences have no result: {_listed(missing)}.",
            hint="Run the tracker on them, or score what is there with --subset.",
        )
    whole = dict(results) | {
        name: np.zeros((int(rows), 4))
        for name, rows in zip(truth.names, truth.lengths, strict=True)
        if name in set(missing)
    }
    there = np.array([len(whole[name]) for name in truth.names], dtype=np.int64)
    _refuse(truth, there, rule)
    if rule.short == "cut" and (there < truth.lengths).any():
        if not there.all():
            empty = [name for name, rows in zip(truth.names, there, strict=True) if not rows]
            raise DataError(
                f"results without a row: {_listed(empty)}.", hint="Run the tracker on them again."
            )
        truth = truth.cut(np.minimum(there, truth.lengths))
    boxes = np.empty(truth.boxes.shape, order="F")  # a column is one piece of memory: the scorer's form
    boxes[:] = ZERO_ROW if rule.short == "zeros" else NO_ROW
    for index, name in enumerate(truth.names):
        rows = truth.rows(index)
        part = whole[name][: rows.stop - rows.start]
        boxes[rows.start : rows.start + len(part)] = part
    return truth, boxes


def _refuse(truth: Annotations, there: NDArray[np.int64], rule: Rule) -> None:
    wrong = {
        "fewer": there < truth.lengths if rule.short == "refuse" else np.zeros(len(truth), dtype=bool),
        "more": there > truth.lengths if rule.long == "refuse" else np.zeros(len(truth), dtype=bool),
    }
    for how, which in wrong.items():
        if which.any():
            told = [
                f"{truth.names[s]} ({there[s]} for {truth.lengths[s]} frames)" for s in np.flatnonzero(which)
            ]
            raise DataError(
                f"{len(told)} of {len(truth)} results have {how} rows than the annotation, which this"
                f" rule refuses: {_listed(told)}.",
                hint="Do results and annotations belong together? Run the tracker again, or see --short.",
            )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


# MERGED metrics/scoring.py
# The two scores that only WebUAV-3M has: mAcc and cAUC. Knows arrays only.
#
# Source: the MMOT toolkit of WebUAV-3M. Its attribute curves keep sequences without the attribute as rows of
# zeros in the mean, which scales them by their share; ours are means over the sequences that have it.


_EPS = np.finfo(np.float64).eps
_THRESHOLDS = np.arange(21) / 20


@dataclass(frozen=True, kw_only=True, slots=True)
class UavScores:
    """Shares 0..1; ``accuracy`` (mAcc) and ``complete_auc`` (cAUC) are means of the (S,) rows below them."""

    accuracy: float
    complete_auc: float
    accuracy_each: Floats
    complete_auc_each: Floats


def webuav(truth: Annotations, boxes: ArrayLike, said_absent: ArrayLike | None = None) -> UavScores:
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
