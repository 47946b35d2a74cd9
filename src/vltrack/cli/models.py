"""``vltrack models``: which trackers there are and whose weights are at hand. Knows the list; loads no torch."""

from __future__ import annotations

import sys

from vltrack.cli.console import emit, say
from vltrack.cli.track import AsJson, Debug


def models(json: AsJson = False, debug: Debug = False) -> None:
    """List the trackers: paper, modes, sizes, weights at hand."""
    rows = _rows()
    if json:
        for row in rows:
            emit(row)
        return
    heads = ("name", "year", "modes", "parameters", "weights")
    table = [heads, *(tuple(_cell(row[head]) for head in heads) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(heads))]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    for row in rows:
        say(f"{row['name']}: {row['paper']}. {row['note']}".strip())


def _rows() -> list[dict[str, object]]:
    from vltrack.models import MODELS

    rows: list[dict[str, object]] = []
    for name, card in MODELS.items():
        weights = card.weights if card.weights is not None and card.weights.is_file() else None
        rows.append(
            {
                "name": name,
                "paper": card.paper,
                "year": card.year,
                "modes": [str(mode) for mode in card.modes],
                "sizes": list(card.sizes),
                "parameters": card.parameters,
                "weights": None if weights is None else str(weights),
                "note": card.note,
            }
        )
    return rows


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return str(value)
