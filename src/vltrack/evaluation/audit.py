"""The language audit: one target followed with its sentence and with others, and what the sentence changed.

All runs of a video go through the tracker together (``MultiTracker``: one decoding, one batch a frame). Knows
no file and no picture. What is asked of a model:

- Does the box move when *another* sentence is given (1 - overlap with the run that had the true one)?
- Does the true sentence help (success AUC of ``metrics.success`` with it, minus without it)?

Box arrays are (N, 4) x, y, w, h in pixels; NaN where a run has no box (the start by words was refused).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping
from collections.abc import Sequence as AbcSequence
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError, GroundingFailed, VltrackError
from vltrack.core.types import Floats, Frame, Image, Mode, Step, Target, iou_xywh
from vltrack.datasets.sequences import Sequence
from vltrack.evaluation.audit_sentences import Wording
from vltrack.metrics.success import success_auc

BoxLike = tuple[float, float, float, float]
Frames = Generator[Frame, None, None]


class Variant(StrEnum):
    """What is said of the target."""

    TRUE = "true"
    NONE = "none"
    SHUFFLED = "shuffled"
    CONTRADICTING = "contradicting"


VARIANTS: Mapping[Mode, tuple[Variant, ...]] = {
    # Without words nothing names the target there: no run without a sentence.
    Mode.NL: (Variant.TRUE, Variant.SHUFFLED, Variant.CONTRADICTING),
    Mode.NLBBOX: tuple(Variant),
}
"""Which runs a mode has."""

OTHER_WORDS = (Variant.SHUFFLED, Variant.CONTRADICTING)
"""The runs with another sentence: what the words say matters only if these move the box."""

Run = tuple[Mode, Variant]


class MultiTrackerLike(Protocol):
    """What the audit needs of ``tracking.tracker.MultiTracker``."""

    def init(self, frame: Frame | Image, targets: Mapping[str, Target]) -> dict[str, Step]: ...

    def update(self, frame: Frame | Image) -> dict[str, Step]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditTarget:
    """One target to audit a model with.

    Attributes:
        name: of the sequence or clip.
        sentence: the true one.
        frames: opens the video; called once.
        start: the box in the first frame, None where it is not known (then only by words).
        boxes: (R, 4) the truth, NaN or zeros where absent; None where it is not known.
        absent: (R,) bool, with ``boxes``.
    """

    name: str
    sentence: str
    frames: Callable[[], Frames]
    start: BoxLike | None = None
    boxes: Floats | None = None
    absent: NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """What one other sentence (or none) did to one target in one mode.

    Attributes:
        mode, variant, sentence: which run; the sentence is "" in the run without.
        moved: mean over the frames of 1 - overlap with the true run; 1 where only one of the two has a box,
            NaN where neither has. The first frame of a start by box is given and does not count.
        distance: mean distance of the two centres in units of the true run's size, sqrt(w * h); NaN where
            never both have a box.
        auc: success AUC of this run in percent; None without truth.
        gain: success AUC of the true run minus this one's; None without truth.
        refused: whether the words gave no box to start with.
    """

    mode: Mode
    variant: Variant
    sentence: str
    moved: float
    distance: float
    auc: float | None
    gain: float | None
    refused: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetAudit:
    """The audit of one target: frames followed, the true run's success AUC a mode, and every other run.

    ``skipped`` says of a mode why this target has no runs in it.
    """

    name: str
    sentence: str
    wording: Wording
    frames: int
    auc: Mapping[Mode, float | None]
    refused: tuple[Mode, ...]
    effects: tuple[Effect, ...]
    skipped: Mapping[Mode, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedTarget:
    """A target whose video or model failed: why, and the error's code."""

    name: str
    error: VltrackError


def audit_one(
    follower: MultiTrackerLike, subject: AuditTarget, wording: Wording, modes: AbcSequence[Mode]
) -> TargetAudit:
    """Follow one target in all modes with all sentences, in one pass over its video.

    Raises:
        DataError: the video has no frame that decodes first, or another number of frames than the truth.
        VltrackError: what the video and the tracker raise.
    """
    skipped: dict[Mode, str] = {}
    usable = [mode for mode in modes if mode is Mode.NL or subject.start is not None]
    for mode in set(modes) - set(usable):
        skipped[mode] = "no box in the first frame to start with"
    targets = {run: _target(subject, wording, run) for mode in usable for run in _runs(mode)}
    boxes: dict[Run, Floats] = {}
    frames = 0
    if targets:
        with closing(subject.frames()) as video:
            boxes, frames = follow(follower, video, targets)
    refused = {run for run, rows in boxes.items() if not np.isfinite(rows).any()}
    aucs = {run: _auc(subject, rows) for run, rows in boxes.items()}
    effects = [
        _effect(run, targets[run].text or "", boxes, aucs, refused)
        for run in targets
        if run[1] is not Variant.TRUE
    ]
    return TargetAudit(
        name=subject.name,
        sentence=subject.sentence,
        wording=wording,
        frames=frames,
        auc={mode: aucs[mode, Variant.TRUE] for mode in usable},
        refused=tuple(mode for mode in usable if (mode, Variant.TRUE) in refused),
        effects=tuple(effects),
        skipped=skipped,
    )


