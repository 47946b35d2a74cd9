"""Bounded reads of foreign files, atomic writes, checksums, checksummed JSON, and text made safe to print."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import stat
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from vltrack.core.errors import ResourceError, StateError

T = TypeVar("T")

READ_SECONDS, READ_RATE = 60.0, 1 << 20
"""Deadline of all reads of a file together: so many seconds, and one more for each ``READ_RATE`` bytes that came."""
_PIECE = 256 << 20
_LARGEST_HASHED = 1 << 40
_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}


class _Limited(io.FileIO):
    """A regular file with an upper bound of bytes and a deadline."""

    def __init__(self, path: Path, limit: int) -> None:
        _check_regular(os.stat(path).st_mode)  # opening a device or a pipe may have effects
        flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
        super().__init__(path, opener=lambda name, mode: os.open(name, mode | flags))
        self._limit, self._spent = limit, 0.0
        try:
            status = os.fstat(self.fileno())
            _check_regular(status.st_mode)
            self._size = status.st_size
            self._check(self._size)
        except OSError:
            self.close()
            raise

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise OSError(errno.EFBIG, f"it has more than {self._limit:,} bytes")
        if self._spent > READ_SECONDS + self.tell() / READ_RATE:
            raise OSError(errno.ETIMEDOUT, "reading it takes too long")

    def readinto(self, buffer: Any, /) -> int:
        count: int = self._checked(super().readinto, buffer)
        return count

    def readall(self) -> bytes:
        pieces = []
        read, count = super().read, min(_PIECE, max(self._size + 1, 1 << 16))
        while piece := self._checked(read, count):
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _checked(self, read: Callable[[Any], T | None], argument: Any) -> T:
        began = time.monotonic()
        got = read(argument)
        self._spent += time.monotonic() - began
        if got is None:
            raise OSError(errno.EAGAIN, "it gives no data")
        self._check(self.tell())
        return got


def _check_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, f"it is {_KINDS.get(stat.S_IFMT(mode), 'a device')}, not a file")


def open_limited(path: Path, limit: int) -> io.BufferedReader:
    """Open a foreign file for reading: a regular one (links are followed) of at most ``limit`` bytes.

    Raises:
        OSError: here or in a read: it cannot be opened, is a pipe, a socket, a device or a folder, has or grows to
            more bytes, or is slower than the deadline. ``strerror`` is half a sentence.
    """
    return io.BufferedReader(_Limited(path, limit))


def read_limited(path: Path, limit: int) -> bytes:
    """Read a foreign file whole. Raises ``OSError`` as ``open_limited``."""
    with open_limited(path, limit) as file:
        return file.read()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; on success fsync and rename it to ``path``, else remove it.

    A link is followed: the file that it names is replaced.

    Raises:
        ResourceError: the disk is full, the folder is missing or cannot be written; ``path`` is a device.
    """
    temporary: Path | None = None
    handle = -1
    try:
        with suppress(FileNotFoundError):
            _check_regular(os.stat(path).st_mode)
        path = Path(os.path.realpath(path))
        prefix, suffix = f".{path.stem[:40]}.", f".part{path.suffix[:16]}"  # no longer than names may be
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=path.parent)
        temporary = Path(name)
        with suppress(OSError):
            lock_file(handle)
        if os.name != "posix":  # there an open file cannot be renamed
            os.close(handle)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise as_resource_error(error, path) from error
    finally:
        if os.name == "posix" and handle >= 0:
            os.close(handle)
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files that killed writers of ``path`` have left; those of living ones are locked."""
    path = Path(os.path.realpath(path))
    pattern = re.compile(re.escape(f".{path.stem[:40]}.") + r"[a-z0-9_]{8}" + re.escape(f".part{path.suffix[:16]}"))
    for name in filter(pattern.fullmatch, os.listdir(path.parent)):
        with suppress(OSError), (path.parent / name).open("r+b") as file:
            if lock_file(file.fileno()):
                (path.parent / name).unlink()


def lock_file(handle: int) -> bool:
    """Lock an open file until it is closed, or this process ends; False while another process has it locked.

    Raises ``OSError`` on a system without locks.
    """
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError as error:
        raise OSError("no locks on this system") from error
    except BlockingIOError:
        return False
    return True


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; newlines as given. Raises ``ResourceError``."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically. Raises ``ResourceError``."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def cache_folder() -> Path:
    """Folder of files that are made again when they are missing; need not exist.

    ``$VLTRACK_CACHE``, else ``vltrack`` in the user's cache folder: ``$XDG_CACHE_HOME`` or ``~/.cache``, on Windows
    ``%LOCALAPPDATA%``.

    Raises:
        ResourceError: the user has no home folder.
    """
    if own := os.environ.get("VLTRACK_CACHE"):
        return Path(own)
    base = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "vltrack"
    except RuntimeError as error:
        raise ResourceError("No home folder to cache in.", hint="Set VLTRACK_CACHE to a folder.") from error


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes. Raises ``OSError`` as ``open_limited``."""
    with open_limited(path, _LARGEST_HASHED) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal sha256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def as_resource_error(error: OSError, path: Path) -> ResourceError:
    """Translate an error of the operating system while writing ``path`` into one with a reason and a hint."""
    reasons = {
        errno.ENOSPC: ("the disk is full", "Free some space and run the command again."),
        errno.EDQUOT: ("the disk quota is used up", "Free some space and run the command again."),
        errno.EFBIG: ("the file would exceed the size limit", "Raise the limit or write elsewhere."),
        errno.ENOENT: ("its folder does not exist", f"Create {path.parent} first."),
        errno.EACCES: ("permission denied", "Choose a folder that you may write to."),
        errno.EROFS: ("the file system is read-only", "Choose a folder that you may write to."),
    }
    otherwise = (error.strerror or str(error), "Choose another place to write to.")
    if error.errno == errno.ENOENT and path.parent.is_dir():
        reasons[errno.ENOENT] = ("nothing can be created there", "Choose another place to write to.")
    reason, hint = reasons.get(error.errno or 0, otherwise)
    return ResourceError(f"Cannot write {path}: {reason}.", hint=hint)


