"""Tracking by the marks of a person in several frames, or backward too; and the files that hold such marks."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltrack.api import inputs
from vltrack.api.correct import checked_marks, load_as, passes_of
from vltrack.api.outputs import StepRecorder, draw_tracks, save_tracks
from vltrack.api.reporter import Interrupted, Reporter, interrupted, pace, shielded
from vltrack.api.track import PREFETCHED, Counts, frames_expected, given_targets, open_frames, track_meta
from vltrack.core.errors import BoxFrameOutOfRange, DataError, InputError, UsageError, VltrackError
from vltrack.core.files import printable
from vltrack.core.json_io import read_text
from vltrack.core.track import FORMAT, MAX_FILE_BYTES, Mark, Track
from vltrack.core.types import BoxLike, Target
from vltrack.prep.prompts import parse_box
from vltrack.video.base import SourceInfo, prefetch
from vltrack.video.source import is_place

if TYPE_CHECKING:
    from vltrack.api.track import Source
    from vltrack.tracking.tracker import Tracker

Range = tuple[int, int | None, int]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Arguments of ``vltrack.track``, checked where they do not depend on the video; ``part`` is start, end, stride."""

    source: Source
    box: BoxLike | None
    text: str | Mapping[str, str] | None
    targets: Mapping[str, Target] | None
    keyframes: Sequence[Mark] | Mapping[str, Sequence[Mark]] | None
    backward: bool
    box_format: str
    box_unit: str
    part: Range
    model: str
    policy: Any
    loading: Mapping[str, Any]
    outputs: Sequence[Path]
    effects: Sequence[str]
    overwrite: bool
    allow_network: bool
    fail_if_lost: bool
    partial_ok: bool
    doubt: bool
    progress: Callable[[int, int | None], object] | None
    reporter: Reporter

    def named(self) -> Mapping[str, Sequence[Mark] | Target]:
        """The targets by name: with marks, or as they are named in the frame ``start``. Raises ``UsageError``."""
        if self.keyframes is None:
            return given_targets(self.box, self.text, self.targets, wait=False, anyway=self.loading["anyway"])
        if self.box is not None or self.targets is not None:
            raise UsageError("Both keyframes and a box or targets say where the target is.", hint="Leave one out.")
        if not self.keyframes:
            raise UsageError("keyframes name no target.")
        return self.keyframes if isinstance(self.keyframes, Mapping) else {"1": self.keyframes}


def follow_keyframes(asked: Request, *, resume: bool, wait: bool) -> Track | dict[str, Track]:
    """Do what ``vltrack.track`` does, with marks of a person or backward.

    Targets are followed one after the other, all from the first mark of any, or from the first frame of the video with
    ``backward``.
    """
    if resume or wait:
        raise UsageError(
            f"A run with keyframes or backward does not {'resume' if resume else 'wait'}.",
            hint="Leave one of them out.",
        )
    targets, source, reporter = asked.named(), asked.source, asked.reporter
    inputs.check_policy(asked.policy)
    inputs.check_outputs(asked.outputs, source, overwrite=asked.overwrite)
    inputs.check_effects(asked.effects, asked.outputs)
    if len(targets) > 1 and not is_place(source):
        raise UsageError("Several targets with keyframes need a file or a folder.", hint="Follow one after the other.")
    marks = {name: one if isinstance(one, Target) else checked_marks(one) for name, one in targets.items()}
    rows = _rows_of([mark.frame for one in marks.values() if isinstance(one, list) for mark in one], asked)
    tracks: dict[str, Track] = {}
    problem: BaseException | None = None
    counts, degraded, began = Counts(), False, time.monotonic()
    with shielded() as shield:
        tracker = load_as({}, asked.model, asked.policy, **asked.loading)
        for name, one in marks.items():
            text = asked.text.get(name) if isinstance(asked.text, Mapping) else asked.text
            tracks[name], bad, problem = _followed(tracker, replace(asked, text=text), rows, one)
            degraded |= bad
            if problem is not None:
                break
        least = min(map(len, tracks.values())) if len(tracks) == len(marks) else 0
        tracks = {name: track[:least] for name, track in tracks.items()}
        for each in zip(*tracks.values(), strict=True):
            counts.add(steps := dict(zip(tracks, each, strict=True)), time.monotonic() - began)
            reporter.steps(steps)
        with shield:
            for path in asked.outputs if least else ():
                if path.suffix.lower() in inputs.TABLES + inputs.EXPORTS:
                    save_tracks(tracks, path)
                else:
                    draw_tracks(tracks, path, source, asked.effects)
    counts.report(asked.outputs, reporter)
    one_only = asked.targets is None and not isinstance(asked.keyframes, Mapping)
    result = tracks["1"] if one_only else tracks
    if isinstance(problem, KeyboardInterrupt):
        raise Interrupted(interrupted(least), result) from problem
    problem = problem or counts.failure(source, degraded=degraded and not asked.partial_ok, lost=asked.fail_if_lost)
    if isinstance(problem, VltrackError):
        problem.result = result
        raise problem
    return result


