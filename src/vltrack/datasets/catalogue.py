"""Catalogue of the known data sets: what they have, where to get them, how to arrange their folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vltrack.core.errors import DataError, did_you_mean
from vltrack.datasets.layouts import LAYOUTS, Download, Layout, Patterns
from vltrack.datasets.referring import REFERRING_LAYOUTS, ReferringLayout

_PLACEHOLDERS = {"seq": "<sequence>", "stem": "<class>", "k": "<number>", "folder": "<folder>"}
_PLACEHOLDERS |= {"split": "<split>", "part": "<Split>"}


def videos() -> dict[str, Layout]:
    """Return the video data sets by name, in the form that their authors publish (or the most used one)."""
    found: dict[str, Layout] = {}
    for layout in LAYOUTS:
        if layout.download is not None:
            found.setdefault(layout.name, layout)
    return found


def layout_of(name: str) -> Layout | ReferringLayout:
    """Return the layout of a data set. Raises ``DataError`` with the nearest name."""
    known: Mapping[str, Layout | ReferringLayout] = {**videos(), **REFERRING_LAYOUTS}
    plain = name.lower().replace(" ", "-")
    if plain in known:
        return known[plain]
    raise DataError(f"Unknown data set: {name!r}.", hint=did_you_mean(plain, known))


def rows() -> Iterator[dict[str, Any]]:
    """Yield one row per data set: its names, splits, sentences, absence marks and sizes."""
    for layout in videos().values():
        yield {
            "name": layout.name,
            "title": layout.title,
            "what": "videos",
            "splits": [split.name for split in layout.splits],
            "sentence": _sentence(layout),
            "absent": _absence(layout),
            "attributes": len(layout.attributes),
            "size": layout.download.size if layout.download else "",
            "also": [one.form for one in LAYOUTS if one.name == layout.name and one.form],
        }
    for referring in REFERRING_LAYOUTS.values():
        yield {
            "name": referring.name,
            "title": referring.title,
            "what": "pictures",
            "splits": list(referring.splits),
            "sentence": "" if referring.format == "coco" else "phrases",
            "absent": "",
            "attributes": 0,
            "size": "",
            "also": [],
        }


def fetch_help(name: str) -> dict[str, Any]:
    """Return where to get a data set and how its folders look: ``page``, ``parts``, ``size``, ``tree``."""
    layout = layout_of(name)
    found = {"name": layout.name, "title": layout.title}
    if isinstance(layout, ReferringLayout):
        places = (*layout.annotations, *(f"{place}/" for place in layout.images if not place.startswith("..")))
        tree = [f"ROOT/{place.format_map(_PLACEHOLDERS)}" for place in places]
        return found | {"page": "", "parts": list(layout.fetch), "size": "", "tree": tree}
    download = layout.download or Download(page="", parts=())
    parts = list(download.parts)
    return found | {"page": download.page, "parts": parts, "size": download.size, "tree": list(_tree(layout))}


def write_miniature(name: str, out: Path, seed: int = 0) -> Path:
    """Write a miniature of the data set into the empty folder ``out``.

    Raises ``DataError`` for an unknown name, ``ResourceError`` if ``out`` is not empty or cannot be written.
    """
    from vltrack.datasets.miniatures import MINIATURES, write_video_miniature
    from vltrack.datasets.miniatures_referring import write_referring_miniature

    if name in MINIATURES:  # "nfs-original" is a form of nfs
        return write_video_miniature(name, out, seed)
    layout = layout_of(name)
    write = write_referring_miniature if isinstance(layout, ReferringLayout) else write_video_miniature
    return write(layout.name, out, seed)


def _tree(layout: Layout) -> Iterator[str]:
    """Yield the files of the layout, one per line, with their content."""
    for split in layout.splits:
        if split.listed and not split.indices:
            listed = split.listed[0].replace("{split}", split.folders[0])
            yield from _line((listed,), f"names of split {split.name}")
    folders = [folder for split in layout.splits for folder in split.folders[:1] if folder]
    if folders and any("{split}" in pattern for pattern in layout.boxes + layout.frames):
        yield f"<split> is {', '.join(dict.fromkeys(folders))}"
    yield from _line(layout.frames, "images" + ("" if layout.first is None else f", numbered from {layout.first}"))
    box = "xmin ymin xmax ymax" if layout.rows.corners else "x,y,w,h"
    yield from _line(layout.boxes, f"boxes: {box} per frame")
    for flags in layout.flags:
        yield from _line(flags, "1 where absent" + ("" if layout.flags_needed else ", if there"))
    yield from _line(layout.cover, "0 (absent) to 8 (completely visible) per frame")
    yield from _line(layout.sentence, "the sentence")
    yield from _line(layout.attribute_files, f"attributes: {' '.join(layout.attributes)}")


def _line(patterns: Patterns, what: str) -> Iterator[str]:
    if patterns:
        yield f"ROOT/{patterns[0].format_map(_PLACEHOLDERS)}  {what}"


def _file_name(patterns: Patterns) -> str:
    return patterns[0].rpartition("/")[2].format_map(_PLACEHOLDERS)


def _sentence(layout: Layout) -> str:
    """Return where the sentence is."""
    how = {"line": "first line of", "text": "all of", "meta": "made from", "sheet": "last row of"}
    return f"{how[layout.sentence_form]} {_file_name(layout.sentence)}" if layout.sentence else ""


def _absence(layout: Layout) -> str:
    """Return what marks the target as absent."""
    signs = [_file_name(flags) for flags in layout.flags]
    signs += ["cover 0"] if layout.cover else []
    signs += ["lost"] if layout.rows.lost is not None else []
    signs += {"nan": [], "zero": ["box 0,0,0,0"], "flat": ["no width or height"]}[layout.absent_box]
    return " or ".join(signs) or "NaN"
