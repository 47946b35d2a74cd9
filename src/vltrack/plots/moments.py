"""Moments of a video with all trackers' boxes, chosen while it runs. Knows frames; holds small tiles only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import ArrayLike

from vltrack.core.types import Box, Image
from vltrack.plots.lanes import STRAY, draw_boxes

TILE = 424
"""Width of a tile in pixels."""
SHOWN = 8
_HELD = 6
"""Moments held for each one shown: the more, the more even the choice from a video of unknown length."""
_ZOOM = 7.0
"""A tile is at most so many times as wide as the target, so that a small one can still be seen."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Moment:
    """A frame with all boxes, cut and shrunk to a tile: (H, W, 3) RGB uint8; ``mean`` is its agreement."""

    tile: Image
    index: int
    seconds: float
    mean: float


class Moments:
    """A few moments of a video of any length, evenly spread, and the one where the trackers agree least."""

    def __init__(self, names: Sequence[str], count: int = SHOWN) -> None:
        self._names = names
        self._count = count
        self._held: list[Moment] = []
        self._least: Moment | None = None
        self._latest: Callable[[], Moment] | None = None
        self._every, self._met = 1, 0

    def add(
        self,
        image: Image,
        frame: tuple[int, float],
        boxes_T4: ArrayLike,
        visible: Sequence[bool],
        mean: float,
        each: Sequence[float],
    ) -> None:
        """Take the next frame (number, seconds) with all boxes; as ``lanes.draw_boxes`` and ``Band.draw``."""

        def moment() -> Moment:
            picture = cut(image, np.asarray(boxes_T4, dtype=np.float64))
            tile = draw_boxes(*picture, visible, self._names, [bool(value < STRAY) for value in each])
            return Moment(tile=tile, index=frame[0], seconds=frame[1], mean=mean)

        self._latest = moment
        if np.isfinite(mean) and (self._least is None or mean < self._least.mean):
            self._least = moment()
        if self._met % self._every == 0:
            self._held.append(moment())
            self._latest = None
            if len(self._held) > _HELD * self._count:
                self._held, self._every = self._held[::2], 2 * self._every
        self._met += 1

    def chosen(self) -> list[Moment]:
        """At most ``count`` in order: the first, the last, the one of least agreement, and some between."""
        held = [*self._held, self._latest()] if self._latest is not None else list(self._held)
        if not held:
            return []
        steps = max(1, min(self._count, len(held)) - 1)
        picks = sorted({round(step * (len(held) - 1) / steps) for step in range(steps + 1)})
        moments = [held[pick] for pick in picks[: self._count]]
        least = self._least
        if least is not None and len(moments) > 2 and all(m.index != least.index for m in moments):
            nearest = min(range(1, len(moments) - 1), key=lambda k: abs(moments[k].index - least.index))
            moments[nearest] = least
        return sorted(moments, key=lambda moment: moment.index)


def cut(image: Image, boxes_T4: Box) -> tuple[Image, Box]:
    """The part of a frame that shows all boxes, at the tile's width, and the boxes in it."""
    height, width = image.shape[:2]
    aspect = float(np.clip(width / height, 1.0, 16 / 9))
    whole = min(float(width), height * aspect)
    known = boxes_T4[np.isfinite(boxes_T4).all(axis=1)]
    wide, middle = whole, np.array([width / 2, height / 2])
    if len(known):
        low = known[:, :2].min(axis=0).clip(0, (width, height))
        high = (known[:, :2] + known[:, 2:]).max(axis=0).clip(0, (width, height))
        middle = (low + high) / 2
        target = float(np.median(np.sqrt(known[:, 2:].prod(axis=1))))
        spread = max(float(high[0] - low[0]), float(high[1] - low[1]) * aspect)
        wide = float(np.clip(max(_ZOOM * target, 1.3 * spread), min(64.0, whole), whole))
    size = np.array([wide, wide / aspect])
    corner = np.clip(middle - size / 2, 0, np.maximum(np.array([width, height]) - size, 0))
    x, y = (round(float(v)) for v in corner)
    right, bottom = x + max(1, round(size[0])), y + max(1, round(size[1]))
    part = image[y:bottom, x:right]
    scale = TILE / part.shape[1]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    tile = cv2.resize(part, (TILE, round(TILE / aspect)), interpolation=how)
    return cast(Image, tile), (boxes_T4 - [x, y, 0, 0]) * scale
