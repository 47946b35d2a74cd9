"""The door to data sets of videos: reads a folder strictly, or tells all that is wrong with it.

Knows only the order of things: ``detect`` tells what it is, ``tree`` finds files, ``loading`` reads them.
"""

from __future__ import annotations

import re
from collections import abc
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import ParseError
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.files import counted
from vltrack.core.json_io import walk_json
from vltrack.datasets.detect import Detected, FileIndex, detect, read_zip
from vltrack.datasets.layout import Layout, Patterns
from vltrack.datasets.parsing import (
    Issue,
    Issues,
    data_error,
    decode,
    is_safe,
    read_bytes,
    read_digits,
    read_table,
)
from vltrack.datasets.sequences import Sequence, list_images

# MERGED datasets/reader.py
# The sentence of a sequence: where it stands and in which form. Knows files; judges no language.


_META = ("root_class", "major_class", "object_class", "motion_class", "motion_adverb")
_MGIT_COLUMN = 14
_MAX_SHEET = 32 << 20
_NUMBERS_ONLY = re.compile(r"[\d\s.,;:+\-]*(nan[\d\s.,;:+\-]*)*", re.IGNORECASE)


def read_sentence(tree: FileIndex, name: str, issues: Issues) -> str:
    """What names the target; "" with a warning where the layout wants a sentence and there is none.

    A sentence of nothing but numbers (boxes that were pasted into the wrong file) is told too.
    """
    layout = tree.layout
    if not layout.sentence:
        return ""
    path = tree.find(layout.sentence, name)
    if path is None:
        if not layout.own:
            issues.warn("sentence", tree.expected(layout.sentence, name), "there is no sentence.")
        return ""
    sentence = issues.attempt(_READERS[layout.words], path)
    if sentence is None:
        return ""
    if not sentence:
        issues.warn("sentence", path, "the sentence is empty.", "Modes with language cannot start from it.")
    elif _NUMBERS_ONLY.fullmatch(sentence):
        issues.warn("sentence", path, f"the sentence is numbers: {sentence[:40]!r}.", "Look at the file.")
    return sentence


def read_meta(path: Path) -> dict[str, str]:
    """The "key: value" lines of a meta_info.ini. Raises ``DataError``."""
    found = {}
    for number, line in enumerate(decode(read_bytes(path), path).splitlines(), 1):
        if not line.strip() or line.startswith("["):
            continue
        key, colon, value = line.partition(":")
        if not colon:
            raise data_error("text", f"{path}:{number}", f"{line[:60]!r} is not key: value.")
        found[key.strip()] = value.strip()
    return found


def _first_line(path: Path) -> str:
    text = decode(read_bytes(path), path)
    return text.splitlines()[0].strip() if text else ""


def _whole_text(path: Path) -> str:
    return " ".join(decode(read_bytes(path), path).split())


def _from_meta(path: Path) -> str:
    """As vision-language trackers make it: root class, major class, object, motion, adverb."""
    meta = read_meta(path)
    return " ".join(meta[key] for key in _META if meta.get(key))


def _from_sheet(path: Path) -> str:
    """The last row's column 14 of an .xlsx table: the sentence of the whole video (MGIT)."""
    try:
        from openpyxl import load_workbook  # type: ignore[import-untyped]
        from openpyxl.utils.exceptions import InvalidFileException  # type: ignore[import-untyped]
    except ImportError as error:
        raise data_error(
            "extra", path, "the sentences of MGIT are tables.", "Install them: pip install 'vltrack[mgit]'"
        ) from error
    try:
        with ZipFile(path) as archive:  # a table of text is small; a bomb is not
            if sum(part.file_size for part in archive.infolist()) > _MAX_SHEET:
                raise data_error("size", path, "is too large for a table of sentences.")
        book = load_workbook(path, read_only=True, data_only=True)
        rows = [
            row for row in book.worksheets[0].iter_rows(values_only=True) if any(v is not None for v in row)
        ]
        book.close()
    except (OSError, LookupError, ValueError, InvalidFileException, BadZipFile, ParseError) as error:
        raise data_error("text", path, f"is no .xlsx table ({error}).") from error
    if not rows or len(rows[-1]) <= _MGIT_COLUMN:
        return ""
    return str(rows[-1][_MGIT_COLUMN] or "").strip()


