"""Rows P01-P11 of the fault table, as far as sentences themselves go (P08 is the command's, P10 and P12 the
tracker's).
"""

from __future__ import annotations

import contextlib
import unicodedata

import pytest

from vltrack.core.errors import InputError, PromptEmpty, PromptInvalid, PromptTooLong, UsageError, VltrackError
from vltrack.prep.prompts import clean_text, read_prompt_file
from vltrack.prep.tokenizers import WordPieceTokenizer, check_readable


@pytest.fixture(scope="module")
def pieces() -> WordPieceTokenizer:
    return WordPieceTokenizer.load()


@pytest.mark.fault("P01")
@pytest.mark.parametrize("text", ["", " ", "\n\t ", "...", "?!", "«» — …", "+ = $", "\u200b\u200d", "\ufeff"])
def test_a_sentence_without_a_word_is_refused(text) -> None:
    with pytest.raises(PromptEmpty) as caught:
        clean_text(text)
    assert caught.value.exit_code == 3


@pytest.mark.fault("P02")
def test_a_long_sentence_is_cut_and_says_so(pieces) -> None:
    tokens = pieces.encode("the car " * 40, max_tokens=40)
    assert (tokens.kept, tokens.total) == (38, 80)
    assert tokens.ids.shape == tokens.mask.shape == (40,)
    assert tokens.mask.all()
    assert tokens.ids[0] == 101
    assert tokens.ids[-1] == 102
    assert any("80" in warning and "38" in warning for warning in tokens.warnings)


class Unread(str):
    """Text that must be refused by its length alone."""

    def __iter__(self):
        raise AssertionError("a huge sentence was walked through")


@pytest.mark.fault("P03")
@pytest.mark.parametrize("text", ["a" * 1_000_000, "the car " * 131_072, "é" * 4097])
@pytest.mark.timeout(30)
def test_a_huge_sentence_is_refused_at_once(text) -> None:
    with pytest.raises(PromptTooLong) as caught:
        clean_text(Unread(text))
    assert (caught.value.exit_code, len(caught.value.message) < 200) == (3, True)


@pytest.mark.fault("P03")
@pytest.mark.parametrize("read", ["file", "tokens", "readable"])
@pytest.mark.timeout(30)
def test_a_huge_sentence_is_refused_wherever_it_is_given(tmp_path, pieces, read: str) -> None:
    path, text = tmp_path / "nlp.txt", "a" * 1_000_000
    path.write_text(text)
    readers = {
        "file": lambda: read_prompt_file(path),
        "tokens": lambda: pieces.encode(text),
        "readable": lambda: check_readable(text),
    }
    check_readable("the car")
    with pytest.raises(PromptTooLong):
        readers[read]()


@pytest.mark.fault("P03")
@pytest.mark.parametrize(
    "part", ["a", "!", "a ", "é", "e\u0301", "a" + "\u0315\u0301" * 8, "白", "a-", "##a", "ab" * 49 + " "]
)
@pytest.mark.timeout(30)
def test_the_longest_sentence_is_split_in_no_time(pieces, part: str) -> None:
    text = (part * 4096).encode()[:4096].decode(errors="ignore")
    with contextlib.suppress(PromptEmpty):
        assert pieces.encode(text).kept <= 75


@pytest.mark.fault("P03")
def test_a_word_of_4096_letters_is_one_unknown_piece(pieces) -> None:
    tokens = pieces.encode("a" * 4096)
    assert tokens.kept == tokens.total == 1
    assert tokens.unknown_share == 1.0


@pytest.mark.fault("P04")
@pytest.mark.parametrize(
    "text",
    [
        "белая машина",
        "白色的汽车",
        "السيارة البيضاء",
        "रोशनी",
        "המכונית",
        "🚗🚙",
        "白 car 車 赤い",
        "ﷺ",
        "\u202eracecar",
    ],
)
def test_other_languages_do_not_crash(pieces, text) -> None:
    tokens = pieces.encode(text)
    assert 0.0 <= tokens.unknown_share <= 1.0
    assert tokens.kept == tokens.total > 0


