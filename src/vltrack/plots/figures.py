"""Figures of a report for print: curves, gains, attributes, speed, similarity; and their common style.

A figure is made inside ``figure_style()``, so that no machine's own settings or fonts matter, and laid out in
inches from its top left corner, so that nothing overlaps whatever is written. Names are data: they are shown
literally (no formulas, control characters as escapes) and cut to the room available. The same input gives the
same bytes. T trackers, K thresholds, A attributes, S sequences.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
from matplotlib import rc_context, style
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_pgf import RendererPgf
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike

from vltrack.core.errors import UsageError
from vltrack.core.types import Floats
from vltrack.plots.draw import COLORS
from vltrack.plots.text import FONT, drawable, ellipsized, escaped

Shade = tuple[float, float, float]

COLUMN = 3.5
"""Inches: one column of a paper with two."""
PAGE = 7.16
"""Inches: the whole width of such a page."""
INK: Shade = (0.1, 0.11, 0.13)
FAINT: Shade = (0.42, 0.45, 0.5)
GRID: Shade = (0.88, 0.89, 0.91)
DASHES: tuple[Any, ...] = (
    "-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)),
    (0, (3, 1)), (0, (6, 1.2, 1.2, 1.2, 1.2, 1.2)), (0, (9, 2)),
)  # fmt: skip
"""Line styles of the trackers, so that lines are distinct in print without color too."""
SMALL, PLAIN, LARGE = 6.5, 7.5, 8.5
"""Points."""
LEGEND_ROW = 0.15
"""Inches."""
_LOOK: dict[str, Any] = {
    "font.family": [FONT],
    "font.size": PLAIN,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "axes.linewidth": 0.6,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "xtick.labelsize": SMALL,
    "xtick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "svg.hashsalt": "vltrack",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}
_LOOK |= {key.replace("x", "y", 1): value for key, value in _LOOK.items() if key.startswith("xtick")}
_STAMPS: dict[str, dict[str, str | None]] = {
    "png": {"Software": "vltrack"},
    "svg": {"Date": None, "Creator": "vltrack"},
    "pdf": {"CreationDate": None, "Creator": "vltrack", "Producer": "vltrack"},
}
"""File formats of a figure, with metadata that has no date."""


@contextmanager
def figure_style() -> Iterator[None]:
    """Context in which figures are made and written alike on every machine."""
    with style.context(["default", _LOOK]):
        yield


def tracker_color(number: int) -> Shade:
    """The color of tracker ``number`` (from 0) on white: as in ``draw.COLORS``, with a darker yellow."""
    r, g, b = COLORS[number % len(COLORS)]
    dim = 0.74 if r + g + b > 500 and b < 100 else 1.0
    return r * dim / 255, g * dim / 255, b * dim / 255


def line_style(number: int, width: float) -> dict[str, Any]:
    """Style of the line of tracker ``number``, as matplotlib takes it."""
    return {"color": tracker_color(number), "linestyle": DASHES[number % len(DASHES)], "linewidth": width}


def figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    return Figure(figsize=(width, height), dpi=200, facecolor="white")


def axes_at(made: Figure, left: float, top: float, width: float, height: float, **more: Any) -> Axes:
    """Axes of this size in inches, their top left corner ``left`` and ``top`` inches from the figure's."""
    wide, high = made.get_size_inches()
    place = (left / wide, 1 - (top + height) / high, width / wide, height / high)
    axes = made.add_axes(place, **more)
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.5)
    return axes


def write(
    made: Figure,
    text: str,
    left: float,
    top: float,
    *,
    room: float | None = None,
    size: float = PLAIN,
    bold: bool = False,
    **more: Any,
) -> None:
    """One line of text, its top left corner (see ``ha``, ``va``) so many inches from the figure's.

    With ``room`` it is cut to so many inches, see ``fitted``.
    """
    wide, high = made.get_size_inches()
    text = drawable(text) if room is None else fitted(text, room, size, bold=bold)
    look = {"va": "top", "ha": "left", "weight": "bold" if bold else "normal"} | more
    made.text(left / wide, 1 - top / high, text, fontsize=size, parse_math=False, **look)


