"""The benchmark runs end to end on a synthetic target with a tracker that every OpenCV has."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "real_video.py"


def make_target(folder: Path, frames: int = 6) -> None:
    """A textured square that moves two pixels per frame; absent in the last frame."""
    (folder / "img").mkdir(parents=True)
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8), (0, 0), 3)
    square = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
    rows = []
    for index in range(frames):
        image = scene.copy()
        image[30:54, 20 + 2 * index : 44 + 2 * index] = square
        cv2.imwrite(str(folder / "img" / f"{index + 1:08d}.png"), image)
        rows.append(f"{20 + 2 * index},30,24,24" if index < frames - 1 else "0,0,0,0")
    (folder / "groundtruth.txt").write_text("\n".join(rows) + "\n")
    (folder / "nlp.txt").write_text("the colored square\n")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.fixture
def root(tmp_path) -> Path:
    for name in ("one", "two", "helped"):
        make_target(tmp_path / "open" / name)
    lines = ["name\tnanotrack_v2_auc", "one\t0.5", "helped\t0.9 (boxes made with its help: do not compare)"]
    (tmp_path / "INDEX.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path / "open"


def test_a_run_prints_and_writes_the_table(root, tmp_path) -> None:
    peers = ("--trackers", "mil", "--peer-python", sys.executable)
    done = run("--root", str(root), *peers, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("|")]
    assert rows[:4] == ["target", "---", "one", "two"]
    assert "helped" not in done.stdout
    (report,) = (tmp_path / "out").glob("real_video-*.json")
    data = json.loads(report.read_text())
    assert [(r["target"], r["tracker"], r["frames"]) for r in data["results"]] == [("one", "mil", 5), ("two", "mil", 5)]
    assert all(0.2 < r["auc"] <= 20 / 21 for r in data["results"])
    assert str(tmp_path) not in report.read_text()  # no path of a machine goes into a result
    assert report.with_suffix(".md").read_text().count("| one |") == 1


def test_unknown_targets_and_missing_folders_are_named(root) -> None:
    done = run("--root", str(root), "--sequences", "three", "--only", "peers", "--peer-python", sys.executable)
    assert done.returncode == 1
    assert "three" in done.stderr
    done = run("--root", str(root / "none"))
    assert done.returncode == 2
    assert "VLTRACK_SHARED" in done.stderr


def test_several_weights_are_columns_of_their_own(monkeypatch: pytest.MonkeyPatch, root) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("real_video", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    real_video = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "real_video", real_video)
    spec.loader.exec_module(real_video)
    names = ["made-up-tiny", "runs/other.safetensors"]
    given = ["real_video.py", "--root", str(root), "--trackers", "mil", "bbox", "nl", "--weights", *names]
    monkeypatch.setattr(sys, "argv", given)
    shown = real_video.columns(real_video.arguments())
    assert [column.name for column in shown] == [
        "mil",
        "made-up-tiny bbox",
        "made-up-tiny nl",
        "other bbox",
        "other nl",
    ]
    assert [column.weights for column in shown] == ["", names[0], names[0], names[1], names[1]]
    results = [
        real_video.Result(
            tracker=column.name,
            target="one",
            frames=5,
            auc=0.1 * index,
            sr50=0.5,
            mean_iou=0.5,
            first=0.2 * index,
            init_ms=1.0,
            ms=2.0 + index,
        )
        for index, column in enumerate(shown)
    ]
    rows = [line[2:-2].split(" | ") for line in real_video.table(results, shown).splitlines()]
    assert rows[0][2:] == ["MIL", *(f"{n}, {m}" for n in ("made-up-tiny", "other") for m in ("box", "sentence"))]
    first = next(row for row in rows if row[0].startswith("first frame"))
    assert first[2:] == ["given", "given", "0 of 1", "given", "1 of 1"]
    assert rows[-1][2:] == ["0.67", "1.00", "1.33", "1.67", "2.00"]
    monkeypatch.setattr(sys, "argv", [*given, "more/made-up-tiny.safetensors"])
    with pytest.raises(SystemExit):
        real_video.arguments()
