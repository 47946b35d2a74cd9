"""Short clips to train on: a camera that moves over a still image, and synthetic clips.

A clip is a pure function of (images, seed, number). Unpublished; our design: the published second stage uses
clips of three video data sets.
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
_MIN_SIDE = 24.0


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Settings of a stage on clips.

    Attributes:
        frames: per clip, with the first one; 0: the stage is on pairs.
        text_share: share of clips with a sentence (ours; published: none).

    Raises:
        ConfigError: a value out of range.
    """

    frames: int = 0
    text_share: float = 0.0

    def __post_init__(self) -> None:
        if self.frames < 0 or self.frames == 1:
            raise ConfigError(f"clips.frames is {self.frames}.", hint="Give 0, or 2 or more.")
        if not 0 <= self.text_share <= 1:
            raise ConfigError(f"clips.text_share is {self.text_share}.", hint="Give a share from 0 to 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """T frames of one target.

    Attributes:
        frames: RGB uint8 (T, H, W, 3).
        boxes: float64 (T, 4) x, y, w, h in pixels, clipped to the frame; zeros where absent.
        absent: bool (T,).
        sentence: describes the target.
    """

    frames: NDArray[np.uint8]
    boxes: Box
    absent: NDArray[np.bool_]
    sentence: str


def synthetic_clip(seed: int, frames: int) -> Clip:
    """A clip of ``datasets.synthetic``, from the first frame that shows the target."""
    made = synthesize_clip(seed, frames, _SIZE)
    first = int(np.argmin(made.absent))
    return Clip(
        frames=made.frames[first:], boxes=made.boxes[first:], absent=made.absent[first:], sentence=made.sentence
    )


def moving_camera_clip(image: Image, box_xywh: Box, name: str, seed: int, frames: int) -> Clip:
    """A camera on a smooth path over an image: the object at ``box_xywh`` moves and changes its size.

    At least half of the object stays in view. Beyond the image its edge is repeated.
    """
    rng = np.random.default_rng([seed, frames])
    size = np.array(_SIZE, dtype=np.float64)
    x, y, w, h = (float(v) for v in box_xywh)
    middle, extent = np.array([x + w / 2, y + h / 2]), np.array([w, h])
    places = size * (0.5 + _wave(rng, frames, 2, 0.32))
    sides = float(size.min()) * rng.uniform(0.18, 0.4) * np.exp(_wave(rng, frames, 1, 0.45)[:, 0])
    scales = sides / np.sqrt(w * h)
    small, shrunk = _shrunk(image, float(scales.max()))
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


def _shrunk(image: Image, scale: float) -> tuple[Image, NDArray[np.float64]]:
    """The image reduced to its largest view, and the factors (2,): a warp alone would skip pixels."""
    height, width = image.shape[:2]
    if scale >= 1:
        return image, np.ones(2)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return small, np.array(size) / (width, height)


def clips_of(images: ImageSet, frames: int, seed: int) -> Callable[[int], Clip]:
    """Clip number k of an endless stream: every second one is synthetic, all where no object is annotated."""
    objects = [
        (index, np.array(annotation.box), annotation.name)
        for index, image in enumerate(images)
        for annotation in image.instances
        if min(annotation.box[2:]) >= _MIN_SIDE
    ]

    def clip(number: int) -> Clip:
        rng = np.random.default_rng([seed, number])
        own = int(rng.integers(2**31))
        if not objects or number % 2:
            return synthetic_clip(own, frames)
        index, box, name = objects[int(rng.integers(len(objects)))]
        return moving_camera_clip(images.image(index), box, name, own, frames)

    return clip


def _wave(rng: np.random.Generator, frames: int, count: int, reach: float) -> NDArray[np.float64]:
    """(T, count) smooth curves within +-``reach``, of two slow waves each."""
    time = np.linspace(0.0, 2 * np.pi, frames)[:, None]
    total = np.zeros((frames, count))
    for share in (0.7, 0.3):
        pace, phase = rng.uniform(0.2, 1.3, count), rng.uniform(0, 2 * np.pi, count)
        total += share * np.sin(time * pace + phase)
    return reach * total
