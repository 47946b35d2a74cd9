"""The verbs on data sets and results: ``evaluate``, ``which-rule``, ``verify``, ``report``, ``audit`` and ``tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from typer import Argument, Option

import vltrack
from vltrack.api import inputs
from vltrack.cli import options as opt
from vltrack.cli.console import Console, emit, emit_lines, finish, say, warn
from vltrack.core.files import counted

if TYPE_CHECKING:
    from vltrack.api.audit import AuditResult
    from vltrack.api.evaluate import Evaluation, RuleSearch, Verification
    from vltrack.api.tune import TuneResult
    from vltrack.core.types import Target
    from vltrack.evaluation.plan import Missing
    from vltrack.evaluation.summary import Short


def evaluate(
    data: Annotated[Path, Option(metavar="PATH", help="Data set, or a toolkit's annotations.")],
    what: Annotated[
        list[str] | None,
        Argument(
            metavar="[MODEL|RESULTS]...",
            help="Names of models or paths of weights, which are run; results of any tracker, which are scored"
            " (NAME=PATH gives either a name). Without it, scores the ground truth itself (upper bound).",
        ),
    ] = None,
    dataset: opt.Dataset = None,
    split: opt.Split = None,
    modes: Annotated[
        str | None,
        Option(metavar="LIST", help="Some of nl,bbox,nlbbox; default: every mode supported by the model and the data."),
    ] = None,
    jobs: opt.Jobs = None,
    out: Annotated[str | None, Option(metavar="FOLDER", help="Folder for results and scores [evaluation].")] = None,
    engine: opt.Engine = "local",
    rerun: Annotated[bool, Option("--rerun", help="Delete existing results and start over.")] = False,
    missing_sentence: Annotated[
        str, Option(help="Sequences without a sentence: refuse, skip, or start them from their box.")
    ] = "refuse",
    short: opt.Short = "refuse",
    subset: Annotated[
        str | None, Option(metavar="FILE|present", help="Score only those listed in a file, or that have a result.")
    ] = None,
    rule: Annotated[
        list[str] | None, Option(metavar="NAME", help="Also score by this protocol; all: by every one. Repeatable.")
    ] = None,
    attributes: Annotated[bool, Option("--attributes", help="Also a table per attribute.")] = False,
    pack: Annotated[
        str | None, Option(metavar="SERVER", help="Write the archive for a server: got10k, trackingnet.")
    ] = None,
    set_: opt.Set = None,
    device: opt.Device = "cpu",
    backend: opt.Backend = "auto",
    precision: opt.Precision = "fp32",
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Run trackers over a data set, or take the results of any tracker, and score them by the benchmark's own protocol.

    The protocol that papers of this field report is printed too wherever it differs, with the reason.

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
        policy=inputs.read_policy(set_), device=device, backend=backend, precision=precision,
        reporter=Console(quiet=quiet),
    ), show)  # fmt: skip


def which_rule(
    number: Annotated[str, Argument(metavar="NUMBER", help="As published, in percent: 63.1")],
    results: Annotated[Path, Argument(metavar="RESULTS", help="The tracker's: folder, zip or npz.")],
    data: Annotated[
        Path | None,
        Option(
            metavar="PATH",
            help="Data set, or a toolkit's annotations. Without it only the protocols by which the results"
            " were scored (scores.json) are searched.",
        ),
    ] = None,
    dataset: opt.Dataset = None,
    split: opt.Split = None,
    tolerance: Annotated[
        float | None, Option(min=0, help="Tolerance in percentage points (default: half a unit in the last digit).")
    ] = None,
    short: opt.Short = "refuse",
    json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Find the protocols under which a published number fits these results.

    Every protocol and measure is tried, also with boxes cut or rounded to whole pixels, shifted by one pixel, and
    with the tracker's own first frame.

    \b
    vltrack which-rule 49.6 results/SiamRPN++.npz --data lasot_annotations
    vltrack which-rule 63.1 evaluation/litetrack-tiny/lasot_bbox
    """
    from vltrack.api.evaluate import which_rule as search
    from vltrack.cli.tables import rule_lines

    found: RuleSearch = search(
        number, results, data=data, dataset=dataset, split=split, tolerance=tolerance, short=cast("Short", short)
    )
    if json:
        emit(found.to_dict())
        return
    lines, warnings = rule_lines(found)
    emit_lines(lines)
    for warning in warnings:
        warn(warning)
    if not lines:
        hint = "Is it in percent?" if found.number < 1 else "See vltrack evaluate --rule all."
        say(f"no protocol gives {number} within {found.tolerance:.3g}. {hint}")
    if data is None:
        say("only the protocols by which it was scored were searched; --data PATH tries all")


