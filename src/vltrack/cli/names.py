"""Names that a user may mistype: models and settings. Knows the list of models; loads no torch and no weights."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from vltrack.cli.console import shown
from vltrack.core.errors import ModelNotFound


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest known name, or the list of all."""
    names = sorted(known)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(names)}."


def model_names() -> dict[str, Path | None]:
    """Every ``name-size`` that can be asked for, and its weights where they are at hand."""
    from vltrack.models import MODELS

    found: dict[str, Path | None] = {}
    for name, card in MODELS.items():
        found[name] = card.weights
    return found


def check_model(name: str) -> None:
    """Raise ``ModelNotFound`` where ``name`` is neither a file nor a model with weights at hand."""
    if Path(name).is_file():
        return
    known = model_names()
    if name not in known:
        if Path(name).suffix or "/" in name:
            raise ModelNotFound(
                f"no weights at {shown(name)}.", hint="vltrack models lists those that are at hand."
            )
        raise ModelNotFound(f"no model is called {shown(name)!r}.", hint=nearest(name, known))
    weights = known[name]
    if weights is None or not weights.is_file():
        with_weights = [other for other, path in known.items() if path is not None and path.is_file()]
        hint = (
            f"At hand: {', '.join(with_weights)}."
            if with_weights
            else "Train it first: vltrack train --help."
        )
        raise ModelNotFound(f"there are no weights for {name} here.", hint=hint)
