"""Search the tracking policy: one option at a time, on the open real targets (never on unseen ones).

    python benchmarks/search_policy.py --try window=0.2,0.5 --try "refresh_every=5,20;refresh_above=0.7,0.8"

Each value of each ``--try`` is run with all other options at their defaults (or at ``--set``); options joined
by ``;`` change together. Prints the mean success AUC (21 strict thresholds) and SR0.5 over the targets.
Differences under 0.01 are noise.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from vltrack.datasets.reader import open_dataset
from vltrack.metrics.success import success
from vltrack.tracking.tracker import Tracker

Job = tuple[str, str, str, tuple[tuple[str, str], ...]]


def follow(job: Job) -> tuple[float, float]:
    """AUC and SR0.5 of one target under one policy."""
    folder, weights, mode, settings = job
    sequence = open_dataset(Path(folder), name="folder").sequences[0]
    tracker = Tracker.load(weights, threads=1, policy=dict(settings))
    boxes = []
    for number, frame in enumerate(sequence.frames()):
        if number == 0:
            x, y, w, h = (float(v) for v in sequence.boxes[0])
            step = tracker.init(
                frame, box=None if mode == "nl" else (x, y, w, h), text=None if mode == "bbox" else sequence.sentence
            )
        else:
            step = tracker.update(frame)
        boxes.append(step.box)
    found = success(np.stack(boxes), sequence.boxes, sequence.absent)
    return found.auc, found.sr50


def main() -> None:
    """The command in this file's docstring."""
    shared = Path(os.environ.get("VLTRACK_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--root", type=Path, default=shared / "real" / "open")
    parser.add_argument("--weights", default="litetrack-tiny")
    parser.add_argument("--mode", choices=("bbox", "nlbbox", "nl"), default="bbox")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for all runs")
    parser.add_argument("--try", action="append", default=[], dest="tries", metavar="KEY=V1,V2")
    parser.add_argument("--skip", nargs="*", default=[], help="targets to leave out")
    parser.add_argument("-j", type=int, default=2, help="processes")
    parser.add_argument("--verbose", action="store_true", help="one line per target")
    given = parser.parse_args()
    fixed = dict(setting.split("=", 1) for setting in given.set)
    policies = [fixed]
    for entry in given.tries:
        options = entry.split(";")
        names = [option.split("=", 1)[0] for option in options]
        values = [option.split("=", 1)[1].split(",") for option in options]
        policies += [fixed | dict(zip(names, chosen, strict=True)) for chosen in zip(*values, strict=True)]
    # Annotated with NanoTrack's help: not comparable with it, left out as in real_video.py.
    index = (given.root.parent / "INDEX.tsv").read_text(encoding="utf-8").splitlines()[1:]
    helped = {line.split("\t")[0] for line in index if "made with its help" in line}
    names = [
        s.name for s in open_dataset(given.root, name="folder").sequences if s.name not in helped | set(given.skip)
    ]
    # Long targets first, so that no process waits for another at the end.
    names.sort(key=lambda name: -len(open_dataset(given.root / name, name="folder").sequences[0]))
    with ProcessPoolExecutor(given.j) as pool:
        jobs = [
            (str(given.root / name), given.weights, given.mode, tuple(sorted(policy.items())))
            for policy in policies
            for name in names
        ]
        results = pool.map(follow, jobs)
        for policy in policies:
            rows = [(name, *next(results)) for name in names]
            if given.verbose:
                for name, auc, sr50 in sorted(rows):
                    sys.stdout.write(f"    {name:22s} {auc:.3f} {sr50:.3f}\n")
            auc, sr50 = (float(np.mean([row[k] for row in rows])) for k in (1, 2))
            settings = " ".join(f"{k}={v}" for k, v in policy.items()) or "defaults"
            sys.stdout.write(f"{auc:.4f}  {sr50:.3f}  {given.mode}  {settings}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
