"""Values of a JSON document with their places, so that every fault is named. Knows no format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError

Floats = NDArray[np.float64]

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