def verify(
    folders: Annotated[
        list[Path], Argument(metavar="FOLDER...", help="Folders of results, or a folder that holds such folders.")
    ],
    json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Compare results of vltrack evaluate with the sha256 that were recorded when they were written.

    Exit code 9 if anything was changed, cut or added since.

    \b
    vltrack verify evaluation
    """
    from vltrack.api.evaluate import verify as check

    def show(found: Verification) -> None:
        if json:
            emit(found.to_dict())
        for issue in found.issues if not json else ():
            warn(issue.message)
        if not found.issues:
            say(f"{counted(len(found.folders), 'folder')} of results: as written")
        for run, (finished, planned) in found.incomplete.items():
            say(f"{run}: {finished} of {planned} sequences are finished")

    finish(lambda: check(folders), show)


def report(
    results: Annotated[
        list[str],
        Argument(
            metavar="RESULTS...",
            help="Folders of results or scores.json files, each PATH or NAME=PATH; or one report.json.",
        ),
    ],
    out: Annotated[Path, Option(metavar="FOLDER", help="Folder for page, figures, table, JSON.")] = Path("report"),
    data: Annotated[
        Path | None,
        Option(
            metavar="PATH",
            help="Data set: adds overlap timelines and contact sheets, and scores results that have no scores yet.",
        ),
    ] = None,
    against: Annotated[
        str | None, Option(metavar="NAME", help="The tracker that the others are compared with; default: the last.")
    ] = None,
    worst: Annotated[int, Option(min=0, max=50, help="How many of the worst sequences to show.")] = 4,
    rule: Annotated[str, Option(help="Protocol of figures and intervals: official or vlt-python.")] = "official",
    format: Annotated[str, Option(help="Kinds of figures: svg, png, pdf, pgf, with commas between.")] = "svg,png",
    subset_common: Annotated[
        bool, Option("--subset-common", help="Compare the sequences that all have; n/N next to every number.")
    ] = False,
    short: opt.Short = "refuse",
    overwrite: opt.Overwrite = False,
    json: opt.SummaryAsJson = False,
    debug: opt.Debug = False,
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


def audit(
    model: Annotated[str, Argument(metavar="MODEL", help="Name of a model or path of weights.")],
    data: Annotated[
        str | None, Option(metavar="PATH", help="A data set or folder of clips; a video or images with --text.")
    ] = None,
    split: opt.Split = None,
    text: opt.Text = None,
    box: opt.Boxes = None,
    box_format: opt.BoxFormat = "xywh",
    box_unit: opt.BoxUnit = "px",
    twins: Annotated[
        int | None, Option(min=1, metavar="N", help="N synthetic scenes with distractor pairs, no data needed.")
    ] = None,
    modes: Annotated[
        str | None, Option(metavar="nl,nlbbox", help="How targets are named; default: all that fit.")
    ] = None,
    limit: Annotated[int | None, Option(min=1, metavar="N", help="Only the first N sequences.")] = None,
    end: opt.End = None,
    frames: Annotated[int, Option(min=2, help="Frames per synthetic scene.")] = 20,
    seed: Annotated[int, Option(min=0, help="Random seed for sentence shuffling, synthetic scenes and bootstrap.")] = 0,
    out: Annotated[Path | None, Option(metavar="FOLDER", help="Write audit.json, .csv, .png and .svg there.")] = None,
    overwrite: opt.Overwrite = False,
    json: Annotated[bool, Option("--json", help="The whole audit as JSON on standard output.")] = False,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    backend: opt.Backend = "auto",
    precision: opt.Precision = "auto",
    set_: opt.Set = None,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Does the sentence matter? Follow with the true one, none, a shuffled and a contradicting one.

    Exit code 7 if a model that claims to read text ignores it.

    \b
    vltrack audit litetrack-tiny --data lasot --split test --out audit
    vltrack audit litetrack-tiny --data clip.mp4 --text "the red car" --box 120,40,60,80
    vltrack audit litetrack-tiny --twins 40
    """
    target: Target | None = None
    if text is not None or box:
        target = inputs.read_targets(inputs.read_text(text, None, None), box, box_format=box_format, warn=warn)["1"]

    def show(result: AuditResult) -> None:
        from vltrack.cli.tables import audit_lines

        if json:
            emit(result.to_dict())
        if not quiet:
            for line in audit_lines(result.found):
                say(line)
            for path in result.files:
                say(f"wrote {path}")

    finish(lambda: vltrack.audit(
        model, data=data, split=split, text=None if target is None else target.text,
        box=None if target is None else target.box, box_format=box_format, box_unit=box_unit, scenes=twins,
        modes=inputs.read_list(modes), limit=limit, end=end, frames=frames, seed=seed, out=out,
        overwrite=overwrite, device=device, threads=threads, backend=backend, precision=precision,
        policy=inputs.read_policy(set_), reporter=Console(quiet=quiet),
    ), show)  # fmt: skip


def tune(
    models: Annotated[list[str], Argument(metavar="MODEL...", help="Names of models or paths of weights.")],
    data: Annotated[str, Option(metavar="PATH", help="A data set or folder of annotated clips: validation data.")],
    split: opt.Split = None,
    mode: Annotated[str, Option(help="How targets are given: bbox, nlbbox or nl.")] = "bbox",
    try_: Annotated[
        list[str] | None,
        Option(
            "--try",
            metavar="KEY=V1,V2",
            help="Values of an option, or of several together (a=1,2;b=3,4). Repeatable; default: a list of its own.",
        ),
    ] = None,
    set_: opt.Set = None,
    skip: Annotated[str | None, Option(metavar="LIST", help="Targets to leave out, by name.")] = None,
    starts: Annotated[int, Option(min=1, help="Tracks of each target, from boxes moved by up to 2 %.")] = 1,
    jobs: opt.Jobs = None,
    device: opt.Device = "cpu",
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Search the tracking policy, one option after the other, on validation data.

    A value is taken where its mean gain exceeds the standard error of that gain over the targets.

    \b
    vltrack tune litetrack-tiny sa-tracker-tiny --data clips -j 2
    vltrack tune litetrack-tiny --data clips --try window=0.2,0.35 --try "refresh_every=5,20;refresh_above=0.6,0.7"
    """

    def show(found: TuneResult) -> None:
        from vltrack.cli.tables import tune_lines

        if json:
            emit(found.to_dict())
        elif not quiet:
            for line in tune_lines(found):
                say(line)

    finish(lambda: vltrack.tune(
        models, data=data, split=split, mode=mode, tries=inputs.read_tries(try_), policy=inputs.read_policy(set_),
        skip=inputs.read_list(skip) or (), starts=starts, jobs=jobs, device=device, reporter=Console(quiet=quiet),
    ), show)  # fmt: skip
