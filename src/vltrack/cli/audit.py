"""The verb ``audit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

import vltrack
from vltrack.api import inputs
from vltrack.cli.console import Console, emit, finish, say, warn
from vltrack.cli.track import Boxes, BoxFormat, BoxUnit, Debug, Device, End, Overwrite, Quiet, Set, Text, Threads
from vltrack.core.files import printable

if TYPE_CHECKING:
    from vltrack.api.audit import AuditResult
    from vltrack.core.types import Target

Model = Annotated[str, Argument(metavar="MODEL", help="Name of a model or path of weights.")]
Data = Annotated[
    str | None, Option(metavar="PATH", help="A data set or folder of clips; a video or images with --text.")
]
Split = Annotated[str | None, Option(metavar="NAME", help="Split of the data set: test, val, ...")]
Twins = Annotated[
    int | None, Option("--twins", min=1, metavar="N", help="N drawn scenes with distractor pairs, no data needed.")
]
Modes = Annotated[
    str | None, Option("--modes", metavar="nl,nlbbox", help="How targets are named; default: all that fit.")
]
Limit = Annotated[int | None, Option(min=1, metavar="N", help="Only the first N sequences.")]
Frames = Annotated[int, Option(min=2, help="Frames per drawn scene.")]
Seed = Annotated[int, Option(min=0, help="Random seed for sentence shuffling, drawn scenes and bootstrap.")]
Out = Annotated[Path | None, Option("--out", metavar="FOLDER", help="Write audit.json, .csv, .png and .svg there.")]
AsJson = Annotated[bool, Option("--json", help="The whole audit as JSON on standard output.")]


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
    inputs.check_box_options(box_format, box_unit)
    target: Target | None = None
    if text is not None or box:
        targets, warnings = inputs.read_targets(text=text, boxes=box or (), box_format=box_format)
        target = targets["1"]
        for warning in warnings:
            warn(warning)

    def show(result: AuditResult) -> None:
        from vltrack.cli.tables import audit_lines, distractor_lines
        from vltrack.evaluation.distractors import DistractorAudit

        if json:
            emit(result.to_dict())
        if not quiet:
            found = result.found
            lines = distractor_lines(found) if isinstance(found, DistractorAudit) else audit_lines(found)
            for line in lines:
                say(line)
            for path in result.files:
                say(f"wrote {printable(path)}")

    finish(lambda: vltrack.audit(
        model, data=data, split=split, text=None if target is None else target.text,
        box=None if target is None else target.box, box_format=box_format, box_unit=box_unit, scenes=twins,
        modes=inputs.read_list(modes), limit=limit, end=end, frames=frames, seed=seed, out=out,
        overwrite=overwrite, device=device, threads=threads, policy=inputs.read_policy(set_ or ()),
        reporter=Console(quiet=quiet),
    ), show)  # fmt: skip
