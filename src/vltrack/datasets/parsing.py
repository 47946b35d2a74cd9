"""Numbers, flags and sentences in text files. Knows separators, encodings and where a mistake stands; knows
no data set.

Accepted: commas, tabs, spaces or several of them between numbers, one separator at the end of a row, Unix and
Windows line ends, a byte order mark, empty lines at the end, "nan". Anything else is an error that names
file:line:column. Good files go through numpy's C reader; only where that fails, or would drop a line (it
drops empty ones), is a file read with care.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.files import counted, printable
from vltrack.core.json_io import read_json
from vltrack.datasets.layout import Span

# MERGED datasets/parsing.py
# What is wrong with a data set: single issues and the list that collects them. Knows no file format.


Severity = Literal["error", "warning"]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Issue:
    """One thing that is wrong.

    Attributes:
        kind: short name, the same for issues of one sort ("rows", "text", "sentence", ...).
        severity: "error" stops strict reading; "warning" is told and does not stop it.
        where: file, file:line or file:line:column, or the folder.
        message: what was found there.
        hint: what to do.
    """

    kind: str
    severity: Severity
    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{printable(self.where)}: {printable(self.message)}"


def data_error(kind: str, where: object, message: str, hint: str = "") -> DataError:
    """The error that a reader raises for one issue; ``Issues.attempt`` turns it into the issue."""
    return DataError(f"{printable(str(where))}: {printable(message)}", hint=hint, kind=kind, where=str(where))


@dataclass(slots=True)
class Issues:
    """Collects issues while reading goes on."""

    found: list[Issue] = field(default_factory=list)

    def error(self, kind: str, where: object, message: str, hint: str = "") -> None:
        """Note something that stops strict reading."""
        self.found.append(Issue(kind=kind, severity="error", where=str(where), message=message, hint=hint))

    def warn(self, kind: str, where: object, message: str, hint: str = "") -> None:
        """Note something that a reader has to know and can live with."""
        self.found.append(Issue(kind=kind, severity="warning", where=str(where), message=message, hint=hint))

    def attempt(self, read: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What ``read`` returns, or None where it raises ``DataError``: then that is a issue."""
        try:
            return read(*args, **kwargs)
        except DataError as error:
            where = str(error.context.get("where", ""))
            message = error.message.removeprefix(f"{printable(where)}: ")
            self.error(str(error.context.get("kind", "data")), where, message, error.hint)
            return None

    @property
    def errors(self) -> list[Issue]:
        """Those that stop strict reading."""
        return [issue for issue in self.found if issue.severity == "error"]

    @property
    def warnings(self) -> list[Issue]:
        """Those that do not."""
        return [issue for issue in self.found if issue.severity == "warning"]

    def raise_errors(self, remedy: str) -> None:
        """Raises ``DataError`` that names the first error and counts the others; nothing where none is."""
        errors = self.errors
        if not errors:
            return
        others = len(errors) - 1
        more = f" (and {counted(others, 'more issue')})" if others else ""
        hint = f"{errors[0].hint} {remedy if others else ''}".strip() or remedy
        raise DataError(f"{errors[0]}{more}", hint=hint, issues=tuple(errors))


BOX = (0, 1, 2, 3)  # the columns of x, y, w, h
MAX_BYTES = 256 * 2**20
_BOM = b"\xef\xbb\xbf"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?nan", re.ASCII | re.IGNORECASE)
_FIELD = re.compile(r"[^\s,]+")
_UNSAFE = re.compile(r"[/\\:\x00-\x1f\x7f]")
_ROW = "Write one row a frame, numbers between commas, tabs or spaces."
_SEPARATORS = np.frombuffer(b", \t\r\n", dtype=np.uint8)


def is_safe(name: str) -> bool:
    """Whether a name can be part of a path on every system without leaving its folder."""
    return bool(name) and name not in (".", "..") and not _UNSAFE.search(name)


