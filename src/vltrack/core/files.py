"""Files that are either whole or not there. Knows temporary names, fsync, rename and sha256."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vltrack.core.errors import ResourceError

ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)
"""What reading a zip raises where it is damaged, encrypted, or packed in a way that is not known."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success fsync it and rename it to ``path``, else remove it.

    Raises:
        ResourceError: the disk is full, the folder is missing or cannot be written.
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem[:40]}.", suffix=f".part{path.suffix}", dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise as_resource_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; newlines as given. Raises ``ResourceError``."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically. Raises ``ResourceError``."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal sha256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def as_resource_error(error: OSError, path: Path) -> ResourceError:
    """The sentence that a user understands for an operating system error while writing ``path``."""
    reasons = {
        errno.ENOSPC: ("the disk is full", "Free some space and run the command again."),
        errno.EDQUOT: ("the disk quota is used up", "Free some space and run the command again."),
        errno.EFBIG: ("the file would exceed the size limit", "Raise the limit or write elsewhere."),
        errno.ENOENT: ("its folder does not exist", f"Create {path.parent} first."),
        errno.EACCES: ("permission denied", "Choose a folder that you may write to."),
        errno.EROFS: ("the file system is read-only", "Choose a folder that you may write to."),
    }
    otherwise = (error.strerror or str(error), "Choose another place to write to.")
    reason, hint = reasons.get(error.errno or 0, otherwise)
    return ResourceError(f"cannot write {path}: {reason}.", hint=hint)