_READERS: Mapping[str, Callable[[Path], str]] = {
    "line": _first_line,
    "text": _whole_text,
    "meta": _from_meta,
    "sheet": _from_sheet,
}


# MERGED datasets/reader.py
# Reads one sequence by its layout. Knows how boxes, presence, sentence and images go together; knows no data
# set's name.


Boxes = NDArray[np.float64]


@dataclass(slots=True)
class _Series:
    """Something with one entry a frame, and the file that it comes from."""

    path: Path
    values: NDArray[np.float64] | NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.values)


def load_sequence(tree: FileIndex, name: str, issues: Issues) -> Sequence | None:
    """The sequence ``name`` of ``tree``; what is wrong with it goes to ``issues``. None where it has no
    usable boxes or images.
    """
    layout = tree.layout
    before = len(issues.errors)
    truth = _read_truth(tree, name, issues)
    images = _find_images(tree, name, issues)
    flags = _read_flags(tree, name, issues)
    cover = _read_digits(tree, name, layout.cover, 8, issues)
    sentence = read_sentence(tree, name, issues)
    attributes = _read_attributes(tree, name, issues)
    size = issues.attempt(_read_size, tree, name)
    if truth is None or images is None or len(issues.errors) > before:
        return None
    series = [truth, *(found for _, found in flags), *([] if cover is None else [cover])]
    source, files = images
    files = issues.attempt(_fit, tree, name, series, files)
    if len(issues.errors) > before:
        return None
    boxes = truth.values[:, :4].astype(np.float64)
    absent = _empty(boxes, layout)
    if layout.rows.lost is not None:
        absent |= truth.values[:, 4] == 1
    for value, found in flags:
        absent |= found.values == value
    if cover is not None:
        absent |= cover.values == 0
    if layout.own and (rows := np.nonzero(boxes[:, 2:].min(axis=1) < 0)[0]).size:
        issues.error("box", f"{truth.path}:{rows[0] + 1}", "width or height is negative.", "Correct the row.")
    return Sequence(
        name=name,
        source=source,
        files=files,
        boxes=boxes,
        absent=absent,
        sentence=sentence,
        attributes=attributes,
        cover=None if cover is None else cover.values.astype(np.float64),
        size=size,
    )


def _read_truth(tree: FileIndex, name: str, issues: Issues) -> _Series | None:
    """The boxes as x, y, w, h, and the field that says "lost" where there is one."""
    rows = tree.layout.rows
    path = tree.find(tree.layout.truth, name)
    if path is None:
        issues.error("missing", tree.expected(tree.layout.truth, name), "the file with the boxes is missing.")
        return None
    columns = rows.box if rows.lost is None else (*rows.box, rows.lost)
    table = issues.attempt(read_table, path, columns)
    if table is None:
        return None
    if rows.corners:
        table[:, 2:4] -= table[:, :2]
    return _Series(path, table)


def _read_flags(tree: FileIndex, name: str, issues: Issues) -> list[tuple[int, _Series]]:
    """The files of flags, each with the number that says "absent"."""
    found = []
    for flags in tree.layout.flags:
        needed = flags.needed and not tree.split.held_back
        series = _read_digits(tree, name, flags.files, 1, issues, needed=needed)
        if series is not None:
            found.append((flags.absent, series))
    return found


def _read_digits(
    tree: FileIndex, name: str, patterns: Patterns, high: int, issues: Issues, *, needed: bool = False
) -> _Series | None:
    path = tree.find(patterns, name)
    if path is None:
        if needed:
            issues.error("missing", tree.expected(patterns, name), "the file with the flags is missing.")
        return None
    digits = issues.attempt(read_digits, path, high)
    return None if digits is None else _Series(path, digits)


def _empty(boxes: Boxes, layout: Layout) -> NDArray[np.bool_]:
    """Where a row of boxes itself says that the target is absent."""
    absent = np.isnan(boxes)
    if layout.empty == "zero":
        absent |= (boxes == 0).all(axis=1, keepdims=True)
    elif layout.empty == "flat":
        absent |= (boxes[:, 2:] <= 0).any(axis=1, keepdims=True)
    return np.asarray(absent.any(axis=1))


