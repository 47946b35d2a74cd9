"""``vltrack train``: flags to a plain dict of options. Knows no model and no loss; ``training.launch`` does
it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vltrack.cli import request as checks
from vltrack.cli.console import say, shown
from vltrack.cli.names import meant, nearest
from vltrack.cli.track import AsJson, Debug, Device, Quiet
from vltrack.core.errors import DataError, ResourceError, UsageError

Name = Annotated[str, typer.Argument(help="aitrack, all-in-one, bit-tracker, litetrack or sa-tracker.")]
Size = Annotated[str, typer.Option(help="tiny, base, or another that `vltrack models` lists.")]
Data = Annotated[Path, typer.Option("--data", help="Folder of training pictures (docs/train.md).")]
Out = Annotated[Path, typer.Option("--out", help="Folder of this run: log, checkpoints, weights.")]
Start = Annotated[
    Path | None,
    typer.Option(
        "--start",
        help="Weights (.safetensors) to start from, or the folder of a run to follow up.",
    ),
]
Part = Annotated[
    str | None,
    typer.Option("--part", help="twins: the last part, in which words learn to tell look-alikes apart."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A field of the recipe, such as steps=900; may be repeated."
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Optimiser steps in all.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Samples (or clips) a step, over all processes.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
Processes = Annotated[int | None, typer.Option(min=1, help="Processes that train or make pairs.")]


def train(
    name: Name,
    data: Data,
    out: Out,
    size: Size = "tiny",
    start: Start = None,
    part: Part = None,
    resume: Resume = False,
    set_: Set = None,
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = None,
    processes: Processes = None,
    device: Device = "auto",
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a tracker on still pictures. Ctrl-C keeps the last checkpoint; --resume goes on from it.

    \b
    vltrack train litetrack --size tiny --data pictures --out runs/litetrack-tiny
    """
    from vltrack.models import MODELS

    name = meant(name, MODELS)
    if name not in MODELS:
        raise UsageError(f"no tracker is called {shown(name)!r}.", hint=nearest(name, MODELS))
    checks.check_choice("--size", size, tuple(MODELS[name].sizes))
    if part is not None:
        checks.check_choice("--part", part, ("twins",))
    settings = checks.read_settings(set_ or ())
    if not data.is_dir():
        raise DataError(f"{shown(data)} is no folder of training pictures.", hint="See docs/train.md.")
    if out.exists() and not out.is_dir():
        raise ResourceError(f"{shown(out)} is a file.", hint="Choose a folder with --out.")
    if out.is_dir() and any(out.iterdir()) and not resume:
        raise UsageError(
            f"{shown(out)} is not empty.", hint="Add --resume to go on, or choose another --out."
        )

    from vltrack.training.launch import main_train

    options: dict[str, object] = {
        "model": name,
        "size": size,
        "data": data,
        "out": out,
        "start": start,
        "part": part,
        "resume": resume,
        "settings": settings,
        "steps": steps,
        "batch": batch,
        "seed": seed,
        "processes": processes,
        "device": device,
        "json": json,
        "quiet": quiet,
    }
    try:
        code = main_train(options)
    except KeyboardInterrupt:
        kept = (out / "last.json").exists()
        say(
            f"the same command with --resume goes on from the last checkpoint in {shown(out)}."
            if kept
            else "stopped before the first checkpoint: with --resume it starts over."
        )
        raise
    raise typer.Exit(code)
