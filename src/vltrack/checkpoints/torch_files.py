"""The tensors of a file of torch: read as bytes, with nothing of what else it holds built.

Knows the three ways in which ``torch.save`` and TorchScript lay a file out: the archive of today, the row of
pickles of before 2020, and a program's archive, of which the code is not read. The pickles are read by
``inert``, which calls nothing; what is recognised in its marks is a handful of names by which torch writes
dense tensors. Torch's own reader is not used: its restricted mode, too, hangs on a crafted file of a few
hundred bytes. Knows no model.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol, TypeGuard

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from torch import Tensor

from vltrack.core.errors import CheckpointCorrupt, CheckpointUnsafe, ModelNotFound
from vltrack.core.unpickle import DAMAGE, Name, Outside, Thing, read_pickle

# MERGED checkpoints/torch_files.py
# How much a foreign file may ask for: bytes, entries, growth in memory. Knows a zip's table, no contents.


MAX_BYTES = 8 << 30
PICKLE_BYTES = 32 << 20
ENTRIES = 100_000
_CONTENTS_BYTES = 4 << 20
_GROWTH = 1.05
REMEDY = "Convert the file to .safetensors where you trust it, and give that."


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose table of contents has a few megabytes at most; a weights file needs a tenth of one.

    Python reads the whole table at once and makes an object of each entry: a hundred times its bytes.

    Raises:
        CheckpointUnsafe: a larger table.
        zipfile.BadZipFile, OSError: no archive; it cannot be read.
    """
    with path.open("rb") as file:
        guard: Any = _Guard(file, path)
        with zipfile.ZipFile(guard) as archive:
            guard.most = None
            yield archive


class _Guard:
    """A file that gives no more than ``most`` bytes at once, and asks who wants more to leave."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self.most: int | None = _CONTENTS_BYTES
        self._file, self._path = file, path

    def read(self, count: int = -1) -> bytes:
        if self.most is not None and count > self.most:
            raise CheckpointUnsafe(f"{self._path} has too many entries.", hint=REMEDY)
        return self._file.read(count)


def check_growth(found: dict[str, Tensor], size: int, path: Path) -> None:
    """Tensors that share their bytes (tied weights) count once; views of different shape count each.

    Raises:
        CheckpointUnsafe: together they are larger than the file.
    """
    views = {
        (t.data_ptr(), t.dtype, t.shape, t.stride()): t.numel() * t.element_size() for t in found.values()
    }
    if sum(views.values()) > _GROWTH * size:
        raise CheckpointUnsafe(f"{path}: its tensors are larger than the file.", hint=REMEDY)


_KINDS = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DEPTH = 16
_DIMENSIONS = 16
_NAME = 1000
_MOST = 1 << 62
_CHUNK = 1 << 20
_TENSORS = ("tensor_v2", "tensor")
_PARAMETERS = ("parameter", "parameter_with_state")
# By which torch writes dictionaries of dense tensors; a file that names nothing else is plain.
_PLAIN = frozenset(
    (
        *(f"torch.{name}" for name in (*_KINDS, "Size", "device")),
        *(f"torch.{str(kind).removeprefix('torch.')}" for kind in _KINDS.values()),
        *(f"torch._utils._rebuild_{what}" for what in (*_TENSORS, *_PARAMETERS)),
        *("collections.OrderedDict", "collections.defaultdict"),
    )
)
REMEDY_EXTRACT = (
    "Let `vltrack import-weights --extract-tensors` read nothing but its tensors, or convert it to "
    ".safetensors where you trust it."
)
# The first number of the files of before 2020, and the version of their layout.
_MAGIC, _LAYOUT = 0x1950A86A20F9469CFC6C, 1001


def extract_tensors(
    path: Path,
    *,
    wanted: Callable[[str], bool] = lambda name: True,
    max_bytes: int = MAX_BYTES,
    plain: bool = False,
) -> dict[str, Tensor]:
    """The dense tensors of a file of ``torch.save`` or TorchScript by name; all else in it is left out.

    Dictionaries and the attributes of foreign objects become names with dots. ``wanted`` is asked for each
    name, also that of a dictionary or object: what it does not want is neither entered nor read. ``plain``
    refuses a file that holds more than dictionaries of dense tensors, numbers and texts.

    Raises:
        ModelNotFound: there is no such file.
        CheckpointUnsafe: a file whose tensors are larger than their bytes or compressed; over ``max_bytes``;
            one that is not ``plain``.
        CheckpointCorrupt: another kind of file, a damaged one, one without tensors.
    """
    try:
        if path.is_dir():
            raise CheckpointCorrupt(f"{path} is a folder, not a file.")
        size = path.stat().st_size
        if size > max_bytes:
            raise CheckpointUnsafe(f"{path} has {size} bytes, more than the limit of {max_bytes}.")
        with _opened(path, size) as archive:
            if plain:
                _check_plain(archive, path)
            tensors = _tensors(archive, path, wanted)
    except FileNotFoundError:
        raise ModelNotFound(
            f"there is no file {path}.", hint="Nothing is downloaded: fetch it first."
        ) from None
    except OSError as error:
        raise CheckpointCorrupt(f"{path} cannot be read ({error.strerror}).") from None
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise CheckpointCorrupt(f"{path} is damaged or no file of torch.save ({str(error)[:200]}).") from None
    if not tensors:
        raise CheckpointCorrupt(f"{path} holds no tensors.")
    check_growth(tensors, size, path)
    return tensors


class _Archive(Protocol):
    """Either layout: what its pickle holds, and the bytes of a tensor's storage by key."""

    content: Any
    names: set[str]

    def read(self, key: str, length: int) -> Tensor: ...


