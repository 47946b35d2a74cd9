"""Overlap and score over time, a lane a tracker, absent spans shaded. Knows numbers; computes no overlap.

T trackers, K points along time; a point stands for one frame, or for the mean of a few where they are many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vltrack.plots import paper

Floats = NDArray[np.float64]

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
    shade = paper.colour(lane.tracker)
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


def thinned(values: Floats, most: int) -> Floats:
    """(N,) values as at most ``most`` means of neighbours, NaN left out; all of them where they are few."""
    if len(values) <= most:
        return values
    edges = np.linspace(0, len(values), most + 1).round().astype(int)
    known = np.isfinite(values)
    total = np.add.reduceat(np.where(known, values, 0.0), edges[:-1])
    count = np.add.reduceat(known.astype(np.float64), edges[:-1])
    means: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means
