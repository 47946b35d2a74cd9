"""Child processes of the benchmarks: one JSON line per request and answer; virtual environments for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent


class Worker:
    """A child process: one JSON line per request and answer. Its first line holds its versions."""

    def __init__(self, command: list[str], threads: int) -> None:
        quiet = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive", "OPENCV_LOG_LEVEL": "ERROR"}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | quiet
        )
        if process.stdin is None or process.stdout is None:
            raise SystemExit("The child process has no pipes.")
        self._process, self._in, self._out = process, process.stdin, process.stdout
        hello = self._read()
        self.versions: dict[str, str] = hello["versions"]
        self.trackers: list[str] = hello.get("trackers", [])

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request."""
        self._in.write(json.dumps(request) + "\n")
        self._in.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._out.readline()
        if not line:
            raise SystemExit(f"A child process ended with code {self._process.wait()}; see its message above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._in.close()
        self._process.wait(timeout=30)


def environment(name: str, *packages: str) -> Path:
    """The interpreter of a virtual environment under ``build/``, which is made at the first call."""
    folder = REPOSITORY / "build" / name
    python = folder / "bin" / "python"
    ready = folder / ".ready"
    if not ready.exists() or ready.read_text() != " ".join(packages):
        place = folder.relative_to(REPOSITORY)
        sys.stderr.write(f"setting up a virtual environment for the peers in {place} (once) ...\n")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
        ready.write_text(" ".join(packages))
    return python
