"""Results laid beside the annotations as a rule wants it: missing, short and long ones. Knows no file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.metrics.frame_errors import NO_ROW, ZERO_ROW
from vltrack.metrics.rules import Rule
from vltrack.metrics.truth import Floats, Truth

_SHOWN = 8


def align(truth: Truth, results: Mapping[str, Floats], rule: Rule) -> tuple[Truth, Floats]:
    """The predictions (F, 4) in the order of the truth, and the truth (cut, where the rule cuts it).

    Args:
        truth: the annotations.
        results: (N, 4) xywh by the sequence's name; more sequences than the truth has are passed over.
        rule: says what happens to results with fewer or more rows than the annotation.

    Raises:
        DataError: results are missing, or too short or too long for the rule; all of them are listed.
    """
    missing = [name for name in truth.names if name not in results]
    if missing and rule.missing == "refuse":
        raise DataError(
            f"{len(missing)} of {len(truth)} sequences have no result: {_listed(missing)}.",
            hint="Run the tracker on them, or score what is there with --subset.",
        )
    whole = dict(results) | {
        name: np.zeros((int(rows), 4))
        for name, rows in zip(truth.names, truth.lengths, strict=True)
        if name in set(missing)
    }
    there = np.array([len(whole[name]) for name in truth.names], dtype=np.int64)
    _refuse(truth, there, rule)
    if rule.short == "cut" and (there < truth.lengths).any():
        if not there.all():
            empty = [name for name, rows in zip(truth.names, there, strict=True) if not rows]
            raise DataError(
                f"results without a row: {_listed(empty)}.", hint="Run the tracker on them again."
            )
        truth = truth.cut(np.minimum(there, truth.lengths))
    boxes = np.empty(truth.boxes.shape, order="F")  # a column is one piece of memory: the scorer's form
    boxes[:] = ZERO_ROW if rule.short == "zeros" else NO_ROW
    for index, name in enumerate(truth.names):
        rows = truth.rows(index)
        part = whole[name][: rows.stop - rows.start]
        boxes[rows.start : rows.start + len(part)] = part
    return truth, boxes


def _refuse(truth: Truth, there: NDArray[np.int64], rule: Rule) -> None:
    wrong = {
        "fewer": there < truth.lengths if rule.short == "refuse" else np.zeros(len(truth), dtype=bool),
        "more": there > truth.lengths if rule.long == "refuse" else np.zeros(len(truth), dtype=bool),
    }
    for how, which in wrong.items():
        if which.any():
            told = [
                f"{truth.names[s]} ({there[s]} for {truth.lengths[s]} frames)" for s in np.flatnonzero(which)
            ]
            raise DataError(
                f"{len(told)} of {len(truth)} results have {how} rows than the annotation, which this"
                f" rule refuses: {_listed(told)}.",
                hint="Do results and annotations belong together? Run the tracker again, or see --short.",
            )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
