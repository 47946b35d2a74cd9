"""Phrases name their target and no other thing, as rules that are written here anew say; absent ones name nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from vltrack.training.grounder import lexicon, phrases
from vltrack.training.grounder.phrases import Phrase, Thing, draw_phrase

SIZE = (640.0, 480.0)
KINDS = ("person", "dog", "cup", "car")
COLORS = ("red", "orange", "blue", "black", "")
LIKE = [{"red", "orange"}]
"""Colors that may be taken for each other."""
GARMENTS = ("top", "coat", "dress", "skirt", "hat")

COLOR_WORDS = {word: color for color, words in lexicon.COLORS.items() for word in words.split(", ")}
NOUNS: dict[str, tuple[str, str]] = {"animal": ("dog", "")}
"""Noun -> class and gender."""
for gender, line in lexicon.PEOPLE.items():
    NOUNS |= {noun: ("person", gender) for noun in line.split(", ")}
for kind in (*KINDS[1:], *lexicon.SYNONYMS):
    NOUNS |= {noun: (kind, "") for noun in lexicon.nouns_of(kind) if noun not in {**NOUNS, **COLOR_WORDS}}
GARMENT_WORDS = {noun: {g for g in GARMENTS if noun in lexicon.GARMENTS.get(g, g).split(", ")}
                 for g in GARMENTS for noun in (*lexicon.GARMENTS.get(g, g).split(", "), g)}  # fmt: skip
GARMENT_WORDS["outfit"] = GARMENT_WORDS["clothes"] = GARMENT_WORDS["uniform"] = set()

Test = Callable[[Thing], bool]
Key = Callable[[Thing], float]
EXTREMES: dict[str, Key] = {
    r"(big|bigger|biggest|large|larger|largest|tall)": lambda t: t.width * t.height,
    r"(small|smaller|smallest|little|tiny|short)": lambda t: -t.width * t.height,
    r"(left|leftmost)": lambda t: -t.center[0],
    r"(right|rightmost)": lambda t: t.center[0],
    r"(on|at|to) the (far )?left( side)?|in the left lane": lambda t: -t.center[0],
    r"(on|at|to) the (far )?right( side)?|in the right lane": lambda t: t.center[0],
    r"at the top|above the others|on top|in the upper part": lambda t: -t.center[1],
    r"at the bottom|below the others|in the lower part": lambda t: t.center[1],
    r"in front|in the foreground|closest to the camera|at the front|nearest": lambda t: t.box[3],
    r"at the back|in the background|far away|behind the others|in the distance|farthest away": lambda t: -t.box[3],
}
"""Text -> what the target has most of among those that the other parts fit."""


def scene(rng: np.random.Generator) -> list[Thing]:
    """Three to seven things of few kinds at random places."""
    things = []
    for _ in range(int(rng.integers(3, 8))):
        w, h = rng.uniform(20, 200, 2)
        x, y = rng.uniform(0, SIZE[0] - w), rng.uniform(0, SIZE[1] - h)
        name = KINDS[int(rng.integers(len(KINDS)))]
        color = COLORS[int(rng.integers(len(COLORS)))]
        thing = Thing(name=name, box=(x, y, x + w, y + h), color=color)
        if name == "person":
            worn = GARMENTS[int(rng.integers(len(GARMENTS)))]
            gender, head = ("man", "woman", "")[int(rng.integers(3))], (x, y, x + w / 4, y + h / 8)
            garments = {worn: color} if rng.random() < 0.8 else {}
            thing = replace(thing, color="", gender=gender, garments=garments, head=head)
        things.append(replace(thing, known=bool(rng.random() < 0.9)))
    return things


def color_is(said: str, own: str) -> bool:
    return not own or said == own or {said, own} in LIKE


def unknown(thing: Thing) -> bool:
    """Nothing is known of what a person wears below or above the chest, or at all."""
    return thing.name == "person" and set(thing.garments) <= {"top"} and not any(thing.garments.values())


def wears(said: str, garment: str | None) -> Test:
    def test(thing: Thing) -> bool:
        if unknown(thing):
            return True
        if garment is None or not GARMENT_WORDS[garment]:
            return any(color_is(said, c) for c in thing.garments.values())
        upper = GARMENT_WORDS[garment] & {"top", "coat", "dress"}
        alike = GARMENT_WORDS[garment] | ({"top", "coat", "dress"} if upper else set())
        return any(g in alike and color_is(said, c) for g, c in thing.garments.items())

    return test


def parse(text: str) -> tuple[list[Test], list[Key], bool]:
    """What a phrase says: tests of a thing, extremes, and whether all of the text was read."""
    tests: list[Test] = []
    keys: list[Key] = []
    rest = re.sub(r"^(the|an|a) ", "", text)
    nouns, colors = (sorted(each, key=len, reverse=True) for each in (NOUNS, COLOR_WORDS))
    while not (noun := next((n for n in nouns if re.match(rf"{n}(\b|$)", rest)), "")):
        word = next((c for c in colors if rest.startswith(c + " ")), rest.split(" ")[0])
        if word in COLOR_WORDS:
            tests.append(lambda t, c=COLOR_WORDS[word]: color_is(c, t.color))
        elif extreme := next((key for pattern, key in EXTREMES.items() if re.fullmatch(pattern, word)), None):
            keys.append(extreme)
        elif word not in ("first", "second", "third"):
            return [lambda t: False], [], False  # the noun is not of a class that the tests have
        rest = rest[len(word) :].lstrip()
        if not rest:
            return [lambda t: False], [], False
    name, gender = NOUNS[noun]
    tests.append(lambda t: t.name == name and (not gender or t.gender in ("", gender)))
    rest = rest[len(noun) :].strip()
    said = "|".join(colors)
    worn = "|".join(sorted(GARMENT_WORDS, key=len, reverse=True))
    clothed = re.compile(rf"(?:in|with|wearing|dressed in) (?:the |a )?({said})(?: ({worn}))?(?= |$)")
    while rest:
        if match := clothed.match(rest):
            tests.append(wears(COLOR_WORDS[match[1]], match[2]))
        elif match := re.match(r"(?:with|wearing|carrying) (?:the |a )?(hat|cap)(?= |$)", rest):
            tests.append(lambda t: "hat" in t.garments or unknown(t))
        else:
            for pattern, key in EXTREMES.items():
                if match := re.match(rf"(?:{pattern})(?= |$)", rest):
                    keys.append(key)
                    break
        if not match:
            return tests, keys, False
        rest = rest[match.end() :].strip()
    return tests, keys, True


def drawn(monkeypatch: pytest.MonkeyPatch, *, complete: bool) -> Iterator[tuple[list[Thing], Phrase]]:
    """Phrases of random scenes, without what need not be heeded."""
    monkeypatch.setattr(phrases._Writer, "tail", lambda self, text, *_: text)
    for seed in range(150):
        rng = np.random.default_rng(seed)
        things = scene(rng)
        for _ in range(12):
            phrase = draw_phrase(things, SIZE, rng, complete=complete)
            if phrase is not None:
                yield things, phrase


def test_a_phrase_names_its_target_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[str] = Counter()
    for things, phrase in drawn(monkeypatch, complete=False):
        if phrase.part == "pair":
            continue
        assert phrase.target >= 0  # what is absent is not known
        target = things[phrase.target]
        assert target.known
        text = phrase.text
        if phrase.part == "head":
            assert target.head is not None
            whole = re.fullmatch(r"the (?:head|face|hair|hat|cap|helmet) of (.*)|(.*)'s \w+", text)
            if whole is None:
                assert sum(t.name == "person" for t in things) == 1, text
                continue
            text = whole[1] or whole[2]
        tests, keys, everything = parse(text)
        fitting = [t for t in things if all(test(t) for test in tests)]
        assert target in fitting, (text, target)
        if not everything:
            continue
        read[phrase.part + ("extreme" if len(fitting) > 1 else "alone")] += 1
        others = [t for t in fitting if t is not target]
        assert not others or any(key(target) > max(key(t) for t in others) for key in keys), (text, target, others)
    assert min(read["extreme"], read["alone"], read["headalone"]) > 50  # the rules were used


def test_an_absent_phrase_names_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = other = 0
    for things, phrase in drawn(monkeypatch, complete=True):
        if phrase.target >= 0:
            continue
        tests, _, _ = parse(phrase.text)
        assert not [t for t in things if all(test(t) for test in tests)], (phrase.text, things)
        wrong, other = wrong + (len(tests) > 1), other + (len(tests) == 1)
    assert wrong > 20
    assert other > 50


def test_a_rider_and_a_mount_are_a_pair() -> None:
    rider = Thing(name="person", box=(100, 100, 160, 260))
    bicycle = Thing(name="bicycle", box=(80, 190, 180, 300))
    rng = np.random.default_rng(0)
    found = [draw_phrase([rider, bicycle], SIZE, rng, complete=False) for _ in range(200)]
    pairs = [p for p in found if p is not None and p.part == "pair"]
    assert pairs
    assert {(p.target, p.partner) for p in pairs} == {(0, 1)}
    apart = [rider, replace(bicycle, box=(400, 190, 500, 300))]
    assert all(p is None or p.part != "pair" for p in (draw_phrase(apart, SIZE, rng, complete=False) for _ in found))


def test_the_same_seed_draws_the_same_phrases() -> None:
    things = scene(np.random.default_rng(3))
    one, two, other = (
        [draw_phrase(things, SIZE, rng, complete=True) for _ in range(20)]
        for rng in map(np.random.default_rng, (5, 5, 6))
    )
    assert one == two != other
