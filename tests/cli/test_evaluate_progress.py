"""What a person sees of a run over a data set."""

from __future__ import annotations

import io
import sys

import pytest

from vltrack.api import progress as evaluate_progress
from vltrack.api.progress import RunProgress
from vltrack.evaluation.run import ProgressEvent


def event(kind: str, done: int = 1, **more: object) -> ProgressEvent:
    facts = {
        "mode": "nl",
        "name": f"car-{done}",
        "sequences_done": done,
        "sequences_total": 4,
        "frames_done": 25 * done,
        "frames_total": 100,
        "frames_per_second": 12.34,
        "seconds_left": 3725.0 if done < 4 else 0.0,
        "failures": 0,
    }
    return ProgressEvent(kind=kind, **(facts | more))


def test_lines_come_seldom_where_there_is_no_terminal(capsys, monkeypatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(evaluate_progress.time, "monotonic", lambda: clock[0])
    with RunProgress() as progress:
        for second in range(4):
            clock[0] = 100.0 + 3 * second
            progress(event("started", second))
            progress(event("frames", second))
            progress(event("finished", second + 1))
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "3/4 sequences, 12.3 frames/s, 1:02:05 left",
        "4/4 sequences, 12.3 frames/s, 0:00 left",
    ]


def test_failures_and_a_resumed_run_are_told_at_once(capsys) -> None:
    with RunProgress() as progress:
        progress(event("looked", 0))
        progress(event("looked", 2))
        progress(event("failed", 3, message="bad\x1b[31m frame", failures=1))
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "2 of 4 sequences have results already"
    assert told[1].startswith("vltrack: warning: car-3 (nl) failed: bad")
    assert "\x1b" not in told[1]
    assert len(told) == 2


def test_quiet_is_quiet(capsys) -> None:
    with RunProgress(quiet=True) as progress:
        progress(event("failed", 3, message="bad"))
        progress(event("finished", 4))
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    with RunProgress() as progress:
        progress(event("frames", 2, name="[red]car", failures=1))
        progress._bar.refresh()
        progress(event("waiting", 2, name=""))
        progress._bar.refresh()
    seen = terminal.getvalue()
    assert "2/4 sequences" in seen
    assert "12.3 frames/s" in seen
    assert "1:02:05 left" in seen
    assert "1 failed; [red]car (nl)" in seen
    assert "waiting for another evaluation" in seen
