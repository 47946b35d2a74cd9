"""Shapes of a figure as lines of SVG.

Letters are real text in the reader's own font; ``width_of`` measures it in DejaVu Sans, the widest common
one, so that what fits there fits everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from matplotlib.font_manager import FontProperties, findfont, get_font

Point = tuple[float, float]
Family = Literal["sans", "mono"]
Anchor = Literal["start", "middle", "end"]
INK, QUIET = "#1f2933", "#5b6672"
_FONTS = {"sans": "Helvetica, Arial, sans-serif", "mono": "Menlo, Consolas, monospace"}
_MEASURED = {"sans": "DejaVu Sans", "mono": "DejaVu Sans Mono"}


class Rect(NamedTuple):
    """Upper left corner and extent."""

    x: float
    y: float
    w: float
    h: float

    def meets(self, other: Rect, gap: float = 0.0) -> bool:
        """Whether they overlap or come nearer than ``gap``."""
        return (
            self.x < other.x + other.w + gap
            and other.x < self.x + self.w + gap
            and self.y < other.y + other.h + gap
            and other.y < self.y + self.h + gap
        )

    def within(self, other: Rect, gap: float = 0.0) -> bool:
        """Whether all of it lies in another, ``gap`` away from its edge."""
        return (
            self.x >= other.x + gap
            and self.y >= other.y + gap
            and self.x + self.w <= other.x + other.w - gap
            and self.y + self.h <= other.y + other.h - gap
        )


class Canvas:
    """Lines of SVG in the order in which they are drawn."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" aria-label={quoteattr(title)}>',
            f"<title>{escape(title)}</title>",
        ]

    def file(self) -> str:
        """The whole text."""
        return "\n".join([*self._lines, "</svg>", ""])

    def rect(
        self,
        place: Rect,
        *,
        fill: str = "none",
        stroke: str = "none",
        thick: float = 1.2,
        radius: float = 7,
        dash: str = "",
    ) -> None:
        """A rectangle with round corners."""
        self._lines.append(
            f'<rect x="{place.x:g}" y="{place.y:g}" width="{place.w:g}" height="{place.h:g}" rx="{radius:g}" '
            f'fill="{fill}" stroke="{stroke}" stroke-width="{thick:g}"{_dash(dash)}/>'
        )

    def circle(self, center: Point, radius: float, *, fill: str, stroke: str, thick: float = 1.2) -> None:
        """A disc."""
        self._lines.append(
            f'<circle cx="{center[0]:g}" cy="{center[1]:g}" r="{radius:g}" fill="{fill}" stroke="{stroke}" '
            f'stroke-width="{thick:g}"/>'
        )

    def polygon(self, points: Sequence[Point], *, fill: str) -> None:
        """A filled area."""
        places = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._lines.append(f'<polygon points="{places}" fill="{fill}"/>')

    def arrow(self, points: Sequence[Point], *, color: str, dash: str = "") -> None:
        """A line of horizontal and vertical parts, with round corners and a head at its end."""
        (x0, y0), (x1, y1) = points[-2:]
        dx, dy = _sign(x1 - x0), _sign(y1 - y0)
        neck = (x1 - 7 * dx, y1 - 7 * dy)
        way, path = [*points[:-1], neck], f"M{points[0][0]:g} {points[0][1]:g}"
        for before, here, after in zip(way, way[1:], way[2:], strict=False):
            (ax, ay), (bx, by) = _near(here, before), _near(here, after)
            path += f"L{ax:g} {ay:g}Q{here[0]:g} {here[1]:g} {bx:g} {by:g}"
        path += f"L{neck[0]:g} {neck[1]:g}"
        self._lines.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.7"{_dash(dash)}/>')
        wings = [(neck[0] - 4 * dy, neck[1] - 4 * dx), (neck[0] + 4 * dy, neck[1] + 4 * dx)]
        self.polygon([(x1, y1), *wings], fill=color)

    def text(
        self,
        at: Point,
        words: str,
        *,
        size: float = 11,
        family: Family = "sans",
        bold: bool = False,
        fill: str = INK,
        anchor: Anchor = "start",
    ) -> Rect:
        """One line; ``at`` is on its base line. Gives the room it takes at most."""
        weight = ' font-weight="bold"' if bold else ""
        self._lines.append(
            f'<text x="{at[0]:g}" y="{at[1]:g}" font-family="{_FONTS[family]}" font-size="{size:g}" '
            f'fill="{fill}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
        )
        width = width_of(words, size, family, bold)
        left = at[0] - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
        return Rect(left, at[1] - 0.8 * size, width, size)


@cache
def width_of(words: str, size: float, family: Family = "sans", bold: bool = False) -> float:
    """Pixels that a line of text takes in a wide font."""
    face = FontProperties(family=_MEASURED[family], weight="bold" if bold else "normal")
    font = get_font(findfont(face))
    font.set_size(100, 72)
    unhinted = sum(font.load_char(ord(letter)).linearHoriAdvance for letter in words)
    return float(unhinted) / 65536 * size / 100


def _dash(pattern: str) -> str:
    return f' stroke-dasharray="{pattern}"' if pattern else ""


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _near(corner: Point, other: Point, radius: float = 7) -> Point:
    """A point on the way from a corner to another, at most ``radius`` away and not past the middle."""
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    step = min(radius, (abs(dx) + abs(dy)) / 2)
    return corner[0] + step * _sign(dx), corner[1] + step * _sign(dy)
