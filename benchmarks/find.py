"""Compare what finds a target from a sentence in the first frame: the grounder, the trackers themselves, FastestDet.

    python benchmarks/find.py --out benchmarks/results
    python benchmarks/find.py --only grounder --weights runs/grounder/best.safetensors

Everything runs in one process on one thread; each image is given to all in turn, so that other load affects all
alike. Data: the open real targets (benchmarks/README.md), which are validation: nothing trains on them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import cv2
import numpy as np
import torch
from child import REPOSITORY
from real_video import comparable, cpu_name

from vltrack.checkpoints import cards
from vltrack.core.errors import GroundingFailed
from vltrack.core.files import sha256_of, write_text
from vltrack.core.types import Candidate, Floats, Image, iou_xywh
from vltrack.datasets.reader import open_dataset
from vltrack.nn.picodet import CLASSES
from vltrack.tracking.grounding import Grounding
from vltrack.tracking.starts import FITS_ABOVE
from vltrack.tracking.tracker import Tracker
from vltrack.training.grounder import lexicon

TRACKERS = ("litetrack-tiny", "sa-tracker-tiny", "all-in-one-tiny", "aitrack-tiny", "bit-tracker-tiny")
RIGHT = 0.5
"""A box is right where its overlap with the annotated one is larger."""
BINS = np.linspace(0, 1, 6)
"""Of stated probabilities, for the calibration."""
WRONGLY = 0.1
"""Share of present sentences that may be refused when refusals are compared."""

ABSENT = (
    "the elephant", "the giraffe standing under the tree", "the brown horse running across the field",
    "the airplane flying in the sky", "the pizza on the table", "the yellow school bus",
    "the train arriving at the station", "the zebra", "the red fire truck", "the penguin walking on the ice",
    "the piano", "the blue hot-air balloon",
)  # fmt: skip
"""Sentences about what is in none of the frames of ``MISSING``."""
OTHERS = {"dog": "otb_Dog", "car": "davis_car-shadow", "motorcycle": "otb_MotorRolling", "bag": "vot_bag",
          "toy": "otb_Toy"}  # fmt: skip
"""Kind -> the target whose sentence is about it."""
MISSING = {
    "davis_car-shadow": "dog bag toy",
    "davis_dogs-jump-1": "car motorcycle bag toy",
    "davis_tennis": "dog car motorcycle bag toy",
    "otb_Basketball": "dog car motorcycle toy",
    "otb_Car1": "dog motorcycle bag toy",
    "otb_Couple": "dog toy",
    "otb_Crossing": "dog toy",
    "otb_Dog": "car motorcycle bag toy",
    "otb_DragonBaby": "car motorcycle bag",
    "otb_Football1": "dog car motorcycle bag toy",
    "otb_Jogging-1": "dog motorcycle toy",
    "otb_Man": "dog car motorcycle bag toy",
    "otb_MotorRolling": "dog bag toy",
    "otb_Toy": "car motorcycle",
    "perm_bedroom-girl": "dog car motorcycle",
    "perm_car-turn": "dog motorcycle bag toy",
    "perm_dog": "motorcycle toy",
    "tld_car": "dog motorcycle bag toy",
    "tld_david": "dog car motorcycle bag toy",
    "tld_pedestrian3": "dog motorcycle toy",
    "tlp_Drone1": "car motorcycle",
    "tlp_MotorcycleChase": "dog bag toy",
    "vot_bag": "dog car motorcycle toy",
}
"""Target -> kinds that its first frame does not show; one target of those that share a frame."""


class Finder(Protocol):
    """Finds what a sentence names in an RGB image (H, W, 3)."""

    def find(self, image: Image, texts: Sequence[str]) -> list[list[Candidate]]:
        """Candidates per sentence, best first; none where it refuses."""
        ...

    def boxes(self, image: Image) -> Floats | None:
        """(N, 4) x, y, w, h of all that it proposes, whatever the sentence; None where it proposes nothing."""
        ...


class Ours:
    """The grounder."""

    def __init__(self, grounding: Grounding) -> None:
        self.find, self._grounding = grounding.find, grounding

    def boxes(self, image: Image) -> Floats:
        height, width = image.shape[:2]
        corners = self._grounding.proposer.propose(image).box_N4.astype(np.float64) * (width, height, width, height)
        return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


class Own:
    """A tracker's own network: one box with its score."""

    def __init__(self, name: str) -> None:
        self._tracker = Tracker.load(name, device="cpu", threads=1, policy={"own_grounding": True})

    def find(self, image: Image, texts: Sequence[str]) -> list[list[Candidate]]:
        return [self._one(image, text) for text in texts]

    def _one(self, image: Image, text: str) -> list[Candidate]:
        try:
            step = self._tracker.init(image, text=text)
        except GroundingFailed:
            return []
        return [Candidate(box=step.box, score=step.score, label="")]

    def boxes(self, image: Image) -> None:
        return None


