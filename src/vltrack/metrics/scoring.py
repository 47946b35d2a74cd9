"""Scores of one tracker under one protocol: all frames of all sequences in one pass.

An overlap or error is counted by how many thresholds lie below it, which is exact for "above", "at least" and
"at most" alike; the counts per sequence and bin are summed up into the curves. The long arrays are processed
in blocks of complete sequences that fit into the processor's cache.

Shapes: S sequences, F frames of all of them, N of one block, T thresholds. Boxes xywh in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.errors import DataError
from vltrack.core.types import Floats, iou_xywh
from vltrack.metrics.annotations import Annotations, Flags, is_box, listed
from vltrack.metrics.protocols import Rule

Curve = Literal["success", "precision", "norm_precision"]
CURVES: tuple[Curve, ...] = ("success", "precision", "norm_precision")
MEASURES: Mapping[str, tuple[Curve | None, str | float | None]] = {
    "auc": ("success", None),
    "precision": ("precision", None),
    "norm_precision": ("norm_precision", None),
    "norm_precision_at_20": ("norm_precision", 0.20),
    "norm_precision_mean": ("norm_precision", "mean"),
    "op50": ("success", 0.5),
    "op75": ("success", 0.75),
    "overlap": (None, None),
}
"""The measures of ``Scores``: a curve and its reduction (None: as the rule defines it; "mean"; or the value at
a threshold). ``overlap`` is the mean overlap: AO of GOT-10k, whose SR are op50 and op75.
"""

MISS = -1.0
"""Overlap of a frame that is a miss for every tracker: below every threshold."""
HIT = -1.0
"""Error of a frame that is a hit for every tracker: below every threshold."""
NO_ROW = (np.inf,) * 4
"""A frame without a row in the results: a miss in every measure."""
ZERO_ROW = (0.0, 0.0, 5e-324, 5e-324)
"""A frame without a row that counts as a box of zeros: of the smallest positive size, so that it is not
repaired as a broken prediction.
"""
_BLOCK = 1 << 14


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Scores of one tracker under one protocol.

    Attributes:
        rule: the protocol.
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
        curve, _ = MEASURES[measure]
        values = self.overlap if curve is None else _reduced(self.rule, measure, getattr(self, curve))
        scored: Floats = np.where(self.frames > 0, values, np.nan)
        return scored

    def curve(self, which: Curve, among: Flags | None = None) -> Floats:
        """(T,) mean curve of the data set, or of the sequences ``among`` (S,); NaN if there are none."""
        rows: Floats = getattr(self, which)
        if self.rule.drops_empty:
            some = rows.sum(axis=1) > np.finfo(np.float64).eps
            among = some if among is None else some & among
        return self._mean(rows, among)

    def value(self, measure: str, among: Flags | None = None) -> float:
        """One of ``MEASURES`` for the data set, or for the sequences ``among`` (S,), 0 to 1."""
        curve, _ = MEASURES[measure]
        if curve is None:
            return float(self._mean(self.overlap, among))
        return float(_reduced(self.rule, measure, self.curve(curve, among)[None])[0])

    def _mean(self, rows: Floats, among: Flags | None) -> Floats:
        """Mean over the sequences that count, as the rule pools them."""
        counted = self.frames > 0 if among is None else (self.frames > 0) & among
        if not counted.any():
            return np.full(rows.shape[1:], np.nan)
        weights = self.frames[counted] if self.rule.pooled == "frames" else None
        return np.asarray(np.average(rows[counted], axis=0, weights=weights), dtype=np.float64)


def _reduced(rule: Rule, measure: str, curves: Floats) -> Floats:
    """Reduce (S, T) curves of one of ``MEASURES`` to (S,) values."""
    curve, how = MEASURES[measure]
    thresholds, own = {
        "success": (rule.success_thresholds, rule.success_score),
        "precision": (rule.precision_thresholds, rule.precision_score),
        "norm_precision": (rule.norm_thresholds, rule.norm_score),
    }[curve or "success"]
    how = {"at 20 px": 20, "at 0.20": 0.20}.get(own, own) if how is None else how
    reduced: Floats
    if how == "mean":
        reduced = curves.mean(axis=1)
    elif how == "area":
        steps = np.diff(thresholds / thresholds[-1])
        reduced = ((curves[:, 1:] + curves[:, :-1]) / 2 * steps).sum(axis=1)
    else:
        reduced = curves[:, round(float(how) / thresholds[1])]
    return reduced


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
            length = annotations.lengths[some]
            counted, *values = measure(annotations, predicted, some, rule)
            owner = np.repeat(np.arange(len(length)), length)
            if counted is not None:
                owner, values = owner[counted], [column[counted] for column in values]
            at_least = (rule.reach == "at least", False, False)
            for table, row, value, at in zip(tables, thresholds, values, at_least, strict=True):
                keys = below(value, row, or_at=at) + owner * (len(row) + 1)
                count = np.bincount(keys, minlength=len(length) * (len(row) + 1))
                table[some] = count.reshape(len(length), -1)
            total[some] = np.bincount(owner, weights=np.maximum(values[0], 0), minlength=len(length))
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
    """Score the ground truth itself: the most that any tracker can reach under the protocol."""
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
        close = np.abs(scaled - np.rint(scaled, out=whole)) < 1e-9
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


# -- overlap and errors of frames ---------------------------------------------------------------------------


def measure(
    annotations: Annotations, boxes: Floats, some: slice, rule: Rule
) -> tuple[Flags | None, Floats, Floats, Floats]:
    """Compute overlap and errors of the N frames of consecutive sequences by a ``protocols.Rule``.

    Args:
        annotations: of the data set.
        boxes: (F, 4) predictions. Not changed.
        some: the sequences.
        rule: the protocol.

    Returns:
        counted: (N,) the frames that count; None if all do.
        overlap: (N,) 0 to 1, or ``MISS``.
        center, norm: (N,) errors in pixels and in target sizes; infinite for a miss, ``HIT`` for a
            hit whatever the prediction. Never NaN.
    """
    rows = slice(int(annotations.starts[some.start]), int(annotations.starts[some.stop]))
    first = annotations.starts[some] - rows.start
    absent = annotations.absent[rows]
    annotated = annotations.boxes[rows].T
    t = annotated
    p = _repaired(annotated, boxes[rows].T.copy(order="C"), first, rule)
    if rule.rounded:
        t, p = np.rint(t), np.rint(p)
    if rule.clipped:
        sizes = np.repeat(annotations.sizes[some], annotations.lengths[some], axis=0).T
        t, p = _clipped(t, sizes), _clipped(p, sizes)
    invalid = ~((t[2] > 0) & (t[3] > 0))
    if rule.valid == "xywh":
        invalid |= ~((t[0] > 0) & (t[1] > 0))
    if rule.absent == "invalid":
        invalid |= absent
    tx, ty = _center(t)
    center, norm = _errors(t, p, (tx, ty), rule)
    nowhere = invalid if rule.center_valid == "box" else ~((tx > 0) & (ty > 0))
    for errors, how in ((center, rule.invalid_center), (norm, rule.invalid_norm)):
        if how != "scored":
            np.copyto(errors, HIT if how == "hit" else np.inf, where=nowhere)
    overlap = _overlap(t, p)
    np.copyto(overlap, MISS, where=invalid)
    if rule.absent == "miss":
        np.copyto(overlap, MISS, where=absent)
        np.copyto(center, np.inf, where=absent)
        np.copyto(norm, np.inf, where=absent)
    return _counted(annotations, rows, first, invalid, rule), overlap, center, norm


def _counted(
    annotations: Annotations, rows: slice, first: NDArray[np.int64], invalid: Flags, rule: Rule
) -> Flags | None:
    """(N,) the frames ``rows`` that count; None if all do."""
    left_out: list[Flags] = []
    if rule.first == "drop":
        left_out.append(np.isin(np.arange(len(invalid)), first))
    if rule.uncovered == "drop":
        left_out.append(~(annotations.cover[rows] > 0))
    if rule.nan == "drop":
        left_out.append(np.asarray(np.isnan(annotations.boxes[rows]).any(axis=1)))
    if rule.absent == "drop":
        left_out.append(annotations.absent[rows])
    if rule.invalid == "drop":
        left_out.append(invalid)
    return ~np.logical_or.reduce(left_out) if left_out else None


def _repaired(annotated: Floats, p: Floats, first: NDArray[np.int64], rule: Rule) -> Floats:
    """Predictions (4, N) with the ``first`` frames by the rule, and broken ones replaced by the one before.

    Nothing is repeated where the annotation itself is NaN, or the results have no row (``NO_ROW``). ``p`` is
    changed.
    """
    if rule.first == "truth":
        p[:, first] = annotated[:, first]
    fine = (p[2] > 0) & (p[3] > 0) & np.isfinite(p[0] + p[1] + p[2] + p[3])
    if fine.all():
        return p
    if rule.bad_prediction == "carry":
        broken = ~fine & ~np.isnan(annotated).any(axis=0) & ~np.isposinf(p[0])
        broken[first] = False
        p = p[:, np.maximum.accumulate(np.where(broken, 0, np.arange(p.shape[1])))]
    p[:, np.isposinf(p[0])] = np.nan
    return p


def _center(boxes: Floats) -> tuple[Floats, Floats]:
    """Centers as computed by toolkits that count pixels from 1."""
    return boxes[0] + (boxes[2] - 1) / 2, boxes[1] + (boxes[3] - 1) / 2


def _overlap(t: Floats, p: Floats) -> Floats:
    """Intersection over union, at most 1; a miss if a prediction is not a box."""
    width = np.minimum(t[0] + t[2], p[0] + p[2])
    width -= np.maximum(t[0], p[0])
    height = np.minimum(t[1] + t[3], p[1] + p[3])
    height -= np.maximum(t[1], p[1])
    inter = np.maximum(width, 0, out=width)
    inter *= np.maximum(height, 0, out=height)
    union = t[2] * t[3]
    union += p[2] * p[3]
    union -= inter
    overlap: Floats = np.divide(inter, union, out=union)
    np.minimum(np.maximum(overlap, 0, out=overlap), 1, out=overlap)
    np.copyto(overlap, MISS, where=np.isnan(overlap))
    return overlap


def _errors(t: Floats, p: Floats, true: tuple[Floats, Floats], rule: Rule) -> tuple[Floats, Floats]:
    """Distance of the centers in pixels, and in sizes of the annotated box."""
    (tx, ty), (px, py) = true, _center(p)
    dx, dy = px - tx, py - ty
    center = _length(dx, dy)
    if rule.norm_by == "each center":
        # Divided first: boxes of whole pixels lie exactly on thresholds k/100, and rounding decides.
        return center, _length(px / t[2] - tx / t[2], py / t[3] - ty / t[3])
    return center, _length(dx / np.maximum(t[2], 1), dy / np.maximum(t[3], 1))


def _length(x: Floats, y: Floats) -> Floats:
    square = x * x
    square += y * y
    length: Floats = np.sqrt(square, out=square)
    np.copyto(length, np.inf, where=np.isnan(length))
    return length


def _clipped(boxes: Floats, sizes: Floats) -> Floats:
    """Cut boxes to frames of (2, N) sizes: first the corner is moved inside, then the size is cut."""
    width, height = sizes
    x, y = np.clip(boxes[0], 0, width), np.clip(boxes[1], 0, height)
    return np.stack([x, y, np.clip(boxes[2], 0, width - x), np.clip(boxes[3], 0, height - y)])


# -- alignment of results -----------------------------------------------------------------------------------


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
            f"{len(missing)} of {len(annotations)} sequences have no result: {listed(missing)}.",
            hint="Run the tracker on them, or score what is there: subset present (--subset present).",
        )
    lengths = annotations.lengths
    filled = {
        name: np.zeros((int(n), 4)) for name, n in zip(annotations.names, lengths, strict=True) if name in missing
    }
    rows_of = {**results, **filled}
    frames = zip(annotations.names, lengths.tolist(), strict=True)
    there = np.array([count_rows(rows_of[name], count) for name, count in frames], dtype=np.int64)
    _check_lengths(annotations, there, rule)
    boxes = np.full(annotations.boxes.shape, NO_ROW, order="F")  # columns are contiguous, as the scorer reads them
    unasked = np.zeros(annotations.frames, dtype=bool)
    for index, name in enumerate(annotations.names):
        rows = annotations.rows(index)
        part = rows_of[name][: rows.stop - rows.start]
        boxes[rows.start : rows.start + len(part)] = part
        if there[index] < lengths[index]:
            unasked[rows] = np.isposinf(boxes[rows, 0])
    if rule.short == "zeros":
        boxes[unasked] = ZERO_ROW
    if rule.short == "cut" and unasked.any():
        annotations, boxes = annotations.frames_of(~unasked), np.asfortranarray(boxes[~unasked])
        if not annotations.lengths.all():
            empty = [name for name, rows in zip(annotations.names, annotations.lengths, strict=True) if not rows]
            raise DataError(f"Results without a row: {listed(empty)}.", hint="Run the tracker on them again.")
    return annotations, boxes


def count_rows(boxes: Floats, frames: int) -> int:
    """Number of rows; only those of the annotated ``frames`` where one of these has none.

    A result of misses only (``NO_ROW`` in every row) is complete.
    """
    there = ~np.isposinf(boxes[:, 0])
    return len(boxes) if there[:frames].all() or not there.any() else int(there[:frames].sum())


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
                f" protocol refuses: {listed(shown)}.{FIRST_MISSING if (there == lengths - 1)[wrong].all() else ''}",
                hint="Do results and annotations belong together? Run the tracker again"
                f"{', or choose a treatment: short misses or cut (--short misses|cut).' if how == 'fewer' else '.'}",
            )


FIRST_MISSING = " Each has one row too few: frame 1 may be missing, and every row be that of the frame after it."


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
    gone = (annotations.boxes == 0).all(axis=1)
    usable = is_box(predicted)
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
