"""The comparison image: keyframes with the boxes of several trackers, their agreement and scores over time.

T trackers, N frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from vltrack.core.errors import DataError
from vltrack.core.types import Box, Floats, Image
from vltrack.plots.compare_video import FAINT, INK, LANE, LOW_AGREEMENT, PAPER, RIM, clock, draw_boxes
from vltrack.plots.draw import COLORS, Color, check_count
from vltrack.plots.text import FONT, pixels_of, shortened, width_of, write
from vltrack.plots.timelines import true_spans

TILE = 424
"""Width of a tile in pixels."""
SHOWN = 8
"""Keyframes of a video at most."""
COLUMNS = 4
_GAP = 16
WIDTH = COLUMNS * TILE + (COLUMNS + 1) * _GAP
_SHADES = LinearSegmentedColormap.from_list("overlap", [(0.15, 0.17, 0.2), (0.45, 0.5, 0.56), (0.93, 0.94, 0.95)])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Keyframe:
    """A frame with all boxes, cut and resized to a tile: (H, W, 3) RGB uint8; ``mean`` is its agreement."""

    tile: Image
    index: int
    seconds: float
    mean: float


class KeyframeSelector:
    """Keyframes of a video of any length: evenly spread ones, and the one where the trackers agree least."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._kept: list[Keyframe] = []
        self._least: Keyframe | None = None
        self._latest: Callable[[], Keyframe] | None = None
        self._every, self._count = 1, 0

    def add(
        self,
        image: Image,
        frame: tuple[int, float],
        boxes_T4: ArrayLike,
        visible: Sequence[bool],
        mean: float,
        each: Sequence[float],
    ) -> None:
        """Take the next frame (number, seconds); the other arguments as in ``draw_boxes``, ``Band.draw``."""

        def keyframe() -> Keyframe:
            part, boxes = cut(image, np.asarray(boxes_T4, dtype=np.float64))
            tile = draw_boxes(part, boxes, visible, self._names, [value < LOW_AGREEMENT for value in each])
            return Keyframe(tile=tile, index=frame[0], seconds=frame[1], mean=mean)

        self._latest = keyframe
        if np.isfinite(mean) and (self._least is None or mean < self._least.mean):
            self._least = keyframe()
        if self._count % self._every == 0:
            self._kept.append(keyframe())
            self._latest = None
            if len(self._kept) > 6 * SHOWN:  # the more, the more even the choice from a video of unknown length
                self._kept, self._every = self._kept[::2], 2 * self._every
        self._count += 1

    def chosen(self) -> list[Keyframe]:
        """At most ``SHOWN`` in order: the first, the last, the one of least agreement, and some between."""
        kept = [*self._kept, self._latest()] if self._latest is not None else self._kept
        picked = [kept[pick] for pick in evenly(len(kept), SHOWN)]
        least = self._least
        if least is not None and len(picked) > 2 and all(k.index != least.index for k in picked):
            nearest = min(range(1, len(picked) - 1), key=lambda k: abs(picked[k].index - least.index))
            picked[nearest] = least
        return sorted(picked, key=lambda keyframe: keyframe.index)


def evenly(total: int, count: int) -> list[int]:
    """At most ``count`` evenly spread numbers below ``total``, the first and the last among them."""
    count = min(count, total)
    return [round(k * (total - 1) / max(1, count - 1)) for k in range(count)]


def cut(image: Image, boxes_T4: Box) -> tuple[Image, Box]:
    """Cut a frame to the part with all boxes (T, 4), resized to the tile's width; and the boxes in it."""
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
        # At most seven times as wide as the target, so that a small one can still be seen.
        wide = float(np.clip(max(7.0 * target, 1.3 * spread), min(64.0, whole), whole))
    size = np.array([wide, wide / aspect])
    corner = np.clip(middle - size / 2, 0, np.maximum(np.array([width, height]) - size, 0))
    x, y = (round(float(v)) for v in corner)
    right, bottom = x + max(1, round(size[0])), y + max(1, round(size[1]))
    part = image[y:bottom, x:right]
    scale = TILE / part.shape[1]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    tile = cv2.resize(part, (TILE, round(TILE / aspect)), interpolation=how)
    return cast(Image, tile), (boxes_T4 - [x, y, 0, 0]) * scale


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ComparisonData:
    """Texts and numbers of the comparison image; NaN where a number is missing.

    Attributes:
        title, subtitle: the video, and the given target.
        names, notes: T; a note is one line of results.
        seconds_N: time of each frame.
        mean_N, each_TN, matrix_TT: agreement as in ``metrics.agreement``.
        scores_TN, visible_TN: output of each tracker.
    """

    title: str
    subtitle: str
    names: Sequence[str]
    notes: Sequence[str]
    seconds_N: Floats
    mean_N: Floats
    each_TN: Floats
    matrix_TT: Floats
    scores_TN: Floats
    visible_TN: NDArray[np.bool_]


