"""Draw steps onto frames: boxes with labels, sized to the image. Also the colors of all plots.

Functions draw into the array that they get, but for ``draw_steps``. Colors are RGB.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import ArrayLike

from vltrack.core.files import printable
from vltrack.core.types import Box, Image, Status, Step, xywh_to_xyxy, xyxy_to_xywh

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
_FONT = cv2.FONT_HERSHEY_SIMPLEX


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
    scale, weight = label_style(image)
    half = _line_width(image) / 2
    for number, step in enumerate(steps):
        x, y, _, h = step.box
        color = TARGET_COLORS[number % len(TARGET_COLORS)] if step.visible else GRAY
        if step.status is Status.WAITING:
            score = "not in view yet"
        else:
            rectangle(drawn, step.box, color, dashed=not step.visible)
            # A start from text that was worth too little is followed, but never counts as seen.
            unsure = step.extras.get("lost_for") == 0 and step.extras["claim"] < 1
            score = f"{step.score:.2f}" if step.visible else f"{'unsure' if unsure else 'lost'} {step.score:.2f}"
        # The label is shortened so that a long sentence never pushes the score off the plate.
        room = round(image.shape[1] * 0.6) - text_size("  " + score, scale, weight)[0]
        label = shortened(labels[number], scale, weight, room) if number < len(labels) else ""
        plate(drawn, f"{label}  {score}" if label else score, (x - half, y - half), y + h + half, color)
    return drawn


def _unit(image: Image) -> float:
    """Factor by which the image's longer side exceeds 640 pixels: the measure of all widths and sizes."""
    return float(np.clip(max(image.shape[:2]) / 640, 0.5, 16))


def _line_width(image: Image) -> int:
    return max(2, round(2 * _unit(image)))


def rectangle(image: Image, box: ArrayLike, color: Color, dashed: bool = False) -> None:
    """The outline of x, y, w, h in whole pixels with a dark rim, so that it shows on any background."""
    line = _line_width(image)
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


def label_style(image: Image) -> tuple[float, int]:
    """Font scale and stroke weight of labels: readable on small images, growing with large ones."""
    unit = _unit(image)
    return max(0.38, 0.45 * unit), max(1, round(0.8 * unit))


def text_size(text: str, scale: float, weight: int) -> tuple[int, int, int]:
    """Width, height above and depth below the base line, in pixels."""
    (width, height), depth = cv2.getTextSize(text, _FONT, scale, weight)
    return width, height, depth


def put_text(image: Image, text: str, base: tuple[int, int], scale: float, color: Color, weight: int = 1) -> None:
    """One line of text in OpenCV's font, its base line starting at ``base`` (x, y)."""
    cv2.putText(image, text, base, _FONT, scale, color, weight, cv2.LINE_AA)


def shortened(text: str, scale: float, weight: int, room: int) -> str:
    """The text made safe to show and shortened with "..." to ``room`` pixels."""
    return ellipsized(
        printable(text)[:200],
        room,
        lambda part: text_size(part, scale, weight)[0],
        lambda part, keep: part[:keep].rstrip() + "..." if keep else "",
    )


def ellipsized(
    text: str, room: float, width: Callable[[str], float], cut: Callable[[str, int], str] | None = None
) -> str:
    """The text, shortened with an ellipsis until its ``width`` is at most ``room``.

    ``cut`` makes the text that keeps so many characters; default: the first ones.
    """
    cut = cut or (lambda text, keep: text[:keep].rstrip() + "\u2026" if keep else "")
    if width(text) <= room:
        return text
    return cut(text, bisect_right(range(1, len(text) + 1), room, key=lambda keep: width(cut(text, keep))))


def plate(image: Image, text: str, corner: tuple[float, float], below: float, color: Color) -> None:
    """A filled plate with text, above the point ``corner`` (x, y); always inside the image.

    Without room above ``corner`` it is placed below ``below`` (a y) if that is inside, else it is moved.
    """
    height, width = image.shape[:2]
    scale, weight = label_style(image)
    margin = max(3, round(9 * scale))
    text = shortened(text, scale, weight, width - 2 * margin)
    if not text:
        return
    text_width, up, down = text_size(text, scale, weight)
    plate_width, plate_height = text_width + 2 * margin, up + down + margin
    x = round(min(max(corner[0], 0), max(0, width - plate_width)))
    y = corner[1] - plate_height
    if y < 0:
        y = below if below + plate_height <= height else corner[1]
    y = round(min(max(y, 0), max(0, height - plate_height)))
    cv2.rectangle(image, (x, y), (x + plate_width - 1, y + plate_height - 1), color, cv2.FILLED)
    luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    ink = DARK if luminance > 120 else (255, 255, 255)
    put_text(image, text, (x + margin, y + margin // 2 + up), scale, ink, weight)
