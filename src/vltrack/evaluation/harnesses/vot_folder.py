"""The VOT toolkit's protocol ``folder`` as a command: queries in, trajectories out. Knows the files of that
contract; imports nothing of the toolkit.

The toolkit (0.9) starts the command in a folder with ``frames_color.txt`` (a picture a line) and
``query_<id>.txt`` (line 1 the frame where the object begins, from 0; line 2 its region, ``0`` for none; then
``key=value`` lines, of which ``prompt=`` is a sentence). It wants ``output_<id>.txt``, a region a frame with
``0`` before the start, and takes ``output_<id>_score.txt``. Any exit code but 0 is a failure to it.

    python -m vltrack.evaluation.harnesses.vot_folder --model litetrack-tiny
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vltrack.core.errors import DataError, ImageError, VltrackError
from vltrack.core.files import write_text
from vltrack.core.text import printable
from vltrack.core.types import Frame, Step, Target
from vltrack.evaluation.harnesses.vot_regions import box_around
from vltrack.metrics.regions import UNKNOWN, Rectangle, Region, Special, box_mask, parse_region, region_text
from vltrack.tracking.tracker import DEFAULT_MODEL, Tracker
from vltrack.video.contract import Limits
from vltrack.video.images import ImagesSource

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
        prog="python -m vltrack.evaluation.harnesses.vot_folder",
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
