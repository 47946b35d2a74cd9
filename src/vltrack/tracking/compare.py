"""Several trackers over one stream of frames, each on its own. Knows which fail; knows no file of results.

Every frame goes to all of them in turn, so that a video is decoded once. Whatever one raises ends that one
alone: it is kept as a ``TrackerFailure`` and the others go on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from vltrack.core.errors import UsageError, VltrackError
from vltrack.core.types import Frame, Image, Mode, Status, Step, Target
from vltrack.models import MODELS
from vltrack.tracking.tracker import Tracker


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerFailure:
    """What ended a tracker: the error, and the frame where it was met (None: while it was loaded)."""

    error: Exception
    frame: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """What a file of results says of it; the trace only where it is a bug and no mistake of the user."""
        if isinstance(self.error, VltrackError):
            return {"code": self.error.code, "message": str(self.error), "frame": self.frame}
        kind, trace = type(self.error).__name__, "".join(traceback.format_exception(self.error))
        return {"code": kind, "message": str(self.error), "frame": self.frame, "trace": trace}

    def __str__(self) -> str:
        where = "could not be loaded" if self.frame is None else f"stopped at frame {self.frame}"
        return f"{where}: {str(self.error) or type(self.error).__name__}"


class TrackerGroup:
    """Named trackers that follow one target each; the same target in all of them, to compare them.

    Attributes:
        trackers: by name, in the order in which they are asked.
        failures: those that failed so far, by name; they get no more frames.
        seconds, frames: time spent in the updates of each tracker, and how many updates that were.
    """

    def __init__(
        self, trackers: Mapping[str, Tracker], failures: Mapping[str, TrackerFailure] | None = None
    ) -> None:
        self.trackers = dict(trackers)
        self.failures = dict(failures or {})
        self.seconds = dict.fromkeys(self.trackers, 0.0)
        self.frames = dict.fromkeys(self.trackers, 0)
        self._running: list[str] = []
        self._index = 0

    @classmethod
    def load(
        cls,
        weights: Mapping[str, str | Path],
        *,
        device: str = "auto",
        threads: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Self:
        """Trackers from weights (a model's name or a path) by the name that they shall have here.

        ``settings`` change options of each tracker's own policy. Weights that cannot be loaded are kept in
        ``failures``.
        """
        trackers: dict[str, Tracker] = {}
        failures: dict[str, TrackerFailure] = {}
        for name, source in weights.items():
            try:
                trackers[name] = Tracker.load(source, device=device, threads=threads, policy=settings)
            except Exception as error:  # noqa: BLE001 - kept and reported; the others are not its victims
                failures[name] = TrackerFailure(error=error)
        return cls(trackers, failures)

    def targets_for(self, target: Target) -> tuple[dict[str, Target], dict[str, str]]:
        """What each tracker can start with: all of ``target``, or the part of it that the tracker takes.

        Returns:
            The targets by name; and warnings by name, on those that take a part only, and on those that can
            take nothing of it and have no target.
        """
        targets: dict[str, Target] = {}
        warnings: dict[str, str] = {}
        for name, tracker in self.trackers.items():
            part, warning = target_for(target, modes_of(tracker))
            if part is not None:
                targets[name] = part
            if warning:
                warnings[name] = warning
        return targets, warnings

    @property
    def warnings(self) -> dict[str, tuple[str, ...]]:
        """What the user should know of the start of each tracker that runs."""
        return {name: self.trackers[name].warnings for name in self._running}

    def init(self, frame: Frame | Image, targets: Mapping[str, Target]) -> dict[str, Step]:
        """Start those that have a target, on one frame; one that fails does not keep the others back.

        Raises:
            UsageError: a target for a tracker that is not there.
        """
        unknown = sorted(targets.keys() - self.trackers.keys())
        if unknown:
            raise UsageError(
                f"there is no tracker {', '.join(unknown)}.", hint="Give targets by their names."
            )
        self._running = [name for name in self.trackers if name in targets]
        self._index = frame.index if isinstance(frame, Frame) else 0
        return self._ask(lambda name: self._start(name, frame, targets[name]))

    def update(self, frame: Frame | Image) -> dict[str, Step]:
        """The steps of all that still run; empty once none does."""
        self._index = frame.index if isinstance(frame, Frame) else self._index + 1
        return self._ask(lambda name: self._timed(name, frame))

    def rate(self, name: str) -> float | None:
        """Updates a second of one tracker, its crops and policy included, decoding not; None without any."""
        return self.frames[name] / self.seconds[name] if self.seconds.get(name) else None

    def _start(self, name: str, frame: Frame | Image, target: Target) -> Step:
        return self.trackers[name].init(frame, box=target.box, text=target.text)

    def _timed(self, name: str, frame: Frame | Image) -> Step:
        begin = time.perf_counter()
        step = self.trackers[name].update(frame)
        if step.status is not Status.MISSING:  # a frame that was not decoded costs nothing
            self.seconds[name] += time.perf_counter() - begin
            self.frames[name] += 1
        return step

    def _ask(self, ask: Callable[[str], Step]) -> dict[str, Step]:
        """The answer of each that runs; one that raises runs no more."""
        steps: dict[str, Step] = {}
        for name in tuple(self._running):
            try:
                steps[name] = ask(name)
            except Exception as error:  # noqa: BLE001 - kept and reported; the others are not its victims
                self.failures[name] = TrackerFailure(error=error, frame=self._index)
                self._running.remove(name)
        return steps


def target_for(target: Target, modes: Collection[str]) -> tuple[Target | None, str]:
    """What of ``target`` a tracker with those modes can use, None if nothing; and a warning unless it is all.

    A box is kept before words: it says more.
    """
    if target.mode in modes:
        return target, ""
    if target.box is not None and Mode.BBOX in modes:
        return replace(target, text=None), "takes no sentence: started by the box alone."
    if target.text is not None and Mode.NL in modes:
        return replace(target, box=None), "takes no box: started by the words alone."
    given = {Mode.NL: "words alone", Mode.BBOX: "a box alone", Mode.NLBBOX: "box and words"}[target.mode]
    return None, f"cannot start by {given} (it takes {', '.join(modes)}): left out."


def modes_of(tracker: Tracker) -> tuple[str, ...]:
    """The modes of a loaded tracker, from the registry; all for one that the registry does not know.

    Of imported weights only those in which they were trained.
    """
    card = MODELS.get(tracker.card.get("tracker", ""))
    modes = card.modes_of(tracker.card["size"]) if card is not None else tuple(Mode)
    return tuple(mode for mode in modes if mode in tracker.card.get("modes", modes))
