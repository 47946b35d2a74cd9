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

import argparse
import math
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.errors import DataError, ImageError, VltrackError
from vltrack.core.files import printable, write_text
from vltrack.core.types import Frame, Image, Step, Target
from vltrack.tracking.tracker import DEFAULT_MODEL, Tracker
from vltrack.video.base import Limits
from vltrack.video.images import ImagesSource, is_cut

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


# MERGED evaluation/harnesses/vot.py
# From the regions of the VOT toolkit to what our trackers start with. Knows boxes; parses no text.


BoxTuple = tuple[float, float, float, float]


def box_around(region: Region) -> BoxTuple | None:
    """The smallest upright box (x, y, w, h) around a region; None for a code and for an empty mask."""
    if isinstance(region, Rectangle):
        return region.x, region.y, region.w, region.h
    if isinstance(region, Polygon):
        low, high = np.min(region.points, axis=0), np.max(region.points, axis=0)
        return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])
    if not isinstance(region, Mask) or not region.pixels.any():
        return None
    rows, columns = np.nonzero(region.pixels)
    left, top = int(columns.min()), int(rows.min())
    width, height = int(columns.max()) - left + 1, int(rows.max()) - top + 1
    return float(region.x + left), float(region.y + top), float(width), float(height)


# MERGED evaluation/harnesses/vot.py
# A tracker for the VOT toolkit's protocol ``python``. Knows that contract; imports nothing of the toolkit.
#
# The toolkit (0.9) makes the object in a process of its own and calls ``init(frame, new, properties)`` and
# ``update(frame, new, properties)``: ``frame`` is a file's name, or one a channel; ``new`` the objects that
# begin in this frame, each ``(region, properties)``. In ``trackers.ini``::
#
#     protocol = python
#     command = vltrack.evaluation.harnesses.vot:VotTracker
#     arg_model = litetrack-tiny


Answer = tuple[BoxTuple, dict[str, float]]


class VotTracker:
    """Any number of objects, each with a tracker of its own over the same weights.

    An object whose properties have a ``prompt`` starts by box and words, any other by its box.

    Raises:
        RuntimeError: in place of every ``VltrackError``, with the same text: the toolkit passes on this one
            and waits half a minute for an answer after any other.
    """

    multiobject = True

    def __init__(self, model: str = DEFAULT_MODEL, device: str = "auto") -> None:
        with _as_runtime_error():
            self._loaded = Tracker.load(model, device=device)
        self._objects: list[Tracker] = []

    def init(self, frame: str | Mapping[str, str], new: Any, properties: object = None) -> list[Answer]:
        """Forget all objects and start those of this frame; the answers in their order."""
        self._objects = []
        return self.update(frame, new, properties)

    def update(
        self, frame: str | Mapping[str, str], new: Any = None, properties: object = None
    ) -> list[Answer]:
        """Follow the objects so far and start those of this frame; the answers in the order they came.

        An answer is ``((x, y, w, h), {"score": ...})``: the box in pixels, the score in [0, 1].
        """
        starts = new if isinstance(new, list) else [new] if new else []
        with _as_runtime_error():
            image = read_rgb(_color_file(frame))
            answers = [_answer(tracker.update(image)) for tracker in self._objects]
            for region, facts in starts:
                tracker = self._loaded.with_policy(self._loaded.engine.policy)
                step = tracker.init(image, box=_start_box(region), text=facts.get("prompt"))
                self._objects.append(tracker)
                answers.append(_answer(step))
        return answers


def read_rgb(path: Path) -> Image:
    """One picture of a data set as RGB uint8 (H, W, 3), decoded as all our frames are.

    Raises:
        ImageError: it cannot be read, is cut, or is no picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read the frame {path}: {error.strerror}.") from error
    image = (
        None if is_cut(data) or not data else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    )
    if image is None:
        raise ImageError(f"the frame {path} is damaged or no picture.", hint="Fetch the sequence again.")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _color_file(frame: str | Mapping[str, str]) -> Path:
    """The frame's file; of several channels the one of colour."""
    if isinstance(frame, str):
        return Path(frame)
    if "color" not in frame:
        raise DataError(f"the frame has the channels {', '.join(sorted(frame))}, none of colour.")
    return Path(frame["color"])


def _start_box(region: Any) -> BoxTuple | None:
    """The box (x, y, w, h) of a region as this protocol hands it over: four numbers, or corners in a list."""
    if isinstance(region, tuple) and len(region) == 4:
        return box_around(Rectangle(*map(float, region)))
    if isinstance(region, list) and len(region) >= 3:
        return box_around(Polygon(tuple((float(x), float(y)) for x, y in region)))
    raise DataError(
        f"an object starts with {type(region).__name__}, not with a rectangle or polygon.",
        hint="Put 'convert = rectangle' into trackers.ini.",
    )


def _answer(step: Step) -> Answer:
    x, y, w, h = (float(value) for value in step.box)
    return (x, y, w, h), {"score": step.score}


@contextmanager
def _as_runtime_error() -> Iterator[None]:
    try:
        yield
    except VltrackError as error:
        raise RuntimeError(f"{error.code}: {error}") from error


# MERGED evaluation/harnesses/vot.py
# The VOT toolkit's protocol ``folder`` as a command: queries in, trajectories out. Knows the files of that
# contract; imports nothing of the toolkit.
#
# The toolkit (0.9) starts the command in a folder with ``frames_color.txt`` (a picture a line) and
# ``query_<id>.txt`` (line 1 the frame where the object begins, from 0; line 2 its region, ``0`` for
# none; then
# ``key=value`` lines, of which ``prompt=`` is a sentence). It wants ``output_<id>.txt``, a region a
# frame with
# ``0`` before the start, and takes ``output_<id>_score.txt``. Any exit code but 0 is a failure to it.
#
#     python -m vltrack.evaluation.harnesses.vot --model litetrack-tiny


