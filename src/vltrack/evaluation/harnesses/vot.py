"""Our trackers inside the VOT toolkit (0.9), by its protocols ``python`` and ``folder``.

``python``: the toolkit makes a ``VotTracker`` in a process of its own and calls its ``init`` and ``update``.
In ``trackers.ini``::

    protocol = python
    command = vltrack.evaluation.harnesses.vot:VotTracker
    arg_model = litetrack-tiny

``folder``: the toolkit starts a command in a folder with ``frames_color.txt`` (one image per line) and one
``query_<id>.txt`` per object (line 1: 0-based frame where the object begins; line 2: its region, ``0`` for
none; then ``key=value`` lines, of which ``prompt=`` is a sentence). It reads ``output_<id>.txt``, one region
per frame with ``0`` before the start, and ``output_<id>_score.txt``; an exit code other than 0
is a failure::

    python -m vltrack.evaluation.harnesses.vot --model litetrack-tiny

Nothing of the toolkit is imported. Boxes are (x, y, w, h) in pixels.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vltrack.checkpoints.cards import DEFAULT_MODEL
from vltrack.core.errors import DataError, ImageError, VltrackError
from vltrack.core.files import printable, read_limited, write_text
from vltrack.core.types import BoxLike, Frame, Image, Step, Target
from vltrack.tracking.tracker import Tracker
from vltrack.video.images import ImagesSource, shared_reader

Answer = tuple[BoxLike, dict[str, float]]
NO_REGION = "0"


# -- protocol python ----------------------------------------------------------------------------------------


class VotTracker:
    """Any number of objects, each with its own tracker over the same weights.

    An object whose properties have a ``prompt`` is initialized by box and text, any other by its box.

    Raises:
        RuntimeError: in place of every ``VltrackError``, with the same text: the toolkit passes on this one
            and waits half a minute for an answer after any other.
    """

    multiobject = True

    def __init__(self, model: str = DEFAULT_MODEL, device: str = "auto") -> None:
        with _as_runtime_error():
            self._loaded = Tracker.load(model, device=device, anyway=True)
        self._objects: list[Tracker] = []

    def init(self, frame: str | Mapping[str, str], new: Any, properties: object = None) -> list[Answer]:
        """Drop all objects and start those of this frame. Arguments and result as in ``update``."""
        self._objects = []
        return self.update(frame, new, properties)

    def update(self, frame: str | Mapping[str, str], new: Any = None, properties: object = None) -> list[Answer]:
        """Track the objects so far and start those that begin in this frame.

        Args:
            frame: path of the image, or one path per channel.
            new: the objects that begin here, each ``(region, properties)``, in a list or a single one.
            properties: not used.

        Returns:
            Per object, in the order of their starts, ``((x, y, w, h), {"score": ...})``; the score is in
            [0, 1].
        """
        starts = new if isinstance(new, list) else [new] if new else []
        with _as_runtime_error():
            image = _read_image(frame)
            answers = [_answer(tracker.update(image)) for tracker in self._objects]
            for region, facts in starts:
                tracker = self._loaded.with_policy(self._loaded.engine.policy)
                step = tracker.init(image, box=_start_box(region), text=facts.get("prompt"))
                self._objects.append(tracker)
                answers.append(_answer(step))
        return answers


def _read_image(frame: str | Mapping[str, str]) -> Image:
    """RGB uint8 (H, W, 3) of the frame's file; of several channels the one of color."""
    if not isinstance(frame, str):
        if "color" not in frame:
            raise DataError(f"The frame has no channel 'color', only {', '.join(sorted(frame))}.")
        frame = frame["color"]
    try:
        return shared_reader().read(Path(frame))
    except DataError as error:
        raise ImageError(error.message, hint="Fetch the sequence again.") from error


def _start_box(region: Any) -> BoxLike:
    """Box of a region in the form of this protocol: a tuple of four numbers, or a list of corners."""
    if isinstance(region, tuple) and len(region) == 4:
        x, y, w, h = map(float, region)
        return x, y, w, h
    if isinstance(region, list) and len(region) >= 3:
        return _around([(float(x), float(y)) for x, y in region])
    raise DataError(
        f"Unsupported start region: {type(region).__name__}, not a rectangle or polygon.",
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


# -- protocol folder ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One object: its id, the 0-based frame where it begins, and the box and text that start it there."""

    key: str
    offset: int
    target: Target


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or the exit code of the error that was printed to standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m vltrack.evaluation.harnesses.vot",
        description="Track the objects of a folder of the VOT toolkit (protocol 'folder').",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or path of weights")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument(
        "--output", choices=("box", "mask"), default="box", help="rectangles, or masks and 0 if not seen"
    )
    parser.add_argument("--folder", type=Path, default=Path(), help="folder of the queries (default: this one)")
    given = parser.parse_args(arguments)
    try:
        answer_queries(given.folder, model=given.model, device=given.device, output=given.output)
    except VltrackError as error:
        sys.stderr.write(f"vltrack: error[{error.code}]: {printable(str(error))}\n")
        return error.exit_code
    return 0


