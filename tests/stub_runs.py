"""A tracker of a few lines and painted sequences, for quick tests of complete evaluations; and a command that
evaluates them in a process of its own, which tests may kill.

The sentence of a sequence controls the stub: ``"a03"`` is tracked, ``"a03 raise at 4"`` fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vltrack.core.errors import ImageError
from vltrack.core.types import Frame, Status, Step
from vltrack.evaluation.workers import TrackerSpec, load_tracker
from vltrack.video.base import FrameSource, ReadReport

LOADER = "stub_runs:load"
LOG, PAUSE = "VLTRACK_STUB_LOG", "VLTRACK_STUB_PAUSE"


@dataclass(frozen=True, kw_only=True)
class Painted:
    """A sequence of small frames of noise, with the interface of a data set's ``Sequence``."""

    name: str
    boxes: np.ndarray
    absent: np.ndarray
    sentence: str
    files: None = None
    gap: int = -1
    promised: int = 0

    def __len__(self) -> int:
        return self.promised or len(self.boxes)

    def open_frames(self) -> Painter:
        return Painter(self)

    def frames(self) -> Generator[Frame, None, None]:
        rng = np.random.default_rng(list(self.name.encode()))
        for index in range(len(self.boxes)):
            image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            yield Frame(image=None if index == self.gap else image, index=index, seconds=index / 30)


class Painter(FrameSource):
    """The frames of a painted sequence as a source."""

    def __init__(self, sequence: Painted) -> None:
        self.report = ReadReport()
        self._frames = sequence.frames()

    def __next__(self) -> Frame:
        return next(self._frames)

    def cancel(self) -> None:
        self.close()

    def close(self) -> None:
        self._frames.close()


@dataclass(frozen=True, kw_only=True)
class Painting:
    """A data set of painted sequences."""

    sequences: tuple[Any, ...]
    name: str = "painted"
    split: str = "test"
    root: Path = Path()


@dataclass
class Stub:
    """Moves the last box by the frame's brightness; fails where the sentence says so."""

    box: np.ndarray = field(default_factory=lambda: np.zeros(4))
    orders: dict[int, str] = field(default_factory=dict)
    number: int = 0

    def init(self, frame: Frame, box: Any = None, text: str | None = None) -> Step:
        log_start(text or box)
        if frame.image is None:
            raise ImageError("the first frame could not be decoded.")
        self.orders = {int(at): what for what, at in re.findall(r"(\w+) at (\d+)", text or "")}
        self.box, self.number = np.array(box if box is not None else (1.5, 2.5, 3.0, 4.0), dtype=float), -1
        return self.update(frame)

    def update(self, frame: Frame) -> Step:
        self.number += 1
        time.sleep(float(os.environ.get(PAUSE, "0")))
        status = Status.OK
        if frame.image is None:
            status = Status.MISSING
        else:
            self.box = self.box + frame.image[0, 0].mean() / 1000 * np.array([1, -1, 0, 0])
        box, score = obey(self.orders.get(self.number), self.box)
        return Step(box=box, score=score, visible=True, index=frame.index, seconds=frame.seconds, status=status)


def obey(order: str | None, box: np.ndarray) -> tuple[np.ndarray, float]:
    """Carry out an order; return the box and the score to report."""
    if order == "raise":
        raise RuntimeError("the stub was ordered to raise")
    if order in ("kill", "segfault", "stop"):
        number = {"kill": signal.SIGKILL, "segfault": signal.SIGSEGV, "stop": signal.SIGSTOP}[order]
        os.kill(os.getpid(), number)
    if order == "hang":
        time.sleep(600)
    if order == "leave":
        sys.exit(3)
    bad = {"nan": (np.nan, 1, 2, 3), "negative": (1, 1, -2, 3), "flat": (1, 1, 2, 0), "endless": (1, 1, np.inf, 2)}
    return np.array(bad.get(order or "", box)), 2.0 if order == "overdo" else 1 / 3


def load(spec: TrackerSpec) -> Stub:
    """Load the stub; nothing of ``spec`` is used."""
    return Stub()


