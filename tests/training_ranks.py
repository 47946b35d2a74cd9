"""One process of a toy run, for tests of several: ``python -m training_ranks OPTIONS``, a JSON object.

``out``, ``resume``, ``config`` (changes of the recipe), ``workers``; ``bad``: number of a sample that holds NaN;
``pause``: seconds that a step takes; ``dies``: the step at which the process of rank 1 kills itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from small_training import Noise, Toy, random_sample, short, train, use_toy
from vltrack.core.rank import global_rank
from vltrack.training import loop
from vltrack.training.processes import start_rank


def main(options: dict[str, Any]) -> None:
    """Train."""
    patch, step = pytest.MonkeyPatch(), loop._Loop._step
    use_toy(patch)
    patch.setattr(Toy, "train", lambda self, mode=True: nn.Module.train(self, False))  # no batch statistics

    def sample(self: Noise, index: int) -> dict[str, np.ndarray]:
        found = random_sample(self, index)
        found["box"][0, 0] = np.nan if index == options.get("bad") else 0.5
        return found

    def stepped(self: Any, *given: Any) -> Any:
        time.sleep(options.get("pause", 0))
        if global_rank() == 1 and self.state.step == options.get("dies"):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *given)

    if "bad" in options:
        patch.setattr(Noise, "__getitem__", sample)
    patch.setattr(loop._Loop, "_step", stepped)
    config = short(**options["config"])
    train(config, Path(options["out"]), resume=options.get("resume", False), workers=options.get("workers", 0))


if __name__ == "__main__":
    start_rank()
    main(json.loads(sys.argv[1]))
