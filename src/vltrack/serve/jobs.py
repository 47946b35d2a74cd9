"""Jobs of the studio: a bounded queue, one at a time in the worker, with the rows as they come.

Videos take turns: a page shows one, so one page with many jobs does not keep the others waiting.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vltrack.api.reporter import pace
from vltrack.core.errors import StateError, VltrackError
from vltrack.serve.settings import Settings
from vltrack.serve.store import LIVE, Store, new_id
from vltrack.serve.work import error_record
from vltrack.serve.workers import Worker

_VIDEOS = 4
"""Times the jobs of one video that may wait or run in all."""
_KEPT = 4
"""Feeds of finished jobs that stay in memory, for pages that are a little late."""


class QueueFull(StateError):
    """No room for another job."""


@dataclass(kw_only=True)
class Feed:
    """What a job has reported so far: encoded rows, counts and warnings."""

    rows: list[str] = field(default_factory=list)
    done: int = 0
    total: int | None = None
    warnings: list[str] = field(default_factory=list)
    began: float = 0.0
    first: int = 0
    pace: str = ""

    def take(self, message: dict[str, Any]) -> None:
        """Take one message of the worker."""
        if message["kind"] == "rows":
            self.rows += [json.dumps(row) for row in message["rows"]]
        elif message["kind"] == "warn":
            self.warnings.append(message["text"])
        elif message["kind"] == "progress":
            if not self.began:
                self.began, self.first = time.monotonic(), message["done"]
            self.done, self.total = message["done"], message["total"]
            after = self.done - self.first
            left = None if self.total is None else max(0, self.total - self.first)
            self.pace = pace(after, left, time.monotonic() - self.began) if after else ""


Finish = Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], None]
Prepare = Callable[[dict[str, Any]], dict[str, Any]]


class Jobs:
    """The queue and its thread.

    Args:
        prepare: makes of a row of ``jobs`` what the worker gets; may raise ``VltrackError``.
        finish: called with the row, the worker's last message and what it got, before the job counts as finished.
    """

    def __init__(self, store: Store, settings: Settings, prepare: Prepare, finish: Finish) -> None:
        self._store, self._most = store, settings.queue
        self._prepare, self._finish = prepare, finish
        self.worker = Worker("tracking process", settings.silent_s)
        self._lock = threading.Condition()
        self._waiting: dict[str, str] = {}  # videos by job, the oldest job first
        self._turns: dict[str, float] = {}  # when a job of a video was last started
        self._running = self._running_video = ""
        self._closed = False
        self._feeds: dict[str, Feed] = {}
        threading.Thread(target=self._work, name="vltrack-jobs", daemon=True).start()

    def add(self, video: str, kind: str, request: dict[str, Any], key: str = "") -> str:
        """Queue a job and return its id. Raises ``QueueFull``."""
        with self._lock:
            live = [*self._waiting.values(), self._running_video]
            if live.count(video) >= self._most or len(self._waiting) + bool(self._running) >= _VIDEOS * self._most:
                raise QueueFull(f"{self._most} jobs are waiting.", hint="Wait for one, or cancel one.")
            if key:
                self._store.set("jobs", key, state="queued", error=None)
            else:
                values = {"video": video, "kind": kind, "request": request, "created": time.time()}
                key = self._store.add("jobs", id=new_id(), state="queued", **values)
            self._feeds[key] = Feed()
            self._waiting[key] = video
            self._lock.notify()
        return key

    def feed(self, key: str) -> Feed | None:
        """What a job of this run of the server has reported."""
        return self._feeds.get(key)

    def cancel(self, key: str) -> None:
        """Cancel a job that waits or runs; nothing for one that is finished."""
        with self._lock:
            if key in self._waiting:
                del self._waiting[key]
                self._store.set("jobs", key, state="canceled")
            elif key == self._running:
                self.worker.cancel(key)

    def cancel_video(self, video: str) -> None:
        """Cancel all jobs of a video, and wait until none of them runs."""
        for job in self._store.all("jobs", video=video):
            if job["state"] in LIVE:
                self.cancel(job["id"])
        with self._lock:
            mine = {job["id"] for job in self._store.all("jobs", video=video)}
            self._lock.wait_for(lambda: self._running not in mine, timeout=10)

    def close(self) -> None:
        """Stop the worker; what runs counts as interrupted at the next start."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            self._lock.notify_all()
        self.worker.close()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._closed or self._waiting)
                if self._closed:
                    return
                # The oldest job of the video that has waited for its turn the longest.
                key = self._running = min(self._waiting, key=lambda each: self._turns.get(self._waiting[each], 0.0))
                video = self._running_video = self._waiting.pop(key)
                self._turns[video] = time.monotonic()
                self._store.set("jobs", key, state="running")
            self._do(key)
            with self._lock:
                self._running = self._running_video = ""
                finished = [each for each in self._feeds if each not in self._waiting]
                for old in finished[:-_KEPT]:
                    del self._feeds[old]
                self._lock.notify_all()

    def _do(self, key: str) -> None:
        row, feed = self._store.get("jobs", key), self._feeds[key]
        try:
            sent = {"id": key, "kind": row["kind"], **self._prepare(row)}
            last = self.worker.run(sent, feed.take)
            if self._closed:
                return
            self._finish(row, last, sent)
        except Exception as fault:  # noqa: BLE001 - a job never ends the queue
            known = fault if isinstance(fault, VltrackError) else VltrackError(f"Internal error: {fault!r:.300}.")
            last = {"kind": "failed", **error_record(known)}
        if self._closed:
            return
        error = {name: last[name] for name in ("code", "message", "hint")} if last["kind"] == "failed" else None
        self._store.set(
            "jobs", key, state=last["kind"], done=feed.done, total=feed.total, error=error, result=last.get("result")
        )
