"""The benchmark trains both source trees and reports their ratio."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from small_training import image_folder

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads CPU times from /proc")
def test_a_tree_against_itself(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data")
    command = [sys.executable, REPOSITORY / "benchmarks" / "training.py", "--data", data, "--against", REPOSITORY]
    command += ["--rounds", "1", "--processes", "1", "--batch", "2", "--cache", tmp_path / "cache", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    (table,) = tmp_path.glob("training-*.md")
    assert table.read_text().strip() == done.stdout.strip()
    row = re.search(r"^\| litetrack-tiny \| (.*) \|$", done.stdout, re.MULTILINE)
    before, now, faster, cpu_before, cpu_now, leaner, waiting = row[1].split(" | ")
    assert float(faster) == pytest.approx(float(now) / float(before), abs=0.02)
    # The same code does the same work, on whatever machine
    assert 0.5 < float(leaner) < 2.0
    assert 0 <= float(waiting.rstrip("%")) <= 100
    assert float(cpu_before) > 0 and float(cpu_now) > 0
    (kept,) = tmp_path.glob("training-*.json")
    rounds = json.loads(kept.read_text())["litetrack"]
    assert [len(rounds[name]) for name in ("before", "now")] == [1, 1]
