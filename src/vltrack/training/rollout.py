"""Training on clips, where a tracker's own boxes decide what it sees next (AITrack's second stage).

As published (ARTrack-Seq, AITrack): a clip is tracked greedily without a gradient, its crops and past boxes
are kept, then the same crops are read with a gradient, and the SIoU of the expected boxes is the whole loss.

Shapes: T frames after the first, H past boxes. Boxes are cx, cy, w, h in units of the search crop, in frames
x, y, w, h in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vltrack.core.errors import ConfigError
from vltrack.core.types import Box, Image, clip_xywh, cxcywh_to_xywh, xywh_to_cxcywh
from vltrack.models.aitrack import AITrack
from vltrack.models.base import BoxedCrop
from vltrack.prep.crops import Crop, cut, images_to_tensor, mean_color, region_for
from vltrack.training.clips import Clip
from vltrack.training.data import Batch
from vltrack.training.losses import giou, siou_loss
from vltrack.training.recipes import LossWeights

_MARGIN = 10.0
"""Minimal side of a box, and minimal part of it inside the frame, in pixels (published)."""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The crops of a tracked clip, and the ground truth in them.

    Attributes:
        template, context, words: the start of the tracker (B = 1); ``words`` are ids and a mask of those that
            are not padding, or None.
        search_T3SS, past_TH4: the crops around its own boxes, and its own last boxes in each.
        box_T4: the annotated box in each crop.
        usable_T: whether the target is visible with its center in the crop.
        predicted_T4: its own boxes, x, y, w, h in pixels of the frame.
    """

    template: BoxedCrop
    context: BoxedCrop
    words: tuple[Tensor, Tensor] | None
    search_T3SS: Tensor
    past_TH4: Tensor
    box_T4: Tensor
    usable_T: Tensor
    predicted_T4: Box


class _Cropper:
    """Crops for one model on one device."""

    def __init__(self, model: AITrack, device: torch.device) -> None:
        self.model, self.device = model, device

    def crop(self, image: Image, box: Box, factor: float, size: int) -> tuple[Crop, Tensor]:
        region = region_for(box, factor, size)
        crop = cut(image, region, mean_color(image))
        pixels = images_to_tensor([crop], self.model.pixel_mean, self.model.pixel_std)
        return region, pixels.to(self.device)

    def search(self, image: Image, box: Box) -> tuple[Crop, Tensor]:
        return self.crop(image, box, self.model.search_factor, self.model.search_size)

    def in_crop(self, boxes_xywh: Box, region: Crop) -> Tensor:
        unit = xywh_to_cxcywh(region.to_crop(boxes_xywh)) / region.size
        return torch.from_numpy(unit.astype(np.float32)).to(self.device)


@torch.no_grad()
def roll(model: AITrack, clip: Clip, device: torch.device, words: tuple[Tensor, Tensor] | None = None) -> Rollout:
    """Track a clip from the annotated box of its first frame, without a gradient.

    ``words``, ids and mask (1, L), describe the target too. The model must be in eval mode.

    Raises:
        ValueError: a clip of fewer than two frames.
    """
    if len(clip.frames) < 2:
        raise ValueError(f"A clip needs two frames or more: {len(clip.frames)}.")
    cropper, box = _Cropper(model, device), clip.boxes[0]
    region, image = cropper.crop(clip.frames[0], box, model.template_factor, model.template_size)
    template = BoxedCrop(image_B3SS=image, box_B4=cropper.in_crop(box[None], region))
    region, image = cropper.search(clip.frames[0], box)
    context = BoxedCrop(image_B3SS=image, box_B4=cropper.in_crop(box[None], region))
    text = None if words is None else model.read_text(*words)
    memory = model.init_template(template, context, text)
    past = np.tile(box, (model.history, 1))
    searches, pasts, boxes, usable, predicted = [], [], [], [], []
    for image, annotated, absent in zip(clip.frames[1:], clip.boxes[1:], clip.absent[1:], strict=True):
        region, search = cropper.search(image, box)
        past_1H4 = cropper.in_crop(past, region)[None]
        seen = model.locate(search, memory, past_1H4)
        box = _in_frame(region, seen.boxes_BSS4[0, 0, 0].double().cpu().numpy(), image)
        past = np.concatenate([past, box[None]])[1:]
        annotated_14 = cropper.in_crop(annotated[None], region)
        searches.append(search)
        pasts.append(past_1H4)
        boxes.append(annotated_14)
        usable.append(not absent and bool(((annotated_14[:, :2] > 0) & (annotated_14[:, :2] < 1)).all()))
        predicted.append(box)
    return Rollout(
        template=template,
        context=context,
        words=words,
        search_T3SS=torch.cat(searches),
        past_TH4=torch.cat(pasts),
        box_T4=torch.cat(boxes),
        usable_T=torch.tensor(usable, device=device),
        predicted_T4=np.stack(predicted),
    )


