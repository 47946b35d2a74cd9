"""Candidates of a sentence: distinct objects in the image, probabilities, and weights that are refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from vltrack.checkpoints import store
from vltrack.core.errors import PromptEmpty, TokenizerMismatch
from vltrack.core.types import Candidate, iou_xywh
from vltrack.models.grounder import Grounder, GrounderConfig
from vltrack.nn.picodet import CLASSES
from vltrack.prep.tokenizers import load_tokenizer
from vltrack.tracking.grounding import SAME_OBJECT, Grounding
from vltrack.tracking.proposals import Proposer

CONFIG = GrounderConfig(
    scales=(64, 96), threshold=0.0, overlap=0.8, proposals=40, width=32, heads=2, text_layers=1, joint_layers=1,
    table_width=8, max_words=12,
)  # fmt: skip
TEXTS = ["the red car on the left", "the dog", "a person in a blue coat next to the tree"]


@pytest.fixture(scope="module")
def grounding() -> Grounding:
    """Random weights that propose a lot, with probabilities that differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        grounder = Grounder(CONFIG)
        grounder.table.copy_(torch.randint(-127, 128, grounder.table.shape).to(torch.int8))
        grounder.table_scale.fill_(1 / 64)
    grounder.temperature.fill_(0.3)
    return Grounding(Proposer.in_torch(grounder.eval()), load_tokenizer("bert"))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)


def test_candidates_are_distinct_objects_best_first(grounding: Grounding, image: np.ndarray) -> None:
    found = grounding.find(image, TEXTS)
    assert len(found) == len(TEXTS)
    merged = 0
    for candidates in found:
        boxes = np.stack([c.box for c in candidates])
        scores = [c.score for c in candidates]
        assert boxes.dtype == np.float64
        assert (boxes[:, 2:] > 0).all()
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= (140, 90)).all()
        assert all(a >= b for a, b in pairwise(scores))
        assert 0 < sum(scores) < 1
        for n, box in enumerate(boxes):
            assert iou_xywh(boxes[n + 1 :], box).max(initial=0) <= SAME_OBJECT
        merged += len(grounding.proposer.propose(image).box_N4) - len(boxes)
        assert {name for c in candidates for name in c.label.removeprefix("head of ").split(" and ")} <= set(CLASSES)
    assert merged > 0


def test_the_scores_are_the_probabilities_of_all_boxes(grounding: Grounding, image: np.ndarray) -> None:
    found = grounding.proposer.propose(image)
    for text, candidates in zip(TEXTS, grounding.find(image, TEXTS), strict=True):
        read = grounding.reader.encode(text, CONFIG.max_words)
        row = grounding.proposer.rank(found, read.ids[read.mask])
        assert float(row.sum()) == pytest.approx(1)
        assert sum(c.score for c in candidates) == pytest.approx(1 - float(row[-1]), abs=1e-5)


def test_several_sentences_are_answered_as_each_alone(grounding: Grounding, image: np.ndarray) -> None:
    together = grounding.find(image, TEXTS)
    alone = [grounding.find(image, [text])[0] for text in TEXTS]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose([c.box for c in one], [c.box for c in other], atol=1e-4)
        np.testing.assert_allclose([c.score for c in one], [c.score for c in other], atol=1e-5)
        assert [c.label for c in one] == [c.label for c in other]
    best: list[list[Candidate]] = [candidates[:1] for candidates in together]
    assert len({candidates[0].score for candidates in best}) == len(TEXTS)


def test_what_is_no_sentence_is_refused(grounding: Grounding, image: np.ndarray) -> None:
    with pytest.raises(PromptEmpty):
        grounding.find(image, ["the dog", "?!"])


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_weights_of_another_vocabulary_are_refused(tmp_path: Path, backend: str) -> None:
    for name, config, card in (
        ("digest", CONFIG, {"vocabulary_sha256": "0" * 64}),
        ("rows", replace(CONFIG, vocabulary=7), {}),
    ):
        path = tmp_path / f"{name}.safetensors"
        store.save(path, Grounder(config).eval(), tracker="grounder", size="tiny", card=card)
        with pytest.raises(TokenizerMismatch):
            Grounding.load("cpu", backend, path=path)
