"""Doing a plan: what is finished stays, the rest is handed to workers, results are written as they come.

Knows the order of things; the workers are a ``WorkerPool``'s, the files a ``ResultWriter``'s.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vltrack.core.errors import DataError, UsageError
from vltrack.evaluation.plan import Plan
from vltrack.evaluation.results import done_record
from vltrack.evaluation.workers import (
    Heartbeat,
    Row,
    SequenceFailure,
    Task,
    TaskFailed,
    TaskFinished,
    Timeouts,
    WorkerEvent,
    WorkerPool,
)
from vltrack.evaluation.writing import ResultWriter, SequenceLock, opened

EventKind = Literal["looked", "started", "frames", "finished", "failed", "waiting"]
_WAIT = 0.5
_POLL = 0.3
_BEAT = 0.1
"""Seconds between two events that only tell of frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgressEvent:
    """Something to show while a run goes on.

    Attributes:
        kind: ``looked`` (first of all: what is there already is counted), ``started``, ``frames``,
            ``finished``, ``failed``, ``waiting`` (what is left is in the hands of another evaluator).
        mode, name: the sequence it is about; "" where it is about none.
        sequences_done, sequences_total: of all modes, those that were there before included.
        frames_done, frames_total: likewise.
        frames_per_second: of all workers together since the first frame; 0 before it.
        seconds_left: at that rate; None while there is none.
        failures: sequences that have failed in this run.
        message: of a failure.
    """

    kind: EventKind
    mode: str
    name: str
    sequences_done: int
    sequences_total: int
    frames_done: int
    frames_total: int
    frames_per_second: float
    seconds_left: float | None
    failures: int
    message: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Degraded:
    """A finished sequence that is not flawless: frames that did not decode (``missing``) or for which the
    network gave no finite box (``invalid``); their rows hold the last box.
    """

    mode: str
    name: str
    missing: int
    invalid: int


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What came of a run.

    Attributes:
        finished: (mode, name) of the sequences that were run now.
        skipped: (mode, name) of those whose results were there already, or came from another evaluator.
        failed: those that have no result, each with its reason.
        degraded: those of ``finished`` and ``skipped`` that are not flawless.
        left_out: (mode, name) of those without a sentence, left out on the user's wish.
        folders: folder of results by mode.
        seconds: how long it took.
    """

    finished: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...]
    failed: tuple[SequenceFailure, ...]
    degraded: tuple[Degraded, ...]
    left_out: tuple[tuple[str, str], ...]
    folders: Mapping[str, Path]
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 if every sequence has a flawless result, else 7."""
        return 7 if self.failed or self.degraded else 0


def run(
    plan: Plan,
    *,
    jobs: int = 1,
    engine: Literal["local", "ray"] = "local",
    rerun: bool = False,
    progress: Callable[[ProgressEvent], None] | None = None,
    patience: Timeouts | None = None,
) -> RunReport:
    """Run every sequence of ``plan`` that has no result yet, and write the results as they come.

    The results are the same for any ``jobs`` and ``engine``, however often the work is broken off: a sequence
    counts only when its record is written, whole sequences are redone, finished ones never. Several processes
    may run the same plan at once. A sequence that fails is recorded, the others go on.

    Args:
        jobs: worker processes; 0 takes as many as there are processors (of the cluster with ``ray``).
        engine: ``local``, or ``ray`` for a Ray cluster (extra ``vltrack[ray]``).
        rerun: remove what the folders hold first.
        progress: is called with an ``ProgressEvent`` from time to time, in this thread.
        patience: after how many seconds of silence a worker is given up.

    Raises:
        StateError: a folder holds results of other weights, options, data or code (names what differs); or
            with ``rerun`` another evaluator is at work there.
        ResourceError: the disk is full or refuses, or no worker can be started; finished sequences are kept.
        UsageError: ``jobs`` is negative, or ``ray`` is not installed.
        KeyboardInterrupt: the user stopped it; finished sequences are kept, the workers have ended.
        And what the tracker raises when it is loaded.
    """
    if jobs < 0:
        raise UsageError("the number of worker processes is negative.", hint="Use 1 or more, 0 for all.")
    crew_of = _engine(engine)
    began = time.monotonic()
    with ExitStack() as stack:
        recorders = {
            str(part.mode): stack.enter_context(opened(part.folder, part.run, rerun=rerun))
            for part in plan.modes
        }
        work = _RunState(plan, recorders, progress or _quiet)
        work.look()
        if work.pending:
            crew = stack.enter_context(closing(crew_of(plan, jobs, patience or Timeouts())))
            work.through(crew)
    return work.report(time.monotonic() - began)


def _engine(name: str) -> Callable[[Plan, int, Timeouts], WorkerPool]:
    """What starts the workers. Raises ``UsageError`` for an unknown engine or one that is not installed."""
    if name == "local":
        return _local
    if name == "ray":
        from vltrack.evaluation.workers_ray import RayPool, check_ray

        check_ray()
        return lambda plan, jobs, patience: RayPool(plan.spec, jobs, patience)
    raise UsageError(f"there is no engine {name!r}.", hint="Known: local, ray.")


def _local(plan: Plan, jobs: int, patience: Timeouts) -> WorkerPool:
    from vltrack.evaluation.workers import LocalPool

    return LocalPool(plan.spec, jobs or os.cpu_count() or 1, patience)


def _quiet(event: ProgressEvent) -> None:
    """Nobody wants to know."""


