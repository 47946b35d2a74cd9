"""COCO's annotations as a folder of training pictures (docs/train.md). Knows that index; copies nothing."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from vltrack.core.errors import DataError
from vltrack.core.files import atomic_path
from vltrack.datasets.phrases import annotation_files, layout_named, missing_annotations, picture_file
from vltrack.datasets.phrases_json import Wrong, box_of, file_name, numbers_of, read_entries, text, whole
from vltrack.datasets.phrases_layouts import PhraseLayout

NAME = "coco2017"


def export_pictures(root: Path, out: Path, *, split: str = "train", min_side: float = 50.0) -> int:
    """Write ``out``/index.jsonl for the pictures of COCO 2017 in ``root``; returns how many it lists.

    Things with width and height above ``min_side`` pixels, no crowds; with their outline, the parts of a
    thing joined. Files are named relative to ``out``, which must be there; the licence is what COCO
    says of each.

    Raises:
        DataError: no annotations of this split, or what is wrong in them.
        ResourceError: ``out`` cannot be written.
    """
    layout = layout_named(NAME)
    files = annotation_files(layout, root)
    if split not in files:
        raise missing_annotations(layout, root, split)
    index = _Index(min_side)
    readers = {"images": index.picture, "annotations": index.thing, "categories": index.category}
    read_entries(files[split], readers | {"licenses": index.licence}, may_lack={"licenses"})
    listed = 0
    with atomic_path(out / "index.jsonl") as temporary:
        with temporary.open("w", encoding="utf-8") as lines:
            for number in sorted(index.things):
                row = index.row(number)
                if row is not None:
                    row["f"] = _relative(layout, root, split, row["f"], out)
                    lines.write(json.dumps(row, allow_nan=False) + "\n")
                    listed += 1
        if not listed:
            raise DataError(f"{files[split]} has no thing above {min_side:g} pixels a side.")
    return listed


class _Index:
    """What the file says so far, by picture."""

    def __init__(self, min_side: float) -> None:
        self._min_side = min_side
        self._pictures: dict[int, tuple[str, int, int, int]] = {}
        self._names: dict[int, str] = {}
        self._licences: dict[int, str] = {}
        # Number of the category, box and outline as text: numbers would take four times the memory.
        self.things: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)

    def licence(self, entry: dict[str, Any]) -> None:
        self._licences[whole(entry, "id")] = text(entry, "name")

    def category(self, entry: dict[str, Any]) -> None:
        self._names[whole(entry, "id")] = text(entry, "name")

    def picture(self, entry: dict[str, Any]) -> None:
        licence = whole(entry, "license") if "license" in entry else -1
        size = whole(entry, "width"), whole(entry, "height")
        self._pictures[whole(entry, "id")] = (file_name(text(entry, "file_name")), *size, licence)

    def thing(self, entry: dict[str, Any]) -> None:
        box = box_of(entry, "bbox")
        if ("iscrowd" in entry and whole(entry, "iscrowd")) or not self._min_side < min(box[2:]) < 1e9:
            return
        made: dict[str, Any] = {"b": box}
        parts = entry.get("segmentation")
        if isinstance(parts, list) and parts:
            made["p"] = _joined([numbers_of({"segmentation": part}, "segmentation") for part in parts])
        self.things[whole(entry, "image_id")].append((whole(entry, "category_id"), json.dumps(made)))

    def row(self, number: int) -> dict[str, Any] | None:
        """The line of one picture, ``f`` being its bare name; None where the file does not list it."""
        if number not in self._pictures:
            return None
        name, width, height, licence = self._pictures[number]
        named = [
            {"c": self._names[category]} | json.loads(made)
            for category, made in self.things[number]
            if category in self._names
        ]
        outlined = [thing for thing in named if "p" in thing]
        boxed = [thing for thing in named if "p" not in thing]
        said = {"src": NAME, "lic": self._licences.get(licence, "")}
        return {"f": name, "w": width, "h": height, "inst": outlined, "box": boxed} | said


def _joined(parts: list[list[float]]) -> list[float]:
    """One outline x0, y0, x1, y1, ...: each part closed, then back to the first point of all."""
    if any(len(part) < 6 or len(part) % 2 for part in parts):
        raise Wrong("segmentation is no list of polygons")
    if len(parts) == 1:
        return parts[0]
    return [side for part in parts for side in (*part, *part[:2])] + parts[0][:2]


def _relative(layout: PhraseLayout, root: Path, split: str, name: str, out: Path) -> str:
    file = picture_file(layout, root, split, name)
    return Path(os.path.relpath(file.resolve(), out.resolve())).as_posix()
