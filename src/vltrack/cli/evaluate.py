"""``vltrack evaluate``: flags to a checked request. Knows every flag; ``evaluate_job.run`` does it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from vltrack.api import inputs as checks
from vltrack.api.console import emit, say, shown, warn
from vltrack.api.inputs import check_model, nearest
from vltrack.cli.track import DEVICES, AsJson, Debug, Quiet, Set
from vltrack.core.errors import DataError, StateError, UsageError
from vltrack.core.files import counted

if TYPE_CHECKING:
    from vltrack.evaluation.summary import Short
    from vltrack.metrics.protocol_search import ProtocolSearch


MODES = ("nl", "bbox", "nlbbox")
ENGINES = ("local", "ray")
MISSING = ("refuse", "skip", "box")
_VOT_NAME = re.compile(r"vots?-?20\d\d", re.IGNORECASE)
SHORT = ("refuse", "misses", "cut")
SERVERS = ("got10k", "trackingnet")

What = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL|RESULTS]...",
        help="Names of models or paths of weights, which are run; results of any tracker, which are scored"
        " (NAME=PATH gives either a name); none: what a perfect tracker reaches.",
    ),
]
Data = Annotated[Path, typer.Option("--data", metavar="PATH", help="Data set, or a toolkit's annotations.")]
Dataset = Annotated[
    str | None, typer.Option("--dataset", metavar="NAME", help="What the data is, if not told by its form.")
]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="test, val, train ... of the data set.")]
Modes = Annotated[
    str | None,
    typer.Option(
        metavar="LIST", help="Some of nl,bbox,nlbbox; default: all that model and data have words for."
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=0, help="Worker processes, one thread each; 0: all [1; with ray: all]."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FOLDER", help="Where results and scores go [evaluation]."),
]
Engine = Annotated[str, typer.Option(help="local, or ray for a Ray cluster (extra: vltrack[ray]).")]
Rerun = Annotated[bool, typer.Option("--rerun", help="Start afresh where older results lie.")]
MissingSentence = Annotated[
    str, typer.Option(help="Sequences without a sentence: refuse, skip, or start them by their box.")
]
ShortResults = Annotated[
    str, typer.Option("--short", help="Results with too few rows: refuse, count as misses, or cut the truth.")
]
Subset = Annotated[
    str | None,
    typer.Option(metavar="FILE|present", help="Only those listed in a file, or those that have a result."),
]
Rules = Annotated[
    list[str] | None,
    typer.Option("--rule", metavar="NAME", help="Score by this convention too; all: by every one. Repeat."),
]
Attributes = Annotated[bool, typer.Option("--attributes", help="A table for every attribute too.")]
Pack = Annotated[
    str | None, typer.Option(metavar="SERVER", help="Write the archive for a server: got10k, trackingnet.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps.")]


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

    What papers of this field report is printed beside it wherever it differs, and why.

    \b
    vltrack evaluate litetrack-tiny --data LaSOT --modes bbox,nlbbox -j 4
    vltrack evaluate results/ATOM results/SiamRPN++.npz --data lasot_annotations
    vltrack evaluate --data tnl2k_annotations --rule all
    """
    checks.check_choice("--engine", engine, ENGINES)
    checks.check_choice("--missing-sentence", missing_sentence, MISSING)
    checks.check_choice("--short", short, SHORT)
    checks.check_choice("--device", device, DEVICES)
    if pack is not None:
        checks.check_choice("--pack", pack, SERVERS)
    if _VOT_NAME.match(data.resolve().name):
        raise UsageError(
            f"{shown(data)} is a VOT challenge, which has rules of its own.",
            hint="Score it with the VOT toolkit; docs/harnesses.md shows how to run a tracker inside it.",
        )
    models, results = sorted_out(what or [])
    if not data.exists():
        raise DataError(f"{shown(data)}: no such file or folder.", hint="Name the data set with --data.")
    settings = {
        key: checks.read_value(raw) for key, raw in checks.read_settings(set_ or (), "policy.").items()
    }
    from vltrack.api.evaluate import Request

    request = Request(
        models=models,
        results=results,
        data=data,
        dataset=dataset,
        split=split,
        modes=_modes(modes),
        jobs=(0 if engine == "ray" else 1) if jobs is None else jobs,
        out=out,
        engine=engine,
        rerun=rerun,
        missing_sentence=missing_sentence,
        short=short,
        subset=subset,
        rules=check_rules(rule or []),
        attributes=attributes,
        pack=pack,
        policy=settings,
        device=device,
        as_json=json,
        quiet=quiet,
    )

    if models:
        from vltrack.api import evaluate as grounding_job

        if grounding_job.holds_phrases(data, dataset):
            raise typer.Exit(grounding_job.run(request))

    from vltrack.api import evaluate as evaluate_job

    raise typer.Exit(evaluate_job.run(request))


