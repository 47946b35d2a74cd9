"""A planned view and its rendering: background, pasted objects, occluders, frame border, look."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from vltrack.core.types import Floats, Image
from vltrack.datasets.cutouts import Patch
from vltrack.training.pairs.objects import Instance, Library
from vltrack.training.pairs.rendering import Look, Sensor, Wobble, draw_look, near_look, paste, pixels, warp_image


@dataclass(frozen=True, kw_only=True, slots=True)
class Occluder:
    """A box x, y, w, h of the view filled with a part of image ``image_index``, or with one color."""

    box: Floats
    image_index: int
    color: NDArray[np.int64] | None


@dataclass(kw_only=True, slots=True)
class View:
    """One view to render.

    Attributes:
        size: side in pixels.
        base: background: image index, map (2, 3) into the view, and whether it is mirrored at its borders.
        box: the target, x, y, w, h in pixels of the view.
        layers, front: patches and their maps, behind and in front of the occluders.
        frame: x0, y0, x1, y1 where the video frame ends.
        shown: the other objects and their boxes.
        wobble: bends the background.
    """

    size: int
    base: tuple[int, Floats, bool]
    box: Floats
    look: Look
    present: bool = True
    layers: list[tuple[Patch, Floats]] = field(default_factory=list)
    occluders: list[Occluder] = field(default_factory=list)
    front: list[tuple[Patch, Floats]] = field(default_factory=list)
    frame: tuple[float, float, float, float] | None = None
    shown: list[tuple[Instance, Floats]] = field(default_factory=list)
    wobble: Wobble | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A template view and two search views, the given template box, sentence and mode."""

    views: tuple[View, View, View]
    given: Floats
    text: str
    mode: str


def render(view: View, library: Library, sensor: Sensor, rng: np.random.Generator) -> tuple[Image, Floats]:
    """Pixels (size, size, 3) of a view, and the target's box clipped to the frame."""
    index, matrix, mirrored = view.base
    image, outside = warp_image(library.image(index), matrix, view.size, reflect=mirrored)
    if view.wobble is not None:
        image = view.wobble.image(image)
        outside = None if outside is None else view.wobble.image(outside.astype(np.uint8)) > 0
    for patch, placed in view.layers:
        paste(image, patch, placed)
    for occluder in view.occluders:
        _draw_occluder(image, occluder, library)
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
        inside = cv2.mean(image, (~outside).view(np.uint8))[:3]
        cv2.copyTo(np.full_like(image, np.round(inside)), outside.view(np.uint8), image)
    return image, box


def _draw_occluder(image: Image, occluder: Occluder, library: Library) -> None:
    hidden = image[pixels(occluder.box, image.shape[0])]
    h, w = hidden.shape[:2]
    if occluder.color is not None:
        hidden[:] = occluder.color
    elif h and w:
        piece = library.image(occluder.image_index)[: max(2, h), : max(2, w)]
        hidden[:] = cv2.resize(piece, (w, h))


def draw_looks(rng: np.random.Generator, *, mild: bool, near: bool, count: int) -> list[Look]:
    """Looks of template and search views: one video has about one resolution."""
    reduce = 1.0
    if rng.random() < 0.45:
        reduce = float(rng.uniform(0.2, 0.36) if rng.random() < 0.33 else rng.uniform(0.36, 0.9))
    gray, only = rng.random() < 0.12, int(rng.integers(4))
    looks: list[Look] = []
    for number in range(count):
        scale = float(np.clip(reduce * np.exp(rng.normal() * 0.12), 0.17, 1.0)) if reduce < 1 else 1.0
        if number == 2 and near:
            looks.append(near_look(looks[1], rng))
            continue
        one = gray and (only > 0 or number == 0)
        looks.append(draw_look(rng, mild=mild, gray=one, reduce=scale))
    return looks


def covered(inner: Floats, outer: Floats) -> float:
    """The larger of the shares of each box that the other covers."""
    low = np.maximum(inner[:2], outer[:2])
    high = np.minimum(inner[:2] + inner[2:], outer[:2] + outer[2:])
    inter = float(np.clip(high - low, 0, None).prod())
    return inter / max(1e-6, min(float(inner[2:].prod()), float(outer[2:].prod()) or 1e-6)) if inter else 0.0


def frame_end(box: Floats, size: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of a frame that ends on one side of the view and holds at least half of the target."""
    x, y, w, h = box
    limit = rng.uniform(0.05, 0.4) * size
    side = int(rng.integers(4))
    middle, full = (x + w / 2, y + h / 2)[side % 2], float(size)
    border = [0.0, 0.0, full, full]
    border[side] = max(0.0, min(limit, middle)) if side < 2 else min(full, max(size - limit, middle))
    return border[0], border[1], border[2], border[3]


PLAIN = Look(color=np.eye(3, 4))
