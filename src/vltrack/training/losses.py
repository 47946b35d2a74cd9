"""Labels, losses, and the training objective of pairs: a model's training pass and the loss of every output.

A loss term is computed if the model has the output that it needs (``TERMS``).

Shapes: B samples, V views, S side of the map, N = S * S cells, D channels, T coordinate tokens. Boxes are cx,
cy, w, h in units of the crop's side. Sources: center focal loss, GIoU and L1 as in OSTrack; layer and prompt
contrast as in UVLTrack; coordinate tokens as in ARTrack's released code; SIoU: Gevorgyan, "SIoU Loss: More
Powerful Learning for Bounding Box Regression" (arXiv 2205.12740, 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vltrack.models.artrack_decoder import COORDINATES, BoxTokenizer
from vltrack.models.base import BoxedCrop, TrackerBase, TrainOutputs, Views, is_box_only
from vltrack.nn.boxes import box_mask
from vltrack.training.data import Batch
from vltrack.training.recipes import LossWeights


def gaussian_centers(box_B4: Tensor, side: int) -> Tensor:
    """(B, S, S) target maps: 1 in the cell of the center, falling off with the radius at which IoU stays 0.7.

    The fall-off is measured from the center itself and is at least 0.4 cells wide (ours): on a map of 14 or
    16 cells the published rule gives nearly every target a single cell.
    """
    sigma_B11 = ((2 * _radius(box_B4[:, 2:] * side, 0.7) + 1) / 6).clamp_min(0.4)[:, None, None]
    center_B2 = box_B4[:, :2] * side
    steps = torch.arange(side, device=box_B4.device, dtype=torch.float32) + 0.5
    dx = steps[None, None, :] - center_B2[:, 0, None, None]
    dy = steps[None, :, None] - center_B2[:, 1, None, None]
    falling = torch.exp(-(dx**2 + dy**2) / (2 * sigma_B11**2)).clamp_max(0.99)
    cell_B2 = center_B2.long().clamp(0, side - 1)
    index_B1 = (cell_B2[:, 1] * side + cell_B2[:, 0])[:, None]
    return falling.flatten(1).scatter(1, index_B1, 1.0).view_as(falling)


def _radius(size_B2: Tensor, overlap: float) -> Tensor:
    """Largest shift of the corners, in cells, that keeps the overlap: minimum of CornerNet's three cases.

    Not rounded down to whole cells (ours), which would leave no fall-off on small maps.
    """
    total, area = size_B2.sum(dim=1), size_B2.prod(dim=1)
    both_shifted = _smaller_root(1.0, -total, area * (1 - overlap) / (1 + overlap))
    inside = _smaller_root(4.0, -2 * total, area * (1 - overlap))
    outside = (-2 * overlap * total + ((2 * overlap * total) ** 2 + 16 * overlap * (1 - overlap) * area).sqrt()) / (
        8 * overlap
    )
    return torch.stack([both_shifted, inside, outside]).amin(dim=0)


def _smaller_root(a: float, b: Tensor, c: Tensor) -> Tensor:
    """The smaller solution of a r^2 + b r + c = 0."""
    return (-b - (b**2 - 4 * a * c).clamp_min(0).sqrt()) / (2 * a)


def focal(center_logits_BSS: Tensor, target_BSS: Tensor) -> Tensor:
    """Penalty-reduced focal loss (alpha 2, beta 4), mean over samples; without a peak all is negative."""
    probability = center_logits_BSS.sigmoid().clamp(1e-4, 1 - 1e-4)
    positive = target_BSS.eq(1.0)
    gain = torch.where(positive, (1 - probability) ** 2, probability**2 * (1 - target_BSS) ** 4)
    likelihood = torch.where(positive, probability.log(), (1 - probability).log())
    return -(gain * likelihood).sum() / len(center_logits_BSS)


def giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """GIoU and IoU of boxes (..., 4) as cx, cy, w, h."""
    low_a, high_a = a[..., :2] - a[..., 2:] / 2, a[..., :2] + a[..., 2:] / 2
    low_b, high_b = b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2
    inter = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp_min(0).prod(dim=-1)
    union = a[..., 2:].prod(dim=-1) + b[..., 2:].prod(dim=-1) - inter
    hull = (torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)).prod(dim=-1)
    iou = inter / union.clamp_min(1e-9)
    return iou - (hull - union) / hull.clamp_min(1e-9), iou


def layer_contrast(similar_BN: Tensor, box_B4: Tensor, weight_B: Tensor) -> Tensor:
    """The target's center against the nine hardest cells outside the box (cross-entropy of ten)."""
    b, n = similar_BN.shape
    side = int(n**0.5)
    grid = (box_B4[:, :2] * 2 - 1).view(b, 1, 1, 2)
    positive_B1 = functional.grid_sample(
        similar_BN.view(b, 1, side, side), grid, align_corners=False, padding_mode="border"
    ).view(b, 1)
    lowest = torch.finfo(similar_BN.dtype).min
    hardest = similar_BN.masked_fill(box_mask(box_B4, side), lowest).topk(9, dim=1).values
    logits = torch.cat([positive_B1, hardest.clamp_min(-1e4)], dim=1)
    loss_B = functional.cross_entropy(logits, torch.zeros(b, dtype=torch.long, device=logits.device), reduction="none")
    return (loss_B * weight_B).sum() / weight_B.sum().clamp_min(1)