def sorted_out(what: list[str]) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, Path], ...]]:
    """The models and the results among what was named, each after the name that it was given ("" if none).

    Raises:
        ModelNotFound: neither a model nor a file or folder.
        UsageError: something is named twice, or is one file of results.
    """
    if len(set(what)) < len(what):
        raise UsageError("something is named twice.", hint="Name each model and each folder of results once.")
    models, results = [], []
    for word in what:
        name, sign, rest = word.partition("=")
        if not sign or Path(word).exists():
            name, rest = "", word
        if _is_results(Path(rest)):
            results.append((name, Path(rest)))
        elif Path(rest).suffix.lower() in (".txt", ".csv", ".json"):
            raise UsageError(
                f"{shown(rest)} is one file.", hint="Name the folder that holds a file a sequence."
            )
        else:
            models.append((name, check_model(rest)))
    return tuple(models), tuple(results)


def _is_results(path: Path) -> bool:
    return path.is_dir() or (path.is_file() and path.suffix.lower() in (".npz", ".zip"))


def check_rules(names: list[str]) -> tuple[str, ...]:
    """Names of rules; ``all`` stands for every one. Raises ``UsageError``."""
    from vltrack.metrics.protocols import RULES

    if "all" in names:
        return tuple(RULES)
    for name in names:
        if name not in RULES:
            raise UsageError(f"there is no rule {shown(name)!r}.", hint=nearest(name, [*RULES, "all"]))
    return tuple(dict.fromkeys(names))


