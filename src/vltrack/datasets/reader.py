"""Open video data sets: read the annotations of all sequences, strictly or with a list of all issues.

``detect`` finds out which data set a folder holds and where its files are.
"""

from __future__ import annotations

import re
from collections import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import ParseError

import numpy as np
from numpy.typing import NDArray

from vltrack.core.archives import ZIP_DAMAGE, open_zip, read_member
from vltrack.core.errors import DataError
from vltrack.core.files import counted, open_limited
from vltrack.core.json_io import walk_json
from vltrack.core.types import Floats
from vltrack.datasets.detect import Detected, FileIndex, detect, read_zip
from vltrack.datasets.layouts import META_KEYS, Layout, Patterns
from vltrack.datasets.parsing import (
    Issue,
    Issues,
    data_error,
    decode,
    is_safe,
    parse_boxes,
    read_bytes,
    read_digits,
    read_table,
)
from vltrack.datasets.published import published
from vltrack.datasets.sequences import Sequence, list_images, size_of_first
from vltrack.video.base import IMAGE_SUFFIXES


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """One split of a data set.

    Attributes:
        name: "lasot", "tnl2k", ..., "folder" for clips of one's own.
        split: "test", "train", ..., or "all": every sequence that is there.
        root: its folder.
        sequences: in the order of the split's list, else sorted by name.
        warnings: oddities that do not prevent reading (an empty sentence, a gap in the numbers).
    """

    name: str
    split: str
    root: Path
    sequences: tuple[Sequence, ...]
    warnings: tuple[Issue, ...] = ()

    @property
    def of(self) -> int:
        """Number of sequences of the split as published, of those that are here where it has no such number."""
        return published(self.name, self.split) or len(self.sequences)


def open_dataset(path: Path, *, name: str | None = None, split: str | None = None, part: bool = False) -> Dataset:
    """Read the annotations of a data set and check every count; no image is decoded.

    Args:
        path: the data set's folder, the folder of one split, one clip of one's own, or an annotation file.
        name: name of the data set, where it should not be detected.
        split: "test", "train", ...; "all" takes every sequence that is there. Default: the first split that
            is there, else "all".
        part: leave out the sequences of the split's list that are missing, with a warning for each.

    Raises:
        DataError: the data set is missing, at another level or unknown, or anything in it is wrong; names the
            first issue and counts the others.
    """
    issues = Issues()
    dataset = read_detected(detect(resolved(path), name, split), issues)
    if part and dataset.sequences:
        gone = [issue for issue in issues.errors if (issue.kind, issue.where) == ("missing", str(dataset.root))]
        issues.found = [issue for issue in issues.found if issue not in gone]
        dataset = replace(dataset, warnings=(*dataset.warnings, *(replace(one, severity="warning") for one in gone)))
    issues.raise_errors("`vltrack datasets check` lists everything that is wrong.")
    return dataset


def read_detected(detected: Detected, issues: Issues) -> Dataset:
    """Read the sequences of a detected data set that are free of errors; errors go to ``issues``."""
    layout, root = detected.layout, detected.root
    if layout.json:
        sequences = _read_pysot(root if root.is_file() else root / layout.json, layout, issues)
    elif root.is_file():
        sequences = read_zip(root, layout, issues)
    else:
        index = FileIndex(root, layout, detected.split, issues)
        names = index.names if detected.only is None else [detected.only]
        read = [_SequenceReader(index, name, issues).read() for name in names]
        sequences = [sequence for sequence in read if sequence is not None]
    if not issues.errors:  # names must differ on a disk that ignores case
        seen: dict[str, str] = {}
        for sequence in sequences:
            other = seen.setdefault(sequence.name.casefold(), sequence.name)
            if other != sequence.name:
                issues.error("duplicate", root, f"{other!r} and {sequence.name!r} differ in upper and lower case only.")
    return Dataset(
        name=layout.name,
        split=detected.split.name,
        root=root,
        sequences=tuple(sequences),
        warnings=tuple(issues.warnings),
    )


