"""Entry point of the command: its verbs, and the exit code of every outcome.

Exit codes: 0 done; 1 a bug (a crash report is written); 2 usage; 3 input; 4 data; 5 model; 6
resource; 7 partial result; 8 diverged; 9 state; 10 nothing fits the text; 130 / 143 / 129 stopped by Ctrl-C /
SIGTERM / SIGHUP after saving.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Annotated, Any, NoReturn

import typer
from typer import Option
from typer.core import TyperGroup

from vltrack import __version__
from vltrack.api import inputs
from vltrack.api.reporter import STOPS, HungUp, Interrupted, Terminated
from vltrack.cli import convert, correct, datasets, evaluate, find, models, studio, track
from vltrack.cli.console import (
    EXIT_HUNG_UP,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    Output,
    report_error,
    say,
    without_passwords,
    write_crash_report,
)
from vltrack.core.errors import ResourceError, UsageError, VltrackError
from vltrack.core.files import printable
from vltrack.core.rank import silence_torch
from vltrack.core.threads import wait_passively

# typer re-exports click's errors (and carries its own copy in newer versions); their common base has no
# public name.
_CommandLineError: type[Exception] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)


class _Verbs(TyperGroup):
    """The verbs, with their own end after Ctrl-C, SIGTERM or SIGHUP; typer would exit with 130 for all."""

    def invoke(self, context: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt as stop:
            raise typer.Exit(_interrupted(stop)) from stop


EPILOG = """
\b
Examples:
  vltrack demo
  vltrack track clip.mp4 --text "the white car on the left" -o boxes.csv -o seen.mp4
  vltrack track clip.mp4 --box 120,40,60,80
  vltrack find clip.mp4 --text "the dog" -o seen.png
"""
COMMANDS: dict[str, Callable[..., None]] = {
    "track": track.track,
    "find": find.find,
    "studio": studio.studio,
    "review": correct.review,
    "correct": correct.correct,
    "compare": track.compare,
    "convert": convert.convert,
    "evaluate": evaluate.evaluate,
    "which-rule": evaluate.which_rule,
    "verify": evaluate.verify,
    "report": evaluate.report,
    "audit": evaluate.audit,
    "tune": evaluate.tune,
    "demo": track.demo,
    "train": models.train,
    "ablate": models.ablate,
    "import-weights": models.import_weights,
    "init-weights": models.init_weights,
    "export": models.export,
    "models": models.models,
    "doctor": models.doctor,
}
GROUPS = {"datasets": datasets.app, "data": datasets.app}
"""One verb by two names."""


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"vltrack {__version__}\n")
        raise typer.Exit


def _root(
    context: typer.Context,
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[
        bool, Option("--debug", help="Show the full traceback of an error (also accepted after the verb).")
    ] = False,
) -> None:
    """Name a target in a video with a sentence, a box, or both, and get its box in every frame."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def build(verb: str = "") -> typer.Typer:
    """Return the command with all its verbs; only with ``verb`` if it is one: typer reads each one's parameters."""
    app = typer.Typer(
        name="vltrack",
        cls=_Verbs,
        epilog=EPILOG,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain help: rich costs a tenth of a second
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    if verb in COMMANDS:
        app.command(verb)(COMMANDS[verb])
        return app
    for name, function in COMMANDS.items():
        app.command(name)(function)
    for name, group in GROUPS.items():
        same = "The same as datasets: list, check, convert, imitate, synthesize."
        app.add_typer(group, name=name, help=same if name == "data" else group.info.help)
    return app


def main(words: Sequence[str]) -> int:
    """Run one command line and return its exit code. Bugs are raised."""
    own = words[: words.index("--")] if "--" in words else words
    as_json, debug = "--json" in own, "--debug" in own
    wait_passively()
    silence_torch()
    command = typer.main.get_command(build(*words[:1]))
    try:
        result = command.main(args=list(words), prog_name="vltrack", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except VltrackError as error:
        return report_error(error, as_json=as_json, debug=debug)
    except MemoryError as error:
        full = ResourceError("Memory ran out.", hint="Try a smaller video or fewer targets.")
        full.__cause__ = error
        return report_error(full, as_json=as_json, debug=debug)
    except OSError as error:
        if error.errno is None or error.filename is None:
            raise
        refused = ResourceError(f"Cannot use {printable(os.fsdecode(error.filename))}: {error.strerror}.")
        refused.__cause__ = error
        return report_error(refused, as_json=as_json, debug=debug)
    except _CommandLineError as error:
        verb = f" {words[0]}" if words and words[0] in (*COMMANDS, *GROUPS) else ""
        unquoted = "extra argument" in str(error) and {"--text", "-t"} & set(words)
        hint = inputs.QUOTES if unquoted else f"See vltrack{verb} --help."
        usage = UsageError(_sentence(error), hint=hint)
        return report_error(usage, as_json=as_json, debug=debug)
    except (KeyboardInterrupt, typer.Abort) as stop:
        return _interrupted(stop)


def _interrupted(stop: BaseException) -> int:
    """Print what is kept and return the exit code."""
    say(str(stop) if isinstance(stop, Interrupted) else "interrupted.")
    codes: dict[object, int] = {Terminated: EXIT_TERMINATED, HungUp: EXIT_HUNG_UP}
    cause = stop.__cause__ if isinstance(stop, Interrupted) else stop
    return codes.get(type(cause), EXIT_INTERRUPTED)


def _sentence(error: Exception) -> str:
    """Return the message of a command line error, ended like a sentence."""
    text = str(getattr(error, "format_message", error.__str__)()).strip()
    head, _, extra = text.removesuffix(")").partition("extra argument(s) (")
    if (words := extra.split())[3:]:  # an unquoted *
        text = f"{head}extra arguments ({' '.join(words[:2])} and {len(words) - 2} more): name their folder."
    return text if text.endswith((".", "?", "!")) else text + "."


def _crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Write a crash report for a bug and print one line; the interpreter then exits with 1."""
    try:
        found = str(write_crash_report(error))
    except OSError:
        found = "what --debug shows"
    as_json, debug = "--json" in sys.argv, "--debug" in sys.argv
    said = without_passwords(printable(str(error)))[:200]
    bug = VltrackError(f"Internal error: {kind.__name__}: {said}.", hint=f"Please report it with {found}.")
    bug.__cause__ = error
    report_error(bug, as_json=as_json, debug=debug)


def run() -> NoReturn:
    """Run the ``vltrack`` command."""
    sys.stdout, sys.stderr = Output(1), Output(2)
    sys.excepthook = _crash
    try:
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _stop)
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except VltrackError as error:
        code = error.exit_code
        with suppress(VltrackError):  # standard error may be closed, too
            report_error(error)
    except KeyboardInterrupt as stop:
        code = _interrupted(stop)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left to be kept
    sys.exit(code)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise STOPS[number]
