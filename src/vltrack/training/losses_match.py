"""Which search cells are the target's, and the loss that makes each cell's similarity to it say so.

Knows boxes and logits; knows no tracker. SATracker's dense matching and UVLTrack's prompt contrast share the
labels. Shapes: B batch, N = S * S cells. Boxes are cx, cy, w, h in units of the crop's side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from vltrack.nn.cells import cell_inside

INNER = 0.75
"""Share of the box, in width and height, whose cells are positive (UVLTrack, released code)."""
POSITIVE, NEGATIVE = 16.0, 0.5625
"""Weights of the two kinds of cells (UVLTrack, released code)."""


def matching_labels(box_B4: Tensor, present_B: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Labels (B, N) bool and weights (B, N) of the cells of a ``side`` x ``side`` map.

    Positive: centre in the inner three quarters of the box, and the cell that holds the box's centre. The
    rest of the box weighs nothing: its cells hold target and background. Where the target is absent
    (``present_B``) every cell is negative. Source: UVLTrack, released code.
    """
    here_B1 = present_B[:, None]
    inner_B4 = torch.cat([box_B4[:, :2], box_B4[:, 2:] * INNER], dim=1)
    positive_BN = cell_inside(inner_B4, side) & here_B1
    ignored_BN = cell_inside(box_B4, side) & here_B1 & ~positive_BN
    weights_BN = torch.where(positive_BN, POSITIVE, NEGATIVE).masked_fill(ignored_BN, 0.0)
    return positive_BN, weights_BN


def dense_match(similar: Sequence[Tensor], box_B4: Tensor, present_B: Tensor) -> Tensor:
    """SATracker's dense matching loss (unpublished; our design).

    Args:
        similar: logits (B, N), one for each level and each embedding of the target (visual, textual). Where a
            sample has only one of the two, the model gives that one twice, so that the mean stays a mean.
        box_B4: the target in the search crop.
        present_B: whether it is there.

    Returns:
        The mean over ``similar`` of the weighted binary cross-entropy of their cells, each a mean by weight.

    Raises:
        ValueError: ``similar`` is empty.
    """
    if not similar:
        raise ValueError("there are no similarities to match")
    positive_BN, weights_BN = matching_labels(box_B4, present_B, int(similar[0].shape[1] ** 0.5))
    target_BN, total = positive_BN.float(), weights_BN.sum()
    terms = [
        functional.binary_cross_entropy_with_logits(logits_BN.float(), target_BN, weights_BN, reduction="sum")
        for logits_BN in similar
    ]
    return torch.stack(terms).mean() / total
