"""Other people's ``.pth``, ``.safetensors`` and ``.npz`` files as plain tensors; nothing in them is run.

Knows zip archives as ``torch.save`` has written them since 2020, with dense tensors in nested dictionaries,
read by torch's restricted unpickler. All else is refused: older pickles, TorchScript, compressed archives,
tensors that are larger than their bytes. Knows no model and no names. What is refused here because it is more
than tensors may be for ``extract``.
"""

from __future__ import annotations

import math
import pickle
import struct
import warnings
import zipfile
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

MAX_BYTES = 8 << 30
PICKLE_BYTES = 32 << 20
_GROWTH = 1.05
_DEPTH = 8
_ENTRIES = 100_000
# What readers of damaged archives and pickles raise beside their own errors.
DAMAGE = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    EOFError,
    MemoryError,
    struct.error,
)
_REMEDY = "Convert the file to .safetensors where you trust it, and give that."
_REMEDY_EXTRACT = (
    "Let `vltrack import-weights --extract-tensors` read nothing but its tensors, or convert it to "
    ".safetensors where you trust it."
)
_REMEDY_SCRIPT = (
    "Let `vltrack import-weights --extract-tensors` read nothing but its tensors, or, where you trust it: "
    "torch.save(torch.jit.load(FILE).state_dict(), OTHER_FILE)."
)


def read_foreign(path: Path, *, max_bytes: int = MAX_BYTES) -> dict[str, Tensor]:
    """The dense tensors of a foreign checkpoint by name; nested dictionaries become names with dots.

    Entries that are no tensors (epoch numbers, optimizer lists) are left out.

    Raises:
        ModelNotFound: there is no such file.
        CheckpointUnsafe: a format that can run code or a file that would grow in memory; over ``max_bytes``.
        CheckpointCorrupt: a file that breaks off, or without tensors.
    """
    try:
        if path.is_dir():
            raise CheckpointCorrupt(f"{path} is a folder, not a file.")
        size = path.stat().st_size
        if size > max_bytes:
            raise CheckpointUnsafe(f"{path} has {size} bytes, more than the limit of {max_bytes}.")
        read = {".safetensors": _safetensors, ".npz": _numpy_archive}.get(path.suffix.lower(), _torch_archive)
        tensors = read(path, size)
    except FileNotFoundError:
        raise ModelNotFound(
            f"there is no file {path}.", hint="Nothing is downloaded: fetch it first."
        ) from None
    except OSError as error:
        raise CheckpointCorrupt(f"{path} cannot be read ({error.strerror}).") from None
    if not tensors:
        raise CheckpointCorrupt(f"{path} holds no tensors.")
    return tensors


def _safetensors(path: Path, _: int) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_bytes(path.read_bytes())
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointCorrupt(f"{path} is no safetensors file ({error}).") from None
    return tensors


