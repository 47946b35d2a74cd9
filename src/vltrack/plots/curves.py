"""Curves of several trackers over thresholds, one picture a kind. Knows lines and numbers; computes no score.

T trackers, K thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vltrack.plots import paper

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What a curve is of: its key in a score, its title, its axes, and how its number is made."""

    key: str
    title: str
    across: str
    up: str
    number: str
    curve: str


KINDS = (
    Kind(
        key="success",
        title="Success",
        across="overlap threshold",
        up="share of frames above it",
        number="auc",
        curve="success_curve",
    ),
    Kind(
        key="precision",
        title="Precision",
        across="centre error threshold [px]",
        up="share of frames within it",
        number="precision",
        curve="precision_curve",
    ),
    Kind(
        key="norm-precision",
        title="Normalised precision",
        across="centre error threshold [target sizes]",
        up="share of frames within it",
        number="norm_precision",
        curve="norm_precision_curve",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Line:
    """One tracker's curve: (K,) shares at (K,) thresholds, and the number (0..100) in the legend."""

    tracker: int
    name: str
    thresholds: Floats
    shares: Floats
    number: float


def curve_figure(kind: Kind, lines: Sequence[Line], note: str, ceiling: float | None) -> Figure:
    """The curves, best number first in the legend, which stands below them.

    Args:
        kind: one of ``KINDS``.
        lines: one a tracker.
        note: rule, data and number of sequences; stands under the title.
        ceiling: the number that a perfect tracker gets under this rule; None where it is not known.
    """
    ordered = sorted(lines, key=lambda line: (-line.number, line.tracker))
    high, extra = 2.15, 1 if ceiling is not None else 0
    legend_at = 0.42 + high + 0.45
    total = legend_at + paper.LEGEND_ROW * (len(ordered) + extra) + 0.08
    with paper.look():
        made = paper.figure(paper.COLUMN, total)
        paper.write(made, kind.title, 0.45, 0.05, size=paper.LARGE, weight="bold")
        paper.write(
            made,
            paper.fitted(note, paper.COLUMN - 0.55, paper.SMALL),
            0.45, 0.22, size=paper.SMALL, color=paper.FAINT,
        )  # fmt: skip
        axes = paper.axes_at(made, 0.45, 0.42, paper.COLUMN - 0.6, high)
        last = max((float(line.thresholds[-1]) for line in ordered), default=1.0)
        axes.set_xlim(0, last)
        axes.set_ylim(0, 1)
        axes.set_xlabel(kind.across, labelpad=2)
        axes.set_ylabel(kind.up, labelpad=3)
        if ceiling is not None:
            level = _level(kind, ordered, ceiling)
            axes.axhline(level, color=paper.FAINT, linewidth=0.7, gid="ceiling")
        # Best drawn last: it lies on top.
        for line in reversed(ordered):
            axes.plot(
                line.thresholds,
                line.shares,
                color=paper.colour(line.tracker),
                linestyle=paper.DASHES[line.tracker % len(paper.DASHES)],
                linewidth=1.4,
                gid=f"curve-{line.tracker}",
            )
        rows = [(line.tracker, f"{line.number:.2f}", line.name) for line in ordered]
        below = legend_at + paper.legend(made, rows, 0.45, legend_at, paper.COLUMN - 0.55)
        if ceiling is not None:
            text = f"thin line: a perfect tracker gets {ceiling:.2f} under this rule"
            paper.write(
                made, text, 0.45, below + paper.LEGEND_ROW / 2,
                size=paper.SMALL, color=paper.FAINT, va="center_baseline",
            )  # fmt: skip
    return made


def _level(kind: Kind, lines: Sequence[Line], ceiling: float) -> float:
    """The share that a perfect tracker's curve has at its thresholds.

    The area under a success curve counts the threshold 1 too, which no overlap is above: with K thresholds a
    perfect tracker has K / (K - 1) times as much below it as the area says.
    """
    share = ceiling / 100
    if kind.key == "success" and lines and lines[0].thresholds[-1] == 1:
        count = len(lines[0].thresholds)
        share *= count / (count - 1)
    return min(share, 1.0)
