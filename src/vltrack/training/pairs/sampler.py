"""Training pairs rendered from still pictures: one template and two search views of one target, with a
sentence.

A sample is a pure function of (seed, epoch, index). Recipe after ``design/SMALL_MODELS`` of this project:
cut-outs on other pictures, objects in their own picture under two views, textured pieces; the shares are in
``PairConfig``. Knows pictures, cut-outs and geometry; knows no tensor, no network and no label map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import ConfigError
from vltrack.core.types import Floats, Image
from vltrack.datasets.cutouts import CutoutSet
from vltrack.datasets.images import ImageSet
from vltrack.datasets.synthetic import SyntheticClip, synthesize_clip
from vltrack.prep.crops import Crop, cut, letterbox, mean_color, region_for
from vltrack.training.pairs.objects import Library
from vltrack.training.pairs.rendering import Sensor
from vltrack.training.pairs.scene import Rendered, Scene, covered, draw_looks, render
from vltrack.training.pairs.scenes import compose_scene
from vltrack.training.pairs.sentences import Fact, describe
from vltrack.training.pairs.tracking import compose_track

# MERGED training/pairs/sampler.py
# Drawn scenes with twins, one shape in two colours: pictures in which nothing but the sentence decides.
#
# Takes the scenes of ``datasets.synthetic``, whose boxes are exact, and looks at them as a start by
# words does.
# Needs no picture file; knows no cut-out and no tracked motion. Unpublished; our design.


SEEDS = (10_000, 1_000_000)
"""Training draws scenes of these seeds; those of the validation curve lie below, those of the audit above."""
_SIZES = ((320, 240), (240, 240), (240, 320), (400, 225))
_FRAMES = 8
_APART = 0.3
_LEAST_SIDE = 8.0


def render_twins(
    config: PairConfig, sensor: Sensor, shared: np.random.Generator, rng: np.random.Generator, which: int
) -> Rendered:
    """A scene of ``shared`` with two twins, asked for the first or the second (``which`` even or odd).

    The search views are the scene's first and last picture, letterboxed to ``search_size``. The sentence
    names colour and shape, now and then side or size instead, and fits only one of the two.
    """
    clip, size = _draw(shared), config.search_size
    looks = draw_looks(shared, mild=True, near=False, count=3)
    if clip.distractor_boxes is None:
        raise AssertionError("a scene without twins was drawn")
    named = [(clip.sentence, clip.boxes), (clip.distractor_sentence, clip.distractor_boxes)]
    ends = (0, _FRAMES - 1)
    height, width = clip.frames.shape[1:3]
    whole = letterbox(width, height, size)
    facts = [_fact(sentence, whole.to_crop(boxes[list(ends)]), size) for sentence, boxes in named]
    phrase = describe(facts[which % 2], [facts[1 - which % 2]], rng, places=0.15, whole_scene=True)
    boxes = named[which % 2][1]
    near = region_for(boxes[0], config.template_factor, config.template_size)
    views = [(0, near), (ends[0], whole), (ends[1], whole)]
    images = [
        _framed(sensor.develop(_cut(clip.frames[t], crop), look, rng), crop, (width, height))
        for (t, crop), look in zip(views, looks, strict=True)
    ]
    return Rendered(
        images=(images[0], images[1], images[2]),
        boxes=np.stack([crop.to_crop(boxes[t]) for t, crop in views]),
        given=near.to_crop(boxes[0]),
        present=(True, True),
        text=named[which % 2][0] if phrase is None else phrase.text,
        mode="nl",
    )


def _draw(shared: np.random.Generator) -> SyntheticClip:
    """The next scene with twins that both show in its first and last picture, apart from each other."""
    while True:
        size = _SIZES[int(shared.integers(len(_SIZES)))]
        clip = synthesize_clip(int(shared.integers(*SEEDS)), _FRAMES, size)
        if clip.distractor_boxes is not None and all(_apart(clip, t) for t in (0, _FRAMES - 1)):
            return clip


def _apart(clip: SyntheticClip, t: int) -> bool:
    if clip.distractor_boxes is None:
        return False
    one, other = clip.boxes[t], clip.distractor_boxes[t]
    return min(*one[2:], *other[2:]) >= _LEAST_SIDE and covered(one, other) < _APART


def _fact(sentence: str, boxes: Floats, size: int) -> Fact:
    """What is known of a twin from its sentence, "the red star"."""
    colour, shape = sentence.split()[-2:]
    return Fact(name=shape, colour=colour, upper="", boxes=boxes, side=size)


def _cut(frame: Image, crop: Crop) -> Image:
    return cut(frame, crop, mean_color(frame))


def _framed(image: Image, crop: Crop, frame_size: tuple[int, int]) -> Image:
    """Beyond the frame there is one colour, whatever lens and sensor did."""
    x, y, w, h = crop.to_crop((0, 0, *frame_size))
    low = np.clip(np.round([x, y]), 0, crop.size).astype(int)
    high = np.clip(np.round([x + w, y + h]), 0, crop.size).astype(int)
    inside = image[low[1] : high[1], low[0] : high[0]]
    framed = np.empty_like(image)
    framed[:] = np.round(inside.mean(axis=(0, 1)))
    framed[low[1] : high[1], low[0] : high[0]] = inside
    return framed


Tokenise = Callable[[str], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairConfig:
    """What is rendered. Shares are chances in [0, 1].

    Attributes:
        template_size, search_size: sides of the views in pixels.
        template_factor, search_factor: side of the crop over sqrt(w * h) of the target.
        text_share, scene_share: of samples with box and sentence, and with the sentence alone.
        twin_share: of samples with the sentence alone that are drawn scenes with twins (``pairs_twins``).
        recolour_share: of pasted scenes whose second thing is the first in another clear colour.
        cutout_share, own_share: of targets cut out onto another picture, and shown in their own; the rest are
            textured pieces.
        negative_share: of search views without the target.
        template_jitter: how exactly the template box is given (standard deviation of its centre in box
            sides).
        split: "train" and "val" are disjoint (5 % of the pictures with all their objects are "val"), or
            "all".
    """

    template_size: int = 112
    search_size: int = 224
    template_factor: float = 2.0
    search_factor: float = 4.0
    text_share: float = 0.44
    scene_share: float = 0.11
    twin_share: float = 0.0
    recolour_share: float = 0.0
    cutout_share: float = 0.45
    own_share: float = 0.35
    negative_share: float = 0.06
    template_jitter: float = 0.03
    split: str = "train"

    def __post_init__(self) -> None:
        if self.split not in ("train", "val", "all"):
            raise ConfigError(f"split is {self.split!r}.", hint="Use train, val or all.")
        shares = (self.text_share, self.scene_share, self.cutout_share, self.own_share, self.negative_share)
        alone = (self.twin_share, self.recolour_share)
        if (
            min(*shares, *alone) < 0
            or max(alone) > 1
            or self.text_share + self.scene_share > 1
            or self.cutout_share + self.own_share > 1
        ):
            raise ConfigError(
                "shares of pairs are negative or sum to more than 1.", hint="Lower one of them."
            )
        if (
            min(self.template_size, self.search_size) < 32
            or min(self.template_factor, self.search_factor) < 1
        ):
            raise ConfigError("views are below 32 pixels or factors below 1.", hint="Raise them.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One rendered sample (H = W = size of the view; boxes x, y, w, h in pixels of their view).

    Attributes:
        template: uint8 RGB (T, T, 3); the target's given box fills 1 / factor of it.
        template_box: float32 (4,), the given box, in the middle of the template.
        searches: uint8 RGB (2, S, S, 3).
        boxes: float32 (2, 4), tight bounds of the target before occlusion, cut where the frame ends but not
            where the crop ends; a nominal box in the middle where the target is absent.
        present: bool (2,).
        text: sentence, "" in mode bbox.
        mode: "bbox", "nlbbox" or "nl" (the template is rendered, but must be masked).
        tokens: what ``tokenise`` gave for the text; None without it.
    """

    template: NDArray[np.uint8]
    template_box: NDArray[np.float32]
    searches: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    present: NDArray[np.bool_]
    text: str
    mode: str
    tokens: NDArray[np.int64] | None = None


