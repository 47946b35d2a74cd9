"""Weights of a model's name, and the card next to them, without loading torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from vltrack.checkpoints.outside import find_outside
from vltrack.core.errors import (
    CheckpointCorrupt,
    CheckpointIncomplete,
    CheckpointMismatch,
    CheckpointUnsafe,
    CheckpointVersion,
    ModelNotFound,
    TokenizerMismatch,
)
from vltrack.core.files import open_limited, printable, read_limited, sha256_bytes, sha256_of
from vltrack.models import MODELS, ModelCard, hint_for

if TYPE_CHECKING:
    from vltrack.core.archives import Safetensors

DEFAULT_MODEL = "litetrack-tiny"
FORMAT = 1
PACKAGED = Path(__file__).parent.parent / "weights"
GROUNDER = PACKAGED / "grounder-tiny.safetensors"
EXPORTED = "graphs.json"
"""Of a folder that ``vltrack export`` wrote: its manifest."""
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
        spec: names it in another process: the absolute path of the .safetensors file, or see ``checkpoints.outside``.
        name: of the results: ``litetrack-tiny``, or the file's name without extension.
        tracker, size: of the network; "" for a tracker with an ``init`` and ``update`` of its own.
        sha256: of the file.
        config_sha256: of what the card says of the network and its vocabulary; measured scores and notes on
            the card do not count.
        modes: in which the tracker works.
    """

    spec: str
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

    A folder that ``vltrack export`` wrote is returned, too; a model's name wins over a folder of that name. So are the
    weights of a network from outside (``FILE.py:CARD=PATH``), which is registered.

    Raises:
        ModelNotFound: no such file or model, or a model whose weights do not ship.
        CheckpointUnsafe: a file of another format, which could run code when it is read.
        TypeError: neither a str nor a path, such as a loaded tracker.
        UsageError: a tracker from outside the package that is not a network; see also ``find_outside``.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise TypeError(f"A model is given by its name or path, not as {type(name_or_path).__name__}.")
    if outside := find_outside(name_or_path):
        return find_file(outside.weights())
    path, name = Path(name_or_path), str(name_or_path)
    exported = (path / EXPORTED).is_file()
    if exported and (path.name != name or known_name(name, model_names()) not in model_names()):
        return path
    if path.suffix == ".safetensors" or path.name != name or path.is_file():
        if path.is_file() and path.suffix not in (".safetensors", ".json"):
            hint = "Convert it with `vltrack import-weights`."
            if path.suffix == ".py":
                hint = f"Name the class in it: {printable(name)}:CLASS."
            raise CheckpointUnsafe(
                f"Not a .safetensors file: {printable(name)}. Other formats can run code and are not opened.", hint=hint
            )
        if path.is_dir() and path.suffix != ".safetensors":
            hint = "Name weights, or write one: vltrack export."
            raise ModelNotFound(f"{printable(path)} is a folder without {EXPORTED}: not an export.", hint=hint)
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


def find_grounder(path: Path = GROUNDER) -> Path:
    """Return the file with the grounder's weights. Raises ``ModelNotFound``."""
    if not path.is_file():
        raise ModelNotFound(f"No weights of the grounder at {path}.", hint="Train them: vltrack train grounder.")
    return path


