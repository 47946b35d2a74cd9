"""Find what sentences name in an image: proposals of the detector, ranked by the grounder (our design)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from vltrack.checkpoints import cards
from vltrack.core.types import Candidate, Image, clip_xywh, iou_xywh
from vltrack.export.prepare import graphs_if_possible
from vltrack.nn.runtime import available_cores, choose_cpu_or_gpu, choose_runtime, open_graphs
from vltrack.prep.tokenizers import TextTokenizer, load_tokenizer
from vltrack.tracking.proposals import HEAD, PAIR, Proposals, Proposer

SAME_OBJECT = 0.55
"""IoU from which two boxes count as one object; its probability is the sum of theirs."""


class Grounding:
    """A loaded grounder with its vocabulary, in fp32: its boxes are computed in pixels, too coarse in bf16."""

    def __init__(self, proposer: Proposer, reader: TextTokenizer) -> None:
        self.proposer, self.reader = proposer, reader

    @classmethod
    def load(
        cls, device: str = "auto", backend: str = "auto", threads: int | None = None, path: Path = cards.GROUNDER
    ) -> Self:
        """Load the weights that ship, or those of a file.

        Args:
            device, backend: see ``Tracker.load``. threads: of a graph; None takes all cores.
            path: a .safetensors file with its card next to it.

        Raises:
            ModelNotFound, CheckpointCorrupt, CheckpointMismatch, ...: see ``checkpoints.store.load``.
            TokenizerMismatch: the vocabulary is not the one of the weights.
            UsageError, ResourceError: see ``nn.runtime.choose_runtime``.
        """
        device = choose_cpu_or_gpu(device)
        backend, _ = choose_runtime(backend, "fp32", device)
        card, reader = cards.identify(cards.find_grounder(path), of="grounder"), load_tokenizer("bert")
        shapes = cards.shapes_of(path)
        cards.check_vocabulary(card, shapes, sha256=reader.sha256, pieces=reader.size, table="table")
        found = None if backend == "torch" else graphs_if_possible(path, card["sha256"])
        if found is None:
            from vltrack.checkpoints import store

            return cls(Proposer.in_torch(store.load_grounder(path)[0], device), reader)
        folder, manifest = found
        threads = threads or available_cores()
        graphs = open_graphs(folder, manifest, backend, "fp32", threads, folder / "compiled")
        return cls(Proposer(lambda name, arrays: graphs[name](arrays), manifest["sizes"]), reader)

    def find(self, image: Image, texts: Sequence[str]) -> list[list[Candidate]]:
        """Rank the objects of an image by how well each sentence names them; one pass of the detector for all.

        Args:
            image: (H, W, 3) RGB uint8.
            texts: English sentences.

        Returns:
            Per sentence the distinct objects, best first. 1 - sum(scores) is the probability that none fits.

        Raises:
            PromptEmpty, PromptTooLong, PromptInvalid: see ``prep.prompts``.
        """
        encoded = [self.reader.encode(text, self.proposer.sizes["max_words"]) for text in texts]
        found = self.proposer.propose(image)
        height, width = image.shape[:2]
        corners_N4 = found.box_N4.astype(np.float64) * (width, height, width, height)
        boxes_N4 = np.concatenate([corners_N4[:, :2], corners_N4[:, 2:] - corners_N4[:, :2]], axis=1)
        boxes_N4 = np.stack([clip_xywh(box, width, height) for box in boxes_N4])
        same_NN = np.stack([iou_xywh(boxes_N4, box) for box in boxes_N4]) > SAME_OBJECT
        labels = _labels(found, self.proposer.sizes["classes"])
        ranked = [self.proposer.rank(found, each.ids[each.mask]).astype(np.float64) for each in encoded]
        return [_distinct(boxes_N4, same_NN, row[:-1], labels) for row in ranked]

    def warnings(self, text: str) -> tuple[str, ...]:
        """Warnings about a sentence: parts that are not read."""
        return self.reader.encode(text, self.proposer.sizes["max_words"]).warnings


def _labels(found: Proposals, classes: Sequence[str]) -> list[str]:
    names = [classes[n] for n in found.logits_NK.argmax(axis=1)]
    made = []
    for name, kind, (first, second) in zip(names, found.kind_N, found.owners_N2, strict=True):
        if kind == HEAD:
            name = f"head of {names[first]}"
        elif kind == PAIR:
            name = f"{names[first]} and {names[second]}"
        made.append(name)
    return made


def _distinct(
    boxes_N4: np.ndarray, same_NN: np.ndarray, probability_N: np.ndarray, labels: list[str]
) -> list[Candidate]:
    """Objects, best first: boxes that overlap enough are one, with the sum of their probabilities."""
    left = np.argsort(-probability_N, kind="stable")
    objects = []
    while len(left):
        best, joined = left[0], same_NN[left[0], left]
        total = float(probability_N[left[joined]].sum())
        objects.append(Candidate(box=boxes_N4[best], score=min(total, 1.0), label=labels[best]))
        left = left[~joined]
    return sorted(objects, key=lambda found: -found.score)
