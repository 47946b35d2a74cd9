"""Counts as messages say them."""

import pytest

from vltrack.core.files import counted


@pytest.mark.parametrize(
    ("number", "noun", "plural", "text"),
    [
        (0, "error", "", "0 errors"),
        (1, "sequence", "", "1 sequence"),
        (2, "sequence", "", "2 sequences"),
        (685360, "frame", "", "685,360 frames"),
        (1, "entry", "entries", "1 entry"),
        (3, "entry", "entries", "3 entries"),
    ],
)
def test_one_is_one_and_all_else_is_many(number: int, noun: str, plural: str, text: str) -> None:
    assert counted(number, noun, plural) == text
