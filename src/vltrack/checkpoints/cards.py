"""Which file a model's name means, and the card beside it. Knows names and JSON; no tensor, no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vltrack.core.errors import CheckpointCorrupt, CheckpointUnsafe, CheckpointVersion, ModelNotFound
from vltrack.models import split_name

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
