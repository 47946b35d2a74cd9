"""Lines and words on pictures, sized to the picture. Knows cv2's drawing; knows no step and no track.

All functions draw into the array that they get. Colors are RGB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike

from vltrack.core.files import printable
from vltrack.core.track import Track
from vltrack.core.types import Frame, Image, Step

Color = tuple[int, int, int]

PALETTE: tuple[Color, ...] = (
    (64, 224, 128),
    (255, 176, 32),
    (80, 176, 255),
    (255, 96, 144),
    (190, 130, 255),
    (240, 230, 70),
    (64, 216, 216),
    (255, 128, 72),
)
"""Bright colors that are told apart on most footage; the eighth target starts over."""

GREY: Color = (150, 150, 150)
DARK: Color = (24, 24, 24)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def target_color(number: int) -> Color:
    """The color of target ``number`` (from 0)."""
    return PALETTE[number % len(PALETTE)]


def unit_of(image: Image) -> float:
    """How much larger than 640 pixels the picture's longer side is: the measure of all widths and sizes."""
    return float(np.clip(max(image.shape[:2]) / 640, 0.5, 16))


def line_width(image: Image) -> int:
    """Width in pixels of a box's line."""
    return max(2, round(2 * unit_of(image)))


def rectangle(
    image: Image, box: tuple[float, float, float, float], color: Color, dashed: bool = False
) -> None:
    """The outline of x, y, w, h with a dark rim, so that it shows on any background."""
    height, width = image.shape[:2]
    line = line_width(image)
    x, y, w, h = box
    # Clipped a little outside: sides beyond the frame stay unseen, and cv2 gets no numbers that it would
    # wrap.
    x1, x2 = (round(min(max(v, -2 * line), width + 2 * line)) for v in (x, x + w))
    y1, y2 = (round(min(max(v, -2 * line), height + 2 * line)) for v in (y, y + h))
    corners = ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
    sides = list(zip(corners, corners[1:] + corners[:1], strict=True))
    for thickness, ink in ((line + 2, DARK), (line, color)):
        for begin, end in sides:
            for start, stop in _dashes(begin, end, 8 * line) if dashed else ((begin, end),):
                cv2.line(image, start, stop, ink, thickness, cv2.LINE_AA)


