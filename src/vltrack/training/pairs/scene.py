"""A planned view and its execution: base picture, pasted things, occluders, the end of the frame, the look.

Knows no target's motion and no sentence; the numbers are ours unless ``pairs.PairConfig`` has them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from vltrack.core.types import Floats, Image
from vltrack.datasets.cutouts import Patch
from vltrack.training.pairs.objects import Actor, Library
from vltrack.training.pairs.rendering import (
    Look,
    Sensor,
    Wobble,
    draw_look,
    near_look,
    paste,
    warp_picture,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Slab:
    """An occluder: a box x, y, w, h of the view filled with a window of a picture, or with one colour."""

    box: Floats
    picture: int
    colour: tuple[int, int, int] | None


@dataclass(kw_only=True, slots=True)
class View:
    """One view to render. ``base``: picture, map, mirrored at its borders or not; ``layers`` and ``front``:
    patches behind and in front of the occluders; ``frame``: x0, y0, x1, y1 beyond which the video frame ends;
    ``shown``: the other things and their boxes; ``wobble``: bends what is below the patches."""

    size: int
    base: tuple[int, Floats, bool]
    box: Floats
    look: Look
    present: bool = True
    layers: list[tuple[Patch, Floats]] = field(default_factory=list)
    slabs: list[Slab] = field(default_factory=list)
    front: list[tuple[Patch, Floats]] = field(default_factory=list)
    frame: tuple[float, float, float, float] | None = None
    shown: list[tuple[Actor, Floats]] = field(default_factory=list)
    wobble: Wobble | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Template view, two search views, the template box as given, sentence and mode."""

    views: tuple[View, View, View]
    given: Floats
    text: str
    mode: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """A scene's pixels: template and two searches with their boxes (3, 4), the template box as given, whether
    the target is in each search, sentence and mode."""

    images: tuple[Image, Image, Image]
    boxes: Floats
    given: Floats
    present: tuple[bool, bool]
    text: str
    mode: str


def render(view: View, library: Library, sensor: Sensor, rng: np.random.Generator) -> tuple[Image, Floats]:
    """Pixels (size, size, 3) of a view and the target's box cut where the frame ends."""
    picture, matrix, mirrored = view.base
    image, outside = warp_picture(library.image(picture), matrix, view.size, reflect=mirrored)
    if view.wobble is not None:
        image = view.wobble.image(image)
        outside = None if outside is None else view.wobble.image(outside.astype(np.uint8)) > 0
    for patch, placed in view.layers:
        paste(image, patch, placed)
    for slab in view.slabs:
        _lay(image, slab, library)
    for patch, placed in view.front:
        paste(image, patch, placed)
    image = sensor.develop(image, view.look, rng)
    box = view.box
    if view.frame is not None:
        x0, y0, x1, y1 = view.frame
        beyond = np.ones(image.shape[:2], dtype=bool)
        beyond[round(y0) : round(y1), round(x0) : round(x1)] = False
        outside = beyond if outside is None else outside | beyond
        low = np.clip(box[:2], (x0, y0), (x1, y1))
        high = np.clip(box[:2] + box[2:], (x0, y0), (x1, y1))
        box = np.concatenate([low, high - low])
    if outside is not None and not outside.all():
        inside = cv2.mean(image, np.where(outside, 0, 255).astype(np.uint8))[:3]
        image[outside] = np.round(inside).astype(np.uint8)
    return image, box


def _lay(image: Image, slab: Slab, library: Library) -> None:
    size = image.shape[0]
    low = np.clip(np.round(slab.box[:2]), 0, size).astype(int)
    high = np.clip(np.round(slab.box[:2] + slab.box[2:]), 0, size).astype(int)
    w, h = high - low
    if w < 1 or h < 1:
        return
    if slab.colour is not None:
        image[low[1] : high[1], low[0] : high[0]] = slab.colour
        return
    source = library.image(slab.picture)
    sh, sw = source.shape[:2]
    piece = source[: max(2, min(sh, h)), : max(2, min(sw, w))]
    image[low[1] : high[1], low[0] : high[0]] = cv2.resize(piece, (int(w), int(h)))


def draw_looks(rng: np.random.Generator, *, mild: bool, near: bool, count: int) -> list[Look]:
    """Looks of template and searches: one video has one resolution, more or less."""
    reduce = 1.0
    if rng.random() < 0.45:
        reduce = float(rng.uniform(0.2, 0.36) if rng.random() < 0.33 else rng.uniform(0.36, 0.9))
    grey, only = rng.random() < 0.12, int(rng.integers(4))
    looks: list[Look] = []
    for number in range(count):
        scale = float(np.clip(reduce * np.exp(rng.normal() * 0.12), 0.17, 1.0)) if reduce < 1 else 1.0
        if number == 2 and near:
            looks.append(near_look(looks[1], rng))
            continue
        one = grey and (only > 0 or number == 0)
        looks.append(draw_look(rng, mild=mild, grey=one, reduce=scale))
    return looks


def covered(inner: Floats, outer: Floats) -> float:
    """The larger of the shares of each box that the other covers."""
    low = np.maximum(inner[:2], outer[:2])
    high = np.minimum(inner[:2] + inner[2:], outer[:2] + outer[2:])
    inter = float(np.clip(high - low, 0, None).prod())
    return inter / max(1e-6, min(float(inner[2:].prod()), float(outer[2:].prod()) or 1e-6)) if inter else 0.0


def frame_end(box: Floats, size: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Where the frame ends on one side, so that at least half of the target stays inside."""
    x, y, w, h = box
    limit = rng.uniform(0.05, 0.4) * size
    side = int(rng.integers(4))
    if side == 0:
        return (max(0.0, min(limit, x + w / 2)), 0.0, float(size), float(size))
    if side == 1:
        return (0.0, max(0.0, min(limit, y + h / 2)), float(size), float(size))
    if side == 2:
        return (0.0, 0.0, min(float(size), max(size - limit, x + w / 2)), float(size))
    return (0.0, 0.0, float(size), min(float(size), max(size - limit, y + h / 2)))


PLAIN = Look(
    colour=np.eye(3, 4), gamma=1.0, grey=False, shadow=None, reduce=1.0, blur=0.0, motion=None, noise=0.0,
    jpeg=0
)  # fmt: skip
