"""The command's start: fast, light, and helpful where a name is mistyped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vltrack

HEAVY = ("torch", "cv2", "av", "matplotlib", "numpy", "transformers", "rich")


def imported(*words: str, env: dict[str, str] | None = None) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    """Top-level packages that a command line loads, from ``-X importtime``."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "vltrack", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        check=False,
    )
    names = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {name.split(".")[0] for name in names}, done


@pytest.mark.parametrize("words", [["--help"], ["track", "--help"], ["--version"], ["models"]])
def test_light_commands_load_nothing_heavy(words: list[str]) -> None:
    names, done = imported(*words)
    assert done.returncode == 0
    assert done.stdout
    assert "typer" in names, "importtime was not read"
    assert names.isdisjoint(HEAVY), names & set(HEAVY)


@pytest.mark.parametrize(
    "words",
    [
        ["track", "clip.mp4"],
        ["track", "clip.mp4", "--box", "1,2,3"],
        ["track", "clip.mp4", "--text", "..."],
        ["track", "not-there.mp4", "--text", "the dog"],
        ["track", "http://host/clip.mp4", "--text", "the dog"],
        ["track", "clip.mp4", "--text", "the dog", "--model", "litetrak-tiny"],
        ["track", "clip.mp4", "--text", "the dog", "-o", "no-such-folder/x.csv"],
        ["train", "litetrack", "--data", "not-there", "--out", "x"],
    ],
)
def test_wrong_command_lines_are_told_before_torch_is_loaded(words: list[str]) -> None:
    names, done = imported(*words)
    assert done.returncode in (2, 3, 4, 5, 6)
    assert "vltrack: error[" in done.stderr
    assert "torch" not in names


def test_import_of_the_package_is_light_and_lazy() -> None:
    code = "import vltrack, sys; print(sorted({m.split('.')[0] for m in sys.modules} & {%s}))"
    words = ", ".join(repr(name) for name in HEAVY)
    done = subprocess.run([sys.executable, "-c", code % words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version(command) -> None:
    done = command("--version")
    assert (done.code, done.out, done.err) == (0, f"vltrack {vltrack.__version__}\n", "")


def test_no_verb_shows_help(command) -> None:
    done = command().ends(0)
    for verb in ("track", "demo", "train", "models", "doctor", "data"):
        assert f"\n  {verb} " in done.out


@pytest.mark.parametrize(
    ("words", "code", "nearest"),
    [
        (["trakc", "x"], 2, "track"),
        (["track", "x", "--text", "dog", "--boxx", "1"], 2, "--box"),
        (["track", "x", "--text", "dog", "--model", "litetrak-tiny"], 5, "litetrack-tiny"),
        (["train", "litetrak", "--data", ".", "--out", "x"], 2, "litetrack"),
        (["track", "x", "--text", "dog", "--device", "cude"], 2, "cuda"),
        (["track", "x", "--text", "dog", "--box-format", "xyhw"], 2, "xywh"),
    ],
)
def test_mistyped_names_get_the_nearest_one(command, words: list[str], code: int, nearest: str) -> None:
    done = command(*words).ends(code, nearest)
    assert done.out == ""


def test_unknown_setting_gets_the_nearest_one(command, clip: Path) -> None:
    command("track", clip, "--text", "dog", "--set", "polcy.window=1").ends(2, "policy.key=value")
