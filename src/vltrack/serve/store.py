"""What the studio keeps: videos, targets, revisions of tracks and jobs in one SQLite file, and the files beside it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vltrack.core.errors import ResourceError, StateError, VltrackError
from vltrack.core.files import as_resource_error, lock_file, printable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS videos (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, path TEXT NOT NULL, own INTEGER NOT NULL, state TEXT NOT NULL,
    size INTEGER NOT NULL, facts TEXT, error TEXT, created REAL NOT NULL, used REAL NOT NULL);
CREATE TABLE IF NOT EXISTS targets (
    id TEXT PRIMARY KEY, video TEXT NOT NULL REFERENCES videos(id), name TEXT NOT NULL, color INTEGER NOT NULL,
    start TEXT NOT NULL, revision TEXT);
CREATE TABLE IF NOT EXISTS revisions (
    id TEXT PRIMARY KEY, target TEXT NOT NULL REFERENCES targets(id) ON DELETE CASCADE, parent TEXT,
    created REAL NOT NULL, facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, video TEXT NOT NULL REFERENCES videos(id), kind TEXT NOT NULL, state TEXT NOT NULL,
    request TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0, total INTEGER, message TEXT, error TEXT, result TEXT,
    created REAL NOT NULL);
"""
_JSON = frozenset({"facts", "error", "start", "request", "result"})
_TABLES = frozenset({"videos", "targets", "revisions", "jobs"})
_FOLDERS = ("videos", "tracks", "jobs")
_GIVEN_UP_S = 86400.0
"""Seconds after which an upload that broke off is not resumed any more."""
REVISIONS = 50
"""Of a target that are kept: as many corrections can be undone."""
LIVE = ("queued", "running")


class NotThere(VltrackError):
    """No such thing in the studio; ``gone``: there was one."""

    def __init__(self, *, gone: bool = False) -> None:
        super().__init__("This was removed." if gone else "There is nothing here.", hint="Open the start page.")
        self.gone = gone


def new_id() -> str:
    """Return 128 random bits as text."""
    return secrets.token_hex(16)


