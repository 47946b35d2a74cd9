"""A vocabulary by its name: the one that ships, the one beside the weights, and how a missing one is told."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from vltrack.core.errors import ModelNotFound
from vltrack.prep.tokenizers import ARCHIVE, WordPieceTokenizer, load_tokenizer


def test_berts_ships_and_is_read_once() -> None:
    reader = load_tokenizer("bert")
    assert reader.sha256 == WordPieceTokenizer.load().sha256
    assert reader is load_tokenizer("bert")
    assert reader.encode("the car", 5).ids.tolist() == [101, 1996, 2482, 102, 0]


@pytest.mark.fault("C13")
def test_clips_lies_beside_the_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="does not ship") as caught:
        load_tokenizer("clip")
    assert ARCHIVE in caught.value.hint
    with pytest.raises(ModelNotFound, match=str(tmp_path)):
        load_tokenizer("clip", tmp_path)
    (tmp_path / ARCHIVE).write_bytes(gzip.compress(b"#version: 0.2\nc a\nca r</w>\n"))
    reader = load_tokenizer("clip", tmp_path)  # a failure is not remembered
    assert reader.size == 516
    assert reader.encode("car", 4).ids.tolist() == [514, 513, 515, 0]


def test_an_unknown_name_is_an_error_of_ours() -> None:
    with pytest.raises(ValueError, match="klip"):
        load_tokenizer("klip")