def _rows_of(frames: Sequence[int], asked: Request) -> Range:
    """Start, end and stride of the rows. Raises ``UsageError`` for a mark that is in none of them."""
    start, end, stride = asked.part
    if not frames:
        return start % stride if asked.backward else start, end, stride
    begin = start + (min(frames) - start) % stride if asked.backward else min(frames)
    for frame in frames:
        if frame < start or (end is not None and frame >= end) or (frame - begin) % stride:
            rest = "" if end is None else f" to {end - 1}"
            every = f", of which every {stride}th is read" if stride > 1 else ""
            raise UsageError(f"The mark of frame {frame} is not in the frames from {start}{rest}{every}.")
    return begin, end, stride


def _followed(
    tracker: Tracker, asked: Request, rows: Range, given: list[Mark] | Target
) -> tuple[Track, bool, BaseException | None]:
    """The track of one target, whether parts of the video are missing, and what has ended it early."""
    from vltrack.tracking.marks import follow_marks

    begin, end, stride = rows
    place, reporter = is_place(asked.source), asked.reporter
    with open_frames(asked.source, *(rows if place else (0, None, 1)), asked.allow_network) as frames:
        target, marks = _marks_of(given, asked, frames.info)
        last, count = marks[-1].frame, frames.info.frames
        if count is not None and last >= count:
            raise _beyond(last, count)
        total = _passes(marks, begin, stride, frames_expected(frames.info.frames_about, *rows), asked.backward)
        meta: dict[str, Any] = track_meta(frames.info, target, asked.model, begin, end, stride, asked.policy)
        meta |= {"runtime": tracker.settings["runtime"], "marks": [mark.record() for mark in marks]}
        if asked.backward:
            meta["backward"] = True
        recorder, warnings, count, started = StepRecorder(), list[str](), 0, time.monotonic()
        problem: BaseException | None = None

        def done() -> None:
            nonlocal count
            count += 1
            left = None if total is None else max(total, count) - count
            bar.show(count, pace(count, left, time.monotonic() - started), line=False)
            if asked.progress is not None:
                asked.progress(count, total)

        ahead = prefetch(frames, PREFETCHED) if place else nullcontext(iter(frames))
        try:
            with ahead as images, reporter.bar("tracking", total) as bar:
                numbers = range(begin, sys.maxsize if end is None else end, stride)
                wanted = (frame for frame in images if frame.index in numbers)
                options: dict[str, Any] = {"text": target.text, "backward": asked.backward, "done": done}
                for step in follow_marks(tracker, wanted, marks, warn=warnings.append, **options):
                    recorder.add(step)
        except KeyboardInterrupt as stop:
            problem = stop
        for warning in (*warnings, *frames.report.warnings):
            reporter.warn(warning)
        track = recorder.track(meta | {"warnings": [*warnings, *frames.report.warnings]})
        problem = problem or frames.report.failure
        if problem is None and (not len(track) or int(track.indices[-1]) < marks[-1].frame):
            problem = _beyond(last, int(track.indices[-1]) + 1 if len(track) else 0)
        return track if asked.doubt else replace(track, doubt=None), frames.report.degraded, problem


def _beyond(frame: int, count: int) -> BoxFrameOutOfRange:
    return BoxFrameOutOfRange(
        f"The video has {count} frames; a target is named in frame {frame}.", hint="Frames count from 0."
    )


def _marks_of(given: Sequence[Mark] | Target, asked: Request, info: SourceInfo) -> tuple[Target, list[Mark]]:
    """The target for the head of a table, and its marks, boxes in pixels. Raises as ``inputs.pixel_targets``."""
    if isinstance(given, Target):
        target = inputs.pixel_targets({"1": given}, asked.box_format, asked.box_unit, info)["1"]
        if target.box is not None:
            return target, [Mark(asked.part[0], box=target.box)]
        return target, [Mark(asked.part[0], text=target.text)]
    marks = checked_marks(given, info.width, info.height)
    first = next(mark for mark in marks if not mark.absent)
    said = Target(box=first.box, text=first.text if asked.text is None else str(asked.text))
    return inputs.pixel_targets({"1": said}, "xywh", "px", info)["1"], marks


