"""Read files of ``torch.save`` and ``pickle`` as plain data with the places of their tensors; run no code in them.

Three layouts are read: the zip archive of ``torch.save`` and TorchScript (whose code is not read), the series
of pickles of before 2020, and a bare pickle. ``unpickle.py`` reads the pickles in a process with a time and a
memory limit; the limits for the rest of the file are here.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vltrack.core import unpickle
from vltrack.core.archives import Refused, check_stored, open_zip, read_member
from vltrack.core.files import open_limited

OBJECTS, SECONDS, MEMORY = 10_000_000, 60, 4 << 30
"""Limits of the process that reads a pickle: values that it hands back, seconds, bytes of address space."""
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, *unpickle.DAMAGE)
"""Exceptions of reading a damaged archive, next to OSError."""
STORAGES = {
    "torch.FloatStorage": ("float32", 4),
    "torch.DoubleStorage": ("float64", 8),
    "torch.HalfStorage": ("float16", 2),
    "torch.BFloat16Storage": ("bfloat16", 2),
    "torch.LongStorage": ("int64", 8),
    "torch.IntStorage": ("int32", 4),
    "torch.ShortStorage": ("int16", 2),
    "torch.CharStorage": ("int8", 1),
    "torch.ByteStorage": ("uint8", 1),
    "torch.BoolStorage": ("bool", 1),
}
"""Name in a pickle -> number type, bytes per number."""
TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_CHUNK = 1 << 20
_MOST = 1 << 62


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """Placeholder for the result of calling ``path``; also for a bare name or a value that is not plain."""

    path: str
    args: list[Any] = field(default_factory=list)
    items: dict[Any, Any] = field(default_factory=dict)
    state: Any = None


@dataclass(frozen=True, slots=True)
class Storage:
    """The numbers that tensors view: key in the file, number type, bytes per number, how many."""

    key: str
    kind: str
    itemsize: int
    count: int


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """A dense tensor: offset, shape and stride, in numbers, within a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class TorchArchive:
    """An open file: the ``content`` of its pickle, the ``names`` in it, the bytes of its storages, and its ``size``."""

    size = 0

    def __init__(self, source: zipfile.ZipFile | IO[bytes], places: dict[str, Any], pickles: _Pickles) -> None:
        self.content, self.names = pickles.values[-2 if len(pickles.values) > 1 else 0], pickles.names
        self._source, self._places = source, places

    def read(self, storage: Storage) -> NDArray[np.uint8]:
        """Return (bytes,) uint8. Raises one of ``DAMAGE``: no such bytes, not as many, a wrong checksum."""
        place, length = self._places[storage.key], storage.count * storage.itemsize
        there = place.file_size if isinstance(place, zipfile.ZipInfo) else place[1]
        if there != length:
            raise ValueError(f"the bytes {storage.key[:40]} are {there}, not {length}")
        if isinstance(self._source, zipfile.ZipFile):
            with self._source.open(place) as file:  # compares the checksum at the end
                return _read(file, length)
        self._source.seek(place[0])
        return _read(self._source, length)


@contextmanager
def open_archive(path: Path, *, limit: int, pickle_bytes: int, table_bytes: int) -> Iterator[TorchArchive]:
    """Open a file of ``torch.save``, TorchScript or ``pickle``.

    Args:
        path: the file.
        limit: upper bound of its bytes.
        pickle_bytes: upper bound of its pickles.
        table_bytes: upper bound of a zip's table of contents.

    Raises:
        Refused: damaged, compressed, over a limit, or written in another byte order.
        OSError: it cannot be read.
    """
    with open_limited(path, limit) as file, ExitStack() as stack:
        size = file.seek(0, 2)
        try:
            if zipfile.is_zipfile(file):
                zipped = stack.enter_context(open_zip(file, table_bytes))
                archive = _open_zip_archive(zipped, size, pickle_bytes)
            else:
                file.seek(0)
                archive = _open_pickles(file, size, pickle_bytes)
        except Refused:
            raise
        except DAMAGE as error:
            raise Refused(f"is damaged ({str(error)[:100]})") from None
        archive.size = size
        yield archive


def tensor_place(value: Made) -> TensorPlace:
    """Return where the tensor lies that one of ``TENSORS`` would have made.

    Raises:
        Refused: not a dense tensor of real numbers, or one that is larger than its storage.
    """
    match value.args:
        case [Storage() as storage, int(offset), [*shape], [*stride], *_]:
            numbers = (offset, *shape, *stride)
        case _:
            numbers = (-1,)
    if any(type(number) is not int or not 0 <= number < _MOST for number in numbers):
        raise Refused("is not a dense tensor of real numbers", unsafe=True)
    if len(shape) != len(stride) or len(shape) > 16:
        raise Refused(f"has {len(shape)} sides and {len(stride)} strides")
    count, last = 1, offset
    for side, step in zip(shape, stride, strict=True):
        count, last = count * side, last + (side - 1) * step
    if count > storage.count or (count and last >= storage.count):
        raise Refused("is larger than its bytes", unsafe=True)
    return TensorPlace(storage, offset, tuple(shape), tuple(stride))