@dataclass
class _RunState:
    """The state of one run."""

    plan: Plan
    recorders: Mapping[str, ResultWriter]
    progress: Callable[[ProgressEvent], None]
    pending: list[Task] = field(default_factory=list)
    at_work: dict[tuple[str, str], SequenceLock] = field(default_factory=dict)
    finished: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[SequenceFailure] = field(default_factory=list)
    stamps: dict[tuple[str, str], int] = field(default_factory=dict)
    frames_before: int = 0
    frames_now: int = 0
    first_frame: float | None = None
    last_beat: float = 0.0

    def look(self) -> None:
        """Sort what is there from what has to be done, the longest first."""
        for part in self.plan.modes:
            for task in part.tasks:
                recorder = self.recorders[task.mode]
                if recorder.finished(task.sequence.name):
                    self._found(task)
                else:
                    self.stamps[task.key] = recorder.failure_stamp(task.sequence.name)
                    self.pending.append(task)
        self.pending.sort(key=lambda task: (-len(task.sequence), task.sequence.name, task.mode))
        self._tell("looked")

    def through(self, crew: WorkerPool) -> None:
        """Until nothing is left to do."""
        while self.pending or self.at_work:
            self._hand_out(crew)
            if self.at_work:
                for news in crew.news(_WAIT):
                    self._take(news)
            elif self.pending:
                self._tell("waiting", self.pending[0])
                time.sleep(_POLL)

    def _hand_out(self, crew: WorkerPool) -> None:
        """Give tasks to whoever is free; those that another evaluator has in hand stay pending."""
        for task in list(self.pending):
            if not crew.free():
                return
            recorder, name = self.recorders[task.mode], task.sequence.name
            claim = recorder.claim(name)
            if claim is None:
                continue
            self.pending.remove(task)
            if self._done_elsewhere(task):
                claim.release()
                continue
            self.at_work[task.key] = claim
            crew.give(task)
            self._tell("started", task)

    def _done_elsewhere(self, task: Task) -> bool:
        """Whether another evaluator has finished or failed this sequence since we looked."""
        recorder, name = self.recorders[task.mode], task.sequence.name
        if recorder.finished(name):
            self._found(task)
            self._tell("finished", task)
            return True
        if recorder.failure_stamp(name) > self.stamps[task.key]:
            self._note_failure(task, recorder.failure(name), at=0)
            return True
        return False

    def _take(self, news: WorkerEvent) -> None:
        if isinstance(news, Heartbeat):
            self._count(news)
        elif isinstance(news, TaskFinished):
            self._keep(news.task, news.rows)
        elif isinstance(news, TaskFailed):
            self._fail(news.task, news.failure)

    def _count(self, beat: Heartbeat) -> None:
        now = time.monotonic()
        self.first_frame = self.first_frame or now
        self.frames_now += beat.frames
        if now - self.last_beat > _BEAT:
            self.last_beat = now
            self._tell("frames", beat.task)

    def _keep(self, task: Task, rows: list[Row]) -> None:
        try:
            self.recorders[task.mode].keep(task, rows)
        except DataError as error:
            failure = SequenceFailure(
                mode=task.mode,
                name=task.sequence.name,
                kind="invalid",
                message=str(error.message),
                error=error.code,
                frame=len(rows),
            )
            self._fail(task, failure)
            return
        self.finished.append(task.key)
        self.at_work.pop(task.key).release()
        self._tell("finished", task)

    def _fail(self, task: Task, failure: SequenceFailure) -> None:
        self.recorders[task.mode].fail(failure)
        self.at_work.pop(task.key).release()
        self._note_failure(task, failure, at=failure.frame)

    def _note_failure(self, task: Task, failure: SequenceFailure, *, at: int) -> None:
        """Count the frames that nobody will do as done, so that the time left stays true."""
        self.failed.append(failure)
        self.frames_before += max(0, len(task.sequence) - at)
        self._tell("failed", task, failure.message)

    def _found(self, task: Task) -> None:
        self.skipped.append(task.key)
        self.frames_before += len(task.sequence)

    def _tell(self, kind: EventKind, task: Task | None = None, message: str = "") -> None:
        rate, left = self._rate()
        self.progress(
            ProgressEvent(
                kind=kind,
                mode=task.mode if task else "",
                name=task.sequence.name if task else "",
                sequences_done=len(self.finished) + len(self.skipped) + len(self.failed),
                sequences_total=sum(len(part.tasks) for part in self.plan.modes),
                frames_done=self.frames_before + self.frames_now,
                frames_total=self.plan.frames,
                frames_per_second=rate,
                seconds_left=left,
                failures=len(self.failed),
                message=message,
            )
        )

    def _rate(self) -> tuple[float, float | None]:
        """Frames a second, and seconds left."""
        taken = time.monotonic() - self.first_frame if self.first_frame is not None else 0.0
        if taken <= 0 or self.frames_now < 2:
            return 0.0, None
        rate = (self.frames_now - 1) / taken
        return rate, max(0.0, self.plan.frames - self.frames_before - self.frames_now) / rate

    def report(self, seconds: float) -> RunReport:
        """What came of it."""
        return RunReport(
            finished=tuple(self.finished),
            skipped=tuple(self.skipped),
            failed=tuple(self.failed),
            degraded=tuple(self._degraded()),
            left_out=tuple((str(part.mode), name) for part in self.plan.modes for name in part.left_out),
            folders=self.plan.folders,
            seconds=seconds,
        )

    def _degraded(self) -> list[Degraded]:
        order = {key: n for n, key in enumerate(t.key for part in self.plan.modes for t in part.tasks)}
        found = []
        for mode, name in sorted([*self.finished, *self.skipped], key=order.__getitem__):
            record: dict[str, Any] = done_record(self.plan.folders[mode], name) or {"statuses": {}}
            missing, invalid = (int(record["statuses"].get(k, 0)) for k in ("missing", "invalid"))
            if missing or invalid:
                found.append(Degraded(mode=mode, name=name, missing=missing, invalid=invalid))
        return found
