"""What pairs are made of: objects, backgrounds and textured pieces, drawn at random. Knows no view and no
text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.types import Floats, Image
from vltrack.datasets.cutouts import Cutout, CutoutSet, Patch, dominant_color
from vltrack.datasets.images import AnnotatedObject, ImageSet, held_out
from vltrack.training.pairs.rendering import blob_patch, corners, recolour, rounded_corners


@dataclass(frozen=True, kw_only=True, slots=True)
class Actor:
    """A thing that can be shown: a ``patch`` of its own, or a part of picture ``picture``. ``outline`` in
    pixels of the one or the other; ``calm``: only a box is known, so that it should hardly turn; ``key``
    tells objects apart; ``roles``: nouns that fit besides ``name``."""

    name: str
    colour: str
    upper: str
    outline: Floats
    patch: Patch | None = None
    picture: int = -1
    calm: bool = False
    key: int = -1
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbour:
    """Another annotated object of a picture: noun, box x, y, w, h, and its colours as far as known."""

    name: str
    box: Floats
    colour: str = ""
    upper: str = ""


class Library:
    """Pictures and cut-outs of one split, with the draws that rendering needs."""

    def __init__(self, pictures: ImageSet, cutouts: CutoutSet, split: str) -> None:
        self.pictures = pictures
        self.cutouts = cutouts
        wanted = {p.file for p in pictures if split == "all" or held_out(p.file) == (split == "val")}
        self._chosen = [i for i, p in enumerate(pictures) if p.file in wanted]
        self._things = [i for i, c in enumerate(cutouts) if c.file in wanted]
        if len(self._chosen) < 2 or not self._things:
            raise DataError(
                f"split {split} has {len(self._chosen)} pictures and {len(self._things)} cut-outs.",
                hint="Use more pictures or split all.",
            )
        self._by_name: dict[str, list[int]] = defaultdict(list)
        self._by_file: dict[str, list[int]] = defaultdict(list)
        for index in self._things:
            self._by_name[cutouts[index].name].append(index)
            self._by_file[cutouts[index].file].append(index)
        self._names = sorted(self._by_name)
        wide = [i for i in self._chosen if len(pictures[i].instances) > 1]
        self._wide = wide or self._chosen
        self._shown = {
            i: {pictures[i].main_object or "", *(o.name for o in pictures[i].instances)} for i in self._chosen
        }
        self._owners, self._owner_weights = self._find_owners()
        self._crowded = self._find_crowded()
        self._roles = self._find_roles()

    def image(self, picture: int) -> Image:
        """RGB image of a picture index."""
        return self.pictures.image(picture)

    def draw_object(self, rng: np.random.Generator) -> Actor:
        """A cut-out: half of the time any, half of the time of a class drawn first."""
        if rng.random() < 0.5:
            return self._actor(int(rng.choice(self._things)))
        name = self._names[int(rng.integers(len(self._names)))]
        return self._actor(int(rng.choice(self._by_name[name])))

    def draw_like(self, actor: Actor, rng: np.random.Generator) -> Actor | None:
        """A look-alike: another object of the class, or the same one in another colour; None where there is
        none."""
        family = [i for i in self._by_name.get(actor.name, ()) if i != actor.key]
        if family and rng.random() < 0.72:
            return self._actor(int(rng.choice(family)))
        if actor.patch is not None:
            changed = recoloured(actor, rng)
            if changed is not None:
                return changed
        return self._actor(int(rng.choice(family))) if family else None

    def draw_recoloured(self, rng: np.random.Generator) -> tuple[Actor, Actor] | None:
        """A cut-out and the same one with another hue, each of one clear colour and not the same; None where
        a few draws find none. Never a person, of whom only the clothes' colour is said."""
        for _ in range(20):
            first = self.draw_object(rng)
            if first.name in ("", "person") or not first.colour or " " in first.colour:
                continue
            second = recoloured(first, rng)
            if second is not None and second.colour not in ("", first.colour) and " " not in second.colour:
                return first, second
        return None

    def draw_texture(self, rng: np.random.Generator) -> Actor:
        """A textured piece: a rectangle of a picture (in place), or a blob cut from one."""
        picture, box = 0, np.zeros(4)
        for _ in range(6):
            picture = int(rng.choice(self._wide if rng.random() < 0.6 else self._chosen))
            image = self.image(picture)
            h, w = image.shape[:2]
            side = np.exp(rng.uniform(np.log(0.1), np.log(0.4))) * min(h, w)
            stretch = np.exp(rng.normal() * 0.45)
            bw, bh = min(side * stretch, 0.8 * w), min(side / stretch, 0.8 * h)
            box = np.array([rng.uniform(0, w - bw), rng.uniform(0, h - bh), bw, bh])
            piece = _crop(image, box)
            if piece.size and float(cv2.meanStdDev(piece)[1].mean()) > 22:
                break
        piece = np.ascontiguousarray(_crop(self.image(picture), box))
        colour = dominant_color(piece.reshape(-1, 3), 0.7)
        if rng.random() < 0.5:
            patch = blob_patch(piece, rng)
            if patch is not None:
                return Actor(
                    name="", colour=colour, upper="", outline=patch.outline.astype(np.float64), patch=patch
                )
        return Actor(name="", colour=colour, upper="", outline=corners(box), picture=picture)

    def draw_owned(self, rng: np.random.Generator) -> tuple[Actor, list[Neighbour]]:
        """An object in its own picture, and the other annotated things there."""
        pick = int(np.searchsorted(self._owner_weights, rng.random() * self._owner_weights[-1]))
        picture, number = self._owners[min(pick, len(self._owners) - 1)]
        entry = self.pictures[picture]
        if number < 0:  # the main object of the picture, cut out
            key = self._by_file[entry.file][0]
            cut = self.cutouts[key]
            x, y, factor = cut.origin
            outline = self.cutouts.patch(key).outline.astype(np.float64) * factor + (x, y)
            return Actor(
                name=cut.name, colour=cut.color, upper=cut.clothing_color, outline=outline, picture=picture,
                key=key,
            ), []
        return self.owned(picture, number)

    def owned(self, picture: int, number: int) -> tuple[Actor, list[Neighbour]]:
        """Annotated object ``number`` of ``picture`` in its place, and the other annotated things there."""
        entry = self.pictures[picture]
        instance = entry.instances[number]
        others = []
        for rank, other in enumerate(entry.instances):
            if rank != number and _overlap(other.box, instance.box) < 0.7:
                seen = self._matching(entry.file, other)
                colours = ("", "") if seen is None else (seen.color, seen.clothing_color)
                others.append(
                    Neighbour(name=other.name, box=np.array(other.box), colour=colours[0], upper=colours[1])
                )
        match = self._matching(entry.file, instance)
        outline = (
            rounded_corners(instance.box) if instance.polygon is None else instance.polygon.astype(np.float64)
        )
        return Actor(
            name=instance.name,
            colour="" if match is None else match.color,
            upper="" if match is None else match.clothing_color,
            outline=outline,
            picture=picture,
            calm=instance.polygon is None,
            roles=roles_of(instance.name, instance.box, entry.instances),
        ), others

    def draw_crowded(self, rng: np.random.Generator) -> tuple[int, list[int]] | None:
        """A picture with annotated objects that are not tiny, and those objects' numbers in random order."""
        if not self._crowded:
            return None
        picture, numbers = self._crowded[int(rng.integers(len(self._crowded)))]
        return picture, [int(n) for n in rng.permutation(numbers)]

    def draw_background(self, rng: np.random.Generator, avoid: Collection[str] = ()) -> int:
        """A picture index for a background that shows no thing of a class in ``avoid``, if there is one."""
        pick = 0
        for _ in range(10):
            pool = self._wide if rng.random() < 0.55 else self._chosen
            pick = pool[int(rng.integers(len(pool)))]
            if not self._shown[pick] & set(avoid):
                break
        return pick

    def _actor(self, key: int) -> Actor:
        cut, patch = self.cutouts[key], self.cutouts.patch(key)
        return Actor(
            name=cut.name, colour=cut.color, upper=cut.clothing_color,
            outline=patch.outline.astype(np.float64), patch=patch, key=key, roles=self._roles.get(key, ()),
        )  # fmt: skip

    def _matching(self, file: str, instance: AnnotatedObject) -> Cutout | None:
        key = self._key_of(file, instance)
        return None if key is None else self.cutouts[key]

    def _find_crowded(self) -> list[tuple[int, list[int]]]:
        """Pictures with their annotated objects that can be asked for by words: neither tiny nor filling it
        all."""
        found: dict[int, list[int]] = defaultdict(list)
        for picture, number in self._owners:
            entry = self.pictures[picture]
            if number >= 0:
                w, h = entry.instances[number].box[2:]
                if 0.006 < w * h / (entry.width * entry.height) < 0.5:
                    found[picture].append(number)
        several = [(picture, numbers) for picture, numbers in found.items() if len(numbers) > 1]
        single = [(picture, numbers) for picture, numbers in found.items() if len(numbers) == 1]
        return several + single[: len(several) // 2]

    def _find_roles(self) -> dict[int, tuple[str, ...]]:
        roles = {}
        for index in self._chosen:
            entry = self.pictures[index]
            for instance in entry.instances:
                if instance.name == "person":
                    found = roles_of("person", instance.box, entry.instances)
                    key = self._key_of(entry.file, instance) if found else None
                    if key is not None:
                        roles[key] = found
        return roles

    def _key_of(self, file: str, instance: AnnotatedObject) -> int | None:
        for key in self._by_file.get(file, ()):
            cut = self.cutouts[key]
            near = (
                abs(cut.origin[0] + 3 - instance.box[0]) < 4 and abs(cut.origin[1] + 3 - instance.box[1]) < 4
            )
            if near and cut.name == instance.name:
                return key
        return None

    def _find_owners(self) -> tuple[list[tuple[int, int]], NDArray[np.float64]]:
        """(picture, instance or -1) of every object in its own picture, and the running sum of their weights:
        those that fill the picture leave no surroundings to search in, so they come rarely."""
        owners, weights = [], []
        for index in self._chosen:
            picture = self.pictures[index]
            area = picture.width * picture.height
            outlined = [i.box for i in picture.instances if i.polygon is not None]
            for number, instance in enumerate(picture.instances):
                w, h = instance.box[2:]
                twin = instance.polygon is None and any(_overlap(instance.box, box) > 0.7 for box in outlined)
                if min(w, h) < 12 or twin:
                    continue
                share = np.sqrt(w * h / area)
                weight = 1.0 if share < 0.45 else 0.3 if share < 0.7 else 0.06
                owners.append((index, number))
                weights.append(weight * (0.6 if instance.polygon is None else 1.0))
            if picture.main_object is not None and self._by_file.get(picture.file):
                owners.append((index, -1))
                weights.append(0.08)
        if not owners:
            raise DataError("no picture has an annotated object.", hint="Check the picture index.")
        return owners, np.cumsum(weights)


_GEAR = {
    "tennis racket": ("tennis player", "player"),
    "baseball bat": ("baseball player", "player"),
    "baseball glove": ("baseball player", "player"),
    "skis": ("skier",),
    "snowboard": ("snowboarder",),
    "surfboard": ("surfer",),
    "skateboard": ("skateboarder", "skater"),
    "bicycle": ("cyclist", "rider"),
    "motorcycle": ("rider", "motorcyclist"),
    "horse": ("rider",),
}


def roles_of(name: str, box: tuple[float, ...], instances: tuple[AnnotatedObject, ...]) -> tuple[str, ...]:
    """What a person is called after the gear whose box lies over theirs; empty for other things."""
    if name != "person":
        return ()
    for other in instances:
        x, y, w, h = other.box
        middle = (x + w / 2, y + h / 2)
        near = box[0] < middle[0] < box[0] + box[2] and box[1] < middle[1] < box[1] + 1.15 * box[3]
        if other.name in _GEAR and near and 0.04 < w * h / (box[2] * box[3]) < 3:
            return _GEAR[other.name]
    return ()


def recoloured(actor: Actor, rng: np.random.Generator) -> Actor | None:
    """The same object with another hue, None where it has too little colour for that to be seen."""
    if actor.patch is None:
        return None
    level = actor.patch.levels[min(2, len(actor.patch.levels) - 1)]
    inside = level[level[..., 3] > 200][:, :3]
    if len(inside) < 12 or float((inside.max(axis=1) - inside.min(axis=1)).mean()) < 45:
        return None
    patch = recolour(actor.patch, int(rng.integers(30, 150)), float(rng.uniform(0.9, 1.3)))
    level = patch.levels[min(2, len(patch.levels) - 1)]
    solid = level[..., 3] > 200
    half = level[level.shape[0] // 5 : level.shape[0] * 3 // 5]
    return Actor(
        name=actor.name,
        colour=dominant_color(level[solid][:, :3]),
        upper=dominant_color(half[half[..., 3] > 200][:, :3]),
        outline=actor.outline,
        patch=patch,
        key=actor.key,
        roles=actor.roles,
    )


def _crop(image: Image, box: Floats) -> Image:
    x, y, w, h = np.round(box).astype(int)
    return image[y : y + h, x : x + w]


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(0.0, wide) * max(0.0, high)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)
