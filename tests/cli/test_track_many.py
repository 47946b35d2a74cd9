"""``vltrack track`` of many videos: what is written where, equality with single runs, failures, resume, signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
from stub_command import StubFollower

import vltrack
from vltrack.api import inputs, many
from vltrack.core.errors import DataError, VltrackError
from vltrack.core.track import Track

HERE = Path(__file__).resolve().parent
BOX = ("--box", "313,88,342,194")


@pytest.fixture
def stub(stub: StubFollower, monkeypatch: pytest.MonkeyPatch) -> StubFollower:
    """The stub of the network in worker processes, too."""
    monkeypatch.setattr(many, "LOADER", "stub_command:stub_worker")
    return stub


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with two videos ``a/one.mp4``, ``b/two.mp4`` and ``b/broken.mp4``, which is none."""
    clip = inputs.demo_clip()[0]
    for name in ("a/one.mp4", "b/two.mp4"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(clip, tmp_path / name)
    (tmp_path / "b" / "broken.mp4").write_bytes(b"nothing that is a video")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_are_those_of_single_runs(command, videos: Path) -> None:
    words = (*BOX, "--end", "4")
    outputs = ("-o", "out", "-o", "out/{name}.json", "-o", "out/{name}.mp4", "-o", "out/{file}.png")
    command("track", "a/one.mp4", "b/two.mp4", *words, *outputs, "-j", "2", "-q").ends(0)
    (videos / "single").mkdir()
    for place in ("a/one", "b/two"):
        name = place[2:]
        ends = (f"{name}.csv", f"{name}.json", f"{name}.mp4", f"{name}.mp4.png")
        flags = [word for end in ends for word in ("-o", f"single/{end}")]
        command("track", f"{place}.mp4", *words, *flags, "--threads", "1").ends(0)
        for end in ends:
            assert (videos / "out" / end).read_bytes() == (videos / "single" / end).read_bytes(), end
    assert len(list((videos / "out").iterdir())) == 8


@pytest.mark.fault("V28")
def test_a_video_that_fails_costs_only_itself_and_resume_tries_it_again(command, stub, videos: Path) -> None:
    words = ("track", "a/one.mp4", "b/broken.mp4", "b/two.mp4", *BOX, "-o", "out", "-j", "2")
    done = command(*words, "--json").ends(7, "failed: b/broken.mp4: not a known video", "1 of 3 videos failed")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert {line["source"]: line["frames"] for line in lines} == {"a/one.mp4": 40, "b/two.mp4": 40}
    assert lines[0]["outputs"] == [str(Path("out") / f"{Path(lines[0]['source']).stem}.csv")]
    kept = {name: (videos / "out" / name).stat() for name in ("one.csv", "two.csv")}
    assert sorted(path.name for path in (videos / "out").iterdir()) == list(kept)
    command(*words).ends(2, "one.csv exists already", "--overwrite")
    shutil.copy("a/one.mp4", "b/broken.mp4")
    command(*words, "--resume").ends(0, "b/broken.mp4: 40 frames", "wrote out/broken.csv")
    for name, before in kept.items():
        assert (videos / "out" / name).stat().st_mtime_ns == before.st_mtime_ns, "it was finished"
    assert len(Track.load(videos / "out" / "broken.csv")) == 40


def test_results_in_python_hold_the_errors(stub, videos: Path) -> None:
    with pytest.raises(VltrackError) as caught:
        vltrack.track_many(["a/one.mp4", Path("b/broken.mp4")], outputs="out", box=(1, 2, 30, 40), end=2)
    found = caught.value.result
    assert list(found) == ["a/one.mp4", "b/broken.mp4"]
    assert (found["a/one.mp4"].summary["frames"], found["a/one.mp4"].error) == (2, None)
    assert found["a/one.mp4"].outputs == (Path("out/one.csv"),)
    assert found["b/broken.mp4"].error.code == "VideoUnreadable"
    with pytest.raises(VltrackError) as caught:
        vltrack.track_many(["b/broken.mp4"], outputs="out", box=(1, 2, 30, 40))
    assert caught.value.code == "VideoUnreadable"


@pytest.mark.fault("V28")
def test_a_bug_in_a_worker_is_the_failure_of_its_video(command, stub, videos: Path, monkeypatch) -> None:
    monkeypatch.setenv("STUB_BUG", "here")
    command("track", "a/one.mp4", "b/two.mp4", *BOX, "-o", "out").ends(
        7, "failed: a/one.mp4: ZeroDivisionError: a bug of ours: here", "failed: b/two.mp4", "2 of 2 videos"
    )
    assert len(Track.load(videos / "out" / "one.csv")) == 1


@pytest.mark.fault("V28")
def test_two_videos_never_share_a_file(command, stub, videos: Path) -> None:
    shutil.copy("a/one.mp4", "b/one.mp4")
    shutil.copy("a/one.mp4", "b/one.part.mp4")
    pair = ("track", "a/one.mp4", "b/one.mp4", *BOX, "--end", "1")
    command(*pair, "-o", "out").ends(2, "a/one.mp4 and b/one.mp4 would both be written to out/one.csv", "{parent}")
    command(*pair, "-o", "x.csv").ends(2, "would both be written to x.csv")
    (videos / "file").write_text("not a folder")
    command(*pair, "-o", "file").ends(2, "would both be written to file")
    command(*pair, "-o", "b/{name}.mp4", "--overwrite").ends(2, "The output b/one.mp4 is an input")
    command("track", "a/one.mp4", "b/one.part.mp4", *BOX, "-o", "out").ends(2, "out/one.part.csv")
    assert not (videos / "out").exists()
    command(*pair, "-o", "{parent}/out/{name}.csv", "-j", "2").ends(0)
    assert [len(Track.load(Path(folder, "out", "one.csv"))) for folder in "ab"] == [1, 1]


def test_one_video_goes_into_a_folder_as_well(command, stub, videos: Path) -> None:
    command("track", "a/*.mp4", *BOX, "--end", "1", "-o", "new/deep").ends(0, "a/one.mp4: 1 frame")
    assert [path.name for path in (videos / "new" / "deep").iterdir()] == ["one.csv"]


def test_what_cannot_be_tracked_is_refused_before_the_work(command, stub, videos: Path) -> None:
    pair = ("track", "a/one.mp4", "b/two.mp4")
    command(*pair, *BOX).ends(2, "results of 2 inputs need a folder", "-o FOLDER")
    command(*pair, "missing.mp4", *BOX, "-o", "out").ends(3, "missing.mp4: no such file or folder")
    command("track", "a/one.mp4", "--text", "the", "white", "car", "-o", "out").ends(3, "white", "in quotes")
    command(*pair, "0", *BOX, "-o", "out").ends(3, "0: no such file")
    command("track", "x/1.jpg", "x/2.jpg", *BOX, "-o", "out").ends(2, "2 inputs are images", "Name their folder")
    command(*pair, *BOX, "-o", "out", "--model", "x/y.safetensors").ends(5)
    command(*pair, *BOX, "-o", "out", "--engine", "slurm").ends(2, "slurm")
    command(*pair, *BOX, "-o", "out/{name}.png", "--resume").ends(2, "can only be resumed (--resume) with a .csv")
    command("track", *BOX, "-o", "out").ends(2, "Missing argument")


def test_a_table_names_videos_and_their_targets(command, stub, videos: Path) -> None:
    table = videos / "b" / "list.csv"
    table.write_text(
        'video,target,box,text\ntwo.mp4,left,"1,2,30,40",\ntwo.mp4,right,5 6 30 40,12 34\n../a/one.mp4,,,the car\n'
    )
    command("track", "--videos", table, "--end", "2", "-o", "out", "-o", "out/{name}.json", "-j", "2").ends(0)
    tracks = json.loads((videos / "out" / "two.json").read_text())["tracks"]
    assert {name: track["meta"]["box"] for name, track in tracks.items()} == {
        "left": [1, 2, 30, 40], "right": [5, 6, 30, 40],
    }  # fmt: skip
    assert tracks["right"]["meta"]["sentence"] == "12 34"
    assert Track.load(videos / "out" / "one.csv").meta["sentence"] == "the car"
    command("track", "a/one.mp4", "--videos", table, "-o", "out").ends(2, "Leave the others out")


@pytest.mark.fault("V28")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has the columns"),
        ("video,box\n", "names no video"),
        ("name,box\nx,1\n", "has the columns name,box"),
        ("video,box,start\nx,1,2\n", "has the columns"),
        ("video,box\na.mp4,1,2,3,4\n", "line 2: it has no video, or too many cells"),
        ("video,text\n,the dog\n", "line 2: it has no video"),
        ("video,text\na.mp4,the dog\na.mp4,the cat\n", "line 3: the target '1' is there twice"),
        ("video,text,box\na.mp4,,\n", "line 2: it has neither"),
        ("video,text\na.mp4,?!\n", "line 2: "),
        ('video,box\na.mp4,"1,2,x,4"\n', "line 2: "),
        ("video,text\na.mp4,\x00\n", "line"),
        ('video,text\n"a.mp4,the dog\n', "line"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_its_line(tmp_path: Path, text: str, said: str) -> None:
    table = tmp_path / "list.csv"
    table.write_text(text)
    with pytest.raises(VltrackError, match=said) as caught:
        many.read_videos(table)
    assert str(table) in str(caught.value)
    assert caught.value.exit_code in (3, 4)
    for content in (b"video,text\nx,\xff\n", None):
        table.unlink()
        table.write_bytes(content) if content else table.mkdir()
        with pytest.raises(DataError, match="list"):
            many.read_videos(table)
        if content is None:
            table.rmdir()


def run_stub(*words: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "stub_command.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
        start_new_session=True,
    )


@pytest.mark.fault("V27")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_files_and_resume_goes_on(
    command, stub, videos: Path, number: signal.Signals, code: int
) -> None:
    words = ("track", "a/one.mp4", "b/two.mp4", *BOX, "-o", "out", "-o", "out/{name}.mp4", "-j", "2")
    with run_stub(*words, STUB_DELAY="0.2") as process:
        parts = [videos / "out" / f"{name}.part.csv" for name in ("one", "two")]
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if all(part.exists() and part.read_bytes().count(b"\n") > 12 for part in parts):
                break
            time.sleep(0.02)
        if number is signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "0 of 2 videos done, and what was done of 2 more is kept" in err
    for name in ("one", "two"):
        kept = len(Track.load(videos / "out" / f"{name}.csv"))
        assert 0 < kept < 40
        with av.open(str(videos / "out" / f"{name}.mp4")) as video:
            assert sum(1 for _ in video.decode(video=0)) == kept
    command(*words, "--resume").ends(0)
    command("track", "a/one.mp4", *BOX, "-o", "one.csv", "-o", "one.mp4").ends(0)
    for name in ("one", "two"):
        rows = (videos / "out" / f"{name}.csv").read_text().splitlines()[-40:]
        assert rows == (videos / "one.csv").read_text().splitlines()[-40:]
        assert (videos / "out" / f"{name}.mp4").read_bytes() == (videos / "one.mp4").read_bytes()
    assert len(list((videos / "out").iterdir())) == 4
