"""The language ablation of ``vltrack audit``: track a target with its sentence and with others, and compare.

All runs of a video go through the tracker together (``MultiTracker``: one decoding). Two questions are asked of a
model:

- Does the box move when *another* sentence is given (1 - overlap with the run that had the true one)?
- Does the true sentence help (success AUC of ``metrics.success`` with it, minus without it)?

Box arrays are (N, 4) x, y, w, h in pixels; NaN where a run has no box (text-only initialization was refused).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping
from collections.abc import Sequence as AbcSequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError, GroundingFailed, VltrackError
from vltrack.core.types import BoxLike, Floats, Frame, Image, Mode, Step, Target, iou_xywh
from vltrack.datasets.sequences import Sequence
from vltrack.evaluation.audit_sentences import Wording
from vltrack.metrics.annotations import is_box
from vltrack.metrics.success import success_auc

Frames = Generator[Frame, None, None]


class Variant(StrEnum):
    """The sentence that a run is given."""

    TRUE = "true"
    NONE = "none"
    SHUFFLED = "shuffled"
    CONTRADICTING = "contradicting"


VARIANTS: Mapping[Mode, tuple[Variant, ...]] = {
    # Without text nothing specifies the target there: no run without a sentence.
    Mode.NL: (Variant.TRUE, Variant.SHUFFLED, Variant.CONTRADICTING),
    Mode.NLBBOX: tuple(Variant),
}
"""The runs of each mode."""

OTHER_SENTENCES = (Variant.SHUFFLED, Variant.CONTRADICTING)
"""The runs with another sentence: a model uses the text only if these move the box."""

RunKey = tuple[Mode, Variant]


class MultiTrackerLike(Protocol):
    """The part of ``tracking.tracker.MultiTracker`` that the audit uses."""

    def init(self, frame: Frame | Image, targets: Mapping[str, Target]) -> dict[str, Step]: ...

    def update(self, frame: Frame | Image) -> dict[str, Step]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditTarget:
    """One target to audit a model with.

    Attributes:
        name: of the sequence or clip.
        sentence: the true one.
        frames: opens the video; called once.
        start: box in the first frame; None if it is not known (then only text-only runs are possible).
        boxes: (R, 4) ground truth, NaN or zeros where absent; None if it is not known.
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
    """The effect of another sentence (or none) on one target in one mode.

    Attributes:
        mode, variant, sentence: the run; the sentence is "" in the run without.
        moved: mean over the frames of 1 - overlap with the true run; 1 where only one of the two has a box,
            NaN if neither ever has. The first frame is left out where its box is given.
        distance: mean distance of the two centers in units of the true run's size, sqrt(w * h); NaN if the
            two never have boxes in the same frame.
        auc: success AUC of this run in percent; None without ground truth.
        gain: success AUC of the true run minus that of this one; None without ground truth.
        refused: whether the text gave no box to start from.
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
    """The audit of one target.

    Attributes:
        name, sentence, wording: of the target, and the other sentences.
        frames: number of frames of the video.
        auc: success AUC of the true run by mode, in percent.
        refused: modes in which the true sentence gave no box to start from.
        effects: one per run with another sentence or none.
        skipped: modes without runs, and why.
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
    """A target whose video or model raised an error."""

    name: str
    error: VltrackError


def audit_one(
    tracker: MultiTrackerLike, target: AuditTarget, wording: Wording, modes: AbcSequence[Mode]
) -> TargetAudit:
    """Track one target in all modes with all sentences, in one pass over its video.

    Raises:
        DataError: the video has no frame, or not as many as its annotation has rows.
        VltrackError: what the video and the tracker raise.
    """
    usable = [mode for mode in modes if mode is Mode.NL or target.start is not None]
    skipped = {mode: "no box in the first frame to start with" for mode in set(modes) - set(usable)}
    texts = {
        Variant.TRUE: target.sentence,
        Variant.NONE: None,
        Variant.SHUFFLED: wording.shuffled,
        Variant.CONTRADICTING: wording.contradicting.text,
    }
    targets = {
        (mode, variant): Target(box=None if mode is Mode.NL else target.start, text=texts[variant])
        for mode in usable
        for variant in VARIANTS[mode]
    }
    boxes: dict[RunKey, Floats] = {}
    frames = 0
    if targets:
        with closing(target.frames()) as video:
            boxes, frames = track_targets(tracker, video, targets)
    refused = {run for run, rows in boxes.items() if not np.isfinite(rows).any()}
    aucs = {run: _auc(target, rows) for run, rows in boxes.items()}
    effects = []
    for mode, variant in targets:
        run, true = (mode, variant), (mode, Variant.TRUE)
        if run == true:
            continue
        first = 1 if mode is Mode.NLBBOX else 0
        moved, distance = movement(boxes[true][first:], boxes[run][first:])
        auc, true_auc = aucs[run], aucs[true]
        effects.append(
            Effect(
                mode=mode,
                variant=variant,
                sentence=texts[variant] or "",
                moved=moved,
                distance=distance,
                auc=auc,
                gain=None if auc is None or true_auc is None else true_auc - auc,
                refused=run in refused,
            )
        )
    return TargetAudit(
        name=target.name,
        sentence=target.sentence,
        wording=wording,
        frames=frames,
        auc={mode: aucs[mode, Variant.TRUE] for mode in usable},
        refused=tuple(mode for mode in usable if (mode, Variant.TRUE) in refused),
        effects=tuple(effects),
        skipped=skipped,
    )


