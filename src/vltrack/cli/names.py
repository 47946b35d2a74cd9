"""Names that a user may mistype: models and settings. Knows the list of models; loads no torch, no
weights.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from vltrack.cli.console import shown
from vltrack.core.errors import ModelNotFound

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest known name, or the list of all."""
    names = sorted(known)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(names)}."


def model_names() -> dict[str, Path | None]:
    """Every ``name-size`` that can be asked for, and its weights where they ship."""
    from vltrack.models import MODELS

    names = [f"{card.name}-{size}" for card in MODELS.values() for size in card.sizes]
    files = {name: WEIGHTS / f"{name}.safetensors" for name in names}
    return {name: file if file.is_file() else None for name, file in files.items()}


def meant(name: str, known: Iterable[str]) -> str:
    """The known name that ``name`` is but for case and hyphens (``SATracker``); else ``name`` as it is."""
    plain = name.lower().replace("-", "")
    return next((other for other in known if other.replace("-", "") == plain), name)


def check_model(name: str) -> str:
    """The whole name of a model with weights at hand (a tracker alone means its tiny size), or the path.

    Raises:
        ModelNotFound: ``name`` is neither a file nor such a model.
    """
    path = Path(name)
    if path.is_file():
        return name
    if path.suffix == ".safetensors" or path.name != name:
        raise ModelNotFound(
            f"there are no weights at {shown(name)}.", hint="Check the path, or: vltrack models."
        )
    known = model_names()
    whole = meant(name, known)
    if whole not in known:
        whole = meant(f"{name}-tiny", known)  # as models.split_name
    if whole not in known:
        raise ModelNotFound(f"no model is called {shown(name)!r}.", hint=nearest(name, known))
    if known[whole] is None:
        at_hand = [other for other, file in known.items() if file is not None]
        hint = f"At hand: {', '.join(at_hand)}. Others come in by vltrack train or vltrack import-weights."
        raise ModelNotFound(f"no weights for {whole} ship with vltrack.", hint=hint)
    return whole
