"""``vltrack models``: which trackers there are, whose weights are at hand, and how large they are.

Knows the list and the table of counts beside it; loads no torch.
"""

from __future__ import annotations

import json as json_format
import shutil
import sys
import textwrap
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vltrack.cli.console import emit, say, shown
from vltrack.cli.names import meant, model_names, nearest
from vltrack.cli.track import AsJson, Debug
from vltrack.core.errors import ModelNotFound

if TYPE_CHECKING:
    from vltrack.models import ModelCard

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these trackers or sizes of trackers.")
]
HEADS = {
    "name": "name",
    "year": "year",
    "modes": "modes",
    "weights": "weights",
    "parameters": "parameters",
    "parameters_trained": "trained",
    "parameters_running": "running",
    "frame": "frame",
    "ground": "by words",
}
LEGEND = (
    "trained: at the start of training. running: what a tracker reads. frame, by words: multiplications with "
    "their additions (papers call them FLOPs) of a tracked frame and of one searched by words alone."
)


def models(names: Names = None, json: AsJson = False, debug: Debug = False) -> None:
    """List the trackers: paper, modes, weights at hand, how large, what each claims and what is ours."""
    rows = list(_rows(names or []))
    if json:
        for row in rows:
            emit(row)
        return
    for line in _table([{**row, **(row["multiplications"] or {})} for row in rows]):
        sys.stdout.write(line + "\n")
    for line in _notes(rows):
        sys.stdout.write(line + "\n")
    say(LEGEND)


def _rows(names: list[str]) -> Iterator[dict[str, Any]]:
    """One row a size that is asked for."""
    from vltrack.models import MODELS

    weights = model_names()
    known = [*MODELS, *weights]
    names = [meant(name, known) for name in names]
    for name in names:
        if name not in known:
            raise ModelNotFound(f"no model is called {shown(name)!r}.", hint=nearest(name, known))
    counted = json_format.loads((files("vltrack.models") / "counted.json").read_text(encoding="utf-8"))
    for card in MODELS.values():
        for size in card.sizes:
            name = f"{card.name}-{size}"
            if not names or name in names or card.name in names:
                yield _row(card, size, weights[name], counted.get(name, {}))


def _row(card: ModelCard, size: str, file: Path | None, counts: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": f"{card.name}-{size}",
        "tracker": card.title,
        "paper": card.paper,
        "year": card.year,
        "modes": list(card.modes_of(size)),
        "size": size,
        "weights": None if file is None else str(file),
        "parameters": counts.get("total"),
        "parameters_trained": counts.get("trainable"),
        "parameters_running": counts.get("running"),
        "multiplications": counts.get("work"),
        "claims": card.claims,
        "ours": card.ours,
    }


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Columns of equal width, numbers to the right."""
    cells = [tuple(HEADS.values()), *(tuple(_cell(key, row.get(key)) for key in HEADS) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADS))]
    right = [_is_count(key) for key in HEADS]
    for line in cells:
        aligned = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, right, strict=True)
        )
        yield "  ".join(aligned).rstrip()


def _is_count(key: str) -> bool:
    return key.startswith("parameters") or key in ("frame", "ground")


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
