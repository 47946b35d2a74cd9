"""Labels and losses on maps and boxes. Knows no model's insides.

Shapes: B batch, S side of the map, N = S * S cells. Boxes are cx, cy, w, h in units of the crop's side.
Sources: centre focal loss, GIoU and L1 as in OSTrack; layer and prompt contrast as in UVLTrack.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

HARD_NEGATIVES = 9


def gaussian_centres(box_B4: Tensor, side: int) -> Tensor:
    """(B, S, S) target maps: 1 in the cell of the centre, falling off with the radius at which IoU stays 0.7.

    The fall-off is measured from the centre itself, not from its cell, and is at least 0.4 cells wide: on a
    map of 14 or 16 cells the published rule gives nearly every target a single cell, and a centre on the
    line between two cells would be called wrong in one of them (our choice).
    """
    sigma_B11 = ((2 * _radius(box_B4[:, 2:] * side, 0.7) + 1) / 6).clamp_min(0.4)[:, None, None]
    centre_B2 = box_B4[:, :2] * side
    steps = torch.arange(side, device=box_B4.device, dtype=torch.float32) + 0.5
    dx = steps[None, None, :] - centre_B2[:, 0, None, None]
    dy = steps[None, :, None] - centre_B2[:, 1, None, None]
    falling = torch.exp(-(dx**2 + dy**2) / (2 * sigma_B11**2)).clamp_max(0.99)
    cell_B2 = centre_B2.long().clamp(0, side - 1)
    index_B1 = (cell_B2[:, 1] * side + cell_B2[:, 0])[:, None]
    return falling.flatten(1).scatter(1, index_B1, 1.0).view_as(falling)


def _radius(size_B2: Tensor, overlap: float) -> Tensor:
    """Largest shift of the corners, in cells, that keeps the overlap: the least of CornerNet's three cases.

    Not rounded down to whole cells: on a map of 14 or 16 cells nearly every target would get no fall-off at
    all.
    """
    total, area = size_B2.sum(dim=1), size_B2.prod(dim=1)
    both_shifted = _smaller_root(1.0, -total, area * (1 - overlap) / (1 + overlap))
    inside = _smaller_root(4.0, -2 * total, area * (1 - overlap))
    outside = (
        -2 * overlap * total + ((2 * overlap * total) ** 2 + 16 * overlap * (1 - overlap) * area).sqrt()
    ) / (8 * overlap)
    return torch.stack([both_shifted, inside, outside]).amin(dim=0)


def _smaller_root(a: float, b: Tensor, c: Tensor) -> Tensor:
    """The smaller solution of a r^2 + b r + c = 0."""
    return (-b - (b**2 - 4 * a * c).clamp_min(0).sqrt()) / (2 * a)


def focal(centre_logits_BSS: Tensor, target_BSS: Tensor) -> Tensor:
    """Penalty-reduced focal loss (alpha 2, beta 4), a mean over samples; a map without a peak is all
    negative.
    """
    probability = centre_logits_BSS.sigmoid().clamp(1e-4, 1 - 1e-4)
    positive = target_BSS.eq(1.0)
    gain = torch.where(positive, (1 - probability) ** 2, probability**2 * (1 - target_BSS) ** 4)
    likelihood = torch.where(positive, probability.log(), (1 - probability).log())
    return -(gain * likelihood).sum() / len(centre_logits_BSS)


def inner_cells(box_B4: Tensor, side: int, share: float) -> Tensor:
    """(B, S, S) bool: cells whose centre lies in the box shrunk by ``share``; always the cell of the
    centre.
    """
    centres = (torch.arange(side, device=box_B4.device, dtype=torch.float32) + 0.5) / side
    near_x = (centres[None] - box_B4[:, :1]).abs() <= box_B4[:, 2:3] * share / 2
    near_y = (centres[None] - box_B4[:, 1:2]).abs() <= box_B4[:, 3:4] * share / 2
    inside = near_y[:, :, None] & near_x[:, None, :]
    cell_B2 = (box_B4[:, :2] * side).long().clamp(0, side - 1)
    index = (cell_B2[:, 1] * side + cell_B2[:, 0])[:, None]
    return inside.flatten(1).scatter(1, index, True).view(-1, side, side)


def giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """GIoU and IoU of boxes (..., 4) as cx, cy, w, h."""
    low_a, high_a = a[..., :2] - a[..., 2:] / 2, a[..., :2] + a[..., 2:] / 2
    low_b, high_b = b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2
    inter = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp_min(0).prod(dim=-1)
    union = a[..., 2:].prod(dim=-1) + b[..., 2:].prod(dim=-1) - inter
    hull = (torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)).prod(dim=-1)
    iou = inter / union.clamp_min(1e-9)
    return iou - (hull - union) / hull.clamp_min(1e-9), iou


def box_losses(
    boxes_BSS4: Tensor, box_B4: Tensor, cells_BSS: Tensor, weight_B: Tensor
) -> tuple[Tensor, Tensor]:
    """GIoU and L1 losses over the chosen cells: mean over a sample's cells, weighted mean over samples."""
    truth = box_B4[:, None, None, :].expand_as(boxes_BSS4)
    overlap, _ = giou(boxes_BSS4, truth)
    error = (boxes_BSS4 - truth).abs().mean(dim=-1)
    share = cells_BSS.float() / cells_BSS.flatten(1).sum(dim=1).clamp_min(1)[:, None, None]
    total = weight_B.sum().clamp_min(1)
    by_sample = ((1 - overlap) * share).flatten(1).sum(dim=1), (error * share).flatten(1).sum(dim=1)
    return (by_sample[0] * weight_B).sum() / total, (by_sample[1] * weight_B).sum() / total


