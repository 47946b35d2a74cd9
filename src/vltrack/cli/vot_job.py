"""``vltrack evaluate --vot``: results that the VOT toolkit wrote, scored by their year's rules and told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal, cast

from vltrack.cli.console import emit, say, shown
from vltrack.cli.evaluate import Request
from vltrack.cli.score_table import aligned
from vltrack.evaluation.vot import score_vot

_NAMES = {"eao": "EAO", "accuracy": "A", "robustness": "R", "failures": "failures"}
Kind = Literal["supervised", "multistart", "referral"]


def run(request: Request, kind: str | None, year: int | None) -> int:
    """Score every folder of results; return 0. Raises ``DataError``, ``UsageError`` as ``score_vot``."""
    found = [_scored(name, path, request.data, kind, year) for name, path in request.results]
    if request.as_json:
        for told in found:
            emit(told)
        return 0
    first = found[0]
    sys.stdout.write(shown(f"{first['data']}: VOT {first['year'] or ''} {first['experiment']}") + "\n")
    names = {key: title for key, title in _NAMES.items() if first.get(key) is not None}
    rows = [["tracker", "", *names.values()]]
    rows += [[told["tracker"], "", *(_cell(told[key]) for key in names)] for told in found]
    for line in aligned(rows):
        sys.stdout.write(shown(line) + "\n")
    for told in found:
        for note in told["notes"]:
            say(f"{told['tracker']}: {note}")
    return 0


def _scored(name: str, results: Path, truth: Path, kind: str | None, year: int | None) -> dict[str, Any]:
    told = score_vot(results, truth, year=year, kind=cast("Kind | None", kind))
    return told | {"tracker": name or told["tracker"]}


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
