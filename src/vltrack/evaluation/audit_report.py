"""What an audit amounts to: movement and gain over all targets, and one verdict a mode. Runs no tracker.

The verdict of a mode, in this order:

- ``ignores the sentence``: with another sentence (shuffled, contradicting) the box moves less than ``TINY``
  on average. A run without any may differ: a model that hears only *that* there is one ignores what it says.
- ``moves; nothing is known of its use``: there is no truth.
- ``too few targets to tell``: the gain is of fewer than ``FEWEST`` targets.
- ``listens``: the true sentence beats the shuffled or the contradicting one: the whole interval of the gain
  is above ``LEAST_GAIN``.
- ``moves but does not help``: another sentence moves the box, and no such gain is seen.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from vltrack.core.errors import PartialResult
from vltrack.core.files import write_text
from vltrack.core.types import Mode
from vltrack.evaluation.audit import OTHER_WORDS, VARIANTS, Effect, FailedTarget, TargetAudit, Variant
from vltrack.metrics.bootstrap import FEWEST, Interval, paired_bootstrap

TINY = 0.01
"""Below this mean of 1 - overlap the boxes of two runs are taken to be the same."""
LEAST_GAIN = 0.5
"""Points of success AUC that a sentence must surely be worth. A choice, not a measurement: papers print one
decimal, and for less than half a point nobody would write sentences."""

FORMAT, VERSION = "vltrack.audit", 1
_COLUMNS = (
    "sequence", "mode", "variant", "sentence", "moved", "distance", "auc_true", "auc", "gain", "refused",
)  # fmt: skip


class Verdict(StrEnum):
    """What is found of a model in one mode."""

    IGNORES = "ignores the sentence"
    LISTENS = "listens"
    NO_HELP = "moves but does not help"
    FEW = "too few targets to tell"
    UNKNOWN = "moves; nothing is known of its use"
    NOTHING = "nothing could be followed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Total:
    """One kind of run over all targets: movement (0 to 1), centre distance in target sizes, gain in points of
    success AUC (None without truth), and how many starts were refused."""

    moved: Interval
    distance: Interval
    gain: Interval | None
    refused: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ModeResult:
    """One mode over all targets: verdict, mean success AUC of the true runs in percent (None without truth),
    how many true starts were refused, and every other kind of run.

    ``decided_by`` is the other sentence over which the gain is surest, the one that the verdict on the gain
    looks at; None without truth.
    """

    verdict: Verdict
    decided_by: Variant | None
    auc: float | None
    refused: int
    totals: Mapping[Variant, Total]

    @property
    def verdict_text(self) -> str:
        """The verdict in words; where targets are too few, how many there are."""
        gain = None if self.decided_by is None else self.totals[self.decided_by].gain
        if self.verdict is not Verdict.FEW or gain is None:
            return str(self.verdict)
        return f"{self.verdict} ({gain.sequences}, {FEWEST} are needed)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """The audit of one model: results by mode, the targets behind them, and what could not be used."""

    modes: Mapping[Mode, ModeResult]
    targets: Sequence[TargetAudit]
    failed: Sequence[FailedTarget]
    left_out: Mapping[str, str]

    @property
    def ignored_modes(self) -> tuple[Mode, ...]:
        """The modes in which the sentence is ignored."""
        return tuple(mode for mode, result in self.modes.items() if result.verdict is Verdict.IGNORES)


def summarize(
    heard: Sequence[TargetAudit],
    modes: Sequence[Mode],
    *,
    failed: Sequence[FailedTarget] = (),
    left_out: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Audit:
    """Put the targets together. ``seed`` is of the bootstrap."""
    return Audit(
        modes={mode: _mode_result(heard, mode, seed) for mode in modes},
        targets=tuple(heard),
        failed=tuple(failed),
        left_out=dict(left_out or {}),
    )


def _mode_result(heard: Sequence[TargetAudit], mode: Mode, seed: int) -> ModeResult:
    there = [one for one in heard if mode in one.auc]
    aucs = [auc for one in there if (auc := one.auc[mode]) is not None]
    totals: dict[Variant, Total] = {
        variant: _total([_of(one, mode, variant) for one in there], seed)
        for variant in VARIANTS[mode]
        if variant is not Variant.TRUE and there
    }
    decided_by = _surest(totals)
    return ModeResult(
        verdict=_verdict(totals, decided_by),
        decided_by=decided_by,
        auc=float(np.mean(aucs)) if aucs else None,
        refused=sum(mode in one.refused for one in there),
        totals=totals,
    )


def _of(one: TargetAudit, mode: Mode, variant: Variant) -> Effect:
    return next(effect for effect in one.effects if (effect.mode, effect.variant) == (mode, variant))


def _total(effects: Sequence[Effect], seed: int) -> Total:
    gains = [math.nan if effect.gain is None else effect.gain for effect in effects]
    gain = paired_bootstrap(gains, seed=seed)
    return Total(
        moved=paired_bootstrap([effect.moved for effect in effects], seed=seed),
        distance=paired_bootstrap([effect.distance for effect in effects], seed=seed),
        gain=gain if gain.sequences else None,
        refused=sum(effect.refused for effect in effects),
    )


def _surest(totals: Mapping[Variant, Total]) -> Variant | None:
    """The other sentence over which the gain is surest: highest lower end, or mean without an interval."""
    gains = {v: gain for v in OTHER_WORDS if v in totals and (gain := totals[v].gain) is not None}
    return max(gains, key=lambda v: gains[v].low if gains[v].is_interval else gains[v].mean, default=None)


def _verdict(totals: Mapping[Variant, Total], decided_by: Variant | None) -> Verdict:
    others = [totals[variant] for variant in OTHER_WORDS if variant in totals]
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
    """Raise what the audit has to say against the model, or against its own completeness.

    Raises:
        PartialResult: a mode that claims to read text ignores it, a target failed, or a mode started nowhere.
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
            f"{model} could not follow one target ({' and '.join(idle)}): there is nothing to judge by.",
            hint="Audit it with targets that it can start with.",
        )


