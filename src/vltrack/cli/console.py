"""Terminal output of the command: rows and JSON on standard output, everything else on standard error.

Color and bars only where standard error is a terminal and ``NO_COLOR`` is not set.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vltrack.api.reporter import Bar, Reporter
from vltrack.core.errors import VltrackError
from vltrack.core.files import as_resource_error, cache_folder, counted, printable
from vltrack.core.process import show_log

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from vltrack.cli.window import Window
    from vltrack.core.types import Frame, Step

T = TypeVar("T")
EXIT_HUNG_UP, EXIT_INTERRUPTED, EXIT_TERMINATED, EXIT_PIPE_CLOSED = 129, 130, 143, 141
EVERY = 5.0
"""Seconds between two progress lines without a terminal."""


def use_color() -> bool:
    """Return whether text on standard error may be colored."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say(message: str) -> None:
    """Print one line for people on standard error."""
    sys.stderr.write(f"{printable(message)}\n")
    sys.stderr.flush()


def warn(message: str) -> None:
    """Print one warning line on standard error."""
    mark = "\x1b[33mwarning\x1b[0m" if use_color() else "warning"
    sys.stderr.write(f"vltrack: {mark}: {printable(message)}\n")
    sys.stderr.flush()


def emit(record: Mapping[str, object]) -> None:
    """Print one JSON object as one line on standard output."""
    sys.stdout.write(json.dumps(record, allow_nan=False) + "\n")
    sys.stdout.flush()


def emit_lines(lines: Iterable[str]) -> None:
    """Print lines of a table on standard output."""
    for line in lines:
        sys.stdout.write(printable(line) + "\n")
        sys.stdout.flush()


def finish(run: Callable[[], T], show: Callable[[T], None]) -> None:
    """Show the result of a verb, also one that an error or an interrupt carries; then let that go on."""
    try:
        result = run()
    except (VltrackError, KeyboardInterrupt) as error:
        kept = getattr(error, "result", None)
        if kept is not None:
            show(kept)
        raise
    show(result)


class PipeClosed(VltrackError):
    """The reader of an output went away."""

    exit_code = EXIT_PIPE_CLOSED


class Output(io.TextIOWrapper):
    """Standard output or standard error of the process, with errors of ours.

    Raises ``PipeClosed`` where the reader went away, and ``ResourceError`` where standard output cannot be written;
    what cannot be written to standard error is dropped.
    """

    def __init__(self, descriptor: int) -> None:
        before = sys.stdout if descriptor == 1 else sys.stderr
        super().__init__(
            open(descriptor, "wb", closefd=False),  # noqa: SIM115 - as long as the process
            encoding=before.encoding,
            errors="backslashreplace" if before.errors == "strict" else before.errors,
            line_buffering=before.isatty(),
        )

    def write(self, text: str) -> int:
        """Write as a text stream does."""
        with self._errors():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Flush as a text stream does."""
        with self._errors():
            super().flush()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # The buffer can go nowhere; without this the interpreter reports the same error again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            name = "standard output" if self.fileno() == 1 else "standard error"
            if isinstance(error, BrokenPipeError):
                raise PipeClosed(f"The reader of {name} went away.") from error
            if self.fileno() == 1:
                raise as_resource_error(error, Path(name)) from error


class Console(Reporter):
    """A reporter that prints: messages and a bar on standard error, rows of ``track`` on standard output.

    Args:
        quiet: no progress and no summary; warnings are printed all the same.
        as_json: rows and the summary as JSON.
        rows: print the steps of ``track`` as rows, as they come.
        several: the rows have a first column ``target``.
        window: shows the frames of ``track``.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        as_json: bool = False,
        rows: bool = False,
        several: bool = False,
        window: Window | None = None,
    ) -> None:
        self.quiet, self.as_json = quiet, as_json
        self._rows, self._several, self._started, self._window = rows, several, False, window
        if not quiet:
            show_log()

    def note(self, message: str) -> None:
        """Print the message unless ``quiet``."""
        if not self.quiet:
            say(message)

    def warn(self, message: str) -> None:
        """Print the warning."""
        warn(message)

    def bar(self, label: str, total: int | None) -> AbstractContextManager[Bar]:
        """Return a bar on a terminal, lines elsewhere, nothing if ``quiet``."""
        if self.quiet:
            return super().bar(label, total)
        return _terminal_bar(label, total) if sys.stderr.isatty() else nullcontext(_LineBar())

    def steps(self, steps: Mapping[str, Step]) -> None:
        """Print one row per target."""
        if not self._rows:
            return
        from vltrack.api.outputs import table_lines
        from vltrack.core.track import COLUMNS, row_of

        if self.as_json:
            rows = (({"target": name} if self._several else {}) | row_of(step) for name, step in steps.items())
            lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
        else:
            head = [] if self._started else [",".join((*(["target"] if self._several else []), *COLUMNS))]
            lines = [*head, *table_lines(steps, several=self._several)]
        self._started = True
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()

    def frame(self, frame: Frame, steps: Mapping[str, Step]) -> None:
        """Show the frame where there is a window."""
        if self._window is not None:
            self._window.show(frame, steps)

    def summary(self, record: Mapping[str, Any]) -> None:
        """Print the counts of ``track``: a line for people; with JSON and without rows also an object."""
        if self.as_json and not self._rows:
            emit(record)
        if record["frames"]:
            frames, seen = record["frames"], record["seen"]
            where = ", ".join(
                f"{count} of {frames} frames" if len(seen) == 1 else f"{name} in {count}"
                for name, count in seen.items()
            )
            rate = record["frames_per_second"]
            speed = f", {rate:.1f} frames/s" if rate else ""
            name = f"{record['source']}: " if "source" in record else ""
            self.note(f"{name}{counted(frames, 'frame')}{speed}; target visible in {where}.")
            for path in record["outputs"] if rate else ():
                self.note(f"wrote {path}")


