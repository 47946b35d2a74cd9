"""Strict, bounded reading of JSON, and typed access to the fields of our own documents.

Refused are ``NaN`` and ``Infinity``, duplicate keys, nesting that could crash the process, text that is not
UTF-8 and files above a limit. ``read_json`` reads a small file at once; ``walk_json`` iterates over a large
one with one element of it in memory.
"""

from __future__ import annotations

import codecs
import errno
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

import numpy as np

from vltrack.core.errors import DataError
from vltrack.core.files import open_limited, read_limited
from vltrack.core.types import Floats

T = TypeVar("T")

MAX_BYTES = 32 << 20
_ELEMENT = 16 << 20
_CHUNK = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")


class _NotStrict(ValueError):
    """JSON that Python accepts, but the standard does not."""


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """Read a UTF-8 file, with or without BOM.

    Raises:
        DataError: no such file, not a regular one, larger than ``max_bytes``, or not UTF-8; names the byte.
    """
    try:
        return read_limited(path, max_bytes).decode("utf-8-sig")
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error.start) from error


def read_json(path: Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read a JSON file. A number beyond float64 (``1e999``) becomes infinity.

    Memory is at most about twenty times the file's size (a list of empty lists), usually three to six times.

    Raises:
        DataError: as ``read_text``, or not strict JSON; names the place.
    """
    return parse_json(read_text(path, max_bytes), str(path))


def parse_json(text: str, where: str) -> Any:
    """Parse a JSON text. Raises ``DataError`` with ``where`` in it, such as ``refs.jsonl line 7``."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise _not_json(where, error) from error


def walk_json(path: Path, *, nan: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield ``(key, element)`` for each element of each list in the top object of a large file.

    A value that is not a list is yielded whole under its key. If the file is one list, its elements have the
    key "". An element has at most 16 MiB of text; memory does not grow with the file.

    Args:
        path: the file, of at most 2 GiB.
        nan: accept the word NaN, which some annotations have in place of a box.

    Raises:
        DataError: no such file, too large, not UTF-8 or not strict JSON; names the place.
    """
    try:
        with open_limited(path, 2 << 30) as file:
            yield from _Walk(file, path, _WITH_NAN if nan else _DECODER).run()
    except OSError as error:
        raise _unreadable(path, error) from error


def _refuse(name: str) -> NoReturn:
    raise _NotStrict(f"{name} is not a number of JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _NotStrict(f"duplicate key {twice[:60]!r}")
    return found


def _only_nan(name: str) -> float:
    return float("nan") if name == "NaN" else _refuse(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_no_duplicates)
_WITH_NAN = json.JSONDecoder(parse_constant=_only_nan, object_pairs_hook=_no_duplicates)


class _Walk:
    """A sliding window over the text of a file: ``_text`` from ``_at`` on is not parsed yet."""

    def __init__(self, file: IO[bytes], path: Path, decoder: json.JSONDecoder) -> None:
        self._file, self._path, self._decoder = file, path, decoder
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._bytes, self._before = 0, 0
        self._text, self._at, self._ended = "", 0, False

    def run(self) -> Iterator[tuple[str, Any]]:
        if self._next() == "[":
            for element in self._elements():
                yield "", element
        else:
            yield from self._members()
        if self._next():
            raise self._fault("more text after the end")

    def _members(self) -> Iterator[tuple[str, Any]]:
        seen: set[str] = set()
        for _ in self._entries("{", "}"):
            key = self._value()
            if not isinstance(key, str) or key in seen:
                raise self._fault(f"duplicate key, or one that is not text: {str(key)[:60]!r}")
            seen.add(key)
            self._next()
            self._expect(":")
            if self._next() == "[":
                for element in self._elements():
                    yield key, element
            else:
                yield key, self._value()

    def _elements(self) -> Iterator[Any]:
        for _ in self._entries("[", "]"):
            yield self._value()

    def _entries(self, opening: str, closing: str) -> Iterator[None]:
        """Yield at the start of each entry of a list or an object; skip its brackets and commas."""
        self._expect(opening)
        more = self._next() != closing
        while more:
            yield
            more = self._next() == ","
            if more:
                self._expect(",")
                self._next()
        self._expect(closing)

    def _next(self) -> str:
        """Skip white space; return the character at ``_at``, "" at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read():
                return ""

    def _expect(self, character: str) -> None:
        if self._text[self._at : self._at + 1] != character:
            found = self._text[self._at : self._at + 20]
            raise self._fault(f"{character!r} expected, found {found!r}" if found else "it is cut off")
        self._at += 1

    def _value(self) -> Any:
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                following = self._text[end : end + 3]
                if self._ended or len(following) == 3 or (following and following[0] not in ".eE"):
                    self._at = end  # else a number may go on
                    return value
            except (_NotStrict, RecursionError, MemoryError) as error:
                raise self._fault(str(error)) from error
            except json.JSONDecodeError as error:
                near_end = error.pos + 16 > len(self._text) or error.msg.startswith("Unterminated")
                if self._ended or not near_end:
                    raise self._fault(error.msg) from error
            except ValueError as error:  # an integer of thousands of digits
                raise self._fault(str(error)) from error
            if len(self._text) - self._at >= _ELEMENT:
                raise self._fault(f"one element has more than {_ELEMENT} characters")
            self._read()

    def _read(self) -> bool:
        """Read more, as much as is not parsed yet. Return False at the end of the file."""
        data = self._file.read(max(_CHUNK, len(self._text) - self._at))
        self._ended = not data
        held = len(self._decode.getstate()[0])  # the first bytes of a character
        try:
            more = self._decode.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise _not_utf8(self._path, self._bytes - held + error.start) from error
        self._bytes += len(data)
        self._before += self._at
        self._text, self._at = self._text[self._at :] + more, 0
        return not self._ended

    def _fault(self, reason: str) -> DataError:
        return _not_json(f"{self._path} at character {self._before + self._at}", ValueError(reason))


def _unreadable(path: Path, error: OSError) -> DataError:
    hint = (
        "Is it the right file?" if error.errno in (errno.EFBIG, errno.EINVAL) else "Check the path and its permissions."
    )
    return DataError(f"Cannot read {path}: {error.strerror}.", hint=hint)


def _not_utf8(path: Path, byte: int) -> DataError:
    return DataError(f"{path} is not UTF-8 text (byte {byte}).", hint="Save it as UTF-8.")


def _not_json(where: str, error: BaseException) -> DataError:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error) or "out of memory"
    return DataError(f"{where} is not strict JSON: {reason[:160]}.", hint="Fetch the file again.")


LARGEST = 1e9
"""Upper bound of every score, time, pixel and count in a report; sums of such numbers stay finite."""


class Fields:
    """An object of a document, with its place; methods raise ``DataError`` that names an invalid field."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise DataError(f"{where} is {_kind_of(value)}, not an object.")
        self.value: Mapping[str, Any] = value
        self.where = where

    def fault(self, key: str, finding: str) -> NoReturn:
        """Raise ``DataError`` for the value under ``key``."""
        raise DataError(f"{self.where}: {key} {finding}.", hint="Make the file again with vltrack.")

    def _typed(self, key: str, kind: type[T], name: str) -> T:
        value = self.value.get(key)
        if not isinstance(value, kind):
            self.fault(key, f"is {_kind_of(value)}, not {name}")
        return value

    def text(self, key: str) -> str:
        """Text."""
        return self._typed(key, str, "text")

    def whole(self, key: str) -> int:
        """An integer from 0 to ``LARGEST``."""
        value = self._typed(key, int, "a whole number")
        if isinstance(value, bool) or not 0 <= value <= LARGEST:
            self.fault(key, f"is {_kind_of(value)}, not a whole number")
        return value

    def index(self, key: str, count: int) -> int:
        """An index into a list of ``count`` entries."""
        value = self.whole(key)
        if value >= count:
            self.fault(key, f"is {value}, not an index below {count}")
        return value

    def number(self, key: str) -> float | None:
        """A number of at most ``LARGEST``; None for null or a missing key."""
        value = self.value.get(key)
        if value is None:
            return None
        if not _is_number(value):
            self.fault(key, f"is {_kind_of(value)}, not a number")
        return float(value)

    def listed(self, key: str) -> Sequence[Any]:
        """A list."""
        return self._typed(key, list, "a list")

    def node(self, key: str) -> Fields:
        """The object under ``key``."""
        return Fields(self.value.get(key), f"{self.where}: {key}")

    def nodes(self, key: str) -> list[Fields]:
        """The objects in the list under ``key``."""
        return [Fields(value, f"{self.where}: {key}[{k}]") for k, value in enumerate(self.listed(key))]

    def items(self) -> list[tuple[str, Fields]]:
        """Every value, as an object."""
        return [(key, self.node(key)) for key in self.value]

    def row(self, key: str, count: int | None = None) -> Floats:
        """(K,) numbers, null as NaN."""
        values = self.listed(key)
        if count is not None and len(values) != count:
            self.fault(key, f"is not a row of {count} numbers")
        for place, value in enumerate(values):
            if value is not None and not _is_number(value):
                self.fault(key, f"holds {_kind_of(value)} at {place}, not a number")
        return np.array([math.nan if v is None else v for v in values], dtype=np.float64)

    def numbers(self) -> dict[str, float]:
        """Every value that is not null, as a number."""
        found = ((key, self.number(key)) for key in self.value)
        return {key: value for key, value in found if value is not None}

    def counts(self) -> dict[str, int]:
        """Every value, as an integer from 0."""
        return {key: self.whole(key) for key in self.value}

    def texts(self) -> dict[str, str]:
        """Every value, as text."""
        return {key: self.text(key) for key in self.value}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def _kind_of(value: Any) -> str:
    names = {type(None): "missing", str: "text", list: "a list", dict: "an object", bool: "true or false"}
    return names.get(type(value), repr(value)[:40])


def finite_or_none(value: float) -> float | None:
    """Return the number, or None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None
