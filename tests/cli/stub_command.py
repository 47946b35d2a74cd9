"""A stub in place of the network, and the ``vltrack`` command with it; a test runs this file.

The environment: ``STUB_DELAY`` seconds per frame, ``STUB_BUG`` for an error in the first update.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import numpy as np

from vltrack.__main__ import run
from vltrack.api import inputs, many
from vltrack.api import track as job
from vltrack.core.types import Frame, Status, Step, Target


class StubFollower:
    """Has the methods of a ``MultiTracker``. Follows nothing; ``lost_from`` says when it gives up."""

    settings: dict[str, str] = {"runtime": "cpu stub fp32"}  # noqa: RUF012 - never changed
    device = "cpu"

    @property
    def state(self) -> dict[str, np.ndarray]:
        return {name: box.copy() for name, box in self.boxes.items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.boxes = {name: box.copy() for name, box in state.items()}

    def __init__(self, lost_from: int | None = None) -> None:
        self.lost_from = lost_from
        self.warnings: dict[str, tuple[str, ...]] = {}
        self.boxes: dict[str, np.ndarray] = {}

    def init(self, frame: Frame, targets: Mapping[str, Target]) -> dict[str, Step]:
        start = (10.0, 10.0, 20.0, 20.0)
        self.boxes = {name: np.array(t.box or start, dtype=np.float64) for name, t in targets.items()}
        return self._steps(frame)

    def update(self, frame: Frame) -> dict[str, Step]:
        time.sleep(float(os.environ.get("STUB_DELAY", "0")))
        if "STUB_BUG" in os.environ:
            raise ZeroDivisionError(f"a bug of ours: {os.environ['STUB_BUG']}")
        for box in self.boxes.values():
            box[0] += 1
        return self._steps(frame)

    def _steps(self, frame: Frame) -> dict[str, Step]:
        lost = self.lost_from is not None and frame.index >= self.lost_from
        status = Status.MISSING if frame.image is None else Status.LOST if lost else Status.OK
        return {
            name: Step(
                box=box.copy(),
                score=0.1 if lost else 0.9,
                visible=status is Status.OK,
                index=frame.index,
                seconds=frame.seconds,
                status=status,
            )
            for name, box in self.boxes.items()
        }


def stub_worker(spec: object) -> dict[str, object]:
    """Prepare a process of ``track_many``."""
    job._load = lambda *_, **__: StubFollower()
    return {}


if __name__ == "__main__":
    inputs.check_model = lambda name: name
    many.LOADER = "stub_command:stub_worker"
    stub_worker(None)
    run()
