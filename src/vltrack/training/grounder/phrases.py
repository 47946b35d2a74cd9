"""Phrases that name one thing of a scene and no other, and phrases that name nothing in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vltrack.training.grounder import lexicon
from vltrack.training.grounder.lexicon import COLORS, CONFUSED, GARMENTS, GROUPS, PEOPLE, ROLES, TAILS, nouns_of

Rng = np.random.Generator
_Made = tuple[str, str, set[int]] | None


@dataclass(kw_only=True, slots=True)
class Thing:
    """One thing of a scene.

    Attributes:
        name: class, such as "person" or "cup".
        box: x0, y0, x1, y1 in pixels.
        color: clear color, or "".
        gender: "man", "woman" or "".
        garments: what a person wears or carries -> its color, or "" where that is unclear.
        head: box of a person's head, where it is known.
        sentences: written for this thing; true of it alone.
        known: it may be named: large enough, hardly hidden.
    """

    name: str
    box: tuple[float, float, float, float]
    color: str = ""
    gender: str = ""
    garments: dict[str, str] = field(default_factory=dict)
    head: tuple[float, float, float, float] | None = None
    sentences: list[str] = field(default_factory=list)
    known: bool = True

    @property
    def center(self) -> tuple[float, float]:
        """x and y of the middle of the box."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def width(self) -> float:
        """Of the box, in pixels."""
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        """Of the box, in pixels."""
        return self.box[3] - self.box[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Phrase:
    """A sentence and what it names.

    Attributes:
        text: the sentence.
        target: index of the thing; -1 for nothing in the scene.
        part: "" for the thing itself, "head" for the head of it, "pair" for it together with ``partner``.
        partner: index of the second thing of a pair, else -1.
    """

    text: str
    target: int
    part: str = ""
    partner: int = -1


def draw_phrase(things: Sequence[Thing], size: tuple[float, float], rng: Rng, *, complete: bool) -> Phrase | None:
    """A random phrase for a scene of ``size`` (width, height); None where none was found in a few attempts.

    ``complete``: every thing of the detector's classes is listed, so that a class that is not is absent.
    """
    writer = _Writer(things, size, rng)
    for _ in range(6):
        roll = rng.random()
        if complete and roll < 0.14:
            phrase = writer.absent()
        elif roll < 0.22:
            phrase = writer.head()
        elif roll < 0.27:
            phrase = writer.pair()
        else:
            phrase = writer.one()
        if phrase is not None:
            return phrase
    return None


class _Writer:
    """Writes phrases about the things of one scene."""

    def __init__(self, things: Sequence[Thing], size: tuple[float, float], rng: Rng) -> None:
        self.things, self.size, self.rng = things, size, rng

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    # -- one thing ------------------------------------------------------------------------------------------

    def one(self) -> Phrase | None:
        """A phrase that names one thing: one written for it, or a description."""
        known = [i for i, thing in enumerate(self.things) if thing.known and thing.name]
        if not known:
            return None
        written = [i for i in known if self.things[i].sentences]
        if written and self.rng.random() < 0.35:
            i = written[int(self.rng.integers(len(written)))]
            return Phrase(text=self.pick(self.things[i].sentences), target=i)
        # Half of the time a thing that has rivals: what a scene is made for.
        crowded = [i for i in known if any(self.same(i, j) for j in range(len(self.things)) if j != i)]
        pool = crowded if crowded and self.rng.random() < 0.5 else known
        i = pool[int(self.rng.integers(len(pool)))]
        text = self.describe(i)
        return None if text is None else Phrase(text=self.tail(text, i), target=i)

    def same(self, i: int, j: int) -> bool:
        """Whether one noun may name both things."""
        return _alike(self.things[i].name, self.things[j].name)

    def describe(self, i: int, *, short: bool = False) -> str | None:
        """A noun phrase that fits only thing ``i``, or None."""
        noun, rivals = self.noun(i)
        parts = self.set_apart(i, rivals)
        if parts is None:
            return None
        phrase = " ".join([*parts["before"], noun, *parts["after"]])
        roll = self.rng.random()
        if roll < 0.8 or short:
            return f"the {phrase}"
        if roll < 0.9 and self.things[i].name not in lexicon.PLURAL:
            return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
        return phrase

    def set_apart(self, i: int, rivals: set[int]) -> dict[str, list[str]] | None:
        """What to say before and after the noun so that no rival is left; None where that was not found."""
        rng = self.rng
        parts: dict[str, list[str]] = {"before": [], "after": []}
        looks = [self.by_color, self.by_garment]
        makers = [*looks, self.by_size, self.by_side, self.by_depth, self.by_order, self.by_relation]
        order = [makers[k] for k in rng.permutation(len(makers))]
        if rng.random() < 0.5:  # colors and garments first: they are what people say
            order = [*looks, *order]
        extra = (rng.random() < 0.5) + (rng.random() < 0.15)
        for maker in order:
            if not rivals and extra <= 0:
                break
            made = maker(i, rivals)
            if made is None:
                continue
            where, text, left = made
            if rivals and len(left) == len(rivals) and rng.random() < 0.7:
                continue
            repeated = maker in looks and text.split()[-1] in " ".join(parts["after"])
            if len(parts[where]) == 2 or repeated:
                continue
            if not rivals:
                extra -= 1
            parts[where].append(text)
            rivals = left
        return None if rivals else parts

    def noun(self, i: int) -> tuple[str, set[int]]:
        """A noun for a thing and the others that it may name."""
        thing, rng = self.things[i], self.rng
        rivals = {j for j in range(len(self.things)) if j != i and self.same(i, j)}
        if thing.name == "person":
            role = self.role(i)
            if role and rng.random() < 0.4:
                others = {j for j in rivals if self.role(j) or not self.things[j].known}
                return self.pick(role), others
            gender = thing.gender if rng.random() < 0.75 else ""
            if not thing.gender and rng.random() < 0.55:
                gender = self.pick(("man", "woman"))
            if gender and thing.gender:
                rivals = {j for j in rivals if self.things[j].gender in ("", gender)}
            return self.pick(PEOPLE[gender].split(", ")), rivals
        if rng.random() < 0.08:
            for group, names in GROUPS.items():
                members = [name.replace("_", " ") for name in names.split()]
                if thing.name in members:
                    others = {j for j, o in enumerate(self.things) if j != i and o.name in members}
                    return group, others | rivals
        nouns = nouns_of(thing.name)
        return (nouns[0] if rng.random() < 0.4 else self.pick(nouns)), rivals

    def role(self, i: int) -> list[str]:
        """Nouns of a person who has something that makes a role."""
        x0, y0, x1, y1 = self.things[i].box
        found: list[str] = []
        for other in self.things:
            if other.name not in ROLES:
                continue
            cx, cy = other.center
            near = x0 - 0.25 * (x1 - x0) < cx < x1 + 0.25 * (x1 - x0) and y0 < cy < y1 + 0.35 * (y1 - y0)
            if near and other.width < 4 * (x1 - x0):
                found += ROLES[other.name].split(", ")
        return found

    def color_word(self, color: str) -> str:
        """A word for a color, or two of them for "red and white"."""
        parts = color.split(" and ")
        return " and ".join(self.pick(COLORS.get(p, p).split(", ")) if p in COLORS else p for p in parts)

    # What sets a thing apart: where to say it ("before" or "after" the noun), the text, and the rivals left.

    def by_color(self, i: int, rivals: set[int]) -> _Made:
        """Color of a thing, or of a person's clothes."""
        thing = self.things[i]
        if thing.name == "person":
            color = _clothing(thing)
            left = {j for j in rivals if _may_be(_clothing(self.things[j]), color)}
            if not color:
                return None
            word = self.color_word(color)
            return "after", self.pick(_DRESSED).format(c=word), left
        if not thing.color or thing.color == "mixed":
            return None
        left = {j for j in rivals if _may_be(self.things[j].color, thing.color)}
        return "before", self.color_word(thing.color), left

    def by_garment(self, i: int, rivals: set[int]) -> _Made:
        """A garment with its color, or what a person carries."""
        thing = self.things[i]
        options = [g for g, c in thing.garments.items() if c or g in lexicon.CARRIED]
        if not options:
            return None
        garment = self.pick(options)
        color = thing.garments[garment]
        left = set()
        for j in rivals:
            other = self.things[j].garments
            if not other or any(_alike_garment(garment, g) and _may_be(c, color) for g, c in other.items()):
                left.add(j)
            elif self.things[j].name == "person" and "top" in other and garment not in ("top", "shirt"):
                left.add(j)  # little is known of this person's clothes
        if self.rng.random() < 0.6:
            noun = self.pick(GARMENTS.get(garment, garment).split(", "))
        else:
            noun = "shirt" if garment == "top" else garment
        what = f"{self.color_word(color)} {noun}" if color else noun
        if garment == "hair":
            return "after", self.pick(("with {w}", "with long {w}", "with {w}")).format(w=what), left
        article = "" if noun in lexicon.PLURAL else ("the " if self.rng.random() < 0.7 else "a ")
        if garment in ("bag", "purse", "wallet"):
            styles: tuple[str, ...] = ("with {w}", "carrying {w}", "with {w}")
        elif garment in lexicon.CARRIED:
            styles = ("with {w}", "wearing {w}")
        else:
            styles = ("in {w}", "in {w}", "wearing {w}", "with {w}")
        return "after", self.pick(styles).format(w=article + what), left

    def by_size(self, i: int, rivals: set[int]) -> _Made:
        """Size beside the rivals, or in the image."""
        mine = self.things[i].width * self.things[i].height
        areas = {j: self.things[j].width * self.things[j].height for j in rivals}
        if rivals and all(mine > 1.5 * a for a in areas.values()):
            return "before", self.pick(("big", "biggest", "large", "larger", "bigger", "tall", "largest")), set()
        if rivals and all(mine * 1.5 < a for a in areas.values()):
            return "before", self.pick(("small", "smallest", "little", "smaller", "tiny", "short")), set()
        share = mine / (self.size[0] * self.size[1])
        if not rivals and share > 0.12 and self.rng.random() < 0.5:
            return "before", self.pick(("big", "large")), rivals
        if not rivals and share < 0.02 and self.rng.random() < 0.5:
            return "before", self.pick(("small", "little")), rivals
        return None

    def by_side(self, i: int, rivals: set[int]) -> _Made:
        """Side of the rivals, or of the image."""
        x, y = self.things[i].center
        w, h = self.size
        gap = 0.04
        other = [self.things[j].center for j in rivals]
        sides = []
        if (rivals and all(x < ox - gap * w for ox, _ in other)) or (not rivals and x < 0.37 * w):
            sides.append("left")
        if (rivals and all(x > ox + gap * w for ox, _ in other)) or (not rivals and x > 0.63 * w):
            sides.append("right")
        if sides:
            side = self.pick(sides)
            if self.rng.random() < 0.25:
                return "before", self.pick((side, f"{side}most")) if rivals else side, set()
            lane = self.things[i].name in ("car", "truck", "bus", "motorcycle")
            styles = (*_SIDES, "in the {s} lane" if lane else "on the {s}")
            return "after", self.pick(styles).format(s=side), set()
        if rivals and all(y < oy - 1.5 * gap * h for _, oy in other):
            return "after", self.pick(("at the top", "above the others", "on top", "in the upper part")), set()
        if rivals and all(y > oy + 1.5 * gap * h for _, oy in other):
            return "after", self.pick(("at the bottom", "below the others", "in the lower part")), set()
        if abs(x - w / 2) < 0.07 * w and all(abs(ox - w / 2) > abs(x - w / 2) + 0.06 * w for ox, _ in other):
            return "after", self.pick(("in the middle", "in the center", "in the centre")), set()
        return None

    def by_depth(self, i: int, rivals: set[int]) -> _Made:
        """Nearest or farthest of its kind: lower and larger than all rivals, or higher and smaller."""
        if not rivals:
            return None
        thing = self.things[i]
        others = [self.things[j] for j in rivals]
        if all(thing.box[3] > o.box[3] + 0.03 * self.size[1] and thing.height > 1.25 * o.height for o in others):
            return "after", self.pick(_NEAR), set()
        if all(thing.box[3] < o.box[3] - 0.03 * self.size[1] and thing.height * 1.25 < o.height for o in others):
            return "after", self.pick(_FAR), set()
        return None

    def by_order(self, i: int, rivals: set[int]) -> _Made:
        """Place in the row of its kind, from the left or the right."""
        if not 2 <= len(rivals) <= 6 or self.rng.random() < 0.4:
            return None
        line = sorted([i, *rivals], key=lambda j: self.things[j].center[0])
        xs = [self.things[j].center[0] for j in line]
        if min(np.diff(xs)) < 0.03 * self.size[0]:
            return None
        rank = line.index(i)
        if len(line) % 2 and rank == len(line) // 2 and self.rng.random() < 0.7:
            return "after", self.pick(_AMIDST), set()
        names = ("first", "second", "third", "fourth")
        if rank < 3 and self.rng.random() < 0.5:
            self.rng.random()  # not used; it keeps the draws that follow those of earlier runs
            return "before", names[rank], rivals  # from which side is not said
        if rank < 3:
            return "after", f"that is {names[rank]} from the left", set()
        back = len(line) - 1 - rank
        return ("after", f"that is {names[back]} from the right", set()) if back < 3 else None

    def by_relation(self, i: int, rivals: set[int]) -> _Made:
        """A relation to a thing that is the only one of its kind."""
        options = [
            j for j, o in enumerate(self.things)
            if o.known and o.name and not self.same(i, j) and sum(_alike(o.name, p.name) for p in self.things) == 1
        ]  # fmt: skip
        if not options:
            return None
        j = options[int(self.rng.integers(len(options)))]
        noun = nouns_of(self.things[j].name)[0] if self.rng.random() < 0.7 else self.pick(nouns_of(self.things[j].name))
        if self.things[j].color and self.rng.random() < 0.3 and self.things[j].name != "person":
            noun = f"{self.color_word(self.things[j].color)} {noun}"
        mine = _relations(self.things[i], self.things[j])
        if not mine:
            return None
        relation = self.pick(mine)
        left = {k for k in rivals if relation in _relations(self.things[k], self.things[j], loose=True)}
        return "after", f"{self.pick(_SAID[relation])} the {noun}", left

    def tail(self, text: str, i: int, name: str = "") -> str:
        """The phrase with what need not be heeded: a verb, a place, another thing.

        ``name`` is the class of what is absent (``i`` is -1): it gets the same verbs as what is there, or a sentence
        that says "running" would always name something.
        """
        rng = self.rng
        if rng.random() < 0.5:
            return text
        name = self.things[i].name if i >= 0 else name
        group = lexicon.GROUP_OF.get(name, "thing")
        if name in _ABSENT and rng.random() < 0.7:
            group = self.pick(sorted(TAILS))
        tail = self.pick([t.strip() for t in TAILS[group].split(",")])
        shown = [f"the {self.pick(nouns_of(o.name))}" for j, o in enumerate(self.things) if j != i and o.name]
        things = shown if shown and rng.random() < 0.6 else lexicon.THINGS
        return f"{text} {tail.format(place=self.pick(lexicon.PLACES), thing=self.pick(things))}"

    # -- parts and pairs ------------------------------------------------------------------------------------

    def head(self) -> Phrase | None:
        """A phrase that names the head of one person."""
        known = [i for i, t in enumerate(self.things) if t.known and t.head is not None]
        if not known:
            return None
        i = known[int(self.rng.integers(len(known)))]
        whose = self.describe(i, short=True)
        if whose is None:
            return None
        words = ["head", "head", "face", "face"]
        thing = self.things[i]
        if "hair" in thing.garments:
            words.append("hair")
        if "hat" in thing.garments:
            words += ["hat", "cap", "helmet"]
        if self.rng.random() < 0.15:
            words = ["helmet"]
        word = self.pick(words)
        people = sum(o.name == "person" for o in self.things)
        if people == 1 and self.rng.random() < 0.2:
            text = f"the {word}"
        elif self.rng.random() < 0.85:
            text = f"the {word} of {whose}"
        else:
            text = f"{whose.removeprefix('the ').removeprefix('a ')}'s {word}"
        return Phrase(text=self.tail(text, i), target=i, part="head")

    def pair(self) -> Phrase | None:
        """A phrase that names a rider with the mount, or two people side by side."""
        found = []
        for i, person in enumerate(self.things):
            if person.name != "person" or not person.known:
                continue
            for j, other in enumerate(self.things):
                rides = other.name in _MOUNTS and "on" in _relations(person, other)
                beside = other.name == "person" and j > i and _couple(person, other)
                if j != i and other.known and (rides or beside):
                    found.append((i, j))
        if not found:
            return None
        i, j = found[int(self.rng.integers(len(found)))]
        name = self.things[j].name
        same = sum(self.things[b].name == name for _, b in found)
        if same > 1 or (name == "person" and sum(t.name == "person" for t in self.things) > 3):
            return None
        if name == "person":
            text = self.pick(_COUPLES)
        else:
            mount = self.pick(nouns_of(name))
            rider = self.pick([*ROLES.get(name, "rider").split(", "), "person", "man", "woman"])
            text = self.pick(_RIDERS).format(mount=mount, rider=rider)
        return Phrase(text=self.tail(text, i), target=i, part="pair", partner=j)

    # -- nothing --------------------------------------------------------------------------------------------

    def absent(self) -> Phrase | None:
        """A sentence that nothing fits: a class that is not there, or the right noun with a wrong color."""
        return self.wrong_color() if self.rng.random() < 0.25 else self.missing()

    def wrong_color(self) -> Phrase | None:
        """The noun of a thing with a color that nothing of its kind has."""
        rng = self.rng
        clear = [t for t in self.things if t.known and t.name not in ("", "person") and t.color not in ("", "mixed")]
        people = [t for t in self.things if t.known and t.name == "person" and _clothing(t)]
        pool = clear if clear and (not people or rng.random() < 0.5) else people
        if not pool:
            return None
        thing = pool[int(rng.integers(len(pool)))]
        alike = [o for o in self.things if _alike(thing.name, o.name)]
        colors = [_clothing(o) if thing.name == "person" else o.color for o in alike]
        worn = {c for o in alike for value in o.garments.values() for c in value.split(" and ")}
        wrong = [c for c in COLORS if not any(_may_be(c, own) for own in colors) and c not in worn]
        if not wrong or any(not c for c in colors):
            return None
        color = self.color_word(self.pick(wrong))
        if thing.name == "person":
            gender = thing.gender if thing.gender else self.pick(("", "man", "woman"))
            text = f"the {self.pick(PEOPLE[gender].split(', '))} in {color}"
            if rng.random() < 0.4:
                noun, garment = self.pick(PEOPLE[gender].split(", ")), self.pick(_UPPER)
                text = f"the {noun} in the {color} {garment}"
        else:
            text = f"the {color} {self.pick(nouns_of(thing.name))}"
        return Phrase(text=self.tail(text, -1, thing.name), target=-1)

    def missing(self) -> Phrase | None:
        """A noun of a class that the scene does not show."""
        rng = self.rng
        names = [n for n in (*lexicon.SYNONYMS, *_ABSENT) if not any(_alike(n, o.name) for o in self.things)]
        name = self.pick(names)
        people = PEOPLE[self.pick(("", "man", "woman"))].split(", ") if name == "person" else []
        noun = self.pick(people or nouns_of(name))
        somebody = any(o.name == "person" for o in self.things)
        if any(_alike(noun, o.name) for o in self.things) or (somebody and noun in _PEOPLE_NOUNS):
            return None  # "coach" is a bus, and a person
        if rng.random() < 0.4:
            noun = f"{self.pick(sorted(COLORS))} {noun}"
        text = f"the {noun}"
        if rng.random() < 0.3:
            shown = [o.name for o in self.things if o.name]
            if shown:
                link = self.pick(("next to", "on", "behind", "in front of", "near"))
                text = f"{text} {link} the {self.pick(nouns_of(self.pick(shown)))}"
        else:
            text = self.tail(text, -1, name)
        return Phrase(text=text, target=-1)


_PEOPLE_NOUNS = {noun for nouns in PEOPLE.values() for noun in nouns.split(", ")}
_DRESSED = ("in {c}", "in {c}", "wearing {c}", "dressed in {c}", "in {c} clothes", "in the {c} outfit",
            "in {c} uniform")  # fmt: skip
_UPPER = ("shirt", "jacket", "coat", "dress", "top")
_SIDES = ("on the {s}", "on the {s}", "on the {s} side", "at the {s}", "to the {s}", "on the far {s}")
_NEAR = ("in front", "in the foreground", "closest to the camera", "at the front", "nearest")
_FAR = ("at the back", "in the background", "far away", "behind the others", "in the distance", "farthest away")
_AMIDST = ("in the middle", "in the center", "between the others", "in the middle of the group")
_COUPLES = ("the couple", "the two people", "the pair", "the two of them", "the man and the woman",
            "two people side by side", "the couple walking side by side")  # fmt: skip
_RIDERS = ("the {mount} and its rider", "the {rider} and the {mount}", "the {mount} with its rider",
           "the {rider} with the {mount}", "the {mount} with the {rider}", "the {rider} on the {mount}",
           "the {mount} ridden by the {rider}")  # fmt: skip
_MOUNTS = ("bicycle", "motorcycle", "horse", "skis", "snowboard", "skateboard", "surfboard", "elephant")
_ABSENT = (
    "dragon", "penguin", "castle", "rocket", "tractor", "lion", "tiger", "monkey", "snake", "fish", "dolphin", "whale",
    "camel", "crocodile", "helicopter", "tank", "robot", "statue", "piano", "guitar", "violin", "drum", "helmet",
    "crown", "ladder", "crane", "excavator", "wheelchair", "stroller", "balloon", "flag", "lamp", "fountain",
    "windmill", "lighthouse", "kangaroo", "rabbit", "squirrel", "frog", "turtle", "butterfly", "spider", "pumpkin",
    "candle", "mirror", "trumpet", "snowman", "unicorn", "ghost", "alien", "knight", "ostrich", "panda", "koala",
    "wolf", "fox", "deer", "pig", "submarine",
)  # fmt: skip
_SAID = {
    "next to": ("next to", "beside", "near", "close to", "by"),
    "left of": ("to the left of", "left of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
    "on": ("on", "riding", "on top of", "sitting on", "with"),
    "holding": ("holding", "with", "carrying", "who has"),
    "in front of": ("in front of",),
    "behind": ("behind",),
}


def _alike(a: str, b: str) -> bool:
    """Whether one class's nouns may name the other."""
    if a == b:
        return True
    first, second = nouns_of(a), nouns_of(b)
    if set(first) & set(second):
        return True
    return any(n in a.split() for n in (b, second[0])) or any(n in b.split() for n in (a, first[0]))


def _alike_garment(a: str, b: str) -> bool:
    """Whether one garment may be called by the other's name."""
    upper = (*lexicon.WORN, "top")
    if a in upper and b in upper:
        return True
    return bool(set(GARMENTS.get(a, a).split(", ")) & set(GARMENTS.get(b, b).split(", ")))


def _may_be(a: str, b: str) -> bool:
    """Whether one of two colors may be taken for the other; an unknown color may be any."""
    if not a or not b or "mixed" in (a, b):
        return True
    first, second = set(a.split(" and ")), set(b.split(" and "))
    return any(x == y or y in CONFUSED.get(x, ()) for x in first for y in second)


def _clothing(thing: Thing) -> str:
    """The color that a person is dressed in, or ""."""
    colors = [c for g, c in thing.garments.items() if g in lexicon.WORN]
    return colors[0] if colors and all(colors) and len(set(colors)) == 1 else (colors[0] if len(colors) == 1 else "")


def _couple(a: Thing, b: Thing) -> bool:
    """Whether two people of one size are side by side."""
    down = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    across = max(a.box[0], b.box[0]) - min(a.box[2], b.box[2])
    return down > 0.75 * max(a.height, b.height) and -0.4 * min(a.width, b.width) < across < 0.4 * max(a.width, b.width)


def _relations(a: Thing, b: Thing, *, loose: bool = False) -> list[str]:
    """Relations of ``a`` to ``b`` that hold in the image; ``loose``: that might be said to hold."""
    (ax, ay), (bx, by) = a.center, b.center
    reach = (np.sqrt(a.width * a.height) + np.sqrt(b.width * b.height)) / 2
    gap = max(a.box[0], b.box[0]) - min(a.box[2], b.box[2])
    drop = max(a.box[1], b.box[1]) - min(a.box[3], b.box[3])
    slack = 2.0 if loose else 1.0
    found = []
    near = gap < 0.3 * slack * reach and drop < 0.2 * slack * reach
    if near and np.hypot(ax - bx, ay - by) < 1.6 * slack * reach:
        found.append("next to")
    along, down = bx - ax, by - ay
    if abs(along) * slack > 1.3 * abs(down) and gap > -0.3 * slack * min(a.width, b.width):
        found.append("left of" if along > 0 else "right of")
    if abs(down) * slack > 1.5 * abs(along) and drop > -0.3 * slack * min(a.height, b.height):
        found.append("above" if down > 0 else "below")
    overlap = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    seat = a.name == "person" and b.name in (*_MOUNTS, "bench", "chair", "couch", "bed", "boat")
    beneath = overlap > 0.4 * min(a.width, b.width) and drop < 0 and b.box[3] > a.box[1] + 0.6 * a.height and by > ay
    if seat and beneath:
        found.append("on")
    small = b.width * b.height < 0.35 * slack * a.width * a.height
    inside = a.box[0] - 0.2 * a.width < bx < a.box[2] + 0.2 * a.width and a.box[1] < by < a.box[3]
    if a.name == "person" and small and inside and b.name not in ("person", "car", "traffic light", "bench"):
        found.append("holding")
    return found
