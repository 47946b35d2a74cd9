"""Objects, backgrounds and textured pieces that pairs are made of, drawn at random from a data split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.types import Floats, Image, iou_xywh
from vltrack.datasets.cutouts import CutoutSet, Patch, dominant_color
from vltrack.datasets.images import AnnotatedObject, ImageSet, IndexedImage, held_out
from vltrack.training.pairs.rendering import blob_patch, corners, recolor, rounded_corners
from vltrack.training.pairs.sentences import SceneObject, holds_in_crops


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """An object that can be shown: a ``patch`` of its own, or a part of image ``image_index``.

    Attributes:
        name: noun, "" for textured pieces; ``role_nouns`` fit as well.
        color, clothing_color: clear colors, or "".
        outline: (N, 2) points in pixels of the patch or of the image.
        calm: only a box is known, so that the object should hardly be rotated.
        key: number of the cut-out, which identifies the object.
        garment: that ``clothing_color`` is of, "" for clothes in general.
        sentences: annotated, and true of this object only wherever a part of its image is shown.
    """

    name: str
    color: str = ""
    clothing_color: str = ""
    outline: Floats
    patch: Patch | None = None
    image_index: int = -1
    calm: bool = False
    key: int = -1
    role_nouns: tuple[str, ...] = ()
    garment: str = ""
    sentences: tuple[str, ...] = ()

    def in_views(self, boxes: Floats, side: int) -> SceneObject:
        """The object as sentences describe it, with its boxes (V, 4) in views of ``side`` pixels."""
        return SceneObject(
            name=self.name, color=self.color, clothing_color=self.clothing_color, boxes=boxes, side=side,
            role_nouns=self.role_nouns, garment=self.garment, sentences=self.sentences,
        )  # fmt: skip


class Library:
    """Images and cut-outs of one split, with the random draws that rendering needs."""

    def __init__(self, images: ImageSet, cutouts: CutoutSet, split: str) -> None:
        self.images = images
        self.cutouts = cutouts
        wanted = {(p.folder, p.file) for p in images if split == "all" or held_out(p.file) == (split == "val")}
        self._chosen = [i for i, p in enumerate(images) if (p.folder, p.file) in wanted and not p.transparent]
        self._things = [i for i, c in enumerate(cutouts) if (c.folder, c.file) in wanted]
        if len(self._chosen) < 2 or not self._things:
            raise DataError(
                f"Split {split!r} has {len(self._chosen)} images and {len(self._things)} cut-outs.",
                hint="Use more images, or split all.",
            )
        self._by_name: dict[str, list[int]] = defaultdict(list)
        self._by_file: dict[tuple[int, str], list[int]] = defaultdict(list)
        for index in self._things:
            self._by_name[cutouts[index].name].append(index)
            self._by_file[cutouts[index].folder, cutouts[index].file].append(index)
        self._names = sorted(self._by_name)
        wide = [i for i in self._chosen if len(images[i].instances) > 1]
        self._wide = wide or self._chosen
        self._shown = {i: {images[i].main_object or "", *(o.name for o in images[i].instances)} for i in self._chosen}
        self._owners, self._owner_weights = self._find_owners()
        self._crowded = self._find_crowded()
        self._role_nouns = self._find_role_nouns()

    def image(self, index: int) -> Image:
        """RGB image of an index."""
        return self.images.image(index)

    def draw_object(self, rng: np.random.Generator) -> Instance:
        """A cut-out: half of the time any, half of the time of a class that is drawn first."""
        if rng.random() < 0.5:
            return self._instance(int(rng.choice(self._things)))
        name = self._names[int(rng.integers(len(self._names)))]
        return self._instance(int(rng.choice(self._by_name[name])))

    def draw_like(self, instance: Instance, rng: np.random.Generator) -> Instance | None:
        """A distractor: another object of the class, or the same one recolored; None where there is none."""
        family = [i for i in self._by_name.get(instance.name, ()) if i != instance.key]
        if family and rng.random() < 0.72:
            return self._instance(int(rng.choice(family)))
        changed = recolored(instance, rng)
        if changed is not None:
            return changed
        return self._instance(int(rng.choice(family))) if family else None

    def draw_recolored(self, rng: np.random.Generator) -> tuple[Instance, Instance] | None:
        """A cut-out and the same one with another hue, each of one clear color; None after 20 draws.

        Never a person: sentences only name the color of their clothes."""
        for _ in range(20):
            first = self.draw_object(rng)
            if first.name in ("", "person") or not first.color or " " in first.color:
                continue
            second = recolored(first, rng)
            if second is not None and second.color not in ("", first.color) and " " not in second.color:
                return first, second
        return None

    def draw_texture(self, rng: np.random.Generator) -> Instance:
        """A textured piece: a rectangle of an image (in place), or a blob cut out of it."""
        index, box = 0, np.zeros(4)
        for _ in range(6):
            index = int(rng.choice(self._wide if rng.random() < 0.6 else self._chosen))
            image = self.image(index)
            h, w = image.shape[:2]
            side = np.exp(rng.uniform(np.log(0.1), np.log(0.4))) * min(h, w)
            stretch = np.exp(rng.normal() * 0.45)
            bw, bh = min(side * stretch, 0.8 * w), min(side / stretch, 0.8 * h)
            box = np.array([rng.uniform(0, w - bw), rng.uniform(0, h - bh), bw, bh])
            piece = _crop(image, box)
            if piece.size and float(cv2.meanStdDev(piece)[1].mean()) > 22:
                break
        piece = np.ascontiguousarray(_crop(self.image(index), box))
        color = dominant_color(piece.reshape(-1, 3), 0.7)
        if rng.random() < 0.5:
            patch = blob_patch(piece, rng)
            if patch is not None:
                return Instance(name="", color=color, outline=patch.outline.astype(np.float64), patch=patch)
        return Instance(name="", color=color, outline=corners(box), image_index=index)

    def draw_owned(self, rng: np.random.Generator) -> tuple[Instance, list[Instance]]:
        """An object in its own image, and the other annotated objects there."""
        pick = int(np.searchsorted(self._owner_weights, rng.random() * self._owner_weights[-1]))
        index, number = self._owners[min(pick, len(self._owners) - 1)]
        if number >= 0:
            return self.owned(index, number)
        # The main object of the image has no box: its cut-out has the outline.
        key = self._by_file[self.images[index].folder, self.images[index].file][0]
        x, y, factor = self.cutouts[key].origin
        outline = self.cutouts.patch(key).outline.astype(np.float64) * factor + (x, y)
        return Instance(name=self.cutouts[key].name, outline=outline, image_index=index, **self._colors(key)), []

    def owned(self, index: int, number: int) -> tuple[Instance, list[Instance]]:
        """Annotated object ``number`` of image ``index`` in its place, and the other annotated objects."""
        entry = self.images[index]
        annotation, polygons = entry.instances[number], entry.instances[number].polygons
        dressed = any(one.person for one in entry.instances)  # garments are annotated: nothing is next to its wearer
        overlaps = iou_xywh([one.box for one in entry.instances], annotation.box)
        others = [
            self._annotated(entry, other, outline=corners(other.box))
            for rank, other in enumerate(entry.instances)
            if rank != number and overlaps[rank] < 0.7 and (not dressed or other.name == annotation.name)
        ]
        instance = self._annotated(
            entry,
            annotation,
            outline=np.concatenate(polygons).astype(np.float64) if polygons else rounded_corners(annotation.box),
            image_index=index,
            calm=not polygons,
            role_nouns=role_nouns_of(annotation, entry.instances),
            sentences=tuple(text for text in annotation.sentences if holds_in_crops(text)),
        )
        return instance, others

    def _annotated(self, entry: IndexedImage, annotation: AnnotatedObject, **fields: Any) -> Instance:
        """An instance with the colors of its cut-out, where there is one."""
        key = self._key_of(entry, annotation)
        colors = {"color": annotation.color} if key is None else self._colors(key) | {"key": -1}
        return Instance(name=annotation.name, **colors, **fields)

    def draw_crowded(self, rng: np.random.Generator) -> tuple[int, list[int]] | None:
        """An image index and the numbers of its objects that are not tiny, in random order."""
        if not self._crowded:
            return None
        index, numbers = self._crowded[int(rng.integers(len(self._crowded)))]
        return index, [int(n) for n in rng.permutation(numbers)]

    def draw_background(self, rng: np.random.Generator, avoid: Collection[str] = ()) -> int:
        """Index of an image without an object of a class in ``avoid``, if ten draws find one."""
        pick = 0
        for _ in range(10):
            pool = self._wide if rng.random() < 0.55 else self._chosen
            pick = pool[int(rng.integers(len(pool)))]
            if not self._shown[pick] & set(avoid):
                break
        return pick

    def _colors(self, key: int) -> dict[str, Any]:
        """Number and colors of a cut-out, as fields of an instance."""
        cutout = self.cutouts[key]
        colors = {"color": cutout.color, "clothing_color": cutout.clothing_color, "garment": cutout.garment}
        return {"key": key, **colors}

    def _instance(self, key: int) -> Instance:
        patch, role_nouns = self.cutouts.patch(key), self._role_nouns.get(key, ())
        outline = patch.outline.astype(np.float64)
        return Instance(
            name=self.cutouts[key].name, outline=outline, patch=patch, role_nouns=role_nouns, **self._colors(key)
        )

    def _find_crowded(self) -> list[tuple[int, list[int]]]:
        """Images with the numbers of their objects that are neither tiny nor fill the image."""
        found: dict[int, list[int]] = defaultdict(list)
        for index, number in self._owners:
            entry = self.images[index]
            if number >= 0:
                w, h = entry.instances[number].box[2:]
                if any(crowd.name in ("", entry.instances[number].name) for crowd in entry.crowds):
                    continue  # no sentence could exclude those of the crowd
                if 0.006 < w * h / (entry.width * entry.height) < 0.5:
                    found[index].append(number)
        several = [item for item in found.items() if len(item[1]) > 1]
        single = [item for item in found.items() if len(item[1]) == 1]
        return several + single[: len(several) // 2]

    def _find_role_nouns(self) -> dict[int, tuple[str, ...]]:
        role_nouns = {}
        for index in self._chosen:
            entry = self.images[index]
            for annotation in entry.instances:
                found = role_nouns_of(annotation, entry.instances)
                key = self._key_of(entry, annotation) if found else None
                if key is not None:
                    role_nouns[key] = found
        return role_nouns

    def _key_of(self, entry: IndexedImage, annotation: AnnotatedObject) -> int | None:
        for key in self._by_file.get((entry.folder, entry.file), ()):
            cutout = self.cutouts[key]
            dx, dy = (abs(cutout.origin[axis] + 3 - annotation.box[axis]) for axis in (0, 1))
            if dx < 4 and dy < 4 and cutout.name == annotation.name:
                return key
        return None

    def _find_owners(self) -> tuple[list[tuple[int, int]], NDArray[np.float64]]:
        """(image, object or -1) of every object in its own image, and the running sum of their weights.

        Objects that fill their image leave nothing to search in, so they come rarely."""
        owners, weights = [], []
        for index in self._chosen:
            entry = self.images[index]
            area = entry.width * entry.height
            outlined = [i.box for i in entry.instances if i.polygons]
            for number, annotation in enumerate(entry.instances):
                w, h = annotation.box[2:]
                boxed = not annotation.polygons
                if min(w, h) < 12 or (boxed and any(iou_xywh(annotation.box, box) > 0.7 for box in outlined)):
                    continue
                share = np.sqrt(w * h / area)
                weight = 1.0 if share < 0.45 else 0.3 if share < 0.7 else 0.06
                owners.append((index, number))
                weights.append(weight * (0.6 if boxed else 1.0))
            if entry.main_object is not None and self._by_file.get((entry.folder, entry.file)):
                owners.append((index, -1))
                weights.append(0.08)
        if not owners:
            raise DataError("No image has an annotated object.", hint="Check index.jsonl.")
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


def role_nouns_of(one: AnnotatedObject, instances: tuple[AnnotatedObject, ...]) -> tuple[str, ...]:
    """Nouns for a person: as annotated, or after the gear whose box overlaps theirs; empty for other objects."""
    if one.name != "person":
        return ()
    if one.person not in ("", "person"):
        return (one.person,)
    box = one.box
    for other in instances:
        x, y, w, h = other.box
        middle = (x + w / 2, y + h / 2)
        near = box[0] < middle[0] < box[0] + box[2] and box[1] < middle[1] < box[1] + 1.15 * box[3]
        if other.name in _GEAR and near and 0.04 < w * h / (box[2] * box[3]) < 3:
            return _GEAR[other.name]
    return ()


def recolored(instance: Instance, rng: np.random.Generator) -> Instance | None:
    """The same object with another hue; None where it has too little color for a visible change."""
    if instance.patch is None:
        return None
    level = instance.patch.levels[min(2, len(instance.patch.levels) - 1)]
    inside = level[level[..., 3] > 200][:, :3]
    if len(inside) < 12 or float((inside.max(axis=1) - inside.min(axis=1)).mean()) < 45:
        return None
    patch = recolor(instance.patch, int(rng.integers(30, 150)), float(rng.uniform(0.9, 1.3)))
    level = patch.levels[min(2, len(patch.levels) - 1)]
    solid = level[..., 3] > 200
    half = level[level.shape[0] // 5 : level.shape[0] * 3 // 5]
    return replace(
        instance,
        color=dominant_color(level[solid][:, :3]),
        clothing_color=dominant_color(half[half[..., 3] > 200][:, :3]),
        garment="",
        patch=patch,
    )


def _crop(image: Image, box: Floats) -> Image:
    x, y, w, h = np.round(box).astype(int)
    return image[y : y + h, x : x + w]
