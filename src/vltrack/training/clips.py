"""Short clips to train on: a camera that wanders over a still picture, and drawn clips beside them.

A clip is a pure function of (pictures, seed, number). Knows pictures and boxes; no tensor and no network.
Unpublished; our design: the published second stage has clips of three video data sets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import ConfigError
from vltrack.core.types import Box, Image
from vltrack.datasets.images import ImageSet
from vltrack.datasets.synthetic import synthesize_clip

_SIZE = (320, 240)
_LEAST_SIDE = 24.0


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Numbers of a stage on clips.

    Attributes:
        frames: of a clip, the first among them; 0: the stage is not on clips but on pairs.
        text_share: of the clips are named by a sentence too (ours; published: none).
    """

    frames: int = 0
    text_share: float = 0.0

    def __post_init__(self) -> None:
        if self.frames < 0 or self.frames == 1:
            raise ConfigError(f"a clip has two frames or more, got {self.frames}.")
        if not 0 <= self.text_share <= 1:
            raise ConfigError(f"text_share is a share, got {self.text_share}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """T frames of one target.

    Attributes:
        frames: RGB uint8 (T, H, W, 3).
        boxes: float64 (T, 4) x, y, w, h in pixels, cut at the frame; zeros where absent.
        absent: bool (T,).
        sentence: names the target.
    """

    frames: NDArray[np.uint8]
    boxes: Box
    absent: NDArray[np.bool_]
    sentence: str


def drawn(seed: int, frames: int) -> Clip:
    """Shapes over textured ground (``datasets.synthetic``), from the first frame that shows the target."""
    made = synthesize_clip(seed, frames, _SIZE)
    first = int(np.argmin(made.absent))
    return Clip(
        frames=made.frames[first:],
        boxes=made.boxes[first:],
        absent=made.absent[first:],
        sentence=made.sentence,
    )


def wandered(picture: Image, box_xywh: Box, name: str, seed: int, frames: int) -> Clip:
    """A camera on a smooth way over a picture: the object at ``box_xywh`` moves, grows and shrinks in view.

    It stays at least half in view. What lies beyond the picture repeats its edge.
    """
    rng = np.random.default_rng([seed, frames])
    size = np.array(_SIZE, dtype=np.float64)
    x, y, w, h = (float(v) for v in box_xywh)
    middle, extent = np.array([x + w / 2, y + h / 2]), np.array([w, h])
    places = size * (0.5 + _wave(rng, frames, 2, 0.32))
    sides = float(size.min()) * rng.uniform(0.18, 0.4) * np.exp(_wave(rng, frames, 1, 0.45)[:, 0])
    scales = sides / np.sqrt(w * h)
    small, shrunk = _shrunk(picture, float(scales.max()))
    images = np.empty((frames, _SIZE[1], _SIZE[0], 3), dtype=np.uint8)
    boxes = np.empty((frames, 4))
    for t, (place, scale) in enumerate(zip(places, scales, strict=True)):
        gain = scale / shrunk
        # cv2 counts from the middle of the first pixel, boxes from its edge.
        shift = place - scale * middle + 0.5 * gain - 0.5
        matrix = np.array([[gain[0], 0.0, shift[0]], [0.0, gain[1], shift[1]]])
        edge = cv2.BORDER_REPLICATE
        images[t] = cv2.warpAffine(small, matrix, _SIZE, flags=cv2.INTER_LINEAR, borderMode=edge)
        low, high = place - scale * extent / 2, place + scale * extent / 2
        low, high = low.clip(0, size), high.clip(0, size)
        boxes[t] = np.concatenate([low, high - low])
    return Clip(frames=images, boxes=boxes, absent=np.zeros(frames, dtype=bool), sentence=f"the {name}")


def _shrunk(picture: Image, scale: float) -> tuple[Image, NDArray[np.float64]]:
    """The picture as small as its largest view, and by what (2,): a warp alone would skip pixels."""
    height, width = picture.shape[:2]
    if scale >= 1:
        return picture, np.ones(2)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return small, np.array(size) / (width, height)


def clips_of(pictures: ImageSet | None, frames: int, seed: int) -> Callable[[int], Clip]:
    """Clip number k of an endless stream: every second one drawn, all of them where there is no picture."""
    known = [] if pictures is None else _objects(pictures)

    def clip(number: int) -> Clip:
        rng = np.random.default_rng([seed, number])
        own = int(rng.integers(2**31))
        if pictures is None or not known or number % 2:
            return drawn(own, frames)
        picture, box, name = known[int(rng.integers(len(known)))]
        return wandered(pictures.image(picture), box, name, own, frames)

    return clip


def _objects(pictures: ImageSet) -> list[tuple[int, Box, str]]:
    """Objects large enough to be looked at closely: picture, box, name."""
    return [
        (index, np.array(instance.box), instance.name)
        for index, picture in enumerate(pictures)
        for instance in picture.instances
        if min(instance.box[2:]) >= _LEAST_SIDE
    ]


def _wave(rng: np.random.Generator, frames: int, count: int, reach: float) -> NDArray[np.float64]:
    """(T, count) smooth ways within +-``reach``: two slow waves each."""
    time = np.linspace(0.0, 2 * np.pi, frames)[:, None]
    total = np.zeros((frames, count))
    for share in (0.7, 0.3):
        pace, phase = rng.uniform(0.2, 1.3, count), rng.uniform(0, 2 * np.pi, count)
        total += share * np.sin(time * pace + phase)
    return reach * total
