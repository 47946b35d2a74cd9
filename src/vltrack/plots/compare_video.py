"""Several trackers on one video: all boxes on the frame, names and agreement in a band below it.

Knows frames and numbers; computes no agreement and writes no file. Colors are RGB, those of Okabe and Ito,
which people with any kind of color vision can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.types import Box, Image
from vltrack.plots import text as lettering

Color = tuple[int, int, int]

COLORS: tuple[Color, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
    (0, 114, 178),
)
"""Sky, orange, green, purple, yellow, vermilion, blue: as many trackers as can be told apart."""
PAPER: Color = (20, 23, 28)
LANE: Color = (38, 43, 51)
INK: Color = (232, 234, 237)
FAINT: Color = (142, 150, 160)
RIM: Color = (10, 12, 15)
LOW_AGREEMENT = 0.5
"""A box that agrees less with the others gets its tracker's name beside it."""
_SHIFT = 4  # cv2 takes places in sixteenths of a pixel
_SHORTEST = 64  # frames that a strip of unknown length has room for at first


def draw_boxes(
    image: Image,
    boxes_T4: ArrayLike,
    visible: Sequence[bool],
    names: Sequence[str],
    tagged: Sequence[bool],
) -> Image:
    """A copy of the frame with the box of each tracker in its color.

    Args:
        image: (H, W, 3) RGB uint8; not modified.
        boxes_T4: (T, 4) x, y, w, h in pixels of the frame; a row with NaN is not drawn.
        visible: a false one is drawn dashed: it is only where the target was last seen.
        names: one a tracker.
        tagged: whose name is written at the box.
    """
    boxes = np.asarray(boxes_T4, dtype=np.float64)
    picture = image.copy()
    line = max(2, round(1.8 * _unit(image)))
    drawn = [t for t in range(len(boxes)) if np.isfinite(boxes[t]).all()]
    for thickness, rim in ((line + max(1, line // 2), True), (line, False)):
        for t in drawn:  # all rims lie below all lines: where boxes coincide no rim hides a neighbour
            outline(picture, boxes[t], RIM if rim else COLORS[t], thickness, dashed=not visible[t], line=line)
    plates: list[tuple[int, int, int, int]] = []
    for t in drawn:
        if tagged[t]:
            plates.append(_tag(picture, boxes[t], names[t], COLORS[t], line, plates))
    return picture


def outline(image: Image, box: Box, color: Color, thickness: int, *, dashed: bool, line: int) -> None:
    """One box x, y, w, h into ``image``; ``line`` is the width that dashes are measured by."""
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
    """The name on a plate in the tracker's color, above the box or below it, off the plates that are there.

    Returns the plate's left, top, right and bottom.
    """
    height, width = image.shape[:2]
    size = max(10, round(11 * _unit(image)))
    margin = max(2, size // 4)
    text = lettering.shortened(name, size, max(1, width - 2 * margin), bold=True)
    wide, high = lettering.width_of(text, size, bold=True) + 2 * margin, round(size * 1.3)
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
    lettering.write(image, text, (x + margin, y), size, ink, bold=True)
    return x, y, x + wide, y + high


def _unit(image: Image) -> float:
    """How much larger than 640 pixels the picture's longer side is."""
    return float(np.clip(max(image.shape[:2]) / 640, 0.6, 8))


class Band:
    """The band below a video: mean agreement so far, and a lane a tracker with its name and its score.

    Args:
        names: one a tracker; at most ``len(COLORS)``.
        width: pixels of the video.
        total: how many frames will come; None where nobody knows: the strip is then squeezed as it grows.

    Raises:
        ValueError: no name, or more names than colors.
    """

    def __init__(self, names: Sequence[str], width: int, total: int | None) -> None:
        if not 0 < len(names) <= len(COLORS):
            raise ValueError(f"{len(names)} trackers; 1 to {len(COLORS)} can be told apart")
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
        """Where the strips begin and end: between the names and the numbers."""
        swatch, gap = self._size, self._gap
        room = max(1, round(self.width * 0.4) - swatch - 3 * gap)
        self._names = [lettering.shortened(name, self._size, room) for name in names]
        texts = [*(lettering.width_of(name, self._size) + swatch + gap for name in self._names)]
        texts.append(min(room, lettering.width_of("agreement", self._size)))
        widest = sum(lettering.width_of(c, self._size) + 1 for c in "0:00.00")
        right = self.width - widest - 2 * gap
        return min(2 * gap + max(texts) + gap, right - 2), right

    def _background(self, names: Sequence[str]) -> Image:
        """What stays the same: swatches, names, empty lanes."""
        band = np.full((self.height, self.width, 3), PAPER, dtype=np.uint8)
        gap, size = self._gap, self._size
        lettering.write(band, "agreement", (gap, gap), size, FAINT)
        head = lettering.width_of("score", size)
        lettering.write(band, "score", (self.width - gap - head, gap + self._chart - self._row), size, FAINT)
        for t, name in enumerate(self._names):
            top, bottom = self._lane(t)
            middle = (top + bottom) // 2
            cv2.rectangle(
                band,
                (gap, middle - size // 2 + 1),
                (gap + size - 3, middle + size // 2 - 2),
                COLORS[t],
                cv2.FILLED,
            )
            lettering.write(band, name, (2 * gap + size, middle - round(size * 0.72)), size, INK)
        for top, bottom in self._lanes():
            band[top:bottom, self._left : self._right] = LANE
        return band

    def _lanes(self) -> list[tuple[int, int]]:
        """Top and bottom of the chart and of each tracker's lane."""
        return [
            (self._gap, self._gap + self._chart - self._gap // 2),
            *map(self._lane, range(len(self._names))),
        ]

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
            visible: false pales a tracker's lane.

        Returns:
            (``height``, ``width``, 3) RGB uint8.
        """
        shown = [value if seen else -value for value, seen in zip(each, visible, strict=True)]
        self._values.append((mean, *shown))
        band = self._empty.copy()
        self._strips(band)
        self._numbers(band, frame, mean, scores, visible)
        return band

    def _strips(self, band: Image) -> None:
        """Columns as high as the agreement of their frame, up to now; paler where the target was not seen."""
        columns = self._right - self._left
        count = len(self._values)
        total = max(count, self._total or _SHORTEST)
        frame_of = np.minimum(np.arange(columns) * total // columns, total - 1)
        until = int(np.searchsorted(frame_of, count))
        values = np.array(self._values, dtype=np.float64)[frame_of[:until]]
        for number, (top, bottom) in enumerate(self._lanes()):
            color = INK if number == 0 else COLORS[number - 1]
            here = band[top:bottom, self._left : self._left + until]
            _columns(here, values[:, number], color, max(1, self._gap // 4))
        now = min(self._left + until, self._right - 1)
        band[self._gap : self._lanes()[-1][1], now] = INK

    def _numbers(
        self,
        band: Image,
        frame: tuple[int, float],
        mean: float,
        scores: Sequence[float],
        visible: Sequence[bool],
    ) -> None:
        gap, size = self._gap, self._size
        large = round(size * 1.5)
        text = f"{mean:.2f}" if np.isfinite(mean) else "\u2013"
        right = gap + sum(lettering.width_of(c, large, bold=True) + 1 for c in text)
        lettering.numerals(band, text, right, gap + round(size * 1.15), large, INK, bold=True)
        lettering.numerals(band, f"{frame[0]}", self.width - gap, gap, size, FAINT)
        lettering.numerals(band, clock(frame[1]), self.width - gap, gap + self._row, size, FAINT)
        for t, score in enumerate(scores):
            if np.isfinite(score):
                top, bottom = self._lane(t)
                place = (top + bottom) // 2 - round(size * 0.72)
                ink = INK if visible[t] else FAINT
                lettering.numerals(band, f"{score:.2f}", self.width - gap, place, size, ink)


def _columns(here: Image, values: NDArray[np.float64], color: Color, edge: int) -> None:
    """Fill each column from below, brightest at its top; a negative value pale, NaN not at all."""
    height = here.shape[0]
    top = height - np.round(np.abs(np.nan_to_num(values)) * height)
    rows = np.arange(height)[:, None]
    filled = (rows >= top[None]) & np.isfinite(values)[None]
    share = np.where(rows < top[None] + edge, 1.0, 0.45) * np.where(np.signbit(values), 0.45, 1.0)[None]
    paint = share[..., None] * np.asarray(color) + (1 - share[..., None]) * np.asarray(LANE)
    here[:] = np.where(filled[..., None], paint, here).astype(np.uint8)


def clock(seconds: float) -> str:
    """Minutes, seconds and hundredths."""
    minutes, rest = divmod(round(max(0.0, seconds) * 100), 6000)
    return f"{minutes}:{rest // 100:02d}.{rest % 100:02d}"


def compose(picture: Image, band: Image, size: tuple[int, int]) -> Image:
    """A frame of (width, height) pixels with the band below; a frame of another size is cut or padded."""
    width, height = size
    sheet = np.full((height + band.shape[0], width, 3), PAPER, dtype=np.uint8)
    part = picture[:height, :width]
    sheet[: part.shape[0], : part.shape[1]] = part
    sheet[height:] = band[:, :width]
    return sheet
