"""Save and load our checkpoints: tensors in ``NAME.safetensors``, their description in ``NAME.json``, the card."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from torch import Tensor
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from vltrack.checkpoints import cards
from vltrack.checkpoints.cards import FORMAT, MAX_BYTES, check_complete, find_file, read_card, sealed
from vltrack.core.archives import Refused, read_safetensors
from vltrack.core.errors import (
    CheckpointCorrupt,
    CheckpointMismatch,
    CheckpointNonFinite,
    CheckpointUnsafe,
    ModelNotFound,
    TokenizerMismatch,
    UsageError,
)
from vltrack.core.files import atomic_path, remove_leftovers
from vltrack.models import MODELS, ModelCard, build, config_of
from vltrack.models.grounder import Grounder, GrounderConfig

_KINDS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def save(path: Path, model: Any, *, tracker: str, size: str, card: dict[str, Any], half: bool = False) -> None:
    """Write ``path`` (.safetensors) and its card next to it.

    A stop at any point leaves the old weights or the new ones, each with its card: the file holds a copy of it,
    which counts while the card next to it is of another file.

    Args:
        path: the .safetensors file.
        model: the network, with its ``config``.
        tracker, size: of the network.
        card: further entries of the card.
        half: store matrices as fp16; vectors stay fp32.

    Raises:
        UsageError: ``path`` does not end in .safetensors.
        CheckpointNonFinite: a number is not finite, or not within the range of fp16.
        ResourceError: the disk is full or the folder cannot be written; the former files are unchanged.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"Weights must end in .safetensors: {path.name}.")
    tensors = {k: _stored(v, half) for k, v in model.state_dict().items()}
    _check_finite(tensors, path)
    with suppress(OSError):  # the folder is missing, which is reported below
        remove_leftovers(path)
        remove_leftovers(path.with_suffix(".json"))
    record = {
        "format": FORMAT,
        "tracker": tracker,
        "size": size,
        "sha256": "",
        "parameters": sum(p.numel() for p in model.parameters()),
        "config": dataclasses.asdict(model.config),
        **card,
    }
    with atomic_path(path.with_suffix(".json")) as card_part, atomic_path(path) as data_part:
        record["sha256"] = _write(tensors, data_part, json.dumps(record))
        card_part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _write(tensors: dict[str, Tensor], path: Path, card: str) -> str:
    """Write a safetensors file tensor by tensor, with a copy of its card, and return its sha256.

    The library's own function may copy all tensors twice, and replaces ``path`` by another file.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {"seal": "0" * 64, "card": card}}
    at = 0
    for name in order:
        tensor = tensors[name]
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _KINDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    seal = sealed([head], (_bytes_of(tensors[name]) for name in order))
    head = head.replace(b"0" * 64, seal, 1)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in (memoryview(head), *(_bytes_of(tensors[name]) for name in order)):
            file.write(piece)
            digest.update(piece)
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy().data)


def load(name_or_path: str | Path, *, start: bool = False) -> tuple[Any, dict[str, Any]]:
    """Load a checkpoint.

    Args:
        name_or_path: see ``cards.find_file``.
        start: accept weights that are only a start for training, too.

    Returns:
        The model in eval mode on the CPU, in float32, and its card. ``card["dtypes"]`` counts the tensors of
        each number type in the file; all are cast to the model's.

    Raises:
        ModelNotFound, CheckpointUnsafe, CheckpointCorrupt, CheckpointVersion, CheckpointMismatch,
        CheckpointNonFinite, CheckpointIncomplete: see the classes.
    """
    path = find_file(name_or_path)
    card, data = _verified(path, start=start)
    if card["tracker"] not in MODELS:
        raise CheckpointMismatch(f"{path} holds weights of {card['tracker']!r}, not of a known tracker.")
    if path.parent == cards.PACKAGED and path.stem != f"{card['tracker']}-{card['size']}":
        raise CheckpointMismatch(f"{path} holds weights of {card['tracker']}-{card['size']}.")
    model_card = MODELS[card["tracker"]]
    config = _config(model_card, card, path)
    tensors = _parse(data, path)
    model = _built(lambda: build(model_card, config), tensors, path)
    load_strictly(model, tensors, path)
    card["dtypes"] = dict(Counter(str(t.dtype).removeprefix("torch.") for t in tensors.values()))
    return model.eval(), card


def load_grounder(path: Path = cards.PACKAGED / "grounder-tiny.safetensors") -> tuple[Grounder, dict[str, Any]]:
    """Load a grounder in eval mode on the CPU, in float32, and its card. Raises as ``load``."""
    if not path.is_file():
        raise ModelNotFound(f"No weights of the grounder at {path}.", hint="Train them: vltrack train grounder.")
    card, data = _verified(path)
    if card["tracker"] != "grounder":
        raise CheckpointMismatch(f"{path} holds weights of {card['tracker']!r}, not of the grounder.")
    config, tensors = _changed(GrounderConfig(), card["config"], path), _parse(data, path)
    grounder: Grounder = _built(lambda: Grounder(config), tensors, path)
    load_strictly(grounder, tensors, path)
    return grounder.eval(), card


def _built(make: Callable[[], Any], tensors: Mapping[str, Tensor], path: Path) -> Any:
    """Build a network that may not become larger than its file, whatever its configuration says.

    Raises ``CheckpointMismatch``.
    """
    room = _Room(tensors)
    hooks = (
        register_module_parameter_registration_hook(room.take),
        register_module_buffer_registration_hook(room.take),
    )
    try:
        # The weights drawn here are all replaced; the caller's random state is unchanged.
        with torch.random.fork_rng(devices=[]), room:
            return make()
    except (ValueError, RuntimeError, MemoryError, OverflowError) as error:
        raise CheckpointMismatch(f"{path}: no network has this configuration ({str(error)[:200]}).") from None
    finally:
        for hook in hooks:
            hook.remove()


class _Room(TorchFunctionMode):
    """What the modules that this thread makes may hold: twice the numbers and tensors of a file, and some tables."""

    _FACTORIES = frozenset((torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn))

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self._numbers = 2 * sum(tensor.numel() for tensor in tensors.values()) + (1 << 20)
        self._tensors = 2 * len(tensors) + 64

    def take(self, _module: object, _name: str, tensor: Tensor | None) -> None:
        """Count a parameter or buffer. Raises ``ValueError`` where that is too much."""
        if tensor is not None and threading.get_ident() == self._thread:
            self._numbers, self._tensors = self._numbers - tensor.numel(), self._tensors - 1
            self._check(0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._FACTORIES:
            first = kwargs.get("size", args[0] if args else ())
            self._check(math.prod(args if isinstance(first, int) else first))
        return func(*args, **kwargs)

    def _check(self, count: int) -> None:
        if count > self._numbers or self._tensors < 0:
            raise ValueError("it is larger than the file")


def _verified(path: Path, *, start: bool = False) -> tuple[dict[str, Any], bytes]:
    """The card of a checkpoint and its bytes, whose checksum is the card's."""
    # Read once: the bytes that are checked are those that are used, even if the file changes meanwhile.
    try:
        data = read_safetensors(path, MAX_BYTES)
    except Refused as error:
        read_card(path)  # its checksum says more
        raise (CheckpointUnsafe if error.unsafe else CheckpointCorrupt)(f"{path} {error}.") from None
    except OSError as error:
        raise CheckpointCorrupt(f"Cannot read {path}: {error.strerror}.") from None
    card = read_card(path, data)
    if not start:
        check_complete(path, card)
    return card, data


