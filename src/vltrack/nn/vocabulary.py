"""Boxes as words: coordinates cut into bins, and back. Knows numbers, no network.

Source: released code of ARTrack. Boxes are cx, cy, w, h in units of the search crop; corners are x1, y1, x2,
y2. Shapes: B batch, T words, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

COORDINATES = 4
"""Words of a box."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Coordinates as words: ``bins`` a crop's side over ``reach`` sides, the crop in their middle.

    Word k stands for the coordinate k / (bins - 1) - (reach - 1) / 2; a start and an end word follow.
    """

    bins: int = 400
    reach: int = 2

    def __post_init__(self) -> None:
        if self.bins < 2 or self.reach < 1:
            raise ValueError(f"bins must be at least 2 and reach 1, got {self.bins} and {self.reach}")

    @property
    def coordinates(self) -> int:
        """How many words are coordinates."""
        return self.bins * self.reach

    @property
    def start(self) -> int:
        """The word before the box."""
        return self.coordinates

    @property
    def end(self) -> int:
        """The word after it."""
        return self.coordinates + 1

    @property
    def size(self) -> int:
        """All words."""
        return self.coordinates + 2

    @property
    def margin(self) -> float:
        """How far beside the crop a coordinate may lie."""
        return (self.reach - 1) / 2

    def words(self, box_B4: Tensor) -> Tensor:
        """Boxes (..., 4) -> words (..., 4) int64 of their corners: clamped, then cut off, not rounded."""
        half = box_B4[..., 2:] / 2
        corners = torch.cat([box_B4[..., :2] - half, box_B4[..., :2] + half], dim=-1).float()
        clamped = corners.clamp(-self.margin, 1 + self.margin)
        return ((clamped + self.margin) * (self.bins - 1)).long()

    def values(self, words: Tensor) -> Tensor:
        """The coordinates that words stand for."""
        return words / (self.bins - 1) - self.margin

    def box(self, words_B4: Tensor) -> Tensor:
        """Words (..., 4) of corners -> boxes (..., 4); corners in the wrong order give a size of one word."""
        return corners_to_box(self.values(words_B4), least=1 / (self.bins - 1))

    def expected(self, logits_BTV: Tensor) -> Tensor:
        """The box (B, 4) of the coordinates' expectations under a softmax over coordinate words.

        The released code takes the middles of 800 equal bins here, not the values of the words: up to 0.4 %
        of the crop beside the box that is decoded. Ours is the expectation of the box that runs. A box whose
        corners stand in the wrong order has a negative size.
        """
        share_B4V = logits_BTV[:, :COORDINATES, : self.coordinates].float().softmax(dim=-1)
        values_V = self.values(torch.arange(self.coordinates, device=logits_BTV.device, dtype=torch.float32))
        return corners_to_box((share_B4V * values_V).sum(dim=-1))


def corners_to_box(corners: Tensor, least: float | None = None) -> Tensor:
    """x1, y1, x2, y2 -> cx, cy, w, h (..., 4), with sides of at least ``least`` where it is given."""
    low, high = corners[..., :2], corners[..., 2:]
    size = high - low
    return torch.cat([(low + high) / 2, size if least is None else size.clamp_min(least)], dim=-1)
