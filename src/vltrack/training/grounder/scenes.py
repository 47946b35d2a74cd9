"""Scenes for the grounder: real images and video frames, cropped and relit, with cut-outs pasted on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.types import Floats, Image
from vltrack.datasets.cutouts import CutoutSet, Mask, Points, cached_cutouts, dominant_color, object_mask, spread_colors
from vltrack.datasets.images import AnnotatedObject, ByteCache, ImageSet, IndexedImage, held_out, read_clips, read_rgb
from vltrack.datasets.synthetic import synthesize_clip
from vltrack.training.grounder import lexicon
from vltrack.training.grounder.phrases import Rng, Thing
from vltrack.training.pairs.sampler import DISTRACTOR_SEEDS, DISTRACTOR_SIZES

LONG_SIDE = 640
"""Pixels of the longer side of a scene."""
DRAWN = 0.12
"""Share of scenes of drawn shapes."""
_Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One image of the material.

    Attributes:
        file: absolute path.
        things: what is annotated, boxes in pixels of the image.
        polygons: of each thing; empty where only its box is known.
        cut: name of the one thing that the image shows on no or a plain background, else "".
        complete: every thing of the detector's classes is listed.
        crowds: boxes with many things of one class that are not listed.
    """

    file: Path
    things: tuple[Thing, ...] = ()
    polygons: tuple[tuple[Points, ...], ...] = ()
    cut: str = ""
    complete: bool = False
    crowds: tuple[_Box, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """An RGB image with its things; see ``Source.complete``."""

    image: Image
    things: list[Thing]
    complete: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cutout:
    """A thing with its pixels: ``rgba`` and the thing with boxes in pixels of it."""

    rgba: Image
    thing: Thing


class Material:
    """All images of the training folders, of one split: ``train``, ``val`` (held out by file) or ``all``.

    Attributes:
        scenes: images with several things and polygons.
        frames: of video clips, with the targets' sentences.
        people: one person each, with every garment's color.
        objects: one thing each, to be cut out.

    Raises:
        DataError: a folder without an index, or no images to paste or to paste on.
    """

    def __init__(self, folders: Sequence[Path], split: str) -> None:
        self.scenes: list[Source] = []
        self.frames: list[Source] = []
        self.people: list[Source] = []
        self.objects: list[Source] = []
        self._images: ByteCache[Image] = ByteCache(1_500_000_000)
        self._cuts: ByteCache[list[_Cutout]] = ByteCache(1_000_000_000)
        self._looks: dict[Path, dict[int, Thing]] = {}
        self._folders = folders
        for folder in folders:
            self._read_index(folder, split)
            self._read_clips(folder, split)
        if not self.scenes or not (self.people or self.objects):
            raise DataError(f"No training images of split {split!r} in {', '.join(str(f) for f in folders)}.")

    def _read_index(self, folder: Path, split: str) -> None:
        for entry in ImageSet.load(folder):
            if split != "all" and held_out(entry.file) != (split == "val"):
                continue
            source = _source(folder, entry)
            pool = {"coco": self.scenes, "coco2": self.scenes, "ccp": self.people}.get(_kind(entry))
            if pool is not None:
                pool.append(source)
            elif source.cut:
                self.objects.append(source)

    def _read_clips(self, folder: Path, split: str) -> None:
        for name, targets in read_clips(folder).items():
            if split != "all" and held_out(name, 15) != (split == "val"):
                continue
            frames: dict[int, list[AnnotatedObject]] = {}
            for target in targets:
                for number, shown in target.items():
                    frames.setdefault(number, []).append(shown)
            for number, found in frames.items():
                things = tuple(_thing(one, one.sentences) for one in found)
                outlines = tuple(one.polygons for one in found)
                self.frames.append(Source(file=folder / name / f"{number:05d}.jpg", things=things, polygons=outlines))

    # -- pixels -----------------------------------------------------------------------------------------------

    def image(self, source: Source) -> Image:
        """The pixels of a source, (H, W, 3) RGB."""
        key = hash(source.file)
        found = self._images.get(key)
        return found if found is not None else self._images.put(key, image := read_rgb(source.file), image.nbytes)

    def cutouts(self, source: Source) -> list[_Cutout]:
        """Things of a source with their pixels; large enough, and not cut by the image's rim."""
        key = hash(source.file)
        found = self._cuts.get(key)
        if found is None:
            found = self._cut_all(source)
            self._cuts.put(key, found, sum(c.rgba.nbytes for c in found) + 100)
        return found

    @cached_property
    def _whole(self) -> tuple[CutoutSet, dict[Path, int]]:
        """Cut-outs of images that show one thing, which take the longest: those that trackers are trained with."""
        cutouts = cached_cutouts(ImageSet.load(*self._folders))
        return cutouts, {self._folders[cut.folder] / cut.file: number for number, cut in enumerate(cutouts)}

    def _cut_all(self, source: Source) -> list[_Cutout]:
        if source.cut:
            cutouts, numbers = self._whole
            if source.file not in numbers:
                return []
            rgba = cutouts.patch(numbers[source.file]).levels[0]
            color = dominant_color(rgba[rgba[..., 3] > 127][:, :3])
            return _trimmed(rgba, Thing(name=source.cut, box=(0, 0, 0, 0), color=color))
        image = self.image(source)
        found = []
        height, width = image.shape[:2]
        for thing, outlines in zip(source.things, source.polygons, strict=True):
            x0, y0, x1, y1 = thing.box
            rim = x0 < 2 or y0 < 2 or x1 > width - 2
            if not outlines or rim or (x1 - x0) * (y1 - y0) < 1200 or not thing.known:
                continue
            mask = object_mask(outlines, height, width)
            if (mask > 0).sum() < 0.3 * (x1 - x0) * (y1 - y0):
                continue
            found += _trimmed(_rgba(image, mask), replace(thing, sentences=[]))
        return found

    def looks(self, source: Source) -> dict[int, Thing]:
        """Things of a source that can be cut out, by number, with their colors and heads in pixels of the image."""
        found = self._looks.get(source.file)
        if found is not None or not any(source.polygons):
            return found or {}
        found = self._looks[source.file] = {}
        image = self.image(source)
        for number, (thing, outlines) in enumerate(zip(source.things, source.polygons, strict=True)):
            if not outlines or thing.width * thing.height < 600:
                continue
            mask = object_mask(outlines, *image.shape[:2])
            if (mask > 0).sum() <= 200:
                continue
            ys, xs = np.nonzero(mask)
            x, y = max(0, int(xs.min()) - 2), max(0, int(ys.min()) - 2)
            for cut in _trimmed(_rgba(image, mask), thing):
                head = cut.thing.head and _shifted(cut.thing.head, x, y)
                found[number] = replace(cut.thing, head=head)
        return found


def _kind(entry: IndexedImage) -> str:
    return entry.file.split("/")[0]


def _source(folder: Path, entry: IndexedImage) -> Source:
    kind = _kind(entry)
    shown = [one for one in entry.instances if not one.repeats]
    if kind == "ccp":
        shown = [one for one in shown if one.name in ("person", "bag", "purse", "hat")]
    return Source(
        file=folder / entry.file,
        things=tuple(_thing(one, one.sentences if kind == "coco2" else ()) for one in shown),
        polygons=tuple(one.polygons for one in shown),
        cut=entry.main_object or "",
        complete=kind in ("coco", "coco2") and not entry.only,
        crowds=tuple(crowd.box for crowd in entry.crowds),
    )


def _thing(one: AnnotatedObject, sentences: Sequence[str]) -> Thing:
    x, y, w, h = one.box
    return Thing(
        name=one.name,
        box=(x, y, x + w, y + h),
        color=one.color,
        gender="" if one.person == "person" else one.person,
        garments=dict(one.clothes),
        sentences=list(sentences),
    )


def _rgba(image: Image, mask: Mask) -> Image:
    """The masked pixels with soft edges, and two pixels around them."""
    ys, xs = np.nonzero(mask)
    rows, columns = slice(max(0, ys.min() - 2), ys.max() + 3), slice(max(0, xs.min() - 2), xs.max() + 3)
    part, alpha = image[rows, columns], mask[rows, columns]
    return np.dstack([spread_colors(part, alpha), cv2.GaussianBlur(alpha, (3, 3), 0.8)])


def _trimmed(rgba: Image, thing: Thing) -> list[_Cutout]:
    """The cut-out with its box, color and, of a person who stands, head; none where hardly anything is opaque."""
    solid = rgba[..., 3] > 127
    if solid.sum() < 200:
        return []
    ys, xs = np.nonzero(solid)
    x0, y0, x1, y1 = (float(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
    garments = dict(thing.garments)
    if thing.name == "person" and not any(g in lexicon.WORN or g == "top" for g in garments):
        chest = slice(int(y0 + 0.2 * (y1 - y0)), int(y0 + 0.5 * (y1 - y0)))
        shade = dominant_color(rgba[chest][solid[chest]][:, :3])
        if shade and not {"brown", "pink", "orange"} & set(shade.split(" and ")):
            garments["top"] = shade
    color = thing.color or (dominant_color(rgba[solid][:, :3]) if thing.name != "person" else "")
    made = replace(thing, box=(x0, y0, x1, y1), color=color, garments=garments, head=_head(solid, (x0, y0, x1, y1)))
    return [_Cutout(rgba=rgba, thing=made if thing.name == "person" else replace(made, head=None))]


def _head(solid: NDArray[np.bool_], box: _Box) -> _Box | None:
    """Box of the head of a person who stands upright: the top eighth of the silhouette."""
    x0, y0, x1, y1 = box
    tall = y1 - y0
    if tall < 2.0 * (x1 - x0) or tall < 40:
        return None
    band = solid[int(y0) : int(y0 + 0.12 * tall)]
    columns = np.nonzero(band.any(axis=0))[0]
    wide = columns.max() + 1 - columns.min()
    if not 0.05 * tall < wide < 0.17 * tall:  # raised arms, or something held above
        return None
    return float(columns.min()), y0, float(columns.max() + 1), y0 + 0.135 * tall


# -- scenes -----------------------------------------------------------------------------------------------------


def draw_scene(material: Material, rng: Rng) -> Scene:
    """A random scene: 40 % real images, 11 % video frames, 12 % drawn shapes, the rest with cut-outs on an image."""
    if rng.random() < DRAWN:
        return _drawn_scene(rng)
    roll = rng.random()
    frame = roll < 0.12 and bool(material.frames)
    if frame:
        source, pasted = material.frames[int(rng.integers(len(material.frames)))], 0
    else:
        source = material.scenes[int(rng.integers(len(material.scenes)))]
        pasted = 0 if roll < 0.6 else int(rng.choice((1, 2, 3, 4, 5, 6), p=(0.15, 0.25, 0.25, 0.15, 0.1, 0.1)))
    image, things = _view(material, source, rng, gentle=frame)
    if pasted:
        image, things = _paste_all(material, image, things, pasted, rng)
    complete = source.complete and not source.crowds
    return Scene(image=_relit(image, rng), things=_visible(things, image), complete=complete)


def _drawn_scene(rng: Rng) -> Scene:
    """One shape in two colors among other shapes: the first frame of a distractor pair for training."""
    while True:
        clip = synthesize_clip(int(rng.integers(*DISTRACTOR_SEEDS)), 1, DISTRACTOR_SIZES[int(rng.integers(4))])
        if clip.distractor_boxes is None:
            continue
        scale = LONG_SIDE / max(clip.frames.shape[1:3])
        image = np.asarray(cv2.resize(clip.frames[0], None, fx=scale, fy=scale), dtype=np.uint8)
        things = []
        for sentence, (x, y, w, h) in (
            (clip.sentence, scale * clip.boxes[0]),
            (clip.distractor_sentence, scale * clip.distractor_boxes[0]),
        ):
            color, shape = sentence.split()[-2:]
            things.append(Thing(name=shape, box=(float(x), float(y), float(x + w), float(y + h)), color=color))
        if all(min(thing.width, thing.height) >= 8 * scale for thing in things):
            return Scene(image=_relit(image, rng), things=_visible(things, image), complete=False)


def _view(material: Material, source: Source, rng: Rng, *, gentle: bool) -> tuple[Image, list[Thing]]:
    """A crop of a source, mirrored half of the time, as large as a scene."""
    image = material.image(source)
    height, width = image.shape[:2]
    zoom = 1.0 if rng.random() < 0.35 else float(rng.uniform(1.0, 1.4 if gentle else 2.2))
    ratio = float(np.exp(rng.uniform(-0.25, 0.25))) if zoom > 1 else 1.0
    w, h = min(width, width / zoom * ratio), min(height, height / zoom / ratio)
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    mirror = rng.random() < 0.5
    scale = LONG_SIDE / max(w, h)
    matrix = np.array([[scale, 0, -x * scale], [0, scale, -y * scale]])
    size = (round(w * scale), round(h * scale))
    if mirror:
        matrix[0] = (-scale, 0, size[0] + x * scale)
    shrunk = cv2.INTER_AREA if scale < 0.7 else cv2.INTER_LINEAR
    view = cv2.warpAffine(image, matrix, size, flags=shrunk, borderMode=cv2.BORDER_REFLECT)
    looks = material.looks(source)
    things = []
    for number, thing in enumerate(source.things):
        moved = _moved(thing, matrix, size)
        if moved is None:
            continue
        if (look := looks.get(number)) is not None:
            moved = replace(
                moved, color=moved.color or look.color, garments=moved.garments or look.garments,
                head=look.head and _clip(_warped(look.head, matrix), size),
            )  # fmt: skip
        sentences = [_mirrored(s) for s in moved.sentences] if mirror else moved.sentences
        things.append(replace(moved, sentences=sentences))
    return np.asarray(view, dtype=np.uint8), things


def _shifted(box: _Box, x: float, y: float) -> _Box:
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def _warped(box: Sequence[float], matrix: Floats) -> Floats:
    """The box around a box after an affine map."""
    x0, y0, x1, y1 = box
    corners = np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]]) @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def _clip(box: Floats, size: tuple[int, int]) -> _Box | None:
    """The part of a box inside the image; None where that is less than four fifths."""
    low, high = np.clip(box[:2], 0, size), np.clip(box[2:], 0, size)
    if (high - low).prod() < 0.8 * (box[2:] - box[:2]).prod():
        return None
    return _box(low, high)