def read_ground_truth(path: Path) -> tuple[Floats, NDArray[np.bool_]]:
    """Read one file of boxes in any usual form, and the absent.txt next to it where there is one.

    Returns:
        Boxes (R, 4) x, y, w, h in pixels as annotated, and absence flags (R,).

    Raises:
        DataError: a row that is not four numbers (file:line), a negative size, or counts that disagree.
    """
    found = parse_boxes(read_bytes(path), path)
    boxes = found.boxes
    if error := _negative_size(path, boxes):
        raise error
    absent = ~(boxes[:, 2:].min(axis=1) > 0) | found.lost
    flags_file = path.parent / "absent.txt"
    if flags_file.is_file():
        flags = read_digits(flags_file)
        if len(flags) != len(boxes):
            raise _other_count(flags_file, len(flags), len(boxes), "Every frame needs one.")
        absent |= flags == 1
    return boxes, absent


def resolved(path: str | Path) -> Path:
    """Resolve links in ``path``. Raises ``DataError`` where it does not exist, or links form a circle."""
    try:
        return Path(path).resolve(strict=True)
    except FileNotFoundError as error:
        raise DataError(f"No such folder or file: {path}.", hint="Check the path.") from error
    except (OSError, RuntimeError) as error:
        raise DataError(f"Links in a circle: {path}.", hint="Check the path.") from error


def _negative_size(path: Path, boxes: Floats) -> DataError | None:
    negative = np.nonzero(boxes[:, 2:].min(axis=1) < 0)[0]
    if not negative.size:
        return None
    said = f"Width or height is negative: {boxes[negative[0], 2:].tolist()}."
    return data_error("box", f"{path}:{negative[0] + 1}", said, "Correct the row.")


def _warn_of_units(path: Path, boxes: Floats, files: abc.Sequence[Path], issues: Issues) -> None:
    """Warn where boxes (N, 4) of seen targets look like shares of the frame, or like corners x1,y1,x2,y2."""
    x, y, w, h = boxes.T
    if not x.size:
        return
    if max(w.max(), h.max()) < 1:
        said = "Every box is smaller than a pixel: are these shares of the frame?"
        issues.warn("units", path, said, "Write x,y,w,h in pixels.")
    if not ((w > x) & (h > y)).all():
        return
    width, height = size_of_first(files) or (np.inf, np.inf)
    beyond = (
        ((x + w > width + 1) | (y + h > height + 1)).mean() > 0.5 and (w <= width + 1).all() and (h <= height + 1).all()
    )
    tied = (w - x).std() + (h - y).std() < 0.9 * (w.std() + h.std())
    if beyond or tied:
        how = "the boxes reach out of the frame" if beyond else "the last two numbers of a row move with the first two"
        issues.warn("units", path, f"Are these corners x1,y1,x2,y2? As x,y,w,h {how}.", "Write x,y,w,h in pixels.")


def _other_count(path: Path, values: int, boxes: int, hint: str) -> DataError:
    return data_error("rows", path, f"{counted(values, 'value')} for {counted(boxes, 'box', 'boxes')}.", hint)


# -- one sequence --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Series:
    """Values with one entry per frame, and the file they are from."""

    path: Path
    values: Floats | NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.values)


