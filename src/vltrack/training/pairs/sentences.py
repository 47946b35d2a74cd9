"""Sentences that are true of a rendered view: names, colors, sizes, places and relations."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vltrack.datasets.cutouts import COLORS

_PEOPLE = ("person", "person", "person", "human", "pedestrian", "figure")
_SYNONYMS = {
    "person": _PEOPLE,
    "motorcycle": ("motorcycle", "motorbike"),
    "airplane": ("airplane", "plane", "aircraft"),
    "cell phone": ("cell phone", "phone"),
    "couch": ("couch", "sofa"),
    "tv": ("tv", "screen"),
    "bicycle": ("bicycle", "bike"),
    "soccer ball": ("soccer ball", "ball"),
    "sports ball": ("ball", "sports ball"),
    "dalmatian": ("dalmatian", "dog"),
    "ferry": ("ferry", "boat", "ship"),
    "ketch": ("sailing boat", "sailboat", "ketch"),
    "schooner": ("ship", "sailing ship", "schooner"),
    "potted plant": ("potted plant", "plant"),
    "windsor chair": ("chair", "wooden chair"),
    "wild cat": ("wild cat", "cat"),
    "teddy bear": ("teddy bear", "bear", "toy bear"),
    "toy car": ("toy car", "car"),
    "car": ("car", "vehicle"),
    "truck": ("truck", "vehicle"),
    "handbag": ("handbag", "bag"),
    "rooster": ("rooster", "chicken", "bird"),
    "electric guitar": ("electric guitar", "guitar"),
    "grand piano": ("piano", "grand piano"),
}
_GROUPS = {
    "animal": "dog cat horse sheep cow elephant bear zebra giraffe raccoon beaver cougar crocodile dalmatian "
    "emu gerenuk hedgehog kangaroo leopard llama okapi panda platypus rhino wild_cat hawksbill octopus crab",
    "bird": "bird emu flamingo ibis pigeon rooster",
    "vehicle": "car truck bus motorcycle train van",
    "boat": "boat ferry ketch schooner",
    "insect": "ant butterfly dragonfly mayfly tick scorpion",
    "flower": "lotus sunflower water_lily",
    "fruit": "apple banana orange strawberry",
    "food": "pizza sandwich cake donut hot_dog carrot broccoli",
    "toy": "toy_car robot_toy monster_toy duck_toy teddy_bear sloth_plushie wolf_plushie",
    "shoe": "sneaker boot",
    "dinosaur": "brontosaurus stegosaurus",
}
_GROUP = {name.replace("_", " "): group for group, names in _GROUPS.items() for name in names.split()}
_CLOTHED = ("in {c}", "in {c}", "wearing {c}", "in {c} clothes", "dressed in {c}", "in the {c} shirt")
_DRESSED = ("in {c}", "wearing {c}", "in the {c} {garment}", "in a {c} {garment}", "wearing the {c} {garment}")
_SHADES = {"gray": ("gray", "grey", "grey", "silver"), "black": ("black", "black", "dark")}
_COLOR_WORDS = frozenset((*COLORS, "blonde"))
_PLACES = re.compile(
    r"\b(left|right|(left|right|top|bottom)most|bottom|middle|center|corner|next|beside|near|by|behind|between|above"
    r"|below|under|over|front|back|(at|on) (the )?top|first|second|third|last|other|more|most|less|least"
    r"|(bigg|small|tall|long|wid|thin|thick|near|high|low|old|young)(er|est)|larger|largest|closer|closest)\b"
)
_SKIN = ("brown", "pink", "orange", "")
_KINDS = {"dalmatian": "dog", "windsor chair": "chair", "wild cat": "cat", "toy car": "car", "bear": "teddy bear"}
_VERBS = {
    "walking": "person dog cat elephant zebra giraffe horse sheep cow panda llama emu leopard raccoon",
    "running": "person dog cat horse leopard kangaroo gerenuk raccoon",
    "standing": "person dog giraffe zebra horse elephant flamingo llama",
    "moving": "car truck bus motorcycle bicycle train boat person raccoon",
    "driving": "car truck bus motorcycle",
    "flying": "airplane bird helicopter kite butterfly dragonfly",
    "swimming": "dolphin bass octopus hawksbill platypus",
    "sailing": "ketch schooner ferry boat",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneObject:
    """One shown object as sentences describe it.

    Attributes:
        name: noun, "" for an object without one; ``role_nouns`` fit as well.
        color, clothing_color: clear colors, or "".
        boxes: (V, 4) x, y, w, h in the views, in pixels.
        side: of the views, in pixels.
        garment: that ``clothing_color`` is of, "" for clothes in general.
        sentences: written for this object; true in these views, and of no other object of its image.
    """

    name: str
    color: str
    clothing_color: str
    boxes: NDArray[np.float64]
    side: float
    role_nouns: tuple[str, ...] = ()
    garment: str = ""
    sentences: tuple[str, ...] = ()

    @property
    def shade(self) -> str:
        """The color for a sentence: of people only that of their clothes, if skin does not have it; "" if named so."""
        if self.name != "person":
            words = self.name.split()
            return "" if len(words) > 1 and _COLOR_WORDS & set(words) else self.color
        if self.garment:
            return self.clothing_color
        return "" if any(word in _SKIN for word in self.clothing_color.split(" and ")) else self.clothing_color

    @property
    def kind(self) -> str:
        """The noun that look-alikes share."""
        return _KINDS.get(self.name, self.name)

    @property
    def centers(self) -> NDArray[np.float64]:
        """(V, 2) centers in units of the side."""
        return np.asarray((self.boxes[:, :2] + self.boxes[:, 2:] / 2) / self.side)

    @property
    def areas(self) -> NDArray[np.float64]:
        """(V,) areas of the boxes in units of the view."""
        return np.asarray(self.boxes[:, 2] * self.boxes[:, 3] / self.side**2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Phrase:
    """A sentence, whether it names a color (the look must keep it), and whether it excludes look-alikes."""

    text: str
    color: bool
    decided: bool


def describe(
    target: SceneObject, others: list[SceneObject], rng: np.random.Generator, *, places: float, whole_scene: bool
) -> Phrase | None:
    """A true sentence for ``target`` among ``others``, or None where there is none.

    ``places``: probability of a place or relation that is not needed. ``whole_scene``: the text alone must
    decide, so that next to look-alikes a deciding word is used where there is one.
    """
    same = [o for o in others if o.kind == target.kind]
    if target.sentences and (whole_scene or not same) and rng.random() < 0.5:
        text = str(rng.choice(target.sentences))
        return Phrase(text=text, color=any(word in _COLOR_WORDS for word in text.split()), decided=True)
    if not target.name:
        return Phrase(text=_nameless(target.color, rng), color=True, decided=False) if target.color else None
    words = set(target.shade.split(" and "))
    decisive = bool(target.shade) and all(o.shade and not words & set(o.shade.split(" and ")) for o in same)
    size = _size_word(target, same, rng)
    place = _place(target, same, others, rng, whole_scene=whole_scene)
    noun = _noun(target, others, rng)
    use_color = bool(target.shade) and rng.random() < (0.85 if decisive and same else 0.5)
    use_size = bool(size) and rng.random() < (0.4 if same else 0.0)
    use_place = bool(place) and rng.random() < (places if not same or decisive else max(places, 0.3))
    decided = not same or (use_color and decisive) or use_size or use_place
    if whole_scene and not decided:
        use_color, use_place = use_color or decisive, bool(place) and not decisive
        use_size = bool(size) and not decisive and not place
        decided = (use_color and decisive) or use_place or use_size
    color = str(rng.choice(_SHADES.get(target.shade, (target.shade,)))) if use_color else ""
    text = _compose(noun, target, color, size if use_size else "", rng)
    if use_place:
        text = f"{text} {place}" if not place.endswith("*") else text.replace(noun, f"{place[:-1]} {noun}", 1)
    elif rng.random() < 0.18:
        verbs = [verb for verb, nouns in _VERBS.items() if target.name in nouns.split()]
        if verbs:
            text = f"{text} {rng.choice(verbs)}"
    return Phrase(text=text, color=use_color, decided=decided)


def holds_in_crops(sentence: str) -> bool:
    """Return whether a sentence about an image stays true of a part of it, also mirrored: it names no place or rank."""
    return _PLACES.search(sentence.lower()) is None


def _noun(target: SceneObject, others: list[SceneObject], rng: np.random.Generator) -> str:
    """The noun, a synonym, a role, or the group if no other object belongs to it."""
    group = _GROUP.get(target.name, "")
    if group and rng.random() < 0.1 and all(_GROUP.get(o.name) != group for o in others):
        return group
    if target.role_nouns and rng.random() < 0.6:
        return str(rng.choice(target.role_nouns))
    return str(rng.choice(_SYNONYMS.get(target.name, (target.name,))))


def _compose(noun: str, target: SceneObject, color: str, size: str, rng: np.random.Generator) -> str:
    words = f"{size} {noun}".strip()
    plural = target.name == "skis" or (target.name[-1] == "s" and target.name[-2:] not in ("ss", "us", "is", "as"))
    if color:
        style = rng.random()
        if target.name == "person":
            clothes = _DRESSED if target.garment else _CLOTHED
            words = f"{words} {rng.choice(clothes).format(c=color, garment=target.garment)}"
        elif style < 0.08:
            words = f"{words} that {'are' if plural else 'is'} {color}"
        else:
            words = f"{size} {color} {noun}".strip()
    style = rng.random()
    if style < 0.6:
        return f"the {words}"
    if style < 0.78 and not plural and target.name != "hair":
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
    return words


def _nameless(color: str, rng: np.random.Generator) -> str:
    noun = rng.choice(("thing", "object", "patch", "area", "part"))
    return f"{rng.choice(('the', 'the', 'a'))} {color} {noun}"


def _size_word(target: SceneObject, same: list[SceneObject], rng: np.random.Generator) -> str:
    if not same:
        return ""
    pair = len(same) == 1
    if all((target.areas > 1.7 * o.areas).all() for o in same):
        return str(rng.choice(("big", "bigger", "large", "larger") if pair else ("big", "biggest", "largest")))
    if all((target.areas * 1.7 < o.areas).all() for o in same):
        return str(rng.choice(("small", "smaller", "little") if pair else ("small", "smallest", "tiny")))
    return ""


def _place(
    target: SceneObject,
    same: list[SceneObject],
    others: list[SceneObject],
    rng: np.random.Generator,
    *,
    whole_scene: bool,
) -> str:
    """A place or relation that holds in every view, or "". A trailing * marks an adjective."""
    found: list[str] = []
    middle = target.centers
    for axis, (low, high) in enumerate((("left", "right"), ("top", "bottom"))):
        if same:
            before = all((middle[:, axis] < o.centers[:, axis] - 0.1).all() for o in same)
            after = all((middle[:, axis] > o.centers[:, axis] + 0.1).all() for o in same)
        elif whole_scene:
            before, after = bool((middle[:, axis] < 0.37).all()), bool((middle[:, axis] > 0.63).all())
        else:  # a search view is centered on the target: its sides are not those of the image
            continue
        if before or after:
            word = low if before else high
            on = "on" if axis == 0 else "at"
            found += [f"{on} the {word}", f"{on} the {word}", f"{word}*" if axis == 0 else f"{on} the {word}"]
            if axis == 0:
                found += [f"on the {word} side", f"to the {word}"]
    if whole_scene and not same and (np.abs(middle - 0.5) < 0.09).all():
        found += ["in the middle", "in the center"]
    names = [o.kind for o in others]
    for other in others:
        if not same and other.name and names.count(other.kind) == 1:
            found += _relations(middle, target, other)
    return str(rng.choice(found)) if found else ""


def _relations(middle: NDArray[np.float64], target: SceneObject, other: SceneObject) -> list[str]:
    gap = other.centers - middle
    reach = (np.sqrt(target.areas) + np.sqrt(other.areas)) / 2
    noun = _SYNONYMS.get(other.name, (other.name,))[0]
    found = []
    if (np.hypot(gap[:, 0], gap[:, 1]) < 1.5 * reach).all():
        found += ["next to", "beside", "near"]
    sides = ((("to the left of", "left of"), ("to the right of", "right of")), (("above",), ("below",)))
    for axis, (before, after) in enumerate(sides):
        along, across = gap[:, axis], gap[:, 1 - axis]
        if (np.abs(along) > 1.3 * np.abs(across)).all():
            found += before if (along > 0.12).all() else after if (along < -0.12).all() else ()
    return [f"{relation} the {noun}" for relation in found]
