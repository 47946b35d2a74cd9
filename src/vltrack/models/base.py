"""What every tracker is: the protocol and the tensors in it. Knows no tracker and no pixels' origin.

Shapes: B batch (targets), L word pieces, C width, P template cells, K templates, N = S * S search cells.
Boxes inside models are cx, cy, w, h in units of the crop's side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor


class Flag(IntEnum):
    """How a sample's target is named; only sets which tokens are valid."""

    BBOX = 0
    NL = 1
    NLBBOX = 2


class _Batched:
    """Dataclasses of tensors whose first axis is the target: joined and taken apart for several targets.

    Entries that are no tensors (a prediction's ``logits``) are passed on from the first part as they are.
    """

    def pick(self, indices: Sequence[int] | Tensor) -> Self:
        """The targets ``indices`` of the batch."""
        index = torch.as_tensor(indices, dtype=torch.long)
        picked: Self = _map([self], lambda tensors: tensors[0][index.to(tensors[0].device)])
        return picked

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """One batch from several."""
        joined: Self = _map(list(parts), lambda tensors: torch.cat(tensors, dim=0))
        return joined


def _map(parts: list[Any], function: Any) -> Any:
    changed: dict[str, Any] = {}
    for entry in dataclasses.fields(parts[0]):
        values = [getattr(part, entry.name) for part in parts]
        if isinstance(values[0], Tensor):
            changed[entry.name] = function(values)
        elif isinstance(values[0], _Batched):
            changed[entry.name] = _map(values, function)
        else:
            changed[entry.name] = values[0]
    return dataclasses.replace(parts[0], **changed)


@dataclass(frozen=True, kw_only=True)
class Text(_Batched):
    """A sentence, read once: token features (B, L, C) and which of them are words (B, L)."""

    tokens_BLC: Tensor
    valid_BL: Tensor

    def padded(self, length: int) -> Text:
        """The same words with masked padding up to ``length``, so that sentences can share a batch.

        Raises:
            ValueError: the sentence is longer than that; words are never cut here.
        """
        missing = length - self.valid_BL.shape[1]
        if missing < 0:
            raise ValueError(f"{self.valid_BL.shape[1]} word pieces do not fit into {length}")
        return Text(
            tokens_BLC=torch.nn.functional.pad(self.tokens_BLC, (0, 0, 0, missing)),
            valid_BL=torch.nn.functional.pad(self.valid_BL, (0, missing)),
        )


@dataclass(frozen=True, kw_only=True)
class Template(_Batched):
    """Template features of K templates, embedded once.

    Attributes:
        tokens_BMC: (B, K * P, C) tokens with positions.
        inside_BM: (B, K * P) soft share of each cell that lies in the target's box.
        keys_BKPF, pooled_BKF, fine_BKF: what explicit matching needs; width 0 in models without it.
    """

    tokens_BMC: Tensor
    inside_BM: Tensor
    keys_BKPF: Tensor
    pooled_BKF: Tensor
    fine_BKF: Tensor

    def beside(self, other: Template) -> Template:
        """Both templates' features, self first."""
        return Template(
            tokens_BMC=torch.cat([self.tokens_BMC, other.tokens_BMC], dim=1),
            inside_BM=torch.cat([self.inside_BM, other.inside_BM], dim=1),
            keys_BKPF=torch.cat([self.keys_BKPF, other.keys_BKPF], dim=1),
            pooled_BKF=torch.cat([self.pooled_BKF, other.pooled_BKF], dim=1),
            fine_BKF=torch.cat([self.fine_BKF, other.fine_BKF], dim=1),
        )


@dataclass(frozen=True, kw_only=True)
class Tokens(_Batched):
    """The trunk's output for one search region.

    Class token (B, C), template (B, M, C), search (B, N, C) and the sentence's [CLS] (B, C).
    """

    vision_BC: Tensor
    template_BMC: Tensor
    search_BNC: Tensor
    words_BC: Tensor


@dataclass(frozen=True, kw_only=True)
class Memory(_Batched):
    """Everything of a target that does not change from frame to frame."""

    flag_B: Tensor
    first: Template
    recent: Template
    text: Text
    prompts_B3C: Tensor


@dataclass(frozen=True, kw_only=True)
class Prediction(_Batched):
    """What a model says of one search region.

    Attributes:
        centre_BSS: probability that the target's centre lies in the cell.
        presence_BSS: probability that the cell belongs to the target, not to a distractor or the background.
        boxes_BSS4: the box that each cell names: cx, cy, w, h in units of the crop.
        tokens: the trunk's output, for a refresh of the memory.
        logits: raw outputs that losses need, by name; empty at inference.
    """

    centre_BSS: Tensor
    presence_BSS: Tensor
    boxes_BSS4: Tensor
    tokens: Tokens
    logits: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class TrackerModel(Protocol):
    """The whole contract between a model and the tracking policy."""

    template_size: int
    template_factor: float
    search_size: int
    search_factor: float
    max_words: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]

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
    ) -> Memory:
        """Start: a template crop and a search-sized crop of the same frame, with the box in each."""
        ...

    def refresh(
        self,
        memory: Memory,
        seen: Prediction,
        box_B4: Tensor,
        template_B3SS: Tensor | None = None,
        template_box_B4: Tensor | None = None,
    ) -> Memory:
        """A memory that has learned from a confident frame."""
        ...

    def locate(self, search_B3SS: Tensor, memory: Memory) -> Prediction:
        """Each frame."""
        ...


def cell_share(box_B4: Tensor, side: int) -> Tensor:
    """(B, side * side) share of each cell's area that lies in the box (cx, cy, w, h in units of the crop)."""
    edges = torch.arange(side, device=box_B4.device, dtype=torch.float32) / side
    low_B2, high_B2 = box_B4[:, :2] - box_B4[:, 2:] / 2, box_B4[:, :2] + box_B4[:, 2:] / 2
    begin = torch.maximum(edges[None, None], low_B2[..., None])
    end = torch.minimum(edges[None, None] + 1 / side, high_B2[..., None])
    share_B2S = (end - begin).clamp_min(0) * side
    return (share_B2S[:, 1, :, None] * share_B2S[:, 0, None, :]).flatten(1)


def cell_inside(box_B4: Tensor, side: int) -> Tensor:
    """(B, side * side) bool: cells whose centre lies in the box, and the cell that holds the box's centre.

    A box without area (target not known) holds no cell.
    """
    centres = (torch.arange(side, device=box_B4.device, dtype=torch.float32) + 0.5) / side
    inside_x = (centres[None] - box_B4[:, :1]).abs() <= box_B4[:, 2:3] / 2
    inside_y = (centres[None] - box_B4[:, 1:2]).abs() <= box_B4[:, 3:4] / 2
    inside_BN = (inside_y[:, :, None] & inside_x[:, None, :]).flatten(1)
    # A centre exactly on the right or lower edge belongs to the last cell, not to one beyond it.
    cell_B2 = (box_B4[:, :2] * side).long().clamp(0, side - 1)
    holds = (box_B4[:, 2:] > 0).all(dim=1, keepdim=True)
    middle = torch.zeros_like(inside_BN).scatter(1, (cell_B2[:, 1] * side + cell_B2[:, 0])[:, None], True)
    return (inside_BN | middle) & holds
