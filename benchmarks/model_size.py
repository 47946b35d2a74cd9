"""Sizes of the trackers: parameters in all, trained and used when they run, and multiplications per frame.

Counted by ``vltrack.models.profile`` on torch's meta device, without memory and without weights: matrix
products, convolutions and attention; G is 10^9 multiplications with their additions (FLOPs / 2). Nothing is
timed here.

    python benchmarks/model_size.py
    python benchmarks/model_size.py --out benchmarks/results
    python benchmarks/model_size.py --record                 # what `vltrack models` shows, after a change
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
from pathlib import Path

import torch

from vltrack.core.files import write_text
from vltrack.models import MODELS
from vltrack.models.profile import Size, Work, count_parameters, count_work, without_memory

RECORD = Path(__file__).resolve().parents[1] / "src" / "vltrack" / "models" / "counted.json"
PUBLISHED = """
Published: UVLTrack-B 167.7 M parameters; LiteTrack 108.4 M, which counts what trains (by the released code
the whole network has about 169.5 M). The LiteTrack authors' table gives 47.2 G tracking and 39.8 G
grounding for LiteTrack, 43.7 G and 36.7 G for UVLTrack. How they counted is not published; ours leaves out
what is computed once per target. Their star layers of full width are random at every call and are not
parameters; ours are, with a bottleneck of 85. Our base leaves out the three layers of UVLTrack's prompter
that have no effect. All-in-One: about 116 M when it runs and 63 M of aligners in training; OSTrack-256 with
candidate elimination 21.5 G, which leaves out the products inside attention (1.1 G). STARK-ST101 47.2 M and
20.4 G, and about 4.8 M of new parts for BIT-Tracker, which has no decoder (9.5 M). AITrack about 199 M that
train; CLIP's two towers are frozen. SATracker: nothing is published. Every difference is explained on the
tracker's page in docs/trackers/.

- *in all*: every parameter; *training*: those that train from the start under the freeze plan; *running*:
  those that a tracker reads. Freezing does not make the network smaller when it runs.
- *frame*: one tracked frame by box and sentence, template and sentence encoded before, all search tokens;
  *kept 70 %*: with the share of search tokens that training aims at, rounded up to a bucket, where the image
  decides how many stay; *text only*: one frame searched by the sentence; *sentence*, *start*: once
  per target.
"""
HEADS = ("", "in all", "training", "running", "frame", "kept 70 %", "text only", "sentence", "start")


def table(sizes: list[tuple[str, Size, Work]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(HEADS)} |".replace("|  |", "| |"), "|" + "---|" * len(HEADS)]
    for name, size, work in sizes:
        counts = [f"{n / 1e6:.3f} M" for n in (size.total, size.trainable, size.running)]
        done = [work.frame, work.frame_kept, work.ground, work.text, work.start]
        cells = [name, *counts, *("-" if n is None else f"{n / 1e9:.2f} G" for n in done)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def counted(names: list[str]) -> list[tuple[str, Size, Work]]:
    """Every size whose ``tracker-size`` is among ``names``; all where there are none."""
    sizes = []
    for card in MODELS.values():
        for size in card.sizes:
            if not names or f"{card.name}-{size}" in names:
                model = without_memory(card, size)
                sizes.append((f"{card.name}-{size}", count_parameters(model), count_work(model)))
    return sizes


def record(sizes: list[tuple[str, Size, Work]]) -> dict[str, dict[str, object]]:
    """The counts by name, as ``vltrack models`` reads them."""
    return {name: dataclasses.asdict(size) | {"work": dataclasses.asdict(work)} for name, size, work in sizes}


def main() -> None:
    """Count every size of every tracker, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these, for example litetrack-tiny")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write model_size.md there")
    parser.add_argument("--record", action="store_true", help="write the counts next to the models")
    options = parser.parse_args()
    if options.record and options.names:
        parser.error("--record takes all sizes")
    command = "python benchmarks/model_size.py" + (" --out benchmarks/results" if options.out else "")
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    facts = f"{date}, torch {torch.__version__}: `{command}`"
    sizes = counted(options.names)
    text = f"# Sizes of the trackers\n\n{facts}\n\n{table(sizes)}\n{PUBLISHED}"
    print(text)
    if options.record:
        write_text(RECORD, json.dumps(record(sizes), indent=1) + "\n")
    if options.out is not None:
        write_text(options.out / "model_size.md", text)


if __name__ == "__main__":
    main()
