"""Tokenizers agree with BERT's and CLIP's own; every form of a vocabulary is read, a wrong one refused.

CLIP's vocabulary is small and made here, in exactly the two published forms.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.core.errors import InputError, ModelNotFound, PromptEmpty, TokenizerMismatch
from vltrack.prep import tokenizers
from vltrack.prep.tokenizers import (
    ARCHIVE,
    MERGES,
    PACKAGED_VOCABULARY,
    VOCABULARY,
    BytePairTokenizer,
    WordPieceTokenizer,
    load_tokenizer,
)

PIECES = WordPieceTokenizer.load()
SENTENCES = (
    "the black-and-white dog's tail, running on the ground.",
    "Person no. 7 (t-shirt: 'red')",
    "a café crème",
    "UAV123_car 50% off!",
)
PAIRS = """t h
th e</w>
c a
ca r</w>
ca t
w h
wh i
i t
it e</w>
whi t
whit e</w>
' s</w>
o n</w>
Ã ©</w>
d o
do n
' t</w>"""


def letters() -> list[str]:
    """CLIP's 256 signs for bytes in order: printable ones as themselves, then the others from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(code) for code in plain] + [chr(256 + i) for i in range(256 - len(plain))]


def pieces() -> list[str]:
    ends = [letter + "</w>" for letter in letters()]
    merged = [pair.replace(" ", "") for pair in PAIRS.splitlines()]
    return [*letters(), *ends, *merged, "<|startoftext|>", "<|endoftext|>"]


def as_openai(folder: Path, text: str = f"#version: 0.2\n{PAIRS}\n") -> Path:
    (folder / ARCHIVE).write_bytes(gzip.compress(text.encode("utf-8")))
    return folder / ARCHIVE


def as_hugging_face(folder: Path, numbers: object = None, text: str = f"#version: 0.2\n{PAIRS}\n") -> Path:
    numbers = {piece: i for i, piece in enumerate(pieces())} if numbers is None else numbers
    (folder / VOCABULARY).write_text(json.dumps(numbers), encoding="utf-8")
    (folder / MERGES).write_text(text, encoding="utf-8")
    return folder / VOCABULARY


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocabulary")
    as_openai(path)
    as_hugging_face(path)
    return path


@pytest.fixture(scope="module")
def pairs(folder: Path) -> BytePairTokenizer:
    return BytePairTokenizer.load(folder / ARCHIVE)


def test_a_known_sentence_in_byte_pairs(pairs: BytePairTokenizer) -> None:
    numbers = {piece: i for i, piece in enumerate(pieces())}
    tokens = pairs.encode("The  white CAR's", max_tokens=9)
    wanted = ["<|startoftext|>", "the</w>", "white</w>", "car</w>", "'s</w>", "<|endoftext|>"]
    assert tokens.ids.tolist() == [numbers[piece] for piece in wanted] + [0, 0, 0]
    assert tokens.ids.dtype == np.int64
    assert tokens.mask.tolist() == [True] * 6 + [False] * 3
    assert (tokens.kept, tokens.total, tokens.unknown_share, tokens.warnings) == (4, 4, 0.0, ())


def test_both_forms_are_one_vocabulary(folder: Path, pairs: BytePairTokenizer, tmp_path: Path) -> None:
    assert pairs.size == len(pieces()) == 531
    for path in (folder, folder / VOCABULARY, as_hugging_face(tmp_path), tmp_path):
        other = BytePairTokenizer.load(path)
        assert (other.sha256, other.size) == (pairs.sha256, pairs.size)
        assert other.encode("a white cat").ids.tolist() == pairs.encode("a white cat").ids.tolist()
    (tmp_path / "plain.txt").write_text(f"#version: 0.2\n{PAIRS}\n", encoding="utf-8")
    assert BytePairTokenizer.load(tmp_path / "plain.txt").sha256 == pairs.sha256
    changed = as_openai(tmp_path, f"#version: 0.2\n{PAIRS}\no o\n")
    assert BytePairTokenizer.load(changed).sha256 != pairs.sha256


def test_the_archive_has_more_merges_than_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published file has 262,144, the model reads 48,894: with those it has 49,408 pieces."""
    assert 256 + 256 + tokenizers._USED_MERGES + 2 == 49408
    monkeypatch.setattr(tokenizers, "_USED_MERGES", 3)
    assert BytePairTokenizer.load(as_openai(tmp_path)).size == 512 + 3 + 2


