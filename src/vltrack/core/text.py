"""Text that came from outside, made safe to show, and counts in words. Knows no terminal and no page."""

from __future__ import annotations

import unicodedata

_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """The text with control characters, broken Unicode and direction overrides written as escapes.

    For terminals, logs and pictures: an ANSI sequence or a right-to-left override in a sentence or a file
    name is shown, not obeyed. Everything else stays as it is; pages and CSV need their own quoting besides.
    """
    return "".join(
        _escaped(c) if unicodedata.category(c) in ("Cc", "Cs") or c in _TURNING else c for c in text
    )


def counted(number: int, noun: str, plural: str = "") -> str:
    """The number with its noun: "1 sequence", "1,300 sequences"; ``plural`` where an "s" does not make it."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
