"""Worker processes on this machine, watched: a silent or dead one is replaced. Knows processes and pipes.

Processes are started by ``spawn``, hold nothing that a kill could damage, and write nothing: what they find
goes through a pipe, a small message a frame, which is their heartbeat as well.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, cast

from vltrack.core import errors
from vltrack.core.errors import ResourceError, VltrackError
from vltrack.evaluation.outcome import Beat, Failed, Failure, Finished, News, Patience
from vltrack.evaluation.worker import ENVIRONMENT, NOT_FOR_WORKERS, Loading, Row, Task, serve

_BURIAL = 5.0
_STILLBORN = 3
"""Workers in a row that may end before they are ready."""


@dataclass(eq=False)
class _Hand:
    """One worker process and what it is doing."""

    process: SpawnProcess
    tasks: Connection
    reports: Connection
    deadline: float
    task: Task | None = None
    ready: bool = False
    rows: list[Row] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)


class LocalCrew:
    """``jobs`` worker processes on this machine. See ``outcome.Crew``."""

    def __init__(self, loading: Loading, jobs: int, patience: Patience) -> None:
        self._loading, self._jobs, self._patience = loading, jobs, patience
        self._hands: list[_Hand] = []
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

    def news(self, timeout: float) -> list[News]:
        """What the workers tell within ``timeout`` seconds; the dead and the silent are buried here.

        Raises:
            VltrackError: the tracker cannot be loaded, as ``Tracker.load`` raises it.
            ResourceError: several workers in a row died before they were ready.
        """
        nearest = min((hand.deadline for hand in self._hands), default=time.monotonic() + timeout)
        patience = max(0.0, min(timeout, nearest - time.monotonic()))
        ready = set(wait([w for h in self._hands for w in (h.reports, h.process.sentinel)], patience))
        found: list[News] = []
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

    def _hire(self) -> _Hand:
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
        return _Hand(process=process, tasks=tasks_in, reports=reports_out, deadline=deadline)

    def _begin(self, hand: _Hand) -> None:
        hand.rows, hand.trace = [], []
        hand.deadline = time.monotonic() + self._patience.first
        try:
            hand.tasks.send(hand.task)
        except OSError:
            return  # it has just died, which ``news`` will see

    def _listen(self, hand: _Hand, found: list[News]) -> bool:
        """Take all messages that are there; whether the worker can still be heard."""
        try:
            while hand.reports.poll():
                self._take(hand, hand.reports.recv(), found)
        except (EOFError, OSError):
            return False
        return True

    def _take(self, hand: _Hand, message: tuple[Any, ...], found: list[News]) -> None:
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
            found.append(Beat(task=hand.task))
        elif kind == "trace":
            hand.trace.append(rest[0])
        elif kind == "done":
            found.append(Finished(task=hand.task, rows=hand.rows))
            self._rest(hand)
        elif kind == "failed":
            error, message_, ours = rest
            trace = "".join(hand.trace)
            found.append(self._failed(hand, "raised", message_, error=error, traceback=trace))
            self._rest(hand)
            if not ours:
                self._dismiss(hand)

    def _rest(self, hand: _Hand) -> None:
        hand.task, hand.rows, hand.trace = None, [], []
        hand.deadline = float("inf")

    def _dismiss(self, hand: _Hand) -> None:
        hand.process.kill()
        _end(hand)
        self._hands.remove(hand)

    def _bury(self, hand: _Hand) -> list[News]:
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

    def _give_up(self, hand: _Hand) -> list[News]:
        """A worker has been silent for too long."""
        limits = self._patience
        limit = (limits.next if hand.rows else limits.first) if hand.ready else limits.start
        self._dismiss(hand)
        if not hand.ready:
            raise ResourceError(f"a worker process did not load the tracker within {limit:g} s.")
        message = f"no frame came for {limit:g} s; the worker process was ended."
        return [self._failed(hand, "silent", message)]

    def _failed(self, hand: _Hand, kind: str, message: str, **more: str) -> Failed:
        task = cast(Task, hand.task)
        failure = Failure(
            mode=task.mode,
            name=task.sequence.name,
            kind=kind,
            message=message,
            frame=len(hand.rows),
            **more,
        )
        return Failed(task=task, failure=failure)


def refusal(code: str, message: str, hint: str) -> VltrackError:
    """The error of ours that a worker has told of."""
    kind = getattr(errors, code, ResourceError)
    if not (isinstance(kind, type) and issubclass(kind, VltrackError)):
        kind = ResourceError
    return kind(message, hint=hint)


def _end(hand: _Hand) -> None:
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
