"""Does fine-tuning on the first part of a video help on the rest of it? An experiment; no weights are kept.

    python benchmarks/finetune.py --out benchmarks/results
    python benchmarks/finetune.py --clips otb_Dog tld_car --set learning_rate=1e-4 --steps 150

The first 60 % of the frames of each clip are a folder of clips of one's own, on which ``vltrack train`` fine-tunes one
tracker. Success AUC on the last 40 %, started from the box of their first frame with the target, before and after.
See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import torch

import vltrack
from vltrack.api.inputs import read_settings
from vltrack.checkpoints import store
from vltrack.core.files import write_text
from vltrack.datasets.reader import open_dataset
from vltrack.datasets.sequences import Sequence
from vltrack.tracking.tracker import default_policy
from vltrack.training.own_clips import as_images, measure, part_of

CLIPS = ("otb_Dog", "otb_Toy", "tld_david")
"""Followed with a success between 0.4 and 0.7 in their last part, without look-alikes and long absence."""
SHARE = 0.6


def arguments() -> argparse.Namespace:
    """The command line."""
    shared = Path(os.environ.get("VLTRACK_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--real", type=Path, default=shared / "real" / "open", help="folder of clips")
    parser.add_argument("--clips", nargs="+", default=list(CLIPS), metavar="NAME", help="which of them")
    parser.add_argument("--model", default="litetrack-tiny", help="the tracker to start from")
    parser.add_argument("--steps", type=int, help="optimizer steps [of the recipe]")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="KEY=VALUE of the recipe")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write a dated Markdown file there")
    return parser.parse_args()


def write_clip(clip: Sequence, folder: Path) -> None:
    """Write a clip with images as ``vltrack datasets`` reads it."""
    (folder / "img").mkdir(parents=True)
    for number, file in enumerate(clip.files or (), 1):
        shutil.copy(file, folder / "img" / f"{number:08d}{file.suffix}")
    write_text(folder / "groundtruth.txt", "".join(",".join(map(str, box)) + "\n" for box in clip.boxes.tolist()))
    write_text(folder / "absent.txt", "".join(f"{int(gone)}\n" for gone in clip.absent))
    write_text(folder / "nlp.txt", clip.sentence + "\n")


def table(before: dict[str, dict[str, float]], after: dict[str, dict[str, float]]) -> list[str]:
    """Lines of the Markdown table."""
    lines = ["| clip | start | before | after | difference |", "|---|---|---|---|---|"]
    for name, modes in before.items():
        for mode, was in modes.items():
            now = after[name][mode]
            lines.append(f"| {name} | {mode} | {was:.3f} | {now:.3f} | {now - was:+.3f} |")
    return lines


def main() -> None:
    """Fine-tune and measure."""
    options = arguments()
    tracker, _, size = options.model.rpartition("-")
    policy, device = default_policy(tracker, size), torch.device("cpu")
    known = {clip.name: clip for clip in open_dataset(options.real, name="folder").sequences}
    with tempfile.TemporaryDirectory() as scratch:
        tests: dict[str, Sequence] = {}
        for name in options.clips:
            clip = as_images(known[name], Path(scratch) / "frames")
            cut = int(SHARE * len(clip))
            write_clip(part_of(clip, range(cut)), Path(scratch) / "clips" / name)
            tests[name] = part_of(clip, range(cut, len(clip)))

        def successes(weights: str | Path) -> dict[str, dict[str, float]]:
            torch.set_num_threads(1)
            model = store.load(weights)[0]
            return {name: measure(model, [test], device, policy) for name, test in tests.items()}

        before = successes(options.model)
        done = vltrack.train(
            tracker, size=size, start=options.model, data=Path(scratch) / "clips", out=Path(scratch) / "run",
            steps=options.steps, settings=read_settings(options.settings), device="cpu", quiet=False,
        )  # fmt: skip
        after = successes(done.weights)
        own = (done.out / "finetune.json").read_text()
    lines = [
        "# Fine-tuning on the first part of videos",
        "",
        f"- date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        f"- command: python benchmarks/finetune.py {' '.join(sys.argv[1:])}".rstrip(),
        f"- machine: {os.cpu_count()} logical cores, torch {torch.__version__}, Python {platform.python_version()}",
        f"- trained on the first {SHARE:.0%} of the frames of each clip, measured on the rest",
        "",
        *table(before, after),
        "",
        f"What the run held out of its own part, and measured itself: `{' '.join(own.split())}`",
    ]
    print("\n".join(lines))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_text(options.out / f"finetune-{datetime.datetime.now(datetime.UTC):%Y-%m-%d}.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
