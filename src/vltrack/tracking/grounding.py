"""Find what sentences name in an image: proposals of the detector, ranked by the grounder (our design)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from vltrack.checkpoints import store
from vltrack.core.types import Candidate, Image, clip_xywh, iou_xywh
from vltrack.models.grounder import HEAD, PAIR, Grounder, Proposals
from vltrack.nn.picodet import CLASSES, MEAN, STD
from vltrack.prep.crops import fit_side
from vltrack.prep.tokenizers import TextTokenizer, load_tokenizer

SAME_OBJECT = 0.55
"""IoU from which two boxes count as one object; its probability is the sum of theirs."""


class Grounding:
    """A loaded grounder with its vocabulary, on a device."""

    def __init__(self, grounder: Grounder, reader: TextTokenizer, device: torch.device) -> None:
        self.grounder, self.reader, self.device = grounder.to(device), reader, device

    @classmethod
    def load(cls, device: torch.device | str) -> Self:
        """Load the weights that ship.

        Raises:
            ModelNotFound, CheckpointCorrupt, CheckpointMismatch, ...: see ``checkpoints.store.load``.
            TokenizerMismatch: the vocabulary is not the one of the weights.
        """
        grounder, card = store.load_grounder()
        reader = load_tokenizer("bert")
        store.check_vocabulary(card, grounder, sha256=reader.sha256, pieces=reader.size, table="table")
        return cls(grounder, reader, torch.device(device))

    @torch.inference_mode()
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
        encoded = [self.reader.encode(text, self.grounder.config.max_words) for text in texts]
        ids_QL, valid_QL = (
            torch.from_numpy(np.stack([getattr(e, name) for e in encoded])).to(self.device) for name in ("ids", "mask")
        )
        found = self.proposals(image)
        probability_QM = self.rank(found, ids_QL, valid_QL)
        height, width = image.shape[:2]
        corners_N4 = found.box_N4.cpu().double().numpy() * (width, height, width, height)
        boxes_N4 = np.concatenate([corners_N4[:, :2], corners_N4[:, 2:] - corners_N4[:, :2]], axis=1)
        boxes_N4 = np.stack([clip_xywh(box, width, height) for box in boxes_N4])
        labels = _labels(found)
        return [_distinct(boxes_N4, row[:-1], labels) for row in probability_QM.cpu().double().numpy()]

    def warnings(self, text: str) -> tuple[str, ...]:
        """Warnings about a sentence: parts that are not read."""
        return self.reader.encode(text, self.grounder.config.max_words).warnings

    @torch.inference_mode()
    def proposals(self, image: Image) -> Proposals:
        """The boxes of an image, whatever the sentence."""
        inputs = [fit_side(image, side, MEAN, STD) for side in self.grounder.config.scales]
        return self.grounder.propose([tensor.to(self.device) for tensor, _ in inputs], [shape for _, shape in inputs])

    def rank(self, found: Proposals, ids_QL: Tensor, valid_QL: Tensor) -> Tensor:
        """(Q, N + 1) probabilities of the boxes and, last, of "none fits"; each row sums to 1."""
        count = len(ids_QL)
        x_1NC = self.grounder.embed_boxes(
            found.box_N4[None], found.box_N4.new_tensor([found.aspect]), found.logits_NK[None],
            found.feature_NF[None], found.color_NG[None], found.kind_N[None], found.owners_N2[None],
        )  # fmt: skip
        logits_QM, _ = self.grounder.rank(
            x_1NC.expand(count, -1, -1), found.logits_NK.expand(count, -1, -1), found.kind_N.expand(count, -1),
            torch.ones_like(found.kind_N, dtype=torch.bool).expand(count, -1), ids_QL, valid_QL,
        )  # fmt: skip
        return (logits_QM / self.grounder.temperature).softmax(dim=1)


def _labels(found: Proposals) -> list[str]:
    names = [CLASSES[n] for n in found.logits_NK.argmax(dim=1).tolist()]
    kinds, owners = found.kind_N.tolist(), found.owners_N2.tolist()
    made = []
    for name, kind, (first, second) in zip(names, kinds, owners, strict=True):
        if kind == HEAD:
            name = f"head of {names[first]}"
        elif kind == PAIR:
            name = f"{names[first]} and {names[second]}"
        made.append(name)
    return made


def _distinct(boxes_N4: np.ndarray, probability_N: np.ndarray, labels: list[str]) -> list[Candidate]:
    """Objects, best first: boxes that overlap enough are one, with the sum of their probabilities."""
    left = list(np.argsort(-probability_N, kind="stable"))
    objects = []
    while left:
        best = left[0]
        same = [n for n in left if iou_xywh(boxes_N4[best], boxes_N4[n]) > SAME_OBJECT]
        total = float(probability_N[same].sum())
        objects.append(Candidate(box=boxes_N4[best], score=min(total, 1.0), label=labels[best]))
        left = [n for n in left if n not in same]
    return sorted(objects, key=lambda found: -found.score)
