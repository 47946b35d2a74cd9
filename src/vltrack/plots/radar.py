"""Scores by attribute as a radar. Knows numbers a tracker and attribute; computes no score.

T trackers, A attributes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from vltrack.plots import lettering, paper

FEWEST = 3
"""Fewer attributes span no area."""
_SIDE = 2.5


def radar_figure(
    attributes: Sequence[tuple[str, int]],
    names: Sequence[tuple[int, str]],
    scores_TA: ArrayLike,
    title: str,
    note: str,
) -> Figure:
    """One closed line a tracker; all axes run from 0 to the same number, so that lengths can be compared.

    Args:
        attributes: (short name, number of sequences that have it), in the data set's own order.
        names: (number of the colour, name) of each tracker.
        scores_TA: (T, A) in points, 0 to 100; NaN leaves a gap.
        title: what is measured.
        note: rule and data.

    Raises:
        ValueError: fewer than ``FEWEST`` attributes, or shapes that disagree.
    """
    scores = np.asarray(scores_TA, dtype=np.float64)
    if len(attributes) < FEWEST or scores.shape != (len(names), len(attributes)):
        raise ValueError(f"{len(names)} trackers and {len(attributes)} attributes, got {scores.shape}")
    finite = scores[np.isfinite(scores)]
    most = max(10.0, float(np.ceil(finite.max() / 10) * 10)) if finite.size else 100.0
    angles = 2 * np.pi * np.arange(len(attributes)) / len(attributes)
    legend_at = 0.42 + _SIDE + 0.62
    with paper.look():
        made = paper.figure(paper.COLUMN, legend_at + paper.LEGEND_ROW * len(names) + 0.08)
        paper.write(made, title, 0.12, 0.05, size=paper.LARGE, weight="bold")
        room = paper.COLUMN - 0.24
        paper.write(
            made, paper.fitted(note, room, paper.SMALL), 0.12, 0.22, size=paper.SMALL, color=paper.FAINT
        )
        axes = paper.axes_at(made, (paper.COLUMN - _SIDE) / 2, 0.72, _SIDE, _SIDE, projection="polar")
        polar = axes
        polar.set_theta_zero_location("N")  # type: ignore[attr-defined]
        polar.set_theta_direction(-1)  # type: ignore[attr-defined]
        axes.set_ylim(0, most)
        axes.set_yticks(np.linspace(0, most, 5)[1:])
        axes.set_xticks(angles, [""] * len(angles))
        polar.set_rlabel_position(np.degrees(angles[1]) / 2)  # type: ignore[attr-defined]
        axes.tick_params(axis="y", labelsize=paper.SMALL - 1)
        axes.spines["polar"].set_color(paper.GRID)
        for angle, (name, count) in zip(angles, attributes, strict=True):
            axes.text(
                angle, most * 1.14, f"{lettering.drawable(name)[:10]}\n({count})",
                ha="center", va="center", fontsize=paper.SMALL, linespacing=1.0,
            )  # fmt: skip
        for (tracker, _), row in zip(names, scores, strict=True):
            axes.plot(
                np.append(angles, angles[0]),
                np.append(row, row[0]),
                color=paper.colour(tracker),
                linestyle=paper.DASHES[tracker % len(paper.DASHES)],
                linewidth=1.3,
                gid=f"radar-{tracker}",
            )
        paper.legend(made, [(tracker, "", name) for tracker, name in names], 0.45, legend_at, 2.95)
    return made