@pytest.mark.fault("P04")
@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("белая машина", True),
        ("🚗🚙 🚗", True),
        ("白色的汽车", True),
        ("the white car", False),
        ("ein Café", False),
        ("the 白 car", False),
        ("t-shirt no. 7!", False),
    ],
)
def test_a_foreign_sentence_is_warned_of(pieces, text, warned) -> None:
    assert any("English" in warning for warning in pieces.encode(text).warnings) == warned


@pytest.mark.fault("P04")
def test_composed_and_decomposed_are_the_same_sentence(pieces) -> None:
    nfd = unicodedata.normalize("NFD", "the café's crème brûlée")
    assert clean_text(nfd) == unicodedata.normalize("NFC", nfd)
    assert (pieces.encode(nfd).ids == pieces.encode(clean_text(nfd)).ids).all()


@pytest.mark.fault("P05")
@pytest.mark.parametrize("bad", ["\x00", "\x07", "\x1b[31m", "\x7f", "\x85", "\ud800", "\udcff"])
def test_control_characters_and_broken_unicode_are_refused(bad) -> None:
    with pytest.raises(PromptInvalid, match="position 8") as caught:
        clean_text(f"the car {bad} there")
    assert caught.value.exit_code == 3
    str(caught.value).encode("utf-8")  # the message itself can be printed


@pytest.mark.fault("P06")
@pytest.mark.parametrize("text", ["[SEP] the car", "[CLS][SEP][MASK][PAD][UNK]", "the [MASK] car [unused0]"])
def test_special_tokens_typed_by_a_user_are_plain_text(pieces, text) -> None:
    tokens = pieces.encode(text)
    inner = tokens.ids[1 : tokens.kept + 1].tolist()
    assert not {0, 100, 101, 102, 103} & set(inner)
    assert tokens.ids[0] == 101
    assert tokens.ids[tokens.kept + 1] == 102


@pytest.mark.fault("P07")
@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "=HYPERLINK(1)", "a & b \"c\" 'd'", "-2+3", "@SUM(A1)"])
def test_markup_stays_raw_text(text) -> None:
    assert clean_text(text) == text


@pytest.mark.fault("P09")
@pytest.mark.parametrize("line", ["no", "12:30", "1e-4", "null", "010", "~ car", "yes: no"])
def test_a_prompt_file_is_never_parsed(tmp_path, line) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text(line + "\n")
    assert read_prompt_file(file) == line


@pytest.mark.fault("P11")
@pytest.mark.parametrize(
    "data", [b"the car\nthe dog\n", b"\xef\xbb\xbfthe car\r\nthe dog\r\n", b"the car\rthe dog", b"the car\nthe dog"]
)
def test_prompt_file_lines(tmp_path, data) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(data)
    assert read_prompt_file(file) == "the car"
    assert read_prompt_file(file, line=2) == "the dog"
    with pytest.raises(PromptEmpty, match=r"line 3 .*: it has 2"):
        read_prompt_file(file, line=3)
    with pytest.raises(UsageError):
        read_prompt_file(file, line=0)


@pytest.mark.fault("P11")
def test_prompt_file_faults(tmp_path) -> None:
    with pytest.raises(InputError, match="missing"):
        read_prompt_file(tmp_path / "missing.txt")
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"the \xff car")
    with pytest.raises(PromptInvalid, match="byte 4"):
        read_prompt_file(bad)
    bad.write_bytes(b"x\n" * 600_000)
    with pytest.raises(PromptTooLong):
        read_prompt_file(bad)
    bad.write_bytes(b"\n\nthe car\n")
    with pytest.raises(PromptEmpty):
        read_prompt_file(bad)


def test_every_fault_is_one_of_ours() -> None:
    for error in (PromptEmpty, PromptInvalid, PromptTooLong):
        assert issubclass(error, InputError)
        assert issubclass(error, VltrackError)


@pytest.mark.fault("P14")
@pytest.mark.parametrize("text", ["dog", "the wakeboarder", "白 car 車", "Café", "T-shirt no. 7", "ox"])
def test_one_english_word_is_enough(text: str) -> None:
    check_readable(text)
