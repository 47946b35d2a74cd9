"""Referring expressions in single images (COCO, RefCOCO, RefCOCO+, RefCOCOg, Visual Genome).

Images are decoded on access. In file names ``{split}`` is the split's name; files call RefCOCO ``unc``,
RefCOCO+ ``unc+``, RefCOCOg with Google's splits ``gref`` and with those of UMD ``gref_umd``.

Annotations are JSON: the type of every value is checked, and an error names file and entry. Valid entries
that cannot be used (a crowd, a box without size, a phrase without a word) are counted.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.files import open_limited
from vltrack.core.json_io import parse_json, walk_json
from vltrack.core.types import Box, Floats, Image
from vltrack.datasets.images import read_rgb

LINE_KEYS = ("image", "box", "phrase", "split", "reference")
MAX_LINES_BYTES = 2 << 30
_LINE_BYTES = 1 << 20
_WORD = re.compile(r"\w")
_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair cannot be written as UTF-8
FourNumbers = tuple[float, float, float, float]
_PACKED = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".lmdb")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferringLayout:
    """One set of referring expressions on disk.

    Attributes:
        name, title: identifier, and name in papers.
        splits: official names, in the order of the papers.
        format: COCO's JSON, Visual Genome's regions, or the lines that ``datasets convert`` writes.
        annotations: files below the root; for each split the first that exists counts.
        images: folders of images below the root; an image is looked for in one after the other.
        raw: pickles that have to be converted first.
        fetch: what to download and where to unpack it, one item per line.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    format: Literal["coco", "regions", "lines"]
    annotations: tuple[str, ...]
    images: tuple[str, ...]
    raw: tuple[str, ...] = ()
    fetch: tuple[str, ...] = ()


def _refer(name: str, title: str, folder: str, refs: str, short: str, splits: tuple[str, ...]) -> ReferringLayout:
    """Return a set over COCO's images of 2014, in the files of REFER (``refs(..).p``) or VLTVG (``.pth``)."""
    places = (f"split/data/{short}/{short}_{{split}}", f"{short}/{short}_{{split}}", f"{short}_{{split}}")
    complete = (f"{folder}/{refs}", refs)
    return ReferringLayout(
        name=name,
        title=title,
        splits=splits,
        format="lines",
        annotations=tuple(f"{place}.jsonl" for place in (*places, *complete)),
        images=(
            "train2014",
            "images/train2014",
            "images/mscoco/images/train2014",
            "other/images/mscoco/images/train2014",
            "../train2014",
            "../coco/train2014",
        ),
        raw=(*(f"{place}.pth" for place in places), *(f"{place}.p" for place in complete)),
        fetch=(
            "images: train2014.zip from cocodataset.org, unpacked to ROOT/train2014/",
            f"phrases, either: {folder}.zip of github.com/lichengunc/refer, unpacked to ROOT/{folder}/ "
            f"({refs}.p and instances.json)",
            f"or: the data split of github.com/yangli18/VLTVG, unpacked to ROOT/split/data/{short}/",
            f"then, for each of these pickles: vltrack datasets convert 'ROOT/{folder}/{refs}.p'",
        ),
    )


_TEST_AB = ("train", "val", "testA", "testB")

