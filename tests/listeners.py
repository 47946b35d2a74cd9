"""Stand-ins for a network in tests of the audit: one that reads colour words, one that ignores all words.

Both look for the flat shapes of ``datasets.synthetic`` by the colour of their pixels, without training.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from scripted import Spotter
from vltrack.datasets.synthetic import COLORS
from vltrack.models.base import BoxedCrop, Memory, Prediction, Text
from vltrack.prep.tokenizers import WordPieceTokenizer

NAMES = tuple(COLORS)
_PALETTE = np.array(list(COLORS.values()), dtype=np.float64)
_PIECES = WordPieceTokenizer.load()
_COLOUR_OF = {int(_PIECES.encode(name).ids[1]): number for number, name in enumerate(NAMES)}
_TOLERANCE = 34.0


class Reader(Spotter):
    """Follows the largest spot of the colour that the sentence names; else of the box's middle."""

    search_size = 160

    def ground(self, scene_B3SS: Tensor, text: Text) -> Prediction:
        return self._seen(scene_B3SS, torch.tensor([self._named(text)]))

    def init_template(self, template: BoxedCrop, context: BoxedCrop, text: Text | None = None) -> Memory:
        named = -1 if text is None else self._named(text)
        if named < 0:
            middle = self.template_size // 2
            pixel = template.image_B3SS[0, :, middle, middle].double().numpy() * 255
            named = int(np.abs(_PALETTE - pixel).max(axis=1).argmin())
        nothing = Text(tokens_BLC=torch.zeros(1, 0, 1), valid_BL=torch.zeros(1, 0, dtype=torch.bool))
        return Memory(flag_B=torch.tensor([named]), text=text or nothing)

    def _named(self, text: Text) -> int:
        """The colour that the first colour word names; -1 without one."""
        found = [_COLOUR_OF[int(i)] for i in text.tokens_BLC[0, :, 0] if int(i) in _COLOUR_OF]
        return found[0] if found else -1

    def _spot(self, crop_3SS: Tensor, channel: int) -> tuple[tuple[float, float, float, float], float]:
        wanted = _PALETTE if channel < 0 else _PALETTE[[channel]]
        pixels = crop_3SS.double().numpy().transpose(1, 2, 0)[None] * 255
        near = (np.abs(pixels - wanted[:, None, None]).max(axis=3) < _TOLERANCE).astype(np.uint8)
        best: tuple[int, int, int, int, int] | None = None
        for mask in near:
            _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
            for x, y, w, h, area in stats[1:]:
                if area > 8 and (best is None or area > best[4]):
                    best = (x, y, w, h, area)
        if best is None:
            return (0.5, 0.5, 0.2, 0.2), 0.02
        x, y, w, h = (float(v) / self.search_size for v in best[:4])
        return (x + w / 2, y + h / 2, w, h), 0.95


class Deaf(Reader):
    """The same eyes, but no word is read: whatever is said, it starts on the largest spot of any colour."""

    def _named(self, text: Text) -> int:
        return -1