class Store:
    """Rows as dicts. Each method is one transaction; safe to call from several threads.

    Raises:
        ResourceError: the folder cannot be made or written.
        StateError: another studio uses the folder.
    """

    def __init__(self, media: Path) -> None:
        self.media = media
        try:
            for name in _FOLDERS:
                (media / name).mkdir(parents=True, exist_ok=True)
            self._held = (media / "lock").open("w")
            if not lock_file(self._held.fileno()):
                self._held.close()
                raise StateError(f"Another studio uses {printable(media)}.", hint="Stop it, or name another --media.")
            self._base = sqlite3.connect(media / "studio.sqlite", check_same_thread=False, isolation_level=None)
        except OSError as error:
            raise as_resource_error(error, media) from error
        except sqlite3.Error as error:
            raise ResourceError(f"Cannot open the database in {printable(media)}: {error}.") from error
        self._lock = threading.RLock()
        self._base.row_factory = sqlite3.Row
        try:
            self._base.executescript("PRAGMA journal_mode=WAL; PRAGMA foreign_keys=ON;" + _SCHEMA)
        except sqlite3.Error as error:
            raise StateError(f"{printable(media / 'studio.sqlite')} is not usable: {error}.") from error
        self._start_up()

    def _start_up(self) -> None:
        """Jobs that a stopped server has left are interrupted; files that no row names are removed."""
        self._execute("UPDATE jobs SET state = 'interrupted' WHERE state IN ('queued', 'running')")
        for row in self.all("videos"):
            if row["state"] in ("uploading", "refused") and row["created"] < time.time() - _GIVEN_UP_S:
                self.remove_video(row["id"])
        known = {
            "videos": {row["id"] for row in self.all("videos") if row["own"] and row["state"] != "gone"},
            "tracks": {f"{row['id']}.json" for row in self.all("revisions")},
            "jobs": {row["id"] for row in self.all("jobs") if row["state"] in ("interrupted", "canceled", "failed")},
        }
        for folder, names in known.items():
            for path in (self.media / folder).iterdir():
                if path.name not in names:
                    remove(path)

    def close(self) -> None:
        """Close the database and leave the folder to others."""
        with self._lock:
            self._base.close()
            self._held.close()

    def _execute(self, sql: str, values: Iterable[Any] = ()) -> list[sqlite3.Row]:
        with self._lock:
            try:
                return self._base.execute(sql, tuple(values)).fetchall()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
                    raise
                raise ResourceError(
                    f"Cannot write the studio's database: {error}.", hint="Remove videos, or free space."
                ) from error

    # -- rows -------------------------------------------------------------------------------------

    def add(self, table: str, **values: Any) -> str:
        """Insert a row and return its new id."""
        values = {"id": new_id(), **values}
        names = ", ".join(values)
        marks = ", ".join("?" for _ in values)
        self._execute(f"INSERT INTO {_known(table)} ({names}) VALUES ({marks})", _packed(values))  # noqa: S608
        return str(values["id"])

    def get(self, table: str, key: str) -> dict[str, Any]:
        """Return a row. Raises ``NotThere``."""
        rows = self._execute(f"SELECT * FROM {_known(table)} WHERE id = ?", [key])  # noqa: S608
        if not rows:
            raise NotThere
        return _unpacked(rows[0])

    def all(self, table: str, **where: Any) -> list[dict[str, Any]]:
        """Return the rows with these values, oldest first."""
        clause = " AND ".join(f"{key} = ?" for key in where) or "1"
        rows = self._execute(f"SELECT * FROM {_known(table)} WHERE {clause} ORDER BY rowid", where.values())  # noqa: S608
        return [_unpacked(row) for row in rows]

    def set(self, table: str, key: str, **values: Any) -> None:
        """Change values of a row."""
        names = ", ".join(f"{name} = ?" for name in values)
        self._execute(f"UPDATE {_known(table)} SET {names} WHERE id = ?", [*_packed(values), key])  # noqa: S608

    # -- what the rows mean -----------------------------------------------------------------------

    def video(self, key: str) -> dict[str, Any]:
        """Return a video that is there. Raises ``NotThere``, with ``gone`` where it was removed."""
        row = self.get("videos", key)
        if row["state"] == "gone":
            raise NotThere(gone=True)
        return row

    def target(self, key: str) -> dict[str, Any]:
        """Return a target. Raises ``NotThere``."""
        return self.get("targets", key)

    def revision(self, target: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the revision of a target's track that is shown; None before it was tracked."""
        return self.get("revisions", target["revision"]) if target["revision"] else None

    def revise(self, target: str, key: str, parent: str | None, facts: Mapping[str, Any]) -> None:
        """Add a revision whose track lies at ``track_path(key)``, and show it."""
        with self._lock:
            self.add("revisions", id=key, target=target, parent=parent, created=time.time(), facts=dict(facts))
            self.set("targets", target, revision=key)
            for old in self.all("revisions", target=target)[:-REVISIONS]:
                self._execute("UPDATE revisions SET parent = NULL WHERE parent = ?", [old["id"]])
                self._execute("DELETE FROM revisions WHERE id = ?", [old["id"]])
                remove(self.track_path(old["id"]))

    def step(self, target: Mapping[str, Any], *, forward: bool) -> bool:
        """Show the revision before or after; False where there is none."""
        shown = self.revision(target)
        if shown is None:
            return False
        if forward:
            after = self.all("revisions", target=target["id"], parent=shown["id"])
            other = after[-1]["id"] if after else None
        else:
            other = shown["parent"]
        if other is not None:
            self.set("targets", target["id"], revision=other)
        return other is not None

    def remove_target(self, key: str) -> None:
        """Remove a target with its tracks."""
        with self._lock:
            revisions = self.all("revisions", target=key)
            self._execute("DELETE FROM targets WHERE id = ?", [key])
        for row in revisions:
            remove(self.track_path(row["id"]))

    def remove_video(self, key: str) -> None:
        """Remove a video with all that belongs to it; its id is remembered as one that is gone."""
        with self._lock:
            row = self.video(key)
            for target in self.all("targets", video=key):
                self.remove_target(target["id"])
            for job in self.all("jobs", video=key):
                remove(self.job_folder(job["id"]))
            self._execute("DELETE FROM jobs WHERE video = ?", [key])
            self.set("videos", key, state="gone", facts=None)
            if row["own"]:
                remove(Path(row["path"]))

    def remove_unused(self, days: float) -> list[str]:
        """Remove the videos that were not opened for so many days; return their ids."""
        old = [
            row["id"]
            for row in self.all("videos")
            if row["state"] != "gone" and row["used"] < time.time() - days * 86400
        ]
        for key in old:
            self.remove_video(key)
        return old

    # -- files ------------------------------------------------------------------------------------

    def upload_path(self, key: str) -> Path:
        """File of an uploaded video."""
        return self.media / "videos" / key

    def track_path(self, key: str) -> Path:
        """File of a revision."""
        return self.media / "tracks" / f"{key}.json"

    def job_folder(self, key: str) -> Path:
        """Folder of a job's files."""
        return self.media / "jobs" / key

    def room(self) -> int:
        """Bytes that are free on the disk."""
        return shutil.disk_usage(self.media).free


def _known(table: str) -> str:
    if table not in _TABLES:
        raise KeyError(table)
    return table


def _packed(values: Mapping[str, Any]) -> list[Any]:
    return [
        json.dumps(value, allow_nan=False) if key in _JSON and value is not None else value
        for key, value in values.items()
    ]


def _unpacked(row: sqlite3.Row) -> dict[str, Any]:
    return {key: json.loads(row[key]) if key in _JSON and row[key] is not None else row[key] for key in row.keys()}  # noqa: SIM118


def remove(path: Path) -> None:
    """Remove a file or a folder, where it is there."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            os.unlink(path)
