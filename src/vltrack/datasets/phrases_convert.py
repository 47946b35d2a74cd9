"""Phrases in pickles, written as lines of JSON: REFER's ``refs(..).p`` and VLTVG's ``.pth``. Runs nothing.

Each line has ``image`` (file name), ``box`` (x, y, w, h in pixels of the picture), ``phrase``, ``split`` and
``reference`` (the same for all phrases of one thing). Reading the file is ``phrases_container``'s affair.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vltrack.core.errors import DataError, UsageError
from vltrack.core.files import atomic_path
from vltrack.datasets.phrases_container import Opened, open_plain
from vltrack.datasets.phrases_json import (
    FourNumbers,
    Wrong,
    box_of,
    entries,
    file_name,
    read_instances,
    shown,
    text,
    whole,
)

BoxFormat = Literal["xywh", "xyxy"]
# How VLTVG's lists write boxes, by what their files are called before the split.
BOX_FORMATS: dict[str, BoxFormat] = {
    "unc": "xywh",
    "unc+": "xywh",
    "gref": "xywh",
    "gref_umd": "xywh",
    "referit": "xyxy",
    "flickr": "xyxy",
}
_Row = tuple[str, FourNumbers, str, str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """What was written: the file, how many phrases, and how many of each split."""

    path: Path
    phrases: int
    splits: dict[str, int]


def convert(
    file: Path, out: Path | None = None, *, boxes: BoxFormat | None = None, instances: Path | None = None
) -> Converted:
    """Write the phrases of a pickle to ``out`` (else beside it, ending in ``.jsonl``), whole or not at all.

    ``boxes`` says how a VLTVG list writes them where the file's name does not tell. ``instances`` is the
    ``instances.json`` with the boxes of a ``refs(..).p``, else the one beside it.

    Raises:
        DataError: a file that is damaged, too large or holds more than plain data; an entry at fault.
        UsageError: a VLTVG list whose name does not tell how it writes boxes.
        ResourceError: ``out`` cannot be written.
    """
    opened = open_plain(file)
    content = opened.content
    if not isinstance(content, list) or not content:
        raise DataError(
            f"{file} holds {shown(content)}, not a list of phrases.", hint="Is it the right file?"
        )
    if isinstance(content[0], dict):
        rows = _of_refs(content, file, instances or file.with_name("instances.json"))
    else:
        rows = _of_list(opened, file, boxes)
    target = out if out is not None else file.with_suffix(".jsonl")
    splits: Counter[str] = Counter()
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as lines:
        for image, box, phrase, split, reference in rows:
            row = {"image": image, "box": box, "phrase": phrase, "split": split, "reference": reference}
            lines.write(json.dumps(row, allow_nan=False) + "\n")
            splits[split] += 1
    return Converted(path=target, phrases=splits.total(), splits=dict(splits))


def _of_list(opened: Opened, file: Path, boxes: BoxFormat | None) -> Iterator[_Row]:
    """Five or three values a phrase: name, (mask), box, phrase, (attributes)."""
    kind, _, split = file.stem.rpartition("_")
    form = boxes or BOX_FORMATS.get(kind)
    if form is None:
        raise UsageError(
            f"{file.name} is called like none of {', '.join(f'{each}_SPLIT.pth' for each in BOX_FORMATS)}: "
            "its boxes may be x,y,w,h or two corners.",
            hint="Say which with --boxes xywh or --boxes xyxy.",
        )
    return _list_rows(opened, file, form, split or file.stem)


def _list_rows(opened: Opened, file: Path, form: BoxFormat, split: str) -> Iterator[_Row]:
    things: dict[tuple[str, FourNumbers], str] = {}
    for count, entry in enumerate(opened.content, 1):
        try:
            match entry:
                case (image, _, box, phrase, _) | (image, box, phrase):
                    row = {"image": image, "box": opened.four_numbers(box), "phrase": phrase}
                case _:
                    raise Wrong(f"{shown(entry)} where (name, ..., box, phrase, ...) should be")
            name, words, (a, b, c, d) = file_name(text(row, "image")), text(row, "phrase"), _finite(row)
            placed = (a, b, c, d) if form == "xywh" else (a, b, c - a, d - b)
            yield name, placed, words, split, things.setdefault((name, placed), str(count))
        except ValueError as error:
            raise _fault(file, count, error) from None


def _of_refs(content: list[Any], file: Path, instances: Path) -> Iterator[_Row]:
    """A dictionary a thing: its annotation's number in ``instances.json``, its split, its sentences."""
    wanted: set[int] = set()
    for count, entry in enumerate(content, 1):
        try:
            if not isinstance(entry, dict):
                raise Wrong(f"{shown(entry)} where a dictionary should be")
            wanted.add(whole(entry, "ann_id"))
        except Wrong as error:
            raise _fault(file, count, error) from None
    if not instances.is_file():
        raise DataError(
            f"{file} names things by number; their boxes are in instances.json, which is not at {instances}.",
            hint="Both files come in one archive: put it there, or name it with --instances.",
        )
    return _ref_rows(content, file, instances, wanted)


def _ref_rows(content: list[Any], file: Path, instances: Path, wanted: set[int]) -> Iterator[_Row]:
    found = read_instances(instances, wanted)
    for count, entry in enumerate(content, 1):
        try:
            number, split = whole(entry, "ann_id"), text(entry, "split")
            if number not in found:
                raise Wrong(f"its thing {number} is not in {instances.name}")
            name, box = found[number]
            _finite({"box": box})
            for sentence in entries(entry, "sentences"):
                words = text(sentence, "sent" if "sent" in sentence else "raw")
                yield name, box, words, split, str(whole(entry, "ref_id"))
        except Wrong as error:
            raise _fault(file, count, error) from None


def _finite(row: dict[str, Any]) -> FourNumbers:
    box = box_of(row, "box")
    if not all(map(math.isfinite, box)):
        raise Wrong("a box with a number that is not finite")
    return box


def _fault(file: Path, count: int, error: Exception) -> DataError:
    return DataError(f"{file}, entry {count}: {str(error)[:160]}.", hint="Fetch the file again.")
