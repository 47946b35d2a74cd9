"""Overlap of the shapes of VOT 2013 to 2019, in pixels and exactly. Knows no protocol and no file.

Three measures differ by a pixel at the border, so by about 0.01 in a frame:

- ``raster_overlaps``: the C code of the VOT toolkit of those years (TraX's ``region.c``), which the pysot
  toolkit took over and with which the EAO of VOT2016 to VOT2019 is published. Corners are rounded, both
  ends of a row of pixels are inside. A rectangle is the polygon of its corners ``x`` and ``x + w`` (as in
  pysot).
- ``analytic_overlaps``: exact areas; 0.001 to 0.003 below the first in EAO.
- ``masks.toolkit_overlaps``: the Python toolkit of 2020 on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.metrics.regions import Polygon, Rectangle, Region, Special
from vltrack.metrics.spans import common_pixels, convex_spans, is_convex, pixels_of, spans_of

Floats = NDArray[np.float64]
Size = tuple[int, int]
Points = tuple[tuple[float, float], ...]

CHUNK = 1 << 17
"""Rows of pixels, over all pairs, that are worked on at once: small enough for the processor's cache."""
TALLEST = 1 << 16
"""Rows of the tallest window: a shape beyond it cannot overlap an annotation noticeably."""


def corners(region: Rectangle | Polygon) -> Points:
    """The corners of a shape; of a rectangle clockwise from the upper left, with ``x + w`` and ``y + h``."""
    if isinstance(region, Polygon):
        return region.points
    x, y, right, bottom = region.x, region.y, region.x + region.w, region.y + region.h
    return ((x, y), (right, y), (right, bottom), (x, bottom))


def raster_overlaps(first: Sequence[Region], second: Sequence[Region], size: Size | None = None) -> Floats:
    """(N,) overlap of N pairs as the VOT toolkit of 2016 to 2019 counts it; NaN where one is a code.

    Args:
        first, second: N regions each.
        size: (width, height): pixels outside do not count. None counts all.

    Raises:
        DataError: the lengths differ, or one is a mask.
    """
    overlaps = np.full(_same_length(first, second), np.nan)
    rows = [i for i, pair in enumerate(zip(first, second, strict=True)) if _both_shapes(*pair)]
    if not rows:
        return overlaps
    a, b = (_padded([_corners(side[i]) for i in rows]) for side in (first, second))
    overlaps[rows] = _polygon_overlaps(a, b, size)
    return overlaps


def _same_length(first: Sequence[Region], second: Sequence[Region]) -> int:
    if len(first) != len(second):
        raise DataError(f"{len(first)} regions cannot be compared with {len(second)}.")
    return len(first)


def _both_shapes(a: Region, b: Region) -> bool:
    return not isinstance(a, Special) and not isinstance(b, Special)


def _corners(region: Region) -> Points:
    if isinstance(region, (Rectangle, Polygon)):
        return corners(region)
    raise DataError("a mask cannot be scored here.", hint="VOT scores masks from 2020 on: name that year.")


def _padded(points: list[Points]) -> NDArray[np.float32]:
    """(N, E, 2) float32, as the toolkit's C code has them; the last corner repeated changes nothing."""
    most = max(map(len, points))
    return np.array([p + (p[-1],) * (most - len(p)) for p in points], dtype=np.float32)