def _passes(marks: Sequence[Mark], begin: int, stride: int, rows: int | None, backward: bool) -> int | None:
    """How often the tracker will see a frame; None where the number of rows is unknown."""
    if rows is None:
        return None
    at = [0, *((mark.frame - begin) // stride for mark in marks), max(0, rows - 1)]
    ends = [None, *marks, None]
    spans = zip(at, at[1:], ends, ends[1:], strict=False)
    return sum(passes_of(max(0, high - low), begun, end, backward) for low, high, begun, end in spans)


# -- files of marks -----------------------------------------------------------------------------------

_NAMES = {
    "target": ("target", "name", "id", "track", "object", "label"),
    "frame": ("frame", "frame_index", "frame_number", "index", "image"),
    "x": ("x", "left", "xtl"),
    "y": ("y", "top", "ytl"),
    "w": ("w", "width"),
    "h": ("h", "height"),
    "box": ("box", "bbox"),
    "absent": ("absent", "outside", "absence"),
    "text": ("text", "sentence"),
}
_YES, _NO = ("absent", "true", "yes", "1", "x"), ("", "false", "no", "0")


def read_keyframes(path: Path) -> tuple[dict[str, list[Mark]], dict[str, str]]:
    """Read the marks of targets from a CSV, or from a track that ``vltrack`` has written.

    A row is ``target,frame,x,y,w,h``, ``target,frame,absent`` or ``target,frame,SENTENCE``. A first line may name the
    columns, in any order: target (may be missing: ``1``), frame, x, y, w, h or box, absent, text. A text after a box is
    the sentence of the target.

    Returns:
        The marks by target, and the sentences of those that have one beside their boxes.

    Raises:
        DataError: no such file, or a row that is not a mark, named by its line.
        InputError: a box or a sentence that cannot be used.
    """
    hint = "Give a CSV with a row target,frame,x,y,w,h for each box, or a track."
    if path.is_file() and path.suffix.lower() not in (".csv", ".txt", ".json", ""):
        raise DataError(f"{printable(path)} is not a file of marks.", hint=hint)
    text = read_text(path, MAX_FILE_BYTES).removeprefix("\ufeff")
    if path.suffix.lower() == ".json" or text.startswith(f"# {FORMAT} "):
        track = Track.load(path)
        name, sentence = str(track.meta.get("target", "1")), track.meta.get("sentence")
        return {name: list(track.marks)}, {name: sentence} if sentence else {}
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    lines = [(number, line) for number, line in lines if not line.startswith("#")]
    rows = list(csv.reader((line for _, line in lines), skipinitialspace=True))
    known = {alias: name for name, aliases in _NAMES.items() for alias in aliases}
    head = [known.get(cell.strip().lower(), "") for cell in rows[0]] if rows else []
    named = "frame" in head
    found: dict[str, dict[int, Mark]] = {}
    sentences: dict[str, str] = {}
    for (number, _), cells in list(zip(lines, rows, strict=False))[named:]:
        try:
            # A row "target,frame,absent" under the columns of boxes; "frame,absent" where they have no target.
            short = len(cells) < len(head) and len(cells) == 2 + (head[0] == "target") and "frame" in head[:2]
            row = dict(zip(head, cells, strict=False)) if named and not short else _by_place(cells)
            name, mark = (row.get("target") or "").strip() or "1", _mark_of(row)
            if mark.frame in found.setdefault(name, {}):
                raise DataError(f"frame {mark.frame} of {printable(name)!r} is there twice.")
            found[name][mark.frame] = mark
            said = (row.get("text") or "").strip()
            if mark.box is not None and said and sentences.setdefault(name, said) != said:
                raise DataError(f"{printable(name)!r} has two sentences beside its boxes.", hint="Keep one.")
        except (DataError, InputError, UsageError) as error:
            kind = DataError if isinstance(error, UsageError) else type(error)
            raise kind(f"{printable(path)}, line {number}: {error.message}", hint=error.hint) from error
    if not found:
        raise DataError(f"{printable(path)} has no marks.", hint=hint)
    return {name: list(marks.values()) for name, marks in found.items()}, sentences


def _by_place(cells: Sequence[str]) -> dict[str, str]:
    """A row without named columns; the first cell is the target, where it is not the frame of a short row."""
    cells = [cell.strip() for cell in cells]
    if len(cells) == 5 or (len(cells) == 2 and cells[0].isdecimal()):
        cells = ["1", *cells]
    if len(cells) not in (3, 6, 7):
        raise DataError(f"it has {len(cells)} cells.", hint="Write target,frame,x,y,w,h or target,frame,absent.")
    row = {"target": cells[0], "frame": cells[1]}
    if len(cells) > 3:
        return row | dict(zip(("x", "y", "w", "h", "text"), cells[2:], strict=False))
    return row | ({"absent": "absent"} if cells[2].lower() == "absent" else {"text": cells[2]})


def _mark_of(row: Mapping[str, str]) -> Mark:
    cells = {key: (value or "").strip() for key, value in row.items()}
    if not cells.get("frame", "").isdecimal():
        raise DataError(f"frame is {cells.get('frame', '')[:40]!r}, not a whole number from 0.")
    absent = cells.get("absent", "").lower()
    if absent not in (*_YES, *_NO):
        raise DataError(f"absent is {absent[:40]!r}, not yes or no.")
    sides = [cells.get(side, "") for side in "xywh"]
    frame, text = int(cells["frame"]), cells.get("text") or None
    if absent in _YES:
        return Mark(frame, absent=True)
    box = cells.get("box") or (",".join(sides) if any(sides) else "")
    return Mark(frame, box=parse_box(box)) if box else Mark(frame, text=text)
