"""``vltrack.correct``: a track with other marks of a person; only frames next to changed marks are tracked again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vltrack.api import inputs
from vltrack.api.reporter import QUIET, Reporter, pace
from vltrack.api.track import PREFETCHED, open_frames
from vltrack.checkpoints.cards import DEFAULT_MODEL
from vltrack.core.errors import BoxFrameOutOfRange, PartialResult, UsageError
from vltrack.core.files import printable
from vltrack.core.track import Mark, Track
from vltrack.core.types import Frame, Status
from vltrack.prep.prompts import check_box, clean_text
from vltrack.tracking.doubt import doubt_of
from vltrack.video.base import prefetch
from vltrack.video.source import is_place

if TYPE_CHECKING:
    from vltrack.api.track import Source
    from vltrack.tracking.postprocess import Policy
    from vltrack.tracking.tracker import Tracker


def correct(
    track: Track | str | Path,
    source: Source | None = None,
    marks: Sequence[Mark] = (),
    *,
    model: str | Path | None = None,
    policy: Policy | Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int | None = None,
    backend: str = "auto",
    precision: str = "auto",
    anyway: bool = False,
    doubt: bool | None = None,
    tracker: Tracker | None = None,
    allow_network: bool = False,
    progress: Callable[[int, int | None], object] | None = None,
    reporter: Reporter = QUIET,
) -> Track:
    """Return a track with other marks of a person; rows that no changed mark is next to are the same.

    Between two boxes the target is tracked from both ends and the two passes are joined, after the last one forward to
    the end; from "not here" to the next box it is not visible. To take a mark back, give the marks without it.

    Args:
        track: to correct; or its ``.csv`` or ``.json``.
        source: its video, as in ``vltrack.track``; None is the ``source`` of its ``meta``.
        marks: all marks that the result has, those of ``track.marks`` that stay among them; boxes are x, y, w, h in
            pixels of the displayed frame.
        model, policy, backend, precision: as in ``vltrack.track``; where not given, those of the track.
        device, threads, anyway, allow_network: as in ``vltrack.track``.
        doubt: whether the result has a doubt for each row; None: if the track has.
        tracker: loaded already, in place of ``model`` and its options; its target is dropped.
        progress: called with the passes over frames that are done, and how many there are.
        reporter: receives warnings and progress.

    Returns:
        The corrected track, with ``marks``; the given one is unchanged.

    Raises:
        UsageError: no marks, none with a target, a frame that the track has no row of, or another video than the
            track's.
        DataError: the file is not a track of one target.
        BoxInvalid, BoxOutside, NothingFits, ImageError: a mark that cannot be used.
        InputError, ModelNotFound, PartialResult, ResourceError, KeyboardInterrupt: as in ``vltrack.track``; the track
            stays as it was.

    Examples:
        >>> import vltrack
        >>> track = vltrack.track("clip.mp4", box=(313, 88, 342, 194), end=4)
        >>> marks = [*track.marks, vltrack.Mark(3, box=(329, 89, 342, 194))]
        >>> corrected = vltrack.correct(track, "clip.mp4", marks)
        >>> corrected.boxes[3].tolist(), [mark.frame for mark in corrected.marks]
        ([329.0, 89.0, 342.0, 194.0], [0, 3])
    """
    if not isinstance(track, Track):
        track = Track.load(track)
    inputs.check_options("xywh", "px", device, threads, progress)
    inputs.check_policy(policy)
    source = inputs.video_of(track, source)
    marks = checked_marks(marks, track.meta.get("width"), track.meta.get("height"))
    plan = _Plan.of(track, marks)
    doubts = _doubts(track, doubt)
    meta = {**track.meta, "marks": [mark.record() for mark in marks]}
    if not plan.sections:
        return replace(track, meta=meta, doubt=doubts)
    if tracker is None:
        loading = {"device": device, "threads": threads, "backend": backend, "precision": precision, "anyway": anyway}
        tracker = load_as(track.meta, model, policy, **loading)
    new: dict[str, Any] = {name: getattr(track, name).copy() for name in ("boxes", "scores", "visible")}
    status, warnings = list(track.status), list(track.meta.get("warnings", []))
    before, count, began = len(warnings), 0, time.monotonic()
    from vltrack.tracking.marks import follow_marks

    with ExitStack() as opened, reporter.bar("correcting", plan.passes) as bar:

        def done() -> None:
            nonlocal count
            count += 1
            bar.show(count, pace(count, plan.passes - count, time.monotonic() - began), line=False)
            if progress is not None:
                progress(count, plan.passes)

        for section, frames in _read(track, source, plan.sections, opened, allow_network):
            options: dict[str, Any] = {"text": track.meta.get("sentence"), "backward": plan.backward, "done": done}
            if section.marks[0].absent:
                options["before"] = track[section.first]
            for step in follow_marks(tracker, frames, section.marks, warn=warnings.append, **options):
                row = int(np.searchsorted(track.indices, step.index))
                if plan.write[row]:
                    new["boxes"][row], new["scores"][row], new["visible"][row] = step.box, step.score, step.visible
                    status[row] = step.status
                    if doubts is not None:
                        doubts[row] = step.extras["doubt"]
    for warning in warnings[before:]:
        reporter.warn(warning)
    return replace(track, status=tuple(status), doubt=doubts, meta={**meta, "warnings": warnings}, **new)


def checked_marks(marks: Sequence[Mark], width: int | None = None, height: int | None = None) -> list[Mark]:
    """Return the marks by frame, their text cleaned, their boxes as they are.

    Raises:
        TypeError: one is no ``Mark``.
        UsageError: two for one frame, or none that says where the target is.
        BoxOutside: a box outside the frame.
        PromptEmpty, PromptInvalid, PromptTooLong: see ``prep.prompts``.
    """
    found: dict[int, Mark] = {}
    for mark in marks:
        if not isinstance(mark, Mark):
            raise TypeError(f"marks must be a list of Mark, not {mark!r:.60}.")
        if mark.frame in found:
            raise UsageError(f"Frame {mark.frame} has two marks.", hint="Give one for each frame.")
        if mark.box is not None and width and height:
            check_box(mark.box, width, height)
        found[mark.frame] = mark if mark.text is None else replace(mark, text=clean_text(mark.text))
    if all(mark.absent for mark in found.values()):
        raise UsageError("No mark says where the target is.", hint="Give a box, or a sentence, at one frame.")
    return [found[frame] for frame in sorted(found)]


def load_as(
    meta: Mapping[str, Any], model: str | Path | None, policy: Policy | Mapping[str, Any] | None, **options: Any
) -> Tracker:
    """Load the tracker of a track's ``meta``, where nothing else is given. Raises what ``Tracker.load`` raises."""
    from vltrack.tracking.tracker import Tracker

    name = inputs.check_model(model if model is not None else meta.get("model", DEFAULT_MODEL))
    runtime = str(meta.get("runtime", "")).split()[1:]  # after the device
    options |= {key: was for key, was in zip(("backend", "precision"), runtime, strict=False) if options[key] == "auto"}
    return Tracker.load(name, policy=meta.get("policy") if policy is None else policy, **options)


