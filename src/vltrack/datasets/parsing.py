"""Issues of a data set, and strict readers of numbers, flags and names in its text files.

Accepted: commas, tabs, spaces or several of them between numbers, one separator at the end of a row, Unix and
Windows line ends, a byte order mark, empty lines at the end, "nan". Anything else is an error that names
file:line:column. Good files go through numpy's C reader; only where that fails, or would drop a line (it
drops empty ones), is a file parsed row by row.
"""

from __future__ import annotations

import codecs
import errno
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.files import counted, printable, read_limited
from vltrack.core.types import Floats

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Issue:
    """One error or warning about a data set.

    Attributes:
        kind: short name, the same for issues of one sort ("rows", "text", "sentence", ...).
        severity: "error" stops strict reading, "warning" does not.
        where: file, file:line or file:line:column, or the folder.
        message: what is wrong there.
        hint: what to do.
    """

    kind: str
    severity: Literal["error", "warning"]
    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.message}")


def data_error(kind: str, where: object, message: str, hint: str = "") -> DataError:
    """Return the exception for one issue; ``Issues.attempt`` turns it back into the issue."""
    issue = Issue(kind=kind, severity="error", where=str(where), message=message, hint=hint)
    return DataError(str(issue), hint=hint, issue=issue)


@dataclass(slots=True)
class Issues:
    """Issues that were found while reading went on."""

    found: list[Issue] = field(default_factory=list)

    def error(self, kind: str, where: object, message: str, hint: str = "") -> None:
        """Add an error."""
        self.found.append(Issue(kind=kind, severity="error", where=str(where), message=message, hint=hint))

    def warn(self, kind: str, where: object, message: str, hint: str = "") -> None:
        """Add a warning."""
        self.found.append(Issue(kind=kind, severity="warning", where=str(where), message=message, hint=hint))

    def add(self, error: DataError) -> None:
        """Add the issue of an exception."""
        issue = error.context.get("issue")
        if not isinstance(issue, Issue):
            issue = Issue(kind="data", severity="error", where="", message=error.message, hint=error.hint)
        self.found.append(issue)

    def attempt(self, read: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Return what ``read`` returns, or None where it raises ``DataError``, which is added."""
        try:
            return read(*args, **kwargs)
        except DataError as error:
            self.add(error)
            return None

    @property
    def errors(self) -> list[Issue]:
        """The issues that stop strict reading."""
        return [issue for issue in self.found if issue.severity == "error"]

    @property
    def warnings(self) -> list[Issue]:
        """The issues that do not stop strict reading."""
        return [issue for issue in self.found if issue.severity == "warning"]

    def raise_errors(self, remedy: str) -> None:
        """Raise ``DataError`` that names the first error and counts the others, if there are errors."""
        errors = self.errors
        if not errors:
            return
        others = len(errors) - 1
        more = f" (and {counted(others, 'more issue')})" if others else ""
        hint = f"{errors[0].hint} {remedy if others else ''}".strip() or remedy
        raise DataError(f"{errors[0]}{more}", hint=hint, issues=tuple(errors))


BOX = (0, 1, 2, 3)
"""Columns of x, y, w, h."""
MAX_BYTES = 256 * 2**20
_LINE_BYTES, _LINES = 1 << 20, 3_000_000
_BOM = b"\xef\xbb\xbf"
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|[+-]?nan", re.ASCII | re.IGNORECASE)
_FIELD = re.compile(r"[^\s,]+")
_UNSAFE = re.compile(r"[/\\:\x00-\x1f\x7f]")
_ROW = "Write one row per frame, numbers separated by commas, tabs or spaces."
_SEPARATORS = np.frombuffer(b", \t\r\n", dtype=np.uint8)


def is_safe(name: str) -> bool:
    """Return whether ``name`` can be part of a path on every system without leaving its folder."""
    return bool(name) and name not in (".", "..") and not _UNSAFE.search(name)


def read_bytes(path: Path) -> bytes:
    """Read a file. Raises ``DataError`` where it cannot be read, is not a regular file or is larger than 256 MiB."""
    try:
        return read_limited(path, MAX_BYTES)
    except OSError as error:
        kind = "size" if error.errno == errno.EFBIG else "unreadable"
        raise data_error(kind, path, f"Cannot be read ({error.strerror}).", "Check the file.") from error


def decode(data: bytes, where: object) -> str:
    """Decode UTF-8 text, or UTF-16 with a byte order mark, without the mark.

    Raises ``DataError`` that names the first wrong byte, or a line or a number of lines beyond any annotation.
    """
    if len(data) > _LINE_BYTES:
        if (lines := data.count(b"\n")) > _LINES:
            raise data_error("size", where, f"{lines:,} lines are more than annotations have.", "Check the file.")
        ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n"))
        if (longest := int(np.diff(ends, prepend=-1, append=len(data)).max())) > _LINE_BYTES:
            raise data_error("size", where, f"A line of {longest:,} bytes is too long.", "Check the file.")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise data_error("encoding", where, "Begins as UTF-16 and is damaged.", "Save it as UTF-8.") from error
    data = data.removeprefix(_BOM)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise data_error(
            "encoding",
            f"{where}:{line}:{column}",
            f"Byte 0x{data[error.start]:02X} is not UTF-8.",
            "Save the file as UTF-8 (it may be GBK or Latin-1).",
        ) from error


def read_table(path: Path, columns: Sequence[int] = BOX) -> Floats:
    """Read columns of a text table as (R, len(columns)) float64; NaN is kept.

    Where the columns are not simply the first ones, others may follow, also text; else none may.
    Raises ``DataError`` that names file:line:column.
    """
    return parse_table(read_bytes(path), path, columns)


def parse_table(data: bytes, where: object, columns: Sequence[int] = BOX) -> Floats:
    """Parse ``data`` as ``read_table`` does; ``where`` names it in errors."""
    return _parse(decode(data, where).rstrip(), where, columns)


def _parse(text: str, where: object, columns: Sequence[int], *, more: bool = False, line: int = 1) -> Floats:
    """Parse rows of which the first is ``line``; with ``more``, other columns may follow the first ones."""
    if not text:
        raise data_error("empty", where, "The file has no row.", _ROW)
    table = _parse_fast(text, columns, more)
    return _parse_rows(text, where, columns, more, line) if table is None else table


def _parse_fast(text: str, columns: Sequence[int], more: bool = False) -> Floats | None:
    """Parse with numpy's reader; None where the file needs a closer look."""
    head = text.partition("\n")[0]
    comma = "," in head
    if not text.isascii() or not _fits(len(_FIELD.findall(head)), columns, more) or (not comma and "," in text):
        return None
    try:
        table: Floats = np.loadtxt(
            io.StringIO(text),
            delimiter="," if comma else None,
            comments=None,
            usecols=tuple(columns) if more or not _are_first(columns) else None,
            ndmin=2,
        )
    except ValueError:
        return None
    good = table.shape == (text.count("\n") + 1, len(columns)) and not np.isinf(table).any()
    return table if good else None


def _are_first(columns: Sequence[int]) -> bool:
    return list(columns) == list(range(len(columns)))


def _fits(count: int, columns: Sequence[int], more: bool) -> bool:
    """Return whether a row of ``count`` values has the columns, and no others where none may follow."""
    return count > max(columns) if more or not _are_first(columns) else count == len(columns)


def _parse_rows(text: str, where: object, columns: Sequence[int], more: bool = False, line: int = 1) -> Floats:
    """Parse row by row; the first mistake is named by line and column."""
    lines = text.splitlines()
    table = np.empty((len(lines), len(columns)))
    for number, row in enumerate(lines, line):
        fields = list(_FIELD.finditer(row))
        if not _fits(len(fields), columns, more):
            said = f"Row {row.strip()[:60]!r} has {counted(len(fields), 'value')}"
            said = f"{said if row.strip() else 'Empty line'}, {max(columns) + 1} needed."
            raise data_error("text", f"{where}:{number}", said, _ROW)
        missing = re.search(r",\s*,", row)
        if missing or row.lstrip().startswith(","):
            spot = f"{where}:{number}:{missing.end() if missing else 1}"
            raise data_error("text", spot, f"A value is missing in {row.strip()[:60]!r}.", _ROW)
        for k, column in enumerate(columns):
            found = fields[column]
            value = float(found[0]) if _NUMBER.fullmatch(found[0]) else np.inf
            if np.isinf(value):
                spot = f"{where}:{number}:{found.start() + 1}"
                raise data_error("text", spot, f"{found[0][:40]!r} is not a number.", _ROW)
            table[number - line, k] = value
    return table


# -- boxes as people write them -------------------------------------------------------------------------------

_HEADS = {
    "x": "x left xmin x_min x1 xtl bb_left bbox_x", "y": "y top ymin y_min y1 ytl bb_top bbox_y",
    "w": "w width bb_width bbox_w", "h": "h height bb_height bbox_h", "x2": "x2 xmax x_max right xbr",
    "y2": "y2 ymax y_max bottom ybr", "frame": "frame frame_id frame_index frame_number index",
    "lost": "lost", "absent": "absent absence", "occluded": "occluded full_occlusion fully_occluded",
    "out": "out_of_view outofview out_of_frame", "visible": "visible present",
}  # fmt: skip
_COLUMNS = {name: column for column, names in _HEADS.items() for name in names.split()}
_FLAGS = ("lost", "absent", "occluded", "out", "visible")
_TRUTH = {"true": "1", "false": "0"}
_DECIMAL_COMMAS = re.compile(r"(?:[+-]?\d+(?:,\d+)?\s+){3}[+-]?\d+(?:,\d+)?\s*", re.ASCII)
_PAIRS = re.compile(r"\s*([+-]?\d+,\d+\s*,\s+){3}[+-]?\d+,\d+\s*", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxTable:
    """Boxes of a file.

    Attributes:
        boxes: (R, 4) x, y, w, h.
        frames: (R,) frame numbers where a column has them, else None.
        lost: (R,) whether a column says that the target is absent.
        form: how the boxes are written, where that is not x,y,w,h.
        ignored: columns that the header names and that are not used.
    """

    boxes: Floats
    frames: NDArray[np.int64] | None
    lost: NDArray[np.bool_]
    form: str = ""
    ignored: tuple[str, ...] = ()


def parse_boxes(data: bytes, where: object) -> BoxTable:
    """Parse boxes with any usual separator, also ";" and decimal commas, lines of "#" and a header.

    Without a header: x,y,w,h; a frame number in front of them, and 0 or 1 (the target is lost) after them; or four
    corners of a polygon, of which the box around it is taken. With one: columns such as "frame", "lost" (1) and
    "visible" (0) too. Raises ``DataError`` that names file:line:column.
    """
    lines = decode(data, where).rstrip().splitlines()
    begin = next((k for k, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    first = lines[begin] if begin < len(lines) else ""
    if ";" in first:
        lines = [line.replace(",", ".").replace(";", ",") for line in lines]
    elif "," in first and (_DECIMAL_COMMAS.fullmatch(first) or _PAIRS.fullmatch(first)):
        if _PAIRS.fullmatch(first) or ("\t" not in first and first.count(",") == 4):
            said = f"{first.strip()[:60]!r} may have decimal commas, or be the corners of a polygon."
            hint = "Write decimals with a point, corners with commas alone."
            raise data_error("text", f"{where}:{begin + 1}", said, hint)
        lines = [line.replace(",", ".") for line in lines]
    first = lines[begin] if begin < len(lines) else ""
    if first and not any(map(_NUMBER.fullmatch, _FIELD.findall(first))):
        return _parse_named(lines[begin + 1 :], first, where, begin + 1)
    count = len(_FIELD.findall(first))
    table = _parse("\n".join(lines[begin:]), where, range(count if count in (4, 5, 6, 8) else 4), line=begin + 1)
    if count == 8:
        corners = table.reshape(-1, 4, 2)
        low = corners.min(axis=1)
        boxes = np.concatenate([low, corners.max(axis=1) - low], axis=1)
        return BoxTable(boxes=boxes, frames=None, lost=np.zeros(len(boxes), dtype=np.bool_), form="polygons")
    has_lost = count == 6 or (count == 5 and bool(np.isin(table[:, 4], (0, 1)).all()))
    frames = _frames(table[:, 0], f"{where}:{begin + 1}") if count - has_lost == 5 else None
    boxes = table[:, 1:5] if frames is not None else table[:, :4]
    lost = table[:, -1] == 1 if has_lost else np.zeros(len(table), dtype=np.bool_)
    return BoxTable(boxes=np.ascontiguousarray(boxes), frames=frames, lost=lost)


def _parse_named(lines: list[str], header: str, where: object, line: int) -> BoxTable:
    """Parse the rows below a ``header``, which is in ``line``."""
    at, names, form = _header(header, f"{where}:{line}")
    wanted = ["x", "y", *(("w", "h") if form == "header" else ("x2", "y2"))]
    flags = [name for name in _FLAGS if name in at]
    wanted += [*flags, *(["frame"] if "frame" in at else [])]
    text = "\n".join(lines)
    if flags:
        text = re.sub(r"\b(true|false)\b", lambda word: _TRUTH[word[0].lower()], text, flags=re.IGNORECASE)
    table = _parse(text, where, [at[name] for name in wanted], more=True, line=line + 1)
    boxes = np.ascontiguousarray(table[:, :4])
    if form == "corners":
        boxes[:, 2:] -= boxes[:, :2]
    lost = np.zeros(len(table), dtype=np.bool_)
    for flag, values in zip(flags, table[:, 4 : 4 + len(flags)].T, strict=True):
        if flag != "visible" and not (known := np.isin(values, (0, 1))).all():
            row = int(np.argmin(known))
            said = f"{values[row]:g} in column {names[at[flag]]!r} is not 0 or 1."
            raise data_error("text", f"{where}:{line + 1 + row}", said, "Correct it, or leave the column out.")
        lost |= values == (flag != "visible")
    frames = _frames(table[:, -1], f"{where}:{line + 1}") if "frame" in at else None
    ignored = tuple(name for k, name in enumerate(names) if name and k not in {at[name] for name in wanted})
    return BoxTable(boxes=boxes, frames=frames, lost=lost, form=form, ignored=ignored)


def _header(line: str, where: str) -> tuple[dict[str, int], list[str], str]:
    """Return the places of the known columns, the names of all, and the form of the boxes."""
    cells = line.split(",") if "," in line else line.split()
    names = [re.sub(r"\W+", "_", cell.strip().casefold()).strip("_") for cell in cells]
    if "target" in names:
        said = "The table has several targets; one file per sequence is needed."
        raise data_error("text", where, said, "Split it by its first column.")
    at = {_COLUMNS[name]: k for k, name in reversed(list(enumerate(names))) if name in _COLUMNS}
    for form, wanted in (("header", "x y w h"), ("corners", "x y x2 y2")):
        if all(name in at for name in wanted.split()):
            return at, names, form
    raise data_error("text", where, f"The header {line.strip()[:60]!r} does not name x, y, w and h.", _ROW)


def _frames(values: Floats, where: str) -> NDArray[np.int64]:
    frames = np.nan_to_num(values, nan=-1, posinf=-1).clip(-1, 1 << 53).astype(np.int64)
    if (frames != values).any() or (np.diff(frames) < 1).any() or frames[0] < 0:
        said = "The first of five or more values should be a frame number that rises."
        raise data_error("text", where, said, _ROW)
    return frames


def read_digits(path: Path, high: int = 1) -> NDArray[np.uint8]:
    """Read digits 0 to ``high`` <= 9, one per line or all in one line, as (N,) uint8.

    Raises ``DataError`` that names file:line:column of the first other value.
    """
    data = read_bytes(path).removeprefix(_BOM)
    raw = np.frombuffer(data, dtype=np.uint8)
    digit = (raw >= ord("0")) & (raw <= ord("0") + high)
    separated = not (digit[1:] & digit[:-1]).any()
    if separated and (digit | np.isin(raw, _SEPARATORS)).all():
        return raw[digit] - ord("0")
    values = []
    for number, line in enumerate(decode(data, path).splitlines(), 1):
        for found in _FIELD.finditer(line):
            value = float(found[0]) if _NUMBER.fullmatch(found[0]) else -1.0
            if value not in range(high + 1):
                said = f"{found[0][:40]!r} is not in 0..{high}."
                raise data_error("text", f"{path}:{number}:{found.start() + 1}", said, "Correct the value.")
            values.append(int(value))
    return np.array(values, dtype=np.uint8)


def read_names(path: Path) -> list[str]:
    """Read the lines of a list, stripped, without empty ones at the end of the file.

    Raises ``DataError`` where the file is not UTF-8 or cannot be read.
    """
    return [line.strip() for line in decode(read_bytes(path), path).rstrip().splitlines()]
