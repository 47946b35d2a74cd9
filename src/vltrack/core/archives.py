"""Zip, .npz and safetensors files from elsewhere, read within bounds that do not depend on what they claim."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from vltrack.core.files import open_limited

TABLE_BYTES = 4 << 20
"""Largest table of contents of a zip: Python makes an object of each entry, a hundred times its bytes."""

_HEADER_BYTES, _CHUNK, _MOST = 16 << 20, 1 << 20, 1 << 60


class Refused(ValueError):
    """A file that is not read. The message is a predicate: ``is compressed``.

    Attributes:
        unsafe: the file is not merely damaged: it would grow, take for ever, or hides its size.
        names: what its pickles name, such as ``os.system``, as far as they were read.
    """

    def __init__(self, reason: str, *, unsafe: bool = False, names: frozenset[str] = frozenset()) -> None:
        super().__init__(reason)
        self.unsafe, self.names = unsafe, names


ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, Refused)
"""Exceptions of reading a zip file that is damaged, encrypted, compressed by an unknown method, or a bomb."""


@contextmanager
def open_zip(file: IO[bytes], table_bytes: int = TABLE_BYTES) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive with a table of contents of at most ``table_bytes``, which Python reads at once.

    Raises:
        Refused: a larger table. zipfile.BadZipFile, OSError: not an archive; it cannot be read.
    """
    guard: Any = _Guard(file, table_bytes)
    with zipfile.ZipFile(guard) as archive:
        guard.most = None
        yield archive


class _Guard:
    """A file that refuses to give more than ``most`` bytes at once."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self.most: int | None = most
        self._file = file

    def read(self, count: int = -1) -> bytes:
        if self.most is not None and count > self.most:
            raise Refused("has too many entries", unsafe=True)
        return self._file.read(count)


def read_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Read an entry, whose ``file_size`` the caller has checked. Raises one of ``ZIP_DAMAGE``."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused("is compressed by a method that can grow without bound", unsafe=True)
    with archive.open(entry) as file:
        # Without a count Python unpacks all there is before it looks at the size.
        return file.read(entry.file_size)


def check_stored(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Raise ``Refused`` for entries of a zip that are compressed, overlap, or have the name of another."""
    if len({entry.filename for entry in entries}) != len(entries):
        raise Refused("holds two entries of one name", unsafe=True)
    if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries):
        raise Refused("is compressed and could grow without bound", unsafe=True)
    if sum(entry.file_size for entry in entries) > size:
        raise Refused("holds entries that overlap", unsafe=True)


def read_npz(path: Path, limit: int, *, packed: bool = True) -> dict[str, NDArray[Any]]:
    """Read the arrays of ``numpy.savez``: numbers, truth values and text; not ``numpy``'s objects.

    Args:
        path: the file.
        limit: upper bound of its bytes, and of those of its arrays.
        packed: accept ``numpy.savez_compressed`` as well.

    Raises:
        Refused, zipfile.BadZipFile, zlib.error, OSError: over a bound, damaged, or another kind of file.
    """
    with open_limited(path, limit) as file, open_zip(file) as archive:
        entries = archive.infolist()
        if packed and (total := sum(entry.file_size for entry in entries)) > limit:
            raise Refused(f"unpacks to {total:,} bytes", unsafe=True)
        if not packed:
            check_stored(entries, file.seek(0, 2))
        return {
            (name := entry.filename.removesuffix(".npy")): _array(read_member(archive, entry), name)
            for entry in entries
        }


def _array(data: bytes, name: str) -> NDArray[Any]:
    file = BytesIO(data)
    try:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, columns, kind = read_header(file)
    except (ValueError, TypeError, LookupError, RuntimeError, MemoryError, SyntaxError, TokenError) as error:
        raise Refused(f"has array {name} without a valid header ({str(error)[:80]})") from None
    if version not in ((1, 0), (2, 0)):
        raise Refused(f"has array {name} of the unknown version {version}")
    if kind.hasobject or kind.kind not in "fiubU" or kind.itemsize == 0 or (kind.kind != "U" and kind.itemsize > 8):
        raise Refused(f"has array {name} of {kind}, not of numbers or text", unsafe=True)
    if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != len(data) - file.tell():
        raise Refused(f"has array {name} that is not as long as its header says")
    flat = np.frombuffer(data, dtype=kind, offset=file.tell()).astype(kind.newbyteorder("="), copy=False)
    return flat.reshape(shape, order="F" if columns else "C").copy(order="C")


KINDS = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "C64": 8,
    "BOOL": 1,
    **{f"{sign}{8 * size}": size for sign in "IU" for size in (1, 2, 4, 8)},
}
"""Number types of safetensors files -> bytes of a number."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of a safetensors file: a key of ``KINDS``, its shape, and where its bytes begin and end."""

    kind: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Safetensors:
    """An open safetensors file: its ``entries`` by name, in the order of their bytes, and its ``digest`` so far.

    Tensors are read into memory of the caller's, one at a time. The file is not mapped: where it is cut while it
    is read, that is an error and not a signal that ends the process, and the numbers stay what was checked.
    """

    def __init__(self, file: BufferedReader) -> None:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(8)
        length = int.from_bytes(start, "little")
        text = file.read(length) if length <= min(size, _HEADER_BYTES) else b""
        try:
            header = {name: value for name, value in json.loads(text).items() if name != "__metadata__"}
            found = {name: _entry(value, 8 + length) for name, value in header.items()}
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            found = None
        self.entries = dict(sorted((found or {}).items(), key=lambda item: (item[1].begin, item[1].end)))
        at = 8 + length
        for entry in self.entries.values():
            at = entry.end if entry.begin == at else -1
        if found is None or at != size:
            if start[:1] == b"\x80" or start[:2] == b"PK":
                raise Refused("is a pickle or an archive, not a safetensors file; such files can run code", unsafe=True)
            raise Refused("is not a safetensors file, or is cut off")
        self._file, self.digest = file, hashlib.sha256(start + text)

    def seek(self, entry: Entry) -> None:
        """Go to the bytes of a tensor; then ``digest`` does not cover the whole file."""
        self._file.seek(entry.begin)

    def read(self, into: memoryview) -> None:
        """Read the next bytes, the first tensor's at the beginning, and add them to ``digest``.

        Raises ``Refused``: there are fewer. ``OSError`` as ``open_limited``.
        """
        for at in range(0, len(into), _CHUNK):
            piece = into[at : at + _CHUNK]
            if self._file.readinto(piece) != len(piece):
                raise Refused("is not a safetensors file, or is cut off")
            self.digest.update(piece)

    def sha256(self) -> str:
        """Return the file's sha256, after what is left of it."""
        while piece := self._file.read(_CHUNK):
            self.digest.update(piece)
        return self.digest.hexdigest()


def _entry(value: Any, start: int) -> Entry:
    kind, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
    if any(type(number) is not int or not 0 <= number < _MOST for number in (*shape, begin, end)):
        raise ValueError("not a number")
    # As if no side were 0: torch computes the strides so.
    if len(shape) > 64 or math.prod(max(side, 1) for side in shape) >= _MOST:
        raise ValueError("too large")
    if math.prod(shape) * KINDS[kind] != end - begin:
        raise ValueError("another length than its shape has")
    return Entry(kind, tuple(shape), start + begin, start + end)


@contextmanager
def open_safetensors(path: Path, limit: int) -> Iterator[Safetensors]:
    """Open a safetensors file whose header accounts for all of its bytes; one of holes takes no memory.

    Raises:
        Refused: another kind of file. OSError: as ``open_limited``.
    """
    with open_limited(path, limit) as file:
        yield Safetensors(file)
