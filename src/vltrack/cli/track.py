"""``vltrack track``: flags to a checked request. Knows every flag of the main job; ``job.run`` does it."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from vltrack.api import inputs as checks
from vltrack.api.compare import Files
from vltrack.api.console import say, shown, warn
from vltrack.api.inputs import check_model, model_names
from vltrack.core.errors import ModelNotFound, ResourceError, UsageError

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

    from vltrack.api import track as job

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


# MERGED cli/track.py
# ``vltrack demo``: the main job on the short clip that ships with the package. Knows the clip and nothing
# else.


CLIP = "car-shadow"
DemoOut = Annotated[
    Path, typer.Option("--out", help="Folder for the results; files of an earlier demo are replaced.")
]


def demo(
    out: DemoOut = Path("demo-output"),
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    threads: Threads = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Track a car through a short real clip; write the video, the boxes and a contact sheet."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"cannot make the folder {shown(out)}: {error.strerror}.", hint="Choose another with --out."
        ) from error

    from vltrack.api import track as job

    clip, target = clip_and_target(CLIP)
    outputs = tuple(out / f"{CLIP}{suffix}" for suffix in (".csv", ".mp4", ".png"))
    checks.check_outputs(outputs, str(clip), overwrite=True)
    say(f"{shown(clip)}: {target.text}")
    request = checks.Request(
        source=str(clip),
        targets=(target,),
        model=model,
        outputs=outputs,
        overwrite=True,
        as_json=json,
        quiet=quiet,
        device=device,
        threads=threads,
    )
    code = job.run(request)
    say(f"Look at {shown(out / f'{CLIP}.mp4')} and {shown(out / f'{CLIP}.png')}.")
    raise typer.Exit(code)


def clip_and_target(name: str) -> tuple[Path, checks.NamedTarget]:
    """A shipped clip's path, and the target that its card names by a box in the first frame and a
    sentence.
    """
    folder = Path(str(resources.files("vltrack"))) / "clips"
    card = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    x, y, w, h = (float(number) for number in card["box"])
    return folder / card["file"], checks.NamedTarget(name="1", box=(x, y, w, h), text=card["text"])


# MERGED cli/track.py
# ``vltrack compare``: flags to a checked comparison. Knows every flag; ``side_job.run`` does it.


MOST = 7
"""As many trackers as there are colours that everybody can tell apart (``plots.compare_video.COLOURS``)."""

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--models",
        "-m",
        metavar="NAME ...",
        help="Names of models (vltrack models) or paths of weights; default: all that have weights.",
    ),
]
More = Annotated[list[str] | None, typer.Argument(hidden=True, metavar="MODEL")]
CompareOut = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder for the results.")]
Truth = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="True boxes, x,y,w,h a frame of the input: adds success AUC."),
]
CompareAsJson = Annotated[bool, typer.Option("--json", help="One summary object on standard output.")]
CompareNoVideo = Annotated[bool, typer.Option("--no-video", help="Do not write the video.")]


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
    truth: Truth = None,
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
    """Run several trackers over one video, decoded once: one picture, one video, all boxes, their agreement.

    \b
    vltrack compare clip.mp4 --box 120,40,60,80 --text "the white car"
    vltrack compare clip.mp4 --box 120,40,60,80 --models litetrack-tiny runs/mine/best.safetensors
    """
    checks.check_choice("--box-format", box_format, ("xywh", "xyxy", "cxcywh"))
    checks.check_choice("--box-unit", box_unit, ("px", "rel"))
    checks.check_choice("--device", device, DEVICES)
    checks.check_range(start, end, stride)
    targets, warnings = checks.read_targets(
        text=sentence_of(text, text_file, line),
        boxes=box or (),
        named=(),
        box_format=box_format,
        allow_empty_text=allow_empty_text,
    )
    settings = {
        key: checks.read_value(raw) for key, raw in checks.read_settings(set_ or (), "policy.").items()
    }
    chosen = _named(_chosen(models, more))
    for warning in warnings:
        warn(warning)

    files = Files.under(out, list(chosen), video=not no_video)
    _check_folder(out, files, input, overwrite=overwrite)
    request = checks.Request(
        source=input,
        targets=targets,
        box_format=box_format,
        box_unit=box_unit,
        start=start,
        end=end,
        stride=stride,
        outputs=files.all(),
        overwrite=overwrite,
        as_json=json,
        quiet=quiet,
        allow_network=allow_network,
        device=device,
        threads=threads,
        settings=settings,
    )

    from vltrack.api import compare as side_job

    job = side_job.Comparison(request=request, models=chosen, files=files, truth=truth)
    raise typer.Exit(side_job.run(job))


def _chosen(models: list[str] | None, more: list[str] | None) -> list[str]:
    """The models that were named; else all whose weights are at hand.

    Raises:
        UsageError: words that belong to no flag, a model given twice, or more than ``MOST``.
        ModelNotFound: a model that is not there or has no weights, or none with weights at all.
    """
    if more and not models:
        raise UsageError(
            f"{shown(more[0])!r} belongs to no flag.",
            hint='A sentence with spaces is written in quotes: --text "the white car".',
        )
    names = [*(models or ()), *(more or ())]
    if more and Path(more[-1]).exists() and not Path(more[-1]).name.endswith(".safetensors"):
        raise UsageError(
            f"{shown(more[-1])!r} is no model.",
            hint="The input comes first: vltrack compare INPUT --models ...",
        )
    names = [check_model(name) for name in names]
    if not names:
        names = [name for name, weights in model_names().items() if weights is not None]
    if not names:
        raise ModelNotFound("no weights ship with vltrack.", hint="Train them: vltrack train --help.")
    if len(set(names)) < len(names):
        raise UsageError("a model is named twice in --models.", hint="Name each one once.")
    if len(names) > MOST:
        raise UsageError(
            f"{len(names)} trackers are too many to tell apart; at most {MOST}.",
            hint="Name some with --models.",
        )
    return names


def _named(models: list[str]) -> dict[str, str]:
    """Model or path by its name in the results: a file's name without ending, numbered if taken."""
    named: dict[str, str] = {}
    for model in models:
        path = Path(model)
        name = first = path.stem[:80] if path.suffix == ".safetensors" or path.is_file() else model
        number = 1
        while name in named:
            number += 1
            name = f"{first}-{number}"
        named[name] = model
    return named


def _check_folder(folder: Path, files: Files, source: str, *, overwrite: bool) -> None:
    """That the results can be written; the folder itself is made once the input has been opened."""
    if folder.is_dir():
        checks.check_outputs(files.all(), source, overwrite=overwrite)
    elif folder.exists():
        raise ResourceError(f"cannot write to {shown(folder)}: it is a file.", hint="Choose another --out.")
