"""The figures of the benchmark on numbers that can be checked by hand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("benchmark_find", FOLDER / "find.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_calibration_and_refusal(script: Any) -> None:
    rows, error, brier = script.calibration([0.9, 0.9, 0.9, 0.9, 0.1], [True, True, True, False, False])
    assert rows == [[1, pytest.approx(0.1), 0.0], [0], [0], [0], [4, pytest.approx(0.9), 0.75]]
    assert error == pytest.approx((4 * 0.15 + 1 * 0.1) / 5)
    assert brier == pytest.approx((3 * 0.01 + 0.81 + 0.01) / 5)
    present = [0.05, 0.3, 0.4, *[0.9] * 17]  # a tenth of 20: two may be refused
    assert script.refused(present, [0.1, 0.39, 0.4, 0.8]) == (0.5, 0.4)


def test_the_first_known_noun_and_the_longest_at_its_place(script: Any) -> None:
    named = script.nouns()
    assert script.first_named("the basketball player near the car", named) == {"person"}
    assert script.first_named("the white plastic bag on the table", named) == {"backpack", "handbag"}
    assert script.first_named("the thing over there", named) == set()


def test_every_frame_gets_sentences_about_what_it_does_not_show(script: Any) -> None:
    kinds = {kind for missing in script.MISSING.values() for kind in missing.split()}
    assert kinds == set(script.OTHERS)
    assert not [kind for kind, owner in script.OTHERS.items() if kind in script.MISSING[owner].split()]
