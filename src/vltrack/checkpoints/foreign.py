"""Other people's ``.pth``, ``.safetensors`` and ``.npz`` files as plain tensors; nothing in them is run.

Knows zip archives as ``torch.save`` has written them since 2020, with dense tensors in nested dictionaries.
All else is refused: older pickles, TorchScript, foreign objects, compressed archives, tensors that are larger
than their bytes. Knows no model and no names. What is refused here because it is more than tensors may be
for ``extract``, which reads both.
"""

from __future__ import annotations

import math
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from torch import Tensor

from vltrack.checkpoints.extract import REMEDY_EXTRACT, extract_tensors
from vltrack.checkpoints.limits import MAX_BYTES, PICKLE_BYTES, REMEDY, open_zip
from vltrack.core.errors import CheckpointCorrupt, CheckpointUnsafe, ModelNotFound
from vltrack.core.inert import DAMAGE

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
    # The library gives them in another order in every process, and the card keeps lists of names.
    return {name: tensors[name] for name in sorted(tensors)}


def _numpy_archive(path: Path, size: int) -> dict[str, Tensor]:
    """What ``numpy.savez`` wrote: one plain array an entry, each as long as its header says."""
    try:
        with open_zip(path) as archive:
            entries = archive.infolist()
            _check_plain(entries, path)
            if sum(entry.file_size for entry in entries) > size:
                raise CheckpointUnsafe(f"{path} is no archive of numpy.savez.", hint=REMEDY)
            named = {entry.filename.removesuffix(".npy"): entry for entry in entries}
            return {
                name: _array(archive.read(entry), f"{path}: array {name}") for name, entry in named.items()
            }
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise CheckpointCorrupt(f"{path} is a broken archive of numpy.savez ({error}).") from None


def _array(data: bytes, named: str) -> Tensor:
    file = BytesIO(data)
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{named} has the unknown layout {version}")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, columns, kind = read_header(file)
    if kind.hasobject or kind.kind not in "fiub" or kind.itemsize > 8:
        raise CheckpointUnsafe(f"{named} holds other things than real numbers.", hint=REMEDY)
    if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != len(data) - file.tell():
        raise ValueError(f"{named} is not as long as its header says")
    flat = np.frombuffer(data, dtype=kind, offset=file.tell()).astype(kind.newbyteorder("="))
    return torch.from_numpy(flat.reshape(shape, order="F" if columns else "C").copy(order="C"))


def _torch_archive(path: Path, size: int) -> dict[str, Tensor]:
    _check_archive(path, size)
    return extract_tensors(path, plain=True)


def _check_archive(path: Path, size: int) -> None:
    try:
        if not zipfile.is_zipfile(path):
            raise CheckpointUnsafe(
                f"{path} is no archive of torch.save (an older pickle?).", hint=REMEDY_EXTRACT
            )
        with open_zip(path) as archive:
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
        raise CheckpointUnsafe(f"{path} is no archive of torch.save.", hint=REMEDY)


def _check_plain(entries: list[zipfile.ZipInfo], path: Path) -> None:
    if len({entry.filename for entry in entries}) != len(entries):
        raise CheckpointUnsafe(f"{path} holds two entries of one name.", hint=REMEDY)
    if any(
        entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size
        for entry in entries
    ):
        raise CheckpointUnsafe(f"{path} is compressed and could grow without bound.", hint=REMEDY)
