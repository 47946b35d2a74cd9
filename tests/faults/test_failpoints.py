"""A writer that is stopped, or finds the disk full, at any operation leaves the old or the new, whole."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import failpoints
from failpoints import WRITERS, stopped

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks processes with threads")
LONG = ("results", "training")
"""Writers of some forty files: only every sixth operation in the quick form."""
CALLS = ("write", "pwrite64", "fsync", "rename", "unlink", "chmod", "mkdir", "ftruncate")


def prepared(name: str, tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    WRITERS[name].prepare(folder)
    return folder


@pytest.mark.fault("C18", "E03", "E16", "T03", "T09")
@pytest.mark.parametrize("how", ["kill", "full"])
@pytest.mark.parametrize(
    ("name", "stride"),
    [*((name, 6 if name in LONG else 1) for name in WRITERS)]
    + [pytest.param(name, 1, marks=pytest.mark.slow) for name in LONG],
)
def test_every_operation_of_every_writer(name: str, stride: int, how: str, tmp_path: Path) -> None:
    ends = []
    for k in itertools.count(1, stride):
        folder = prepared(name, tmp_path)
        ends.append(stopped(WRITERS[name].write, folder, how, k))
        WRITERS[name].check(folder)
        if ends[-1] == 0:
            break
        # Removing what is left over may fail on a full disk; a log of the training that cannot be written too.
        assert ends[-1] == -9 if how == "kill" else ends[-1] in (6, 7), k
    assert len(ends) > 3
    if how == "full":
        assert 6 in ends


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.fault("C18", "E03", "E16", "T03", "T09")
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("how", ["signal=KILL", "error=ENOSPC", "error=EIO"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_system_call_of_every_writer(name: str, how: str, tmp_path: Path) -> None:
    stops = 0
    for call in CALLS if "KILL" in how else ("write", "fsync", "mkdir", "rename"):
        for k in itertools.count(1):
            folder = prepared(name, tmp_path)
            log = tmp_path / "log"
            trace = ["strace", "-f", "-qq", "-o", log, "-e", f"trace={call}", "-e", f"inject={call}:{how}:when={k}"]
            command = [*trace, sys.executable, failpoints.__file__, name, folder]
            environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)
            WRITERS[name].check(folder)
            traced = log.read_text()
            if "INJECTED" not in traced and "SIGKILL" not in traced:
                assert done.returncode == 0, done.stderr
                break
            stops += 1
            # An error may not matter, such as that of a folder that is there already.
            assert "KILL" in how or done.returncode == 0 or "ResourceError" in done.stderr, done.stderr
    assert stops > 3
