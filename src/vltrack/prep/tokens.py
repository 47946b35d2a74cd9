"""Sentence to WordPiece ids. Knows BERT's uncased rules and the packaged vocabulary; knows no network.

The vocabulary is that of ``bert-base-uncased`` (Apache-2.0). No special token is ever matched inside a
sentence: they are added here by id, so "[SEP]" typed by a user is brackets and letters.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from vltrack.core.errors import ModelNotFound, TokenizerMismatch
from vltrack.core.files import sha256_of
from vltrack.prep.prompts import clean_text

PACKAGED_VOCABULARY = Path(__file__).parent / "vocab.txt"
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """One sentence as a network reads it.

    Attributes:
        ids: (max_tokens,) int64: ``[CLS] pieces [SEP]``, then zeros.
        mask: (max_tokens,) bool, True where ``ids`` is not padding.
        kept, total: how many word pieces fit, of how many (specials not counted).
        unknown_share: share of all pieces that are ``[UNK]`` or not made of Latin letters (the vocabulary
            has single letters of other scripts, but a network trained on English knows nothing by them).
        warnings: sentences for the user; empty if all is well.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    kept: int
    total: int
    unknown_share: float
    warnings: tuple[str, ...]


class WordPieces:
    """BERT's uncased WordPiece tokenizer over one vocabulary file. Make it with ``WordPieces.load``."""

    table = "embeddings.word_embeddings.weight"

    def __init__(self, vocabulary: dict[str, int], sha256: str) -> None:
        self.sha256 = sha256
        self.size = len(vocabulary)
        self._start, self._end = vocabulary["[CLS]"], vocabulary["[SEP]"]
        self._tokenizer = Tokenizer(
            WordPiece(vocabulary, unk_token=_SPECIAL[1], max_input_chars_per_word=100)
        )
        self._tokenizer.normalizer = BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()

    @classmethod
    def load(cls, path: Path | str | None = None) -> WordPieces:
        """Read a vocabulary (one piece a line, UTF-8); ``None`` = the packaged one.

        Raises:
            ModelNotFound: there is no such file.
            TokenizerMismatch: the file is no BERT vocabulary.
        """
        file = PACKAGED_VOCABULARY if path is None else Path(path)
        try:
            pieces = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except OSError as error:
            raise ModelNotFound(f"cannot read the vocabulary {file}: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise TokenizerMismatch(f"the vocabulary {file} is not UTF-8 text.") from error
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        missing = [special for special in _SPECIAL if special not in vocabulary]
        if missing or vocabulary["[PAD]"] != 0 or len(vocabulary) != len(pieces):
            found = (
                f"{', '.join(missing)} missing" if missing else "[PAD] is not the first line or pieces repeat"
            )
            raise TokenizerMismatch(f"{file} is no BERT vocabulary: {found}.")
        return cls(vocabulary, sha256_of(file))

    def encode(self, text: str, max_tokens: int = 40) -> Tokens:
        """``[CLS] pieces [SEP]`` cut and zero-padded to ``max_tokens``.

        Raises:
            PromptEmpty, PromptTooLong, PromptInvalid: from ``clean_text``.
            ValueError: ``max_tokens`` leaves no room for a piece.
        """
        encoding = self._tokenizer.encode(clean_text(text), add_special_tokens=False)
        return framed(encoding.ids, (self._start, self._end), max_tokens, written=encoding.tokens)


def framed(pieces: list[int], ends: tuple[int, int], max_tokens: int, *, written: list[str]) -> Tokens:
    """``start pieces end``, cut and zero-padded to ``max_tokens``; ``written`` is how each piece looks.

    Raises:
        ValueError: ``max_tokens`` leaves no room for a piece.
    """
    if max_tokens < 3:
        raise ValueError(f"max_tokens is {max_tokens}; start, end and one piece need 3")
    total = len(pieces)
    kept = min(total, max_tokens - 2)
    ids = np.zeros(max_tokens, dtype=np.int64)
    ids[: kept + 2] = [ends[0], *pieces[:kept], ends[1]]
    unknown = sum(not is_latin(piece) for piece in written) / max(1, total)
    warnings = []
    if kept < total:
        warnings.append(f"the sentence has {total} word pieces; only the first {kept} are used")
    if unknown > 0.5:
        warnings.append(f"{unknown:.0%} of the sentence is unknown; the model knows English only")
    return Tokens(
        ids=ids,
        mask=np.arange(max_tokens) < kept + 2,
        kept=kept,
        total=total,
        unknown_share=unknown,
        warnings=tuple(warnings),
    )


def is_latin(piece: str) -> bool:
    """Whether a piece is something an English model can have learnt: Latin letters, digits, punctuation."""
    if piece == "[UNK]":
        return False
    return all(c.isascii() or not c.isalpha() or unicodedata.name(c, "").startswith("LATIN") for c in piece)
