"""Frames of the comparison video: the boxes of all trackers, and a band with their agreement over time.

T trackers. Colors are RGB.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.types import Image
from vltrack.plots.draw import COLORS, Color, check_count, draw_labels, outline
from vltrack.plots.text import number_width, shortened, width_of, write, write_number

PAPER: Color = (20, 23, 28)
LANE: Color = (38, 43, 51)
INK: Color = (232, 234, 237)
FAINT: Color = (142, 150, 160)
RIM: Color = (10, 12, 15)
LOW_AGREEMENT = 0.5
"""A box whose agreement with the others is lower gets its tracker's name next to it."""
NARROWEST = 160
"""Pixels; a narrower video is padded to the width of its band."""
SHIFT = 4
"""Boxes are drawn in sixteenths of a pixel."""


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
            color, dash = RIM if rim else COLORS[t], None if visible[t] else 7 * line
            outline(drawn_image, boxes[t], color, thickness, far=4 * thickness, dash=dash, shift=SHIFT)
    draw_labels(drawn_image, [(names[t], boxes[t], COLORS[t]) for t in drawn if tagged[t]])
    return drawn_image


def _unit(image: Image) -> float:
    """Factor by which the image's longer side exceeds 640 pixels."""
    return float(np.clip(max(image.shape[:2]) / 640, 0.6, 8))


class Band:
    """The band below a video: mean agreement so far, and per tracker a timeline with name and score.

    Args:
        names: of the trackers, at most ``len(COLORS)``.
        width: pixels of the video; a narrower band than ``NARROWEST`` has no room for its texts.
        total: number of frames that will come, None if unknown: the timeline is then rescaled as it grows.

    Raises:
        ValueError: no name, or more names than colors.
    """

    def __init__(self, names: Sequence[str], width: int, total: int | None) -> None:
        check_count(names)
        width = max(width, NARROWEST)
        self._total = total
        unit = float(np.clip(width / 720, 0.5, 8))
        self._size = max(9, round(12 * unit))
        self._gap = max(3, round(6 * unit))
        self._row = round(self._size * 1.5)
        self._chart = 3 * self._row
        self.width = width
        self.height = self._chart + len(names) * self._row + 3 * self._gap
        room = max(1, round(width * 0.4) - self._size - 3 * self._gap)
        self._names = [shortened(name, self._size, room) for name in names]
        texts = [width_of(name, self._size) + self._size + self._gap for name in self._names]
        widest = max(*texts, min(room, width_of("agreement", self._size)))
        # The timelines lie between the names and the numbers.
        self._right = width - number_width("0:00.00", self._size) - 2 * self._gap
        self._left = min(3 * self._gap + widest, self._right - 2)
        self._values: list[tuple[float, ...]] = []
        self._empty = self._background()

    def _background(self) -> Image:
        """The part that does not change: swatches, names, empty timelines."""
        band = np.full((self.height, self.width, 3), PAPER, dtype=np.uint8)
        gap, size = self._gap, self._size
        write(band, "agreement", (gap, gap), size, FAINT)
        x, y = self.width - gap - width_of("score", size), gap + self._chart - self._row
        write(band, "score", (x, y), size, FAINT)
        for t, name in enumerate(self._names):
            middle = sum(self._lane(t)) // 2
            low, high = (gap, middle - size // 2 + 1), (gap + size - 3, middle + size // 2 - 2)
            cv2.rectangle(band, low, high, COLORS[t], cv2.FILLED)
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
        gap, size = self._gap, self._size
        large = round(size * 1.5)
        text = f"{mean:.2f}" if np.isfinite(mean) else "\u2013"
        right = gap + number_width(text, large, bold=True)
        write_number(band, text, right, gap + round(size * 1.15), large, INK, bold=True)
        right = self.width - gap
        write_number(band, f"{frame[0]}", right, gap, size, FAINT)
        write_number(band, clock(frame[1]), right, gap + self._row, size, FAINT)
        for t, score in enumerate(scores):
            if np.isfinite(score):
                top = sum(self._lane(t)) // 2 - round(size * 0.72)
                write_number(band, f"{score:.2f}", right, top, size, INK if visible[t] else FAINT)
        return band

    def _draw_timelines(self, band: Image) -> None:
        """Columns as high as the agreement of their frame; dimmed where the target was not seen."""
        columns = self._right - self._left
        count = len(self._values)
        total = max(count, self._total or 64)  # of unknown length: room for 64 at first
        frame_of = np.minimum(np.arange(columns) * total // columns, total - 1)
        until = int(np.searchsorted(frame_of, count))
        values = np.array(self._values, dtype=np.float64)[frame_of[:until]]
        for number, (top, bottom) in enumerate(self._lanes()):
            color = INK if number == 0 else COLORS[number - 1]
            here = band[top:bottom, self._left : self._left + until]
            _fill_columns(here, values[:, number], color, max(1, self._gap // 4))
        now = min(self._left + until, self._right - 1)
        band[self._gap : self._lanes()[-1][1], now] = INK


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
