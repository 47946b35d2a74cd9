"""Compare our trackers with OpenCV's CSRT, KCF, MIL and NanoTrack v2 on real video: quality, speed as ratios.

Everything (sets up the peers' environment if need be), a quick look at other weights, and several of ours:

    python benchmarks/real_video.py --out benchmarks/results
    python benchmarks/real_video.py --trackers bbox --weights w.safetensors --sequences otb_Dog tld_david
    python benchmarks/real_video.py --only ours --weights litetrack-tiny aitrack-tiny --out benchmarks/results --record

The trackers run in child processes. Data: benchmarks/README.md. Scores: ``vltrack.metrics.success``. Speed:
milliseconds of ``update`` only; each sequence is given to all trackers in turn, so that other load on the
machine affects all alike.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from child import Worker, environment

from vltrack.checkpoints.cards import find_file
from vltrack.core.files import sha256_of, write_text
from vltrack.core.types import iou_xywh
from vltrack.datasets.reader import open_dataset
from vltrack.datasets.sequences import Sequence
from vltrack.metrics.annotations import is_box
from vltrack.metrics.success import Presence, presence, success

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
FIGURES = REPOSITORY / "src" / "vltrack" / "models" / "figures.json"
PEERS = {"csrt": "CSRT", "kcf": "KCF", "mil": "MIL", "nanotrack": "NanoTrack v2"}
OURS = {"bbox": "ours, box", "nlbbox": "ours, box + sentence", "nl": "ours, sentence"}
CHOICES = PEERS | OURS
PEER_PACKAGES = ("opencv-contrib-python-headless>=4.9", "numpy")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A tracker of the table: a peer, or weights of ours (name or path) started in a mode."""

    name: str
    title: str
    mode: str = "bbox"
    weights: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One tracker on one target. ``ms``: median of its updates; ``first``: overlap in the first frame.

    Of ours: score, visibility and overlap of every frame, None where the target is absent; of the first start.
    """

    tracker: str
    target: str
    frames: int
    auc: float
    sr50: float
    mean_iou: float
    first: float
    init_ms: float
    ms: float
    note: str = ""
    scores: tuple[float, ...] = ()
    visible: tuple[bool, ...] = ()
    overlaps: tuple[float | None, ...] = ()


def arguments() -> argparse.Namespace:
    """The command line."""
    shared = Path(os.environ.get("VLTRACK_SHARED", REPOSITORY.parent / "shared"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--root", "--open", type=Path, default=shared / "real" / "open", help="folder of targets")
    parser.add_argument("--models", type=Path, default=shared / "peers" / "nanotrack_v2", help="NanoTrack's networks")
    parser.add_argument("--only", choices=("ours", "peers"), help="leave out the others")
    parser.add_argument("--trackers", nargs="+", choices=list(CHOICES), default=list(CHOICES), help="which columns")
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="which targets (default: all comparable ones)")
    parser.add_argument("--weights", nargs="+", default=["litetrack-tiny"], metavar="NAME|PATH", help="our models")
    parser.add_argument("--peer-python", type=Path, help="interpreter with opencv-contrib (default: set one up)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each tracker")
    parser.add_argument("--starts", type=int, default=1, help="means over starts whose box is moved by up to 2 %%")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="policy of our trackers: steady=false"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write a dated Markdown and JSON file there")
    parser.add_argument("--record", action="store_true", help="write the means to what `vltrack models` shows")
    options = parser.parse_args()
    if options.only:
        kept = OURS if options.only == "ours" else PEERS
        options.trackers = [name for name in options.trackers if name in kept]
    if len({stem(weights) for weights in options.weights}) < len(options.weights):
        parser.error("--weights must have different file names, which name the columns")
    if not options.root.is_dir():
        parser.error(f"There is no folder {options.root}. Set VLTRACK_SHARED or --root (see benchmarks/README.md)")
    return options


def stem(weights: str) -> str:
    """A name for weights that were given by name or path."""
    return Path(weights).name.removesuffix(".safetensors")


def columns(options: argparse.Namespace) -> list[Column]:
    """The table's columns: peers, then each of our weights in each mode."""
    peers = [Column(name=name, title=PEERS[name]) for name in options.trackers if name in PEERS]
    modes = [name for name in options.trackers if name in OURS]
    if len(options.weights) == 1:
        (weights,) = options.weights
        return peers + [Column(name=mode, title=OURS[mode], mode=mode, weights=weights) for mode in modes]
    return peers + [
        Column(
            name=f"{stem(weights)} {mode}", title=OURS[mode].replace("ours", stem(weights)), mode=mode, weights=weights
        )
        for weights in options.weights
        for mode in modes
    ]


