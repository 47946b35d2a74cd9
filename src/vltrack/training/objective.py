"""One training step of a LiteTrack-like model: the parts that run at test time, in the order in which they
run.

The two search views of a sample are each other's context: prompts for one are built from the other
(UVLTrack), and the recent template of one is cut from the other (ours).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vltrack.models.base import Flag
from vltrack.models.litetrack import LiteTrack
from vltrack.training.batches import Batch
from vltrack.training.losses import (
    box_losses,
    focal,
    gaussian_centres,
    giou,
    inner_cells,
    layer_contrast,
    prompt_contrast,
)
from vltrack.training.recipes import LossWeights


class PairObjective(nn.Module):
    """Wraps a model; ``forward`` turns a batch into named loss terms, so that DDP sees one module."""

    def __init__(self, model: LiteTrack, weights: LossWeights) -> None:
        super().__init__()
        self.model = model
        self.weights = weights

    def forward(self, batch: Batch, select: bool) -> dict[str, Tensor]:
        """Loss terms by name; ``total`` is their weighted sum, ``iou`` the overlap at the peak (no gradient).

        ``batch``: template (B, T, T, 3) uint8, search (B, 2, S, S, 3) uint8, recent (B, 2, T, T, 3) uint8,
        boxes as cx, cy, w, h in units of their crop, present (B, 2), ids and words (B, L), flag (B,).
        """
        model, views = self.model, batch["search"].shape[1]
        first = model.embed_template(self._pixels(batch["template"]), batch["template_box"])
        flag_B = batch["flag"].repeat_interleave(views)
        text = model.read_text(batch["ids"], batch["words"] | (batch["flag"] == Flag.BBOX)[:, None])
        index = torch.arange(len(batch["flag"]), device=flag_B.device).repeat_interleave(views)
        both = first.pick(index)
        if model.config.recent_template:
            recent = model.embed_template(
                self._pixels(batch["recent"].flatten(0, 1)), batch["recent_box"].flatten(0, 1)
            )
            both = both.beside(recent)
        box_B4 = batch["box"].flatten(0, 1)
        present_B = batch["present"].flatten(0, 1)
        search = self._pixels(batch["search"].flatten(0, 1))
        tokens, aux = model.observe(search, both, text.pick(index), flag_B, select=select)
        known_B4 = torch.where(present_B[:, None], box_B4, torch.zeros_like(box_B4))
        prompts = model.prompt(tokens, both, known_B4, flag_B)
        other = torch.arange(len(flag_B), device=flag_B.device).view(-1, views).flip(1).flatten()
        seen = model.decode(tokens, aux, prompts[other], flag_B)
        return self._terms(seen.boxes_BSS4, seen.logits, box_B4, present_B, flag_B != Flag.BBOX)

    def _pixels(self, image_BSS3: Tensor) -> Tensor:
        mean = torch.tensor(self.model.pixel_mean, device=image_BSS3.device) * 255
        std = torch.tensor(self.model.pixel_std, device=image_BSS3.device) * 255
        return ((image_BSS3.float() - mean) / std).permute(0, 3, 1, 2)

    def _terms(
        self,
        boxes_BSS4: Tensor,
        logits: dict[str, Any],
        box_B4: Tensor,
        present_B: Tensor,
        with_words_B: Tensor,
    ) -> dict[str, Tensor]:
        weights, side, weight_B = self.weights, boxes_BSS4.shape[1], present_B.float()
        target = gaussian_centres(box_B4, side) * present_B[:, None, None]
        overlap, error = box_losses(
            boxes_BSS4, box_B4, inner_cells(box_B4, side, weights.box_cells), weight_B
        )
        contrasts = [layer_contrast(c, box_B4, weight_B) for c in logits["contrasts"]]
        terms: dict[str, Tensor] = {
            "centre": focal(logits["centre"], target),
            "giou": overlap,
            "l1": error,
            "layer_contrast": torch.stack(contrasts).mean(),
            "prompt_contrast": prompt_contrast(logits["prompt"], box_B4, present_B),
        }
        if logits["heard"] is not None:
            terms["word_contrast"] = layer_contrast(logits["heard"], box_B4, weight_B * with_words_B)
        if logits["selection"] is not None:
            kept_B = logits["selection"].soft_BN.mean(dim=1)
            terms["selection"] = (kept_B - weights.keep_ratio).square().mean()
        terms["total"] = torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
        terms["iou"] = _overlap_at_peak(logits["centre"], boxes_BSS4, box_B4, weight_B)
        return terms


@torch.no_grad()
def _overlap_at_peak(centre_BSS: Tensor, boxes_BSS4: Tensor, box_B4: Tensor, weight_B: Tensor) -> Tensor:
    """Mean overlap of the box that the peak of the centre map names, over samples with a target."""
    best_B = centre_BSS.flatten(1).argmax(dim=1)
    named_B4 = boxes_BSS4.flatten(1, 2)[torch.arange(len(best_B), device=best_B.device), best_B]
    return (giou(named_B4, box_B4)[1] * weight_B).sum() / weight_B.sum().clamp_min(1)