@contextmanager
def _opened(path: Path, size: int) -> Iterator[_Archive]:
    if zipfile.is_zipfile(path):
        with open_zip(path) as archive:
            yield _ZipArchive(archive, path, size)
    else:
        with path.open("rb") as file:
            yield _RowOfPickles(file, size)


def _check_plain(archive: _Archive, path: Path) -> None:
    more = sorted(archive.names - _PLAIN)
    if more:
        raise CheckpointUnsafe(
            f"{path} holds more than plain tensors and could run code (first: {more[0]}).",
            hint=REMEDY_EXTRACT,
        )


class _ZipArchive:
    """``NAME/data.pkl`` and ``NAME/data/KEY``, neither compressed. Other entries are not read."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, size: int) -> None:
        self._archive, self._path = archive, path
        self._entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in self._entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(self._entries) != len(archive.infolist()) or len(pickles) != 1:
            raise CheckpointUnsafe(f"{path} is no archive of torch.save, or holds two entries of one name.")
        self._folder = pickles[0].removesuffix("data.pkl")
        needed = [self._entries[pickles[0]]]
        needed += [e for name, e in self._entries.items() if name.startswith(f"{self._folder}data/")]
        if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in needed):
            raise CheckpointUnsafe(f"{path} is compressed and could grow without bound.")
        if needed[0].file_size > PICKLE_BYTES or sum(entry.file_size for entry in needed) > size:
            raise CheckpointUnsafe(f"{path} is no archive of torch.save.")
        order = self._entries.get(f"{self._folder}byteorder")
        if order is not None and (order.file_size > 6 or archive.read(order) != b"little"):
            raise CheckpointCorrupt(f"{path} was written on a machine with another order of bytes.")
        self.names: set[str] = set()
        try:
            self.content, _ = read_pickle(BytesIO(archive.read(needed[0])), names=self.names)
        except DAMAGE as error:  # though its checksum is right
            raise CheckpointUnsafe(
                f"{path} holds a pickle that torch did not write ({str(error)[:100]}).", hint=REMEDY
            ) from None

    def read(self, key: str, length: int) -> Tensor:
        """Raises ``LookupError``, ``ValueError``, ``BadZipFile``: missing, of another size, damaged."""
        entry = self._entries[f"{self._folder}data/{key}"]
        if entry.file_size != length:
            raise ValueError(f"the bytes {key} are {entry.file_size}, not {length}")
        with self._archive.open(entry) as file:
            raw = _read(file, length)
            if file.read(1):  # also compares the checksum
                raise ValueError(f"the bytes {key} go on")
        return raw


class _RowOfPickles:
    """Magic number, layout, machine, content and keys (a pickle each), then the bytes of the storages."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        reader: Any = _Bounded(file, PICKLE_BYTES)
        magic, _ = read_pickle(reader)
        layout, _ = read_pickle(reader)
        if (magic, layout) != (_MAGIC, _LAYOUT):
            raise ValueError("not the first number of such a file")
        machine, _ = read_pickle(reader)
        if machine.get("little_endian") is not True:
            raise ValueError("another order of bytes")
        self.names: set[str] = set()
        self.content, outside = read_pickle(reader, names=self.names)
        keys, _ = read_pickle(reader)
        sizes = {storage.key: storage.kind.itemsize for each in outside if (storage := _storage(each))}
        self._places: dict[str, tuple[int, int]] = {}
        place = file.tell()
        for key in keys:
            if not isinstance(key, str):
                raise ValueError("a key that is no text")
            file.seek(place)
            (count,) = struct.unpack("<q", file.read(8))
            length = count * sizes[key]
            if count < 0 or place + 8 + length > size:
                raise ValueError("the file breaks off")
            self._places[key] = (place + 8, length)
            place += 8 + length

    def read(self, key: str, length: int) -> Tensor:
        """Raises ``LookupError``, ``ValueError`` where there are no such bytes or not as many."""
        place, there = self._places[key]
        if there != length:
            raise ValueError(f"the bytes {key} are {there}, not {length}")
        self._file.seek(place)
        return _read(self._file, length)


