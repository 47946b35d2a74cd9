"""JSON from outside, read strictly and within bounds. Knows the grammar and its dangers, no data set.

Refused are ``NaN`` and ``Infinity``, a key given twice, nesting that could end the process, text that is not
UTF-8 and files above a cap. ``read_json`` takes a small file whole; ``walk_json`` goes through a large one
element by element and never holds more of it than one element.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from vltrack.core.errors import DataError
from vltrack.core.types import Floats

MAX_BYTES = 256 << 20
MAX_WALKED_BYTES = 2 << 30
_ELEMENT = 16 << 20
_CHUNK = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")


class _Refused(ValueError):
    """JSON that Python would take, but a strict reader does not."""


def read_json(path: Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """The value of a JSON file as dictionaries, lists, text, numbers, booleans and None.

    Memory is at most about twenty times the file's size (a list of empty lists), usually three to six times.
    A number beyond float64 (``1e999``) comes as infinity: ask for finite numbers where they are used.

    Raises:
        DataError: no such file, larger than ``max_bytes``, not UTF-8 or no strict JSON; names the place.
    """
    _check_size(path, max_bytes)
    try:
        data = path.read_bytes()
        return parse_json(data.decode("utf-8-sig"), str(path))
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error.start) from error


def parse_json(text: str, where: str) -> Any:
    """The value of one JSON text; ``where`` names it in the error, such as ``refs.jsonl line 7``.

    Raises:
        DataError: no strict JSON.
    """
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise _no_json(where, error) from error


def walk_json(
    path: Path, *, max_bytes: int = MAX_WALKED_BYTES, nan: bool = False
) -> Iterator[tuple[str, Any]]:
    """Yield ``(key, element)`` for each element of each list that the file's top object has under ``key``.

    A value that is no list is yielded whole under its key. Where the file is one list, its elements come
    under the key "". No element may take more than 16 MiB of text; memory does not grow with the file.
    ``nan`` lets the word NaN through, which some annotations write where there is no box.

    Raises:
        DataError: no such file, larger than ``max_bytes``, not UTF-8 or no strict JSON; names the place.
    """
    _check_size(path, max_bytes)
    try:
        with path.open("rb") as file:
            yield from _Walk(file, path, _WITH_NAN if nan else _DECODER).run()
    except OSError as error:
        raise _unreadable(path, error) from error


def _refuse(name: str) -> NoReturn:
    raise _Refused(f"{name} is no number of JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Refused(f"the key {twice[:60]!r} is given twice")
    return found


def _only_nan(name: str) -> float:
    return float("nan") if name == "NaN" else _refuse(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_once)
_WITH_NAN = json.JSONDecoder(parse_constant=_only_nan, object_pairs_hook=_once)


class _Walk:
    """A window of text that slides over the file: ``text`` from ``at`` on is still to be read."""

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
            self._expect("{")
            yield from self._members()
        if self._next():
            raise self._fault("there is more after the end")

    def _members(self) -> Iterator[tuple[str, Any]]:
        seen: set[str] = set()
        more = self._next() != "}"
        while more:
            key = self._value()
            if not isinstance(key, str) or key in seen:
                raise self._fault(f"a key that is no text or is given twice: {str(key)[:60]!r}")
            seen.add(key)
            self._next()
            self._expect(":")
            if self._next() == "[":
                for element in self._elements():
                    yield key, element
            else:
                yield key, self._value()
            more = self._next() == ","
            if more:
                self._expect(",")
                self._next()
        self._expect("}")

    def _elements(self) -> Iterator[Any]:
        self._expect("[")
        more = self._next() != "]"
        while more:
            yield self._value()
            more = self._next() == ","
            if more:
                self._expect(",")
                self._next()
        self._expect("]")

    def _next(self) -> str:
        """The next character that is no space, which ``_at`` then points to; "" at the end."""
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
            raise self._fault(f"{character!r} expected, found {found!r}" if found else "it breaks off")
        self._at += 1

    def _value(self) -> Any:
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                following = self._text[end : end + 3]
                if self._ended or len(following) == 3 or (following and following[0] not in ".eE"):
                    self._at = end  # else a number may go on
                    return value
            except (_Refused, RecursionError, MemoryError) as error:
                raise self._fault(str(error)) from error
            except json.JSONDecodeError as error:
                near_end = error.pos + 16 > len(self._text) or error.msg.startswith("Unterminated")
                if self._ended or not near_end:
                    raise self._fault(error.msg) from error
            except ValueError as error:  # a number of thousands of digits
                raise self._fault(str(error)) from error
            if len(self._text) - self._at >= _ELEMENT:
                raise self._fault(f"one element has more than {_ELEMENT} characters")
            self._read()

    def _read(self) -> bool:
        """Take in more, as much again as is unread; whether there was any."""
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
        return _no_json(f"{self._path} at character {self._before + self._at}", ValueError(reason))


def _check_size(path: Path, max_bytes: int) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error
    if size > max_bytes:
        raise DataError(
            f"{path} has {size} bytes, more than the limit of {max_bytes}.", hint="Is it the right file?"
        )


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot read {path}: {error.strerror}.", hint="Check the path and its permissions.")


def _not_utf8(path: Path, byte: int) -> DataError:
    return DataError(f"{path} is not UTF-8 text (byte {byte}).", hint="Save it as UTF-8.")


def _no_json(where: str, error: BaseException) -> DataError:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error) or "out of memory"
    return DataError(f"{where} is no strict JSON: {reason[:160]}.", hint="Fetch the file again.")


# MERGED core/json_io.py
# Values of a JSON document with their places, so that every fault is named. Knows no format.


LARGEST = 1e9
"""No score, time, pixel or count in a report is larger; sums of such numbers stay finite."""


class Fields:
    """An object of the document, and where it stands. What does not fit raises ``DataError``."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise DataError(f"{where} is {kind_of(value)}, not an object.")
        self.value: Mapping[str, Any] = value
        self.where = where

    def fault(self, key: str, finding: str) -> NoReturn:
        """Refuse the value under ``key``."""
        raise DataError(f"{self.where}: {key} {finding}.", hint="Make the file again with vltrack.")

    def text(self, key: str) -> str:
        """Text."""
        value = self.value.get(key)
        if not isinstance(value, str):
            self.fault(key, f"is {kind_of(value)}, not text")
        return value

    def whole(self, key: str) -> int:
        """A whole number from 0."""
        value = self.value.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
            self.fault(key, f"is {kind_of(value)}, not a whole number")
        return value

    def place(self, key: str, count: int) -> int:
        """A whole number below ``count``: the place of a tracker."""
        value = self.whole(key)
        if value >= count:
            self.fault(key, f"is {value}, but there are {count} trackers")
        return value

    def number(self, key: str) -> float | None:
        """A number of at most ``LARGEST``; None where it is null or not there."""
        value = self.value.get(key)
        if value is None:
            return None
        if not is_number(value):
            self.fault(key, f"is {kind_of(value)}, not a number")
        return float(value)

    def listed(self, key: str) -> Sequence[Any]:
        """A list."""
        value = self.value.get(key)
        if not isinstance(value, list):
            self.fault(key, f"is {kind_of(value)}, not a list")
        return value

    def node(self, key: str) -> Fields:
        """The object under ``key``."""
        return Fields(self.value.get(key), f"{self.where}: {key}")

    def nodes(self, key: str) -> list[Fields]:
        """The objects in the list under ``key``."""
        return [Fields(value, f"{self.where}: {key}[{k}]") for k, value in enumerate(self.listed(key))]

    def items(self) -> list[tuple[str, Fields]]:
        """All values, each an object."""
        return [(key, self.node(key)) for key in self.value]

    def row(self, key: str, count: int | None = None) -> Floats:
        """(K,) numbers, null as NaN."""
        values = self.listed(key)
        if count is not None and len(values) != count:
            self.fault(key, f"is not a row of {count} numbers")
        for place, value in enumerate(values):
            if value is not None and not is_number(value):
                self.fault(key, f"holds {kind_of(value)} at {place}, not a number")
        return np.array([math.nan if v is None else v for v in values], dtype=np.float64)

    def numbers(self) -> dict[str, float]:
        """All values that are there; objects and lists are not asked for here."""
        found = ((key, self.number(key)) for key in self.value)
        return {key: value for key, value in found if value is not None}

    def counts(self) -> dict[str, int]:
        """All values, each a whole number."""
        return {key: self.whole(key) for key in self.value}

    def texts(self) -> dict[str, str]:
        """All values, each text."""
        return {key: self.text(key) for key in self.value}


def is_number(value: Any) -> bool:
    """Whether it is a finite number of at most ``LARGEST``; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    names = {type(None): "missing", str: "text", list: "a list", dict: "an object", bool: "true or false"}
    return names.get(type(value), repr(value)[:40])


# MERGED core/json_io.py
# Numbers as JSON can hold them. Knows one rule: what is not defined is null.


def finite_or_none(value: float) -> float | None:
    """The number, or None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None