def _box(low: Floats, high: Floats) -> _Box:
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _moved(thing: Thing, matrix: Floats, size: tuple[int, int]) -> Thing | None:
    """A thing after an affine map; not named where much is cut off; None where it is out of the image."""
    box = _warped(thing.box, matrix)
    low, high = np.clip(box[:2], 0, size), np.clip(box[2:], 0, size)
    share = float((high - low).clip(0).prod() / max((box[2:] - box[:2]).prod(), 1e-6))
    if share < 0.05:
        return None
    head = None if thing.head is None else _clip(_warped(thing.head, matrix), size)
    known = thing.known and share > 0.55 and float((high - low).min()) > 8
    return replace(thing, box=_box(low, high), head=head, known=known)


def _mirrored(sentence: str) -> str:
    """The sentence for the mirrored image."""
    swap = {"left": "right", "right": "left"}
    return " ".join(swap.get(word, word) for word in sentence.split(" "))


def _paste_all(
    material: Material, image: Image, things: list[Thing], count: int, rng: Rng
) -> tuple[Image, list[Thing]]:
    """Paste cut-outs: half of the scenes show several of one class, in a row at least a third of those."""
    size = height, width = image.shape[:2]
    chosen = _choose(material, count, rng)
    row = rng.random() < 0.4
    ground, tall = rng.uniform(0.55, 1.0) * height, rng.uniform(0.2, 0.75) * height
    image = image.copy()
    placed: list[Thing] = []
    spots = rng.permutation(len(chosen))
    for spot, cut in zip(spots, chosen, strict=True):
        if cut.thing.name == "person" and rng.random() < (0.12 if row else 0.2):
            cut = _bust(cut, rng)
            target_h, bottom = rng.uniform(0.4, 0.95) * height, height + 1.0
        elif row:
            target_h, bottom = tall * np.exp(rng.normal() * 0.12), ground + rng.normal() * 0.03 * height
        else:
            target_h = np.exp(rng.uniform(np.log(0.08), np.log(0.7))) * height
            bottom = rng.uniform(target_h, height * 1.02) if rng.random() < 0.9 else rng.uniform(0.3, 1.0) * height
        if cut.thing.name != "person" and row:
            target_h *= 0.6
        scale = min(target_h / cut.thing.height, 0.8 * width / cut.thing.width, 4.0)
        column = (float(spot), len(chosen)) if row else None
        matrix = _pose(cut.thing, scale, bottom, column, placed, size, rng)
        moved = _moved(cut.thing, matrix, (width, height))
        if moved is None:
            continue
        _blend(image, cut.rgba, matrix, rng)
        things = [_hidden(t, moved) for t in things]
        placed = [*(_hidden(t, moved) for t in placed), moved]
    things = [replace(t, sentences=[]) for t in things] if placed else things
    return image, [*things, *placed]


