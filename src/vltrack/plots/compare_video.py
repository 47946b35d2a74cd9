"""Frames of the comparison video: the boxes of all trackers, and a band with their agreement over time.

T trackers. Colors are RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.types import Box, Image
from vltrack.plots.draw import COLORS, Color, check_count
from vltrack.plots.text import number_width, shortened, width_of, write, write_number

PAPER: Color = (20, 23, 28)
LANE: Color = (38, 43, 51)
INK: Color = (232, 234, 237)
FAINT: Color = (142, 150, 160)
RIM: Color = (10, 12, 15)
LOW_AGREEMENT = 0.5
"""A box whose agreement with the others is lower gets its tracker's name next to it."""
_SHIFT = 4  # cv2 takes coordinates in sixteenths of a pixel
_SHORTEST = 64  # frames that a timeline of unknown length has room for at first


def draw_boxes(
    image: Image, boxes_T4: ArrayLike, visible: Sequence[bool], names: Sequence[str], tagged: Sequence[bool]
) -> Image:
    """A copy of the frame with the box of each tracker in its color.

    Args:
        image: (H, W, 3) RGB uint8; not modified.
        boxes_T4: (T, 4) x, y, w, h in pixels of the frame; a row with NaN is not drawn.
        visible: T; a box that is not visible is drawn dashed, where the target was last seen.
        names: T.
        tagged: T; whether the name is written at the box.
    """
    boxes = np.asarray(boxes_T4, dtype=np.float64)
    drawn_image = image.copy()
    line = max(2, round(1.8 * _unit(image)))
    drawn = [t for t in range(len(boxes)) if np.isfinite(boxes[t]).all()]
    for thickness, rim in ((line + max(1, line // 2), True), (line, False)):
        for t in drawn:  # all rims below all lines: where boxes coincide, no rim hides another line
            color = RIM if rim else COLORS[t]
            outline(drawn_image, boxes[t], color, thickness, dashed=not visible[t], line=line)
    plates: list[tuple[int, int, int, int]] = []
    for t in drawn:
        if tagged[t]:
            plates.append(_tag(drawn_image, boxes[t], names[t], COLORS[t], line, plates))
    return drawn_image


def outline(image: Image, box: Box, color: Color, thickness: int, *, dashed: bool, line: int) -> None:
    """Draw one box x, y, w, h into ``image``; the length of dashes is a multiple of ``line``."""
    height, width = image.shape[:2]
    far = 4 * thickness
    # Clipped a little outside: sides beyond the frame stay unseen, and cv2 gets no number that it would wrap.
    low = np.clip(box[:2], -far, [width + far, height + far])
    high = np.clip(box[:2] + box[2:], -far, [width + far, height + far])
    corners = np.array([low, (high[0], low[1]), high, (low[0], high[1]), low])
    for begin, end in pairwise(corners):
        pieces = 2 * max(1, round(float(np.abs(end - begin).max()) / (14 * line))) + 1 if dashed else 1
        points = np.linspace(begin, end, pieces + 1)
        for k in range(0, pieces, 2):
            a, b = (tuple(int(v) for v in np.round(p * (1 << _SHIFT))) for p in (points[k], points[k + 1]))
            cv2.line(image, a, b, color, thickness, cv2.LINE_AA, _SHIFT)


def _tag(
    image: Image, box: Box, name: str, color: Color, line: int, taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, int, int]:
    """Draw the name on a plate in the tracker's color, above or below the box, where no plate is yet.

    Returns:
        Left, top, right and bottom of the plate.
    """
    height, width = image.shape[:2]
    size = max(10, round(11 * _unit(image)))
    margin = max(2, size // 4)
    text = shortened(name, size, max(1, width - 2 * margin), bold=True)
    wide, high = width_of(text, size, bold=True) + 2 * margin, round(size * 1.3)
    x = int(np.clip(box[0] - line / 2, 0, max(0, width - wide)))
    above, below = round(box[1] - line - high), round(box[1] + box[3] + line)
    steps = range(len(taken) + 1)
    tops = [*(above - k * high for k in steps), *(below + k * high for k in steps)]
    inside = [y for y in tops if 0 <= y <= height - high] or [int(np.clip(above, 0, max(0, height - high)))]
    free = [
        y
        for y in inside
        if all(x >= r or x + wide <= left or y >= bottom or y + high <= top for left, top, r, bottom in taken)
    ]
    y = (free or inside)[0]
    image[y : y + high, x : x + wide] = color
    ink = RIM if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 110 else (255, 255, 255)
    write(image, text, (x + margin, y), size, ink, bold=True)
    return x, y, x + wide, y + high


def _unit(image: Image) -> float:
    """Factor by which the image's longer side exceeds 640 pixels."""
    return float(np.clip(max(image.shape[:2]) / 640, 0.6, 8))


class Band:
    """The band below a video: mean agreement so far, and per tracker a timeline with name and score.

    Args:
        names: of the trackers, at most ``len(COLORS)``.
        width: pixels of the video.
        total: number of frames that will come, None if unknown: the timeline is then rescaled as it grows.

    Raises:
        ValueError: no name, or more names than colors.
    """

    def __init__(self, names: Sequence[str], width: int, total: int | None) -> None:
        check_count(names)
        self._total = total
        unit = float(np.clip(width / 720, 0.5, 8))
        self._size = max(9, round(12 * unit))
        self._gap = max(3, round(6 * unit))
        self._row = round(self._size * 1.5)
        self._chart = 3 * self._row
        self.width = width
        self.height = self._chart + len(names) * self._row + 3 * self._gap
        self._left, self._right = self._columns(names)
        self._values: list[tuple[float, ...]] = []
        self._empty = self._background(names)

    def _columns(self, names: Sequence[str]) -> tuple[int, int]:
        """Left and right edge of the timelines: between the names and the numbers."""
        swatch, gap = self._size, self._gap
        room = max(1, round(self.width * 0.4) - swatch - 3 * gap)
        self._names = [shortened(name, self._size, room) for name in names]
        texts = [*(width_of(name, self._size) + swatch + gap for name in self._names)]
        texts.append(min(room, width_of("agreement", self._size)))
        widest = number_width("0:00.00", self._size)
        right = self.width - widest - 2 * gap
        return min(2 * gap + max(texts) + gap, right - 2), right

    def _background(self, names: Sequence[str]) -> Image:
        """The part that does not change: swatches, names, empty timelines."""
        band = np.full((self.height, self.width, 3), PAPER, dtype=np.uint8)
        gap, size = self._gap, self._size
        write(band, "agreement", (gap, gap), size, FAINT)
        head = width_of("score", size)
        write(band, "score", (self.width - gap - head, gap + self._chart - self._row), size, FAINT)
        for t, name in enumerate(self._names):
            top, bottom = self._lane(t)
            middle = (top + bottom) // 2
            cv2.rectangle(
                band, (gap, middle - size // 2 + 1), (gap + size - 3, middle + size // 2 - 2), COLORS[t], cv2.FILLED
            )
            write(band, name, (2 * gap + size, middle - round(size * 0.72)), size, INK)
        for top, bottom in self._lanes():
            band[top:bottom, self._left : self._right] = LANE
        return band

    def _lanes(self) -> list[tuple[int, int]]:
        """Top and bottom of the chart and of each tracker's timeline."""
        return [(self._gap, self._gap + self._chart - self._gap // 2), *map(self._lane, range(len(self._names)))]

    def _lane(self, t: int) -> tuple[int, int]:
        top = 2 * self._gap + self._chart + t * self._row
        return top, top + self._row - max(1, self._gap // 3)

    def draw(
        self,
        frame: tuple[int, float],
        mean: float,
        each: Sequence[float],
        scores: Sequence[float],
        visible: Sequence[bool],
    ) -> Image:
        """The band of the next frame.

        Args:
            frame: number and seconds.
            mean: mean agreement of all pairs; NaN where there is none.
            each: each tracker's mean agreement with the others; NaN where it has no box.
            scores: in [0, 1]; NaN is not written.
            visible: false dims a tracker's timeline.

        Returns:
            (``height``, ``width``, 3) RGB uint8.
        """
        shown = [value if seen else -value for value, seen in zip(each, visible, strict=True)]
        self._values.append((mean, *shown))
        band = self._empty.copy()
        self._draw_timelines(band)
        self._draw_numbers(band, frame, mean, scores, visible)
        return band

    def _draw_timelines(self, band: Image) -> None:
        """Columns as high as the agreement of their frame; dimmed where the target was not seen."""
        columns = self._right - self._left
        count = len(self._values)
        total = max(count, self._total or _SHORTEST)
        frame_of = np.minimum(np.arange(columns) * total // columns, total - 1)
        until = int(np.searchsorted(frame_of, count))
        values = np.array(self._values, dtype=np.float64)[frame_of[:until]]
        for number, (top, bottom) in enumerate(self._lanes()):
            color = INK if number == 0 else COLORS[number - 1]
            here = band[top:bottom, self._left : self._left + until]
            _fill_columns(here, values[:, number], color, max(1, self._gap // 4))
        now = min(self._left + until, self._right - 1)
        band[self._gap : self._lanes()[-1][1], now] = INK

    def _draw_numbers(
        self, band: Image, frame: tuple[int, float], mean: float, scores: Sequence[float], visible: Sequence[bool]
    ) -> None:
        gap, size = self._gap, self._size
        large = round(size * 1.5)
        text = f"{mean:.2f}" if np.isfinite(mean) else "\u2013"
        right = gap + number_width(text, large, bold=True)
        write_number(band, text, right, gap + round(size * 1.15), large, INK, bold=True)
        write_number(band, f"{frame[0]}", self.width - gap, gap, size, FAINT)
        write_number(band, clock(frame[1]), self.width - gap, gap + self._row, size, FAINT)
        for t, score in enumerate(scores):
            if np.isfinite(score):
                top, bottom = self._lane(t)
                place = (top + bottom) // 2 - round(size * 0.72)
                ink = INK if visible[t] else FAINT
                write_number(band, f"{score:.2f}", self.width - gap, place, size, ink)


def _fill_columns(here: Image, values: NDArray[np.float64], color: Color, edge: int) -> None:
    """Fill each column from below, brightest at its top; a negative value dimmed, NaN not at all."""
    height = here.shape[0]
    top = height - np.round(np.abs(np.nan_to_num(values)) * height)
    rows = np.arange(height)[:, None]
    filled = (rows >= top[None]) & np.isfinite(values)[None]
    share = np.where(rows < top[None] + edge, 1.0, 0.45) * np.where(np.signbit(values), 0.45, 1.0)[None]
    paint = share[..., None] * np.asarray(color) + (1 - share[..., None]) * np.asarray(LANE)
    here[:] = np.where(filled[..., None], paint, here).astype(np.uint8)


def clock(seconds: float) -> str:
    """Time as minutes, seconds and hundredths."""
    minutes, rest = divmod(round(max(0.0, seconds) * 100), 6000)
    return f"{minutes}:{rest // 100:02d}.{rest % 100:02d}"


def compose(image: Image, band: Image, size: tuple[int, int]) -> Image:
    """A frame of (width, height) pixels with the band below; a frame of another size is cut or padded."""
    width, height = size
    sheet = np.full((height + band.shape[0], width, 3), PAPER, dtype=np.uint8)
    part = image[:height, :width]
    sheet[: part.shape[0], : part.shape[1]] = part
    sheet[height:] = band[:, :width]
    return sheet
