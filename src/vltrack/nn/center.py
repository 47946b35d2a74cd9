"""OSTrack's centre head: three convolution towers, and the box that each cell names.

Knows search tokens; knows no tracker, no window and no choice among the cells.

Shapes: B batch, N = S * S search cells, C width. Boxes are cx, cy, w, h in units of the crop's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vltrack.nn.heads import BoxCode, ConvTower, decode_boxes

LEAST = 1e-4
"""Published probabilities and sizes stay this far from 0 and 1."""
RARE = -4.0


@dataclass(frozen=True, kw_only=True)
class CentreMaps:
    """What the head says of a search region.

    Attributes:
        logits_BSS: of the centre, before the sigmoid, for losses.
        centre_BSS: probability that the target's centre lies in the cell.
        boxes_BSS4: the box that each cell names.
    """

    logits_BSS: Tensor
    centre_BSS: Tensor
    boxes_BSS4: Tensor


class CenterHead(nn.Module):
    """Towers ``centre``, ``offset`` and ``size`` over the map of search tokens.

    Source: OSTrack, released code (``cell``); ``free`` is the box code of our tiny sizes. Weights start by
    Xavier's rule (released code). The centre starts as a rare event, so that the first steps are not spent on
    learning that (ours).
    """

    def __init__(self, width: int, *, side: int, channels: Sequence[int], code: BoxCode) -> None:
        super().__init__()
        self.side, self.code = side, code
        self.centre = ConvTower(width, channels, 1)
        self.offset = ConvTower(width, channels, 2)
        self.size = ConvTower(width, channels, 2)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        if self.centre.out.bias is not None:
            nn.init.constant_(self.centre.out.bias, RARE)

    def forward(self, x_BNC: Tensor) -> CentreMaps:
        """(B, N, C) tokens in map order -> ``CentreMaps`` in float32."""
        b, _, c = x_BNC.shape
        map_BCSS = x_BNC.transpose(1, 2).reshape(b, c, self.side, self.side)
        logits_BSS = self.centre(map_BCSS)[:, 0].float()
        offset_B2SS, size_B2SS = self.offset(map_BCSS), self.size(map_BCSS)
        if self.code == "cell":
            boxes_BSS4 = decode_cells(offset_B2SS, size_B2SS)
        else:
            boxes_BSS4 = decode_boxes(offset_B2SS, size_B2SS, self.code)
        return CentreMaps(
            logits_BSS=logits_BSS, centre_BSS=bounded_sigmoid(logits_BSS), boxes_BSS4=boxes_BSS4
        )


def bounded_sigmoid(logits: Tensor) -> Tensor:
    """Sigmoid in [1e-4, 1 - 1e-4] (released code)."""
    return logits.sigmoid().clamp(LEAST, 1 - LEAST)


def decode_cells(offset_B2SS: Tensor, size_B2SS: Tensor) -> Tensor:
    """Raw channels -> (B, S, S, 4): centre = (cell + offset) / S, size a bounded sigmoid (released code).

    The offset is taken as it is, without a sigmoid; UVLTrack, whose code ``decode_boxes`` calls ``cell``, has
    one.
    """
    side = offset_B2SS.shape[-1]
    steps_S = torch.arange(side, device=offset_B2SS.device, dtype=torch.float32)
    cell_2SS = torch.stack(torch.meshgrid(steps_S, steps_S, indexing="xy"))
    centre_B2SS = (cell_2SS + offset_B2SS.float()) / side
    return torch.cat([centre_B2SS, bounded_sigmoid(size_B2SS.float())], dim=1).permute(0, 2, 3, 1)