_LARGEST = 1 << 26
"""Bytes of the largest checksummed file; a larger one was not written here."""


def write_checksummed(path: Path, record: Mapping[str, Any]) -> None:
    """Write ``record`` (JSON values, finite numbers) as canonical JSON with its sha256 as ``seal``.

    The same record gives the same bytes. Raises ``ResourceError``.
    """
    write_text(path, _canonical({**record, "seal": _checksum(record)}))


def read_checksummed(path: Path, kind: str) -> dict[str, Any]:
    """Read what ``write_checksummed`` wrote; ``kind`` is the record's ``format``.

    Raises:
        FileNotFoundError: no such file.
        StateError: the file was changed since it was written, or is of another format.
    """
    hint = "Run the evaluation again with rerun (--rerun), or restore the file."
    try:
        data = read_limited(path, _LARGEST)
        record = json.loads(data)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or record.get("format") != kind or "seal" not in record:
        raise StateError(f"{path} is not a {kind} file.", hint=hint)
    seal = record.pop("seal")
    if seal != _checksum(record) or data != _canonical({**record, "seal": seal}).encode():
        raise StateError(f"{path} was changed after it was written.", hint=hint)
    return record


def _canonical(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _checksum(record: Mapping[str, Any]) -> str:
    return sha256_bytes(_canonical(record).encode())


_OVERRIDES = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str | os.PathLike[str]) -> str:
    """Escape control characters, broken Unicode and direction overrides, for terminals, logs and images.

    An ANSI sequence or a right-to-left override in a text or a file name is shown, not obeyed. HTML and CSV
    need their own quoting besides.
    """
    return "".join(
        _escaped(c) if unicodedata.category(c) in ("Cc", "Cs") or c in _OVERRIDES else c for c in os.fspath(text)
    )


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return number and noun: "1 sequence", "1,300 sequences"; ``plural`` for irregular nouns."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
