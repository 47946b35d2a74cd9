"""The verb ``convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

import vltrack
from vltrack.cli import options as opt
from vltrack.cli.console import emit, say
from vltrack.core.files import counted, printable


def convert(
    input: Annotated[Path, Argument(metavar="INPUT", help="File or folder with boxes.")],
    output: Annotated[Path, Option("--output", "-o", metavar="FILE|FOLDER", help="What to write.")],
    to: Annotated[
        str | None,
        Option(
            metavar="FORMAT",
            help="cvat, coco, mot, yolo, voc, label-studio, lasot, got10k, got10k-results, vot, csv, json or parquet;"
            " .xml, .csv, .json (ours) and .parquet need none.",
        ),
    ] = None,
    from_: Annotated[
        str | None, Option("--from", metavar="FORMAT", help="Format of the input, where it is not recognized.")
    ] = None,
    video: Annotated[
        str | None, Option(metavar="VIDEO", help="Their video or folder of images: size, rate, number of frames.")
    ] = None,
    target: Annotated[list[str] | None, Option(metavar="NAME", help="Only this target; repeat for several.")] = None,
    label: Annotated[str | None, Option(metavar="CLASS", help="Class of the targets; else their own, or name.")] = None,
    overwrite: opt.Overwrite = False,
    json: opt.SummaryAsJson = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Convert boxes between the formats of annotation tools and benchmarks (docs/formats.md).

    \b
    vltrack convert boxes.csv -o boxes.xml --label car --video clip.mp4
    vltrack convert annotations.xml -o annotations.json --to coco
    vltrack convert my-clips/car -o car --to yolo --video my-clips/car/img
    """
    done = vltrack.convert(
        input, output, to=to, format=from_, video=video, targets=target or (), label=label, overwrite=overwrite
    )
    boxes = sum(int(track.visible.sum()) for track in done.tracks.values())
    if json:
        emit({
            "input": printable(input), "format": done.format, "output": printable(done.path), "to": done.to,
            "targets": list(done.tracks), "boxes": boxes,
        })  # fmt: skip
    if not quiet:
        from vltrack.api.convert import OWN
        from vltrack.formats.base import DEFAULT_RATE

        found = f"{counted(len(done.tracks), 'target')}, {counted(boxes, 'box', 'boxes')}"
        say(f"{printable(input)} is {done.format}: {found}. Wrote {printable(done.path)} as {done.to}.")
        if done.to in OWN and not all(track.meta.get("source") for track in done.tracks.values()):
            say(
                f"{printable(input)} names no video: seconds count {DEFAULT_RATE:g} frames each. With --video VIDEO the"
                " result has its rate, and can be corrected and reviewed."
            )
