"""``vltrack track`` with a stub for the network: what goes where, what is kept, how it ends."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stub_command import StubFollower

import vltrack
from vltrack.api import inputs, outputs
from vltrack.core.errors import ResourceError
from vltrack.core.files import counted
from vltrack.core.track import COLUMNS, Track
from vltrack.core.types import Frame, Step
from vltrack.video.source import open_source
from vltrack.video.writer import VideoWriter

HERE = Path(__file__).resolve().parent
FRAMES = 40


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_rows_go_to_standard_output_and_nothing_else_does(command, stub, clip: Path) -> None:
    done = command("track", clip, "--box", "10,20,30,40")
    rows = rows_of(done.out)
    assert done.code == 0
    assert list(rows[0]) == list(COLUMNS)
    assert [int(row["frame"]) for row in rows] == list(range(FRAMES))
    assert [float(row["x"]) for row in rows] == [10.0 + i for i in range(FRAMES)]
    assert float(rows[24]["seconds"]) == pytest.approx(1.0)
    assert "40 frames" in done.err
    assert "target visible in 40" in done.err


def test_json_lines_parse(command, stub, clip: Path) -> None:
    done = command("track", clip, "--box", "10,20,30,40", "--json", "--end", "5", "--quiet")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["frame"] for row in rows] == [0, 1, 2, 3, 4]
    assert all(set(row) == set(COLUMNS) for row in rows)
    assert rows[0]["visible"] is True
    assert done.err == ""


def test_several_targets_have_a_name_in_every_row(command, stub, clip: Path) -> None:
    words = ("--target", "dog, left:the dog", "--target", "=2:120,40,60,80", "--end", "2")
    rows = rows_of(command("track", clip, *words).out)
    assert [row["target"] for row in rows] == ["dog, left", "'=2"] * 2
    lines = command("track", clip, *words, "--json").out.splitlines()
    assert [json.loads(line)["target"] for line in lines] == ["dog, left", "=2"] * 2


def test_a_name_may_join_a_box_and_a_sentence(command, stub, clip: Path) -> None:
    done = command("track", clip, "--target", "1:the dog", "--target", "1:120,40,60,80", "--end", "1")
    assert rows_of(done.out)[0]["x"] == "120.0"
    assert len(rows_of(done.out)) == 1


def test_outputs_by_extension(command, stub, clip: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.csv", "a.json", "a.mp4", "a.png")]
    flags = [word for file in files for word in ("-o", file)]
    summary = command("track", clip, "--box", "10,20,30,40", "--text", "the dog", *flags, "--json").ends(0).json
    assert summary["frames"] == FRAMES
    assert summary["outputs"] == [str(file) for file in files]
    table, document = Track.load(files[0]), Track.load(files[1])
    assert (table.boxes == document.boxes).all()
    assert table.meta["sentence"] == "the dog"
    assert table.meta["box"] == [10, 20, 30, 40]
    with open_source(files[2]) as source:
        assert (source.info.width, source.info.height) == (854, 480)
        assert [frame.index for frame in source if frame.image is not None] == list(range(FRAMES))
    assert files[3].read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.json", "a.mp4", "a.png"]


def test_frames_are_tracked_while_earlier_ones_are_drawn(
    command, stub, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked, drawn = threading.Event(), []

    def add(self: object, frame: Frame, steps: object) -> None:
        assert tracked.wait(60), "frame 3 was not tracked while frame 0 was drawn"
        drawn.append(frame.index)

    def update(frame: Frame) -> dict[str, Step]:
        if frame.index == 3:
            tracked.set()
        assert frame.index <= len(drawn) + outputs.DRAWN_LATER + 1, "the queue has a bound"
        return StubFollower.update(stub, frame)

    monkeypatch.setattr(outputs.ContactSheet, "add", add)
    monkeypatch.setattr(stub, "update", update)
    command("track", clip, "--box", "10,20,30,40", "-o", tmp_path / "a.csv", "-o", tmp_path / "a.png").ends(0)
    assert drawn == list(range(FRAMES))


def test_an_error_in_drawing_ends_the_run_and_keeps_the_rows(
    command, stub, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, *frame: object) -> None:
        raise ResourceError("Cannot write: the disk is full.")

    words = ("track", clip, "--box", "10,20,30,40", "-o", tmp_path / "a.csv", "-o", tmp_path / "a.mp4")
    for method, count in (("_encode", range(1, outputs.DRAWN_LATER + 3)), ("__exit__", [FRAMES])):
        with monkeypatch.context() as patch:
            patch.setattr(VideoWriter, method, full)
            command(*words).ends(6, "the disk is full")
        assert len(Track.load(tmp_path / "a.csv")) in count
        assert not (tmp_path / "a.mp4").exists()
        for path in tmp_path.iterdir():
            path.unlink()


def test_frames_whose_memory_is_used_again_are_drawn_as_they_were(stub, clip: Path, tmp_path: Path) -> None:
    buffer = np.zeros((48, 64, 3), np.uint8)

    def reused() -> Iterator[np.ndarray]:
        for number in range(12):
            buffer[:] = 20 * number
            yield buffer

    copies = [np.full_like(buffer, 20 * number) for number in range(12)]
    vltrack.track(reused(), box=(1, 2, 30, 40), outputs=tmp_path / "a.mp4")
    vltrack.track(copies, box=(1, 2, 30, 40), outputs=tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_several_targets_share_a_file(command, stub, clip: Path, tmp_path: Path) -> None:
    table, document = tmp_path / "a.csv", tmp_path / "a.json"
    targets = ("--target", "a:10,10,20,20", "--target", "b:50,50,20,20", "--end", "3")
    assert command("track", clip, *targets, "-o", table, "-o", document).code == 0
    lines = table.read_text().splitlines()
    assert lines[0] == "# vltrack.tracks 1"
    assert [row["target"] for row in rows_of("\n".join(lines[3:]))] == ["a", "b"] * 3
    assert list(json.loads(document.read_text())["tracks"]) == ["a", "b"]


def test_no_video_leaves_the_video_out(command, stub, clip: Path, tmp_path: Path) -> None:
    flags = ("-o", tmp_path / "a.csv", "-o", tmp_path / "a.mp4", "--no-video")
    assert command("track", clip, "--box", "1,2,30,40", "--end", "2", *flags).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_start_end_stride_keep_the_numbers_of_the_input(command, stub, clip: Path) -> None:
    done = command("track", clip, "--box", "1,2,30,40", "--start", "5", "--end", "20", "--stride", "5")
    assert [int(row["frame"]) for row in rows_of(done.out)] == [5, 10, 15]


def test_box_formats_and_units(command, stub, clip: Path) -> None:
    def first(*words: str) -> list[float]:
        row = rows_of(command("track", clip, *words, "--end", "1").out)[0]
        return [float(row[key]) for key in "xywh"]

    assert first("--box", "10,20,40,60", "--box-format", "xyxy") == [10, 20, 30, 40]
    assert first("--box", "25,40,30,40", "--box-format", "cxcywh") == [10, 20, 30, 40]
    assert first("--box", "0.5,0.25,0.1,0.1", "--box-unit", "rel") == pytest.approx([427, 120, 85.4, 48])


def test_fail_if_lost(command, stub, clip: Path) -> None:
    stub.lost_from = 30
    done = command("track", clip, "--box", "1,2,30,40")
    assert (done.code, "visible in 30 of 40" in done.err) == (0, True)
    done = command("track", clip, "--box", "1,2,30,40", "--fail-if-lost").ends(7)
    assert len(rows_of(done.out)) == FRAMES
    assert "10 frames" in done.err


def test_debug_shows_the_trace_and_json_makes_the_error_an_object(command) -> None:
    plain = command("track", "x.mp4")
    assert plain.err.count("\n") == 1
    assert plain.err.startswith("vltrack: error[UsageError]: ")
    assert "Traceback" in command("track", "x.mp4", "--debug").err
    error = json.loads(command("track", "x.mp4", "--json").err)["error"]
    assert error["exit_code"] == 2
    assert error["hint"]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run_stub(*words: str | Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "stub_command.py"), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
        start_new_session=True,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_keeps_what_is_done(clip: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    table, video = tmp_path / "a.json", tmp_path / "a.mp4"
    words = ("track", clip, "--box", "10,10,20,20", "-o", table, "-o", video)
    with run_stub(*words, STUB_DELAY="0.3") as process:
        # The writer makes its temporary file with the first frame: from then on there is something to keep.
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".a.*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
        if number is not signal.SIGTERM:
            os.killpg(process.pid, number)  # a terminal sends Ctrl-C and its end to the decoder's process too
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out == ""
    kept = len(Track.load(table))
    assert 0 < kept < FRAMES
    assert f"interrupted after {counted(kept, 'frame')};" in err
    with open_source(video) as source:
        assert sum(1 for _ in source) == kept
    assert names_in(tmp_path) == ["a.json", "a.mp4", "a.part.csv", "a.part.state"]
    with run_stub(*words, "--resume") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert f": {kept} frame" in err
    assert Track.load(table).boxes[:, 0].tolist() == [10.0 + i for i in range(FRAMES)]
    with open_source(video) as source:
        assert sum(1 for _ in source) == FRAMES
    assert names_in(tmp_path) == ["a.json", "a.mp4"]


# -- runs that were killed ------------------------------------------------------------------------

WORDS = ("--target", "a:10,10,20,20", "--target", "#=b: 50 50 20 20")


def killed(clip: Path, folder: Path, *words: str | Path) -> int:
    """Kill the command after some rows, and an image where it draws; returns how many lines are there."""
    part, draws = folder / "a.part.csv", folder / "a.mp4" in words

    def begun() -> bool:
        drawn = not draws or any(folder.glob(".a.*.part.mp4"))
        return drawn and part.exists() and part.read_bytes().count(b"\n") > 16

    with run_stub("track", clip, *words, STUB_DELAY="0.1") as process:
        while process.poll() is None and not begun():
            time.sleep(0.02)
        process.kill()
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    return part.read_bytes().count(b"\n")


@pytest.mark.fault("V27")
def test_a_kill_leaves_the_rows_so_far_and_resume_goes_on(command, stub, clip: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    command("track", clip, *WORDS, "-o", whole / "a.csv", "-o", whole / "a.json").ends(0)
    flags = ("-o", tmp_path / "a.csv", "-o", tmp_path / "a.json", "-o", tmp_path / "a.mp4")
    lines = killed(clip, tmp_path, *WORDS, *flags)
    part = tmp_path / "a.part.csv"
    assert part.read_bytes().splitlines() == (whole / "a.csv").read_bytes().splitlines()[:lines]
    assert len(list(tmp_path.glob(".a.*.part.mp4"))) == 1
    with part.open("ab") as file:
        file.write(b"a,7,0.2")  # a row that was cut
    (tmp_path / ".a.b.abcdefgh.part.mp4").write_bytes(b"of another output")
    command("track", clip, *WORDS, *flags).ends(2, "--resume", "--overwrite", "a.part.csv")
    command("track", clip, *WORDS, *flags, "--resume").ends(0, "resumed after frame")
    for name in ("a.csv", "a.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    with open_source(tmp_path / "a.mp4") as source:
        assert [frame.index for frame in source] == list(range(FRAMES))
    assert names_in(tmp_path) == [".a.b.abcdefgh.part.mp4", "a.csv", "a.json", "a.mp4", "whole"]


@pytest.mark.fault("V27")
def test_resume_asks_for_the_same_command(command, stub, clip: Path, tmp_path: Path) -> None:
    flags = ("--box", "1,2,30,40", "-o", tmp_path / "a.csv", "--resume")
    killed(clip, tmp_path, *flags)
    kept = (tmp_path / "a.part.csv").read_bytes()
    command("track", clip, "--box", "2,2,30,40", *flags[2:]).ends(9, "another box (--box): (1.0, 2.0, 30.0, 40.0), not")
    command("track", clip, *flags, "--stride", "2").ends(9, "another stride (--stride): 1, not 2", "--overwrite")
    command("track", clip, *flags, "--end", "30").ends(9, "another end (--end): none, not 30")
    stub.settings = {"weights": "others"}
    command("track", clip, *flags).ends(9, "another weights")
    del stub.settings
    other = tmp_path / clip.name
    other.write_bytes(clip.read_bytes())
    command("track", other, *flags).ends(9, "another source")
    assert (tmp_path / "a.part.csv").read_bytes() == kept, "a refusal changes nothing"
    state = tmp_path / "a.part.state"
    good = state.read_bytes()
    for bad in (b"", good[:-9], b"x" * 100):
        state.write_bytes(bad)
        command("track", clip, *flags).ends(9, "a.part.csv", "--overwrite")
    state.write_bytes(good)
    command("track", clip, *flags).ends(0)
    command("track", clip, *flags[:-1]).ends(2, "a.csv exists")
    assert names_in(tmp_path) == ["a.csv", clip.name]


@pytest.mark.fault("V27")
@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize("targets", [("--box", "1,2,30,40"), ("--target", "a, 1:1,2,30,40", "--target", "=b:the dog")])
def test_resume_of_a_finished_run_does_nothing(
    command, stub, clip: Path, tmp_path: Path, suffix: str, targets: tuple[str, ...]
) -> None:
    table = tmp_path / f"a{suffix}"
    words = ("track", clip, *targets, "-o", table, "-o", tmp_path / "a.png", "--end", "5", "--resume")
    command(*words).ends(0, "nothing to resume")
    before = table.read_bytes()
    stub.boxes.clear()
    done = command(*words, "--json").ends(0, "already finished")
    assert done.json["frames"] == 5
    assert "wrote" not in done.err
    assert not stub.boxes, "no frame was tracked"
    assert table.read_bytes() == before
    given = {"targets": inputs.read_targets(None, None, targets[1::2], warn=print)} if len(targets) > 2 else {}
    found = vltrack.track(str(clip), **given or {"box": (1, 2, 30, 40)}, outputs=table, end=5, resume=True)
    rows = list(found.values()) if given else [found]
    assert [row.boxes[-1].tolist() for row in rows] == [[5.0, 2.0, 30.0, 40.0], [14.0, 10.0, 20.0, 20.0]][: len(rows)]
    for more in (("--end", "6"), ("--stride", "2"), ("--model", "other"), ("--precision", "bf16")):
        command(*words, *more).ends(2, "exists already")
    command(*words, "--fail-if-lost", "--precision", "fp32").ends(0)
    os.utime(table, (1, 1))
    command(*words).ends(2, "exists already")
    (tmp_path / "a.png").unlink()
    command(*words).ends(2, "exists already")


@pytest.mark.fault("V27")
def test_overwrite_starts_over_and_resume_starts_where_nothing_is_left(
    command, stub, clip: Path, tmp_path: Path
) -> None:
    flags = ("--box", "1,2,30,40", "-o", tmp_path / "a.csv")
    killed(clip, tmp_path, *flags)
    command("track", clip, "--box", "2,2,30,40", "--end", "3", *flags[2:], "--overwrite").ends(0)
    assert Track.load(tmp_path / "a.csv").boxes[:, 0].tolist() == [2.0, 3.0, 4.0]
    assert names_in(tmp_path) == ["a.csv"]
    (tmp_path / "a.csv").unlink()
    command("track", clip, *flags, "--end", "3", "--resume").ends(0, "nothing to resume")
    assert names_in(tmp_path) == ["a.csv"]
    other = tmp_path / "b.part.csv"
    other.write_text("rows of somebody\n")
    for more, code in (((), 2), (("--resume",), 9), (("--overwrite",), 0)):
        command("track", clip, "--box", "1,2,30,40", "--end", "2", "-o", tmp_path / "b.csv", *more).ends(code)
        assert other.exists() == (code != 0)
    for words in ((clip, "--box", "1,2,30,40"), ("-", *flags), ("0", *flags)):
        command("track", *words, "--resume").ends(2, "--resume")


@pytest.mark.fault("V27")
def test_a_second_run_into_one_output_is_refused(command, stub, clip: Path, tmp_path: Path) -> None:
    flags = ("--box", "1,2,30,40", "-o", tmp_path / "a.csv")
    with run_stub("track", clip, *flags, STUB_DELAY="0.3") as process:
        while not (tmp_path / "a.part.state").exists() and process.poll() is None:
            time.sleep(0.02)
        for more in ((), ("--resume",), ("--overwrite",)):
            command("track", clip, *flags, *more).ends(9, "Another run is writing")
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 143


def test_rows_come_at_once_and_a_closed_pipe_ends_the_run(clip: Path) -> None:
    with run_stub("track", clip, "--box", "10,10,20,20", STUB_DELAY="0.2") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("frame,seconds,")
        assert process.stdout.readline().startswith("0,0.0,10.0,")
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert "Traceback" not in process.stderr.read()


def test_a_bug_of_ours_leaves_a_report_and_the_rows(clip: Path, tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    words = ("track", clip, "--box", "10,10,20,20", "-o", table)
    with run_stub(*words, STUB_BUG="1", VLTRACK_CACHE=str(tmp_path)) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    report = next(tmp_path.glob("crashes/vltrack-crash-*.txt"))
    assert "ZeroDivisionError" in report.read_text()
    assert str(report) in err
    assert "Traceback" not in err
    assert len(Track.load(table)) == 1
