"""Losses of a box that is written as words: cross-entropy of the words, SIoU of the box they lead to expect.

Sources: released code of ARTrack; SIoU: Gevorgyan, "SIoU Loss: More Powerful Learning for Bounding Box
Regression" (arXiv 2205.12740, 2022). Knows logits, words and boxes, no model.

Shapes: B batch, T words, V vocabulary. Boxes are cx, cy, w, h in units of the search crop.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vltrack.nn.vocabulary import COORDINATES, Vocabulary

FRAME_WORDS = 0.1
"""Weight of the start and the end word in the cross-entropy (published)."""
_SHAPE_POWER = 4
_EPS = 1e-9


def word_loss(logits_BTV: Tensor, box_B4: Tensor, weight_B: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Cross-entropy of the four words of the true box, and of the end word where T is five.

    A mean over words, each by its class's weight times its sample's ``weight_B``; 0 where all are 0.
    """
    words_BT = vocabulary.words(box_B4)
    if logits_BTV.shape[1] > COORDINATES:
        words_BT = functional.pad(words_BT, (0, 1), value=vocabulary.end)
    by_class_V = torch.ones(vocabulary.size, device=logits_BTV.device)
    by_class_V[vocabulary.coordinates :] = FRAME_WORDS
    weight_BT = by_class_V[words_BT] * weight_B[:, None]
    loss_BT = functional.cross_entropy(logits_BTV.float().transpose(1, 2), words_BT, reduction="none")
    return (loss_BT * weight_BT).sum() / weight_BT.sum().clamp_min(_EPS)


def siou_loss(expected_B4: Tensor, box_B4: Tensor, weight_B: Tensor) -> Tensor:
    """Mean SIoU loss, each sample by ``weight_B``; 0 where all are 0."""
    return (siou(expected_B4, box_B4) * weight_B).sum() / weight_B.sum().clamp_min(_EPS)


def siou(a_B4: Tensor, b_B4: Tensor) -> Tensor:
    """SIoU loss (B,) of boxes ``a`` against true boxes ``b``: 1 - IoU + (distance + shape) / 2.

    The cost of the angle, 1 - 2 sin^2(arcsin(x) - pi/4) in the paper, equals 2 |dx dy| / (dx^2 + dy^2) and is
    written so: the arcsine has no gradient where the centres lie side by side. A box of negative size has no
    overlap; distance and shape still lead it back.
    """
    low_a, high_a, low_b, high_b = (c[..., :2] + s * c[..., 2:] / 2 for c in (a_B4, b_B4) for s in (-1, 1))
    inter_B = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp_min(0).prod(dim=-1)
    area_a, area_b = (c[..., 2:].clamp_min(0).prod(dim=-1) for c in (a_B4, b_B4))
    iou_B = inter_B / (area_a + area_b - inter_B).clamp_min(_EPS)
    hull_B2 = (torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)).clamp_min(_EPS)
    apart_B2 = a_B4[..., :2] - b_B4[..., :2]
    angle_B = 2 * apart_B2.prod(dim=-1).abs() / apart_B2.square().sum(dim=-1).clamp_min(_EPS)
    steps_B2 = (apart_B2 / hull_B2).square() * (2 - angle_B)[..., None]
    distance_B = (1 - (-steps_B2).exp()).sum(dim=-1)
    widest_B2 = torch.maximum(a_B4[..., 2:], b_B4[..., 2:]).clamp_min(_EPS)
    other_B2 = (a_B4[..., 2:] - b_B4[..., 2:]).abs() / widest_B2
    shape_B = (1 - (-other_B2).exp()).pow(_SHAPE_POWER).sum(dim=-1)
    return 1 - iou_B + (distance_B + shape_B) / 2
