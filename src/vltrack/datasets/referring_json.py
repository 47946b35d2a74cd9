"""Read annotations of referring expressions from JSON: COCO, Visual Genome, and the lines of the converter.

The type of every value is checked; an error names file and entry. Boxes become x, y, w, h in pixels, float64.
Valid entries that cannot be used (a crowd, a box without size, a phrase without a word) are counted.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vltrack.core.errors import DataError
from vltrack.core.json_io import parse_json, walk_json

LINE_KEYS = ("image", "box", "phrase", "split", "reference")
MAX_LINES_BYTES = 2 << 30
_LINE_BYTES = 1 << 20
_WORD = re.compile(r"\w")
_SIDES = 4
FourNumbers = tuple[float, float, float, float]


class InvalidValue(ValueError):
    """A value of a wrong type or range; the caller adds its place and raises ``DataError``."""


@dataclass(slots=True)
class Columns:
    """N phrases as columns, so that millions fit into memory.

    Attributes:
        images: image names as in the annotations, with their indices.
        image: N indices of images.
        boxes: N x 4 numbers, one after the other.
        phrases, references: N texts; ``references`` identify the object, so several phrases of one object
            share theirs.
        sizes: width and height of an image, where the annotations have them.
        left_out: number of entries that were not used, by reason.
    """

    images: dict[str, int] = field(default_factory=dict)
    image: array[int] = field(default_factory=lambda: array("q"))
    boxes: array[float] = field(default_factory=lambda: array("d"))
    phrases: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, image: str, box: FourNumbers, phrase: str, reference: str) -> None:
        """Add a phrase, or count it as left out."""
        plain = " ".join(phrase.split())
        if not (box[2] > 0 and box[3] > 0 and max(map(abs, box)) < 1e9):
            self.left_out["a box without size"] += 1
        elif not _WORD.search(plain) or not is_unicode(plain):
            self.left_out["a phrase without a word"] += 1
        else:
            self.image.append(self.images.setdefault(image, len(self.images)))
            self.boxes.extend(box)
            self.phrases.append(plain)
            self.references.append(reference)


def read_coco(path: Path, split: str) -> Columns:
    """Read COCO's ``instances_*.json``: a phrase is the name of the category; crowds are left out.

    Raises:
        DataError: invalid JSON, or an entry of a wrong type.
    """
    found, coco = Columns(), _Instances()
    read_entries(path, {"images": coco.image, "annotations": coco.annotation, "categories": coco.category})
    found.left_out["a crowd"] += coco.crowds
    for number, image, category, box in coco.rows():
        name, phrase = coco.images.get(image), coco.categories.get(category)
        if name is None or phrase is None:
            found.left_out["an annotation whose image or category is not listed"] += 1
        else:
            found.add(name, box, phrase, str(number))
    found.sizes = coco.sizes
    found.left_out = +found.left_out
    return found


def read_instances(path: Path, wanted: set[int]) -> dict[int, tuple[str, FourNumbers]]:
    """Read image name and box of the ``wanted`` annotations of a file like COCO's. Raises ``DataError``."""
    coco = _Instances(wanted)
    read_entries(path, {"images": coco.image, "annotations": coco.annotation})
    return {number: (coco.images[i], box) for number, i, _, box in coco.rows() if i in coco.images}


def read_regions(path: Path, split: str) -> Columns:
    """Read Visual Genome's ``region_descriptions.json``: a list of images with their regions.

    Raises:
        DataError: invalid JSON, or an entry of a wrong type.
    """
    found = Columns()

    def image(entry: dict[str, Any]) -> None:
        name = f"{whole(entry, 'id')}.jpg"
        for region in entries(entry, "regions"):
            x, y, w, h = (number(region, key) for key in ("x", "y", "width", "height"))
            found.add(name, (x, y, w, h), text(region, "phrase"), str(whole(region, "region_id")))

    read_entries(path, {"": image})
    return found


def read_lines(path: Path, split: str) -> Columns:
    """Read the phrases of ``split`` from the converter's file: one JSON object per line with ``LINE_KEYS``.

    Raises:
        DataError: a line with invalid JSON, other keys or a value of a wrong type (names file and line).
    """
    found = Columns()
    for place, line in _lines(path):
        entry = parse_json(line, place)
        try:
            if not isinstance(entry, dict) or set(entry) != set(LINE_KEYS):
                raise InvalidValue(f"not the keys {', '.join(LINE_KEYS)}")
            if text(entry, "split") == split:
                name = file_name(text(entry, "image"))
                found.add(name, box_of(entry, "box"), text(entry, "phrase"), text(entry, "reference"))
        except InvalidValue as error:
            raise DataError(f"{place}: {error}.", hint="Convert the original file again.") from error
    return found


def read_entries(
    path: Path, readers: dict[str, Callable[[dict[str, Any]], None]], may_lack: Collection[str] = ()
) -> None:
    """Call the reader of each list in the file with each of the list's entries.

    Raises:
        DataError: invalid JSON, an entry that its reader refuses (names list and number), or a list that is
            missing or empty and not in ``may_lack``.
    """
    counts: Counter[str] = Counter()
    for key, entry in walk_json(path):
        reader = readers.get(key)
        if reader is None:
            continue
        counts[key] += 1
        try:
            if not isinstance(entry, dict):
                raise InvalidValue(f"{shown(entry)} where an object should be")
            reader(entry)
        except InvalidValue as error:
            place = f"{key} entry {counts[key]}" if key else f"entry {counts[key]}"
            raise DataError(f"{path}, {place}: {error}.", hint="Fetch the file again.") from error
    missing = [key or "entries" for key in readers if not counts[key] and key not in may_lack]
    if missing:
        raise DataError(f"Missing in {path}: {', '.join(missing)}.", hint="Is it the right file?")