def comparison_image(data: ComparisonData, keyframes: Sequence[Keyframe]) -> Image:
    """The whole image: (H, ``WIDTH``, 3) RGB uint8. The same input gives the same image.

    Raises:
        DataError: no keyframe or no frame.
        ValueError: no name, or more than there are colors.
    """
    if not keyframes or not len(data.seconds_N):
        raise DataError("No frames for a comparison image.")
    check_count(data.names)
    return cast(Image, np.vstack([_head(data), _tiles(keyframes), _charts(data, keyframes)]))


# -- the upper part: text and tiles -------------------------------------------------------------------


def _head(data: ComparisonData) -> Image:
    """Title, and a legend with a line on each tracker."""
    head = np.full((152, WIDTH, 3), PAPER, dtype=np.uint8)
    room = WIDTH - 2 * _GAP
    write(head, shortened(data.title, 24, room, bold=True), (_GAP, 14), 24, INK, bold=True)
    write(head, shortened(data.subtitle, 17, room), (_GAP, 50), 17, FAINT)
    step = room // len(data.names)
    for t, (name, note) in enumerate(zip(data.names, data.notes, strict=True)):
        x = _GAP + t * step
        cv2.rectangle(head, (x, 94), (x + 7, 136), COLORS[t], cv2.FILLED)
        write(head, shortened(name, 17, step - 24, bold=True), (x + 18, 92), 17, INK, bold=True)
        write(head, shortened(note, 15, step - 24), (x + 18, 117), 15, FAINT)
    return head


