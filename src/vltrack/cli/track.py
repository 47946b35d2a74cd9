"""``vltrack track``: flags to a checked request. Knows every flag of the main job; ``job.run`` does it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vltrack.cli import request as checks
from vltrack.cli.console import warn
from vltrack.core.errors import UsageError

Input = Annotated[
    str,
    typer.Argument(
        metavar="INPUT", help="Video file, folder of pictures, camera number, or - for standard input."
    ),
]
Text = Annotated[
    str | None, typer.Option("--text", "-t", metavar="SENTENCE", help="A sentence that names the target.")
]
Boxes = Annotated[
    list[str] | None,
    typer.Option("--box", "-b", metavar="X,Y,W,H", help="Four numbers, in the first frame that is read."),
]
Named = Annotated[
    list[str] | None,
    typer.Option("--target", metavar="NAME:WHAT", help="NAME:SENTENCE or NAME:BOX; repeat for several."),
]
BoxFormat = Annotated[
    str, typer.Option(help="xywh (corner and size), xyxy (two corners) or cxcywh (centre and size).")
]
BoxUnit = Annotated[str, typer.Option(help="px, or rel for shares of the frame.")]
TextFile = Annotated[Path | None, typer.Option(help="Read the sentence from this file.")]
Line = Annotated[int | None, typer.Option(help="Which line of --text-file; the first is 1.")]
Start = Annotated[
    int, typer.Option("--start", "--start-frame", help="First frame, where the target is named.")
]
End = Annotated[int | None, typer.Option(help="Stop before this frame.")]
Stride = Annotated[int, typer.Option(help="Take every n-th frame.")]
Model = Annotated[
    str, typer.Option("--model", "-m", help="Name of a model (vltrack models) or path of weights.")
]
Outs = Annotated[
    list[Path] | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help=".csv, .json: boxes; .mp4: video; .png: contact sheet. Repeat for several.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="JSON lines on standard output; with -o one summary object.")
]
NoVideo = Annotated[bool, typer.Option("--no-video", help="Do not write .mp4 outputs.")]
Network = Annotated[bool, typer.Option("--allow-network", help="Allow rtsp:// addresses.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of the network.")]
FailIfLost = Annotated[bool, typer.Option("--fail-if-lost", help="Exit code 7 if the target was ever lost.")]
AllowEmpty = Annotated[
    bool, typer.Option("--allow-empty-text", help="With --box: ignore a sentence without words.")
]
Mode = Annotated[str | None, typer.Option(help="nl, bbox or nlbbox: only checks that the flags fit.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="policy.key=value; repeat for several.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole trace of an error.")]

DEFAULT_MODEL = "litetrack-tiny"
DEVICES = ("auto", "cpu", "cuda", "mps")


def track(
    input: Input,
    text: Text = None,
    box: Boxes = None,
    target: Named = None,
    box_format: BoxFormat = "xywh",
    box_unit: BoxUnit = "px",
    text_file: TextFile = None,
    line: Line = None,
    start: Start = 0,
    end: End = None,
    stride: Stride = 1,
    model: Model = DEFAULT_MODEL,
    output: Outs = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
    no_video: NoVideo = False,
    allow_network: Network = False,
    device: Device = "auto",
    threads: Threads = None,
    fail_if_lost: FailIfLost = False,
    allow_empty_text: AllowEmpty = False,
    mode: Mode = None,
    set_: Set = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Follow what a sentence, a box, or both name, through a video.

    Without -o the rows go to standard output: frame,seconds,x,y,w,h,score,visible,status.

    \b
    vltrack track clip.mp4 --text "the white car on the left" -o boxes.csv -o seen.mp4
    vltrack track clip.mp4 --text "the dog" --box 120,40,60,80
    vltrack track clip.mp4 --target "1:the dog" --target "2:120,40,60,80"
    """
    checks.check_choice("--box-format", box_format, ("xywh", "xyxy", "cxcywh"))
    checks.check_choice("--box-unit", box_unit, ("px", "rel"))
    checks.check_choice("--device", device, DEVICES)
    checks.check_range(start, end, stride)
    targets, warnings = checks.read_targets(
        text=sentence_of(text, text_file, line),
        boxes=box or (),
        named=target or (),
        box_format=box_format,
        allow_empty_text=allow_empty_text,
    )
    checks.check_mode(mode, targets)
    settings = {
        key: checks.read_value(text) for key, text in checks.read_settings(set_ or (), "policy.").items()
    }
    outputs = tuple(path for path in output or () if not (no_video and path.suffix.lower() in checks.VIDEOS))
    checks.check_outputs(outputs, input, overwrite=overwrite)
    for warning in warnings:
        warn(warning)

    from vltrack.cli import job

    request = checks.Request(
        source=input,
        targets=targets,
        box_format=box_format,
        box_unit=box_unit,
        start=start,
        end=end,
        stride=stride,
        model=model,
        outputs=outputs,
        overwrite=overwrite,
        as_json=json,
        quiet=quiet,
        allow_network=allow_network,
        device=device,
        threads=threads,
        fail_if_lost=fail_if_lost,
        settings=settings,
    )
    raise typer.Exit(job.run(request))


def sentence_of(text: str | None, text_file: Path | None, line: int | None) -> str | None:
    """The sentence from ``--text`` or from line ``--line`` of ``--text-file``. Raises ``UsageError`` for
    both.
    """
    if text_file is None:
        if line is not None:
            raise UsageError("--line belongs to --text-file, which is missing.")
        return text
    if text is not None:
        raise UsageError("--text and --text-file both give a sentence.", hint="Leave one of them out.")
    from vltrack.prep.prompts import read_prompt_file

    return read_prompt_file(text_file, 1 if line is None else line)