def test_byte_pairs_agree_with_the_reference(folder: Path, pairs: BytePairTokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    merges = [tuple(pair.split()) for pair in PAIRS.splitlines()]
    reference = transformers.CLIPTokenizer(vocab=json.loads((folder / VOCABULARY).read_text()), merges=merges)
    for text in (
        *SENTENCES,
        "don't can't they'll we've I'm '''s",
        "x" * 60,
        "naïve Ångström, ΣΊΣΥΦΟΣ",
        "²³ ½ ٣٤ 狗 ☃☃",
    ):
        tokens = pairs.encode(text, max_tokens=200)
        assert tokens.ids[: tokens.kept + 2].tolist() == reference(text)["input_ids"], text


def test_specials_in_a_sentence_are_signs(pairs: BytePairTokenizer) -> None:
    tokens = pairs.encode("the <|endoftext|> car")
    assert tokens.ids.max() == pairs.size - 1
    assert (tokens.ids >= pairs.size - 2).sum() == 2


def test_warnings(pairs: BytePairTokenizer) -> None:
    tokens = pairs.encode("car " * 30, max_tokens=10)
    assert (tokens.kept, tokens.total) == (8, 30)
    assert "30 word pieces; only the first 8" in tokens.warnings[0]
    assert tokens.ids[9] == pairs.size - 1  # the end is kept where the sentence is cut
    tokens = pairs.encode("追踪 a 白色的汽车")
    assert tokens.unknown_share > 0.9
    assert "unknown" in tokens.warnings[0]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_any_sentence_gives_a_well_formed_row(pairs: BytePairTokenizer, text: str) -> None:
    try:
        tokens = pairs.encode(text, max_tokens=20)
    except InputError:
        return
    assert tokens.ids[0] == pairs.size - 2
    assert tokens.ids[tokens.mask.sum() - 1] == pairs.size - 1 == tokens.ids.max()
    assert (tokens.ids[~tokens.mask] == 0).all()
    assert tokens.mask.sum() == tokens.kept + 2 <= 20
    assert 0 < tokens.kept <= tokens.total


@pytest.mark.fault("C13")
def test_a_missing_vocabulary_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"No CLIP vocabulary in .*vocab\.json") as caught:
        BytePairTokenizer.load(tmp_path)
    assert ARCHIVE in caught.value.hint
    assert "box" in caught.value.hint
    for name in ("none.txt.gz", "none.json"):
        with pytest.raises(ModelNotFound, match=name):
            BytePairTokenizer.load(tmp_path / name)
    as_hugging_face(tmp_path)
    (tmp_path / MERGES).unlink()
    with pytest.raises(ModelNotFound, match=MERGES):
        BytePairTokenizer.load(tmp_path)


@pytest.mark.fault("C12")
def test_a_wrong_vocabulary_is_refused(tmp_path: Path) -> None:
    known = pieces()
    for numbers, said in (
        ({piece: i + 1 for i, piece in enumerate(known)}, "numbered"),
        ({**{piece: i for i, piece in enumerate(known)}, "a": 1.0}, "numbered"),
        ({**{piece: i for i, piece in enumerate(known)}, "a": True}, "numbered"),
        (known, "numbered"),
        ({piece: i for i, piece in enumerate([*known[2:], *known[:2]])}, "last two"),
        ({piece: i for i, piece in enumerate(known[1:])}, "single bytes"),
        ({piece: i for i, piece in enumerate([p for p in known if p != "white</w>"])}, "a merge names"),
    ):
        with pytest.raises(TokenizerMismatch, match=said):
            BytePairTokenizer.load(as_hugging_face(tmp_path, numbers))
    for text, said in (
        (f"#version: 0.2\n{PAIRS}\nt h\n", "repeat: th"),
        (f"#version: 0.2\n{PAIRS}\nth e c\n", "line 19 is not two"),
        (f"#version: 0.2\n{PAIRS}\n\n", "line 19 is not two"),
        (f"#version: 0.2\n{PAIRS}\nzz e\n", "a merge names"),
    ):
        with pytest.raises(TokenizerMismatch, match=said):
            BytePairTokenizer.load(as_openai(tmp_path, text))


