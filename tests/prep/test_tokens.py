"""Word pieces agree with BERT's own, and a wrong vocabulary is refused."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.core.errors import ModelNotFound, PromptEmpty, TokenizerMismatch
from vltrack.prep.tokenizers import PACKAGED_VOCABULARY, WordPieceTokenizer

PIECES = WordPieceTokenizer.load()


def test_the_packaged_vocabulary_is_bert_base_uncased() -> None:
    assert PIECES.sha256 == "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
    assert PIECES.sha256 == hashlib.sha256(PACKAGED_VOCABULARY.read_bytes()).hexdigest()
    assert PIECES.size == 30522


def test_a_known_sentence() -> None:
    tokens = PIECES.encode("The white CAR on the left", max_tokens=10)
    assert tokens.ids.tolist() == [101, 1996, 2317, 2482, 2006, 1996, 2187, 102, 0, 0]
    assert tokens.ids.dtype == np.int64
    assert tokens.mask.tolist() == [True] * 8 + [False] * 2
    assert (tokens.kept, tokens.total, tokens.unknown_share, tokens.warnings) == (6, 6, 0.0, ())


def test_agreement_with_the_reference() -> None:
    """The sentences of real data sets: case, punctuation, hyphens, accents, digits, rare words."""
    transformers = pytest.importorskip("transformers")
    reference = transformers.BertTokenizer(vocab=str(PACKAGED_VOCABULARY), vocab_file=str(PACKAGED_VOCABULARY))
    for text in (
        "the black-and-white dog's tail, running on the ground.",
        "Person no. 7 (t-shirt: 'red')",
        "a café crème",
        "an unmanned quadrocopter hovering over the Kyrgyz flag",
        "UAV123_car 50% off!",
        "x" * 101,
        "naïve Ångström",
    ):
        want = reference(text)["input_ids"]
        tokens = PIECES.encode(text, max_tokens=60)
        assert tokens.ids[: tokens.kept + 2].tolist() == want, text


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_any_sentence_gives_a_well_formed_row(text) -> None:
    from vltrack.core.errors import InputError

    try:
        tokens = PIECES.encode(text, max_tokens=20)
    except InputError:
        return
    assert tokens.ids[0] == 101
    assert tokens.ids[tokens.mask.sum() - 1] == 102
    assert (tokens.ids[~tokens.mask] == 0).all()
    assert tokens.mask.sum() == tokens.kept + 2 <= 20
    assert tokens.kept <= tokens.total


def test_faults(tmp_path) -> None:
    with pytest.raises(PromptEmpty):
        PIECES.encode("...")
    with pytest.raises(ValueError, match="max_tokens"):
        PIECES.encode("car", max_tokens=2)
    with pytest.raises(ModelNotFound):
        WordPieceTokenizer.load(tmp_path / "none.txt")
    for content in (
        b"[PAD]\n[UNK]\nthe\n",
        b"the\n[PAD]\n[UNK]\n[CLS]\n[SEP]\n",
        b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[SEP]\n",
    ):
        (tmp_path / "vocab.txt").write_bytes(content)
        with pytest.raises(TokenizerMismatch):
            WordPieceTokenizer.load(tmp_path / "vocab.txt")
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(TokenizerMismatch):
        WordPieceTokenizer.load(tmp_path / "vocab.txt")
