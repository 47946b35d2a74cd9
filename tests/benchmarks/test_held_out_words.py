"""A tracker that uses the text gets every pair right, one that ignores it none."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vltrack.core.errors import GroundingFailed
from vltrack.training.pairs.sampler import Sample

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "held_out_words.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("held_out_words", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def asked(text: str, x: float) -> Sample:
    boxes = np.tile(np.array([x, 20, 30, 30], dtype=np.float32), (2, 1))
    views = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    return Sample(
        template=views[0],
        template_box=boxes[0],
        searches=views,
        boxes=boxes,
        present=np.ones(2, dtype=bool),
        text=text,
        mode="nl",
    )


QUESTIONS = [asked("left", 5), asked("right", 60), asked("near", 5), asked("nearly there", 7)]


def measured(script: Any, monkeypatch: pytest.MonkeyPatch, answer: Any) -> dict[str, float]:
    def init(image: Any, text: str) -> SimpleNamespace:
        return SimpleNamespace(box=answer(text))

    monkeypatch.setattr(script.Tracker, "load", lambda weights: SimpleNamespace(init=init))
    scores: dict[str, float] = script.measure("any", QUESTIONS)
    return scores


def test_a_tracker_that_uses_the_text(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {sample.text: tuple(map(float, sample.boxes[0])) for sample in QUESTIONS}
    scores = measured(script, monkeypatch, places.__getitem__)
    # the last two targets are one place: no pair
    assert scores == {"overlap": 1.0, "at_0.5": 1.0, "pairs": 1, "both_right": 1.0}


def test_a_tracker_that_ignores_the_text(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = measured(script, monkeypatch, lambda text: (5.0, 20.0, 30.0, 30.0))
    assert scores["both_right"] == 0.0
    assert scores["at_0.5"] == 0.75


def test_a_refusal_is_a_miss(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: str) -> None:
        raise GroundingFailed("nothing there")

    assert measured(script, monkeypatch, refuse)["overlap"] == 0.0
