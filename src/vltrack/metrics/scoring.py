"""Scores of one tracker under one rule: all frames of all sequences in one pass.

An overlap or error is counted by how many thresholds lie below it, which is exact for "above", "at least" and
"at most" alike; the counts per sequence and bin are summed up into the curves. The long arrays are processed
in blocks of complete sequences that fit into the processor's cache.

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
    """Scores of one tracker under one rule.

    Attributes:
        rule: the convention.
        names: S names.
        success, precision, norm_precision: (S, T) share of the sequence's frames at each threshold.
        overlap: (S,) mean overlap of the frames that count; misses and invalid frames are 0.
        frames: (S,) number of frames that count; a sequence without any is left out of every mean.
    """

    rule: Rule
    names: tuple[str, ...]
    success: Floats
    precision: Floats
    norm_precision: Floats
    overlap: Floats
    frames: NDArray[np.int64]

    def each(self, measure: str) -> Floats:
        """(S,) one of ``MEASURES`` for every sequence, 0 to 1; NaN where no frame counts."""
        curve, pick = MEASURES[measure]
        values = self.overlap if curve is None else pick(self.rule, getattr(self, curve))
        scored: Floats = np.where(self.frames > 0, values, np.nan)
        return scored

    def curve(self, which: Curve, among: Flags | None = None) -> Floats:
        """(T,) mean curve of the data set, or of the sequences ``among`` (S,); NaN if there are none."""
        rows = getattr(self, which)
        counted = self._counted(among)
        if self.rule.drops_empty:
            counted = counted & (rows.sum(axis=1) > np.finfo(np.float64).eps)
        if not counted.any():
            return np.full(rows.shape[1], np.nan)
        weights = self.frames[counted] if self.rule.pooled == "frames" else None
        return np.asarray(np.average(rows[counted], axis=0, weights=weights), dtype=np.float64)

    def value(self, measure: str, among: Flags | None = None) -> float:
        """One of ``MEASURES`` for the data set, or for the sequences ``among`` (S,), 0 to 1."""
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
"""The measures of ``Scores``: a curve and its reduction. ``norm_precision`` is as the rule defines it; the
next two are always the value at 0.20 and the mean to 0.5. ``overlap`` is the mean overlap: AO of GOT-10k,
whose SR are op50 and op75.
"""


def score(annotations: Annotations, boxes: ArrayLike, rule: Rule) -> Scores:
    """Score one tracker.

    Args:
        annotations: of the data set.
        boxes: (F, 4) predictions in the order of ``annotations`` (see ``align``). Not changed.
        rule: one of ``protocols.RULES`` or one of your own.

    Raises:
        DataError: the shape does not fit.
    """
    predicted = np.asarray(boxes, dtype=np.float64)
    if predicted.shape != annotations.boxes.shape:
        raise DataError(f"Predictions of shape {predicted.shape} for annotations of {annotations.boxes.shape}.")
    thresholds = (rule.success_thresholds, rule.precision_thresholds, rule.norm_thresholds)
    tables = [np.zeros((len(annotations), len(row) + 1), dtype=np.int64) for row in thresholds]
    total = np.zeros(len(annotations))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for some in _groups(annotations):
            rows = slice(int(annotations.starts[some.start]), int(annotations.starts[some.stop]))
            first = annotations.starts[some] - rows.start
            found = measure(FrameBlock.cut(annotations, predicted, rows, first, rule), rule)
            owner = np.repeat(np.arange(len(first)), np.diff(first, append=rows.stop - rows.start))
            values = [found.overlap, found.center, found.norm]
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
        names=annotations.names,
        success=_shares(tables[0], frames, above=True),
        precision=_shares(tables[1], frames, above=False),
        norm_precision=_shares(tables[2], frames, above=False),
        overlap=total / np.maximum(frames, 1),
        frames=frames,
    )


def upper_bound(annotations: Annotations, rule: Rule) -> Scores:
    """Score the annotation itself: the most that any tracker can reach under the rule."""
    return score(annotations, annotations.boxes, replace(rule, bad_prediction="keep"))


def below(values: Floats, thresholds: Floats, *, or_at: bool = False) -> NDArray[np.intp]:
    """(N,) number of ``thresholds`` (rising evenly from 0) below each value, or at it too.

    The result of ``searchsorted``, several times as fast: by division, and by search only near ties.
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


def _groups(annotations: Annotations) -> Iterator[slice]:
    """Yield consecutive sequences, as many as fill a block."""
    begin = 0
    while begin < len(annotations):
        limit = annotations.starts[begin] + _BLOCK
        end = int(np.searchsorted(annotations.starts, limit, "right")) - 1
        end = max(end, begin + 1)
        yield slice(begin, end)
        begin = end


def _shares(table: NDArray[np.int64], frames: NDArray[np.int64], *, above: bool) -> Floats:
    """(S, T + 1) frames by number of thresholds below them -> (S, T) shares above, or up to, each."""
    up_to = table.cumsum(axis=1)[:, :-1]
    reached = frames[:, None] - up_to if above else up_to
    shares: Floats = reached / np.maximum(frames, 1)[:, None]
    return shares


