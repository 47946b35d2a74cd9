"""Issues of a data set, and strict readers of numbers, flags and names in its text files.

Accepted: commas, tabs, spaces or several of them between numbers, one separator at the end of a row, Unix and
Windows line ends, a byte order mark, empty lines at the end, "nan". Anything else is an error that names
file:line:column. Good files go through numpy's C reader; only where that fails, or would drop a line (it
drops empty ones), is a file parsed row by row.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.files import counted, printable
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
_BOM = b"\xef\xbb\xbf"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?nan", re.ASCII | re.IGNORECASE)
_FIELD = re.compile(r"[^\s,]+")
_UNSAFE = re.compile(r"[/\\:\x00-\x1f\x7f]")
_ROW = "Write one row per frame, numbers separated by commas, tabs or spaces."
_SEPARATORS = np.frombuffer(b", \t\r\n", dtype=np.uint8)


def is_safe(name: str) -> bool:
    """Return whether ``name`` can be part of a path on every system without leaving its folder."""
    return bool(name) and name not in (".", "..") and not _UNSAFE.search(name)


def read_bytes(path: Path) -> bytes:
    """Read a file. Raises ``DataError`` where it cannot be read or is larger than 256 MiB."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            said = f"{size:,} bytes are more than the limit of {MAX_BYTES:,} for annotations."
            raise data_error("size", path, said, "Check the file.")
        return path.read_bytes()
    except OSError as error:
        raise data_error("unreadable", path, f"Cannot be read ({error.strerror}).", "Check the file.") from error


def decode(data: bytes, where: object) -> str:
    """Decode UTF-8 text without its byte order mark. Raises ``DataError`` that names the first wrong byte."""
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
    text = decode(data, where).rstrip()
    if not text:
        raise data_error("empty", where, "The file has no row.", _ROW)
    table = _parse_fast(text, columns)
    return _parse_rows(text, where, columns) if table is None else table


def _parse_fast(text: str, columns: Sequence[int]) -> Floats | None:
    """Parse with numpy's reader; None where the file needs a closer look."""
    head = text.partition("\n")[0]
    comma = "," in head
    if not text.isascii() or not _fits(len(_FIELD.findall(head)), columns) or (not comma and "," in text):
        return None
    try:
        table: Floats = np.loadtxt(
            io.StringIO(text),
            delimiter="," if comma else None,
            comments=None,
            usecols=None if _are_first(columns) else tuple(columns),
            ndmin=2,
        )
    except ValueError:
        return None
    good = table.shape == (text.count("\n") + 1, len(columns)) and not np.isinf(table).any()
    return table if good else None


def _are_first(columns: Sequence[int]) -> bool:
    return list(columns) == list(range(len(columns)))


def _fits(count: int, columns: Sequence[int]) -> bool:
    """Return whether a row of ``count`` values has the columns, and no others where none may follow."""
    return count == len(columns) if _are_first(columns) else count > max(columns)


def _parse_rows(text: str, where: object, columns: Sequence[int]) -> Floats:
    """Parse row by row; the first mistake is named by line and column."""
    lines = text.splitlines()
    table = np.empty((len(lines), len(columns)))
    for number, line in enumerate(lines, 1):
        fields = list(_FIELD.finditer(line))
        if not _fits(len(fields), columns):
            said = f"Row {line.strip()[:60]!r} has {counted(len(fields), 'value')}"
            said = f"{said if line.strip() else 'Empty line'}, {max(columns) + 1} needed."
            raise data_error("text", f"{where}:{number}", said, _ROW)
        missing = re.search(r",\s*,", line)
        if missing or line.lstrip().startswith(","):
            spot = f"{where}:{number}:{missing.end() if missing else 1}"
            raise data_error("text", spot, f"A value is missing in {line.strip()[:60]!r}.", _ROW)
        for k, column in enumerate(columns):
            found = fields[column]
            value = float(found[0]) if _NUMBER.fullmatch(found[0]) else np.inf
            if np.isinf(value):
                spot = f"{where}:{number}:{found.start() + 1}"
                raise data_error("text", spot, f"{found[0][:40]!r} is not a number.", _ROW)
            table[number - 1, k] = value
    return table


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
