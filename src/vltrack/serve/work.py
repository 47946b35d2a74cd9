"""What a worker process of the studio does: find, track, correct and draw, one job at a time.

Jobs and messages are JSON lines over a pipe. A thread reads the pipe: it interrupts the job that is canceled, and ends
the process when the server has ended.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vltrack.api.reporter import Reporter
from vltrack.core.errors import NothingFits, PartialResult, VltrackError
from vltrack.core.track import Track
from vltrack.core.types import Step, Target
from vltrack.video.reader import FrameReader

_EVERY = 0.05
"""Seconds between two messages with rows."""
Job = Mapping[str, Any]


def serve(pipe: Connection) -> None:
    """Do the jobs that come, until the pipe is closed. The target of ``multiprocessing.Process``."""
    os.setsid()  # Ctrl-C in the terminal of the server is the server's
    from vltrack.api.track import LOADED
    from vltrack.core.threads import wait_passively

    wait_passively()
    LOADED.set({})  # a correction needs the tracker that has just tracked
    worker = _Worker(pipe)
    threading.Thread(target=worker.read, daemon=True).start()
    while True:
        with suppress(KeyboardInterrupt):  # one that came too late for its job
            worker.do(worker.jobs.get())


class _Worker:
    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._sending, self._current = threading.Lock(), ""

    def read(self) -> None:
        """Take jobs and cancellations from the pipe."""
        while True:
            try:
                message = json.loads(self.pipe.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)
            if "cancel" not in message:
                self.jobs.put(message)
            elif message["cancel"] == self._current:
                os.kill(os.getpid(), signal.SIGINT)

    def send(self, kind: str, **facts: Any) -> None:
        """Send one message."""
        with self._sending:
            self.pipe.send_bytes(json.dumps({"kind": kind, **facts}, allow_nan=False).encode())

    def do(self, job: Job) -> None:
        """Run one job; whatever it raises is its last message."""
        self._current = job["id"]
        try:
            last: dict[str, Any] = {"kind": "done", "result": _KINDS[job["kind"]](job, self.send)}
        except KeyboardInterrupt as stop:
            last = {"kind": "canceled", "result": _kept(job, getattr(stop, "result", None))}
        except VltrackError as error:
            last = {"kind": "failed", **error_record(error), "result": _kept(job, error.result)}
        except MemoryError:
            last = {"kind": "failed", "code": "ResourceError", "message": "Memory ran out.", "hint": "Track fewer targets."}
        except Exception as error:  # noqa: BLE001 - a bug costs its job, not the worker
            last = {"kind": "failed", "code": "VltrackError", "message": f"Internal error: {error!r:.300}.", "hint": ""}
        self._current = ""
        self.send(**last)


def error_record(error: VltrackError) -> dict[str, str]:
    """Return what the page gets of an error."""
    return {"code": error.code, "message": error.message, "hint": error.hint}


class _Rows(Reporter):
    """Passes on rows and warnings, a few times a second."""

    def __init__(self, send: Callable[..., None]) -> None:
        self._send, self._rows, self._sent = send, [], 0.0  # type: ignore[var-annotated]

    def warn(self, message: str) -> None:
        """Pass on a warning."""
        self._send("warn", text=message)

    def steps(self, steps: Mapping[str, Step]) -> None:
        """Pass on the rows of a frame."""
        first = next(iter(steps.values()))
        self._rows.append([first.index, {name: step_record(step) for name, step in steps.items()}])
        if time.monotonic() - self._sent >= _EVERY:
            self.flush()

    def flush(self) -> None:
        """Pass on what waits."""
        if self._rows:
            self._send("rows", rows=self._rows)
        self._rows, self._sent = [], time.monotonic()


def step_record(step: Step) -> list[Any]:
    """Return x, y, w, h, score, whether it is visible, and the status."""
    box = [round(float(side), 2) for side in step.box]
    return [*box, round(step.score, 4), int(step.visible), str(step.status)]


# -- jobs ---------------------------------------------------------------------------------------------


@cache
def _grounding() -> Any:
    from vltrack.tracking.grounding import Grounding

    return Grounding.load()


_reader: list[tuple[str, FrameReader]] = []


def _frame(path: str, index: int) -> Any:
    """One image of a video whose reader stays open until another is asked for."""
    if not _reader or _reader[0][0] != path:
        while _reader:
            _reader.pop()[1].close()
        _reader.append((path, FrameReader(path)))
    return _reader[0][1].read(index).image


def _find(job: Job, send: Callable[..., None]) -> dict[str, Any]:
    from vltrack.api.find import explain
    from vltrack.core.errors import ImageError

    image = _frame(job["path"], job["frame"])
    if image is None:
        raise ImageError(f"Frame {job['frame']} does not decode.", hint="Go to another one.")
    answer, words = explain(_grounding(), image, job["text"])
    return {
        "text": answer.text,
        "fits": answer.fits,
        "ambiguous": answer.ambiguous,
        "nothing": answer.nothing,
        "boxes": [
            {"box": one.box.tolist(), "score": one.score, "label": one.label, "words": list(one.words)}
            for one in answer.boxes
        ],
        "words": [asdict(each) for each in words],
        "warnings": list(answer.warnings),
    }


def _track(job: Job, send: Callable[..., None]) -> dict[str, Any]:
    import vltrack

    targets = {name: Target(box=one.get("box"), text=one.get("text")) for name, one in job["targets"].items()}
    folder = Path(job["folder"])
    folder.mkdir(exist_ok=True)
    rows = _Rows(send)
    try:
        tracks = vltrack.track(
            job["path"], targets=targets, start=job["start"], model=job["model"], outputs=folder / "rows.json", resume=True,
            wait=any(target.box is None for target in targets.values()), reporter=rows,
            progress=lambda done, total: send("progress", done=done, total=total),
        )  # fmt: skip
    except (PartialResult, NothingFits) as error:
        if not error.result:
            raise
        send("warn", text=str(error))
        tracks = error.result
    finally:
        rows.flush()
    return _saved(job, tracks)


def _saved(job: Job, tracks: Mapping[str, Track]) -> dict[str, Any]:
    """Write each target's track to its file; return how many rows it has."""
    for name, track in tracks.items():
        meta = {**track.meta, "source": job["name"]}
        replace(track, meta=meta).save(Path(job["files"][name]), overwrite=True)
    return {name: len(track) for name, track in tracks.items()}


def _kept(job: Job, tracks: Any) -> dict[str, Any] | None:
    """Keep the rows of a job that was broken off."""
    if job["kind"] != "track" or not isinstance(tracks, dict) or not all(len(track) for track in tracks.values()):
        return None
    return _saved(job, tracks)


_KINDS: dict[str, Callable[[Job, Callable[..., None]], dict[str, Any]]] = {"find": _find, "track": _track}
