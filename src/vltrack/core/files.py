"""Files that are either whole or not there. Knows temporary names, fsync, rename and sha256."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vltrack.core.errors import ResourceError, StateError

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


# MERGED core/files.py
# JSON files that tell when they were changed: canonical text with its own sha256. Knows no content.


_LARGEST = 1 << 26
"""No record is larger than 64 MiB; a file that is was not written here."""


def write_checksummed(path: Path, record: Mapping[str, Any]) -> None:
    """Write ``record`` (what JSON can hold, finite numbers) as canonical text with a key ``seal``.

    The same record gives the same bytes. Raises ``ResourceError``.
    """
    write_text(path, _text({**record, "seal": _seal(record)}))


def read_checksummed(path: Path, kind: str) -> dict[str, Any]:
    """The record of a file that ``write_checksummed`` wrote; ``kind`` is its ``format``.

    Raises:
        FileNotFoundError: no such file.
        StateError: one bit differs from what was written, or it is another kind of file.
    """
    hint = "Run the evaluation again with --rerun, or restore the file."
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    try:
        record = json.loads(data) if len(data) <= _LARGEST else None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or record.get("format") != kind or "seal" not in record:
        raise StateError(f"{path} is no {kind} file.", hint=hint)
    seal = record.pop("seal")
    if seal != _seal(record) or data != _text({**record, "seal": seal}).encode():
        raise StateError(f"{path} was changed after it was written.", hint=hint)
    return record


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _seal(record: Mapping[str, Any]) -> str:
    return sha256_bytes(_text(record).encode())


# MERGED core/files.py
# Text that came from outside, made safe to show, and counts in words. Knows no terminal and no page.


_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str | os.PathLike[str]) -> str:
    """The text with control characters, broken Unicode and direction overrides written as escapes.

    For terminals, logs and pictures: an ANSI sequence or a right-to-left override in a sentence or a file
    name is shown, not obeyed. Everything else stays as it is; pages and CSV need their own quoting besides.
    """
    return "".join(
        _escaped(c) if unicodedata.category(c) in ("Cc", "Cs") or c in _TURNING else c
        for c in os.fspath(text)
    )


def counted(number: int, noun: str, plural: str = "") -> str:
    """The number with its noun: "1 sequence", "1,300 sequences"; ``plural`` where an "s" does not make it."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