def comparable(root: Path, wanted: list[str] | None) -> list[Sequence]:
    """The targets of ``root``; without a choice, those whose boxes were not made with a peer's help."""
    sequences = {sequence.name: sequence for sequence in open_dataset(root, name="folder").sequences}
    if wanted:
        missing = [name for name in wanted if name not in sequences]
        if missing:
            raise SystemExit(f"There is no target {', '.join(missing)} in {root}. Known: {', '.join(sequences)}")
        return [sequences[name] for name in wanted]
    index = root.parent / "INDEX.tsv"
    skipped = set()
    if index.is_file():
        with index.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                if "do not compare" in (row.get("nanotrack_v2_auc") or ""):
                    skipped.add(row["name"])
    return [sequence for name, sequence in sequences.items() if name not in skipped]


def start_workers(options: argparse.Namespace, shown: list[Column], stack: ExitStack) -> dict[str, Worker]:
    """Column -> the process that runs it. OpenCV's trackers share one, the modes of one weights another."""
    workers: dict[str, Worker] = {}
    threads = str(options.threads)
    started: dict[str, Worker] = {}
    for column in shown:
        if column.weights not in started:
            script = [sys.executable, str(HERE / "peers" / "run_vltrack.py"), column.weights, *options.set]
            if not column.weights:
                script = [
                    str(options.peer_python or environment("peers-venv", *PEER_PACKAGES)),
                    str(HERE / "peers" / "run_opencv.py"),
                ]
            worker = Worker([*script, threads], options.threads)
            started[column.weights] = stack.enter_context(worker)
        workers[column.name] = started[column.weights]
        if not column.weights and column.name not in workers[column.name].trackers:
            raise SystemExit(f"that OpenCV {workers[column.name].versions['opencv']} has no {column.name}")
    return workers


def dump_frames(sequence: Sequence, path: Path) -> None:
    """All frames as one .npy file: every tracker gets the same pixels, and no decoder is timed."""
    images = [frame.image for frame in sequence.frames()]
    first = next(image for image in images if image is not None)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(images), *first.shape))
    for number, image in enumerate(images):
        out[number] = first if image is None else image
        first = out[number]
    out.flush()


def measure(
    sequences: list[Sequence], shown: list[Column], workers: dict[str, Worker], options: argparse.Namespace
) -> Iterator[Result]:
    """All results, sequence by sequence, with the trackers in turn."""
    moves = (
        np.random.default_rng(0).uniform(-0.02, 0.02, (options.starts, 2)) * (np.arange(options.starts) > 0)[:, None]
    )
    with tempfile.TemporaryDirectory(prefix="vltrack-bench-") as folder:
        path = Path(folder) / "frames.npy"
        for sequence in sequences:
            dump_frames(sequence, path)
            for column in shown:
                request: dict[str, Any] = {"frames": str(path), "box": [float(v) for v in sequence.boxes[0]]}
                if not column.weights:
                    request |= {"tracker": column.name, "models": str(options.models)}
                else:
                    request["box"] = None if column.mode == "nl" else request["box"]
                    request["text"] = None if column.mode == "bbox" else sequence.sentence
                first, parts = request["box"], list[Result]()
                for move in moves if first else moves[:1]:
                    if first is not None:
                        x, y, w, h = first
                        request["box"] = [x + move[0] * w, y + move[1] * h, w, h]
                    parts.append(judge(column.name, sequence, workers[column.name].ask(request)))
                yield replace(
                    parts[0],
                    auc=statistics.fmean(part.auc for part in parts),
                    sr50=statistics.fmean(part.sr50 for part in parts),
                    mean_iou=statistics.fmean(part.mean_iou for part in parts),
                    note=next((part.note for part in parts if part.note), ""),
                )


