"""Run the tasks of an evaluation on a Ray cluster, with the interface of ``workers.LocalPool``.

Every machine of the cluster needs this vltrack and the same packages, and the data and weights under the same
paths. A task takes one processor and one thread, so a result does not depend on where it was made.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vltrack.core.errors import ResourceError, StateError, UsageError, VltrackError
from vltrack.core.process import reported_error
from vltrack.evaluation.plan import code_sha256, differences, versions
from vltrack.evaluation.workers import (
    ENVIRONMENT,
    THREADS,
    Heartbeat,
    TaskFinished,
    Timeouts,
    TrackerSpec,
    Work,
    WorkerEvent,
    error_facts,
    open_tracker,
    traceback_pieces,
)

if TYPE_CHECKING:
    from vltrack.tracking.tracker import Tracker

RETRIES = 1
"""A sequence is tried once more when its process or its machine dies."""


def check_ray() -> None:
    """Raise ``UsageError`` if Ray is not installed."""
    if find_spec("ray") is None:
        raise UsageError("The engine ray needs Ray, which is not installed.", hint='pip install "vltrack[ray]"')


class RayPool:
    """Run tasks on a Ray cluster: the one that this process is connected to or ``RAY_ADDRESS`` names, else a
    new one on this machine. ``jobs`` tasks run at once; 0 is one per processor.
    """

    def __init__(self, spec: TrackerSpec, jobs: int, timeouts: Timeouts) -> None:
        ray: Any = import_module("ray")
        self._ray = ray
        self._ours = not ray.is_initialized()
        # Without it Ray warns of a coming change in how it hides GPUs from tasks that asked for none.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        if self._ours:
            try:
                with _keep_sigterm():
                    ray.init(log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ResourceError(
                    f"Cannot connect to Ray or start it: {error}.", hint="Check RAY_ADDRESS, or ray status."
                ) from error
        self._spec, self._timeouts = spec, timeouts
        self._jobs = jobs or int(ray.cluster_resources().get("CPU", 1))
        self._here = _code_and_versions()
        self._run = ray.remote(num_cpus=THREADS, max_retries=RETRIES)(_run_task).options(
            runtime_env={"env_vars": ENVIRONMENT}
        )
        self._running: dict[Any, Work] = {}

    def has_idle(self) -> bool:
        """Return whether fewer than ``jobs`` tasks are under way."""
        return len(self._running) < self._jobs

    def submit(self, task: Work) -> None:
        """Start a task on the cluster."""
        self._running[self._run.remote(self._spec, task, self._timeouts, self._here)] = task

    def events(self, timeout: float) -> list[WorkerEvent]:
        """Collect what has come back within ``timeout`` seconds.

        Raises:
            VltrackError: the tracker cannot be loaded there, or that machine has other code or packages.
        """
        until = time.monotonic() + timeout
        while True:
            # Ray turns every signal into a bare KeyboardInterrupt while it waits, so we wait ourselves.
            done, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
            if done or time.monotonic() > until:
                return [event for reference in done for event in self._fetch(reference)]
            time.sleep(0.05)

    def stop(self) -> None:
        """Raise KeyboardInterrupt in the tasks under way, which end; ``events`` reports them."""
        for reference in self._running:
            self._ray.cancel(reference)

    def close(self) -> None:
        """Cancel tasks under way, and leave the cluster if it was joined here."""
        for reference in self._running:
            with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
                self._ray.cancel(reference, force=True)
        self._running = {}
        if self._ours:
            self._ray.shutdown()

    def _fetch(self, reference: Any) -> list[WorkerEvent]:
        task = self._running.pop(reference)
        try:
            kind, *rest = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            message = f"the process that had it died or was silent for too long, {RETRIES + 1} times."
            return [task.failed("died", message, error=type(error).__name__, traceback=str(error)[:4000])]
        if kind == "refused":
            code, message, hint = rest
            raise reported_error(code, message, hint, otherwise=ResourceError)
        if kind == "failed":
            code, message, rows, trace = rest
            failed = task.failed("raised", message, frame=len(rows), error=code, traceback=trace)
            return [Heartbeat(task=task, rows=rows), failed]
        return [Heartbeat(task=task, rows=rest[0]), TaskFinished(task=task, rows=rest[0])]


@contextlib.contextmanager
def _keep_sigterm() -> Iterator[None]:
    """Restore the handler of SIGTERM, which Ray replaces by one that exits at once."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _run_task(spec: TrackerSpec, task: Work, timeouts: Timeouts, there: dict[str, Any]) -> tuple[Any, ...]:
    """Run a task in a process of the cluster; return ``done`` and rows, ``failed`` or ``refused``.

    The process ends itself when it hangs: the watchdog is one in C, which needs no lock.
    """
    try:
        _check_same(there)
        faulthandler.dump_traceback_later(timeouts.start, exit=True)
        tracker = _tracker(json.dumps(asdict(spec)))
    except VltrackError as error:
        return "refused", error.code, error.message, error.hint
    finally:
        faulthandler.cancel_dump_traceback_later()
    rows: list[Any] = []

    def take(row: Any) -> None:
        faulthandler.dump_traceback_later(timeouts.next, exit=True)
        rows.append(row)

    try:
        faulthandler.dump_traceback_later(timeouts.first, exit=True)
        task.run(tracker, take)
    except Exception as error:  # noqa: BLE001 - returned to the driving process, which records it
        code, message, ours = error_facts(error)
        if not ours:
            _tracker.cache_clear()  # it may be broken now
        return "failed", code, message, rows, "".join(traceback_pieces(error))
    finally:
        faulthandler.cancel_dump_traceback_later()
    return "done", rows


def _code_and_versions() -> dict[str, Any]:
    return {"code": code_sha256(), "versions": dict(versions())}


def _check_same(there: dict[str, Any]) -> None:
    """Raise ``StateError`` if this machine has other code or packages than the driving one."""
    found = differences(there, _code_and_versions())
    if found:
        raise StateError(
            f"A machine of the cluster ({os.uname().nodename}) differs: {'; '.join(found[:6])}.",
            hint="Install the same vltrack and packages on all of them.",
        )


@lru_cache(maxsize=1)
def _tracker(spec: str) -> Tracker:
    """The tracker of this process, loaded once; ``spec`` is a ``TrackerSpec`` as JSON, which can be compared."""
    return open_tracker(TrackerSpec(**json.loads(spec)))
