"""What a card says of quality is what the benchmark's report says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vltrack.training.publish import figures


def test_figures_are_the_means_of_the_report(tmp_path: Path) -> None:
    def row(tracker: str, auc: float, first: float) -> dict[str, object]:
        return {"tracker": tracker, "auc": auc, "sr50": auc / 2, "first": first}

    report = tmp_path / "side_by_side-2026-01-02.json"
    rows = [row("a-tiny nl", 0.2, 0.6), row("a-tiny nl", 0.3, 0.4), row("b-tiny nl", 0.9, 1.0)]
    told = {"about": {"command": "python it", "date": "2026-01-02"}, "results": [*rows, row("bbox", 0.7, 1.0)]}
    report.write_text(json.dumps(told))
    found = figures(report, "a-tiny")
    assert found["nl"] == {"success_auc": 0.25, "sr50": 0.125, "first_frame_at_iou_0.5": 1, "targets": 2}
    assert found["bbox"]["success_auc"] == 0.7  # a report of one weights names the mode alone
    assert "nlbbox" not in found
    assert (found["command"], found["results"]) == ("python it", report.name)
    told["results"] = rows
    report.write_text(json.dumps(told))
    with pytest.raises(ValueError, match="no figures of c-tiny"):
        figures(report, "c-tiny")
