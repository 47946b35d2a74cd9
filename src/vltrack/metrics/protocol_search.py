"""Find the protocol behind a published number, and count what makes protocols differ."""

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
    "as given": ("boxes unchanged", lambda boxes: boxes),
    "truncated": ("boxes cut to whole pixels, as astype(int) does", np.trunc),
    "rounded": ("boxes rounded to whole pixels", np.rint),
    "from 1": ("boxes counted from pixel 1 and read as from 0", lambda boxes: boxes + _ONE_PIXEL),
    "from 0": ("boxes counted from pixel 0 and read as from 1", lambda boxes: boxes - _ONE_PIXEL),
}
"""Common changes of boxes before they are scored: a description, and the change of (F, 4)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProtocolMatch:
    """One way to the number.

    Attributes:
        rules: the rules that agree on it (to a thousandth); ``lasot + own first frame`` is a rule that uses
            the tracker's own box in the first frame.
        measure: one of ``scoring.MEASURES``.
        change: one of ``CHANGES``.
        value: in percent.
        off: value minus the published number.
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
    """The matches of ``which_rule``, and by name the rules that refuse these results with their message."""

    fits: tuple[ProtocolMatch, ...]
    refused: Mapping[str, str]


def which_rule(
    number: float,
    annotations: Annotations,
    results: Mapping[str, Floats],
    *,
    tolerance: float = 0.05,
    rules: Iterable[Rule] = tuple(RULES.values()),
) -> ProtocolSearch:
    """Find all rules, measures and changes of boxes that score within ``tolerance`` of ``number`` (percent).

    Unchanged boxes come first, the closest match first of all; a change that does not alter the score is not
    listed again. Each rule is also tried with the tracker's own first frame.
    """
    fits: dict[tuple[str, str, float], ProtocolMatch] = {}
    listed: set[tuple[str, str, float]] = set()
    refused: dict[str, str] = {}
    for alike in _group_alike(rules):
        try:
            aligned, boxes = align(annotations, results, alike[0])
        except DataError as error:
            refused |= {rule.name: error.message for rule in alike}
            continue
        for change, (_, changed) in CHANGES.items():
            for suffix, measure, value in _all_values(aligned, changed(boxes), alike[0]):
                rounded = round(value, 3)
                names = [name for rule in alike if ((name := rule.name + suffix), measure, rounded) not in listed]
                if names and abs(value - number) <= tolerance:
                    listed |= {(name, measure, rounded) for name in names}
                    first = ProtocolMatch(rules=(), measure=measure, change=change, value=value, off=value - number)
                    fit = fits.setdefault((change, measure, rounded), first)
                    fits[change, measure, rounded] = replace(fit, rules=(*fit.rules, *names))
    order = list(CHANGES)
    matches = sorted(fits.values(), key=lambda fit: (order.index(fit.change), abs(fit.off), fit.measure))
    return ProtocolSearch(fits=tuple(matches), refused=refused)


def _group_alike(rules: Iterable[Rule]) -> list[list[Rule]]:
    """Group rules that differ by name only."""
    groups: dict[Rule, list[Rule]] = {}
    for rule in rules:
        groups.setdefault(replace(rule, name="", title="", source=""), []).append(rule)
    return list(groups.values())


def _all_values(annotations: Annotations, boxes: Floats, rule: Rule) -> Iterable[tuple[str, str, float]]:
    """Yield (suffix of the rule's name, measure, value), each value of a measure once."""
    values = _values(annotations, boxes, rule)
    for measure, value in values.items():
        # The rule's own normalized precision is one of the two that are always computed.
        if not measure.startswith("norm_precision_") or round(value, 3) != round(values["norm_precision"], 3):
            yield "", measure, value
    starts = annotations.starts[:-1]
    if rule.first == "truth" and not np.array_equal(boxes[starts], annotations.boxes[starts], equal_nan=True):
        own = _values(annotations, boxes, replace(rule, first="keep", drops_empty=False))
        for measure, value in own.items():
            if round(value, 3) != round(values[measure], 3):
                yield " + own first frame", measure, value


def _values(annotations: Annotations, boxes: Floats, rule: Rule) -> dict[str, float]:
    scores = score(annotations, boxes, rule)
    return {measure: 100 * scores.value(measure) for measure in MEASURES}


def causes(annotations: Annotations) -> dict[str, int]:
    """Count the frames that protocols treat differently.

    Returns:
        ``frames``: all; ``absent``: marked as absent; ``absent_with_box``: of these, those annotated with a
        box; ``no_size``: visible, but annotated without width or height; ``xy_not_positive``: visible and
        with a size, but x or y is 0 or less, which is not a box for some toolkits; ``nan``: annotated as NaN.
    """
    nan: Flags = np.array(np.isnan(annotations.boxes).any(axis=1))
    sized: Flags = np.array((annotations.boxes[:, 2:] > 0).all(axis=1))
    edge: Flags = np.array((annotations.boxes[:, :2] <= 0).any(axis=1))
    seen = ~annotations.absent & ~nan
    return {
        "frames": annotations.frames,
        "absent": int(annotations.absent.sum()),
        "absent_with_box": int((annotations.absent & sized).sum()),
        "no_size": int((seen & ~sized).sum()),
        "xy_not_positive": int((seen & sized & edge).sum()),
        "nan": int(nan.sum()),
    }


def trivial_hits(annotations: Annotations, rule: Rule) -> dict[str, int]:
    """Count trivially satisfied frames: hits in (normalized) precision whatever the prediction."""
    nothing = np.full(annotations.boxes.shape, np.nan)
    scores = score(annotations, nothing, replace(rule, first="keep", bad_prediction="keep", short="misses"))
    return {
        "precision": round(float((scores.precision[:, 0] * scores.frames).sum())),
        "norm_precision": round(float((scores.norm_precision[:, 0] * scores.frames).sum())),
    }