# -- alignment of results -----------------------------------------------------------------------------------

_SHOWN = 8


def align(annotations: Annotations, results: Mapping[str, Floats], rule: Rule) -> tuple[Annotations, Floats]:
    """Put results into the order of the annotations; fill, cut or refuse those of a wrong length.

    Args:
        annotations: of the sequences to score.
        results: (N, 4) xywh by name of the sequence; results of other sequences are ignored.
        rule: says how to treat results with fewer or more rows than the annotation.

    Returns:
        The annotations (cut, if the rule cuts them) and the predictions (F, 4).

    Raises:
        DataError: results are missing, or too short or too long for the rule; all of them are listed.
    """
    missing = [name for name in annotations.names if name not in results]
    if missing and rule.missing == "refuse":
        raise DataError(
            f"{len(missing)} of {len(annotations)} sequences have no result: {_listed(missing)}.",
            hint="Run the tracker on them, or score what is there with --subset.",
        )
    lengths = annotations.lengths
    filled = {
        name: np.zeros((int(n), 4)) for name, n in zip(annotations.names, lengths, strict=True) if name in missing
    }
    rows_of = {**results, **filled}
    there = np.array([len(rows_of[name]) for name in annotations.names], dtype=np.int64)
    _check_lengths(annotations, there, rule)
    if rule.short == "cut" and (there < lengths).any():
        if not there.all():
            empty = [name for name, rows in zip(annotations.names, there, strict=True) if not rows]
            raise DataError(f"Results without a row: {_listed(empty)}.", hint="Run the tracker on them again.")
        annotations = annotations.cut(np.minimum(there, lengths))
    boxes = np.empty(annotations.boxes.shape, order="F")  # columns are contiguous, as the scorer reads them
    boxes[:] = ZERO_ROW if rule.short == "zeros" else NO_ROW
    for index, name in enumerate(annotations.names):
        rows = annotations.rows(index)
        part = rows_of[name][: rows.stop - rows.start]
        boxes[rows.start : rows.start + len(part)] = part
    return annotations, boxes


def _check_lengths(annotations: Annotations, there: NDArray[np.int64], rule: Rule) -> None:
    lengths = annotations.lengths
    for how, refused, wrong in (
        ("fewer", rule.short == "refuse", there < lengths),
        ("more", rule.long == "refuse", there > lengths),
    ):
        if refused and wrong.any():
            which = np.flatnonzero(wrong)
            shown = [f"{annotations.names[s]} ({there[s]} for {lengths[s]} frames)" for s in which]
            raise DataError(
                f"{len(shown)} of {len(annotations)} results have {how} rows than the annotation, which this"
                f" rule refuses: {_listed(shown)}.",
                hint="Do results and annotations belong together? Run the tracker again, or see --short.",
            )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


# -- WebUAV-3M ----------------------------------------------------------------------------------------------

_EPS = np.finfo(np.float64).eps
_THRESHOLDS = np.arange(21) / 20


def webuav(annotations: Annotations, boxes: Floats, no_box: Flags) -> tuple[float, float]:
    """Compute the two scores that only WebUAV-3M has, mAcc and cAUC (0 to 1), as its MMOT toolkit does.

    The first frame of each sequence is replaced by the ground truth. ``no_box`` (F,): frames for which the
    tracker reported no box; if the target is absent, only such a frame is accurate.

    The toolkit's attribute curves keep sequences without the attribute as rows of zeros in the mean, which
    scales them by their share; ours are means over the sequences that have it.
    """
    predicted = np.array(boxes, dtype=np.float64)
    predicted[annotations.starts[:-1]] = annotations.boxes[annotations.starts[:-1]]
    gone: Flags = np.array((annotations.boxes == 0).all(axis=1))
    usable = np.isfinite(predicted).all(axis=1) & (predicted[:, 2:] > 0).all(axis=1)
    overlap = np.where(usable, np.minimum(iou_xywh(np.nan_to_num(predicted), annotations.boxes), 1.0), 0.0)
    accurate = np.where(gone, no_box.astype(np.float64), np.where(no_box, 0.0, overlap))
    complete = np.where(usable & ~gone, complete_iou(np.nan_to_num(predicted), annotations.boxes), 0.0)
    owner = np.repeat(np.arange(len(annotations)), annotations.lengths)
    accuracy = np.bincount(owner, weights=accurate) / annotations.lengths
    bins = np.searchsorted(_THRESHOLDS, np.clip(complete, 0.0, 1.0), "left")
    # A frame above k thresholds adds k/21 to the area under the curve of its sequence.
    area = np.bincount(owner, weights=bins / len(_THRESHOLDS)) / annotations.lengths
    return float(accuracy.mean()), float(area.mean())


def complete_iou(a: Floats, b: Floats) -> Floats:
    """(N,) complete IoU of (N, 4) xywh predictions and annotations.

    It is the overlap less center distance and difference of the shapes:
    Zheng et al., "Distance-IoU Loss", AAAI 2020, eq. 10-12, without the +1 of pixels.
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
