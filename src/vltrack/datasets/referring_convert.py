"""Phrases in pickles, written as lines of JSON: REFER's ``refs(..).p`` and VLTVG's ``.pth``. Runs nothing.

Each line has ``image`` (file name), ``box`` (x, y, w, h in pixels of the picture), ``phrase``, ``split`` and
``reference`` (the same for all phrases of one thing).
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from vltrack.core.errors import DataError, UsageError
from vltrack.core.files import atomic_path
from vltrack.core.torch_archive import (
    DAMAGE,
    STORAGES,
    TENSORS,
    Made,
    Refused,
    Storage,
    TorchArchive,
    open_archive,
    tensor_place,
)
from vltrack.datasets.referring import (
    ReferringLayout,
    annotation_files,
    missing_annotations,
    image_file,
    referring_layout,
)
from vltrack.datasets.referring_json import (
    FourNumbers,
    InvalidValue,
    box_of,
    entries,
    file_name,
    numbers_of,
    read_entries,
    read_instances,
    shown,
    text,
    whole,
)

MAX_BYTES = 256 << 20
_TABLE_BYTES = 16 << 20
_PLAIN = frozenset(("collections.OrderedDict", *STORAGES, *TENSORS))


class Opened:
    """An open file of plain data: ``content``, with a ``Made`` for each tensor."""

    def __init__(self, archive: TorchArchive) -> None:
        self.content = archive.content
        self._archive = archive
        self._read: dict[Storage, NDArray[Any]] = {}

    def four_numbers(self, value: object) -> object:
        """Return the numbers of a tensor of four as a list, anything else unchanged.

        Raises:
            ValueError: a tensor of another shape or without its bytes.
        """
        if not isinstance(value, Made):
            return value
        place = tensor_place(value) if value.path in TENSORS else None
        if place is None or place.shape != (4,) or place.storage.kind == "bfloat16":
            raise ValueError("not a tensor of four numbers")
        if place.storage not in self._read:
            try:
                raw = self._archive.read(place.storage)
            except (OSError, *DAMAGE) as error:  # such as the archive's entry
                raise ValueError(f"a tensor whose bytes are damaged ({str(error)[:80]})") from None
            self._read[place.storage] = raw.view(place.storage.kind)
        numbers, (step,) = self._read[place.storage], place.stride
        return [float(numbers[place.offset + k * step]) for k in range(4)]


@contextmanager
def open_plain(path: Path, *, max_bytes: int = MAX_BYTES) -> Iterator[Opened]:
    """Open a file of ``pickle`` or ``torch.save`` that holds plain data. Nothing that it names is run.

    Raises:
        DataError: no such file, larger than ``max_bytes``, damaged, over a limit, or one that names more than
            plain data and tensors are written with.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise DataError(f"{path} has {size} bytes, more than the limit of {max_bytes}.")
        with open_archive(path, pickle_bytes=max_bytes, table_bytes=_TABLE_BYTES) as archive:
            _refuse_names(path, archive.names)
            yield Opened(archive)
    except Refused as error:
        _refuse_names(path, error.names)
        raise DataError(f"Cannot read {path}: it {error}.", hint="Fetch it again.") from None
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.", hint="Check the path.") from error


def _refuse_names(path: Path, names: frozenset[str]) -> None:
    more = sorted(names - _PLAIN)
    if more:
        raise DataError(
            f"{path} holds more than plain data and could run code if it were unpickled "
            f"(it names {more[0][:80]}).",
            hint="Nothing of it was run. Fetch the file from its authors.",
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
    with open_plain(file) as opened:
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
                    raise InvalidValue(f"{shown(entry)} where (name, ..., box, phrase, ...) should be")
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
                raise InvalidValue(f"{shown(entry)} where a dictionary should be")
            wanted.add(whole(entry, "ann_id"))
        except InvalidValue as error:
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
                raise InvalidValue(f"its thing {number} is not in {instances.name}")
            name, box = found[number]
            _finite({"box": box})
            for sentence in entries(entry, "sentences"):
                words = text(sentence, "sent" if "sent" in sentence else "raw")
                yield name, box, words, split, str(whole(entry, "ref_id"))
        except InvalidValue as error:
            raise _fault(file, count, error) from None


def _finite(row: dict[str, Any]) -> FourNumbers:
    box = box_of(row, "box")
    if not all(map(math.isfinite, box)):
        raise InvalidValue("a box with a number that is not finite")
    return box


def _fault(file: Path, count: int, error: Exception) -> DataError:
    return DataError(f"{file}, entry {count}: {str(error)[:160]}.", hint="Fetch the file again.")


# MERGED datasets/referring_convert.py
# COCO's annotations as a folder of training pictures (docs/train.md). Knows that index; copies nothing.


NAME = "coco2017"


def export_pictures(root: Path, out: Path, *, split: str = "train", min_side: float = 50.0) -> int:
    """Write ``out``/index.jsonl for the pictures of COCO 2017 in ``root``; returns how many it lists.

    Things with width and height above ``min_side`` pixels, no crowds; with their outline, the parts of a
    thing joined. Files are named relative to ``out``, which must be there; the license is what COCO
    says of each.

    Raises:
        DataError: no annotations of this split, or what is wrong in them.
        ResourceError: ``out`` cannot be written.
    """
    layout = referring_layout(NAME)
    files = annotation_files(layout, root)
    if split not in files:
        raise missing_annotations(layout, root, split)
    index = _Index(min_side)
    readers = {"images": index.picture, "annotations": index.thing, "categories": index.category}
    read_entries(files[split], readers | {"licenses": index.license}, may_lack={"licenses"})
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
        self._licenses: dict[int, str] = {}
        # Number of the category, box and outline as text: numbers would take four times the memory.
        self.things: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)

    def license(self, entry: dict[str, Any]) -> None:
        self._licenses[whole(entry, "id")] = text(entry, "name")

    def category(self, entry: dict[str, Any]) -> None:
        self._names[whole(entry, "id")] = text(entry, "name")

    def picture(self, entry: dict[str, Any]) -> None:
        license = whole(entry, "license") if "license" in entry else -1
        size = whole(entry, "width"), whole(entry, "height")
        self._pictures[whole(entry, "id")] = (file_name(text(entry, "file_name")), *size, license)

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
        name, width, height, license = self._pictures[number]
        named = [
            {"c": self._names[category]} | json.loads(made)
            for category, made in self.things[number]
            if category in self._names
        ]
        outlined = [thing for thing in named if "p" in thing]
        boxed = [thing for thing in named if "p" not in thing]
        said = {"src": NAME, "lic": self._licenses.get(license, "")}
        return {"f": name, "w": width, "h": height, "inst": outlined, "box": boxed} | said


def _joined(parts: list[list[float]]) -> list[float]:
    """One outline x0, y0, x1, y1, ...: each part closed, then back to the first point of all."""
    if any(len(part) < 6 or len(part) % 2 for part in parts):
        raise InvalidValue("segmentation is no list of polygons")
    if len(parts) == 1:
        return parts[0]
    return [side for part in parts for side in (*part, *part[:2])] + parts[0][:2]


def _relative(layout: ReferringLayout, root: Path, split: str, name: str, out: Path) -> str:
    file = image_file(layout, root, split, name)
    return Path(os.path.relpath(file.resolve(), out.resolve())).as_posix()
