"""All data sets that are known: which there are, where to get them, how to lay them out. Reads no data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vltrack.core.errors import DataError, did_you_mean
from vltrack.datasets.layout import Layout, Patterns
from vltrack.datasets.layouts import LAYOUTS
from vltrack.datasets.referring import REFERRING_LAYOUTS, ReferringLayout

_STANDS_FOR = {
    "seq": "<sequence>",
    "stem": "<class>",
    "k": "<number>",
    "split": "<split>",
    "part": "<Split>",
    "folder": "<folder>",
}


def videos() -> dict[str, Layout]:
    """The sets of videos by name, in the form that their authors ship (or the one that is used most)."""
    found: dict[str, Layout] = {}
    for layout in LAYOUTS:
        if layout.download is not None:
            found.setdefault(layout.name, layout)
    return found


def layout_of(name: str) -> Layout | ReferringLayout:
    """The set called ``name``. Raises ``DataError`` with the nearest name."""
    known: Mapping[str, Layout | ReferringLayout] = {**videos(), **REFERRING_LAYOUTS}
    plain = name.lower().replace(" ", "-")
    if plain in known:
        return known[plain]
    hint = did_you_mean(plain, known)
    raise DataError(f"no data set is called {name!r}.", hint=hint)


def rows() -> Iterator[dict[str, Any]]:
    """One row a set: what it is and what it has."""
    for layout in videos().values():
        forms = [one.form for one in LAYOUTS if one.name == layout.name and one.form]
        yield {
            "name": layout.name,
            "title": layout.title,
            "what": "videos",
            "splits": [split.name for split in layout.splits],
            "sentence": _sentence(layout),
            "absent": _absence(layout),
            "attributes": len(layout.attributes),
            "size": layout.download.size if layout.download else "",
            "also": forms,
        }
    for phrases in REFERRING_LAYOUTS.values():
        yield {
            "name": phrases.name,
            "title": phrases.title,
            "what": "pictures",
            "splits": list(phrases.splits),
            "sentence": "" if phrases.kind == "coco" else "phrases",
            "absent": "",
            "attributes": 0,
            "size": "",
            "also": [],
        }


def fetch_help(name: str) -> dict[str, Any]:
    """What to get, from where, and how the folders have to look: ``page``, ``parts``, ``size``, ``tree``."""
    layout = layout_of(name)
    if isinstance(layout, ReferringLayout):
        return {
            "name": layout.name,
            "title": layout.title,
            "page": "",
            "parts": list(layout.fetch),
            "size": "",
            "tree": [f"ROOT/{place}" for place in layout.annotations]
            + [f"ROOT/{place}/" for place in layout.pictures if not place.startswith("..")],
        }
    source = layout.download
    return {
        "name": layout.name,
        "title": layout.title,
        "page": source.page if source else "",
        "parts": list(source.parts) if source else [],
        "size": source.size if source else "",
        "tree": list(_tree(layout)),
    }


def write_miniature(name: str, out: Path, seed: int = 0) -> Path:
    """Write a miniature of the set into the empty folder ``out``. Raises ``DataError``, ``ResourceError``."""
    from vltrack.datasets.miniatures import MINIATURES, write_video_miniature
    from vltrack.datasets.miniatures_referring import write_referring_miniature

    if name in MINIATURES:  # "nfs-original" is a form of nfs
        return write_video_miniature(name, out, seed)
    layout = layout_of(name)
    write = write_referring_miniature if isinstance(layout, ReferringLayout) else write_video_miniature
    return write(layout.name, out, seed)


def _tree(layout: Layout) -> Iterator[str]:
    """The files of the layout, a line each, with what they hold."""
    for split in layout.splits:
        if split.listed and not split.indices:
            folder = split.folders[0]
            yield from _line((split.listed[0].replace("{split}", folder),), f"names of split {split.name}")
    folders = [folder for split in layout.splits for folder in split.folders[:1] if folder]
    if folders and any("{split}" in pattern for pattern in layout.truth + layout.frames):
        yield f"<split> is {', '.join(dict.fromkeys(folders))}"
    yield from _line(layout.frames, f"images{_numbers(layout)}")
    yield from _line(layout.truth, _boxes(layout))
    for flags in layout.flags:
        yield from _line(flags.files, f"{flags.absent} where absent" + ("" if flags.needed else ", if there"))
    yield from _line(layout.cover, "0 (absent) to 8 (all seen), a frame")
    yield from _line(layout.sentence, "the sentence")
    yield from _line(layout.attribute_files, f"attributes: {' '.join(layout.attributes)}")


def _line(patterns: Patterns, what: str) -> Iterator[str]:
    if patterns:
        yield f"ROOT/{patterns[0].format_map(_STANDS_FOR)}  {what}"


def _numbers(layout: Layout) -> str:
    return "" if layout.first is None else f", numbered from {layout.first}"


def _boxes(layout: Layout) -> str:
    form = "xmin ymin xmax ymax" if layout.rows.corners else "x,y,w,h"
    return f"boxes: {form} a frame"


def _sentence(layout: Layout) -> str:
    if not layout.sentence:
        return ""
    file = layout.sentence[0].rpartition("/")[2].format_map(_STANDS_FOR)
    how = {"line": "first line of", "text": "all of", "meta": "made from", "sheet": "last row of"}
    return f"{how[layout.words]} {file}"


def _absence(layout: Layout) -> str:
    """What says that the target is absent."""
    signs = [patterns.files[0].rpartition("/")[2].format_map(_STANDS_FOR) for patterns in layout.flags]
    signs += ["cover 0"] if layout.cover else []
    signs += ["lost"] if layout.rows.lost is not None else []
    signs += {"never": [], "zero": ["box 0,0,0,0"], "flat": ["no width or height"]}[layout.empty]
    return " or ".join(signs) or "NaN"
