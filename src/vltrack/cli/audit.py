"""``vltrack audit``: flags to a checked audit. Knows every flag; ``audit_job.run`` does it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vltrack.api import inputs as checks
from vltrack.api.console import shown, warn
from vltrack.api.inputs import check_model
from vltrack.cli.track import (
    DEVICES,
    Boxes,
    BoxFormat,
    BoxUnit,
    Debug,
    Device,
    End,
    Overwrite,
    Quiet,
    Set,
    Text,
    Threads,
)
from vltrack.core.errors import ResourceError, UsageError

MODES = ("nl", "nlbbox")
FILES = ("audit.json", "audit.csv", "audit.png", "audit.svg")

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model or path of weights.")]
Data = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="A data set or folder of clips; a video or pictures with --text."),
]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Split of the data set: test, val, ...")]
Twins = Annotated[
    int | None, typer.Option("--twins", min=1, metavar="N", help="N drawn scenes with twins, no data needed.")
]
Modes = Annotated[
    str | None,
    typer.Option("--modes", metavar="nl,nlbbox", help="How targets are named; default: all that fit."),
]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N sequences.")]
Frames = Annotated[int, typer.Option(min=2, help="Frames of a twin scene.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the shuffling, the twins and the bootstrap.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FOLDER", help="Write audit.json, .csv, .png and .svg there.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The whole audit as JSON on standard output.")]


def audit(
    model: Model,
    data: Data = None,
    split: Split = None,
    text: Text = None,
    box: Boxes = None,
    box_format: BoxFormat = "xywh",
    box_unit: BoxUnit = "px",
    twins: Twins = None,
    modes: Modes = None,
    limit: Limit = None,
    end: End = None,
    frames: Frames = 20,
    seed: Seed = 0,
    out: Out = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
    device: Device = "auto",
    threads: Threads = None,
    set_: Set = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Does the sentence matter? Follow with the true one, none, a shuffled and a contradicting one.

    Exit code 7 if a model that claims to read text ignores it.

    \b
    vltrack audit litetrack-tiny --data lasot --split test --out audit
    vltrack audit litetrack-tiny --data clip.mp4 --text "the red car" --box 120,40,60,80
    vltrack audit litetrack-tiny --twins 40
    """
    checks.check_choice("--box-format", box_format, ("xywh", "xyxy", "cxcywh"))
    checks.check_choice("--box-unit", box_unit, ("px", "rel"))
    checks.check_choice("--device", device, DEVICES)
    if (data is None) == (twins is None):
        raise UsageError("an audit needs either --data or --twins.", hint="Give --data PATH, or --twins 40.")
    if twins is not None and (text is not None or box or modes or split or limit or end):
        raise UsageError("--twins takes no other target, data or mode.", hint="Leave the other flags out.")
    wanted = _modes(modes)
    targets: tuple[checks.NamedTarget, ...] = ()
    if text is not None or box:
        targets, warnings = checks.read_targets(text=text, boxes=box or (), named=(), box_format=box_format)
        if targets[0].text is None:
            raise UsageError("an audit of a clip needs --text.", hint="Say what the target is.")
        if split or limit:
            raise UsageError("--split and --limit belong to a data set; --text and --box to one clip.")
        for warning in warnings:
            warn(warning)
    settings = {
        key: checks.read_value(raw) for key, raw in checks.read_settings(set_ or (), "policy.").items()
    }
    model = check_model(model)
    _check_folder(out, overwrite=overwrite)

    from vltrack.api import audit as audit_job

    job = audit_job.Job(
        model=model,
        data=data,
        split=split,
        targets=targets,
        box_format=box_format,
        box_unit=box_unit,
        twins=twins,
        modes=wanted,
        limit=limit,
        end=end,
        frames=frames,
        seed=seed,
        out=out,
        as_json=json,
        device=device,
        threads=threads,
        settings=settings,
        quiet=quiet,
    )
    raise typer.Exit(audit_job.run(job))


def _modes(text: str | None) -> tuple[str, ...] | None:
    """``nl,nlbbox`` as words. Raises ``UsageError`` for any other."""
    if text is None:
        return None
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    for word in words:
        if word not in MODES:
            raise UsageError(
                f"--modes {shown(word)!r} has no sentence to audit or is unknown.", hint="Use nl, nlbbox."
            )
    return words


def _check_folder(folder: Path | None, *, overwrite: bool) -> None:
    """That the results can be written, before anything is followed."""
    if folder is None:
        return
    if folder.is_dir():
        for name in FILES:
            checks.check_writable(folder / name, overwrite=overwrite)
    elif folder.exists():
        raise ResourceError(f"cannot write to {shown(folder)}: it is a file.", hint="Choose another --out.")
