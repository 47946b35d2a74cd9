"""Stand-ins for a network in tests of tracking: one that sees colours, one that says what it is told.

``Spotter`` measures where the purest red, green or blue lies in a crop, exactly and without training, so that
tests of the policy and of the geometry know the truth. ``tiny_weights`` saves the real network with random
weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vltrack.models.base import BoxedCrop, Memory, Prediction, Text
from vltrack.prep.tokenizers import WordPieceTokenizer
from vltrack.tracking.engine import Engine
from vltrack.tracking.postprocess import Policy
from vltrack.tracking.torch_network import TorchNetwork
from vltrack.tracking.tracker import Tracker

EAGER = Policy(lost_below=0.0, visible_above=0.0, refresh_above=0.0, refresh_every=2, smooth=1.0, search_again_every=0)
"""Random weights are never sure of anything: with this policy all parts of a step take part."""

COLOURS = {"red": 0, "green": 1, "blue": 2}
GREY = 90
Fault = Callable[[], None]


class Spotter:
    """A model whose target is whatever is red, green or blue; grey is nothing.

    ``floor`` is the smallest purity of a colour that counts (the border's mean colour has a little of all).
    ``fault`` is called in each ``locate``, to raise. ``searched`` lists the number of crops of each call.
    """

    template_size, template_factor = 32, 2.0
    search_size, search_factor = 64, 4.0
    max_words = 12
    pixel_mean, pixel_std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    history, vocabulary, training_only, mask_padding = 0, "bert", (), False
    side = 8

    def __init__(self, *, floor: float = 0.2) -> None:
        self.floor = floor
        self.fault: Fault | None = None
        self.searched: list[int] = []
        self.refreshed = 0

    def read_text(self, ids_BL: Tensor, valid_BL: Tensor) -> Text:
        return Text(tokens_BLC=ids_BL[..., None].float(), valid_BL=valid_BL)

    def ground(self, scene_B3SS: Tensor, text: Text) -> Prediction:
        known = {_piece(name): channel for name, channel in COLOURS.items()}
        named = [known[int(i)] for i in text.tokens_BLC[0, :, 0] if int(i) in known]
        return self._seen(scene_B3SS, torch.tensor(named[:1] or [-1]))

    def init_template(self, template: BoxedCrop, context: BoxedCrop, text: Text | None = None) -> Memory:
        middle = self.template_size // 2
        channel_B = template.image_B3SS[:, :, middle, middle].argmax(dim=1)
        nothing = torch.zeros(1, 0, 1)
        text = text or Text(tokens_BLC=nothing, valid_BL=torch.zeros(1, 0, dtype=torch.bool))
        return Memory(flag_B=channel_B, text=text)

    def update_template(
        self, memory: Memory, prediction: Prediction, box_B4: Tensor, template: BoxedCrop | None = None
    ) -> Memory:
        self.refreshed += 1
        return memory

    def locate(self, search_B3SS: Tensor, memory: Memory, past_BH4: Tensor | None = None) -> Prediction:
        self.searched.append(len(search_B3SS))
        if self.fault is not None:
            self.fault()
        return self._seen(search_B3SS, memory.flag_B)

    def _seen(self, crops_B3SS: Tensor, channel_B: Tensor) -> Prediction:
        answers = [self._spot(c.double(), int(k)) for c, k in zip(crops_B3SS, channel_B, strict=True)]
        return prediction([a[0] for a in answers], [a[1] for a in answers], self.side)

    def _spot(self, crop_3SS: Tensor, channel: int) -> tuple[tuple[float, float, float, float], float]:
        """Box in units of the crop from the coverage of each pixel, and a score: 0.02 if it is not there."""
        if channel < 0:
            return (0.5, 0.5, 0.2, 0.2), 0.02
        others = [c for c in range(3) if c != channel]
        pure = (crop_3SS[channel] - crop_3SS[others].amax(dim=0)).clamp(0, 1).numpy()
        pure = np.where(pure > self.floor, pure, 0.0)
        if pure.max() < 0.5:
            return (0.5, 0.5, 0.2, 0.2), 0.02
        places = np.arange(self.search_size) + 0.5
        x, y = (float((pure.sum(axis=a) * places).sum() / pure.sum()) for a in (0, 1))
        column = min(int(x), self.search_size - 1)
        row = min(int(y), self.search_size - 1)
        w, h = float(pure[row].sum()), float(pure[:, column].sum())
        return (x / self.search_size, y / self.search_size, w / self.search_size, h / self.search_size), 0.95


class Puppet(Spotter):
    """A ``Spotter`` that says ``answer`` of every crop: centre and presence (S, S), boxes (S, S, 4)."""

    def __init__(self, centre: np.ndarray, presence: np.ndarray, boxes: np.ndarray) -> None:
        super().__init__()
        self.answer = (centre, presence, boxes)

    def _seen(self, crops_B3SS: Tensor, channel_B: Tensor) -> Prediction:
        count = len(crops_B3SS)
        centre, presence, boxes = (torch.from_numpy(np.array(a))[None] for a in self.answer)
        return Prediction(
            center_BSS=centre.expand(count, -1, -1),
            presence_BSS=presence.expand(count, -1, -1),
            boxes_BSS4=boxes.expand(count, -1, -1, -1),
        )


def one_box(box: tuple[float, float, float, float], score: float = 1.0, side: int = 8) -> Puppet:
    """A ``Puppet`` that names one box (cx, cy, w, h in units of the crop) at one cell."""
    seen = prediction([box], [score], side)
    return Puppet(seen.center_BSS[0].numpy(), seen.presence_BSS[0].numpy(), seen.boxes_BSS4[0].numpy())


def prediction(boxes: list[tuple[float, float, float, float]], scores: list[float], side: int) -> Prediction:
    """Maps in float64 that name a box a crop, at the cell of its centre; the other cells are empty."""
    count = len(boxes)
    peak = torch.zeros(count, side, side, dtype=torch.float64)
    for b, (box, score) in enumerate(zip(boxes, scores, strict=True)):
        column, row = (min(max(int(v * side), 0), side - 1) for v in box[:2])
        peak[b, row, column] = score
    named = torch.tensor(boxes, dtype=torch.float64)[:, None, None].expand(count, side, side, 4)
    return Prediction(center_BSS=peak, presence_BSS=torch.ones_like(peak), boxes_BSS4=named)


def tracker(model: Spotter, **options: object) -> Tracker:
    """A tracker around a stand-in, with changed options of the policy."""
    return Tracker(Engine(TorchNetwork(model), Policy().changed(dict(options))), {"size": "tiny"})


def scene(
    *boxes: tuple[float, float, float, float], size: tuple[int, int] = (96, 72), colours: str = "red green blue"
) -> np.ndarray:
    """A grey frame of (width, height) with rectangles (x, y, w, h) in those colours, one after the other."""
    width, height = size
    image = np.full((height, width, 3), GREY, dtype=np.uint8)
    for box, colour in zip(boxes, colours.split(), strict=False):
        x1, y1 = (max(0, round(v)) for v in box[:2])
        x2, y2 = max(0, round(box[0] + box[2])), max(0, round(box[1] + box[3]))
        pure = [0, 0, 0]
        pure[COLOURS[colour]] = 255
        image[y1:y2, x1:x2] = pure
    return image


def moving(count: int = 12) -> list[np.ndarray]:
    """A red rectangle of 16 x 12 that starts at (20, 20) and moves two pixels a frame right, one down."""
    return [scene((20 + 2 * i, 20 + i, 16, 12)) for i in range(count)]


def boxes(following: Tracker, images: list[np.ndarray], box: tuple[int, int, int, int]) -> np.ndarray:
    """(N, 4) boxes of a tracker over a clip."""
    return np.array([step.box for step in following.stream(images, box=box)])


def tiny_weights(folder: Path) -> Path:
    """The path of LiteTrack tiny with random weights. The generator of the process is left as it was."""
    from vltrack.checkpoints import store
    from vltrack.models.litetrack import LiteTrack, tiny

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = LiteTrack(tiny())
    path = folder / "random.safetensors"
    store.save(path, model, tracker="litetrack", size="tiny", card={})
    return path


def clip(frames: int = 5, size: tuple[int, int] = (160, 120), seed: int = 0) -> list[np.ndarray]:
    """Frames of coloured blocks that drift, so that a network has something to see."""
    rng = np.random.default_rng(seed)
    width, height = size
    blocks = rng.integers(0, 256, (height // 8 + 8, width // 8 + 8, 3), dtype=np.uint8)
    large = blocks.repeat(8, axis=0).repeat(8, axis=1)
    return [large[i : i + height, 2 * i : 2 * i + width].copy() for i in range(frames)]


def _piece(word: str) -> int:
    return int(_VOCABULARY.encode(word).ids[1])


_VOCABULARY = WordPieceTokenizer.load()