def _pose(
    thing: Thing, scale: float, bottom: float, column: tuple[float, int] | None, placed: Sequence[Thing],
    size: tuple[int, int], rng: Rng,
) -> Floats:  # fmt: skip
    """(2, 3) affine map of a cut-out into an image of ``size`` (height, width), which hides others little.

    ``bottom`` is the row of its lower edge; ``column`` its number in a row of so many, None for any place.
    """
    width = size[1]
    turn = rng.normal() * 0.06 if rng.random() < 0.8 else rng.normal() * 0.4
    stretch = np.exp(rng.normal() * 0.06)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = scale * rotation @ np.diag([mirror * stretch, 1])
    middle = np.array([(thing.box[0] + thing.box[2]) / 2, thing.box[3]])
    least, best = np.inf, np.zeros((2, 3))
    for _ in range(6):
        x = (column[0] + rng.uniform(0.2, 0.8)) / column[1] * width if column else rng.uniform(0, width)
        matrix = np.concatenate([linear, (np.array([x, bottom]) - linear @ middle)[:, None]], axis=1)
        box = _warped(thing.box, matrix)
        if rng.random() < 0.85:
            matrix[0, 2] += np.clip(-box[0], 0, None) - np.clip(box[2] - width, 0, None)
        place = _warped(thing.box, matrix).tolist()
        hidden = max((_covered(other.box, place) for other in placed), default=0.0)
        if hidden < least:
            least, best = hidden, matrix
        if hidden < 0.15:
            break
    return best


