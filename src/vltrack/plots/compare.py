"""One picture of several trackers on one video: moments with all boxes, agreement and scores over time.

Knows frames and numbers; computes no agreement and writes no file. T trackers, N frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from vltrack.core.errors import DataError
from vltrack.core.types import Box, Floats, Image
from vltrack.plots import text as lettering
from vltrack.plots.compare_video import (
    COLORS,
    FAINT,
    INK,
    LANE,
    LOW_AGREEMENT,
    PAPER,
    RIM,
    Color,
    clock,
    draw_boxes,
)

# MERGED plots/compare.py
# Moments of a video with all trackers' boxes, chosen while it runs. Knows frames; holds small tiles only.


TILE = 424
"""Width of a tile in pixels."""
SHOWN = 8
_HELD = 6
"""KeyframeSelector held for each one shown: the more, the more even the choice from a video of unknown length."""
_ZOOM = 7.0
"""A tile is at most so many times as wide as the target, so that a small one can still be seen."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Keyframe:
    """A frame with all boxes, cut and shrunk to a tile: (H, W, 3) RGB uint8; ``mean`` is its agreement."""

    tile: Image
    index: int
    seconds: float
    mean: float


class KeyframeSelector:
    """A few moments of a video of any length, evenly spread, and the one where the trackers agree least."""

    def __init__(self, names: Sequence[str], count: int = SHOWN) -> None:
        self._names = names
        self._count = count
        self._held: list[Keyframe] = []
        self._least: Keyframe | None = None
        self._latest: Callable[[], Keyframe] | None = None
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

        def moment() -> Keyframe:
            picture = cut(image, np.asarray(boxes_T4, dtype=np.float64))
            tile = draw_boxes(*picture, visible, self._names, [bool(value < LOW_AGREEMENT) for value in each])
            return Keyframe(tile=tile, index=frame[0], seconds=frame[1], mean=mean)

        self._latest = moment
        if np.isfinite(mean) and (self._least is None or mean < self._least.mean):
            self._least = moment()
        if self._met % self._every == 0:
            self._held.append(moment())
            self._latest = None
            if len(self._held) > _HELD * self._count:
                self._held, self._every = self._held[::2], 2 * self._every
        self._met += 1

    def chosen(self) -> list[Keyframe]:
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