def _fit(
    tree: FileIndex, name: str, series: list[_Series], files: abc.Sequence[Path] | None
) -> abc.Sequence[Path] | None:
    """Bring boxes, flags and images to one length, as far as the layout lets it; returns the images.

    Raises ``DataError`` with both counts where they disagree.
    """
    layout, truth = tree.layout, series[0]
    span = tree.spans.get(name)
    if span is not None:  # rows may be counted from the first image of the folder
        for one in series:
            if len(one) == span.last:
                one.values = one.values[span.first - 1 :]
    if files and layout.rows.rate > 1 and abs(len(truth) / len(files) - layout.rows.rate) < 1:
        truth.values = truth.values[:: layout.rows.rate]
    if name in layout.cuts:
        count = layout.cuts[name] or min([len(one) for one in series] + ([len(files)] if files else []))
        files = files and files[:count]
        for one in series:
            one.values = one.values[:count]
    held_back = tree.split.held_back and len(truth) == 1
    for one in series[1:]:
        one.values = one.values[:1] if held_back else one.values
        if len(one) != len(truth):
            said = f"{counted(len(one), 'value')} for {counted(len(truth), 'box', 'boxes')}."
            raise data_error("rows", one.path, said, "Every frame needs one; download the file again.")
    if not files or held_back:
        return files
    if 0 < abs(len(files) - len(truth)) <= layout.rows.slack:
        files = files[: len(truth)]
        truth.values = truth.values[: len(files)]
    if len(files) != len(truth):
        said = f"{counted(len(truth), 'row')} for the {counted(len(files), 'image')} in {files[0].parent}."
        raise data_error("rows", truth.path, said, "Every frame needs one row; unpack the sequence again.")
    return files


def _find_images(tree: FileIndex, name: str, issues: Issues) -> tuple[Path, abc.Sequence[Path] | None] | None:
    """Where the pictures are, and the images of a folder (None: a video, (): only the annotation)."""
    layout = tree.layout
    if not layout.frames:
        return tree.root, ()
    path = tree.find(layout.frames, name)
    if path is None:
        where = tree.expected(layout.frames, name)
        issues.error("missing", where, "there are no images (or the video) of this sequence.")
        return None
    if path.is_file():
        others = [other.name for other in path.parent.glob(f"{path.stem}.*") if other != path]
        if others:
            issues.error("duplicate", path, f"there is {others[0]} beside it.", "Keep one video.")
        return path, None
    files = list_images(path, layout, tree.spans.get(name), issues)
    if not files:
        issues.error("empty", path, "holds no images.", "Unpack the sequence again.")
        return None
    return path, files


def _read_attributes(tree: FileIndex, name: str, issues: Issues) -> tuple[str, ...]:
    """Short names of the attributes that are set."""
    layout = tree.layout
    found = _read_digits(tree, name, layout.attribute_files, 9, issues)
    if found is None:
        return ()
    if len(found) != len(layout.attributes):
        said = f"{len(found)} flags, {len(layout.attributes)} are needed ({' '.join(layout.attributes)})."
        issues.error("rows", found.path, said)
        return ()
    return tuple(short for short, flag in zip(layout.attributes, found.values, strict=True) if flag)


def _read_size(tree: FileIndex, name: str) -> tuple[int, int] | None:
    """(width, height) from meta_info.ini, where there is one. Raises ``DataError``."""
    path = tree.find(tree.layout.meta, name)
    text = None if path is None else read_meta(path).get("resolution")
    if text is None:
        return None
    numbers = re.findall(r"\d+", text)
    if len(numbers) != 2:
        raise data_error("text", path, f"resolution is {text[:40]!r}, not (width, height).")
    return int(numbers[0]), int(numbers[1])


# MERGED datasets/reader.py
# The annotation of a test set in pysot's one JSON file. Knows its fields; trusts none of them.
#
# Of each video: ``gt_rect`` (rows of x, y, w, h, NaN where UAV123 has none), ``img_names``, and where known
# ``attr`` (names of attributes) and ``absent`` (1 = the target is *visible*). Pictures beside the file are
# used.


_SHAPE = "A pysot file has, of each video, gt_rect and img_names."


