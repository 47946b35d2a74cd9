"""The same work over a Ray cluster. Knows Ray; knows no file of results, which the driving process writes.

Every machine of the cluster needs this vltrack and the same packages, and sees the data and the weights under
the same paths. A task takes one processor and one thread, so a result is the same wherever it was made.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from vltrack.core.errors import ResourceError, StateError, UsageError, VltrackError
from vltrack.evaluation.plan import code_sha256, differences, versions
from vltrack.evaluation.workers import (
    ENVIRONMENT,
    THREADS,
    Heartbeat,
    Row,
    SequenceFailure,
    Task,
    TaskFailed,
    TaskFinished,
    Timeouts,
    TrackerLike,
    TrackerSpec,
    WorkerEvent,
    follow,
    open_tracker,
    pieces,
    refusal,
    said,
)

RETRIES = 1
"""A sequence is tried once more when the process or the machine that had it dies."""

_POLL = 0.05
_BANNER = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Without it Ray warns of a change to come in how it hides GPUs from tasks that asked for none."""


def check_ray() -> None:
    """That Ray is installed. Raises ``UsageError``."""
    if find_spec("ray") is None:
        raise UsageError("--engine ray needs Ray, which is not installed.", hint='pip install "vltrack[ray]"')


class RayPool:
    """Tasks on a Ray cluster: the one that this process is connected to or ``RAY_ADDRESS`` names, else one on
    this machine. See ``outcome.WorkerPool``. ``jobs`` tasks are under way at once; 0 is one a processor.
    """

    def __init__(self, loading: TrackerSpec, jobs: int, patience: Timeouts) -> None:
        ray: Any = import_module("ray")
        self._ray = ray
        self._ours = not ray.is_initialized()
        os.environ.update({k: v for k, v in _BANNER.items() if k not in os.environ})
        if self._ours:
            try:
                with _own_signals():
                    ray.init(log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ResourceError(
                    f"Ray cannot be reached or started: {error}.", hint="Check RAY_ADDRESS, or ray status."
                ) from error
        self._loading, self._patience = loading, patience
        self._jobs = jobs or int(ray.cluster_resources().get("CPU", 1))
        self._here = {"code": code_sha256(), "versions": dict(versions())}
        self._follow = ray.remote(num_cpus=THREADS, max_retries=RETRIES)(_follow).options(
            runtime_env={"env_vars": ENVIRONMENT}
        )
        self._at_work: dict[Any, Task] = {}

    def free(self) -> bool:
        """Whether fewer than ``jobs`` tasks are under way."""
        return len(self._at_work) < self._jobs

    def give(self, task: Task) -> None:
        """Let the cluster do this task."""
        self._at_work[self._follow.remote(self._loading, task, self._patience, self._here)] = task

    def news(self, timeout: float) -> list[WorkerEvent]:
        """What has come back within ``timeout`` seconds.

        Raises:
            VltrackError: the tracker cannot be loaded there, or that machine has other code or packages.
        """
        until = time.monotonic() + timeout
        while True:
            # Ray turns every signal into a bare KeyboardInterrupt while it waits: so the waiting is ours.
            done, _ = self._ray.wait(list(self._at_work), num_returns=len(self._at_work), timeout=0)
            if done or time.monotonic() > until:
                return [news for reference in done for news in self._fetch(reference)]
            time.sleep(_POLL)

    def close(self) -> None:
        """Cancel what is under way, and leave the cluster if it was joined here."""
        for reference in self._at_work:
            with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
                self._ray.cancel(reference, force=True)
        self._at_work = {}
        if self._ours:
            self._ray.shutdown()

    def _fetch(self, reference: Any) -> list[WorkerEvent]:
        task = self._at_work.pop(reference)
        name = task.sequence.name
        try:
            kind, *rest = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            failure = SequenceFailure(
                mode=task.mode,
                name=name,
                kind="died",
                message=f"the process that had it died or was silent for too long, {RETRIES + 1} times.",
                error=type(error).__name__,
                traceback=str(error)[:4000],
            )
            return [TaskFailed(task=task, failure=failure)]
        if kind == "refused":
            raise refusal(*rest)
        if kind == "failed":
            code, message, frame, trace = rest
            failure = SequenceFailure(
                mode=task.mode,
                name=name,
                kind="raised",
                message=message,
                error=code,
                traceback=trace,
                frame=frame,
            )
            return [Heartbeat(task=task, frames=frame), TaskFailed(task=task, failure=failure)]
        rows: list[Row] = rest[0]
        return [Heartbeat(task=task, frames=len(rows)), TaskFinished(task=task, rows=rows)]


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself and leaves at once; what it means for a run is decided elsewhere."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _follow(loading: TrackerSpec, task: Task, patience: Timeouts, there: dict[str, Any]) -> tuple[Any, ...]:
    """One sequence, in a process of the cluster: ``done`` and its rows, ``failed``, or ``refused``.

    The process ends itself when it is silent for too long: the watchdog is one in C, which needs no lock.
    """
    try:
        _check_same(there)
        faulthandler.dump_traceback_later(patience.start, exit=True)
        tracker = _tracker(loading.loader, loading.weights, loading.device, tuple(loading.policy.items()))
    except VltrackError as error:
        return "refused", error.code, error.message, error.hint
    finally:
        faulthandler.cancel_dump_traceback_later()
    rows: list[Row] = []
    try:
        faulthandler.dump_traceback_later(patience.first, exit=True)
        for row in follow(tracker, task):
            faulthandler.dump_traceback_later(patience.next, exit=True)
            rows.append(row)
    except Exception as error:  # noqa: BLE001 - told to the process that drives, which records it
        code, message, ours = said(error)
        if not ours:
            _tracker.cache_clear()  # it may be broken now
        return "failed", code, message, len(rows), "".join(pieces(error))
    finally:
        faulthandler.cancel_dump_traceback_later()
    return "done", rows


def _check_same(there: dict[str, Any]) -> None:
    """That this machine computes with the same code and packages. Raises ``StateError``."""
    here = {"code": code_sha256(), "versions": dict(versions())}
    found = differences(there, here)
    if found:
        raise StateError(
            f"a machine of the cluster ({os.uname().nodename}) differs: {'; '.join(found[:6])}.",
            hint="Install the same vltrack and packages on all of them.",
        )


@lru_cache(maxsize=1)
def _tracker(loader: str, weights: str, device: str, policy: tuple[tuple[str, Any], ...]) -> TrackerLike:
    """The tracker of this process, loaded once."""
    return open_tracker(TrackerSpec(loader=loader, weights=weights, device=device, policy=dict(policy)))
