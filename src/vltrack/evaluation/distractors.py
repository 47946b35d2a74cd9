"""Twin scenes: two things of one shape in two colours, a sentence for each. Does the box follow the words?

Nothing but the sentence tells the twins apart, so a model that reads must land on the one that is named, and
change to the other with the other sentence. A model that does not read stands on one of them, or on neither,
whatever is said: what it gains with one sentence it loses with the other, and its *lead* is 0.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import PartialResult
from vltrack.core.files import write_text
from vltrack.core.types import Frame, Mode, Target, iou_xywh
from vltrack.datasets.synthetic import SyntheticClip, synthesize_clip
from vltrack.evaluation.audit import MultiTrackerLike, Run, Variant, follow, movement
from vltrack.evaluation.audit_report import FORMAT, TINY, VERSION
from vltrack.metrics.bootstrap import FEWEST, Interval, paired_bootstrap

FIRST_SEED = 1_000_000
"""Scenes are drawn from this seed on; training uses others."""
APART = 0.1
"""DistractorPair overlap at most this much in the first frame, or the start by words would be a matter of taste."""
FRAMES = 20
RATE = 25.0

_A: Run = (Mode.NL, Variant.TRUE)
_B: Run = (Mode.NL, Variant.CONTRADICTING)


class DistractorVerdict(StrEnum):
    """What is found of a model on twins."""

    IGNORES = "ignores the sentence"
    FOLLOWS = "follows the sentence"
    ASTRAY = "moves, but not to the twin that is named"
    FEW = "too few scenes to tell"


@dataclass(frozen=True, kw_only=True, slots=True)
class DistractorPair:
    """One scene and what a model did in it, with each of the two sentences.

    Attributes:
        seed: of the scene.
        sentences: of the first and the second twin.
        named: share of frames in which the box overlaps the twin that is named more than the other one, for
            each of the two sentences.
        other: the same for the twin that is not named.
        moved: mean of 1 - overlap between the boxes of the two sentences; NaN where both were refused.
        refused: how many of the two starts gave no box.
    """

    seed: int
    sentences: tuple[str, str]
    named: tuple[float, float]
    other: tuple[float, float]
    moved: float
    refused: int

    @property
    def lead(self) -> float:
        """Mean of ``named`` - ``other``: 1 reads perfectly, 0 does not read, -1 does the opposite."""
        return (sum(self.named) - sum(self.other)) / 2

    @property
    def flipped(self) -> bool:
        """Whether each sentence has the box on its own twin in more than half of the frames."""
        return min(self.named) > 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class DistractorAudit:
    """All scenes: mean ``lead``, share of frames on the named and on the other twin, flip rate, movement."""

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
        """The verdict in words; where scenes are too few, how many there are."""
        if self.verdict is not DistractorVerdict.FEW:
            return str(self.verdict)
        return f"{self.verdict} ({len(self.scenes)}, {FEWEST} are needed)"


def distractor_scenes(count: int, frames: int = FRAMES, seed: int = 0) -> Iterator[tuple[int, SyntheticClip]]:
    """``count`` scenes and the seeds of their clips: both twins always in view, apart in the first frame."""
    number, found = FIRST_SEED * (1 + seed), 0
    while found < count:
        clip = synthesize_clip(number, frames)
        if _fair(clip):
            found += 1
            yield number, clip
        number += 1


def _fair(clip: SyntheticClip) -> bool:
    """Whether the sentences decide: two twins, always in view, apart in the first frame."""
    rivals = clip.distractor_boxes
    if rivals is None or clip.absent.any() or (rivals[:, 2:] <= 0).any():
        return False
    return bool(iou_xywh(clip.boxes[0], rivals[0]) <= APART)


def audit_scene(follower: MultiTrackerLike, seed: int, clip: SyntheticClip) -> DistractorPair:
    """Follow both twins of a scene by their sentences, in one pass.

    Raises:
        ValueError: the clip has no twins.
        VltrackError: what the tracker raises.
    """
    if clip.distractor_boxes is None:
        raise ValueError("the clip has no twins")
    targets = {_A: Target(text=clip.sentence), _B: Target(text=clip.distractor_sentence)}
    boxes, _ = follow(follower, _frames(clip.frames), targets)
    one, two = (
        _shares(boxes[_A], clip.boxes, clip.distractor_boxes),
        _shares(boxes[_B], clip.distractor_boxes, clip.boxes),
    )
    return DistractorPair(
        seed=seed,
        sentences=(clip.sentence, clip.distractor_sentence),
        named=(one[0], two[0]),
        other=(one[1], two[1]),
        moved=movement(boxes[_A], boxes[_B])[0],
        refused=sum(not np.isfinite(rows).any() for rows in boxes.values()),
    )


def summarize_pairs(scenes: Sequence[DistractorPair], seed: int = 0) -> DistractorAudit:
    """All scenes together; ``seed`` is of the bootstrap. Below ``FEWEST`` nothing is said of following."""

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
    """Raise where the box does not follow the sentence: here nothing else names the target.

    Raises:
        PartialResult: it does not.
    """
    if audit.verdict in (DistractorVerdict.FOLLOWS, DistractorVerdict.FEW):
        return
    flips = sum(scene.flipped for scene in audit.scenes)
    raise PartialResult(
        f"{model} does not follow the sentence on twins ({audit.verdict}): in {flips} of "
        f"{len(audit.scenes)} scene{'' if len(audit.scenes) == 1 else 's'} each sentence has the box on its "
        "own twin.",
        hint="Do not rely on words to tell look-alikes apart, or train on scenes where only words decide.",
    )


# -- files --------------------------------------------------------------------------------------------


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
        "scenes": [_record(scene) for scene in audit.scenes],
    }


def save(audit: DistractorAudit, head: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write audit.json and audit.csv into ``folder``. Raises ``ResourceError``."""
    files = [folder / "audit.json", folder / "audit.csv"]
    write_text(files[0], json.dumps(document(audit, head), indent=1, allow_nan=False) + "\n")
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(("seed", "sentence", "named", "other", "flipped", "moved", "refused"))
    for scene in audit.scenes:
        for which, sentence in enumerate(scene.sentences):
            moved = "" if math.isnan(scene.moved) else f"{scene.moved:.6g}"
            shares = [f"{share:.6g}" for share in (scene.named[which], scene.other[which])]
            writer.writerow((scene.seed, sentence, *shares, int(scene.flipped), moved, scene.refused))
    write_text(files[1], sheet.getvalue())
    return files


def _record(scene: DistractorPair) -> dict[str, Any]:
    return {
        "seed": scene.seed,
        "sentences": list(scene.sentences),
        "named": list(scene.named),
        "other": list(scene.other),
        "lead": scene.lead,
        "flipped": scene.flipped,
        "moved": None if math.isnan(scene.moved) else scene.moved,
        "refused": scene.refused,
    }


def _shares(
    boxes_N4: NDArray[np.float64], named_N4: NDArray[np.float64], other_N4: NDArray[np.float64]
) -> tuple[float, float]:
    """Shares of frames in which the box lies more on the one that is named, and more on the other one."""
    rows = np.nan_to_num(boxes_N4)
    ahead = iou_xywh(rows, named_N4) - iou_xywh(rows, other_N4)
    return float((ahead > 0).mean()), float((ahead < 0).mean())


def _frames(images: NDArray[np.uint8]) -> Iterator[Frame]:
    for index, image in enumerate(images):
        yield Frame(image=image, index=index, seconds=index / RATE)
