"""What the benchmark computes from its measurements; one run of it over a model."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vltrack.api.doctor import list_models

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import speed  # noqa: E402
import speed_child  # noqa: E402


def test_a_nested_call_counts_for_its_own_part_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 0.010, 0.013, 0.020])  # outer begins, inner begins, inner ends, outer ends
    monkeypatch.setattr(speed_child.time, "process_time", lambda: next(seconds))
    clock = speed_child.Clock()
    inner = clock.timed("crop", lambda value: value + 1)
    outer = clock.timed("network", lambda value: 2 * inner(value))
    assert outer(1) == 4
    assert clock.spent == pytest.approx({"network": 17.0, "crop": 3.0})


def test_frames_go_back_and_forth_over_the_blocks(tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", np.arange(4)[:, None, None, None])
    server = speed_child.Server(str(tmp_path / "frames.npy"), [0, 0, 1, 1], "")
    seen = [int(image.item()) for count in (2, 5, 1) for image in server.next_images("one", count)]
    assert seen == [1, 2, 3, 2, 1, 0, 1, 2]
    assert int(server.next_images("other", 1)[0].item()) == 1


def test_ratios_are_medians_over_rounds_of_medians() -> None:
    # The second round ran while the machine was busy: both took three times as long.
    slow = speed.Result(blocks={"update": [[10, 10, 100], [30, 30, 30], [10, 11, 10]]})
    fast = speed.Result(blocks={"update": [[5, 5, 5], [15, 15, 15], [2, 2, 2]]})
    assert fast.ratio("update", slow) == 0.5
    assert math.isnan(fast.ratio("find", slow))
    assert slow.median("update") == 11
    assert speed.Result(fresh={"peak": [3.0, 1.0, 2.0]}).median("peak") == 2
    assert math.isnan(slow.median("peak"))


def test_tables_of_made_up_measurements() -> None:
    blocks = {"update": [[100.0]], "network": [[80.0]], "crop": [[15.0]], "rest": [[5.0]], "find": [[200.0]]}
    half = {part: [[value / 2 for value in block] for block in each] for part, each in blocks.items()}
    models = {
        name: {"before": speed.Result(blocks=blocks), "nanotrack": speed.Result(blocks={"update": [[10.0]]})}
        for name in (speed.UVLTRACK, speed.LITETRACK)
    }
    models[speed.LITETRACK]["openvino-fp32"] = speed.Result(blocks=half, fresh={"peak": [500.0]})
    models[speed.UVLTRACK]["openvino-fp32"] = speed.Result(blocks=blocks, fresh={"peak": [1000.0]})
    about = {row["name"]: row for row in list_models()}
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in speed.frame_table(models, about, 1000.0)]
    assert len({len(row) for row in rows}) == 1
    work = about[speed.LITETRACK]["multiplications"]["frame_kept"]
    assert rows[-1][:8] == [speed.LITETRACK, "openvino-fp32", "50.0", "40.0", "7.5", "2.5", "0.500", "5.00"]
    assert rows[-1][8:] == [f"{2 * work / 0.040 / 1e12:.0%}", "-", "-", "100"]
    table = "\n".join(speed.seed_table(models, about))
    assert "| frames/s, tracking | 44.1 | 51.7 | 1.17 | openvino-fp32 | 10.00 | 20.00 | 2.00 |" in table
    assert "| memory | 90 % (of a GPU) | 70 % | 0.78 | openvino-fp32, peak MB | 1000 | 500 | 0.50 |" in table
    (line,) = [line for line in speed.process_table(models) if speed.LITETRACK in line]
    assert line == f"| {speed.LITETRACK} | openvino-fp32 | - | 500 | - | - | - | - |"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="reads CPU times and memory from /proc")
def test_a_model_against_the_same_tree(tmp_path: Path) -> None:
    command = [sys.executable, REPOSITORY / "benchmarks" / "speed.py", "litetrack-tiny", "--against", REPOSITORY]
    command += ["--variants", "torch-fp32", "--rounds", "1", "--processes", "1", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ), cwd=tmp_path)
    (kept,) = tmp_path.glob("speed-*.json")
    assert kept.with_suffix(".md").read_text().strip() == done.stdout.strip()
    results = json.loads(kept.read_text())["models"]["litetrack-tiny"]["results"]
    for key in ("before", "torch-fp32"):
        (update,), (network,), (crop,), (rest,) = (
            results[key]["blocks"][part] for part in ("update", "network", "crop", "rest")
        )
        assert np.add(np.add(network, crop), rest) == pytest.approx(update)
        assert min(min(network), min(crop), min(rest)) > 0
        assert len(results[key]["fresh"]["peak"]) == len(results[key]["track"]["rate"]) == 1
    row = re.search(r"^\| litetrack-tiny \| torch-fp32 \| (.*) \|$", done.stdout, re.MULTILINE)
    # The same code does the same work, on whatever machine
    assert 0.5 < float(row[1].split(" | ")[4]) < 2.0