def _choose(material: Material, count: int, rng: Rng) -> list[_Cutout]:
    """Cut-outs for one scene: people, annotated things of one class, or single objects."""
    chosen: list[_Cutout] = []
    kind = rng.choice(("people", "class", "objects", "mixed"), p=(0.42, 0.25, 0.13, 0.2))
    first = ""
    for _ in range(count * 12):
        if len(chosen) == count:
            break
        pool = {"people": material.people, "class": material.scenes, "objects": material.objects}.get(str(kind))
        if pool is None or not pool:
            pool = (material.people, material.scenes, material.objects)[int(rng.integers(3))] or material.scenes
        if kind == "people" and rng.random() < 0.25:
            pool = material.scenes
        cuts = material.cutouts(pool[int(rng.integers(len(pool)))])
        cuts = _fitting(cuts, str(kind), first, rng, people=pool is material.people)
        if not cuts:
            continue
        cut = cuts[int(rng.integers(len(cuts)))]
        other = cut.thing.name != "person"
        if kind == "class" and not first:
            if not other and rng.random() < 0.7:
                continue
            first = cut.thing.name
        chosen.append(cut)
        again = other and kind in ("class", "objects") and len(chosen) < count and rng.random() < 0.35
        if again and (changed := _recolored(cut, rng)) is not None:
            chosen.append(changed)
    return chosen[:count]


