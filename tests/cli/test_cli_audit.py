"""``vltrack audit`` as a command: what it prints, writes, refuses, and with which exit code."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from listeners import Deaf, Reader
from scripted import tracker
from vltrack.api import audit as audit_job
from vltrack.cli import console
from vltrack.datasets.synthetic import write_clip
from vltrack.evaluation.distractors import distractor_scenes
from vltrack.tracking.tracker import Tracker


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three twin clips on disk."""
    root = tmp_path_factory.mktemp("clips")
    for number, (_, made) in enumerate(distractor_scenes(3, 4)):
        write_clip(made, root / f"clip-{number}")
    return root


def use(monkeypatch: pytest.MonkeyPatch, model: Reader, **card: object) -> None:
    """Put ``model`` where the network would be."""
    stand_in = tracker(model)
    stand_in.card = {**stand_in.card, **card}
    monkeypatch.setattr(audit_job, "_load", lambda *_, **__: stand_in)


def test_a_reader_passes_on_twins(command, monkeypatch, tmp_path) -> None:
    use(monkeypatch, Reader())
    done = command("audit", "litetrack-tiny", "--twins", "6", "--frames", "4", "--out", tmp_path / "a").ends(
        0, "distractor pairs: follows the sentence"
    )
    assert re.search(r"scenes that flip with the sentence +1\.000", done.err)
    assert done.out == ""
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["audit.csv", "audit.json", "audit.png", "audit.svg"]


def test_a_model_that_ignores_text_leaves_with_7_and_the_results_are_kept(command, monkeypatch, tmp_path) -> None:
    use(monkeypatch, Deaf())
    done = command("audit", "litetrack-tiny", "--twins", "3", "--frames", "4", "--out", tmp_path, "--json").ends(7)
    told = done.json
    assert (told["verdict"], told["flip"]["mean"]) == ("ignores the sentence", 0.0)
    assert json.loads(done.err.splitlines()[-1])["error"]["code"] == "PartialResult"
    assert json.loads((tmp_path / "audit.json").read_text()) == told


def test_a_data_set(command, monkeypatch, clips, tmp_path) -> None:
    use(monkeypatch, Reader(), sha256="ab" * 32)
    done = command("audit", "litetrack-tiny", "--data", clips, "--out", tmp_path, "--json").ends(0)
    told = done.json
    assert told["model"] == "litetrack-tiny"
    assert told["weights_sha256"] == "ab" * 32
    assert told["data"] == clips.name
    assert told["modes"]["nl"]["verdict"] == "too few targets to tell"
    assert "nl: too few targets to tell (3, 6 are needed)" in done.err
    assert [one["name"] for one in told["sequences"]] == ["clip-0", "clip-1", "clip-2"]
    assert "nlbbox: " in done.err
    assert "contradicting" in done.err
    rows = list(csv.DictReader((tmp_path / "audit.csv").read_text().splitlines()))
    assert len(rows) == 3 * 5
    assert (tmp_path / "audit.png").read_bytes().startswith(b"\x89PNG")
    chosen = command("audit", "litetrack-tiny", "--data", clips, "--modes", "nl", "--limit", "1", "--json").ends(0).json
    assert {mode: one["verdict"] for mode, one in chosen["modes"].items()} == {"nl": "too few targets to tell"}


def test_a_data_set_that_is_ignored(command, monkeypatch, clips) -> None:
    use(monkeypatch, Deaf())
    done = command("audit", "litetrack-tiny", "--data", clips, "--limit", "2", "--end", "3", "--quiet").ends(7)
    assert done.err.count("\n") == 1
    assert "litetrack-tiny ignores the sentence (nl and nlbbox)" in done.err


def test_a_clip_has_movement_only(command, monkeypatch, clips, tmp_path) -> None:
    use(monkeypatch, Reader())
    source = clips / "clip-0" / "img"
    sentence = (clips / "clip-0" / "nlp.txt").read_text().strip()
    box = (clips / "clip-0" / "groundtruth.txt").read_text().split()[0]
    command("audit", "litetrack-tiny", "--data", source, "--text", sentence, "--box", box, "--out", tmp_path).ends(
        0, "no ground truth"
    )
    told = json.loads((tmp_path / "audit.json").read_text())
    assert set(told["modes"]) == {"nl", "nlbbox"}
    words = command("audit", "litetrack-tiny", "--data", source, "--text", sentence, "--json")
    assert set(words.json["modes"]) == {"nl"}


def test_a_model_without_words_or_without_the_mode_is_refused(command, monkeypatch, clips) -> None:
    use(monkeypatch, Reader(), modes=("bbox",))
    command("audit", "litetrack-tiny", "--data", clips).ends(2, "claims to read no sentence")
    command("audit", "litetrack-tiny", "--twins", "2").ends(2)
    use(monkeypatch, Reader(), modes=("bbox", "nlbbox"))
    command("audit", "litetrack-tiny", "--data", clips, "--modes", "nl").ends(2, "has no mode nl")


