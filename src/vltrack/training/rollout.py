"""Training on clips, where a tracker's own boxes decide what it sees next (AITrack's second stage).

As published (ARTrack-Seq, AITrack): a clip is run greedily without a gradient, its crops and past boxes are
kept, then the same crops are read with one, and the SIoU of the expected boxes is the whole loss. Knows clips
and models that write boxes as words; knows no files.

Shapes: T frames after the first, H past boxes. Boxes are cx, cy, w, h in units of the search crop, in frames
x, y, w, h in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vltrack.core.boxes import clip_xywh, cxcywh_to_xywh, xywh_to_cxcywh
from vltrack.core.errors import Diverged
from vltrack.core.types import Box, Image
from vltrack.models.base import TrackerModel
from vltrack.prep.crops import Crop, cut, mean_colour, region_for
from vltrack.prep.tensors import images_to_tensor
from vltrack.prep.vocabularies import Reader
from vltrack.training.clip_views import Clip
from vltrack.training.freeze import freeze
from vltrack.training.losses_sequence import siou_loss
from vltrack.training.recipes import TRUNK

_MARGIN = 10.0
"""Least side of a box and what of it stays in the frame, in pixels (published)."""


class Follower(TrackerModel[Any], Protocol):
    """A tracker with past boxes whose written box has an expectation."""

    def follow(self, search_B3SS: Tensor, memory: Any, past_BH4: Tensor) -> Tensor:
        """The expected box (B, 4) of what ``locate`` would answer, with a gradient."""
        ...


@dataclass(frozen=True, kw_only=True)
class ClipStage:
    """Numbers of the stage; the published ones at ``base`` (60 epochs of 1000 clips of 36 frames).

    ``text_share`` of the clips are named by a sentence too (ours; published: none). The published ``clip``
    of 100 bounds hardly anything. Parameters whose names begin as in ``slow`` learn at ``slow_rate`` times
    the rate.
    """

    frames: int = 36
    steps: int = 60 * 1000 // 8
    clips_a_step: int = 8
    learning_rate: float = 4e-6
    slow: tuple[str, ...] = TRUNK
    slow_rate: float = 0.1
    weight_decay: float = 0.05
    clip: float = 100.0
    weight: float = 2.0
    text_share: float = 0.0

    def __post_init__(self) -> None:
        if self.frames < 2 or self.steps < 1 or self.clips_a_step < 1 or not self.learning_rate > 0:
            raise ValueError("two frames, a step, a clip and a learning rate above 0 are the least")
        if not 0 <= self.text_share <= 1:
            raise ValueError(f"text_share is a share, got {self.text_share}")


@dataclass(frozen=True, kw_only=True)
class Rolled:
    """What a tracker saw of a clip, and what it should have said.

    Attributes:
        template_B3SS, template_box_B4, context_B3SS, context_box_B4, words: what it was started with (B = 1);
            ``words`` are ids and which of them are words, or None.
        search_T3SS, past_TH4: the crops around its own boxes, and its own last boxes in each.
        box_T4: the true box in each crop.
        usable_T: whether the target is there and its middle in the crop.
        named_T4: its own answers, x, y, w, h in pixels of the frame.
    """

    template_B3SS: Tensor
    template_box_B4: Tensor
    context_B3SS: Tensor
    context_box_B4: Tensor
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
        picture = cut(image, region, mean_colour(image))
        pixels = images_to_tensor([picture], self.model.pixel_mean, self.model.pixel_std)
        return region, pixels.to(self.device)

    def search(self, image: Image, box: Box) -> tuple[Crop, Tensor]:
        return self.look(image, box, self.model.search_factor, self.model.search_size)

    def inside(self, boxes_xywh: Box, region: Crop) -> Tensor:
        unit = xywh_to_cxcywh(region.to_crop(boxes_xywh)) / region.size
        return torch.from_numpy(unit.astype(np.float32)).to(self.device)


@torch.no_grad()
def roll(model: Follower, clip: Clip, device: torch.device, reader: Reader | None = None) -> Rolled:
    """Run a clip from the true box of its first frame. ``reader`` makes its sentence count too.

    The model must be in eval mode; nothing here has a gradient.

    Raises:
        ValueError: a clip of fewer than two frames.
    """
    if len(clip.frames) < 2:
        raise ValueError(f"a clip of {len(clip.frames)} frames has nothing to follow")
    eye, box = _Eye(model, device), clip.boxes[0]
    region, template = eye.look(clip.frames[0], box, model.template_factor, model.template_size)
    template_box = eye.inside(box[None], region)
    region, context = eye.search(clip.frames[0], box)
    context_box, words = eye.inside(box[None], region), None
    if reader is not None:
        tokens = reader.encode(clip.sentence, model.max_words)
        words = tuple(torch.from_numpy(part)[None].to(device) for part in (tokens.ids, tokens.mask))
    text = None if words is None else model.read_text(*words)
    memory = model.remember(template, template_box, context, context_box, text)
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
        template_B3SS=template,
        template_box_B4=template_box,
        context_B3SS=context,
        context_box_B4=context_box,
        words=None if words is None else (words[0], words[1]),
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


def clip_loss(model: Follower, rolled: Rolled) -> Tensor:
    """SIoU of the expected boxes over a clip's usable frames, with a gradient; 0 where there is none."""
    text = None if rolled.words is None else model.read_text(*rolled.words)
    memory = model.remember(
        rolled.template_B3SS, rolled.template_box_B4, rolled.context_B3SS, rolled.context_box_B4, text
    )
    every = memory.pick(torch.zeros(len(rolled.search_T3SS), dtype=torch.long))
    expected_T4 = model.follow(rolled.search_T3SS, every, rolled.past_TH4)
    return siou_loss(expected_T4, rolled.box_T4, rolled.usable_T.float())


