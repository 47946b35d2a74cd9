"""Effects of annotated videos: blur the targets, draw their trails, and cut the view to follow them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from vltrack.core.types import Box, Image, Status, Step, xywh_to_xyxy
from vltrack.plots.draw import TARGET_COLORS, draw_steps, line_width

EFFECTS = ("blur", "crop", "trail")
TRAIL_SECONDS = 2.0
_BLOCKS = 8
"""What is left of a blurred target's longer side, in pixels."""
_VIEW, _SMALLEST = 2.0, 0.2
"""Height of the view relative to that of the targets, and at least to that of the frame."""
_FOLLOW = 0.12
"""Part of the way to the targets that the view goes in one frame."""


class Effects:
    """Draws the frames of one video in their order.

    Args:
        names: of ``EFFECTS``.
        labels: one per target.
    """

    def __init__(self, names: Sequence[str], labels: Sequence[str]) -> None:
        self._names, self._labels = frozenset(names), labels
        self._trails: list[deque[tuple[float, Box]]] = [deque() for _ in labels]
        self._view: Box | None = None

    def draw(self, image: Image, steps: Sequence[Step]) -> Image:
        """Return a frame, of the same size, with the effects; with "blur" without boxes and labels."""
        drawn = image.copy() if self._names else image
        if "blur" in self._names:
            for step in steps:
                if step.status is not Status.WAITING:  # while it is lost, where it may be
                    _blur(drawn, step.box)
        if "trail" in self._names:
            self._draw_trails(drawn, steps)
        if "blur" not in self._names:
            drawn = draw_steps(drawn, steps, self._labels)
        return self._cut(drawn, steps) if "crop" in self._names else drawn

    def _draw_trails(self, image: Image, steps: Sequence[Step]) -> None:
        for number, (trail, step) in enumerate(zip(self._trails, steps, strict=True)):
            if step.visible:
                trail.append((step.seconds, step.box[:2] + step.box[2:] / 2))
            while trail and step.seconds - trail[0][0] > TRAIL_SECONDS:
                trail.popleft()
            color, line = TARGET_COLORS[number % len(TARGET_COLORS)], line_width(image)
            for (before, a), (after, b) in pairwise(trail):
                if after - before < TRAIL_SECONDS / 4:  # not across an absence
                    age = 1 - (step.seconds - after) / TRAIL_SECONDS
                    ends = [tuple(np.clip(np.round(end), -9999, 9999).astype(int).tolist()) for end in (a, b)]
                    cv2.line(image, ends[0], ends[1], color, max(1, round(2 * line * age)), cv2.LINE_AA)

    def _cut(self, image: Image, steps: Sequence[Step]) -> Image:
        """Cut the view that follows the visible targets smoothly, in the size of the frame."""
        height, width = image.shape[:2]
        corners = np.array([xywh_to_xyxy(step.box) for step in steps if step.visible]).reshape(-1, 4)
        if len(corners):
            low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
            tall = float(np.clip(_VIEW * max(high[1] - low[1], (high[0] - low[0]) * height / width), 0, height))
            wanted = np.array([*(low + high) / 2, max(tall, _SMALLEST * height)])
            self._view = wanted if self._view is None else self._view + _FOLLOW * (wanted - self._view)
        if self._view is None:
            return image
        x, y, tall = self._view
        size = np.maximum(2, np.round([tall * width / height, tall])).astype(int)
        left, top = np.clip(np.round((x, y) - size / 2), 0, np.maximum((width, height) - size, 0)).astype(int)
        part = image[top : top + size[1], left : left + size[0]]
        return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def _blur(image: Image, box: Box) -> None:
    """Replace a box, one tenth larger, by a few blocks that cannot be sharpened again."""
    height, width = image.shape[:2]
    grown = xywh_to_xyxy(box) + np.concatenate([-0.05 * box[2:], 0.05 * box[2:]])
    left, top = np.clip(np.floor(grown[:2]), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(grown[2:]), 0, (width, height)).astype(int)
    if right <= left or bottom <= top:
        return
    part = image[top:bottom, left:right]
    scale = _BLOCKS / max(part.shape[:2])
    small = np.maximum(1, np.round(np.array(part.shape[1::-1]) * scale)).astype(int).tolist()
    few = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
    image[top:bottom, left:right] = cv2.resize(few, part.shape[1::-1], interpolation=cv2.INTER_LINEAR)
