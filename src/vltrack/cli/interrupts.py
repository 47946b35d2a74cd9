"""Ctrl-C and SIGTERM between frames, never within one. Knows signals; knows nothing of what is being done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

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