class PairSampler:
    """Renders samples. Holds decoded pictures; give every worker process its own."""

    def __init__(
        self, config: PairConfig, pictures: ImageSet, cutouts: CutoutSet, tokenise: Tokenise | None = None
    ) -> None:
        self.config = config
        self._tokenise = tokenise
        self._library = Library(pictures, cutouts, config.split)
        self._sensor = Sensor()

    def sample(self, seed: int, epoch: int, index: int) -> Sample:
        """Sample ``index`` of ``epoch``: always the same bytes for the same three numbers and material.

        Samples 2k and 2k + 1 share their mode, and in mode nl the rendered things, but ask for another
        target, so that the words have to be read.
        """
        shared = np.random.default_rng([seed, epoch, index // 2, 1])
        rng = np.random.default_rng([seed, epoch, index])
        chance = shared.random()
        if chance < self.config.scene_share * self.config.twin_share:
            return self._sample(render_twins(self.config, self._sensor, shared, rng, index % 2))
        if chance < self.config.scene_share:
            scene = compose_scene(self.config, self._library, shared, rng, index % 2)
        else:
            talk = chance < self.config.scene_share + self.config.text_share
            scene = compose_track(self.config, self._library, rng, talk=talk)
        return self._sample(self._rendered(scene, rng))

    def _rendered(self, scene: Scene, rng: np.random.Generator) -> Rendered:
        images, boxes = zip(
            *(render(view, self._library, self._sensor, rng) for view in scene.views), strict=True
        )
        return Rendered(
            images=(images[0], images[1], images[2]),
            boxes=np.stack(boxes),
            given=scene.given,
            present=(scene.views[1].present, scene.views[2].present),
            text=scene.text,
            mode=scene.mode,
        )

    def _sample(self, seen: Rendered) -> Sample:
        size = self.config.search_size
        nominal = np.array([size * 0.375, size * 0.375, size / 4, size / 4])
        present = np.array(seen.present)
        return Sample(
            template=seen.images[0],
            template_box=seen.given.astype(np.float32),
            searches=np.stack(seen.images[1:]),
            boxes=np.where(present[:, None], seen.boxes[1:], nominal).astype(np.float32),
            present=present,
            text=seen.text,
            mode=seen.mode,
            tokens=self._tokenise(seen.text) if self._tokenise is not None else None,
        )
