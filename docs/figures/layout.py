"""Checks that a figure is readable: nothing hides anything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise

from figures.svg import Point, Rect


class LayoutError(ValueError):
    """A text does not fit, or things hide each other."""


def check_places(items: Mapping[str, Rect], words: Sequence[tuple[str, Rect]], tags: set[str], room: Rect) -> None:
    """Items keep apart; texts outside of items keep off all else, but tags may lie on an item's edge.

    Raises:
        LayoutError: two things overlap, or one leaves the room.
    """
    for name, place in [*items.items(), *words]:
        if not place.within(room, gap=10):
            raise LayoutError(f"{name!r} leaves the figure: {place}")
    for (name, place), (other, its) in combinations(items.items(), 2):
        if place.meets(its, gap=4):
            raise LayoutError(f"{name!r} and {other!r} overlap")
    on_items = [(text, item) for text in words if text[0] not in tags for item in items.items()]
    for (name, place), (other, its) in [*combinations(words, 2), *on_items]:
        if place.meets(its):
            raise LayoutError(f"{name!r} and {other!r} overlap")


def check_ways(
    ways: Sequence[tuple[str, str, Sequence[Point]]], items: Mapping[str, Rect], words: Sequence[tuple[str, Rect]]
) -> None:
    """Arrows, from a port to a port by way of points, run through no text and no item but their own two.

    Raises:
        LayoutError: one does.
    """
    for start, end, points in ways:
        own = {port.partition(":")[0].partition(".")[0] for port in (start, end)}
        others = [item for item in items.items() if item[0] not in own]
        for a, b in pairwise(points):
            way = Rect(min(a[0], b[0]), min(a[1], b[1]), abs(a[0] - b[0]), abs(a[1] - b[1]))
            if hit := [name for name, place in [*others, *words] if way.meets(place)]:
                raise LayoutError(f"the arrow {start} > {end} runs through {hit}")
