"""STARK's corner head (Yan et al., ICCV 2021): two convolution towers, the box from expected corners.

Knows a map of features; knows no tokens and no tracker. Parameter names are those of the released code but
for the place of the suffix: ``tl.conv1.0`` here is ``conv1_tl.0`` there.

Shapes: B batch, C channels, S side of the map. Corners are x1, y1, x2, y2 in units of the crop's side.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def corner_tower(width: int, channels: Sequence[int]) -> nn.Sequential:
    """3x3 convolutions with batch norm and ReLU (``conv1``, ``conv2``, ...), then one 1x1 convolution."""
    steps: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (inside, outside) in enumerate(zip([width, *channels[:-1]], channels, strict=True), start=1):
        steps[f"conv{i}"] = nn.Sequential(
            nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()
        )
    steps[f"conv{len(channels) + 1}"] = nn.Conv2d(channels[-1], 1, 1)
    return nn.Sequential(steps)


def expected_place(logits_BSS: Tensor) -> Tensor:
    """Soft-argmax: (B, S, S) logits -> (B, 2) expected x and y in [0, 1).

    Cell i stands for i / S, its left or upper edge, as in the released code: the largest coordinate is
    (S - 1) / S.
    """
    side = logits_BSS.shape[-1]
    share_BSS = logits_BSS.float().flatten(1).softmax(dim=1).view_as(logits_BSS)
    places_S = torch.arange(side, device=logits_BSS.device, dtype=torch.float32) / side
    return torch.stack(
        [(share_BSS.sum(dim=1) * places_S).sum(dim=1), (share_BSS.sum(dim=2) * places_S).sum(dim=1)], dim=1
    )


class CornerHead(nn.Module):
    """One box a map: the top left corner from one tower, the bottom right one from the other."""

    def __init__(self, width: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.tl = corner_tower(width, channels)
        self.br = corner_tower(width, channels)

    def forward(self, map_BCSS: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, 4) corners in float32. Nothing orders the two (published)."""
        corners = [expected_place(tower(map_BCSS)[:, 0]) for tower in (self.tl, self.br)]
        return torch.cat(corners, dim=1)


def corners_to_box(corners_B4: Tensor, smallest: float = 0.0) -> Tensor:
    """x1, y1, x2, y2 -> cx, cy, w, h (B, 4); ``smallest`` > 0 bounds w and h from below.

    A running tracker needs a box with an area; in training the bound would cut the gradient of corners that
    are the wrong way round.
    """
    low, high = corners_B4.chunk(2, dim=-1)
    size = high - low
    if smallest > 0:
        size = size.clamp_min(smallest)
    return torch.cat([(low + high) / 2, size], dim=-1)
