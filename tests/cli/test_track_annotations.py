"""``vltrack track``: start boxes from an annotation, boxes for CVAT as an output, effects of videos."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

import vltrack
from scripted import Spotter, tracker
from vltrack.api import keyframes

START = """<annotations><version>1.1</version><track id="0" label="car" source="manual">
<box frame="10" keyframe="1" outside="0" occluded="0" xtl="300" ytl="90" xbr="640" ybr="280" z_order="0"/>{}
</track></annotations>"""


@pytest.fixture
def start(tmp_path: Path) -> Path:
    file = tmp_path / "start.xml"
    file.write_text(START.format(""))
    return file


def test_from_an_annotation_and_into_one(command, stub, clip: Path, start: Path, tmp_path: Path) -> None:
    stub.lost_from = 13
    out = tmp_path / "out.xml"
    done = command("track", clip, "--from", start, "-o", out, "--end", 15, "-q").ends(0)
    assert done.out == ""
    found = vltrack.read_tracks(out)["car"]
    assert found.boxes[0].tolist() == [300, 90, 340, 190]
    assert found.indices.tolist() == list(range(10, 14))
    assert [step.index for step in found if step.visible] == [10, 11, 12]
    assert (found.meta["width"], found.meta["height"], found.meta["frames"]) == (854, 480, 40)


def test_a_run_that_ends_early_ends_its_boxes(command, stub, clip: Path, start: Path, tmp_path: Path) -> None:
    """CVAT would show the last box to the end of the video."""
    command("track", clip, "--from", start, "-o", tmp_path / "out.xml", "--end", 15, "-q").ends(0)
    found = vltrack.read_tracks(tmp_path / "out.xml")["car"]
    assert [step.index for step in found if step.visible] == [10, 11, 12, 13, 14]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--start", "3"), "begin in frame 10"),
        (("--box", "1,2,3,4"), "--from name all"),
        (("--text", "the car"), "--from name all"),
        (("more.mp4",), "one video"),
    ],
)
def test_what_does_not_fit_an_annotation(command, stub, clip: Path, start: Path, words, said: str) -> None:
    command("track", clip, "--from", start, *words).ends(2, said)


def test_targets_that_begin_apart_wait_for_their_frames(
    command, clip: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyframes, "load_as", lambda *_, **__: tracker(Spotter(), search_again_every=0))
    other = START.format("").partition("<track")[2].replace('"10"', '"4"').replace("car", "dog")
    start.write_text(START.format("").replace("</annotations>", f"<track{other}"))
    words = ("track", clip, "--from", start, "--end", "14")
    command(*words, "-o", tmp_path / "a.csv").ends(0)
    found = vltrack.read_tracks(tmp_path / "a.csv")
    for name in ("car", "dog"):
        assert found[name].indices.tolist() == list(range(4, 14))
    assert found["car"].status[:6] == ("waiting",) * 6
    assert found["car"].boxes[6].tolist() == found["dog"].boxes[0].tolist() == [300, 90, 340, 190]
    command(*words, "--start", "10").ends(2, "begin in frame 4")
    command(*words, "--show").ends(2, "--show is for one video")


def test_effects_and_gif(command, stub, clip: Path, tmp_path: Path) -> None:
    words = ("track", clip, "--box", "313,88,342,194", "--end", "6", "-q")
    for name, flags in (("plain", ()), ("blur", ("--blur",)), ("crop", ("--crop", "--trail"))):
        command(*words, *flags, "-o", tmp_path / f"{name}.gif", "-o", tmp_path / f"{name}.mp4").ends(0)
    images = {}
    for path in sorted(tmp_path.iterdir()):
        with av.open(str(path)) as file:
            *_, last = file.decode(video=0)
        images[path.name] = last.to_ndarray(format="rgb24").astype(int)
    for suffix in ("gif", "mp4"):
        plain, blur, crop = (images[f"{name}.{suffix}"] for name in ("plain", "blur", "crop"))
        assert plain.shape == blur.shape == crop.shape == ((270, 480, 3) if suffix == "gif" else (480, 854, 3))
        high, wide = plain.shape[:2]
        far, near = np.s_[high * 4 // 5 :, : wide // 3], np.s_[high // 4 : high // 2, wide * 2 // 5 : wide * 3 // 4]
        assert np.abs(plain[far] - blur[far]).mean() < 8 < 16 < np.abs(plain[near] - blur[near]).mean()
        assert np.abs(plain - crop).mean() > 16
    command(*words, "--no-video", "-o", tmp_path / "a.gif", "-o", tmp_path / "a.csv").ends(0)
    assert not (tmp_path / "a.gif").exists()


def test_effects_that_do_not_fit(command, stub, clip: Path, tmp_path: Path) -> None:
    words = ("track", clip, "--box", "313,88,342,194", "--blur")
    command(*words, "-o", tmp_path / "a.csv").ends(2, "--blur")
    with pytest.raises(vltrack.VltrackError, match="--blur"):
        vltrack.track_many([clip], outputs=tmp_path / "{name}.csv", box=(1, 2, 3, 4), effects=["blur"])
    assert not list(tmp_path.glob("*.csv"))
    with pytest.raises(vltrack.VltrackError, match="glow"):
        vltrack.track(clip, box=(1, 2, 3, 4), effects=["glow"])
