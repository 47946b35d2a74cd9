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
from vltrack.metrics.frame_errors import Block, measure
from vltrack.metrics.rules import Rule
from vltrack.metrics.truth import Flags, Floats, Truth

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


def score(truth: Truth, boxes: ArrayLike, rule: Rule) -> Scores:
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
            found = measure(Block.cut(truth, predicted, rows, first, rule), rule)
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


def ceiling(truth: Truth, rule: Rule) -> Scores:
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


def _groups(truth: Truth) -> Iterator[slice]:
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
