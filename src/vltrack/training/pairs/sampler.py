"""Training pairs rendered from still images: a template and two search views of one target, with a sentence.

A sample is a pure function of (seed, epoch, index): cut-outs pasted on other images, objects in their own
image under two views, textured pieces, and synthetic scenes with a distractor pair (unpublished; our design).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import ConfigError
from vltrack.core.types import Floats, Image
from vltrack.datasets.cutouts import CutoutSet
from vltrack.datasets.images import ImageSet
from vltrack.datasets.synthetic import SyntheticClip, synthesize_clip
from vltrack.prep.crops import Crop, cut, letterbox, mean_color, region_for
from vltrack.training.pairs.objects import Library
from vltrack.training.pairs.rendering import Sensor, pixels
from vltrack.training.pairs.scene import covered, draw_looks, render
from vltrack.training.pairs.scenes import compose_scene
from vltrack.training.pairs.sentences import SceneObject, describe
from vltrack.training.pairs.tracking import compose_tracking


@dataclass(frozen=True, kw_only=True, slots=True)
class PairConfig:
    """Settings of samples. Shares are probabilities in [0, 1].

    Attributes:
        template_size, search_size: sides of the views in pixels.
        template_factor, search_factor: side of the crop over sqrt(w * h) of the target.
        text_share, scene_share: of samples with box and text, and of whole scenes with text only.
        distractor_share: of text-only samples that are synthetic scenes with a distractor pair.
        recolor_share: of pasted scenes whose second object is the first in another clear color, and of pasted
            targets with box and text that have a look-alike which only the color in the sentence excludes.
        cutout_share, own_share: of targets cut out onto another image, and shown in their own; the rest are
            textured pieces.
        negative_share: of search views without the target.
        template_jitter: standard deviation of a pasted template's center, in box sides.
        center_jitter, scale_jitter: of search regions in videos and annotated images: range of the shift in
            sqrt(w * h), and deviation of the logarithm of the sides (published).
        max_gap, view_gap: most frames of a video between template and search view, and between two search views.
        flip_share, gray_share: of mirrored and of gray samples from videos and annotated images (published).
        brightness: range of the gain there, 1 - brightness to 1 + brightness (published).
        split: "train" and "val" are disjoint ("val": 5 % of the images with all their objects), or "all".

    Raises:
        ConfigError: a value out of range.
    """

    template_size: int = 112
    search_size: int = 224
    template_factor: float = 2.0
    search_factor: float = 4.0
    text_share: float = 0.44
    scene_share: float = 0.11
    distractor_share: float = field(default=0.0, metadata={"key": "twin_share"})
    recolor_share: float = field(default=0.0, metadata={"key": "recolour_share"})
    cutout_share: float = 0.45
    own_share: float = 0.35
    negative_share: float = 0.06
    template_jitter: float = 0.03
    center_jitter: float = 3.0
    scale_jitter: float = 0.25
    max_gap: int = 200
    view_gap: int = 20
    flip_share: float = 0.5
    gray_share: float = 0.05
    brightness: float = 0.2
    split: str = "train"

    def __post_init__(self) -> None:
        if self.split not in ("train", "val", "all"):
            raise ConfigError(f"pairs.split is {self.split!r}.", hint="Use train, val or all.")
        sums = {
            "text_share + scene_share": self.text_share + self.scene_share,
            "cutout_share + own_share": self.cutout_share + self.own_share,
            "twin_share": self.distractor_share,
            "recolour_share": self.recolor_share,
            "flip_share": self.flip_share,
            "gray_share": self.gray_share,
            "brightness": self.brightness,
        }
        single = (self.text_share, self.scene_share, self.cutout_share, self.own_share, self.negative_share)
        for name, value in sums.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"pairs.{name} is {value}.", hint="Give shares from 0 to 1.")
        if not min(single) >= 0:
            raise ConfigError(f"A share of pairs is negative: {min(single)}.", hint="Give shares from 0 to 1.")
        sizes, factors = (self.template_size, self.search_size), (self.template_factor, self.search_factor)
        if min(sizes) < 32:
            raise ConfigError(f"A view of pairs has {min(sizes)} pixels.", hint="Give 32 or more.")
        for name in ("center_jitter", "scale_jitter", "max_gap", "view_gap"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"pairs.{name} is {getattr(self, name)}.", hint="Give 0 or more.")
        if not min(factors) >= 1:
            raise ConfigError(f"A crop factor of pairs is {min(factors)}.", hint="Give 1 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One rendered sample; boxes are x, y, w, h in pixels of their view.

    Attributes:
        template: uint8 RGB (T, T, 3); the given box fills 1 / factor of it.
        template_box: float32 (4,), the given box, in the center of the template.
        searches: uint8 RGB (2, S, S, 3).
        boxes: float32 (2, 4), tight bounds of the target before occlusion, clipped to the frame but not to
            the crop; a nominal box in the center where the target is absent.
        present: bool (2,).
        text: sentence, "" in mode bbox.
        mode: "bbox", "nlbbox" or "nl" (the template is rendered, but must be masked).
    """

    template: NDArray[np.uint8]
    template_box: NDArray[np.float32]
    searches: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    present: NDArray[np.bool_]
    text: str
    mode: str