def read_pysot(path: Path, layout: Layout, issues: Issues) -> list[Sequence]:
    """The sequences of a file, in its order; what is wrong goes to ``issues``."""
    sequences: list[Sequence] = []
    try:
        for name, video in walk_json(path, nan=True):
            sequence = issues.attempt(_sequence, path, layout, name, video)
            sequences += [] if sequence is None else [sequence]
    except DataError as error:  # no JSON: what was read before it may be wrong as well
        issues.error("json", path, error.message.removeprefix(f"{path} "), error.hint)
        return []
    if not sequences and not issues.errors:
        issues.error("empty", path, "holds no videos.", _SHAPE)
    return sequences


def _numbers(rows: Any) -> NDArray[np.float64] | str:
    """The rows as an array, or what is wrong with them."""
    if not isinstance(rows, list):
        return "no rows"
    flat = [value for row in rows for value in (row if isinstance(row, list) else [row])]
    if not all(type(value) in (int, float) for value in flat):
        return "something that is no number"
    try:
        table = np.array(rows, dtype=np.float64)
    except (ValueError, OverflowError):
        return "rows of different length"
    return "a number beyond all bounds" if np.isinf(table).any() else table


def _sequence(path: Path, layout: Layout, name: str, video: Any) -> Sequence:
    if not is_safe(name):
        raise data_error("name", path, f"{name[:80]!r} is no name of a sequence.")
    if not isinstance(video, dict):
        raise data_error("json", path, f"{name} is no object.", _SHAPE)
    boxes = _numbers(video.get("gt_rect"))
    if not isinstance(boxes, np.ndarray) or boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        said = boxes if isinstance(boxes, str) else "no rows of four numbers"
        raise data_error("json", path, f"{name}: gt_rect has {said}.", _SHAPE)
    visible = None if video.get("absent") is None else _numbers(video["absent"])
    if visible is None:
        absent = np.isnan(boxes).any(axis=1) | (boxes[:, 2:] <= 0).any(axis=1)
    elif isinstance(visible, np.ndarray) and visible.shape == (len(boxes),):
        absent = visible == 0
    else:
        raise data_error(
            "rows", path, f"{name}: absent is not one number for each of {len(boxes)} boxes.", _SHAPE
        )
    return Sequence(
        name=name,
        source=path,
        files=_images(path.parent, name, video.get("img_names"), len(boxes), path),
        boxes=boxes,
        absent=np.asarray(absent),
        attributes=_attributes(video.get("attr"), layout.attributes),
    )


def _images(root: Path, name: str, names: Any, count: int, path: Path) -> tuple[Path, ...]:
    """The pictures, if they lie beside the file; else ()."""
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise data_error("json", path, f"{name}: img_names is no list of names.", _SHAPE)
    if len(names) != count:
        said = f"{name}: {counted(count, 'box', 'boxes')} for {counted(len(names), 'image')}."
        raise data_error("rows", path, said, _SHAPE)
    if not all(map(is_safe, (part for one in names for part in one.split("/")))):
        raise data_error("name", path, f"{name}: an image's name leads out of the folder.", _SHAPE)
    files = tuple(root / PurePosixPath(one) for one in names)
    return files if files[0].is_file() else ()


def _attributes(titles: Any, short: tuple[str, ...]) -> tuple[str, ...]:
    """Short names: "Scale Variation" is SV, "Full Occlusion" FOC, "Deformation" DEF."""
    if not isinstance(titles, list) or not all(isinstance(title, str) for title in titles):
        return ()
    return tuple(_short(title, short) for title in titles)


def _short(title: str, known: tuple[str, ...]) -> str:
    words = [word for word in title.replace("-", " ").split() if word != "of"]
    initials = "".join(word[0] for word in words).upper() if len(words) > 1 else title[:3].upper()
    if title in known or initials in known:
        return title if title in known else initials
    longer = [one for one in known if one.startswith(initials)]
    return longer[0] if len(longer) == 1 else initials


CHECK = "`vltrack datasets check` lists everything that is wrong."


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """One split of a data set.

    Attributes:
        name: "lasot", "tnl2k", ..., "folder" for clips of one's own.
        split: "test", "train", ..., or "all": everything that is there.
        root: its folder.
        sequences: in the order of the split's list, else of their names.
        warnings: what is odd and does not hinder (an empty sentence, a gap in the numbers).
    """

    name: str
    split: str
    root: Path
    sequences: tuple[Sequence, ...]
    warnings: tuple[Issue, ...] = ()