def _doubts(track: Track, wanted: bool | None) -> Any:
    """A copy of the track's doubts, from the scores where it has none; None where none are wanted."""
    if wanted is False or (wanted is None and track.doubt is None):
        return None
    if track.doubt is not None:
        return track.doubt.copy()
    found = doubt_of(track.scores)
    rows = {int(index): row for row, index in enumerate(track.indices)}
    found[[rows[mark.frame] for mark in track.marks if mark.frame in rows]] = 0.0
    return found


@dataclass(frozen=True, kw_only=True)
class _Section:
    """Rows ``first`` to ``last`` that are read at once, and the marks that are followed in them."""

    first: int
    last: int
    marks: list[Mark]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What a correction tracks again: ``sections``, the rows that it may ``write``, and its passes over frames."""

    sections: list[_Section]
    write: Any
    passes: int
    backward: bool

    @classmethod
    def of(cls, track: Track, marks: Sequence[Mark]) -> _Plan:
        """The plan for a track that is to have ``marks``. Raises ``BoxFrameOutOfRange``."""
        rows = {int(index): row for row, index in enumerate(track.indices)}
        for mark in marks:
            if mark.frame not in rows:
                raise BoxFrameOutOfRange(
                    f"The track has no row of frame {mark.frame}, but of {len(rows)} frames"
                    + (f" from {track.indices[0]} to {track.indices[-1]}." if rows else "."),
                    hint="Mark one of them.",
                )
        known = set(track.marks)
        changed = {mark.frame for mark in known ^ set(marks)}
        backward, write = bool(track.meta.get("backward")), np.zeros(len(track), dtype=bool)
        write[[rows[mark.frame] for mark in marks if mark not in known]] = True
        parts: list[_Section] = []
        passes = 0
        for left, right in zip([None, *marks], [*marks, None], strict=True):
            low = int(track.indices[0]) if left is None else left.frame
            high = int(track.indices[-1]) if right is None else right.frame
            if not any(low <= frame <= high for frame in changed) or (left is None and low == high):
                continue
            begin = _anchor(track, rows, left, right, known)
            first, last = rows[low], rows[high]
            if begin is None and left is not None:
                continue  # nothing had come into view
            inner = slice(first + (left is not None), last + (right is None))
            write[inner] = True
            if begin is not None and left is not None and begin.frame > left.frame:
                write[first + 1 : rows[begin.frame] + 1] = False
                first = rows[begin.frame]
            end = None if right is None else _anchor(track, rows, right, None, known) or right
            passes += passes_of(last - first, begin, end, backward)
            more = [mark for mark in (begin, end) if mark is not None]
            if parts and parts[-1].last == first and parts[-1].marks[-1] == begin:
                parts[-1] = replace(parts[-1], last=last, marks=parts[-1].marks + more[1:])
            else:
                parts.append(_Section(first=first, last=last, marks=more))
                passes += begin is not None and not begin.absent  # its start
        return cls(sections=parts, write=write, passes=passes, backward=backward)


def _anchor(
    track: Track, rows: Mapping[int, int], mark: Mark | None, until: Mark | None, known: set[Mark]
) -> Mark | None:
    """The mark; of an unchanged sentence the box that it has found, if any before the next mark."""
    if mark is None or mark.text is None or mark not in known:
        return mark
    first = rows[mark.frame]
    last = len(track) if until is None else max(rows[until.frame], first + 1)
    for row in range(first, last):
        if track.status[row] not in (Status.WAITING, Status.MISSING):
            return Mark(int(track.indices[row]), box=tuple(track.boxes[row].tolist()))
    return None


def passes_of(count: int, begin: Mark | None, end: Mark | None, backward: bool) -> int:
    """How often the tracker sees a frame in a span of ``count`` frames up to ``end``; its start there counted."""
    boxes = [mark is not None and not mark.absent for mark in (begin, end)]
    both = boxes[1] and (boxes[0] or (begin is None and backward))
    return count * (boxes[0] + both) + boxes[1]


def _read(
    track: Track, source: Source, sections: Sequence[_Section], opened: ExitStack, allow_network: bool
) -> Iterator[tuple[_Section, Iterator[Frame]]]:
    """Yield each section with its frames. Raises ``UsageError`` for another video, ``PartialResult`` for gaps."""
    place, stride = is_place(source), int(track.meta.get("stride", 1))
    frames: Any = None
    rest: Any = None
    for section in sections:
        low, high = (int(track.indices[row]) for row in (section.first, section.last))
        if frames is None or place:
            opened.close()
            first, end, every = (low, high + 1, stride) if place else (0, None, 1)
            frames = opened.enter_context(open_frames(source, first, end, every, allow_network))
            inputs.check_video_of(track, frames.info)
            rest = opened.enter_context(prefetch(frames, PREFETCHED)) if place else iter(frames)
        wanted = set(track.indices[section.first : section.last + 1].tolist())
        seen: list[int] = []
        yield section, _only(rest, wanted, seen)
        if len(seen) < len(wanted):
            raise frames.report.failure or PartialResult(
                f"{printable(frames.info.name)} has {len(seen)} of the {len(wanted)} frames from {low} to {high}.",
                hint="Give what was tracked.",
            )


def _only(frames: Iterator[Frame], wanted: set[int], seen: list[int]) -> Iterator[Frame]:
    """The wanted frames, and none after the last of them is taken; their numbers are noted."""
    last = max(wanted)
    for frame in frames:
        if frame.index in wanted:
            seen.append(frame.index)
            yield frame
        if frame.index >= last:
            return
