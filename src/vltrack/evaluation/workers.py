"""Worker processes on this machine: each loads a tracker once and runs it over sequences, frame by frame.

Processes are started by ``spawn`` and hold nothing that a kill could damage. Those of an evaluation write no files: one
small message per frame goes through a pipe and serves as heartbeat as well. A worker that crashes or sends nothing
for too long is replaced. Torch is loaded only in ``load_tracker``.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any, Protocol, cast

from vltrack.core.errors import ResourceError, VltrackError
from vltrack.core.process import describe_exit, kill, open_standard_streams, reported_error, signal_name
from vltrack.core.threads import ONE_THREAD, PASSIVE

if TYPE_CHECKING:
    from vltrack.datasets.sequences import Sequence
    from vltrack.tracking.tracker import Tracker

THREADS = 1
ENVIRONMENT = ONE_THREAD | PASSIVE
"""Set before torch and numpy are loaded."""
NOT_FOR_WORKERS = (signal.SIGINT, signal.SIGTERM)
"""A terminal or a batch system sends these to all processes; only the one that started the workers reacts."""

OUR_LOADER = "vltrack.evaluation.workers:load_tracker"
PIECE = 900
"""Characters of a traceback per message: a pipe takes up to 4096 bytes at once, completely or not at all."""

Row = tuple[float, float, float, float, float, bool, str, float]
"""x, y, w, h, score, visible, status, seconds that the tracker took."""


# -- tasks and events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerSpec:
    """Recipe by which a worker loads its tracker.

    Attributes:
        loader: ``module:function``; called with this spec, returns an object with ``init(frame, box=..., text=...)``
            and ``update(frame)`` as ``Tracker`` has them.
        weights: as ``cards.Weights.spec``.
        policy: all options of the tracking policy.
        device: ``cpu``, ``cuda``, ``mps``.
        backend, precision: as of ``Tracker.load``.
    """

    weights: str
    policy: dict[str, Any]
    device: str = "cpu"
    backend: str = "auto"
    precision: str = "fp32"
    loader: str = OUR_LOADER


class Work(Protocol):
    """What a pool runs: ``Task``, or a video of ``vltrack.track_many``. Travels to the worker by pickle."""

    def run(self, tracker: Any, send: Callable[[Any], None]) -> None:
        """Run in the worker with what its loader returned; ``send`` takes one small row after the other."""

    def failed(self, kind: str, message: str, **more: Any) -> SequenceFailure:
        """Return the event that it failed; arguments as the fields of ``SequenceFailure``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One sequence in one mode. ``box`` (x, y, w, h in pixels) and ``text`` initialize the tracker."""

    mode: str
    sequence: Sequence
    box: tuple[float, float, float, float] | None
    text: str | None

    @property
    def key(self) -> tuple[str, str]:
        """Mode and name of the sequence."""
        return self.mode, self.sequence.name

    @property
    def prompt_kind(self) -> str:
        """Kind of prompt: ``sentence``, ``box`` or ``both``."""
        if self.box is None:
            return "sentence"
        return "box" if self.text is None else "both"

    def run(self, tracker: Tracker, send: Callable[[Row], None]) -> None:
        """Send one row per frame. Raises as ``track_sequence``."""
        for row in track_sequence(tracker, self):
            send(row)

    def failed(self, kind: str, message: str, **more: Any) -> SequenceFailure:
        """The event that this task failed; arguments as the fields of ``SequenceFailure``."""
        return SequenceFailure(mode=self.mode, name=self.sequence.name, kind=kind, message=message, **more)


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """Seconds without a message after which a worker counts as hung.

    Attributes:
        start: until it has loaded the tracker.
        first: until the first frame of a sequence is done.
        next: from one frame to the next.
    """

    start: float = 120.0
    first: float = 120.0
    next: float = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceFailure:
    """Why a sequence has no result. The fields are those of ``failures/<seq>.json``.

    Attributes:
        mode, name: of the sequence.
        kind: ``raised`` (an error), ``silent`` (no frame for too long), ``died`` (the worker ended) or
            ``invalid`` (unusable rows: a box that is not finite, rows missing).
        message: one sentence.
        error: class of the error, "" without one.
        traceback: of the error, "" without one.
        exit_signal: name of the signal that ended the worker, "" without one.
        frame: 0-based number of the frame in which it failed.
    """

    mode: str
    name: str
    kind: str
    message: str
    error: str = ""
    traceback: str = ""
    exit_signal: str = ""
    frame: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeat:
    """Some rows of a task, as it was submitted, have come: one per frame."""

    task: Any
    rows: list[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFinished:
    """A task is done; ``rows`` are all that it sent."""

    task: Any
    rows: list[Any] = field(default_factory=list)


WorkerEvent = Heartbeat | TaskFinished | SequenceFailure


# -- in the worker ------------------------------------------------------------------------------------------


def load_tracker(spec: TrackerSpec) -> Tracker:
    """Load one of our trackers with one thread. Raises what ``Tracker.load`` raises."""
    import cv2

    from vltrack.tracking.postprocess import Policy
    from vltrack.tracking.tracker import Tracker

    cv2.setNumThreads(THREADS)
    return Tracker.load(
        spec.weights, device=spec.device, threads=THREADS, policy=Policy(**spec.policy), anyway=True,
        backend=spec.backend, precision=spec.precision,
    )  # fmt: skip


def open_tracker(spec: TrackerSpec) -> Tracker:
    """Call ``spec.loader``."""
    module, _, function = spec.loader.partition(":")
    return cast("Tracker", getattr(import_module(module), function)(spec))


def track_sequence(tracker: Tracker, task: Task) -> Generator[Row, None, None]:
    """Yield one row per frame of a sequence.

    Row 1 holds the box that was given, or in NL mode the tracker's own. Times are those of the tracker alone,
    without decoding; a frame that cannot be decoded has the status ``missing``. Raises whatever the tracker or
    the reading of the frames raises, and at the end the error that interrupted the reading.
    """
    with task.sequence.open_frames() as source:
        for number, frame in enumerate(source):
            began = time.perf_counter()
            first = number == 0
            step = tracker.init(frame, box=task.box, text=task.text) if first else tracker.update(frame)
            taken = time.perf_counter() - began
            box = task.box if first and task.box is not None else step.box
            x, y, w, h = (float(v) for v in box)
            yield x, y, w, h, float(step.score), bool(step.visible), str(step.status), taken
        if source.report.failure is not None:
            raise source.report.failure


def serve(tasks: Connection, reports: Connection, spec: TrackerSpec) -> None:
    """Worker main loop. Sends ``ready``, then per task every ``row`` and ``done``, or ``failed``.

    Returns when ``tasks`` is closed; exits at once when the parent process ends.
    """
    for number in NOT_FOR_WORKERS:
        signal.signal(number, signal.SIG_IGN)
    os.dup2(2, 1)  # what a tracker prints must not mix with the data that the command prints
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        tracker = open_tracker(spec)
    except VltrackError as error:
        reports.send(("refused", error.code, error.message[: 2 * PIECE], error.hint[:PIECE]))
        return
    reports.send(("ready",))
    while True:
        try:
            task = tasks.recv()
        except EOFError:
            return
        try:
            task.run(tracker, lambda row: reports.send(("row", row)))
        except Exception as error:  # noqa: BLE001 - sent to the parent, which records it
            for piece in traceback_pieces(error):
                reports.send(("trace", piece))
            reports.send(("failed", *error_facts(error)))
        else:
            reports.send(("done",))


def error_facts(error: Exception) -> tuple[str, str, bool]:
    """Code, message, and whether it is a ``VltrackError``: after any other the tracker may be broken."""
    if isinstance(error, VltrackError):
        return error.code, str(error)[:PIECE], True
    return type(error).__name__, str(error)[:PIECE], False


def traceback_pieces(error: Exception) -> list[str]:
    """The traceback of an error in pieces that fit into a pipe."""
    text = "".join(traceback.format_exception(error))
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        sys.stderr.flush()
        os._exit(1)


# -- in the parent ------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Worker:
    """A worker process and its task."""

    process: SpawnProcess
    tasks: Connection
    reports: Connection
    deadline: float
    task: Work | None = None
    ready: bool = False
    rows: list[Any] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)

    def failed(self, kind: str, message: str, **more: str) -> SequenceFailure:
        return cast(Work, self.task).failed(kind, message, frame=len(self.rows), **more)

    def reset(self, task: Work | None, deadline: float) -> None:
        self.task, self.rows, self.trace, self.deadline = task, [], [], deadline


class LocalPool:
    """``jobs`` worker processes on this machine."""

    def __init__(self, spec: TrackerSpec, jobs: int, timeouts: Timeouts) -> None:
        self._spec, self._jobs, self._timeouts = spec, jobs, timeouts
        self._workers: list[_Worker] = []
        self._failed_starts = 0

    def has_idle(self) -> bool:
        """Return whether fewer than ``jobs`` tasks are under way."""
        return sum(worker.task is not None for worker in self._workers) < self._jobs

    def submit(self, task: Work) -> None:
        """Give a task to an idle worker, or to a new one; ``events`` reports its end.

        Raises:
            ResourceError: no worker can be started.
        """
        worker = next((worker for worker in self._workers if worker.task is None), None)
        if worker is None:
            worker = self._spawn()
            self._workers.append(worker)
        worker.task = task
        if worker.ready:
            self._begin(worker)

    def events(self, timeout: float) -> list[WorkerEvent]:
        """Return events, waiting up to ``timeout`` seconds; crashed and unresponsive workers are reaped.

        Raises:
            VltrackError: the tracker cannot be loaded, as ``Tracker.load`` raises it.
            ResourceError: several workers in a row ended before they were ready.
        """
        nearest = min((worker.deadline for worker in self._workers), default=time.monotonic() + timeout)
        seconds = max(0.0, min(timeout, nearest - time.monotonic()))
        ready = set(wait([end for w in self._workers for end in (w.reports, w.process.sentinel)], seconds))
        found: list[WorkerEvent] = []
        for worker in list(self._workers):
            ended = worker.process.sentinel in ready
            if ended or worker.reports in ready:
                ended = not self._receive(worker, found) or ended
            if ended:
                found += self._reap(worker)
            elif time.monotonic() > worker.deadline and worker.task is not None:
                found.append(self._time_out(worker))
        return found

    def stop(self) -> None:
        """Send SIGTERM to the workers that have a task, which those that heed it end; ``events`` reports them."""
        for worker in self._workers:
            if worker.task is not None:
                worker.process.terminate()

    def close(self) -> None:
        """Kill all workers; tasks under way are lost."""
        for worker in self._workers:
            worker.process.kill()
        for worker in list(self._workers):
            self._dismiss(worker)

    def _spawn(self) -> _Worker:
        open_standard_streams()
        context = multiprocessing.get_context("spawn")
        tasks_out, tasks_in = context.Pipe(duplex=False)
        reports_out, reports_in = context.Pipe(duplex=False)
        process = context.Process(
            target=serve, args=(tasks_out, reports_in, self._spec), name="vltrack-worker", daemon=True
        )
        try:
            with _child_environment():
                process.start()
        except OSError as error:
            for end in (tasks_out, tasks_in, reports_out, reports_in):
                end.close()
            raise ResourceError(f"Cannot start a worker process: {error.strerror}.") from error
        tasks_out.close()
        reports_in.close()
        deadline = time.monotonic() + self._timeouts.start
        return _Worker(process=process, tasks=tasks_in, reports=reports_out, deadline=deadline)

    def _begin(self, worker: _Worker) -> None:
        worker.reset(worker.task, time.monotonic() + self._timeouts.first)
        with suppress(OSError):  # it has just ended, which ``events`` will notice
            worker.tasks.send(worker.task)

    def _receive(self, worker: _Worker, found: list[WorkerEvent]) -> bool:
        """Handle all waiting messages; return whether the pipe is still open."""
        try:
            while worker.reports.poll():
                self._handle(worker, worker.reports.recv(), found)
        except (EOFError, OSError):
            return False
        return True

    def _handle(self, worker: _Worker, message: tuple[Any, ...], found: list[WorkerEvent]) -> None:
        kind, *rest = message
        if kind == "ready":
            worker.ready, self._failed_starts = True, 0
            worker.deadline = float("inf")
            if worker.task is not None:
                self._begin(worker)
        elif kind == "refused":
            code, text, hint = rest
            raise reported_error(code, text, hint, otherwise=ResourceError)
        elif worker.task is None:
            return
        elif kind == "row":
            worker.rows += rest
            worker.deadline = time.monotonic() + self._timeouts.next
            found.append(Heartbeat(task=worker.task, rows=rest))
        elif kind == "trace":
            worker.trace.append(rest[0])
        elif kind == "done":
            found.append(TaskFinished(task=worker.task, rows=worker.rows))
            worker.reset(None, float("inf"))
        elif kind == "failed":
            error, text, ours = rest
            found.append(worker.failed("raised", text, error=error, traceback="".join(worker.trace)))
            worker.reset(None, float("inf"))
            if not ours:
                self._dismiss(worker)

    def _dismiss(self, worker: _Worker) -> int | None:
        """Kill a worker, close what belongs to it and return its exit code."""
        code = kill(worker.process)
        worker.tasks.close()
        worker.reports.close()
        if code is not None:
            worker.process.close()
        self._workers.remove(worker)
        return code

    def _reap(self, worker: _Worker) -> list[WorkerEvent]:
        """Handle a worker that has ended, by itself or killed from outside."""
        if worker not in self._workers:
            return []
        code = self._dismiss(worker)
        if worker.task is None:
            return []
        how = describe_exit(code)
        if worker.ready:
            return [worker.failed("died", f"the worker process {how}.", exit_signal=signal_name(code))]
        self._failed_starts += 1
        if self._failed_starts >= 3:
            raise ResourceError(
                f"{self._failed_starts} worker processes in a row failed to start; the last one {how}.",
                hint='See what it printed above. A script that calls this needs if __name__ == "__main__".',
            )
        self.submit(worker.task)
        return []

    def _time_out(self, worker: _Worker) -> SequenceFailure:
        """Kill a worker that has sent nothing for too long."""
        limits = self._timeouts
        limit = (limits.next if worker.rows else limits.first) if worker.ready else limits.start
        self._dismiss(worker)
        if not worker.ready:
            raise ResourceError(f"A worker process did not load the tracker within {limit:g} s.")
        return worker.failed("silent", f"no frame came for {limit:g} s; the worker process was ended.")


@contextmanager
def _child_environment() -> Iterator[None]:
    """Set one thread for the child's libraries, and block signals until the child ignores them itself."""
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, NOT_FOR_WORKERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        for key in ENVIRONMENT:
            os.environ.pop(key, None)
        os.environ.update({key: value for key, value in before.items() if key in ENVIRONMENT})
