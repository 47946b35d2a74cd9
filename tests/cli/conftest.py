"""Fixtures of the command's tests: run a command line in this process, with a stub where the network would
be.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from stub_command import StubFollower

from vltrack.api import inputs
from vltrack.api import track as job
from vltrack.cli import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def ends(self, code: int, *said: str) -> Result:
        """Check the exit code and that standard error holds each of ``said``."""
        assert self.code == code, self.err
        for text in said:
            assert text in self.err
        return self


Command = Callable[..., Result]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """``command("track", "clip.mp4", ...)`` -> exit code, standard output, standard error."""

    def run(*words: str | Path) -> Result:
        capsys.readouterr()
        code = main.main([str(word) for word in words])
        caught = capsys.readouterr()
        return Result(code, caught.out, caught.err)

    return run


@pytest.fixture
def clip() -> Path:
    return inputs.demo_clip()[0]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> StubFollower:
    """The network replaced by a stub, and the check for weights with it."""
    follower = StubFollower()
    monkeypatch.setattr(job, "_load", lambda *_, **__: follower)
    monkeypatch.setattr(inputs, "check_model", lambda name: name)
    return follower
