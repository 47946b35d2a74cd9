"""Overlap and score over time, a lane a tracker, absent spans shaded. Knows numbers; computes no overlap.

T trackers, K points along time; a point stands for one frame, or for the mean of a few where they are many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from vltrack.core.types import Floats
from vltrack.plots import figures as paper

_LANE, _GAP = 0.42, 0.16
_LEFT = 0.42


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lane:
    """One tracker: (K,) overlap with the truth and (K,) its own score, 0 to 1; NaN where there is none."""

    tracker: int
    name: str
    overlaps: Floats
    scores: Floats


def strip_figure(
    title: str, note: str, frames: int, absent: Sequence[tuple[int, int]], lanes: Sequence[Lane]
) -> Figure:
    """One sequence over time.

    Args:
        title: name of the sequence.
        note: sentence, number of frames.
        frames: number of frames; the K points of a lane are spread evenly over them.
        absent: first and last + 1 of each span of frames without the target.
        lanes: one a tracker, with as many points each.

    Raises:
        ValueError: no lane, or no frame.
    """
    if not lanes or frames < 1:
        raise ValueError(f"{len(lanes)} trackers over {frames} frames; there must be one of each")
    top = 0.5
    total = top + len(lanes) * (_LANE + _GAP) + 0.2
    wide = paper.PAGE - _LEFT - 0.22
    with paper.look():
        made = paper.figure(paper.PAGE, total)
        head = paper.fitted(title, 2.6, paper.LARGE, bold=True)
        paper.write(made, head, _LEFT, 0.05, size=paper.LARGE, weight="bold")
        beside = _LEFT + paper.inches(head, paper.LARGE, bold=True) + 0.12
        room = paper.PAGE - 0.12 - beside
        paper.write(
            made,
            paper.fitted(note, room, paper.SMALL),
            beside, 0.072, size=paper.SMALL, color=paper.FAINT,
        )  # fmt: skip
        key = "area: overlap with the truth"
        if any(np.isfinite(lane.scores).any() for lane in lanes):
            key += "; dark line: the tracker's own score"
        if absent:
            key += "; grey: target absent"
        paper.write(made, key, _LEFT, 0.21, size=paper.SMALL, color=paper.FAINT)
        for place, lane in enumerate(lanes):
            y = top + place * (_LANE + _GAP)
            _lane(made, lane, y, wide, frames, absent)
        axes = made.axes[-1]
        axes.tick_params(labelbottom=True, bottom=True)
        axes.set_xlabel("frame", labelpad=1)
    return made


def _lane(
    made: Figure, lane: Lane, top: float, wide: float, frames: int, absent: Sequence[tuple[int, int]]
) -> None:
    axes = paper.axes_at(made, _LEFT, top, wide, _LANE)
    known = lane.overlaps[np.isfinite(lane.overlaps)]
    mean = f"   mean overlap {known.mean():.2f}" if known.size else ""
    name = paper.fitted(lane.name, wide - paper.inches(mean, paper.SMALL), paper.SMALL)
    paper.write(made, name + mean, _LEFT, top - 0.025, size=paper.SMALL, va="bottom")
    for begin, end in absent:
        axes.axvspan(begin, end, color=paper.ABSENT, linewidth=0, gid="absent")
    edges = np.linspace(0, frames, len(lane.overlaps) + 1)
    shade = paper.color(lane.tracker)
    axes.stairs(
        np.nan_to_num(lane.overlaps), edges, fill=True, color=shade, alpha=0.75, linewidth=0,
        gid=f"overlap-{lane.tracker}",
    )  # fmt: skip
    middles = (edges[:-1] + edges[1:]) / 2
    axes.plot(middles, lane.scores, color=paper.INK, linewidth=0.7, gid=f"score-{lane.tracker}")
    axes.set_xlim(0, frames)
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.5, 1])
    axes.tick_params(labelbottom=False, bottom=False)


def spans(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Begin and end (exclusive) of each run of true in (N,) flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def downsampled(values: Floats, most: int) -> Floats:
    """(N,) values as at most ``most`` means of neighbours, NaN left out; all of them where they are few."""
    if len(values) <= most:
        return values
    edges = np.linspace(0, len(values), most + 1).round().astype(int)
    known = np.isfinite(values)
    total = np.add.reduceat(np.where(known, values, 0.0), edges[:-1])
    count = np.add.reduceat(known.astype(np.float64), edges[:-1])
    means: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means


# MERGED plots/timelines.py
# What the sentence did, target by target, sorted: the picture of a language audit. Knows numbers and names.
#
# S bars a panel. Means and intervals come from the caller, who knows how they were made.


ALL_NAMED = 40
"""So many bars have their names beside them; more are thin and nameless."""
_ROW, _PROFILE = 0.135, 2.2
_NAMES, _EDGE = 1.45, 0.12
_HEAD = 0.78
_FOR, _AGAINST = paper.color(2), paper.color(5)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Panel:
    """One comparison.

    Attributes:
        title: what is compared.
        summary: its mean with the interval as text.
        unit: of the bars, below the axis.
        names: of the S bars.
        values_S: the bars; those with NaN are left out.
        interval: low and high end of the interval of the mean, or None where there is none.
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
    """Panels side by side, the largest bar on top; the mean is a line, its interval a band.

    Raises:
        ValueError: no panel, or one without as many names as values or without any finite value.
    """
    if not panels:
        raise ValueError("an audit without a panel has nothing to show")
    sorted_panels = [_sorted(panel) for panel in panels]
    heights = [len(values) * _ROW if names else _PROFILE for names, values in sorted_panels]
    wide = paper.PAGE if len(panels) > 1 else paper.PAGE * 0.62
    room = wide / len(panels)
    with paper.look():
        made = paper.figure(wide, _HEAD + 0.34 + max(heights) + 0.42)
        text = paper.fitted(title, wide - 2 * _EDGE, paper.LARGE, bold=True)
        paper.write(made, text, _EDGE, 0.08, size=paper.LARGE, weight="bold")
        paper.write(made, paper.fitted(verdict, wide - 2 * _EDGE), _EDGE, 0.28)
        for place, (panel, rows, height) in enumerate(zip(panels, sorted_panels, heights, strict=True)):
            left = place * room
            inside = room - 2 * _EDGE
            paper.write(
                made, paper.fitted(panel.title, inside, bold=True), left + _EDGE, _HEAD - 0.2, weight="bold"
            )
            told = paper.fitted(panel.summary, inside, paper.SMALL)
            paper.write(made, told, left + _EDGE, _HEAD - 0.04, size=paper.SMALL, color=paper.FAINT)
            _panel(made, panel, rows, (left, _HEAD + 0.2, room, height))
    return made


