"""``vltrack which-rule`` and ``vltrack verify``: questions about results that exist already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vltrack.api.inputs import SHORT, check_choice
from vltrack.core.errors import DataError, StateError, UsageError
from vltrack.core.files import counted, printable
from vltrack.datasets.reader import open_dataset
from vltrack.evaluation.results import RUN_FILE, ResultIssue, open_results, read_results
from vltrack.evaluation.results import verify as verify_run
from vltrack.evaluation.summary import SCORES, Short, annotations_of, read_scores, rename_results, with_short
from vltrack.metrics.protocol_search import ProtocolMatch, ProtocolSearch
from vltrack.metrics.protocol_search import which_rule as search_protocols
from vltrack.metrics.protocols import RULES
from vltrack.metrics.scoring import MEASURES


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleSearch:
    """Protocols under which results give a published number.

    Attributes:
        number, tolerance: in percent and percentage points.
        data: name of the data set.
        fits: the protocols with measure and value, the nearest first.
        refused: protocols that do not score these results, and why.
    """

    number: float
    tolerance: float
    data: str
    fits: tuple[ProtocolMatch, ...]
    refused: Mapping[str, str]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one row per fit, for pandas."""
        return (fit.to_dict() for fit in self.fits)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``vltrack which-rule --json`` prints."""
        head = {"number": self.number, "tolerance": self.tolerance}
        return head | {"fits": list(self.rows()), "refused": dict(self.refused)}


def which_rule(
    number: float | str,
    results: str | Path,
    *,
    data: str | Path | None = None,
    dataset: str | None = None,
    split: str | None = None,
    tolerance: float | None = None,
    short: Short = "refuse",
) -> RuleSearch:
    """Search the protocols under which results give a published ``number`` (percent, as printed).

    Args:
        results: folder, zip or ``.npz`` of the tracker's results.
        data: the data set; without it only the protocols in ``scores.json`` of ``results`` are searched.
        dataset, split, short: as in ``evaluate``.
        tolerance: in percentage points; None is half a unit in the last digit of ``number``.

    Raises:
        UsageError: not a percentage, or neither data nor scores. DataError: data or results are at fault.
    """
    check_choice("short", short, SHORT)
    value, digits = _percentage(str(number))
    within = 0.5 * 10**-digits + 1e-9 if tolerance is None else tolerance
    if data is None:
        found, name = _search_scores(Path(results), value, within)
    else:
        if not Path(data).exists():
            raise DataError(f"{printable(data)}: no such file or folder.", hint="Name the data set with --data.")
        opened = open_dataset(Path(data), name=dataset, split=split)
        annotations = annotations_of(opened)
        boxes = rename_results(annotations.names, open_results(Path(results))).boxes
        candidates = [with_short(rule, short) for rule in RULES.values()]
        found = search_protocols(value, annotations, boxes, tolerance=within, rules=candidates)
        name = opened.name
    return RuleSearch(number=value, tolerance=within, data=name, fits=found.fits, refused=found.refused)


def _search_scores(results: Path, number: float, tolerance: float) -> tuple[ProtocolSearch, str]:
    """Search the protocols in ``scores.json``; return the data set's name too."""
    file = results if results.is_file() else results / SCORES
    if not file.is_file() or results.suffix in (".npz", ".zip"):
        raise UsageError(
            f"{printable(results)} holds no scores, and without the data there is nothing to score it by.",
            hint="Name the data set: --data PATH.",
        )
    summary = read_scores(results)
    fits = [
        ProtocolMatch(rules=(rule["rule"],), measure=measure, change="as given", value=value, off=value - number)
        for rule in summary["rules"].values()
        for measure in MEASURES
        if (value := rule[measure]) is not None and abs(value - number) <= tolerance
    ]
    fits.sort(key=lambda fit: abs(fit.off))
    return ProtocolSearch(fits=tuple(fits), refused={}), summary["data"]


def _percentage(text: str) -> tuple[float, int]:
    """Return the number and how many digits it has after its point. Raises ``UsageError``."""
    plain = text.strip().removesuffix("%")
    try:
        value = float(plain)
    except ValueError as error:
        raise UsageError(f"{printable(text)!r} is not a number.", hint="Give it in percent: 63.1") from error
    if not 0 <= value <= 100:
        raise UsageError(f"{printable(text)} is not a percentage.", hint="Give it in percent: 63.1, not 0.631.")
    return value, len(plain.partition(".")[2])


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """Folders of results, what differs from what was written, and (finished, planned) of incomplete ones."""

    folders: tuple[Path, ...]
    issues: tuple[ResultIssue, ...]
    incomplete: Mapping[Path, tuple[int, int]]

    def to_dict(self) -> dict[str, Any]:
        """Return what ``vltrack verify --json`` prints."""
        return {
            "folders": [printable(folder) for folder in self.folders],
            "findings": [{"path": printable(one.path), "message": one.message} for one in self.issues],
        }


def verify(folders: Sequence[str | Path]) -> Verification:
    """Check results against the sha256 that were recorded when they were written.

    Raises:
        DataError: a folder without results.
        StateError: a file was changed, cut or added since; ``error.result`` lists them.
    """
    runs = [run for folder in folders for run in _result_folders(Path(folder))]
    issues = tuple(issue for run in runs for issue in verify_run(run))
    incomplete = {}
    if not issues:
        stored = {run: read_results(run) for run in runs}
        incomplete = {run: (len(one.names), len(one.planned)) for run, one in stored.items() if not one.complete}
    found = Verification(folders=tuple(runs), issues=issues, incomplete=incomplete)
    if issues:
        error = StateError(
            f"{counted(len(issues), 'file')} not as written.",
            hint="Run the evaluation again: it redoes what is damaged.",
        )
        error.result = found
        raise error
    return found


def _result_folders(folder: Path) -> list[Path]:
    """Return the folders of results at or under ``folder``. Raises ``DataError`` where there is none."""
    runs = sorted(path.parent for path in folder.glob(f"**/{RUN_FILE}"))
    if not runs:
        raise DataError(f"{printable(folder)}: no results of vltrack evaluate here.", hint="Name their folder.")
    return runs