@pytest.mark.fault("C12")
def test_a_damaged_or_endless_file_is_refused(tmp_path: Path) -> None:
    path = as_openai(tmp_path)
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"no gzip", whole[:30] + b"\xff\xff" + whole[32:]):
        path.write_bytes(data)
        with pytest.raises(TokenizerMismatch):
            BytePairTokenizer.load(path)
    path.write_bytes(gzip.compress(b"\xff\xfe\n"))
    with pytest.raises(TokenizerMismatch, match="UTF-8"):
        BytePairTokenizer.load(path)
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(TokenizerMismatch, match="JSON"):
        BytePairTokenizer.load(tmp_path / "vocab.json")
    path.write_bytes(gzip.compress(bytes(tokenizers.VOCABULARY_BYTES + 1)))
    with pytest.raises(TokenizerMismatch, match="over 16777216 bytes"):
        BytePairTokenizer.load(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(TokenizerMismatch, match="a device"):
        BytePairTokenizer.load(path)


def test_faults_of_the_call(pairs: BytePairTokenizer) -> None:
    with pytest.raises(PromptEmpty):
        pairs.encode("...")
    with pytest.raises(ValueError, match="2"):
        pairs.encode("car", max_tokens=2)


def test_the_packaged_vocabulary_is_bert_base_uncased() -> None:
    assert PIECES.sha256 == "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
    assert PIECES.sha256 == hashlib.sha256(PACKAGED_VOCABULARY.read_bytes()).hexdigest()
    assert PIECES.size == 30522


def test_a_known_sentence_in_word_pieces() -> None:
    tokens = PIECES.encode("The white CAR on the left", max_tokens=10)
    assert tokens.ids.tolist() == [101, 1996, 2317, 2482, 2006, 1996, 2187, 102, 0, 0]
    assert tokens.ids.dtype == np.int64
    assert tokens.mask.tolist() == [True] * 8 + [False] * 2
    assert (tokens.kept, tokens.total, tokens.unknown_share, tokens.warnings) == (6, 6, 0.0, ())


def test_word_pieces_agree_with_the_reference() -> None:
    """The sentences of real data sets: case, punctuation, hyphens, accents, digits, rare words."""
    transformers = pytest.importorskip("transformers")
    reference = transformers.BertTokenizer(vocab=str(PACKAGED_VOCABULARY), vocab_file=str(PACKAGED_VOCABULARY))
    for text in (*SENTENCES, "an unmanned quadrocopter hovering over the Kyrgyz flag", "x" * 101, "naïve Ångström"):
        tokens = PIECES.encode(text, max_tokens=60)
        assert tokens.ids[: tokens.kept + 2].tolist() == reference(text)["input_ids"], text


WRONG = {
    "moved": (lambda text: text.replace("[CLS]\n[SEP]", "[SEP]\n[CLS]"), r"\[CLS\] is not piece 101"),
    "one more in front": (lambda text: "first\n" + text, r"\[PAD\] is not piece 0"),
    "missing": (lambda text: text.replace("[SEP]", "[END]"), r"\[SEP\] is not piece 102"),
    "twice": (lambda text: text + "the\n", "repeat"),
    "cased": (lambda text: text.replace("\nthe\n", "\nThe\n"), r"capitals \('The'"),
    "short": (lambda text: text[:50], r"\[UNK\]"),
    "no text": (lambda text: "\udcff", "UTF-8"),
}


@pytest.mark.fault("C12")
@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_vocabulary_of_word_pieces_is_refused(tmp_path: Path, kind: str) -> None:
    change, said = WRONG[kind]
    with pytest.raises(ModelNotFound):
        WordPieceTokenizer.load(tmp_path / "vocab.txt")
    text = change(PACKAGED_VOCABULARY.read_text(encoding="utf-8"))
    (tmp_path / "vocab.txt").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(TokenizerMismatch, match=said) as caught:
        WordPieceTokenizer.load(tmp_path / "vocab.txt")
    assert caught.value.exit_code == 5


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