class _Bounded:
    """A file of which only so many bytes are read."""

    def __init__(self, file: IO[bytes], left: int) -> None:
        self._file, self._left = file, left

    def read(self, count: int = -1) -> bytes:
        return self._count(self._file.read(self._left if count < 0 else min(count, self._left)))

    def readline(self) -> bytes:
        return self._count(self._file.readline(self._left))

    def _count(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data


def _read(file: IO[bytes], length: int) -> Tensor:
    """(length,) uint8, read piece by piece into the memory where it stays."""
    raw = torch.empty(length, dtype=torch.uint8)
    into, at = memoryview(raw.numpy().data), 0
    while at < length:
        chunk = file.read(min(_CHUNK, length - at))
        if not chunk:
            raise ValueError("the file breaks off")
        into[at : at + len(chunk)] = chunk
        at += len(chunk)
    return raw


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    kind: torch.dtype
    count: int


def _storage(outside: Outside) -> _Storage | None:
    """The storage that a reference means: ("storage", kind, key, device, count); None for other things."""
    match outside.key:
        case ("storage", Name("torch", name), str(key), _, int(count), *view) if not any(view):
            return _Storage(key, _KINDS[name], count) if name in _KINDS and 0 <= count < _MOST else None
    return None


def _tensors(archive: _Archive, path: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    read: dict[_Storage, Tensor] = {}
    visited, waiting = 0, [("", archive.content, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        tensor = _as_tensor(value)
        if tensor is not None:
            found[name] = _build(archive, tensor, read, f"{path}: tensor {name}")
            continue
        inside = _inside(value)
        visited += len(inside) + 1
        if depth >= _DEPTH or visited > ENTRIES or len(name) > _NAME:
            raise CheckpointUnsafe(f"{path} is nested too deeply or has too many entries.")
        named = [(f"{name}.{key}" if name else str(key), entry, depth + 1) for key, entry in inside]
        waiting.extend(entry for entry in reversed(named) if wanted(entry[0]))
    return found


def _inside(value: object) -> list[tuple[Any, Any]]:
    """What of a dictionary or a foreign object can be walked into: entries and attributes."""
    if isinstance(value, Thing):
        states = value.state if isinstance(value.state, tuple) else (value.state,)
        parts = [value.items, *(state for state in states if isinstance(state, dict))]
    else:
        parts = [value] if isinstance(value, dict) else []
    entries = [entry for part in parts for entry in part.items()]
    return [(key, entry) for key, entry in entries if isinstance(entry, dict | Thing)]


def _as_tensor(value: object) -> Thing | None:
    """The call that would make a tensor, where ``value`` is one or a parameter around one."""
    if _is_made(value, _PARAMETERS) and isinstance(value.arguments, tuple) and value.arguments:
        value = value.arguments[0]
    return value if _is_made(value, _TENSORS) else None


def _is_made(value: object, how: tuple[str, ...]) -> TypeGuard[Thing]:
    return isinstance(value, Thing) and any(
        value.is_made_by("torch._utils", f"_rebuild_{what}") for what in how
    )


def _build(archive: _Archive, tensor: Thing, read: dict[_Storage, Tensor], named: str) -> Tensor:
    match tensor.arguments:
        case (Outside() as outside, int(offset), tuple(shape), tuple(stride), *_):
            storage = _storage(outside)
        case _:
            raise CheckpointCorrupt(f"{named} is not written as a tensor.")
    numbers = (offset, *shape, *stride)
    if storage is None or any(type(number) is not int or not 0 <= number < _MOST for number in numbers):
        raise CheckpointUnsafe(f"{named} is not a dense tensor of real numbers.")
    if len(shape) != len(stride) or len(shape) > _DIMENSIONS:
        raise CheckpointCorrupt(f"{named} is not written as a tensor.")
    count, last = 1, offset
    for side, step in zip(shape, stride, strict=True):
        count, last = count * side, last + (side - 1) * step
    if count > storage.count or (count and last >= storage.count):
        raise CheckpointUnsafe(f"{named} is larger than its bytes.")
    if storage not in read:
        read[storage] = archive.read(storage.key, storage.count * storage.kind.itemsize).view(storage.kind)
    if count == 0:
        return torch.empty(shape, dtype=storage.kind)
    return read[storage].as_strided(shape, stride, offset)


# MERGED checkpoints/torch_files.py
# Other people's ``.pth``, ``.safetensors`` and ``.npz`` files as plain tensors; nothing in them is run.
#
# Knows zip archives as ``torch.save`` has written them since 2020, with dense tensors in nested dictionaries.
# All else is refused: older pickles, TorchScript, foreign objects, compressed archives, tensors that
# are larger
# than their bytes. Knows no model and no names. What is refused here because it is more than tensors may be
# for ``extract``, which reads both.


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
            _check_plain_file(entries, path)
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
    _check_plain_file(entries, path)
    pickled = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickled) != 1 or pickled[0].file_size > PICKLE_BYTES or sum(e.file_size for e in entries) > size:
        raise CheckpointUnsafe(f"{path} is no archive of torch.save.", hint=REMEDY)


def _check_plain_file(entries: list[zipfile.ZipInfo], path: Path) -> None:
    if len({entry.filename for entry in entries}) != len(entries):
        raise CheckpointUnsafe(f"{path} holds two entries of one name.", hint=REMEDY)
    if any(
        entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size
        for entry in entries
    ):
        raise CheckpointUnsafe(f"{path} is compressed and could grow without bound.", hint=REMEDY)
