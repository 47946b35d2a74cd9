"""Score visual grounding: text-only initialization (``Tracker.init``) on sets of referring expressions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vltrack.core.errors import DataError, GroundingFailed, PromptEmpty
from vltrack.datasets.referring import ReferringSet
from vltrack.metrics.success import Grounding, grounding


def evaluate_grounding(
    phrases: ReferringSet, weights: str | Path, *, progress: Callable[[], None], **loading: Any
) -> dict[str, Grounding]:
    """Score every split. An expression without a found box counts with overlap 0.

    Args:
        phrases: the splits that are scored.
        weights: name or path of a model.
        progress: called after every expression.
        loading: options of ``Tracker.load``: ``device``, ``policy``.

    Raises:
        DataError: no expressions, or an image that cannot be read.
        And what ``Tracker.load`` raises.
    """
    from vltrack.tracking.tracker import Tracker

    if not len(phrases):
        raise DataError(f"No expressions in {phrases.root}.", hint="Check the data set.")
    tracker = Tracker.load(weights, threads=1, **loading)
    found = np.full((len(phrases), 4), np.nan)
    for row, (image, phrase, _) in enumerate(phrases.samples()):
        with suppress(GroundingFailed, PromptEmpty):  # then the row stays without a box
            found[row] = tracker.init(image, text=phrase).box
        progress()
    scores, begin = {}, 0
    for split in phrases.splits:
        end = begin + len(split)
        if end > begin:
            scores[split.split] = grounding(found[begin:end], split.boxes)
        begin = end
    return scores