def load_strictly(model: torch.nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy tensors into a model: every key, every shape, every number finite; floats are cast to the model's.

    Raises:
        CheckpointMismatch: keys are missing, unexpected, or of another shape or kind (up to ten are listed).
        CheckpointNonFinite: a tensor, which is named, holds NaN or infinity.
    """
    expected = model.state_dict()
    faults = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - expected.keys()),
        **tensor_faults(expected, tensors),
    }
    if any(faults.values()):
        raise CheckpointMismatch(f"{path} does not fit the model: {describe_faults(faults)}.")
    _check_finite(tensors, path)
    with torch.no_grad():
        for name, own in expected.items():
            own.copy_(tensors[name])


def check_vocabulary(
    card: dict[str, Any],
    model: torch.nn.Module,
    *,
    sha256: str,
    pieces: int,
    table: str = "embeddings.word_embeddings.weight",
) -> None:
    """Check that a tokenizer's vocabulary is the one of the weights.

    Args:
        card: of the weights.
        model: the network.
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
    for name, rows in model.state_dict().items():
        if name.endswith(table) and len(rows) != pieces:
            raise TokenizerMismatch(f"The vocabulary has {pieces} pieces, {name} has {len(rows)} rows.")


def _parse(data: bytes, path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_bytes(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointCorrupt(f"{path} is not a safetensors file ({error}).") from None
    return tensors


def tensor_faults(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return the tensors, by our names, that differ from ``expected`` in shape or in kind (float or not)."""
    pairs = {name: (tensors[name], expected[name]) for name in sorted(expected.keys() & tensors.keys())}
    return {
        "of another shape": [
            f"{name} {tuple(there.shape)} for {tuple(own.shape)}"
            for name, (there, own) in pairs.items()
            if there.shape != own.shape
        ],
        "of another kind": [
            f"{name} {there.dtype} for {own.dtype}"
            for name, (there, own) in pairs.items()
            if there.is_floating_point() != own.is_floating_point() or there.is_complex()
        ],
    }


def describe_faults(faults: Mapping[str, list[str]]) -> str:
    """Return how many names have which fault, and the first ten of each: ``2 missing (first: a, b)``."""
    return "; ".join(f"{len(v)} {k} (first: {', '.join(v[:10])})" for k, v in faults.items() if v)


def _check_finite(tensors: dict[str, Tensor], path: Path) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointNonFinite(f"{path}: tensor {name} holds NaN or infinity.", hint="Use another checkpoint.")


def _config(model_card: ModelCard, card: dict[str, Any], path: Path) -> Any:
    if card["size"] not in model_card.sizes:
        raise CheckpointMismatch(
            f"{path}: {card['tracker']} has no size {card['size']!r}, only {', '.join(model_card.sizes)}."
        )
    return _changed(config_of(model_card, card["size"]), card["config"], path)


def _changed(default: Any, values: dict[str, Any], path: Path) -> Any:
    """A configuration with the values of a card, each known and of the right kind."""
    hints = get_type_hints(type(default))
    unknown = sorted(values.keys() - hints.keys())
    if unknown:
        raise CheckpointMismatch(f"{path}: unknown configuration key {', '.join(unknown)}.", hint="Update vltrack.")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    for name, value in values.items():
        allowed = get_args(hints[name]) if get_origin(hints[name]) is Literal else None
        if not (value in allowed if allowed else _same_kind(value, getattr(default, name))):
            raise CheckpointMismatch(f"{path}: configuration {name} cannot be {value!r}.")
    try:
        return dataclasses.replace(default, **values)
    except ValueError as error:
        raise CheckpointMismatch(f"{path}: configuration: {error}.") from None


def _same_kind(value: object, default: object) -> bool:
    if isinstance(default, tuple):
        # An empty tuple is valid, too: no layer after which something happens.
        return isinstance(value, tuple) and all(_same_kind(v, (*default, 0)[0]) for v in value)
    if isinstance(default, float):
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    return type(value) is type(default)


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if half and tensor.is_floating_point() and tensor.ndim > 1 else tensor
