"""``vltrack compare``: what is written, that one tracker's fault costs the others nothing, how it ends."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from scripted import Spotter, moving, tiny_weights, tracker
from vltrack.api import compare as side_job
from vltrack.api import inputs
from vltrack.checkpoints import store
from vltrack.core.errors import CheckpointCorrupt
from vltrack.core.track import Track
from vltrack.plots.compare import WIDTH
from vltrack.plots.compare_video import NARROWEST
from vltrack.tracking.compare import TrackerGroup
from vltrack.video.source import open_source

BOX = "20,20,16,12"
FRAMES = 12


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of pictures with a red rectangle that moves."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, image in enumerate(moving(FRAMES)):
        cv2.imwrite(str(folder / f"{index}.png"), image[:, :, ::-1])
    return folder


@pytest.fixture
def team(monkeypatch: pytest.MonkeyPatch) -> dict[str, Spotter]:
    """The networks that stand in for weights, by name; a test may change them."""
    models = {"good": Spotter(), "twin": Spotter()}

    def load(named, reporter, **loading) -> TrackerGroup:
        group = TrackerGroup({name: tracker(models[name]) for name in named})
        for name, one in group.trackers.items():
            one.card["name"] = name
        return group

    monkeypatch.setattr(side_job, "_load", load)
    monkeypatch.setattr(inputs, "check_model", lambda name: name)
    # Charts take most of the time; tests/plots looks at them, and one test below draws them.
    charts = np.zeros((9, WIDTH, 3), np.uint8)
    monkeypatch.setattr("vltrack.plots.compare._charts", lambda story, moments: charts)
    return models


def words(pictures: Path, out: Path, *models: str) -> list[str | Path]:
    return ["compare", pictures, "--box", BOX, "--out", out, "--models", *(models or ("good", "twin"))]


def breaks_at(model: Spotter, frame: int) -> None:
    """A bug that shows in the ``frame``-th frame."""

    def fault() -> None:
        if len(model.searched) >= frame:
            raise ZeroDivisionError("a bug")

    model.fault = fault


def test_everything_is_written_and_fits(command, team, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "results"
    team["twin"].floor = 0.9  # it sees the corners of the target no more, so that the boxes differ
    done = command(*words(pictures, out), "--json").ends(0)
    names = ["agreement.csv", "boxes-good.csv", "boxes-twin.csv", "compare.json", "compare.mp4", "compare.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    document = json.loads((out / "compare.json").read_text())
    tracks = {name: Track.load(out / f"boxes-{name}.csv") for name in ("good", "twin")}
    assert [len(track) for track in tracks.values()] == [FRAMES] * 2
    assert tracks["good"].meta["model"] == "good"
    assert document["tracks"]["twin"]["rows"] == list(tracks["twin"].rows())
    with (out / "agreement.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["frame", "seconds", "mean", "good", "twin"]
    assert [float(row["mean"]) for row in rows] == pytest.approx(document["agreement"], abs=1e-4)
    assert document["pairs"][0][1] == pytest.approx(np.mean(document["agreement"]))
    assert document["pairs"][0][0] is None
    with open_source(out / "compare.mp4") as video:
        assert video.info.width == NARROWEST
        assert video.info.height > 72
        assert sum(frame.image is not None for frame in video) == FRAMES
    summary = done.json
    assert summary["trackers"]["good"]["lost"] == 0
    assert summary["trackers"]["good"]["frames_per_second"] > 0
    assert summary["trackers"]["good"]["agreement"] == pytest.approx(document["pairs"][0][1])
    assert len(summary["outputs"]) == 6


@pytest.mark.fault("V15")
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (20, 31), (300, 5)], ids=str)
def test_frames_of_a_few_pixels(command, team, tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "frames").mkdir()
    for index in range(3):
        cv2.imwrite(str(tmp_path / "frames" / f"{index}.png"), np.full((*size, 3), 90 * index, np.uint8))
    box = f"0,0,{size[1] / 2},{size[0] / 2}"
    command("compare", tmp_path / "frames", "--box", box, "--out", tmp_path / "out", "--models", "good", "twin").ends(0)
    with open_source(tmp_path / "out" / "compare.mp4") as video:
        images = [frame.image for frame in video]
    assert len(images) == 3
    assert images[0].shape[1] == NARROWEST


def test_a_line_a_tracker(command, team, pictures: Path, tmp_path: Path) -> None:
    done = command(*words(pictures, tmp_path / "out"), "--no-video")
    lines = done.err.splitlines()
    assert lines[0].split() == ["agreement", "frames/s", "lost"]
    assert [line.split()[0] for line in lines[1:3]] == ["good", "twin"]
    assert lines[1].split()[1] == "1.00"
    assert not (tmp_path / "out" / "compare.mp4").exists()
    assert done.out == ""


def test_a_warning_of_all_trackers_is_printed_once(command, team, pictures: Path, tmp_path: Path) -> None:
    more = ("--end", "2", "--out", tmp_path / "out", "-m", "good", "twin")
    done = command("compare", pictures, "--box", "-5,20,30,12", *more).ends(0, "warning: the box -5,20,30,12")
    assert done.err.count("-5,20,30,12") == 1


def test_same_input_same_bytes(command, team, pictures: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        assert command(*words(pictures, tmp_path / folder), "--quiet", "--no-video").err == ""
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / f).iterdir()} for f in "ab")
    assert first == second


def test_a_failing_tracker_costs_the_others_nothing(command, team, pictures: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command(*words(pictures, whole, "good"))
    breaks_at(team["twin"], 5)
    done = command(*words(pictures, broken)).ends(7, "twin stopped at frame 5: a bug")
    assert "PartialResult" in done.err.splitlines()[-1]
    assert (broken / "boxes-good.csv").read_bytes() == (whole / "boxes-good.csv").read_bytes()
    assert len(Track.load(broken / "boxes-twin.csv")) == 5
    document = json.loads((broken / "compare.json").read_text())
    assert document["failed"]["twin"]["frame"] == 5
    assert "ZeroDivisionError" in document["failed"]["twin"]["trace"]
    assert document["agreement"][5:] == [None] * (FRAMES - 5)
    with open_source(broken / "compare.mp4") as video:
        assert sum(frame.image is not None for frame in video) == FRAMES


def test_all_fail(command, team, pictures: Path, tmp_path: Path) -> None:
    for model in team.values():
        breaks_at(model, 3)
    out = tmp_path / "out"
    assert command(*words(pictures, out)).code == 7
    assert len(Track.load(out / "boxes-good.csv")) == 3
    for model in team.values():
        model.init_template = None  # fails at the start
    with pytest.raises(TypeError):
        command(*words(pictures, tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_what_cannot_start_is_left_out(command, team, pictures, tmp_path, monkeypatch) -> None:
    takes = {"good": ("nl", "bbox", "nlbbox"), "twin": ("bbox",)}
    following = "vltrack.tracking.compare.modes_of"
    monkeypatch.setattr(following, lambda card: takes[card["name"]])
    out = tmp_path / "out"
    flags = ["compare", pictures, "--text", "the red thing", "--models", "good", "twin", "--out"]
    done = command(*flags, out).ends(0, "twin: cannot start from text only", "nothing to compare it with")
    assert not (out / "boxes-twin.csv").exists()
    assert "twin" in json.loads((out / "compare.json").read_text())["left_out"]
    done = command(*flags, tmp_path / "both", "--box", BOX)
    assert "twin: takes no text: started from the box alone." in done.err
    assert Track.load(tmp_path / "both" / "boxes-twin.csv").meta["mode"] == "bbox"
    takes["good"] = ("bbox",)
    done = command(*flags, tmp_path / "none")
    assert (done.code, (tmp_path / "none").exists()) == (2, False)


def test_truth_adds_the_success(command, team, pictures: Path, tmp_path: Path) -> None:
    truth = tmp_path / "groundtruth.txt"
    truth.write_text("".join(f"{20 + 2 * i},{20 + i},16,12\n" for i in range(FRAMES)))
    done = command(*words(pictures, tmp_path / "b"), "--truth", truth, "--json")
    assert done.json["trackers"]["good"]["success_auc"] > 0.8
    assert "AUC" in done.err
    truth.write_text(truth.read_text().replace("20,20", "60,60", 1))
    shifted = command(*words(pictures, tmp_path / "c"), "--truth", truth, "--json")
    assert shifted.json["trackers"]["good"]["success_auc"] < 0.9
    truth.write_text("20,20,16,12\n" * 3)
    command(*words(pictures, tmp_path / "d"), "--truth", truth).ends(
        4, "ends at frame 2, the video goes on to frame 11"
    )
    assert len(Track.load(tmp_path / "d" / "boxes-good.csv")) == FRAMES
    truth.write_text("1,2,3\n")
    assert command(*words(pictures, tmp_path / "e"), "--truth", truth).code == 4
    assert not (tmp_path / "e").exists()


def test_start_end_stride(command, team, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command(*words(pictures, out), "--start", "1", "--end", "11", "--stride", "3").ends(0)
    assert json.loads((out / "compare.json").read_text())["frames"] == [1, 4, 7, 10]


def test_a_picture_that_does_not_decode_says_nothing(command, team, pictures: Path, tmp_path: Path) -> None:
    (pictures / "4.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    out = tmp_path / "out"
    assert command(*words(pictures, out)).code == 7
    document = json.loads((out / "compare.json").read_text())
    assert [value is None for value in document["agreement"]] == [i == 4 for i in range(FRAMES)]
    assert Track.load(out / "boxes-good.csv").status[4] == "missing"


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["stray"], 2, "quotes"),
        (["litetrack-tiny", "stray"], 2, "stray"),
        (["--models", "one", "."], 2, "input comes first"),
        (["--models", "good", "good"], 2, "named twice"),
        (["--models", *"abcdefgh"], 2, "at most 7"),
        (["--models", "good", "--truth", "gone.txt"], 4, "gone.txt"),
        (["--models", "good", "--set", "policy.nonsense=1"], 2, "nonsense"),
    ],
)
def test_what_is_refused(command, team, pictures, tmp_path, more, code, says) -> None:
    out = tmp_path / "out"
    command("compare", pictures, "--box", BOX, "--out", out, *more).ends(code, says)
    assert not out.exists()


def test_models_that_are_not_there(command, pictures: Path, tmp_path: Path) -> None:
    command(*words(pictures, tmp_path / "out", "litetrack-tniy")).ends(5, "litetrack-tiny")
    assert command(*words(tmp_path / "gone.mp4", tmp_path / "out", "litetrack-tiny")).code == 3
    assert not (tmp_path / "out").exists()


def test_nothing_is_replaced_unasked(command, team, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command(*words(pictures, out))
    before = (out / "compare.png").read_bytes()
    done = command(*words(pictures, out), "--end", "3")
    assert (done.code, "--overwrite" in done.err) == (2, True)
    assert (out / "compare.png").read_bytes() == before
    assert command(*words(pictures, out), "--end", "3", "--overwrite").code == 0
    assert len(Track.load(out / "boxes-good.csv")) == 3
    (tmp_path / "file").touch()
    assert command(*words(pictures, tmp_path / "file")).code == 6
    assert command(*words(pictures, pictures)).code == 2


def test_an_interrupt_keeps_what_was_done(command, team, pictures: Path, tmp_path: Path) -> None:
    def stop() -> None:
        if len(team["good"].searched) == 5:
            raise KeyboardInterrupt

    team["good"].fault = stop
    out = tmp_path / "out"
    command(*words(pictures, out)).ends(130, "interrupted after 5 frames")
    assert len(Track.load(out / "boxes-twin.csv")) == 5
    with open_source(out / "compare.mp4") as video:
        assert sum(1 for _ in video) == 5


def test_real_networks_by_name_and_by_path(command, clip: Path, tmp_path: Path) -> None:
    own = tiny_weights(tmp_path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(own.read_bytes()[:-9])
    cut.with_suffix(".json").write_bytes(own.with_suffix(".json").read_bytes())
    twin = tmp_path / "twin" / own.name
    twin.parent.mkdir()
    model, _ = store.load("litetrack-tiny")
    store.save(twin, model, tracker="litetrack", size="tiny", card={})
    out = tmp_path / "out"
    flags = ["--box", "313,88,342,194", "--text", "the car", "--end", "3", "--no-video", "--out", out]
    models = ["--models", "litetrack-tiny", own, cut, twin]
    summary = command("compare", clip, *flags, *models, "--json").ends(7).json
    assert list(summary["trackers"]) == ["litetrack-tiny", "random", "random-2"]
    assert summary["failed"]["cut"]["code"] == CheckpointCorrupt.code
    first, copy = (Track.load(out / f"boxes-{name}.csv") for name in ("litetrack-tiny", "random-2"))
    np.testing.assert_array_equal(first.boxes, copy.boxes)
    assert json.loads((out / "compare.json").read_text())["pairs"][0][2] == pytest.approx(1.0)


def test_if_nothing_can_be_loaded_the_first_error_is_told(command, clip: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    command("compare", clip, "--box", "1,2,30,40", "--models", broken, "--out", tmp_path / "out").ends(5, "has no card")
    assert not (tmp_path / "out").exists()
