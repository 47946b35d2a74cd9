"""Save and load our checkpoints: tensors in ``NAME.safetensors``, their description in ``NAME.json``, the card."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from vltrack.checkpoints import cards
from vltrack.checkpoints.cards import FORMAT, find_file, identify, sealed
from vltrack.checkpoints.torch_files import NUMBER_TYPES, bytes_of, read_entry
from vltrack.core.archives import Refused, Safetensors, open_safetensors
from vltrack.core.errors import CheckpointCorrupt, CheckpointMismatch, CheckpointNonFinite, ModelNotFound, UsageError
from vltrack.core.files import atomic_path, remove_leftovers
from vltrack.models import MODELS, build, config_of
from vltrack.models.grounder import Grounder, GrounderConfig

SHARED = cards.PACKAGED / "shared.safetensors"
"""What the tiny weights have in common: int8 word vectors, with the scales of the grounder's 96 and of the trackers' 64
columns, and the stem's features."""
WORD_TABLE = "bert.embeddings.word_embeddings.weight"
_KINDS = {kind: name for name, kind in NUMBER_TYPES.items()}


def save(
    path: Path, model: Any, *, tracker: str, size: str, card: dict[str, Any], half: bool = False, share: bool = False
) -> None:
    """Write ``path`` (.safetensors) and its card next to it.

    A stop at any point leaves the old weights or the new ones, each with its card: the file holds a copy of it,
    which counts while the card next to it is of another file.

    Args:
        path: the .safetensors file.
        model: the network, with its ``config``.
        tracker, size: of the network.
        card: further entries of the card.
        half: store matrices as fp16; vectors stay fp32.
        share: leave out the tensors that ``SHARED`` has, for weights that ship next to it.

    Raises:
        UsageError: ``path`` does not end in .safetensors.
        CheckpointNonFinite: a number is not finite, or not within the range of fp16.
        ResourceError: the disk is full or the folder cannot be written; the former files are unchanged.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"Weights must end in .safetensors: {path.name}.")
    tensors = {k: _stored(v, half) for k, v in model.state_dict().items()}
    _check_finite(tensors, path)
    if share:
        common, digest = _shared(tracker)
        tensors = {k: v for k, v in tensors.items() if k not in common or not _same(k, v, _stored(common[k], half))}
        card = card | {"shared": digest}
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
    seal = sealed([head], (bytes_of(tensors[name]) for name in order))
    head = head.replace(b"0" * 64, seal, 1)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in (memoryview(head), *(bytes_of(tensors[name]) for name in order)):
            file.write(piece)
            digest.update(piece)
    return digest.hexdigest()


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
    tensors, card = _read(path, start=start)
    model_card = MODELS[card["tracker"]]
    config = _changed(config_of(model_card, card["size"]), card["config"], path)
    return _filled(lambda: build(model_card, config), tensors, path), card


def load_grounder(path: Path = cards.GROUNDER) -> tuple[Grounder, dict[str, Any]]:
    """Load a grounder in eval mode on the CPU, in float32, and its card. Raises as ``load``."""
    tensors, card = _read(cards.find_grounder(path), of="grounder")
    config = _changed(GrounderConfig(), card["config"], path)
    grounder: Grounder = _filled(lambda: Grounder(config), tensors, path)
    return grounder, card


def _read(path: Path, **options: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, floats in float32, and card of a file, which is read once: what was checked is what is used.

    No more is in memory than the tensors. ``options``: of ``identify``.
    """
    tensors: dict[str, Tensor] = {}
    kinds: Counter[str] = Counter()

    def take(file: Safetensors) -> None:
        for name, entry in file.entries.items():
            kind = NUMBER_TYPES[entry.kind]
            kinds[str(kind).removeprefix("torch.")] += 1
            tensors[name] = read_entry(file, entry, torch.float32 if kind.is_floating_point else kind)

    card = identify(path, take=take, **options)
    if "shared" in card:
        common, digest = _shared(card["tracker"])
        if digest != card["shared"]:
            raise CheckpointMismatch(
                f"{path} was made for another {SHARED.name}.", hint="Use the weights that ship with this version."
            )
        tensors = common | tensors
    return tensors, card | {"dtypes": dict(kinds)}