def read_bytes(path: Path) -> bytes:
    """All bytes of a file. Raises ``DataError`` where it cannot be read or is larger than 256 MiB."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise data_error("size", path, f"{size:,} bytes are no annotation.", "Check the file.")
        return path.read_bytes()
    except OSError as error:
        raise data_error(
            "unreadable", path, f"cannot be read ({error.strerror}).", "Check the file."
        ) from error


def decode(data: bytes, where: object) -> str:
    """UTF-8 text without byte order mark. Raises ``DataError`` that names the first wrong byte."""
    data = data.removeprefix(_BOM)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        raise data_error(
            "encoding",
            f"{where}:{line}:{column}",
            f"byte 0x{data[error.start]:02X} is not UTF-8.",
            "Save the file as UTF-8 (it may be GBK or Latin-1).",
        ) from error


def read_table(path: Path, columns: Sequence[int] = BOX) -> NDArray[np.float64]:
    """Columns of a text table, (R, len(columns)) float64, NaN kept.

    Where only some columns are read, there may be more behind them, words too; else there may be no more.
    Raises ``DataError`` that names file:line:column.
    """
    return parse_table(read_bytes(path), path, columns)


def parse_table(data: bytes, where: object, columns: Sequence[int] = BOX) -> NDArray[np.float64]:
    """As ``read_table``, from bytes; ``where`` is what an error calls them."""
    text = decode(data, where).rstrip()
    if not text:
        raise data_error("empty", where, "has no row.", _ROW)
    table = _quick(text, columns)
    return _careful(text, where, columns) if table is None else table


def _quick(text: str, columns: Sequence[int]) -> NDArray[np.float64] | None:
    """The table where the file is in good order, else None."""
    head = text[: text.find("\n")] if "\n" in text else text
    comma = "," in head
    count = len(_FIELD.findall(head))
    if not text.isascii() or not _is_wide(count, columns) or (not comma and "," in text):
        return None
    usecols = None if _is_whole(columns) else tuple(columns)
    try:
        table: NDArray[np.float64] = np.loadtxt(
            io.StringIO(text), delimiter="," if comma else None, comments=None, usecols=usecols, ndmin=2
        )
    except ValueError:
        return None
    good = table.shape == (text.count("\n") + 1, len(columns)) and not np.isinf(table).any()
    return table if good else None


def _is_whole(columns: Sequence[int]) -> bool:
    return list(columns) == list(range(len(columns)))


def _is_wide(count: int, columns: Sequence[int]) -> bool:
    """Whether a row of ``count`` fields has the columns, and no more where all are wanted."""
    return count == len(columns) if _is_whole(columns) else count > max(columns)


def _careful(text: str, where: object, columns: Sequence[int]) -> NDArray[np.float64]:
    """Row by row; the first mistake is named by line and column."""
    table = np.empty((len(lines := text.splitlines()), len(columns)))
    for number, line in enumerate(lines, 1):
        fields = list(_FIELD.finditer(line))
        if not _is_wide(len(fields), columns):
            said = "an empty line" if not line.strip() else f"{line.strip()[:60]!r} has {len(fields)} values"
            raise data_error("text", f"{where}:{number}", f"{said}, {max(columns) + 1} are needed.", _ROW)
        empty = re.search(r",\s*,", line)
        if empty or line.lstrip().startswith(","):
            column = (empty.end() if empty else 1) + 0
            raise data_error("text", f"{where}:{number}:{column}", "a value is missing.", _ROW)
        for k, column in enumerate(columns):
            found = fields[column]
            value = float(found[0]) if _NUMBER.fullmatch(found[0]) else np.inf
            if np.isinf(value):
                spot = f"{where}:{number}:{found.start() + 1}"
                raise data_error("text", spot, f"{found[0][:40]!r} is not a number.", _ROW)
            table[number - 1, k] = value
    return table


def read_digits(path: Path, high: int = 1) -> NDArray[np.uint8]:
    """Small whole numbers 0 .. ``high`` <= 9, one a line or all in one line, as (N,) uint8.

    Raises ``DataError`` that names file:line:column of the first other value.
    """
    data = read_bytes(path).removeprefix(_BOM)
    raw = np.frombuffer(data, dtype=np.uint8)
    digit = (raw >= ord("0")) & (raw <= ord("0") + high)
    alone = not (digit[1:] & digit[:-1]).any()
    if alone and (digit | np.isin(raw, _SEPARATORS)).all():
        return raw[digit] - ord("0")
    values = []
    for number, line in enumerate(decode(data, path).splitlines(), 1):
        for found in _FIELD.finditer(line):
            value = float(found[0]) if _NUMBER.fullmatch(found[0]) else -1.0
            if value not in range(high + 1):
                spot = f"{path}:{number}:{found.start() + 1}"
                raise data_error(
                    "text", spot, f"{found[0][:40]!r} is not in 0..{high}.", "Correct the value."
                )
            values.append(int(value))
    return np.array(values, dtype=np.uint8)


def read_names(path: Path) -> list[str]:
    """The lines of a list, without white space at their ends and without empty ones at the end of the file.

    Raises ``DataError`` where it is not UTF-8 or cannot be read.
    """
    return [line.strip() for line in decode(read_bytes(path), path).rstrip().splitlines()]


# MERGED datasets/parsing.py
# Which images belong to which sequence, from the file that a toolkit keeps of it. Knows that one format.


def read_spans(path: Path, title: str) -> Mapping[str, Span]:
    """The parts of the set called ``title``: start_frame, end_frame and folder_name of each sequence.

    Raises ``DataError`` that names the sequence at fault.
    """
    sets = read_json(path)
    parts = sets.get(title) if isinstance(sets, dict) else None
    if not isinstance(parts, dict):
        return {}
    return {name: _span(path, name, part) for name, part in parts.items()}


def _span(path: Path, name: str, part: Any) -> Span:
    fields = part if isinstance(part, dict) else {}
    first, last, folder = (fields.get(key) for key in ("start_frame", "end_frame", "folder_name"))
    if not (type(first) is type(last) is int and isinstance(folder, str) and is_safe(folder)):
        raise data_error("json", path, f"{name}: not start_frame, end_frame and folder_name.")
    return Span(first=first, last=last, folder=folder)
