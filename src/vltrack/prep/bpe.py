"""Sentence to CLIP's byte pairs. Knows CLIP's rules and the two forms of its vocabulary; knows no network.

The vocabulary does not ship: it comes as OpenAI's ``bpe_simple_vocab_16e6.txt.gz`` or as Hugging Face's
``vocab.json`` with ``merges.txt``, beside the weights that read it. No special token is ever matched inside a
sentence (released code does): "<|endoftext|>" typed by a user is signs and letters.
Source: released code of openai/CLIP, without its repair of broken encodings and its HTML entities.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from itertools import pairwise
from pathlib import Path

from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from vltrack.core.errors import ModelNotFound, TokenizerMismatch
from vltrack.prep.prompts import clean_text
from vltrack.prep.tokens import Tokens, framed

ARCHIVE, VOCABULARY, MERGES = "bpe_simple_vocab_16e6.txt.gz", "vocab.json", "merges.txt"
_START, _END, _LAST = "<|startoftext|>", "<|endoftext|>", "</w>"
_USED_MERGES = 49152 - 256 - 2
"""OpenAI's file has more merges than its model; as many are used as give 49408 pieces."""
_MAX_BYTES = 16 << 20
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class BytePairs:
    """CLIP's byte-pair tokenizer over one vocabulary. Make it with ``BytePairs.load``.

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
            [
                Split(Regex(_WORDS), behavior="removed", invert=True),
                ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    @classmethod
    def load(cls, path: Path | str) -> BytePairs:
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

    def encode(self, text: str, max_tokens: int = 77) -> Tokens:
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
