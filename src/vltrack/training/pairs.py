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
from vltrack.datasets.cutouts import CutoutSet
from vltrack.datasets.pictures import PictureSet
from vltrack.training.pairs_library import Library
from vltrack.training.pairs_render import Sensor
from vltrack.training.pairs_scene import Rendered, Scene, render
from vltrack.training.pairs_track import compose_track
from vltrack.training.pairs_twins import render_twins
from vltrack.training.pairs_whole import compose_scene

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
        self, config: PairConfig, pictures: PictureSet, cutouts: CutoutSet, tokenise: Tokenise | None = None
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
