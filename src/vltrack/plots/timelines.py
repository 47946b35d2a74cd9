"""Timelines of overlap and score for a sequence of a report, and the figure of a language audit.

T trackers, K points along time (one frame each, or the mean of a few where there are many), S bars per panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from vltrack.core.types import Floats
from vltrack.plots import figures
from vltrack.plots.figures import FAINT, INK, LARGE, PAGE, SMALL, axes_at, figure_style, fitted, tracker_color, write

_LANE, _GAP = 0.42, 0.16
_LEFT = 0.42


def overlap_timeline(
    title: str, note: str, frames: int, absent: Sequence[tuple[int, int]], lanes: Sequence[tuple[str, Floats, Floats]]
) -> Figure:
    """Overlap and score of all trackers on one sequence over time, absent spans shaded.

    Args:
        title: name of the sequence.
        note: sentence, number of frames.
        frames: number of frames; the K points of a timeline are spread evenly over them.
        absent: first and last + 1 of each span of frames without the target.
        lanes: per tracker its name, and (K,) overlap with the annotation and (K,) its own score, both from 0 to 1
            and NaN where missing.

    Raises:
        ValueError: no timeline, or no frame.
    """
    if not lanes or frames < 1:
        raise ValueError(f"{len(lanes)} trackers over {frames} frames; there must be one of each")
    top = 0.5
    with figure_style():
        made = figures.figure(PAGE, top + len(lanes) * (_LANE + _GAP) + 0.2)
        head = fitted(title, 2.6, LARGE, bold=True)
        write(made, head, _LEFT, 0.05, size=LARGE, bold=True)
        next_to = _LEFT + figures.inches(head, LARGE, bold=True) + 0.12
        write(made, note, next_to, 0.072, room=PAGE - 0.12 - next_to, size=SMALL, color=FAINT)
        key = "area: overlap with the ground truth"
        if any(np.isfinite(scores).any() for _, _, scores in lanes):
            key += "; dark line: the tracker's own score"
        if absent:
            key += "; gray: target absent"
        write(made, key, _LEFT, 0.21, size=SMALL, color=FAINT)
        for tracker, lane in enumerate(lanes):
            axes = _lane(made, tracker, lane, top + tracker * (_LANE + _GAP), frames, absent)
        axes.tick_params(labelbottom=True, bottom=True)
        axes.set_xlabel("frame", labelpad=1)
    return made


def _lane(
    made: Figure,
    tracker: int,
    lane: tuple[str, Floats, Floats],
    top: float,
    frames: int,
    absent: Sequence[tuple[int, int]],
) -> Axes:
    name, overlaps, scores = lane
    wide = PAGE - _LEFT - 0.22
    axes = axes_at(made, _LEFT, top, wide, _LANE)
    known = overlaps[np.isfinite(overlaps)]
    mean = f"   mean overlap {known.mean():.2f}" if known.size else ""
    name = fitted(name, wide - figures.inches(mean, SMALL), SMALL)
    write(made, name + mean, _LEFT, top - 0.025, size=SMALL, va="bottom")
    for begin, end in absent:
        axes.axvspan(begin, end, color=(0.87, 0.88, 0.9), linewidth=0, gid="absent")
    edges = np.linspace(0, frames, len(overlaps) + 1)
    shade = tracker_color(tracker)
    axes.stairs(
        np.nan_to_num(overlaps), edges, fill=True, color=shade, alpha=0.75, linewidth=0,
        gid=f"overlap-{tracker}",
    )  # fmt: skip
    middles = (edges[:-1] + edges[1:]) / 2
    axes.plot(middles, scores, color=INK, linewidth=0.7, gid=f"score-{tracker}")
    axes.set(xlim=(0, frames), ylim=(0, 1.02), yticks=[0, 0.5, 1])
    axes.tick_params(labelbottom=False, bottom=False)
    return axes


def true_spans(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Begin and end (exclusive) of each run of True in (N,) flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def downsampled(values: Floats, most: int) -> Floats:
    """(N,) values reduced to at most ``most`` means of adjacent ones, NaN left out; unchanged where few."""
    if len(values) <= most:
        return values
    edges = np.linspace(0, len(values), most + 1).round().astype(int)
    known = np.isfinite(values)
    total = np.add.reduceat(np.where(known, values, 0.0), edges[:-1])
    count = np.add.reduceat(known.astype(np.float64), edges[:-1])
    means: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means


# -- language audit -----------------------------------------------------------------------------------

ALL_NAMED = 40
"""Bars that get their names; more than these are thin and without names."""
_ROW, _PROFILE = 0.135, 2.2
_NAMES, _EDGE = 1.45, 0.12
_HEAD = 0.78


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Panel:
    """One comparison of an audit.

    Attributes:
        title: of the panel.
        summary: the mean with its interval as text.
        unit: of the bars, below the axis.
        names: of the S bars.
        values_S: the bars; those with NaN are left out.
        interval: low and high end of the interval of the mean, None without one.
        limits: of the axis; None fits the bars.
    """

    title: str
    summary: str
    unit: str
    names: Sequence[str]
    values_S: ArrayLike
    interval: tuple[float, float] | None = None
    limits: tuple[float, float] | None = None


def audit_figure(title: str, verdict: str, panels: Sequence[Panel]) -> Figure:
    """Panels in a row, the largest bar on top; the mean is a line, its interval a band.

    Raises:
        ValueError: no panel, or one without as many names as values or without any finite value.
    """
    if not panels:
        raise ValueError("An audit figure needs at least one panel.")
    bars = [_sorted(panel) for panel in panels]
    heights = [len(values) * _ROW if names else _PROFILE for names, values in bars]
    wide = PAGE if len(panels) > 1 else PAGE * 0.62
    width = wide / len(panels)
    with figure_style():
        made = figures.figure(wide, _HEAD + 0.34 + max(heights) + 0.42)
        write(made, title, _EDGE, 0.08, room=wide - 2 * _EDGE, size=LARGE, bold=True)
        write(made, verdict, _EDGE, 0.28, room=wide - 2 * _EDGE)
        for place, (panel, (names, values), height) in enumerate(zip(panels, bars, heights, strict=True)):
            left, room = place * width + _EDGE, width - 2 * _EDGE
            write(made, panel.title, left, _HEAD - 0.2, room=room, bold=True)
            write(made, panel.summary, left, _HEAD - 0.04, room=room, size=SMALL, color=FAINT)
            margin = _NAMES if names else 0.35
            size = (width - margin - _EDGE - 0.05, height)
            _bars(axes_at(made, place * width + margin, _HEAD + 0.2, *size), panel, values, named=bool(names))
            look: dict[str, Any] = {"size": SMALL, "ha": "right", "va": "center_baseline"}
            for number, name in enumerate(names):
                x, y = place * width + _NAMES - 0.06, _HEAD + 0.2 + _ROW * (number + 0.5)
                write(made, name, x, y, room=_NAMES - 0.22, **look)
    return made


def _sorted(panel: Panel) -> tuple[list[str], Floats]:
    """Names (none where there are too many) and values, the largest first."""
    values = np.asarray(panel.values_S, dtype=np.float64)
    if values.shape != (len(panel.names),) or not np.isfinite(values).any():
        raise ValueError(f"{len(panel.names)} names and values of shape {values.shape}, finite at least one")
    order = sorted(np.flatnonzero(np.isfinite(values)).tolist(), key=lambda i: (-values[i], panel.names[i]))
    names = [panel.names[i] for i in order] if len(order) <= ALL_NAMED else []
    return names, values[order]


def _bars(axes: Axes, panel: Panel, values: Floats, *, named: bool) -> None:
    """The bars of a panel; behind them the interval of the mean as a band, and the mean as a line."""
    shades = [tracker_color(2 if value > 0 else 5) for value in values]
    axes.barh(np.arange(len(values)), values, height=0.74 if named else 1.0, color=shades, linewidth=0, gid="bars")
    if panel.interval is not None:
        axes.axvspan(*panel.interval, color=tracker_color(0), alpha=0.3, linewidth=0, zorder=0.5, gid="interval")
        axes.axvline(float(values.mean()), color=tracker_color(6), linewidth=1.1, linestyle=(0, (4, 1.5)))
    axes.axvline(0, color=INK, linewidth=0.7)
    axes.set(ylim=(len(values) - 0.5, -0.5), xlim=panel.limits or _limits(values), yticks=[])
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(panel.unit, labelpad=1)


def _limits(values: Floats) -> tuple[float, float]:
    """From the smallest bar to the largest, 0 among them, with a little room."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    room = 0.05 * (high - low) or 1.0
    return (low - room if low < 0 else low), high + room
