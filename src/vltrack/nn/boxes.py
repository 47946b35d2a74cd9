"""Boxes as masks over the cells of a square map. Boxes are cx, cy, w, h in units of the crop's side."""

from __future__ import annotations

import torch
from torch import Tensor


def cell_share(box_B4: Tensor, side: int) -> Tensor:
    """(B, side * side) share of each cell's area that lies in the box."""
    edges = torch.arange(side, device=box_B4.device, dtype=torch.float32) / side
    low_B2, high_B2 = box_B4[:, :2] - box_B4[:, 2:] / 2, box_B4[:, :2] + box_B4[:, 2:] / 2
    begin = torch.maximum(edges[None, None], low_B2[..., None])
    end = torch.minimum(edges[None, None] + 1 / side, high_B2[..., None])
    share_B2S = (end - begin).clamp_min(0) * side
    return (share_B2S[:, 1, :, None] * share_B2S[:, 0, None, :]).flatten(1)


def cell_inside(box_B4: Tensor, side: int) -> Tensor:
    """(B, side * side) bool: cells whose centre lies in the box, and the cell that holds the box's centre.

    A box without area (target not known) holds no cell.
    """
    centres = (torch.arange(side, device=box_B4.device, dtype=torch.float32) + 0.5) / side
    inside_x = (centres[None] - box_B4[:, :1]).abs() <= box_B4[:, 2:3] / 2
    inside_y = (centres[None] - box_B4[:, 1:2]).abs() <= box_B4[:, 3:4] / 2
    inside_BN = (inside_y[:, :, None] & inside_x[:, None, :]).flatten(1)
    # A centre exactly on the right or lower edge belongs to the last cell, not to one beyond it.
    cell_B2 = (box_B4[:, :2] * side).long().clamp(0, side - 1)
    holds = (box_B4[:, 2:] > 0).all(dim=1, keepdim=True)
    middle = torch.zeros_like(inside_BN).scatter(1, (cell_B2[:, 1] * side + cell_B2[:, 0])[:, None], True)
    return (inside_BN | middle) & holds
