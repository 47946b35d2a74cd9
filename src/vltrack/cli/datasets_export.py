"""``vltrack datasets export-pictures``: flags to one call. Knows no format; ``phrases_export`` does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vltrack.cli.console import emit, say, shown
from vltrack.cli.datasets_convert import AsJson, Overwrite
from vltrack.cli.request import check_writable
from vltrack.cli.track import Debug
from vltrack.core.text import counted

Root = Annotated[Path, typer.Argument(metavar="ROOT", help="The folder of COCO 2017.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for index.jsonl; made if need be.")]
Split = Annotated[str, typer.Option("--split", help="train or val.")]
MinSide = Annotated[
    float, typer.Option("--min-side", min=0, help="Only things wider and higher than this, in pixels.")
]


def export_pictures(
    root: Root,
    out: Out,
    split: Split = "train",
    min_side: MinSide = 50.0,
    overwrite: Overwrite = False,
    json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List COCO's pictures and outlines so that `vltrack train` reads them. No picture is copied.

    \b
    vltrack datasets export-pictures coco --out pictures
    """
    from vltrack.core.files import as_resource_error

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise as_resource_error(error, out) from error
    check_writable(out / "index.jsonl", overwrite=overwrite)

    from vltrack.datasets.phrases_export import export_pictures as bring

    listed = bring(root, out, split=split, min_side=min_side)
    if json:
        emit({"index": shown(out / "index.jsonl"), "pictures": listed})
    say(f"listed {counted(listed, 'picture')} in {shown(out / 'index.jsonl')}")