class _SequenceReader:
    """Reads the sequence ``name`` by the layout of ``index``; errors and warnings go to ``issues``."""

    def __init__(self, index: FileIndex, name: str, issues: Issues) -> None:
        self.index, self.name, self.issues = index, name, issues
        self.layout = index.layout

    def read(self) -> Sequence | None:
        """Return the sequence, or None where its boxes, flags or images have errors."""
        layout, issues = self.layout, self.issues
        before = len(issues.errors)
        boxes = self._read_boxes()
        images = self._find_images()
        needed = layout.flags_needed and not self.index.split.withheld
        flags = [self._read_digits(files, 1, needed=needed) for files in layout.flags]
        cover = self._read_digits(layout.cover, 8)
        sentence = self._read_sentence()
        attributes = self._read_attributes()
        size = issues.attempt(self._read_size)
        if boxes is None or images is None or len(issues.errors) > before:
            return None
        source, files = images
        series = [boxes, *(one for one in (*flags, cover) if one is not None)]
        files = issues.attempt(self._align, series, files)
        if len(issues.errors) > before:
            return None
        rows = boxes.values[:, :4].astype(np.float64)
        absent = np.asarray(np.isnan(rows).any(axis=1))
        if layout.absent_box == "zero":
            absent |= (rows == 0).all(axis=1)
        elif layout.absent_box == "flat":
            absent |= (rows[:, 2:] <= 0).any(axis=1)
        if layout.rows.lost is not None:
            absent |= boxes.values[:, 4] == 1
        for flag in flags:
            if flag is not None:
                absent |= flag.values == 1
        if cover is not None:
            absent |= cover.values == 0
        if absent.all():
            said = "The target is absent in every frame: no frame counts."
            issues.warn("absent", boxes.path, said, "Look at the boxes.")
        if layout.own:
            if error := _negative_size(boxes.path, rows):
                issues.add(error)
            _warn_of_units(boxes.path, rows[~absent], files or (), issues)
        return Sequence(
            name=self.name,
            source=source,
            files=files,
            boxes=rows,
            absent=absent,
            sentence=sentence,
            attributes=attributes,
            cover=None if cover is None else cover.values.astype(np.float64),
            size=size,
        )

    def _find(self, patterns: Patterns, what: str = "") -> Path | None:
        """Return the file; where there is none, ``what`` is reported as missing."""
        path = self.index.find(patterns, self.name)
        if path is None and what:
            self.issues.error("missing", self.index.expected(patterns, self.name), f"The {what} is missing.")
        return path

    def _read_boxes(self) -> _Series | None:
        """Read x, y, w, h, and the column "lost" where there is one."""
        rows = self.layout.rows
        path = self._find(self.layout.boxes, "file with the boxes")
        columns = rows.box if rows.lost is None else (*rows.box, rows.lost)
        read = self._read_own_boxes if self.layout.own else read_table
        table = None if path is None else self.issues.attempt(read, path, columns)
        if path is None or table is None:
            return None
        if rows.corners:
            table[:, 2:4] -= table[:, :2]
        return _Series(path, table)

    def _read_own_boxes(self, path: Path, _: abc.Sequence[int]) -> Floats:
        found = parse_boxes(read_bytes(path), path)
        if found.form == "polygons":
            said = "Eight values a row are read as the corners of a polygon; the box around it is used."
            self.issues.warn("box", path, said)
        if found.ignored:
            self.issues.warn("columns", path, f"Columns that are not used: {', '.join(found.ignored)[:200]}.")
        found.boxes[found.lost] = 0
        return found.boxes

    def _read_digits(self, patterns: Patterns, high: int, *, needed: bool = False) -> _Series | None:
        path = self._find(patterns, "file with the flags" if needed else "")
        digits = None if path is None else self.issues.attempt(read_digits, path, high)
        return None if path is None or digits is None else _Series(path, digits)

    def _find_images(self) -> tuple[Path, abc.Sequence[Path] | None] | None:
        """Return the source and the images of a folder (None: a video, (): only the annotation)."""
        if not self.layout.frames:
            return self.index.root, ()
        path = self.index.find(self.layout.frames, self.name) or self._find_other_frames()
        if path is None:
            path = self._find(self.layout.frames, "folder of images (or the video)")
            return None
        if path.is_file():
            kinds = {pattern.rpartition(".")[2] for pattern in self.layout.other_frames if "*." in pattern}
            others = [
                other.name
                for other in sorted(path.parent.iterdir())
                if other != path
                and (other.stem == path.stem or other.suffix[1:].lower() in kinds)
                and not other.name.startswith("._")
            ]
            if others:
                self.issues.error("duplicate", path, f"{others[0]!r} is next to it.", "Keep one video.")
            return path, None
        files = list_images(path, self.layout, self.index.spans.get(self.name), self.issues)
        if not files:
            self.issues.error("empty", path, "The folder has no images.", "Unpack the sequence again.")
            return None
        return path, files

    def _find_other_frames(self) -> Path | None:
        """Return the images or the video of a clip of one's own, under any of the usual names."""
        for pattern in self.layout.other_frames:
            path = self.index.find((pattern,), self.name)
            here = path is not None and not pattern.rpartition("/")[2]
            if path is not None and (not here or any(one.suffix.lower() in IMAGE_SUFFIXES for one in path.iterdir())):
                return path
        return None

    def _align(self, series: list[_Series], files: abc.Sequence[Path] | None) -> abc.Sequence[Path] | None:
        """Bring boxes, flags and images to one length as far as the layout allows; return the images.

        Raises ``DataError`` with both counts where they disagree.
        """
        layout, boxes = self.layout, series[0]
        span = self.index.spans.get(self.name)
        if span is not None:  # rows may be counted from the first image of the folder
            for one in series:
                if len(one) == span.last:
                    one.values = one.values[span.first - 1 :]
        if files and layout.rows.rate > 1 and abs(len(boxes) / len(files) - layout.rows.rate) < 1:
            boxes.values = boxes.values[:: layout.rows.rate]
        if self.name in layout.cuts:
            lengths = [len(one) for one in series] + ([len(files)] if files else [])
            count = layout.cuts[self.name] or min(lengths)
            files = files and files[:count]
            for one in series:
                one.values = one.values[:count]
        withheld = self.index.split.withheld and len(boxes) == 1
        for one in series[1:]:
            one.values = one.values[:1] if withheld else one.values
            if len(one) != len(boxes):
                raise _other_count(one.path, len(one), len(boxes), "Every frame needs one; download the file again.")
        if not files or withheld:
            return files
        if 0 < abs(len(files) - len(boxes)) <= layout.rows.slack:
            files = files[: len(boxes)]
            boxes.values = boxes.values[: len(files)]
        if len(files) != len(boxes):
            images = f"{counted(len(files), 'image')} in {files[0].parent}"
            said = f"{counted(len(boxes), 'row')} for the {images}."
            raise data_error("rows", boxes.path, said, "Every frame needs one row; unpack the sequence again.")
        return files

    def _read_attributes(self) -> tuple[str, ...]:
        """Return the short names of the attributes that are set."""
        names = self.layout.attributes
        found = self._read_digits(self.layout.attribute_files, 9)
        if found is None:
            return ()
        if len(found) != len(names):
            said = f"{counted(len(found), 'flag')}, {len(names)} needed ({' '.join(names)})."
            self.issues.error("rows", found.path, said)
            return ()
        return tuple(name for name, flag in zip(names, found.values, strict=True) if flag)

    def _read_size(self) -> tuple[int, int] | None:
        """Read (width, height) from meta_info.ini, where there is one. Raises ``DataError``."""
        path = self._find(self.layout.sentence) if self.layout.sentence_form == "meta" else None
        text = None if path is None else _read_meta(path).get("resolution")
        if text is None:
            return None
        numbers = re.findall(r"\d+", text)
        if len(numbers) != 2:
            raise data_error("text", path, f"Resolution is {text[:40]!r}, not (width, height).")
        return int(numbers[0]), int(numbers[1])

    def _read_sentence(self) -> str:
        """Read the sentence; "" with a warning where it should be there and is missing or empty.

        A sentence that is only numbers (boxes that were pasted into the wrong file) is a warning, too.
        """
        layout, issues = self.layout, self.issues
        if not layout.sentence:
            return ""
        path = self._find(layout.sentence)
        if path is None:
            if not layout.own:
                where = self.index.expected(layout.sentence, self.name)
                issues.warn("sentence", where, "The sentence is missing.")
            return ""
        sentence = issues.attempt(_SENTENCE_READERS[layout.sentence_form], path)
        if sentence is None:
            return ""
        if not sentence:
            issues.warn("sentence", path, "The sentence is empty.", "Modes with language cannot start from it.")
        elif _ONLY_NUMBERS.fullmatch(sentence):
            issues.warn("sentence", path, f"The sentence is only numbers: {sentence[:40]!r}.", "Look at the file.")
        return sentence