def follow(
    follower: MultiTrackerLike, frames: Iterable[Frame], targets: Mapping[Run, Target]
) -> tuple[dict[Run, Floats], int]:
    """The boxes (N, 4) of every target over the N frames of one video, and N; NaN rows for those that were
    refused.

    Raises:
        DataError: there is no frame.
    """
    named = {f"{mode}/{variant}": (mode, variant) for mode, variant in targets}
    wanted = {name: targets[run] for name, run in named.items()}
    rows: dict[Run, list[Floats]] = {run: [] for run in targets}
    count, going = 0, False
    for frame in frames:
        steps: dict[str, Step] = {}
        if count == 0:
            steps = _started(follower, frame, wanted)
            going = bool(steps)
        elif going:
            steps = follower.update(frame)
        for name, run in named.items():
            rows[run].append(steps[name].box if name in steps else np.full(4, np.nan))
        count += 1
    if count == 0:
        raise DataError("the video has no frame.", hint="Check the data set: vltrack datasets check.")
    return {run: np.array(found, dtype=np.float64) for run, found in rows.items()}, count


def _started(follower: MultiTrackerLike, frame: Frame, targets: Mapping[str, Target]) -> dict[str, Step]:
    """Start all targets together; without those whose words give no box."""
    try:
        return follower.init(frame, targets)
    except GroundingFailed:
        pass
    usable: dict[str, Target] = {}
    for name, target in targets.items():
        try:
            follower.init(frame, {name: target})
        except GroundingFailed:
            continue
        usable[name] = target
    return follower.init(frame, usable) if usable else {}


def _runs(mode: Mode) -> list[Run]:
    return [(mode, variant) for variant in VARIANTS[mode]]


def _target(subject: AuditTarget, wording: Wording, run: Run) -> Target:
    mode, variant = run
    said = {
        Variant.TRUE: subject.sentence,
        Variant.NONE: None,
        Variant.SHUFFLED: wording.shuffled,
        Variant.CONTRADICTING: wording.contradicting.text,
    }[variant]
    return Target(box=None if mode is Mode.NL else subject.start, text=said)


def _auc(subject: AuditTarget, rows: Floats) -> float | None:
    """Success AUC in percent; None where the truth is not known or never shows the target.

    Raises:
        DataError: another number of frames than the truth has rows.
    """
    if subject.boxes is None or subject.absent is None:
        return None
    if len(rows) != len(subject.boxes):
        raise DataError(
            f"{subject.name} has {len(rows)} frames, its annotation has {len(subject.boxes)} rows.",
            hint="Every frame needs one row.",
        )
    seen = ~subject.absent & (np.nan_to_num(subject.boxes)[:, 2:] > 0).all(axis=1)
    if not seen.any():
        return None
    return 100 * success_auc(rows, subject.boxes, subject.absent)


def _effect(
    run: Run,
    sentence: str,
    boxes: Mapping[Run, Floats],
    aucs: Mapping[Run, float | None],
    refused: set[Run],
) -> Effect:
    mode, variant = run
    true = (mode, Variant.TRUE)
    first = 1 if mode is Mode.NLBBOX else 0
    moved, distance = movement(boxes[true][first:], boxes[run][first:])
    auc, whole = aucs[run], aucs[true]
    return Effect(
        mode=mode,
        variant=variant,
        sentence=sentence,
        moved=moved,
        distance=distance,
        auc=auc,
        gain=None if auc is None or whole is None else whole - auc,
        refused=run in refused,
    )


def movement(true_N4: Floats, other_N4: Floats) -> tuple[float, float]:
    """How far the boxes of two runs lie apart: mean of 1 - overlap, and mean distance of the centres.

    The distance is in units of the first run's size, sqrt(w * h). A frame in which only one run has a box
    counts 1 in the overlap and nothing in the distance; one in which none has counts in neither. NaN where
    nothing counts.
    """
    one, two = (np.array(np.isfinite(rows).all(axis=1), dtype=bool) for rows in (true_N4, other_N4))
    both = one & two
    if not (one | two).any():
        return math.nan, math.nan
    apart = np.ones(len(one))
    apart[both] = 1.0 - np.minimum(iou_xywh(true_N4[both], other_N4[both]), 1.0)
    apart = apart[one | two]
    if not both.any():
        return float(apart.mean()), math.nan
    shift = true_N4[both, :2] + true_N4[both, 2:] / 2 - other_N4[both, :2] - other_N4[both, 2:] / 2
    size = np.sqrt(true_N4[both, 2:].prod(axis=1))
    return float(apart.mean()), float((np.hypot(*shift.T) / size).mean())


def truncated(subject: AuditTarget, frames: int) -> AuditTarget:
    """The same target in the first ``frames`` frames only."""

    def some() -> Frames:
        with closing(subject.frames()) as every:
            yield from islice(every, frames)

    boxes = None if subject.boxes is None else subject.boxes[:frames]
    absent = None if subject.absent is None else subject.absent[:frames]
    return replace(subject, frames=some, boxes=boxes, absent=absent)


# MERGED evaluation/audit.py
# From annotated sequences to targets of an audit. Knows what a sequence must have; opens no video.


def audit_targets_of(sequences: Iterable[Sequence]) -> tuple[list[AuditTarget], dict[str, str]]:
    """Targets with a sentence, and by name why the other sequences are left out."""
    found: list[AuditTarget] = []
    left_out: dict[str, str] = {}
    for sequence in sequences:
        if not sequence.sentence.strip():
            left_out[sequence.name] = "no sentence"
            continue
        found.append(audit_target_of(sequence))
    return found, left_out


def audit_target_of(sequence: Sequence) -> AuditTarget:
    """One target. Where the truth is held back there is only the box to start from."""
    box = np.asarray(sequence.boxes[0], dtype=np.float64)
    usable = bool(np.isfinite(box).all() and (box[2:] > 0).all() and not sequence.absent[0])
    x, y, w, h = (float(number) for number in box)
    known = not sequence.annotations_withheld
    return AuditTarget(
        name=sequence.name,
        sentence=sequence.sentence,
        frames=sequence.frames,
        start=(x, y, w, h) if usable else None,
        boxes=sequence.boxes if known else None,
        absent=sequence.absent if known else None,
    )
