"""Other sentences for the audit: that of another target, and one that contradicts the true one.

The word lists are ours and English. The same sentences and seed always give the same results.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split() for pair in text.split(","))


COLORS: dict[str, str] = _pairs(
    """
    red blue, blue red, green purple, purple green, yellow black, black white, white black, orange blue, pink
    green, brown white, gray red, grey red, silver red, golden blue
    """
)
"""A color and its replacement; if that is in the sentence too, the next of ``_REPLACEMENTS`` that is not."""

_REPLACEMENTS = ("red", "blue", "green", "yellow", "purple", "white", "black")

_OPPOSITES = """
left right, leftmost rightmost, top bottom, upper lower, uppermost lowermost, above below, front back,
foreground background, first last, near far, nearest farthest, inside outside, up down, towards away,
small large, smaller larger, smallest largest, tall short, taller shorter, tallest shortest, thick thin,
wide narrow, fat slim, young old, younger older, dark bright, male female, man woman, men women, boy girl,
boys girls, father mother, king queen, actor actress, gentleman lady
"""
_ONE_WAY = _pairs(
    """
    big small, bigger smaller, biggest smallest, little large, tiny large, huge small, long short, middle
    corner, light dark, guy woman, gentlemen women, closest farthest, furthest nearest
    """
)

CLASSES: dict[str, str] = _pairs(
    """
    person car, people cars, human car, pedestrian bus, player ball, athlete ball, driver tree, rider tree,
    face hand, hand face, head foot, car person, van person, bus bicycle, truck bicycle, vehicle animal,
    motorcycle boat, motorbike boat, bicycle truck, bike truck, train horse, boat motorcycle, ship bicycle,
    airplane dog, aircraft dog, plane dog, helicopter cow, drone cat, animal vehicle, dog cat, cat dog, horse
    train, cow bird, sheep bird, bird elephant, elephant bird, bear duck, zebra car, giraffe boat, lion bus,
    tiger bus, monkey truck, fish person, ball player, cup book, bottle chair, book cup, box ball, bag
    bicycle, phone shoe, toy tree, kite car, circle square, square circle, triangle ring, star bar, cross
    circle, diamond ring, ring diamond, bar star
    """
)
"""A class and its replacement, for sentences without a color, side, size, age or sex."""

PLAIN: tuple[str, ...] = (
    "the wooden chair",
    "the red umbrella",
    "a parked bicycle",
    "the white cup on the table",
    "the yellow school bus",
    "a brown horse",
    "the green bottle",
    "the computer keyboard",
    "a flying kite",
    "the person in the blue coat",
    "the black cat",
    "a slice of pizza",
)
"""Plain descriptions of everyday things, for targets that get no other target's sentence."""

_FILLERS = frozenset(
    re.findall(
        r"\w+",
        "a an the of in on at to is are was and or with which that this its his her their it by from for as "
        "into over under one who whose being been be s",
    )
)
_WORD = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Contradiction:
    """A sentence that contradicts another one.

    Attributes:
        text: the sentence.
        swapped: (old, new) of the words that were replaced; empty if none was.
        how: ``attribute`` (color, side, size, man or woman), ``class`` (another class) or ``object`` (no word
            is on the lists: a plain description of another thing).
    """

    text: str
    swapped: tuple[tuple[str, str], ...]
    how: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """The false sentences for one target: that of another target, and a contradiction."""

    shuffled: str
    contradicting: Contradiction


def words_of(sentence: str) -> list[str]:
    """The words of a sentence in lower case, in order."""
    return [word.lower() for word in _WORD.findall(sentence)]


def content_words(sentence: str) -> frozenset[str]:
    """The words that describe the target."""
    return frozenset(words_of(sentence)) - _FILLERS


def contradict(sentence: str) -> Contradiction:
    """Replace the attributes of a sentence by their opposites.

    Every word for a color, a side, a size, an age or a sex is replaced; if there is none, the words for a
    class; if there is none either, the whole sentence, by a plain description of another thing.
    """
    words = words_of(sentence)
    for how, table in (("attribute", _attributes(set(words))), ("class", CLASSES)):
        swapped = [(word, table[word]) for word in words if word in table]
        if swapped:
            text = _WORD.sub(partial(_replacement, table), sentence)
            return Contradiction(text=text, swapped=tuple(dict.fromkeys(swapped)), how=how)
    return Contradiction(text=plain_phrase(sentence, skip=1), swapped=(), how="object")


def plain_phrase(sentence: str, skip: int = 0) -> str:
    """A phrase of ``PLAIN`` that shares no content word with the sentence; the ``skip``-th such one."""
    own = content_words(sentence)
    distinct = [phrase for phrase in PLAIN if not content_words(phrase) & own]
    if not distinct:  # the sentence shares a word with each phrase: take the least similar one
        return min(PLAIN, key=lambda phrase: len(content_words(phrase) & own))
    # Not always the first one: the letters of the sentence decide.
    return distinct[(sum(map(ord, sentence)) + skip) % len(distinct)]


def shuffled(sentences: Sequence[str], seed: int = 0) -> list[str]:
    """Give each target another one's sentence: a derangement that shares few content words.

    A target that gets its own content words even so (two targets have the same sentence, or there is a single
    sentence) gets a plain description instead.
    """
    number = len(sentences)
    order = [int(i) for i in np.random.default_rng(seed).permutation(number)]
    contents = [content_words(sentence) for sentence in sentences]

    def shared(shift: int) -> float:
        pairs = ((contents[order[i]], contents[order[(i + shift) % number]]) for i in range(number))
        return sum(len(one & other) + 10 * (one == other) for one, other in pairs)

    # A shift of a random order leaves none in place; a few dozen are enough to find a good one.
    shift = min(range(1, min(number, 49)), key=shared, default=0)
    result = [""] * number
    for place, index in enumerate(order):
        other = order[(place + shift) % number]
        same = contents[other] == contents[index]
        result[index] = plain_phrase(sentences[index]) if same else sentences[other]
    return result


def wordings(sentences: Sequence[str], seed: int = 0) -> list[Wording]:
    """The false sentences for each true one."""
    others = shuffled(sentences, seed)
    return [
        Wording(shuffled=other, contradicting=contradict(sentence))
        for sentence, other in zip(sentences, others, strict=True)
    ]


def opposites() -> dict[str, str]:
    """Opposites of words for sides, sizes, ages and sexes."""
    pairs = _pairs(_OPPOSITES)
    return pairs | {b: a for a, b in pairs.items()} | _ONE_WAY


def _attributes(words: set[str]) -> dict[str, str]:
    """Replacements of colors and opposites; no color becomes one that the sentence names as well."""
    colors: dict[str, str] = {}
    for color in sorted(words & COLORS.keys()):
        free = (c for c in (COLORS[color], *_REPLACEMENTS) if c not in words and c not in colors.values())
        colors[color] = next(free, COLORS[color])
    return opposites() | colors


def _replacement(table: dict[str, str], hit: re.Match[str]) -> str:
    """The new word, capitalized like the old one; the old one if the table has none."""
    word = hit.group()
    new = table.get(word.lower())
    if new is None:
        return word
    return new.capitalize() if word[0].isupper() else new
