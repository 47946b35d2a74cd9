"""The command's messages and progress: a bar on a terminal, lines elsewhere, nothing where it is quiet."""

from __future__ import annotations

import io
import sys

import pytest

from vltrack.api.evaluate import _show
from vltrack.cli import console
from vltrack.cli.console import Console
from vltrack.evaluation.run import ProgressEvent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal_on(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Put a terminal where standard error is (in the test itself: capturing replaces it between phases)."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return screen


def event(kind: str, done: int, **more) -> ProgressEvent:
    values = {
        "mode": "nl",
        "name": f"car-{done}",
        "sequences_done": done,
        "sequences_total": 4,
        "frames_done": 10 * done,
        "frames_total": 40,
        "frames_per_second": 12.34,
        "seconds_left": 3725.0,
        "failures": 0,
    }
    return ProgressEvent(kind=kind, **{**values, **more})


def play(reporter: Console, *events: ProgressEvent) -> None:
    with reporter.bar("evaluating", None) as bar:
        for one in events:
            _show(one, "mine", 1, bar, reporter)


def test_lines_come_now_and_then_and_for_the_last(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    play(Console(), *(event("finished", done) for done in (1, 2, 3, 4)))
    assert capsys.readouterr().err == "mine: 4/4 sequences, 12.3 frames/s, 1:02:05 left\n"
    monkeypatch.setattr(console, "EVERY", 0.0)
    play(Console(), event("frames", 1), *(event("finished", done) for done in (1, 2)))
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_failures_and_earlier_results_are_reported_at_once(capsys) -> None:
    failed = event("failed", 3, message="bad\x1b[31m frame", failures=1)
    play(Console(), event("looked", 0), event("looked", 2), failed)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "mine: 2 of 4 sequences have results already"
    assert lines[1] == "vltrack: warning: car-3 (nl) failed: bad\\x1b[31m frame"
    assert len(lines) == 2


def test_quiet_has_warnings_only(capsys) -> None:
    play(Console(quiet=True), event("looked", 2), event("failed", 3, message="bad"), event("finished", 4))
    assert capsys.readouterr().err == "vltrack: warning: car-3 (nl) failed: bad\n"


@pytest.mark.fault("P07")
def test_a_bar_on_a_terminal_with_names_that_look_like_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_on(monkeypatch)
    play(
        Console(),
        event("frames", 2, name="[red]car", failures=1),
        event("frames", 2, name="\x1b[2J", failures=1),
        event("waiting", 2, name=""),
    )
    seen = terminal.getvalue()
    for part in ("20/40", "mine: 2/4 sequences", "12.3 frames/s", "1:02:05 left", "waiting for another"):
        assert part in seen
    assert "\x1b[2J" not in seen


def test_color_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_on(monkeypatch)
    console.warn("two\nlines")
    assert "\x1b[" in terminal.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.truncate(0)
    terminal.seek(0)
    console.warn("two\nlines")
    assert terminal.getvalue() == "vltrack: warning: two\\x0alines\n"
