"""Sentences to token ids: BERT's WordPiece vocabulary, which ships, and CLIP's byte pairs, which do not.

The packaged vocabulary is that of ``bert-base-uncased`` (Apache-2.0). CLIP's is OpenAI's
``bpe_simple_vocab_16e6.txt.gz`` or Hugging Face's ``vocab.json`` with ``merges.txt``, next to the weights.
Special tokens are added by id and never matched inside a sentence: "[SEP]" or "<|endoftext|>" typed by a user
is punctuation and letters. Otherwise CLIP's rules are those of openai/CLIP, without its repair of broken
encodings and its HTML entities.
"""

from __future__ import annotations

import gzip
import io
import json
import unicodedata
import zlib
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Regex, Tokenizer, decoders
from tokenizers.models import BPE, WordPiece
from tokenizers.normalizers import BertNormalizer, Lowercase
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Sequence, Split

from vltrack.core.errors import ModelNotFound, PromptUnreadable, TokenizerMismatch
from vltrack.core.files import read_limited, sha256_bytes
from vltrack.prep.prompts import clean_text

PACKAGED_VOCABULARY = Path(__file__).parent / "vocab.txt"
_SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102}
_EMPTY_WORDS = frozenset(("the", "an", "of", "in", "on", "at", "to", "by", "and", "or", "with", "is", "are"))
"""Words that name nothing."""

