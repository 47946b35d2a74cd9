"""Box algebra. Every function that converts names both formats. Pure numpy, float64.

Formats: ``xywh`` top left corner and size; ``xyxy`` two corners; ``cxcywh`` centre and size. Arrays (..., 4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.types import Box


def xywh_to_xyxy(box: ArrayLike) -> Box:
    """(..., 4) corner and size -> two corners."""
    b = np.asarray(box, dtype=np.float64)
    return np.concatenate([b[..., :2], b[..., :2] + b[..., 2:]], axis=-1)


def xyxy_to_xywh(box: ArrayLike) -> Box:
    """(..., 4) two corners -> corner and size."""
    b = np.asarray(box, dtype=np.float64)
    return np.concatenate([b[..., :2], b[..., 2:] - b[..., :2]], axis=-1)


def xywh_to_cxcywh(box: ArrayLike) -> Box:
    """(..., 4) corner and size -> centre and size."""
    b = np.asarray(box, dtype=np.float64)
    return np.concatenate([b[..., :2] + b[..., 2:] / 2, b[..., 2:]], axis=-1)


def cxcywh_to_xywh(box: ArrayLike) -> Box:
    """(..., 4) centre and size -> corner and size."""
    b = np.asarray(box, dtype=np.float64)
    return np.concatenate([b[..., :2] - b[..., 2:] / 2, b[..., 2:]], axis=-1)


def clip_xywh(
    box: ArrayLike, width: float, height: float, *, margin: float = 0.0, min_side: float = 1.0
) -> Box:
    """One xywh box cut to the frame: ``margin`` pixels stay inside, sides are at least ``min_side``."""
    x1, y1, x2, y2 = xywh_to_xyxy(box)
    x1 = min(max(0.0, x1), width - margin)
    x2 = min(max(margin, x2), width)
    y1 = min(max(0.0, y1), height - margin)
    y2 = min(max(margin, y2), height)
    return np.array([x1, y1, max(min_side, x2 - x1), max(min_side, y2 - y1)], dtype=np.float64)


def iou_xywh(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of xywh boxes, broadcast over (..., 4); 0 where the union is empty."""
    a1, b1 = xywh_to_xyxy(a), xywh_to_xyxy(b)
    side = np.minimum(a1[..., 2:], b1[..., 2:]) - np.maximum(a1[..., :2], b1[..., :2])
    inter = np.clip(side, 0, None).prod(axis=-1)
    area_a = np.asarray(a, dtype=np.float64)[..., 2:].prod(axis=-1)
    area_b = np.asarray(b, dtype=np.float64)[..., 2:].prod(axis=-1)
    union = area_a + area_b - inter
    overlap: NDArray[np.float64] = np.where(union > 0, inter / np.where(union > 0, union, 1.0), 0.0)
    return overlap
