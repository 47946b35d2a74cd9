"""How several trackers fared on one video, counted from their steps. Knows no file and runs no tracker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vltrack.cli.tables import Recorder
from vltrack.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vltrack.core.track import Track
    from vltrack.core.types import Box, Frame, Step
    from vltrack.metrics.agreement import Agreement
    from vltrack.tracking.side_by_side import Failure

    Truth = tuple[NDArray[np.float64], NDArray[np.bool_]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Now:
    """One frame: boxes (T, 4) with NaN where a tracker has none, agreement, and what each says of itself."""

    frame: tuple[int, float]
    boxes: Box
    mean: float
    each: list[float]
    scores: list[float]
    visible: list[bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """How all trackers fared, once the last frame is done.

    Attributes:
        frames: number and seconds of each frame.
        tracks: by name, as far as each came.
        agreement: of the trackers in the order of ``tracks``.
        lost: share of a tracker's decoded frames in which it did not see the target; NaN without any.
        failures: those that failed, by name, also those that never started.
        left_out: those that cannot start in this way, and why.
        auc: success AUC by name where the truth is known, of those that came to the end.
        truth_error: why there is no ``auc`` although the truth was given.
    """

    frames: list[tuple[int, float]]
    tracks: dict[str, Track]
    agreement: Agreement
    lost: dict[str, float]
    failures: Mapping[str, Failure]
    left_out: Mapping[str, str]
    auc: dict[str, float] = field(default_factory=dict)
    truth_error: DataError | None = None

    def fare(self, name: str) -> dict[str, float | None]:
        """Agreement with the others, share of frames lost; success AUC where it is known. None: unknown."""
        overall = float(self.agreement.overall_T[list(self.tracks).index(name)])
        fare = {"agreement": number_or_none(overall), "lost": number_or_none(self.lost[name])}
        return fare | ({"success_auc": self.auc[name]} if name in self.auc else {})


class Counter:
    """Takes the steps of all trackers frame by frame.

    Args:
        heads: what the head of each tracker's track tells, by name, in the order of their colours.
        truth: boxes and absences of every frame of the input, or None.
    """

    def __init__(self, heads: Mapping[str, dict[str, Any]], truth: Truth | None = None) -> None:
        self._heads, self._truth = heads, truth
        self._recorders = {name: Recorder() for name in heads}
        self._frames: list[tuple[int, float]] = []

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: Frame, steps: Mapping[str, Step]) -> Now:
        """Count the steps of those that still run."""
        import numpy as np

        from vltrack.metrics.agreement import agreement

        self._frames.append((frame.index, frame.seconds))
        for name, step in steps.items():
            self._recorders[name].add(step)
        nothing = np.full(4, np.nan)
        boxes = np.array([steps[name].box if name in steps else nothing for name in self._heads])
        found = agreement(boxes[:, None])
        return Now(
            frame=self._frames[-1],
            boxes=boxes,
            mean=float(found.mean_N[0]),
            each=[float(value) for value in found.each_TN[:, 0]],
            scores=[steps[name].score if name in steps else math.nan for name in self._heads],
            visible=[name in steps and steps[name].visible for name in self._heads],
        )

    def tally(
        self, failures: Mapping[str, Failure], left_out: Mapping[str, str], warnings: list[str]
    ) -> Tally:
        """Everything so far; ``warnings`` on the reading of the video go into every head."""
        import numpy as np

        from vltrack.metrics.agreement import agreement

        tracks: dict[str, Track] = {}
        lost: dict[str, float] = {}
        boxes = np.full((len(self._heads), len(self._frames), 4), np.nan)
        for row, (name, recorder) in zip(boxes, self._recorders.items(), strict=True):
            head = self._heads[name] | {"warnings": [*self._heads[name]["warnings"], *warnings]}
            if name in failures:
                head["failed"] = failures[name].told()
            tracks[name] = track = recorder.track(head)
            decoded = np.array([status != "missing" for status in track.status], dtype=np.bool_)
            row[: len(track)][decoded] = track.boxes[decoded]
            lost[name] = float((~track.visible[decoded]).mean()) if decoded.any() else math.nan
        finished = {name: track for name, track in tracks.items() if name not in failures}
        auc, error = self._scored(finished)
        return Tally(
            frames=self._frames,
            tracks=tracks,
            agreement=agreement(boxes),
            lost=lost,
            failures=failures,
            left_out=left_out,
            auc=auc,
            truth_error=error,
        )

    def _scored(self, tracks: Mapping[str, Track]) -> tuple[dict[str, float], DataError | None]:
        """Success AUC by name; or nothing, and why the truth does not fit the video."""
        from vltrack.metrics.success import success_auc

        if self._truth is None:
            return {}, None
        boxes, absent = self._truth
        last = self._frames[-1][0]
        if last >= len(boxes):
            return {}, DataError(
                f"the true boxes end at frame {len(boxes) - 1}, the video goes on to frame {last}.",
                hint="Every frame of the input needs one row.",
            )
        try:
            return {
                name: success_auc(track.boxes, boxes[track.indices], absent[track.indices])
                for name, track in tracks.items()
            }, None
        except DataError as error:
            return {}, error


def number_or_none(value: float) -> float | None:
    """The number as JSON can hold it: None for what is not finite."""
    return float(value) if math.isfinite(value) else None
