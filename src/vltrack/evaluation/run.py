"""Run trackers: over the sequences of a plan, in workers and without those that are finished; and over the
images of referring expressions, in this process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vltrack.core.errors import DataError, GroundingFailed, PromptEmpty, UsageError
from vltrack.evaluation.plan import Plan
from vltrack.evaluation.results import done_record, is_finished
from vltrack.evaluation.workers import (
    Heartbeat,
    LocalPool,
    Row,
    SequenceFailure,
    Task,
    TaskFinished,
    Timeouts,
    TrackerSpec,
)
from vltrack.evaluation.writing import ResultWriter, open_writer, release
from vltrack.metrics.success import Grounding, grounding

if TYPE_CHECKING:
    from filelock import FileLock

    from vltrack.datasets.referring import ReferringSet
    from vltrack.evaluation.workers_ray import RayPool

EventKind = Literal["looked", "started", "frames", "finished", "failed", "waiting"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgressEvent:
    """Progress of a run.

    Attributes:
        kind: ``looked`` (the first one: existing results are counted), ``started``, ``frames``, ``finished``,
            ``failed``, ``waiting`` (other evaluators run all that is left).
        mode, name: of the sequence; "" where the event is about none.
        sequences_done, sequences_total: of all modes, existing results included.
        frames_done, frames_total: likewise.
        frames_per_second: of all workers together since the first frame; 0 before it.
        seconds_left: at that rate; None without a rate.
        failures: sequences that failed in this run.
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
    """A finished sequence with frames that did not decode (``missing``) or for which the network gave no
    finite box (``invalid``); their rows repeat the last box.
    """

    mode: str
    name: str
    missing: int
    invalid: int


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Outcome of a run.

    Attributes:
        finished: (mode, name) of the sequences that were run now.
        skipped: (mode, name) of those that had results already, or got them from another evaluator.
        failed: those without a result, each with its reason.
        degraded: those of ``finished`` and ``skipped`` with missing or invalid frames.
        left_out: (mode, name) of those without a sentence that the user chose to leave out.
        folders: folder of results by mode.
        seconds: that the run took.
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
        """0 if every sequence has a result without missing or invalid frames, else 7."""
        return 7 if self.failed or self.degraded else 0


def run(
    plan: Plan,
    *,
    jobs: int = 1,
    engine: Literal["local", "ray"] = "local",
    rerun: bool = False,
    progress: Callable[[ProgressEvent], None] | None = None,
    timeouts: Timeouts | None = None,
) -> RunReport:
    """Run every sequence of ``plan`` that has no result yet, and write the results as they arrive.

    The results are the same for any ``jobs`` and ``engine``, however often the run is interrupted: a sequence
    counts only when its record is written, incomplete ones are redone, finished ones never. Several processes
    may run the same plan at once. A sequence that fails is recorded, the others go on.

    Args:
        plan: made by ``make_plan``.
        jobs: worker processes; 0 takes one per processor (of the cluster with ``ray``).
        engine: ``local``, or ``ray`` for a Ray cluster (extra ``vltrack[ray]``).
        rerun: remove the contents of the folders first.
        progress: called with a ``ProgressEvent`` from time to time, in this thread.
        timeouts: after how many seconds without a message a worker is killed.

    Raises:
        StateError: a folder holds results of other weights, options, data or code (what differs is listed);
            or ``rerun`` while another evaluator is at work there.
        ResourceError: the disk is full or refuses, or no worker can be started; finished sequences are kept.
        UsageError: ``jobs`` is negative, or ``ray`` is not installed.
        KeyboardInterrupt: the user stopped it; finished sequences are kept, the workers have ended.
        And what the tracker raises when it is loaded.
    """
    if jobs < 0:
        raise UsageError(f"Negative number of worker processes: {jobs}.", hint="Use 1 or more, 0 for all.")
    if engine == "ray":
        from vltrack.evaluation.workers_ray import check_ray

        check_ray()
    began = time.monotonic()
    with ExitStack() as stack:
        writers = {
            str(part.mode): stack.enter_context(open_writer(part.folder, part.run, rerun=rerun)) for part in plan.modes
        }
        state = _RunState(plan, writers, progress or (lambda event: None))
        state.find_pending()
        if state.pending:
            pool = start_pool(plan.spec, engine, jobs, timeouts or Timeouts())
            state.run_pending(stack.enter_context(closing(pool)))
    return state.report(time.monotonic() - began)