def train_clips(
    model: Any,
    clips: Callable[[int], Clip],
    stage: ClipStage,
    *,
    device: torch.device,
    reader: Reader | None = None,
    tell: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train ``model`` in place for ``stage.steps``; ``tell`` hears the mean SIoU of every step.

    ``clips`` gives clip number k. What the freeze plan holds stays as it is.

    Raises:
        ValueError: the model has no past boxes to learn from, or sentences are wanted without a ``reader``.
        Diverged: a gradient was not finite; the weights are those before that step.
    """
    if not model.history:
        raise ValueError("this model has no past boxes; there is nothing to roll out")
    if stage.text_share and reader is None:
        raise ValueError("a share of clips with sentences needs a vocabulary to read them")
    freeze(model.freeze_plan()[0])
    optimizer = _optimizer(model, stage)
    for step in range(stage.steps):
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for k in range(step * stage.clips_a_step, (step + 1) * stage.clips_a_step):
            # Spread evenly, so that the share holds in every stretch of clips.
            spoken = int((k + 1) * stage.text_share) > int(k * stage.text_share)
            model.eval()
            rolled = roll(model, clips(k), device, reader if spoken else None)
            model.train()
            loss = clip_loss(model, rolled)
            (stage.weight * loss / stage.clips_a_step).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach()) / stage.clips_a_step
        norm = nn.utils.clip_grad_norm_(model.parameters(), stage.clip)
        if not bool(torch.isfinite(norm)):
            raise Diverged(f"the gradient was not finite at step {step}.", hint="Lower the learning rate.")
        optimizer.step()
        tell(step, total)
    model.eval()


def _optimizer(model: nn.Module, stage: ClipStage) -> torch.optim.AdamW:
    slow: list[nn.Parameter] = []
    fast: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (slow if name.startswith(stage.slow) else fast).append(parameter)
    groups = [
        {"params": slow, "lr": stage.learning_rate * stage.slow_rate},
        {"params": fast, "lr": stage.learning_rate},
    ]
    return torch.optim.AdamW(groups, weight_decay=stage.weight_decay)
