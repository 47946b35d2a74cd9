"""The VOT challenge's regions and the text and binary files that hold them. Knows formats; scores nothing.

A line of text is one region, numbers separated by commas:

- one number, a code: ``0`` nothing known (or the target is absent), ``1`` the tracker was started here,
  ``2`` it failed here;
- four numbers, a rectangle ``x,y,w,h``;
- six or more numbers, an even count, a polygon ``x1,y1,x2,y2,...``;
- ``m x,y,w,h,n0,n1,...``, a mask: the window's corner and size, then run lengths along its rows, background
  first. Runs that end early leave background.

A rectangle or polygon with a NaN in it is nothing known (code 0), as in the VOT toolkit. Binary files
(``.bin``, what newer toolkits write) hold the same. Coordinates are pixels, x to the right, y down.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.errors import DataError

UNKNOWN, STARTED, FAILED = 0, 1, 2
LARGEST_WINDOW = 1 << 28
"""Pixels of the largest mask that is believed (16384 by 16384)."""


@dataclass(frozen=True, slots=True)
class Special:
    """No region but a code: 0 unknown or absent, 1 started, 2 failed."""

    code: int


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Upper left corner and size in pixels."""

    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True, slots=True)
class Polygon:
    """K >= 3 corners (x, y) in order."""

    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Pixels of a window.

    Attributes:
        x, y: the window's first column and row in the frame.
        pixels: (h, w) bool, read-only.
    """

    x: int
    y: int
    pixels: NDArray[np.bool_]

    def __post_init__(self) -> None:
        pixels = np.array(self.pixels, dtype=bool)
        pixels.setflags(write=False)
        object.__setattr__(self, "pixels", pixels)


Region = Special | Rectangle | Polygon | Mask


def box_mask(box: ArrayLike | None, size: tuple[int, int]) -> Mask:
    """The mask that a box tracker hands in where masks are scored.

    Args:
        box: (4,) xywh, or None where the target is not there. Edges are rounded to whole pixels.
        size: (width, height) of the frame; what lies outside is cut off.

    Returns:
        A full window; an empty one for None, for a NaN and for a box outside the frame.
    """
    numbers = [math.nan] if box is None else [float(v) for v in np.asarray(box, dtype=np.float64).ravel()]
    if not all(map(math.isfinite, numbers)):
        return Mask(0, 0, np.zeros((0, 0), dtype=bool))
    x, y, w, h = numbers
    left, right = (min(max(round(v), 0), size[0]) for v in (x, x + w))
    top, bottom = (min(max(round(v), 0), size[1]) for v in (y, y + h))
    if right <= left or bottom <= top:
        return Mask(0, 0, np.zeros((0, 0), dtype=bool))
    return Mask(left, top, np.ones((bottom - top, right - left), dtype=bool))


def region_text(region: Region) -> str:
    """One line, without its end, that ``parse_region`` reads back; floats with all their digits."""
    if isinstance(region, Special):
        return str(region.code)
    if isinstance(region, Rectangle):
        return ",".join(map(repr, (region.x, region.y, region.w, region.h)))
    if isinstance(region, Polygon):
        return ",".join(repr(value) for point in region.points for value in point)
    height, width = region.pixels.shape
    flat = region.pixels.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    runs = [0, *lengths] if flat.size and flat[0] else lengths
    return "m" + ",".join(map(str, (region.x, region.y, width, height, *runs)))


def parse_region(text: str, where: str = "region") -> Region:
    """One line of a VOT file.

    Args:
        text: the line; spaces and tabs around numbers do not matter.
        where: what an error names, ``file:line``.

    Raises:
        DataError: it is none of the forms above, or a number is infinite.
    """
    text = text.strip()
    if text[:1] in ("m", "M"):
        return _mask(_numbers(text[1:], where), where)
    numbers = _numbers(text, where)
    count = len(numbers)
    if count == 1:
        return _special(numbers[0], where)
    if count < 4 or count % 2:
        raise DataError(
            f"{where}: {count} numbers are no VOT region.",
            hint="A line is a code, x,y,w,h, a polygon of three or more points, or a mask (m...).",
        )
    if any(map(math.isnan, numbers)):
        return Special(UNKNOWN)
    if count == 4:
        return Rectangle(*numbers)
    return Polygon(tuple(zip(numbers[::2], numbers[1::2], strict=True)))


def _numbers(text: str, where: str) -> list[float]:
    parts = text.split(",") if "," in text else text.split()
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        raise DataError(
            f"{where}: {text[:60]!r} is no VOT region.", hint="Numbers are separated by commas."
        ) from None
    if not numbers or any(map(math.isinf, numbers)):
        raise DataError(f"{where}: {text[:60]!r} is no VOT region.", hint="Numbers must be finite.")
    return numbers


def _special(value: float, where: str) -> Special:
    if math.isnan(value):
        return Special(UNKNOWN)
    if value not in (UNKNOWN, STARTED, FAILED):
        raise DataError(f"{where}: {value:g} is no code of the VOT toolkit.", hint="Codes are 0, 1 and 2.")
    return Special(int(value))


def _mask(numbers: list[float], where: str) -> Mask:
    if len(numbers) < 4 or any(value != math.floor(value) for value in numbers if not math.isnan(value)):
        raise DataError(f"{where}: a mask is m x,y,w,h and whole run lengths.", hint="Write the file again.")
    if any(map(math.isnan, numbers)) or min(numbers[2:]) < 0:
        raise DataError(f"{where}: a mask has a negative size or run length.", hint="Write the file again.")
    x, y, width, height, *runs = map(int, numbers)
    return Mask(x, y, _unrolled(runs, width, height, where))


def _unrolled(runs: list[int], width: int, height: int, where: str) -> NDArray[np.bool_]:
    """(h, w) pixels from run lengths, background first."""
    if width * height > LARGEST_WINDOW:
        raise DataError(f"{where}: a mask of {width}x{height} is not believable.", hint="Check the file.")
    total = sum(runs)
    if total > width * height:
        raise DataError(
            f"{where}: the mask's runs cover {total} pixels, its window has {width}x{height}.",
            hint="The file is damaged; write it again.",
        )
    flat = np.zeros(width * height, dtype=bool)
    flat[:total] = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(height, width)


def read_regions(path: Path) -> tuple[Region, ...]:
    """All regions of a file, one a frame: text, or the toolkit's binary form where the name ends in ``.bin``.

    Lines without anything at the end are left out; one in between is an error, because frames would shift.

    Raises:
        DataError: the file cannot be read, or a line is no region (named by file and line).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}.", hint="Check the path and its permissions."
        ) from error
    if path.suffix == ".bin":
        return _read_binary(data, path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(
            f"{path} is no text file.", hint="Results in the toolkit's binary form end in .bin."
        ) from None
    return parse_regions(text, str(path))


def parse_regions(text: str, name: str) -> tuple[Region, ...]:
    """All lines of a file's text; ``name`` is the file that errors name. Raises ``DataError``."""
    lines = text.rstrip().splitlines()
    regions = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise DataError(
                f"{name}:{number}: the line is empty.",
                hint="Each frame has a line; use 0 where nothing is known.",
            )
        regions.append(parse_region(line, f"{name}:{number}"))
    return tuple(regions)


class _Bytes:
    """A cursor over a binary file that names the file when it ends too early."""

    def __init__(self, data: bytes, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def take(self, form: str) -> tuple[float, ...]:
        form = "<" + form
        try:
            values = struct.unpack_from(form, self.data, self.at)
        except struct.error:
            raise DataError(f"{self.path} ends too early, at byte {self.at}.", hint="Run it again.") from None
        self.at += struct.calcsize(form)
        return values


def _read_binary(data: bytes, path: Path) -> tuple[Region, ...]:
    """Little endian: version 1 (int16), count (uint32), then for each region a type byte and its numbers."""
    cursor = _Bytes(data, path)
    version, count = cursor.take("hI")
    if version != 1:
        raise DataError(f"{path} is no VOT trajectory of version 1 (found {version}).", hint="Run it again.")
    regions = tuple(_binary_region(cursor, f"{path}:{frame + 1}") for frame in range(int(count)))
    if cursor.at != len(data):
        raise DataError(f"{path} has {len(data) - cursor.at} bytes after its end.", hint="Run it again.")
    return regions


def _binary_region(cursor: _Bytes, where: str) -> Region:
    (kind,) = cursor.take("B")
    if kind == 0:
        return _special(cursor.take("I")[0], where)
    if kind == 1:
        box = cursor.take("4f")
        return Special(UNKNOWN) if _any_nan(box, where) else Rectangle(*box)
    if kind == 2:
        (count,) = cursor.take("H")
        if count < 3:
            raise DataError(f"{where}: a polygon of {count} points.", hint="Write the file again.")
        values = cursor.take(f"{2 * int(count)}f")
        return (
            Special(UNKNOWN)
            if _any_nan(values, where)
            else Polygon(tuple(zip(values[::2], values[1::2], strict=True)))
        )
    if kind == 3:
        x, y, width, height, count = map(int, cursor.take("hhHHH"))
        runs = [int(run) for run in cursor.take(f"{count}H")]
        return Mask(x, y, _unrolled(runs, width, height, where))
    raise DataError(f"{where}: unknown kind of region {kind}.", hint="Write the results as text.")


def _any_nan(values: tuple[float, ...], where: str) -> bool:
    if any(map(math.isinf, values)):
        raise DataError(f"{where}: a coordinate is infinite.", hint="Run it again.")
    return any(map(math.isnan, values))
