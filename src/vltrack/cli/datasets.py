"""``vltrack datasets``: which there are, how to get them, and whether what lies on disk is whole.

Knows flags and lines; ``vltrack.datasets`` does the work.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vltrack.api.console import emit, say, shown
from vltrack.api.inputs import check_writable
from vltrack.cli.track import AsJson, Debug
from vltrack.core.errors import DataError, ResourceError, UsageError
from vltrack.core.files import counted

if TYPE_CHECKING:
    from vltrack.datasets.parsing import Issue


# MERGED cli/datasets.py
# ``vltrack datasets convert``: flags to one call. Knows no format; ``datasets.referring_convert`` does.


class Boxes(StrEnum):
    """How a list writes boxes."""

    XYWH = "xywh"
    XYXY = "xyxy"


File = Annotated[Path, typer.Argument(metavar="FILE", help="refs(unc).p, unc_train.pth, ...")]
ConvertOut = Annotated[
    Path | None, typer.Option("--out", metavar="FILE.jsonl", help="Lines to write; else beside FILE.")
]
Format = Annotated[
    Boxes | None, typer.Option("--boxes", help="How a .pth writes boxes, where its name does not tell.")
]
Instances = Annotated[
    Path | None,
    typer.Option("--instances", metavar="FILE", help="instances.json of a .p, if it is not beside it."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace lines that exist.")]


def convert(
    file: File,
    out: ConvertOut = None,
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

    from vltrack.datasets.referring_convert import convert as bring

    done = bring(file, target, boxes=None if boxes is None else boxes.value, instances=instances)
    if json:
        emit({"lines": shown(done.path), "phrases": done.phrases, "splits": done.splits})
    parts = ", ".join(f"{split} {count}" for split, count in done.splits.items())
    say(f"wrote {counted(done.phrases, 'phrase')} ({parts}) to {shown(done.path)}")


# MERGED cli/datasets.py
# ``vltrack datasets export-pictures``: flags to one call. Knows no format; ``phrases_export`` does.


Root = Annotated[Path, typer.Argument(metavar="ROOT", help="The folder of COCO 2017.")]
ExportOut = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder for index.jsonl; made if need be.")
]
ExportSplit = Annotated[str, typer.Option("--split", help="train or val.")]
MinSide = Annotated[
    float, typer.Option("--min-side", min=0, help="Only things wider and higher than this, in pixels.")
]


def export_pictures(
    root: Root,
    out: ExportOut,
    split: ExportSplit = "train",
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

    from vltrack.datasets.referring_convert import export_pictures as bring

    listed = bring(root, out, split=split, min_side=min_side)
    if json:
        emit({"index": shown(out / "index.jsonl"), "pictures": listed})
    say(f"listed {counted(listed, 'picture')} in {shown(out / 'index.jsonl')}")


app = typer.Typer(help="Data sets: list, get, check, imitate.", no_args_is_help=True)
app.command("convert")(convert)
app.command("export-pictures")(export_pictures)

_SHOWN = 20

Name = Annotated[str, typer.Argument(help="A name of `vltrack datasets list`.")]
Folder = Annotated[Path, typer.Argument(help="The data set's folder.")]
AsName = Annotated[str | None, typer.Option("--name", help="What it is, where that is not to be found out.")]
Split = Annotated[str | None, typer.Option("--split", help="Only this split; else all that are there.")]
Images = Annotated[bool, typer.Option("--images", help="Decode every picture (slow).")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the miniature; new or empty.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")]


@app.command("list")
def list_(json: AsJson = False, debug: Debug = False) -> None:
    """List the data sets that are known: splits, sentence, what says that a target is absent."""
    from vltrack.datasets.catalogue import rows

    found = list(rows())
    if json:
        for row in found:
            emit(row)
        return
    heads = ("name", "splits", "sentence", "absent")
    cells = [[row["name"], _splits(row["splits"]), row["sentence"], row["absent"]] for row in found]
    for line in _table([list(heads), *cells]):
        sys.stdout.write(line + "\n")


@app.command("fetch-help")
def fetch_help(name: Name, json: AsJson = False, debug: Debug = False) -> None:
    """Say what to download, from where, and how the folders have to look."""
    from vltrack.datasets.catalogue import fetch_help as look_up

    found = look_up(name)
    if json:
        emit(found)
        return
    sys.stdout.write("\n".join(_fetch_lines(found)) + "\n")


@app.command("check")
def check(
    path: Folder,
    name: AsName = None,
    split: Split = None,
    images: Images = False,
    json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Tell everything that is wrong with a data set at once; exit code 4 if anything is. Writes nothing.

    \b
    vltrack datasets check data/lasot
    vltrack datasets check data/tnl2k --split test --images
    """
    from vltrack.datasets.referring import REFERRING_LAYOUTS

    referring = name in REFERRING_LAYOUTS
    findings, record = _check_phrases(path, name) if referring else _check(path, name, split, images)
    errors = sum(finding.severity == "error" for finding in findings)
    record |= {"errors": errors, "warnings": len(findings) - errors}
    if json:
        emit(record | {"findings": [_as_row(finding) for finding in findings]})
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _report_lines(record, findings)))
    say(f"{shown(path)}: {counted(errors, 'error')}, {counted(len(findings) - errors, 'warning')}")
    if errors:
        raise typer.Exit(DataError.exit_code)


