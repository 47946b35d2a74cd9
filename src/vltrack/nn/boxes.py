"""Boxes as masks over the cells of a square map. Boxes are cx, cy, w, h in units of the crop's side."""

from __future__ import annotations

import torch
from torch import Tensor


def box_coverage(box_B4: Tensor, side: int) -> Tensor:
    """(B, side * side) share of each cell's area that lies in the box."""
    edges = torch.arange(side, device=box_B4.device, dtype=torch.float32) / side
    low_B2, high_B2 = box_B4[:, :2] - box_B4[:, 2:] / 2, box_B4[:, :2] + box_B4[:, 2:] / 2
    begin = torch.maximum(edges[None, None], low_B2[..., None])
    end = torch.minimum(edges[None, None] + 1 / side, high_B2[..., None])
    share_B2S = (end - begin).clamp_min(0) * side
    return (share_B2S[:, 1, :, None] * share_B2S[:, 0, None, :]).flatten(1)


def box_mask(box_B4: Tensor, side: int, share: float = 1.0) -> Tensor:
    """(B, side * side) bool: cells whose center lies in the box, and the cell that holds the box's center.

    The box is shrunk by ``share`` around its center. One without area (target not known) covers no cell.
    """
    centers = (torch.arange(side, device=box_B4.device, dtype=torch.float32) + 0.5) / side
    inside_x = (centers[None] - box_B4[:, :1]).abs() <= box_B4[:, 2:3] * share / 2
    inside_y = (centers[None] - box_B4[:, 1:2]).abs() <= box_B4[:, 3:4] * share / 2
    inside_BN = (inside_y[:, :, None] & inside_x[:, None, :]).flatten(1)
    # A center exactly on the right or lower edge belongs to the last cell, not to one beyond it.
    cell_B2 = (box_B4[:, :2] * side).long().clamp(0, side - 1)
    has_area = (box_B4[:, 2:] > 0).all(dim=1, keepdim=True)
    middle = torch.arange(side**2, device=box_B4.device) == (cell_B2[:, 1] * side + cell_B2[:, 0])[:, None]
    return (inside_BN | middle) & has_area


def corners_to_box(corners: Tensor, min_size: float | None = None) -> Tensor:
    """x1, y1, x2, y2 -> cx, cy, w, h (..., 4), with sides of at least ``min_size`` where it is given.

    In training the bound would cut the gradient of corners in the wrong order.
    """
    low, high = corners[..., :2], corners[..., 2:]
    size = high - low
    return torch.cat([(low + high) / 2, size if min_size is None else size.clamp_min(min_size)], dim=-1)
