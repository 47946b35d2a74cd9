"""Measure whether the text is used on images that no training used: two sentences for each image.

    python benchmarks/held_out_words.py litetrack-tiny sa-tracker-tiny --data ../shared/train

The images are those of the ``val`` split of a folder of training images (docs/train.md), real ones and pasted
scenes, text only; samples 2k and 2k + 1 are one image with two sentences. Nothing here depends on time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from vltrack import Tracker
from vltrack.core.errors import GroundingFailed
from vltrack.core.types import Box, iou_xywh
from vltrack.datasets.cutouts import CutoutSet, build_cutouts
from vltrack.datasets.images import ImageSet
from vltrack.training.pairs.sampler import PairConfig, PairSampler, Sample

SEED = 77
MAX_OVERLAP = 0.5
"""Two targets of one image count as a pair below this overlap."""


def samples(data: Path, cutouts: Path | None, count: int) -> list[Sample]:
    """``count`` samples of the held-out images; objects are cut out if no file of them is given."""
    config = PairConfig(scene_share=1.0, text_share=0.0, negative_share=0.0, recolor_share=0.35, split="val")
    images = ImageSet.load(data)
    with tempfile.TemporaryDirectory() as folder:
        cut = CutoutSet.load(cutouts) if cutouts else build_cutouts(images, Path(folder) / "cutouts.npz")
        sampler = PairSampler(config, images, cut)
        return [sampler.sample(SEED, 0, index) for index in range(count)]


def found(tracker: Tracker, sample: Sample) -> Box:
    """The box x, y, w, h for the sentence in the first view; zeros where there is none."""
    try:
        return np.asarray(tracker.init(sample.searches[0], text=sample.text).box, dtype=np.float64)
    except GroundingFailed:
        return np.zeros(4)


def measure(weights: str, asked: list[Sample]) -> dict[str, float]:
    """Mean overlap, share at 0.5, and share of pairs in which both sentences give their own target."""
    tracker = Tracker.load(weights)
    boxes = np.stack([found(tracker, sample) for sample in asked])
    annotated = np.stack([sample.boxes[0] for sample in asked]).astype(np.float64)
    own = np.asarray(iou_xywh(boxes, annotated))
    other = np.asarray(iou_xywh(boxes, annotated[np.arange(len(asked)) ^ 1]))
    pairs = np.asarray(iou_xywh(annotated[0::2], annotated[1::2])) < MAX_OVERLAP
    right = np.asarray(own > other)
    both = right[0::2] & right[1::2]
    return {
        "overlap": float(own.mean()),
        "at_0.5": float((own >= 0.5).mean()),
        "pairs": int(pairs.sum()),
        "both_right": float(both[pairs].mean()),
    }


def main() -> int:
    """Print one line for each of the weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("weights", nargs="+", metavar="NAME|PATH", help="our models")
    parser.add_argument("--data", type=Path, required=True, help="folder of training images")
    parser.add_argument("--cutouts", type=Path, help="cutouts.npz of an earlier run, which saves minutes")
    parser.add_argument("--samples", type=int, default=160, help="an even number")
    options = parser.parse_args()
    asked = samples(options.data, options.cutouts, options.samples // 2 * 2)
    sys.stdout.write("| weights | overlap | at 0.5 | pairs | both right |\n|---|---|---|---|---|\n")
    for weights in options.weights:
        row = measure(weights, asked)
        cells = f"{row['overlap']:.3f} | {row['at_0.5']:.3f} | {row['pairs']} | {row['both_right']:.3f}"
        sys.stdout.write(f"| {Path(weights).stem} | {cells} |\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