REFERRING_LAYOUTS: dict[str, ReferringLayout] = {
    layout.name: layout
    for layout in (
        ReferringLayout(
            name="coco2017",
            title="COCO 2017",
            splits=("train", "val"),
            format="coco",
            annotations=("annotations/instances_{split}2017.json",),
            images=("images/{split}2017", "{split}2017"),
            fetch=(
                "train2017.zip and val2017.zip from cocodataset.org, unpacked to ROOT/images/ or to ROOT/",
                "annotations_trainval2017.zip from cocodataset.org, unpacked to ROOT/",
            ),
        ),
        _refer("refcoco", "RefCOCO", "refcoco", "refs(unc)", "unc", _TEST_AB),
        _refer("refcoco+", "RefCOCO+", "refcoco+", "refs(unc)", "unc+", _TEST_AB),
        _refer("refcocog", "RefCOCOg (Google)", "refcocog", "refs(google)", "gref", ("train", "val")),
        _refer("refcocog-umd", "RefCOCOg (UMD)", "refcocog", "refs(umd)", "gref_umd", ("train", "val", "test")),
        ReferringLayout(
            name="visual-genome",
            title="Visual Genome regions",
            splits=("all",),
            format="regions",
            annotations=("region_descriptions.json",),
            images=("VG_100K", "VG_100K_2", "images/VG_100K", "images/VG_100K_2"),
            fetch=(
                "images.zip and images2.zip (version 1.2) from the Visual Genome page of the University of "
                "Washington, unpacked to ROOT/ (makes ROOT/VG_100K/ and ROOT/VG_100K_2/)",
                "region_descriptions.json.zip from the same page, unpacked to ROOT/",
            ),
        ),
    )
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReferringExpression:
    """One referring expression.

    Attributes:
        file: the image; it need not exist until it is read.
        box: (4,) x, y, w, h float64 in pixels of the image, as annotated; w and h > 0.
        phrase: describes the object in the box; for COCO 2017 its category.
        split: split of the set, such as ``testA``.
        reference: identifies the object within the split: the same for all phrases of one object.
    """

    file: Path
    box: Box
    phrase: str
    split: str
    reference: str

    def image(self) -> Image:
        """Decode the image to RGB uint8 (H, W, 3). Raises ``DataError`` that names the file."""
        return read_rgb(self.file)


@dataclass(kw_only=True, slots=True, eq=False)
class ReferringSplit:
    """N phrases of one split, as columns so that millions fit into memory.

    Attributes:
        split, annotations: its name, and the file that it is read from.
        min_side: boxes whose width or height is not greater are left out; pixels.
        names: image names as in the annotations.
        phrases, references: N texts; ``references`` identify the object, so several phrases of one object share theirs.
        sizes: width and height by image name, where the annotations have them.
        left_out: number of entries that were not used, by reason.
    """

    split: str
    annotations: Path
    min_side: float = 0.0
    names: list[str] = field(default_factory=list)
    phrases: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    _index_of: dict[str, int] = field(default_factory=dict)
    _image: array[int] = field(default_factory=lambda: array("q"))
    _boxes: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.phrases)

    @property
    def image(self) -> NDArray[np.int64]:
        """Indices into ``names``, (N,) int64."""
        return np.frombuffer(self._image, dtype=np.int64)

    @property
    def boxes(self) -> Floats:
        """Boxes x, y, w, h in pixels, (N, 4) float64."""
        return np.frombuffer(self._boxes, dtype=np.float64).reshape(-1, 4)

    def add(self, image: str, box: FourNumbers, phrase: str, reference: str) -> None:
        """Add a phrase, or count it as left out."""
        plain = " ".join(phrase.split())
        if not (box[2] > 0 and box[3] > 0 and max(map(abs, box)) < 1e9):
            self.left_out["a box without size"] += 1
        elif not _WORD.search(plain) or _SURROGATE.search(plain):
            self.left_out["a phrase without a word"] += 1
        elif min(box[2:]) <= self.min_side:
            self.left_out[f"a box of {self.min_side:g} pixels or less"] += 1
        else:
            index = self._index_of.setdefault(image, len(self.names))
            if index == len(self.names):
                self.names.append(image)
            self._image.append(index)
            self._boxes.extend(box)
            self.phrases.append(plain)
            self.references.append(reference)


class ReferringSet:
    """Referring expressions of some splits of a set, one split after the other; a sequence."""

    def __init__(self, layout: ReferringLayout, root: Path, splits: tuple[ReferringSplit, ...]) -> None:
        self.layout, self.root, self.splits = layout, root, splits
        self._ends = np.cumsum([len(split) for split in splits])

    @property
    def name(self) -> str:
        """Identifier of the set, such as ``refcoco+``."""
        return self.layout.name

    @property
    def left_out(self) -> Counter[str]:
        """Number of entries that were not used, by reason, over all splits."""
        return sum((split.left_out for split in self.splits), Counter())

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> ReferringExpression:
        if not 0 <= index < len(self):
            raise IndexError(f"Index {index} is outside of {len(self)} phrases.")
        which = int(np.searchsorted(self._ends, index, side="right"))
        split = self.splits[which]
        row = index - (int(self._ends[which]) - len(split))
        return ReferringExpression(
            file=image_file(self.layout, self.root, split.split, split.names[split.image[row]]),
            box=split.boxes[row],
            phrase=split.phrases[row],
            split=split.split,
            reference=split.references[row],
        )

    def __iter__(self) -> Iterator[ReferringExpression]:
        return (self[index] for index in range(len(self)))

    def samples(self) -> Iterator[tuple[Image, str, Box]]:
        """Yield (image as RGB uint8 (H, W, 3), phrase, box x, y, w, h) of each, to measure grounding.

        An image with several phrases in a row is decoded once. Raises ``DataError`` for the first one that
        cannot be read.
        """
        file, image = Path(), np.empty((0, 0, 3), dtype=np.uint8)
        for one in self:
            if one.file != file:
                file, image = one.file, one.image()
            yield image, one.phrase, one.box


