"""Start the ``vltrack`` command: what must be right before anything else is imported or opened."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def run() -> NoReturn:
    """Run the command; also where standard streams are closed, as under cron, or Ctrl-C comes during the imports."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(stop) is not signal.SIG_IGN:
            signal.signal(stop, lambda number, frame: os._exit(128 + number))

    from vltrack.core.process import open_standard_streams

    open_standard_streams()
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - as long as the process
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115

    from vltrack.cli.main import run as run_verb

    run_verb()


if __name__ == "__main__":
    run()
