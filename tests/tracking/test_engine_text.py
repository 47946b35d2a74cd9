"""Text input of the engine: each model has its own vocabulary, which is loaded with the first text only."""

from __future__ import annotations

import gzip
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel

from model_cases import CONFIGS, make, small
from scripted import Spotter, scene, tracker
from vltrack.checkpoints import store
from vltrack.checkpoints.cards import modes_of
from vltrack.core.errors import ModelNotFound, TokenizerMismatch, UsageError
from vltrack.core.types import Target
from vltrack.prep.tokenizers import ARCHIVE, BytePairTokenizer, load_tokenizer
from vltrack.tracking.engine import Engine
from vltrack.tracking.postprocess import Policy
from vltrack.tracking.torch_network import TorchNetwork
from vltrack.tracking.tracker import Tracker

BOX = (20.0, 20.0, 12.0, 12.0)
IMAGE = scene(BOX, size=(80, 60))


class Reading(Spotter):
    """Reads with CLIP's vocabulary and keeps the numbers that it was given."""

    vocabulary = "clip"

    def read_text(self, ids_BL: torch.Tensor, valid_BL: torch.Tensor):
        self.ids, self.valid = ids_BL, valid_BL
        return super().read_text(ids_BL, valid_BL)


@pytest.mark.fault("C13")
def test_only_a_text_needs_the_vocabulary() -> None:
    follower = tracker(Reading())
    assert np.allclose(follower.init(IMAGE, box=BOX).box, BOX)
    with pytest.raises(ModelNotFound, match="CLIP's vocabulary") as caught:
        follower.init(IMAGE, box=BOX, text="the car")
    assert ARCHIVE in caught.value.hint


def test_the_vocabulary_next_to_the_weights_is_read(tmp_path: Path) -> None:
    (tmp_path / ARCHIVE).write_bytes(gzip.compress(b"#version: 0.2\nc a\nca r</w>\n"))
    model = Reading()
    engine = Engine(TorchNetwork(model), Policy(), partial(load_tokenizer, "clip", tmp_path))
    engine.start(IMAGE, Target(box=BOX, text="Car car"))
    assert model.ids.tolist() == [[514, 513, 513, 515] + [0] * 8]
    assert model.valid.tolist() == [[True] * 4 + [False] * 8]


def whole_vocabulary(folder: Path) -> Path:
    """As many pieces as CLIP has, 49,408, in OpenAI's form; the merges are made up."""
    letters = sorted(ByteLevel.alphabet())
    merges = [f"{a} {b}</w>" for a in letters for b in letters][:48_894]
    (folder / ARCHIVE).write_bytes(gzip.compress("\n".join(["#version: 0.2", *merges, ""]).encode(), 1))
    return folder / ARCHIVE


@pytest.mark.fault("C12")
def test_aitrack_needs_the_vocabulary_of_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    model = make(small(CONFIGS["aitrack narrow base"]()))
    assert model.vocabulary == "clip"
    sha256 = BytePairTokenizer.load(whole_vocabulary(tmp_path)).sha256
    for known, fits in ((sha256, True), ("ab" * 32, False)):
        store.save(path, model, tracker="aitrack", size="base", card={"vocabulary_sha256": known})
        follower = Tracker.load(path)
        follower.init(IMAGE, box=BOX)
        with nullcontext() if fits else pytest.raises(TokenizerMismatch, match="abababababab"):
            follower.init(IMAGE, box=BOX, text="the car")
    (tmp_path / ARCHIVE).unlink()
    load_tokenizer.cache_clear()
    follower = Tracker.load(path)
    follower.init(IMAGE, box=BOX)
    with pytest.raises(ModelNotFound, match=str(tmp_path)):
        follower.init(IMAGE, box=BOX, text="the car")


def test_another_policy_keeps_the_tokenizer(tmp_path: Path) -> None:
    follower = tracker(Reading())
    assert follower.with_policy(Policy()).engine.reader is follower.engine.reader


def test_weights_trained_without_text_warn() -> None:
    follower = tracker(Spotter())
    follower.card = {**follower.card, "modes": ["bbox"]}
    follower.init(IMAGE, box=BOX)
    assert follower.warnings == ()
    follower.init(IMAGE, box=BOX, text="the car")
    assert "without language" in follower.warnings[-1]
    with pytest.raises(UsageError, match="without language"):
        follower.init(IMAGE, text="the car")
    assert modes_of(follower.card) == ("bbox",)
    follower.card = {**follower.card, "modes": ["nl", "bbox", "nlbbox"]}
    follower.init(IMAGE, box=BOX, text="the car")
    assert follower.warnings == ()
