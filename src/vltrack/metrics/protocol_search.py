"""Under which convention a published number fits; and what makes conventions differ. Knows arrays only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from vltrack.core.errors import DataError
from vltrack.core.types import Floats
from vltrack.metrics.annotations import Annotations, Flags
from vltrack.metrics.protocols import RULES, Rule
from vltrack.metrics.scoring import MEASURES, align, score

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
class ProtocolMatch:
    """One way to the number.

    Attributes:
        rules: the rules that agree on it (to a thousandth); ``lasot + own first frame`` is a rule whose first
            frame is what the tracker gave there.
        measure: one of ``scoring.MEASURES``.
        change: one of ``CHANGES``.
        value: in percent; ``off`` is value minus the published number.
    """

    rules: tuple[str, ...]
    measure: str
    change: str
    value: float
    off: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProtocolSearch:
    """What came of ``which_rule``: the ways, and the rules that refuse these results with what they say."""

    fits: tuple[ProtocolMatch, ...]
    refused: Mapping[str, str]


def which_rule(
    number: float,
    truth: Annotations,
    results: Mapping[str, Floats],
    *,
    tolerance: float = 0.05,
    rules: Iterable[Rule] = tuple(RULES.values()),
) -> ProtocolSearch:
    """Every rule, measure and change of boxes whose score is within ``tolerance`` of ``number`` (percent).

    Those without a change of the boxes come first, the closest first of all; a change that leaves the number
    as it is is not told again. Each rule is also tried with the tracker's own first frame.
    """
    found: dict[tuple[int, str, float], list[str]] = {}
    exact: dict[tuple[int, str, float], float] = {}
    told: set[tuple[str, str, float]] = set()
    refused: dict[str, str] = {}
    for alike in _alike(rules):
        try:
            laid, boxes = align(truth, results, alike[0])
        except DataError as error:
            refused |= {rule.name: error.message for rule in alike}
            continue
        for place, (_, change) in enumerate(CHANGES.values()):
            for suffix, measure, value in _all(laid, change(boxes), alike[0]):
                for name in (rule.name + suffix for rule in alike):
                    key = (place, measure, round(value, 3))
                    if abs(value - number) <= tolerance and (name, *key[1:]) not in told:
                        told.add((name, *key[1:]))
                        found.setdefault(key, []).append(name)
                        exact.setdefault(key, value)
    order = sorted(found, key=lambda key: (key[0], abs(exact[key] - number), key[1]))
    changes = tuple(CHANGES)
    fits = (
        ProtocolMatch(
            rules=tuple(found[key]),
            measure=key[1],
            change=changes[key[0]],
            value=exact[key],
            off=exact[key] - number,
        )
        for key in order
    )
    return ProtocolSearch(fits=tuple(fits), refused=refused)


def _alike(rules: Iterable[Rule]) -> list[list[Rule]]:
    """Rules that differ by name only, together."""
    groups: dict[Rule, list[Rule]] = {}
    for rule in rules:
        groups.setdefault(replace(rule, name="", title="", source=""), []).append(rule)
    return list(groups.values())


def _all(truth: Annotations, boxes: Floats, rule: Rule) -> Iterable[tuple[str, str, float]]:
    """(ending of the rule's name, measure, value) of the boxes; each value of a measure once."""
    values = _values(truth, boxes, rule)
    for measure, value in values.items():
        # The rule's own normalised precision is one of the two that are always known.
        if not measure.startswith("norm_precision_") or round(value, 3) != round(values["norm_precision"], 3):
            yield "", measure, value
    starts = truth.starts[:-1]
    if rule.first == "truth" and not np.array_equal(boxes[starts], truth.boxes[starts], equal_nan=True):
        own = _values(truth, boxes, replace(rule, first="keep", drops_empty=False))
        for measure, value in own.items():
            if round(value, 3) != round(values[measure], 3):
                yield " + own first frame", measure, value


def _values(truth: Annotations, boxes: Floats, rule: Rule) -> dict[str, float]:
    scores = score(truth, boxes, rule)
    return {measure: 100 * scores.value(measure) for measure in MEASURES}


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


def causes(truth: Annotations) -> Causes:
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


def trivial_hits(truth: Annotations, rule: Rule) -> dict[str, int]:
    """Frames that count as hits in ``precision`` and ``norm_precision`` whatever the tracker says."""
    nothing = np.full(truth.boxes.shape, np.nan)
    scores = score(truth, nothing, replace(rule, first="keep", bad_prediction="keep", short="misses"))
    return {
        "precision": round(float((scores.precision[:, 0] * scores.frames).sum())),
        "norm_precision": round(float((scores.norm_precision[:, 0] * scores.frames).sum())),
    }
