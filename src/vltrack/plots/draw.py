"""Draw steps onto frames: boxes with labels, sized to the image. Also the colors of all plots.

Functions draw into the array that they get, but for ``draw_steps``. Colors are RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.types import Box, Floats, Image, Status, Step, xywh_to_xyxy, xyxy_to_xywh
from vltrack.plots.text import shortened, width_of, write

Color = tuple[int, int, int]

TARGET_COLORS: tuple[Color, ...] = (
    (64, 224, 128), (255, 176, 32), (80, 176, 255), (255, 96, 144),
    (190, 130, 255), (240, 230, 70), (64, 216, 216), (255, 128, 72),
)  # fmt: skip
"""Bright colors, distinct on most footage; the ninth target starts over."""
COLORS: tuple[Color, ...] = (
    (86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167),
    (240, 228, 66), (213, 94, 0), (0, 114, 178),
)  # fmt: skip
"""Colors of trackers (sky, orange, green, purple, yellow, vermilion, blue), those of Okabe and Ito, which are
distinct with any kind of color vision. No more trackers than these are compared."""
GRAY: Color = (150, 150, 150)
DARK: Color = (24, 24, 24)


def check_count(names: Sequence[str]) -> None:
    """Raise ``ValueError`` unless every tracker has a color of its own."""
    if not 0 < len(names) <= len(COLORS):
        raise ValueError(f"{len(names)} trackers, but there are colors for 1 to {len(COLORS)}")


def draw_steps(image: Image, steps: Sequence[Step], labels: Sequence[str] = ()) -> Image:
    """A copy of the frame with the box, label and score of several targets.

    Args:
        image: (H, W, 3) RGB uint8; not modified.
        steps: one per target, drawn in the color of its place; a target that is not visible is gray and
            dashed, and marked as lost: its box is where it was last seen. One that has not come into view has
            a label and no box.
        labels: one per target, for example the sentence; control characters are shown as escapes.

    Returns:
        (H, W, 3) RGB uint8.
    """
    drawn = image.copy()
    size = label_size(image)
    texts: list[tuple[str, Box, Color]] = []
    for number, step in enumerate(steps):
        color = TARGET_COLORS[number % len(TARGET_COLORS)] if step.visible else GRAY
        if step.status is Status.WAITING:
            score = "not in view yet"
        else:
            rectangle(drawn, step.box, color, dashed=not step.visible)
            # A start from text that was worth too little is followed, but never counts as seen.
            unsure = step.extras.get("lost_for") == 0 and step.extras["claim"] < 1
            score = f"{step.score:.2f}" if step.visible else f"{'unsure' if unsure else 'lost'} {step.score:.2f}"
        # The label is shortened so that a long sentence never pushes the score off the plate.
        room = round(image.shape[1] * 0.6) - width_of("  " + score, size)
        label = shortened(labels[number], size, room) if number < len(labels) else ""
        texts.append((f"{label}  {score}" if label else score, step.box, color))
    draw_labels(drawn, texts)
    return drawn


def _unit(image: Image) -> float:
    """Factor by which the image's longer side exceeds 640 pixels: the measure of all widths and sizes."""
    return float(np.clip(max(image.shape[:2]) / 640, 0.5, 16))


def line_width(image: Image) -> int:
    """Pixels of lines: at least 2, growing with large images."""
    return max(2, round(2 * _unit(image)))


def rectangle(image: Image, box: ArrayLike, color: Color, dashed: bool = False) -> None:
    """The outline of x, y, w, h in whole pixels with a dark rim, so that it shows on any background."""
    line = line_width(image)
    whole = xyxy_to_xywh(np.round(xywh_to_xyxy(box)))
    for thickness, ink in ((line + 2, DARK), (line, color)):
        outline(image, whole, ink, thickness, far=2 * line, dash=8 * line if dashed else None)


def outline(
    image: Image, box: Box, color: Color, thickness: int, *, far: int, dash: int | None = None, shift: int = 0
) -> None:
    """Draw the sides of x, y, w, h.

    Args:
        image: drawn into.
        box: in pixels.
        color, thickness: of the line.
        far: pixels outside the image at which sides are clipped: enough that they stay unseen, and that cv2
            gets no number that it would wrap.
        dash: about the length of a dash in pixels; None for a solid line.
        shift: binary digits of a pixel's fraction that count.
    """
    edge = np.array(image.shape[1::-1]) + far
    low, high = np.clip(box[:2], -far, edge), np.clip(box[:2] + box[2:], -far, edge)
    for begin, end in pairwise(np.array([low, (high[0], low[1]), high, (low[0], high[1]), low])):
        pieces = 1 if dash is None else 2 * max(1, round(float(np.abs(end - begin).max()) / (2 * dash))) + 1
        points = np.round(np.linspace(begin, end, pieces + 1) * (1 << shift)).astype(int).tolist()
        for a, b in zip(points[::2], points[1::2], strict=True):
            cv2.line(image, a, b, color, thickness, cv2.LINE_AA, shift)


def label_size(image: Image) -> int:
    """Pixels of an em of labels: readable on small images, growing with large ones."""
    return max(11, round(13 * _unit(image)))


def draw_labels(image: Image, labels: Sequence[tuple[str, Box, Color]]) -> None:
    """Write each text on a plate in its color: above its box, below or in it, off other plates and other boxes.

    Plates lie inside the image; a text that is wider is shortened.
    """
    height, width = image.shape[:2]
    size, line = label_size(image), line_width(image)
    margin, high = max(2, size // 4), min(height, round(size * 1.3))
    corners = [np.clip(xywh_to_xyxy(box), -2 * line, [width, height] * 2) for _, box, _ in labels]
    plates: list[tuple[int, int, int, int]] = []
    for number, (label, _, color) in enumerate(labels):
        text = shortened(label, size, width - 2 * margin)
        if not text:
            continue
        wide = min(width, width_of(text, size) + 2 * margin)
        x1, y1, x2, y2 = corners[number]
        ways = ((y1 - line / 2 - high, -high), (y2 + line / 2, high), (y1 + line, high))
        tops = [start + k * way for start, way in ways for k in range(len(labels) + 1)]
        tops = [y for y in tops if 0 <= y <= height - high] or [min(max(tops[0], 0), height - high)]
        lefts = [min(max(x, 0), width - wide) for x in (x1 - line / 2, x2 + line / 2 - wide)]
        spots_S2 = np.round([(x, y) for y in tops for x in lefts]).astype(int)
        others = corners[:number] + corners[number + 1 :]
        covered_S = 1e6 * _covered(spots_S2, (wide, high), plates) + _covered(spots_S2, (wide, high), others)
        x, y = spots_S2[covered_S.argmin()]  # the first of the best
        plates.append((x, y, x + wide, y + high))
        image[y : y + high, x : x + wide] = color
        luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
        write(image, text, (x + margin, y), size, DARK if luminance > 120 else (255, 255, 255))


def _covered(spots_S2: NDArray[Any], size: tuple[int, int], boxes: Sequence[ArrayLike]) -> Floats:
    """(S,) pixels of boxes x1, y1, x2, y2 that a plate of this size covers with its upper left corner at each spot."""
    boxes_K4 = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    low_SK2 = np.maximum(spots_S2[:, None], boxes_K4[:, :2])
    high_SK2 = np.minimum(spots_S2[:, None] + size, boxes_K4[:, 2:])
    return np.asarray((high_SK2 - low_SK2).clip(0).prod(axis=-1).sum(axis=-1))
