"""How fast training is: two source trees in turn, each by its own `vltrack train`.

    git worktree add ../before COMMIT
    python benchmarks/training.py --data ../shared/train --against ../before --out benchmarks/results

Every round continues a training of each tree and stops it once steps 51 to 75 are in its log. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from child import REPOSITORY
from scoring import processor

from vltrack.core.files import write_text

CUTOUTS = "cutouts.npz"
WARM, DONE = 50, 75
"""The log has a row every 25 steps; the first ends the warm-up (with the first picture of samples), the second holds
the measured steps."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One tree in one round.

    Attributes:
        rate: pairs (search views) a second.
        cpu: CPU milliseconds a pair, of all processes of the run.
        waiting: share of the time that the training waited for data; None in trees that do not log it.
    """

    rate: float
    cpu: float
    waiting: float | None


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="still images (index.jsonl)")
    parser.add_argument("--against", type=Path, required=True, metavar="CHECKOUT", help="the other source tree")
    parser.add_argument("--tracker", nargs="+", default=["litetrack"], help="tiny sizes [litetrack]")
    parser.add_argument("--processes", type=int, default=2, help="training processes [2]")
    parser.add_argument("--batch", type=int, default=16, help="samples, of two pairs each, a step [16]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=REPOSITORY / "build" / "training", help="runs to continue")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write dated Markdown and JSON files there")
    return parser.parse_args()


def start(tree: Path, tracker: str, options: argparse.Namespace, out: Path, *more: str) -> subprocess.Popen[bytes]:
    """A training of a tree, which does not validate."""
    command = [sys.executable, "-m", "vltrack", "train", tracker, "--size", "tiny", "--quiet"]
    command += ["--data", str(options.data.resolve()), "--out", str(out), "--steps", "500"]
    command += ["--batch", str(options.batch), "--processes", str(options.processes)]
    command += ["--set", "words=random", "--set", "validate_every=9999", *more]
    environment = os.environ | {"PYTHONPATH": str(tree.resolve() / "src")}
    return subprocess.Popen(command, cwd=out.parent, env=environment, stdout=subprocess.DEVNULL)


def stop(run: subprocess.Popen[bytes]) -> None:
    """Kill all processes of a training."""
    for process in family(run.pid):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    run.wait()


def prepare(tree: Path, tracker: str, options: argparse.Namespace) -> Path:
    """A run with its first checkpoint, for which objects were cut out of the images: neither is timed."""
    kept: Path = options.cache.resolve() / f"{tree.resolve().name}-{tracker}-{options.batch}"
    while not [*kept.glob("last.json"), *kept.glob("step-*.json")]:
        kept.parent.mkdir(parents=True, exist_ok=True)
        run = start(tree, tracker, options, kept, "--set", "save_every=1")
        while run.poll() is None and not [*kept.glob("last.json"), *kept.glob("step-*.json")]:
            time.sleep(0.1)
        ended = run.poll()
        stop(run)
        if ended is not None:
            raise SystemExit(f"{tree} does not train; see its message above.")
    return kept


def measure(tree: Path, tracker: str, options: argparse.Namespace, kept: Path) -> Figures:
    """Continue a copy of the run until step 75 is in its log."""
    with tempfile.TemporaryDirectory(prefix="vltrack-training-") as folder:
        out = Path(folder) / "run"
        shutil.copytree(kept, out, ignore=shutil.ignore_patterns(".*", "*.csv"))
        run = start(tree, tracker, options, out, "--set", "save_every=9999", "--resume")
        try:
            begin = wait_for(run, out / "log.csv", WARM)[1]
            row, end = wait_for(run, out / "log.csv", DONE)
        finally:
            stop(run)
    pairs = 2 * options.batch * (DONE - WARM)
    waiting = float(row["waiting"]) if "waiting" in row else None
    return Figures(rate=float(row["pairs_per_s"]), cpu=1000 * (end - begin) / pairs, waiting=waiting)


def wait_for(run: subprocess.Popen[bytes], log: Path, step: int) -> tuple[dict[str, str], float]:
    """The log's row of a step, once it is there, and the CPU seconds of the run until then."""
    while run.poll() is None:
        if log.exists():
            with log.open(newline="") as file:
                row = next((row for row in csv.DictReader(file) if row["step"] == str(step)), None)
            if row is not None and row["pairs_per_s"]:
                return row, sum(map(cpu_seconds, family(run.pid)))
        time.sleep(0.1)
    raise SystemExit(f"A training ended with code {run.returncode}; see its message above.")


