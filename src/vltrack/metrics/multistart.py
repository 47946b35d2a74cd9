"""Scores of VOT's multi-start experiment (2020 to 2022). Knows overlaps; knows no file.

The tracker is started in every anchor frame and runs to the end of the sequence or, from a backward anchor,
to its beginning; it is not stopped. Rules from the VOT2020 report (Kristan et al., section 2) and the
toolkit:

- A run has failed where its overlap is at most 0.1 in 10 consecutive frames in which the target is there (a
  frame above 0.1 or without target starts the count anew). It made progress up to the first of these 10
  frames; without a failure, through all its frames.
- Accuracy of a sequence: overlaps over the progress summed over its runs, divided by the progress summed.
  Robustness of a sequence: progress summed, divided by the runs' lengths summed. Over sequences, accuracy
  is weighted by progress and robustness by the sequence's length.
- The curve: at index j the mean over the runs of their mean overlap in frames 2..j + 1; frames after a
  failure are 0. A failed run counts at every length, another up to its own. Over sequences, weighted by the
  runs that count. EAO is the mean over indices 115..755 of a curve that ends at index 754; lengths that no
  run reaches are left out (the toolkit counts them as 0; the challenge's data reach all).

As in the toolkit, the start frame itself counts in accuracy and robustness. Its line in a result is code 1,
so its overlap is 0: a perfect tracker's accuracy over a run of L frames is (L - 1) / L, and only its EAO is
1. Beyond its own length a failed run's sum is divided by j - 1, not j: a slip of the toolkit that all
published figures have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.metrics.masks import Size, is_empty, toolkit_overlaps
from vltrack.metrics.regions import Region
from vltrack.metrics.telling import told_number

Floats = NDArray[np.float64]

WINDOW = (115, 755)
"""First and last index of the curve that counts, of all three years."""
GRACE = 10
THRESHOLD = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorRun:
    """One run from one anchor over N frames, in the order in which they were tracked.

    Attributes:
        sequence: its name.
        length: frames of the whole sequence.
        overlaps: (N,) in 0..1, read-only copy.
        empty: (N,) bool, the target is not there, read-only copy.
    """

    sequence: str
    length: int
    overlaps: Floats
    empty: NDArray[np.bool_]

    def __post_init__(self) -> None:
        overlaps, empty = np.array(self.overlaps, dtype=np.float64), np.array(self.empty, dtype=bool)
        if overlaps.ndim != 1 or overlaps.shape != empty.shape or not len(overlaps):
            raise DataError(f"{self.sequence}: overlaps and flags of a run differ in length or are empty.")
        if not np.isfinite(overlaps).all():
            raise DataError(f"{self.sequence}: a run has an overlap that is not a number.")
        for name, array in (("overlaps", overlaps), ("empty", empty)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @classmethod
    def of(
        cls,
        sequence: str,
        result: Sequence[Region],
        truth: Sequence[Region],
        anchor: int,
        *,
        backward: bool,
        size: Size | None = None,
    ) -> AnchorRun:
        """From the N regions of a result and the truth of the whole sequence in its own order.

        Args:
            sequence: its name.
            result: regions in the order in which they were tracked, the first in the anchor frame.
            truth: one region a frame of the whole sequence.
            anchor: frame of the start, from 0.
            backward: towards the beginning.
            size: (width, height) of the frames.

        Raises:
            DataError: the result has not exactly the frames from the anchor to the end that it runs to.
        """
        frames = range(anchor, -1, -1) if backward else range(anchor, len(truth))
        if len(result) != len(frames):
            raise DataError(
                f"{sequence}: the run from frame {anchor} has {len(result)} lines for {len(frames)} frames.",
                hint="Run this anchor again.",
            )
        shown = [truth[frame] for frame in frames]
        return cls(
            sequence=sequence,
            length=len(truth),
            overlaps=toolkit_overlaps(result, shown, size),
            empty=np.array([is_empty(region) for region in shown]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiStart:
    """Scores of a tracker in the multi-start experiment.

    Attributes:
        eao: expected average overlap, NaN where no run is long enough for the window.
        accuracy, robustness: over all sequences; accuracy is NaN where no frame was tracked.
        window: first and last index of the curve that counts.
        curve: (high,) expected average overlap; NaN where no run counts.
        sequences: names in the order of the input.
        sequence_accuracy, sequence_robustness: (S,).
        runs: how many runs there are.
    """

    eao: float
    accuracy: float
    robustness: float
    window: tuple[int, int]
    curve: Floats
    sequences: tuple[str, ...]
    sequence_accuracy: Floats
    sequence_robustness: Floats
    runs: int

    def told(self) -> dict[str, Any]:
        """For JSON; None where a number is not defined."""
        return {
            "experiment": "multistart",
            "eao": told_number(self.eao),
            "accuracy": told_number(self.accuracy),
            "robustness": told_number(self.robustness),
            "window": list(self.window),
            "curve": [told_number(value) for value in self.curve.tolist()],
            "runs": self.runs,
            "sequences": [
                {"name": name, "accuracy": told_number(accuracy), "robustness": robustness}
                for name, accuracy, robustness in zip(
                    self.sequences,
                    self.sequence_accuracy.tolist(),
                    self.sequence_robustness.tolist(),
                    strict=True,
                )
            ],
        }


def progress_of(run: AnchorRun, *, threshold: float = THRESHOLD, grace: int = GRACE) -> int:
    """Frames that a run tracked before it failed; all of them where it did not."""
    lost = 0
    for frame, bad in enumerate(((run.overlaps <= threshold) & ~run.empty).tolist()):
        lost = lost + 1 if bad else 0
        if lost == grace:
            return frame + 1 - grace
    return len(run.overlaps)


def multistart(runs: Iterable[AnchorRun], window: tuple[int, int] = WINDOW) -> MultiStart:
    """Accuracy, robustness and EAO over the runs from all anchors of all sequences.

    Args:
        runs: from every anchor of every sequence.
        window: first and last index of the curve whose mean is EAO; the curve itself ends before the last.

    Raises:
        DataError: no run at all.
    """
    by_name: dict[str, list[AnchorRun]] = {}
    for run in runs:
        by_name.setdefault(run.sequence, []).append(run)
    if not by_name:
        raise DataError("there is no VOT result to score.", hint="Check the folder of results.")
    tracked, total, summed, lengths = (np.zeros(len(by_name)) for _ in range(4))
    curve, active = np.zeros(window[1]), np.zeros(window[1])
    for k, group in enumerate(by_name.values()):
        lengths[k] = group[0].length
        for run in group:
            progress = progress_of(run)
            tracked[k] += progress
            total[k] += len(run.overlaps)
            summed[k] += run.overlaps[:progress].sum()
            _add_curve(run, progress, curve, active)
    mean: Floats = np.divide(curve, active, out=np.full(len(curve), np.nan), where=active > 0)
    counted = mean[window[0] : window[1] + 1]
    known = counted[np.isfinite(counted)]
    some = tracked.sum() > 0
    return MultiStart(
        eao=float(known.mean()) if known.size else math.nan,
        accuracy=float(summed.sum() / tracked.sum()) if some else math.nan,
        robustness=float((tracked / total * lengths).sum() / lengths.sum()),
        window=window,
        curve=mean,
        sequences=tuple(by_name),
        sequence_accuracy=np.divide(summed, tracked, out=np.full(len(tracked), np.nan), where=tracked > 0),
        sequence_robustness=tracked / total,
        runs=sum(map(len, by_name.values())),
    )


def _add_curve(run: AnchorRun, progress: int, curve: Floats, active: Floats) -> None:
    """Add a run's mean overlaps to the sum of the curve and to the number of runs that count."""
    length, high = len(run.overlaps), len(curve)
    overlaps = np.where(np.arange(length) < progress, run.overlaps, 0.0)
    sums = np.cumsum(overlaps[1:high])
    own = len(sums) + 1
    curve[1:own] += sums / np.arange(1, own)
    active[1:own] += 1
    if progress < length and own < high:
        beyond = np.arange(own, high)
        curve[own:] += (sums[-1] if len(sums) else 0.0) / np.maximum(beyond - 1, 1)
        active[own:] += 1
