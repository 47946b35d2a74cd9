"""What every tracker is: the protocol and the tensors in it. Knows no tracker and no pixels' origin.

Shapes: B batch (targets), L word pieces, C width, P template cells, K templates, N = S * S search cells.
Boxes inside models are cx, cy, w, h in units of the crop's side.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from vltrack.nn.batched import Batched
from vltrack.nn.center import CentreMaps
from vltrack.nn.front import Template, Text

__all__ = [
    "Flag",
    "Memory",
    "Prediction",
    "Template",
    "Text",
    "Tokens",
    "TrackerModel",
    "Views",
    "audible",
]


class Flag(IntEnum):
    """How a sample's target is named; only sets which tokens are valid."""

    BBOX = 0
    NL = 1
    NLBBOX = 2


def audible(flag_B: Tensor, valid_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Which samples hear their sentence (B,), and which word pieces they hear (B, L).

    ``valid_BL`` are words, not padding; a sample that is named by a box alone hears none of them.
    """
    heard_BL = valid_BL & (flag_B != Flag.BBOX)[:, None]
    return heard_BL.any(dim=1), heard_BL


@dataclass(frozen=True, kw_only=True)
class Tokens(Batched):
    """The trunk's output for one search region.

    Class token (B, C), template (B, M, C), search (B, N, C) and the sentence's [CLS] (B, C).
    """

    vision_BC: Tensor
    template_BMC: Tensor
    search_BNC: Tensor
    words_BC: Tensor


@dataclass(frozen=True, kw_only=True)
class Memory(Batched):
    """Everything of a target that does not change from frame to frame; each tracker adds what it keeps."""

    flag_B: Tensor
    text: Text


@dataclass(frozen=True, kw_only=True)
class Prediction(Batched):
    """What a model says of one search region. A model that names one box has maps of one cell (S = 1).

    Attributes:
        centre_BSS: probability that the target's centre lies in the cell.
        presence_BSS: probability that the cell belongs to the target, not to a distractor or the background.
        boxes_BSS4: the box that each cell names: cx, cy, w, h in units of the crop.
        tokens: the trunk's output, for models whose memory is refreshed from it.
        logits: raw outputs that losses need, by name; empty at inference.
    """

    centre_BSS: Tensor
    presence_BSS: Tensor
    boxes_BSS4: Tensor
    tokens: Tokens | None = None
    logits: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, maps: CentreMaps) -> Prediction:
        """From OSTrack's head: what it says of the centre is all it says of the presence, which is 1."""
        return cls(
            centre_BSS=maps.centre_BSS,
            presence_BSS=torch.ones_like(maps.centre_BSS),
            boxes_BSS4=maps.boxes_BSS4,
        )


@dataclass(frozen=True, kw_only=True)
class Views(Batched):
    """Training samples: of each target a template and V search views, with a sentence where it has one.

    Attributes:
        template_B3SS, template_box_B4: the first template with its box.
        recent_BV3SS, recent_box_BV4: for each view a template as if cut some frames ago.
        search_BV3SS, box_BV4, present_BV: the views, the target's box in each, and whether it is in it.
        ids_BL, words_BL: word pieces and which of them are words; samples of BBOX have none.
        flag_B: ``Flag``.
    """

    template_B3SS: Tensor
    template_box_B4: Tensor
    recent_BV3SS: Tensor
    recent_box_BV4: Tensor
    search_BV3SS: Tensor
    box_BV4: Tensor
    present_BV: Tensor
    ids_BL: Tensor
    words_BL: Tensor
    flag_B: Tensor

    @property
    def readable_BL(self) -> Tensor:
        """``words_BL``, all true where a sample has none: attention over no key at all has no value.

        What is read there is never used: the flag hides it.
        """
        return self.words_BL | (self.flag_B == Flag.BBOX)[:, None]

    def each(self) -> Tensor:
        """(B * V,) the target that each view belongs to; views of one target follow each other."""
        targets, views = self.present_BV.shape
        return torch.arange(targets, device=self.flag_B.device).repeat_interleave(views)


M = TypeVar("M", bound=Memory)


@runtime_checkable
class TrackerModel(Protocol[M]):
    """The whole contract between a model, the tracking policy and training; ``M`` is what it remembers."""

    template_size: int
    template_factor: float
    search_size: int
    search_factor: float
    max_words: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    history: int
    vocabulary: str
    training_only: tuple[str, ...]

    def read_text(self, ids_BL: Tensor, valid_BL: Tensor) -> Text:
        """Once a sentence."""
        ...

    def ground(self, scene_B3SS: Tensor, text: Text) -> Prediction:
        """Find the target in a letterboxed frame by words alone."""
        ...

    def remember(
        self,
        template_B3SS: Tensor,
        template_box_B4: Tensor,
        context_B3SS: Tensor,
        context_box_B4: Tensor,
        text: Text | None = None,
    ) -> M:
        """Start: a template crop and a search-sized crop of the same frame, with the box in each."""
        ...

    def refresh(
        self,
        memory: M,
        seen: Prediction,
        box_B4: Tensor,
        template_B3SS: Tensor | None = None,
        template_box_B4: Tensor | None = None,
    ) -> M:
        """A memory that has learned from a confident frame."""
        ...

    def locate(self, search_B3SS: Tensor, memory: M, past_BH4: Tensor | None = None) -> Prediction:
        """Each frame.

        ``past_BH4`` are the last H = ``history`` boxes, oldest first, cx, cy, w, h in units of this search
        crop; None where ``history`` is 0.
        """
        ...

    def rehearse(self, views: Views, *, select: bool = True) -> dict[str, Any]:
        """The training pass: the parts that run at test time, in that order, over all views of all targets.

        Returns raw outputs by the names of ``training.objective.TERMS``, with B * V first. ``select=False``
        keeps all tokens in models that drop some.
        """
        ...

    def freeze_plan(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Modules frozen at the start, and the order in which plateaus of the loss free them."""
        ...
