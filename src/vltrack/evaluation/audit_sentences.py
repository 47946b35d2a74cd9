"""Other sentences for the audit: another target's, and one that contradicts. Knows words; no picture.

The lists of words are ours and English. The same sentences and seed always give the same answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

COLOURS: dict[str, str] = {
    "red": "blue",
    "blue": "red",
    "green": "purple",
    "purple": "green",
    "yellow": "black",
    "black": "white",
    "white": "black",
    "orange": "blue",
    "pink": "green",
    "brown": "white",
    "gray": "red",
    "grey": "red",
    "silver": "red",
    "golden": "blue",
}
"""A colour and what contradicts it; where that is in the sentence too, the next of ``_RING`` that is not."""

_RING = ("red", "blue", "green", "yellow", "purple", "white", "black")

_OPPOSITES = """
left right, leftmost rightmost, top bottom, upper lower, uppermost lowermost, above below, front back,
foreground background, first last, near far, nearest farthest, inside outside, up down, towards away,
small large, smaller larger, smallest largest, tall short, taller shorter, tallest shortest, thick thin,
wide narrow, fat slim, young old, younger older, dark bright, male female, man woman, men women, boy girl,
boys girls, father mother, king queen, actor actress, gentleman lady
"""
_ONE_WAY = {
    "big": "small",
    "bigger": "smaller",
    "biggest": "smallest",
    "little": "large",
    "tiny": "large",
    "huge": "small",
    "long": "short",
    "middle": "corner",
    "light": "dark",
    "guy": "woman",
    "gentlemen": "women",
    "closest": "farthest",
    "furthest": "nearest",
}

CLASSES: dict[str, str] = {
    "person": "car",
    "people": "cars",
    "human": "car",
    "pedestrian": "bus",
    "player": "ball",
    "athlete": "ball",
    "driver": "tree",
    "rider": "tree",
    "face": "hand",
    "hand": "face",
    "head": "foot",
    "car": "person",
    "van": "person",
    "bus": "bicycle",
    "truck": "bicycle",
    "vehicle": "animal",
    "motorcycle": "boat",
    "motorbike": "boat",
    "bicycle": "truck",
    "bike": "truck",
    "train": "horse",
    "boat": "motorcycle",
    "ship": "bicycle",
    "airplane": "dog",
    "aircraft": "dog",
    "plane": "dog",
    "helicopter": "cow",
    "drone": "cat",
    "animal": "vehicle",
    "dog": "cat",
    "cat": "dog",
    "horse": "train",
    "cow": "bird",
    "sheep": "bird",
    "bird": "elephant",
    "elephant": "bird",
    "bear": "duck",
    "zebra": "car",
    "giraffe": "boat",
    "lion": "bus",
    "tiger": "bus",
    "monkey": "truck",
    "fish": "person",
    "ball": "player",
    "cup": "book",
    "bottle": "chair",
    "book": "cup",
    "box": "ball",
    "bag": "bicycle",
    "phone": "shoe",
    "toy": "tree",
    "kite": "car",
    "circle": "square",
    "square": "circle",
    "triangle": "ring",
    "star": "bar",
    "cross": "circle",
    "diamond": "ring",
    "ring": "diamond",
    "bar": "star",
}
"""A class and another one, for sentences that name neither colour, side, size nor man or woman."""

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
"""Plain phrases of everyday things: what is shuffled in where there is one sentence only."""

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
        swapped: the words that were exchanged, (old, new) each; empty where no word could be.
        how: ``attribute`` (colour, side, size, man or woman), ``class`` (another kind of thing) or ``object``
            (no word is on the lists: a plain phrase of another thing).
    """

    text: str
    swapped: tuple[tuple[str, str], ...]
    how: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """What is said of one target instead of the truth: another target's sentence, and a contradiction."""

    shuffled: str
    contradicting: Contradiction


def words_of(sentence: str) -> list[str]:
    """The words of a sentence in lower case, in order."""
    return [word.lower() for word in _WORD.findall(sentence)]