@lru_cache(maxsize=4096)
def inches(text: str, size: float = PLAIN, *, bold: bool = False) -> float:
    """Width of one line of text."""
    font = FontProperties(family=FONT, size=size, weight="bold" if bold else "normal")
    width, _, _ = TextToPath().get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def fitted(text: str, room: float, size: float = PLAIN, *, bold: bool = False) -> str:
    """The text, safe to draw, with an ellipsis in its middle where it is wider than ``room`` inches.

    The end is kept, because names differ there: ``litetrack-base-tnl2k-1``, ``litetrack-base-tnl2k-2``.
    """
    return ellipsized(drawable(text[:400]), room, lambda part: inches(part, size, bold=bold), _cut_middle)


def _cut_middle(text: str, keep: int) -> str:
    tail = keep // 2
    return text[: keep - tail].rstrip() + "\u2026" + (text[-tail:] if tail else "")


def titled_figure(width: float, height: float, title: str, note: str, left: float, room: float) -> Figure:
    """A figure with its title, and a note below it fitted to ``room`` inches."""
    made = figure(width, height)
    write(made, title, left, 0.05, size=LARGE, bold=True)
    write(made, note, left, 0.22, room=room, size=SMALL, color=FAINT)
    return made


def legend(
    made: Figure, rows: Sequence[tuple[int, str, str]], left: float, top: float, width: float, *, dashed: bool = True
) -> float:
    """One line per tracker: swatch, number, name. Returns its height in inches.

    Args:
        rows: (number of the tracker's color, number before its name, its name), in order.
        dashed: whether the swatch has the tracker's line style, as its curve does.
    """
    wide, high = made.get_size_inches()
    numbers = max((inches(number) for _, number, _ in rows), default=0.0)
    name_at = left + 0.34 + (numbers + 0.1 if numbers else 0.0)
    for place, (tracker, number, name) in enumerate(rows):
        y = top + LEGEND_ROW * (place + 0.5)
        look = line_style(tracker, 1.6) if dashed else {"color": tracker_color(tracker), "linewidth": 4}
        ends = [left / wide, (left + 0.26) / wide], [1 - y / high] * 2
        made.add_artist(Line2D(*ends, solid_capstyle="butt", **look))
        if number:
            write(made, number, name_at - 0.1, y, ha="right", va="center_baseline")
        write(made, name, name_at, y, room=left + width - name_at, va="center_baseline")
    return LEGEND_ROW * len(rows)


def chart(
    title: str, note: str, high: float, rows: Sequence[tuple[int, str, str]], *, dashed: bool = True, below: str = ""
) -> Axes:
    """Axes of this height in a figure of one column, with a title, and a legend and a faint line of text below."""
    legend_at = 0.42 + high + 0.45
    height = legend_at + LEGEND_ROW * (len(rows) + bool(below)) + 0.08
    made = titled_figure(COLUMN, height, title, note, 0.45, COLUMN - 0.55)
    axes = axes_at(made, 0.45, 0.42, COLUMN - 0.6, high)
    y = legend_at + legend(made, rows, 0.45, legend_at, COLUMN - 0.55, dashed=dashed) + LEGEND_ROW / 2
    write(made, below, 0.45, y, size=SMALL, color=FAINT, va="center_baseline")
    return axes


def encoded(made: Figure, kind: str) -> bytes:
    """The figure as ``png``, ``svg``, ``pdf`` or ``pgf``: the same figure gives the same bytes, without a date.

    Raises:
        UsageError: another kind.
    """
    if kind == "pgf":
        return _pgf(made)
    if kind not in _STAMPS:
        raise UsageError(f"Cannot write a figure as {kind!r}.", hint=f"Known: {', '.join(_STAMPS)}, pgf.")
    data = io.BytesIO()
    with figure_style():
        made.savefig(data, format=kind, metadata=_STAMPS[kind])
    return data.getvalue()


