"""Training on clips, where a tracker's own boxes decide what it sees next (AITrack's second stage).

As published (ARTrack-Seq, AITrack): a clip is run greedily without a gradient, its crops and past boxes are
kept, then the same crops are read with one, and the SIoU of the expected boxes is the whole loss. Knows clips
and models that write boxes as words; knows no files and no loop (``training.loop`` is the one for this too).

Shapes: T frames after the first, H past boxes. Boxes are cx, cy, w, h in units of the search crop, in frames
x, y, w, h in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vltrack.core.errors import ConfigError
from vltrack.core.types import Box, Image, clip_xywh, cxcywh_to_xywh, xywh_to_cxcywh
from vltrack.models.base import BoxedCrop, TrackerModel
from vltrack.prep.crops import Crop, cut, images_to_tensor, mean_color, region_for
from vltrack.training.clips import Clip
from vltrack.training.data import Batch
from vltrack.training.losses import giou, siou_loss
from vltrack.training.recipes import LossWeights

_MARGIN = 10.0
"""Least side of a box and what of it stays in the frame, in pixels (published)."""


class Follower(TrackerModel[Any], Protocol):
    """A tracker with past boxes whose written box has an expectation."""

    def follow(self, search_B3SS: Tensor, memory: Any, past_BH4: Tensor) -> Tensor:
        """The expected box (B, 4) of what ``locate`` would answer, with a gradient."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rolled:
    """What a tracker saw of a clip, and what it should have said.

    Attributes:
        template, context, words: what it was started with (B = 1); ``words`` are ids and which of them are
            not padding, or None.
        search_T3SS, past_TH4: the crops around its own boxes, and its own last boxes in each.
        box_T4: the true box in each crop.
        usable_T: whether the target is there and its middle in the crop.
        named_T4: its own answers, x, y, w, h in pixels of the frame.
    """

    template: BoxedCrop
    context: BoxedCrop
    words: tuple[Tensor, Tensor] | None
    search_T3SS: Tensor
    past_TH4: Tensor
    box_T4: Tensor
    usable_T: Tensor
    named_T4: Box


class _Eye:
    """Crops and boxes of one model on one device."""

    def __init__(self, model: Follower, device: torch.device) -> None:
        self.model, self.device = model, device

    def look(self, image: Image, box: Box, factor: float, size: int) -> tuple[Crop, Tensor]:
        region = region_for(box, factor, size)
        picture = cut(image, region, mean_color(image))
        pixels = images_to_tensor([picture], self.model.pixel_mean, self.model.pixel_std)
        return region, pixels.to(self.device)

    def search(self, image: Image, box: Box) -> tuple[Crop, Tensor]:
        return self.look(image, box, self.model.search_factor, self.model.search_size)

    def inside(self, boxes_xywh: Box, region: Crop) -> Tensor:
        unit = xywh_to_cxcywh(region.to_crop(boxes_xywh)) / region.size
        return torch.from_numpy(unit.astype(np.float32)).to(self.device)


@torch.no_grad()
def roll(
    model: Follower,
    clip: Clip,
    device: torch.device,
    words: tuple[Tensor, Tensor] | None = None,
) -> Rolled:
    """Run a clip from the true box of its first frame.

    ``words`` name the target too: ids and which of them are words, (1, L). The model must be in eval mode;
    nothing here has a gradient.

    Raises:
        ValueError: a clip of fewer than two frames.
    """
    if len(clip.frames) < 2:
        raise ValueError(f"a clip of {len(clip.frames)} frames has nothing to follow")
    eye, box = _Eye(model, device), clip.boxes[0]
    region, image = eye.look(clip.frames[0], box, model.template_factor, model.template_size)
    template = BoxedCrop(image_B3SS=image, box_B4=eye.inside(box[None], region))
    region, image = eye.search(clip.frames[0], box)
    context = BoxedCrop(image_B3SS=image, box_B4=eye.inside(box[None], region))
    text = None if words is None else model.read_text(*words)
    memory = model.init_template(template, context, text)
    past = np.tile(box, (model.history, 1))
    searches, pasts, truths, usable, named = [], [], [], [], []
    for image, truth, absent in zip(clip.frames[1:], clip.boxes[1:], clip.absent[1:], strict=True):
        region, search = eye.search(image, box)
        past_1H4 = eye.inside(past, region)[None]
        seen = model.locate(search, memory, past_1H4)
        box = _in_frame(region, seen.boxes_BSS4[0, 0, 0].double().cpu().numpy(), image)
        past = np.concatenate([past, box[None]])[1:]
        truth_14 = eye.inside(truth[None], region)
        searches.append(search)
        pasts.append(past_1H4)
        truths.append(truth_14)
        usable.append(not absent and bool(((truth_14[:, :2] > 0) & (truth_14[:, :2] < 1)).all()))
        named.append(box)
    return Rolled(
        template=template,
        context=context,
        words=words,
        search_T3SS=torch.cat(searches),
        past_TH4=torch.cat(pasts),
        box_T4=torch.cat(truths),
        usable_T=torch.tensor(usable, device=device),
        named_T4=np.stack(named),
    )


