"""How much better one tracker is than another, sequence by sequence, worst first. Knows differences only.

S sequences. The interval of the mean comes from the caller, who knows how it was made.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from vltrack.plots import paper

Floats = NDArray[np.float64]

ALL_NAMED = 30
"""So many sequences are all named; of more, the worst and the best are."""
_WORST, _BEST = 16, 8
_ROW = 0.135
_NAMES = 1.75
_WIDTH = 5.2


def gain_figure(
    a: tuple[int, str], b: tuple[int, str], names: Sequence[str], gains_S: ArrayLike, title: str, note: str
) -> Figure:
    """Bars of A minus B, worst first.

    Args:
        a, b: colour number and name of each tracker; a bar has the colour of the tracker that it speaks for.
        names: of the sequences.
        gains_S: (S,) A minus B, in points; none missing.
        title: the mean with its interval, for example ``+1.87 [+0.95, +2.80] over 280 sequences``.
        note: what the numbers are: measure, rule, data.

    Raises:
        ValueError: not one gain a name, or none at all.
    """
    gains = np.asarray(gains_S, dtype=np.float64)
    if gains.shape != (len(names),) or not len(names):
        raise ValueError(f"{len(names)} names need as many gains, got shape {gains.shape}")
    order = sorted(range(len(names)), key=lambda s: (gains[s], names[s]))
    every = len(order) <= ALL_NAMED
    parts = [order] if every else [order[:_WORST], order[-_BEST:]]
    profile = 0.0 if every else 1.35
    rows = sum(len(part) for part in parts)
    gap = 0.02 if every else 0.28
    total = 0.62 + profile + rows * _ROW + gap * len(parts) + 0.36
    colours = (paper.colour(a[0]), paper.colour(b[0]))
    with paper.look():
        made = paper.figure(_WIDTH, total)
        _head(made, a, b, title, note)
        top = 0.62
        if profile:
            _profile(made, gains[order], top, profile - 0.3, colours)
            top += profile
        heads = [""] * len(parts) if every else [f"the {_WORST} worst", f"the {_BEST} best"]
        for part, head in zip(parts, heads, strict=True):
            top += gap
            paper.write(made, head, _NAMES, top - 0.04, size=paper.SMALL, color=paper.FAINT, va="bottom")
            height = len(part) * _ROW
            axes = paper.axes_at(made, _NAMES, top, _WIDTH - _NAMES - 0.15, height)
            _bars(made, axes, [(names[s], gains[s]) for s in part], (_limits(gains), top), colours)
            top += height
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("points", labelpad=1)
    return made


def _head(made: Figure, a: tuple[int, str], b: tuple[int, str], title: str, note: str) -> None:
    """What is compared, the mean, what the numbers are."""
    room = (_WIDTH - 0.25) / 2 - 0.2
    first = paper.fitted(a[1], room, paper.LARGE, bold=True)
    second = paper.fitted(b[1], room, paper.LARGE, bold=True)
    x = 0.12
    for text, ink in ((first, paper.colour(a[0])), ("\u2212", paper.INK), (second, paper.colour(b[0]))):
        paper.write(made, text, x, 0.06, size=paper.LARGE, weight="bold", color=ink)
        x += paper.inches(text, paper.LARGE, bold=True) + 0.06
    room = _WIDTH - 0.24
    paper.write(made, paper.fitted(title, room), 0.12, 0.24)
    paper.write(made, paper.fitted(note, room, paper.SMALL), 0.12, 0.4, size=paper.SMALL, color=paper.FAINT)


def _profile(
    made: Figure, gains: Floats, top: float, height: float, colours: tuple[paper.Shade, paper.Shade]
) -> None:
    """All sequences as one row of thin bars, sorted."""
    axes = paper.axes_at(made, 0.5, top, _WIDTH - 0.65, height)
    steps = np.arange(len(gains) + 1)
    for sign, shade in zip((1, -1), colours, strict=True):
        part = np.where(np.sign(gains) == sign, gains, 0)
        axes.stairs(part, steps, fill=True, color=shade, linewidth=0, gid="profile")
    axes.axhline(0, color=paper.INK, linewidth=0.6)
    axes.set_xlim(0, len(gains))
    better, worse = int((gains > 0).sum()), int((gains < 0).sum())
    equal = len(gains) - better - worse
    axes.set_xlabel(f"all {len(gains)} sequences: {worse} worse, {equal} equal, {better} better", labelpad=2)
    axes.set_ylabel("points", labelpad=1)


def _limits(gains: Floats) -> tuple[float, float]:
    """From the worst to the best, with room for the numbers at the ends of the bars."""
    low, high = min(float(gains.min()), 0.0), max(float(gains.max()), 0.0)
    span = max(high - low, 1.0)
    return low - (0.14 if low < 0 else 0.02) * span, high + (0.14 if high > 0 or low == 0 else 0.02) * span


def _bars(
    made: Figure,
    axes: Axes,
    rows: Sequence[tuple[str, float]],
    frame: tuple[tuple[float, float], float],
    colours: tuple[paper.Shade, paper.Shade],
) -> None:
    """A bar a sequence with its name before it and its number at its end; ``frame`` is (limits, top)."""
    limits, top = frame
    values = np.array([value for _, value in rows])
    shades = [colours[0] if value > 0 else colours[1] for value in values]
    axes.barh(np.arange(len(rows)), values, height=0.72, color=shades, gid="bars")
    axes.axvline(0, color=paper.INK, linewidth=0.6)
    axes.set_xlim(*limits)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    axes.tick_params(labelbottom=False)
    for number, (name, value) in enumerate(rows):
        y = top + _ROW * (number + 0.5)
        paper.write(
            made,
            paper.fitted(name, _NAMES - 0.2, paper.SMALL),
            _NAMES - 0.08, y, size=paper.SMALL, ha="right", va="center_baseline",
        )  # fmt: skip
        axes.annotate(
            f"{value:+.1f}".replace("-", "\u2212"),
            (value, number),
            (3 if value >= 0 else -3, 0),
            textcoords="offset points",
            ha="left" if value >= 0 else "right",
            va="center_baseline",
            fontsize=paper.SMALL - 0.5,
            color=paper.FAINT,
        )