def open_referring(
    path: Path, *, name: str | None = None, split: str | None = None, min_side: float = 0.0
) -> ReferringSet:
    """Open the set in the folder ``path``, which is detected by its files unless ``name`` is given.

    Args:
        path: root folder of the set.
        name: a key of ``REFERRING_LAYOUTS``.
        split: only this split; default: all that are there.
        min_side: keep only boxes whose width and height are greater, in pixels (50 where trackers are trained on COCO).

    Raises:
        DataError: no such folder, none or several of the known sets in it, no such set or split, annotations
            that are still pickles, or an error in an annotation file.
    """
    layout = referring_layout(name) if name is not None else detect_referring(path)
    if split is not None and split not in layout.splits:
        raise DataError(f"Unknown split of {layout.title}: {split!r}.", hint=f"It has {', '.join(layout.splits)}.")
    files = annotation_files(layout, path)
    if not files or (split is not None and split not in files):
        raise missing_annotations(layout, path, split)
    chosen = [split] if split is not None else list(files)
    return ReferringSet(layout, path, tuple(_read(layout, files[each], each, min_side) for each in chosen))


def detect_referring(path: Path) -> ReferringLayout:
    """Return the one set that the folder's files are of, converted or not yet. Raises ``DataError``."""
    if not path.is_dir():
        raise _no_folder(path)
    layouts = REFERRING_LAYOUTS.values()
    found = [layout for layout in layouts if annotation_files(layout, path)]
    found = found or [layout for layout in layouts if raw_files(layout, path)]
    found = [layout for layout in found if layout.name == path.resolve().name.lower()] or found
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(layout.name for layout in found)
        raise DataError(f"Ambiguous data set: {path} may be {names}.", hint="Give its name.")
    raise DataError(
        f"No data set of {', '.join(REFERRING_LAYOUTS)} in {path}.",
        hint="`vltrack datasets fetch-help NAME` says where its files belong.",
    )


def is_referring(path: Path, name: str | None) -> bool:
    """Return whether the data are images with referring expressions: by their name, else by their files."""
    if name is not None:
        return name in REFERRING_LAYOUTS
    try:
        detect_referring(path)
    except DataError:
        return False
    return True


def annotation_files(layout: ReferringLayout, root: Path) -> dict[str, Path]:
    """Return the annotation file of each split that has one."""
    found: dict[str, Path] = {}
    for split in layout.splits:
        places = (root / place.format(split=split) for place in layout.annotations)
        file = next((place for place in places if place.is_file()), None)
        if file is not None:
            found[split] = file
    return found


def raw_files(layout: ReferringLayout, root: Path) -> list[Path]:
    """Return the pickles of the set that have to be converted before it can be opened."""
    places = (root / place.format(split=split) for place in layout.raw for split in layout.splits)
    return list(dict.fromkeys(place for place in places if place.is_file()))


def image_file(layout: ReferringLayout, root: Path, split: str, name: str) -> Path:
    """Return the path of an image; where it should be, if it does not exist."""
    places = [root / folder.format(split=split) / name for folder in layout.images]
    return next((place for place in places if place.is_file()), places[0])


def missing_annotations(layout: ReferringLayout, root: Path, split: str | None) -> DataError:
    """Return the error for a set, or a split of it, without an annotation file."""
    raw = raw_files(layout, root)
    if raw:
        return DataError(
            f"{raw[0]} is a pickle, which is not read directly because reading one can run code.",
            hint=f"Convert it once: vltrack datasets convert '{raw[0]}'",
        )
    if not root.is_dir():
        return _no_folder(root)
    what = layout.title if split is None else f"split {split!r} of {layout.title}"
    places = ", ".join(place.format(split=split or "<split>") for place in layout.annotations)
    return DataError(
        f"No annotations of {what} in {root}: none of {places}.",
        hint=f"`vltrack datasets fetch-help {layout.name}` says what to fetch.",
    )


