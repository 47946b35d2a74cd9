"""The verbs ``track``, ``demo`` and ``compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

import vltrack
from vltrack.api import inputs
from vltrack.api.inputs import DEFAULT_MODEL
from vltrack.cli.console import Console, aligned, emit, finish, say, warn
from vltrack.core.files import printable

if TYPE_CHECKING:
    from vltrack.api.compare import Comparison

Input = Annotated[
    str, Argument(metavar="INPUT", help="Video file, folder of images, camera number, or - for standard input.")
]
Text = Annotated[str | None, Option("--text", "-t", metavar="SENTENCE", help="A sentence that names the target.")]
Boxes = Annotated[
    list[str] | None, Option("--box", "-b", metavar="X,Y,W,H", help="Four numbers, in the first frame that is read.")
]
Named = Annotated[
    list[str] | None, Option("--target", metavar="NAME:WHAT", help="NAME:SENTENCE or NAME:BOX; repeat for several.")
]
BoxFormat = Annotated[str, Option(help="xywh (corner and size), xyxy (two corners) or cxcywh (center and size).")]
BoxUnit = Annotated[str, Option(help="px, or rel for shares of the frame.")]
TextFile = Annotated[Path | None, Option(help="Read the sentence from this file.")]
Line = Annotated[int | None, Option(help="Which line of --text-file; the first is 1.")]
Start = Annotated[int, Option("--start", "--start-frame", help="First frame, where the target is named.")]
End = Annotated[int | None, Option(help="Stop before this frame.")]
Stride = Annotated[int, Option(help="Take every n-th frame.")]
Model = Annotated[str, Option("--model", "-m", help="Name of a model (vltrack models) or path of weights.")]
Outs = Annotated[
    list[Path] | None,
    Option(
        "--output",
        "-o",
        metavar="FILE",
        help=".csv, .json: boxes; .mp4: video; .png: contact sheet. Repeat for several.",
    ),
]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace outputs that exist.")]
RowsAsJson = Annotated[bool, Option("--json", help="JSON lines on standard output; with -o one summary object.")]
AsJson = Annotated[bool, Option("--json", help="Results as JSON on standard output.")]
NoVideo = Annotated[bool, Option("--no-video", help="Do not write .mp4 outputs.")]
Network = Annotated[bool, Option("--allow-network", help="Allow rtsp:// addresses.")]
Device = Annotated[str, Option(help="auto, cpu, cuda or mps.")]
Threads = Annotated[int | None, Option(min=1, help="Threads of the network.")]
FailIfLost = Annotated[bool, Option("--fail-if-lost", help="Exit code 7 if the target was ever lost.")]
AllowEmpty = Annotated[bool, Option("--allow-empty-text", help="With --box: ignore a sentence without words.")]
Mode = Annotated[str | None, Option(help="nl, bbox or nlbbox: only checks that the flags fit.")]
Set = Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="policy.key=value; repeat for several.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress and no summary.")]
Debug = Annotated[bool, Option("--debug", help="Show the whole trace of an error.")]


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
    json: RowsAsJson = False,
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
    inputs.check_box_options(box_format, box_unit)
    targets, warnings = inputs.read_targets(
        text=inputs.read_text(text, text_file, line),
        boxes=box or (),
        named=target or (),
        box_format=box_format,
        allow_empty_text=allow_empty_text,
    )
    inputs.check_mode(mode, targets)
    outputs = [path for path in output or () if not (no_video and path.suffix.lower() in inputs.VIDEOS)]
    for warning in warnings:
        warn(warning)
    vltrack.track(
        input, targets=targets, box_format=box_format, box_unit=box_unit, start=start, end=end, stride=stride,
        model=model, outputs=outputs, overwrite=overwrite, allow_network=allow_network, device=device,
        threads=threads, policy=inputs.read_policy(set_ or ()), fail_if_lost=fail_if_lost, partial_ok=False,
        record=bool(outputs),
        reporter=Console(quiet=quiet, as_json=json, rows=not outputs, several=len(targets) > 1),
    )  # fmt: skip


DemoOut = Annotated[Path, Option("--out", help="Folder for the results; files of an earlier demo are replaced.")]


def demo(
    out: DemoOut = Path("demo-output"),
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    threads: Threads = None,
    json: RowsAsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Track a car through a short real clip; write the video, the boxes and a contact sheet."""
    clip, target = inputs.demo_clip()
    inputs.make_folder(out)
    outputs = [out / f"{clip.stem}{suffix}" for suffix in (".csv", ".mp4", ".png")]
    say(f"{clip}: {target.text}")
    vltrack.track(
        clip, box=target.box, text=target.text, model=model, outputs=outputs, overwrite=True, device=device,
        threads=threads, partial_ok=False, reporter=Console(quiet=quiet, as_json=json),
    )  # fmt: skip
    say(f"Look at {outputs[1]} and {outputs[2]}.")


