"""Several trackers over one stream of frames, to compare them: ``TrackerGroup``.

Every frame goes to all trackers in turn, so that a video is decoded once. An exception of one tracker ends
that one alone: it is kept as a ``TrackerFailure`` and the others go on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from vltrack.checkpoints.cards import modes_of
from vltrack.core.errors import UsageError, VltrackError
from vltrack.core.types import Frame, Image, Mode, Status, Step, Target
from vltrack.tracking.tracker import Tracker


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerFailure:
    """The error that ended a tracker, and the frame at which it was raised (None: while loading)."""

    error: Exception
    frame: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The failure for a result file; with the trace only if it is a bug and not an error of the user."""
        if isinstance(self.error, VltrackError):
            return {"code": self.error.code, "message": str(self.error), "frame": self.frame}
        kind, trace = type(self.error).__name__, "".join(traceback.format_exception(self.error))
        return {"code": kind, "message": str(self.error), "frame": self.frame, "trace": trace}

    def __str__(self) -> str:
        where = "could not be loaded" if self.frame is None else f"stopped at frame {self.frame}"
        return f"{where}: {str(self.error) or type(self.error).__name__}"


class TrackerGroup:
    """Named trackers that follow the same target.

    Attributes:
        trackers: by name, in the order in which they run.
        failures: those that failed so far, by name; they get no more frames.
        seconds, frames: time spent in the updates of each tracker, and the number of these updates.
    """

    def __init__(self, trackers: Mapping[str, Tracker], failures: Mapping[str, TrackerFailure] | None = None) -> None:
        self.trackers = dict(trackers)
        self.failures = dict(failures or {})
        self.seconds = dict.fromkeys(self.trackers, 0.0)
        self.frames = dict.fromkeys(self.trackers, 0)
        self._running: list[str] = []
        self._index = 0

    @classmethod
    def load(
        cls, weights: Mapping[str, str | Path], *, settings: Mapping[str, Any] | None = None, **loading: Any
    ) -> Self:
        """Load trackers from weights (a model's name or a path), by the name that each gets here.

        ``settings`` change options of each tracker's own policy; ``loading`` are further options of
        ``Tracker.load``. No text is refused (``anyway``). Weights that
        cannot be loaded are kept in ``failures``.
        """
        trackers: dict[str, Tracker] = {}
        failures: dict[str, TrackerFailure] = {}
        for name, source in weights.items():
            try:
                trackers[name] = Tracker.load(source, policy=settings, anyway=True, **loading)
            except Exception as error:  # noqa: BLE001 - kept and reported; the others go on
                failures[name] = TrackerFailure(error=error)
        return cls(trackers, failures)

    def targets_for(self, target: Target) -> tuple[dict[str, Target], dict[str, str]]:
        """The target of each tracker: all of ``target``, or the part of it that the tracker supports.

        Returns:
            Targets by name; and warnings by name, on trackers that get only a part, and on those that support
            none of it and have no target.
        """
        targets: dict[str, Target] = {}
        warnings: dict[str, str] = {}
        for name, tracker in self.trackers.items():
            part, warning = target_for(target, modes_of(tracker.card))
            if part is not None:
                targets[name] = part
            if warning:
                warnings[name] = warning
        return targets, warnings

    @property
    def warnings(self) -> dict[str, tuple[str, ...]]:
        """Warnings about the start of each tracker that runs, by name."""
        return {name: self.trackers[name].warnings for name in self._running}

    def init(self, frame: Frame | Image, targets: Mapping[str, Target]) -> dict[str, Step]:
        """Start the trackers that have a target, on one frame; one that fails does not stop the others.

        Raises:
            UsageError: a target for an unknown tracker.
        """
        unknown = sorted(targets.keys() - self.trackers.keys())
        if unknown:
            raise UsageError(f"Unknown tracker: {', '.join(unknown)}.", hint="Give targets by their names.")
        self._running = [name for name in self.trackers if name in targets]
        self._index = frame.index if isinstance(frame, Frame) else 0
        return self._run(lambda name, tracker: tracker.init(frame, box=targets[name].box, text=targets[name].text))

    def update(self, frame: Frame | Image) -> dict[str, Step]:
        """The steps of all trackers that still run; empty once none does."""
        self._index = frame.index if isinstance(frame, Frame) else self._index + 1

        def timed(name: str, tracker: Tracker) -> Step:
            begin = time.perf_counter()
            step = tracker.update(frame)
            if step.status is not Status.MISSING:  # a missing frame takes no time
                self.seconds[name] += time.perf_counter() - begin
                self.frames[name] += 1
            return step

        return self._run(timed)

    def rate(self, name: str) -> float | None:
        """Updates per second of one tracker, decoding not counted; None without any."""
        return self.frames[name] / self.seconds[name] if self.seconds.get(name) else None

    def _run(self, step_of: Callable[[str, Tracker], Step]) -> dict[str, Step]:
        """The step of each tracker that runs; one that raises runs no more."""
        steps: dict[str, Step] = {}
        for name in tuple(self._running):
            try:
                steps[name] = step_of(name, self.trackers[name])
            except Exception as error:  # noqa: BLE001 - kept and reported; the others go on
                self.failures[name] = TrackerFailure(error=error, frame=self._index)
                self._running.remove(name)
        return steps


def target_for(target: Target, modes: Collection[str]) -> tuple[Target | None, str]:
    """The part of ``target`` that a tracker with those modes supports, and a warning if it is not all.

    None if it supports nothing of it. A box is preferred to a text: it says more.
    """
    if target.mode in modes:
        return target, ""
    if target.box is not None and Mode.BBOX in modes:
        return replace(target, text=None), "takes no text: started from the box alone."
    if target.text is not None and Mode.NL in modes:
        return replace(target, box=None), "takes no box: started from the text alone."
    given = {Mode.NL: "text only", Mode.BBOX: "a box only", Mode.NLBBOX: "box and text"}[target.mode]
    return None, f"cannot start from {given} (supported: {', '.join(modes)}): left out."
