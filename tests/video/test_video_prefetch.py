"""Prefetch: in order, bounded, and out of the way at once when the consumer raises."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from vltrack.core.errors import UsageError
from vltrack.core.types import Frame
from vltrack.video import base
from vltrack.video.base import prefetch


def _frame(index: int) -> Frame:
    return Frame(image=np.zeros((2, 2, 3), np.uint8), index=index, seconds=index / 25)


class Slow:
    """A producer that gets stuck in its fourth frame until it is canceled."""

    def __init__(self) -> None:
        self.given = 0
        self.freed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        if self.given == 3:
            self.freed.wait(60)
            raise StopIteration
        self.given += 1
        return _frame(self.given - 1)


class Cancelable(Slow):
    def cancel(self) -> None:
        self.freed.set()


def test_of_large_frames_one_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_AHEAD_BYTES", 11)  # a frame has 12
    given = []
    with prefetch(given.append(k) or _frame(k) for k in range(20)) as frames:
        for frame in frames:
            time.sleep(0.02)
            assert len(given) <= frame.index + 2
    assert len(given) == 20


def test_frames_come_in_order_and_completely() -> None:
    with prefetch((_frame(k) for k in range(100)), depth=3) as frames:
        assert [frame.index for frame in frames] == list(range(100))
    with prefetch([]) as frames:
        assert list(frames) == []
    with pytest.raises(UsageError), prefetch([], depth=0):
        pass


def test_it_runs_only_so_far_ahead() -> None:
    given = []

    def produce() -> Iterator[Frame]:
        for k in range(50):
            given.append(k)
            yield _frame(k)

    with prefetch(produce(), depth=4) as frames:
        next(frames)
        time.sleep(0.3)
        # One taken, four waiting, one in the producer's hand.
        assert len(given) <= 6


def test_an_error_of_the_producer_comes_in_its_place() -> None:
    def produce() -> Iterator[Frame]:
        yield _frame(0)
        raise KeyError("broken")

    seen = []
    with pytest.raises(KeyError, match="broken"), prefetch(produce()) as frames:
        for frame in frames:
            seen.append(frame.index)
    assert seen == [0]


@pytest.mark.parametrize("kind", [Slow, Cancelable])
@pytest.mark.timeout(30)
def test_a_consumer_that_raises_is_free_at_once(kind: type[Slow]) -> None:
    producer = kind()
    with pytest.raises(ZeroDivisionError), prefetch(producer, depth=2) as frames:
        for frame in frames:
            if frame.index == 2:
                raise ZeroDivisionError
    # Within the mark's time: the producer would be stuck for a minute.
    producer.freed.set()


def test_a_producer_that_never_waits_is_stopped_too() -> None:
    def endless() -> Iterator[Frame]:
        k = 0
        while True:
            yield _frame(k)
            k += 1

    with pytest.raises(ZeroDivisionError), prefetch(endless(), depth=2) as frames:
        next(frames)
        raise ZeroDivisionError
    deadline = time.monotonic() + 15
    while any(t.name == "vltrack-prefetch" for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(t.name == "vltrack-prefetch" and t.is_alive() for t in threading.enumerate())