def referring_layout(name: str) -> ReferringLayout:
    """Return a layout by name. Raises ``DataError`` that lists the names."""
    if name not in REFERRING_LAYOUTS:
        known = f"Known: {', '.join(REFERRING_LAYOUTS)}."
        raise DataError(f"Unknown set of referring expressions: {name[:60]!r}.", hint=known)
    return REFERRING_LAYOUTS[name]


def _no_folder(path: Path) -> DataError:
    if path.suffix.lower() in _PACKED:
        return DataError(f"Packed data set: {path}.", hint="Unpack it first and give the folder.")
    return DataError(f"No such folder: {path}.", hint="Give the root folder of the set.")


def _read(layout: ReferringLayout, file: Path, split: str, min_side: float) -> ReferringSplit:
    found = ReferringSplit(split=split, annotations=file, min_side=min_side)
    {"coco": read_coco, "regions": read_regions, "lines": read_lines}[layout.format](found)
    if not len(found):
        why = ", ".join(f"{count} times {reason}" for reason, count in found.left_out.items())
        raise DataError(f"No usable phrase of split {split!r} in {file}.", hint=why)
    return found


# -- annotations as JSON --------------------------------------------------------------------------------------


class InvalidValue(ValueError):
    """A value of a wrong type or range; the caller adds its place and raises ``DataError``."""


# Each reader raises ``DataError`` for invalid JSON, or an entry of a wrong type; it names the entry.


def read_coco(found: ReferringSplit) -> None:
    """Read COCO's ``instances_*.json``: a phrase is the name of the category; crowds are left out."""
    coco = Instances()
    lists = {"images": coco.image, "annotations": coco.annotation, "categories": coco.category}
    read_entries(found.annotations, lists)
    found.left_out += Counter({"a crowd": coco.crowds})
    for number, image, category, box in coco.rows():
        name, phrase = coco.images.get(image), coco.categories.get(category)
        if name is None or phrase is None:
            found.left_out["an annotation whose image or category is not listed"] += 1
        else:
            found.add(name, box, phrase, str(number))
    found.sizes = coco.sizes


def read_instances(path: Path, wanted: set[int]) -> dict[int, tuple[str, FourNumbers]]:
    """Read image name and box of the ``wanted`` annotations of a file like COCO's. Raises ``DataError``."""
    coco = Instances(wanted)
    read_entries(path, {"images": coco.image, "annotations": coco.annotation})
    return {number: (coco.images[i], box) for number, i, _, box in coco.rows() if i in coco.images}


def read_regions(found: ReferringSplit) -> None:
    """Read Visual Genome's ``region_descriptions.json``: a list of images with their regions."""

    def image(entry: dict[str, Any]) -> None:
        name = f"{whole(entry, 'id')}.jpg"
        for region in entries(entry, "regions"):
            x, y, w, h = (number(region, key) for key in ("x", "y", "width", "height"))
            found.add(name, (x, y, w, h), text(region, "phrase"), str(whole(region, "region_id")))

    read_entries(found.annotations, {"": image})


def read_lines(found: ReferringSplit) -> None:
    """Read the phrases of the split from the converter's file: one JSON object per line with ``LINE_KEYS``."""
    for place, line in _lines(found.annotations):
        entry = parse_json(line, place)
        try:
            if not isinstance(entry, dict) or set(entry) != set(LINE_KEYS):
                raise InvalidValue(f"not the keys {', '.join(LINE_KEYS)}")
            if text(entry, "split") == found.split:
                name = file_name(text(entry, "image"))
                found.add(name, box_of(entry, "box"), text(entry, "phrase"), text(entry, "reference"))
        except InvalidValue as error:
            raise DataError(f"{place}: {error}.", hint="Convert the original file again.") from error


def read_entries(
    path: Path, readers: Mapping[str, Callable[[dict[str, Any]], None]], may_lack: Collection[str] = ()
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
    if not isinstance(value, list | tuple) or len(value) != 4:
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


class Instances:
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
        with open_limited(path, MAX_LINES_BYTES) as file:
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