class _LineBar(Bar):
    """Prints a line now and then."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def show(self, done: int, text: str, *, line: bool = True, force: bool = False, **more: Any) -> None:
        """Print the text, at most every ``EVERY`` seconds unless ``force``."""
        now = time.monotonic()
        if line and (force or now - self._last >= EVERY):
            self._last = now
            say(text)


@contextmanager
def _terminal_bar(label: str, total: int | None) -> Iterator[Bar]:
    """Bar with the counts, a text (rate, time left) and a note."""
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TextColumn("{task.fields[note]}", markup=False),  # a target's name is not markup
    )
    with Progress(*columns, console=RichConsole(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total, text="", note="")

        class TerminalBar(Bar):
            def show(self, done: int, text: str, *, note: str = "", total: int | None = None, **more: Any) -> None:
                progress.update(task, completed=done, total=total, text=text, note=printable(note))

        yield TerminalBar()


# -- errors -------------------------------------------------------------------------------------------


def report_error(error: VltrackError, *, as_json: bool = False, debug: bool = False) -> int:
    """Print ``error`` in one line on standard error, with ``--json`` as an object; return its exit code.

    With ``--debug`` its trace comes first.
    """
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    if as_json:
        body = {"code": error.code, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}
        sys.stderr.write(json.dumps({"error": body}, allow_nan=False) + "\n")
    else:
        mark = "\x1b[31merror\x1b[0m" if use_color() else "error"
        sys.stderr.write(f"vltrack: {mark}[{error.code}]: {printable(str(error))}\n")
    sys.stderr.flush()
    return error.exit_code


def write_crash_report(error: BaseException) -> Path:
    """Write version, command line and trace of a bug to a file that only its owner reads; return its path.

    Into ``crashes`` in the cache folder, else into the temporary folder. Addresses lose user name and password.
    """
    import platform

    from vltrack import __version__

    name = f"vltrack-crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    head = f"vltrack {__version__}, Python {platform.python_version()}, {platform.platform()}"
    command = "command: " + " ".join(map(printable, sys.argv))
    text = without_passwords("\n".join([head, command, "", *traceback.format_exception(error)]))
    try:
        path = cache_folder() / "crashes" / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except (OSError, VltrackError):
        path = Path(tempfile.mkdtemp(prefix="vltrack-")) / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return path


def without_passwords(text: str) -> str:
    """Return the text with the user name and password of every address in it replaced by ``***``."""
    return re.sub(r"://\S*@", "://***@", text)