def whole(entry: dict[str, Any], key: str) -> int:
    """Return an integer below 2**63 in size. Raises ``InvalidValue``."""
    value = entry.get(key)
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise InvalidValue(f"{key} is {shown(value)}, not a whole number")
    return value


def number(entry: dict[str, Any], key: str) -> float:
    """Return a number, possibly infinite. Raises ``InvalidValue``."""
    return _float(entry.get(key), key)


def text(entry: dict[str, Any], key: str) -> str:
    """Return a text of at most 64 KiB. Raises ``InvalidValue``."""
    value = entry.get(key)
    if not isinstance(value, str) or len(value) > 1 << 16:
        raise InvalidValue(f"{key} is {shown(value)}, not a text")
    return value


def entries(entry: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return a list of objects. Raises ``InvalidValue``."""
    value = entry.get(key)
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        raise InvalidValue(f"{key} is {shown(value)}, not a list of objects")
    return value


def box_of(entry: dict[str, Any], key: str) -> FourNumbers:
    """Return four numbers. Raises ``InvalidValue``."""
    value = entry.get(key)
    if not isinstance(value, list | tuple) or len(value) != _SIDES:
        raise InvalidValue(f"{key} is {shown(value)}, not four numbers")
    a, b, c, d = (_float(part, key) for part in value)
    return a, b, c, d


def numbers_of(entry: dict[str, Any], key: str) -> list[float]:
    """Return a list of finite numbers. Raises ``InvalidValue``."""
    value = entry.get(key)
    if not isinstance(value, list):
        raise InvalidValue(f"{key} is {shown(value)}, not a list of numbers")
    found = [_float(part, key) for part in value]
    if not all(map(math.isfinite, found)):
        raise InvalidValue(f"{key} has a number that is not finite")
    return found


def file_name(name: str) -> str:
    """Return ``name`` if it cannot lead out of the folder of images. Raises ``InvalidValue``."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or any(c in name for c in "\\:\0") or len(name) > 1000:
        raise InvalidValue(f"{shown(name)} is not a file name below a folder")
    return name


def is_unicode(value: str) -> bool:
    """Return whether the text can be written as UTF-8 (no half of a surrogate pair)."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def shown(value: object) -> str:
    """Format a value for an error message, nested ones by type and length only (formatting could crash)."""
    if isinstance(value, str):
        return repr(value[:40])
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if value.bit_length() < 200 else "a huge number"
    length = f" of {len(value)}" if isinstance(value, list | tuple | dict) else ""
    return f"a {type(value).__name__}{length}"


def _float(value: object, key: str) -> float:
    if type(value) is int and value.bit_length() < 1000:
        return float(value)
    if type(value) is float:
        return value
    raise InvalidValue(f"{key} is {shown(value)}, not a number")


class _Instances:
    """Images, annotations and categories of a COCO file, in any order; ``wanted`` selects annotations."""

    def __init__(self, wanted: set[int] | None = None) -> None:
        self._wanted = wanted
        self.images: dict[int, str] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self.categories: dict[int, str] = {}
        self.crowds = 0
        self._numbers = array("q")  # id, image and category of each annotation
        self._boxes = array("d")

    def image(self, entry: dict[str, Any]) -> None:
        name = file_name(text(entry, "file_name"))
        self.images[whole(entry, "id")] = name
        self.sizes[name] = (whole(entry, "width"), whole(entry, "height"))

    def category(self, entry: dict[str, Any]) -> None:
        self.categories[whole(entry, "id")] = text(entry, "name")

    def annotation(self, entry: dict[str, Any]) -> None:
        this = whole(entry, "id")
        if self._wanted is not None and this not in self._wanted:
            return
        if self._wanted is None and "iscrowd" in entry and whole(entry, "iscrowd"):
            self.crowds += 1
            return
        box = box_of(entry, "bbox")
        self._numbers.extend((this, whole(entry, "image_id"), whole(entry, "category_id")))
        self._boxes.extend(box)

    def rows(self) -> Iterator[tuple[int, int, int, FourNumbers]]:
        """Yield id, image id, category id and box of each annotation."""
        numbers, boxes = iter(self._numbers), iter(self._boxes)
        for this, image, category in zip(numbers, numbers, numbers, strict=True):
            yield this, image, category, (next(boxes), next(boxes), next(boxes), next(boxes))


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines that are not empty, each with its place."""
    try:
        size = path.stat().st_size
        if size > MAX_LINES_BYTES:
            raise DataError(f"File too large: {path} has {size} bytes, the limit is {MAX_LINES_BYTES}.")
        with path.open("rb") as file:
            row = 0
            while line := file.readline(_LINE_BYTES + 1):
                row += 1
                if len(line) > _LINE_BYTES:
                    raise DataError(f"Line too long: {path} line {row} has more than {_LINE_BYTES} bytes.")
                if line.strip():
                    yield f"{path} line {row}", line.decode("utf-8-sig" if row == 1 else "utf-8")
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"Not UTF-8 text: {path} line {row}, byte {error.start}.") from error