def judge(name: str, sequence: Sequence, answer: dict[str, Any]) -> Result:
    """Scores and times of one answer; a tracker that refused or failed has zeros and a note."""
    annotated = np.asarray(sequence.boxes, dtype=np.float64)
    note = answer.get("refused") or answer.get("error") or ""
    boxes = np.array(answer["boxes"], dtype=np.float64) if not note else np.zeros_like(annotated)
    scores = success(boxes, annotated, sequence.absent)
    gone = sequence.absent | ~is_box(annotated)
    overlaps = np.where(gone, np.nan, iou_xywh(boxes, annotated))
    times = answer.get("ms") or [float("nan"), float("nan")]
    return Result(
        tracker=name,
        target=sequence.name,
        frames=scores.frames,
        auc=scores.auc,
        sr50=scores.sr50,
        mean_iou=scores.mean_iou,
        first=float(iou_xywh(boxes[0], annotated[0])),
        init_ms=times[0],
        ms=statistics.median(times[1:]),
        note=note,
        scores=tuple(round(one, 4) for one in answer.get("scores", ())),
        visible=tuple(answer.get("visible", ())),
        overlaps=tuple(None if one != one else round(float(one), 4) for one in overlaps) if "scores" in answer else (),
    )


def presence_of(results: list[Result], tracker: str) -> Presence | None:
    """Over the frames of all targets together; None for a peer."""
    own = [r for r in results if r.tracker == tracker and r.scores]
    if not own:
        return None
    overlaps = [np.nan if one is None else one for r in own for one in r.overlaps]
    return presence([one for r in own for one in r.scores], [one for r in own for one in r.visible], overlaps)


def table(results: list[Result], shown: list[Column]) -> str:
    """A Markdown table: one row per target, then the means and the speeds."""
    cells = {(r.target, r.tracker): r for r in results}
    targets = list(dict.fromkeys(r.target for r in results))
    names = [column.name for column in shown]
    lines = [
        "| target | frames | " + " | ".join(column.title for column in shown) + " |",
        "|---|---|" + "---|" * len(shown),
    ]

    def row(title: str, frames: str, values: list[str]) -> None:
        lines.append(f"| {title} | {frames} | " + " | ".join(values) + " |")

    for target in targets:
        own = [cells[target, name] for name in names]
        row(target, str(own[0].frames), ["failed" if r.note else f"{r.auc:.3f}" for r in own])

    def mean(field: str, name: str) -> float:
        return statistics.fmean(getattr(r, field) for r in results if r.tracker == name)

    def found(column: Column) -> str:
        right = sum(cells[target, column.name].first >= 0.5 for target in targets)
        return f"{right} of {len(targets)}" if column.mode == "nl" else "given"

    row("**mean success AUC**", "", [f"**{mean('auc', name):.3f}**" for name in names])
    row("mean SR0.5", "", [f"{mean('sr50', name):.3f}" for name in names])
    row("mean IoU", "", [f"{mean('mean_iou', name):.3f}" for name in names])
    row("first frame at IoU 0.5", "", [found(column) for column in shown])
    seen = {name: presence_of(results, name) for name in names}
    for title, field in (
        ("presence AUROC", "auroc"),
        ("absent frames called visible", "absent_visible"),
        ("drifted frames called visible", "drifted_visible"),
        ("score that 95 % of the frames on the target reach", "threshold"),
        ("absent frames that reach it", "absent_above"),
    ):
        row(title, "", ["" if seen[name] is None else f"{getattr(seen[name], field):.2f}" for name in names])
    row("ms per frame (median of targets)", "", [f"{speed(results, name):.2f}" for name in names])
    base = next((column for column in shown if column.weights), shown[-1])
    ratios = [f"{ratio(cells, targets, name, base.name):.2f}" for name in names]
    row(f"time relative to {base.title}", "", ratios)
    return "\n".join(lines) + "\n"


def speed(results: list[Result], tracker: str) -> float:
    """Median over targets of the median milliseconds of an update."""
    return statistics.median(r.ms for r in results if r.tracker == tracker and r.ms == r.ms)


def ratio(cells: dict[tuple[str, str], Result], targets: list[str], tracker: str, base: str) -> float:
    """Median over targets of this tracker's time over the base's on the same target in the same run."""
    pairs = [(cells[target, tracker].ms, cells[target, base].ms) for target in targets]
    return statistics.median(a / b for a, b in pairs if a == a and b == b)