def answer_queries(folder: Path, *, model: str = DEFAULT_MODEL, device: str = "auto", output: str = "box") -> None:
    """Answer all queries of a folder in one pass over its frames. Nothing is written if anything fails.

    Args:
        folder: laid out by the toolkit.
        model, device: passed to ``Tracker.load``.
        output: ``box`` writes rectangles and holds the last box of a lost object; ``mask`` writes filled
            masks and ``0`` while the object is not seen, for experiments that score absence.

    Raises:
        DataError: frames or queries break the protocol.
        ImageError: a frame does not decode.
        And what ``Tracker.load``, ``Tracker.init`` and ``ImagesSource`` raise.
    """
    queries, frames = read_queries(folder), read_frames(folder)
    for query in queries:
        if not 0 <= query.offset < len(frames):
            raise DataError(f"query_{query.key}.txt line 1: frame {query.offset} of {len(frames)} (they count from 0).")
    loaded = Tracker.load(model, device=device, anyway=True)
    trackers = [loaded.with_policy(loaded.engine.policy) for _ in queries]
    rows: list[list[str]] = [[] for _ in queries]
    scores: list[list[float]] = [[] for _ in queries]
    for index, frame in enumerate(_decode(frames)):
        for number, (query, tracker) in enumerate(zip(queries, trackers, strict=True)):
            row, score = NO_REGION, 0.0
            if index >= query.offset:
                if index == query.offset:
                    step = tracker.init(frame, box=query.target.box, text=query.target.text)
                else:
                    step = tracker.update(frame)
                score = step.score
                if output == "box":
                    row = ",".join(repr(float(value)) for value in step.box)
                elif step.visible and frame.image is not None:
                    row = mask_line(step.box, frame.image.shape[1::-1])
            rows[number].append(row)
            scores[number].append(score)
    for query, lines, values in zip(queries, rows, scores, strict=True):
        write_text(folder / f"output_{query.key}.txt", "".join(f"{line}\n" for line in lines))
        write_text(folder / f"output_{query.key}_score.txt", "".join(f"{value!r}\n" for value in values))


def read_queries(folder: Path) -> list[Query]:
    """Read all ``query_<id>.txt`` of a folder, sorted by name.

    Raises:
        DataError: no such file, or one that breaks the protocol (file and line are named).
    """
    files = sorted(folder.glob("query_*.txt"))
    if not files:
        raise DataError(f"No query_*.txt in {folder}.", hint="The VOT toolkit writes them; see docs/harnesses.md.")
    return [_query(file) for file in files]


def _query(file: Path) -> Query:
    lines = _lines(file)
    if len(lines) < 2:
        raise DataError(f"{file} has {len(lines)} lines. It needs a frame number and a region.")
    try:
        offset = int(lines[0])
    except ValueError as error:
        raise DataError(f"{file} line 1: not a frame number: {lines[0][:40]!r}.") from error
    box = parse_region(lines[1], f"{file}:2")
    text = dict(line.split("=", 1) for line in lines[2:] if "=" in line).get("prompt") or None
    if box is None and text is None:
        raise DataError(f"No region and no prompt in {file}.", hint="Give a region in line 2, or prompt=.")
    return Query(key=file.stem.removeprefix("query_"), offset=offset, target=Target(box=box, text=text))


def read_frames(folder: Path) -> list[Path]:
    """Read the image paths of ``frames_color.txt``, or of the only other channel, in order.

    Raises:
        DataError: no such file, several without one of color, or an empty one.
    """
    listing = folder / "frames_color.txt"
    if not listing.is_file():
        found = sorted(folder.glob("frames_*.txt"))
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "no frames_*.txt"
            raise DataError(f"No frames_color.txt in {folder}, but {names}.")
        listing = found[0]
    frames = [folder / line for line in _lines(listing) if line]
    if not frames:
        raise DataError(f"{listing} lists no frame.")
    return frames


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in read_limited(file, 16 << 20).decode("utf-8").split("\n")]
    except OSError as error:
        raise DataError(f"Cannot read {file}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text (byte {error.start}).") from error


