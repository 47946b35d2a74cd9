"""``vltrack compare``: flags to a checked comparison. Knows every flag; ``side_job.run`` does it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vltrack.cli import request as checks
from vltrack.cli.console import shown, warn
from vltrack.cli.names import check_model, model_names
from vltrack.cli.side_files import Files
from vltrack.cli.track import (
    DEVICES,
    AllowEmpty,
    Boxes,
    BoxFormat,
    BoxUnit,
    Debug,
    Device,
    End,
    Input,
    Line,
    Network,
    Overwrite,
    Quiet,
    Set,
    Start,
    Stride,
    Text,
    TextFile,
    Threads,
    sentence_of,
)
from vltrack.core.errors import ModelNotFound, ResourceError, UsageError

MOST = 7
"""As many trackers as there are colours that everybody can tell apart (``plots.lanes.COLOURS``)."""

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
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder for the results.")]
Truth = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="True boxes, x,y,w,h a frame of the input: adds success AUC."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One summary object on standard output.")]
NoVideo = Annotated[bool, typer.Option("--no-video", help="Do not write the video.")]


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
    out: Out = Path("compare-output"),
    truth: Truth = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
    no_video: NoVideo = False,
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

    from vltrack.cli import side_job

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