def layer_contrast(similar_BN: Tensor, box_B4: Tensor, weight_B: Tensor) -> Tensor:
    """The target's centre against the nine hardest cells outside the box (cross-entropy of ten)."""
    b, n = similar_BN.shape
    side = int(n**0.5)
    grid = (box_B4[:, :2] * 2 - 1).view(b, 1, 1, 2)
    positive_B1 = functional.grid_sample(
        similar_BN.view(b, 1, side, side), grid, align_corners=False, padding_mode="border"
    ).view(b, 1)
    inside = inner_cells(box_B4, side, 1.0).flatten(1)
    lowest = torch.finfo(similar_BN.dtype).min
    hardest = similar_BN.masked_fill(inside, lowest).topk(HARD_NEGATIVES, dim=1).values
    logits = torch.cat([positive_B1, hardest.clamp_min(-1e4)], dim=1)
    loss_B = functional.cross_entropy(
        logits, torch.zeros(b, dtype=torch.long, device=logits.device), reduction="none"
    )
    return (loss_B * weight_B).sum() / weight_B.sum().clamp_min(1)


def prompt_contrast(logits_BN2: Tensor, box_B4: Tensor, present_B: Tensor) -> Tensor:
    """Two-class cross-entropy a cell: positive in the inner three quarters, the rest of the box left out.

    Classes are weighted 16 to 0.5625 (published). Where the target is absent every cell is negative.
    """
    b, n, _ = logits_BN2.shape
    side = int(n**0.5)
    here = present_B[:, None]
    positive = inner_cells(box_B4, side, 0.75).flatten(1) & here
    ignored = inner_cells(box_B4, side, 1.0).flatten(1) & here & ~positive
    weights = torch.where(positive, 16.0, 0.5625).masked_fill(ignored, 0.0)
    labels = (~positive).long()
    loss = functional.cross_entropy(logits_BN2.flatten(0, 1), labels.flatten(), reduction="none").view(b, n)
    return (loss * weights).sum() / weights.sum().clamp_min(1e-6)