class FastestDet:
    """FastestDet (BSD-3-Clause): its boxes of the classes that the first noun names which it knows, by score."""

    SIDE = 352

    def __init__(self, folder: Path) -> None:
        self._net = cv2.dnn.readNetFromONNX(str(folder / "FastestDet.onnx"))
        self._names = (folder / "coco.names").read_text(encoding="utf-8").split("\n")
        self._named = nouns()

    def find(self, image: Image, texts: Sequence[str]) -> list[list[Candidate]]:
        boxes, scores, classes = self._detect(image)
        found = []
        for text in texts:
            wanted = first_named(text, self._named)
            rows = [n for n in range(len(boxes)) if self._names[classes[n]] in wanted]
            found.append([Candidate(box=boxes[n], score=scores[n], label=self._names[classes[n]]) for n in rows])
        return found

    def boxes(self, image: Image) -> Floats:
        return self._detect(image)[0]

    def _detect(self, image: Image) -> tuple[Floats, Floats, Any]:
        """Boxes, scores and classes, best first; no two of one class overlap by more than 0.45."""
        size = (self.SIDE, self.SIDE)
        self._net.setInput(cv2.dnn.blobFromImage(image, 1 / 255, size, swapRB=True))  # it reads BGR
        grid = self._net.forward()[0].astype(np.float64)
        rows, columns = grid.shape[1:]
        score = grid[0] ** 0.6 * grid[5:].max(axis=0) ** 0.4
        order = np.argsort(-score, axis=None)[:200]
        row, column = np.unravel_index(order, score.shape)
        center = np.stack([column, row], axis=1) + np.tanh(grid[1:3, row, column]).T
        side = 1 / (1 + np.exp(-grid[3:5, row, column].T))
        height, width = image.shape[:2]
        corner = center / (columns, rows) - side / 2
        boxes = np.concatenate([corner, side], axis=1) * (width, height, width, height)
        classes = grid[5:, row, column].argmax(axis=0)
        kept: list[int] = []
        for n in range(len(boxes)):
            if all(classes[n] != classes[k] or iou_xywh(boxes[n], boxes[k]) <= 0.45 for k in kept):
                kept.append(n)
        return boxes[kept], score[row, column][kept], classes[kept]


def nouns() -> dict[str, set[str]]:
    """Noun -> classes of COCO that it names, by the lexicon of the grounder's training phrases."""
    named: dict[str, set[str]] = {}
    lines = {name: [name, *lexicon.nouns_of(name)] for name in CLASSES}
    for line in (*lexicon.PEOPLE.values(), *lexicon.ROLES.values()):
        lines["person"] += line.split(", ")
    for name, of in lines.items():
        for noun in of:
            named.setdefault(noun, set()).add(name)
    return named


def first_named(text: str, named: dict[str, set[str]]) -> set[str]:
    """The classes of the first noun in a sentence that is known; of several at one place the longest counts."""
    parts = text.lower().split()
    for start in range(len(parts)):
        for end in range(len(parts), start, -1):
            if found := named.get(" ".join(parts[start:end])):
                return found
    return set()


