"""Read the dense tensors of foreign ``.pth``, ``.safetensors`` and ``.npz`` files without running code in them.

Torch's own reader is not used: even in its restricted mode a crafted file of a few hundred bytes makes it hang.
``core.torch_archive`` reads the pickles.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from torch import Tensor

from vltrack.checkpoints.cards import MAX_BYTES
from vltrack.core.archives import Refused, read_npz, read_safetensors
from vltrack.core.errors import CheckpointCorrupt, CheckpointUnsafe, ModelNotFound
from vltrack.core.torch_archive import DAMAGE, TENSORS, Made, Storage, TorchArchive, open_archive, tensor_place

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
        if path.suffix.lower() == ".safetensors":
            tensors = _read_safetensors(path)
        elif path.suffix.lower() == ".npz":
            arrays = read_npz(path, MAX_BYTES, packed=False)
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items() if array.dtype.kind != "U"}
        else:
            limits = {"limit": MAX_BYTES, "pickle_bytes": _PICKLE_BYTES, "table_bytes": _TABLE_BYTES}
            with open_archive(path, **limits) as archive:
                tensors = _find_tensors(archive, wanted)
            _check_growth(tensors, archive.size)
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
    if not tensors:
        raise CheckpointCorrupt(f"{path} holds no tensors.")
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_bytes(read_safetensors(path, MAX_BYTES))
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointCorrupt(f"{path} is not a safetensors file ({error}).") from None
    # The library gives them in another order in every process, and the card keeps lists of names.
    return {name: tensors[name] for name in sorted(tensors)}


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
