"""``vltrack.track`` by text through the grounder: refused, forced, waited for; rows are kept in every case."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import vltrack
from scripted import Spotter, scene
from vltrack.api import track as job
from vltrack.core.errors import NothingFits, UsageError
from vltrack.core.track import Track
from vltrack.core.types import Candidate
from vltrack.tracking.engine import Engine
from vltrack.tracking.postprocess import Policy
from vltrack.tracking.torch_network import TorchNetwork
from vltrack.tracking.tracker import WAIT_EVERY, MultiTracker, Tracker

RED = (30.0, 20.0, 14.0, 12.0)
FRAMES = [scene(), *[scene(RED)] * (WAIT_EVERY + 4)]


class Redness:
    """In place of the grounder: whatever is red fits, with 0.95."""

    def find(self, image: np.ndarray, texts: list[str]) -> list[list[Candidate]]:
        seen = (image == (255, 0, 0)).all(axis=2).any()
        return [[Candidate(box=np.array(RED), score=0.95 if seen else 0.1, label="block")] for _ in texts]


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(model: str, *, anyway: bool, **options: object) -> MultiTracker:
        engine = Engine(TorchNetwork(Spotter()), Policy(), grounder=Redness, anyway=anyway)
        return MultiTracker(Tracker(engine, {"size": "tiny"}))

    monkeypatch.setattr(job, "_load", load)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for number, image in enumerate(FRAMES):
        cv2.imwrite(str(images / f"{number}.png"), image[:, :, ::-1])
    return images


def test_refused_and_forced(command, folder: Path) -> None:
    done = command("track", folder, "--text", "the red block").ends(10, "the red block", "--wait")
    assert done.out == ""
    forced = command("track", folder, "--text", "the red block", "--anyway", "--json").ends(0, "all the same")
    assert '"score": 0.1,' in forced.out.splitlines()[0]
    with pytest.raises(NothingFits) as caught:
        vltrack.track(FRAMES, text="the red block")
    assert caught.value.result is None


def test_waiting_rows_go_to_all_files(command, folder: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"a.{suffix}" for suffix in ("csv", "json", "mp4", "png")]
    flags = [word for file in files for word in ("-o", file)]
    command("track", folder, "--text", "the red block", "--wait", *flags).ends(0, f"visible in 5 of {WAIT_EVERY + 5}")
    expected = ["waiting"] * WAIT_EVERY + ["ok"] * 5
    for file in files[:2]:
        track = Track.load(file)
        assert [str(status) for status in track.status] == expected
        assert track.boxes[0].tolist() == [0, 0, 96, 72]
        assert track.boxes[WAIT_EVERY].tolist() == list(RED)
    assert all(file.stat().st_size for file in files[2:])


def test_in_vain(command, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    flags = ("--text", "the red block", "--wait", "--end", "4")
    command("track", folder, *flags, "-o", file).ends(10, "4 frames", "the red block")
    assert len(Track.load(file)) == 4
    with pytest.raises(NothingFits) as caught:
        vltrack.track(FRAMES[:3], text="the red block", wait=True)
    assert len(caught.value.result) == 3
    several = {"a": vltrack.Target(box=RED), "b": vltrack.Target(text="the red block")}
    with pytest.raises(NothingFits) as caught:
        vltrack.track(FRAMES[:3], targets=several, wait=True)
    assert [len(track) for track in caught.value.result.values()] == [3, 3]


def test_flags_that_do_not_fit(command, folder: Path) -> None:
    flags = ("--wait", "--anyway")
    command("track", folder, "--text", "the red block", *flags).ends(UsageError.exit_code, "--anyway")
