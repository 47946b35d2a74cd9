"""The trackers. ``MODELS`` is the whole registry: a new tracker is one file and one line. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from vltrack.core.errors import ModelNotFound


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What ``vltrack models`` says of a tracker.

    Attributes:
        module: file under ``models/`` with the class ``network`` and one configuration function per size.
        sizes: configuration functions by size name.
        modes: what can name the target.
        claims: the paper's ideas, each a switch of the configuration.
        ours: what is not published and was designed here.
    """

    name: str
    title: str
    paper: str
    year: int
    module: str
    network: str
    sizes: dict[str, str]
    modes: tuple[str, ...]
    claims: str
    ours: str


MODELS: dict[str, ModelCard] = {
    "litetrack": ModelCard(
        name="litetrack",
        title="LiteTrack",
        paper="Yang L., unpublished; released code: yll1214/LiteTrack, on UVLTrack (AAAI 2024)",
        year=2025,
        module="litetrack",
        network="LiteTrack",
        sizes={"tiny": "tiny", "base": "base", "uvltrack-base": "uvltrack_base"},
        modes=("nl", "bbox", "nlbbox"),
        claims="layer freezing, cosine token selection, channel gate, star adapter",
        ours="learned threshold, restoring dropped tokens, the gate's mask, the tiny size",
    ),
}


def split_name(name: str) -> tuple[ModelCard, str]:
    """``litetrack-tiny`` -> its card and ``tiny``.

    Raises:
        ModelNotFound: with the nearest name.
    """
    for card in MODELS.values():
        for size in card.sizes:
            if name == f"{card.name}-{size}":
                return card, size
    known = [f"{card.name}-{size}" for card in MODELS.values() for size in card.sizes]
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
    raise ModelNotFound(f"no model is called {name!r}.", hint=hint)


def config_of(card: ModelCard, size: str) -> Any:
    """The configuration dataclass of a size. Loads torch."""
    return getattr(import_module(f"vltrack.models.{card.module}"), card.sizes[size])()


def build(card: ModelCard, config: Any) -> Any:
    """The network with fresh weights. Loads torch."""
    return getattr(import_module(f"vltrack.models.{card.module}"), card.network)(config)