def _decode(files: list[Path]) -> Iterator[Frame]:
    """Yield all frames, or raise: a score over a sequence with gaps would mean nothing."""
    name = f"{files[0].parent} ({len(files)} frames)"
    with ImagesSource(files, kind="frames", name=name) as source:
        for frame in source:
            if frame.image is None:
                raise ImageError(f"Cannot decode the frame {files[frame.index]}: {frame.flags[-1]}.")
            yield frame
        if source.report.failure is not None:
            raise source.report.failure


def mask_line(box: ArrayLike, size: tuple[int, int]) -> str:
    """Filled mask of a box (4,) xywh in a frame of (width, height): ``m x,y,w,h,0,count``, without the space.

    Edges are rounded to whole pixels and cut to the frame. ``0`` for a NaN and where nothing is left.
    """
    x, y, w, h = (float(value) for value in np.asarray(box, dtype=np.float64))
    if not all(map(math.isfinite, (x, y, w, h))):
        return NO_REGION
    left, right = (min(max(round(v), 0), size[0]) for v in (x, x + w))
    top, bottom = (min(max(round(v), 0), size[1]) for v in (y, y + h))
    width, height = right - left, bottom - top
    return f"m{left},{top},{width},{height},0,{width * height}" if min(width, height) > 0 else NO_REGION


def parse_region(text: str, where: str = "region") -> BoxLike | None:
    """Upright box around the region in one line of a VOT file; None for a code, a NaN and an empty mask.

    Numbers are separated by commas (or spaces): a code (``0`` unknown or absent, ``1`` initialized, ``2``
    failed); a rectangle ``x,y,w,h``; a polygon ``x1,y1,x2,y2,...`` of at least three corners; a mask
    ``m x,y,w,h,n0,n1,...``: corner and size of its window, then run lengths along its rows, background first.

    Raises:
        DataError: none of these, or a number is infinite; ``where`` (``file:line``) is named.
    """
    text = text.strip()
    if text[:1] in ("m", "M"):
        return _mask_box(_numbers(text[1:], where), where)
    numbers = _numbers(text, where)
    count = len(numbers)
    if count == 1 and (math.isnan(numbers[0]) or numbers[0] in (0, 1, 2)):
        return None
    if count < 4 or count % 2:
        raise DataError(
            f"{where}: not a VOT region: {text[:60]!r}.",
            hint="Give a code (0, 1, 2), a rectangle x,y,w,h, a polygon of 3 corners or more, or a mask.",
        )
    if any(map(math.isnan, numbers)):
        return None
    if count == 4:
        x, y, w, h = numbers
        return x, y, w, h
    return _around(list(zip(numbers[::2], numbers[1::2], strict=True)))


def _around(points: list[tuple[float, float]]) -> BoxLike:
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


def _numbers(text: str, where: str) -> list[float]:
    parts = text.split(",") if "," in text else text.split()
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if not numbers or any(map(math.isinf, numbers)):
        raise DataError(f"{where}: not a VOT region: {text[:60]!r}.", hint="Give finite numbers between commas.")
    return numbers


def _mask_box(numbers: list[float], where: str) -> BoxLike | None:
    if len(numbers) < 4 or not all(map(float.is_integer, numbers)) or min(numbers[2:]) < 0:
        raise DataError(f"{where}: damaged mask.", hint="A mask is m x,y,w,h and run lengths, whole and not negative.")
    x, y, width, height, *runs = map(int, numbers)
    if width * height > 16384**2 or sum(runs) > width * height:
        raise DataError(
            f"{where}: a mask of {width}x{height} with runs over {sum(runs)} pixels.", hint="Check the file."
        )
    borders = np.cumsum(runs[: len(runs) // 2 * 2]).reshape(-1, 2)  # the second of two runs is of the object
    first, last = borders[borders[:, 1] > borders[:, 0]].T - [[0], [1]]
    if not len(first):
        return None
    top, bottom = int(first.min()) // width, int(last.max()) // width + 1
    left, right = int((first % width).min()), int((last % width).max()) + 1
    if (first // width != last // width).any():  # a run that continues in the next row
        left, right = 0, width
    return float(x + left), float(y + top), float(right - left), float(bottom - top)


if __name__ == "__main__":
    sys.exit(main())
