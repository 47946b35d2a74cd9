"""Write a folder of results: complete files only, the record of a sequence last; locks between evaluators.

Several evaluators may share one folder. Each holds a lock file of its own while it is at work, and one for
every sequence that it runs; the operating system releases the locks of a process that is killed. The files
lie in ``claims/`` and are removed by the last evaluator that leaves.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vltrack.core.errors import DataError, ResourceError, StateError
from vltrack.core.files import as_resource_error, read_checksummed, sha256_bytes, write_bytes, write_checksummed
from vltrack.core.types import Status
from vltrack.evaluation.plan import differences
from vltrack.evaluation.results import (
    DONE,
    FAILED,
    RUN,
    RUN_FILE,
    SUFFIXES,
    file_of,
    lines_of,
    read_boxes,
    read_scores,
    with_checksum,
)
from vltrack.evaluation.workers import Row, SequenceFailure, Task

VERSION = 1
_TRIES = 100
_ANOTHER = "Choose another folder (--out), or start over with rerun (--rerun)."


@contextmanager
def open_writer(folder: Path, run: Mapping[str, Any], *, rerun: bool) -> Iterator[ResultWriter]:
    """Open a folder of results for writing, after checking that its contents belong to the same run.

    Args:
        folder: made if it does not exist.
        run: content of ``run.json`` (``tracker, fingerprint, sequences, left_out``).
        rerun: remove everything that is in the folder first.

    Raises:
        StateError: the folder holds results of another fingerprint (what differs is listed) or of something
            else; or ``rerun`` while another evaluator is at work there.
        ResourceError: the folder cannot be made or written, or it or the lock is removed meanwhile.
    """
    record = {"format": RUN, "version": VERSION, **run}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise as_resource_error(error, Path(error.filename or folder)) from error
    locks = FolderLocks(folder)
    try:
        with locks.exclusive() as alone:
            if alone:
                _prepare(folder, record, rerun=rerun)
            elif rerun:
                raise StateError(
                    f"Another evaluation is at work in {folder}.", hint="Wait for it, or choose another folder (--out)."
                )
            locks.enter()
        _check_same(folder, record)
        yield ResultWriter(folder, locks)
    finally:
        if folder.is_dir():
            with locks.exclusive() as alone:
                if alone:
                    remove_partial_files(folder)
                locks.leave(last=alone)


class ResultWriter:
    """A folder of results that is open for writing; made by ``open_writer``."""

    def __init__(self, folder: Path, locks: FolderLocks) -> None:
        self.folder = folder
        self._locks = locks

    def lock(self, name: str) -> FileLock | None:
        """Lock a sequence; None while another evaluator holds it. Raises ``ResourceError``."""
        return self._locks.lock(name)

    def keep(self, task: Task, rows: list[Row]) -> None:
        """Write the result of a sequence.

        Raises:
            DataError: a row is not a box or not a score, or rows and frames differ in number; nothing is
                written.
            ResourceError: the disk is full or refuses; the sequence does not count as finished.
        """
        self._locks.check()
        name = task.sequence.name
        if len(rows) != len(task.sequence) or not rows:
            raise DataError(f"{name} has {len(task.sequence)} frames, {len(rows)} were read.")
        files = {
            "boxes": lines_of([row[:4] for row in rows]),
            "scores": lines_of([(row[4], int(row[5])) for row in rows]),
            "times": with_checksum(lines_of([row[7:] for row in rows])),
        }
        read_boxes(files["boxes"], Path(name), len(rows))
        read_scores(files["scores"], Path(name), len(rows))
        counts = Counter(row[6] for row in rows)
        for kind, data in files.items():
            write_bytes(file_of(self.folder, kind, name), data)
        record = {
            "format": DONE,
            "version": VERSION,
            "name": name,
            "named": task.prompt_kind,
            "rows": len(rows),
            "statuses": {str(status): counts[status] for status in Status if status is not Status.WAITING},
            "sha256": {kind: sha256_bytes(files[kind]) for kind in ("boxes", "scores")},
        }
        write_checksummed(file_of(self.folder, "done", name), record)
        file_of(self.folder, "failures", name).unlink(missing_ok=True)

    def fail(self, failure: SequenceFailure) -> None:
        """Record why a sequence has no result; an earlier result is removed. Raises ``ResourceError``."""
        for kind in ("done", "boxes", "scores", "times"):
            file_of(self.folder, kind, failure.name).unlink(missing_ok=True)
        record = {"format": FAILED, "version": VERSION, **asdict(failure)}
        write_checksummed(file_of(self.folder, "failures", failure.name), record)

    def failure_time(self, name: str) -> int:
        """When the failure of a sequence was recorded (nanoseconds), 0 if it was not."""
        path = file_of(self.folder, "failures", name)
        return path.stat().st_mtime_ns if path.is_file() else 0

    def failure(self, name: str) -> SequenceFailure:
        """Read the recorded failure of a sequence. Raises ``StateError`` if the record was changed."""
        record = read_checksummed(file_of(self.folder, "failures", name), FAILED)
        return SequenceFailure(**{k: v for k, v in record.items() if k not in ("format", "version")})


def _prepare(folder: Path, record: Mapping[str, Any], *, rerun: bool) -> None:
    """Make the folder and its ``run.json``, while no other evaluator is at work."""
    try:
        if rerun:
            # The record first: what a broken removal leaves behind must not pass for a result.
            for name in (RUN_FILE, "scores.json"):
                (folder / name).unlink(missing_ok=True)
            for kind in SUFFIXES:
                shutil.rmtree(folder / kind, ignore_errors=True)
        remove_partial_files(folder)
        if not (folder / RUN_FILE).is_file():
            foreign = [str(p.relative_to(folder)) for k in SUFFIXES for p in (folder / k).glob("*")]
            if foreign:
                raise StateError(f"{folder} holds results without run.json ({foreign[0]}).", hint=_ANOTHER)
            write_checksummed(folder / RUN_FILE, record)
        for kind in SUFFIXES:
            (folder / kind).mkdir(exist_ok=True)
    except OSError as error:
        raise as_resource_error(error, folder) from error


def _check_same(folder: Path, record: Mapping[str, Any]) -> None:
    """Raise ``StateError`` if the folder is of another run, with what differs (fault E05, docs/faults.md)."""
    try:
        there = read_checksummed(folder / RUN_FILE, RUN)
    except OSError as error:
        raise as_resource_error(error, folder / RUN_FILE) from error
    parts = ("fingerprint", "tracker", "sequences", "left_out")
    found = [d for part in parts for d in differences(there.get(part), record[part], part)]
    if found:
        shown = "; ".join(d.removeprefix("fingerprint.") for d in found[:6])
        more = f" and {len(found) - 6} more" if len(found) > 6 else ""
        raise StateError(f"{folder} holds results of another run: {shown}{more}.", hint=_ANOTHER)


def remove_partial_files(folder: Path) -> None:
    """Remove half-written files of killed runs, and failures of sequences that have a result.

    Only while no other evaluator is at work.
    """
    for place in (folder, *(folder / kind for kind in SUFFIXES)):
        if place.is_dir():
            for path in place.iterdir():
                if re.fullmatch(r"\..*\.part(\.\w+)?", path.name):
                    path.unlink(missing_ok=True)
    for failure in (folder / "failures").glob("*.json"):
        if (folder / "done" / failure.name).is_file():  # killed between the last two lines of ``keep``
            failure.unlink(missing_ok=True)


# -- locks --------------------------------------------------------------------------------------------------


def release(lock: FileLock) -> None:
    """Release a lock. Its file is removed first, while no other process can hold it."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


