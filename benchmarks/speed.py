"""What a frame costs: models x backends x number types on one thread, in turn, next to eager fp32 and NanoTrack v2.

    git worktree add ../before COMMIT
    python benchmarks/speed.py --against ../before --out benchmarks/results
    python benchmarks/speed.py litetrack-base litetrack-uvltrack-base --against ../before --out benchmarks/results
    python benchmarks/speed.py litetrack-tiny --variants torch-fp32 openvino-fp32 --skip memory track

A second run of the same day replaces the models it measures. CPU time, medians; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from child import REPOSITORY, Worker
from scoring import processor
from speed_child import BEFORE, CRITERIA, NANO, TARGETS, processor_flags

from training import cpu_seconds, family
from vltrack.api.doctor import list_models
from vltrack.api.inputs import demo_clip
from vltrack.core.files import write_text
from vltrack.video.source import open_source
from vltrack.video.writer import VideoWriter

CHILD = Path(__file__).with_name("speed_child.py")
BUILD = REPOSITORY / "build" / "speed"
TINY = ("litetrack-tiny", "all-in-one-tiny", "aitrack-tiny", "bit-tracker-tiny", "sa-tracker-tiny")
VARIANTS = ("torch-fp32", "openvino-fp32", "openvino-bf16", "openvino-int8", "onnx-fp32", "onnx-int8")
SIZE = (1280, 720)
HELD, TRACKED = 24, 60
"""Decoded frames that are tracked back and forth; frames of the clip that ``vltrack track`` reads."""
BOX_ALONE = ("aitrack-base",)
"""Models whose vocabulary does not ship."""
UVLTRACK, LITETRACK = "litetrack-uvltrack-base", "litetrack-base"
SEED = {
    "G per frame, text only": ("36.7", "39.8"), "G per frame, tracking": ("43.7", "47.2"),
    "frames/s, text only": ("35.2", "43.3"), "frames/s, tracking": ("44.1", "51.7"),
    "parameters (of LiteTrack: that train)": ("167.7 M", "108.4 M"), "memory": ("90 % (of a GPU)", "70 %"),
}  # fmt: skip
"""The LiteTrack authors' table: UVLTrack and LiteTrack."""


@dataclass(kw_only=True)
class Result:
    """A variant of a model.

    Attributes:
        blocks: by part (update, network, crop, rest, targets, find), CPU milliseconds, a list per round.
        fresh: by name (load and load_wall in seconds, peak in MB), one number per fresh process.
        track: of ``vltrack track``: seconds until the first row (cpu, wall), then frames/s and CPU ms a frame.
        error: why it could not be measured.
    """

    blocks: dict[str, list[list[float]]] = field(default_factory=dict)
    fresh: dict[str, list[float]] = field(default_factory=dict)
    track: dict[str, list[float]] = field(default_factory=dict)
    error: str = ""

    def add(self, where: str, values: dict[str, Any]) -> None:
        """Append one answer to ``blocks``, ``fresh`` or ``track``."""
        for name, value in values.items():
            getattr(self, where).setdefault(name, []).append(value)

    def median(self, part: str) -> float:
        """Median of all values of a part; NaN without any."""
        values = [value for block in self.blocks.get(part, []) for value in block]
        values = values or self.fresh.get(part) or self.track.get(part) or [float("nan")]
        return statistics.median(values)

    def ratio(self, part: str, other: Result, other_part: str = "") -> float:
        """Median over rounds of the ratio of the blocks' medians; NaN where one was not measured."""
        mine, theirs = self.blocks.get(part, []), other.blocks.get(other_part or part, [])
        pairs = [statistics.median(a) / statistics.median(b) for a, b in zip(mine, theirs, strict=False)]
        return statistics.median(pairs) if pairs else float("nan")


