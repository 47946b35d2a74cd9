"""How long one tracker's LaSOT takes to score: ours beside the got10k toolkit, in one run, on one thread.

    python benchmarks/scoring.py --out benchmarks/results

Both are given the same arrays in memory (280 sequences, 685,360 frames of SiamRPN++ or ATOM) in turn; medians
and their ratio. got10k runs in a child process in an environment of its own. Without the shared material the
arrays are made up, of the same lengths. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from child import REPOSITORY, Worker, environment

from vltrack.core.files import write_text
from vltrack.core.types import Floats
from vltrack.datasets.reader import open_dataset
from vltrack.evaluation.results import open_results
from vltrack.evaluation.summary import annotations_of, rename_results
from vltrack.metrics.annotations import Annotation, Annotations
from vltrack.metrics.protocols import RULES
from vltrack.metrics.scoring import align, score

HERE = Path(__file__).resolve().parent
PACKAGES = ("got10k==0.1.3", "numpy", "six", "wget", "fire", "shapely", "opencv-python-headless")
LOADS = ("annotation", "results")


def arguments() -> argparse.Namespace:
    """The command line."""
    shared = Path(os.environ.get("VLTRACK_SHARED", REPOSITORY.parent / "shared"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=shared / "results" / "lasot", help="LaSOT's annotations")
    parser.add_argument("--results", type=Path, help="results [SiamRPN++ of the data's own]")
    parser.add_argument("--rounds", type=int, default=15, help="how often each is timed")
    parser.add_argument("--peer-python", type=Path, help="interpreter with got10k (default: set one up)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write a dated Markdown file there")
    return parser.parse_args()


def material(options: argparse.Namespace) -> tuple[Annotations, Floats, dict[str, float], str]:
    """Annotations, boxes, seconds that reading each took, and what it is."""
    results = options.results or options.data / "results" / "SiamRPN++.npz"
    if not options.data.is_dir():
        return *made_up(), dict.fromkeys(LOADS, 0.0), "made up (no LaSOT annotations at hand)"
    begin = time.perf_counter()
    truth = annotations_of(open_dataset(options.data))
    middle = time.perf_counter()
    found = rename_results(truth.names, open_results(results))
    end = time.perf_counter()
    truth, boxes = align(truth, found.boxes, replace(RULES["lasot"], short="misses"))
    return truth, boxes, dict(zip(LOADS, (middle - begin, end - middle), strict=True)), found.tracker


def made_up(sequences: int = 280, frames: int = 685_360) -> tuple[Annotations, Floats]:
    """Random walks of boxes, and boxes beside them."""
    rng = np.random.default_rng(0)
    lengths = np.full(sequences, frames // sequences)
    lengths[: frames % sequences] += 1
    center = np.abs(rng.normal(0, 3, (frames, 2)).cumsum(axis=0)) + 1
    boxes = np.rint(np.concatenate([center, rng.uniform(20, 90, (frames, 2))], axis=1))
    ends = lengths.cumsum()
    truth = Annotations.join(
        Annotation(name=f"s{k}", boxes=boxes[end - n : end], absent=rng.random(n) < 0.03)
        for k, (n, end) in enumerate(zip(lengths, ends, strict=True))
    )
    return truth, np.asfortranarray(boxes + rng.normal(0, 12, boxes.shape) * [1, 1, 0.3, 0.3])


def main() -> None:
    """Time both in turn and say what came of it."""
    options = arguments()
    truth, boxes, loads, what = material(options)
    python = options.peer_python or environment("got10k-venv", *PACKAGES)
    ours: list[float] = []
    curves: list[float] = []
    theirs: list[float] = []
    os.environ["MPLBACKEND"] = "Agg"
    with (
        tempfile.TemporaryDirectory(prefix="vltrack-scoring-") as folder,
        Worker([str(python), str(HERE / "peers" / "run_got10k.py")], threads=1) as peer,
    ):
        arrays = Path(folder) / "arrays.npz"
        names = np.array(truth.names)
        np.savez(arrays, names=names, lens=truth.lengths, truth=truth.boxes, boxes=boxes)
        for _ in range(options.rounds):
            answer = peer.ask({"arrays": str(arrays), "repeats": 1})
            if "error" in answer:
                raise SystemExit(f"got10k: {answer['error']}")
            theirs.append(answer["seconds"])
            for times, rule in ((ours, "lasot"), (curves, "got10k-otb")):
                begin = time.perf_counter()
                scores = score(truth, boxes, RULES[rule])
                times.append(time.perf_counter() - begin)
        versions = peer.versions
    same = abs(scores.value("auc") - answer["auc"]) < 1e-9
    lines = report(what, truth, loads, (theirs, ours, curves), versions)
    lines.append("")
    lines.append(
        f"The two agree on success under got10k's own rule: {100 * answer['auc']:.4f} and"
        f" {100 * scores.value('auc'):.4f}."
        if same
        else f"THEY DIFFER: {100 * answer['auc']:.6f} and {100 * scores.value('auc'):.6f}."
    )
    lines.append(f"torch loaded while scoring: {'yes' if 'torch' in sys.modules else 'no'}.")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write_text(options.out / f"scoring-{datetime.date.today()}.md", text)


def report(
    what: str,
    truth: Annotations,
    loads: dict[str, float],
    times: tuple[list[float], list[float], list[float]],
    versions: dict[str, str],
) -> list[str]:
    """Markdown lines: the medians and their ratios."""
    theirs, ours, curves = map(statistics.median, times)
    frames = truth.frames
    rows = [
        ("got10k: success and precision", theirs, 1.0),
        ("ours, rule `lasot`: success, precision, normalized precision", ours, theirs / ours),
        ("ours, rule `got10k-otb`: the same three by got10k's rule", curves, theirs / curves),
    ]
    return [
        f"# Scoring {what} over {len(truth)} sequences, {frames:,} frames, one thread",
        "",
        f"{datetime.date.today()}, {processor()}, load {os.getloadavg()[0]:.1f}; Python {versions['python']},"
        f" numpy {versions['numpy']} (peer) and {np.__version__} (ours), got10k {versions['got10k']}."
        f" Medians of {len(times[0])} rounds, each of which times all three in turn.",
        "`python " + " ".join(["benchmarks/scoring.py", *sys.argv[1:]]) + "`",
        "",
        "| compute from arrays in memory | seconds | million frames a second | times as fast as got10k |",
        "|---|---|---|---|",
        *(f"| {name} | {seconds:.3f} | {frames / seconds / 1e6:.1f} | {ratio:.1f} |" for name, seconds, ratio in rows),
        "",
        f"Reading: annotations {loads['annotation']:.2f} s, results {loads['results']:.2f} s.",
    ]


def processor() -> str:
    """The processor's name, where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} shared cores"
    except OSError:
        pass
    return f"{platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
