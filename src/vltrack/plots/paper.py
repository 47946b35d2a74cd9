"""Figures for paper: one look, sizes in inches, the same bytes every time. Knows matplotlib; knows no score.

A figure is put together inside ``look()``, so that no machine's own settings or fonts matter, and laid out in
inches from its top left corner, so that nothing overlaps whatever is written. Names are data: they are shown
as they are (no formulas, control characters as escapes) and cut to the room there is.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath

from vltrack.core.errors import UsageError
from vltrack.plots import lettering
from vltrack.plots.lanes import COLOURS

Shade = tuple[float, float, float]

COLUMN = 3.5
"""Inches: one column of a paper with two."""
PAGE = 7.16
"""Inches: the whole width of such a page."""
INK: Shade = (0.1, 0.11, 0.13)
FAINT: Shade = (0.42, 0.45, 0.5)
GRID: Shade = (0.88, 0.89, 0.91)
ABSENT: Shade = (0.87, 0.88, 0.9)
DASHES: tuple[Any, ...] = (
    "-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)),
    (0, (3, 1)), (0, (6, 1.2, 1.2, 1.2, 1.2, 1.2)), (0, (9, 2)),
)  # fmt: skip
"""With the colours, so that lines are told apart in print without colour too."""
SMALL, PLAIN, LARGE = 6.5, 7.5, 8.5
"""Points."""
_LOOK = {
    "font.family": [lettering.FONT],
    "font.size": PLAIN,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "axes.linewidth": 0.6,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "svg.hashsalt": "vltrack",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}
_DPI = 200
_STAMPS: dict[str, dict[str, str | None]] = {
    "png": {"Software": "vltrack"},
    "svg": {"Date": None, "Creator": "vltrack"},
    "pdf": {"CreationDate": None, "Creator": "vltrack", "Producer": "vltrack"},
}
KINDS = tuple(_STAMPS)
"""What a figure can be written as."""


@contextmanager
def look() -> Iterator[None]:
    """Within it figures are made and written alike on every machine."""
    with style.context(["default", _LOOK]):
        yield


def colour(number: int) -> Shade:
    """The colour of tracker ``number`` (from 0) on white; as in ``lanes.COLOURS``, its yellow dark enough."""
    r, g, b = COLOURS[number % len(COLOURS)]
    dim = 0.74 if r + g + b > 500 and b < 100 else 1.0
    return r * dim / 255, g * dim / 255, b * dim / 255


def figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    made = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(made)
    return made


def axes_at(made: Figure, left: float, top: float, width: float, height: float, **more: Any) -> Axes:
    """Axes of so many inches, their top left corner so many inches from the figure's."""
    wide, high = made.get_size_inches()
    place = (left / wide, 1 - (top + height) / high, width / wide, height / high)
    axes = made.add_axes(place, **more)
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.5)
    return axes


def write(made: Figure, text: str, left: float, top: float, *, size: float = PLAIN, **more: Any) -> None:
    """One line of text, its top left corner (or what ``ha`` says) so many inches from the figure's."""
    wide, high = made.get_size_inches()
    more = {"va": "top", "ha": "left"} | more
    made.text(left / wide, 1 - top / high, lettering.drawable(text), fontsize=size, parse_math=False, **more)


@lru_cache(maxsize=4096)
def inches(text: str, size: float = PLAIN, *, bold: bool = False) -> float:
    """Width of one line of text."""
    font = FontProperties(family=lettering.FONT, size=size, weight="bold" if bold else "normal")
    width, _, _ = TextToPath().get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def fitted(text: str, room: float, size: float = PLAIN, *, bold: bool = False) -> str:
    """The text, safe to draw, cut in its middle with an ellipsis where it is wider than ``room`` inches.

    The end stays, because names differ there: ``litetrack-base-tnl2k-1``, ``litetrack-base-tnl2k-2``.
    """
    text = lettering.drawable(text[:400])
    if inches(text, size, bold=bold) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        fits = inches(_cut(text, middle), size, bold=bold) <= room
        low, high = (middle, high) if fits else (low, middle - 1)
    return _cut(text, low)


def _cut(text: str, keep: int) -> str:
    tail = keep // 2
    return text[: keep - tail].rstrip() + "\u2026" + (text[-tail:] if tail else "")


def legend(
    made: Figure,
    rows: Sequence[tuple[int, str, str]],
    left: float,
    top: float,
    width: float,
    *,
    dashed: bool = True,
) -> float:
    """A line a tracker: swatch, number, name; the order is the caller's. Returns its height in inches.

    Args:
        rows: (number of the tracker's colour, what stands before its name, its name).
        dashed: whether the swatch shows the tracker's dashes, as its curve does.
    """
    wide, high = made.get_size_inches()
    numbers = max((inches(number) for _, number, _ in rows), default=0.0)
    name_at = left + 0.34 + (numbers + 0.1 if numbers else 0.0)
    for place, (tracker, number, name) in enumerate(rows):
        y = top + LEGEND_ROW * (place + 0.5)
        line = Line2D(
            [left / wide, (left + 0.26) / wide],
            [1 - y / high] * 2,
            color=colour(tracker),
            linestyle=DASHES[tracker % len(DASHES)] if dashed else "-",
            linewidth=1.6 if dashed else 4,
            solid_capstyle="butt",
        )
        made.add_artist(line)
        if number:
            write(made, number, name_at - 0.1, y, ha="right", va="center_baseline")
        write(made, fitted(name, left + width - name_at), name_at, y, va="center_baseline")
    return LEGEND_ROW * len(rows)


LEGEND_ROW = 0.15
"""Inches."""


def encoded(made: Figure, kind: str) -> bytes:
    """The figure as ``png``, ``svg`` or ``pdf``: the same figure gives the same bytes, no date within.

    Raises:
        UsageError: another kind.
    """
    if kind not in _STAMPS:
        raise UsageError(f"cannot write a figure as {kind!r}.", hint=f"Known: {', '.join(KINDS)}.")
    data = io.BytesIO()
    with look():
        made.savefig(data, format=kind, metadata=_STAMPS[kind], dpi=_DPI)
    return data.getvalue()