def _in_frame(region: Crop, unit_box: Box, image: Image) -> Box:
    height, width = image.shape[:2]
    box = region.to_frame(cxcywh_to_xywh(unit_box) * region.size)
    return clip_xywh(box, width, height, margin=_MARGIN, min_side=_MARGIN)


def clip_loss(model: Follower, rolled: Rolled) -> tuple[Tensor, Tensor]:
    """SIoU loss of the expected boxes over a clip's usable frames, with a gradient, and their mean overlap.

    Both are 0 where no frame is usable.
    """
    text = None if rolled.words is None else model.read_text(*rolled.words)
    memory = model.init_template(rolled.template, rolled.context, text)
    every = memory.index_select(torch.zeros(len(rolled.search_T3SS), dtype=torch.long))
    expected_T4 = model.follow(rolled.search_T3SS, every, rolled.past_TH4)
    weight_T = rolled.usable_T.float()
    overlap_T = giou(expected_T4, rolled.box_T4)[1]
    loss = siou_loss(expected_T4, rolled.box_T4, weight_T)
    return loss, (overlap_T * weight_T).sum() / weight_T.sum().clamp_min(1)


class ClipObjective(nn.Module):
    """Wraps a model as ``PairObjective`` does, for batches of clips."""

    def __init__(self, model: Any, weights: LossWeights) -> None:
        """``model`` is a ``Follower``. ConfigError: it has no past boxes, so nothing to learn from here."""
        super().__init__()
        if not getattr(model, "history", 0):
            raise ConfigError(
                "this tracker reads no past boxes: on clips it has nothing to learn.",
                hint="Leave clips.frames at 0.",
            )
        self.model = model
        self.weights = weights

    def forward(self, batch: Batch, select: bool) -> dict[str, Tensor]:
        """``siou``, the weighted ``total``, and ``iou``: mean overlap of the expected boxes (no gradient).

        ``batch`` (``training.data.ClipDataset``): frames (B, T, H, W, 3) uint8, boxes (B, T, 4) x, y, w, h
        in pixels, absent (B, T), ids and words (B, L); a clip without words is named by its box alone.
        ``select`` is for pairs.
        """
        device = next(self.model.parameters()).device
        terms = []
        for index in range(len(batch["frames"])):
            given = {name: part[index] for name, part in batch.items()}
            words = (given["ids"][None], given["words"][None]) if bool(given["words"].any()) else None
            with _running(self.model), torch.autocast(device.type, enabled=False):
                arrays = {name: given[name].cpu().numpy() for name in ("frames", "boxes", "absent")}
                rolled = roll(self.model, Clip(**arrays, sentence=""), device, words)
            # What the backward pass needs of one clip would not leave room for the next.
            terms.append(checkpoint(clip_loss, self.model, rolled, use_reentrant=False))
        siou, overlap = (torch.stack(each).mean() for each in zip(*terms, strict=True))
        return {"siou": siou, "total": self.weights.siou * siou, "iou": overlap.detach()}


@contextmanager
def _running(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while; every part goes back to the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
