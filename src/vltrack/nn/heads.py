"""The centre head's convolution towers and the two ways to write a box in a cell's channels.

Shapes: B batch, S side of the map, C channels. Boxes leave as cx, cy, w, h in units of the crop's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

BoxCode = Literal["cell", "free"]


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


def decode_boxes(offset_B2SS: Tensor, size_B2SS: Tensor, code: BoxCode) -> Tensor:
    """Raw channels -> (B, S, S, 4) cx, cy, w, h in units of the crop.

    ``cell`` (published): centre = (cell + sigmoid(offset)) / S, size = sigmoid. Only the cell that holds the
    centre can name a box. ``free`` (ours): centre = (cell + 1/2 + offset) / S, size = exp / 4: every cell of
    the target can.
    """
    side = offset_B2SS.shape[-1]
    offset, size = offset_B2SS.float(), size_B2SS.float()
    steps = torch.arange(side, device=offset.device, dtype=torch.float32)
    cell_2SS = torch.stack([steps[None, :].expand(side, side), steps[:, None].expand(side, side)])
    if code == "cell":
        centre, extent = (cell_2SS + offset.sigmoid()) / side, size.sigmoid()
    else:
        centre, extent = (cell_2SS + 0.5 + offset) / side, size.clamp(-4.0, 2.5).exp() / 4
    return torch.cat([centre, extent], dim=1).permute(0, 2, 3, 1)
