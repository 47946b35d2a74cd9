"""The scoring rules once more, frame by frame in plain Python, to check the fast scorer.

Written from the descriptions of the toolkits, not from ``vltrack.metrics``: no array, no histogram.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Box = Sequence[float]


@dataclass
class Plain:
    """One sequence's curves as lists of shares."""

    success: list[float]
    precision: list[float]
    norm_precision: list[float]


def iou(a: Box, b: Box) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    union = a[2] * a[3] + b[2] * b[3] - inter
    return min(inter / union, 1.0) if union > 0 else 0.0


def center(box: Box) -> tuple[float, float]:
    return box[0] + (box[2] - 1) / 2, box[1] + (box[3] - 1) / 2


def distance(p: Box, t: Box) -> float:
    (px, py), (tx, ty) = center(p), center(t)
    return math.sqrt((px - tx) ** 2 + (py - ty) ** 2)


def norm_distance(p: Box, t: Box) -> float:
    (px, py), (tx, ty) = center(p), center(t)
    if t[2] == 0 or t[3] == 0:
        return math.inf
    return math.sqrt((px / t[2] - tx / t[2]) ** 2 + (py / t[3] - ty / t[3]) ** 2)


def is_nan(box: Box) -> bool:
    return any(math.isnan(v) for v in box)


def repaired(truth: Sequence[Box], boxes: Sequence[Box]) -> list[Box]:
    """First frame from the annotation; a prediction that is not a box repeats the one before it."""
    rows: list[Box] = [truth[0]]
    for t, p in zip(truth[1:], boxes[1:], strict=True):
        broken = any(not math.isfinite(v) for v in p) or p[2] <= 0 or p[3] <= 0
        rows.append(rows[-1] if broken and not is_nan(t) else p)
    return rows


def curves(overlaps: list[float], errors: list[float], norms: list[float], count: int) -> Plain:
    return Plain(
        success=[sum(v > k / 20 for v in overlaps) / count for k in range(21)],
        precision=[sum(v <= k for v in errors) / count for k in range(51)],
        norm_precision=[sum(v <= k / 100 for v in norms) / count for k in range(51)],
    )


def matlab(truth: Sequence[Box], absent: Sequence[bool], boxes: Sequence[Box]) -> Plain:
    """OTB, LaSOT, TNL2K, UAV123: absent frames leave the lists, the count stays the whole length."""
    overlaps, errors, norms = [], [], []
    for t, gone, p in zip(truth, absent, repaired(truth, boxes), strict=True):
        if gone:
            continue
        valid = all(v > 0 for v in t)
        overlaps.append(iou(p, t) if valid else -1.0)
        errors.append(distance(p, t) if valid else -1.0)
        norms.append(norm_distance(p, t) if valid else -1.0)
    return curves(overlaps, errors, norms, len(truth))


def vlt_python(
    truth: Sequence[Box], absent: Sequence[bool], boxes: Sequence[Box], dataset: str, *, knows_absent: bool
) -> Plain:
    """The Python code of the vision-language trackers."""
    overlaps, errors, norms = [], [], []
    for t, gone, p in zip(truth, absent, repaired(truth, boxes), strict=True):
        seen = not (gone and knows_absent)
        valid = t[2] > 0 and t[3] > 0 and seen
        overlap = iou(p, t) if valid else -1.0
        error = distance(p, t) if valid else (-1.0 if dataset == "uav" else math.inf)
        norm = norm_distance(p, t) if valid else -1.0
        if dataset == "lasot" and not seen:
            error = norm = math.inf
        overlaps.append(overlap)
        errors.append(error)
        norms.append(norm)
    return curves(overlaps, errors, norms, len(truth))