def test_a_broken_sequence_is_named_and_the_others_are_kept(command, monkeypatch, tmp_path) -> None:
    use(monkeypatch, Reader())
    for number, (_, made) in enumerate(distractor_scenes(2, 3)):
        write_clip(made, tmp_path / "data" / f"clip-{number}")
    (tmp_path / "data" / "clip-1" / "img" / "00000002.jpg").write_bytes(b"no picture")
    done = command("audit", "litetrack-tiny", "--data", tmp_path / "data", "--json", "--modes", "nl").ends(7)
    told = done.json
    assert [one["name"] for one in told["sequences"]] == ["clip-0"]
    assert [one["name"] for one in told["failed"]] == ["clip-1"]
    assert "1 of 2 targets failed" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "either data (--data) or scenes (--twins)"),
        (["--data", "x", "--twins", "2"], "either data (--data) or scenes (--twins)"),
        (["--twins", "2", "--text", "the dog"], "(--twins) take no other"),
        (["--data", "x", "--modes", "bbox"], "modes 'bbox'"),
        (["--data", "x", "--box", "1,2,3,4"], "(--text)"),
        (["--data", "x", "--text", "the dog", "--limit", "2"], "belong to a data set"),
        (["--data", "x", "--device", "tpu"], "device"),
    ],
)
def test_flags_that_do_not_fit(command, words, said) -> None:
    command("audit", "litetrack-tiny", *words).ends(2, said)


def test_input_that_cannot_be_audited(command, monkeypatch, clips, tmp_path) -> None:
    use(monkeypatch, Reader())
    film = tmp_path / "clip.mp4"
    film.write_bytes(b"")
    command("audit", "litetrack-tiny", "--data", film).ends(2, "nothing says what to follow")
    assert command("audit", "litetrack-tiny", "--data", tmp_path / "nothing").code == 4
    (tmp_path / "OTB100.json").write_text("{}")
    for more in ([], ["--text", "the dog"]):
        command("audit", "litetrack-tiny", "--data", tmp_path / "OTB100.json", *more).ends(
            2, "OTB100.json is an annotation without images"
        )
    for number, (_, made) in enumerate(distractor_scenes(1, 2)):
        write_clip(made, tmp_path / "mute" / f"clip-{number}")
        (tmp_path / "mute" / f"clip-{number}" / "nlp.txt").unlink()
    command("audit", "litetrack-tiny", "--data", tmp_path / "mute").ends(4, "has a sentence")


def test_one_scene_gives_no_interval(command, monkeypatch) -> None:
    use(monkeypatch, Deaf())
    done = command("audit", "litetrack-tiny", "--twins", "1", "--frames", "4").ends(
        7, "one scene: no interval.", "of 1 scene each"
    )
    assert "1 scenes" not in done.err


def test_a_line_now_and_then_tells_how_far_it_is(command, monkeypatch, clips) -> None:
    use(monkeypatch, Reader())
    monkeypatch.setattr(console, "EVERY", 0.0)
    done = command("audit", "litetrack-tiny", "--data", clips, "--modes", "nl")
    lines = [line for line in done.err.splitlines() if "frames/s" in line]
    assert lines[0].startswith("0/3 targets, 1/12 frames, ")
    assert lines[-1].startswith("3/3 targets, 12/12 frames, ")
    assert [int(line.partition(" targets, ")[2].partition("/")[0]) for line in lines] == sorted(
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    )
    quiet = command("audit", "litetrack-tiny", "--twins", "1", "--frames", "4", "--quiet")
    assert "frames/s" not in quiet.err


def test_nothing_is_overwritten_unasked(command, monkeypatch, tmp_path) -> None:
    use(monkeypatch, Reader())
    (tmp_path / "audit.csv").write_text("mine")
    command("audit", "litetrack-tiny", "--twins", "1", "--out", tmp_path).ends(2)
    assert (tmp_path / "audit.csv").read_text() == "mine"


def test_ctrl_c_keeps_the_targets_that_are_done(command, monkeypatch, clips, tmp_path) -> None:
    model = Reader()
    use(monkeypatch, model)
    passes = 7 * 3  # of one target: seven runs of three frames after the first; of a scene: two runs

    def stop() -> None:
        if len(model.searched) > passes:
            raise KeyboardInterrupt

    model.fault = stop
    command("audit", "litetrack-tiny", "--data", clips, "--out", tmp_path / "a").ends(
        130, "interrupted after 1 of 3 targets"
    )
    told = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert told["complete"] is False
    assert [one["name"] for one in told["sequences"]] == ["clip-0"]
    model.searched.clear()
    passes = 2 * 3
    command("audit", "litetrack-tiny", "--twins", "3", "--frames", "4", "--out", tmp_path / "b").ends(
        130, "interrupted after 1 of 3 scenes"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["litetrack", "all-in-one", "aitrack", "bit-tracker", "sa-tracker"])
def test_shipped_models_are_audited_to_the_end(name: str, command) -> None:
    """Whatever the verdict is, it is one of the known ones and the exit code agrees with it."""
    done = command("audit", f"{name}-tiny", "--twins", "3", "--frames", "4", "--json")
    told = done.json
    assert done.code == (0 if told["verdict"] == "too few scenes to tell" else 7)
    assert Tracker.load(f"{name}-tiny").card["sha256"] == told["weights_sha256"]
