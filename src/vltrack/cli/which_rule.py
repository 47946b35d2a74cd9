"""``vltrack which-rule``: under which convention does a published number fit? Knows flags and one table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vltrack.cli.console import emit, say, shown
from vltrack.cli.evaluate import Data, Dataset, Split
from vltrack.cli.track import AsJson, Debug
from vltrack.core.errors import DataError, UsageError

Number = Annotated[str, typer.Argument(metavar="NUMBER", help="As published, in percent: 63.1")]
Results = Annotated[Path, typer.Argument(metavar="RESULTS", help="The tracker's: folder, zip or npz.")]
Tolerance = Annotated[
    float | None, typer.Option(min=0, help="How far off may it be? Default: half of the last digit.")
]


def which_rule(
    number: Number,
    results: Results,
    data: Data,
    dataset: Dataset = None,
    split: Split = None,
    tolerance: Tolerance = None,
    json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Name the scoring conventions under which a published number fits these results.

    Every rule and measure is tried, also with boxes cut or rounded to whole pixels, shifted by one pixel, and
    with the tracker's own first frame.

    \b
    vltrack which-rule 49.6 results/SiamRPN++.npz --data lasot_annotations
    """
    published, digits = _published(number)
    within = 0.5 * 10**-digits + 1e-9 if tolerance is None else tolerance
    if not data.exists():
        raise DataError(f"{shown(data)}: no such file or folder.", hint="Name the data set with --data.")

    from vltrack.datasets.opening import open_dataset
    from vltrack.evaluation.results import open_results
    from vltrack.evaluation.summary import renamed, truth_of
    from vltrack.metrics.benchmarks import benchmark_of
    from vltrack.metrics.detective import CHANGES
    from vltrack.metrics.detective import which_rule as find

    opened = open_dataset(data, name=dataset, split=split)
    truth = truth_of(opened)
    fits = find(published, truth, renamed(truth.names, open_results(results)).boxes, tolerance=within)
    if json:
        emit({"number": published, "tolerance": within, "fits": [fit.told() for fit in fits]})
        return
    official = {rule.name: column for column, rule in benchmark_of(opened.name).rules.items()}
    for fit in fits:
        rules = ", ".join(f"{name} ({official[name]})" if name in official else name for name in fit.rules)
        sys.stdout.write(f"{fit.value:7.3f}  {fit.measure:<21} {CHANGES[fit.change][0]}: {rules}\n")
    if not fits:
        say(f"no convention gives {shown(number)} within {within:.3g}; see vltrack evaluate --rule all.")


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
