"""Sentence to WordPiece ids. Knows BERT's uncased rules and the packaged vocabulary; knows no network.

The vocabulary is that of ``bert-base-uncased`` (Apache-2.0). No special token is ever matched inside a
sentence: they are added here by id, so "[SEP]" typed by a user is brackets and letters.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import unicodedata
import zlib
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE, WordPiece
from tokenizers.normalizers import BertNormalizer, Lowercase
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Sequence, Split

from vltrack.core.errors import ModelNotFound, TokenizerMismatch
from vltrack.core.files import sha256_of
from vltrack.prep.prompts import clean_text

PACKAGED_VOCABULARY = Path(__file__).parent / "vocab.txt"
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedText:
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


class WordPieceTokenizer:
    """BERT's uncased WordPiece tokenizer; made by ``WordPieceTokenizer.load``."""

    table = "embeddings.word_embeddings.weight"

    def __init__(self, vocabulary: dict[str, int], sha256: str) -> None:
        self.sha256 = sha256
        self.size = len(vocabulary)
        self._start, self._end = vocabulary["[CLS]"], vocabulary["[SEP]"]
        self._tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=_SPECIAL[1], max_input_chars_per_word=100))
        self._tokenizer.normalizer = BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()

    @classmethod
    def load(cls, path: Path | str | None = None) -> WordPieceTokenizer:
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
            found = f"{', '.join(missing)} missing" if missing else "[PAD] is not the first line or pieces repeat"
            raise TokenizerMismatch(f"{file} is no BERT vocabulary: {found}.")
        return cls(vocabulary, sha256_of(file))

    def encode(self, text: str, max_tokens: int = 40) -> EncodedText:
        """``[CLS] pieces [SEP]`` cut and zero-padded to ``max_tokens``.

        Raises:
            PromptEmpty, PromptTooLong, PromptInvalid: from ``clean_text``.
            ValueError: ``max_tokens`` leaves no room for a piece.
        """
        encoding = self._tokenizer.encode(clean_text(text), add_special_tokens=False)
        return framed(encoding.ids, (self._start, self._end), max_tokens, written=encoding.tokens)


