"""Frames fetched ahead in a thread: bounded, cancellable, never holding up an exception. Knows no media."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vltrack.core.errors import UsageError
from vltrack.core.types import Frame

# How long a producer may take to notice that nobody wants its frames any more.
_PATIENCE_S = 0.2


@dataclass(frozen=True, slots=True)
class _End:
    """The producer is done; ``error`` is what stopped it."""

    error: BaseException | None = None


@contextmanager
def prefetch(frames: Iterable[Frame], depth: int = 4) -> Iterator[Iterator[Frame]]:
    """Iterate ``frames`` in a thread that runs at most ``depth`` frames ahead.

    An exception of the producer is raised where its frame would have come. When the block is left early the
    producer is stopped: at once where it has a ``cancel`` method (every ``FrameSource``); otherwise it is
    abandoned as a daemon thread after a moment, so a stuck producer never holds up an exception.

    Raises:
        UsageError: ``depth`` is below 1.
    """
    if depth < 1:
        raise UsageError(f"prefetch depth must be at least 1, got {depth}.")
    line: queue.Queue[Frame | _End] = queue.Queue(maxsize=depth)
    stop = threading.Event()
    producer = threading.Thread(
        target=_produce, args=(frames, line, stop), name="vltrack-prefetch", daemon=True
    )
    producer.start()
    try:
        yield _consume(line)
    finally:
        stop.set()
        _drain(line)
        producer.join(_PATIENCE_S)
        cancel: Callable[[], None] | None = getattr(frames, "cancel", None)
        if producer.is_alive() and cancel is not None:
            cancel()
            producer.join(_PATIENCE_S)


def _produce(frames: Iterable[Frame], line: queue.Queue[Frame | _End], stop: threading.Event) -> None:
    end = _End()
    try:
        for frame in frames:
            if not _put(line, frame, stop):
                return
    except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
        end = _End(error)
    _put(line, end, stop)


def _put(line: queue.Queue[Frame | _End], item: Frame | _End, stop: threading.Event) -> bool:
    """Put an item unless told to stop; whether it was put."""
    while not stop.is_set():
        try:
            line.put(item, timeout=0.05)
        except queue.Full:
            continue
        return True
    return False


def _consume(line: queue.Queue[Frame | _End]) -> Iterator[Frame]:
    while True:
        item = line.get()
        if isinstance(item, _End):
            if item.error is not None:
                raise item.error
            return
        yield item


def _drain(line: queue.Queue[Frame | _End]) -> None:
    try:
        while True:
            line.get_nowait()
    except queue.Empty:
        return