def prompt_contrast(logits_BN2: Tensor, box_B4: Tensor, present_B: Tensor) -> Tensor:
    """Two-class cross-entropy of each cell, with ``matching_labels``."""
    b, n, _ = logits_BN2.shape
    positive_BN, weights_BN = matching_labels(box_B4, present_B, int(n**0.5))
    labels_BN = (~positive_BN).long()
    loss = functional.cross_entropy(logits_BN2.flatten(0, 1), labels_BN.flatten(), reduction="none").view(b, n)
    return (loss * weights_BN).sum() / weights_BN.sum().clamp_min(1e-6)


def nt_xent(a_BD: Tensor, b_BD: Tensor, *, used_B: Tensor | None = None, target_B: Tensor | None = None) -> Tensor:
    """NT-Xent: cross-entropy of each vector's partner in the other view against all other vectors.

    Negatives come from both views; similarities are cosines over the temperature 0.5 (All-in-One, released
    code). Ours: samples outside ``used_B`` are left out, and samples with one number in ``target_B`` are not
    negatives of each other (two search views have one sentence).

    Returns a scalar, the mean over the used vectors; 0 without any, and for a batch of one.
    """
    b = len(a_BD)
    with torch.autocast(a_BD.device.type, enabled=False):
        vectors = functional.normalize(torch.cat([a_BD, b_BD]).float(), dim=1)
        similar = vectors @ vectors.T / 0.5
    place = torch.arange(2 * b, device=a_BD.device)
    partner = (place + b) % (2 * b)
    used = torch.ones_like(place, dtype=torch.bool) if used_B is None else used_B.repeat(2)
    target = place % b if target_B is None else target_B.repeat(2)
    negative = (target[:, None] != target[None]) & used[None]
    positive = place[None] == partner[:, None]
    logits = similar.masked_fill(~(negative | positive), float("-inf"))
    loss = functional.cross_entropy(logits, partner, reduction="none")
    kept = torch.where(used, loss, torch.zeros_like(loss))
    return kept.sum() / used.sum().clamp_min(1)


