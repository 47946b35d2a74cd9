"""One training step of any tracker: its rehearsal over a batch, and the loss of everything that it emits.

Knows the names of outputs (``TERMS``), no tracker. A term is there if the model emits what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vltrack.models.base import Flag, TrackerModel, Views
from vltrack.training import losses, losses_align, losses_match, losses_sequence
from vltrack.training.batches import Batch
from vltrack.training.recipes import LossWeights


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What is true of the B * V search views of a batch, and what a loss may be told.

    Attributes:
        box_B4: the target, cx, cy, w, h in units of the crop.
        present_B: whether it is in the view.
        with_words_B: whether the sample has a sentence.
        target_B: the number of the target; its views share it.
        weights: of the recipe.
    """

    box_B4: Tensor
    present_B: Tensor
    with_words_B: Tensor
    target_B: Tensor
    weights: LossWeights

    @property
    def weight_B(self) -> Tensor:
        """1 where the target is in the view, else 0."""
        return self.present_B.float()


Outs = dict[str, Any]
Term = Callable[[Outs, Labels], Tensor]


def _centre(outs: Outs, labels: Labels) -> Tensor:
    side = outs["centre"].shape[-1]
    target = losses.gaussian_centres(labels.box_B4, side) * labels.present_B[:, None, None]
    return losses.focal(outs["centre"], target)


def _box(which: int) -> Term:
    def term(outs: Outs, labels: Labels) -> Tensor:
        boxes_BSS4 = outs["boxes"]
        cells = losses.inner_cells(labels.box_B4, boxes_BSS4.shape[1], labels.weights.box_cells)
        return losses.box_losses(boxes_BSS4, labels.box_B4, cells, labels.weight_B)[which]

    return term


def _layer_contrast(outs: Outs, labels: Labels) -> Tensor:
    found = [losses.layer_contrast(c, labels.box_B4, labels.weight_B) for c in outs["contrasts"]]
    return torch.stack(found).mean()


def _word_contrast(outs: Outs, labels: Labels) -> Tensor:
    return losses.layer_contrast(outs["heard"], labels.box_B4, labels.weight_B * labels.with_words_B)


def _selection(outs: Outs, labels: Labels) -> Tensor:
    kept_B: Tensor = outs["selection"].soft_BN.mean(dim=1)
    return (kept_B - labels.weights.keep_ratio).square().mean()


def _score(outs: Outs, labels: Labels) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outs["score"].float(), labels.weight_B)


def _sequence(outs: Outs, labels: Labels) -> Tensor:
    logits_BTV, vocabulary = outs["sequence"], outs["vocabulary"]
    return losses_sequence.word_loss(logits_BTV, labels.box_B4, labels.weight_B, vocabulary)


def _siou(outs: Outs, labels: Labels) -> Tensor:
    return losses_sequence.siou_loss(outs["expected"], labels.box_B4, labels.weight_B)


def _aligned(one: str, other: str) -> Term:
    """NT-Xent of two of All-in-One's vectors, over samples that have both things in them (published: all)."""

    def term(outs: Outs, labels: Labels) -> Tensor:
        vectors, used_B = outs["vectors"], torch.ones_like(labels.present_B)
        if "a_x" in (one, other):
            used_B = used_B & labels.present_B
        if "a_l" in (one, other):
            used_B = used_B & labels.with_words_B
        return losses_align.nt_xent(vectors[one], vectors[other], used_B=used_B, target_B=labels.target_B)

    return term


