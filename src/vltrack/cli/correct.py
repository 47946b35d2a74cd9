"""The verbs ``correct`` and ``review``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

import vltrack
from vltrack.api import inputs
from vltrack.cli import options as opt
from vltrack.cli.console import Console, emit, emit_lines, say
from vltrack.core.errors import BoxFrameOutOfRange, NothingFits, UsageError
from vltrack.core.files import counted, printable

if TYPE_CHECKING:
    from vltrack.core.track import Mark, Track
    from vltrack.core.types import BoxLike

File = Annotated[Path, Argument(metavar="TRACK", help="A .csv or .json that track has written, of one target.")]
Video = Annotated[str | None, Argument(metavar="[INPUT]", help="Its video; default: the one that the track names.")]


def correct(
    track: File,
    input: Video = None,
    at: Annotated[str | None, Option(metavar="12.5s|0:12.5|FRAME", help="Which frame the mark is of.")] = None,
    box: Annotated[
        list[str] | None, Option("--box", "-b", metavar="X,Y,W,H", help="Where the target is there.")
    ] = None,
    box_format: opt.BoxFormat = "xywh",
    box_unit: opt.BoxUnit = "px",
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

    old = _loaded(track, input, "correct")
    source = inputs.video_of(old, input)
    inputs.check_outputs(outputs, source, overwrite=overwrite)
    said = inputs.read_text(text, None, None)
    if keyframes is not None:
        if at is not None or box or absent or said is not None or clear:
            raise UsageError("--keyframes has all marks.", hint="Leave --at and what it marks out.")
        from vltrack.api.keyframes import read_keyframes

        found, _ = read_keyframes(keyframes)
        if len(found) > 1:
            raise UsageError(f"{printable(keyframes)} has {len(found)} targets, the track one.", hint="Give its own.")
        marks = next(iter(found.values()))
    else:
        boxes = [_pixels(parse_box(one, box_format), old, box_format, box_unit) for one in box or ()]
        marks = _changed(old, at, boxes, absent, said, clear)
    try:
        new = vltrack.correct(
            old, source, marks, model=model, policy=inputs.read_policy(set_) or None, device=device, threads=threads,
            backend=backend, precision=precision, doubt=doubt or None, reporter=Console(quiet=quiet, as_json=json),
        )  # fmt: skip
    except NothingFits as error:
        error.hint = "Say it differently, or give --box."
        raise
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


def _loaded(path: Path, video: str | None, verb: str) -> Track:
    """The track of a verb's first argument. Raises ``UsageError`` where that is the video; see ``Track.load``."""
    if video is not None and Path(video).suffix in inputs.TABLES and path.suffix.lower() not in inputs.TABLES:
        raise UsageError(
            f"{printable(path)} is not a track.", hint=f"The track comes first: vltrack {verb} {video} {path}."
        )
    return vltrack.Track.load(path)


def _pixels(box: BoxLike, track: Track, box_format: str, box_unit: str) -> BoxLike:
    """The box of a mark as x, y, w, h in pixels. Raises ``BoxInvalid``, or ``UsageError`` without the frame's size."""
    from vltrack.prep.prompts import convert_box

    width, height = track.meta.get("width"), track.meta.get("height")
    if box_unit == "rel" and not (width and height):
        raise UsageError("The track does not have the size of the frame, which --box-unit rel needs.", hint="Give px.")
    return convert_box(box, box_format, box_unit, width or 1, height or 1)


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
        _loaded(track, input, "review"),
        input,
        count=count,
        output=output,
        overwrite=overwrite,
        reporter=Console(quiet=quiet, as_json=json),
    )
    if json:
        emit(found.to_dict())
        return
    emit_lines(["frame,doubt", *(f"{f},{d:.4f}" for f, d in zip(found.frames, found.doubts, strict=True))])
    if not quiet:
        say("every frame has a mark." if found.next is None else f"look at frame {found.next} next.")
        for path in found.files:
            say(f"wrote {path}")
