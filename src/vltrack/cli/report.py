"""``vltrack report``: flags to a checked job. Knows every flag; ``report_job.run`` does it."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from vltrack.api import inputs as checks
from vltrack.api.console import emit, say, shown
from vltrack.cli.track import Debug
from vltrack.core.errors import UsageError

if TYPE_CHECKING:
    from vltrack.evaluation.summary import Short


KINDS = ("svg", "png")
SHORT = ("refuse", "misses", "cut")

Results = Annotated[
    list[str],
    typer.Argument(
        metavar="RESULTS...",
        help="Folders of results or scores.json files, each PATH or NAME=PATH; or one report.json.",
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder for page, pictures, table, JSON.")]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="PATH", help="The data set: adds strips and contact sheets; scores what is not."
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        "--against", metavar="NAME", help="The tracker that the others are compared with; default: the last."
    ),
]
Worst = Annotated[
    int, typer.Option("--worst", min=0, max=50, help="How many of the worst sequences to show.")
]
Rule = Annotated[
    str, typer.Option("--rule", help="Convention of pictures and intervals: official or vlt-python.")
]
Format = Annotated[str, typer.Option("--format", help="Kinds of pictures, svg and png, with commas between.")]
Common = Annotated[
    bool,
    typer.Option("--subset-common", help="Compare the sequences that all have; n/N beside every number."),
]
ShortResults = Annotated[
    str,
    typer.Option("--short", help="Results scored here with too few rows: refuse, count as misses, or cut."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One summary object on standard output.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a report that is there.")]


def report(
    results: Results,
    out: Out = Path("report"),
    data: Data = None,
    against: Against = None,
    worst: Worst = 4,
    rule: Rule = "official",
    format: Format = "svg,png",
    subset_common: Common = False,
    short: ShortResults = "refuse",
    overwrite: Overwrite = False,
    json: AsJson = False,
    debug: Debug = False,
) -> None:
    """One page and all pictures for one or several trackers on one data set.

    \b
    vltrack report results/litetrack-tiny/lasot_nl results/aitrack-tiny/lasot_nl --data lasot --out report
    vltrack report ours=a/scores.json theirs=b/scores.json --against theirs
    vltrack report report/report.json --out again
    """
    kinds = tuple(dict.fromkeys(part.strip().lower() for part in format.split(",") if part.strip()))
    if not kinds or any(kind not in KINDS for kind in kinds):
        raise UsageError(f"--format {shown(format)!r} is not known.", hint="Known: svg, png.")
    checks.check_choice("--short", short, SHORT)

    from vltrack.api import report as report_job

    flags: dict[str, object] = {
        "--out": out,
        "--data": data,
        "--against": against,
        "--worst": worst if worst != 4 else None,
        "--rule": rule if rule != "official" else None,
        "--format": format if format != "svg,png" else None,
        "--short": short if short != "refuse" else None,
    }
    words = [word for flag, value in flags.items() if value is not None for word in (flag, str(value))]
    words += ["--subset-common"] if subset_common else []
    job = report_job.Job(
        results=tuple(results),
        out=out,
        data=data,
        against=against,
        worst=worst,
        rule=rule,
        formats=kinds,
        subset_common=subset_common,
        short=cast("Short", short),
        overwrite=overwrite,
        command=shlex.join(["vltrack", "report", *results, *words]),
        date=time.strftime("%Y-%m-%d"),
    )
    told = report_job.run(job)
    for note in told["notes"]:
        say(f"note: {note}")
    say(told["verdict"])
    say(f"wrote {shown(out / report_job.PAGE)} and {len(told['files']) - 1} other files")
    if json:
        emit(told)