# -- sentences -----------------------------------------------------------------------------------------------

_ONLY_NUMBERS = re.compile(r"[\d\s.,;:+\-]*(nan[\d\s.,;:+\-]*)*", re.IGNORECASE)
_MGIT_COLUMN = 14
_SHEET_BYTES = 32 << 20


def _read_meta(path: Path) -> dict[str, str]:
    """Read the "key: value" lines of a meta_info.ini. Raises ``DataError``."""
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
    meta = _read_meta(path)
    return " ".join(meta[key] for key in META_KEYS if meta.get(key))


def _from_sheet(path: Path) -> str:
    """Read column 14 in the last row of an .xlsx table: the sentence of the whole video (MGIT)."""
    try:
        from openpyxl import load_workbook  # type: ignore[import-untyped]
        from openpyxl.utils.exceptions import InvalidFileException  # type: ignore[import-untyped]
    except ImportError as error:
        said = "The sentences of MGIT are tables, and openpyxl is not installed."
        raise data_error("extra", path, said, "Install it: pip install 'vltrack[mgit]'") from error
    try:
        with open_limited(path, _SHEET_BYTES) as file:
            with open_zip(file) as archive:  # a table of text is small; a zip bomb is not
                size = sum(part.file_size for part in archive.infolist())
                if size > _SHEET_BYTES:
                    said = f"{size:,} unpacked bytes are too many for a table of sentences."
                    raise data_error("size", path, said)
                for part in archive.infolist():
                    read_member(archive, part)  # fails where a part is larger than the archive says
            book = load_workbook(file, read_only=True, data_only=True)
            table = book.worksheets[0].iter_rows(max_row=10_000, max_col=_MGIT_COLUMN + 1, values_only=True)
            rows = [row for row in table if any(value is not None for value in row)]
            book.close()
    except (LookupError, ValueError, InvalidFileException, ParseError, *ZIP_DAMAGE) as error:
        raise data_error("text", path, f"Not an .xlsx table ({error}).") from error
    if not rows or len(rows[-1]) <= _MGIT_COLUMN:
        return ""
    return str(rows[-1][_MGIT_COLUMN] or "").strip()


