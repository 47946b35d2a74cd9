"""Read the dense tensors of foreign ``.pth``, ``.safetensors`` and ``.npz`` files without running code in them.

Torch's own reader is not used: even in its restricted mode a crafted file of a few hundred bytes makes it hang.
``core.torch_archive`` reads the pickles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from torch import Tensor

from vltrack.core.errors import CheckpointCorrupt, CheckpointUnsafe, ModelNotFound
from vltrack.core.torch_archive import (
    DAMAGE,
    TENSORS,
    Made,
    Refused,
    Storage,
    TorchArchive,
    check_stored,
    open_archive,
    open_zip,
    tensor_place,
)

MAX_BYTES = 8 << 30
ENTRIES = 100_000
_PICKLE_BYTES, _TABLE_BYTES = 32 << 20, 4 << 20
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")


def read_tensors(path: Path, *, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
    """Return the dense tensors of a checkpoint by name; everything else in the file is left out.

    Nested dictionaries and the attributes of objects become names with dots.

    Args:
        path: ``.safetensors``, ``.npz``, or any other ending for a file of ``torch.save`` or TorchScript.
        wanted: called with each name in a file of torch, also that of a dictionary or object; where it returns
            False, nothing is entered or read.

    Raises:
        ModelNotFound: there is no such file.
        CheckpointUnsafe: tensors larger than their bytes, a compressed archive, a file over a limit.
        CheckpointCorrupt: another kind of file, a damaged one, one without tensors.
    """
    try:
        if path.is_dir():
            raise CheckpointCorrupt(f"{path} is a folder, not a file.")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise CheckpointUnsafe(f"{path} has {size} bytes, more than the limit of {MAX_BYTES}.")
        if path.suffix.lower() == ".safetensors":
            tensors = _read_safetensors(path)
        elif path.suffix.lower() == ".npz":
            tensors = _read_npz(path, size)
        else:
            with open_archive(path, pickle_bytes=_PICKLE_BYTES, table_bytes=_TABLE_BYTES) as archive:
                tensors = _find_tensors(archive, wanted)
            _check_growth(tensors, size)
    except FileNotFoundError:
        raise ModelNotFound(f"No such file: {path}.", hint="Nothing is downloaded: fetch it first.") from None
    except OSError as error:
        raise CheckpointCorrupt(f"Cannot read {path}: {error.strerror}.") from None
    except Refused as error:
        kind = CheckpointUnsafe if error.unsafe else CheckpointCorrupt
        remedy = "If you trust the file, convert it to .safetensors and give that."
        raise kind(f"{path}: it {error}.", hint=remedy if error.unsafe else "Fetch it again.") from None
    except DAMAGE as error:
        raise CheckpointCorrupt(f"{path} is damaged or not a checkpoint ({str(error)[:200]}).") from None
    if not tensors:
        raise CheckpointCorrupt(f"{path} holds no tensors.")
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_bytes(path.read_bytes())
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointCorrupt(f"{path} is not a safetensors file ({error}).") from None
    # The library gives them in another order in every process, and the card keeps lists of names.
    return {name: tensors[name] for name in sorted(tensors)}


def _read_npz(path: Path, size: int) -> dict[str, Tensor]:
    """Read a file of ``numpy.savez``: one plain array per entry."""
    with path.open("rb") as file, open_zip(file, _TABLE_BYTES) as archive:
        entries = archive.infolist()
        check_stored(entries, size)
        return {(name := entry.filename.removesuffix(".npy")): _array(archive.read(entry), name) for entry in entries}


def _array(data: bytes, name: str) -> Tensor:
    file = BytesIO(data)
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise Refused(f"has array {name} of the unknown version {version}")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, columns, kind = read_header(file)
    if kind.hasobject or kind.kind not in "fiub" or kind.itemsize > 8:
        raise Refused(f"has array {name} of {kind}, not of real numbers", unsafe=True)
    if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != len(data) - file.tell():
        raise Refused(f"has array {name} that is not as long as its header says")
    flat = np.frombuffer(data, dtype=kind, offset=file.tell()).astype(kind.newbyteorder("="))
    return torch.from_numpy(flat.reshape(shape, order="F" if columns else "C").copy(order="C"))


def _find_tensors(archive: TorchArchive, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    read: dict[Storage, Tensor] = {}
    visited, waiting = 0, [("", archive.content, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        if isinstance(value, Made) and value.path in _PARAMETERS and value.args:
            value = value.args[0]
        if isinstance(value, Made) and value.path in TENSORS:
            try:
                place = tensor_place(value)
            except Refused as error:
                raise Refused(f"has tensor {name} that {error}", unsafe=error.unsafe) from None
            kind = getattr(torch, place.storage.kind)
            if 0 in place.shape:
                found[name] = torch.empty(place.shape, dtype=kind)
                continue
            if place.storage not in read:
                read[place.storage] = torch.from_numpy(archive.read(place.storage)).view(kind)
            found[name] = read[place.storage].as_strided(place.shape, place.stride, place.offset)
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


def _check_growth(tensors: dict[str, Tensor], size: int) -> None:
    """Raise ``Refused`` for tensors larger than the file. Tied weights count once, other views each."""
    views = {(t.data_ptr(), t.dtype, t.shape, t.stride()): t.numel() * t.element_size() for t in tensors.values()}
    if sum(views.values()) > 1.05 * size:
        raise Refused("holds tensors that are larger than the file", unsafe=True)