def grid(tiles: Sequence[Image], columns: int, gap: int, color: Color) -> Image:
    """Tiles of one width in rows, with a gap below each row and between, before and behind the columns."""
    height, width = max(map(len, tiles)) + gap, tiles[0].shape[1] + gap
    sheet = np.full((-(-len(tiles) // columns) * height, columns * width + gap, 3), color, dtype=np.uint8)
    for number, tile in enumerate(tiles):
        top, left = (number // columns) * height, gap + (number % columns) * width
        sheet[top : top + len(tile), left : left + tile.shape[1]] = tile
    return sheet


def _tiles(keyframes: Sequence[Keyframe]) -> Image:
    """The keyframes in rows, each with its number, frame, time and agreement."""
    least = min((k.mean for k in keyframes if np.isfinite(k.mean)), default=np.nan)
    tiles = []
    for number, keyframe in enumerate(keyframes, 1):
        tile = np.vstack([keyframe.tile, np.full((28, TILE, 3), PAPER, dtype=np.uint8)])
        tile[:26, :26] = RIM  # the number in the tile's corner; the charts repeat it
        write(tile, str(number), (13 - width_of(str(number), 16, bold=True) // 2, 2), 16, INK, bold=True)
        y = len(keyframe.tile) + 5
        write(tile, f"frame {keyframe.index}   {clock(keyframe.seconds)}", (0, y), 15, FAINT)
        if np.isfinite(keyframe.mean):
            low = keyframe.mean == least and len(keyframes) > 1
            text = f"{'least ' if low else ''}agreement {keyframe.mean:.2f}"
            x = TILE - width_of(text, 15, bold=low)
            write(tile, text, (x, y), 15, INK if low else FAINT, bold=low)
        tiles.append(tile)
    return grid(tiles, COLUMNS, _GAP, PAPER)


# -- the lower part: charts ---------------------------------------------------------------------------


def _charts(data: ComparisonData, keyframes: Sequence[Keyframe]) -> Image:
    """Agreement and scores over time, and the mean overlap of each pair."""
    figure = Figure(figsize=(WIDTH / 100, 6.0), dpi=100, facecolor=_rgb(PAPER))
    several = len(data.names) > 1
    room = {"left": 0.045, "right": 0.985, "top": 0.93, "bottom": 0.09, "hspace": 0.32, "wspace": 0.16}
    grid = figure.add_gridspec(2, 1 + several, width_ratios=(2.6, 1)[: 1 + several], **room)
    over_time = figure.add_subplot(grid[0, 0])
    _agreement_axes(over_time, data, keyframes)
    _score_axes(figure.add_subplot(grid[1, 0]), data, over_time.get_xlim())
    if several:
        _matrix_axes(figure.add_subplot(grid[:, 1]), data)
    return pixels_of(figure)


def _agreement_axes(axes: Axes, data: ComparisonData, keyframes: Sequence[Keyframe]) -> None:
    _style(axes, "agreement: overlap of the boxes (white: mean of all pairs; colors: one tracker with the others)")
    time = data.seconds_N
    axes.fill_between(time, 0, np.nan_to_num(data.mean_N), color=_rgb(INK), alpha=0.12, linewidth=0)
    for t, each in enumerate(data.each_TN):
        axes.plot(time, each, color=_rgb(COLORS[t]), linewidth=1.3)
    axes.plot(time, data.mean_N, color=_rgb(INK), linewidth=2.2)
    first, last = float(time[0]), float(time[-1])
    axes.set_xlim(first, last if last > first else first + 1)
    for number, keyframe in enumerate(keyframes, 1):
        axes.axvline(keyframe.seconds, color=_rgb(FAINT), linewidth=0.7, alpha=0.6, zorder=0)
        axes.annotate(
            str(number), (keyframe.seconds, 1.0), (0, 3), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", fontsize=9, color=_rgb(FAINT), family=FONT,
        )  # fmt: skip


def _score_axes(axes: Axes, data: ComparisonData, limits: tuple[float, float]) -> None:
    _style(axes, "score: how sure each tracker says it is (bars below: it says that the target is lost)")
    time, count = data.seconds_N, len(data.names)
    step = float(np.median(np.diff(time))) if len(time) > 1 else 1.0
    for t, (scores, seen) in enumerate(zip(data.scores_TN, data.visible_TN, strict=True)):
        axes.plot(time, scores, color=_rgb(COLORS[t]), linewidth=1.3)
        low = -0.06 * (t + 1)
        for begin, end in true_spans(~seen & np.isfinite(scores)):
            axes.fill_between((time[begin], time[end - 1] + step), low, low + 0.04, color=_rgb(COLORS[t]), lw=0)
    axes.set(xlim=limits, ylim=(-0.06 * count - 0.05, 1.03), yticks=np.arange(6) / 5)
    axes.set_xlabel("seconds", color=_rgb(FAINT), fontsize=10, family=FONT)


def _matrix_axes(axes: Axes, data: ComparisonData) -> None:
    """The mean overlap of each pair, in numbers on shades."""
    _style(axes, "mean overlap of each pair")
    count = len(data.names)
    axes.imshow(np.ma.masked_invalid(data.matrix_TT), vmin=0, vmax=1, cmap=_SHADES, aspect="equal")
    axes.set_anchor("N")
    axes.grid(visible=False)
    for row, column in np.argwhere(np.isfinite(data.matrix_TT)):
        value = data.matrix_TT[row, column]
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 13, "family": FONT}
        axes.text(column, row, f"{value:.2f}", color=_rgb(RIM if value > 0.55 else INK), **look)
    for t in range(count):
        for place in ((-0.5 - 0.09, t - 0.5, 0.09, 1), (t - 0.5, count - 0.5, 1, 0.09)):
            axes.add_patch(Rectangle(place[:2], *place[2:], facecolor=_rgb(COLORS[t]), linewidth=0))
    axes.set(xlim=(-0.62, count - 0.47), ylim=(count - 0.38, -0.53), xticks=[], yticks=[])


def _style(axes: Axes, title: str) -> None:
    """Dark axes from 0 to 1 with a light grid."""
    axes.set_facecolor(_rgb(LANE))
    axes.set_title(title, loc="left", color=_rgb(FAINT), fontsize=11, pad=16, family=FONT)
    axes.set_ylim(0, 1.03)
    axes.tick_params(colors=_rgb(FAINT), labelsize=10, length=0, labelfontfamily=FONT)
    axes.grid(color=_rgb(PAPER), linewidth=0.9)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _rgb(color: Color) -> tuple[float, float, float]:
    r, g, b = color
    return r / 255, g / 255, b / 255