def load_and_log(spec: TrackerSpec) -> Any:
    """Load one of our trackers that logs its starts as the stub does."""
    tracker = load_tracker(spec)
    real = tracker.init

    def init(frame: Frame, box: Any = None, text: str | None = None) -> Step:
        log_start(text or box)
        return real(frame, box=box, text=text)

    tracker.init = init
    return tracker


def log_start(named: Any) -> None:
    """Add a line to the log, if there is one: the text or box of a start."""
    if LOG in os.environ:
        with open(os.environ[LOG], "a", encoding="utf-8") as log:
            log.write(f"{named}\n")


def painting(count: int = 6, orders: dict[int, str] | None = None, **more: Any) -> Painting:
    """``count`` sequences of 3, 5, 7, ... frames, each named and described by its number."""
    sequences = []
    for n in range(count):
        frames = 3 + 2 * n
        boxes = np.tile([10.0 + n, 20.0, 8.0, 6.0], (frames, 1))
        text = f"a{n:02d} {(orders or {}).get(n, '')}".strip()
        absent = np.zeros(frames, dtype=bool)
        sequences.append(Painted(name=f"a{n:02d}", boxes=boxes, absent=absent, sentence=text, **more))
    return Painting(sequences=tuple(sequences))


def drawn(folder: Path, count: int, frames: int) -> Painting:
    """A data set of real images on disk: synthetic clips of 96 x 72."""
    from vltrack.datasets.sequences import Sequence
    from vltrack.datasets.synthetic import synthesize_clip, write_clip

    sequences = []
    for seed in range(count):
        clip, place = synthesize_clip(seed, frames + seed, (96, 72)), folder / f"clip-{seed}"
        if not place.exists():
            write_clip(clip, place)
        images = tuple(sorted((place / "img").iterdir()))
        named = {"name": place.name, "source": place / "img", "files": images, "sentence": clip.sentence}
        sequences.append(Sequence(boxes=clip.boxes, absent=clip.absent, **named))
    return Painting(sequences=tuple(sequences), name="drawn")


def stub_weights(folder: Path) -> Path:
    """A file of weights that is never loaded, and its card."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "stub.safetensors"
    path.write_bytes(data := (2).to_bytes(8, "little") + b"{}")  # no tensors
    card = {
        "format": 1,
        "tracker": "litetrack",
        "size": "tiny",
        "sha256": hashlib.sha256(data).hexdigest(),
        "config": {},
    }
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


def tree(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder except times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "times"
    }


def visible_in(folder: Path, name: str) -> np.ndarray:
    """The column ``visible`` of a result's scores."""
    return np.loadtxt(folder / "scores" / f"{name}.txt", delimiter=",", ndmin=2)[:, 1] != 0


def main(out: str, weights: str, jobs: str, count: str) -> int:
    """Evaluate ``count`` sequences in two modes: painted ones by the stub or, where ``weights`` is the name
    of a shipped tracker, drawn ones next to ``out``. Returns the exit code.
    """
    from vltrack.api.reporter import Terminated, shielded
    from vltrack.evaluation.plan import make_plan
    from vltrack.evaluation.run import run

    modes = ("bbox", "nlbbox")
    if Path(weights).exists():
        plan = make_plan(painting(int(count)), weights, modes, Path(out), loader=LOADER)
    else:
        data = drawn(Path(out).parent / "clips", int(count), 6)
        plan = make_plan(data, weights, modes, Path(out), loader="stub_runs:load_and_log")
    try:
        with shielded():
            return run(plan, jobs=int(jobs)).exit_code
    except Terminated:
        return 143
    except KeyboardInterrupt:
        return 130


def ended(process: int) -> bool:
    """Whether the process ends within ten seconds; a zombie has."""
    deadline = time.monotonic() + 10
    with contextlib.suppress(FileNotFoundError):
        while Path(f"/proc/{process}/cmdline").read_bytes():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
    return True


if __name__ == "__main__":
    from stub_runs import main as as_imported

    sys.exit(as_imported(*sys.argv[1:]))
