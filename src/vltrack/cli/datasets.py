"""The verbs ``datasets ...``; ``data ...`` are the same."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from vltrack.api import inputs
from vltrack.cli import options as opt
from vltrack.cli.console import emit, emit_lines, say
from vltrack.core.errors import DataError, UsageError
from vltrack.core.files import counted, printable

app = typer.Typer(help="Data sets: list, check, convert, imitate; clips with known boxes.", no_args_is_help=True)

Name = Annotated[str, Argument(help="A name of `vltrack datasets list`.")]


class BoxOrder(StrEnum):
    """Formats of boxes in a list."""

    XYWH = "xywh"
    XYXY = "xyxy"


@app.command("convert")
def convert(
    file: Annotated[Path, Argument(metavar="FILE", help="refs(unc).p, unc_train.pth, ...")],
    out: Annotated[Path | None, Option(metavar="FILE.jsonl", help="Lines to write; else next to FILE.")] = None,
    boxes: Annotated[
        BoxOrder | None, Option(help="Format of boxes in a .pth, where its name does not show it.")
    ] = None,
    instances: Annotated[
        Path | None, Option(metavar="FILE", help="instances.json of a .p, if it is not next to it.")
    ] = None,
    overwrite: opt.Overwrite = False,
    json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Turn pickles of referring expressions (RefCOCO and its like) into lines of JSON. No code is run.

    \b
    vltrack datasets convert "refcoco/refs(unc).p"
    vltrack datasets convert split/data/unc/unc_train.pth
    """
    target = out if out is not None else file.with_suffix(".jsonl")
    if target.suffix != ".jsonl":
        raise UsageError(f"The output {printable(target)} does not end in .jsonl.")
    inputs.check_writable(target, overwrite=overwrite)

    from vltrack.datasets.referring_convert import convert as turn

    done = turn(file, target, boxes=None if boxes is None else boxes.value, instances=instances)
    if json:
        emit({"lines": printable(done.path), "phrases": done.phrases, "splits": done.splits})
    parts = ", ".join(f"{split} {count}" for split, count in done.splits.items())
    say(f"wrote {counted(done.phrases, 'referring expression')} ({parts}) to {done.path}")


@app.command("export-pictures")
def export_pictures(
    root: Annotated[Path, Argument(metavar="ROOT", help="The folder of COCO 2017.")],
    out: Annotated[Path, Option(metavar="DIR", help="Folder for index.jsonl; made if need be.")],
    split: Annotated[str, Option(help="train or val.")] = "train",
    min_side: Annotated[float, Option(min=0, help="Only objects wider and higher than this, in pixels.")] = 50.0,
    overwrite: opt.Overwrite = False,
    json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """List COCO's images and outlines so that `vltrack train` reads them. No image is copied.

    \b
    `vltrack datasets export-pictures coco --out images`
    """
    index = inputs.make_folder(out) / "index.jsonl"
    inputs.check_writable(index, overwrite=overwrite)

    from vltrack.datasets.referring_convert import export_pictures as export

    listed = export(root, out, split=split, min_side=min_side)
    if json:
        emit({"index": printable(index), "pictures": listed})
    say(f"listed {counted(listed, 'image')} in {index}")


@app.command("list")
def list_(json: opt.AsJson = False, debug: opt.Debug = False) -> None:
    """List the data sets that are known: splits, sentence, what marks an absent target."""
    from vltrack.cli.tables import dataset_lines
    from vltrack.datasets.catalogue import rows

    found = list(rows())
    if json:
        for row in found:
            emit(row)
    else:
        emit_lines(dataset_lines(found))


@app.command("fetch-help")
def fetch_help(name: Name, json: opt.AsJson = False, debug: opt.Debug = False) -> None:
    """Say what to download, from where, and how the folders have to look."""
    from vltrack.cli.tables import fetch_lines
    from vltrack.datasets.catalogue import fetch_help as look_up

    found = look_up(name)
    if json:
        emit(found)
    else:
        emit_lines(fetch_lines(found))


@app.command("check")
def check(
    path: Annotated[Path, Argument(help="The data set's folder.")],
    name: Annotated[str | None, Option(help="Data set name, if it cannot be detected.")] = None,
    split: Annotated[str | None, Option(help="Only this split; else all that are there.")] = None,
    images: Annotated[bool, Option("--images", help="Decode every image (slow).")] = False,
    json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Report everything that is wrong with a data set at once; exit code 4 if anything is. Writes nothing.

    \b
    vltrack datasets check data/lasot
    vltrack datasets check data/tnl2k --split test --images
    """
    from vltrack.api.datasets import check as check_data
    from vltrack.cli.tables import check_lines

    found = check_data(path, name=name, split=split, images=images)
    if json:
        emit(found.to_dict())
    else:
        emit_lines(check_lines(found))
    warnings = len(found.issues) - found.errors
    say(f"{path}: {counted(found.errors, 'error')}, {counted(warnings, 'warning')}")
    if found.errors:
        raise typer.Exit(DataError.exit_code)


@app.command("mimic")
def mimic(
    name: Name,
    out: Annotated[Path, Option(help="Folder for the miniature; new or empty.")],
    seed: Annotated[int, Option(min=0, help="The same seed gives the same bytes.")] = 0,
    json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Write a miniature of a data set, drawn, in its exact layout with its quirks: to try things out on.

    \b
    vltrack datasets mimic tnl2k --out small/tnl2k
    """
    inputs.check_empty(out, hint="Choose another --out.")
    from vltrack.datasets.catalogue import write_miniature

    made = write_miniature(name, out, seed)
    files = sum(path.is_file() for path in made.rglob("*"))
    if json:
        emit({"name": name, "out": printable(made), "files": files, "seed": seed})
    say(f"wrote a miniature of {name} to {made}: {counted(files, 'file')}")


@app.command("synthesize")
def synthesize(
    out: Annotated[Path, Option(help="Folder for the clips.")],
    count: Annotated[int, Option(min=1, help="How many clips.")] = 4,
    frames: Annotated[int, Option(min=2, help="Frames per clip.")] = 60,
    seed: Annotated[int, Option(help="The same seed gives the same clips.")] = 0,
    overwrite: Annotated[bool, Option("--overwrite", help="Write into a folder that is not empty.")] = False,
    json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Draw short clips whose boxes and sentences are known exactly; one folder per clip.

    \b
    vltrack datasets synthesize --out clips --count 4 --frames 60
    """
    inputs.check_folder(out)
    if not overwrite:
        inputs.check_empty(out, hint="Add --overwrite, or choose another --out.")

    from vltrack.datasets.synthetic import synthesize as draw

    folders = draw(inputs.make_folder(out), count, frames, seed)
    if json:
        emit({"clips": [printable(folder) for folder in folders], "frames": frames, "seed": seed})
    say(f"wrote {len(folders)} clips of {frames} frames to {out}")