def _numpy_archive(path: Path, size: int) -> dict[str, Tensor]:
    """What ``numpy.savez`` wrote: one plain array an entry, each as long as its header says."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_plain(entries, path)
            if sum(entry.file_size for entry in entries) > size:
                raise CheckpointUnsafe(f"{path} is no archive of numpy.savez.", hint=_REMEDY)
            named = {entry.filename.removesuffix(".npy"): entry for entry in entries}
            return {
                name: _array(archive.read(entry), f"{path}: array {name}") for name, entry in named.items()
            }
    except (zipfile.BadZipFile, NotImplementedError, *DAMAGE) as error:
        raise CheckpointCorrupt(f"{path} is a broken archive of numpy.savez ({error}).") from None


def _array(data: bytes, named: str) -> Tensor:
    file = BytesIO(data)
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{named} has the unknown layout {version}")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, columns, kind = read_header(file)
    if kind.hasobject or kind.kind not in "fiub" or kind.itemsize > 8:
        raise CheckpointUnsafe(f"{named} holds other things than real numbers.", hint=_REMEDY)
    if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != len(data) - file.tell():
        raise ValueError(f"{named} is not as long as its header says")
    flat = np.frombuffer(data, dtype=kind, offset=file.tell()).astype(kind.newbyteorder("="))
    return torch.from_numpy(flat.reshape(shape, order="F" if columns else "C").copy(order="C"))


def _torch_archive(path: Path, size: int) -> dict[str, Tensor]:
    _check_archive(path, size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on tensor kinds that are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # torch's own message tells how to switch the protection off; ours does not.
        raise CheckpointUnsafe(
            f"{path} holds more than plain tensors and could run code.", hint=_REMEDY_EXTRACT
        ) from None
    except DAMAGE as error:
        raise CheckpointCorrupt(f"{path} cannot be read ({type(error).__name__} in torch.load).") from None
    found = _collect(content, path)
    check_growth(found, size, path)
    return found


def _check_archive(path: Path, size: int) -> None:
    try:
        if not zipfile.is_zipfile(path):
            raise CheckpointUnsafe(
                f"{path} is no archive of torch.save (an older pickle?).", hint=_REMEDY_EXTRACT
            )
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_entries(entries, path, size)
            damaged = archive.testzip()
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise CheckpointCorrupt(f"{path} is a broken archive ({error}).") from None
    if damaged is not None:
        raise CheckpointCorrupt(f"{path} is damaged: the checksum of {damaged} is another.")


def _check_entries(entries: list[zipfile.ZipInfo], path: Path, size: int) -> None:
    names = [entry.filename for entry in entries]
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        raise CheckpointUnsafe(f"{path} is a TorchScript program, not weights.", hint=_REMEDY_SCRIPT)
    _check_plain(entries, path)
    pickled = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickled) != 1 or pickled[0].file_size > PICKLE_BYTES or sum(e.file_size for e in entries) > size:
        raise CheckpointUnsafe(f"{path} is no archive of torch.save.", hint=_REMEDY)


def _check_plain(entries: list[zipfile.ZipInfo], path: Path) -> None:
    if len({entry.filename for entry in entries}) != len(entries):
        raise CheckpointUnsafe(f"{path} holds two entries of one name.", hint=_REMEDY)
    if any(
        entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size
        for entry in entries
    ):
        raise CheckpointUnsafe(f"{path} is compressed and could grow without bound.", hint=_REMEDY)


def _collect(content: Any, path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    # A few dictionaries that hold each other can unfold to any number of entries: count what is visited.
    visited, waiting = 0, [("", content, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        if isinstance(value, Tensor):
            _check_dense(value, name, path)
            found[name] = value.detach()
        elif isinstance(value, dict):
            visited += len(value) + 1
            if depth >= _DEPTH or visited > _ENTRIES:
                raise CheckpointUnsafe(f"{path} is nested too deeply or has too many entries.", hint=_REMEDY)
            inside = [
                (f"{name}.{key}" if name else str(key), entry, depth + 1) for key, entry in value.items()
            ]
            waiting.extend(reversed(inside))
    return found


def _check_dense(tensor: Tensor, name: str, path: Path) -> None:
    # Layout first: asking other layouts for their storage raises.
    dense = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_nested
    if not dense or tensor.device.type != "cpu" or tensor.is_complex():
        raise CheckpointUnsafe(f"{path}: tensor {name} is not a dense tensor of real numbers.", hint=_REMEDY)
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointUnsafe(f"{path}: tensor {name} is larger than its bytes.", hint=_REMEDY)


def check_growth(found: dict[str, Tensor], size: int, path: Path) -> None:
    """Tensors that share their bytes (tied weights) count once; views of different shape count each."""
    views = {
        (t.data_ptr(), t.dtype, t.shape, t.stride()): t.numel() * t.element_size() for t in found.values()
    }
    if sum(views.values()) > _GROWTH * size:
        raise CheckpointUnsafe(f"{path}: its tensors are larger than the file.", hint=_REMEDY)
