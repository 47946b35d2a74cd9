"""What media libraries print about damage. They print it and go on; this reads it back. Knows no media."""

from __future__ import annotations

import os
import sys


class Complaints:
    """Standard error of this process as a pipe that can be asked what was printed.

    Python's own ``sys.stderr`` stays where it was, so that a traceback still reaches the reader.
    """

    def __init__(self) -> None:
        sys.stderr = os.fdopen(os.dup(2), "w")
        self._read, write = os.pipe()
        # A library that prints more than a pipe holds loses words rather than time.
        os.set_blocking(self._read, False)
        os.set_blocking(write, False)
        os.dup2(write, 2)
        os.close(write)

    def take(self) -> str:
        """What was printed since the last call."""
        try:
            return os.read(self._read, 1 << 16).decode(errors="replace")
        except BlockingIOError:
            return ""