class PairSampler:
    """Renders samples. Holds decoded images; give every worker process its own."""

    def __init__(self, config: PairConfig, images: ImageSet, cutouts: CutoutSet) -> None:
        self.config = config
        self._library = Library(images, cutouts, config.split)
        self._sensor = Sensor()

    def sample(self, seed: int, epoch: int, index: int) -> Sample:
        """Sample ``index`` of ``epoch``: always the same bytes for the same three numbers and data.

        Samples 2k and 2k + 1 share their mode, and in mode nl the rendered objects, but have different
        targets, so that the text has to be used.
        """
        shared = np.random.default_rng([seed, epoch, index // 2, 1])
        rng = np.random.default_rng([seed, epoch, index])
        chance, config = shared.random(), self.config
        if chance < config.scene_share * config.distractor_share:
            return render_distractor_pair(config, self._sensor, shared, rng, index % 2)
        if chance < config.scene_share:
            scene = compose_scene(config, self._library, shared, rng, index % 2)
        else:
            with_text = chance < config.scene_share + config.text_share
            scene = compose_tracking(config, self._library, rng, with_text=with_text)
        images, boxes = zip(*(render(view, self._library, self._sensor, rng) for view in scene.views), strict=True)
        present = np.array([view.present for view in scene.views[1:]])
        size = config.search_size
        nominal = np.array([size * 0.375, size * 0.375, size / 4, size / 4])
        targets = np.where(present[:, None], np.stack(boxes[1:]), nominal)
        return _sample(images, targets, scene.given, present, scene.text, scene.mode)


def _sample(
    images: Sequence[Image], boxes: Floats, given: Floats, present: NDArray[np.bool_], text: str, mode: str
) -> Sample:
    return Sample(
        template=images[0],
        template_box=given.astype(np.float32),
        searches=np.stack(images[1:]),
        boxes=boxes.astype(np.float32),
        present=present,
        text=text,
        mode=mode,
    )


# -- distractor pairs: one shape in two colors, where only the text decides ---------------------------------

DISTRACTOR_SEEDS = (10_000, 1_000_000)
"""Seeds of training scenes; those of the validation curve lie below, those of `vltrack audit` above."""
DISTRACTOR_SIZES = ((320, 240), (240, 240), (240, 320), (400, 225))
_FRAMES = 8
_MAX_OVERLAP = 0.3
_MIN_SIDE = 8.0


def render_distractor_pair(
    config: PairConfig, sensor: Sensor, shared: np.random.Generator, rng: np.random.Generator, which: int
) -> Sample:
    """A synthetic scene of ``shared`` with a distractor pair; ``which`` (0 or 1) of the two is the target.

    The search views are the scene's first and last frame, letterboxed to ``search_size``. The sentence names
    color and shape, sometimes side or size instead, and fits only the target.
    """
    clip, size = _draw_clip(shared), config.search_size
    looks = draw_looks(shared, mild=True, near=False, count=3)
    if clip.distractor_boxes is None:
        raise AssertionError("the clip has no distractor")
    named = [(clip.sentence, clip.boxes), (clip.distractor_sentence, clip.distractor_boxes)]
    last = _FRAMES - 1
    height, width = clip.frames.shape[1:3]
    whole = letterbox(width, height, size)
    objects = [_scene_object(sentence, whole.to_crop(boxes[[0, last]]), size) for sentence, boxes in named]
    phrase = describe(objects[which], [objects[1 - which]], rng, places=0.15, whole_scene=True)
    sentence, boxes = named[which]
    near = region_for(boxes[0], config.template_factor, config.template_size)
    images = []
    for (t, crop), look in zip([(0, near), (0, whole), (last, whole)], looks, strict=True):
        view = cut(clip.frames[t], crop, mean_color(clip.frames[t]))
        images.append(_fill_padding(sensor.develop(view, look, rng), crop, (width, height)))
    return _sample(
        images,
        np.stack([whole.to_crop(boxes[t]) for t in (0, last)]),
        near.to_crop(boxes[0]),
        np.ones(2, dtype=bool),
        sentence if phrase is None else phrase.text,
        "nl",
    )


def _draw_clip(shared: np.random.Generator) -> SyntheticClip:
    """The next scene with a distractor pair that is visible and apart in its first and last frame."""
    while True:
        size = DISTRACTOR_SIZES[int(shared.integers(len(DISTRACTOR_SIZES)))]
        clip = synthesize_clip(int(shared.integers(*DISTRACTOR_SEEDS)), _FRAMES, size)
        if clip.distractor_boxes is None:
            continue
        ends = [(clip.boxes[t], clip.distractor_boxes[t]) for t in (0, _FRAMES - 1)]
        if all(min(*a[2:], *b[2:]) >= _MIN_SIDE and covered(a, b) < _MAX_OVERLAP for a, b in ends):
            return clip


def _scene_object(sentence: str, boxes: Floats, size: int) -> SceneObject:
    """The object of a sentence such as "the red star"."""
    color, shape = sentence.split()[-2:]
    return SceneObject(name=shape, color=color, clothing_color="", boxes=boxes, side=size)


def _fill_padding(image: Image, crop: Crop, frame_size: tuple[int, int]) -> Image:
    """Give the area beyond the frame one color again, which lens and sensor have changed."""
    inside = pixels(crop.to_crop((0, 0, *frame_size)), crop.size)
    framed = np.empty_like(image)
    framed[:] = np.round(image[inside].mean(axis=(0, 1)))
    framed[inside] = image[inside]
    return framed