Models = Annotated[
    list[str] | None,
    Option(
        "--models",
        "-m",
        metavar="NAME ...",
        help="Names of models (vltrack models) or paths of weights; default: all that have weights.",
    ),
]
More = Annotated[list[str] | None, Argument(hidden=True, metavar="MODEL")]
CompareOut = Annotated[Path, Option("--out", metavar="FOLDER", help="Folder for the results.")]
GroundTruth = Annotated[
    Path | None,
    Option("--truth", metavar="FILE", help="Ground truth, x,y,w,h per frame of the input: adds success AUC."),
]
CompareAsJson = Annotated[bool, Option("--json", help="One summary object on standard output.")]
CompareNoVideo = Annotated[bool, Option("--no-video", help="Do not write the video.")]


def compare(
    input: Input,
    more: More = None,
    models: Models = None,
    text: Text = None,
    box: Boxes = None,
    box_format: BoxFormat = "xywh",
    box_unit: BoxUnit = "px",
    text_file: TextFile = None,
    line: Line = None,
    start: Start = 0,
    end: End = None,
    stride: Stride = 1,
    out: CompareOut = Path("compare-output"),
    truth: GroundTruth = None,
    overwrite: Overwrite = False,
    json: CompareAsJson = False,
    no_video: CompareNoVideo = False,
    allow_network: Network = False,
    device: Device = "auto",
    threads: Threads = None,
    allow_empty_text: AllowEmpty = False,
    set_: Set = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run several trackers over one video, decoded once: one image, one video, all boxes, their agreement.

    \b
    vltrack compare clip.mp4 --box 120,40,60,80 --text "the white car"
    vltrack compare clip.mp4 --box 120,40,60,80 --models litetrack-tiny runs/mine/best.safetensors
    """
    inputs.check_box_options(box_format, box_unit)
    targets, warnings = inputs.read_targets(
        text=inputs.read_text(text, text_file, line),
        boxes=box or (),
        box_format=box_format,
        allow_empty_text=allow_empty_text,
    )
    named = inputs.read_models(models, more)
    for warning in warnings:
        warn(warning)

    def show(found: Comparison) -> None:
        if json:
            emit(found.to_dict())
        if not quiet:
            rows, notes = found.table()
            for each in aligned(rows, numbers=range(1, len(rows[0]))):
                say(each)
            for name, note in notes.items():
                say(f"{name.ljust(max(len(row[0]) for row in rows))}  {note}")
            for path in found.files:
                say(f"wrote {printable(path)}")

    finish(lambda: vltrack.compare(
        input, box=targets["1"].box, text=targets["1"].text, models=named, box_format=box_format,
        box_unit=box_unit, start=start, end=end, stride=stride, out=out, video=not no_video, truth=truth,
        overwrite=overwrite, allow_network=allow_network, device=device, threads=threads,
        policy=inputs.read_policy(set_ or ()), reporter=Console(quiet=quiet),
    ), show)  # fmt: skip
