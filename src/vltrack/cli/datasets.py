"""``vltrack datasets``: which there are, how to get them, and whether what lies on disk is whole.

Knows flags and lines; ``vltrack.datasets`` does the work.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vltrack.cli.console import emit, say, shown
from vltrack.cli.datasets_convert import convert
from vltrack.cli.datasets_export import export_pictures
from vltrack.cli.track import AsJson, Debug
from vltrack.core.errors import DataError, ResourceError, UsageError
from vltrack.core.text import counted

if TYPE_CHECKING:
    from vltrack.datasets.findings import Finding

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
    from vltrack.datasets.phrases_layouts import LAYOUTS as PHRASES

    findings, record = _check_phrases(path, name) if name in PHRASES else _check(path, name, split, images)
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
    from vltrack.datasets.catalogue import mimic as draw

    made = draw(name, out, seed)
    files = sum(path.is_file() for path in made.rglob("*"))
    if json:
        emit({"name": name, "out": shown(made), "files": files, "seed": seed})
    say(f"wrote a miniature of {name} to {shown(made)}: {counted(files, 'file')}")


def _check(
    path: Path, name: str | None, split: str | None, images: bool
) -> tuple[list[Finding], dict[str, Any]]:
    """The findings over a set of videos, or of pictures where that is what lies there."""
    from vltrack.datasets.check import check_dataset

    try:
        report = check_dataset(path, name=name, split=split, images=images)
    except DataError as error:
        if name is None and _are_phrases(path):
            return _check_phrases(path, None)
        raise error
    spoken = bool(report.place.layout.sentence)
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
    layout = report.place.layout
    record = {
        "path": shown(report.place.root),
        "name": layout.name,
        "title": layout.title,
        "form": layout.form,
        "splits": splits,
    }
    return [*report.findings.errors, *report.findings.warnings], record


def _are_phrases(path: Path) -> bool:
    from vltrack.datasets.phrases import recognise

    try:
        recognise(path)
    except DataError:
        return False
    return True


def _check_phrases(path: Path, name: str | None) -> tuple[list[Finding], dict[str, Any]]:
    from vltrack.datasets.phrases_check import check_phrases

    record = {"path": shown(path), "name": name or "", "title": name or "pictures with phrases"}
    return check_phrases(path, name), record | {"form": "", "splits": []}


def _as_row(finding: Finding) -> dict[str, str]:
    return {
        "kind": finding.kind,
        "severity": finding.severity,
        "where": shown(finding.where),
        "message": shown(finding.message),
        "hint": finding.hint,
    }


def _report_lines(record: dict[str, Any], findings: list[Finding]) -> Iterable[str]:
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
