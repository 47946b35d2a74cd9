"""What came of one sequence: rows or a failure. The words between engines and ``run``; plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from vltrack.evaluation.worker import Row, Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """Seconds of silence after which a worker counts as hung.

    Attributes:
        start: until it has loaded the tracker.
        first: until it has done the first frame of a sequence.
        next: from one frame to the next.
    """

    start: float = 120.0
    first: float = 120.0
    next: float = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why a sequence has no result.

    Attributes:
        mode, name: of the sequence.
        kind: ``raised`` (an error), ``silent`` (no frame for too long), ``died`` (the worker ended) or
            ``invalid`` (what came is no result: a box that is not finite, rows missing).
        message: one sentence.
        error: the error's class, "" where there is none.
        traceback: of the error, "" where there is none.
        exit_signal: name of the signal that ended the worker, "" where none did.
        frame: 0-based number of the frame that it did not get beyond.
    """

    mode: str
    name: str
    kind: str
    message: str
    error: str = ""
    traceback: str = ""
    exit_signal: str = ""
    frame: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Beat:
    """Some frames are done."""

    task: Task
    frames: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """All frames of a sequence are done."""

    task: Task
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """A sequence came to nothing."""

    task: Task
    failure: Failure


News = Beat | Finished | Failed


class Crew(Protocol):
    """Processes that do tasks, wherever they are."""

    def free(self) -> bool:
        """Whether another task can be given now."""
        ...

    def give(self, task: Task) -> None:
        """Let somebody do this task; its end comes through ``news``."""
        ...

    def news(self, timeout: float) -> list[News]:
        """What has happened, or an empty list after ``timeout`` seconds."""
        ...

    def close(self) -> None:
        """End all processes at once; what they were doing is lost."""
        ...