def _fitting(cuts: list[_Cutout], kind: str, first: str, rng: Rng, *, people: bool) -> list[_Cutout]:
    """Those cut-outs of an image that suit the kind of scene; ``people``: the image is one of a person's clothes."""
    if kind == "people":
        return [c for c in cuts if c.thing.name == "person"]
    if kind == "class" and first:
        return [c for c in cuts if c.thing.name == first] if rng.random() < 0.7 else cuts
    return [c for c in cuts if c.thing.name == "person" or rng.random() < 0.3] if people else cuts


def _recolored(cut: _Cutout, rng: Rng) -> _Cutout | None:
    """The same thing in another clear color."""
    hsv = cv2.cvtColor(np.ascontiguousarray(cut.rgba[..., :3]), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(25, 155))) % 180
    rgb = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)
    color = dominant_color(rgb[cut.rgba[..., 3] > 127])
    if not color or color == cut.thing.color or " " in color:
        return None
    return _Cutout(rgba=np.dstack([rgb, cut.rgba[..., 3]]), thing=replace(cut.thing, color=color))


def _bust(cut: _Cutout, rng: Rng) -> _Cutout:
    """The upper part of a standing person."""
    _, y0, _, y1 = cut.thing.box
    if cut.thing.head is None:
        return cut
    cutoff = int(y0 + rng.uniform(0.2, 0.6) * (y1 - y0))
    columns = np.nonzero((cut.rgba[:cutoff, :, 3] > 127).any(axis=0))[0]
    box = (float(columns.min()), y0, float(columns.max() + 1), float(cutoff))
    lower = ("pants", "jeans", "skirt", "shorts", "shoes", "boots", "leggings", "stockings", "socks")
    garments = {g: c for g, c in cut.thing.garments.items() if g not in (*lower, *lexicon.PLURAL, "bag", "purse")}
    return _Cutout(rgba=cut.rgba[:cutoff], thing=replace(cut.thing, box=box, garments=garments))


