"""Overlap and center errors of every frame under a rule.

Boxes are columns, (4, N) x, y, w, h: a block of complete sequences that fits into the processor's cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vltrack.core.types import Floats
from vltrack.metrics.annotations import Annotations, Flags
from vltrack.metrics.protocols import Rule

MISS = -1.0
"""Overlap of a frame that is a miss for every tracker: below every threshold. As an error it is a hit."""
NO_ROW = (np.inf,) * 4
"""A frame without a row in the results: a miss in every measure."""
ZERO_ROW = (0.0, 0.0, 5e-324, 5e-324)
"""A frame without a row that counts as a box of zeros: of the smallest positive size, so that it is not
repaired as a broken prediction.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameBlock:
    """Some consecutive sequences: their annotations and predictions.

    Attributes:
        annotated: (4, N) columns.
        boxes: (4, N) predictions; may be changed.
        absent, cover: (N,).
        sizes: (2, N) of the frames, or None if the rule does not need them.
        first: (S,) the first frame of each sequence.
    """

    annotated: Floats
    boxes: Floats
    absent: Flags
    cover: Floats
    sizes: Floats | None
    first: NDArray[np.int64]

    @classmethod
    def cut(
        cls, annotations: Annotations, boxes: Floats, rows: slice, first: NDArray[np.int64], rule: Rule
    ) -> FrameBlock:
        """Take frames ``rows`` of annotations and of predictions (F, 4); the predictions are copied."""
        sizes = None
        if rule.clipped:
            begin, end = np.searchsorted(annotations.starts, (rows.start, rows.stop))
            sizes = np.repeat(annotations.sizes[begin:end], annotations.lengths[begin:end], axis=0).T
        return cls(
            annotated=annotations.boxes[rows].T,
            boxes=boxes[rows].T.copy(order="C"),
            absent=annotations.absent[rows],
            cover=annotations.cover[rows],
            sizes=sizes,
            first=first,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameErrors:
    """Overlap and errors of N frames.

    Attributes:
        counted: (N,) the frames that count; None if all do.
        overlap: (N,) 0 to 1, or ``MISS``.
        center, norm: (N,) errors in pixels and in target sizes; infinite for a miss, ``MISS`` for a hit
            whatever the prediction. Never NaN.
    """

    counted: Flags | None
    overlap: Floats
    center: Floats
    norm: Floats


def measure(block: FrameBlock, rule: Rule) -> FrameErrors:
    """Compute overlap and errors of a block's frames under a rule (see ``protocols.Rule``)."""
    t, p = block.annotated, _repaired(block, rule)
    if rule.rounded:
        t, p = np.rint(t), np.rint(p)
    if block.sizes is not None:
        t, p = _clipped(t, block.sizes), _clipped(p, block.sizes)
    invalid = ~((t[2] > 0) & (t[3] > 0))
    if rule.valid == "xywh":
        invalid |= ~((t[0] > 0) & (t[1] > 0))
    if rule.absent == "invalid":
        invalid |= block.absent
    tx, ty = _center(t)
    center, norm = _errors(t, p, (tx, ty), rule)
    nowhere = invalid if rule.center_valid == "box" else ~((tx > 0) & (ty > 0))
    _settle(center, nowhere, rule.invalid_center)
    _settle(norm, nowhere, rule.invalid_norm)
    overlap = _overlap(t, p)
    np.copyto(overlap, MISS, where=invalid)
    if rule.absent == "miss":
        np.copyto(overlap, MISS, where=block.absent)
        np.copyto(center, np.inf, where=block.absent)
        np.copyto(norm, np.inf, where=block.absent)
    return FrameErrors(counted=_counted(block, invalid, rule), overlap=overlap, center=center, norm=norm)


def _counted(block: FrameBlock, invalid: Flags, rule: Rule) -> Flags | None:
    left_out = [
        rule.first == "drop" and _at(block.first, len(invalid)),
        rule.uncovered == "drop" and ~(block.cover > 0),
        rule.nan == "drop" and np.isnan(block.annotated).any(axis=0),
        rule.absent == "drop" and block.absent,
        rule.invalid == "drop" and invalid,
    ]
    found = [flags for flags in left_out if flags is not False]
    return ~np.logical_or.reduce(found) if found else None


def _at(places: NDArray[np.int64], count: int) -> Flags:
    flags = np.zeros(count, dtype=bool)
    flags[places] = True
    return flags


def _repaired(block: FrameBlock, rule: Rule) -> Floats:
    """Predictions with the first frame by the rule, and broken ones replaced by the one before.

    Nothing is repeated where the annotation itself is NaN, or the results have no row (``NO_ROW``).
    """
    p, first = block.boxes, block.first
    if rule.first == "truth":
        p[:, first] = block.annotated[:, first]
    fine = (p[2] > 0) & (p[3] > 0) & np.isfinite(p[0] + p[1] + p[2] + p[3])
    if fine.all():
        return p
    if rule.bad_prediction == "carry":
        broken = ~fine & ~np.isnan(block.annotated).any(axis=0) & ~np.isposinf(p[0])
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


def _settle(errors: Floats, where: Flags, how: Literal["hit", "miss", "scored"]) -> None:
    if how != "scored":
        np.copyto(errors, MISS if how == "hit" else np.inf, where=where)


def _clipped(boxes: Floats, sizes: Floats) -> Floats:
    """Cut boxes to frames of (2, N) sizes: first the corner is moved inside, then the size is cut."""
    width, height = sizes
    x, y = np.clip(boxes[0], 0, width), np.clip(boxes[1], 0, height)
    return np.stack([x, y, np.clip(boxes[2], 0, width - x), np.clip(boxes[3], 0, height - y)])
