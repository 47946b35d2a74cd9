"""Zip, .npz and safetensors files from elsewhere, read within bounds that do not depend on what they claim."""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from vltrack.core.files import open_limited

TABLE_BYTES = 4 << 20
"""Largest table of contents of a zip: Python makes an object of each entry, a hundred times its bytes."""

_HEADER_BYTES = 16 << 20


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


def read_safetensors(path: Path, limit: int) -> bytes:
    """Read a safetensors file whose header accounts for all of its bytes; a file of holes takes no memory.

    Raises:
        Refused: another kind of file. OSError: as ``open_limited``.
    """
    with open_limited(path, limit) as file:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(8)
        length = int.from_bytes(start, "little")
        try:
            header = json.loads(file.read(length)) if length <= min(size, _HEADER_BYTES) else {}
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            fits = 8 + length + max(ends, default=0) == size
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            fits = False
        if not fits:
            if start[:1] == b"\x80" or start[:2] == b"PK":
                raise Refused("is a pickle or an archive, not a safetensors file; such files can run code", unsafe=True)
            raise Refused("is not a safetensors file, or is cut off")
        file.seek(0)
        return file.read()
