"""Weights of a model's name, and the card next to them, without loading torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import IO, Any

from vltrack.core.errors import (
    CheckpointCorrupt,
    CheckpointIncomplete,
    CheckpointMismatch,
    CheckpointUnsafe,
    CheckpointVersion,
    ModelNotFound,
)
from vltrack.core.files import open_limited, printable, read_limited, sha256_bytes, sha256_of
from vltrack.models import MODELS, hint_for

DEFAULT_MODEL = "litetrack-tiny"
FORMAT = 1
PACKAGED = Path(__file__).parent.parent / "weights"
INIT = "init.safetensors"
"""Of a training run's folder: what published files set before the first step, with a card."""
_CARD_KEYS = {"format": int, "tracker": str, "size": str, "sha256": str, "config": dict}
_CARD_BYTES = 1 << 20
MAX_BYTES = 8 << 30
"""Bytes of the largest file of weights that is read."""
HEADER = b'{"__metadata__":{"seal":"'
"""Begin of the header of a file that holds a copy of its card; 64 digits follow, the file's sha256 with zeros there."""
# First bytes of what is often saved under a checkpoint's name -> what it is, and the remedy.
_OTHER_FILES = (
    (rb"\Z", "empty", "Fetch it again."),
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself", "Fetch the file: git lfs pull."),
    (rb"(?i)\s*<(!doctype|html|\?xml)", "a web page", "Download the file itself, not the page that offers it."),
    (rb"\x1f\x8b", "compressed with gzip", "Unpack it first: gunzip."),
    (rb"BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", "a compressed archive", "Unpack it first."),
)
_BINDING = ("format", "tracker", "size", "config", "vocabulary_sha256", "modes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """A checkpoint and what its card says.

    Attributes:
        path: the .safetensors file.
        name: of the results: ``litetrack-tiny``, or the file's name without extension.
        tracker, size: of the network.
        sha256: of the file.
        config_sha256: of what the card says of the network and its vocabulary; measured scores and notes on
            the card do not count.
        modes: in which the tracker works.
    """

    path: Path
    name: str
    tracker: str
    size: str
    sha256: str
    config_sha256: str
    modes: tuple[str, ...]


def model_names() -> dict[str, Path | None]:
    """Return every ``name-size`` of the registry, with its weights where they ship."""
    names = [f"{card.name}-{size}" for card in MODELS.values() for size in card.sizes]
    files = {name: PACKAGED / f"{name}.safetensors" for name in names}
    return {name: file if file.is_file() else None for name, file in files.items()}


def known_name(name: str, known: Iterable[str]) -> str:
    """Return the known name that equals ``name`` but for case and hyphens (``SATracker``), else ``name``."""
    plain = name.lower().replace("-", "")
    return next((other for other in known if other.replace("-", "") == plain), name)


def find_file(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the .safetensors file of a model's name (a tracker's name alone means its tiny size) or a path.

    Raises:
        ModelNotFound: no such file or model, or a model whose weights do not ship.
        CheckpointUnsafe: a file of another format, which could run code when it is read.
        TypeError: neither a str nor a path, such as a loaded tracker.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise TypeError(f"A model is given by its name or path, not as {type(name_or_path).__name__}.")
    path, name = Path(name_or_path), str(name_or_path)
    if path.suffix == ".safetensors" or path.name != name or path.is_file():
        if path.is_file() and path.suffix not in (".safetensors", ".json"):
            raise CheckpointUnsafe(
                f"Not a .safetensors file: {printable(name)}. Other formats can run code and are not opened.",
                hint="Convert it with `vltrack import-weights`.",
            )
        path = path.with_suffix(".safetensors")
        if not path.is_file():
            raise ModelNotFound(f"No weights at {printable(path)}.", hint="Check the path, or: vltrack models.")
        return path
    known = model_names()
    full = next((n for n in (known_name(name, known), known_name(f"{name}-tiny", known)) if n in known), "")
    if not full:
        raise ModelNotFound(f"No model is called {printable(name)!r}.", hint=hint_for(name, known))
    packaged = known[full]
    if packaged is None:
        shipped = ", ".join(other for other, file in known.items() if file is not None)
        raise ModelNotFound(
            f"No weights for {full} ship with vltrack (looked for {PACKAGED / full}.safetensors).",
            hint=f"Weights ship for {shipped or 'no model'}. Others come from `vltrack train` or "
            "`vltrack import-weights`.",
        )
    return packaged


def read_card(path: Path, data: bytes | None = None) -> dict[str, Any]:
    """Return the card of a .safetensors file after checking the file's sha256.

    It is the JSON next to the file; where that is missing or of another file, as after a kill between two renames,
    the copy that ``store.save`` puts into the file.

    Args:
        path: the file.
        data: its bytes, where they are in memory.

    Raises:
        CheckpointCorrupt: no card, or not the card of this file.
        CheckpointVersion: a newer vltrack wrote it.
    """
    try:
        actual = sha256_of(path) if data is None else sha256_bytes(data)
        card = _card_beside(path)
        if card is None or card["sha256"] != actual:
            with open_limited(path, MAX_BYTES) if data is None else BytesIO(data) as file:
                inside = _card_inside(file)
            card = inside | {"sha256": actual} if inside else card
    except OSError as error:
        raise CheckpointCorrupt(f"Cannot read {path} or its card: {error.strerror}.") from None
    if card is None or actual != card["sha256"]:
        refuse_other_files(path)
    if card is None:
        from vltrack.core.archives import Refused, read_safetensors  # numpy

        said, hint = f"{path} has no card ({path.stem}.json) next to it", "Copy both files together."
        try:
            read_safetensors(path, MAX_BYTES)
        except Refused as error:
            said, hint = f"{said}, and it {error}", "Fetch it again."
        raise CheckpointCorrupt(f"{said}.", hint=hint)
    if not 1 <= card["format"] <= FORMAT:
        raise CheckpointVersion(
            f"{path} has format {card['format']}; this vltrack reads up to {FORMAT}.", hint="Update vltrack."
        )
    if actual != card["sha256"]:
        raise CheckpointCorrupt(
            f"{path} is damaged: sha256 is {actual[:12]}..., its card says {card['sha256'][:12]}...",
            hint="Copy or download the file again.",
        )
    return card


def refuse_other_files(file: Path) -> None:
    """Raise ``CheckpointCorrupt`` with the name of what a file is instead of a checkpoint, if it shows."""
    if not file.is_file():
        return
    with file.open("rb") as opened:
        head = opened.read(256)
    for pattern, what, remedy in _OTHER_FILES:
        if re.match(pattern, head):
            raise CheckpointCorrupt(f"{file} is {what}.", hint=remedy) from None


def _card_beside(path: Path) -> dict[str, Any] | None:
    card_path = path.with_suffix(".json")
    try:
        text = read_limited(card_path, 64 * _CARD_BYTES)
    except FileNotFoundError:
        return None
    if (card := _parsed(text)) is None:
        raise CheckpointCorrupt(f"{card_path} is not a card of vltrack weights.", hint="Copy the file again.")
    return card


def _parsed(text: str | bytes) -> dict[str, Any] | None:
    try:
        card = json.loads(text) if len(text) <= _CARD_BYTES else None
    except (ValueError, RecursionError):
        return None
    fits = isinstance(card, dict) and all(type(card.get(k)) is kind for k, kind in _CARD_KEYS.items())
    return card if fits else None


def _card_inside(file: IO[bytes]) -> dict[str, Any] | None:
    """The copy of the card, if the file has one and is as it was written."""
    start, seal = file.read(8 + len(HEADER)), file.read(64)
    more = int.from_bytes(start[:8], "little") - len(HEADER) - 64
    if start[8:] != HEADER or not 0 <= more <= 32 * _CARD_BYTES:
        return None
    rest = file.read(more)
    if sealed([start, b"0" * 64, rest], iter(lambda: file.read(1 << 20), b"")) != seal:
        return None
    try:
        return _parsed(json.loads(HEADER + seal + rest)["__metadata__"]["card"])
    except (ValueError, RecursionError, KeyError, TypeError):
        return None


def sealed(*pieces: Iterable[bytes | memoryview]) -> bytes:
    """Return the sha256 of a file, whose ``seal`` is still zeros, to be written in their place."""
    digest = hashlib.sha256()
    for piece in chain(*pieces):
        digest.update(piece)
    return digest.hexdigest().encode()


def modes_of(card: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the modes in which weights work: those that the registry gives their size and their card lists, if any.

    A tracker outside the registry has all modes.
    """
    known = MODELS.get(card.get("tracker", ""))
    modes = ("nl", "bbox", "nlbbox") if known is None else known.modes_of(card["size"])
    return tuple(mode for mode in modes if mode in card.get("modes", modes))


def check_complete(path: Path, card: dict[str, Any]) -> None:
    """Raise ``CheckpointIncomplete`` if the weights are only a start for training."""
    if card.get("complete") is False:
        raise CheckpointIncomplete(
            f"{path} is only a start for training: parts of it are still random.",
            hint="Train it first; its card lists the parts (`kept_fresh`).",
        )


def find_weights(name_or_path: str | Path) -> Weights:
    """Find and check the weights of a model's name or path; ``store.load`` checks the rest when it loads.

    Raises:
        ModelNotFound, CheckpointUnsafe: see ``find_file``. CheckpointVersion: see ``read_card``.
        CheckpointCorrupt: the card is missing or belongs to another file.
        CheckpointIncomplete: they are only a start for training.
        CheckpointMismatch: this vltrack does not have their tracker or size.
    """
    path = find_file(name_or_path)
    card = read_card(path)
    check_complete(path, card)
    known = MODELS.get(card["tracker"])
    if known is None or card["size"] not in known.sizes:
        raise CheckpointMismatch(f"{path} holds weights of {card['tracker']}-{card['size']}, unknown here.")
    return Weights(
        path=path,
        name=path.stem,
        tracker=known.name,
        size=card["size"],
        sha256=card["sha256"],
        config_sha256=sha256_bytes(json.dumps({key: card.get(key) for key in _BINDING}).encode()),
        modes=modes_of(card),
    )
