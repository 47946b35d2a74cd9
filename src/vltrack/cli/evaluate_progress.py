"""How a run over a data set is shown while it goes on: a bar on a terminal, a line now and then elsewhere.

Knows events and terminals; knows no tracker. All goes to standard error.
"""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from vltrack.cli.console import say, shown, warn

if TYPE_CHECKING:
    from vltrack.evaluation.run import Event

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

    def __call__(self, event: Event) -> None:
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

    def _line(self, event: Event) -> None:
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


def _left(event: Event) -> str:
    """Time left, in words that fit beside a bar."""
    if event.seconds_left is None:
        return ""
    minutes, seconds = divmod(round(event.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d} left" if hours else f"{minutes}:{seconds:02d} left"


def _note(event: Event) -> str:
    """What is being done, and what went wrong so far."""
    failed = f"{event.failures} failed; " if event.failures else ""
    if event.kind == "waiting":
        return f"{failed}waiting for another evaluation"
    return failed + shown(f"{event.name} ({event.mode})" if event.name else "")
