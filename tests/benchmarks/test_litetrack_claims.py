"""What freezing and token selection save, on a narrow network of the same depth."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vltrack.models import MODELS
from vltrack.models.profile import count_parameters, without_memory

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("litetrack_claims", FOLDER / "litetrack_claims.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_freezing_skips_weight_gradients_and_no_more_while_something_below_learns(script: Any) -> None:
    every, frozen, below = (
        script.Training(script.Variant(size="tiny", **options), 1, False).sizes()
        for options in ({"select": True}, {"freeze": True, "select": True}, {"freeze": True, "nothing_below": True})
    )
    size = count_parameters(without_memory(MODELS["litetrack"], "tiny"))
    assert (every["learn"], frozen["learn"]) == (every["all"], size.trainable)
    assert below["learn"] < frozen["learn"]
    assert below["work"] < frozen["work"] < every["work"]
    assert every["state"] - frozen["state"] == 12 * (every["all"] - frozen["learn"])


def test_inference_is_timed_with_the_share_of_tokens_that_training_aims_at(script: Any) -> None:
    frame = script.inference("tiny", False, 1)
    cells = frame["cells"]
    assert 0.7 * cells <= frame["kept"] < 0.7 * cells + 32
    assert frame["ratio"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_table_is_printed_and_written(tmp_path: Path) -> None:
    command = [sys.executable, FOLDER / "litetrack_claims.py", "--narrow", "--rounds", "1", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (text,) = tmp_path.glob("*.md")
    (record,) = tmp_path.glob("*.json")
    assert text.read_text().strip() == done.stdout.strip()
    rows = json.loads(record.read_text())["training"]
    assert len(rows) == 6
    assert all(row["peak"] > row["state"] and row["seconds"] > 0 for row in rows)
