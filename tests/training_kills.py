"""Kill training runs at random moments, resume them, and compare them with a run that nothing has stopped.

A script: ``python tests/training_kills.py FOLDER KILLS SEED [CASE...]``. It prints one JSON object: case -> what
differs (nothing), and how often each case was killed at which step. Runs are forked from one process, which has
loaded everything and computed nothing.
"""

from __future__ import annotations

import csv
import json
import math
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model_cases import CONFIGS, make, small
from small_training import steps_of, train, use_noise
from vltrack.training import loop
from vltrack.training.launch import RECIPES, SECOND_RECIPES
from vltrack.training.recipes import TrainConfig

CASES: dict[str, tuple[str, Callable[[], TrainConfig]]] = {
    "litetrack": ("litetrack narrow base", RECIPES["litetrack-base"]),
    "litetrack text": ("litetrack tiny", SECOND_RECIPES["litetrack-tiny"]),
    "aitrack": ("aitrack narrow base", RECIPES["aitrack-base"]),
    "aitrack clips": ("aitrack narrow base", SECOND_RECIPES["aitrack-base"]),
    "all-in-one": ("all-in-one narrow base", RECIPES["all-in-one-base"]),
    "bit-tracker": ("bit-tracker narrow base", RECIPES["bit-tracker-base"]),
    "bit-tracker score": ("bit-tracker narrow base", SECOND_RECIPES["bit-tracker-base"]),
    "sa-tracker": ("sa-tracker narrow base", RECIPES["sa-tracker-base"]),
}
"""Case -> configuration of the network, and recipe."""
ACCUMULATING = ("litetrack", "aitrack clips", "bit-tracker")
SPEED = ("pairs_per_s", "waiting")


def run(case: str, out: Path) -> None:
    """Start or resume the run in this process: four steps, a layer unfrozen at every plateau."""
    name, recipe = CASES[case]
    config = replace(
        recipe(), steps=4, batch=2, accumulate=2 if case in ACCUMULATING else 1, save_every=2, validate_every=1,
        warmup=1, plateau_patience=1, plateau_delta=1.0, word_init="random", init_from="", start="",
    )  # fmt: skip
    if config.clips.frames:
        config = replace(config, clips=replace(config.clips, frames=3))

    def validate(model: torch.nn.Module, *given: object) -> dict[str, float]:
        time.sleep(0.03)
        return {"bbox": float(sum(p.double().sum() for p in model.parameters()))}

    patch = pytest.MonkeyPatch()
    use_noise(patch)
    patch.setattr(loop, "LOG_EVERY", 1)
    patch.setattr(loop, "validate", validate)
    network = small(CONFIGS[name]())
    if not case.startswith("aitrack"):
        network = replace(network, table_width=8)
    if case.startswith("bit-tracker"):
        network = replace(network, stem="mobilenet")
    patch.setattr(loop, "starting_model", lambda config, out: make(network, seed=config.seed))
    train(config, out, resume=out.exists() and any(out.iterdir()))


def forked(case: str, out: Path) -> int:
    """Run in a child process; returns its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run(case, out)
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    return child


def content(out: Path) -> dict[str, object]:
    """All that must be the same: names of files, checkpoints, and tables without the columns of speed."""
    found: dict[str, object] = {path.name: None for path in out.iterdir()}
    for path in (*out.glob("step-*"), out / "validation.csv"):
        found[path.name] = path.read_bytes()
    with (out / "log.csv").open(newline="") as file:
        found["log.csv"] = [{k: v for k, v in row.items() if k not in SPEED} for row in csv.DictReader(file)]
    return found


def tested(case: str, folder: Path, kills: int, rng: random.Random) -> dict[str, object]:
    """Kill runs ``kills`` times; returns at which steps, and which files of finished runs differ."""
    began = time.monotonic()
    _, status = os.waitpid(forked(case, folder / "whole"), 0)
    assert status == 0
    seconds, whole = time.monotonic() - began, content(folder / "whole")
    assert len(whole["log.csv"]) == 4
    assert all(math.isfinite(float(row["total"])) for row in whole["log.csv"])
    broken, killed_at, differ = folder / "broken", [], []
    while True:
        child = forked(case, broken)
        if len(killed_at) < kills:
            time.sleep(rng.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed_at.append(max(steps_of(broken), default=0) if broken.exists() else 0)
            continue
        assert status == 0
        found = content(broken)
        differ += sorted(name for name in {*whole, *found} if whole.get(name) != found.get(name))
        shutil.rmtree(broken)
        if len(killed_at) == kills:
            return {"killed_at": killed_at, "differ": differ}


if __name__ == "__main__":
    root, count, seed, *cases = sys.argv[1:]
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # the first optimizer loads a second of modules
    report = {}
    for case in cases or CASES:
        folder = Path(root) / case.replace(" ", "-")
        folder.mkdir()
        report[case] = tested(case, folder, int(count), random.Random(f"{seed} {case}"))
        shutil.rmtree(folder)
    sys.stdout.write(json.dumps(report) + "\n")
