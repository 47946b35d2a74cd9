"""Whose word pieces a model gets is its own say; the engine opens that vocabulary only for a sentence."""

from __future__ import annotations

import gzip
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from scripted import GREY, Spotter, tracker
from vltrack.core.errors import ModelNotFound
from vltrack.core.types import Target
from vltrack.prep.bpe import ARCHIVE
from vltrack.prep.vocabularies import open_vocabulary
from vltrack.tracking.engine import Engine
from vltrack.tracking.policy import Policy

BOX = (20.0, 20.0, 12.0, 12.0)


class Reading(Spotter):
    """Reads with CLIP's vocabulary and keeps the numbers that it was given."""

    vocabulary = "clip"

    def read_text(self, ids_BL: torch.Tensor, valid_BL: torch.Tensor):
        self.ids, self.valid = ids_BL, valid_BL
        return super().read_text(ids_BL, valid_BL)


def scene() -> np.ndarray:
    image = np.full((60, 80, 3), GREY, dtype=np.uint8)
    image[20:32, 20:32] = (255, 0, 0)
    return image


@pytest.mark.fault("C13")
def test_a_box_needs_no_vocabulary_and_a_sentence_names_the_missing_one() -> None:
    follower = tracker(Reading())
    assert np.allclose(follower.init(scene(), box=BOX).box, BOX)
    with pytest.raises(ModelNotFound, match="CLIP's vocabulary") as caught:
        follower.init(scene(), box=BOX, text="the car")
    assert ARCHIVE in caught.value.hint


def test_the_vocabulary_beside_the_weights_is_read(tmp_path: Path) -> None:
    (tmp_path / ARCHIVE).write_bytes(gzip.compress(b"#version: 0.2\nc a\nca r</w>\n"))
    model = Reading()
    engine = Engine(model, torch.device("cpu"), Policy(), partial(open_vocabulary, "clip", tmp_path))
    engine.start(scene(), Target(box=BOX, text="Car car"))
    assert model.ids.tolist() == [[514, 513, 513, 515] + [0] * 8]
    assert model.valid.tolist() == [[True] * 4 + [False] * 8]


def test_another_policy_keeps_the_reader(tmp_path: Path) -> None:
    follower = tracker(Reading())
    assert follower.with_policy(Policy()).engine.reader is follower.engine.reader
