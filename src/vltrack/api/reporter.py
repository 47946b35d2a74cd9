"""Messages, progress and interrupts of a run: every verb takes a ``Reporter``, silent by default."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from vltrack.core.files import counted

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from vltrack.core.types import Frame, Step


class Bar:
    """One progress display; this one shows nothing."""

    def show(
        self, done: int, text: str, *, note: str = "", total: int | None = None, line: bool = True, force: bool = False
    ) -> None:
        """Show the progress.

        Args:
            done, total: units of work; ``total`` replaces the one that the bar was made with.
            text: counts, rate and time left.
            note: name of what is in work.
            line: worth a line of a log without a terminal; such lines are rate-limited unless
                ``force``.
        """


class Reporter:
    """Receives messages and progress. This one ignores them; ``vltrack.cli.console.Console`` prints them.

    Subclass it and override what you need, for example ``warn`` to collect the warnings of a run.
    """

    def note(self, message: str) -> None:
        """Take one message for people, such as the name of a file that was written."""

    def warn(self, message: str) -> None:
        """Take one warning."""

    def bar(self, label: str, total: int | None) -> AbstractContextManager[Bar]:
        """Return a progress display for a piece of work of ``total`` units (None: unknown)."""
        return nullcontext(Bar())

    def steps(self, steps: Mapping[str, Step]) -> None:
        """Take the steps of one frame of ``track``, by target."""

    def frame(self, frame: Frame, steps: Mapping[str, Step]) -> None:
        """Take a frame of ``track`` with its steps, in the thread that tracks; ``KeyboardInterrupt`` ends the run.

        Not called where frames are tracked backward, too.
        """

    def summary(self, record: Mapping[str, Any]) -> None:
        """Take the counts of ``track`` at its end: frames, seen and lost by target, rate, files written."""


QUIET = Reporter()


def warn_of(warnings: Mapping[str, Sequence[str]], count: int, reporter: Reporter) -> None:
    """Pass on warnings by name; each once, and without a name where it is about all ``count``."""
    names: dict[str, list[str]] = {}
    for name, said in warnings.items():
        for warning in said:
            names.setdefault(warning, []).append(name)
    for warning, whose in names.items():
        reporter.warn(warning if len(whose) == count else f"{', '.join(whose)}: {warning}")


def time_left(seconds: float) -> str:
    """Return ``1:02:05 left`` or ``2:05 left``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d} left" if hours else f"{minutes}:{seconds:02d} left"


def pace(done: int, total: int | None, seconds: float) -> str:
    """Return the rate of ``done`` frames in ``seconds`` and, if ``total`` is known, the time left."""
    rate = done / max(seconds, 1e-9)
    left = [time_left((total - done) / rate)] if total is not None and rate > 0 else []
    return ", ".join([f"{rate:.1f} frames/s", *left])


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP after everything that was done is saved; ``result`` is what the function returns."""

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


def interrupted(frames: int) -> str:
    """Return the message of a run that was stopped after so many frames."""
    done = f"after {counted(frames, 'frame')}; what was done is kept" if frames else "before the first frame"
    return f"interrupted {done}."


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C."""


class HungUp(KeyboardInterrupt):
    """SIGHUP (the terminal was closed), handled like Ctrl-C."""


STOPS: dict[int, type[KeyboardInterrupt]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
if hasattr(signal, "SIGHUP"):  # not on Windows
    STOPS[signal.SIGHUP] = HungUp


class Shield:
    """``with shield:`` defers a signal until the block is left; elsewhere it raises at once.

    A frame is therefore in all outputs or in none, and a second Ctrl-C does not break the saving that the
    first one started.
    """

    def __init__(self) -> None:
        self._active = False
        self._pending: KeyboardInterrupt | None = None

    def handle(self, number: int, frame: FrameType | None = None) -> None:
        """Signal handler. Raises what ``STOPS`` says, now or when the block is left."""
        stop = STOPS[number]()
        if not self._active:
            raise stop
        self._pending = stop

    def __enter__(self) -> Self:
        self._active = True
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._active = False
        pending, self._pending = self._pending, None
        if pending is not None and error is None:
            raise pending


@contextmanager
def shielded() -> Iterator[Shield]:
    """Handle Ctrl-C, SIGTERM and SIGHUP by a ``Shield`` while the block runs, in the main thread only.

    One that the caller ignores, as ``nohup`` does, stays so.
    """
    shield = Shield()
    if threading.current_thread() is not threading.main_thread():
        yield shield
        return
    heeded = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, shield.handle) for number in heeded}
    try:
        yield shield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
