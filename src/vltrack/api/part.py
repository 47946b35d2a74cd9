"""The rows of a run that is not finished, next to its first table, and what ``resume`` continues from.

``boxes.part.csv`` grows by the rows of each frame. ``boxes.part.state`` holds the settings of the run and the state
of its trackers at one of the last rows. Both are removed when the run is finished.
"""

from __future__ import annotations

import csv
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Self

from vltrack import __version__
from vltrack.api import inputs
from vltrack.api.outputs import safe_cell, table_head, table_lines
from vltrack.core.errors import DataError, ResourceError, StateError, UsageError
from vltrack.core.files import as_resource_error, lock_file, printable, read_limited, remove_leftovers, write_bytes
from vltrack.core.track import COLUMNS, MAX_FILE_BYTES, read_row
from vltrack.core.types import Step
from vltrack.video.source import is_address

SAVE_EVERY = 5.0
"""Seconds between two states: a state of a tiny size takes some 2 ms, and rows after the last one are tracked again."""
_FILE = "size and time of the source"
START_OVER = "Start over with overwrite (--overwrite)."


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a run has left: ``steps`` by frame and target up to ``frame``, heads of tables, warnings of the source."""

    settings: dict[str, Any]
    metas: dict[str, dict[str, Any]]
    warnings: list[str]
    frame: int
    steps: dict[int, dict[str, Step]]


class PartFile:
    """The part file of one run, as a context: it is removed where ``finished`` was set, and else kept.

    A run that cannot be resumed keeps its rows only after a kill or an error: its tables have them all.

    Attributes:
        path: of the rows; None for a run without a table.
        resumable: the frames will come again (a file or a folder), and the tracker's state can be kept.
        kept: what is continued, with ``resume``.
        complete: with ``resume``, nothing is left and all outputs are there, no older than the source.

    Raises:
        UsageError, ResourceError: as ``inputs.check_outputs``; an earlier run has left rows, and neither flag is set;
            ``resume`` without a table, with frames that do not come again, or with a tracker that cannot go on.
        StateError: another process is writing the rows; or they are damaged.
    """

    def __init__(
        self, outputs: Sequence[Path], source: object, *, resume: bool, overwrite: bool, lasting: bool = True
    ) -> None:
        self.resume, self.finished = resume, False
        self.path: Path | None = None
        self.kept: Kept | None = None
        self._file: IO[bytes] | None = None
        self._last: tuple[dict[str, Any], Mapping[str, Step], object] | None = None
        self._saved_at, self._rows, self._end = -SAVE_EVERY, 0, 0
        self._settings = _identity(source)
        self.resumable = self._settings is not None and lasting
        self.complete = False
        self._draws = any(path.suffix.lower() not in inputs.TABLES for path in outputs)
        table = next((path for path in outputs if path.suffix.lower() in inputs.TABLES), None)
        if resume and (table is None or not self.resumable):
            missing = "a .csv or .json as output (-o)" if table is None else "a file or a folder as input"
            missing = missing if lasting else "a tracker of vltrack: another one's state cannot be kept"
            raise UsageError(f"A run can only be resumed (--resume) with {missing}.")
        if table is not None:
            self.path = rows_beside(table)
            self._state_path = self.path.with_suffix(".state")
        try:
            if self.path is not None and self.path.is_file():
                empty = not self._open(self.path).read(1)  # stopped before its first row
                if resume and not empty:
                    self.kept = self._read(self.path)
                elif not overwrite and not empty:
                    raise UsageError(
                        f"{printable(self.path)} holds the rows of a run that was not finished.",
                        hint=f"Continue it with resume (--resume). {START_OVER}" if lasting else START_OVER,
                    )
            elif self.path is not None and self.path.parent.is_dir():
                self._state_path.unlink(missing_ok=True)
                self.complete = resume and not overwrite and self._all_there(outputs)
            replaced = overwrite or self.complete or self.kept is not None
            inputs.check_outputs(outputs, source, overwrite=replaced)
        except BaseException:
            self._close()
            raise

    def _all_there(self, outputs: Sequence[Path]) -> bool:
        _, changed = (self._settings or {}).get(_FILE, (0, 0))
        return all(path.is_file() and path.stat().st_mtime_ns >= changed for path in outputs)

    def first(self, start: int) -> int:
        """The first frame to read of a run that begins at ``start``: all are needed for a video, else the last one."""
        return start if self.kept is None or self._draws else self.kept.frame

    def warnings(self, more: Sequence[str]) -> list[str]:
        """Warnings of the source: those that were kept, and ``more``."""
        before = self.kept.warnings if self.kept else []
        return [*before, *(each for each in more if each not in before)]

    def state_on(self, device: Any) -> Any:
        """The state of the trackers that was kept, on a device."""
        from vltrack.tracking.saved import unpack

        return unpack(read_limited(self._state_path, MAX_FILE_BYTES), device)["state"]

    def check(self, settings: dict[str, Any]) -> None:
        """Set what else a state belongs to. Raises ``StateError`` where it was another for the rows left."""
        self._settings = {**settings, **(self._settings or {}), "version": __version__}
        if self.kept is None or self.path is None:
            return
        for key, value in self._settings.items():
            if (was := self.kept.settings.get(key)) != value:
                raise StateError(
                    f"{printable(self.path)} is of a run with {_difference(key, was, value)}.",
                    hint=f"Give the same. {START_OVER}",
                )

    def add(
        self, metas: Mapping[str, dict[str, Any]], warnings: Sequence[str], steps: Mapping[str, Step], state: object
    ) -> None:
        """Write the rows of one frame, and the ``state`` of the trackers after it if it is time.

        Raises ``ResourceError``.
        """
        if self.path is None:
            return
        self._rows += 1
        self._last = {"settings": self._settings, "metas": dict(metas), "warnings": list(warnings)}, steps, state
        lines = [f"{line}\n" for line in table_lines(steps, several=len(metas) > 1)]
        try:
            file = self._file or self._open(self.path)
            if self._rows == 1:
                file.seek(self._end)
                file.truncate()
                if self.kept is None:  # the state first: rows without one are not ours
                    self._save()
                    lines.insert(0, table_head(metas))
            file.write("".join(lines).encode("utf-8", "surrogateescape"))
            file.flush()
        except OSError as error:
            self._last = None  # rows that are not there have no state
            raise as_resource_error(error, self.path) from error
        if time.monotonic() - self._saved_at >= SAVE_EVERY:
            self._save()

    def _open(self, path: Path) -> IO[bytes]:
        try:
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        except OSError as error:
            raise as_resource_error(error, path) from error
        free = True
        with suppress(OSError):
            free = lock_file(self._file.fileno())
        if not free:
            self._close()
            raise StateError(f"Another run is writing {printable(path)}.", hint="Wait for it, or name another file.")
        remove_leftovers(self._state_path)
        return self._file

    def _save(self) -> None:
        """Make the rows so far durable, then the state that belongs to them."""
        if self._last is None or self._file is None:
            return
        from vltrack.tracking.saved import pack

        head, steps, state = self._last
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise as_resource_error(error, self._state_path) from error
        if not self.resumable:
            self._saved_at = time.monotonic()
            return
        frame, rows = next(iter(steps.values())).index, self._rows + (len(self.kept.steps) if self.kept else 0)
        write_bytes(self._state_path, pack({**head, "frame": frame, "rows": rows, "state": state}))
        self._last, self._saved_at = None, time.monotonic()

    def _read(self, path: Path) -> Kept | None:
        """What is left, up to the state: later rows will be tracked again."""
        from vltrack.tracking.saved import unpack

        try:
            record = unpack(read_limited(self._state_path, MAX_FILE_BYTES))
            rows, names = record["rows"], {safe_cell(name): name for name in record["metas"]}
            steps, end = self._read_rows(rows, names)
            if len(steps) != rows or any(len(each) != len(names) for each in steps.values()):
                if rows == 1:
                    return None  # stopped at its first row
                raise ValueError(f"it has the rows of {len(steps)} frames, not of {rows}")
            self._end = end
            return Kept(steps=steps, **{key: record[key] for key in ("settings", "metas", "warnings", "frame")})
        except (OSError, ValueError, TypeError, KeyError, DataError) as error:
            raise StateError(f"{printable(path)} cannot be resumed: {error}.", hint=START_OVER) from error

    def _read_rows(self, count: int, names: Mapping[str, str]) -> tuple[dict[int, dict[str, Step]], int]:
        """The steps of the first ``count`` frames, and where in the file they end."""
        assert self._file is not None  # noqa: S101 - opened before
        self._file.seek(0)
        lines, end = iter(self._file), 0
        for line in lines:
            end += len(line)
            if not line.startswith(b"#"):
                break  # the names of the columns
        steps: dict[int, dict[str, Step]] = {}
        for line in islice(lines, count * len(names)):
            if not line.endswith(b"\n"):
                break
            end += len(line)
            cells = next(csv.reader([line.decode()]))
            target, values = cells[: -len(COLUMNS)], cells[-len(COLUMNS) :]
            step = read_row(dict(zip(COLUMNS, values, strict=True)), "a row")
            steps.setdefault(step.index, {})[names[target[0]] if target else next(iter(names.values()))] = step
        return steps, end

    def _close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # what could not be written was reported
                self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is not None or (self.resumable and not self.finished):
                with suppress(ResourceError):  # the rows are there; the last state is older
                    self._save()
            elif self.path is not None and self._file is not None:
                self.path.unlink(missing_ok=True)
                self._state_path.unlink(missing_ok=True)
        finally:
            self._close()


def _difference(key: str, was: Any, now: Any) -> str:
    """How the settings of two runs differ, by the name of the flag."""
    if key == _FILE:
        return "another state of the source: it was changed since"
    if key == "targets":
        if not was or len(was) != 1 or len(now) != 1:
            return "other targets (--text, --box, --target)"
        (one,), (other,) = was.values(), now.values()
        key = "text" if one.text != other.text else "box"
        was, now = getattr(one, key), getattr(other, key)
    if isinstance(was, bool) and isinstance(now, bool) and not key.startswith("policy."):
        return f"{key} (--{key})" if was else f"no {key} (--{key})"
    flag = f" (--set {key})" if key.startswith("policy.") else f" (--{key})" if key in _FLAGS else ""
    shown = ["none" if each is None else f"{each!r:.200}" for each in (was, now)]
    return f"another {key}{flag}: {shown[0]}, not {shown[1]}"


_FLAGS = ("text", "box", "start", "end", "stride")


def rows_beside(table: Path) -> Path:
    """Return the part file of a table."""
    stem = table.stem
    if len(os.fsencode(stem)) > 200:
        stem = f"{stem[:40]}-{hashlib.sha256(os.fsencode(stem)).hexdigest()[:16]}"
    return table.with_name(f"{stem}.part.csv")


def _identity(source: object) -> dict[str, Any] | None:
    """What identifies a file or folder; None for frames that do not come again."""
    text = os.fspath(source) if isinstance(source, str | os.PathLike) else "-"
    try:
        status = os.stat(text)
    except (OSError, ValueError):
        again = text != "-" and not text.isdecimal() and not is_address(text)
        return {"source": text} if again else None  # a pattern; or opening it will say what is wrong
    return {"source": os.path.abspath(text), _FILE: (status.st_size, status.st_mtime_ns)}