class FolderLocks:
    """The locks of one evaluator in a folder of results. No name of a sequence begins with a dot."""

    def __init__(self, folder: Path) -> None:
        self._place = folder / "claims"
        self._own = self._place / f".evaluator-{os.getpid()}-{secrets.token_hex(4)}.lock"
        self._presence: FileLock | None = None

    @contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Let no other evaluator enter or leave; yields whether none is at work. Raises ``ResourceError``."""
        lock = self._acquire(self._place / ".folder.lock", blocking=True)
        try:
            yield self._alone()
        finally:
            if lock is not None:
                release(lock)
                with suppress(OSError):  # others are at work, or one has just come
                    self._place.rmdir()

    def enter(self) -> None:
        """Be at work next to others; only while ``exclusive``. Raises ``ResourceError``."""
        self._presence = self._acquire(self._own)

    def leave(self, *, last: bool) -> None:
        """Stop being at work; the last one removes files of killed evaluators. Only while ``exclusive``."""
        if self._presence is not None:
            release(self._presence)
        if last:
            for path in self._place.glob("*.lock"):
                path.unlink(missing_ok=True)

    def lock(self, name: str) -> FileLock | None:
        """Lock a sequence; None while another evaluator holds it. Raises ``ResourceError``."""
        self.check()
        return self._acquire(self._place / f"{name}.lock")

    def check(self) -> None:
        """Raise ``ResourceError`` if the lock of this evaluator was removed: another may now be at work."""
        if not self._own.exists():
            raise ResourceError(
                f"{self._own} was removed during the evaluation.", hint="Run it again; finished sequences are kept."
            )

    def _alone(self) -> bool:
        for path in self._place.glob(".evaluator-*.lock"):
            if path != self._own:
                stale = self._acquire(path)
                if stale is None:
                    return False
                release(stale)
        return True

    def _acquire(self, path: Path, *, blocking: bool = False) -> FileLock | None:
        lock = FileLock(path, fallback_to_soft=False)
        try:
            for _ in range(_TRIES):
                self._place.mkdir(exist_ok=True)
                with suppress(FileNotFoundError):  # claims/ was removed by another evaluator between the two lines
                    lock.acquire(blocking=blocking)
                    return lock
        except Timeout:
            return None
        except OSError as error:
            raise as_resource_error(error, path) from error
        raise ResourceError(f"{path} cannot be created.", hint="Choose another folder (--out).")