def arguments() -> argparse.Namespace:
    """The command line."""
    shared = Path(os.environ.get("VLTRACK_SHARED", REPOSITORY.parent / "shared"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", default=list(TINY), metavar="NAME", help="models [the five tiny ones]")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="of this tree [all]")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="a tree whose eager fp32 is the reference")
    parser.add_argument("--text", action="store_true", help="tiny sizes by box and sentence [by a box, as NanoTrack]")
    parser.add_argument("--rounds", type=int, default=7, help="of blocks of frames [7]")
    parser.add_argument("--processes", type=int, default=3, help="fresh ones of each variant, and `vltrack track` [3]")
    parser.add_argument("--skip", nargs="+", choices=("targets", "find", "memory", "track", "machine"), default=[])
    parser.add_argument("--nanotrack", type=Path, default=shared / "peers" / "nanotrack_v2", help="its networks")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write dated Markdown and JSON files there")
    options = parser.parse_args()
    flags = processor_flags()
    if not flags & CRITERIA["bf16"]:  # OpenVINO would compute them in fp32 without a word
        options.variants = [one for one in options.variants if not one.endswith("bf16")]
    return options


# -- material -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Material:
    """What is tracked: the packaged clip enlarged to 720p and played back and forth.

    Attributes:
        clip: H.264 video; ``frames``: .npy file of its first decoded frames.
        box, text: of the target in the first frame.
    """

    clip: Path
    frames: Path
    box: tuple[float, ...]
    text: str

    def how(self, text: bool) -> list[str]:
        """Options of ``vltrack track``."""
        return ["--box", ",".join(map(str, self.box)), *(["--text", self.text] if text else [])]


def material() -> Material:
    """Make the files under ``build/speed``, once."""
    import cv2

    path, target = demo_clip()
    clip, frames = BUILD / "clip.mp4", BUILD / "frames.npy"
    with open_source(path) as source:
        scale = SIZE[0] / source.info.width
        if not clip.exists() or not frames.exists():
            BUILD.mkdir(parents=True, exist_ok=True)
            images = [cv2.resize(f.image, SIZE, interpolation=cv2.INTER_CUBIC) for f in source if f.image is not None]
            with VideoWriter(clip, width=SIZE[0], height=SIZE[1], rate=25.0, overwrite=True) as writer:
                for image in 2 * (images + images[-2:0:-1]):
                    writer.write(image)
    if not frames.exists():
        with open_source(clip, end=HELD) as source:
            np.save(frames, np.stack([frame.image for frame in source if frame.image is not None]))
    if target.box is None or target.text is None:
        raise SystemExit("The packaged clip has no box and sentence.")
    return Material(clip=clip, frames=frames, box=tuple(round(scale * v, 1) for v in target.box), text=target.text)


# -- measurements -------------------------------------------------------------------------------------


class Bench:
    """Measures one model: its variants in this tree, and eager fp32 of the other one."""

    def __init__(self, name: str, about: dict[str, Any], options: argparse.Namespace, what: Material) -> None:
        self.name, self.options, self.what = name, options, what
        self.tiny = name.endswith("-tiny")
        self.reads = "nlbbox" in about["modes"] and name not in BOX_ALONE
        self.text = self.reads and (options.text or not self.tiny)
        self.path = about["weights"] or str(BUILD / "weights" / f"{name}.safetensors")
        self.results = {key: Result() for key in ([BEFORE] if options.against else []) + options.variants}

    def measure(self) -> dict[str, Result]:
        """All variants, in turn."""
        self._frames()
        live = [key for key, result in self.results.items() if key != NANO and not result.error]
        note(f"{self.name}: fresh processes of {', '.join(live)}")
        if "memory" not in self.options.skip:
            for key in self.options.processes * live:
                self.results[key].add("fresh", self._fresh(key))
        if "track" not in self.options.skip and self.tiny:
            for key in self.options.processes * live:
                self.results[key].add("track", self._track(key))
        return self.results

    def environment(self, key: str) -> dict[str, str]:
        """Of a process that runs the variant's source tree on one thread; graphs are cached under ``build/speed``."""
        tree = self.options.against if key == BEFORE else REPOSITORY
        more = {"PYTHONPATH": str(tree.resolve() / "src"), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        return {"VLTRACK_CACHE": str(BUILD / "cache")} | dict(os.environ) | more

    def worker(self, key: str) -> Worker:
        """A child process for the variants of one tree."""
        own = [f"{name}={value}" for name, value in self.environment(key).items() if name in OWN]
        request = [str(self.what.frames), json.dumps(self.what.box), self.what.text]
        return Worker(["env", *own, sys.executable, str(CHILD), *request], threads=1)

    def _frames(self) -> None:
        """Updates, several targets and a start by text, of all variants frame block by frame block."""
        with ExitStack() as stack:
            workers = {tree: stack.enter_context(self.worker(tree)) for tree in {*self.results} & {BEFORE} | {"now"}}
            of = {key: workers[key if key == BEFORE else "now"] for key in self.results}
            if not Path(self.path).exists():
                workers.get(BEFORE, workers["now"]).ask({"do": "write", "name": self.name, "path": self.path})
            several = self.tiny and "targets" not in self.options.skip
            for key, worker in of.items():
                request = {"do": "load", "key": key, "name": self.path, "text": self.text, "targets": several}
                answer = worker.ask({**request, "hold": not self.tiny})
                self.results[key].error = answer.get("error", "")
                note(f"{self.name} {key}: {answer.get('error') or 'loaded'}")
            of = {key: worker for key, worker in of.items() if not self.results[key].error}
            if self.options.nanotrack.is_dir():
                of[NANO], self.results[NANO] = workers["now"], Result()
                place = str(self.options.nanotrack)
                more = {"text": False, "targets": False, "hold": False}
                of[NANO].ask({"do": "load", "key": NANO, "name": place, **more})
            for key, worker in of.items():  # graphs are compiled, and what does not run is left out
                self.results[key].error = worker.ask({"do": "frames", "key": key, "count": 2}).get("error", "")
            of = {key: worker for key, worker in of.items() if not self.results[key].error}
            for number in range(self.options.rounds):
                note(f"{self.name}, round {number + 1}")
                for key, worker in of.items():
                    self.results[key].add("blocks", self._block(worker, key, "frames", 12 if self.tiny else 2))
                for key, worker in of.items():
                    if several and key != NANO:
                        self.results[key].add("blocks", self._block(worker, key, "targets", 2))
                    if self.reads and key != NANO and "find" not in self.options.skip:
                        self.results[key].add("blocks", self._block(worker, key, "find", 1))

    def _block(self, worker: Worker, key: str, what: str, count: int) -> dict[str, Any]:
        if what == "frames" and key == NANO:
            answer = worker.ask({"do": what, "key": key, "count": count})
            return {"update": answer["update"]}
        return worker.ask({"do": what, "key": key, "count": count})

    def _fresh(self, key: str) -> dict[str, Any]:
        """Seconds of loading and peak memory of a process that loads and tracks."""
        request = [self.path, str(self.what.frames), json.dumps(self.what.box), self.what.text if self.text else ""]
        answer: dict[str, Any] = json.loads(run([str(CHILD), "--once", key, *request], self.environment(key)))
        return answer

    def _track(self, key: str) -> dict[str, float]:
        """``vltrack track`` over the clip, rows to standard output."""
        command = [sys.executable, "-m", "vltrack", "track", str(self.what.clip), *self.what.how(self.text)]
        command += ["--model", self.path, "--end", str(TRACKED), "--threads", "1", "--device", "cpu", "--quiet"]
        if key != BEFORE:
            backend, _, precision = key.partition("-")
            command += ["--backend", backend, "--precision", precision]
        spent, begin = children_seconds(), time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=self.environment(key))
        times, first = [], 0.0
        for line in process.stdout or ():
            times.append(time.perf_counter() - begin)
            if len(times) == 2 and line:  # the first line is the table's head
                first = sum(map(cpu_seconds, family(process.pid)))
        if process.wait() or len(times) < 3:
            note(f"{self.name} {key}: vltrack track failed; see its message above")
            return {}
        rest, done = children_seconds() - spent - first, len(times) - 2
        return {
            "first": first, "first_wall": times[1], "rate": done / (times[-1] - times[1]), "frame": 1000 * rest / done
        }  # fmt: skip


OWN = ("PYTHONPATH", "VLTRACK_CACHE")


def children_seconds() -> float:
    """CPU seconds of all child processes that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def run(command: Sequence[str], environment: dict[str, str]) -> str:
    """Standard output of a Python process."""
    return subprocess.run(
        [sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def machine(options: argparse.Namespace, what: Material) -> dict[str, Any]:
    """Matrix products by library and number type, and decoding: medians of three rounds in turn."""
    bench = Bench("machine-tiny", {"modes": (), "weights": "none"}, options, what)
    rates: dict[str, list[float]] = {}
    decoding = []
    with bench.worker("now") as worker:
        for _ in range(3):
            for name, value in worker.ask({"do": "matmul"}).items():
                rates.setdefault(name, []).append(value)
            decoded = run([str(CHILD), "--decode", str(what.clip)], bench.environment("now"))
            decoding.append(json.loads(decoded)["ms"])
    return {"rates": {name: statistics.median(each) for name, each in rates.items()},
            "decode": statistics.median(decoding)}  # fmt: skip


def note(message: str) -> None:
    """Progress."""
    sys.stderr.write(f"{datetime.datetime.now():%H:%M:%S} {message}\n")


# -- report -------------------------------------------------------------------------------------------


def main() -> None:
    """Measure, print, and write."""
    options = arguments()
    about = {row["name"]: row for row in list_models(options.names)}
    kept = options.out / f"speed-{datetime.date.today()}.json" if options.out else None
    record = json.loads(kept.read_text()) if kept and kept.exists() else {"machine": {}, "models": {}, "commands": []}
    what = material()
    if "machine" not in options.skip or not record["machine"]:
        record["machine"] = machine(options, what)
    command = f"python {' '.join(['benchmarks/speed.py', *sys.argv[1:]])}"
    for name in options.names:
        bench = Bench(name, about[name], options, what)
        results = {key: asdict(result) for key, result in bench.measure().items()}
        facts = {"text": bench.text, "load_average": os.getloadavg()[0], "against": commit(options.against)}
        record["models"][name] = {**facts, "results": results}
        record["commands"] = [*(one for one in record["commands"] if one != command), command]
        if kept is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            write_text(kept, json.dumps(record) + "\n")
    text = "\n".join(report(record, {row["name"]: row for row in list_models()})) + "\n"
    print(text)
    if kept is not None:
        write_text(kept.with_suffix(".md"), text)


def commit(tree: Path | None) -> str:
    """Short name of a checkout's commit."""
    if tree is None:
        return ""
    return subprocess.run(
        ["git", "-C", tree, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()


def report(record: dict[str, Any], about: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Markdown lines."""
    models = {
        name: {key: Result(**result) for key, result in one["results"].items()}
        for name, one in record["models"].items()
    }
    before = {one["against"] for one in record["models"].values() if one["against"]}
    rates = record["machine"]["rates"]
    yield from ("# What a frame costs", "")
    yield f"{datetime.date.today()}, {processor()}, one thread. CPU time, medians of interleaved rounds; *before* is"
    yield f"eager fp32 of commit {', '.join(before) or '(not measured)'}; ratios are medians of the rounds' ratios."
    yield f"A 720p frame; NanoTrack v2 in OpenCV on the same frames. Commit {commit(REPOSITORY)}."
    yield from (f"`{one}`" for one in record["commands"])
    yield from ("", "## The machine", "")
    yield f"Matrix products, one thread, GFLOP/s: {', '.join(f'{name} {value:.0f}' for name, value in rates.items())}."
    yield f"Decoding a 720p H.264 frame, the decoder process with it: {record['machine']['decode']:.1f} ms of CPU."
    yield from ("", "## A frame", "")
    yield from frame_table(models, about, max(rates.values()))
    yield from ("", "## A process", "")
    yield from process_table(models)
    if {UVLTRACK, LITETRACK} <= models.keys():
        yield from ("", "## The LiteTrack authors' table", "")
        yield from seed_table(models, about)
    errors = [f"- {n} {key}: {r.error}" for n, each in models.items() for key, r in each.items() if r.error]
    if errors:
        yield from ("", "## Not measured", "", *errors)


def frame_table(models: dict[str, dict[str, Result]], about: dict[str, dict[str, Any]], best: float) -> Iterator[str]:
    """Milliseconds by part, ratios, and the share of the machine's rate."""
    yield ("| model | variant | update ms | network | crop | rest | of the first row | of NanoTrack | share of the rate"
           f" | {TARGETS} targets / 1: CPU | wall | text search ms |")  # fmt: skip
    yield "|---" * 12 + "|"
    for name, results in models.items():
        first = next(iter(results.values()))
        for key, one in results.items():
            if one.error or key == NANO:
                continue
            work = about[name]["multiplications"]
            operations = 2 * (work["frame_kept"] or work["frame"])
            cells = [f"{one.median(part):.1f}" for part in ("update", "network", "crop", "rest")]
            cells += [f"{one.ratio('update', first):.3f}"]
            cells += [f"{one.ratio('update', results[NANO]):.2f}" if NANO in results else "-"]
            cells += [f"{operations / one.median('network') / 1e6 / best:.0%}"]
            cells += [f"{one.ratio('targets', one, 'update'):.2f}", f"{one.ratio('targets_wall', one, 'one_wall'):.2f}"]
            cells += [f"{one.median('find'):.0f}"]
            yield f"| {name} | {key} | {' | '.join(cells)} |".replace("nan", "-")


def process_table(models: dict[str, dict[str, Result]]) -> Iterator[str]:
    """Loading, memory, the first box, and the rate of ``vltrack track``."""
    yield ("| model | variant | load s (CPU) | peak MB | command to first box: CPU s | wall s"
           " | `vltrack track`: CPU ms a frame | frames/s |")  # fmt: skip
    yield "|---" * 8 + "|"
    for name, results in models.items():
        for key, one in results.items():
            if one.fresh or one.track:
                parts = {"load": 2, "peak": 0, "first": 2, "first_wall": 2, "frame": 1, "rate": 1}
                cells = [f"{one.median(part):.{digits}f}" for part, digits in parts.items()]
                yield f"| {name} | {key} | {' | '.join(cells)} |".replace("nan", "-")


def seed_table(models: dict[str, dict[str, Result]], about: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The rows of LiteTrack's table: published on an RTX 3090, ours on this processor with random weights."""
    both = (UVLTRACK, LITETRACK)
    common = [key for key in models[UVLTRACK] if key in models[LITETRACK] and key != NANO]
    variants = [key for key in common if not any(models[name][key].error for name in both)]
    yield "| | published: UVLTrack | LiteTrack | ratio | variant | ours: UVLTrack | LiteTrack | ratio |"
    yield "|---" * 8 + "|"

    def number(text: str) -> float:
        return float(text.split()[0])

    def row(title: str, variant: str, values: list[float], form: str) -> str:
        published = SEED[title]
        cells = [*published, f"{number(published[1]) / number(published[0]):.2f}", variant]
        cells += [*(f"{value:{form}}" for value in values), f"{values[1] / values[0]:.2f}"]
        return f"| {title} | {' | '.join(cells)} |"

    counts = [about[name] for name in both]
    work = [one["multiplications"] for one in counts]
    yield row("G per frame, text only", "", [one["ground"] / 1e9 for one in work], ".1f")
    yield row("G per frame, tracking", "", [(one["frame_kept"] or one["frame"]) / 1e9 for one in work], ".1f")
    yield row("parameters (of LiteTrack: that train)", "", [o["parameters_trained"] / 1e6 for o in counts], ".1f")
    for key in variants:
        ours = [models[name][key] for name in both]
        yield row("frames/s, text only", key, [1000 / one.median("find") for one in ours], ".2f")
        yield row("frames/s, tracking", key, [1000 / one.median("update") for one in ours], ".2f")
        yield row("memory", f"{key}, peak MB", [one.median("peak") for one in ours], ".0f")


if __name__ == "__main__":
    main()
