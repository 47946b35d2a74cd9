"""The other verbs: demo, data, models, doctor, train; and the demo for real where weights are there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vltrack.api import doctor
from vltrack.api.inputs import check_model
from vltrack.checkpoints.cards import model_names
from vltrack.cli.tables import measured_lines
from vltrack.core.errors import ModelNotFound
from vltrack.core.files import sha256_of
from vltrack.core.track import Track
from vltrack.core.types import iou_xywh
from vltrack.models import MODELS
from vltrack.nn import runtime
from vltrack.video.source import open_source

MEASURED = {"name", "runtime", "milliseconds", "frames_per_second", "peak_mb", "load_seconds"}
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
            (tmp_path / "run" / "step-5.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr("vltrack.training.launch.main_train", stopped)
    command("train", "litetrack", "--data", tmp_path, "--out", tmp_path / "run").ends(130, says)


def test_train_prints_its_record(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vltrack.training.launch.main_train", lambda options, progress: 0)
    done = command("train", "litetrack", "--data", tmp_path, "--out", tmp_path / "run", "--json").ends(0)
    run = tmp_path / "run"
    assert done.json == {"out": str(run), "weights": str(run / "litetrack-tiny.safetensors")}


def test_doctor_finds_the_codec_and_one_opencv(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_self_test", lambda seconds: doctor.Diagnosis(name="self test", good=True, found=""))
    monkeypatch.setattr(doctor, "_weights", list)
    monkeypatch.setattr(doctor, "_speed", list)
    done = command("doctor", "--json")
    found = {line["name"]: line for line in map(json.loads, done.out.splitlines())}
    assert found["codecs"]["good"]
    assert found["opencv"]["good"]
    assert done.code == 0


def test_doctor_says_what_to_do(command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[doctor.Diagnosis]:
        raise OSError("no such device")

    for name in ("_versions", "_devices", "_codecs", "_weights", "_speed"):
        monkeypatch.setattr(doctor, name, list)
    monkeypatch.setattr(doctor, "OPENCV_WHEELS", ("numpy", "typer"))
    monkeypatch.setattr(doctor, "_devices", broken)
    monkeypatch.setattr(doctor, "_self_test", lambda seconds: doctor.Diagnosis(name="self test", good=True, found=""))
    done = command("doctor").ends(6)
    assert "pip uninstall -y numpy typer" in done.out
    assert "no such device" in done.out
    assert "opencv" in done.err
    assert "devices" in done.err


def test_doctor_says_what_auto_is_and_what_is_cached(
    command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, graphs: None
) -> None:
    for name in ("_codecs", "_weights"):
        monkeypatch.setattr(doctor, name, list)
    monkeypatch.setattr(doctor, "_self_test", lambda seconds: doctor.Diagnosis(name="self test", good=True, found=""))
    monkeypatch.setattr(runtime, "has_fast_bf16", lambda: True)
    (tmp_path / "graphs").write_bytes(bytes(3_000_000))
    monkeypatch.setenv("VLTRACK_CACHE", str(tmp_path))
    monkeypatch.setattr(doctor, "_speed", list)
    found = {line["name"]: line["found"] for line in map(json.loads, command("doctor", "--json").out.splitlines())}
    assert found["backend"].startswith("auto on the CPU is openvino bf16 ")
    assert found["cache"] == f"{tmp_path}, 1 file, 3 MB"


@pytest.mark.skipif(model_names()["litetrack-tiny"] is None, reason="no weights in this checkout")
def test_doctor_measures_the_default_model(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = doctor._speed()
    assert found.good
    assert re.fullmatch(r"litetrack-tiny, one thread, ms a frame: torch fp32 \d+\.\d", found.found)


def test_doctor_names_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VLTRACK_CACHE", str(tmp_path / "file" / "cache"))
    (found,) = doctor._cache()
    assert not found.good
    assert "VLTRACK_CACHE" in found.remedy


# -- models -----------------------------------------------------------------------------------------


def test_every_size_is_a_line_and_every_tracker_a_note(command) -> None:
    done = command("models").ends(0)
    table, *notes, _ = done.out.split("\n\n")
    lines = table.splitlines()
    assert lines[0].split()[:5] == ["name", "year", "modes", "weights", "parameters"]
    assert [line.split()[0] for line in lines[1:]] == list(model_names())
    assert len(notes) == len(MODELS)
    for note, card in zip(notes, MODELS.values(), strict=True):
        letters = "".join(note.split())  # lines also break after hyphens
        said = f"{card.title} ({card.year}) paper {card.paper} claims {card.claims} ours {card.ours}"
        assert letters == said.replace(" ", "")
    for name, file in model_names().items():
        assert (file is not None) == ("at hand" in next(line for line in lines if line.split()[0] == name))


def test_lines_fit_the_terminal(command, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, most in ((70, 70), (40, 60), (500, 110)):
        monkeypatch.setenv("COLUMNS", str(columns))
        notes = command("models").out.partition("\n\n")[2].rpartition("\n\n")[0].splitlines()
        assert max(len(line) for line in notes) <= most


def test_json_has_all_fields_for_every_size(command) -> None:
    rows = [json.loads(line) for line in command("models", "--json").out.splitlines()]
    assert [row["name"] for row in rows] == list(model_names())
    texts = {"name", "tracker", "paper", "year", "modes", "size", "weights", "claims", "ours", "figures"}
    counts = {"parameters", "parameters_trained", "parameters_running", "multiplications"}
    assert all(row.keys() == texts | counts for row in rows)


def test_counts_are_columns_of_the_table(command) -> None:
    row = command("models", "all-in-one-base", "--json").json
    assert row["parameters_running"] < row["parameters"]
    assert row["multiplications"]["frame"] > row["multiplications"]["text"] >= 0
    done = command("models", "all-in-one-base")
    head, line = done.out.split("\n\n")[0].splitlines()
    assert head.split()[-6:] == ["parameters", "trained", "running", "frame", "from", "text"]
    told = [f"{row[key] / 1e6:.2f} M" for key in ("parameters", "parameters_trained", "parameters_running")]
    told += [f"{row['multiplications'][key] / 1e9:.2f} G" for key in ("frame", "ground")]
    assert line.split()[-10:] == " ".join(told).split()
    assert command("models", "bit-tracker-base").out.splitlines()[1].endswith("-")  # no start by words
    assert "FLOPs" in done.err


def test_a_size_that_nobody_counted_is_listed(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.json, "loads", lambda text: {})
    assert command("models", "litetrack-tiny").out.splitlines()[1].split()[-5:] == ["-"] * 5


def test_figures_are_published_ones_or_measured_with_the_weights_that_ship(command) -> None:
    rows = [json.loads(line) for line in command("models", "--json").out.splitlines()]
    figures = [figure for row in rows for figure in row["figures"]]
    assert {figure["model"] for figure in figures} <= set(model_names())
    assert all(figure["source"] and 0 < value < 100 for figure in figures for value in figure["values"].values())
    for row in rows:
        for figure in row["figures"]:
            measured = "real_video.py" in figure["source"]
            assert figure["conditions"] and (figure["by"] == "measured", row["size"] == "tiny") == (measured, measured)
            assert figure["by"] in ("published", "measured") if figure["values"] else figure["by"] == "not at hand"
            assert not measured or figure["sha256"] == sha256_of(Path(row["weights"])), "record them again"
    line = next(line for line in command("models", "aitrack").out.splitlines() if "TNL2K" in line)
    assert line.split()[:6] == ["aitrack-base", "box", "TNL2K", "AUC", "57.5", "P"]


def test_published_figures_stand_apart_from_measured_ones_and_say_where_there_are_none(command) -> None:
    done = command("models")
    lines = done.out.rpartition("\n\n")[2].splitlines()
    heads = [number for number, line in enumerate(lines) if ", in %" in line]
    assert [lines[number].split(",")[0] for number in heads] == ["published", "measured here"]
    for number, line in enumerate(lines):
        assert number in heads or ("-tiny " in line) == (number > heads[1])
    for card in MODELS.values():
        assert any(line.startswith(f"{card.name}-base ") for line in lines[: heads[1]]), card.name
    assert "not at hand" in next(line for line in lines if line.startswith("sa-tracker-base "))
    assert "not comparable with a tiny size" in " ".join(done.err.split())


def test_only_what_is_asked_for(command) -> None:
    rows = [json.loads(line) for line in command("models", "aitrack", "--json").out.splitlines()]
    assert [row["name"] for row in rows] == [f"aitrack-{size}" for size in MODELS["aitrack"].sizes]
    done = command("models", "aitrak")
    assert (done.code, done.out) == (5, "")
    assert "aitrack" in done.err


def test_a_model_is_measured_on_this_machine(command) -> None:
    row = command("models", "litetrack", "--measure", "--json").json  # one row: the other sizes have no weights
    assert (row["name"], set(row)) == ("litetrack-tiny", MEASURED)
    assert row["frames_per_second"] * row["milliseconds"] == pytest.approx(1000, rel=0.1)
    assert row["load_seconds"] > 0
    # More than its weights in fp32, less than a machine.
    assert 4 * 4.46 < row["peak_mb"] < 2000


def test_measured_models_are_lines_as_they_come() -> None:
    row = {"name": "litetrack-tiny", "runtime": "torch fp32", "milliseconds": 12.34, "frames_per_second": 81.0}
    lines = measured_lines(iter([{**row, "peak_mb": 336, "load_seconds": 0.5}]))
    head, line = next(lines), next(lines)
    assert len(head) == len(line)
    assert line.split() == ["litetrack-tiny", "torch", "fp32", "12.3", "81.0", "336", "0.50"]


def test_measuring_without_weights_is_refused(command) -> None:
    done = command("models", "bit-tracker-base", "--measure")
    assert (done.code, done.out) == (5, "")
    assert "No weights of bit-tracker-base" in done.err
    assert "import-weights" in done.err


@pytest.mark.parametrize("word", ["bit-tracker", "BIT-Tracker", "bittracker", "bit-tracker-tiny"])
def test_a_tracker_is_known_by_its_title_too(word: str) -> None:
    assert check_model(word) == "bit-tracker-tiny"


def test_what_is_no_model_is_refused(command) -> None:
    for word in ("bit", "ostrack", "bit-tracker-tiny-tiny"):
        with pytest.raises(ModelNotFound, match=word):
            check_model(word)
    with pytest.raises(ModelNotFound, match="bit-tracker-base"):
        check_model("BIT-Tracker-base")
    names = [json.loads(line)["name"] for line in command("models", "SATracker", "--json").out.splitlines()]
    assert names == ["sa-tracker-tiny", "sa-tracker-base"]
