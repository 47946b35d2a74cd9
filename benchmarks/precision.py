"""Compare backends and number types with eager fp32 on real video: boxes from the same state, and success AUC.

    python benchmarks/precision.py --out benchmarks/results
    python benchmarks/precision.py --models litetrack-tiny --runs openvino-fp32 torch-bf16 --sequences otb_Dog

``apart`` is the distance in pixels of the frame, the largest of x, y, w and h, between the box that a run finds and
the one of eager fp32, both from the state of eager fp32 before that frame. ``AUC`` is of runs of their own, in which a
difference may grow. A run called ``torch-bf16`` is autocast in torch: what bf16 costs in accuracy on any CPU.
Data: benchmarks/README.md. Scores: ``vltrack.metrics.success``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from real_video import HERE, comparable, cpu_name

import vltrack
from vltrack.core.errors import ResourceError, UsageError
from vltrack.datasets.sequences import Sequence
from vltrack.metrics.success import success
from vltrack.tracking.network import Found, Network

TINY = ("litetrack-tiny", "aitrack-tiny", "all-in-one-tiny", "bit-tracker-tiny", "sa-tracker-tiny")
RUNS = ("openvino-fp32", "onnx-fp32", "torch-bf16", "openvino-bf16", "openvino-int8")
MODES = ("bbox", "nlbbox")


@dataclass
class Cell:
    """One run of one model in one mode: distances of all frames, and AUC by target of both."""

    apart: list[float] = field(default_factory=list)
    auc: dict[str, tuple[float, float]] = field(default_factory=dict)


class Pair:
    """A ``Network`` that answers as ``first``, and keeps what ``second`` would have answered."""

    def __init__(self, first: Network, second: Network) -> None:
        self.first, self.second = first, second
        self.other: Found | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.first, name)

    def read_text(self, *given: Any) -> Any:
        return self.first.read_text(*given), self.second.read_text(*given)

    def init(self, template: Any, context: Any, text: Any = None) -> Any:
        one, two = (None, None) if text is None else text
        return self.first.init(template, context, one), self.second.init(template, context, two)

    def locate(self, search: Any, memory: Any, *given: Any) -> Found:
        self.other = self.second.locate(search, memory[1], *given)
        found = self.first.locate(search, memory[0], *given)
        return Found(maps=found.maps, raw=(found, self.other))

    def update(self, memory: Any, found: Found, *given: Any) -> Any:
        one, two = found.raw
        return self.first.update(memory[0], one, *given), self.second.update(memory[1], two, *given)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("VLTRACK_SHARED", HERE.parent.parent / "shared"))
    parser.add_argument("--root", type=Path, default=shared / "real" / "open", help="folder of targets")
    parser.add_argument("--models", nargs="+", default=TINY)
    parser.add_argument("--runs", nargs="+", default=RUNS, metavar="BACKEND-PRECISION")
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    parser.add_argument("--sequences", nargs="+")
    parser.add_argument("--frames", type=int, help="only the first frames of each target")
    parser.add_argument("--out", type=Path, help="folder for precision-DATE.md and .json")
    return parser.parse_args()


def follow(tracker: vltrack.Tracker, frames: list[Any], start: dict[str, Any]) -> np.ndarray:
    """(N, 4) boxes of a clip."""
    steps = [tracker.init(frames[0], **start), *(tracker.update(frame) for frame in frames[1:])]
    return np.array([step.box for step in steps])


def apart(reference: vltrack.Tracker, other: vltrack.Tracker, frames: list[Any], start: dict[str, Any]) -> list[float]:
    """Distances of the boxes of two networks, in each frame from the same state."""
    engine = reference.engine
    pair = Pair(engine.network, other.engine.network)
    follower = reference.with_policy(engine.policy)
    follower.engine.network = pair
    place, found = follower.engine._postprocess, []

    def watched(state: Any, region: Any, maps: Any) -> Any:
        chosen = place(state, region, maps)
        found.append(float(np.abs(chosen.box - place(state, region, pair.other.maps).box).max()))
        return chosen

    follower.engine._postprocess = watched
    follow(follower, frames, start)
    return found


def measure(options: argparse.Namespace, model: str) -> dict[str, dict[str, Cell]]:
    """Cells of a model by run and mode."""
    reference = vltrack.load(model, backend="torch", precision="fp32", threads=1)
    others = {}
    for run in options.runs:
        backend, _, precision = run.partition("-")
        try:
            others[run] = vltrack.load(model, backend=backend, precision=precision, threads=1)
        except (ResourceError, UsageError) as error:
            say(f"{model} {run}: {error}")
    cells = {run: {mode: Cell() for mode in options.modes} for run in others}
    for sequence in comparable(options.root, options.sequences):
        frames, boxes, absent = images(sequence, options.frames)
        for mode in options.modes:
            start = {"box": tuple(sequence.boxes[0]), "text": sequence.sentence if mode == "nlbbox" else None}
            base = success(follow(reference, frames, start), boxes, absent).auc
            for run, other in others.items():
                cell = cells[run][mode]
                cell.auc[sequence.name] = (base, success(follow(other, frames, start), boxes, absent).auc)
                cell.apart += apart(reference, other, frames, start)
        say(f"{model} {sequence.name}: {len(frames)} frames")
    return cells


def images(sequence: Sequence, count: int | None) -> tuple[list[Any], np.ndarray, np.ndarray | None]:
    """Frames, their boxes and absences, as far as they are taken."""
    frames = [frame.image for frame, _ in zip(sequence.frames(), range(count or len(sequence.boxes)), strict=False)]
    absent = None if sequence.absent is None else np.asarray(sequence.absent)[: len(frames)]
    return frames, np.asarray(sequence.boxes, dtype=float)[: len(frames)], absent


def rows(model: str, cells: dict[str, dict[str, Cell]]) -> list[dict[str, Any]]:
    found = []
    for run, modes in cells.items():
        for mode, cell in modes.items():
            base, own = np.array(list(cell.auc.values())).T
            distance = np.array(cell.apart)
            found.append({
                "model": model, "run": run, "mode": mode, "targets": len(base), "frames": len(distance),
                "within_half_pixel": float((distance <= 0.5).mean()),
                "p99": float(np.percentile(distance, 99)), "most": float(distance.max()),
                "auc_fp32": float(base.mean()), "auc": float(own.mean()), "difference": float((own - base).mean()),
                "largest_of_a_target": float(np.abs(own - base).max()),
            })  # fmt: skip
    return found


def table(found: list[dict[str, Any]]) -> list[str]:
    head = "| model | run | start | frames within 0.5 px | 99 % | most | AUC fp32 | AUC | difference | of one target |"
    lines = [head, "|---|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    for row in found:
        lines.append(
            f"| {row['model']} | {row['run']} | {row['mode']} | {row['within_half_pixel']:.2%} | {row['p99']:.2f} "
            f"| {row['most']:.2f} | {row['auc_fp32']:.3f} | {row['auc']:.3f} | {row['difference']:+.4f} "
            f"| {row['largest_of_a_target']:.3f} |"
        )
    return lines


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    options, found = arguments(), []
    for model in options.models:
        found += rows(model, measure(options, model))
    today = datetime.date.today().isoformat()
    command = " ".join(["python benchmarks/precision.py", *sys.argv[1:]])
    text = [
        f"# Backends and number types against eager fp32, {today}",
        "",
        f"{cpu_name()}. `{command}`",
        "",
        *table(found),
    ]
    print("\n".join(text))
    if options.out is not None:
        stem = options.out / f"precision-{today}"
        stem.with_suffix(".md").write_text("\n".join(text) + "\n", encoding="utf-8")
        facts = {"date": today, "machine": cpu_name(), "command": command, "rows": found}
        stem.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
