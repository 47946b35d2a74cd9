"""Who works on what: locks that the system takes back from a process that dies. Knows files of locks only.

Several evaluators may share one folder. Each holds a shared lock on the folder while it is at work, and an
exclusive one on every sequence that it has in hand. The files lie in ``claims/`` and go with the last.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from vltrack.core.files import as_resource_error

_FOLDER = ".folder.lock"
"""No sequence's name begins with a dot."""


class Claim:
    """A held lock on one sequence; ``release`` removes its file."""

    def __init__(self, handle: int, path: Path) -> None:
        self._handle, self._path = handle, path

    def release(self) -> None:
        """Let go. The file is removed first, while nobody else can hold it."""
        self._path.unlink(missing_ok=True)
        os.close(self._handle)


class FolderLock:
    """The lock on a whole folder of results."""

    def __init__(self, folder: Path) -> None:
        self._claims = folder / "claims"
        self._handle: int | None = None

    def alone(self) -> bool:
        """Take the folder for this process alone, if nobody else is at work. Raises ``ResourceError``."""
        if self._handle is not None:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True
        self._handle = _locked(self._claims / _FOLDER, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self._handle is not None

    def share(self) -> None:
        """Be at work beside others; waits while one is alone. Raises ``ResourceError``."""
        path = self._claims / _FOLDER
        if self._handle is not None:
            # From one kind to the other is no single act: who came between may have removed the file.
            fcntl.flock(self._handle, fcntl.LOCK_SH)
            if _is_at(self._handle, path):
                return
            self.close()
        self._handle = _locked(path, fcntl.LOCK_SH)

    def claim(self, name: str) -> Claim | None:
        """The lock on a sequence, None while another evaluator has it. Raises ``ResourceError``."""
        path = self._claims / f"{name}.lock"
        handle = _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None if handle is None else Claim(handle, path)

    def remove(self) -> None:
        """Remove all files of locks; only for who is ``alone``."""
        for path in (*self._claims.glob("*.lock"), self._claims / _FOLDER):
            path.unlink(missing_ok=True)
        try:
            self._claims.rmdir()
        except OSError:
            return  # another evaluator has just come

    def close(self) -> None:
        """Let go of the folder."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _locked(path: Path, how: int) -> int | None:
    """A descriptor that holds the lock on the file that has this name now; None if somebody else holds it.

    Raises:
        ResourceError: the file cannot be made, or the file system knows no locks.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # claims/ went with another evaluator between the two lines
        except OSError as error:
            raise as_resource_error(error, path) from error
        try:
            fcntl.flock(handle, how)
            if _is_at(handle, path):
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError as error:
            os.close(handle)
            raise as_resource_error(error, path) from error
        os.close(handle)  # the file was removed while we waited for it: take the new one


def _is_at(handle: int, path: Path) -> bool:
    """Whether this open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
