"""Scores of VOT's supervised experiment (2013 to 2019), above all EAO. Knows overlaps; knows no file.

The tracker is started in frame 1 (code 1 in the result), stopped where it fails, that is where it does not
overlap the truth at all (code 2), and started again 5 frames later (codes 0 until then, then 1). Rules from
the VOT papers (Kristan et al., TPAMI 2016; reports of VOT2015 to VOT2019) and the challenge's toolkit:

- Accuracy: mean overlap, without the 10 frames from each start on, of which the first is the start itself.
- Robustness: failures; also per 100 frames.
- Expected average overlap (EAO): every run is cut into fragments, one from each start. The first frame of
  each does not count, so the mean overlap over L frames is the sum of frames 2..L divided by L - 1. A
  fragment that ends in a failure is 0 ever after and counts at every length; one that reaches the end of
  its sequence counts up to its own length only. The curve at L is the mean over the fragments that count
  there; EAO is the mean of the curve over a window of lengths that each year fixed (``WINDOWS``), both ends
  included.

Details, so that nobody has to guess: the fragment of a failure reaches up to the frame ``failure + 5``
inclusive, all zero from the failure on, and the next begins in that very frame. A failure so late that this
frame is more than one past the end leaves its fragment unpadded: it ends with the sequence. Frames without
a known overlap inside a fragment count as 0. Repetitions of a sequence share its weight. Lengths beyond
the longest sequence are left out of the mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.errors import DataError
from vltrack.metrics.overlaps import Size, raster_overlaps
from vltrack.metrics.regions import FAILED, STARTED, Region, Special
from vltrack.metrics.telling import told_number

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

WINDOWS: Mapping[int, tuple[int, int]] = {
    2015: (108, 371),
    2016: (108, 371),
    2017: (100, 356),
    2018: (100, 356),
    2019: (46, 291),
}
"""Shortest and longest fragment length whose expected overlap counts, by year; 2013 and 2014 had no EAO."""

RESTART = 5
"""Frames from a failure to the next start."""
BURN_IN = 10
"""Frames from each start on that accuracy leaves out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One repetition on one sequence of N frames. The arrays are copied and read-only.

    Attributes:
        sequence: its name; repetitions share it.
        overlaps: (N,) overlap with the truth, NaN where the result or the truth is a code.
        started: (N,) bool, code 1.
        failed: (N,) bool, code 2.
        tags: (N,) bool by name of a per-frame attribute such as ``occlusion``.
    """

    sequence: str
    overlaps: Floats
    started: Flags
    failed: Flags
    tags: Mapping[str, Flags] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "overlaps", _frozen(self.overlaps, np.float64))
        put(self, "started", _frozen(self.started, bool))
        put(self, "failed", _frozen(self.failed, bool))
        put(self, "tags", {name: _frozen(flags, bool) for name, flags in self.tags.items()})
        lengths = {array.shape for array in (self.overlaps, self.started, self.failed, *self.tags.values())}
        if len(lengths) != 1 or self.overlaps.ndim != 1 or not self.overlaps.size:
            raise DataError(f"{self.sequence}: overlaps, codes and tags differ in length or are empty.")

    @classmethod
    def of(
        cls,
        sequence: str,
        result: Sequence[Region],
        truth: Sequence[Region],
        size: Size | None = None,
        tags: Mapping[str, ArrayLike] | None = None,
        *,
        where: str = "",
    ) -> Run:
        """From N regions of a result and of the truth, with the overlap of the years' toolkit.

        Args:
            sequence: its name.
            result, truth: N regions each.
            size: (width, height) of the frames; None counts pixels outside as well.
            tags: (N,) flags by name.
            where: the result's file, for errors.

        Raises:
            DataError: the lengths differ; a mask; or the result does not begin with code 1, so that the
                tracker was not run under these rules and its EAO would mean nothing.
        """
        if not result or result[0] != Special(STARTED):
            raise DataError(
                f"{where or sequence}: the result does not begin with code 1 (started).",
                hint="EAO needs results with restarts (supervised experiment), not boxes of one pass.",
            )
        return cls(
            sequence=sequence,
            overlaps=raster_overlaps(result, truth, size),
            started=np.array([region == Special(STARTED) for region in result]),
            failed=np.array([region == Special(FAILED) for region in result]),
            tags={name: np.asarray(flags, dtype=bool) for name, flags in (tags or {}).items()},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Supervised:
    """Scores of a tracker in the supervised experiment.

    Attributes:
        accuracy: mean over all frames of all sequences that count, after the mean over repetitions.
        accuracy_weighted: mean of the sequences' accuracies weighted by their length (the VOT toolkit).
        failures: number of failures, the mean over repetitions summed over sequences.
        robustness: failures per 100 frames (what papers of this field print as R).
        eao: expected average overlap, NaN without a window or where no sequence reaches it.
        eao_by_tag: the same, fragments weighted by the share of their frames with the tag.
        window: shortest and longest length, or None.
        curve: (L,) expected overlap over L frames at index L - 1; 1 at index 0.
        sequences: names in the order of the input.
        sequence_accuracy: (S,) accuracy of each; NaN where no frame counts.
        sequence_failures: (S,) failures of each, mean over repetitions.
        frames: all sequences' lengths together.
    """

    accuracy: float
    accuracy_weighted: float
    failures: float
    robustness: float
    eao: float
    eao_by_tag: Mapping[str, float]
    window: tuple[int, int] | None
    curve: Floats
    sequences: tuple[str, ...]
    sequence_accuracy: Floats
    sequence_failures: Floats
    frames: int

    def told(self) -> dict[str, Any]:
        """For JSON; None where a number is not defined."""
        return {
            "experiment": "supervised",
            "eao": told_number(self.eao),
            "accuracy": told_number(self.accuracy),
            "accuracy_weighted": told_number(self.accuracy_weighted),
            "robustness": told_number(self.robustness),
            "failures": told_number(self.failures),
            "window": list(self.window) if self.window else None,
            "eao_by_tag": {name: told_number(value) for name, value in self.eao_by_tag.items()},
            "curve": self.curve.tolist(),
            "frames": self.frames,
            "sequences": [
                {"name": name, "accuracy": told_number(accuracy), "failures": failures}
                for name, accuracy, failures in zip(
                    self.sequences,
                    self.sequence_accuracy.tolist(),
                    self.sequence_failures.tolist(),
                    strict=True,
                )
            ],
        }


def supervised(
    runs: Iterable[Run],
    window: tuple[int, int] | None = None,
    *,
    burn_in: int = BURN_IN,
    restart: int = RESTART,
) -> Supervised:
    """Accuracy, robustness and EAO over all runs.

    Args:
        runs: every repetition on every sequence; repetitions of one sequence are of one length.
        window: shortest and longest length for EAO (``WINDOWS[year]``), both included; None: no EAO.
        burn_in: frames from each start on that accuracy leaves out.
        restart: frames from a failure to the next start.

    Raises:
        DataError: no run at all, or repetitions of different lengths.
    """
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.sequence, []).append(run)
    if not by_name:
        raise DataError("there is no VOT result to score.", hint="Check the folder of results.")
    for name, group in by_name.items():
        if len({len(run.overlaps) for run in group}) > 1:
            raise DataError(f"{name}: its repetitions differ in length.", hint="Remove the cut ones.")
    lengths = np.array([len(group[0].overlaps) for group in by_name.values()])
    failures = np.array([np.mean([run.failed.sum() for run in group]) for group in by_name.values()])
    pooled = [_accuracies(group, burn_in) for group in by_name.values()]
    each = np.array([_mean(frames) for frames in pooled])
    # A sequence where no frame counts has accuracy 0 in the toolkit's weighted mean.
    per_run = [
        np.mean([np.nan_to_num(_mean(_accuracies([run], burn_in))) for run in group])
        for group in by_name.values()
    ]
    total = int(lengths.sum())
    fragments = [
        fragment
        for group in by_name.values()
        for run in group
        for fragment in fragments_of(run, weight=1 / len(group), restart=restart)
    ]
    longest = int(lengths.max())
    curve = expected_overlap(fragments, longest)
    tags = sorted(set.intersection(*(set(run.tags) for group in by_name.values() for run in group)))
    return Supervised(
        accuracy=_mean(np.concatenate(pooled)),
        accuracy_weighted=float((np.array(per_run) * lengths).sum() / total),
        failures=float(failures.sum()),
        robustness=float(100 * failures.sum() / total),
        eao=windowed(curve, window),
        eao_by_tag={tag: windowed(expected_overlap(fragments, longest, tag), window) for tag in tags},
        window=window,
        curve=curve,
        sequences=tuple(by_name),
        sequence_accuracy=each,
        sequence_failures=failures,
        frames=total,
    )


def _accuracies(group: Sequence[Run], burn_in: int) -> Floats:
    """(N,) mean overlap over the repetitions in which a frame counts; NaN where it counts in none."""
    total, number = np.zeros(len(group[0].overlaps)), np.zeros(len(group[0].overlaps))
    for run in group:
        counts = np.isfinite(run.overlaps)
        for start in np.flatnonzero(run.started):
            counts[start : start + burn_in] = False
        total[counts] += run.overlaps[counts]
        number += counts
    mean: Floats = np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)
    return mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Fragment:
    """What one start led to.

    Attributes:
        overlaps: (n,) from the start on, no NaN.
        padded: it ended in a failure: 0 at every later length.
        weight: of the fragment among all.
        tags: share of its frames that carry each tag.
    """

    overlaps: Floats
    padded: bool
    weight: float
    tags: Mapping[str, float]


def fragments_of(run: Run, *, weight: float = 1.0, restart: int = RESTART) -> list[Fragment]:
    """The fragments of a run, in order (rules at the top of the file)."""
    length = len(run.overlaps)
    begins = [0, *(int(f) + restart for f in np.flatnonzero(run.failed) if f + restart <= length)]
    overlaps = np.nan_to_num(run.overlaps, nan=0.0)
    fragments = []
    for begin, end in zip(begins, [*begins[1:], None], strict=True):
        part = slice(begin, None if end is None else end + 1)
        if begin >= length:
            break
        fragments.append(
            Fragment(
                overlaps=overlaps[part],
                padded=end is not None,
                weight=weight,
                tags={name: float(flags[part].mean()) for name, flags in run.tags.items()},
            )
        )
    return fragments


def expected_overlap(fragments: Sequence[Fragment], longest: int, tag: str | None = None) -> Floats:
    """(L,) expected overlap at lengths 1..L; NaN where no fragment has weight.

    Args:
        fragments: of all runs.
        longest: L, the frames of the longest sequence.
        tag: weight each fragment by its share of frames with this tag as well.
    """
    total, weights = np.zeros(longest), np.zeros(longest)
    counted = np.maximum(np.arange(longest), 1)
    for fragment in fragments:
        weight = fragment.weight * (1.0 if tag is None else fragment.tags[tag])
        length = len(fragment.overlaps)
        sums = np.cumsum(np.concatenate([[0.0], fragment.overlaps[1:]]))
        total[:length] += weight * sums / counted[:length]
        weights[:length] += weight
        if fragment.padded:
            total[length:] += weight * sums[-1] / counted[length:]
            weights[length:] += weight
    curve: Floats = np.divide(total, weights, out=np.full(longest, np.nan), where=weights > 0)
    curve[0] = 1.0
    return curve


def windowed(curve: Floats, window: tuple[int, int] | None) -> float:
    """Mean of the curve over the lengths of the window, both included; NaN where there is none."""
    if window is None:
        return math.nan
    low, high = window
    return _mean(curve[low - 1 : high])


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan


def _frozen(values: ArrayLike, kind: type) -> NDArray[Any]:
    array: NDArray[Any] = np.array(values, dtype=kind)
    array.setflags(write=False)
    return array