def start_pool(spec: TrackerSpec, engine: str, jobs: int, timeouts: Timeouts) -> LocalPool | RayPool:
    """Start ``jobs`` worker processes; 0 is one per processor. Raises ``ResourceError``."""
    if engine == "local":
        return LocalPool(spec, jobs or os.cpu_count() or 1, timeouts)
    from vltrack.evaluation.workers_ray import RayPool

    return RayPool(spec, jobs, timeouts)


@dataclass
class _RunState:
    """State of a run: finished, running and pending sequences."""

    plan: Plan
    writers: Mapping[str, ResultWriter]
    progress: Callable[[ProgressEvent], None]
    pending: list[Task] = field(default_factory=list)
    running: dict[tuple[str, str], tuple[Task, FileLock]] = field(default_factory=dict)
    finished: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[SequenceFailure] = field(default_factory=list)
    old_failures: dict[tuple[str, str], int] = field(default_factory=dict)
    frames_before: int = 0
    frames_now: int = 0
    first_frame: float | None = None
    last_event: float = 0.0

    def find_pending(self) -> None:
        """Separate finished sequences from those to be run, the longest first."""
        for part in self.plan.modes:
            for task in part.tasks:
                writer = self.writers[task.mode]
                if is_finished(writer.folder, task.sequence.name):
                    self._skip(task)
                else:
                    self.old_failures[task.key] = writer.failure_time(task.sequence.name)
                    self.pending.append(task)
        self.pending.sort(key=lambda task: (-len(task.sequence), task.sequence.name, task.mode))
        self._report_progress("looked")

    def run_pending(self, pool: LocalPool | RayPool) -> None:
        """Submit tasks and handle what the workers send, until nothing is left."""
        while self.pending or self.running:
            self._submit(pool)
            if self.running:
                for event in pool.events(0.5):
                    if isinstance(event, Heartbeat):
                        self._count(event)
                    elif isinstance(event, TaskFinished):
                        self._keep(event.task, event.rows)
                    else:
                        self._fail(event)
            elif self.pending:
                self._report_progress("waiting", self.pending[0])
                time.sleep(0.3)

    def _submit(self, pool: LocalPool | RayPool) -> None:
        """Submit tasks to idle workers; those that another evaluator holds stay pending."""
        for task in list(self.pending):
            if not pool.has_idle():
                return
            lock = self.writers[task.mode].lock(task.sequence.name)
            if lock is None:
                continue
            self.pending.remove(task)
            if self._done_elsewhere(task):
                release(lock)
                continue
            self.running[task.key] = (task, lock)
            pool.submit(task)
            self._report_progress("started", task)

    def _done_elsewhere(self, task: Task) -> bool:
        """Return whether another evaluator has finished or failed this sequence since ``find_pending``."""
        writer, name = self.writers[task.mode], task.sequence.name
        if is_finished(writer.folder, name):
            self._skip(task)
            self._report_progress("finished", task)
            return True
        if writer.failure_time(name) > self.old_failures[task.key]:
            self._note_failure(task, writer.failure(name), at=0)
            return True
        return False

    def _count(self, event: Heartbeat) -> None:
        now = time.monotonic()
        self.first_frame = self.first_frame or now
        self.frames_now += len(event.rows)
        if now - self.last_event > 0.1:  # seconds, at least, between two events that only count frames
            self.last_event = now
            self._report_progress("frames", event.task)

    def _keep(self, task: Task, rows: list[Row]) -> None:
        try:
            self.writers[task.mode].keep(task, rows)
        except DataError as error:
            self._fail(task.failed("invalid", error.message, error=error.code, frame=len(rows)))
            return
        self.finished.append(task.key)
        release(self.running.pop(task.key)[1])
        self._report_progress("finished", task)

    def _fail(self, failure: SequenceFailure) -> None:
        self.writers[failure.mode].fail(failure)
        task, lock = self.running.pop((failure.mode, failure.name))
        release(lock)
        self._note_failure(task, failure, at=failure.frame)

    def _note_failure(self, task: Task, failure: SequenceFailure, *, at: int) -> None:
        """Note a failure; its frames from ``at`` on count as done, so that the time left stays right."""
        self.failed.append(failure)
        self.frames_before += max(0, len(task.sequence) - at)
        self._report_progress("failed", task, failure.message)

    def _skip(self, task: Task) -> None:
        self.skipped.append(task.key)
        self.frames_before += len(task.sequence)

    def _report_progress(self, kind: EventKind, task: Task | None = None, message: str = "") -> None:
        taken = time.monotonic() - self.first_frame if self.first_frame is not None else 0.0
        rate = (self.frames_now - 1) / taken if taken > 0 and self.frames_now > 1 else 0.0
        frames_done = self.frames_before + self.frames_now
        self.progress(
            ProgressEvent(
                kind=kind,
                mode=task.mode if task else "",
                name=task.sequence.name if task else "",
                sequences_done=len(self.finished) + len(self.skipped) + len(self.failed),
                sequences_total=sum(len(part.tasks) for part in self.plan.modes),
                frames_done=frames_done,
                frames_total=self.plan.frames,
                frames_per_second=rate,
                seconds_left=max(0.0, self.plan.frames - frames_done) / rate if rate else None,
                failures=len(self.failed),
                message=message,
            )
        )

    def report(self, seconds: float) -> RunReport:
        """Build the final report."""
        return RunReport(
            finished=tuple(self.finished),
            skipped=tuple(self.skipped),
            failed=tuple(self.failed),
            degraded=tuple(self._degraded()),
            left_out=tuple((str(part.mode), name) for part in self.plan.modes for name in part.run["left_out"]),
            folders=self.plan.folders,
            seconds=seconds,
        )

    def _degraded(self) -> list[Degraded]:
        done = {*self.finished, *self.skipped}
        found = []
        for mode, name in (task.key for part in self.plan.modes for task in part.tasks):
            record = done_record(self.plan.folders[mode], name) if (mode, name) in done else None
            missing, invalid = (int(record["statuses"].get(k, 0)) if record else 0 for k in ("missing", "invalid"))
            if missing or invalid:
                found.append(Degraded(mode=mode, name=name, missing=missing, invalid=invalid))
        return found


