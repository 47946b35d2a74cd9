"""OSTrack's center head, convolution towers, the two box codes of a cell, and cosine similarity.

Shapes: B batch, N = S * S search cells, C width. Boxes are cx, cy, w, h in units of the crop's side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

BoxCode = Literal["cell", "free"]
LEAST = 1e-4
"""Published probabilities and sizes stay this far from 0 and 1."""
RARE = -4.0


class ConvTower(nn.Module):
    """3x3 convolutions with batch norm and ReLU, then a 1x1 convolution (OSTrack, UVLTrack)."""

    def __init__(self, width: int, channels: Sequence[int], out: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside in zip([width, *channels[:-1]], channels, strict=True):
            layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.out = nn.Conv2d(channels[-1], out, 1)

    def forward(self, map_BCSS: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, out, S, S)."""
        out: Tensor = self.out(self.body(map_BCSS))
        return out


@dataclass(frozen=True, kw_only=True)
class CenterMaps:
    """Output of ``CenterHead`` for a search region.

    Attributes:
        logits_BSS: of the center, before the sigmoid, for losses.
        center_BSS: probability that the target's center lies in the cell.
        boxes_BSS4: the box that each cell predicts.
    """

    logits_BSS: Tensor
    center_BSS: Tensor
    boxes_BSS4: Tensor


class CenterHead(nn.Module):
    """Towers ``center``, ``offset`` and ``size`` over the map of search tokens.

    Source: OSTrack, released code (``cell``); ``free`` is the box code of our tiny sizes. Weights start by
    Xavier's rule (released code). The center starts as a rare event, so that the first steps are not spent on
    learning that (ours).
    """

    def __init__(self, width: int, *, side: int, channels: Sequence[int], code: BoxCode) -> None:
        super().__init__()
        self.side, self.code = side, code
        self.center = ConvTower(width, channels, 1)
        self.offset = ConvTower(width, channels, 2)
        self.size = ConvTower(width, channels, 2)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        if self.center.out.bias is not None:
            nn.init.constant_(self.center.out.bias, RARE)

    def forward(self, x_BNC: Tensor) -> CenterMaps:
        """(B, N, C) tokens in map order -> ``CenterMaps`` in float32."""
        map_BCSS = as_map(x_BNC, self.side)
        logits_BSS = self.center(map_BCSS)[:, 0].float()
        offset_B2SS, size_B2SS = self.offset(map_BCSS), self.size(map_BCSS)
        decode = decode_cells if self.code == "cell" else decode_boxes
        return CenterMaps(
            logits_BSS=logits_BSS, center_BSS=bounded_sigmoid(logits_BSS), boxes_BSS4=decode(offset_B2SS, size_B2SS)
        )


def as_map(x_BNC: Tensor, side: int) -> Tensor:
    """(B, N, C) tokens in map order -> (B, C, S, S)."""
    return x_BNC.transpose(1, 2).reshape(len(x_BNC), x_BNC.shape[2], side, side)


def bounded_sigmoid(logits: Tensor) -> Tensor:
    """Sigmoid in [1e-4, 1 - 1e-4] (released code)."""
    return logits.sigmoid().clamp(LEAST, 1 - LEAST)


def decode_cells(offset_B2SS: Tensor, size_B2SS: Tensor) -> Tensor:
    """Raw channels -> (B, S, S, 4): center = (cell + offset) / S, size a bounded sigmoid (OSTrack).

    OSTrack's released code applies no sigmoid to the offset; UVLTrack's does (``decode_boxes``).
    """
    center_B2SS = (_cells(offset_B2SS) + offset_B2SS.float()) / offset_B2SS.shape[-1]
    return torch.cat([center_B2SS, bounded_sigmoid(size_B2SS.float())], dim=1).permute(0, 2, 3, 1)


def decode_boxes(offset_B2SS: Tensor, size_B2SS: Tensor, code: BoxCode = "free") -> Tensor:
    """Raw channels -> (B, S, S, 4) cx, cy, w, h in units of the crop.

    ``cell`` (UVLTrack): center = (cell + sigmoid(offset)) / S, size = sigmoid: only the cell that holds the
    center can predict the box. ``free`` (ours): center = (cell + 1/2 + offset) / S, size = exp / 4: every
    cell of the target can.
    """
    side, offset, size = offset_B2SS.shape[-1], offset_B2SS.float(), size_B2SS.float()
    cell_2SS = _cells(offset_B2SS)
    if code == "cell":
        center, extent = (cell_2SS + offset.sigmoid()) / side, size.sigmoid()
    else:
        center, extent = (cell_2SS + 0.5 + offset) / side, size.clamp(-4.0, 2.5).exp() / 4
    return torch.cat([center, extent], dim=1).permute(0, 2, 3, 1)


def _cells(map_BCSS: Tensor) -> Tensor:
    """(2, S, S) float32 column and row of each cell."""
    steps_S = torch.arange(map_BCSS.shape[-1], device=map_BCSS.device, dtype=torch.float32)
    return torch.stack(torch.meshgrid(steps_S, steps_S, indexing="xy"))


def temperature_parameter() -> nn.Parameter:
    """log(1 / 0.07), the usual start of a learned contrastive temperature."""
    return nn.Parameter(torch.tensor(math.log(1 / 0.07)))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of the last axis in float32: (..., N, C), (..., M, C) -> (..., N, M)."""
    unit_a = nn.functional.normalize(a.float(), dim=-1)
    unit_b = nn.functional.normalize(b.float(), dim=-1)
    return unit_a @ unit_b.transpose(-2, -1)