def _blend(image: Image, rgba: Image, matrix: Floats, rng: Rng) -> None:
    """Paste with soft edges, a little brighter or darker."""
    height, width = image.shape[:2]
    box = _warped((0, 0, rgba.shape[1], rgba.shape[0]), matrix)
    x0, y0 = np.clip(np.floor(box[:2]).astype(int), 0, (width, height))
    x1, y1 = np.clip(np.ceil(box[2:]).astype(int), 0, (width, height))
    if x1 <= x0 or y1 <= y0:
        return
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    while scale < 0.5:  # halve first: a single linear resampling would alias
        rgba = np.asarray(cv2.resize(rgba, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        matrix = matrix @ np.array([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 1.0]])
        scale *= 2
    local = matrix - np.array([[0, 0, x0], [0, 0, y0]])
    layer = cv2.warpAffine(rgba, local, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR)
    alpha = layer[..., 3:].astype(np.float32) / 255
    color = layer[..., :3].astype(np.float32) * float(np.exp(rng.normal() * 0.08))
    part = image[y0:y1, x0:x1]
    part[:] = np.clip(part * (1 - alpha) + color * alpha, 0, 255).astype(np.uint8)


def _covered(box: Sequence[float], by: Sequence[float]) -> float:
    """Share of ``box`` that lies inside another."""
    w, h = min(box[2], by[2]) - max(box[0], by[0]), min(box[3], by[3]) - max(box[1], by[1])
    return max(w, 0.0) * max(h, 0.0) / max((box[2] - box[0]) * (box[3] - box[1]), 1e-6)


def _hidden(thing: Thing, by: Thing) -> Thing:
    """A thing after another was pasted over it: not named where a third is hidden, gone where nearly all is."""
    share = _covered(thing.box, by.box)
    head = None if thing.head is not None and _covered(thing.head, by.box) > 0.2 else thing.head
    return replace(thing, known=thing.known and share < 0.4, head=head, name=thing.name if share < 0.9 else "")


def _visible(things: Sequence[Thing], image: Image) -> list[Thing]:
    least = 0.0004 * image.shape[0] * image.shape[1]
    return [replace(t, known=t.known and t.width * t.height > least) for t in things if t.name]


def _relit(image: Image, rng: Rng) -> Image:
    """Light, lens and sensor; mild enough that colors keep their names."""
    out: NDArray[Any] = image
    if rng.random() < 0.6:
        gain, shift = np.exp(rng.normal() * 0.12), rng.normal(size=3) * 4 + rng.normal() * 8
        out = np.clip(out * gain + shift, 0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        shrunk = float(rng.uniform(0.3, 0.8))
        small = cv2.resize(out, None, fx=shrunk, fy=shrunk, interpolation=cv2.INTER_AREA)
        out = cv2.resize(small, (out.shape[1], out.shape[0]), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.15:
        out = cv2.GaussianBlur(out, (0, 0), float(rng.uniform(0.5, 1.8)))
    if rng.random() < 0.2:
        out = np.clip(out + rng.normal(size=out.shape) * rng.uniform(2, 9), 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        _, data = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 85))])
        out = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return np.asarray(out, dtype=np.uint8)