OUTPUTS = ("box", "mask")
_NOTHING = Special(UNKNOWN)


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One object: its id, the frame (from 0) where it begins, and what names it there."""

    key: str
    offset: int
    target: Target


def read_queries(folder: Path) -> list[Query]:
    """All ``query_<id>.txt`` of a folder, in the order of their names.

    Raises:
        DataError: none there, or one that breaks the contract; names file, line and finding.
    """
    files = sorted(folder.glob("query_*.txt"))
    if not files:
        raise DataError(f"{folder} has no query_*.txt.", hint="The VOT toolkit writes them; see the docs.")
    return [_query(file) for file in files]


def read_frames(folder: Path) -> list[Path]:
    """The pictures of ``frames_color.txt``, or of the only other channel, in order.

    Raises:
        DataError: no such file, several of which none is of colour, or an empty one.
    """
    listing = folder / "frames_color.txt"
    if not listing.is_file():
        found = sorted(folder.glob("frames_*.txt"))
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "no frames_*.txt"
            raise DataError(f"{folder} has {names}, not frames_color.txt.")
        listing = found[0]
    frames = [folder / line for line in _lines(listing) if line]
    if not frames:
        raise DataError(f"{listing} names no frame.")
    return frames


def run(folder: Path, *, model: str = DEFAULT_MODEL, device: str = "auto", output: str = "box") -> None:
    """Answer all queries of a folder in one pass over its frames. Writes nothing if anything fails.

    Args:
        folder: as the toolkit lays it out.
        model, device: as ``Tracker.load`` takes them.
        output: ``box`` writes rectangles and holds the last box of a lost object; ``mask`` writes filled
            masks and ``0`` where the object is not seen, for experiments that score silence.

    Raises:
        DataError: frames or queries break the contract.
        ImageError: a frame does not decode.
        And what ``Tracker.load``, ``Tracker.init`` and ``ImagesSource`` raise.
    """
    queries, frames = read_queries(folder), read_frames(folder)
    for query in queries:
        if not 0 <= query.offset < len(frames):
            raise DataError(
                f"query_{query.key}.txt line 1: frame {query.offset} of {len(frames)} (they count from 0)."
            )
    loaded = Tracker.load(model, device=device)
    trackers = [loaded.with_policy(loaded.engine.policy) for _ in queries]
    regions: list[list[Region]] = [[] for _ in queries]
    scores: list[list[float]] = [[] for _ in queries]
    for index, frame in enumerate(_decoded(frames)):
        for number, (query, tracker) in enumerate(zip(queries, trackers, strict=True)):
            step = _step(tracker, query, frame, index)
            regions[number].append(_region(step, frame, output))
            scores[number].append(step.score if step else 0.0)
    for query, rows, values in zip(queries, regions, scores, strict=True):
        write_text(folder / f"output_{query.key}.txt", "".join(f"{region_text(row)}\n" for row in rows))
        write_text(folder / f"output_{query.key}_score.txt", "".join(f"{value!r}\n" for value in values))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code: 0, or that of the error that it tells of on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m vltrack.evaluation.harnesses.vot",
        description="Track what the VOT toolkit asks for in a folder (protocol 'folder').",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or path of weights")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--output", choices=OUTPUTS, default="box", help="rectangles, or masks and silence")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the queries lie; default: here")
    given = parser.parse_args(arguments)
    try:
        run(given.folder, model=given.model, device=given.device, output=given.output)
    except VltrackError as error:
        sys.stderr.write(f"vltrack: error[{error.code}]: {printable(str(error))}\n")
        return error.exit_code
    return 0


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").split("\n")]
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text (byte {error.start}).") from error


def _query(file: Path) -> Query:
    lines = _lines(file)
    if len(lines) < 2:
        raise DataError(f"{file} has {len(lines)} lines; a frame number and a region are needed.")
    try:
        offset = int(lines[0])
    except ValueError as error:
        raise DataError(f"{file} line 1: {lines[0][:40]!r} is no frame number.") from error
    box = box_around(parse_region(lines[1], f"{file}:2"))
    properties = dict(line.split("=", 1) for line in lines[2:] if "=" in line)
    text = properties.get("prompt") or None
    if box is None and text is None:
        raise DataError(f"{file} has neither a region nor a prompt.", hint="Line 2 or prompt= must say what.")
    return Query(key=file.stem.removeprefix("query_"), offset=offset, target=Target(box=box, text=text))


def _decoded(files: list[Path]) -> Iterator[Frame]:
    """All frames or an error: a score over a sequence with holes would be nobody's score."""
    name = f"{files[0].parent} ({len(files)} frames)"
    with ImagesSource(
        files, kind="frames", name=name, ignored=0, start=0, end=None, stride=1, limits=Limits()
    ) as source:
        for frame in source:
            if frame.image is None:
                raise ImageError(f"the frame {files[frame.index]}: {frame.flags[-1]}.")
            yield frame
        if source.report.failure is not None:
            raise source.report.failure


def _step(tracker: Tracker, query: Query, frame: Frame, index: int) -> Step | None:
    """None before the object begins."""
    if index < query.offset:
        return None
    if index == query.offset:
        return tracker.init(frame, box=query.target.box, text=query.target.text)
    return tracker.update(frame)


def _region(step: Step | None, frame: Frame, output: str) -> Region:
    if step is None or frame.image is None:
        return _NOTHING
    if output == "box":
        return Rectangle(*(float(value) for value in step.box))
    height, width = frame.image.shape[:2]
    mask = box_mask(step.box, (width, height))
    return mask if step.visible and mask.pixels.size else _NOTHING


if __name__ == "__main__":
    sys.exit(main())