def track_targets(
    tracker: MultiTrackerLike, frames: Iterable[Frame], targets: Mapping[RunKey, Target]
) -> tuple[dict[RunKey, Floats], int]:
    """Track several targets over the N frames of one video.

    Returns:
        The boxes (N, 4) of every target, NaN for those whose initialization was refused; and N.

    Raises:
        DataError: the video has no frames.
    """
    named = {f"{mode}/{variant}": (mode, variant) for mode, variant in targets}
    wanted = {name: targets[run] for name, run in named.items()}
    rows: dict[RunKey, list[Floats]] = {run: [] for run in targets}
    count, running = 0, False
    for frame in frames:
        steps: dict[str, Step] = {}
        if count == 0:
            steps = _start(tracker, frame, wanted)
            running = bool(steps)
        elif running:
            steps = tracker.update(frame)
        for name, run in named.items():
            rows[run].append(steps[name].box if name in steps else np.full(4, np.nan))
        count += 1
    if count == 0:
        raise DataError("The video has no frames.", hint="Check the data set: vltrack datasets check.")
    return {run: np.array(found, dtype=np.float64) for run, found in rows.items()}, count


def _start(tracker: MultiTrackerLike, frame: Frame, targets: Mapping[str, Target]) -> dict[str, Step]:
    """Initialize all targets together, without those whose text gives no box."""
    with suppress(GroundingFailed):
        return tracker.init(frame, targets)
    usable: dict[str, Target] = {}
    for name, target in targets.items():
        with suppress(GroundingFailed):
            tracker.init(frame, {name: target})
            usable[name] = target
    return tracker.init(frame, usable) if usable else {}


def _auc(target: AuditTarget, rows: Floats) -> float | None:
    """Success AUC in percent; None without ground truth, or if it never shows the target.

    Raises:
        DataError: frames and rows of the annotation differ in number.
    """
    if target.boxes is None or target.absent is None:
        return None
    if len(rows) != len(target.boxes):
        raise DataError(
            f"{target.name} has {len(rows)} frames, but its annotation has {len(target.boxes)} rows.",
            hint="Every frame needs one row.",
        )
    seen = ~target.absent & (np.nan_to_num(target.boxes)[:, 2:] > 0).all(axis=1)
    if not seen.any():
        return None
    return 100 * success_auc(rows, target.boxes, target.absent)


def movement(true_N4: Floats, other_N4: Floats) -> tuple[float, float]:
    """Mean of 1 - overlap between the boxes of two runs, and mean distance of their centers.

    The distance is in units of the first run's size, sqrt(w * h). A frame in which only one run has a box
    counts as 1 in the overlap and is left out of the distance; one in which none has is left out of both. NaN
    if no frame counts.
    """
    one, two = (np.array(np.isfinite(rows).all(axis=1), dtype=bool) for rows in (true_N4, other_N4))
    both = one & two
    if not (one | two).any():
        return math.nan, math.nan
    apart = np.ones(len(one))
    apart[both] = 1.0 - np.minimum(iou_xywh(true_N4[both], other_N4[both]), 1.0)
    moved = float(apart[one | two].mean())
    if not both.any():
        return moved, math.nan
    shift = true_N4[both, :2] + true_N4[both, 2:] / 2 - other_N4[both, :2] - other_N4[both, 2:] / 2
    size = np.sqrt(true_N4[both, 2:].prod(axis=1))
    return moved, float((np.hypot(*shift.T) / size).mean())


def truncated(target: AuditTarget, frames: int) -> AuditTarget:
    """The same target in the first ``frames`` frames only."""

    def first_frames() -> Frames:
        with closing(target.frames()) as every:
            yield from islice(every, frames)

    boxes = None if target.boxes is None else target.boxes[:frames]
    absent = None if target.absent is None else target.absent[:frames]
    return replace(target, frames=first_frames, boxes=boxes, absent=absent)


def audit_targets_of(sequences: Iterable[Sequence]) -> tuple[list[AuditTarget], dict[str, str]]:
    """Make targets of annotated sequences.

    Returns:
        The targets with a sentence; and by name why the other sequences are left out.
    """
    found: list[AuditTarget] = []
    left_out: dict[str, str] = {}
    for sequence in sequences:
        if not sequence.sentence.strip():
            left_out[sequence.name] = "no sentence"
            continue
        x, y, w, h = (float(number) for number in sequence.boxes[0])
        usable = is_box(sequence.boxes[:1]).all() and not sequence.absent[0]
        known = not sequence.annotations_withheld
        found.append(
            AuditTarget(
                name=sequence.name,
                sentence=sequence.sentence,
                frames=sequence.frames,
                start=(x, y, w, h) if usable else None,
                boxes=sequence.boxes if known else None,
                absent=sequence.absent if known else None,
            )
        )
    return found, left_out