def content_words(sentence: str) -> frozenset[str]:
    """The words that say something of the target."""
    return frozenset(words_of(sentence)) - _FILLERS


def contradict(sentence: str) -> Contradiction:
    """A sentence that says the opposite in what can be said the opposite of.

    Every word for a colour, a side, a size, an age or a sex is exchanged; where there is none, the words for
    a class; where there is none either, the whole sentence gives way to a plain phrase of another thing.
    """
    said = set(words_of(sentence))
    for how, table in (("attribute", _attributes(said)), ("class", CLASSES)):
        swapped = [(word, table[word]) for word in words_of(sentence) if word in table]
        if swapped:
            text = _WORD.sub(partial(_exchanged, table), sentence)
            return Contradiction(text=text, swapped=tuple(dict.fromkeys(swapped)), how=how)
    return Contradiction(text=plain_phrase(sentence, skip=1), swapped=(), how="object")


def plain_phrase(sentence: str, skip: int = 0) -> str:
    """A phrase of ``PLAIN`` that shares no content word with the sentence; the ``skip``-th of those."""
    own = content_words(sentence)
    strangers = [phrase for phrase in PLAIN if not content_words(phrase) & own]
    if not strangers:  # the sentence has a word of each phrase: the least alike is the best there is
        return min(PLAIN, key=lambda phrase: len(content_words(phrase) & own))
    # Not always the first: which one follows from the letters of the sentence.
    return strangers[(sum(map(ord, sentence)) + skip) % len(strangers)]


def shuffled(sentences: Sequence[str], seed: int = 0) -> list[str]:
    """Another target's sentence for each: a derangement, chosen so that few content words are shared.

    Where even the best one leaves a target with its own words (two targets have the same sentence, or there
    is one sentence only), that target gets a plain phrase.
    """
    number = len(sentences)
    order = [int(i) for i in np.random.default_rng(seed).permutation(number)]
    contents = [content_words(sentence) for sentence in sentences]

    def shared(shift: int) -> float:
        pairs = ((contents[order[i]], contents[order[(i + shift) % number]]) for i in range(number))
        return sum(len(one & other) + 10 * (one == other) for one, other in pairs)

    # A shift of a random order leaves nobody in place; a few dozen are enough to find a good one.
    shift = min(range(1, min(number, 49)), key=shared, default=0)
    result = [""] * number
    for place, index in enumerate(order):
        other = order[(place + shift) % number]
        same = contents[other] == contents[index]
        result[index] = plain_phrase(sentences[index]) if same else sentences[other]
    return result


def wordings(sentences: Sequence[str], seed: int = 0) -> list[Wording]:
    """For each sentence what is said instead."""
    others = shuffled(sentences, seed)
    return [
        Wording(shuffled=other, contradicting=contradict(sentence))
        for sentence, other in zip(sentences, others, strict=True)
    ]


def opposites() -> dict[str, str]:
    """Sides, sizes, ages and sexes: a word and its opposite."""
    pairs = [pair.split() for pair in _OPPOSITES.replace("\n", " ").split(",")]
    return {a: b for a, b in pairs} | {b: a for a, b in pairs} | _ONE_WAY


def _attributes(said: set[str]) -> dict[str, str]:
    """Colours and opposites; no colour is exchanged for one that the sentence names as well."""
    colours: dict[str, str] = {}
    for colour in sorted(said & COLOURS.keys()):
        free = (c for c in (COLOURS[colour], *_RING) if c not in said and c not in colours.values())
        colours[colour] = next(free, COLOURS[colour])
    return opposites() | colours


def _exchanged(table: dict[str, str], hit: re.Match[str]) -> str:
    """The new word, with a capital where the old one had it; the old one where the table has none."""
    word = hit.group()
    new = table.get(word.lower())
    if new is None:
        return word
    return new.capitalize() if word[0].isupper() else new
