"""``vltrack models``: which trackers there are and whose weights are at hand. Knows the list; loads no
torch.
"""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path

from vltrack.cli.console import emit, say
from vltrack.cli.names import model_names
from vltrack.cli.track import AsJson, Debug

HEADS = ("name", "year", "modes", "parameters", "weights")


def models(json: AsJson = False, debug: Debug = False) -> None:
    """List the trackers: paper, modes, size, weights at hand."""
    rows = _rows()
    if json:
        for row in rows:
            emit(row)
        return
    table = [HEADS, *(tuple(_cell(row[head]) for head in HEADS) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEADS))]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    for paper in dict.fromkeys(f"{row['tracker']}: {row['paper']}" for row in rows):
        say(paper)


def _rows() -> list[dict[str, object]]:
    from vltrack.models import MODELS

    weights = model_names()
    rows: list[dict[str, object]] = []
    for card in MODELS.values():
        for size in card.sizes:
            file = weights[f"{card.name}-{size}"]
            rows.append(
                {
                    "name": f"{card.name}-{size}",
                    "tracker": card.title,
                    "paper": card.paper,
                    "year": card.year,
                    "modes": list(card.modes),
                    "size": size,
                    "parameters": None if file is None else _parameters(file),
                    "weights": None if file is None else str(file),
                    "claims": card.claims,
                    "ours": card.ours,
                }
            )
    return rows


def _parameters(weights: Path) -> int | None:
    """How many, from the card beside the weights; None where it does not say."""
    card = weights.with_suffix(".json")
    if not card.is_file():
        return None
    count = json_format.loads(card.read_bytes()).get("parameters")
    return count if isinstance(count, int) else None


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return str(value)
