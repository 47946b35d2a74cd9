"""Grounding on referring expressions: the tracker's own first box is scored."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import vltrack
from vltrack.cli import main
from vltrack.core.errors import GroundingFailed, UsageError
from vltrack.datasets.catalogue import write_miniature
from vltrack.datasets.referring import open_referring
from vltrack.evaluation.run import evaluate_grounding
from vltrack.tracking.tracker import Tracker


@pytest.fixture(scope="module")
def refcoco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniature("refcoco", tmp_path_factory.mktemp("data") / "refcoco")


def test_boxes_are_scored_by_expression_and_failures_count(refcoco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phrases = open_referring(refcoco, split="val")
    true = {(one.file.name, one.phrase): one.box for one in phrases}
    asked: list[str] = []

    def init(image: np.ndarray, *, text: str) -> SimpleNamespace:
        asked.append(text)
        if len(asked) == 1:
            raise GroundingFailed("nothing")
        return SimpleNamespace(box=next(box for (_, phrase), box in true.items() if phrase == text))

    monkeypatch.setattr(Tracker, "load", lambda *_, **__: SimpleNamespace(init=init))
    ticks: list[int] = []
    scores = evaluate_grounding(phrases, "any", progress=lambda: ticks.append(1))["val"]
    assert asked == [one.phrase for one in phrases]
    assert len(ticks) == scores.count == len(phrases)
    assert scores.without_box == 1
    assert scores.to_dict()["acc_50"] <= 100 - 100 / len(phrases)
    assert scores.to_dict()["acc_50"] > 0


def test_expressions_have_no_upper_bound(refcoco: Path) -> None:
    with pytest.raises(UsageError, match="upper bound"):
        vltrack.evaluate(data=refcoco)


def test_the_command_scores_every_split(refcoco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "litetrack-tiny", "--data", str(refcoco), "--out", str(tmp_path)]
    assert main.main([*words, "--split", "testA", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["splits"]) == {"testA"}
    kept = json.loads((tmp_path / "litetrack-tiny" / "refcoco_grounding" / "grounding.json").read_text())
    assert kept == told
    assert main.main([*words, "--modes", "bbox"]) == 2