def open_dataset(path: Path, *, name: str | None = None, split: str | None = None) -> Dataset:
    """The data set in ``path``, annotation read and every count checked; no picture is decoded.

    Args:
        path: the data set's folder, the folder of one split, or one clip of one's own.
        name: what it is, where that should not be found out.
        split: "test", "train", ...; "all" takes every sequence that is there. By default the first that the
            data set has of its own splits, else "all".

    Raises:
        DataError: it is not there, at another level, not known, or anything in it is at fault; the first
            issue is named and the others are counted.
    """
    issues = Issues()
    dataset = read_dataset(path, issues, name=name, split=split)
    issues.raise_errors(CHECK)
    return dataset


def read_dataset(path: Path, issues: Issues, *, name: str | None = None, split: str | None = None) -> Dataset:
    """As ``open_dataset``, but what is wrong inside goes to ``issues`` and reading goes on: the result has
    the sequences that are sound.

    Raises:
        DataError: there is no data set here to look into.
    """
    return read_place(detect(resolved(path), name, split), issues)


def read_place(place: Detected, issues: Issues) -> Dataset:
    """The sound sequences of a place; what is wrong goes to ``issues``."""
    sequences = _read(place, issues)
    if not issues.errors:
        for one, two in _same_names(sequences):
            issues.error("duplicate", place.root, f"{one} and {two} differ in upper and lower case only.")
    return Dataset(
        name=place.layout.name,
        split=place.split.name,
        root=place.root,
        sequences=tuple(sequences),
        warnings=tuple(issues.warnings),
    )


def _read(place: Detected, issues: Issues) -> list[Sequence]:
    """The sequences at a place: one file's, or those of a tree of folders."""
    layout, root = place.layout, place.root
    if layout.json:
        return read_pysot(root if root.is_file() else root / layout.json, layout, issues)
    if root.is_file():
        return read_zip(root, layout, issues)
    tree = FileIndex(root, layout, place.split, issues)
    names = tree.names if place.only is None else [place.only]
    loaded = (load_sequence(tree, name, issues) for name in names)
    return [sequence for sequence in loaded if sequence is not None]


def _same_names(sequences: Iterable[Sequence]) -> Iterator[tuple[str, str]]:
    """Names that would be one file on a disk that does not tell clothing_color from lower case."""
    seen: dict[str, str] = {}
    for sequence in sequences:
        other = seen.setdefault(sequence.name.casefold(), sequence.name)
        if other != sequence.name:
            yield other, sequence.name


def read_sequences(root: Path) -> list[Sequence]:
    """The clips of one's own under ``root``, or the one that ``root`` is, in the order of their names.

    Raises ``DataError`` as ``open_dataset``.
    """
    return list(open_dataset(root, name="folder").sequences)


def read_sequence(folder: Path) -> Sequence:
    """The one clip in ``folder``. Raises ``DataError`` as ``open_dataset``."""
    return read_sequences(folder)[0]


def read_ground_truth(path: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Boxes (R, 4) x, y, w, h as annotated and absences (R,) of one file such as groundtruth.txt, with
    absent.txt beside it where there is one.

    Raises:
        DataError: a row that is not four numbers (file:line), a negative size, or counts that disagree.
    """
    boxes = read_table(path)
    if (negative := np.nonzero(boxes[:, 2:].min(axis=1) < 0)[0]).size:
        raise data_error(
            "box", f"{path}:{negative[0] + 1}", "width or height is negative.", "Correct the row."
        )
    absent = ~(boxes[:, 2:].min(axis=1) > 0)
    beside = path.parent / "absent.txt"
    if beside.is_file():
        flags = read_digits(beside)
        if len(flags) != len(boxes):
            said = f"{counted(len(flags), 'value')} for {counted(len(boxes), 'box', 'boxes')}."
            raise data_error("rows", beside, said, "Every frame needs one.")
        absent |= flags == 1
    return boxes, absent


def resolved(path: str | Path) -> Path:
    """The real path. Raises ``DataError`` where there is none, or links lead in a circle."""
    try:
        return Path(path).resolve(strict=True)
    except FileNotFoundError as error:
        raise DataError(f"{path} is no folder and no file.", hint="Check the path.") from error
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path} cannot be followed (links in a circle?).", hint="Check the path.") from error
