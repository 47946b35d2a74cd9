"""The annotators of the benchmark on a path that can be checked by hand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vltrack
from scripted import Spotter, scene, tracker
from vltrack.core.types import Frame

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_corrections", FOLDER / "corrections.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def passes(script: Any) -> Any:
    truth = np.array([[20.0 + 2 * row, 20, 16, 12] for row in range(13)])
    frames = [Frame(image=scene(tuple(box)), index=row, seconds=row / 25) for row, box in enumerate(truth)]
    return script.Passes(tracker(Spotter(), search_again_every=0), frames, truth)


def test_even_takes_the_last_frame_and_then_the_middle_of_the_longest_span(script: Any, passes: Any) -> None:
    track = passes.interpolated([0])
    assert script.even(track, [0]) == 12
    assert script.even(track, [0, 12]) == 6
    assert script.even(track, [0, 4, 12]) == 8
    # The path is a straight line: two boxes are all that it takes.
    found = script.overlaps(passes.interpolated, passes.truth, script.even, 0.99, 9)
    assert (len(found), script.clicks(found, 0.99), script.clicks(found, 2.0)) == (2, 2, 2)
    assert found[0] < 0.5
    assert found[1] == 1


def test_kept_passes_give_what_a_correction_gives(script: Any, passes: Any) -> None:
    script.check(passes)
    assert [step.index for step in passes.steps(9, 3)] == [8, 7, 6, 5, 4, 3]
    track = passes.track([0, 6])
    assert isinstance(track, vltrack.Track)
    assert script.review(track, [0, 6]) not in (0, 6)
    assert script.mean_clicks([{"a": [[0.5, 0.9], [0.9]]}, {"a": [[0.2, 0.3, 0.4]]}], "a", 0.9) == 4.5
