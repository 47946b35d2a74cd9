"""Sentences that are true of a rendered pair: names, colours, sizes, places and relations. Knows no pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
class Fact:
    """What is known of one shown object: noun ("" = a thing without one), clear colour word or "", colour of the
    upper half (people's clothes), its boxes x, y, w, h in the views (V, 4) and the views' side in pixels."""

    name: str
    colour: str
    upper: str
    boxes: NDArray[np.float64]
    side: float

    @property
    def kind(self) -> str:
        """The noun by which look-alikes are told."""
        return _KINDS.get(self.name, self.name)

    @property
    def centres(self) -> NDArray[np.float64]:
        """(V, 2) centres as parts of the side."""
        return np.asarray((self.boxes[:, :2] + self.boxes[:, 2:] / 2) / self.side)

    @property
    def areas(self) -> NDArray[np.float64]:
        """(V,) areas of the boxes as parts of the view."""
        return np.asarray(self.boxes[:, 2] * self.boxes[:, 3] / self.side**2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Phrase:
    """A sentence and whether it names a colour (then the light must not change it)."""

    text: str
    colour: bool


def describe(
    target: Fact, others: list[Fact], rng: np.random.Generator, *, places: float, whole_scene: bool
) -> Phrase | None:
    """A true sentence for ``target`` among ``others``, or None where nothing can be said.

    ``places``: chance of a place or relation where it is not needed. ``whole_scene``: the words alone must decide, so
    that with look-alikes a deciding word is always used where there is one.
    """
    same = [o for o in others if o.kind == target.kind]
    colour = target.upper if target.name == "person" else target.colour
    decisive = bool(colour) and all((o.upper if o.name == "person" else o.colour) not in ("", colour) for o in same)
    size = _size_word(target, same, rng)
    place = _place(target, same, others, rng, whole_scene=whole_scene)
    if not target.name:
        return Phrase(text=_nameless(colour, rng), colour=True) if colour else None
    noun = str(rng.choice(_SYNONYMS.get(target.name, (target.name,))))
    use_colour = bool(colour) and rng.random() < (0.85 if decisive and same else 0.5)
    use_size = bool(size) and rng.random() < (0.4 if same else 0.0)
    use_place = bool(place) and rng.random() < (places if not same or decisive else max(places, 0.3))
    if whole_scene and same and not (use_colour and decisive) and not use_size and not use_place:
        if decisive:
            use_colour = True
        elif place:
            use_place = True
        elif size:
            use_size = True
    text = _compose(noun, target.name, colour if use_colour else "", size if use_size else "", rng)
    if use_place:
        text = f"{text} {place}" if not place.endswith("*") else text.replace(noun, f"{place[:-1]} {noun}", 1)
    elif rng.random() < 0.18:
        verbs = [verb for verb, nouns in _VERBS.items() if target.name in nouns.split()]
        if verbs:
            text = f"{text} {rng.choice(verbs)}"
    return Phrase(text=text, colour=use_colour)


def _compose(noun: str, name: str, colour: str, size: str, rng: np.random.Generator) -> str:
    words = f"{size} {noun}".strip()
    if colour:
        style = rng.random()
        if name == "person":
            clothes = ("in {c}", "wearing {c}", "in {c} clothes", "dressed in {c}", "in a {c} shirt")
            words = f"{words} {rng.choice(clothes).format(c=colour)}"
        elif style < 0.08:
            words = f"{words} that is {colour}"
        elif style < 0.14:
            words = f"{words} in {colour}"
        else:
            words = f"{size} {colour} {noun}".strip()
    style = rng.random()
    if style < 0.6:
        return f"the {words}"
    if style < 0.78:
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
    return words


def _nameless(colour: str, rng: np.random.Generator) -> str:
    noun = rng.choice(("thing", "object", "patch", "area", "part"))
    return f"{rng.choice(('the', 'the', 'a'))} {colour} {noun}"


def _size_word(target: Fact, same: list[Fact], rng: np.random.Generator) -> str:
    if not same:
        return ""
    if all((target.areas > 1.7 * o.areas).all() for o in same):
        return str(rng.choice(("big", "bigger", "large", "larger") if len(same) == 1 else ("big", "biggest", "largest")))
    if all((target.areas * 1.7 < o.areas).all() for o in same):
        return str(rng.choice(("small", "smaller", "little") if len(same) == 1 else ("small", "smallest", "tiny")))
    return ""


def _place(
    target: Fact, same: list[Fact], others: list[Fact], rng: np.random.Generator, *, whole_scene: bool
) -> str:
    """A place or relation that holds in every view, or "". A trailing * marks an adjective."""
    found: list[str] = []
    middle = target.centres
    for axis, (low, high) in enumerate((("left", "right"), ("top", "bottom"))):
        if same:
            before = all((middle[:, axis] < o.centres[:, axis] - 0.1).all() for o in same)
            after = all((middle[:, axis] > o.centres[:, axis] + 0.1).all() for o in same)
        else:
            before, after = bool((middle[:, axis] < 0.37).all()), bool((middle[:, axis] > 0.63).all())
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
        if other.name and other.kind != target.kind and names.count(other.kind) == 1:
            found += _relations(middle, target, other)
    return str(rng.choice(found)) if found else ""


def _relations(middle: NDArray[np.float64], target: Fact, other: Fact) -> list[str]:
    gap = other.centres - middle
    reach = (np.sqrt(target.areas) + np.sqrt(other.areas)) / 2
    noun = _SYNONYMS.get(other.name, (other.name,))[0]
    found = []
    if (np.hypot(gap[:, 0], gap[:, 1]) < 1.5 * reach).all():
        found += [f"next to the {noun}", f"beside the {noun}", f"near the {noun}"]
    across = (np.abs(gap[:, 0]) > 1.3 * np.abs(gap[:, 1])).all()
    upright = (np.abs(gap[:, 1]) > 1.3 * np.abs(gap[:, 0])).all()
    if across and (gap[:, 0] > 0.12).all():
        found += [f"to the left of the {noun}", f"left of the {noun}"]
    if across and (gap[:, 0] < -0.12).all():
        found += [f"to the right of the {noun}", f"right of the {noun}"]
    if upright and (gap[:, 1] > 0.12).all():
        found.append(f"above the {noun}")
    if upright and (gap[:, 1] < -0.12).all():
        found.append(f"below the {noun}")
    return found
