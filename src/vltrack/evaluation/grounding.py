"""Boxes that a tracker finds by words alone in single pictures. Knows pictures with phrases and trackers.

It is what a start by words does (``Tracker.init`` with a sentence), asked of sets of referring expressions.
"""

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
    """Scores by split. A phrase that the tracker finds nothing for has overlap 0 and is counted.

    Args:
        phrases: the splits that are scored.
        weights: a model's name or path.
        progress: called after every phrase.
        loading: for ``Tracker.load``: ``device``, ``policy``.

    Raises:
        DataError: no phrase, or a picture that cannot be read (named).
        And what ``Tracker.load`` raises.
    """
    from vltrack.tracking.tracker import Tracker

    if not len(phrases):
        raise DataError(f"{phrases.root} holds no phrase.", hint="Check the data set.")
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