class _PgfRenderer(RendererPgf):
    """Measures text with the package's font, where matplotlib starts LaTeX; LaTeX shows every name literally."""

    def get_text_width_height_descent(self, s: str, prop: FontProperties, ismath: Any) -> tuple[float, float, float]:
        width, height, descent = RendererBase.get_text_width_height_descent(self, s, prop, False)
        return width, height, descent

    def draw_text(self, gc: Any, x: float, y: float, s: str, *more: Any, **named: Any) -> None:
        draw: Any = super().draw_text  # matplotlib has no types for it
        draw(gc, x, y, escaped(s), *more, **named)


def _pgf(made: Figure) -> bytes:
    """LaTeX commands that draw the figure, its text in the font of the document that reads them."""
    wide, high = made.get_size_inches()
    text = io.StringIO()
    text.write("% \\input this file; needs \\usepackage{pgf}\n\\begingroup%\n\\makeatletter%\n\\begin{pgfpicture}%\n")
    text.write(rf"\pgfpathrectangle{{\pgfpointorigin}}{{\pgfqpoint{{{wide:f}in}}{{{high:f}in}}}}" + "%\n")
    text.write("\\pgfusepath{use as bounding box, clip}%\n")
    with figure_style(), rc_context({"pgf.rcfonts": False}):
        renderer: Any = _PgfRenderer
        made.draw(renderer(made, text))
    text.write("\\end{pgfpicture}%\n\\makeatother%\n\\endgroup%\n")
    return text.getvalue().encode()


# -- curves -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CurveKind:
    """A kind of curve: name of its file, keys of its curve and its number in a score, title and axes."""

    key: str
    curve: str
    number: str
    title: str
    across: str
    up: str


