"""Summarize an audit: movement and gain over all targets, and one verdict per mode.

The verdict of a mode, in this order:

- ``ignores the sentence``: with another sentence (shuffled, contradicting) the box moves less than ``TINY``
  on average. The run without a sentence does not count: a model may react to *that* there is one and still
  ignore what it says.
- ``moves; nothing is known of its use``: without ground truth.
- ``too few targets to tell``: the gain is of fewer than ``FEWEST`` targets.
- ``listens``: the true sentence is better than the shuffled or the contradicting one: the whole interval of
  the gain is above ``LEAST_GAIN``.
- ``moves but does not help``: another sentence moves the box without such a gain.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from vltrack.core.errors import PartialResult
from vltrack.core.files import write_text
from vltrack.core.json_io import finite_or_none
from vltrack.core.types import Mode
from vltrack.evaluation.audit import OTHER_SENTENCES, VARIANTS, Effect, FailedTarget, TargetAudit, Variant
from vltrack.metrics.bootstrap import FEWEST, Interval, paired_bootstrap

TINY = 0.01
"""Below this mean of 1 - overlap the boxes of two runs count as the same."""
LEAST_GAIN = 0.5
"""Points of success AUC that a sentence must be worth, surely. A choice, not a measurement: papers print one
decimal."""

FORMAT, VERSION = "vltrack.audit", 1


class Verdict(StrEnum):
    """The finding on a model in one mode."""

    IGNORES = "ignores the sentence"
    LISTENS = "listens"
    NO_HELP = "moves but does not help"
    FEW = "too few targets to tell"
    UNKNOWN = "moves; nothing is known of its use"
    NOTHING = "nothing could be followed"


@dataclass(frozen=True, kw_only=True, slots=True)
class VariantResult:
    """One variant over all targets: movement (0 to 1), center distance in target sizes, gain in points of
    success AUC (None without ground truth), and number of refused starts."""

    moved: Interval
    distance: Interval
    gain: Interval | None
    refused: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ModeResult:
    """One mode over all targets.

    Attributes:
        verdict: of the mode.
        decided_by: the other sentence with the surest gain, on which the verdict rests; None without ground
            truth.
        auc: mean success AUC of the true runs in percent; None without ground truth.
        refused: number of true starts that were refused.
        totals: results of the other variants.
    """

    verdict: Verdict
    decided_by: Variant | None
    auc: float | None
    refused: int
    totals: Mapping[Variant, VariantResult]

    @property
    def verdict_text(self) -> str:
        """The verdict; if there are too few targets, with their number."""
        gain = None if self.decided_by is None else self.totals[self.decided_by].gain
        if self.verdict is not Verdict.FEW or gain is None:
            return str(self.verdict)
        return f"{self.verdict} ({gain.sequences}, {FEWEST} are needed)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """The audit of one model: results by mode, the targets, those that failed, those left out (and why)."""

    modes: Mapping[Mode, ModeResult]
    targets: Sequence[TargetAudit]
    failed: Sequence[FailedTarget]
    left_out: Mapping[str, str]

    @property
    def ignored_modes(self) -> tuple[Mode, ...]:
        """The modes in which the sentence is ignored."""
        return tuple(mode for mode, result in self.modes.items() if result.verdict is Verdict.IGNORES)


def summarize(
    targets: Sequence[TargetAudit],
    modes: Sequence[Mode],
    *,
    failed: Sequence[FailedTarget] = (),
    left_out: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Audit:
    """Summarize the audits of all targets; ``seed`` is for the bootstrap."""
    return Audit(
        modes={mode: _mode_result([one for one in targets if mode in one.auc], mode, seed) for mode in modes},
        targets=tuple(targets),
        failed=tuple(failed),
        left_out=dict(left_out or {}),
    )


def _mode_result(targets: Sequence[TargetAudit], mode: Mode, seed: int) -> ModeResult:
    aucs = [auc for one in targets if (auc := one.auc[mode]) is not None]
    effects: dict[Variant, list[Effect]] = {}
    for effect in (effect for one in targets for effect in one.effects if effect.mode is mode):
        effects.setdefault(effect.variant, []).append(effect)
    totals = {variant: _variant_result(effects[variant], seed) for variant in VARIANTS[mode] if variant in effects}
    decided_by = _surest(totals)
    return ModeResult(
        verdict=_verdict(totals, decided_by),
        decided_by=decided_by,
        auc=float(np.mean(aucs)) if aucs else None,
        refused=sum(mode in one.refused for one in targets),
        totals=totals,
    )


def _variant_result(effects: Sequence[Effect], seed: int) -> VariantResult:
    def over(values: Iterable[float]) -> Interval:
        return paired_bootstrap(list(values), seed=seed)

    gain = over(math.nan if effect.gain is None else effect.gain for effect in effects)
    return VariantResult(
        moved=over(effect.moved for effect in effects),
        distance=over(effect.distance for effect in effects),
        gain=gain if gain.sequences else None,
        refused=sum(effect.refused for effect in effects),
    )


def _surest(totals: Mapping[Variant, VariantResult]) -> Variant | None:
    """The other sentence with the surest gain: highest lower end, or mean without an interval."""
    gains = {v: gain for v in OTHER_SENTENCES if v in totals and (gain := totals[v].gain) is not None}
    return max(gains, key=lambda v: gains[v].low if gains[v].is_interval else gains[v].mean, default=None)


def _verdict(totals: Mapping[Variant, VariantResult], decided_by: Variant | None) -> Verdict:
    others = [totals[variant] for variant in OTHER_SENTENCES if variant in totals]
    if not any(total.moved.sequences for total in others):
        return Verdict.NOTHING
    if all(total.moved.mean < TINY for total in others):
        return Verdict.IGNORES
    gain = None if decided_by is None else totals[decided_by].gain
    if gain is None:
        return Verdict.UNKNOWN
    if gain.sequences < FEWEST:
        return Verdict.FEW
    return Verdict.LISTENS if gain.low > LEAST_GAIN else Verdict.NO_HELP


def judge(audit: Audit, model: str) -> None:
    """Raise if the audit is against the model, or incomplete.

    Raises:
        PartialResult: a mode that claims to read text ignores it, a target failed, or no target could be
            tracked in a mode.
    """
    if audit.ignored_modes:
        modes = " and ".join(audit.ignored_modes)
        raise PartialResult(
            f"{model} ignores the sentence ({modes}): with another one its boxes are the same "
            f"(they move by less than {TINY} of 1 - overlap).",
            hint="Do not claim that it reads text in that mode, or train it to.",
        )
    if audit.failed:
        first, count = audit.failed[0], len(audit.failed)
        raise PartialResult(
            f"{count} of {count + len(audit.targets)} targets failed; {first.name}: {first.error.message}"
        )
    idle = [mode for mode, result in audit.modes.items() if result.verdict is Verdict.NOTHING]
    if idle:
        raise PartialResult(
            f"{model} could not track a single target ({' and '.join(idle)}): no verdict is possible.",
            hint="Audit it with targets that it can start with.",
        )


# -- files --------------------------------------------------------------------------------------------------


def document(audit: Audit, head: Mapping[str, Any]) -> dict[str, Any]:
    """The whole audit for JSON (docs/audit.md describes it); ``head`` names model, weights and data."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": "sentences",
        **head,
        "threshold": TINY,
        "least_gain": LEAST_GAIN,
        "fewest_targets": FEWEST,
        "modes": {str(mode): _mode_record(result) for mode, result in audit.modes.items()},
        "sequences": [_target_record(one) for one in audit.targets],
        "failed": [{"name": one.name, "code": one.error.code, "message": str(one.error)} for one in audit.failed],
        "left_out": [{"name": name, "why": why} for name, why in audit.left_out.items()],
    }


