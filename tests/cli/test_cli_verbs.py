"""The other verbs: demo, data, models, doctor, train; and the demo for real where weights are there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vltrack.api import doctor
from vltrack.checkpoints.cards import model_names
from vltrack.core.track import Track
from vltrack.core.types import iou_xywh
from vltrack.video.source import open_source

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent.parent / "examples"
needs_weights = pytest.mark.skipif(
    model_names()["litetrack-tiny"] is None, reason="the weights of litetrack-tiny are not in this checkout yet"
)


def test_demo_writes_three_files_says_where_and_may_be_run_again(command, stub, tmp_path: Path) -> None:
    out = tmp_path / "new" / "demo"
    for _ in range(2):
        done = command("demo", "--out", out).ends(0)
        assert done.out == ""
        assert sorted(path.name for path in out.iterdir()) == ["car-shadow.csv", "car-shadow.mp4", "car-shadow.png"]
        assert str(out / "car-shadow.mp4") in done.err
    assert Track.load(out / "car-shadow.csv").meta["box"] == [313, 88, 342, 194]


def test_demo_where_nothing_can_be_written(command, stub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command("demo", "--out", tmp_path / "file" / "demo").ends(6, "--out")


@needs_weights
def test_demo_follows_the_car(command, tmp_path: Path) -> None:
    """The bounds of DAVIS' own masks; 0.6 is far below what the weights reach and far above a box that
    stays.
    """
    assert command("demo", "--out", tmp_path).code == 0
    truth = np.loadtxt(HERE / "data" / "car-shadow-boxes.txt", delimiter=",")
    track = Track.load(tmp_path / "car-shadow.csv")
    overlap = iou_xywh(track.boxes, truth)
    assert overlap.mean() > 0.6
    assert track.visible.all()
    with open_source(tmp_path / "car-shadow.mp4") as source:
        assert sum(1 for _ in source) == len(truth)


@needs_weights
@pytest.mark.parametrize("name", ["track_a_clip.py", "frame_by_frame.py", "several_targets.py"])
def test_examples_run(name: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, EXAMPLES / name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_synthesize(command, tmp_path: Path) -> None:
    done = command("data", "synthesize", "--out", tmp_path / "clips", "--count", "2", "--frames", "3", "--json").ends(0)
    clips = [Path(name) for name in done.json["clips"]]
    assert len(clips) == 2
    assert all((clip / "groundtruth.txt").is_file() for clip in clips)
    done = command("data", "synthesize", "--out", tmp_path / "clips", "--count", "1")
    assert (done.code, done.out) == (2, "")
    assert "--overwrite" in done.err


def test_train_checks_before_it_starts(command, tmp_path: Path) -> None:
    command("train", "litetrack", "--data", tmp_path / "no", "--out", tmp_path / "run").ends(4, "docs/train.md")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.csv").write_text("")
    command("train", "litetrack", "--data", tmp_path, "--out", tmp_path / "run").ends(2, "--resume")
    assert command("train", "litetrack", "--data", tmp_path, "--out", "x", "--size", "tinny").code == 2


@pytest.mark.parametrize(("kept", "says"), [(False, "before the first checkpoint"), (True, "last checkpoint")])
def test_a_stopped_training_says_what_is_kept(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool, says: str
) -> None:
    def stopped(options: dict[str, object], progress: object) -> int:
        (tmp_path / "run").mkdir()
        if kept:
            (tmp_path / "run" / "last.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr("vltrack.training.launch.main_train", stopped)
    command("train", "litetrack", "--data", tmp_path, "--out", tmp_path / "run").ends(130, says)


def test_doctor_finds_the_codec_and_one_opencv(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_self_test", lambda seconds: doctor.Diagnosis(name="self test", good=True, found=""))
    monkeypatch.setattr(doctor, "_weights", list)
    done = command("doctor", "--json")
    found = {line["name"]: line for line in map(json.loads, done.out.splitlines())}
    assert found["codecs"]["good"]
    assert found["opencv"]["good"]
    assert done.code == 0


def test_doctor_says_what_to_do(command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[doctor.Diagnosis]:
        raise OSError("no such device")

    for name in ("_versions", "_devices", "_codecs", "_weights"):
        monkeypatch.setattr(doctor, name, list)
    monkeypatch.setattr(doctor, "OPENCV_WHEELS", ("numpy", "typer"))
    monkeypatch.setattr(doctor, "_devices", broken)
    monkeypatch.setattr(doctor, "_self_test", lambda seconds: doctor.Diagnosis(name="self test", good=True, found=""))
    done = command("doctor").ends(6)
    assert "pip uninstall -y numpy typer" in done.out
    assert "no such device" in done.out
    assert "opencv" in done.err
    assert "devices" in done.err
