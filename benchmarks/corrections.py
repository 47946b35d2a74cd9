"""How many boxes a person has to draw until a track is right: clicks of a simulated annotator, by what picks the frame.

    python benchmarks/corrections.py --out benchmarks/results
    python benchmarks/corrections.py --targets otb_Dog otb_Couple --goal 0.85

The annotator starts with the true box of the first frame, tracks, and repairs one frame after the other with its true
box, until the mean overlap with the ground truth reaches the goal. *review*: the frame that ``vltrack review`` names;
*even*: the middle of the longest span without a box; *random*: any frame, mean of several seeds; *interpolation*: as
even, and boxes between are interpolated, not tracked. Passes of the tracker from one box are run once and kept; a check
against ``vltrack.correct`` comes first. Data: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import vltrack
from vltrack.core.files import write_text
from vltrack.core.track import Mark, Track
from vltrack.core.types import Floats, Frame, Step, iou_xywh
from vltrack.datasets.reader import open_dataset
from vltrack.tracking.doubt import doubt_of_step, next_rows
from vltrack.tracking.marks import join
from vltrack.tracking.tracker import Tracker

REPOSITORY = Path(__file__).resolve().parent.parent
TARGETS = (
    "otb_Basketball", "otb_Football1", "otb_MotorRolling", "otb_Car1", "otb_Dog", "otb_Jogging-1",
    "tlp_MotorcycleChase", "vot_bag",
)  # fmt: skip
CHOSEN_ON = ("otb_Crossing", "otb_DragonBaby", "tlp_Drone1", "davis_dogs-jump-2", "davis_dogs-jump-3")
"""Targets on which the rules of ``tracking.doubt`` and ``tracking.marks`` were chosen."""
COLUMNS = ("review", "even", "random", "interpolation")
Pick = Callable[[Track, Sequence[int]], int]


class Passes:
    """The passes of a tracker from true boxes, forward and backward, each as long as it was needed."""

    def __init__(self, tracker: Tracker, frames: Sequence[Frame], truth: Floats) -> None:
        self.tracker, self.frames, self.truth = tracker, frames, truth
        self._steps: dict[tuple[int, int], list[Step]] = {}
        self._states: dict[tuple[int, int], object] = {}

    def steps(self, start: int, end: int) -> list[Step]:
        """Steps of the frames after ``start`` up to ``end``, in the order of the pass."""
        way = 1 if end > start else -1
        key, count = (start, way), abs(end - start)
        if key not in self._steps:
            self.tracker.init(self.frames[start], box=tuple(self.truth[start]))
            self._steps[key], self._states[key] = [], self.tracker.state
        done = self._steps[key]
        if len(done) < count:
            self.tracker.restore(self._states[key])
            while len(done) < count:
                done.append(self.tracker.update(self.frames[start + way * (len(done) + 1)]))
            self._states[key] = self.tracker.state
        return done[:count]

    def marked(self, row: int) -> Step:
        """The step of a frame with its true box."""
        frame = self.frames[row]
        return Step(
            box=self.truth[row], score=1.0, visible=True, index=frame.index, seconds=frame.seconds,
            extras={"doubt": 0.0},
        )  # fmt: skip

    def track(self, rows: Sequence[int]) -> Track:
        """The track with true boxes in these rows, the first one of the video among them."""
        found: list[Step] = []
        for low, high in zip(rows, [*rows[1:], None], strict=True):
            found.append(self.marked(low))
            if high is None:
                rest = self.steps(low, len(self.frames) - 1) if low < len(self.frames) - 1 else []
                found += [replace(step, extras={"doubt": doubt_of_step(step)}) for step in rest]
            else:
                coming = self.steps(high, low)[::-1]
                found += join(self.marked(low), self.marked(high), self.steps(low, high), coming)
        return Track.from_steps(found)

    def interpolated(self, rows: Sequence[int]) -> Track:
        """The track with true boxes in these rows, interpolated between them and held after the last one."""
        every = np.arange(len(self.frames))
        boxes = np.stack([np.interp(every, rows, self.truth[list(rows), side]) for side in range(4)], axis=1)
        return Track.from_steps([replace(self.marked(row), box=boxes[row]) for row in every])


def review(track: Track, rows: Sequence[int]) -> int:
    """The frame that ``vltrack review`` names."""
    assert track.doubt is not None  # noqa: S101 - every track of this benchmark has it
    return next_rows(track.doubt, rows, 1)[0]


def even(track: Track, rows: Sequence[int]) -> int:
    """The middle of the longest span; the last frame first, as a person would who interpolates."""
    last = len(track) - 1
    if last not in rows:
        return last
    low, high = max(pairwise(rows), key=lambda span: span[1] - span[0])
    return (low + high) // 2


def at_random(seed: int) -> Pick:
    """Any frame without a box."""
    source = np.random.default_rng(seed)
    return lambda track, rows: int(source.choice(sorted(set(range(len(track))) - set(rows))))


def overlaps(make: Callable[[Sequence[int]], Track], truth: Floats, pick: Pick, goal: float, most: int) -> list[float]:
    """Mean overlap after each box, the first one too, until it reaches the goal or ``most`` boxes are drawn."""
    rows, found = [0], list[float]()
    while True:
        track = make(rows)
        found.append(float(iou_xywh(track.boxes, truth).mean()))
        if found[-1] >= goal or len(rows) >= min(most, len(truth)):
            return found
        rows = sorted([*rows, pick(track, rows)])


def clicks(found: Sequence[float], goal: float) -> int:
    """Boxes until the mean overlap first reached a goal; all where it never did."""
    return next((count for count, one in enumerate(found, start=1) if one >= goal), len(found))


def check(passes: Passes) -> None:
    """``vltrack.correct`` gives what the kept passes give."""
    rows = [0, len(passes.frames) // 3, 2 * len(passes.frames) // 3]
    start = Track.from_steps([passes.marked(row) for row in range(len(passes.frames))])
    marks = [Mark(passes.frames[row].index, box=tuple(passes.truth[row])) for row in rows]
    found = vltrack.correct(start, passes.frames, marks, doubt=True, tracker=passes.tracker)
    kept = passes.track(rows)
    if not (np.array_equal(found.boxes, kept.boxes) and np.array_equal(found.doubt, kept.doubt)):
        raise SystemExit("vltrack.correct and the passes of this benchmark differ.")


def main() -> None:
    """Print and write the table."""
    shared = Path(os.environ.get("VLTRACK_SHARED", REPOSITORY.parent / "shared"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--root", type=Path, default=shared / "real" / "open", help="folder of targets")
    parser.add_argument("--targets", nargs="+", default=TARGETS, metavar="NAME", help="which of them")
    parser.add_argument("--model", default="litetrack-tiny", metavar="NAME|PATH")
    parser.add_argument("--goal", type=float, default=0.9, help="mean overlap with the ground truth")
    parser.add_argument("--most", type=int, default=60, help="clicks after which an annotator gives up")
    parser.add_argument("--seeds", type=int, default=3, help="of the random order")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write corrections-DATE.md there")
    options = parser.parse_args()
    tracker = vltrack.load(options.model, threads=1, precision="fp32")
    sequences = {one.name: one for one in open_dataset(options.root, name="folder").sequences}
    lines = ["| target | frames | " + " | ".join(COLUMNS) + " |", "|---|---:|" + "---:|" * len(COLUMNS)]
    print("\n".join(lines), flush=True)
    every: dict[str, dict[str, list[list[float]]]] = {}
    for name in options.targets:
        sequence = sequences[name]
        passes = Passes(tracker, list(sequence.frames()), sequence.boxes)
        if not every:
            check(passes)
        ends = (sequence.boxes, options.goal, options.most)

        def run(make: Callable[[Sequence[int]], Track], pick: Pick, ends: Any = ends) -> list[float]:
            truth, goal, most = ends
            return overlaps(make, truth, pick, goal, most)

        every[name] = {
            "review": [run(passes.track, review)],
            "even": [run(passes.track, even)],
            "random": [run(passes.track, at_random(seed)) for seed in range(options.seeds)],
            "interpolation": [run(passes.interpolated, even)],
        }
        cells = [mean_clicks([every[name]], column, options.goal) for column in COLUMNS]
        lines.append(f"| {name} | {len(sequence.boxes)} | " + " | ".join(f"{cell:.3g}" for cell in cells) + " |")
        print(lines[-1], flush=True)
    lines += ["", "Sums by goal:", "", "| goal | " + " | ".join((*COLUMNS, *(f"fewer than {c}" for c in COLUMNS[1:])))]
    lines[-1] += " |"
    lines.append("|---|" + "---:|" * (2 * len(COLUMNS) - 1))
    for goal in sorted({0.7, 0.75, 0.8, 0.85, options.goal}):
        sums = [mean_clicks(list(every.values()), column, goal) for column in COLUMNS]
        fewer = [f"{100 * (1 - sums[0] / other):.0f} %" for other in sums[1:]]
        lines.append(f"| {goal:g} | " + " | ".join([*(f"{one:.4g}" for one in sums), *fewer]) + " |")
    print("\n".join(lines[2 + len(every) :]))
    if options.out is not None:
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        write_text(options.out / f"corrections-{today}.md", "\n".join(_head(options) + lines) + "\n")


def mean_clicks(targets: Sequence[Mapping[str, list[list[float]]]], column: str, goal: float) -> float:
    """Boxes for all targets; of a column with several runs their mean."""
    return float(sum(np.mean([clicks(run, goal) for run in one[column]]) for one in targets))


def _head(options: argparse.Namespace) -> list[str]:
    words = f"--goal {options.goal:g} --most {options.most} --seeds {options.seeds}"
    if tuple(options.targets) != TARGETS:
        words += f" --targets {' '.join(options.targets)}"
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return [
        f"# Clicks until a track is right, {today}",
        "",
        f"`python benchmarks/corrections.py {words}`, {options.model}, {platform.machine()}, one thread.",
        "",
        f"Boxes that a simulated annotator draws, the first one counted, until the mean overlap is {options.goal:g}, "
        f"{options.most} at most. Rules and weights were chosen on other targets: {', '.join(CHOSEN_ON)}.",
        "",
    ]


if __name__ == "__main__":
    main()
