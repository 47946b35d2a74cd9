"""Faults S01 to S07: standard streams, pipes, limits, long names, signals and crash reports of the command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stub_runs import ended
from vltrack.api.inputs import demo_clip
from vltrack.core.track import Track

START = str(Path(__file__).parent.parent / "cli" / "stub_command.py")
"""Runs the command with a stub in place of the network."""
BOX = ("--box", "10,10,20,20", "--end", "8")
TRACK = ("track", str(demo_clip()[0]), *BOX)
VERBS = [("models",), ("track", "--help"), ("--version",), TRACK, (*TRACK, "--json")]


def run(*words: str | Path, after: str = "", **options) -> subprocess.CompletedProcess[bytes]:
    """Run the command by a shell; ``after`` follows it, such as a redirection."""
    line = f'ulimit -c 0; {options.pop("before", "")} exec "$0" "$@" {after}'
    return subprocess.run(
        ["bash", "-c", line, sys.executable, START, *map(str, words)],
        **{"capture_output": True, "check": False, "timeout": 100} | options,
    )


@pytest.mark.fault("S01")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(tmp_path: Path, closed: str) -> None:
    table, video = tmp_path / "a.csv", tmp_path / "a.mp4"
    done = run(*TRACK, "-o", table, "-o", video, after=closed)
    assert done.returncode == 0, done.stderr
    assert len(Track.load(table)) == 8
    assert video.read_bytes()[4:8] == b"ftyp"
    assert run("models", after=closed).returncode == 0


LIBRARY = """
import os, sys
for number in range(3): os.close(number)
import numpy, vltrack
with vltrack.open_source(sys.argv[1], end=3) as frames: seen = [frame.image.sum() for frame in frames]
open(sys.argv[2], "w").write(str(len(seen)))
"""


@pytest.mark.fault("S01")
def test_closed_standard_streams_of_a_program_that_reads_frames(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", LIBRARY, demo_clip()[0], tmp_path / "n"], check=True, timeout=100)
    assert (tmp_path / "n").read_text() == "3"


@pytest.mark.fault("S02")
@pytest.mark.parametrize("words", [("doctor",), ("datasets", "list"), *VERBS], ids=" ".join)
def test_a_reader_that_goes_away(words: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    both = words in (TRACK, ("--version",))
    given = {"stdout": writer, "stderr": writer if both else subprocess.PIPE, "capture_output": False}
    try:
        done = run(*words, **given)
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert b"Traceback" not in (done.stderr or b"")


@pytest.mark.fault("S03")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_standard_output_on_a_full_disk(words: tuple[str, ...]) -> None:
    done = run(*words, after="> /dev/full")
    assert (done.returncode, b"disk is full" in done.stderr) == (6, True)
    assert done.stderr.count(b"\n") <= 2
    assert b"Traceback" not in done.stderr
    assert run("models", after="2> /dev/full").returncode == 0


@pytest.mark.fault("S03")
def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """It also forbids the shared memory of frames; the video is removed, the boxes are kept."""
    table, video = tmp_path / "a.csv", tmp_path / "a.mp4"
    done = run(*TRACK, "-o", table, "-o", video, before="ulimit -f 8;")
    assert done.returncode == 6
    assert b"a.mp4: the file would exceed the size limit" in done.stderr
    assert 0 < len(Track.load(table)) <= 8
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith("mp4")]


@pytest.mark.fault("S04")
@pytest.mark.parametrize("letter", ["x", "\U0001f415"])
def test_names_as_long_as_the_system_has_them(tmp_path: Path, letter: str) -> None:
    outputs = []
    for suffix in (".csv", ".json", ".mp4", ".png"):
        outputs += ["-o", letter * ((255 - len(suffix)) // len(letter.encode())) + suffix]
    done = run(*TRACK, *outputs, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == set(outputs[1::2])
    too_long = letter * 256 + ".csv"
    for words in ((*TRACK, "-o", too_long), ("report", too_long), ("models", "-m", too_long)):
        done = run(*words, cwd=tmp_path)
        assert done.returncode in (2, 6), done.stderr
        assert b"Internal" not in done.stderr


SIGNALED = """
import os, sys
imported, number = sys.argv.pop(1), int(sys.argv.pop(1))
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == imported:
            os.kill(os.getpid(), number)
sys.meta_path.insert(0, Finder())
from vltrack.__main__ import run
run()
"""


@pytest.mark.fault("S05")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("imported", ["vltrack.cli.main", "typer", "numpy", "torch"])
def test_a_signal_during_the_imports(tmp_path: Path, imported: str, number: int, code: int) -> None:
    words = (*TRACK, "-o", tmp_path / "a.csv")
    command = [sys.executable, "-c", SIGNALED, imported, str(int(number)), *words]
    done = subprocess.run(command, capture_output=True, check=False, timeout=100)
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr.count(b"\n") <= 1
    assert b"Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.fault("S07")
def test_a_crash_report_is_private(tmp_path: Path) -> None:
    address = "rtsp://me:secret@host/stream"
    where = {**os.environ, "STUB_BUG": address, "VLTRACK_CACHE": str(tmp_path / "cache")}
    done = run(*TRACK, "--text", address, env=where)
    assert done.returncode == 1
    (report,) = (tmp_path / "cache" / "crashes").iterdir()
    assert str(report).encode() in done.stderr
    assert report.stat().st_mode & 0o777 == 0o600
    assert report.parent.stat().st_mode & 0o777 == 0o700
    text = report.read_text()
    assert re.search(r"in update\n", text)
    assert "rtsp://***@host/stream" in text
    assert "secret" not in text + done.stderr.decode()
    # Where the cache cannot be written, and where nothing can
    (tmp_path / "file").touch()
    where |= {"VLTRACK_CACHE": str(tmp_path / "file"), "TMPDIR": str(tmp_path)}
    done = run(*TRACK, env=where)
    (report,) = tmp_path.glob("vltrack-*/vltrack-crash-*.txt")
    assert (report.stat().st_mode & 0o777, str(report).encode() in done.stderr) == (0o600, True)
    done = run(*TRACK, env=where, before="ulimit -f 0;")
    assert done.returncode == 1
    assert b"ZeroDivisionError" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.fault("S06")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_decoder_ends_with_its_reader(tmp_path: Path) -> None:
    words = (sys.executable, START, *TRACK, "-o", tmp_path / "a.csv")
    with subprocess.Popen(words, env={**os.environ, "STUB_DELAY": "60"}) as process:
        while not (children := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()):
            time.sleep(0.05)
        time.sleep(0.5)
        process.kill()
    assert ended(int(children[0]))