def _dashes(
    begin: tuple[int, int], end: tuple[int, int], length: int
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Every second piece of the line, pieces about ``length`` long, one at each end."""
    a, b = np.array(begin, dtype=float), np.array(end, dtype=float)
    pieces = 2 * max(1, round(float(np.abs(b - a).max()) / (2 * length))) + 1
    points = [a + (b - a) * i / pieces for i in range(pieces + 1)]
    whole = [(round(float(p[0])), round(float(p[1]))) for p in points]
    return [(whole[i], whole[i + 1]) for i in range(0, pieces, 2)]


def label_style(image: Image) -> tuple[float, int]:
    """Font scale and stroke weight of labels: readable on small pictures, growing with large ones."""
    unit = unit_of(image)
    return max(0.38, 0.45 * unit), max(1, round(0.8 * unit))


def text_size(text: str, scale: float, weight: int) -> tuple[int, int, int]:
    """Width, height above and depth below the base line, in pixels."""
    (width, height), depth = cv2.getTextSize(text, _FONT, scale, weight)
    return width, height, depth


def words(
    image: Image, text: str, base: tuple[int, int], scale: float, color: Color, weight: int = 1
) -> None:
    """One line of text, its base line starting at ``base`` (x, y)."""
    cv2.putText(image, text, base, _FONT, scale, color, weight, cv2.LINE_AA)


def fitted(text: str, scale: float, weight: int, room: int) -> str:
    """The text made safe to show and shortened with "..." to ``room`` pixels."""
    shown = printable(text)[:200]
    if text_size(shown, scale, weight)[0] <= room:
        return shown
    low, high = 0, len(shown)
    while low < high:
        middle = (low + high + 1) // 2
        fits = text_size(shown[:middle].rstrip() + "...", scale, weight)[0] <= room
        low, high = (middle, high) if fits else (low, middle - 1)
    return shown[:low].rstrip() + "..." if low else ""


def plate(image: Image, text: str, corner: tuple[float, float], below: float, color: Color) -> None:
    """A filled plate with text, standing on the point ``corner`` (x, y); inside the picture at all events.

    Without room above ``corner`` it hangs from ``below`` (a y) if that leaves it inside, else it is moved.
    """
    height, width = image.shape[:2]
    scale, weight = label_style(image)
    margin = max(3, round(9 * scale))
    text = fitted(text, scale, weight, width - 2 * margin)
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
    words(image, text, (x + margin, y + margin // 2 + up), scale, ink, weight)


# MERGED plots/draw.py
# Boxes and labels on frames. Knows ``Step`` and ``Track``; reads no video and writes no file.


def draw_step(
    image: Image,
    box: ArrayLike,
    score: float | None = None,
    label: str = "",
    color: Color = PALETTE[0],
    visible: bool = True,
) -> Image:
    """A copy of the frame with one target's box and a plate that names it.

    Args:
        image: (H, W, 3) RGB uint8; not modified.
        box: x, y, w, h in pixels of the frame; may reach outside.
        score: presence in [0, 1], shown after the label; ``None`` = not shown.
        label: what to write, for example the sentence; control characters are shown as escapes.
        color: RGB of box and plate.
        visible: false draws a grey dashed box, marked as lost: it is only where the target was last seen.

    Returns:
        (H, W, 3) RGB uint8.
    """
    picture = image.copy()
    _draw(picture, box, score, label, color, visible)
    return picture


def draw_steps(image: Image, steps: Sequence[Step], labels: Sequence[str] = ()) -> Image:
    """A copy of the frame with several targets, each in the color of its place (``pen.target_color``)."""
    picture = image.copy()
    for number, step in enumerate(steps):
        label = labels[number] if number < len(labels) else ""
        _draw(picture, step.box, step.score, label, target_color(number), step.visible)
    return picture


def draw_tracks(
    frames: Iterable[Frame], tracks: Sequence[Track], labels: Sequence[str] = ()
) -> Iterator[Image]:
    """The frames of a video with the boxes of its tracks, one picture a frame that has one.

    Args:
        frames: in order; matched to rows by ``index``. A frame without a row is passed on as it is.
        tracks: one a target.
        labels: one a target; default: the sentence of each track's ``meta``.
    """
    rows = [{int(index): row for row, index in enumerate(track.indices)} for track in tracks]
    names = labels or [str(track.meta.get("sentence") or "") for track in tracks]
    for frame in frames:
        if frame.image is None:
            continue
        picture = frame.image.copy()
        for number, (track, row_of) in enumerate(zip(tracks, rows, strict=True)):
            row = row_of.get(frame.index)
            if row is not None:
                step = track[row]
                _draw(picture, step.box, step.score, names[number], target_color(number), step.visible)
        yield picture


def _draw(
    picture: Image, box: ArrayLike, score: float | None, label: str, color: Color, visible: bool
) -> None:
    """Box and plate into ``picture``."""
    x, y, w, h = (float(v) for v in np.asarray(box, dtype=np.float64))
    ink = color if visible else GREY
    rectangle(picture, (x, y, w, h), ink, dashed=not visible)
    number = "" if score is None else f"{score:.2f}"
    text = _label(picture, label, number if visible else f"lost {number}".strip())
    half = line_width(picture) / 2
    plate(picture, text, (x - half, y - half), y + h + half, ink)


def _label(picture: Image, label: str, tail: str) -> str:
    """The label, shortened so that a long sentence never pushes the score off the plate."""
    scale, weight = label_style(picture)
    room = round(picture.shape[1] * 0.6) - text_size("  " + tail, scale, weight)[0]
    return "  ".join(part for part in (fitted(label, scale, weight, room), tail) if part)
