"""``vltrack models``: which trackers there are, whose weights are at hand, and how large they are.

Knows the list. Loads torch only where sizes are asked for.
"""

from __future__ import annotations

import dataclasses
import json as json_format
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vltrack.cli.console import emit, say, shown
from vltrack.cli.names import model_names, nearest
from vltrack.cli.track import AsJson, Debug
from vltrack.core.errors import ModelNotFound

if TYPE_CHECKING:
    from vltrack.models import ModelCard

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these trackers or sizes of trackers.")
]
Sizes = Annotated[
    bool,
    typer.Option(
        "--sizes", help="Count parameters and work of every size (loads torch; a second or two each)."
    ),
]
LISTED = {"name": "name", "year": "year", "modes": "modes", "weights": "weights", "parameters": "parameters"}
COUNTED = {
    "parameters_trained": "trained",
    "parameters_running": "running",
    "frame": "frame",
    "ground": "by words",
}
LEGEND = (
    "trained: at the start of training. running: what a tracker reads. frame, by words: multiplications with "
    "their additions (papers call them FLOPs) of a tracked frame and of one searched by words alone."
)


def models(names: Names = None, sizes: Sizes = False, json: AsJson = False, debug: Debug = False) -> None:
    """List the trackers: paper, modes, weights at hand, parameters, what each claims and what is ours."""
    rows = _rows(names or [], count=sizes)
    if json:
        for row in rows:
            emit(row)
        return
    kept = list(rows)
    heads = LISTED | (COUNTED if sizes else {})
    for line in _table([{**row, **(row["multiplications"] or {})} for row in kept], heads):
        sys.stdout.write(line + "\n")
    for line in _notes(kept):
        sys.stdout.write(line + "\n")
    say(LEGEND if sizes else "parameters and work of every size: vltrack models --sizes")


def _rows(names: list[str], *, count: bool) -> Iterator[dict[str, Any]]:
    """One row a size that is asked for; each as soon as it is counted, so that JSON does not wait for all."""
    from vltrack.models import MODELS

    weights = model_names()
    known = [*MODELS, *weights]
    for name in names:
        if name not in known:
            raise ModelNotFound(f"no model is called {shown(name)!r}.", hint=nearest(name, known))
    for card in MODELS.values():
        for size in card.sizes:
            name = f"{card.name}-{size}"
            if not names or name in names or card.name in names:
                yield _row(card, size, weights[name]) | (_counted(card, size) if count else {})


def _row(card: ModelCard, size: str, file: Path | None) -> dict[str, Any]:
    return {
        "name": f"{card.name}-{size}",
        "tracker": card.title,
        "paper": card.paper,
        "year": card.year,
        "modes": list(card.modes_of(size)),
        "size": size,
        "weights": None if file is None else str(file),
        "parameters": None if file is None else _parameters(file),
        "parameters_trained": None,
        "parameters_running": None,
        "multiplications": None,
        "claims": card.claims,
        "ours": card.ours,
    }


def _counted(card: ModelCard, size: str) -> dict[str, Any]:
    """What torch says of the network itself; nothing of it is written down anywhere."""
    from vltrack.models.sizes import count_parameters, count_work, without_memory

    model = without_memory(card, size)
    counts = count_parameters(model)
    return {
        "parameters": counts.total,
        "parameters_trained": counts.trainable,
        "parameters_running": counts.running,
        "multiplications": dataclasses.asdict(count_work(model)),
    }


def _parameters(weights: Path) -> int | None:
    """How many, from the card beside the weights; None where it does not say."""
    card = weights.with_suffix(".json")
    if not card.is_file():
        return None
    count = json_format.loads(card.read_bytes()).get("parameters")
    return count if isinstance(count, int) else None


def _table(rows: list[dict[str, Any]], heads: Mapping[str, str]) -> Iterator[str]:
    """Columns of equal width, numbers to the right."""
    cells = [tuple(heads.values()), *(tuple(_cell(key, row[key]) for key in heads) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    right = [key.startswith("parameters") or key in ("frame", "ground") for key in heads]
    for line in cells:
        aligned = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, right, strict=True)
        )
        yield "  ".join(aligned).rstrip()


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "weights":
        return "at hand"
    if key.startswith("parameters"):
        return f"{value / 1e6:.2f} M"
    if key in ("frame", "ground"):
        return f"{value / 1e9:.2f} G"
    return " ".join(value) if isinstance(value, list) else str(value)


def _notes(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Paper, claims and what is ours, once a tracker, as wide as the terminal."""
    width = max(60, min(shutil.get_terminal_size().columns, 110))
    for row in {row["tracker"]: row for row in rows}.values():
        yield ""
        yield f"{row['tracker']} ({row['year']})"
        for head in ("paper", "claims", "ours"):
            first = f"  {head:<8}"
            yield from textwrap.wrap(
                row[head], width, initial_indent=first, subsequent_indent=" " * len(first)
            )