def _shared(tracker: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of ``SHARED`` by their names in weights of a tracker, or of the grounder, and the file's sha256.

    Raises:
        ModelNotFound: the file is missing from the installation. CheckpointCorrupt: it is damaged.
    """
    tensors: dict[str, Tensor] = {}
    try:
        with open_safetensors(SHARED, 1 << 26) as file:
            for name, entry in file.entries.items():
                kind = NUMBER_TYPES[entry.kind]
                tensors[name] = read_entry(file, entry, torch.float32 if kind.is_floating_point else kind)
            digest = file.sha256()
    except FileNotFoundError:
        raise ModelNotFound(f"{SHARED} is missing.", hint="Install vltrack again.") from None
    except (Refused, OSError) as error:
        raise CheckpointCorrupt(f"{SHARED} {error}.", hint="Install vltrack again.") from None
    table, scale, words_scale = (tensors.pop(name) for name in ("table", "table_scale", "words_scale"))
    if tracker == "grounder":
        return {"table": table, "table_scale": scale}, digest
    return tensors | {WORD_TABLE: table[:, : len(words_scale)] * words_scale}, digest


def _same(name: str, one: Tensor, shared: Tensor) -> bool:
    """Whether a tensor is the shared one; of word vectors also before they were rounded to 8 bits."""
    return torch.allclose(one, shared, rtol=0, atol=0.01) if name == WORD_TABLE else torch.equal(one, shared)


def save_shared(tracker: Any, grounder: Grounder, card: dict[str, Any]) -> None:
    """Write ``SHARED`` from the word vectors of a grounder and the stem of a tracker.

    The weights that ship and leave tensors out are written anew: what the new file lacks, they hold themselves.

    Raises ``ResourceError``, and as ``load``.
    """
    own = tracker.state_dict()
    columns = own[WORD_TABLE].shape[1]
    scale = grounder.table_scale[:columns]
    tensors = {name: _stored(value, half=True) for name, value in own.items() if name.startswith("stem.trunk.")}
    tensors |= {"table": grounder.table, "table_scale": grounder.table_scale}
    tensors["words_scale"] = scale * 0.05 / (grounder.table[:, :columns] * scale).std()
    files = [path for path in sorted(cards.PACKAGED.glob("*.safetensors")) if path != SHARED]
    others = [
        (path, *(load_grounder(path) if path == cards.GROUNDER else load(path)))
        for path in files
        if "shared" in cards.read_card(path)
    ]
    with atomic_path(SHARED.with_suffix(".json")) as card_part, atomic_path(SHARED) as data_part:
        text = json.dumps(card | {"sha256": _write(tensors, data_part, "")}, indent=2)
        card_part.write_text(text + "\n", encoding="utf-8")
    for path, model, about in others:
        rest = {key: value for key, value in about.items() if key not in _OF_FILE}
        save(path, model, tracker=about["tracker"], size=about["size"], card=rest, half=True, share=True)


_OF_FILE = ("format", "tracker", "size", "sha256", "parameters", "config", "shared", "dtypes")
"""Entries of a card that ``save`` and ``load`` set."""


def word_vectors() -> Tensor:
    """(30522, 64) word vectors of the tiny trackers: the leading principal components of all-MiniLM-L6-v2's.

    Raises as ``_shared``.
    """
    return _shared(cards.DEFAULT_MODEL)[0][WORD_TABLE]


def _filled(make: Callable[[], Any], tensors: dict[str, Tensor], path: Path) -> Any:
    """The network in eval mode; its parameters are these tensors, not copies."""
    model = _built(make, tensors, path)
    load_strictly(model, tensors, path, assign=True)
    return model.eval()


def _built(make: Callable[[], Any], tensors: Mapping[str, Tensor], path: Path) -> Any:
    """Build a network that may not become larger than its file, whatever its configuration says.

    Parameters without numbers (on the meta device) take no memory and no time to be drawn; what a network computes
    for itself, such as its fixed positions, is there. Raises ``CheckpointMismatch``.
    """
    room = _Room(tensors)
    hooks = (
        register_module_parameter_registration_hook(room.take),
        register_module_buffer_registration_hook(room.take),
    )
    try:
        # What is drawn is replaced by the file's; the caller's random state is unchanged.
        with torch.random.fork_rng(devices=[]), room:
            return make()
    except (ValueError, RuntimeError, MemoryError, OverflowError) as error:
        raise CheckpointMismatch(f"{path}: no network has this configuration ({str(error)[:200]}).") from None
    finally:
        for hook in hooks:
            hook.remove()


class _Room(TorchFunctionMode):
    """What the modules that this thread makes may hold: twice the numbers and tensors of a file, and some tables.

    ``torch.empty``, with which layers make their parameters, makes them on the meta device.
    """

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
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        changed = kwargs.get("out", args[0] if args else kwargs.get("tensor"))
        writes = "out" in kwargs or re.search(r"[^_]_$", func.__name__)
        if writes and isinstance(changed, Tensor) and changed.is_meta:
            return changed  # to draw no numbers, torch would load its compiler, which takes seconds
        if func in self._FACTORIES:
            first = kwargs.get("size", args[0] if args else ())
            self._check(math.prod(args if isinstance(first, int) else first))
        return func(*args, **kwargs)

    def _check(self, count: int) -> None:
        if count > self._numbers or self._tensors < 0:
            raise ValueError("it is larger than the file")


def load_strictly(model: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path, *, assign: bool = False) -> None:
    """Copy tensors into a model: every key, every shape, every number finite; floats are cast to the model's.

    With ``assign`` they become its parameters, without a copy of those that need no cast.

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
    if assign:
        model.load_state_dict({name: tensors[name].to(own.dtype) for name, own in expected.items()}, assign=True)
        return
    with torch.no_grad():
        for name, own in expected.items():
            own.copy_(tensors[name])


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


def is_finite(tensor: Tensor) -> bool:
    """Return whether no number is NaN or infinity, without a temporary tensor of the same size."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(math.isfinite(float(bound)) for bound in tensor.aminmax())  # NaN is both


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise CheckpointNonFinite(f"{path}: tensor {name} holds NaN or infinity.", hint="Use another checkpoint.")


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
