"""What people read: standard error, progress, errors in one line. Knows terminals; knows nothing of videos
or models.

Data goes to standard output, everything else to standard error. Colour and bars only where standard error is
a terminal and ``NO_COLOR`` is not set.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Protocol, Self

from vltrack.core.errors import VltrackError
from vltrack.core.files import printable

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
EXIT_PIPE_CLOSED = 141


class Advance(Protocol):
    """Tells a progress bar that one more piece is done."""

    def __call__(self, note: str = "") -> None: ...


def shown(text: str | os.PathLike[str]) -> str:
    """A file name or sentence made safe for a terminal: control characters and broken Unicode are escaped."""
    return printable(os.fspath(text))


def colours() -> bool:
    """Whether people's text may be coloured."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say(message: str) -> None:
    """One line for people, on standard error."""
    sys.stderr.write(f"{shown(message)}\n")
    sys.stderr.flush()


def warn(message: str) -> None:
    """One warning line, on standard error."""
    mark = "\x1b[33mwarning\x1b[0m" if colours() else "warning"
    sys.stderr.write(f"vltrack: {mark}: {shown(message)}\n")
    sys.stderr.flush()


def emit(record: Mapping[str, object]) -> None:
    """One JSON object as one line of data, on standard output."""
    sys.stdout.write(json.dumps(record, allow_nan=False) + "\n")
    sys.stdout.flush()


def error_line(error: VltrackError, *, as_json: bool) -> str:
    """The one line that tells of an error: text, or with ``--json`` an object."""
    if as_json:
        body = {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "exit_code": error.exit_code,
        }
        return json.dumps({"error": body}, allow_nan=False)
    mark = "\x1b[31merror\x1b[0m" if colours() else "error"
    return f"vltrack: {mark}[{error.code}]: {shown(str(error))}"


def report_error(error: VltrackError, *, as_json: bool = False, debug: bool = False) -> int:
    """Print ``error`` on standard error (the trace before it with ``--debug``) and return its exit code."""
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    sys.stderr.write(error_line(error, as_json=as_json) + "\n")
    sys.stderr.flush()
    return error.exit_code


def write_crash_report(error: BaseException) -> Path:
    """Write version, command line and trace of a bug of ours to a file in the temporary folder; return its
    path.
    """
    import platform

    from vltrack import __version__

    name = f"vltrack-crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    path = Path(tempfile.gettempdir()) / name
    head = [
        f"vltrack {__version__}, Python {platform.python_version()}, {platform.platform()}",
        "command: " + " ".join(shown(word) for word in sys.argv),
        "",
    ]
    text = "\n".join(head) + "\n" + "".join(traceback.format_exception(error))
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


@contextmanager
def progress(label: str, total: int | None, *, quiet: bool = False) -> Iterator[Advance]:
    """A bar with count, rate and time left on a terminal; nothing elsewhere. ``total`` None: length unknown.

    Yields:
        A function to call once a piece, with a short note to show.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda note="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),  # a target's name is no markup
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, rate="", note="")
        began, done = time.monotonic(), 0

        def advance(note: str = "") -> None:
            nonlocal done
            done += 1
            rate = done / max(time.monotonic() - began, 1e-9)
            bar.update(task, advance=1, rate=f"{rate:.1f}/s", note=shown(note))

        yield advance


# MERGED api/console.py
# Ctrl-C and SIGTERM between frames, never within one. Knows signals; knows nothing of what is being done.


SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM, so that it takes the same way out as Ctrl-C."""


class Shield:
    """``with shield:`` lets a signal wait until the block is left; elsewhere it raises at once.

    So a frame is in all outputs or in none, and a second Ctrl-C does not break the saving that the first
    began.
    """

    def __init__(self) -> None:
        self._up = False
        self._waiting: KeyboardInterrupt | None = None

    def meet(self, number: int, frame: FrameType | None = None) -> None:
        """The signal handler. Raises ``KeyboardInterrupt`` or its kind ``Terminated``, now or later."""
        stop = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
        if not self._up:
            raise stop
        self._waiting = stop

    def __enter__(self) -> Self:
        self._up = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._up = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None and error is None:
            raise waiting


@contextmanager
def shielded() -> Iterator[Shield]:
    """A shield that meets Ctrl-C and SIGTERM while the block runs; a bystander outside the main thread."""
    shield = Shield()
    if threading.current_thread() is not threading.main_thread():
        yield shield
        return
    before = {number: signal.signal(number, shield.meet) for number in SIGNALS}
    try:
        yield shield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
