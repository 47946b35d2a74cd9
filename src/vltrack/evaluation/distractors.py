"""Audit with distractor pairs: scenes with two objects of one shape in two colors, and a sentence for each.

Nothing but the sentence distinguishes the two, so a model that reads must track the named one, and change to
the other with the other sentence. A model that does not read tracks one of them, or neither, whatever the
sentence: what it gains with one it loses with the other, and its *lead* is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from vltrack.core.errors import PartialResult
from vltrack.core.json_io import finite_or_none
from vltrack.core.types import Floats, Frame, Mode, Target, iou_xywh
from vltrack.datasets.synthetic import SyntheticClip, synthesize_clip
from vltrack.evaluation.audit import MultiTrackerLike, RunKey, Variant, movement, track_targets
from vltrack.evaluation.audit_report import FORMAT, TINY, VERSION, csv_number, write_audit
from vltrack.metrics.bootstrap import FEWEST, Interval, paired_bootstrap

FIRST_SEED = 1_000_000
"""Scenes are drawn from this seed on; training uses others."""
_A: RunKey = (Mode.NL, Variant.TRUE)
_B: RunKey = (Mode.NL, Variant.CONTRADICTING)


class DistractorVerdict(StrEnum):
    """The finding on a model."""

    IGNORES = "ignores the sentence"
    FOLLOWS = "follows the sentence"
    ASTRAY = "moves, but not to the twin that is named"
    FEW = "too few scenes to tell"


@dataclass(frozen=True, kw_only=True, slots=True)
class DistractorPair:
    """One scene, and the boxes of a model with each of the two sentences.

    Attributes:
        seed: of the scene.
        sentences: of the first and the second object.
        named: share of frames in which the box overlaps the named object more than the other one, for each of
            the two sentences.
        other: the same for the other object.
        moved: mean of 1 - overlap between the boxes of the two sentences; NaN if both were refused.
        refused: how many of the two initializations gave no box.
    """

    seed: int
    sentences: tuple[str, str]
    named: tuple[float, float]
    other: tuple[float, float]
    moved: float
    refused: int

    @property
    def lead(self) -> float:
        """Mean of ``named`` - ``other``: 1 always right, 0 no effect of the text, -1 always wrong."""
        return (sum(self.named) - sum(self.other)) / 2

    @property
    def flipped(self) -> bool:
        """Return whether each sentence puts the box on its own object in more than half of the frames."""
        return min(self.named) > 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class DistractorAudit:
    """All scenes: mean ``lead``, share of frames on the named and the other object, flip rate, movement."""

    verdict: DistractorVerdict
    lead: Interval
    named: Interval
    other: Interval
    flip: Interval
    moved: Interval
    refused: int
    scenes: Sequence[DistractorPair]

    @property
    def verdict_text(self) -> str:
        """The verdict; if there are too few scenes, with their number."""
        if self.verdict is not DistractorVerdict.FEW:
            return str(self.verdict)
        return f"{self.verdict} ({len(self.scenes)}, {FEWEST} are needed)"


def distractor_scenes(count: int, frames: int = 20, seed: int = 0) -> Iterator[tuple[int, SyntheticClip]]:
    """Yield ``count`` fair scenes and the seeds of their clips.

    Both objects are always in view, and apart in the first frame: text-only initialization needs two
    candidates.
    """
    number, found = FIRST_SEED * (1 + seed), 0
    while found < count:
        clip = synthesize_clip(number, frames)
        distractor = clip.distractor_boxes
        number += 1
        if distractor is None or clip.absent.any() or (distractor[:, 2:] <= 0).any():
            continue
        if iou_xywh(clip.boxes[0], distractor[0]) <= 0.1:
            found += 1
            yield number - 1, clip


def audit_scene(tracker: MultiTrackerLike, seed: int, clip: SyntheticClip) -> DistractorPair:
    """Track both objects of a scene from their sentences, in one pass.

    Raises:
        ValueError: the clip has no distractor pair.
        VltrackError: what the tracker raises.
    """
    if clip.distractor_boxes is None:
        raise ValueError(f"No distractor pair in the clip of seed {seed}.")
    targets = {_A: Target(text=clip.sentence), _B: Target(text=clip.distractor_sentence)}
    frames = (Frame(image=image, index=k, seconds=k / 25) for k, image in enumerate(clip.frames))
    boxes, _ = track_targets(tracker, frames, targets)
    one = _shares(boxes[_A], clip.boxes, clip.distractor_boxes)
    two = _shares(boxes[_B], clip.distractor_boxes, clip.boxes)
    return DistractorPair(
        seed=seed,
        sentences=(clip.sentence, clip.distractor_sentence),
        named=(one[0], two[0]),
        other=(one[1], two[1]),
        moved=movement(boxes[_A], boxes[_B])[0],
        refused=sum(not np.isfinite(rows).any() for rows in boxes.values()),
    )


def summarize_pairs(scenes: Sequence[DistractorPair], seed: int = 0) -> DistractorAudit:
    """Summarize all scenes; ``seed`` is for the bootstrap. ``FEWEST`` scenes are needed for a verdict."""

    def over(values: Iterable[float]) -> Interval:
        return paired_bootstrap(list(values), seed=seed)

    lead = over(scene.lead for scene in scenes)
    moved = over(scene.moved for scene in scenes)
    if moved.sequences and moved.mean < TINY:
        verdict = DistractorVerdict.IGNORES
    elif len(scenes) < FEWEST:
        verdict = DistractorVerdict.FEW
    elif lead.low > 0:
        verdict = DistractorVerdict.FOLLOWS
    else:
        verdict = DistractorVerdict.ASTRAY
    return DistractorAudit(
        verdict=verdict,
        lead=lead,
        named=over(sum(scene.named) / 2 for scene in scenes),
        other=over(sum(scene.other) / 2 for scene in scenes),
        flip=over(float(scene.flipped) for scene in scenes),
        moved=moved,
        refused=sum(scene.refused for scene in scenes),
        scenes=tuple(scenes),
    )


def judge_pairs(audit: DistractorAudit, model: str) -> None:
    """Raise if the box does not follow the sentence, which alone specifies the target here.

    Raises:
        PartialResult: it does not.
    """
    if audit.verdict in (DistractorVerdict.FOLLOWS, DistractorVerdict.FEW):
        return
    flips, count = sum(scene.flipped for scene in audit.scenes), len(audit.scenes)
    raise PartialResult(
        f"{model} does not follow the sentence on distractor pairs ({audit.verdict}): in {flips} of "
        f"{count} scene{'' if count == 1 else 's'} each sentence puts the box on its own object.",
        hint="Do not rely on text to distinguish look-alikes, or train on scenes where only it decides.",
    )


# -- files --------------------------------------------------------------------------------------------------


def document(audit: DistractorAudit, head: Mapping[str, Any]) -> dict[str, Any]:
    """The whole audit for JSON (docs/audit.md describes it)."""
    totals = {name: getattr(audit, name).to_dict() for name in ("lead", "named", "other", "flip", "moved")}
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": "twins",
        **head,
        "threshold": TINY,
        "verdict": str(audit.verdict),
        **totals,
        "refused": audit.refused,
        "scenes": [
            {
                "seed": scene.seed,
                "sentences": list(scene.sentences),
                "named": list(scene.named),
                "other": list(scene.other),
                "lead": scene.lead,
                "flipped": scene.flipped,
                "moved": finite_or_none(scene.moved),
                "refused": scene.refused,
            }
            for scene in audit.scenes
        ],
    }


def save(audit: DistractorAudit, head: Mapping[str, Any], folder: Path) -> None:
    """Write audit.json and audit.csv into ``folder``. Raises ``ResourceError``."""
    rows = []
    for scene in audit.scenes:
        for sentence, *numbers in zip(scene.sentences, scene.named, scene.other, strict=True):
            named, other, moved = map(csv_number, (*numbers, scene.moved))
            rows.append([scene.seed, sentence, named, other, int(scene.flipped), moved, scene.refused])
    columns = ("seed", "sentence", "named", "other", "flipped", "moved", "refused")
    write_audit(folder, document(audit, head), columns, rows)


def _shares(boxes_N4: Floats, named_N4: Floats, other_N4: Floats) -> tuple[float, float]:
    """Shares of frames in which the box overlaps the named object more, and the other one more."""
    rows = np.nan_to_num(boxes_N4)
    ahead = iou_xywh(rows, named_N4) - iou_xywh(rows, other_N4)
    return float((ahead > 0).mean()), float((ahead < 0).mean())