# -- referring expressions ----------------------------------------------------------------------------------


def evaluate_grounding(
    phrases: ReferringSet, weights: str | Path, *, progress: Callable[[], None], **loading: Any
) -> dict[str, Grounding]:
    """Score text-only initialization (``Tracker.init``) on every split; without a found box the overlap is 0.

    Args:
        phrases: the splits that are scored.
        weights: name or path of a model.
        progress: called after every expression.
        loading: options of ``Tracker.load``: ``device``, ``policy``.

    Raises:
        DataError: no expressions, or an image that cannot be read.
        And what ``Tracker.load`` raises.
    """
    from vltrack.tracking.tracker import Tracker

    if not len(phrases):
        raise DataError(f"No expressions in {phrases.root}.", hint="Check the data set.")
    tracker = Tracker.load(weights, threads=1, anyway=True, **loading)
    found = np.full((len(phrases), 4), np.nan)
    for row, (image, phrase, _) in enumerate(phrases.samples()):
        with suppress(GroundingFailed, PromptEmpty):  # then the row stays without a box
            found[row] = tracker.init(image, text=phrase).box
        progress()
    scores, begin = {}, 0
    for split in phrases.splits:
        end = begin + len(split)
        if end > begin:
            scores[split.split] = grounding(found[begin:end], split.boxes)
        begin = end
    return scores