_SENTENCE_READERS: Mapping[str, Callable[[Path], str]] = {
    "line": _first_line,
    "text": _whole_text,
    "meta": _from_meta,
    "sheet": _from_sheet,
}


# -- pysot's JSON annotation of a test set -------------------------------------------------------------------
#
# Of each video: ``gt_rect`` (rows of x, y, w, h, NaN where UAV123 has none), ``img_names``, and optionally
# ``attr`` (names of attributes) and ``absent`` (1 = the target is visible). Images next to the file are used.

_PYSOT = "A pysot file has gt_rect and img_names for each video."


def _read_pysot(path: Path, layout: Layout, issues: Issues) -> list[Sequence]:
    """Read the sequences of a file, in its order; errors go to ``issues``."""
    sequences: list[Sequence] = []
    others = []
    try:
        for name, video in walk_json(path, nan=True):
            if not re.fullmatch(layout.names, name):
                others.append(name)
                continue
            sequence = issues.attempt(_pysot_sequence, path, layout, name, video)
            sequences += [] if sequence is None else [sequence]
    except DataError as error:  # invalid JSON: what was read before it may be wrong as well
        issues.error("json", path, error.message.removeprefix(f"{path} "), error.hint)
        return []
    if others:
        said = f"{counted(len(others), 'sequence')} not of {layout.title} left out: {', '.join(others[:3])[:200]}."
        issues.warn("names", path, said, "Is it the annotation of another data set?")
    if not sequences and not issues.errors:
        issues.error("empty", path, f"The file has no videos of {layout.title}.", _PYSOT)
    return sequences


