"""``vltrack data``: things to do with data. Knows flags only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vltrack.cli.console import emit, say, shown
from vltrack.cli.track import AsJson, Debug
from vltrack.core.errors import ResourceError, UsageError

app = typer.Typer(help="Make and check data.", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", help="Folder for the clips.")]
Count = Annotated[int, typer.Option(min=1, help="How many clips.")]
Frames = Annotated[int, typer.Option(min=2, help="Frames a clip.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same clips.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")]


@app.callback()
def _data() -> None:
    """Make and check data."""


@app.command("synthesize")
def synthesize(
    out: Out,
    count: Count = 4,
    frames: Frames = 60,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Draw short clips whose boxes and sentences are known exactly; one folder a clip.

    \b
    vltrack data synthesize --out clips --count 4 --frames 60
    """
    if out.exists() and not out.is_dir():
        raise ResourceError(f"{shown(out)} is a file.", hint="Choose a folder with --out.")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UsageError(f"{shown(out)} is not empty.", hint="Add --overwrite, or choose another --out.")

    from vltrack.datasets.clips import synthesize as draw

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot make the folder {shown(out)}: {error.strerror}.") from error
    folders = draw(out, count, frames, seed)
    if json:
        emit({"clips": [shown(folder) for folder in folders], "frames": frames, "seed": seed})
    say(f"wrote {len(folders)} clips of {frames} frames to {shown(out)}")
