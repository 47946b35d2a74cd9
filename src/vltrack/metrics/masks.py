"""Overlap of regions of any kind in whole pixels, as the VOT toolkit of 2020 on counts it. Knows no protocol.

Numbers are rounded, halves to even; a rectangle has ``w`` columns and ``h`` rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.metrics.regions import Mask, Polygon, Rectangle, Region, Special
from vltrack.metrics.spans import spans_of

Size = tuple[int, int]
Bounds = tuple[int, int, int, int]
"""First column and row, last column and row."""


def toolkit_overlaps(
    first: Sequence[Region], second: Sequence[Region], size: Size | None = None
) -> NDArray[np.float64]:
    """(N,) overlap of N pairs of any kind as the VOT toolkit of 2020 on counts it.

    Two regions without a pixel (codes, empty masks, no size) are alike: 1. One of them alone: 0.

    Args:
        first, second: N regions each.
        size: (width, height): pixels outside do not count; two regions that lie wholly outside overlap by 0.

    Raises:
        DataError: the lengths differ.
    """
    if len(first) != len(second):
        raise DataError(f"{len(first)} regions cannot be compared with {len(second)}.")
    return np.array([_toolkit_overlap(a, b, size) for a, b in zip(first, second, strict=True)])


def is_empty(region: Region) -> bool:
    """Whether a region has no pixel: a code, a shape without width or height, a mask without foreground."""
    if isinstance(region, Special):
        return True
    if isinstance(region, Mask):
        return not region.pixels.any()
    left, top, right, bottom = _bounds(region)
    return right < left or bottom < top


def _toolkit_overlap(a: Region, b: Region, size: Size | None) -> float:
    nothing = is_empty(a), is_empty(b)
    if any(nothing):
        return float(all(nothing))
    bounds = [_bounds(a), _bounds(b)]
    window = _window(bounds, size)
    if isinstance(a, Rectangle) and isinstance(b, Rectangle):
        return _whole_overlap(_cut(bounds[0], window), _cut(bounds[1], window))
    one, two = pixels_in(a, window), pixels_in(b, window)
    union = int(np.count_nonzero(one | two))
    return int(np.count_nonzero(one & two)) / union if union else 0.0


def mask_overlap(truth: Mask, found: Mask, size: Size | None = None, ignore: Mask | None = None) -> float:
    """Overlap of two masks inside the frame, without the pixels of ``ignore``; two empty ones: 1.

    Args:
        truth, found: the masks; they may reach out of the frame.
        size: (width, height): pixels outside do not count. None counts all.
        ignore: pixels that do not count.
    """
    window = _window([_bounds(mask) for mask in (truth, found) if mask.pixels.size], size)
    one, two = pixels_in(truth, window), pixels_in(found, window)
    if ignore is not None:
        counts = ~pixels_in(ignore, window)
        one, two = one & counts, two & counts
    union = int(np.count_nonzero(one | two))
    return int(np.count_nonzero(one & two)) / union if union else 1.0


def _window(bounds: Sequence[Bounds], size: Size | None) -> Bounds:
    """The smallest window around all bounds, cut to the frame."""
    if not bounds:
        return 0, 0, -1, -1
    left, top, right, bottom = zip(*bounds, strict=True)
    around = min(left), min(top), max(right), max(bottom)
    return around if size is None else _cut(around, (0, 0, size[0] - 1, size[1] - 1))


def _bounds(region: Region) -> Bounds:
    """First and last column and row that a region covers, as the Python toolkit rounds (halves to even)."""
    if isinstance(region, Rectangle):
        x, y, w, h = (
            int(v) for v in np.round(np.array([region.x, region.y, region.w, region.h], np.float32))
        )
        return x, y, x + w - 1, y + h - 1
    if isinstance(region, Mask):
        height, width = region.pixels.shape
        return region.x, region.y, region.x + width - 1, region.y + height - 1
    if isinstance(region, Special):
        return 0, 0, -1, -1
    points = np.round(np.array(region.points, dtype=np.float32))
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    # A polygon on one line has no area.
    return int(left), int(top), int(right) - (left == right), int(bottom) - (top == bottom)


def _cut(bounds: Bounds, window: Bounds) -> Bounds:
    return (
        max(bounds[0], window[0]),
        max(bounds[1], window[1]),
        min(bounds[2], window[2]),
        min(bounds[3], window[3]),
    )


def _whole_overlap(a: Bounds, b: Bounds) -> float:
    """Overlap of two rectangles of whole pixels."""
    one, two, both = (max(0, r[2] - r[0] + 1) * max(0, r[3] - r[1] + 1) for r in (a, b, _cut(a, b)))
    union = one + two - both
    return both / union if union else 0.0


def pixels_in(region: Region, window: Bounds) -> NDArray[np.bool_]:
    """(rows, columns) bool: the pixels of a window that a region covers."""
    left, top, right, bottom = window
    picture = np.zeros((max(0, bottom - top + 1), max(0, right - left + 1)), dtype=bool)
    if isinstance(region, Special) or not picture.size:
        return picture
    if isinstance(region, Polygon):
        moved = np.round(np.array(region.points, dtype=np.float32)).astype(np.float64) - (left, top)
        begins, ends = spans_of(moved[None], len(picture), np.array([picture.shape[1]]), level=True)
        columns = np.arange(picture.shape[1])
        covered = (begins[0][..., None] <= columns) & (columns <= ends[0][..., None])
        return np.asarray(covered.any(axis=1))
    x1, y1, x2, y2 = _cut(_bounds(region), window)
    if x1 > x2 or y1 > y2:
        return picture
    inside: NDArray[np.bool_] | bool = True
    if isinstance(region, Mask):
        inside = region.pixels[y1 - region.y : y2 - region.y + 1, x1 - region.x : x2 - region.x + 1]
    picture[y1 - top : y2 - top + 1, x1 - left : x2 - left + 1] = inside
    return picture
