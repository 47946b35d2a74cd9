"""Vocabulary of a tracker's table: parts with their places, stacks of blocks, arrows.

Texts may have holes such as ``{locate/norm#0}``, which ``Recording.say`` fills in. Knows no tracker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from figures.svg import Point

Lane = Literal["read_text", "init_template", "locate", "kept", "forward"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A box for one or several modules.

    Attributes:
        at, size: upper left corner and extent.
        title: for people; may have several lines.
        modules: names in the code; one line lists them and their parameters. None for what has no weights.
        lane: the phase in which they run, which gives the color.
        shows: a line about shapes, with holes; None is what the first module gives.
        idea: switches of the configuration, if this is a claim of the paper.
        tag: where the switches are written: ``above``, ``below``, or nowhere, where a note does.
        called: what stands for the modules' names, where these are many.
    """

    at: Point
    size: Point = (150, 62)
    title: str
    modules: tuple[str, ...]
    lane: Lane = "locate"
    shows: str | None = None
    idea: tuple[str, ...] = ()
    tag: Literal["above", "below", ""] = "above"
    called: str = ""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Consecutive blocks as bars: a bar is as long as its block has tokens, by kind.

    Attributes:
        at, size: of the panel; bars hang from its top.
        modules: a list of modules; ``span``, with holes: the first one and the one after the last.
        tokens: kinds in the order of the sequence, with how many enter (with holes; empty: the rest).
        lane, title, shows, idea, called: as a part's.
        title_below: titles under the bars instead of over them.
        pitch, bar: pixels from bar to bar, and of a bar.
        scale: tokens a pixel.
        marked: the field of the configuration that lists special blocks, or how many of the first are.
        count_from: the number of the first block there and over the bars.
    """

    at: Point
    size: Point
    title: str
    modules: str
    span: tuple[str, str]
    tokens: tuple[tuple[str, str], ...]
    lane: Lane = "locate"
    shows: str = ""
    idea: tuple[str, ...] = ()
    called: str = ""
    title_below: bool = False
    pitch: float = 24
    bar: float = 19
    scale: float = 2.5
    marked: str = ""
    count_from: int = 0


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A small circle around ``at``: a sum or a product, without parameters."""

    at: Point
    sign: str
    idea: tuple[str, ...] = ()
    tag_below: bool = False


@dataclass(frozen=True, kw_only=True)
class Thing:
    """What comes in or goes out, as a small scene; ``words`` are the sentence's."""

    at: Point
    kind: Literal["sentence", "template", "search", "past", "box"]
    title: str
    shows: str = ""
    size: Point = (116, 98)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A dashed line around parts that make one idea together, and the module that holds them."""

    at: Point
    size: Point
    title: str
    module: str
    idea: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Note:
    """Text next to the parts, with holes, in one or more lines; the switches of an ``idea`` over them."""

    at: Point
    words: str
    idea: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """From a port to a port: ``NAME:SIDE``, side l, r, t or b, and pixels away from its middle: ``x:l-20``.

    ``via`` are corners on the way; without, ``bend`` is where the middle part of a Z-shaped way lies.
    ``kind`` of tokens gives the color.
    """

    start: str
    end: str
    kind: str = ""
    bend: float | None = None
    via: tuple[Point, ...] = ()
    label: str = ""
    label_at: Point | None = None
    dashed: bool = False


Item = Part | Stack | Sign | Thing


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A tracker's whole table. Arrows use the names of ``items``; a stack's bars are NAME.0, NAME.1, ..."""

    tracker: str
    says: str
    height: int
    items: dict[str, Item]
    frames: tuple[Frame, ...] = ()
    arrows: tuple[Arrow, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def lanes(self) -> set[str]:
        """The phases that its parts run in."""
        return {item.lane for item in self.items.values() if isinstance(item, Part | Stack)}
