"""Worker processes on this machine, watched: a silent or dead one is replaced. Knows processes and pipes.

Processes are started by ``spawn``, hold nothing that a kill could damage, and write nothing: what they find
goes through a pipe, a small message a frame, which is their heartbeat as well.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any, Protocol, cast

from vltrack.core import errors
from vltrack.core.errors import ResourceError, VltrackError
from vltrack.core.threads import ONE_THREAD, PASSIVE

if TYPE_CHECKING:
    from vltrack.core.types import Frame, Step
    from vltrack.datasets.sequences import Sequence


# MERGED evaluation/workers.py
# What a worker process does: load a tracker once, then follow one target after the other, frame by frame.
#
# Knows tasks and a pipe; knows no file of results and no truth beyond the box that a task starts with. Loads
# torch only inside ``load_tracker``.


THREADS = 1
ENVIRONMENT = ONE_THREAD | PASSIVE
"""Set before torch and numpy are loaded."""

NOT_FOR_WORKERS = (signal.SIGINT, signal.SIGTERM)
"""A terminal or a batch system sends these to all processes; the one that started the workers decides."""

OUR_LOADER = "vltrack.evaluation.workers:load_tracker"
PIECE = 900
"""Characters of a trace a message: a pipe takes up to 4096 bytes at once, whole or not at all."""

Row = tuple[float, float, float, float, float, bool, str, float]
"""x, y, w, h, score, visible, status, seconds that the tracker took."""


class TrackerLike(Protocol):
    """What is asked of a tracker."""

    def init(self, frame: Frame, box: Any = None, text: str | None = None) -> Step:
        """Start on a frame with a box, a sentence or both."""
        ...

    def update(self, frame: Frame) -> Step:
        """The target in the next frame."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerSpec:
    """How a worker gets its tracker.

    Attributes:
        loader: ``module:function``; called with this, gives a ``TrackerLike``.
        weights: path of the .safetensors file.
        policy: all options of the tracking policy.
        device: ``cpu``, ``cuda``, ``mps``.
    """

    weights: str
    policy: dict[str, Any]
    device: str = "cpu"
    loader: str = OUR_LOADER


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One sequence in one mode. ``box`` (x, y, w, h in pixels) and ``text`` name the target in frame 1."""

    mode: str
    sequence: Sequence
    box: tuple[float, float, float, float] | None
    text: str | None

    @property
    def key(self) -> tuple[str, str]:
        """Mode and name of the sequence."""
        return self.mode, self.sequence.name

    @property
    def named(self) -> str:
        """What names the target: ``sentence``, ``box`` or ``both``."""
        if self.box is None:
            return "sentence"
        return "box" if self.text is None else "both"


def load_tracker(loading: TrackerSpec) -> TrackerLike:
    """One of our trackers with one thread. Raises what ``Tracker.load`` raises."""
    import cv2

    from vltrack.tracking.postprocess import Policy
    from vltrack.tracking.tracker import Tracker

    cv2.setNumThreads(THREADS)
    return Tracker.load(
        loading.weights, device=loading.device, threads=THREADS, policy=Policy(**loading.policy)
    )


def open_tracker(loading: TrackerSpec) -> TrackerLike:
    """The tracker that ``loading.loader`` makes."""
    module, _, function = loading.loader.partition(":")
    return cast(TrackerLike, getattr(import_module(module), function)(loading))


def follow(tracker: TrackerLike, task: Task) -> Generator[Row, None, None]:
    """A row for each frame of a sequence. Row 1 holds the box that named the target, or in NL mode the
    tracker's own. Times are the tracker's alone, decoding is not in them.

    Raises whatever the tracker or the reading of the frames raises.
    """
    # Whoever breaks off closes this generator, and that one with it: no decoder is left behind.
    with contextlib.closing(_frames(task)) as frames:
        for number, frame in enumerate(frames):
            began = time.perf_counter()
            first = number == 0
            step = tracker.init(frame, box=task.box, text=task.text) if first else tracker.update(frame)
            taken = time.perf_counter() - began
            box = task.box if first and task.box is not None else step.box
            x, y, w, h = (float(v) for v in box)
            yield x, y, w, h, float(step.score), bool(step.visible), str(step.status), taken


def _frames(task: Task) -> Generator[Frame, None, None]:
    """All frames; one that cannot be decoded is a gap, which the tracker answers with status ``missing``.

    Raises what ``Sequence.open_frames`` raises, and in the end what broke the reading off.
    """
    with task.sequence.open_frames() as source:
        yield from source
        if source.report.failure is not None:
            raise source.report.failure


def serve(tasks: Connection, news: Connection, loading: TrackerSpec) -> None:
    """The life of a worker: ``ready``, then for each task ``row`` a frame and ``done``, or ``failed``.

    It ends when ``tasks`` is closed, and at once when the process that started it dies.
    """
    for number in NOT_FOR_WORKERS:
        signal.signal(number, signal.SIG_IGN)
    os.dup2(2, 1)  # what a tracker prints must not mix with the data that the command prints
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        tracker = open_tracker(loading)
    except VltrackError as error:
        news.send(("refused", error.code, error.message[: 2 * PIECE], error.hint[:PIECE]))
        return
    news.send(("ready",))
    while True:
        try:
            task = tasks.recv()
        except EOFError:
            return
        try:
            for row in follow(tracker, task):
                news.send(("row", *row))
        except Exception as error:  # noqa: BLE001 - told to the parent, which records it
            for piece in pieces(error):
                news.send(("trace", piece))
            news.send(("failed", *said(error)))
        else:
            news.send(("done",))


def said(error: Exception) -> tuple[str, str, bool]:
    """Code, message, and whether the error is one of ours: after another, the tracker may be broken."""
    if isinstance(error, VltrackError):
        return error.code, str(error)[:PIECE], True
    return type(error).__name__, str(error)[:PIECE], False


def pieces(error: Exception) -> list[str]:
    """The trace of an error in pieces that a pipe takes whole."""
    text = "".join(traceback.format_exception(error))
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]


def _leave_with_parent() -> None:
    """Nobody takes the results of a worker whose parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        sys.stderr.flush()
        os._exit(1)