def _open_zip_archive(archive: zipfile.ZipFile, size: int, pickle_bytes: int) -> TorchArchive:
    """``NAME/data.pkl`` and ``NAME/data/KEY``, not compressed."""
    named = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in named if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1 or named[pickles[0]].file_size > pickle_bytes:
        raise Refused("is not an archive of torch.save", unsafe=True)
    folder = pickles[0].removesuffix("data.pkl")
    # Not all entries: the code in an archive of TorchScript, which is not read, is compressed.
    check_stored([e for e in archive.infolist() if e.filename.startswith((pickles[0], f"{folder}data/"))], size)
    order = named.get(f"{folder}byteorder")
    if order is not None and (order.file_size > 6 or read_member(archive, order) != b"little"):
        raise Refused("was written on a machine with another byte order")
    start = f"{folder}data/"
    places = {name.removeprefix(start): entry for name, entry in named.items() if name.startswith(start)}
    return TorchArchive(archive, places, _Pickles(read_member(archive, named[pickles[0]])))


def _open_pickles(file: IO[bytes], size: int, pickle_bytes: int) -> TorchArchive:
    """One pickle; or magic number, layout, machine, content and keys, a pickle each, then the storages."""
    pickles = _Pickles(file.read(pickle_bytes))
    if len(pickles.values) == 1:
        if pickles.end != size:
            raise Refused("holds more than one pickle", names=pickles.names)
        return TorchArchive(file, {}, pickles)
    _, layout, machine, _, keys = pickles.values
    if layout != 1001 or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Refused("has another version of the layout or byte order", names=pickles.names)
    if not isinstance(keys, list) or any(not isinstance(key, str) for key in keys):
        raise Refused("has the key of a storage that is not text", names=pickles.names)
    sizes = {storage.key: storage.itemsize for storage in pickles.storages}
    places: dict[str, tuple[int, int]] = {}
    place = pickles.end
    for key in keys:
        file.seek(place)
        (count,) = struct.unpack("<q", file.read(8))
        length = count * sizes[key]
        if count < 0 or place + 8 + length > size:
            raise Refused("is cut off", names=pickles.names)
        places[key] = (place + 8, length)
        place += 8 + length
    return TorchArchive(file, places, pickles)


class _Pickles:
    """Result of ``unpickle.py``: ``values``, ``names``, ``storages`` and where the pickles ``end``.

    Raises:
        Refused: damaged pickles, or pickles that take too much time or memory, or crash the unpickler.
    """

    def __init__(self, data: bytes) -> None:
        self.storages: list[Storage] = []
        command = [sys.executable, "-I", "-S", unpickle.__file__, *map(str, (OBJECTS, SECONDS + 1, MEMORY))]
        try:
            done = subprocess.run(command, input=data, capture_output=True, timeout=SECONDS, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise Refused(f"takes more than {SECONDS} seconds to unpickle", unsafe=True) from None
        if done.returncode != 0:
            raise Refused(f"crashes the unpickler (exit {done.returncode})", unsafe=True)
        answer = json.loads(done.stdout, object_hook=self._decode)
        self.names = frozenset(answer["names"])
        if answer["error"]:
            reason = answer["error"] if answer["limit"] else f"holds a damaged pickle ({answer['error']})"
            raise Refused(reason, unsafe=answer["limit"], names=self.names)
        self.values, self.end = answer["pickles"], answer["end"]

    def _decode(self, node: dict[str, Any]) -> Any:
        match node:
            case {"dict": pairs}:
                return dict(pairs)
            case {"made": path, "args": args, "items": items, "state": state}:
                return Made(path, args, dict(items), state)
            case {"ref": ["storage", Made(path), str(key), _, int(count), *view]} if not any(view):
                if path in STORAGES and 0 <= count < _MOST:
                    self.storages.append(Storage(key, *STORAGES[path], count))
                    return self.storages[-1]
            case {"name": path} | {"type": path}:
                return Made(path)
        return Made("a reference") if "ref" in node else node


def _read(file: IO[bytes], length: int) -> NDArray[np.uint8]:
    """(length,) uint8, read piece by piece into the memory where it stays."""
    raw = np.empty(length, dtype=np.uint8)
    into, at = memoryview(raw.data), 0
    while at < length:
        chunk = file.read(min(_CHUNK, length - at))
        if not chunk:
            raise ValueError("the file is cut off")
        into[at : at + len(chunk)] = chunk
        at += len(chunk)
    return raw