# -- questions and answers ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Question:
    """A sentence over a first frame; no ``box`` where it fits nothing; ``helped``: a peer helped to make the box."""

    target: str
    text: str
    box: Floats | None
    helped: bool = False


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to a question.

    Attributes:
        target, text, helped: of the question; ``present``: it has a box.
        overlaps: of the three best candidates with the annotated box.
        score: stated probability of the best candidate; 0 without one.
        fits: stated probability that anything in the frame fits.
        recalled: best overlap of all proposals, if there are any.
    """

    target: str
    text: str
    present: bool
    helped: bool
    overlaps: list[float]
    score: float
    fits: float
    recalled: float | None = None

    def right(self, among: int = 1) -> bool:
        """Whether one of the first boxes is right."""
        return self.present and max(self.overlaps[:among], default=0.0) > RIGHT


@dataclass(kw_only=True)
class Column:
    """A finder with its answers, and milliseconds by target."""

    title: str
    finder: Finder
    answers: list[Answer] = field(default_factory=list)
    ms: dict[str, float] = field(default_factory=dict)


def questions(root: Path) -> list[tuple[str, Image, list[Question]]]:
    """Per target its name, first frame, and sentences: its own, and those that nothing in the frame fits."""
    sequences = open_dataset(root, name="folder").sequences
    sentences = {sequence.name: sequence.sentence for sequence in sequences}
    open_ones = {sequence.name for sequence in comparable(root, None)}
    asked = []
    for sequence in sequences:
        name = sequence.name
        box = np.asarray(sequence.boxes[0], dtype=np.float64)
        own = Question(target=name, text=sequence.sentence, box=box, helped=name not in open_ones)
        others = [sentences.get(OTHERS[kind], "") for kind in MISSING.get(name, "").split()]
        absent = [text for text in (*ABSENT, *others) if text] if name in MISSING else []
        image = next(frame.image for frame in sequence.frames() if frame.image is not None)
        asked.append((name, image, [own, *(Question(target=name, text=text, box=None) for text in absent)]))
    return asked


def ask(column: Column, image: Image, asked: Sequence[Question]) -> None:
    """Answer the questions about one image."""
    proposed = column.finder.boxes(image)
    found = column.finder.find(image, [question.text for question in asked])
    for question, candidates in zip(asked, found, strict=True):
        truth = question.box
        overlaps = [] if truth is None else [float(iou_xywh(c.box, truth)) for c in candidates]
        recalled = None if proposed is None or truth is None else float(np.max(iou_xywh(proposed, truth)))
        scores = [float(c.score) for c in candidates] or [0.0]
        fits = min(1.0, sum(scores)) if isinstance(column.finder, Ours) else scores[0]
        column.answers.append(
            Answer(
                target=question.target, text=question.text, present=truth is not None, helped=question.helped,
                overlaps=overlaps[:3], score=scores[0], fits=fits, recalled=recalled,
            )
        )  # fmt: skip


def clock(columns: Sequence[Column], name: str, image: Image, text: str, rounds: int) -> None:
    """Milliseconds of one sentence over one image, all in turn; the median of the rounds after the first."""
    times: dict[str, list[float]] = {column.title: [] for column in columns}
    for _ in range(rounds + 1):
        for column in columns:
            begin = time.perf_counter()
            column.finder.find(image, [text])
            times[column.title].append((time.perf_counter() - begin) * 1e3)
    for column in columns:
        column.ms[name] = statistics.median(times[column.title][1:])


# -- figures --------------------------------------------------------------------------------------------------


def calibration(stated: Sequence[float], right: Sequence[bool]) -> tuple[list[list[float]], float, float]:
    """Per bin count and, if any, mean stated probability and share right; expected calibration error; Brier score."""
    p, hit = np.asarray(stated, dtype=np.float64), np.asarray(right, dtype=np.float64)
    at = np.clip(np.digitize(p, BINS[1:-1]), 0, len(BINS) - 2)
    rows, error = [], 0.0
    for number in range(len(BINS) - 1):
        inside = at == number
        count = int(inside.sum())
        values = [float(v[inside].mean()) for v in (p, hit)] if count else []
        rows.append([count, *values])
        error += count * abs(values[0] - values[1]) if count else 0.0
    return rows, error / len(p), float(np.square(p - hit).mean())


def refused(present: Sequence[float], absent: Sequence[float], wrongly: float = WRONGLY) -> tuple[float, float]:
    """Share of absent sentences refused below the highest threshold that refuses few present ones; the threshold."""
    ordered = sorted(present)
    allowed = int(wrongly * len(ordered) + 1e-9)
    threshold = ordered[allowed] if allowed < len(ordered) else float("inf")
    return float(np.mean(np.asarray(absent) < threshold)), threshold


def figures(column: Column) -> dict[str, Any]:
    """All figures of one finder, for the table and the file."""
    own = [a for a in column.answers if a.present and not a.helped]
    helped = [a for a in column.answers if a.present and a.helped]
    absent = [a for a in column.answers if not a.present]
    curve, error, brier = calibration([a.score for a in own], [a.right() for a in own])
    every = [*own, *absent]
    curve_all, error_all, brier_all = calibration([a.score for a in every], [a.right() for a in every])
    shares, threshold = refused([a.fits for a in own], [a.fits for a in absent]) if absent else (None, None)
    recalled = [a.recalled > RIGHT for a in own if a.recalled is not None]
    return {
        "targets": len(own), "hits": sum(a.right() for a in own),
        "mean_iou": statistics.fmean(a.overlaps[0] if a.overlaps else 0.0 for a in own),
        "among_three": sum(a.right(3) for a in own), "proposed": sum(recalled) if recalled else None,
        "helped": len(helped), "helped_hits": sum(a.right() for a in helped),
        "absent": len(absent), "absent_refused": sum(a.fits < FITS_ABOVE for a in absent),
        "present_refused": sum(a.fits < FITS_ABOVE for a in own),
        "absent_refused_at_10": shares, "threshold_at_10": threshold,
        "curve": curve, "ece": error, "brier": brier,
        "curve_with_absent": curve_all, "ece_with_absent": error_all, "brier_with_absent": brier_all,
        "ms": statistics.median(column.ms.values()) if column.ms else None,
    }  # fmt: skip


def table(columns: Sequence[Column]) -> str:
    """Markdown: a row per finder, calibration and refusals of the first, and a row per target."""
    parts = (summary(columns), reliability(columns[0]), refusals(columns[0]), by_target(columns))
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def row_of(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def summary(columns: Sequence[Column]) -> list[str]:
    """The figures, a row per finder."""
    every, base = {column.title: figures(column) for column in columns}, columns[0]
    first = every[base.title]
    titles = (
        "", f"right of {first['targets']}", "mean IoU", "among three", "among all",
        f"right of {first['helped']} helped", f"absent refused of {first['absent']}", "present refused",
        f"absent refused at {WRONGLY:.0%} false", "ECE", "Brier", "ms", "ratio",
    )  # fmt: skip
    lines = [row_of(*titles), "|" + "---|" * len(titles)]
    for column in columns:
        row = every[column.title]
        ratio = statistics.median(column.ms[n] / base.ms[n] for n in base.ms) if base.ms else None
        several, ranks = isinstance(column.finder, Ours | FastestDet), isinstance(column.finder, Ours)
        lines.append(
            row_of(
                column.title, f"**{row['hits']}**", f"{row['mean_iou']:.3f}", row["among_three"] if several else "",
                row["proposed"] if several else "", row["helped_hits"], row["absent_refused"] if ranks else "",
                row["present_refused"] if ranks else "", shown(row["absent_refused_at_10"], ".0%"),
                f"{row['ece']:.3f}", f"{row['brier']:.3f}", shown(row["ms"], ".0f"), shown(ratio, ".2f"),
            )
        )  # fmt: skip
    return lines


def shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def reliability(column: Column) -> list[str]:
    """The reliability curve of one finder's best boxes, of present sentences and of all."""
    got = figures(column)
    lines = [f"Calibration of {column.title}'s best box: share right by stated probability.", ""]
    lines.append(row_of("stated", *("count", "mean stated", "right"), *("with absent: count", "mean stated", "right")))
    lines.append("|" + "---|" * 7)
    for number, both in enumerate(zip(got["curve"], got["curve_with_absent"], strict=True)):
        cells = [cell for n, *values in both for cell in (n, *([f"{v:.2f}" for v in values] or ["", ""]))]
        lines.append(row_of(f"{BINS[number]:.1f} to {BINS[number + 1]:.1f}", *cells))
    ends = [f"{got[name + end]:.3f}" for end in ("", "_with_absent") for name in ("ece", "brier")]
    return [*lines, "", "ECE {}, Brier {}; with absent ECE {}, Brier {}.".format(*ends)]


