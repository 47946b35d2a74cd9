"""Standard streams that exist, the log, and child processes: how one ended, its error, ending it within a deadline."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from multiprocessing.process import BaseProcess

from vltrack.core import errors
from vltrack.core.errors import VltrackError

REAP_SECONDS = 5.0
"""A killed process that is still there after this is stuck in the kernel; the system reaps it later."""


def open_standard_streams() -> None:
    """Open the null device where standard input, output or error is closed, as under some daemons.

    Else the next file that is opened becomes that stream, and is lost where a child process gets its own.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def show_log() -> None:
    """Print the log of the package to standard error."""
    logger = logging.getLogger("vltrack")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def signal_name(code: int | None) -> str:
    """Name of the signal that ended a process with exit code ``code``; "" if none did."""
    if code is None or code >= 0:
        return ""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def describe_exit(code: int | None) -> str:
    """End of a process with this exit code, for messages: ``was ended by SIGKILL``."""
    name = signal_name(code)
    return f"was ended by {name}" if name else f"ended with exit status {code}"


def reported_error(code: str, message: str, hint: str, *, otherwise: type[VltrackError]) -> VltrackError:
    """Rebuild the error that a child process reported; of class ``otherwise`` if ``code`` is none of ours."""
    kind = getattr(errors, code, otherwise)
    if not (isinstance(kind, type) and issubclass(kind, VltrackError)):
        kind = otherwise
    return kind(message, hint=hint)


def kill(process: subprocess.Popen[bytes] | BaseProcess, *, after: float = 0.0) -> int | None:
    """End a process, ``after`` so many seconds in which it may end itself, and reap it.

    Returns:
        Its exit code, negative after a signal; None if it cannot be ended now.
    """
    code = _wait(process, after) if after else None
    if code is None:
        process.kill()
        code = _wait(process, REAP_SECONDS)
    return code


def _wait(process: subprocess.Popen[bytes] | BaseProcess, seconds: float) -> int | None:
    if isinstance(process, BaseProcess):
        process.join(seconds)
        return process.exitcode
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
