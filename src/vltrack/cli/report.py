"""The verb ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from typer import Argument, Option

import vltrack
from vltrack.api import inputs
from vltrack.cli.console import emit, say
from vltrack.cli.track import Debug

if TYPE_CHECKING:
    from vltrack.evaluation.summary import Short

Results = Annotated[
    list[str],
    Argument(
        metavar="RESULTS...",
        help="Folders of results or scores.json files, each PATH or NAME=PATH; or one report.json.",
    ),
]
Out = Annotated[Path, Option("--out", metavar="FOLDER", help="Folder for page, figures, table, JSON.")]
Data = Annotated[
    Path | None,
    Option("--data", metavar="PATH", help="The data set: adds strips and contact sheets; scores what is not."),
]
Against = Annotated[
    str | None,
    Option("--against", metavar="NAME", help="The tracker that the others are compared with; default: the last."),
]
Worst = Annotated[int, Option("--worst", min=0, max=50, help="How many of the worst sequences to show.")]
Rule = Annotated[str, Option("--rule", help="Convention of figures and intervals: official or vlt-python.")]
Format = Annotated[str, Option("--format", help="Kinds of figures, svg and png, with commas between.")]
Common = Annotated[
    bool, Option("--subset-common", help="Compare the sequences that all have; n/N next to every number.")
]
ShortResults = Annotated[
    str, Option("--short", help="Results scored here with too few rows: refuse, count as misses, or cut.")
]
AsJson = Annotated[bool, Option("--json", help="One summary object on standard output.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace a report that exists.")]


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
    """One page and all figures for one or several trackers on one data set.

    \b
    vltrack report results/litetrack-tiny/lasot_nl results/aitrack-tiny/lasot_nl --data lasot --out report
    vltrack report ours=a/scores.json theirs=b/scores.json --against theirs
    vltrack report report/report.json --out again
    """
    found = vltrack.report(
        results, out=out, data=data, against=against, worst=worst, rule=rule,
        formats=inputs.read_list(format) or (), subset_common=subset_common, short=cast("Short", short),
        overwrite=overwrite,
    )  # fmt: skip
    for note in found.notes:
        say(f"note: {note}")
    say(found.verdict)
    say(f"wrote {out / 'report.html'} and {len(found.files) - 1} other files")
    if json:
        emit(found.to_dict())
