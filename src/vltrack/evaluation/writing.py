"""Writing a folder of results: whole files, the record last. Knows ``store``'s files; knows no process."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vltrack.core.errors import DataError, StateError
from vltrack.core.files import (
    as_resource_error,
    read_checksummed,
    sha256_bytes,
    write_bytes,
    write_checksummed,
)
from vltrack.core.types import Status
from vltrack.evaluation.plan import differences
from vltrack.evaluation.results import (
    DONE,
    FAILED,
    RUN,
    SUFFIXES,
    file_of,
    is_finished,
    lines_of,
    read_boxes,
    read_scores,
    times_seal,
)
from vltrack.evaluation.workers import Row, SequenceFailure, Task

# MERGED evaluation/writing.py
# Who works on what: locks that the system takes back from a process that dies. Knows files of locks only.
#
# Several evaluators may share one folder. Each holds a shared lock on the folder while it is at work, and an
# exclusive one on every sequence that it has in hand. The files lie in ``claims/`` and go with the last.


_FOLDER = ".folder.lock"
"""No sequence's name begins with a dot."""


class SequenceLock:
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

    def claim(self, name: str) -> SequenceLock | None:
        """The lock on a sequence, None while another evaluator has it. Raises ``ResourceError``."""
        path = self._claims / f"{name}.lock"
        handle = _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None if handle is None else SequenceLock(handle, path)

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


VERSION = 1
_HALF_WRITTEN = re.compile(r"\..*\.part(\.\w+)?")


class ResultWriter:
    """A folder of results that is open for writing; made by ``opened``."""

    def __init__(self, folder: Path, lock: FolderLock) -> None:
        self.folder = folder
        self._lock = lock

    def finished(self, name: str) -> bool:
        """Whether a sequence has a whole result."""
        return is_finished(self.folder, name)

    def claim(self, name: str) -> SequenceLock | None:
        """The right to work on a sequence, None while another evaluator has it."""
        return self._lock.claim(name)

    def keep(self, task: Task, rows: list[Row]) -> dict[str, Any]:
        """Write the result of a sequence and return its record.

        Raises:
            DataError: a row is no box or no score, or there are not as many as frames; nothing is written.
            ResourceError: the disk is full or refuses; the sequence does not count as finished.
        """
        name = task.sequence.name
        if len(rows) != len(task.sequence) or not rows:
            raise DataError(f"{name} has {len(task.sequence)} frames, {len(rows)} were read.")
        boxes = lines_of([row[:4] for row in rows])
        scores = lines_of([(row[4], int(row[5])) for row in rows])
        times = lines_of([row[7:] for row in rows])
        files = {"boxes": boxes, "scores": scores, "times": times + f"{times_seal(times)}\n".encode()}
        read_boxes(boxes, Path(name), len(rows))
        read_scores(scores, Path(name), len(rows))
        counts = Counter(row[6] for row in rows)
        record = {
            "format": DONE,
            "version": VERSION,
            "name": name,
            "named": task.named,
            "rows": len(rows),
            "statuses": {str(status): counts[status] for status in Status},
            "sha256": {kind: sha256_bytes(files[kind]) for kind in ("boxes", "scores")},
        }
        for kind, data in files.items():
            write_bytes(file_of(self.folder, kind, name), data)
        write_checksummed(file_of(self.folder, "done", name), record)
        file_of(self.folder, "failures", name).unlink(missing_ok=True)
        return record

    def fail(self, failure: SequenceFailure) -> None:
        """Tell why a sequence has no result; an earlier one of it goes. Raises ``ResourceError``."""
        for kind in ("done", "boxes", "scores", "times"):
            file_of(self.folder, kind, failure.name).unlink(missing_ok=True)
        record = {"format": FAILED, "version": VERSION, **asdict(failure)}
        write_checksummed(file_of(self.folder, "failures", failure.name), record)

    def failure_stamp(self, name: str) -> int:
        """When the failure of a sequence was recorded (nanoseconds), 0 if it was not."""
        path = file_of(self.folder, "failures", name)
        return path.stat().st_mtime_ns if path.is_file() else 0

    def failure(self, name: str) -> SequenceFailure:
        """The recorded failure. Raises ``StateError`` if the record was changed."""
        record = read_checksummed(file_of(self.folder, "failures", name), FAILED)
        return SequenceFailure(**{k: v for k, v in record.items() if k not in ("format", "version")})