def _modes(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    modes = tuple(mode.strip() for mode in text.split(",") if mode.strip())
    for mode in modes:
        checks.check_choice("--modes", mode, MODES)
    if not modes or len(set(modes)) < len(modes):
        raise UsageError("--modes names each of nl,bbox,nlbbox at most once.", hint="--modes bbox,nlbbox")
    return modes


# MERGED cli/evaluate.py
# ``vltrack which-rule``: under which convention does a published number fit? Knows flags and one table.


Number = Annotated[str, typer.Argument(metavar="NUMBER", help="As published, in percent: 63.1")]
Results = Annotated[Path, typer.Argument(metavar="RESULTS", help="The tracker's: folder, zip or npz.")]
RuleData = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Data set, or a toolkit's annotations. Without it only the conventions by which the results"
        " were scored (scores.json) are looked through.",
    ),
]
Tolerance = Annotated[
    float | None, typer.Option(min=0, help="How far off may it be? Default: half of the last digit.")
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
    checks.check_choice("--short", short, SHORT)
    published, digits = _published(number)
    within = 0.5 * 10**-digits + 1e-9 if tolerance is None else tolerance
    if data is None:
        search, name = _among_scores(results, published, within)
    else:
        search, name = _over_data(results, data, (dataset, split), published, within, short)
    if json:
        fits = [fit.to_dict() for fit in search.fits]
        emit({"number": published, "tolerance": within, "fits": fits, "refused": dict(search.refused)})
        return
    _tell(search, name)
    if not search.fits:
        hint = "Is it in percent?" if published < 1 else "See vltrack evaluate --rule all."
        say(f"no convention gives {shown(number)} within {within:.3g}. {hint}")
    if data is None:
        say("only the conventions by which it was scored were looked through; --data PATH tries all")


def _over_data(
    results: Path,
    data: Path,
    which: tuple[str | None, str | None],
    number: float,
    tolerance: float,
    short: str,
) -> tuple[ProtocolSearch, str]:
    """All conventions over the boxes, and the data set's name."""
    if not data.exists():
        raise DataError(f"{shown(data)}: no such file or folder.", hint="Name the data set with --data.")

    from vltrack.datasets.reader import open_dataset
    from vltrack.evaluation.results import open_results
    from vltrack.evaluation.summary import annotations_of, rename_results, with_short
    from vltrack.metrics.protocol_search import which_rule as find
    from vltrack.metrics.protocols import RULES

    opened = open_dataset(data, name=which[0], split=which[1])
    truth = annotations_of(opened)
    boxes = rename_results(truth.names, open_results(results)).boxes
    rules = [with_short(rule, cast("Short", short)) for rule in RULES.values()]
    return find(number, truth, boxes, tolerance=tolerance, rules=rules), opened.name


def _among_scores(results: Path, number: float, tolerance: float) -> tuple[ProtocolSearch, str]:
    """The conventions that ``scores.json`` holds, and the data set's name."""
    from vltrack.evaluation.summary import SCORES, read_scores
    from vltrack.metrics.protocol_search import ProtocolMatch, ProtocolSearch
    from vltrack.metrics.scoring import MEASURES

    if not (results if results.is_file() else results / SCORES).is_file() or results.suffix in (
        ".npz",
        ".zip",
    ):
        raise UsageError(
            f"{shown(results)} holds no scores, and without the data there is nothing to score it by.",
            hint="Name the data set: --data PATH.",
        )
    told = read_scores(results)
    fits = [
        ProtocolMatch(rules=(rule["rule"],), measure=measure, change="as given", value=value, off=value - number)
        for rule in told["rules"].values()
        for measure in MEASURES
        if (value := rule[measure]) is not None and abs(value - number) <= tolerance
    ]
    return ProtocolSearch(fits=tuple(sorted(fits, key=lambda fit: abs(fit.off))), refused={}), told["data"]


def _tell(search: ProtocolSearch, data: str) -> None:
    """A line a way, and what could not be tried."""
    from vltrack.api.evaluate import NAMES
    from vltrack.metrics.protocol_search import CHANGES
    from vltrack.metrics.protocols import benchmark_of

    official = {rule.name: column for column, rule in benchmark_of(data).rules.items()}

    def named(rule: str) -> str:
        return f"{rule} ({official[rule]})" if rule in official else rule

    for fit in search.fits:
        rules = ", ".join(map(named, fit.rules))
        name = NAMES.get(fit.measure, fit.measure)
        sys.stdout.write(f"{fit.value:7.3f}  {name:<8} {CHANGES[fit.change][0]}: {rules}\n")
    for said in sorted(set(search.refused.values())):
        who = ", ".join(named(rule) for rule in search.refused if search.refused[rule] == said)
        warn(f"not tried: {who}. {said}{' See --short.' if 'fewer' in said else ''}")


def _published(text: str) -> tuple[float, int]:
    """The number and how many digits stand behind its point. Raises ``UsageError``."""
    plain = text.strip().removesuffix("%")
    try:
        value = float(plain)
    except ValueError as error:
        raise UsageError(f"{shown(text)!r} is no number.", hint="Give it in percent: 63.1") from error
    if not 0 <= value <= 100:
        raise UsageError(f"{shown(text)} is no percentage.", hint="Give it in percent: 63.1, not 0.631.")
    return value, len(plain.partition(".")[2])


# MERGED cli/evaluate.py
# ``vltrack verify``: are results still what a run wrote? Knows flags; ``evaluation.results`` looks.


Folders = Annotated[
    list[Path],
    typer.Argument(metavar="FOLDER...", help="Folders of results, or a folder that holds such folders."),
]


def verify(folders: Folders, json: AsJson = False, debug: Debug = False) -> None:
    """Hold results of vltrack evaluate against the sha256 that were noted when they were written.

    Leaves with 9 if anything was changed, cut or added since.

    \b
    vltrack verify evaluation
    """
    from vltrack.evaluation.results import read_results
    from vltrack.evaluation.results import verify as look

    runs = [run for folder in folders for run in _runs(folder)]
    findings = [finding for run in runs for finding in look(run)]
    if json:
        emit(
            {
                "folders": [shown(run) for run in runs],
                "findings": [{"path": shown(f.path), "message": f.message} for f in findings],
            }
        )
    else:
        for finding in findings:
            warn(finding.message)
    if findings:
        raise StateError(
            f"{counted(len(findings), 'file')} not as written.",
            hint="Run the evaluation again: it redoes what is damaged.",
        )
    say(f"{counted(len(runs), 'folder')} of results: as written")
    for run in runs:
        stored = read_results(run)
        if not stored.complete:
            say(f"{shown(run)}: {len(stored.names)} of {len(stored.planned)} sequences are finished")


def _runs(folder: Path) -> list[Path]:
    """The folders of results at or under ``folder``. Raises ``DataError`` where there is none."""
    from vltrack.evaluation.results import RUN_FILE

    runs = sorted(path.parent for path in folder.glob(f"**/{RUN_FILE}"))
    if not runs:
        raise DataError(f"{shown(folder)}: no results of vltrack evaluate here.", hint="Name their folder.")
    return runs
