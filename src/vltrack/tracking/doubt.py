"""Doubt: how much a frame of a track deserves a look, and in which order a person should look.

Unpublished; our design. Measured by ``benchmarks/corrections.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.types import Floats, Step

SURE, UNSURE = 0.8, 0.2
"""Scores from which on, and below which, the score alone says nothing against a box, or all that it can."""
SCORE, RIVALRY, NEAR, APART = 0.45, 0.05, 0.45, 0.5
"""What each sign can say at most, after what the boxes of the benchmark's other targets are off (1 - overlap)."""
SECOND = 1 / 3
"""Weight of what one pass says about itself where a second one was run."""
FLOOR = 0.05
"""Doubt that every frame has when the next one is chosen: with nothing else known, it halves the longest span."""


def doubt_of(
    scores: ArrayLike, rivalry: ArrayLike = 0.0, near: ArrayLike = 0.0, apart: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return the doubt of frames, in [0, 1]: one minus the product of what is left by each sign.

    Args:
        scores: presence, as in a ``Track``.
        rivalry: score of the second peak of the search region as a share of the first.
        near: 1 / (1 + distance of the nearest look-alike in sides of the target), 0 without one.
        apart: one minus the overlap of forward and backward pass; None where only one was run.
    """
    unsure = np.clip((SURE - np.asarray(scores, dtype=np.float64)) / (SURE - UNSURE), 0.0, 1.0)
    part = 1.0 if apart is None else SECOND
    left = 1 - SCORE * part * unsure
    left = left * (1 - RIVALRY * part * np.asarray(rivalry)) * (1 - NEAR * part * np.asarray(near))
    if apart is not None:
        left = left * (1 - APART * np.asarray(apart))
    found: NDArray[np.float64] = np.clip(1 - left, 0.0, 1.0)
    return found


def doubt_of_step(step: Step, apart: float | None = None) -> float:
    """Return the doubt of one step of a tracker; ``apart`` as in ``doubt_of``."""
    extras = step.extras
    return float(doubt_of(step.score, extras.get("rivalry", 0.0), extras.get("rival_near", 0.0), apart))


def next_rows(doubt: Floats, marked: Sequence[int], count: int) -> list[int]:
    """Return up to ``count`` rows that deserve a look, best first: each is chosen as if those before were marked.

    The span between two marked rows that holds the most doubt is looked at where the doubt on its two sides is the
    same: a mark there helps both ways. The rows come spread over time by that alone.

    Args:
        doubt: (N,) of all rows.
        marked: rows that a person has marked; their doubt is not counted.
    """
    mass = np.asarray(doubt, dtype=np.float64) + FLOOR
    taken = sorted({row for row in marked if 0 <= row < len(mass)})
    mass[taken] = 0.0
    chosen: list[int] = []
    for _ in range(min(count, len(mass) - len(taken))):
        edges = [-1, *taken, len(mass)]
        spans = [(low + 1, high) for low, high in pairwise(edges) if high - low > 1]
        low, high = max(spans, key=lambda span: float(mass[span[0] : span[1]].sum()))
        total = np.cumsum(mass[low:high])
        chosen.append(low + int(np.searchsorted(total, total[-1] / 2)))
        taken = sorted([*taken, chosen[-1]])
    return chosen
