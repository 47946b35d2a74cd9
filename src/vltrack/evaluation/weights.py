"""Which weights a name means, checked without loading torch. Knows cards and sums; knows no tensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vltrack.checkpoints.cards import find, read_card
from vltrack.core.errors import CheckpointCorrupt, CheckpointIncomplete, CheckpointMismatch
from vltrack.core.files import sha256_bytes, sha256_of
from vltrack.models import MODELS

_BINDING = ("format", "tracker", "size", "config", "vocabulary_sha256", "modes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """A file of weights and what its card says.

    Attributes:
        path: the .safetensors file.
        name: how the results are called: ``litetrack-tiny``, or the file's name without ending.
        tracker, size: which network they are of.
        sha256: of the file.
        config_sha256: of what the card beside it says of the network and its vocabulary; measured figures
            and remarks on the card do not count.
        modes: how a target can be named.
    """

    path: Path
    name: str
    tracker: str
    size: str
    sha256: str
    config_sha256: str
    modes: tuple[str, ...]


def find_weights(name_or_path: str | Path) -> Weights:
    """The weights for a model's name or a path. ``checkpoints.store.load`` checks the rest when it loads.

    Raises:
        ModelNotFound, CheckpointUnsafe, CheckpointVersion: see ``checkpoints.cards``.
        CheckpointCorrupt: there is no card, or the file is not the one that it was made for.
        CheckpointIncomplete: they are only a start for training.
        CheckpointMismatch: they are of a tracker or size that this vltrack does not know.
    """
    path = find(name_or_path)
    card = read_card(path)
    sha256 = sha256_of(path)
    if sha256 != card["sha256"]:
        raise CheckpointCorrupt(
            f"{path} is damaged: sha256 is {sha256[:12]}..., its card says {str(card['sha256'])[:12]}...",
            hint="Copy or download the file again.",
        )
    if card.get("complete") is False:
        raise CheckpointIncomplete(f"{path} is only a start for training.", hint="Train it first.")
    known = MODELS.get(card["tracker"])
    if known is None or card["size"] not in known.sizes:
        raise CheckpointMismatch(f"{path} holds weights of {card['tracker']}-{card['size']}, unknown here.")
    return Weights(
        path=path,
        name=path.stem,
        tracker=known.name,
        size=card["size"],
        sha256=sha256,
        config_sha256=sha256_bytes(json.dumps({key: card.get(key) for key in _BINDING}).encode()),
        modes=tuple(card.get("modes", known.modes_of(card["size"]))),
    )