def refusals(column: Column) -> list[str]:
    """How often one finder refuses each sentence about what is absent."""
    lines = [f"Absent sentences that {column.title} refuses.", "", row_of("sentence", "refused", "of"), "|---|---|---|"]
    asked: dict[str, list[bool]] = {}
    for answer in column.answers:
        if not answer.present:
            asked.setdefault(answer.text, []).append(answer.fits < FITS_ABOVE)
    return [*lines, *(row_of(text, sum(each), len(each)) for text, each in asked.items())]


def by_target(columns: Sequence[Column]) -> list[str]:
    """Overlap and score of the best box, a row per target."""
    lines = ["Overlap of the best box (and stated probability); * box made with a peer's help.", ""]
    lines += [row_of("target", "sentence", *(column.title for column in columns)), "|" + "---|" * (2 + len(columns))]
    answers = [[a for a in column.answers if a.present] for column in columns]
    for row in zip(*answers, strict=True):
        cells = [f"{a.overlaps[0]:.2f} ({a.score:.2f})" if a.overlaps else "none" for a in row]
        lines.append(row_of(row[0].target + "*" * row[0].helped, row[0].text, *cells))
    return lines


# -- command --------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    """The command line."""
    shared = Path(os.environ.get("VLTRACK_SHARED", REPOSITORY.parent / "shared"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--root", type=Path, default=shared / "real" / "open", help="folder of targets")
    parser.add_argument("--peer", type=Path, default=shared / "peers" / "fastestdet", help="FastestDet's folder")
    parser.add_argument("--weights", type=Path, metavar="FILE", default=cards.GROUNDER, help="of the grounder")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of: grounder, fastestdet, and the trackers' names")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed per image; 0 leaves it out")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write a dated Markdown and JSON file there")
    options = parser.parse_args()
    if not options.root.is_dir():
        parser.error(f"There is no folder {options.root}. Set VLTRACK_SHARED or --root (see benchmarks/README.md)")
    return options


def finders(options: argparse.Namespace) -> list[Column]:
    """The finders that are asked for."""
    made: dict[str, tuple[str, Callable[[], Finder]]] = {
        "grounder": ("grounder", lambda: Ours(Grounding.load("cpu", threads=1, path=options.weights))),
        **{name: (f"{name}, own", partial(Own, name)) for name in TRACKERS},
        "fastestdet": ("FastestDet", partial(FastestDet, options.peer)),
    }
    unknown = sorted(set(options.only or ()) - made.keys())
    if unknown:
        raise SystemExit(f"--only {', '.join(unknown)}: known are {', '.join(made)}")
    chosen = [made[name] for name in made if name in (options.only or made)]
    return [Column(title=title, finder=make()) for title, make in chosen]


def about(options: argparse.Namespace) -> dict[str, Any]:
    """Date, command, machine, versions and weights of this run; no path of this machine."""
    weights = options.weights
    command = " ".join(Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:])
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": f"python benchmarks/find.py {command}".strip(),
        "machine": f"{cpu_name()}, {os.cpu_count()} logical cores, load {os.getloadavg()[0]:.1f}, one thread",
        "versions": f"torch {torch.__version__}, OpenCV {cv2.__version__}",
        "grounder": f"{weights.name}, sha256 {sha256_of(weights)}" if weights.is_file() else "none",
    }


