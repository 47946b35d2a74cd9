"""Read the dense tensors of foreign ``.pth``, ``.safetensors`` and ``.npz`` files without running code in them.

Torch's own reader is not used: even in its restricted mode a crafted file of a few hundred bytes makes it hang.
``core.torch_archive`` reads the pickles.
"""

from __future__ import annotations

import errno
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vltrack.checkpoints.cards import MAX_BYTES
from vltrack.core.archives import Entry, Refused, Safetensors, open_safetensors, read_npz
from vltrack.core.errors import CheckpointCorrupt, CheckpointUnsafe, ModelNotFound
from vltrack.core.torch_archive import (
    DAMAGE,
    TENSORS,
    Made,
    Storage,
    TensorPlace,
    TorchArchive,
    open_archive,
    tensor_place,
)

ENTRIES = 100_000
NUMBER_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "BOOL": torch.bool,
    **{f"I{bits}": getattr(torch, f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": getattr(torch, f"uint{bits}") for bits in (8, 16, 32, 64)},
}
"""Keys of ``core.archives.KINDS`` -> torch's number types."""
_PICKLE_BYTES, _TABLE_BYTES = 32 << 20, 4 << 20
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A tensor of an open file: ``like`` has its shape and number type but no numbers, ``read`` returns it."""

    like: Tensor
    read: Callable[[], Tensor]


Given = Tensor | Stored
"""A tensor, in memory or still in a file."""


def like(given: Given) -> Tensor:
    """Return a tensor of the same shape and number type, perhaps without numbers (on the meta device)."""
    return given.like if isinstance(given, Stored) else given


def value(given: Given) -> Tensor:
    """Return the tensor; it is read now if it is still in a file."""
    return given.read() if isinstance(given, Stored) else given


def lazily(function: Callable[..., Tensor], *given: Given) -> Given:
    """Return ``function`` of tensors, computed when it is read if one of them is still in a file."""
    if not any(isinstance(one, Stored) for one in given):
        return function(*given)
    return Stored(like=function(*map(like, given)), read=lambda: function(*map(value, given)))


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the CPU, which may be written to."""
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy().data)


def read_entry(file: Safetensors, entry: Entry, kind: torch.dtype) -> Tensor:
    """Read the tensor that comes next in a safetensors file into memory of its own, as ``kind``.

    A cast needs no more than a MiB besides. Raises as ``Safetensors.read``.
    """
    tensor, stored = torch.empty(entry.shape, dtype=kind), NUMBER_TYPES[entry.kind]
    if kind == stored:
        file.read(bytes_of(tensor))
        return tensor
    flat = tensor.reshape(-1)
    scratch = torch.empty(min(len(flat), 1 << 18), dtype=stored)
    for piece in torch.split(flat, max(len(scratch), 1)):
        file.read(bytes_of(scratch[: len(piece)]))
        piece.copy_(scratch[: len(piece)])
    return tensor