def matching_labels(box_B4: Tensor, present_B: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Labels (B, N) bool and weights (B, N) of the cells of a ``side`` x ``side`` map (UVLTrack, released code).

    Positive, with weight 16: cells with their center in the inner three quarters of the box, and the cell of
    its center. The rest of the box has weight 0, other cells 0.5625. Without a target (``present_B``) every
    cell is negative.
    """
    here_B1 = present_B[:, None]
    positive_BN = box_mask(box_B4, side, 0.75) & here_B1
    ignored_BN = box_mask(box_B4, side) & here_B1 & ~positive_BN
    return positive_BN, torch.where(positive_BN, 16.0, 0.5625).masked_fill(ignored_BN, 0.0)


def dense_match(similar: Sequence[Tensor], box_B4: Tensor, present_B: Tensor) -> Tensor:
    """SATracker's dense matching loss (unpublished; our design): weighted binary cross-entropy of all cells.

    ``similar`` are logits (B, N) per level and embedding of the target (visual, text), at least one; a sample
    with one embedding has it twice.
    """
    positive_BN, weights_BN = matching_labels(box_B4, present_B, int(similar[0].shape[1] ** 0.5))
    target_BN, total = positive_BN.float(), weights_BN.sum()
    terms = [
        functional.binary_cross_entropy_with_logits(logits_BN.float(), target_BN, weights_BN, reduction="sum")
        for logits_BN in similar
    ]
    return torch.stack(terms).mean() / total


_EPS = 1e-9


def token_loss(logits_BTV: Tensor, box_B4: Tensor, weight_B: Tensor, tokenizer: BoxTokenizer) -> Tensor:
    """Cross-entropy of the four tokens of the annotated box, and of the end token where T is five.

    Mean over tokens, weighted by ``weight_B`` of the sample, and by 0.1 for start and end token (published);
    0 where all weights are 0.
    """
    tokens_BT = tokenizer.encode(box_B4)
    if logits_BTV.shape[1] > COORDINATES:
        tokens_BT = functional.pad(tokens_BT, (0, 1), value=tokenizer.coordinates + 1)
    by_class_V = torch.ones(tokenizer.size, device=logits_BTV.device)
    by_class_V[tokenizer.coordinates :] = 0.1
    weight_BT = by_class_V[tokens_BT] * weight_B[:, None]
    loss_BT = functional.cross_entropy(logits_BTV.float().transpose(1, 2), tokens_BT, reduction="none")
    return (loss_BT * weight_BT).sum() / weight_BT.sum().clamp_min(_EPS)


def siou_loss(expected_B4: Tensor, box_B4: Tensor, weight_B: Tensor) -> Tensor:
    """Mean SIoU loss weighted by ``weight_B``; 0 where all weights are 0."""
    return (siou(expected_B4, box_B4) * weight_B).sum() / weight_B.sum().clamp_min(_EPS)


def siou(a_B4: Tensor, b_B4: Tensor) -> Tensor:
    """SIoU loss (B,) of boxes ``a`` against annotated boxes ``b``: 1 - IoU + (distance + shape) / 2.

    The angle cost, 1 - 2 sin^2(arcsin(x) - pi/4) in the paper, is written as 2 |dx dy| / (dx^2 + dy^2): the
    arcsine has no gradient where the centers are side by side. A box of negative size has no overlap, but a
    gradient from distance and shape.
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
    shape_B = (1 - (-other_B2).exp()).pow(4).sum(dim=-1)
    return 1 - iou_B + (distance_B + shape_B) / 2


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels of the B * V search views of a batch.

    Attributes:
        box_B4: the target.
        present_B: samples with the target in the view.
        has_text_B: samples with a sentence.
        target_B: number of the target, the same for its views.
        weights: of the recipe.
        tokenizer: of the model's coordinate tokens.
    """

    box_B4: Tensor
    present_B: Tensor
    has_text_B: Tensor
    target_B: Tensor
    weights: LossWeights
    tokenizer: BoxTokenizer | None = None

    @property
    def weight_B(self) -> Tensor:
        """1 where the target is in the view, else 0."""
        return self.present_B.float()

    def box_mean(self, loss_BSS: Tensor) -> Tensor:
        """Mean over the cells of a sample that learn boxes, then over the samples with the target in the view."""
        cells_BN = box_mask(self.box_B4, loss_BSS.shape[1], self.weights.box_cells)
        share_BN = cells_BN.float() / cells_BN.sum(dim=1, keepdim=True).clamp_min(1)
        loss_B = (loss_BSS.flatten(1) * share_BN).sum(dim=1)
        return (loss_B * self.weight_B).sum() / self.weight_B.sum().clamp_min(1)


Term = Callable[[Any, Labels], Tensor]


def _center(center_BSS: Tensor, labels: Labels) -> Tensor:
    target = gaussian_centers(labels.box_B4, center_BSS.shape[-1]) * labels.present_B[:, None, None]
    return focal(center_BSS, target)


def _layer_contrast(contrasts: Sequence[Tensor], labels: Labels) -> Tensor:
    return torch.stack([layer_contrast(c, labels.box_B4, labels.weight_B) for c in contrasts]).mean()


def _tokens(logits_BTV: Tensor, labels: Labels) -> Tensor:
    return token_loss(logits_BTV, labels.box_B4, labels.weight_B, cast(BoxTokenizer, labels.tokenizer))


_SEARCH, _TEMPLATE, _TEXT = range(3)


def _aligned(one: int, other: int) -> Term:
    """NT-Xent of two of All-in-One's vectors, over samples that have both (published: all samples)."""

    def term(vectors: tuple[Tensor, Tensor, Tensor], labels: Labels) -> Tensor:
        used_B = torch.ones_like(labels.present_B)
        if _SEARCH in (one, other):
            used_B = used_B & labels.present_B
        if _TEXT in (one, other):
            used_B = used_B & labels.has_text_B
        return nt_xent(vectors[one], vectors[other], used_B=used_B, target_B=labels.target_B)

    return term


TERMS: dict[str, tuple[str, Term]] = {
    "centre": ("center_BSS", _center),
    "giou": ("boxes_BSS4", lambda b, of: of.box_mean(1 - giou(b, of.box_B4[:, None, None].expand_as(b))[0])),
    "l1": ("boxes_BSS4", lambda b, of: of.box_mean((b - of.box_B4[:, None, None]).abs().mean(dim=-1))),
    "layer_contrast": ("contrasts", _layer_contrast),
    "prompt_contrast": ("prompt_BN2", lambda p, of: prompt_contrast(p, of.box_B4, of.present_B)),
    "word_contrast": ("text_similarity_BN", lambda s, of: layer_contrast(s, of.box_B4, of.weight_B * of.has_text_B)),
    "selection": ("gate_BN", lambda g, of: (g.mean(dim=1) - of.weights.keep_ratio).square().mean()),
    "score": ("score_B", lambda s, of: functional.binary_cross_entropy_with_logits(s.float(), of.weight_B)),
    "sequence": ("coordinates_BTV", _tokens),
    "siou": ("expected_B4", lambda e, of: siou_loss(e, of.box_B4, of.weight_B)),
    "dense_match": ("matches", lambda m, of: dense_match(m, of.box_B4, of.present_B)),
    "alignment_search_words": ("alignment", _aligned(_SEARCH, _TEXT)),
    "alignment_template_words": ("alignment", _aligned(_TEMPLATE, _TEXT)),
    "alignment_views": ("alignment", _aligned(_SEARCH, _TEMPLATE)),
}
"""Name (as in ``LossWeights`` and log.csv) -> the field of ``TrainOutputs`` that a term needs, and the term.
A weight of 0 switches a term off."""


class PairObjective(nn.Module):
    """A model with its losses; ``forward`` turns a batch into loss terms, so that DDP wraps one module."""

    def __init__(self, model: TrackerBase[Any], weights: LossWeights) -> None:
        super().__init__()
        self.model = model
        self.weights = weights

    def forward(self, batch: Batch, select: bool) -> dict[str, Tensor]:
        """Loss terms by name; ``total`` is their weighted sum, ``iou`` the overlap at the peak (no gradient).

        ``batch``: template (B, T, T, 3) uint8, search (B, 2, S, S, 3) uint8, recent (B, 2, T, T, 3) uint8,
        boxes as cx, cy, w, h in units of their crop, present (B, 2), ids and words (B, L), flag (B,).
        """
        views = self.views(batch)
        target_B = views.target_of_view()
        labels = Labels(
            box_B4=views.search.box_B4.flatten(0, 1),
            present_B=views.present_BV.flatten(),
            has_text_B=~is_box_only(views.flag_B[target_B]),
            target_B=target_B,
            weights=self.weights,
            tokenizer=self.model.tokenizer,
        )
        outs: TrainOutputs = self.model(views, select=select)
        terms: dict[str, Tensor] = {}
        for name, (needed, term) in TERMS.items():
            output = getattr(outs, needed)
            if getattr(self.weights, name) and output is not None:
                terms[name] = term(output, labels)
        terms["total"] = torch.stack([getattr(self.weights, name) * value for name, value in terms.items()]).sum()
        terms["iou"] = _overlap_at_peak(outs, labels)
        return terms

    def views(self, batch: Batch) -> Views:
        """The samples of a batch, with crops normalized for the model."""
        return Views(
            template=self._crop(batch["template"], batch["template_box"]),
            recent=self._crop(batch["recent"], batch["recent_box"]),
            search=self._crop(batch["search"], batch["box"]),
            present_BV=batch["present"],
            ids_BL=batch["ids"],
            valid_BL=batch["words"],
            flag_B=batch["flag"],
        )

    def _crop(self, image: Tensor, box: Tensor) -> BoxedCrop:
        """(..., S, S, 3) uint8 -> (..., 3, S, S), normalized for the model."""
        deviation = 255 * torch.tensor(self.model.pixel_std, device=image.device)
        shift = -255 * torch.tensor(self.model.pixel_mean, device=image.device) / deviation
        # Whole rows at once: a last axis of three takes many times as long.
        rows, side = image.flatten(-2).float(), image.shape[-2]
        rows.mul_((1 / deviation).repeat(side)).add_(shift.repeat(side))
        return BoxedCrop(image_B3SS=rows.view(image.shape).movedim(-1, -3), box_B4=box)


@torch.no_grad()
def _overlap_at_peak(outs: TrainOutputs, labels: Labels) -> Tensor:
    """Mean overlap of the box at the peak of the center map, over samples with a target.

    A model without such a map predicts one box.
    """
    boxes_BN4 = outs.boxes_BSS4.flatten(1, 2)
    best_B = torch.zeros(len(boxes_BN4), dtype=torch.long, device=boxes_BN4.device)
    if outs.center_BSS is not None:
        best_B = outs.center_BSS.flatten(1).argmax(dim=1)
    best_B4 = boxes_BN4[torch.arange(len(best_B), device=best_B.device), best_B]
    overlap_B = giou(best_B4, labels.box_B4)[1]
    return (overlap_B * labels.weight_B).sum() / labels.weight_B.sum().clamp_min(1)
