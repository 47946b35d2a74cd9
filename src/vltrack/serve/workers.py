"""A worker process as the server sees it: it is started when needed, canceled, watched, and replaced when it dies."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from vltrack.core.errors import ResourceError
from vltrack.core.process import describe_exit, kill
from vltrack.serve.work import serve

CANCEL_S = 1.5
"""Seconds in which a job that is canceled may save what it has done, before its worker is stopped."""
_TICK = 0.2


class Worker:
    """One process that does one job at a time; several threads may wait for their turn.

    Args:
        name: for messages.
        silent_s: seconds without a message after which it is stopped.
    """

    def __init__(self, name: str, silent_s: float) -> None:
        self._name, self._silent_s = name, silent_s
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._process: Any = None
        self._pipe: Any = None
        self._job, self._canceled = "", 0.0
        self._closed = False

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs,), name=f"vltrack-{self._name}", daemon=True)
        try:
            process.start()
        except OSError as error:
            raise ResourceError(f"Cannot start the {self._name}: {error.strerror}.") from error
        theirs.close()
        self._process, self._pipe = process, ours

    def run(self, job: dict[str, Any], take: Callable[[dict[str, Any]], None] = lambda message: None) -> dict[str, Any]:
        """Do a job; return its last message: ``done``, ``canceled`` or ``failed``.

        Args:
            job: with ``id`` and ``kind``.
            take: called with the messages before.
        """
        with self._turn:
            try:
                with self._lock:
                    if self._closed:
                        return {"kind": "canceled", "result": None}
                    if self._process is None or not self._process.is_alive():
                        self._end()
                        self._start()
                    self._job, self._canceled = job["id"], 0.0
                    self._pipe.send_bytes(json.dumps(job).encode())
                return self._messages(take)
            except (EOFError, OSError):
                canceled = bool(self._canceled)
                code = self._end()
                if canceled or self._closed:
                    return {"kind": "canceled", "result": None}
                said = f"The {self._name} {describe_exit(code)}."
                return _failure(said, "Try again; another job, or less memory in use, may help.")
            finally:
                self._job = ""

    def _messages(self, take: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        heard = time.monotonic()
        while True:
            if self._pipe.poll(_TICK):
                message: dict[str, Any] = json.loads(self._pipe.recv_bytes())
                if message["kind"] in ("done", "canceled", "failed"):
                    return message
                take(message)
                heard = time.monotonic()
            now = time.monotonic()
            if self._canceled and now - self._canceled > CANCEL_S:
                self._end()
                return {"kind": "canceled", "result": None}
            if now - heard > self._silent_s:
                self._end()
                said = f"The {self._name} reported nothing for {self._silent_s:g} s and was stopped."
                return _failure(said, "The video may be damaged there.")

    def cancel(self, job: str) -> None:
        """Interrupt a job if it is this worker's; what it has done is kept where there is time for it."""
        with self._lock:
            if self._job != job or self._canceled:
                return
            self._canceled = time.monotonic()
            with suppress(OSError):
                self._pipe.send_bytes(json.dumps({"cancel": job}).encode())

    @property
    def pid(self) -> int | None:
        """Of the process; None without one."""
        return self._process.pid if self._process is not None else None

    def _end(self) -> int | None:
        if self._process is None:
            return None
        code = kill(self._process)
        self._pipe.close()
        self._process = self._pipe = None
        return code

    def close(self) -> None:
        """Stop the process, whatever it does."""
        self._closed = True
        with self._lock:
            if self._process is not None:
                self._process.kill()


def _failure(message: str, hint: str) -> dict[str, Any]:
    return {"kind": "failed", "code": "ResourceError", "message": message, "hint": hint, "result": None}