def _pysot_sequence(path: Path, layout: Layout, name: str, video: Any) -> Sequence:
    if not is_safe(name):
        raise data_error("name", path, f"Invalid sequence name: {name[:80]!r}.")
    if not isinstance(video, dict):
        raise data_error("json", path, f"{name!r} is not an object.", _PYSOT)
    boxes = _numbers(video.get("gt_rect"))
    if not isinstance(boxes, np.ndarray) or boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        said = boxes if isinstance(boxes, str) else "no rows of four numbers"
        raise data_error("json", path, f"gt_rect of {name!r} has {said}.", _PYSOT)
    visible = None if video.get("absent") is None else _numbers(video["absent"])
    if visible is None:
        absent = np.isnan(boxes).any(axis=1) | (boxes[:, 2:] <= 0).any(axis=1)
    elif isinstance(visible, np.ndarray) and visible.shape == (len(boxes),):
        absent = visible == 0
    else:
        said = f"absent of {name!r} does not have one number for each of {len(boxes)} boxes."
        raise data_error("rows", path, said, _PYSOT)
    titles = video.get("attr")
    if not isinstance(titles, list) or not all(isinstance(title, str) for title in titles):
        titles = []
    return Sequence(
        name=name,
        source=path,
        files=_pysot_images(path, name, video.get("img_names"), len(boxes)),
        boxes=boxes,
        absent=np.asarray(absent),
        attributes=tuple(_short_name(title, layout.attributes) for title in titles),
    )


def _numbers(rows: Any) -> Floats | str:
    """Return the rows as an array, or what is wrong with them."""
    if not isinstance(rows, list):
        return "no rows"
    flat = [value for row in rows for value in (row if isinstance(row, list) else [row])]
    if not all(type(value) in (int, float) for value in flat):
        return "a value that is not a number"
    try:
        table = np.array(rows, dtype=np.float64)
    except (ValueError, OverflowError):
        return "rows of different length"
    return "an infinite number" if np.isinf(table).any() else table


def _pysot_images(path: Path, name: str, names: Any, count: int) -> tuple[Path, ...]:
    """Return the images, if they are next to the annotation; else ()."""
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise data_error("json", path, f"img_names of {name!r} is not a list of names.", _PYSOT)
    if len(names) != count:
        said = f"{name!r} has {counted(count, 'box', 'boxes')} for {counted(len(names), 'image')}."
        raise data_error("rows", path, said, _PYSOT)
    if unsafe := [one for one in names if not all(map(is_safe, one.split("/")))]:
        raise data_error("name", path, f"Image of {name!r} outside the folder: {unsafe[0][:80]!r}.", _PYSOT)
    files = tuple(path.parent / PurePosixPath(one) for one in names)
    return files if files[0].is_file() else ()


def _short_name(title: str, known: tuple[str, ...]) -> str:
    """Return the short name of an attribute: SV for "Scale Variation", FOC for "Full Occlusion"."""
    words = [word for word in title.replace("-", " ").split() if word != "of"]
    initials = "".join(word[0] for word in words).upper() if len(words) > 1 else title[:3].upper()
    if title in known or initials in known:
        return title if title in known else initials
    longer = [one for one in known if one.startswith(initials)]
    return longer[0] if len(longer) == 1 else initials