def about(options: argparse.Namespace, workers: dict[str, Worker]) -> dict[str, Any]:
    """Date, command, commit, machine and versions of this run; no path of this machine."""
    command = " ".join(Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:])
    git = ["git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    files = [find_file(weights) for weights in options.weights] if set(options.trackers) & set(OURS) else []
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": f"python benchmarks/real_video.py {command}".strip(),
        "commit": commit or "unknown",
        "machine": f"{cpu_name()}, {os.cpu_count()} logical cores, {platform.system()}",
        "threads": options.threads,
        "weights": ", ".join(file.stem for file in files),
        "weights_sha256": ", ".join(sha256_of(file) for file in files),
        "versions": {"python": platform.python_version()}
        | {k: v for w in workers.values() for k, v in w.versions.items()},
    }


def cpu_name() -> str:
    """The processor's name in /proc/cpuinfo, or the architecture."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(folder: Path, facts: dict[str, Any], text: str, results: list[Result]) -> None:
    """``real_video-<date>.md`` and ``.json`` in the folder; ``side_by_side-...`` of several weights."""
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / f"{'side_by_side' if ', ' in facts['weights'] else 'real_video'}-{facts['date'][:10]}"
    head = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    notes = "".join(f"- {r.target}, {r.tracker}: {r.note}\n" for r in results if r.note)
    protocol = (
        "Success AUC over 21 strict thresholds; frames without the target are left out; the first counts "
        "(in the box modes it is given). Times: `update` only, every sequence through all trackers in turn.\n"
    )
    write_text(
        report.with_suffix(".md"), f"# Real video\n\n{head}\n\n{protocol}\n{text}" + (f"\n{notes}" if notes else "")
    )
    frames = ("scores", "visible", "overlaps")
    rows = [{key: value for key, value in asdict(one).items() if key not in frames} for one in results]
    data = {"about": facts, "results": rows}
    write_text(report.with_suffix(".json"), json.dumps(data, indent=1) + "\n")
    say(f"written: {report}.md and .json")


def record(facts: dict[str, Any], shown: list[Column], results: list[Result]) -> None:
    """Replace the measured figures of these weights and modes in ``models/figures.json``."""
    starts = {"bbox": "box", "nlbbox": "box and text", "nl": "text"}
    fresh = {}
    for column in shown:
        own = [result for result in results if result.tracker == column.name]
        means = {name: 100 * statistics.fmean(getattr(r, name) for r in own) for name in ("auc", "sr50")}
        if column.weights:
            fresh[stem(column.weights), starts[column.mode]] = {
                "model": stem(column.weights),
                "from": starts[column.mode],
                "data": f"{len(own)} targets of real video",
                "values": {"AUC": round(means["auc"], 1), "SR0.5": round(means["sr50"], 1)},
                "by": "measured",
                "conditions": "tiny, ours; validation data",
                "source": f"benchmarks/real_video.py, {facts['date'][:10]}",
                "sha256": sha256_of(find_file(column.weights)),
            }
    old = json.loads(FIGURES.read_text(encoding="utf-8"))
    kept = [one for one in old if one["by"] != "measured" or (one["model"], one["from"]) not in fresh]
    lines = [json.dumps(one, ensure_ascii=False) for one in [*kept, *fresh.values()]]
    write_text(FIGURES, "[\n " + ",\n ".join(lines) + "\n]\n")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run and print the table on standard output; returns 1 if a tracker failed."""
    options = arguments()
    sequences = comparable(options.root, options.sequences)
    results: list[Result] = []
    begin = time.monotonic()
    shown = columns(options)
    with ExitStack() as stack:
        workers = start_workers(options, shown, stack)
        for result in measure(sequences, shown, workers, options):
            results.append(result)
            note = f"  {result.note}" if result.note else ""
            say(f"{result.target:22} {result.tracker:22} AUC {result.auc:.3f}  {result.ms:7.2f} ms{note}")
        text = table(results, shown)
        facts = about(options, workers)
    print(text)
    say(f"{len(sequences)} targets, {time.monotonic() - begin:.0f} s")
    if options.out:
        write(options.out, facts, text, results)
    if options.record:
        record(facts, shown, results)
    text_only = {column.name for column in shown if column.mode == "nl"}
    return int(any(result.note and result.tracker not in text_only for result in results))


if __name__ == "__main__":
    sys.exit(main())
