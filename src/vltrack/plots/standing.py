"""Two small pictures of all trackers: speed against quality, and how alike boxes are. Knows numbers only.

T trackers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike

from vltrack.plots import paper

_SHADES = LinearSegmentedColormap.from_list(
    "overlap", [(0.97, 0.975, 0.98), (0.45, 0.62, 0.76), (0.05, 0.25, 0.42)]
)
_ROUND = (1, 1.5, 2, 3, 5, 7)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One tracker: frames a second, and its score in points."""

    tracker: int
    name: str
    fps: float
    score: float


def speed_figure(points: Sequence[Point], measure: str, note: str) -> Figure:
    """Frames a second against the score; the names stand in a legend below, best first.

    Raises:
        ValueError: no point, or a speed that is not above 0.
    """
    if not points or not all(np.isfinite(p.fps) and p.fps > 0 for p in points):
        raise ValueError("every tracker of a speed picture needs its frames a second")
    ordered = sorted(points, key=lambda p: (-p.score, p.tracker))
    legend_at = 0.42 + 2.0 + 0.45
    with paper.look():
        made = paper.figure(paper.COLUMN, legend_at + paper.LEGEND_ROW * len(points) + 0.08)
        paper.write(made, "Speed and quality", 0.45, 0.05, size=paper.LARGE, weight="bold")
        room = paper.COLUMN - 0.55
        paper.write(
            made, paper.fitted(note, room, paper.SMALL), 0.45, 0.22, size=paper.SMALL, color=paper.FAINT
        )
        axes = paper.axes_at(made, 0.45, 0.42, paper.COLUMN - 0.6, 2.0)
        _speeds(axes, min(p.fps for p in points), max(p.fps for p in points))
        scores = [p.score for p in points]
        middle, half = (max(scores) + min(scores)) / 2, max((max(scores) - min(scores)) * 0.65, 2.0)
        axes.set_ylim(middle - half, middle + half)
        axes.set_ylabel(measure, labelpad=3)
        for p in ordered:
            axes.plot(
                [p.fps], [p.score], "o", markersize=7, color=paper.colour(p.tracker),
                markeredgecolor="white", markeredgewidth=0.8, gid=f"point-{p.tracker}",
            )  # fmt: skip
        rows = [(p.tracker, f"{p.score:.2f}", f"{p.fps:.1f}/s  {p.name}") for p in ordered]
        paper.legend(made, rows, 0.45, legend_at, room, dashed=False)
    return made


def _speeds(axes: Axes, low: float, high: float) -> None:
    """The axis of speeds: from 0 where they are alike, logarithmic where they lie far apart."""
    if high < 4 * low:
        axes.set_xlim(0, 1.15 * high)
        axes.set_xlabel("frames a second", labelpad=2)
        return
    low, high = low / 1.4, high * 1.4
    ticks = [r * 10.0**e for e in range(-3, 6) for r in _ROUND if low <= r * 10.0**e <= high]
    while len(ticks) > 7:
        ticks = ticks[::2]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("frames a second (logarithmic)", labelpad=2)


def matrix_figure(names: Sequence[tuple[int | None, str]], matrix_TT: ArrayLike, note: str) -> Figure:
    """Mean overlap of each pair; rows carry a number and the name, columns the number alone.

    Args:
        names: (number of the colour, name); the colour is None for the truth.
        matrix_TT: mean overlap in [0, 1]; NaN is left blank.
        note: which frames count.

    Raises:
        ValueError: shapes that disagree.
    """
    matrix = np.asarray(matrix_TT, dtype=np.float64)
    count = len(names)
    if matrix.shape != (count, count):
        raise ValueError(f"{count} names need ({count}, {count}) overlaps, got {matrix.shape}")
    cell, left, top = 0.34, 1.75, 0.62
    width = max(paper.COLUMN, left + count * cell + 0.12)
    with paper.look():
        made = paper.figure(width, top + count * cell + 0.12)
        paper.write(made, "How alike the boxes are", 0.12, 0.05, size=paper.LARGE, weight="bold")
        paper.write(
            made,
            paper.fitted(note, width - 0.24, paper.SMALL),
            0.12,
            0.22,
            size=paper.SMALL,
            color=paper.FAINT,
        )
        axes = paper.axes_at(made, left, top, count * cell, count * cell)
        axes.imshow(np.ma.masked_invalid(matrix), vmin=0, vmax=1, cmap=_SHADES, aspect="auto")
        axes.grid(visible=False)
        axes.set_xticks([])
        axes.set_yticks([])
        for row, (tracker, name) in enumerate(names):
            y = top + cell * (row + 0.5)
            shade = paper.INK if tracker is None else paper.colour(tracker)
            label = paper.fitted(f"{name}", left - 0.45)
            paper.write(made, label, left - 0.22, y, ha="right", va="center_baseline")
            for place in ((left - 0.1, y), (left + cell * (row + 0.5), top - 0.1)):
                paper.write(
                    made, str(row + 1), *place, ha="center", va="center_baseline", color=shade, weight="bold"
                )
            for column in range(count):
                value = matrix[row, column]
                if np.isfinite(value):
                    ink = "white" if value > 0.55 else paper.INK
                    axes.text(
                        column, row, f"{value:.2f}", ha="center", va="center_baseline", color=ink,
                        fontsize=paper.SMALL,
                    )  # fmt: skip
    return made