TERMS: dict[str, tuple[str, Term]] = {
    "centre": ("centre", _centre),
    "giou": ("boxes", _box(0)),
    "l1": ("boxes", _box(1)),
    "layer_contrast": ("contrasts", _layer_contrast),
    "prompt_contrast": ("prompt", lambda o, of: losses.prompt_contrast(o["prompt"], of.box_B4, of.present_B)),
    "word_contrast": ("heard", _word_contrast),
    "selection": ("selection", _selection),
    "score": ("score", _score),
    "sequence": ("sequence", _sequence),
    "siou": ("expected", _siou),
    "dense_match": ("dense", lambda o, of: losses_match.dense_match(o["dense"], of.box_B4, of.present_B)),
    "alignment_search_words": ("vectors", _aligned("a_x", "a_l")),
    "alignment_template_words": ("vectors", _aligned("a_z", "a_l")),
    "alignment_views": ("vectors", _aligned("a_x", "a_z")),
}
"""Loss terms by name: the output that a term needs, and the term. A weight of that name is in
``LossWeights``; a weight of 0 switches it off."""


class PairObjective(nn.Module):
    """Wraps a model; ``forward`` turns a batch into named loss terms, so that DDP sees one module."""

    def __init__(self, model: TrackerModel[Any], weights: LossWeights) -> None:
        super().__init__()
        self.model = model
        self.weights = weights

    def forward(self, batch: Batch, select: bool) -> dict[str, Tensor]:
        """Loss terms by name; ``total`` is their weighted sum, ``iou`` the overlap at the peak (no gradient).

        ``batch``: template (B, T, T, 3) uint8, search (B, 2, S, S, 3) uint8, recent (B, 2, T, T, 3) uint8,
        boxes as cx, cy, w, h in units of their crop, present (B, 2), ids and words (B, L), flag (B,).
        """
        views = self._views(batch)
        each_B = views.each()
        labels = Labels(
            box_B4=views.box_BV4.flatten(0, 1),
            present_B=views.present_BV.flatten(),
            with_words_B=views.flag_B[each_B] != Flag.BBOX,
            target_B=each_B,
            weights=self.weights,
        )
        outs = self.model.rehearse(views, select=select)
        terms: dict[str, Tensor] = {}
        for name, (needed, term) in TERMS.items():
            if getattr(self.weights, name) and outs.get(needed) is not None:
                terms[name] = term(outs, labels)
        terms["total"] = torch.stack(
            [getattr(self.weights, name) * value for name, value in terms.items()]
        ).sum()
        terms["iou"] = _overlap_at_peak(outs, labels)
        return terms

    def _views(self, batch: Batch) -> Views:
        return Views(
            template_B3SS=self._pixels(batch["template"]),
            template_box_B4=batch["template_box"],
            recent_BV3SS=self._pixels(batch["recent"]),
            recent_box_BV4=batch["recent_box"],
            search_BV3SS=self._pixels(batch["search"]),
            box_BV4=batch["box"],
            present_BV=batch["present"],
            ids_BL=batch["ids"],
            words_BL=batch["words"],
            flag_B=batch["flag"],
        )

    def _pixels(self, image: Tensor) -> Tensor:
        """(..., S, S, 3) uint8 -> (..., 3, S, S) normalised as the model wants it."""
        mean = torch.tensor(self.model.pixel_mean, device=image.device) * 255
        std = torch.tensor(self.model.pixel_std, device=image.device) * 255
        return ((image.float() - mean) / std).movedim(-1, -3)


@torch.no_grad()
def _overlap_at_peak(outs: Outs, labels: Labels) -> Tensor:
    """Mean overlap of the box that the peak of the centre map names, over samples with a target.

    A model without such a map names one box.
    """
    boxes_BN4 = outs["boxes"].flatten(1, 2)
    best_B = torch.zeros(len(boxes_BN4), dtype=torch.long, device=boxes_BN4.device)
    if outs.get("centre") is not None:
        best_B = outs["centre"].flatten(1).argmax(dim=1)
    named_B4 = boxes_BN4[torch.arange(len(best_B), device=best_B.device), best_B]
    overlap_B = losses.giou(named_B4, labels.box_B4)[1]
    return (overlap_B * labels.weight_B).sum() / labels.weight_B.sum().clamp_min(1)
