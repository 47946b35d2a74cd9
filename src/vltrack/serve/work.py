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
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vltrack.api.reporter import Interrupted, Reporter
from vltrack.core.errors import ImageError, NothingFits, PartialResult, VltrackError
from vltrack.core.track import Mark, Track
from vltrack.core.types import Frame, Status, Step, Target
from vltrack.tracking.marks import follow_marks
from vltrack.tracking.tracker import Tracker
from vltrack.video.reader import FrameReader
from vltrack.video.source import open_source

LATE = 2000
"""Frame from which on a start is sought, as reading up to it takes seconds."""
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
            last = {
                "kind": "failed",
                "code": "ResourceError",
                "message": "Memory ran out.",
                "hint": "Track fewer targets.",
            }
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
    """Return x, y, w, h, score, whether it is visible, the status, and the doubt where there is one."""
    box = [round(float(side), 2) for side in step.box]
    doubt = [round(step.extras["doubt"], 3)] if "doubt" in step.extras else []
    return [*box, round(step.score, 4), int(step.visible), str(step.status), *doubt]


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


def _warm(job: Job, send: Callable[..., None]) -> dict[str, Any]:
    """Load what the first sentence will need."""
    image = _frame(job["path"], 0)
    if image is not None:
        _grounding().find(image, ["it"])
    return {}


def _track(job: Job, send: Callable[..., None]) -> dict[str, Any]:
    import vltrack

    targets = {name: Target(box=one.get("box"), text=one.get("text")) for name, one in job["targets"].items()}
    folder = Path(job["folder"])
    folder.mkdir(exist_ok=True)
    rows = _Rows(send)
    options: dict[str, Any] = {
        "targets": targets, "model": job["model"], "outputs": folder / "rows.json", "doubt": True, "reporter": rows,
        "wait": any(target.box is None for target in targets.values()),
        "progress": lambda done, total: send("progress", done=done, total=total),
    }  # fmt: skip
    try:
        if job["start"] < LATE:
            tracks = vltrack.track(job["path"], start=job["start"], resume=True, **options)
        else:  # frames that are sought do not resume
            with FrameReader(job["path"]).frames_from(job["start"]) as frames:
                tracks = vltrack.track(frames, overwrite=True, **options)
    except (PartialResult, NothingFits) as error:
        if not error.result:
            raise
        send("warn", text=str(error))
        tracks = error.result
    finally:
        rows.flush()
    return _saved(job, _with_rows_before(job, tracks, send))


def _with_rows_before(job: Job, tracks: Mapping[str, Track], send: Callable[..., None]) -> dict[str, Track]:
    """Track each target also from where it is named back to the first frame.

    A sentence that waits has nothing before it: rows in which nothing is visible. Raises ``Interrupted`` with what is
    done when it is canceled.
    """
    start, done = job["start"], dict(tracks)
    for name, track in tracks.items():
        mark = track.marks[0] if len(track) else None
        if not start or mark is None:
            continue
        rows, count = _Rows(send), 0
        try:
            tracker = _tracker(track) if mark.box is not None else None
            with open_source(job["path"], end=start + 1) as frames:
                before: list[Step] = []
                if tracker is None:
                    first = replace(track[0], score=0.0, visible=False, status=Status.WAITING, extras={})
                    before = [replace(first, index=each.index, seconds=each.seconds) for each in frames]
                else:
                    options: dict[str, Any] = {"text": track.meta.get("sentence"), "backward": True}
                    for step in follow_marks(tracker, frames, [mark], **options):
                        before.append(step)
                        rows.steps({name: step})
                        send("progress", done=(count := count + 1), total=start)
        except KeyboardInterrupt as stop:
            raise Interrupted("Canceled.", done) from stop
        finally:
            rows.flush()
        both = [*before[:-1], *track]
        meta = {**track.meta, "backward": True, "marks": [mark.record()]}
        done[name] = Track.from_steps([step for step in both if step.index >= 0], meta)
    return done


def _tracker(track: Track) -> Tracker:
    """The tracker of a track, loaded once."""
    from vltrack.api.correct import load_as

    key = json.dumps([track.meta.get("model"), track.meta.get("runtime"), track.meta.get("policy")])
    if key not in _trackers:
        _trackers.clear()
        options = {"device": "auto", "threads": None, "backend": "auto", "precision": "auto", "anyway": True}
        _trackers[key] = load_as(track.meta, None, None, **options)
    return _trackers[key]


_trackers: dict[str, Tracker] = {}


def _correct(job: Job, send: Callable[..., None]) -> dict[str, Any]:
    import vltrack

    track, rows = Track.load(job["track"]), _Rows(send)
    marks = [Mark(**each) for each in job["marks"]]
    changed = min((mark.frame for mark in {*marks} ^ {*track.marks}), default=0)
    # What is tracked again begins at the mark before the first one that has changed.
    first = max((mark.frame for mark in track.marks if mark.frame < changed), default=int(track.indices[0]))
    with FrameReader(job["path"]).frames_from(first) as frames:
        corrected = vltrack.correct(
            track, frames, marks, doubt=True, tracker=_tracker(track), reporter=rows,
            progress=lambda done, total: send("progress", done=done, total=total),
        )  # fmt: skip
    return _saved(job, {job["target"]: corrected})


def _draw(job: Job, send: Callable[..., None]) -> dict[str, Any]:
    """Draw the tracks of several targets, which may have different frames."""
    from vltrack.api.outputs import AnnotatedVideo, visual_of

    tracks = {each["name"]: Track.load(each["path"]) for each in job["tracks"]}
    steps = {name: {step.index: step for step in track} for name, track in tracks.items()}
    first, last = min(min(each) for each in steps.values()), max(max(each) for each in steps.values())
    path = Path(job["folder"]) / job["file"]
    path.parent.mkdir(exist_ok=True)
    with open_source(job["path"], start=first, end=last + 1) as frames, ExitStack() as opened:
        visual = visual_of(path, frames.info, list(tracks))
        if isinstance(visual, AnnotatedVideo):
            opened.push(visual.abandon)
        for frame in frames:
            there = {name: each.get(frame.index) or _unseen(each, frame) for name, each in steps.items()}
            visual.add(frame, there)
            send("progress", done=frame.index - first + 1, total=last - first + 1)
        visual.finish()
    return {"file": path.name}


def _unseen(steps: Mapping[int, Step], frame: Frame) -> Step:
    """A row for a frame that a track does not have."""
    some = next(iter(steps.values()))
    return replace(some, index=frame.index, seconds=frame.seconds, visible=False, score=0.0, status=Status.WAITING)


def _saved(job: Job, tracks: Mapping[str, Track]) -> dict[str, Any]:
    """Write each target's track to its file; return how many rows and which marks it has."""
    for name, track in tracks.items():
        meta = {**track.meta, "source": job["name"]}
        if job["kind"] == "track":
            meta["start"] = job["start"]
        replace(track, meta=meta).save(Path(job["files"][name]), overwrite=True)
    return {
        name: {"rows": len(track), "marks": [mark.record() for mark in track.marks], "warnings": track.meta["warnings"]}
        for name, track in tracks.items()
    }


def _kept(job: Job, tracks: Any) -> dict[str, Any] | None:
    """Keep the rows of a job that was broken off."""
    if job["kind"] != "track" or not isinstance(tracks, dict) or not all(len(track) for track in tracks.values()):
        return None
    return _saved(job, tracks)


_KINDS: dict[str, Callable[[Job, Callable[..., None]], dict[str, Any]]] = {
    "find": _find,
    "warm": _warm,
    "track": _track,
    "correct": _correct,
    "draw": _draw,
}
