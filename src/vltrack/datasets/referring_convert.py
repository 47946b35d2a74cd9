"""Convert pickles of referring expressions to lines of JSON, and list COCO's images for training.

``convert`` reads REFER's ``refs(..).p`` and VLTVG's ``.pth`` without running anything in them. Each line that
it writes has ``image`` (file name), ``box`` (x, y, w, h in pixels of the image), ``phrase``, ``split`` and
``reference`` (the same for all phrases of one object).
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vltrack.core.archives import Refused
from vltrack.core.errors import DataError, UsageError
from vltrack.core.files import atomic_path
from vltrack.core.torch_archive import (
    DAMAGE,
    STORAGES,
    TENSORS,
    Made,
    Storage,
    TorchArchive,
    open_archive,
    tensor_place,
)
from vltrack.datasets.referring import (
    FourNumbers,
    Instances,
    InvalidValue,
    annotation_files,
    box_of,
    entries,
    file_name,
    image_file,
    missing_annotations,
    numbers_of,
    read_entries,
    read_instances,
    referring_layout,
    shown,
    text,
    whole,
)

MAX_BYTES = 256 << 20
_TABLE_BYTES = 16 << 20
_PLAIN = frozenset(("collections.OrderedDict", *STORAGES, *TENSORS))


@contextmanager
def open_plain(path: Path) -> Iterator[TorchArchive]:
    """Open a file of ``pickle`` or ``torch.save`` of plain data, with a ``Made`` per tensor. Nothing in it is run.

    Raises:
        DataError: no such file, larger than 256 MiB, damaged, over a limit, or one that names more than
            plain data and tensors are written with.
    """
    try:
        with open_archive(path, limit=MAX_BYTES, pickle_bytes=MAX_BYTES, table_bytes=_TABLE_BYTES) as archive:
            _refuse_names(path, archive.names)
            yield archive
    except Refused as error:
        _refuse_names(path, error.names)
        raise DataError(f"Cannot read {path}: it {error}.", hint="Fetch it again.") from None
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.", hint="Check the path.") from error


def _refuse_names(path: Path, names: frozenset[str]) -> None:
    more = sorted(names - _PLAIN)
    if more:
        raise DataError(
            f"{path} holds more than plain data and could run code if it were unpickled (it names {more[0][:80]}).",
            hint="Nothing of it was run. Fetch the file from its authors.",
        )


BoxFormat = Literal["xywh", "xyxy"]
BOX_FORMATS: dict[str, BoxFormat] = {
    "unc": "xywh", "unc+": "xywh", "gref": "xywh", "gref_umd": "xywh", "referit": "xyxy", "flickr": "xyxy",
}  # fmt: skip
"""Box formats of VLTVG's lists, by their file names without the split."""
_Row = tuple[str, FourNumbers, str, str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """Result of a conversion: the file that was written, number of phrases in all and per split."""

    path: Path
    phrases: int
    splits: dict[str, int]


def convert(
    file: Path, out: Path | None = None, *, boxes: BoxFormat | None = None, instances: Path | None = None
) -> Converted:
    """Convert the phrases of a pickle to lines of JSON.

    Args:
        file: ``refs(..).p`` of REFER, or a ``.pth`` of VLTVG.
        out: file to write, atomically; default: ``file`` with the suffix ``.jsonl``.
        boxes: box format of a VLTVG list, where it does not follow from the file name.
        instances: ``instances.json`` with the boxes of a ``refs(..).p``; default: the one next to ``file``.

    Raises:
        DataError: a file that is damaged, too large or holds more than plain data; an invalid entry.
        UsageError: a VLTVG list of unknown box format.
        ResourceError: ``out`` cannot be written.
    """
    with open_plain(file) as opened:
        content = opened.content
        if not isinstance(content, list) or not content:
            raise DataError(f"Not a list of phrases: {file} holds {shown(content)}.", hint="Check the file.")
        if isinstance(content[0], dict):
            rows = _ref_rows(content, file, instances or file.with_name("instances.json"))
        else:
            rows = _list_rows(opened, file, boxes)
        target = out if out is not None else file.with_suffix(".jsonl")
        splits: Counter[str] = Counter()
        with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as lines:
            for image, box, phrase, split, reference in rows:
                row = {"image": image, "box": box, "phrase": phrase, "split": split, "reference": reference}
                lines.write(json.dumps(row, allow_nan=False) + "\n")
                splits[split] += 1
    return Converted(path=target, phrases=splits.total(), splits=dict(splits))


def _list_rows(opened: TorchArchive, file: Path, boxes: BoxFormat | None) -> Iterator[_Row]:
    """Yield the rows of a list of (name, mask, box, phrase, attributes) or (name, box, phrase)."""
    kind, _, split = file.stem.rpartition("_")
    box_format = boxes or BOX_FORMATS.get(kind)
    if box_format is None:
        known = ", ".join(f"{each}_SPLIT.pth" for each in BOX_FORMATS)
        raise UsageError(
            f"Unknown box format of {file.name}: its name is not one of {known}.",
            hint="Give --boxes xywh (corner and size) or --boxes xyxy (two corners).",
        )
    read = cache(opened.read)  # one storage may hold the boxes of many entries
    references: dict[tuple[str, FourNumbers], str] = {}
    for count, entry in enumerate(opened.content, 1):
        try:
            match entry:
                case (image, _, box, phrase, _) | (image, box, phrase):
                    row = {"image": image, "box": _plain_numbers(box, read), "phrase": phrase}
                case _:
                    raise InvalidValue(f"{shown(entry)} where (name, ..., box, phrase, ...) should be")
            name, phrase, (a, b, c, d) = file_name(text(row, "image")), text(row, "phrase"), _finite_box(row)
            placed = (a, b, c, d) if box_format == "xywh" else (a, b, c - a, d - b)
            yield name, placed, phrase, split or file.stem, references.setdefault((name, placed), str(count))
        except ValueError as error:
            raise _entry_error(file, count, error) from None


def _plain_numbers(value: object, read: Callable[[Storage], NDArray[np.uint8]]) -> object:
    """Return the numbers of a tensor of four as a list, anything else unchanged; ``read`` reads a storage.

    Raises:
        ValueError: a tensor of another shape or without its bytes.
    """
    if not isinstance(value, Made):
        return value
    place = tensor_place(value) if value.path in TENSORS else None
    if place is None or place.shape != (4,) or place.storage.kind == "bfloat16":
        raise ValueError("not a tensor of four numbers")
    try:
        numbers = read(place.storage).view(place.storage.kind)
    except (OSError, *DAMAGE) as error:  # such as the archive's entry
        raise ValueError(f"a tensor whose bytes are damaged ({str(error)[:80]})") from None
    (step,) = place.stride
    return [float(numbers[place.offset + k * step]) for k in range(4)]


def _ref_rows(content: list[Any], file: Path, instances: Path) -> Iterator[_Row]:
    """Yield the rows of dictionaries per object: its id in ``instances.json``, its split, its sentences."""
    wanted: set[int] = set()
    for count, entry in enumerate(content, 1):
        try:
            if not isinstance(entry, dict):
                raise InvalidValue(f"{shown(entry)} where a dictionary should be")
            wanted.add(whole(entry, "ann_id"))
        except InvalidValue as error:
            raise _entry_error(file, count, error) from None
    if not instances.is_file():
        raise DataError(
            f"{file} refers to the boxes in instances.json, which is missing: {instances}.",
            hint="Both files come in one archive: put it there, or give --instances.",
        )
    found = read_instances(instances, wanted)
    for count, entry in enumerate(content, 1):
        try:
            number, split = whole(entry, "ann_id"), text(entry, "split")
            if number not in found:
                raise InvalidValue(f"annotation {number} is not in {instances.name}")
            name, box = found[number]
            _finite_box({"box": box})
            for sentence in entries(entry, "sentences"):
                phrase = text(sentence, "sent" if "sent" in sentence else "raw")
                yield name, box, phrase, split, str(whole(entry, "ref_id"))
        except InvalidValue as error:
            raise _entry_error(file, count, error) from None


def _finite_box(row: dict[str, Any]) -> FourNumbers:
    box = box_of(row, "box")
    if not all(map(math.isfinite, box)):
        raise InvalidValue(f"box {box} is not finite")
    return box


def _entry_error(file: Path, count: int, error: Exception) -> DataError:
    return DataError(f"Invalid entry {count} of {file}: {str(error)[:160]}.", hint="Fetch the file again.")


# -- COCO's annotations as the index of training images (docs/train.md) --------------------------------------

NAME = "coco2017"


def export_pictures(root: Path, out: Path, *, split: str = "train", min_side: float = 50.0) -> int:
    """Write ``out``/index.jsonl for the images of COCO 2017 in ``root``; return the number of images in it.

    Objects are larger than ``min_side`` pixels in both directions and not crowds, and have their outlines.
    Files are named relative to ``out``, which must exist; licenses are COCO's.

    Raises:
        DataError: no annotations of this split, or an error in them.
        ResourceError: ``out`` cannot be written.
    """
    layout = referring_layout(NAME)
    files = annotation_files(layout, root)
    if split not in files:
        raise missing_annotations(layout, root, split)
    index = _Index(min_side)
    readers = {"images": index.image, "annotations": index.annotation, "categories": index.category}
    read_entries(files[split], readers | {"licenses": index.license}, may_lack={"licenses"})
    listed = 0
    with atomic_path(out / "index.jsonl") as temporary:
        with temporary.open("w", encoding="utf-8") as lines:
            for row in index.lines():
                file = image_file(layout, root, split, row["f"]).resolve()
                row["f"] = Path(os.path.relpath(file, out.resolve())).as_posix()
                lines.write(json.dumps(row, allow_nan=False) + "\n")
                listed += 1
        if not listed:
            raise DataError(f"No object above {min_side:g} pixels in {files[split]}.", hint="Lower --min-side.")
    return listed


class _Index(Instances):
    """Objects of a COCO file by image, with outlines, and licenses."""

    def __init__(self, min_side: float) -> None:
        super().__init__()
        self._min_side = min_side
        self._license_of: dict[int, int] = {}
        self._licenses: dict[int, str] = {}
        # Id of the category, box and outline as text: numbers would take four times the memory.
        self._objects: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)

    def license(self, entry: dict[str, Any]) -> None:
        self._licenses[whole(entry, "id")] = text(entry, "name")

    def image(self, entry: dict[str, Any]) -> None:
        super().image(entry)
        if "license" in entry:
            self._license_of[entry["id"]] = whole(entry, "license")

    def annotation(self, entry: dict[str, Any]) -> None:
        box = box_of(entry, "bbox")
        if ("iscrowd" in entry and whole(entry, "iscrowd")) or not self._min_side < min(box[2:]) < 1e9:
            return
        made: dict[str, Any] = {"b": box}
        parts = entry.get("segmentation")
        if isinstance(parts, list) and parts:
            made["p"] = _join([numbers_of({"segmentation": part}, "segmentation") for part in parts])
        self._objects[whole(entry, "image_id")].append((whole(entry, "category_id"), json.dumps(made)))

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the line of each listed image with objects; ``f`` is its bare name."""
        for number in sorted(self._objects.keys() & self.images.keys()):
            name = self.images[number]
            width, height = self.sizes[name]
            named = [
                {"c": self.categories[category]} | json.loads(made)
                for category, made in self._objects[number]
                if category in self.categories
            ]
            outlined = [one for one in named if "p" in one]
            boxed = [one for one in named if "p" not in one]
            source = {"src": NAME, "lic": self._licenses.get(self._license_of.get(number, -1), "")}
            yield {"f": name, "w": width, "h": height, "inst": outlined, "box": boxed} | source


def _join(parts: list[list[float]]) -> list[float]:
    """Return one outline x0, y0, x1, y1, ...: each part closed, then back to the first point of all."""
    if any(len(part) < 6 or len(part) % 2 for part in parts):
        raise InvalidValue("segmentation is not a list of polygons")
    if len(parts) == 1:
        return parts[0]
    return [side for part in parts for side in (*part, *part[:2])] + parts[0][:2]
