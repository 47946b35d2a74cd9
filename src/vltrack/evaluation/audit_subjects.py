"""From annotated sequences to targets of an audit. Knows what a sequence must have; opens no video."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vltrack.datasets.sequences import Sequence
from vltrack.evaluation.audit import Subject


def subjects_of(sequences: Iterable[Sequence]) -> tuple[list[Subject], dict[str, str]]:
    """Targets with a sentence, and by name why the other sequences are left out."""
    found: list[Subject] = []
    left_out: dict[str, str] = {}
    for sequence in sequences:
        if not sequence.sentence.strip():
            left_out[sequence.name] = "no sentence"
            continue
        found.append(subject_of(sequence))
    return found, left_out


def subject_of(sequence: Sequence) -> Subject:
    """One target. Where the truth is held back there is only the box to start from."""
    box = np.asarray(sequence.boxes[0], dtype=np.float64)
    usable = bool(np.isfinite(box).all() and (box[2:] > 0).all() and not sequence.absent[0])
    x, y, w, h = (float(number) for number in box)
    known = not sequence.truth_held_back
    return Subject(
        name=sequence.name,
        sentence=sequence.sentence,
        frames=sequence.frames,
        start=(x, y, w, h) if usable else None,
        boxes=sequence.boxes if known else None,
        absent=sequence.absent if known else None,
    )
