"""How an audit is shown while it goes on: a bar over frames on a terminal, a line now and then elsewhere.

Knows frames and targets by their number; all goes to standard error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from vltrack.api.console import say, shown, warn

if TYPE_CHECKING:
    from vltrack.core.types import Frame, Image, Step, Target
    from vltrack.evaluation.audit import MultiTrackerLike
    from vltrack.evaluation.run import ProgressEvent


# MERGED api/progress.py
# How a run over a data set is shown while it goes on: a bar on a terminal, a line now and then elsewhere.
#
# Knows events and terminals; knows no tracker. All goes to standard error.


EVERY = 5.0
"""Seconds between two lines where there is no terminal."""


class RunProgress(AbstractContextManager["RunProgress"]):
    """Shows the events of ``evaluation.run``; ``with RunProgress(name) as shown: run(plan, progress=shown)``.

    On a terminal a bar over the frames of all sequences, with their number, rate and time left. Elsewhere a
    line for a finished sequence, at most every ``EVERY`` seconds, and one for the last. Failures are always
    told, unless ``quiet``.
    """

    def __init__(self, tracker: str = "", *, modes: int = 1, quiet: bool = False) -> None:
        self._quiet = quiet
        self._of = f"sequences in {modes} modes" if modes > 1 else "sequences"
        self._who = f"{tracker}: " if tracker else ""
        self._told = time.monotonic()
        self._bar: Any = None
        self._row: Any = None

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            self._bar, self._row = _bar()
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, event: ProgressEvent) -> None:
        """Show one event."""
        if self._quiet:
            return
        if event.kind == "failed":
            warn(f"{event.name} ({event.mode}) failed: {event.message}")
        if self._bar is not None:
            self._bar.update(
                self._row,
                total=event.frames_total,
                completed=event.frames_done,
                sequences=f"{self._who}{event.sequences_done}/{event.sequences_total} {self._of}",
                rate=f"{event.frames_per_second:.1f} frames/s" if event.frames_per_second else "",
                left=_left(event),
                note=_note(event),
            )
        else:
            self._line(event)

    def _line(self, event: ProgressEvent) -> None:
        """One line, if it is time for one."""
        if event.kind == "looked" and event.sequences_done:
            done = f"{event.sequences_done} of {event.sequences_total}"
            say(f"{self._who}{done} {self._of} have results already")
        last = event.sequences_done == event.sequences_total
        now = time.monotonic()
        if event.kind == "finished" and (last or now - self._told >= EVERY):
            self._told = now
            parts = [
                f"{self._who}{event.sequences_done}/{event.sequences_total} {self._of}",
                f"{event.frames_per_second:.1f} frames/s" if event.frames_per_second else "",
                _left(event),
                f"{event.failures} failed" if event.failures else "",
            ]
            say(", ".join(part for part in parts if part))


def _bar() -> tuple[Any, Any]:
    """A bar of rich that has not begun, and its only row."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (
        TextColumn("{task.fields[sequences]}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[note]}", markup=False),  # a sequence's name is no markup
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    return bar, bar.add_task("", total=None, sequences="", rate="", left="", note="loading the tracker")


def _left(event: ProgressEvent) -> str:
    """Time left, in words that fit beside a bar."""
    if event.seconds_left is None:
        return ""
    minutes, seconds = divmod(round(event.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d} left" if hours else f"{minutes}:{seconds:02d} left"


def _note(event: ProgressEvent) -> str:
    """What is being done, and what went wrong so far."""
    failed = f"{event.failures} failed; " if event.failures else ""
    if event.kind == "waiting":
        return f"{failed}waiting for another evaluation"
    return failed + shown(f"{event.name} ({event.mode})" if event.name else "")


class AuditProgress(AbstractContextManager["AuditProgress"]):
    """Shows how far an audit is; ``watched`` counts the frames of a follower.

    Args:
        follower: what follows the targets.
        what: is audited, one by one: ``targets``, ``scenes``.
        lengths: frames of each; None where that is not known.
        quiet: show nothing.
    """

    def __init__(
        self, follower: MultiTrackerLike, what: str, lengths: list[int | None], *, quiet: bool = False
    ) -> None:
        self.watched = _Watched(follower, self._frame)
        self._what, self._lengths, self._quiet = what, lengths, quiet
        known = [length for length in lengths if length is not None]
        self._total = sum(known) if len(known) == len(lengths) else None
        self._done, self._frames, self._of_finished = 0, 0, 0
        self._began = self._told = time.monotonic()
        self._bar: Any = None
        self._row: Any = None

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            self._bar, self._row = _audit_bar(self._total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def finished(self, name: str = "") -> None:
        """One more target is done, or has failed: its frames count as done, all of them."""
        length = self._lengths[self._done]
        self._of_finished = self._frames if length is None else self._of_finished + length
        self._frames = self._of_finished
        self._done += 1
        self._show(name)

    def _frame(self) -> None:
        self._frames += 1
        self._show()

    def _show(self, name: str = "") -> None:
        if self._quiet:
            return
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._row, completed=self._frames, told=self._words(now), note=shown(name))
        elif now - self._told >= EVERY:
            self._told = now
            say(self._words(now))

    def _words(self, now: float) -> str:
        """Targets, frames, rate and time left, as far as they are known."""
        rate = self._frames / max(now - self._began, 1e-9)
        frames = f"{self._frames} frames" if self._total is None else f"{self._frames}/{self._total} frames"
        parts = [f"{self._done}/{len(self._lengths)} {self._what}", frames, f"{rate:.1f} frames/s"]
        if self._total is not None and rate > 0:
            minutes, seconds = divmod(round((self._total - self._frames) / rate), 60)
            parts.append(f"{minutes}:{seconds:02d} left")
        return ", ".join(parts)


class _Watched:
    """A follower that tells of every frame it was given."""

    def __init__(self, follower: MultiTrackerLike, told: Callable[[], None]) -> None:
        self._follower, self._told = follower, told

    def init(self, frame: Frame | Image, targets: Mapping[str, Target]) -> dict[str, Step]:
        """As the follower's; may be asked more than once of one frame, and is not counted."""
        return self._follower.init(frame, targets)

    def update(self, frame: Frame | Image) -> dict[str, Step]:
        """As the follower's."""
        steps = self._follower.update(frame)
        self._told()
        return steps


def _audit_bar(total: int | None) -> tuple[Any, Any]:
    """A bar of rich that has not begun, and its only row."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("auditing"),
        BarColumn(),
        TextColumn("{task.fields[told]}"),
        TextColumn("{task.fields[note]}", markup=False),  # a target's name is no markup
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    return bar, bar.add_task("", total=total, told="", note="")
