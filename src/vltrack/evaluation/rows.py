"""Rows of numbers as text: boxes, scores, times. Knows lines and columns; knows no folder.

Numbers are written such that they read back as the same float64.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError, StateError
from vltrack.core.files import sha256_bytes

AGAIN = "Run the evaluation again: it will redo this sequence."

Floats = NDArray[np.float64]


def lines_of(rows: list[tuple[Any, ...]]) -> bytes:
    """A line a row, commas between the numbers."""
    return "".join(",".join(repr(v) for v in row) + "\n" for row in rows).encode()


def read_boxes(data: bytes, path: Path, rows: int) -> Floats:
    """(rows, 4) boxes from the bytes of a file. Raises ``DataError`` that names the line (E08)."""
    boxes = _table(data, path, rows, 4)
    sound = np.isfinite(boxes) & (boxes > (-np.inf, -np.inf, 0, 0))
    _all_good(sound.min(axis=1), path, "is no box: finite x,y,w,h with w and h > 0 are needed")
    return boxes


def read_scores(data: bytes, path: Path, rows: int) -> Floats:
    """(rows, 2) score in [0, 1] and visible, 0 or 1. Raises ``DataError`` that names the line."""
    table = _table(data, path, rows, 2)
    good = (table[:, 0] >= 0) & (table[:, 0] <= 1) & np.isin(table[:, 1], (0, 1))
    _all_good(good, path, "is no score in 0..1 and 0 or 1")
    return table


def read_times(data: bytes, path: Path, rows: int) -> Floats:
    """(rows,) seconds, sealed by the last line. Raises ``DataError``; ``StateError`` if they were changed."""
    body = unsealed_times(data, path)
    seconds = _table(body, path, rows, 1)[:, 0]
    _all_good(np.isfinite(seconds) & (seconds >= 0), path, "is no time")
    return seconds


def unsealed_times(data: bytes, path: Path) -> bytes:
    """The lines above the seal. Raises ``StateError`` if they are not the ones that were sealed."""
    body, mark, seal = data.rpartition(b"# sha256 ")
    if (mark + seal).decode(errors="replace") != times_seal(body) + "\n":
        raise StateError(f"{path} was changed after it was written.", hint=AGAIN)
    return body


def times_seal(body: bytes) -> str:
    """The last line of a file of times: the sha256 of the lines above it."""
    return f"# sha256 {sha256_bytes(body)}"


def _table(data: bytes, path: Path, rows: int, columns: int) -> Floats:
    text = data.decode(errors="replace")
    lines = text.removesuffix("\n").split("\n")
    if len(lines) != rows:
        raise DataError(f"{path} has {len(lines)} lines, there were {rows} frames.", hint=AGAIN)
    try:
        table: Floats = np.loadtxt(io.StringIO(text), dtype=np.float64, delimiter=",", ndmin=2, comments=None)
        if table.shape == (rows, columns):
            return table
    except ValueError:
        pass
    number = next((n for n, line in enumerate(lines, 1) if not _is_row(line, columns)), 1)
    raise DataError(f"{path}:{number}: {lines[number - 1][:80]!r} is not {columns} numbers.", hint=AGAIN)


def _is_row(line: str, columns: int) -> bool:
    try:
        return len([float(field) for field in line.split(",")]) == columns
    except ValueError:
        return False


def _all_good(good: NDArray[np.bool_], path: Path, fault: str) -> None:
    if not good.all():
        raise DataError(f"{path}:{int(np.argmin(good)) + 1}: the row {fault}.", hint=AGAIN)
