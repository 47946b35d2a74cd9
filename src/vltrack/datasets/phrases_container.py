"""Files of ``pickle`` and ``torch.save`` that hold plain data: opened without running or importing anything.

Knows three layouts: one pickle, the archive of torch since 1.6, and torch's row of pickles from before. The
pickles are read by ``core.inert``, which carries out only the instructions that make plain data. A file that
names a class or a function is refused, but for the few names by which torch writes dense tensors.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.inert import DAMAGE, Name, Outside, Thing, read_pickle

MAX_BYTES = 256 << 20
MAX_STEPS = 20_000_000
_TABLE_BYTES = 16 << 20
_KINDS = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
}
_REBUILD = ("_rebuild_tensor_v2", "_rebuild_tensor")
_PLAIN = frozenset(
    (
        "collections.OrderedDict",
        *(f"torch.{kind}" for kind in _KINDS),
        *(f"torch._utils.{how}" for how in _REBUILD),
    )
)
# The first number of torch's files from before 1.6, and the version of their layout.
_MAGIC, _LAYOUT = 0x1950A86A20F9469CFC6C, 1001
_DAMAGE = (zipfile.BadZipFile, *DAMAGE)
_RawBytes = Callable[[str, int], bytes]


class Opened:
    """What such a file holds: ``content``, plain data with a mark for each tensor."""

    def __init__(self, content: Any, raw: _RawBytes) -> None:
        self.content = content
        self._raw = raw
        self._read: dict[str, NDArray[Any]] = {}

    def four_numbers(self, value: object) -> object:
        """The numbers of a tensor of four as a list; anything else as it came.

        Raises:
            ValueError: a tensor of another shape or without its bytes.
        """
        if not isinstance(value, Thing):
            return value
        match value.arguments:
            case (Outside() as outside, int(offset), (4,), (int(step),), *_) if _is_tensor(value):
                kind, key, count = _storage(outside)
            case _:
                raise ValueError("not a tensor of four numbers")
        if min(offset, step) < 0 or offset + 3 * step >= count:
            raise ValueError("a tensor larger than its bytes")
        if key not in self._read:
            try:
                self._read[key] = np.frombuffer(self._raw(key, count * kind.itemsize), dtype=kind)
            except _DAMAGE as error:  # such as the archive's entry
                raise ValueError(f"a tensor whose bytes are damaged ({str(error)[:80]})") from None
        return [float(self._read[key][offset + k * step]) for k in range(4)]


def open_plain(path: Path, *, max_bytes: int = MAX_BYTES, max_steps: int = MAX_STEPS) -> Opened:
    """Read the file. Nothing that it names is looked up, imported or called.

    Raises:
        DataError: no such file, larger than ``max_bytes``, more than ``max_steps`` instructions, damaged, or
            one that names more than plain data and tensors are written with.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise DataError(f"{path} has {size} bytes, more than the limit of {max_bytes}.")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.", hint="Check the path.") from error
    names: set[str] = set()
    try:
        opened = (_archive if data.startswith(b"PK\x03\x04") else _pickles)(data, names, max_steps)
    except _DAMAGE as error:
        _refuse_names(path, names)
        raise DataError(
            f"{path} is no file of pickle or torch.save that can be read ({str(error)[:120]}).",
            hint="Fetch it again.",
        ) from None
    _refuse_names(path, names)
    return opened


def _refuse_names(path: Path, names: set[str]) -> None:
    more = sorted(names - _PLAIN)
    if more:
        raise DataError(
            f"{path} holds more than plain data and could run code if it were unpickled "
            f"(it names {more[0][:80]}).",
            hint="Nothing of it was run. Fetch the file from its authors.",
        )


def _archive(data: bytes, names: set[str], max_steps: int) -> Opened:
    """``NAME/data.pkl`` and ``NAME/data/KEY``, not compressed."""
    file = _Guarded(data)
    archive = zipfile.ZipFile(file)
    file.most = None
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1 or len(entries) != len(archive.infolist()):
        raise ValueError("an archive that torch did not write")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise ValueError("a compressed archive")
    if sum(entry.file_size for entry in entries.values()) > len(data):
        raise ValueError("an archive of entries that overlap")
    folder = pickles[0].removesuffix("data.pkl")
    order = entries.get(f"{folder}byteorder")
    if order is not None and (order.file_size > 6 or archive.read(order) != b"little"):
        raise ValueError("another order of bytes")
    content, _ = read_pickle(BytesIO(archive.read(pickles[0])), max_steps=max_steps, names=names)

    def raw(key: str, length: int) -> bytes:
        entry = entries[f"{folder}data/{key}"]
        if entry.file_size != length:
            raise ValueError("a tensor whose bytes are not as many as it says")
        return archive.read(entry)

    return Opened(content, raw)


def _pickles(data: bytes, names: set[str], max_steps: int) -> Opened:
    """One pickle; or magic number, layout, machine, content and keys, a pickle each, then the bytes."""
    file = BytesIO(data)
    content, _ = read_pickle(file, max_steps=max_steps, names=names)
    if type(content) is not int or content != _MAGIC:
        if file.tell() != len(data):
            raise ValueError("more than one pickle")
        return Opened(content, _no_bytes)
    layout, _ = read_pickle(file, max_steps=100, names=names)
    machine, _ = read_pickle(file, max_steps=100, names=names)
    if type(layout) is not int or layout != _LAYOUT or machine.get("little_endian") is not True:
        raise ValueError("another version of the layout or order of bytes")
    content, outside = read_pickle(file, max_steps=max_steps, names=names)
    keys, _ = read_pickle(file, max_steps=max_steps, names=names)
    sizes = {key: kind.itemsize for kind, key, _ in map(_storage, outside)}
    places: dict[str, tuple[int, int]] = {}
    place = file.tell()
    for key in keys:
        if not isinstance(key, str):
            raise TypeError("a key that is no text")
        (count,) = struct.unpack_from("<q", data, place)
        length = count * sizes[key]
        if count < 0 or place + 8 + length > len(data):
            raise ValueError("it breaks off")
        places[key] = (place + 8, length)
        place += 8 + length

    def raw(key: str, length: int) -> bytes:
        start, there = places[key]
        if there != length:
            raise ValueError("a tensor whose bytes are not as many as it says")
        return data[start : start + length]

    return Opened(content, raw)


class _Guarded(BytesIO):
    """Bytes of which no more than ``most`` are given at once: an archive's table of contents is read so."""

    most: int | None = _TABLE_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        if self.most is not None and size is not None and size > self.most:
            raise ValueError("an archive of too many entries")
        return super().read(size)


def _no_bytes(key: str, length: int) -> bytes:
    raise LookupError("a tensor without its bytes")


def _is_tensor(value: Thing) -> bool:
    return any(value.is_made_by("torch._utils", how) for how in _REBUILD)


def _storage(outside: Outside) -> tuple[np.dtype[Any], str, int]:
    """Number type, key and count of ("storage", kind, key, device, count). Raises ``ValueError``."""
    match outside.key:
        case ("storage", Name("torch", name), str(key), _, int(count), *view) if not any(view):
            if name in _KINDS and 0 <= count < 1 << 40:
                return np.dtype(_KINDS[name]), key, count
    raise ValueError("a tensor that is not dense numbers")