ARCHIVE, VOCABULARY, MERGES = "bpe_simple_vocab_16e6.txt.gz", "vocab.json", "merges.txt"
_START, _END, _LAST = "<|startoftext|>", "<|endoftext|>", "</w>"
_USED_MERGES = 49152 - 256 - 2
"""OpenAI's file has more merges than its model; as many are used as give 49408 pieces."""
VOCABULARY_BYTES = 16 << 20
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedText:
    """One sentence as the input of a network.

    Attributes:
        ids: (max_tokens,) int64: start, pieces, end, then zeros.
        mask: (max_tokens,) bool, True where ``ids`` is not padding.
        kept, total: how many word pieces fit, of how many (start and end not counted).
        unknown_share: share of all pieces that are ``[UNK]`` or not made of Latin letters (the vocabulary has
            single letters of other scripts, but networks trained on English cannot use them).
        warnings: sentences for the user.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    kept: int
    total: int
    unknown_share: float
    warnings: tuple[str, ...]


class TextTokenizer:
    """A vocabulary and the rules that split a sentence into its pieces.

    Attributes:
        sha256: of the vocabulary, for comparison with the one on a card of weights.
        size: number of pieces.
        table: suffix of the name of the parameter with one row per piece.
    """

    table: str

    def __init__(self, tokenizer: Tokenizer, sha256: str, start: int, end: int) -> None:
        self.sha256, self.size = sha256, tokenizer.get_vocab_size()
        self._tokenizer, self._start, self._end = tokenizer, start, end

    def encode(self, text: str, max_tokens: int = 77) -> EncodedText:
        """Encode a sentence, cut and zero-padded to ``max_tokens``.

        Raises:
            PromptEmpty, PromptTooLong, PromptInvalid: from ``clean_text``.
            ValueError: ``max_tokens`` leaves no room for a piece.
        """
        sentence = clean_text(text)
        if max_tokens < 3:
            raise ValueError(f"Too few tokens: {max_tokens}. Start, end and one piece need 3.")
        encoding = self._tokenizer.encode(sentence, add_special_tokens=False)
        total = len(encoding.ids)
        kept = min(total, max_tokens - 2)
        ids = np.zeros(max_tokens, dtype=np.int64)
        ids[: kept + 2] = [self._start, *encoding.ids[:kept], self._end]
        unknown = sum(not _is_latin(piece) for piece in self._written(encoding, sentence)) / max(1, total)
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

    def pieces(self, text: str) -> list[str]:
        """Return the pieces of a cleaned sentence as the vocabulary writes them."""
        tokens: list[str] = self._tokenizer.encode(text, add_special_tokens=False).tokens
        return tokens

    def decode(self, ids: NDArray[np.int64]) -> str:
        """Return the text of (max_tokens,) ids of ``encode``, in small letters."""
        text: str = self._tokenizer.decode([int(i) for i in ids if i not in (0, self._start, self._end)])
        return text

    def _written(self, encoding: Encoding, sentence: str) -> list[str]:
        """Return the letters of each piece."""
        raise NotImplementedError


def _is_latin(piece: str) -> bool:
    """Return whether a piece is made of Latin letters, digits and punctuation."""
    if piece == "[UNK]":
        return False
    return all(c.isascii() or not c.isalpha() or unicodedata.name(c, "").startswith("LATIN") for c in piece)


class WordPieceTokenizer(TextTokenizer):
    """BERT's uncased WordPiece tokenizer."""

    table = "embeddings.word_embeddings.weight"

    @classmethod
    def load(cls, path: Path | str | None = None) -> WordPieceTokenizer:
        """Read a vocabulary (one piece per line, UTF-8); ``None`` = the packaged one.

        Raises:
            ModelNotFound: there is no such file.
            TokenizerMismatch: the file is not a BERT vocabulary.
        """
        file = PACKAGED_VOCABULARY if path is None else Path(path)
        try:
            data = read_limited(file, VOCABULARY_BYTES)
            pieces = data.decode("utf-8").replace("\r\n", "\n").removesuffix("\n").split("\n")
        except OSError as error:
            raise ModelNotFound(f"Cannot read the vocabulary {file}: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise TokenizerMismatch(f"The vocabulary is not UTF-8 text: {file}.") from error
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        moved = [special for special, number in _SPECIAL.items() if vocabulary.get(special) != number]
        cased = [piece for piece in pieces if piece != piece.lower() and not piece.startswith("[")]
        if moved or cased or len(vocabulary) != len(pieces):
            found = f"{moved[0]} is not piece {_SPECIAL[moved[0]]}" if moved else "pieces repeat"
            found = f"it has capitals ({cased[0][:40]!r})" if cased else found
            raise TokenizerMismatch(f"{file} is not the vocabulary of bert-base-uncased: {found}.")
        tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106
        tokenizer.normalizer = BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        return cls(tokenizer, sha256_bytes(data), vocabulary["[CLS]"], vocabulary["[SEP]"])

    def _written(self, encoding: Encoding, sentence: str) -> list[str]:
        return list(encoding.tokens)


class BytePairTokenizer(TextTokenizer):
    """CLIP's byte-pair tokenizer. ``sha256`` is of pieces and merges, so both forms of a vocabulary have the same."""

    table = "token_embedding.weight"

    @classmethod
    def load(cls, path: Path | str) -> BytePairTokenizer:
        """Read a vocabulary: OpenAI's archive, Hugging Face's ``vocab.json``, or a folder with either.

        Raises:
            ModelNotFound: there is no such file; nothing is downloaded.
            TokenizerMismatch: the file is not a CLIP vocabulary.
        """
        file = Path(path)
        if file.is_dir():
            found = [file / name for name in (ARCHIVE, VOCABULARY) if (file / name).is_file()]
            if not found:
                raise ModelNotFound(
                    f"No CLIP vocabulary in {file} (looked for {ARCHIVE} and {VOCABULARY}).",
                    hint=f"Copy {ARCHIVE} from OpenAI's CLIP repository there, or {VOCABULARY} and {MERGES} "
                    "from openai/clip-vit-large-patch14 on Hugging Face; or name the target by a box.",
                )
            file = found[0]
        pieces, merges = (_hugging_face if file.name.endswith(".json") else _openai)(file)
        fault = _fault(pieces, merges)
        if fault:
            raise TokenizerMismatch(f"{file} is not a CLIP vocabulary: {fault}.")
        numbers = {piece: number for number, piece in enumerate(pieces)}
        tokenizer = Tokenizer(BPE(numbers, merges, end_of_word_suffix=_LAST))
        tokenizer.normalizer = Lowercase()
        tokenizer.pre_tokenizer = Sequence(
            [Split(Regex(_WORDS), behavior="removed", invert=True), ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        tokenizer.decoder = decoders.BPEDecoder(suffix=_LAST)
        lines = [*pieces, *(f"{left} {right}" for left, right in merges)]
        sha256 = sha256_bytes("\n".join(lines).encode())
        return cls(tokenizer, sha256, numbers[_START], numbers[_END])

    def _written(self, encoding: Encoding, sentence: str) -> list[str]:
        return [sentence[start:end] for start, end in encoding.offsets]


def _openai(file: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Read a file of merges; the pieces are bytes, bytes that end a word, merges, start and end, in this order."""
    merges = _merges(file)[:_USED_MERGES]
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(letter + _LAST for letter in letters), *(a + b for a, b in merges), _START, _END]
    return pieces, merges


def _hugging_face(file: Path) -> tuple[list[str], list[tuple[str, str]]]:
    try:
        numbers = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise TokenizerMismatch(f"{file} is not JSON ({error}).") from None
    whole = isinstance(numbers, dict) and all(type(number) is int for number in numbers.values())
    if not whole or sorted(numbers.values()) != list(range(len(numbers))):
        raise TokenizerMismatch(f"{file} is not a CLIP vocabulary: its pieces are not numbered 0, 1, 2 ...")
    return sorted(numbers, key=numbers.__getitem__), _merges(file.with_name(MERGES))


def _merges(file: Path) -> list[tuple[str, str]]:
    """Read one merge per line; the first line is a comment."""
    merges = []
    for number, line in enumerate(_text(file).removesuffix("\n").split("\n")[1:], start=2):
        match line.split():
            case [left, right]:
                merges.append((left, right))
            case _:
                raise TokenizerMismatch(f"{file} is not a list of merges: line {number} is not two pieces.")
    return merges


def _text(file: Path) -> str:
    """Return the text of a plain or compressed file, of at most 16 MiB."""
    try:
        data = read_limited(file, VOCABULARY_BYTES)
        if file.name.endswith(".gz"):
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(VOCABULARY_BYTES + 1)
    except FileNotFoundError:
        hint = "Nothing is downloaded: fetch it first."
        raise ModelNotFound(f"No such CLIP vocabulary: {file}.", hint=hint) from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise TokenizerMismatch(f"Cannot read the vocabulary {file}: {reason}.") from None
    if len(data) > VOCABULARY_BYTES:
        raise TokenizerMismatch(f"{file} is not a CLIP vocabulary: it is over {VOCABULARY_BYTES} bytes.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise TokenizerMismatch(f"The vocabulary is not UTF-8 text: {file}.") from None


def _fault(pieces: list[str], merges: list[tuple[str, str]]) -> str:
    """Return what makes these pieces and merges unusable, or ""."""
    known = set(pieces)
    if pieces[-2:] != [_START, _END]:
        return f"{_START} and {_END} are not its last two pieces"
    if len(known) != len(pieces):
        return "pieces repeat: " + ", ".join(a for a, b in pairwise(sorted(pieces)) if a == b)[:80]
    if any(letter not in known or letter + _LAST not in known for letter in ByteLevel.alphabet()):
        return "pieces for single bytes are missing"
    if any(part not in known for a, b in merges for part in (a, b, a + b)):
        return "a merge names a piece that is not there"
    return ""


@cache
def load_tokenizer(name: str, folder: Path | None = None) -> TextTokenizer:
    """Return the tokenizer ``bert`` or ``clip``; a file is read once per process.

    Args:
        name: as a model names the vocabulary of its word table.
        folder: with the weights and a vocabulary that does not ship.

    Raises:
        ModelNotFound: it is not there; the message names the file and where to get it.
        TokenizerMismatch: the file is another vocabulary.
        ValueError: an unknown name.
    """
    if name == "bert":
        return WordPieceTokenizer.load()
    if name != "clip":
        raise ValueError(f"Unknown vocabulary: {name!r}.")
    if folder is None:
        raise ModelNotFound(
            "This model reads sentences with CLIP's vocabulary, which does not ship.",
            hint=f"Save the weights, and put {ARCHIVE} from OpenAI's CLIP repository beside them.",
        )
    return BytePairTokenizer.load(folder)


def check_readable(text: str) -> None:
    """Raise ``PromptUnreadable`` where no word of the sentence names anything in English.

    A known word is a piece of BERT's vocabulary, or begins with one of at least four letters (wake-board-er).
    """
    sentence = clean_text(text)
    written = load_tokenizer("bert").pieces(sentence)
    for piece, after in pairwise([*written, ""]):
        whole = not piece.startswith("##") and not after.startswith("##")
        letters = len(piece) if piece.isalpha() and _is_latin(piece) else 0
        if letters >= (2 if whole else 4) and piece not in _EMPTY_WORDS:
            return
    raise PromptUnreadable(f"No English word in the sentence: {sentence!r}.", hint="Say it in English, or give a box.")