COLUMNS = 4
_GAP = 16
WIDTH = COLUMNS * TILE + (COLUMNS + 1) * _GAP
_DPI = 100
_SHADES = LinearSegmentedColormap.from_list(
    "overlap", [(0.15, 0.17, 0.2), (0.45, 0.5, 0.56), (0.93, 0.94, 0.95)]
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ComparisonData:
    """Everything that the picture tells in numbers; NaN where there is nothing to tell.

    Attributes:
        title, subtitle: the video, and how the target was named.
        names, notes: of each tracker, and a line on how it fared.
        seconds_N: time of each frame.
        mean_N, each_TN, matrix_TT: agreement as in ``metrics.agreement``.
        scores_TN, visible_TN: what each tracker said of itself.
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


def comparison_image(story: ComparisonData, moments: Sequence[Keyframe]) -> Image:
    """The whole picture: (H, ``WIDTH``, 3) RGB uint8. The same input gives the same picture.

    Raises:
        DataError: there is no moment or no frame to show.
        ValueError: no name, or more than there are colors.
    """
    if not moments or not len(story.seconds_N):
        raise DataError("there is no frame to put on a picture.")
    if not 0 < len(story.names) <= len(COLORS):
        raise ValueError(f"{len(story.names)} trackers; 1 to {len(COLORS)} can be told apart")
    return cast(Image, np.vstack([_head(story), _tiles(moments), _charts(story, moments)]))


# -- the upper part: words and tiles ------------------------------------------------------------------


def _head(story: ComparisonData) -> Image:
    """Title, and a legend with a line on each tracker."""
    head = np.full((152, WIDTH, 3), PAPER, dtype=np.uint8)
    room = WIDTH - 2 * _GAP
    lettering.write(
        head, lettering.shortened(story.title, 24, room, bold=True), (_GAP, 14), 24, INK, bold=True
    )
    lettering.write(head, lettering.shortened(story.subtitle, 17, room), (_GAP, 50), 17, FAINT)
    step = room // len(story.names)
    for t, (name, note) in enumerate(zip(story.names, story.notes, strict=True)):
        x = _GAP + t * step
        cv2.rectangle(head, (x, 94), (x + 7, 136), COLORS[t], cv2.FILLED)
        lettering.write(
            head, lettering.shortened(name, 17, step - 24, bold=True), (x + 18, 92), 17, INK, True
        )
        lettering.write(head, lettering.shortened(note, 15, step - 24), (x + 18, 117), 15, FAINT)
    return head


def _tiles(moments: Sequence[Keyframe]) -> Image:
    """The moments in rows, each with its number, frame, time and agreement."""
    columns = min(COLUMNS, len(moments))
    rows = -(-len(moments) // columns)
    height = max(moment.tile.shape[0] for moment in moments) + 28 + _GAP
    sheet = np.full((rows * height, WIDTH, 3), PAPER, dtype=np.uint8)
    least = min((m.mean for m in moments if np.isfinite(m.mean)), default=np.nan)
    for number, moment in enumerate(moments):
        top, left = (number // columns) * height, _GAP + (number % columns) * (TILE + _GAP)
        bottom = top + moment.tile.shape[0]
        sheet[top:bottom, left : left + TILE] = moment.tile
        _badge(sheet, number + 1, left, top)
        lettering.write(
            sheet, f"frame {moment.index}   {clock(moment.seconds)}", (left, bottom + 5), 15, FAINT
        )
        if np.isfinite(moment.mean):
            low = moment.mean == least and len(moments) > 1
            words = f"{'least ' if low else ''}agreement {moment.mean:.2f}"
            place = (left + TILE - lettering.width_of(words, 15, bold=low), bottom + 5)
            lettering.write(sheet, words, place, 15, INK if low else FAINT, bold=low)
    return sheet


def _badge(sheet: Image, number: int, left: int, top: int) -> None:
    """The number of a tile, in its corner; the charts repeat it."""
    width = lettering.width_of(str(number), 16, bold=True)
    sheet[top : top + 26, left : left + 26] = RIM
    lettering.write(sheet, str(number), (left + 13 - width // 2, top + 2), 16, INK, bold=True)


# -- the lower part: charts ---------------------------------------------------------------------------


def _charts(story: ComparisonData, moments: Sequence[Keyframe]) -> Image:
    """Agreement and scores over time, and the mean overlap of each pair."""
    figure = Figure(figsize=(WIDTH / _DPI, 6.0), dpi=_DPI, facecolor=_shade(PAPER))
    several = len(story.names) > 1
    grid = figure.add_gridspec(
        2,
        2 if several else 1,
        width_ratios=(2.6, 1) if several else (1,),
        left=0.045,
        right=0.985,
        top=0.93,
        bottom=0.09,
        hspace=0.32,
        wspace=0.16,
    )
    over_time = figure.add_subplot(grid[0, 0])
    _agreement_axes(over_time, story, moments)
    _score_axes(figure.add_subplot(grid[1, 0]), story, over_time.get_xlim())
    if several:
        _matrix_axes(figure.add_subplot(grid[:, 1]), story)
    return lettering.pixels_of(figure)


def _agreement_axes(axes: Axes, story: ComparisonData, moments: Sequence[Keyframe]) -> None:
    _dress(
        axes,
        "agreement: overlap of the boxes (white: mean of all pairs; colors: one tracker with the others)",
    )
    time = story.seconds_N
    axes.fill_between(time, 0, np.nan_to_num(story.mean_N), color=_shade(INK), alpha=0.12, linewidth=0)
    for t, each in enumerate(story.each_TN):
        axes.plot(time, each, color=_shade(COLORS[t]), linewidth=1.3)
    axes.plot(time, story.mean_N, color=_shade(INK), linewidth=2.2)
    _fit(axes, time)
    for number, moment in enumerate(moments):
        axes.axvline(moment.seconds, color=_shade(FAINT), linewidth=0.7, alpha=0.6, zorder=0)
        axes.annotate(
            str(number + 1),
            (moment.seconds, 1.0),
            (0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=_shade(FAINT),
            xycoords=("data", "axes fraction"),
            family=lettering.FONT,
        )


def _score_axes(axes: Axes, story: ComparisonData, limits: tuple[float, float]) -> None:
    _dress(axes, "score: how sure each tracker says it is (bars below: it says that the target is lost)")
    time, count = story.seconds_N, len(story.names)
    step = float(np.median(np.diff(time))) if len(time) > 1 else 1.0
    for t, (scores, seen) in enumerate(zip(story.scores_TN, story.visible_TN, strict=True)):
        axes.plot(time, scores, color=_shade(COLORS[t]), linewidth=1.3)
        low = -0.06 * (t + 1)
        for begin, end in _spans(~seen & np.isfinite(scores)):
            axes.fill_between(
                (time[begin], time[end - 1] + step), low, low + 0.04, color=_shade(COLORS[t]), lw=0
            )
    axes.set_ylim(-0.06 * count - 0.05, 1.03)
    axes.set_yticks(np.arange(6) / 5)
    axes.set_xlim(limits)
    axes.set_xlabel("seconds", color=_shade(FAINT), fontsize=10, family=lettering.FONT)


def _matrix_axes(axes: Axes, story: ComparisonData) -> None:
    """The mean overlap of each pair, in numbers on shades."""
    _dress(axes, "mean overlap of each pair")
    count = len(story.names)
    shown = np.ma.masked_invalid(story.matrix_TT)
    axes.imshow(shown, vmin=0, vmax=1, cmap=_SHADES, aspect="equal")
    axes.set_anchor("N")
    axes.grid(visible=False)
    for row in range(count):
        for column in range(count):
            value = story.matrix_TT[row, column]
            if np.isfinite(value):
                ink = RIM if value > 0.55 else INK
                axes.text(
                    column, row, f"{value:.2f}", ha="center", va="center", color=_shade(ink), fontsize=13,
                    family=lettering.FONT,
                )  # fmt: skip
        for place in ((-0.5 - 0.09, row - 0.5, 0.09, 1), (row - 0.5, count - 0.5, 1, 0.09)):
            axes.add_patch(Rectangle(place[:2], *place[2:], facecolor=_shade(COLORS[row]), linewidth=0))
    axes.set_xlim(-0.62, count - 0.47)
    axes.set_ylim(count - 0.38, -0.53)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _dress(axes: Axes, title: str) -> None:
    """Dark axes from 0 to 1 with a light grid."""
    axes.set_facecolor(_shade(LANE))
    axes.set_title(title, loc="left", color=_shade(FAINT), fontsize=11, pad=16, family=lettering.FONT)
    axes.set_ylim(0, 1.03)
    axes.tick_params(colors=_shade(FAINT), labelsize=10, length=0, labelfontfamily=lettering.FONT)
    axes.grid(color=_shade(PAPER), linewidth=0.9)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _fit(axes: Axes, time: Floats) -> None:
    """The time from the first frame to the last, with a little room where there is one frame only."""
    first, last = float(time[0]), float(time[-1])
    axes.set_xlim(first, last if last > first else first + 1)


def _spans(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Begin and end (exclusive) of each run of true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _shade(color: Color) -> tuple[float, float, float]:
    r, g, b = color
    return r / 255, g / 255, b / 255