def framed(pieces: list[int], ends: tuple[int, int], max_tokens: int, *, written: list[str]) -> EncodedText:
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
    return EncodedText(
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


# MERGED prep/tokenizers.py
# Sentence to CLIP's byte pairs. Knows CLIP's rules and the two forms of its vocabulary; knows no network.
#
# The vocabulary does not ship: it comes as OpenAI's ``bpe_simple_vocab_16e6.txt.gz`` or as Hugging Face's
# ``vocab.json`` with ``merges.txt``, beside the weights that read it. No special token is ever
# matched inside a
# sentence (released code does): "<|endoftext|>" typed by a user is signs and letters.
# Source: released code of openai/CLIP, without its repair of broken encodings and its HTML entities.


ARCHIVE, VOCABULARY, MERGES = "bpe_simple_vocab_16e6.txt.gz", "vocab.json", "merges.txt"
_START, _END, _LAST = "<|startoftext|>", "<|endoftext|>", "</w>"
_USED_MERGES = 49152 - 256 - 2
"""OpenAI's file has more merges than its model; as many are used as give 49408 pieces."""
_MAX_BYTES = 16 << 20
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class BytePairTokenizer:
    """CLIP's byte-pair tokenizer over one vocabulary. Make it with ``BytePairTokenizer.load``.

    ``sha256`` is that of the pieces and merges, so both forms of one vocabulary have the same.
    """

    table = "token_embedding.weight"

    def __init__(self, pieces: list[str], merges: list[tuple[str, str]]) -> None:
        numbers = {piece: number for number, piece in enumerate(pieces)}
        self.size = len(pieces)
        lines = [*pieces, *(f"{left} {right}" for left, right in merges)]
        self.sha256 = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        self._start, self._end = numbers[_START], numbers[_END]
        self._tokenizer = Tokenizer(BPE(numbers, merges, end_of_word_suffix=_LAST))
        self._tokenizer.normalizer = Lowercase()
        self._tokenizer.pre_tokenizer = Sequence(
            [Split(Regex(_WORDS), behavior="removed", invert=True), ByteLevel(add_prefix_space=False, use_regex=False)]
        )

    @classmethod
    def load(cls, path: Path | str) -> BytePairTokenizer:
        """Read a vocabulary: OpenAI's archive, Hugging Face's ``vocab.json``, or a folder with either.

        Raises:
            ModelNotFound: there is no such file; nothing is downloaded.
            TokenizerMismatch: the file is no CLIP vocabulary.
        """
        file = Path(path)
        if file.is_dir():
            found = [file / name for name in (ARCHIVE, VOCABULARY) if (file / name).is_file()]
            if not found:
                raise ModelNotFound(
                    f"there is no CLIP vocabulary in {file} (looked for {ARCHIVE} and {VOCABULARY}).",
                    hint=f"Copy {ARCHIVE} from OpenAI's CLIP repository there, or {VOCABULARY} and {MERGES} "
                    "from openai/clip-vit-large-patch14 on Hugging Face; or name the target by a box.",
                )
            file = found[0]
        if file.name.endswith(".json"):
            pieces, merges = _hugging_face(file)
        else:
            pieces, merges = _openai(file)
        _check(pieces, merges, file)
        return cls(pieces, merges)

    def encode(self, text: str, max_tokens: int = 77) -> EncodedText:
        """``<|startoftext|> pieces <|endoftext|>`` cut and zero-padded to ``max_tokens``.

        Raises:
            PromptEmpty, PromptTooLong, PromptInvalid: from ``clean_text``.
            ValueError: ``max_tokens`` leaves no room for a piece.
        """
        sentence = clean_text(text)
        encoding = self._tokenizer.encode(sentence, add_special_tokens=False)
        written = [sentence[a:b] for a, b in encoding.offsets]
        return framed(encoding.ids, (self._start, self._end), max_tokens, written=written)


def _openai(file: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Merges only, the first line a remark; pieces are bytes, bytes that end a word, merges, two specials."""
    merges = _merges(file)[:_USED_MERGES]
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(letter + _LAST for letter in letters), *(a + b for a, b in merges), _START, _END]
    return pieces, merges


def _hugging_face(file: Path) -> tuple[list[str], list[tuple[str, str]]]:
    try:
        numbers = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise TokenizerMismatch(f"{file} is no JSON ({error}).") from None
    whole = isinstance(numbers, dict) and all(type(number) is int for number in numbers.values())
    if not whole or sorted(numbers.values()) != list(range(len(numbers))):
        raise TokenizerMismatch(f"{file} is no CLIP vocabulary: its pieces are not numbered 0, 1, 2 ...")
    return sorted(numbers, key=numbers.__getitem__), _merges(file.with_name(MERGES))


def _merges(file: Path) -> list[tuple[str, str]]:
    lines = _text(file).removesuffix("\n").split("\n")[1:]
    merges = [tuple(line.split()) for line in lines]
    for number, merge in enumerate(merges, start=2):
        if len(merge) != 2:
            raise TokenizerMismatch(f"{file} is no list of merges: line {number} is not two pieces.")
    return [(merge[0], merge[-1]) for merge in merges]


def _text(file: Path) -> str:
    """The text of a plain or compressed file, of at most 16 MiB."""
    try:
        with file.open("rb") as handle:
            compressed = file.name.endswith(".gz")
            data = (gzip.GzipFile(fileobj=handle) if compressed else handle).read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise ModelNotFound(
            f"there is no CLIP vocabulary {file}.", hint="Nothing is downloaded: fetch it first."
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise TokenizerMismatch(f"the vocabulary {file} cannot be read ({error}).") from None
    if len(data) > _MAX_BYTES:
        raise TokenizerMismatch(f"the vocabulary {file} is over {_MAX_BYTES} bytes and none of CLIP.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise TokenizerMismatch(f"the vocabulary {file} is not UTF-8 text.") from None


def _check(pieces: list[str], merges: list[tuple[str, str]], file: Path) -> None:
    """Specials at the end, every byte there, no piece twice, every merge made of pieces and known as one."""
    known = set(pieces)
    letters = ByteLevel.alphabet()
    if pieces[-2:] != [_START, _END]:
        fault = f"{_START} and {_END} are not its last two pieces"
    elif len(known) != len(pieces):
        fault = "pieces repeat: " + ", ".join(a for a, b in pairwise(sorted(pieces)) if a == b)[:80]
    elif any(letter not in known or letter + _LAST not in known for letter in letters):
        fault = "pieces for single bytes are missing"
    elif any(part not in known for a, b in merges for part in (a, b, a + b)):
        fault = "a merge names a piece that is not there"
    else:
        return
    raise TokenizerMismatch(f"{file} is no CLIP vocabulary: {fault}.")


# MERGED prep/tokenizers.py
# Which vocabulary reads a sentence: BERT's, which ships, or CLIP's, which lies beside the weights.
#
# A model says by name which one its word table was trained with. Knows vocabularies, no model and no weights.


class TextTokenizer(Protocol):
    """Makes numbers of a sentence.

    Attributes:
        sha256: of the vocabulary; weights remember that of theirs.
        size: number of pieces.
        table: how the name of the parameter ends that has a row for each piece.
    """

    sha256: str
    size: int
    table: str

    def encode(self, text: str, max_tokens: int = ...) -> EncodedText:
        """A sentence cut and padded to ``max_tokens``."""
        ...


@cache
def load_tokenizer(name: str, folder: Path | None = None) -> TextTokenizer:
    """The vocabulary ``bert`` or ``clip``; a file is read once a process.

    ``folder`` is where the weights lie, and with them what does not ship.

    Raises:
        ModelNotFound: it is not there; the message names the file and where to get it.
        TokenizerMismatch: the file is no such vocabulary.
        ValueError: there is no vocabulary of that name.
    """
    if name == "bert":
        return WordPieceTokenizer.load()
    if name != "clip":
        raise ValueError(f"no vocabulary is called {name!r}")
    if folder is None:
        raise ModelNotFound(
            "this model reads sentences with CLIP's vocabulary, which does not ship.",
            hint=f"Save the weights, and put {ARCHIVE} from OpenAI's CLIP repository beside them.",
        )
    return BytePairTokenizer.load(folder)