def save(audit: Audit, head: Mapping[str, Any], folder: Path) -> None:
    """Write audit.json and audit.csv into ``folder``. Raises ``ResourceError``."""
    columns = ("sequence", "mode", "variant", "sentence", "moved", "distance", "auc_true", "auc", "gain", "refused")
    rows = []
    for one in audit.targets:
        for effect in one.effects:
            numbers = (effect.moved, effect.distance, one.auc[effect.mode], effect.auc, effect.gain)
            texts = [_no_formula(text) for text in (one.name, effect.mode, effect.variant, effect.sentence)]
            rows.append([*texts, *map(csv_number, numbers), int(effect.refused)])
    write_audit(folder, document(audit, head), columns, rows)


def write_audit(
    folder: Path, content: Mapping[str, Any], columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Write audit.json and audit.csv. Raises ``ResourceError``."""
    write_text(folder / "audit.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(folder / "audit.csv", sheet.getvalue())


def csv_number(value: float | None) -> str:
    """Six digits; empty for what is not defined."""
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def _no_formula(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _mode_record(result: ModeResult) -> dict[str, Any]:
    return {
        "verdict": str(result.verdict),
        "decided_by": None if result.decided_by is None else str(result.decided_by),
        "auc": result.auc,
        "refused": result.refused,
        "variants": {
            str(variant): {
                "moved": total.moved.to_dict(),
                "distance": total.distance.to_dict(),
                "gain": None if total.gain is None else total.gain.to_dict(),
                "refused": total.refused,
            }
            for variant, total in result.totals.items()
        },
    }


def _target_record(one: TargetAudit) -> dict[str, Any]:
    contradiction = one.wording.contradicting
    return {
        "name": one.name,
        "frames": one.frames,
        "sentence": one.sentence,
        "shuffled": one.wording.shuffled,
        "contradicting": contradiction.text,
        "swapped": [list(pair) for pair in contradiction.swapped],
        "contradicts_by": contradiction.how,
        "auc": {str(mode): auc for mode, auc in one.auc.items()},
        "skipped": {str(mode): why for mode, why in one.skipped.items()},
        "runs": [
            {
                "mode": str(effect.mode),
                "variant": str(effect.variant),
                "moved": finite_or_none(effect.moved),
                "distance": finite_or_none(effect.distance),
                "auc": effect.auc,
                "gain": effect.gain,
                "refused": effect.refused,
            }
            for effect in one.effects
        ],
    }