# MERGED evaluation/workers.py
# What came of one sequence: rows or a failure. The words between engines and ``run``; plain values.


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """Seconds of silence after which a worker counts as hung.

    Attributes:
        start: until it has loaded the tracker.
        first: until it has done the first frame of a sequence.
        next: from one frame to the next.
    """

    start: float = 120.0
    first: float = 120.0
    next: float = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceFailure:
    """Why a sequence has no result.

    Attributes:
        mode, name: of the sequence.
        kind: ``raised`` (an error), ``silent`` (no frame for too long), ``died`` (the worker ended) or
            ``invalid`` (what came is no result: a box that is not finite, rows missing).
        message: one sentence.
        error: the error's class, "" where there is none.
        traceback: of the error, "" where there is none.
        exit_signal: name of the signal that ended the worker, "" where none did.
        frame: 0-based number of the frame that it did not get beyond.
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
    """Some frames are done."""

    task: Task
    frames: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFinished:
    """All frames of a sequence are done."""

    task: Task
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFailed:
    """A sequence came to nothing."""

    task: Task
    failure: SequenceFailure


WorkerEvent = Heartbeat | TaskFinished | TaskFailed


class WorkerPool(Protocol):
    """Processes that do tasks, wherever they are."""

    def free(self) -> bool:
        """Whether another task can be given now."""
        ...

    def give(self, task: Task) -> None:
        """Let somebody do this task; its end comes through ``news``."""
        ...

    def news(self, timeout: float) -> list[WorkerEvent]:
        """What has happened, or an empty list after ``timeout`` seconds."""
        ...

    def close(self) -> None:
        """End all processes at once; what they were doing is lost."""
        ...


_BURIAL = 5.0
_STILLBORN = 3
"""Workers in a row that may end before they are ready."""


@dataclass(eq=False)
class _Worker:
    """One worker process and what it is doing."""

    process: SpawnProcess
    tasks: Connection
    reports: Connection
    deadline: float
    task: Task | None = None
    ready: bool = False
    rows: list[Row] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)


class LocalPool:
    """``jobs`` worker processes on this machine. See ``outcome.WorkerPool``."""

    def __init__(self, loading: TrackerSpec, jobs: int, patience: Timeouts) -> None:
        self._loading, self._jobs, self._patience = loading, jobs, patience
        self._hands: list[_Worker] = []
        self._stillborn = 0

    def free(self) -> bool:
        """Whether fewer than ``jobs`` tasks are under way."""
        return sum(hand.task is not None for hand in self._hands) < self._jobs

    def give(self, task: Task) -> None:
        """Hand a task to an idle worker, or to a new one. Raises ``ResourceError`` if none can be started."""
        idle = next((hand for hand in self._hands if hand.task is None), None)
        if idle is None:
            idle = self._hire()
            self._hands.append(idle)
        idle.task = task
        if idle.ready:
            self._begin(idle)

    def news(self, timeout: float) -> list[WorkerEvent]:
        """What the workers tell within ``timeout`` seconds; the dead and the silent are buried here.

        Raises:
            VltrackError: the tracker cannot be loaded, as ``Tracker.load`` raises it.
            ResourceError: several workers in a row died before they were ready.
        """
        nearest = min((hand.deadline for hand in self._hands), default=time.monotonic() + timeout)
        patience = max(0.0, min(timeout, nearest - time.monotonic()))
        ready = set(wait([w for h in self._hands for w in (h.reports, h.process.sentinel)], patience))
        found: list[WorkerEvent] = []
        for hand in list(self._hands):
            dead = hand.process.sentinel in ready
            if dead or hand.reports in ready:
                dead = not self._listen(hand, found) or dead
            if dead:
                found += self._bury(hand)
            elif time.monotonic() > hand.deadline and hand.task is not None:
                found += self._give_up(hand)
        return found

    def close(self) -> None:
        """Kill all workers."""
        for hand in self._hands:
            hand.process.kill()
        for hand in self._hands:
            _end(hand)
        self._hands = []

    # -- one worker -------------------------------------------------------------------------------

    def _hire(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        tasks_out, tasks_in = context.Pipe(duplex=False)
        reports_out, reports_in = context.Pipe(duplex=False)
        process = context.Process(
            target=serve, args=(tasks_out, reports_in, self._loading), name="vltrack-worker", daemon=True
        )
        try:
            with _surroundings():
                process.start()
        except OSError as error:
            for end in (tasks_out, tasks_in, reports_out, reports_in):
                end.close()
            raise ResourceError(f"a worker process cannot be started: {error.strerror}.") from error
        tasks_out.close()
        reports_in.close()
        deadline = time.monotonic() + self._patience.start
        return _Worker(process=process, tasks=tasks_in, reports=reports_out, deadline=deadline)

    def _begin(self, hand: _Worker) -> None:
        hand.rows, hand.trace = [], []
        hand.deadline = time.monotonic() + self._patience.first
        try:
            hand.tasks.send(hand.task)
        except OSError:
            return  # it has just died, which ``news`` will see

    def _listen(self, hand: _Worker, found: list[WorkerEvent]) -> bool:
        """Take all messages that are there; whether the worker can still be heard."""
        try:
            while hand.reports.poll():
                self._take(hand, hand.reports.recv(), found)
        except (EOFError, OSError):
            return False
        return True

    def _take(self, hand: _Worker, message: tuple[Any, ...], found: list[WorkerEvent]) -> None:
        kind, *rest = message
        if kind == "ready":
            hand.ready, self._stillborn = True, 0
            hand.deadline = float("inf")
            if hand.task is not None:
                self._begin(hand)
        elif kind == "refused":
            raise refusal(*rest)
        elif hand.task is None:
            return
        elif kind == "row":
            hand.rows.append(cast(Row, tuple(rest)))
            hand.deadline = time.monotonic() + self._patience.next
            found.append(Heartbeat(task=hand.task))
        elif kind == "trace":
            hand.trace.append(rest[0])
        elif kind == "done":
            found.append(TaskFinished(task=hand.task, rows=hand.rows))
            self._rest(hand)
        elif kind == "failed":
            error, message_, ours = rest
            trace = "".join(hand.trace)
            found.append(self._failed(hand, "raised", message_, error=error, traceback=trace))
            self._rest(hand)
            if not ours:
                self._dismiss(hand)

    def _rest(self, hand: _Worker) -> None:
        hand.task, hand.rows, hand.trace = None, [], []
        hand.deadline = float("inf")

    def _dismiss(self, hand: _Worker) -> None:
        hand.process.kill()
        _end(hand)
        self._hands.remove(hand)

    def _bury(self, hand: _Worker) -> list[WorkerEvent]:
        """A worker has ended: of itself, or killed from outside."""
        if hand not in self._hands:
            return []
        hand.process.kill()
        hand.process.join(_BURIAL)
        code = hand.process.exitcode
        name = _signal_name(-code) if code is not None and code < 0 else ""
        how = f"was ended by {name}" if name else f"ended with exit status {code}"
        self._dismiss(hand)
        if hand.task is None:
            return []
        if hand.ready:
            return [self._failed(hand, "died", f"the worker process {how}.", exit_signal=name)]
        self._stillborn += 1
        if self._stillborn >= _STILLBORN:
            raise ResourceError(
                f"{self._stillborn} worker processes in a row failed to start; the last one {how}.",
                hint="Look at what it printed above. A script of yours that calls this needs "
                'if __name__ == "__main__".',
            )
        self.give(hand.task)
        return []

    def _give_up(self, hand: _Worker) -> list[WorkerEvent]:
        """A worker has been silent for too long."""
        limits = self._patience
        limit = (limits.next if hand.rows else limits.first) if hand.ready else limits.start
        self._dismiss(hand)
        if not hand.ready:
            raise ResourceError(f"a worker process did not load the tracker within {limit:g} s.")
        message = f"no frame came for {limit:g} s; the worker process was ended."
        return [self._failed(hand, "silent", message)]

    def _failed(self, hand: _Worker, kind: str, message: str, **more: str) -> TaskFailed:
        task = cast(Task, hand.task)
        failure = SequenceFailure(
            mode=task.mode,
            name=task.sequence.name,
            kind=kind,
            message=message,
            frame=len(hand.rows),
            **more,
        )
        return TaskFailed(task=task, failure=failure)


def refusal(code: str, message: str, hint: str) -> VltrackError:
    """The error of ours that a worker has told of."""
    kind = getattr(errors, code, ResourceError)
    if not (isinstance(kind, type) and issubclass(kind, VltrackError)):
        kind = ResourceError
    return kind(message, hint=hint)


def _end(hand: _Worker) -> None:
    """Close what belongs to a killed worker. One that is stuck in the kernel is left to the system."""
    hand.process.join(_BURIAL)
    hand.tasks.close()
    hand.reports.close()
    if hand.process.exitcode is not None:
        hand.process.close()


@contextmanager
def _surroundings() -> Iterator[None]:
    """One thread for the child's libraries, and it hears of no signal that is its parent's."""
    before = {key: os.environ.get(key) for key in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, NOT_FOR_WORKERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