def family(root: int) -> list[int]:
    """A process and its descendants, on Linux."""
    parents = {int(path.name): stat(path.name) for path in Path("/proc").glob("[0-9]*")}
    found = [root]
    for process in found:
        found += [child for child, fields in parents.items() if fields and int(fields[1]) == process]
    return found


def stat(process: int | str) -> list[str]:
    """Fields of /proc/PID/stat behind the name, from the state on; empty for a process that is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_seconds(process: int) -> float:
    """CPU seconds of a process so far, user and system."""
    fields = stat(process)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def main() -> None:
    """Time both trees in turn and say what came of it."""
    options = arguments()
    trees = {"before": options.against, "now": REPOSITORY}
    found: dict[str, dict[str, list[Figures]]] = {}
    for tracker in options.tracker:
        kept = {name: prepare(tree, tracker, options) for name, tree in trees.items()}
        found[tracker] = {name: [] for name in trees}
        for number in range(options.rounds):
            for name, tree in trees.items():
                found[tracker][name].append(measure(tree, tracker, options, kept[name]))
                sys.stderr.write(f"{tracker}, round {number + 1}, {name}: {found[tracker][name][-1]}\n")
    text = "\n".join(report(options, found)) + "\n"
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        name = f"training-{datetime.date.today()}"
        write_text(options.out / f"{name}.md", text)
        rows = {t: {n: [asdict(f) for f in each] for n, each in trees.items()} for t, trees in found.items()}
        write_text(options.out / f"{name}.json", json.dumps(rows, indent=1) + "\n")


def report(options: argparse.Namespace, found: dict[str, dict[str, list[Figures]]]) -> list[str]:
    """Markdown lines: medians, and medians of the rounds' ratios."""
    commits = [
        subprocess.run(["git", "-C", tree, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout
        for tree in (options.against, REPOSITORY)
    ]
    rows = []
    for tracker, trees in found.items():
        before, now = trees["before"], trees["now"]
        waits = [f.waiting for f in now if f.waiting is not None]
        rates = [statistics.median(f.rate for f in each) for each in (before, now)]
        costs = [statistics.median(f.cpu for f in each) for each in (before, now)]
        faster = statistics.median(b.rate / a.rate for a, b in zip(before, now, strict=True))
        leaner = statistics.median(a.cpu / b.cpu for a, b in zip(before, now, strict=True))
        waiting = f"{statistics.median(waits):.1%}" if waits else ""
        cells = [*(f"{rate:.1f}" for rate in rates), f"{faster:.2f}", *(f"{cost:.0f}" for cost in costs)]
        rows.append(f"| {tracker}-tiny | {' | '.join(cells)} | {leaner:.2f} | {waiting} |")
    return [
        f"# Training on two source trees, {options.processes} processes, batch {options.batch}",
        "",
        f"{datetime.date.today()}, {processor()}, load {os.getloadavg()[0]:.1f}; commits"
        f" {' and '.join(c.strip() for c in commits)}. Medians of {options.rounds} rounds, each of which trains both"
        f" in turn; steps {WARM + 1} to {DONE} of each training. A pair is a search view.",
        "`python " + " ".join(["benchmarks/training.py", *sys.argv[1:]]) + "`",
        "",
        "| | pairs/s before | now | ratio | CPU ms a pair before | now | ratio | waiting for data, now |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]


if __name__ == "__main__":
    main()
