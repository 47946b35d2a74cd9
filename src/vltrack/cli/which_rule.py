"""``vltrack which-rule``: under which convention does a published number fit? Knows flags and one table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from vltrack.cli import request as checks
from vltrack.cli.console import emit, say, shown, warn
from vltrack.cli.evaluate import SHORT, AsJson, Dataset, ShortResults, Split
from vltrack.cli.track import Debug
from vltrack.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from vltrack.evaluation.summary import Short
    from vltrack.metrics.detective import Search

Number = Annotated[str, typer.Argument(metavar="NUMBER", help="As published, in percent: 63.1")]
Results = Annotated[Path, typer.Argument(metavar="RESULTS", help="The tracker's: folder, zip or npz.")]
Data = Annotated[
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
    data: Data = None,
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
        fits = [fit.told() for fit in search.fits]
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
) -> tuple[Search, str]:
    """All conventions over the boxes, and the data set's name."""
    if not data.exists():
        raise DataError(f"{shown(data)}: no such file or folder.", hint="Name the data set with --data.")

    from vltrack.datasets.opening import open_dataset
    from vltrack.evaluation.results import open_results
    from vltrack.evaluation.summary import renamed, truth_of, with_short
    from vltrack.metrics.detective import which_rule as find
    from vltrack.metrics.rules import RULES

    opened = open_dataset(data, name=which[0], split=which[1])
    truth = truth_of(opened)
    boxes = renamed(truth.names, open_results(results)).boxes
    rules = [with_short(rule, cast("Short", short)) for rule in RULES.values()]
    return find(number, truth, boxes, tolerance=tolerance, rules=rules), opened.name


def _among_scores(results: Path, number: float, tolerance: float) -> tuple[Search, str]:
    """The conventions that ``scores.json`` holds, and the data set's name."""
    from vltrack.evaluation.summary import SCORES, read_scores
    from vltrack.metrics.detective import Fit, Search
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
        Fit(rules=(rule["rule"],), measure=measure, change="as given", value=value, off=value - number)
        for rule in told["rules"].values()
        for measure in MEASURES
        if (value := rule[measure]) is not None and abs(value - number) <= tolerance
    ]
    return Search(fits=tuple(sorted(fits, key=lambda fit: abs(fit.off))), refused={}), told["data"]


def _tell(search: Search, data: str) -> None:
    """A line a way, and what could not be tried."""
    from vltrack.cli.score_table import NAMES
    from vltrack.metrics.benchmarks import benchmark_of
    from vltrack.metrics.detective import CHANGES

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