def read_card(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """Return the card of a .safetensors file after checking the file's sha256.

    It is the JSON next to the file; where that is missing or of another file, as after a kill between two renames,
    the copy that ``store.save`` puts into the file.

    Args:
        path: the file.
        sha256: of the bytes, where they were read before.

    Raises:
        CheckpointCorrupt: no card, or not the card of this file.
        CheckpointVersion: a newer vltrack wrote it.
    """
    try:
        actual = sha256_of(path) if sha256 is None else sha256
        card = _card_beside(path)
        if card is None or card["sha256"] != actual:
            with open_limited(path, MAX_BYTES) as file:
                inside = _card_inside(file, actual)
            card = inside | {"sha256": actual} if inside else card
    except OSError as error:
        raise CheckpointCorrupt(f"Cannot read {path} or its card: {error.strerror}.") from None
    if card is None or actual != card["sha256"]:
        refuse_other_files(path)
    if card is None:
        from vltrack.core.archives import Refused, open_safetensors  # numpy

        said, hint = f"{path} has no card ({path.stem}.json) next to it", "Copy both files together."
        try:
            with open_safetensors(path, MAX_BYTES):
                pass
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


def _card_inside(file: IO[bytes], actual: str) -> dict[str, Any] | None:
    """The copy of the card, if the file has one, is as it was written, and has the sha256 ``actual``."""
    start, seal = file.read(8 + len(HEADER)), file.read(64)
    more = int.from_bytes(start[:8], "little") - len(HEADER) - 64
    if start[8:] != HEADER or not 0 <= more <= 32 * _CARD_BYTES:
        return None
    rest = file.read(more)
    whole, blank = hashlib.sha256(start + seal + rest), hashlib.sha256(start + b"0" * 64 + rest)
    while piece := file.read(1 << 20):
        whole.update(piece)
        blank.update(piece)
    if blank.hexdigest().encode() != seal or whole.hexdigest() != actual:
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


def identify(
    path: Path, *, of: str = "", start: bool = False, take: Callable[[Safetensors], None] | None = None
) -> dict[str, Any]:
    """Return the card of a file of weights after checking both, without torch: the file is read once.

    What needs the network is checked by ``store.load``: the values of ``config``, and that the tensors are
    finite and those of the network.

    Args:
        path: the .safetensors file.
        of: what the weights must be of, such as ``grounder``; by default a tracker of the registry.
        start: accept weights that are only a start for training, too.
        take: reads the tensors, all of them in their order and hashed, from the open file.

    Raises:
        CheckpointCorrupt: no file of safetensors, cut off, or another one than its card says; see ``read_card``.
        CheckpointUnsafe: a pickle or an archive. CheckpointVersion: a newer vltrack wrote it.
        CheckpointIncomplete: only a start for training.
        CheckpointMismatch: of an unknown tracker or size, or packaged under another's name.
    """
    from vltrack.core.archives import Refused, open_safetensors  # numpy

    try:
        with open_safetensors(path, MAX_BYTES) as file:
            if take is not None:
                take(file)
            actual = file.sha256()
    except Refused as error:
        read_card(path)  # its checksum says more
        raise (CheckpointUnsafe if error.unsafe else CheckpointCorrupt)(f"{path} {error}.") from None
    except OSError as error:
        raise CheckpointCorrupt(f"Cannot read {path}: {error.strerror}.") from None
    card = read_card(path, actual)
    if not start:
        check_complete(path, card)
    tracker, size = card["tracker"], card["size"]
    if not of and tracker not in MODELS:
        find_outside(tracker)  # of an installed package: registered
    if tracker != of if of else tracker not in MODELS:
        raise CheckpointMismatch(
            f"{path} holds weights of {tracker!r}, not of {f'the {of}' if of else 'a known tracker'}.",
            hint="" if of else "If it is a network of your own, name its file too: FILE.py:CARD=WEIGHTS.",
        )
    if not of and path.parent == PACKAGED and path.stem != f"{tracker}-{size}":
        raise CheckpointMismatch(f"{path} holds weights of {tracker}-{size}.")
    if not of and size not in MODELS[tracker].sizes:
        known = ", ".join(MODELS[tracker].sizes)
        raise CheckpointMismatch(f"{path}: {tracker} has no size {size!r}, only {known}.")
    return card


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a .safetensors file's tensors by name, from its header alone.

    Raises:
        CheckpointCorrupt: it cannot be read, or is another kind of file.
    """
    from vltrack.core.archives import Refused, open_safetensors  # numpy

    try:
        with open_safetensors(path, MAX_BYTES) as file:
            return {name: entry.shape for name, entry in file.entries.items()}
    except Refused as error:
        raise CheckpointCorrupt(f"{path} {error}.") from None
    except OSError as error:
        raise CheckpointCorrupt(f"Cannot read {path}: {error.strerror}.") from None


def check_vocabulary(
    card: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
    *,
    sha256: str,
    pieces: int,
    table: str = "embeddings.word_embeddings.weight",
) -> None:
    """Check that a tokenizer's vocabulary is the one of the weights.

    Args:
        card: of the weights.
        shapes: of their tensors by name, as of ``shapes_of``.
        sha256, pieces: of the vocabulary, and its number of word pieces.
        table: suffix of the names of parameters with one row per word piece.

    Raises:
        TokenizerMismatch: another file, or more pieces than the word table has rows.
    """
    trained_with = card.get("vocabulary_sha256")
    if trained_with is not None and trained_with != sha256:
        raise TokenizerMismatch(
            f"The weights were trained with the vocabulary {str(trained_with)[:12]}..., not with {sha256[:12]}...",
            hint="Use the vocabulary that came with the weights.",
        )
    for name, shape in shapes.items():
        if name.endswith(table) and shape[0] != pieces:
            raise TokenizerMismatch(f"The vocabulary has {pieces} pieces, {name} has {shape[0]} rows.")


def find_weights(name_or_path: str | Path) -> Weights:
    """Find and check the weights of a model's name or path; ``store.load`` checks the rest when it loads.

    Raises:
        ModelNotFound, CheckpointUnsafe: see ``find_file``. The others: see ``identify``.
    """
    outside = find_outside(name_or_path)
    if outside and not isinstance(outside.made, ModelCard):
        return Weights(
            spec=outside.spec, name=outside.name, tracker="", size="", sha256=outside.sha256,
            config_sha256=outside.sha256, modes=outside.modes,
        )  # fmt: skip
    path = find_file(name_or_path)
    card = identify(path)
    return Weights(
        spec=outside.spec if outside else str(path.resolve()),
        name=path.stem,
        tracker=card["tracker"],
        size=card["size"],
        sha256=card["sha256"],
        config_sha256=sha256_bytes(json.dumps({key: card.get(key) for key in _BINDING}).encode()),
        modes=modes_of(card),
    )
