"""Under which convention a published number fits; and what makes conventions differ. Knows arrays only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from vltrack.core.errors import DataError
from vltrack.metrics.aligning import align
from vltrack.metrics.rules import RULES, Rule
from vltrack.metrics.scoring import MEASURES, score
from vltrack.metrics.truth import Flags, Floats, Truth

_ONE_PIXEL = np.array([1.0, 1.0, 0.0, 0.0])
CHANGES: Mapping[str, tuple[str, Callable[[Floats], Floats]]] = {
    "as given": ("boxes as they are", lambda boxes: boxes),
    "truncated": ("boxes cut to whole pixels, as astype(int) does", np.trunc),
    "rounded": ("boxes rounded to whole pixels", np.rint),
    "from 1": ("boxes counted from pixel 1 and read as from 0", lambda boxes: boxes + _ONE_PIXEL),
    "from 0": ("boxes counted from pixel 0 and read as from 1", lambda boxes: boxes - _ONE_PIXEL),
}
"""What is often done to boxes before they are scored: the words for it, and the change of (F, 4)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """One way to the number: ``value`` in percent, ``off`` = value minus the published one."""

    rule: str
    measure: str
    change: str
    value: float
    off: float

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def which_rule(
    number: float,
    truth: Truth,
    results: Mapping[str, Floats],
    *,
    tolerance: float = 0.05,
    rules: Iterable[Rule] = tuple(RULES.values()),
) -> list[Fit]:
    """Every rule, measure and change of boxes whose score is within ``tolerance`` of ``number`` (percent).

    The closest without a change of the boxes come first. Each rule is also tried with the tracker's own first
    frame (``+own first frame``). A rule that refuses these results is passed over.
    """
    fits = [
        Fit(rule=name, measure=measure, change=change, value=value, off=value - number)
        for name, measure, change, value in _all(truth, results, rules)
        if abs(value - number) <= tolerance
    ]
    order = list(CHANGES)
    return sorted(fits, key=lambda fit: (order.index(fit.change), abs(fit.off), fit.rule))


def _all(
    truth: Truth, results: Mapping[str, Floats], rules: Iterable[Rule]
) -> Iterable[tuple[str, str, str, float]]:
    for rule in rules:
        ways = {rule.name: rule}
        if rule.first == "truth":
            ways[f"{rule.name} + own first frame"] = replace(rule, first="keep", drops_empty=False)
        for name, way in ways.items():
            try:
                laid, boxes = align(truth, results, way)
            except DataError:
                continue
            for change, (_, change_of) in CHANGES.items():
                scores = score(laid, change_of(boxes), way)
                for measure in MEASURES:
                    yield name, measure, change, 100 * scores.value(measure)


@dataclass(frozen=True, kw_only=True, slots=True)
class Causes:
    """What of the annotations makes conventions differ. Counts of frames.

    Attributes:
        frames: all.
        absent: marked as absent by the data set.
        absent_with_box: of these, those whose annotation is a box all the same.
        no_size: seen, but the annotation has no size.
        xy_not_positive: seen and with a size, but x or y is 0 or less: no box for toolkits that ask for four
            positive numbers.
        nan: annotated as NaN.
    """

    frames: int
    absent: int
    absent_with_box: int
    no_size: int
    xy_not_positive: int
    nan: int


def causes(truth: Truth) -> Causes:
    """Count what the conventions treat differently in these annotations."""
    nan: Flags = np.array(np.isnan(truth.boxes).any(axis=1))
    sized: Flags = np.array((truth.boxes[:, 2:] > 0).all(axis=1))
    edge: Flags = np.array((truth.boxes[:, :2] <= 0).any(axis=1))
    seen = ~truth.absent & ~nan
    return Causes(
        frames=truth.frames,
        absent=int(truth.absent.sum()),
        absent_with_box=int((truth.absent & sized).sum()),
        no_size=int((seen & ~sized).sum()),
        xy_not_positive=int((seen & sized & edge).sum()),
        nan=int(nan.sum()),
    )


def free_hits(truth: Truth, rule: Rule) -> dict[str, int]:
    """Frames that count as hits in ``precision`` and ``norm_precision`` whatever the tracker says."""
    nothing = np.full(truth.boxes.shape, np.nan)
    scores = score(truth, nothing, replace(rule, first="keep", bad_prediction="keep", short="misses"))
    return {
        "precision": round(float((scores.precision[:, 0] * scores.frames).sum())),
        "norm_precision": round(float((scores.norm_precision[:, 0] * scores.frames).sum())),
    }
