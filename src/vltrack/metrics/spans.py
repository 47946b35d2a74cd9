"""Which pixels of each row a polygon fills, as the VOT toolkits do it. Knows corners; knows no region."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Spans = tuple[NDArray[np.int64], NDArray[np.int64]]
"""First and last column of each span of pixels, (N, rows, spans) each; empty where last < first."""


def spans_of(points: Floats, height: int, width: NDArray[np.int64], *, level: bool = False) -> Spans:
    """The filled spans of each row; those of one row share no pixel.

    The rule: every edge that is not level gives each row between its ends, both included, the column where it
    crosses, cut to a whole number; columns are sorted and paired; of two equal ones the first is skipped,
    which takes care of rows through a corner. With ``level`` (the Python toolkit) level edges count too
    and two equal columns at the very end are a span of one pixel.

    Args:
        points: (N, E, 2) whole numbers, relative to the window's corner.
        height: rows of pixels.
        width: (N,) columns of each window.
    """
    x, y = points[:, None, :, 0], points[:, None, :, 1]
    x_before, y_before = np.roll(x, 1, axis=2), np.roll(y, 1, axis=2)
    row = np.arange(height, dtype=np.float64)[None, :, None]
    rise = y_before - y
    crosses = (np.minimum(y, y_before) <= row) & (row <= np.maximum(y, y_before)) & (level | (rise != 0))
    column = np.trunc(x + (row - y) / np.where(rise == 0, 1, rise) * (x_before - x) * (rise != 0))
    nodes = np.sort(np.where(crosses, column, np.inf), axis=2)
    last = (width - 1)[:, None].astype(np.float64)
    begins = np.zeros((*nodes.shape[:2], nodes.shape[2] - 1))
    ends = begins - 1
    number = crosses.sum(axis=2)
    at, filled = np.zeros(number.shape, dtype=np.int64), np.full(number.shape, -1.0)
    for k in range(begins.shape[2]):
        here, after = nodes[:, :, k], nodes[:, :, k + 1]
        here_now = (at == k) & (k + 1 < number) & (here < width[:, None])
        skipped = here_now & (here == after) & ((k < number - 2) if level else True)
        span = here_now & ~skipped & (after >= 0)
        # A pixel that two spans share is counted with the first.
        begins[:, :, k] = np.where(span, np.maximum(np.maximum(here, 0), filled + 1), 0)
        ends[:, :, k] = np.where(span, np.minimum(after, last), -1)
        filled = np.where(span, np.maximum(filled, ends[:, :, k]), filled)
        at += np.where(skipped, 1, np.where(here_now, 2, 0))
    return begins.astype(np.int64), ends.astype(np.int64)


def is_convex(points: Floats) -> NDArray[np.bool_]:
    """(N,) whether each (N, 4, 2) is convex, corners on a line included; False for all with more corners."""
    if points.shape[1] != 4:
        return np.zeros(len(points), dtype=bool)
    edges = np.roll(points, -1, axis=1) - points
    after = np.roll(edges, -1, axis=1)
    turns = edges[..., 0] * after[..., 1] - edges[..., 1] * after[..., 0]
    return np.asarray((turns >= 0).all(axis=1) | (turns <= 0).all(axis=1))


def convex_spans(points: Floats, height: int, width: NDArray[np.int64]) -> Spans:
    """What ``spans_of`` gives for convex polygons, where a row has one span, several times as fast."""
    before = np.roll(points, 1, axis=1)
    row = np.arange(height, dtype=np.float64)[None]
    first = np.full((len(points), height), np.inf)
    last = -first
    for k in range(points.shape[1]):
        (x, y), (x_before, y_before) = (
            points[:, k, :, None].swapaxes(0, 1),
            before[:, k, :, None].swapaxes(0, 1),
        )
        rise = y_before - y
        column = np.trunc(x + (row - y) / np.where(rise == 0, 1, rise) * (x_before - x))
        outside = (row < np.minimum(y, y_before)) | (row > np.maximum(y, y_before)) | (rise == 0)
        np.minimum(first, np.where(outside, np.inf, column), out=first)
        np.maximum(last, np.where(outside, -np.inf, column), out=last)
    # One column alone (a corner) is no span; neither is what lies beyond the window.
    filled = (first < last) & (first < width[:, None]) & (last >= 0)
    begins = np.where(filled, np.maximum(first, 0), 0)
    ends = np.where(filled, np.minimum(last, width[:, None] - 1), -1)
    return begins.astype(np.int64)[..., None], ends.astype(np.int64)[..., None]


def pixels_of(spans: Spans) -> NDArray[np.int64]:
    """(N, rows, spans) pixels of each span."""
    lengths: NDArray[np.int64] = np.maximum(spans[1] - spans[0] + 1, 0)
    return lengths


def common_pixels(one: Spans, two: Spans) -> NDArray[np.int64]:
    """(N, height) pixels that spans of both cover; the spans of one never share a pixel."""
    total = np.zeros(one[0].shape[:2], dtype=np.int64)
    for i in range(one[0].shape[2]):
        for k in range(two[0].shape[2]):
            begin = np.maximum(one[0][:, :, i], two[0][:, :, k])
            total += np.maximum(np.minimum(one[1][:, :, i], two[1][:, :, k]) - begin + 1, 0)
    return total