def read_tensors(path: Path, *, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
    """Return the dense tensors of a checkpoint by name. Arguments and errors as of ``open_tensors``."""
    with open_tensors(path, wanted=wanted) as given:
        return {name: value(one) for name, one in given.items()}


@contextmanager
def open_tensors(path: Path, *, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[dict[str, Given]]:
    """Give the dense tensors of a checkpoint by name, to be read one by one; everything else is left out.

    Nested dictionaries and the attributes of objects become names with dots.

    Args:
        path: ``.safetensors``, ``.npz``, or any other ending for a file of ``torch.save`` or TorchScript.
        wanted: called with each name in a file of torch, also that of a dictionary or object; where it returns
            False, nothing is entered or read.

    Raises:
        ModelNotFound: there is no such file.
        CheckpointUnsafe: tensors larger than their bytes, a compressed archive, a file over a limit.
        CheckpointCorrupt: another kind of file, a damaged one, one without tensors. The last three also when a
            tensor is read.
    """
    with ExitStack() as stack:
        tensors: dict[str, Given]
        with _reported(path):
            if path.suffix.lower() == ".safetensors":
                try:
                    file = stack.enter_context(open_safetensors(path, MAX_BYTES))
                except Refused as error:
                    raise Refused(str(error)) from None  # a pickle, perhaps, but it is not read
                # In another order than that of the bytes, which is the writer's: the card keeps lists of names.
                tensors = {name: _in_safetensors(file, file.entries[name], path) for name in sorted(file.entries)}
            elif path.suffix.lower() == ".npz":
                arrays = read_npz(path, MAX_BYTES, packed=False)
                tensors = {name: torch.from_numpy(array) for name, array in arrays.items() if array.dtype.kind != "U"}
            else:
                limits = {"limit": MAX_BYTES, "pickle_bytes": _PICKLE_BYTES, "table_bytes": _TABLE_BYTES}
                archive = stack.enter_context(open_archive(path, **limits))
                places = _find_tensors(archive, wanted)
                _check_growth(places.values(), archive.size)
                tensors = _in_archive(archive, places, path)
        if not tensors:
            raise CheckpointCorrupt(f"{path} holds no tensors.")
        yield tensors


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Translate what goes wrong when a foreign file is read."""
    try:
        yield
    except FileNotFoundError:
        raise ModelNotFound(f"No such file: {path}.", hint="Nothing is downloaded: fetch it first.") from None
    except OSError as error:
        refused = CheckpointUnsafe if error.errno in (errno.EFBIG, errno.EINVAL) else CheckpointCorrupt
        raise refused(f"Cannot read {path}: {error.strerror}.", hint="Give the checkpoint's own file.") from None
    except Refused as error:
        kind = CheckpointUnsafe if error.unsafe else CheckpointCorrupt
        remedy = "If you trust the file, convert it to .safetensors and give that."
        raise kind(f"{path}: it {error}.", hint=remedy if error.unsafe else "Fetch it again.") from None
    except DAMAGE as error:
        raise CheckpointCorrupt(f"{path} is damaged or not a checkpoint ({str(error)[:200]}).") from None


def _in_safetensors(file: Safetensors, entry: Entry, path: Path) -> Given:
    def read() -> Tensor:
        with _reported(path):
            file.seek(entry)
            return read_entry(file, entry, kind)

    kind = NUMBER_TYPES[entry.kind]
    return Stored(like=torch.empty(entry.shape, dtype=kind, device="meta"), read=read)


def _in_archive(archive: TorchArchive, places: Mapping[str, TensorPlace], path: Path) -> dict[str, Given]:
    views = Counter(place.storage for place in places.values())
    kept: dict[Storage, Tensor] = {}

    def read(place: TensorPlace) -> Tensor:
        kind = getattr(torch, place.storage.kind)
        if 0 in place.shape:
            return torch.empty(place.shape, dtype=kind)
        with _reported(path):
            raw = kept.get(place.storage)
            if raw is None:
                raw = torch.from_numpy(archive.read(place.storage)).view(kind)
        if views[place.storage] > 1:  # read once, whatever the file says
            kept[place.storage] = raw
        return raw.as_strided(place.shape, place.stride, place.offset)

    def shaped(place: TensorPlace) -> Tensor:
        kind = getattr(torch, place.storage.kind)
        if 0 in place.shape:
            return torch.empty(place.shape, dtype=kind, device="meta")
        return torch.empty_strided(place.shape, place.stride, dtype=kind, device="meta")

    return {name: Stored(like=shaped(place), read=partial(read, place)) for name, place in places.items()}


def _find_tensors(archive: TorchArchive, wanted: Callable[[str], bool]) -> dict[str, TensorPlace]:
    found: dict[str, TensorPlace] = {}
    visited, waiting = 0, [("", archive.content, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        if isinstance(value, Made) and value.path in _PARAMETERS and value.args:
            value = value.args[0]
        if isinstance(value, Made) and value.path in TENSORS:
            try:
                found[name] = tensor_place(value)
            except Refused as error:
                raise Refused(f"has tensor {name} that {error}", unsafe=error.unsafe) from None
            continue
        inside = _entries(value)
        visited += len(inside) + 1
        if depth >= 16 or visited > ENTRIES or len(name) > 1000:
            raise Refused("is nested too deeply or has too many entries", unsafe=True)
        named = [(f"{name}.{key}" if name else str(key), entry, depth + 1) for key, entry in inside]
        waiting.extend(entry for entry in reversed(named) if wanted(entry[0]))
    return found


def _entries(value: object) -> list[tuple[Any, Any]]:
    """Return entries of a dictionary, or entries and attributes of an object, that may hold tensors."""
    if isinstance(value, Made):
        states = value.state if isinstance(value.state, list) else [value.state]
        parts = [value.items, *(state for state in states if isinstance(state, dict))]
    else:
        parts = [value] if isinstance(value, dict) else []
    return [(key, entry) for part in parts for key, entry in part.items() if isinstance(entry, dict | Made)]


def _check_growth(places: Iterable[TensorPlace], size: int) -> None:
    """Raise ``Refused`` for tensors larger than the file. Tied weights count once, other views each."""
    if sum(math.prod(place.shape) * place.storage.itemsize for place in set(places)) > 1.05 * size:
        raise Refused("holds tensors that are larger than the file", unsafe=True)
