"""The verbs ``correct`` and ``review``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

import vltrack
from vltrack.api import inputs
from vltrack.cli import options as opt
from vltrack.cli.console import Console, emit, emit_lines, say
from vltrack.core.errors import BoxFrameOutOfRange, UsageError
from vltrack.core.files import counted, printable

if TYPE_CHECKING:
    from vltrack.core.track import Mark, Track
    from vltrack.core.types import BoxLike

File = Annotated[Path, Argument(metavar="TRACK", help="A .csv or .json that track has written, of one target.")]
Video = Annotated[str | None, Argument(metavar="[INPUT]", help="Its video; default: the one that the track names.")]


def correct(
    track: File,
    input: Video = None,
    at: Annotated[str | None, Option(metavar="12.5s|FRAME", help="Which frame the mark is of.")] = None,
    box: opt.Boxes = None,
    absent: Annotated[bool, Option("--absent", help="The target is not there, until the next mark.")] = False,
    text: opt.Text = None,
    clear: Annotated[bool, Option("--clear", help="Take the mark of this frame back.")] = False,
    keyframes: Annotated[
        Path | None, Option(metavar="FILE", help="All marks, in place of the track's: CSV of target,frame,x,y,w,h.")
    ] = None,
    output: Annotated[
        list[Path] | None, Option("--output", "-o", metavar="FILE", help=".csv, .json, .mp4 or .png; may be repeated.")
    ] = None,
    overwrite: opt.Overwrite = False,
    doubt: Annotated[bool, Option("--doubt", help="Write a doubt for each row, though the track has none.")] = False,
    model: Annotated[str | None, Option("--model", "-m", help="Name or path of a model; default: the track's.")] = None,
    json: opt.SummaryAsJson = False,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    backend: opt.Backend = "auto",
    precision: opt.Precision = "auto",
    set_: opt.Set = None,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Say where the target is in one frame, or that it is not there; only the frames next to it are tracked again.

    \b
    vltrack correct boxes.csv clip.mp4 --at 120 --box 400,80,60,80 -o corrected.csv
    vltrack correct boxes.csv clip.mp4 --at 12.5s --absent -o corrected.csv
    """
    outputs = output or []
    if not outputs:
        raise UsageError("Nothing says where the corrected track goes.", hint="Give -o corrected.csv.")
    from vltrack.prep.prompts import parse_box

    old = vltrack.Track.load(track)
    source = input if input is not None else str(old.meta.get("source", ""))
    inputs.check_outputs(outputs, source, overwrite=overwrite)
    said = inputs.read_text(text, None, None)
    if keyframes is not None:
        if at is not None or box or absent or said is not None or clear:
            raise UsageError("--keyframes has all marks.", hint="Leave --at and what it marks out.")
        from vltrack.api.keyframes import read_keyframes

        found = read_keyframes(keyframes)
        if len(found) > 1:
            raise UsageError(f"{printable(keyframes)} has {len(found)} targets, the track one.", hint="Give its own.")
        marks = next(iter(found.values()))
    else:
        marks = _changed(old, at, [parse_box(one) for one in box or ()], absent, said, clear)
    new = vltrack.correct(
        old, source, marks, model=model, policy=inputs.read_policy(set_) or None, device=device, threads=threads,
        backend=backend, precision=precision, doubt=doubt or None, reporter=Console(quiet=quiet, as_json=json),
    )  # fmt: skip
    for path in outputs:
        new.save(path, overwrite=overwrite, source=source)
    changed = sum(a != b for a, b in zip(old.rows(), new.rows(), strict=True))
    if json:
        emit({
            "frames": len(new), "changed": changed, "marks": new.meta["marks"],
            "outputs": [printable(path) for path in outputs],
        })  # fmt: skip
    if not quiet:
        say(f"{changed} of {counted(len(new), 'row')} changed; {counted(len(marks), 'mark')}.")
        for path in outputs:
            say(f"wrote {path}")


def _changed(
    track: Track, at: str | None, boxes: list[BoxLike], absent: bool, text: str | None, clear: bool
) -> list[Mark]:
    """The marks of the track with the one that the flags say. Raises ``UsageError``."""
    place = inputs.read_time(at)
    if place is None or len(boxes) + absent + (text is not None) + clear != 1:
        raise UsageError(
            "A correction is one frame and one thing that it shows.",
            hint="Give --at FRAME with one of --box x,y,w,h, --absent, --text and --clear.",
        )
    if isinstance(place, float):
        rows = [index for index, seconds in zip(track.indices, track.seconds, strict=True) if seconds >= place]
        if not rows:
            raise BoxFrameOutOfRange(f"The track ends before {place:g} s.", hint="Give an earlier time.")
        place = int(rows[0])
    others = [mark for mark in track.marks if mark.frame != place]
    if clear:
        if len(others) == len(track.marks):
            raise UsageError(f"Frame {place} has no mark.", hint=f"It has marks at {_places(track)}.")
        return others
    return [*others, vltrack.Mark(place, box=boxes[0] if boxes else None, absent=absent, text=text)]


def _places(track: Track) -> str:
    return ", ".join(str(mark.frame) for mark in track.marks) or "no frame"


def review(
    track: File,
    input: Video = None,
    count: Annotated[int, Option(min=1, help="Frames at most.")] = 12,
    output: Annotated[
        Path | None, Option("--output", "-o", metavar="FILE.png", help="Contact sheet of the frames.")
    ] = None,
    overwrite: opt.Overwrite = False,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """List the frames of a track that deserve a look, best first, and name the single next one.

    \b
    vltrack review boxes.csv clip.mp4 -o look.png
    """
    found = vltrack.review(
        track, input, count=count, output=output, overwrite=overwrite, reporter=Console(quiet=quiet, as_json=json)
    )
    if json:
        emit(found.to_dict())
        return
    emit_lines(["frame,doubt", *(f"{f},{d:.4f}" for f, d in zip(found.frames, found.doubts, strict=True))])
    if not quiet:
        say("every frame has a mark." if found.next is None else f"look at frame {found.next} next.")
        for path in found.files:
            say(f"wrote {path}")