@app.command("mimic")
def mimic(name: Name, out: Out, seed: Seed = 0, json: AsJson = False, debug: Debug = False) -> None:
    """Write a miniature of a data set, drawn, in its exact layout with its quirks: to try things out on.

    \b
    vltrack datasets mimic tnl2k --out small/tnl2k
    """
    if out.exists() and not out.is_dir():
        raise ResourceError(f"{shown(out)} is a file.", hint="Choose a folder with --out.")
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{shown(out)} is not empty.", hint="Choose another --out.")
    from vltrack.datasets.catalogue import write_miniature

    made = write_miniature(name, out, seed)
    files = sum(path.is_file() for path in made.rglob("*"))
    if json:
        emit({"name": name, "out": shown(made), "files": files, "seed": seed})
    say(f"wrote a miniature of {name} to {shown(made)}: {counted(files, 'file')}")


def _check(
    path: Path, name: str | None, split: str | None, images: bool
) -> tuple[list[Issue], dict[str, Any]]:
    """The findings over a set of videos, or of pictures where that is what lies there."""
    from vltrack.datasets.check import check_dataset

    try:
        report = check_dataset(path, name=name, split=split, images=images)
    except DataError as error:
        if name is None and _are_phrases(path):
            return _check_phrases(path, None)
        raise error
    spoken = bool(report.detected.layout.sentence)
    splits = [
        {
            "split": dataset.split,
            "sequences": len(dataset.sequences),
            "frames": sum(len(sequence) for sequence in dataset.sequences),
            "absent": int(sum(sequence.absent.sum() for sequence in dataset.sequences)),
            "without_sentence": sum(not sequence.sentence for sequence in dataset.sequences)
            if spoken
            else None,
        }
        for dataset in report.datasets
    ]
    layout = report.detected.layout
    record = {
        "path": shown(report.detected.root),
        "name": layout.name,
        "title": layout.title,
        "form": layout.form,
        "splits": splits,
    }
    return [*report.issues.errors, *report.issues.warnings], record


def _are_phrases(path: Path) -> bool:
    from vltrack.datasets.referring import detect_referring

    try:
        detect_referring(path)
    except DataError:
        return False
    return True


def _check_phrases(path: Path, name: str | None) -> tuple[list[Issue], dict[str, Any]]:
    from vltrack.datasets.check import check_referring

    record = {"path": shown(path), "name": name or "", "title": name or "pictures with phrases"}
    return check_referring(path, name), record | {"form": "", "splits": []}


def _as_row(finding: Issue) -> dict[str, str]:
    return {
        "kind": finding.kind,
        "severity": finding.severity,
        "where": shown(finding.where),
        "message": shown(finding.message),
        "hint": finding.hint,
    }


def _report_lines(record: dict[str, Any], findings: list[Issue]) -> Iterable[str]:
    """What it is, what it holds, and the findings, at most 20 of a kind."""
    form = f" ({record['form']})" if record["form"] else ""
    yield f"{record['title']}{form} in {record['path']}"
    for split in record["splits"]:
        sequences, frames = counted(split["sequences"], "sequence"), counted(split["frames"], "frame")
        line = f"  {split['split']}: {sequences}, {frames}"
        line += f", absent in {split['absent']:,}"
        mute = split["without_sentence"]
        yield line if mute is None else f"{line}; {mute} without a sentence"
    told: Counter[tuple[str, str]] = Counter()
    for finding in findings:
        told[finding.severity, finding.kind] += 1
        if told[finding.severity, finding.kind] <= _SHOWN:
            yield f"{finding.severity}: {finding}" + (f" {finding.hint}" if finding.hint else "")
    for (severity, kind), count in told.items():
        if count > _SHOWN:
            yield f"{severity}: {count - _SHOWN} more of the kind {kind} (--json lists all)"


def _fetch_lines(found: dict[str, Any]) -> Iterable[str]:
    yield f"{found['title']}" + (f": {found['size']}" if found["size"] else "")
    if found["page"]:
        yield f"from {found['page']}"
    yield from (f"  - {part}" for part in found["parts"])
    yield "so that there is"
    yield from (f"  {line}" for line in found["tree"])
    yield f"then: vltrack datasets check ROOT --name {found['name']}"


def _splits(names: list[str]) -> str:
    return " ".join(names[:4]) + (f" (+{len(names) - 4})" if len(names) > 4 else "")


def _table(rows: list[list[str]]) -> Iterable[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


# MERGED cli/datasets.py
# ``vltrack data``: things to do with data. Knows flags only.


data_app = typer.Typer(help="Make and check data.", no_args_is_help=True)

DataOut = Annotated[Path, typer.Option("--out", help="Folder for the clips.")]
Count = Annotated[int, typer.Option(min=1, help="How many clips.")]
Frames = Annotated[int, typer.Option(min=2, help="Frames a clip.")]
DataSeed = Annotated[int, typer.Option(help="The same seed gives the same clips.")]
DataOverwrite = Annotated[bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")]


@data_app.callback()
def _data() -> None:
    """Make and check data."""


@data_app.command("synthesize")
def synthesize(
    out: DataOut,
    count: Count = 4,
    frames: Frames = 60,
    seed: DataSeed = 0,
    overwrite: DataOverwrite = False,
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

    from vltrack.datasets.synthetic import synthesize as draw

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot make the folder {shown(out)}: {error.strerror}.") from error
    folders = draw(out, count, frames, seed)
    if json:
        emit({"clips": [shown(folder) for folder in folders], "frames": frames, "seed": seed})
    say(f"wrote {len(folders)} clips of {frames} frames to {shown(out)}")