def _in_frame(region: Crop, unit_box: Box, image: Image) -> Box:
    height, width = image.shape[:2]
    box = region.to_frame(cxcywh_to_xywh(unit_box) * region.size)
    return clip_xywh(box, width, height, margin=_MARGIN, min_side=_MARGIN)


def clip_loss(model: AITrack, rolled: Rollout) -> tuple[Tensor, Tensor]:
    """SIoU loss of the expected boxes over the usable frames, and their mean overlap; 0 without any."""
    text = None if rolled.words is None else model.read_text(*rolled.words)
    memory = model.init_template(rolled.template, rolled.context, text)
    every = memory.index_select(torch.zeros(len(rolled.search_T3SS), dtype=torch.long))
    expected_T4 = model.locate_expected(rolled.search_T3SS, every, rolled.past_TH4)
    weight_T = rolled.usable_T.float()
    overlap_T = giou(expected_T4, rolled.box_T4)[1]
    loss = siou_loss(expected_T4, rolled.box_T4, weight_T)
    return loss, (overlap_T * weight_T).sum() / weight_T.sum().clamp_min(1)


class ClipObjective(nn.Module):
    """A model with its loss, like ``PairObjective``, for batches of clips."""

    def __init__(self, model: Any, weights: LossWeights) -> None:
        """``model`` is an ``AITrack``. Raises ``ConfigError`` for a model without past boxes."""
        super().__init__()
        if not getattr(model, "history", 0):
            raise ConfigError(
                f"{type(model).__name__} does not read past boxes, which training on clips needs.",
                hint="Leave clips.frames at 0.",
            )
        self.model = model
        self.weights = weights

    def forward(self, batch: Batch, select: bool) -> dict[str, Tensor]:
        """``siou``, the weighted ``total``, and ``iou``: mean overlap of the expected boxes (no gradient).

        ``batch`` (``training.data.ClipDataset``): frames (B, T, H, W, 3) uint8, boxes (B, T, 4) x, y, w, h
        in pixels, absent (B, T), ids and words (B, L); a clip without words is box-only. ``select`` is not
        used.
        """
        device = next(self.model.parameters()).device
        terms = []
        for index in range(len(batch["frames"])):
            given = {name: part[index] for name, part in batch.items()}
            words = (given["ids"][None], given["words"][None]) if bool(given["words"].any()) else None
            with _eval_mode(self.model), torch.autocast(device.type, enabled=False):
                arrays = {name: given[name].cpu().numpy() for name in ("frames", "boxes", "absent")}
                rolled = roll(self.model, Clip(**arrays, sentence=""), device, words)
            # Activations of one clip are computed again in the backward pass, to leave room for the next.
            terms.append(checkpoint(clip_loss, self.model, rolled, use_reentrant=False))
        siou, overlap = (torch.stack(each).mean() for each in zip(*terms, strict=True))
        return {"siou": siou, "total": self.weights.siou * siou, "iou": overlap.detach()}


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Set eval mode within the block, then restore the mode of every module."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
