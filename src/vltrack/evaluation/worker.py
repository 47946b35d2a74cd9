"""What a worker process does: load a tracker once, then follow one target after the other, frame by frame.

Knows tasks and a pipe; knows no file of results and no truth beyond the box that a task starts with. Loads
torch only inside ``load_tracker``.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Generator
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Protocol, cast

from vltrack.core.errors import VltrackError

if TYPE_CHECKING:
    from vltrack.core.types import Frame, Step
    from vltrack.datasets.sequences import Sequence

THREADS = 1
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
}
"""Set before torch and numpy are loaded: several processes with one thread are faster than the reverse, and
sums come out the same however many there are."""

NOT_FOR_WORKERS = (signal.SIGINT, signal.SIGTERM)
"""A terminal or a batch system sends these to all processes; the one that started the workers decides."""

OUR_LOADER = "vltrack.evaluation.worker:load_tracker"
PIECE = 900
"""Characters of a trace a message: a pipe takes up to 4096 bytes at once, whole or not at all."""

Row = tuple[float, float, float, float, float, bool, str, float]
"""x, y, w, h, score, visible, status, seconds that the tracker took."""


class Follower(Protocol):
    """What is asked of a tracker."""

    def init(self, frame: Frame, box: Any = None, text: str | None = None) -> Step:
        """Start on a frame with a box, a sentence or both."""
        ...

    def update(self, frame: Frame) -> Step:
        """The target in the next frame."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Loading:
    """How a worker gets its tracker.

    Attributes:
        loader: ``module:function``; called with this, gives a ``Follower``.
        weights: path of the .safetensors file.
        policy: all options of the tracking policy.
        device: ``cpu``, ``cuda``, ``mps``.
    """

    weights: str
    policy: dict[str, Any]
    device: str = "cpu"
    loader: str = OUR_LOADER


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One sequence in one mode. ``box`` (x, y, w, h in pixels) and ``text`` name the target in frame 1."""

    mode: str
    sequence: Sequence
    box: tuple[float, float, float, float] | None
    text: str | None

    @property
    def key(self) -> tuple[str, str]:
        """Mode and name of the sequence."""
        return self.mode, self.sequence.name

    @property
    def named(self) -> str:
        """What names the target: ``sentence``, ``box`` or ``both``."""
        if self.box is None:
            return "sentence"
        return "box" if self.text is None else "both"


def load_tracker(loading: Loading) -> Follower:
    """One of our trackers with one thread. Raises what ``Tracker.load`` raises."""
    import cv2

    from vltrack.tracking.policy import Policy
    from vltrack.tracking.tracker import Tracker

    cv2.setNumThreads(THREADS)
    return Tracker.load(
        loading.weights, device=loading.device, threads=THREADS, policy=Policy(**loading.policy)
    )


def open_tracker(loading: Loading) -> Follower:
    """The tracker that ``loading.loader`` makes."""
    module, _, function = loading.loader.partition(":")
    return cast(Follower, getattr(import_module(module), function)(loading))


def follow(tracker: Follower, task: Task) -> Generator[Row, None, None]:
    """A row for each frame of a sequence. Row 1 holds the box that named the target, or in NL mode the
    tracker's own. Times are the tracker's alone, decoding is not in them.

    Raises whatever the tracker or the reading of the frames raises.
    """
    # Whoever breaks off closes this generator, and that one with it: no decoder is left behind.
    with contextlib.closing(_frames(task)) as frames:
        for number, frame in enumerate(frames):
            began = time.perf_counter()
            first = number == 0
            step = tracker.init(frame, box=task.box, text=task.text) if first else tracker.update(frame)
            taken = time.perf_counter() - began
            box = task.box if first and task.box is not None else step.box
            x, y, w, h = (float(v) for v in box)
            yield x, y, w, h, float(step.score), bool(step.visible), str(step.status), taken


def _frames(task: Task) -> Generator[Frame, None, None]:
    """All frames; one that cannot be decoded is a gap, which the tracker answers with status ``missing``.

    Raises what ``Sequence.open_frames`` raises, and in the end what broke the reading off.
    """
    with task.sequence.open_frames() as source:
        yield from source
        if source.report.failure is not None:
            raise source.report.failure


def serve(tasks: Connection, news: Connection, loading: Loading) -> None:
    """The life of a worker: ``ready``, then for each task ``row`` a frame and ``done``, or ``failed``.

    It ends when ``tasks`` is closed, and at once when the process that started it dies.
    """
    for number in NOT_FOR_WORKERS:
        signal.signal(number, signal.SIG_IGN)
    os.dup2(2, 1)  # what a tracker prints must not mix with the data that the command prints
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        tracker = open_tracker(loading)
    except VltrackError as error:
        news.send(("refused", error.code, error.message[: 2 * PIECE], error.hint[:PIECE]))
        return
    news.send(("ready",))
    while True:
        try:
            task = tasks.recv()
        except EOFError:
            return
        try:
            for row in follow(tracker, task):
                news.send(("row", *row))
        except Exception as error:  # noqa: BLE001 - told to the parent, which records it
            for piece in pieces(error):
                news.send(("trace", piece))
            news.send(("failed", *said(error)))
        else:
            news.send(("done",))


def said(error: Exception) -> tuple[str, str, bool]:
    """Code, message, and whether the error is one of ours: after another, the tracker may be broken."""
    if isinstance(error, VltrackError):
        return error.code, str(error)[:PIECE], True
    return type(error).__name__, str(error)[:PIECE], False


def pieces(error: Exception) -> list[str]:
    """The trace of an error in pieces that a pipe takes whole."""
    text = "".join(traceback.format_exception(error))
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]


def _leave_with_parent() -> None:
    """Nobody takes the results of a worker whose parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        sys.stderr.flush()
        os._exit(1)
