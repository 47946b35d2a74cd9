"""``vltrack evaluate``: flags to a checked request. Knows every flag; ``evaluate_job.run`` does it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from vltrack.cli import request as checks
from vltrack.cli.console import shown
from vltrack.cli.names import check_model, nearest
from vltrack.cli.track import DEVICES, Debug, Quiet, Set
from vltrack.core.errors import DataError, UsageError

MODES = ("nl", "bbox", "nlbbox")
ENGINES = ("local", "ray")
MISSING = ("refuse", "skip", "box")
_VOT_NAME = re.compile(r"vots?-?20\d\d", re.IGNORECASE)
SHORT = ("refuse", "misses", "cut")
VOT = ("auto", "supervised", "multistart", "referral")
SERVERS = ("got10k", "trackingnet")
FOLDER = Path("evaluation")

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
Vot = Annotated[
    str | None,
    typer.Option(
        metavar="KIND", help="Results of a VOT challenge: auto, supervised, multistart or referral."
    ),
]
Year = Annotated[int | None, typer.Option(help="With --vot: which year's rules, if not in the data's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="A JSON object a line on standard output.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A checked ``vltrack evaluate``: what is run, what is scored, over what, and how."""

    models: tuple[tuple[str, str], ...]
    results: tuple[tuple[str, Path], ...]
    data: Path
    dataset: str | None
    split: str | None
    modes: tuple[str, ...] | None
    jobs: int
    out: Path | None
    engine: str
    rerun: bool
    missing_sentence: str
    short: str
    subset: str | None
    rules: tuple[str, ...]
    attributes: bool
    pack: str | None
    policy: dict[str, Any]
    device: str
    as_json: bool
    quiet: bool


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
    vot: Vot = None,
    year: Year = None,
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
    vltrack evaluate results/LightTrack --data VOT2018.json --vot supervised
    """
    checks.check_choice("--engine", engine, ENGINES)
    checks.check_choice("--missing-sentence", missing_sentence, MISSING)
    checks.check_choice("--short", short, SHORT)
    checks.check_choice("--device", device, DEVICES)
    if pack is not None:
        checks.check_choice("--pack", pack, SERVERS)
    if vot is None and _VOT_NAME.match(data.resolve().name):
        vot = "auto"
    if vot is not None:
        checks.check_choice("--vot", vot, VOT)
    models, results = sorted_out(what or [])
    if vot is not None and models:
        raise UsageError(
            "--vot scores results that the VOT toolkit wrote.", hint="docs/harnesses.md tells how to run it."
        )
    if not data.exists():
        raise DataError(f"{shown(data)}: no such file or folder.", hint="Name the data set with --data.")
    settings = {
        key: checks.read_value(raw) for key, raw in checks.read_settings(set_ or (), "policy.").items()
    }
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

    if vot is not None:
        from vltrack.cli import vot_job

        raise typer.Exit(vot_job.run(request, None if vot == "auto" else vot, year))

    if models:
        from vltrack.cli import grounding_job

        if grounding_job.holds_phrases(data, dataset):
            raise typer.Exit(grounding_job.run(request))

    from vltrack.cli import evaluate_job

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
    from vltrack.metrics.rules import RULES

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
