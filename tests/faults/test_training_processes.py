"""Faults of training with several processes: one error for all of them, and none that is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import training_ranks
from small_training import steps_of, tensors_of
from vltrack.core.errors import DataError, ModelNotFound, ResourceError, UsageError
from vltrack.training import loop
from vltrack.training.checkpoint import averaged
from vltrack.training.launch import main_train
from vltrack.training.processes import run_processes

TESTS = Path(__file__).parent.parent
PARENT = """
import json, signal, sys
from vltrack.training.processes import run_processes
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
try:
    run_processes("training_ranks", json.loads(sys.argv[1]), 2)
except KeyboardInterrupt:
    sys.exit(130)
"""
"""What the command does around a run of two processes."""


@pytest.fixture(autouse=True)
def _ranks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def descendants(process: int) -> list[int]:
    """Processes below this one."""
    children = Path(f"/proc/{process}/task/{process}/children")
    found = [int(child) for child in children.read_text().split()] if children.exists() else []
    return found + [below for child in found for below in descendants(child)]


def alive(process: int) -> bool:
    """Whether a process runs; one that ended and was not yet waited for does not."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    return False


@contextmanager
def started(options: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """A parent with two processes that have made their first checkpoint."""
    with subprocess.Popen([sys.executable, "-c", PARENT, json.dumps(options)], stderr=subprocess.PIPE) as process:
        try:
            while not steps_of(Path(options["out"])):
                assert process.poll() is None
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


@pytest.mark.fault("T11")
@pytest.mark.timeout(120)
def test_the_error_of_one_process_is_the_error_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Same class, sentence and hint; nothing else is printed. Until then two processes do what one does."""
    handler, before = signal.getsignal(signal.SIGTERM), set(descendants(os.getpid()))
    options = {"out": str(tmp_path / "two"), "bad": 27, "config": {"batch": 4, "steps": 9, "bf16": False}}
    with pytest.raises(DataError, match=r"Sample 27 is not finite: box\.") as failed:
        run_processes("training_ranks", options, 2)
    assert failed.value.hint == "Check the annotations."
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert signal.getsignal(signal.SIGTERM) is handler
    assert set(descendants(os.getpid())) <= before
    assert steps_of(tmp_path / "two") == [5, 6]
    assert not (tmp_path / "two" / ".lock").exists()
    with monkeypatch.context() as patch, pytest.raises(DataError):
        patch.setattr(pytest, "MonkeyPatch", lambda: patch)
        training_ranks.main(options | {"out": str(tmp_path / "one")})
    one, two = averaged(tmp_path / "one"), averaged(tmp_path / "two")
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


@pytest.mark.fault("T11")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_process_that_is_killed_ends_all_of_them(tmp_path: Path) -> None:
    before = set(descendants(os.getpid()))
    with pytest.raises(ResourceError, match=r"process 1 was killed by SIGKILL\. .*--resume"):
        run_processes("training_ranks", {"out": str(tmp_path / "run"), "dies": 2, "config": {}}, 2)
    assert set(descendants(os.getpid())) <= before
    assert steps_of(tmp_path / "run") == [1, 2]


@pytest.mark.fault("T11")
@pytest.mark.timeout(120)
def test_what_is_missing_is_told_before_a_process_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*given: object) -> None:
        raise ModelNotFound("Not installed.")

    monkeypatch.setattr(loop, "starting_model", missing)
    monkeypatch.setattr("vltrack.training.launch.find_sources", lambda given: ())
    options = {"model": "litetrack", "size": "tiny", "data": [tmp_path], "out": tmp_path / "run", "processes": 2}
    with pytest.raises(ModelNotFound):
        main_train({**options, "device": "cpu"})
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="--processes"):
        main_train(options)
    assert not (tmp_path / "run").exists()


@pytest.mark.fault("T04")
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_in_the_same_step_of_all_processes(number: int, code: int, tmp_path: Path) -> None:
    options = {"out": str(tmp_path / "run"), "pause": 0.2, "config": {"steps": 60, "save_every": 3}}
    with started(options) as process:
        time.sleep(0.3)
        process.send_signal(number)
        assert process.wait(timeout=60) == code
        assert process.stderr.read() == b""
    (step,) = steps_of(tmp_path / "run")[-1:]
    assert 3 <= step < 60
    assert not list((tmp_path / "run").glob(".*"))
    run_processes("training_ranks", options | {"resume": True, "pause": 0}, 2)
    run_processes("training_ranks", options | {"out": str(tmp_path / "whole"), "pause": 0}, 2)
    assert tensors_of(tmp_path / "run") == tensors_of(tmp_path / "whole")


@pytest.mark.fault("T02")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed process")
@pytest.mark.timeout(120)
def test_all_processes_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    """Two training processes and one that renders samples for each."""
    options = {"out": str(tmp_path / "run"), "workers": 1, "pause": 0.05, "config": {"steps": 5000}}
    with started(options) as process:
        below = descendants(process.pid)
        assert len(below) >= 4
        process.kill()
        process.wait()
    deadline = time.monotonic() + 5
    while any(alive(one) for one in below) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [one for one in below if alive(one)]
