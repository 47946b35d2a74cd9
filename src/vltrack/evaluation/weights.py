"""Which weights a name means, checked without loading torch. Knows cards and sums; knows no tensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vltrack
from vltrack.core.errors import (
    CheckpointCorrupt,
    CheckpointIncomplete,
    CheckpointMismatch,
    ModelNotFound,
)
from vltrack.core.files import sha256_bytes, sha256_of
from vltrack.models import MODELS, split_name

_CARD_BYTES = 1 << 20
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
        ModelNotFound: no such file or model.
        CheckpointCorrupt: there is no card, or the file is not the one that it was made for.
        CheckpointIncomplete: they are only a start for training.
        CheckpointMismatch: they are of a tracker or size that this vltrack does not know.
    """
    path = _path_of(name_or_path)
    card = _card(path)
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


def _path_of(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix == ".safetensors" or path.is_file():
        path = path.with_suffix(".safetensors")
        if not path.is_file():
            raise ModelNotFound(
                f"there are no weights at {path}.", hint="Check the path, or: vltrack models."
            )
        return path
    card, size = split_name(str(name_or_path))
    packaged = Path(vltrack.__file__).resolve().parent / "weights" / f"{card.name}-{size}.safetensors"
    if not packaged.is_file():
        raise ModelNotFound(
            f"no weights for {card.name}-{size} ship with vltrack.",
            hint="Train them (vltrack train) or import them (vltrack import-weights).",
        )
    return packaged


def _card(path: Path) -> dict[str, Any]:
    """The JSON beside the weights."""
    beside = path.with_suffix(".json")
    try:
        with beside.open("rb") as file:
            card = json.loads(file.read(_CARD_BYTES))
    except OSError as error:
        raise CheckpointCorrupt(
            f"{path} has no card ({beside.name}) beside it.", hint="Copy both files together."
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"{beside} is no JSON ({error}).", hint="Copy the file again.") from error
    if not isinstance(card, dict) or not all(
        isinstance(card.get(k), str) for k in ("tracker", "size", "sha256")
    ):
        raise CheckpointCorrupt(f"{beside} is not a card of vltrack weights.", hint="Copy the file again.")
    return card
