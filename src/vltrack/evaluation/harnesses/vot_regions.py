"""From the regions of the VOT toolkit to what our trackers start with. Knows boxes; parses no text."""

from __future__ import annotations

import numpy as np

from vltrack.metrics.regions import Mask, Polygon, Rectangle, Region

BoxTuple = tuple[float, float, float, float]


def box_around(region: Region) -> BoxTuple | None:
    """The smallest upright box (x, y, w, h) around a region; None for a code and for an empty mask."""
    if isinstance(region, Rectangle):
        return region.x, region.y, region.w, region.h
    if isinstance(region, Polygon):
        low, high = np.min(region.points, axis=0), np.max(region.points, axis=0)
        return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])
    if not isinstance(region, Mask) or not region.pixels.any():
        return None
    rows, columns = np.nonzero(region.pixels)
    left, top = int(columns.min()), int(rows.min())
    width, height = int(columns.max()) - left + 1, int(rows.max()) - top + 1
    return float(region.x + left), float(region.y + top), float(width), float(height)
