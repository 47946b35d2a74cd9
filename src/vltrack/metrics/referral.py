"""The VOTS challenge's referral score: one target, several sentences, overlap of masks. Knows no file.

Rules of the 2026 toolkit's ``referral`` stack: for each sentence of a sequence and each annotated frame the
overlap of the predicted mask with the target's, without ignored pixels; both empty is 1, one of them 0. A
frame whose truth is no mask (line ``0``) is not annotated and left out. A sequence's score is the mean over
all its sentences and annotated frames; over sequences it is weighted by their number of frames, annotated
or not. A prediction that is no mask counts as empty, so a box tracker must write its boxes as masks
(``regions.box_mask``); ``boxes_as_masks`` tells what its boxes would have got.

Ours: a sequence without any annotated frame is left out instead of counted as 0, and a mask of one row or
column is a mask (the toolkit 0.9.0 reads it as empty).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.metrics.masks import Size, mask_overlap
from vltrack.metrics.regions import Mask, Polygon, Rectangle, Region, box_mask
from vltrack.metrics.telling import told_number

Floats = NDArray[np.float64]
EMPTY = Mask(0, 0, np.zeros((0, 0), dtype=bool))


def result_name(sequence: str, prompt: str) -> str:
    """What the toolkit calls a sentence's result, without ending: ``<sequence>_<8 digits of md5>``."""
    digest = hashlib.md5(prompt.encode("utf-8"), usedforsecurity=False).hexdigest()
    return f"{sequence}_{digest[:8]}"


def prompts_of(text: str) -> tuple[str, ...]:
    """The sentences of the entry ``prompts``, split at ``;``, else as they stand: file names hang on each
    letter."""
    return tuple(text.split(";")) if text else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Referred:
    """One sentence on one sequence.

    Attributes:
        sequence: its name.
        prompt: the sentence.
        frames: of the sequence, annotated or not.
        overlaps: (K,) in 0..1 of the annotated frames, read-only copy.
        not_masks: annotated frames whose prediction is a box or polygon, counted as empty.
    """

    sequence: str
    prompt: str
    frames: int
    overlaps: Floats
    not_masks: int = 0

    def __post_init__(self) -> None:
        overlaps = np.array(self.overlaps, dtype=np.float64)
        if overlaps.ndim != 1 or not np.isfinite(overlaps).all():
            raise DataError(f"{self.sequence}: the overlaps of {self.prompt!r} are not all numbers.")
        overlaps.setflags(write=False)
        object.__setattr__(self, "overlaps", overlaps)

    @classmethod
    def of(
        cls,
        sequence: str,
        prompt: str,
        result: Sequence[Region],
        truth: Sequence[Region],
        *,
        size: Size | None = None,
        ignore: Sequence[Region] = (),
        boxes_as_masks: bool = False,
    ) -> Referred:
        """From the regions of a result and of the truth, one a frame.

        Args:
            sequence, prompt: names.
            result: at least as many as ``truth``.
            truth: masks; anything else is a frame without annotation.
            size: (width, height) of the frames; pixels outside do not count.
            ignore: masks of pixels that do not count, one a frame; none for the frames after its end.
            boxes_as_masks: take a predicted rectangle as the mask that it encloses.

        Raises:
            DataError: the result is too short.
        """
        if len(result) < len(truth):
            raise DataError(
                f"{sequence}: {prompt!r} has {len(result)} results for {len(truth)} frames.",
                hint="Run this sentence again; write an empty mask where nothing is found.",
            )
        overlaps, not_masks = [], 0
        for frame, (found, there) in enumerate(zip(result[: len(truth)], truth, strict=True)):
            if not isinstance(there, Mask):
                continue
            if boxes_as_masks and isinstance(found, Rectangle):
                found = _filled(found, size)
            not_masks += isinstance(found, (Rectangle, Polygon))
            hidden = ignore[frame] if frame < len(ignore) else None
            overlaps.append(
                mask_overlap(
                    there,
                    found if isinstance(found, Mask) else EMPTY,
                    size,
                    hidden if isinstance(hidden, Mask) else None,
                )
            )
        return cls(
            sequence=sequence,
            prompt=prompt,
            frames=len(truth),
            overlaps=np.array(overlaps, dtype=np.float64),
            not_masks=not_masks,
        )


def _filled(box: Rectangle, size: Size | None) -> Mask:
    reach = (math.ceil(max(0.0, box.x + box.w)) + 1, math.ceil(max(0.0, box.y + box.h)) + 1)
    return box_mask((box.x, box.y, box.w, box.h), size or reach)


@dataclass(frozen=True, kw_only=True, slots=True)
class Referral:
    """Scores of a tracker with sentences.

    Attributes:
        accuracy: mean over sequences weighted by their frames (the toolkit's figure); NaN where nothing is
            annotated.
        accuracy_unweighted: mean over sequences, each alike.
        sequences: names in the order of the input.
        sequence_accuracy: (S,) mean over all sentences and annotated frames; NaN where nothing is annotated.
        sequence_frames: (S,) frames.
        pairs: how many (sentence, annotated frame) there are.
        not_masks: how many of them hold a box or polygon and counted as empty.
    """

    accuracy: float
    accuracy_unweighted: float
    sequences: tuple[str, ...]
    sequence_accuracy: Floats
    sequence_frames: NDArray[np.int64]
    pairs: int
    not_masks: int

    def told(self) -> dict[str, Any]:
        """For JSON; None where a number is not defined."""
        return {
            "experiment": "referral",
            "accuracy": told_number(self.accuracy),
            "accuracy_unweighted": told_number(self.accuracy_unweighted),
            "pairs": self.pairs,
            "not_masks": self.not_masks,
            "sequences": [
                {"name": name, "accuracy": told_number(accuracy), "frames": frames}
                for name, accuracy, frames in zip(
                    self.sequences,
                    self.sequence_accuracy.tolist(),
                    self.sequence_frames.tolist(),
                    strict=True,
                )
            ],
        }


def referral(results: Iterable[Referred]) -> Referral:
    """The referral score over every sentence of every sequence.

    Raises:
        DataError: nothing at all to score.
    """
    by_name: dict[str, list[Referred]] = {}
    for result in results:
        by_name.setdefault(result.sequence, []).append(result)
    if not by_name:
        raise DataError("there is no VOT result to score.", hint="Check the folder of results.")
    pooled = [np.concatenate([result.overlaps for result in group]) for group in by_name.values()]
    each = np.array([overlaps.mean() if len(overlaps) else math.nan for overlaps in pooled])
    frames = np.array([group[0].frames for group in by_name.values()], dtype=np.int64)
    known = np.isfinite(each)
    return Referral(
        accuracy=float(np.average(each[known], weights=frames[known])) if known.any() else math.nan,
        accuracy_unweighted=float(each[known].mean()) if known.any() else math.nan,
        sequences=tuple(by_name),
        sequence_accuracy=each,
        sequence_frames=frames,
        pairs=sum(map(len, pooled)),
        not_masks=sum(result.not_masks for group in by_name.values() for result in group),
    )
