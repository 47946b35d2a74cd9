"""Rows of the fault table at the command: exit code, one clear line, nothing written, nothing overwritten."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vltrack.core.track import Track
from vltrack.video.source import open_source

BOX = ("--box", "10,20,30,40")


def refused(done, code: int, name: str, *, says: str = "") -> None:
    """The line on standard error has the code's name; no data; the exit code is right."""
    assert done.code == code, done.err
    assert done.out == ""
    lines = [line for line in done.err.splitlines() if "error[" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"vltrack: error[{name}]: ")
    assert says in lines[0]


@pytest.mark.fault("V01")
def test_missing_input(command, stub, tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    refused(command("track", tmp_path / "no.mp4", *BOX, "-o", table), 3, "VideoNotFound", says="no.mp4")
    (tmp_path / "empty").mkdir()
    refused(command("track", tmp_path / "empty", *BOX, "-o", table), 3, "VideoNotFound")
    assert not table.exists()


@pytest.mark.fault("V04")
def test_addresses_are_refused_and_a_colon_in_a_name_is_no_address(
    command, stub, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http://host/a.mp4", "concat:a.mp4|b.mp4", "subfile,,start,0,end,9,,:a.mp4", "data:,x"):
        refused(command("track", name, *BOX), 3, "VideoForbiddenFormat")
    refused(command("track", "rtsp://host/stream", *BOX), 3, "VideoForbiddenFormat", says="--allow-network")
    monkeypatch.chdir(tmp_path)
    shutil.copy(clip, tmp_path / "http:a.mp4")
    assert command("track", "http:a.mp4", *BOX, "--end", "1").code == 0


@pytest.mark.fault("V21")
@pytest.mark.parametrize("name", ["ünïcødé 🐕.mp4", "two\nlines.mp4", "-dash.mp4", "x" * 251 + ".mp4", b"\xff\xfe.mp4"])
def test_odd_file_names(
    command, stub, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    text = os.fsdecode(name)
    shutil.copy(clip, text)
    out = f"{text[:100]}.csv"
    done = command("track", *BOX, "--end", "2", "-o", out, "--", text).ends(0)
    assert len(Track.load(tmp_path / out)) == 2
    assert len(done.err.splitlines()) == 2, "a name with a line break is shown on one line"
    done.err.encode("utf-8")


@pytest.mark.fault("V23")
def test_outputs_are_checked_before_the_work(command, stub, clip: Path, tmp_path: Path) -> None:
    def refuses(path: Path | str, code: int, name: str, source: Path = clip) -> None:
        refused(command("track", source, *BOX, "-o", path), code, name)

    copy = Path(shutil.copy(clip, tmp_path / "in.mp4"))
    before = copy.read_bytes()
    link = tmp_path / "link.mp4"
    os.link(copy, link)
    refuses(copy, 2, "UsageError", copy)
    refuses(link, 2, "UsageError", copy)
    refuses(tmp_path / "no" / "a.csv", 6, "ResourceError")
    refuses(tmp_path / "a.txt", 2, "UsageError")
    (tmp_path / "folder.csv").mkdir()
    refuses(tmp_path / "folder.csv", 6, "ResourceError")
    (tmp_path / "null.csv").symlink_to(os.devnull)
    refuses(tmp_path / "null.csv", 6, "ResourceError")
    refused(command("track", clip, *BOX, "-o", tmp_path / "null.csv", "--overwrite"), 6, "ResourceError")
    assert Path(os.devnull).is_char_device()
    assert copy.read_bytes() == before
    assert stub.boxes == {}, "no frame was tracked"


@pytest.mark.fault("V23")
def test_nothing_is_overwritten_without_leave(command, stub, clip: Path, tmp_path: Path) -> None:
    for name in ("a.csv", "a.json", "a.mp4", "a.png"):
        file = tmp_path / name
        file.write_text("precious")
        done = command("track", clip, *BOX, "--end", "2", "-o", file)
        refused(done, 2, "UsageError", says="--overwrite")
        assert file.read_text() == "precious"
        assert command("track", clip, *BOX, "--end", "2", "-o", file, "--overwrite").code == 0
        assert file.read_bytes()[:8] != b"precious"
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.fault("V23")
def test_an_output_that_is_a_link_is_written_where_it_points(command, stub, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    files = [tmp_path / name for name in ("a.csv", "a.mp4", "a.png")]
    for file in files:
        file.symlink_to(Path("disk") / file.name)
    (tmp_path / "disk" / "a.csv").write_text("before")
    words = ("track", clip, *BOX, "--end", "2", *(word for file in files for word in ("-o", file)))
    refused(command(*words), 2, "UsageError", says="--overwrite")
    command(*words, "--overwrite").ends(0)
    assert all(file.is_symlink() for file in files)
    assert sorted(file.name for file in (tmp_path / "disk").iterdir()) == ["a.csv", "a.mp4", "a.png"]
    assert len(Track.load(tmp_path / "disk" / "a.csv")) == 2
    (tmp_path / "b.csv").symlink_to("a.csv")
    refused(command(*words, "-o", tmp_path / "b.csv", "--overwrite"), 2, "UsageError", says="twice")


@pytest.mark.fault("V23")
@pytest.mark.skipif(os.name != "posix" or not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_the_video_and_not_the_boxes(
    command, stub, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vltrack.api import outputs
    from vltrack.core.errors import ResourceError
    from vltrack.video import writer

    def full(self, image, seconds=None):
        if self.frames == 0:
            return plain(self, image, seconds)
        raise ResourceError(f"cannot write {self.path}: the disk is full.")

    plain = writer.VideoWriter.write
    monkeypatch.setattr(writer.VideoWriter, "write", full)
    table, video = tmp_path / "a.csv", tmp_path / "a.mp4"
    command("track", clip, *BOX, "-o", tmp_path / "whole.csv").ends(0)
    whole = Track.load(tmp_path / "whole.csv")
    (tmp_path / "whole.csv").unlink()
    refused(command("track", clip, *BOX, "-o", video, "-o", table), 6, "ResourceError", says="disk is full")
    ahead = Track.load(table)  # of frames that waited to be drawn, too
    assert list(ahead) == list(whole)[: len(ahead)]
    monkeypatch.setattr(outputs, "DRAWN_LATER", 0)
    refused(command("track", clip, *BOX, "-o", video, "-o", table, "--overwrite"), 6, "ResourceError", says="is full")
    assert len(Track.load(table)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.part.csv", "a.part.state"]
    monkeypatch.undo()


@pytest.mark.fault("B01")
def test_a_target_of_four_numbers_is_a_box_and_one_number_a_text(command, stub, clip: Path, tmp_path: Path) -> None:
    table = tmp_path / "a.json"
    for value, box in (("111 98 25 101", [111, 98, 25, 101]), (" 1, 2, 3.5 ,4", [1, 2, 3.5, 4])):
        command("track", clip, "--target", f"woman 1: {value}", "--end", "1", "-o", table, "--overwrite").ends(0)
        assert (Track.load(table).meta["box"], Track.load(table).meta["sentence"]) == (box, None)
    for value in ("7", "12:30", "the 2 dogs", "e, e"):
        command("track", clip, "--target", f"1:{value}", "--end", "1", "-o", table, "--overwrite").ends(0)
        assert (Track.load(table).meta["box"], Track.load(table).meta["sentence"]) == (None, value)


@pytest.mark.fault("V23")
def test_a_full_disk_keeps_the_boxes_and_no_video(clip: Path, tmp_path: Path) -> None:
    """A real one of 300 KB: the video of 500 KB does not fit, the rows do; resumed where there is space."""
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(tmp_path)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("mounting a small tmpfs needs root")
    stub = Path(__file__).with_name("stub_command.py")
    words = [sys.executable, stub, "track", clip, *BOX, "-o", tmp_path / "a.csv", "-o", tmp_path / "a.mp4"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 6, done.stderr
        assert "disk is full" in done.stderr
        assert done.stderr.count("error[") == 1
        assert not list(tmp_path.glob("*.mp4"))
        assert not list(tmp_path.glob(".*"))
        kept = len(Track.load(tmp_path / "a.csv"))
        assert kept > 1
        subprocess.run(["mount", "-o", "remount,size=8m", str(tmp_path)], check=True)
        done = subprocess.run([*words, "--resume"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(Track.load(tmp_path / "a.csv")) == 40
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.mp4"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.fault("V23")
def test_a_video_gives_way_to_the_boxes(command, stub, clip: Path, tmp_path: Path, monkeypatch) -> None:
    from vltrack.api import outputs
    from vltrack.core.errors import ResourceError

    def full(tracks, path, frames):
        if list(tmp_path.glob(".a.*.part.mp4")):
            raise ResourceError("the disk is full.")
        plain(tracks, path, frames)

    plain = outputs.save_tracks
    monkeypatch.setattr(outputs, "save_tracks", full)
    flags = ("-o", tmp_path / "a.mp4", "-o", tmp_path / "a.csv")
    refused(command("track", clip, *BOX, "--end", "3", *flags), 6, "ResourceError", says="disk is full")
    assert len(Track.load(tmp_path / "a.csv")) == 3
    assert not list(tmp_path.glob("*.mp4"))
    monkeypatch.setattr(outputs, "save_tracks", plain)
    monkeypatch.setattr(stub, "update", None)  # all frames are done
    command("track", clip, *BOX, "--end", "3", *flags, "--resume").ends(0, "3 frames done")
    assert len(Track.load(tmp_path / "a.csv")) == 3
    with open_source(tmp_path / "a.mp4") as frames:
        assert len(list(frames)) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.mp4"]


@pytest.mark.fault("P01")
def test_sentences_without_a_word(command, stub, clip: Path) -> None:
    for text in ("", "  ", "?!,."):
        refused(command("track", clip, "--text", text), 3, "PromptEmpty")
        refused(command("track", clip, "--text", text, *BOX), 3, "PromptEmpty")
        done = command("track", clip, "--text", text, *BOX, "--allow-empty-text", "--end", "1")
        assert (done.code, "only the box is used" in done.err) == (0, True)


@pytest.mark.fault("P11")
def test_prompt_files(command, stub, clip: Path, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_bytes(b"\xef\xbb\xbfthe white car\r\nthe dog\r\nno")

    def sentence(*words: str) -> str:
        table = tmp_path / "a.json"
        flags = ("--end", "1", "-o", table, "--overwrite")
        assert command("track", clip, "--text-file", file, *words, *flags).code == 0
        return str(Track.load(table).meta["sentence"])

    assert sentence() == "the white car"
    assert sentence("--line", "2") == "the dog"
    assert sentence("--line", "3") == "no"
    refused(command("track", clip, "--text-file", file, "--line", "4"), 3, "PromptEmpty")
    refused(command("track", clip, "--text-file", tmp_path / "none.txt"), 3, "InputError")


@pytest.mark.fault("B11")
def test_start_frame(command, stub, clip: Path) -> None:
    done = command("track", clip, *BOX, "--start-frame", "38")
    assert done.out.splitlines()[1].startswith("38,")


DOG = ("--text", "the dog")
REFUSED = {
    ("P08", 2, "UsageError"): [
        ([], "--text"),
        (["--mode", "nl", *BOX], "--text"),
        (["--mode", "bbox", *DOG], "--box"),
        (["--mode", "nlbbox", *DOG], "--box"),
        (["--mode", "nlbbox", *BOX], "--text"),
        (["--mode", "bbox", *DOG, *BOX], "--text"),
        (["--mode", "nl", *DOG, *BOX], "--box"),
        ([*DOG, "--text-file", "x"], "--text-file"),
        ([*DOG, "--line", "2"], "--text-file"),
        ([*BOX, "--wait"], "--wait"),
        ([*BOX, *DOG, "--wait"], "--wait"),
        ([*BOX, "--threads", "0"], "--threads"),
        ([*BOX, "--threads", "100000"], "1024"),
    ],
    ("B01", 3, "BoxInvalid"): [
        (["--box", box], box)
        for box in ("1,2,3", "1,2,3,4,5", "1,5;2,5;3;4", "1,2,3,4px", "nan,1,2,3", "1,2,inf,4", "1e400,1,2,3", "", "a")
    ]
    + [(["--target", f"woman 1: {box}"], box) for box in ("1 2 3", "1,2,3,4,5", "[1 2 3]")],
    ("B11", 3, "BoxFrameOutOfRange"): [([*BOX, "--start", "40"], "40")],
    ("B11", 2, "UsageError"): [([*BOX, "--start", "9", "--end", "9"], "9")],
    ("B12", 2, "UsageError"): [
        ([*BOX, *BOX], "--target"),
        ([*BOX, "--target", "1:the dog"], "--target"),
        (["--target", "1:a dog", "--target", "1:a cat"], "two"),
        (["--target", "the dog"], "name"),
        ([*DOG, *DOG], "--text was given 2 times"),
    ],
    ("C17", 2, "UsageError"): [
        ([*BOX, "--set", "policy.windo=0.4"], "window"),
        ([*BOX, "--set", "policy.window=7"], "window"),
        ([*BOX, "--set", "window=0.4"], "policy."),
    ],
}
"""Row of the fault table, exit code and error -> flags, and what the message holds."""


@pytest.mark.parametrize(
    ("words", "code", "name", "says"),
    [
        pytest.param(words, code, name, says, marks=pytest.mark.fault(row))
        for (row, code, name), cases in REFUSED.items()
        for words, says in cases
    ],
)
def test_flags_that_are_refused(command, stub, clip: Path, words: list[str], code: int, name: str, says: str) -> None:
    refused(command("track", clip, *words), code, name, says=says)


def test_a_sentence_without_quotes_is_hinted_at(command, stub, clip: Path) -> None:
    for verb in ("track", "find"):
        command(verb, clip, "--text", "the", "white", "car").ends(2, "quotes")
    command("track", clip, clip, *BOX).ends(2, "vltrack track --help")
