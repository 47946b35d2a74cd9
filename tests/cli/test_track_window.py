"""``vltrack track --show``: frames in a window, in a virtual display where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stub_command import StubFollower

from conftest import Command
from vltrack.cli import window as job
from vltrack.core.errors import ResourceError
from vltrack.core.track import Track
from vltrack.core.types import Frame, Step

WORDS = ("--box", "313,88,342,194", "--show", "-o")


SCRIPT = """
import sys
import numpy as np
from vltrack.cli import window
from vltrack.core.types import Frame, Status, Step

window._EVERY = 0.0
opened = window.Window("a clip", [], ["the car"])
root, photo = opened._root, opened._photo
image = np.full((960, 1280, 3), (200, 30, 20), np.uint8)
step = Step(box=np.array([10.0, 10, 80, 60]), score=1.0, visible=True, status=Status.OK, index=0, seconds=0.0)
shown = Frame(image=image, index=0, seconds=0.0), {"1": step}
for _ in range(2):
    opened.show(*shown)
assert (photo.width(), photo.height()) == (576, 432)  # nine tenths of the screen
assert photo.get(300, 300) == (200, 30, 20)
assert photo.get(20, 4) != (200, 30, 20)  # the box
root.focus_force()
root.update()
root.event_generate(sys.argv[1])
try:
    opened.show(*shown)
except KeyboardInterrupt:
    opened.close()
    print("ended")
"""


@pytest.fixture(scope="module")
def display() -> Iterator[dict[str, str]]:
    """The environment of a process that has a display of its own: Xlib ends a process whose display goes away."""
    pytest.importorskip("tkinter", reason="this Python has no tkinter")
    if shutil.which("Xvfb") is None:
        pytest.skip("no Xvfb is installed")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "640x480x24"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as line:
        number = line.readline().strip()
    yield {**os.environ, "DISPLAY": f":{number}"}
    server.terminate()
    server.wait(20)


@pytest.mark.parametrize("key", ["q", "<Escape>"])
def test_frames_are_painted_within_the_screen_and_keys_end_it(display: dict[str, str], key: str) -> None:
    command = [sys.executable, "-c", SCRIPT, key]
    done = subprocess.run(command, env=display, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr


def test_the_command_tracks_with_a_window(display: dict[str, str], clip: Path, tmp_path: Path) -> None:
    words = ["track", str(clip), *WORDS, str(tmp_path / "a.csv"), "--end", "4"]
    command = [sys.executable, "-m", "vltrack", *words]
    done = subprocess.run(command, env=display, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert len(Track.load(tmp_path / "a.csv")) == 4


def test_q_ends_the_run_and_keeps_what_was_done(
    command: Command, stub: StubFollower, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed:
        def __init__(self, *_: object) -> None:
            self.shown, self.open = 0, True
            windows.append(self)

        def show(self, frame: Frame, steps: dict[str, Step]) -> None:
            assert frame.image is not None and frame.index == steps["1"].index
            self.shown += 1
            if self.shown == 5:
                raise KeyboardInterrupt

        def close(self) -> None:
            self.open = False

    windows: list[Closed] = []
    monkeypatch.setattr(job, "Window", Closed)
    command("track", clip, *WORDS, tmp_path / "a.csv").ends(130, "after 5 frames")
    assert len(Track.load(tmp_path / "a.csv")) == 5
    assert not windows[0].open


def test_without_a_window_it_is_said_before_the_run(
    command: Command, stub: StubFollower, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.csv"
    command("track", clip, *WORDS, out, "--backward").ends(2, "--show is for one video")
    command("track", clip, *WORDS, tmp_path / "{name}.csv").ends(2, "--show is for one video")
    monkeypatch.setitem(sys.modules, "tkinter", None)
    command("track", clip, *WORDS, out).ends(6, "needs tkinter", "Leave --show out")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have a display without DISPLAY")
def test_without_a_display_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tkinter", reason="this Python has no tkinter")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(ResourceError, match="No window can be opened: no display name") as caught:
        job.Window("a clip", [], [""])
    assert caught.value.exit_code == 6
