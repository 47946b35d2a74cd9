"""Scores of one tracker under one rule: all frames of all sequences in one pass. Knows arrays and rules only.

An overlap or error is counted by how many thresholds lie below it (``searchsorted``), which is exact for
"above", "at least" and "at most" alike; the counts per sequence and bin are summed up into the curves. The
long arrays are worked through in blocks that stay in the processor's cache.

Shapes: S sequences, F frames, T thresholds. Boxes xywh in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.errors import DataError
from vltrack.metrics.rules import Rule
from vltrack.metrics.truth import Flags, Floats, Truth

Curve = Literal["success", "precision", "norm_precision"]
CURVES: tuple[Curve, ...] = ("success", "precision", "norm_precision")
_Pick = Callable[[Rule, Floats], Floats]
_BLOCK = 1 << 14
_MISS = -1.0
NO_ROW = (np.inf,) * 4
"""A frame for which the results have no row: a miss in everything."""
ZERO_ROW = (0.0, 0.0, 5e-324, 5e-324)
"""A frame without a row that counts as a box of zeros: of the smallest size there is, so that it is not taken
for a broken prediction and repaired.
"""


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
    if rule.bad_prediction == "carry":
        predicted = carried(truth, predicted, first=rule.first)
    if np.isposinf(predicted[:, 0]).any():
        predicted = np.where(np.isposinf(predicted), np.nan, predicted)
    bins = [rule.success_thresholds, rule.precision_thresholds, rule.norm_thresholds]
    counted = np.zeros(truth.frames, dtype=bool)
    found = [np.zeros(truth.frames, dtype=np.intp) for _ in bins]
    overlaps = np.zeros(truth.frames)
    sides: tuple[Literal["left", "right"], ...] = (
        "left" if rule.reach == "above" else "right",
        "left",
        "left",
    )
    sizes = np.repeat(truth.sizes, truth.lengths, axis=0) if rule.clipped else None
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for begin in range(0, truth.frames, _BLOCK):
            part = slice(begin, min(begin + _BLOCK, truth.frames))
            counted[part], *values = _block(truth, predicted, sizes, part, rule)
            np.maximum(values[0], 0, out=overlaps[part])
            for here, thresholds, value, side in zip(found, bins, values, sides, strict=True):
                here[part] = np.searchsorted(thresholds, value, side)
    overlaps[~counted] = 0
    frames, curves = _summed(truth, counted, found, [len(row) for row in bins])
    total = np.bincount(_owner(truth), weights=overlaps, minlength=len(truth))
    return Scores(
        rule=rule,
        names=truth.names,
        success=_shares(curves[0], frames, above=True),
        precision=_shares(curves[1], frames, above=False),
        norm_precision=_shares(curves[2], frames, above=False),
        overlap=total / np.maximum(frames, 1),
        frames=frames,
    )


def ceiling(truth: Truth, rule: Rule) -> Scores:
    """What a tracker that gives the annotation itself reaches: the most that the rule lets anybody reach."""
    return score(truth, truth.boxes, replace(rule, bad_prediction="keep"))


def carried(truth: Truth, boxes: Floats, *, first: str = "truth") -> Floats:
    """(F, 4) with every prediction that is no box replaced by the one before it, from the second frame on.

    What the first frame hands on is what is scored there (``Rule.first``). Where the annotation itself is
    NaN, or there is no prediction at all (``NO_ROW``), nothing is replaced. The same array if there is
    nothing to do.
    """
    fine = np.isfinite(boxes).all() and bool((boxes[:, 2:] > 0).all())
    if fine:
        return boxes
    starts = truth.starts[:-1]
    good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    bad = np.array(~good & ~np.isnan(truth.boxes).any(axis=1) & ~np.isposinf(boxes[:, 0]))
    bad[starts] = False
    handed = boxes.copy()
    if first == "truth":
        handed[starts] = truth.boxes[starts]
    repaired: Floats = handed[np.maximum.accumulate(np.where(bad, 0, np.arange(len(boxes))))]
    return repaired


def _block(
    truth: Truth, boxes: Floats, sizes: Floats | None, part: slice, rule: Rule
) -> tuple[Flags, Floats, Floats, Floats]:
    """Of some frames in a row: which count, their overlaps, centre errors and normalised centre errors."""
    t = truth.boxes[part].T.copy(order="C")
    p = boxes[part].T.copy(order="C")
    starts = truth.starts[np.searchsorted(truth.starts, part.start) :]
    first = starts[starts < part.stop] - part.start
    if rule.first == "truth":
        p[:, first] = t[:, first]
    if rule.rounded:
        t, p = np.rint(t), np.rint(p)
    if sizes is not None:
        t, p = _clipped(t, sizes[part].T), _clipped(p, sizes[part].T)
    absent = truth.absent[part]
    valid = (t[2] > 0) & (t[3] > 0)
    if rule.valid == "xywh":
        valid &= (t[0] > 0) & (t[1] > 0)
    counted = np.ones(len(valid), dtype=bool)
    if rule.first == "drop":
        counted[first] = False
    if rule.uncovered == "drop":
        counted &= truth.cover[part] > 0
    if rule.nan == "drop":
        counted &= ~np.isnan(t).any(axis=0)
    if rule.absent == "invalid":
        valid &= ~absent
    elif rule.absent == "drop":
        counted &= ~absent
    if rule.invalid == "drop":
        counted &= valid
    centre, norm = _errors(t, p, rule)
    located = valid if rule.centre_valid == "box" else _centre_is_positive(t)
    _settle(centre, ~located, rule.invalid_centre)
    _settle(norm, ~located, rule.invalid_norm)
    overlap = _overlap(t, p)
    overlap[~valid] = _MISS
    if rule.absent == "miss":
        overlap[absent] = _MISS
        centre[absent] = norm[absent] = np.inf
    return counted, overlap, centre, norm


def _overlap(t: Floats, p: Floats) -> Floats:
    """(4, N) twice -> (N,) intersection over union, at most 1; a miss where a prediction is no box."""
    width = np.minimum(t[0] + t[2], p[0] + p[2]) - np.maximum(t[0], p[0])
    height = np.minimum(t[1] + t[3], p[1] + p[3]) - np.maximum(t[1], p[1])
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    overlap = inter / (t[2] * t[3] + p[2] * p[3] - inter)
    cut: Floats = np.clip(overlap, 0.0, 1.0, out=overlap)
    cut[np.isnan(cut)] = _MISS
    return cut


def _errors(t: Floats, p: Floats, rule: Rule) -> tuple[Floats, Floats]:
    """(4, N) twice -> (N,) distance of the centres in pixels, and in sizes of the true box; never NaN."""
    tx, ty = t[0] + (t[2] - 1) / 2, t[1] + (t[3] - 1) / 2
    px, py = p[0] + (p[2] - 1) / 2, p[1] + (p[3] - 1) / 2
    dx, dy = px - tx, py - ty
    centre = np.sqrt(dx * dx + dy * dy)
    if rule.norm_by == "each centre":
        # Divided first: boxes of whole pixels lie exactly on thresholds k/100, and rounding decides.
        dx, dy = px / t[2] - tx / t[2], py / t[3] - ty / t[3]
    else:
        dx, dy = dx / np.maximum(t[2], 1), dy / np.maximum(t[3], 1)
    norm = np.sqrt(dx * dx + dy * dy)
    centre[np.isnan(centre)] = np.inf
    norm[np.isnan(norm)] = np.inf
    return centre, norm


def _settle(errors: Floats, where: Flags, how: Literal["hit", "miss", "scored"]) -> None:
    if how != "scored":
        errors[where] = _MISS if how == "hit" else np.inf  # an error below 0 is a hit at every threshold


def _centre_is_positive(t: Floats) -> Flags:
    located: Flags = (t[0] + (t[2] - 1) / 2 > 0) & (t[1] + (t[3] - 1) / 2 > 0)
    return located


def _clipped(boxes: Floats, sizes: Floats) -> Floats:
    """(4, N) xywh cut to frames (2, N): first the corner is moved inside, then the size is cut."""
    width, height = sizes
    x, y = np.clip(boxes[0], 0, width), np.clip(boxes[1], 0, height)
    return np.stack([x, y, np.clip(boxes[2], 0, width - x), np.clip(boxes[3], 0, height - y)])


def _owner(truth: Truth) -> NDArray[np.intp]:
    return np.repeat(np.arange(len(truth)), truth.lengths)


def _summed(
    truth: Truth, counted: Flags, found: list[NDArray[np.intp]], lengths: list[int]
) -> tuple[NDArray[np.int64], list[Floats]]:
    """Frames that count in each sequence, and for each curve the counts (S, T + 1) by bin."""
    owner = _owner(truth)
    if not counted.all():
        owner, found = owner[counted], [bins[counted] for bins in found]
    tables = []
    for bins, length in zip(found, lengths, strict=True):
        bins += owner * (length + 1)
        count = np.bincount(bins, minlength=len(truth) * (length + 1))
        tables.append(count.reshape(len(truth), length + 1).astype(np.float64))
    return tables[0].sum(axis=1).astype(np.int64), tables


def _shares(table: Floats, frames: NDArray[np.int64], *, above: bool) -> Floats:
    """(S, T + 1) frames by how many thresholds lie below them -> (S, T) shares above, or up to, each."""
    up_to = table.cumsum(axis=1)[:, :-1]
    reached = frames[:, None] - up_to if above else up_to
    shares: Floats = reached / np.maximum(frames, 1)[:, None]
    return shares
