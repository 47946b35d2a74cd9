"""``vltrack demo``: the main job on the short clip that ships with the package. Knows the clip and nothing
else.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from vltrack.cli import request as checks
from vltrack.cli.console import say, shown
from vltrack.cli.track import DEFAULT_MODEL, AsJson, Debug, Device, Model, Quiet, Threads
from vltrack.core.errors import ResourceError

CLIP = "car-shadow"
Out = Annotated[
    Path, typer.Option("--out", help="Folder for the results; files of an earlier demo are replaced.")
]


def demo(
    out: Out = Path("demo-output"),
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

    from vltrack.cli import job

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
