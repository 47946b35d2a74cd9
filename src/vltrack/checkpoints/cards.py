"""Which file a model's name means, and the card beside it. Knows names and JSON; no tensor, no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vltrack.core.errors import (
    CheckpointCorrupt,
    CheckpointIncomplete,
    CheckpointMismatch,
    CheckpointUnsafe,
    CheckpointVersion,
    ModelNotFound,
)
from vltrack.core.files import sha256_bytes, sha256_of
from vltrack.models import MODELS, split_name

FORMAT = 1
PACKAGED = Path(__file__).parent.parent / "weights"
_CARD_KEYS = {"format": int, "tracker": str, "size": str, "sha256": str, "config": dict}
_CARD_BYTES = 1 << 20


def find(name_or_path: str | Path) -> Path:
    """The .safetensors file for a model's name (weights in the package) or a path.

    Raises:
        ModelNotFound: no such file; or a known model whose weights do not ship.
        CheckpointUnsafe: a file of another format, which could run code when it is read.
    """
    path = Path(name_or_path)
    if path.suffix == ".safetensors" or path.is_file():
        if path.suffix not in (".safetensors", ".json"):
            raise CheckpointUnsafe(
                f"{path} is no .safetensors file; other formats can run code and are not opened.",
                hint="Give a .safetensors file; `vltrack import-weights` makes one of others.",
            )
        path = path.with_suffix(".safetensors")
        if not path.is_file():
            raise ModelNotFound(
                f"there are no weights at {path}.", hint="Check the path, or use `vltrack models`."
            )
        return path
    card, size = split_name(str(name_or_path))
    packaged = PACKAGED / f"{card.name}-{size}.safetensors"
    if not packaged.is_file():
        raise ModelNotFound(
            f"no weights for {name_or_path} ship with vltrack (looked for {packaged}).",
            hint="Train them (`vltrack train`) or import them (`vltrack import-weights`).",
        )
    return packaged


def read_card(path: Path) -> dict[str, Any]:
    """The JSON beside a .safetensors file.

    Raises:
        CheckpointCorrupt: it is missing or no card.
        CheckpointVersion: a newer vltrack wrote it.
    """
    card_path = path.with_suffix(".json")
    try:
        with card_path.open("rb") as file:
            text = file.read(_CARD_BYTES + 1)
    except FileNotFoundError:
        raise CheckpointCorrupt(
            f"{path} has no card ({card_path.name}) beside it.", hint="Copy both files together."
        ) from None
    except OSError as error:
        raise CheckpointCorrupt(f"{card_path} cannot be read ({error.strerror}).") from None
    if len(text) > _CARD_BYTES:
        raise CheckpointCorrupt(f"{card_path} is over {_CARD_BYTES} bytes and no card.")
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"{card_path} is no JSON ({error}).", hint="Copy the file again.") from None
    if not isinstance(card, dict) or any(type(card.get(k)) is not kind for k, kind in _CARD_KEYS.items()):
        raise CheckpointCorrupt(f"{card_path} is not a card of vltrack weights.", hint="Copy the file again.")
    if not 1 <= card["format"] <= FORMAT:
        raise CheckpointVersion(
            f"{path} has format {card['format']}; this vltrack reads up to {FORMAT}.", hint="Update vltrack."
        )
    return card


# MERGED checkpoints/cards.py
# Which weights a name means, checked without loading torch. Knows cards and sums; knows no tensors.


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
