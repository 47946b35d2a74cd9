"""Drawn scenes with twins, one shape in two colours: pictures in which nothing but the sentence decides.

Takes the scenes of ``datasets.clips``, whose boxes are exact, and looks at them as a start by words does.
Needs no picture file; knows no cut-out and no tracked motion. Unpublished; our design.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vltrack.core.types import Image
from vltrack.datasets.clips import ProceduralClip, synthesize_clip
from vltrack.prep.crops import Crop, cut, letterbox, mean_colour, region_for
from vltrack.training.pairs_geometry import Floats
from vltrack.training.pairs_render import Sensor
from vltrack.training.pairs_scene import Rendered, covered, draw_looks
from vltrack.training.pairs_text import Fact, describe

if TYPE_CHECKING:
    from vltrack.training.pairs import PairConfig

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
    if clip.rival_boxes is None:
        raise AssertionError("a scene without twins was drawn")
    named = [(clip.sentence, clip.boxes), (clip.rival_sentence, clip.rival_boxes)]
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


def _draw(shared: np.random.Generator) -> ProceduralClip:
    """The next scene with twins that both show in its first and last picture, apart from each other."""
    while True:
        size = _SIZES[int(shared.integers(len(_SIZES)))]
        clip = synthesize_clip(int(shared.integers(*SEEDS)), _FRAMES, size)
        if clip.rival_boxes is not None and all(_apart(clip, t) for t in (0, _FRAMES - 1)):
            return clip


def _apart(clip: ProceduralClip, t: int) -> bool:
    if clip.rival_boxes is None:
        return False
    one, other = clip.boxes[t], clip.rival_boxes[t]
    return min(*one[2:], *other[2:]) >= _LEAST_SIDE and covered(one, other) < _APART


def _fact(sentence: str, boxes: Floats, size: int) -> Fact:
    """What is known of a twin from its sentence, "the red star"."""
    colour, shape = sentence.split()[-2:]
    return Fact(name=shape, colour=colour, upper="", boxes=boxes, side=size)


def _cut(frame: Image, crop: Crop) -> Image:
    return cut(frame, crop, mean_colour(frame))


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