def main() -> int:
    """Run and print the tables on standard output."""
    options = arguments()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    columns = finders(options)
    for name, image, asked in questions(options.root):
        for column in columns:
            ask(column, image, asked)
        if options.rounds:
            clock(columns, name, image, asked[0].text, options.rounds)
        sys.stderr.write(f"{name}\n")
    facts, text = about(options), table(columns)
    rules = (
        "Split: the first frames of the open targets, which are validation; nothing trains on them. A box is right"
        f" where its IoU with the annotated one is over {RIGHT}. Refused: the probabilities of all candidates sum to"
        f" less than {FITS_ABOVE}; a tracker states its score, FastestDet that of its best box. Absent: sentences about"
        " what is not in the frame. FastestDet: its best box of the classes that the sentence's first noun names"
        " which our lexicon has. ms: one sentence over one image, all in turn, the median of targets.\n"
    )
    head = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    print(f"# Finding from a sentence\n\n{head}\n\n{rules}\n{text}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        report = options.out / f"find-{facts['date'][:10]}"
        write_text(report.with_suffix(".md"), f"# Finding from a sentence\n\n{head}\n\n{rules}\n{text}")
        answers = {column.title: [asdict(a) for a in column.answers if a.present] for column in columns}
        data = {"about": facts, "figures": {c.title: figures(c) for c in columns}, "answers": answers}
        write_text(report.with_suffix(".json"), json.dumps(data, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
