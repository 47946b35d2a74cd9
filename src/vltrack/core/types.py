"""What flows between the floors: ``Frame``, ``Target``, ``Step``. Knows no file and no model.

Boxes everywhere are ``x, y, w, h`` float64 in pixels of the displayed frame (top left corner first).
Images are RGB uint8 of shape (H, W, 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Image = NDArray[np.uint8]
Box = NDArray[np.float64]
Floats = NDArray[np.float64]


class Mode(StrEnum):
    """How a target was named. Follows from the ``Target``, never from a configuration."""

    NL = "nl"
    BBOX = "bbox"
    NLBBOX = "nlbbox"


class Status(StrEnum):
    """What is known of one frame of a ``Track``."""

    OK = "ok"
    LOST = "lost"
    MISSING = "missing"
    INVALID = "invalid"


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One displayed frame.

    Attributes:
        image: RGB uint8 (H, W, 3), rotation applied; ``None`` where it could not be decoded (a gap row).
        index: 0-based number of the frame in presentation order; gaps keep their numbers.
        seconds: presentation time from the first frame of the file; for image folders index / rate.
        flags: short remarks, for example ``("size-changed",)``.
    """

    image: Image | None
    index: int
    seconds: float
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What to follow: a box (x, y, w, h in pixels), a sentence, or both."""

    box: tuple[float, float, float, float] | None = None
    text: str | None = None

    @property
    def mode(self) -> Mode:
        """NL, BBOX or NLBBOX, from what is given. Raises ``ValueError`` if nothing is."""
        if self.box is None and self.text is None:
            raise ValueError("a Target needs a box, a sentence or both")
        if self.box is None:
            return Mode.NL
        return Mode.BBOX if self.text is None else Mode.NLBBOX


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One target in one frame.

    Attributes:
        box: (x, y, w, h) float64, always finite, w and h > 0. The last credible box while the target is lost.
        score: presence in [0, 1]; falls when the target leaves.
        visible: whether the tracker believes that the target is in the frame.
        status: ``ok``, ``lost`` (not seen, box held), ``missing`` (frame not decodable), ``invalid`` (the
            network gave no finite box; the last one is held).
        index, seconds: of the frame.
        extras: numbers that a policy wants to show (frames since lost, ...); never needed by a reader.
    """

    box: Box
    score: float
    visible: bool
    index: int
    seconds: float
    status: Status = Status.OK
    extras: dict[str, Any] = field(default_factory=dict)


# MERGED core/types.py
# Box algebra. Every function that converts names both formats. Pure numpy, float64.
#
# Formats: ``xywh`` top left corner and size; ``xyxy`` two corners; ``cxcywh`` centre and size. Arrays
# (..., 4).


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
