"""Scores and documents for the tests of reports: small, and as ``vltrack evaluate`` writes them."""

from __future__ import annotations

from typing import Any

import numpy as np

SEQUENCES = [f"clip-{k}" for k in range(12)]
STEPS = {
    "success": (np.arange(21) / 20).tolist(),
    "precision": list(map(float, range(51))),
    "norm_precision": (np.arange(51) / 100).tolist(),
}


def rule_scores(rule: str, title: str, aucs: list[float], shift: float = 0.0) -> dict[str, Any]:
    """One convention's scores; ``shift`` is added to everything but success."""
    auc = float(np.mean(aucs))
    plain = {"precision": auc - 5 + shift, "norm_precision": auc + 5 + shift, "norm_precision_mean": auc + shift}
    return {
        "rule": rule,
        "title": title,
        "auc": auc,
        **plain,
        "norm_precision_at_20": plain["norm_precision"],
        "op50": auc + 1,
        "op75": auc - 20,
        "overlap": auc,
        **{f"{key}_thresholds": steps for key, steps in STEPS.items()},
        "success_curve": np.linspace(1, 0, 21).tolist(),
        "precision_curve": np.linspace(0, auc / 100, 51).tolist(),
        "norm_precision_curve": np.linspace(0, auc / 100, 51).tolist(),
        "per_sequence": {
            "auc": aucs,
            "precision": [v - 5 + shift for v in aucs],
            "norm_precision": [v + 5 + shift for v in aucs],
        },
        "attributes": {
            name: {"sequences": 4, "auc": auc + k, "precision": auc, "norm_precision": auc}
            for k, name in enumerate(("IV", "OCC", "SV", "LR"))
        },
        "ceiling": {"auc": 92.77, "precision": 97.4, "norm_precision": 97.4 + shift},
        "free_hits": {"precision": 9, "norm_precision": 9 + int(shift)},
        "extra": {},
    }


def scores(tracker: str, aucs: list[float], names: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """The form of ``scores.json``; ``more`` replaces top keys."""
    names = SEQUENCES if names is None else names
    return {
        "format": "vltrack.scores",
        "version": 1,
        "tracker": tracker,
        "mode": "nlbbox",
        "data": "lasot",
        "split": "test",
        "subset": None,
        "note": "",
        "notes": [],
        "sequences": [
            {"name": n, "frames": 30, "absent": 1, "attributes": ["IV"], "first_overlap": 0.5, "fps": 30.0}
            for n in names
        ],
        "causes": {"frames": 360, "absent": 12, "xy_not_positive": 34},
        "speed": {"fps": 31.0, "ms_median": 30.0},
        "rules": {
            "official": rule_scores("lasot", "LaSOT toolkit", aucs),
            "vlt-python": rule_scores("vlt-python-lasot", "Python code of papers", aucs, shift=2.0),
        },
        "measures": {"auc": "success AUC", "precision": "precision at 20 px"},
    } | more


def spread(middle: float, width: float = 10.0, count: int = len(SEQUENCES)) -> list[float]:
    """Numbers of the sequences around ``middle``."""
    return [middle + width * (k / (count - 1) - 0.5) for k in range(count)]


def document(*trackers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The form of ``report.json``, without pairs and worst sequences unless ``more`` has them."""
    return {
        "format": "vltrack.report",
        "version": 1,
        "command": "vltrack report a b",
        "date": "2020-02-02",
        "rule": "official",
        "against": len(trackers) - 1 if len(trackers) > 1 else None,
        "subset": "",
        "of": len(trackers[0]["sequences"]),
        "scores": [t | {"name": t["tracker"]} for t in trackers],
        "pairs": [],
        "films": [],
        "worst_by": "",
        "likeness": None,
        "likeness_note": "",
        "notes": [],
        "rule_texts": {"official": {"title": "LaSOT toolkit", "first": "truth"}},
        "main": ["auc", "norm_precision", "precision"],
        "measures": {"auc": "success AUC"},
    } | more


def pair(a: int, b: int, mean: float, low: float | None, high: float | None) -> dict[str, Any]:
    """One paired interval of success AUC."""
    apart = low is not None and high is not None and (low > 0 or high < 0)
    return {
        "a": a, "b": b, "measure": "auc", "mean": mean, "low": low, "high": high,
        "sequences": 12, "excludes_zero": apart,
    }  # fmt: skip
