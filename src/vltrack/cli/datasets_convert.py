"""``vltrack datasets convert``: flags to one call. Knows no format; ``datasets.phrases_convert`` does."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vltrack.cli.console import emit, say, shown
from vltrack.cli.request import check_writable
from vltrack.cli.track import Debug
from vltrack.core.errors import UsageError
from vltrack.core.text import counted


class Boxes(StrEnum):
    """How a list writes boxes."""

    XYWH = "xywh"
    XYXY = "xyxy"


File = Annotated[Path, typer.Argument(metavar="FILE", help="refs(unc).p, unc_train.pth, ...")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE.jsonl", help="Lines to write; else beside FILE.")
]
Format = Annotated[
    Boxes | None, typer.Option("--boxes", help="How a .pth writes boxes, where its name does not tell.")
]
Instances = Annotated[
    Path | None,
    typer.Option("--instances", metavar="FILE", help="instances.json of a .p, if it is not beside it."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace lines that exist.")]


def convert(
    file: File,
    out: Out = None,
    boxes: Format = None,
    instances: Instances = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Turn pickles of phrases (RefCOCO and its like) into lines of JSON. Nothing in the file is run.

    \b
    vltrack datasets convert "refcoco/refs(unc).p"
    vltrack datasets convert split/data/unc/unc_train.pth
    """
    target = out if out is not None else file.with_suffix(".jsonl")
    if target.suffix != ".jsonl":
        raise UsageError(f"--out {shown(target)} does not end in .jsonl.")
    check_writable(target, overwrite=overwrite)

    from vltrack.datasets.phrases_convert import convert as bring

    done = bring(file, target, boxes=None if boxes is None else boxes.value, instances=instances)
    if json:
        emit({"lines": shown(done.path), "phrases": done.phrases, "splits": done.splits})
    parts = ", ".join(f"{split} {count}" for split, count in done.splits.items())
    say(f"wrote {counted(done.phrases, 'phrase')} ({parts}) to {shown(done.path)}")