@contextmanager
def opened(folder: Path, run: Mapping[str, Any], *, rerun: bool) -> Iterator[ResultWriter]:
    """A folder to write into, after it was seen that what lies in it belongs to the same run.

    ``run`` is the content of ``run.json`` (``tracker, fingerprint, sequences, left_out``). With ``rerun`` all
    that is in the folder goes first.

    Raises:
        StateError: the folder holds results of another fingerprint (names what differs) or of something else;
            or ``rerun`` while another evaluator is at work there.
        ResourceError: the folder cannot be made or written.
    """
    record = {"format": RUN, "version": VERSION, **run}
    lock = FolderLock(folder)
    try:
        alone = lock.alone()
        if rerun and not alone:
            raise StateError(
                f"another evaluation is at work in {folder}.", hint="Wait for it, or choose another --out."
            )
        if alone:
            _prepare(folder, record, rerun=rerun)
        lock.share()
        _check_same(folder, record)
        yield ResultWriter(folder, lock)
    finally:
        if lock.alone():
            _sweep(folder)
            lock.remove()
        lock.close()


def _prepare(folder: Path, record: Mapping[str, Any], *, rerun: bool) -> None:
    """Make the folder what it shall be, while nobody else is in it."""
    try:
        if rerun:
            # The record goes first: what is left of a broken removal is nobody's result.
            for name in ("run.json", "scores.json"):
                (folder / name).unlink(missing_ok=True)
            for kind in SUFFIXES:
                shutil.rmtree(folder / kind, ignore_errors=True)
        _sweep(folder)
        if not (folder / "run.json").is_file():
            foreign = [str(p.relative_to(folder)) for k in SUFFIXES for p in (folder / k).glob("*")]
            if foreign:
                raise StateError(
                    f"{folder} holds results without run.json ({foreign[0]}).",
                    hint="Choose another --out, or start afresh with --rerun.",
                )
            write_checksummed(folder / "run.json", record)
        for kind in SUFFIXES:
            (folder / kind).mkdir(exist_ok=True)
    except OSError as error:
        raise as_resource_error(error, folder) from error


def _check_same(folder: Path, record: Mapping[str, Any]) -> None:
    """That the folder is of the same run. Raises ``StateError`` that names what differs (E05)."""
    try:
        there = read_checksummed(folder / "run.json", RUN)
    except OSError as error:
        raise as_resource_error(error, folder / "run.json") from error
    parts = ("fingerprint", "tracker", "sequences", "left_out")
    found = [d for part in parts for d in differences(there.get(part), record[part], part)]
    if found:
        said = "; ".join(d.removeprefix("fingerprint.") for d in found[:6])
        more = f" and {len(found) - 6} more" if len(found) > 6 else ""
        raise StateError(
            f"{folder} holds results of another run: {said}{more}.",
            hint="Choose another --out, or start afresh with --rerun.",
        )


def _sweep(folder: Path) -> None:
    """Remove what killed runs left half written, and failures of what has a result since; only while nobody
    else is at work.
    """
    for place in (folder, *(folder / kind for kind in SUFFIXES)):
        if place.is_dir():
            for path in place.iterdir():
                if _HALF_WRITTEN.fullmatch(path.name):
                    path.unlink(missing_ok=True)
    for failure in (folder / "failures").glob("*.json"):
        if (folder / "done" / failure.name).is_file():  # killed between the two lines at the end of ``keep``
            failure.unlink(missing_ok=True)