def _polygon_overlaps(a: NDArray[np.float32], b: NDArray[np.float32], size: Size | None) -> Floats:
    """(N,) overlap of polygons (N, E, 2) and (N, K, 2)."""
    far = np.float32(np.inf)
    low, high = np.array([-far, -far]), np.array([far, far])
    if size is not None:
        low, high = np.zeros(2, dtype=np.float32), np.array(size, dtype=np.float32) - 1
    tops = [np.maximum(np.floor(p.min(axis=1)), low) for p in (a, b)]
    ends = [np.minimum(np.ceil(p.max(axis=1)), high) for p in (a, b)]
    origin = np.minimum(*tops)
    extent = np.maximum(*ends) - origin + 1
    sides = np.minimum(*ends) - np.maximum(*tops)
    areas = [(end - top).prod(axis=1) for top, end in zip(tops, ends, strict=True)]
    # Two shapes whose surrounding boxes share no area, or one without an area, do not overlap.
    counts = (sides > 0).all(axis=1) & (extent >= 1).all(axis=1)
    counts &= (areas[0] > 1e-10 * areas[1]) & (areas[1] > 1e-10 * areas[0])
    counts &= extent[:, 1] <= TALLEST
    overlaps = np.zeros(len(a))
    moved = [_rounded(p - origin[:, None]) for p in (a, b)]
    convex = np.logical_and(*map(is_convex, moved))
    for group, fill in ((convex, convex_spans), (~convex, spans_of)):
        rows = np.flatnonzero(counts & group)
        # The shortest first, so that few rows of pixels are worked on for nothing.
        for part in _parts(rows[np.argsort(extent[rows, 1], kind="stable")], extent[:, 1]):
            height, width = int(extent[part, 1].max()), extent[part, 0].astype(np.int64)
            spans = [fill(p[part], height, width) for p in moved]
            inside = (np.arange(height) < extent[part, 1, None])[..., None]
            one, two = ((pixels_of(s) * inside).sum(axis=(1, 2)) for s in spans)
            common = (common_pixels(*spans) * inside[..., 0]).sum(axis=1)
            union = one + two - common
            overlaps[part] = np.where(union > 0, common / np.maximum(union, 1), 0.0)
    return overlaps


def _parts(rows: NDArray[np.int64], heights: NDArray[np.float32]) -> Iterator[NDArray[np.int64]]:
    """Cut ``rows``, sorted by height, into parts of at most about ``CHUNK`` rows of pixels."""
    while len(rows):
        grown = np.arange(1, len(rows) + 1) * heights[rows]
        take = max(1, int(np.searchsorted(grown, CHUNK)))
        yield rows[:take]
        rows = rows[take:]


def _rounded(points: NDArray[np.float32]) -> Floats:
    """To whole numbers, halves away from zero (C's ``round``)."""
    exact = points.astype(np.float64)
    rounded: Floats = np.copysign(np.floor(np.abs(exact) + 0.5), exact)
    return rounded


def analytic_overlaps(first: Sequence[Region], second: Sequence[Region], size: Size | None = None) -> Floats:
    """(N,) exact overlap of the areas of N pairs; NaN where one is a code.

    Args:
        first, second: N rectangles or polygons each; those of ``second`` (the truth) convex.
        size: (width, height): what lies outside is cut off first. None cuts nothing.

    Raises:
        DataError: the lengths differ, one is a mask, or one of ``second`` is not convex.
    """
    overlaps = np.full(_same_length(first, second), np.nan)
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        if not _both_shapes(a, b):
            continue
        one, two = _corners(a), _corners(b)
        if size is not None:
            frame = corners(Rectangle(0, 0, *size))
            one, two = _clipped(one, frame), _clipped(two, frame)
        both = abs(_area(_clipped(one, two)))
        union = abs(_area(one)) + abs(_area(two)) - both
        overlaps[i] = both / union if union > 0 else 0.0
    return overlaps


def _area(points: Points) -> float:
    """Signed area (shoelace)."""
    before = points[-1:] + points[:-1]
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(before, points, strict=True)) / 2


def _clipped(points: Points, convex: Points) -> Points:
    """The part of a polygon inside a convex one (Sutherland and Hodgman 1974)."""
    whole = _area(convex)
    if whole == 0:
        return ()
    turn = math.copysign(1.0, whole)
    for (x0, y0), (x1, y1) in zip(convex[-1:] + convex[:-1], convex, strict=True):
        sides = [turn * ((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)) for x, y in points]
        kept: list[tuple[float, float]] = []
        for k, (x, y) in enumerate(points):
            (xb, yb), side, side_before = points[k - 1], sides[k], sides[k - 1]
            if side * side_before < 0:
                share = side_before / (side_before - side)
                kept.append((xb + share * (x - xb), yb + share * (y - yb)))
            if side >= 0:
                kept.append((x, y))
        points = tuple(kept)
    return points