# -- files --------------------------------------------------------------------------------------------


def document(audit: Audit, head: Mapping[str, Any]) -> dict[str, Any]:
    """The whole audit for JSON (docs/audit.md describes it); ``head`` tells model, weights and data."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": "sentences",
        **head,
        "threshold": TINY,
        "least_gain": LEAST_GAIN,
        "fewest_targets": FEWEST,
        "modes": {str(mode): _mode_record(result) for mode, result in audit.modes.items()},
        "sequences": [_heard_record(one) for one in audit.targets],
        "failed": [
            {"name": one.name, "code": one.error.code, "message": str(one.error)} for one in audit.failed
        ],
        "left_out": [{"name": name, "why": why} for name, why in audit.left_out.items()],
    }


def save(audit: Audit, head: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write audit.json and audit.csv into ``folder``. Raises ``ResourceError``."""
    files = [folder / "audit.json", folder / "audit.csv"]
    write_text(files[0], json.dumps(document(audit, head), indent=1, allow_nan=False) + "\n")
    write_text(files[1], _table(audit))
    return files


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


def _heard_record(one: TargetAudit) -> dict[str, Any]:
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
                "moved": _number(effect.moved),
                "distance": _number(effect.distance),
                "auc": effect.auc,
                "gain": effect.gain,
                "refused": effect.refused,
            }
            for effect in one.effects
        ],
    }


def _table(audit: Audit) -> str:
    """A row a target, mode and run; empty where a number is not defined."""
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in audit.targets:
        for effect in one.effects:
            numbers = (effect.moved, effect.distance, one.auc[effect.mode], effect.auc, effect.gain)
            cells = ["" if _number(value) is None else f"{value:.6g}" for value in numbers]
            words = [_safe(text) for text in (one.name, effect.mode, effect.variant, effect.sentence)]
            writer.writerow([*words, *cells, int(effect.refused)])
    return sheet.getvalue()


def _safe(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
