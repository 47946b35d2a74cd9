"""The verbs ``evaluate``, ``which-rule`` and ``verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from typer import Argument, Option

import vltrack
from vltrack.api import inputs
from vltrack.cli.console import Console, emit, emit_lines, finish, say, warn
from vltrack.cli.track import AsJson, Debug, Quiet, Set
from vltrack.core.files import counted, printable

if TYPE_CHECKING:
    from vltrack.api.evaluate import Evaluation
    from vltrack.api.results import RuleSearch, Verification
    from vltrack.evaluation.plan import Missing
    from vltrack.evaluation.summary import Short

What = Annotated[
    list[str] | None,
    Argument(
        metavar="[MODEL|RESULTS]...",
        help="Names of models or paths of weights, which are run; results of any tracker, which are scored"
        " (NAME=PATH gives either a name). Without it, scores the ground truth itself (upper bound).",
    ),
]
Data = Annotated[Path, Option("--data", metavar="PATH", help="Data set, or a toolkit's annotations.")]
Dataset = Annotated[
    str | None, Option("--dataset", metavar="NAME", help="Name of the data set, if it cannot be detected.")
]
Split = Annotated[str | None, Option(metavar="NAME", help="test, val, train ... of the data set.")]
Modes = Annotated[
    str | None,
    Option(metavar="LIST", help="Some of nl,bbox,nlbbox; default: every mode supported by the model and the data."),
]
Jobs = Annotated[
    int | None, Option("--jobs", "-j", min=0, help="Worker processes, one thread each; 0: all [1; with ray: all].")
]
Out = Annotated[Path | None, Option("--out", metavar="FOLDER", help="Folder for results and scores [evaluation].")]
Engine = Annotated[str, Option(help="local, or ray for a Ray cluster (extra: vltrack[ray]).")]
Rerun = Annotated[bool, Option("--rerun", help="Delete existing results and start over.")]
MissingSentence = Annotated[
    str, Option(help="Sequences without a sentence: refuse, skip, or start them from their box.")
]
ShortResults = Annotated[
    str, Option("--short", help="Results with too few rows: refuse, count as misses, or cut the ground truth.")
]
Subset = Annotated[
    str | None, Option(metavar="FILE|present", help="Only those listed in a file, or those that have a result.")
]
Rules = Annotated[
    list[str] | None, Option("--rule", metavar="NAME", help="Score by this convention too; all: by every one. Repeat.")
]
Attributes = Annotated[bool, Option("--attributes", help="A table for every attribute too.")]
Pack = Annotated[str | None, Option(metavar="SERVER", help="Write the archive for a server: got10k, trackingnet.")]
Device = Annotated[str, Option(help="cpu, cuda or mps.")]


def evaluate(
    data: Data,
    what: What = None,
    dataset: Dataset = None,
    split: Split = None,
    modes: Modes = None,
    jobs: Jobs = None,
    out: Out = None,
    engine: Engine = "local",
    rerun: Rerun = False,
    missing_sentence: MissingSentence = "refuse",
    short: ShortResults = "refuse",
    subset: Subset = None,
    rule: Rules = None,
    attributes: Attributes = False,
    pack: Pack = None,
    set_: Set = None,
    device: Device = "cpu",
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run trackers over a data set, or take anybody's results, and score them by the benchmark's own rule.

    The convention that papers of this field report is printed too wherever it differs, with the reason.

    \b
    vltrack evaluate litetrack-tiny --data LaSOT --modes bbox,nlbbox -j 4
    vltrack evaluate results/ATOM results/SiamRPN++.npz --data lasot_annotations
    vltrack evaluate --data tnl2k_annotations --rule all
    """

    def show(found: Evaluation) -> None:
        from vltrack.cli.tables import score_lines

        if json:
            for summary in found.summaries:
                emit(summary)
        else:
            emit_lines(score_lines(found.summaries, attributes=attributes))

    finish(lambda: vltrack.evaluate(
        what or (), data=data, dataset=dataset, split=split, modes=inputs.read_list(modes), jobs=jobs,
        out=out, engine=engine, rerun=rerun, missing_sentence=cast("Missing", missing_sentence),
        short=cast("Short", short), subset=subset, rules=rule or (), pack=pack,
        policy=inputs.read_policy(set_ or ()), device=device, reporter=Console(quiet=quiet),
    ), show)  # fmt: skip


Number = Annotated[str, Argument(metavar="NUMBER", help="As published, in percent: 63.1")]
Results = Annotated[Path, Argument(metavar="RESULTS", help="The tracker's: folder, zip or npz.")]
RuleData = Annotated[
    Path | None,
    Option(
        "--data",
        metavar="PATH",
        help="Data set, or a toolkit's annotations. Without it only the conventions by which the results"
        " were scored (scores.json) are searched.",
    ),
]
Tolerance = Annotated[
    float | None, Option(min=0, help="Tolerance in percentage points (default: half a unit in the last digit).")
]


def which_rule(
    number: Number,
    results: Results,
    data: RuleData = None,
    dataset: Dataset = None,
    split: Split = None,
    tolerance: Tolerance = None,
    short: ShortResults = "refuse",
    json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Name the scoring conventions under which a published number fits these results.

    Every rule and measure is tried, also with boxes cut or rounded to whole pixels, shifted by one pixel, and
    with the tracker's own first frame.

    \b
    vltrack which-rule 49.6 results/SiamRPN++.npz --data lasot_annotations
    vltrack which-rule 63.1 evaluation/litetrack-tiny/lasot_bbox
    """
    from vltrack.api.results import which_rule as search

    def show(found: RuleSearch) -> None:
        from vltrack.cli.tables import rule_lines

        if json:
            emit(found.to_dict())
            return
        lines, warnings = rule_lines(found)
        emit_lines(lines)
        for warning in warnings:
            warn(warning)
        if not lines:
            hint = "Is it in percent?" if found.number < 1 else "See vltrack evaluate --rule all."
            say(f"no convention gives {number} within {found.tolerance:.3g}. {hint}")
        if data is None:
            say("only the conventions by which it was scored were searched; --data PATH tries all")

    finish(lambda: search(
        number, results, data=data, dataset=dataset, split=split, tolerance=tolerance,
        short=cast("Short", short),
    ), show)  # fmt: skip


Folders = Annotated[
    list[Path], Argument(metavar="FOLDER...", help="Folders of results, or a folder that holds such folders.")
]


def verify(folders: Folders, json: AsJson = False, debug: Debug = False) -> None:
    """Compare results of vltrack evaluate with the sha256 that were recorded when they were written.

    Exit code 9 if anything was changed, cut or added since.

    \b
    vltrack verify evaluation
    """
    from vltrack.api.results import verify as check

    def show(found: Verification) -> None:
        if json:
            emit(found.to_dict())
        for issue in found.issues if not json else ():
            warn(issue.message)
        if not found.issues:
            say(f"{counted(len(found.folders), 'folder')} of results: as written")
        for run, (finished, planned) in found.incomplete.items():
            say(f"{printable(run)}: {finished} of {planned} sequences are finished")

    finish(lambda: check(folders), show)