_ERROR = "center error threshold"
_WITHIN = "share of frames within it"
CURVE_KINDS = (
    CurveKind("success", "success", "auc", "Success", "overlap threshold", "share of frames above it"),
    CurveKind("precision", "precision", "precision", "Precision", f"{_ERROR} [px]", _WITHIN),
    CurveKind(
        "norm-precision", "norm_precision", "norm_precision", "Normalized precision",
        f"{_ERROR} [target sizes]", _WITHIN,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One tracker's curve: (K,) shares at (K,) thresholds, and the number (0..100) in the legend."""

    tracker: int
    name: str
    thresholds: Floats
    shares: Floats
    number: float


def curve_figure(kind: CurveKind, lines: Sequence[Curve], note: str, upper_bound: float | None) -> Figure:
    """Curves of all trackers, and a legend below them with the best number first.

    Args:
        kind: one of ``CURVE_KINDS``.
        lines: one per tracker.
        note: rule, data and number of sequences; goes under the title.
        upper_bound: the number that a perfect tracker gets under this protocol; None if unknown.
    """
    ordered = sorted(lines, key=lambda line: (-line.number, line.tracker))
    bound = "" if upper_bound is None else f"thin line: a perfect tracker gets {upper_bound:.2f} under this protocol"
    rows = [(line.tracker, f"{line.number:.2f}", line.name) for line in ordered]
    with figure_style():
        axes = chart(kind.title, note, 2.15, rows, below=bound)
        axes.set(xlim=(0, max((float(line.thresholds[-1]) for line in ordered), default=1.0)), ylim=(0, 1))
        axes.set_xlabel(kind.across, labelpad=2)
        axes.set_ylabel(kind.up, labelpad=3)
        if upper_bound is not None:
            level = _level(kind, ordered, upper_bound)
            axes.axhline(level, color=FAINT, linewidth=0.7, gid="upper-bound")
        for line in reversed(ordered):  # the best is drawn last, on top
            look = line_style(line.tracker, 1.4)
            axes.plot(line.thresholds, line.shares, gid=f"curve-{line.tracker}", **look)
    return cast(Figure, axes.get_figure())


def _level(kind: CurveKind, lines: Sequence[Curve], upper_bound: float) -> float:
    """The share that a perfect tracker's curve has at its thresholds.

    The area under a success curve counts the threshold 1 too, which no overlap is above: with K thresholds a
    perfect tracker has K / (K - 1) times as much below it as the area says.
    """
    share = upper_bound / 100
    if kind.key == "success" and lines and lines[0].thresholds[-1] == 1:
        count = len(lines[0].thresholds)
        share *= count / (count - 1)
    return min(share, 1.0)


# -- attributes ---------------------------------------------------------------------------------------

FEWEST = 3
"""Attributes: fewer do not span an area."""
_SIDE = 2.5


def radar_figure(
    attributes: Sequence[tuple[str, int]], names: Sequence[tuple[int, str]], scores_TA: ArrayLike, title: str, note: str
) -> Figure:
    """Scores by attribute as a radar: one closed line per tracker; all axes run from 0 to the same number.

    Args:
        attributes: (short name, number of sequences that have it), in the data set's own order.
        names: (number of the color, name) of each tracker.
        scores_TA: (T, A) in points, 0 to 100; NaN leaves a gap.
        title: the measure.
        note: rule and data.

    Raises:
        ValueError: fewer than ``FEWEST`` attributes, or shapes that differ.
    """
    scores = np.asarray(scores_TA, dtype=np.float64)
    if len(attributes) < FEWEST or scores.shape != (len(names), len(attributes)):
        raise ValueError(f"{len(names)} trackers and {len(attributes)} attributes, got {scores.shape}")
    finite = scores[np.isfinite(scores)]
    most = max(10.0, float(np.ceil(finite.max() / 10) * 10)) if finite.size else 100.0
    angles = 2 * np.pi * np.arange(len(attributes)) / len(attributes)
    legend_at = 0.42 + _SIDE + 0.62
    with figure_style():
        height = legend_at + LEGEND_ROW * len(names) + 0.08
        made = titled_figure(COLUMN, height, title, note, 0.12, COLUMN - 0.24)
        axes: Any = axes_at(made, (COLUMN - _SIDE) / 2, 0.72, _SIDE, _SIDE, projection="polar")
        axes.set_theta_zero_location("N")
        axes.set_theta_direction(-1)
        axes.set(ylim=(0, most), yticks=np.linspace(0, most, 5)[1:])
        axes.set_xticks(angles, [""] * len(angles))
        axes.set_rlabel_position(np.degrees(angles[1]) / 2)
        axes.tick_params(axis="y", labelsize=SMALL - 1)
        axes.spines["polar"].set_color(GRID)
        for angle, (name, count) in zip(angles, attributes, strict=True):
            axes.text(
                angle, most * 1.14, f"{drawable(name)[:10]}\n({count})",
                ha="center", va="center", fontsize=SMALL, linespacing=1.0,
            )  # fmt: skip
        for (tracker, _), row in zip(names, scores, strict=True):
            closed = np.append(angles, angles[0]), np.append(row, row[0])
            axes.plot(*closed, gid=f"radar-{tracker}", **line_style(tracker, 1.3))
        legend(made, [(tracker, "", name) for tracker, name in names], 0.45, legend_at, 2.95)
    return made


# -- gains --------------------------------------------------------------------------------------------

ALL_NAMED = 30
"""Sequences that are all named; of more, the worst and the best are."""
_WORST, _BEST = 16, 8
_ROW, _NAMES, _WIDTH = 0.135, 1.75, 5.2


def gain_figure(
    a: tuple[int, str], b: tuple[int, str], names: Sequence[str], gains_S: ArrayLike, title: str, note: str
) -> Figure:
    """Gain of tracker A over B by sequence: bars of A minus B, worst first.

    Args:
        a, b: color number and name of each tracker; a bar has the color of the better one.
        names: of the sequences.
        gains_S: (S,) A minus B, in points; none missing.
        title: the mean with its interval, for example ``+1.87 [+0.95, +2.80] over 280 sequences``.
        note: measure, rule and data.

    Raises:
        ValueError: not one gain per name, or none at all.
    """
    gains = np.asarray(gains_S, dtype=np.float64)
    if gains.shape != (len(names),) or not len(names):
        raise ValueError(f"{len(names)} names need as many gains, got shape {gains.shape}")
    order = sorted(range(len(names)), key=lambda s: (gains[s], names[s]))
    if len(order) <= ALL_NAMED:
        parts, profile, gap = [("", order)], 0.0, 0.02
    else:
        parts = [(f"the {_WORST} worst", order[:_WORST]), (f"the {_BEST} best", order[-_BEST:])]
        profile, gap = 1.35, 0.28
    rows = sum(len(part) for _, part in parts)
    total = 0.62 + profile + rows * _ROW + gap * len(parts) + 0.36
    colors = (tracker_color(a[0]), tracker_color(b[0]))
    with figure_style():
        made = figure(_WIDTH, total)
        _head(made, a, b, title, note)
        top = 0.62
        if profile:
            _profile(made, gains[order], top, profile - 0.3, colors)
            top += profile
        for head, part in parts:
            top += gap
            write(made, head, _NAMES, top - 0.04, size=SMALL, color=FAINT, va="bottom")
            axes = _bars(made, [(names[s], gains[s]) for s in part], top, _limits(gains), colors)
            top += len(part) * _ROW
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("points", labelpad=1)
    return made


def _head(made: Figure, a: tuple[int, str], b: tuple[int, str], title: str, note: str) -> None:
    """Both names, the mean, and the note."""
    room, x = (_WIDTH - 0.25) / 2 - 0.2, 0.12
    for name, ink in ((a[1], tracker_color(a[0])), ("\u2212", INK), (b[1], tracker_color(b[0]))):
        text = fitted(name, room, LARGE, bold=True)
        write(made, text, x, 0.06, size=LARGE, bold=True, color=ink)
        x += inches(text, LARGE, bold=True) + 0.06
    write(made, title, 0.12, 0.24, room=_WIDTH - 0.24)
    write(made, note, 0.12, 0.4, room=_WIDTH - 0.24, size=SMALL, color=FAINT)


def _profile(made: Figure, gains: Floats, top: float, height: float, colors: tuple[Shade, Shade]) -> None:
    """All sequences as one row of thin bars, sorted."""
    axes = axes_at(made, 0.5, top, _WIDTH - 0.65, height)
    steps = np.arange(len(gains) + 1)
    for sign, shade in zip((1, -1), colors, strict=True):
        part = np.where(np.sign(gains) == sign, gains, 0)
        axes.stairs(part, steps, fill=True, color=shade, linewidth=0, gid="profile")
    axes.axhline(0, color=INK, linewidth=0.6)
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
    rows: Sequence[tuple[str, float]],
    top: float,
    limits: tuple[float, float],
    colors: tuple[Shade, Shade],
) -> Axes:
    """One bar per sequence, its name before it, its number at its end."""
    axes = axes_at(made, _NAMES, top, _WIDTH - _NAMES - 0.15, len(rows) * _ROW)
    values = [value for _, value in rows]
    shades = [colors[0] if value > 0 else colors[1] for value in values]
    axes.barh(np.arange(len(rows)), values, height=0.72, color=shades, gid="bars")
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.set(xlim=limits, ylim=(len(rows) - 0.5, -0.5), yticks=[])
    axes.tick_params(labelbottom=False)
    for number, (name, value) in enumerate(rows):
        y = top + _ROW * (number + 0.5)
        write(made, name, _NAMES - 0.08, y, room=_NAMES - 0.2, size=SMALL, ha="right", va="center_baseline")
        shift, side = (3, "left") if value >= 0 else (-3, "right")
        axes.annotate(
            f"{value:+.1f}".replace("-", "\u2212"), (value, number), (shift, 0), textcoords="offset points",
            ha=side, va="center_baseline", fontsize=SMALL - 0.5, color=FAINT,
        )  # fmt: skip
    return axes


# -- speed and similarity -----------------------------------------------------------------------------

_SHADES = LinearSegmentedColormap.from_list("overlap", [(0.97, 0.975, 0.98), (0.45, 0.62, 0.76), (0.05, 0.25, 0.42)])


@dataclass(frozen=True, slots=True)
class SpeedPoint:
    """One tracker: frames per second, and its score in points."""

    tracker: int
    name: str
    fps: float
    score: float


def speed_figure(points: Sequence[SpeedPoint], measure: str, note: str) -> Figure:
    """Frames per second against the score; the names are in a legend below, best first.

    Raises:
        ValueError: no point, or a speed that is not above 0.
    """
    if not points or not all(np.isfinite(p.fps) and p.fps > 0 for p in points):
        raise ValueError("Every tracker of a speed figure needs its frames per second.")
    ordered = sorted(points, key=lambda p: (-p.score, p.tracker))
    rows = [(p.tracker, f"{p.score:.2f}", f"{p.fps:.1f}/s  {p.name}") for p in ordered]
    with figure_style():
        axes = chart("Speed and quality", note, 2.0, rows, dashed=False)
        _speeds(axes, min(p.fps for p in points), max(p.fps for p in points))
        scores = [p.score for p in points]
        middle, half = (max(scores) + min(scores)) / 2, max((max(scores) - min(scores)) * 0.65, 2.0)
        axes.set_ylim(middle - half, middle + half)
        axes.set_ylabel(measure, labelpad=3)
        for p in ordered:
            axes.plot(
                [p.fps], [p.score], "o", markersize=7, color=tracker_color(p.tracker),
                markeredgecolor="white", markeredgewidth=0.8, gid=f"point-{p.tracker}",
            )  # fmt: skip
    return cast(Figure, axes.get_figure())


def _speeds(axes: Axes, low: float, high: float) -> None:
    """The axis of speeds: from 0 where they are similar, logarithmic where they are far apart."""
    if high < 4 * low:
        axes.set_xlim(0, 1.15 * high)
        axes.set_xlabel("frames per second", labelpad=2)
        return
    low, high = low / 1.4, high * 1.4
    ticks = [r * 10.0**e for e in range(-3, 6) for r in (1, 1.5, 2, 3, 5, 7) if low <= r * 10.0**e <= high]
    while len(ticks) > 7:
        ticks = ticks[::2]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("frames per second (logarithmic)", labelpad=2)


def similarity_figure(names: Sequence[tuple[int | None, str]], matrix_TT: ArrayLike, note: str) -> Figure:
    """Mean overlap of each pair of trackers as a matrix; rows have a number and the name, columns the number.

    Args:
        names: (number of the color, name); the color is None for the annotation.
        matrix_TT: mean overlap in [0, 1]; NaN is left blank.
        note: which frames count.

    Raises:
        ValueError: shapes that differ.
    """
    matrix = np.asarray(matrix_TT, dtype=np.float64)
    count = len(names)
    if matrix.shape != (count, count):
        raise ValueError(f"{count} names need ({count}, {count}) overlaps, got {matrix.shape}")
    cell, left, top = 0.34, 1.75, 0.62
    width = max(COLUMN, left + count * cell + 0.12)
    with figure_style():
        height = top + count * cell + 0.12
        made = titled_figure(width, height, "Similarity of the boxes", note, 0.12, width - 0.24)
        axes = axes_at(made, left, top, count * cell, count * cell)
        edges = np.arange(len(matrix) + 1) - 0.5
        axes.pcolormesh(edges, edges, np.ma.masked_invalid(matrix), vmin=0, vmax=1, cmap=_SHADES)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set(xticks=[], yticks=[])
        middle: dict[str, Any] = {"ha": "center", "va": "center_baseline"}
        for row, (tracker, name) in enumerate(names):
            y = top + cell * (row + 0.5)
            write(made, name, left - 0.22, y, room=left - 0.45, ha="right", va="center_baseline")
            shade = INK if tracker is None else tracker_color(tracker)
            for place in ((left - 0.1, y), (left + cell * (row + 0.5), top - 0.1)):
                write(made, str(row + 1), *place, color=shade, bold=True, **middle)
        for row, column in np.argwhere(np.isfinite(matrix)):
            value = matrix[row, column]
            ink = "white" if value > 0.55 else INK
            axes.text(column, row, f"{value:.2f}", color=ink, fontsize=SMALL, **middle)
    return made