def _sorted(panel: Panel) -> tuple[list[str], NDArray[np.float64]]:
    """Names (none where there are too many) and values, the largest first."""
    values = np.asarray(panel.values_S, dtype=np.float64)
    if values.shape != (len(panel.names),) or not np.isfinite(values).any():
        raise ValueError(f"{len(panel.names)} names and values of shape {values.shape}, finite at least one")
    there = [i for i in range(len(values)) if np.isfinite(values[i])]
    order = sorted(there, key=lambda i: (-values[i], panel.names[i]))
    names = [panel.names[i] for i in order] if len(order) <= ALL_NAMED else []
    return names, values[order]


def _panel(
    made: Figure,
    panel: Panel,
    rows: tuple[list[str], NDArray[np.float64]],
    place: tuple[float, float, float, float],
) -> None:
    names, values = rows
    left, top, width, height = place
    margin = _NAMES if names else 0.35
    axes = paper.axes_at(made, left + margin, top, width - margin - _EDGE - 0.05, height)
    places = np.arange(len(values))
    shades = [_FOR if value > 0 else _AGAINST for value in values]
    axes.barh(places, values, height=0.74 if names else 1.0, color=shades, linewidth=0, gid="bars")
    _mean(axes, panel, values)
    axes.axvline(0, color=paper.INK, linewidth=0.7)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlim(*(panel.limits or _limits(values)))
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(panel.unit, labelpad=1)
    for number, name in enumerate(names):
        shown = paper.fitted(name, _NAMES - 0.22, paper.SMALL)
        y = top + _ROW * (number + 0.5)
        x = left + _NAMES - 0.06
        paper.write(made, shown, x, y, size=paper.SMALL, ha="right", va="center_baseline")


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """From the smallest bar to the largest, 0 among them, with a little room."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    room = 0.05 * (high - low) or 1.0
    return (low - room if low < 0 else low), high + room


def _mean(axes: Axes, panel: Panel, values: NDArray[np.float64]) -> None:
    """The mean as a line and its interval as a band behind the bars."""
    if panel.interval is None:
        return
    axes.axvspan(*panel.interval, color=paper.color(0), alpha=0.3, linewidth=0, zorder=0.5, gid="interval")
    axes.axvline(float(values.mean()), color=paper.color(6), linewidth=1.1, linestyle=(0, (4, 1.5)))
