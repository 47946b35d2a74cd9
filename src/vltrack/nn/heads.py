"""The centre head's convolution towers and the two ways to write a box in a cell's channels.

Shapes: B batch, S side of the map, C channels. Boxes leave as cx, cy, w, h in units of the crop's side.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vltrack.nn.attention import Mlp

BoxCode = Literal["cell", "free"]


class ConvTower(nn.Module):
    """3x3 convolutions with batch norm and ReLU, then a 1x1 convolution (OSTrack, UVLTrack)."""

    def __init__(self, width: int, channels: Sequence[int], out: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside in zip([width, *channels[:-1]], channels, strict=True):
            layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.out = nn.Conv2d(channels[-1], out, 1)

    def forward(self, map_BCSS: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, out, S, S)."""
        out: Tensor = self.out(self.body(map_BCSS))
        return out


def decode_boxes(offset_B2SS: Tensor, size_B2SS: Tensor, code: BoxCode) -> Tensor:
    """Raw channels -> (B, S, S, 4) cx, cy, w, h in units of the crop.

    ``cell`` (published): centre = (cell + sigmoid(offset)) / S, size = sigmoid. Only the cell that holds the
    centre can name a box. ``free`` (ours): centre = (cell + 1/2 + offset) / S, size = exp / 4: every cell of
    the target can.
    """
    side = offset_B2SS.shape[-1]
    offset, size = offset_B2SS.float(), size_B2SS.float()
    steps = torch.arange(side, device=offset.device, dtype=torch.float32)
    cell_2SS = torch.stack([steps[None, :].expand(side, side), steps[:, None].expand(side, side)])
    if code == "cell":
        centre, extent = (cell_2SS + offset.sigmoid()) / side, size.sigmoid()
    else:
        centre, extent = (cell_2SS + 0.5 + offset) / side, size.clamp(-4.0, 2.5).exp() / 4
    return torch.cat([centre, extent], dim=1).permute(0, 2, 3, 1)


# MERGED nn/heads.py
# OSTrack's centre head: three convolution towers, and the box that each cell names.
#
# Knows search tokens; knows no tracker, no window and no choice among the cells.
#
# Shapes: B batch, N = S * S search cells, C width. Boxes are cx, cy, w, h in units of the crop's side.


LEAST = 1e-4
"""Published probabilities and sizes stay this far from 0 and 1."""
RARE = -4.0


@dataclass(frozen=True, kw_only=True)
class CentreMaps:
    """What the head says of a search region.

    Attributes:
        logits_BSS: of the centre, before the sigmoid, for losses.
        centre_BSS: probability that the target's centre lies in the cell.
        boxes_BSS4: the box that each cell names.
    """

    logits_BSS: Tensor
    centre_BSS: Tensor
    boxes_BSS4: Tensor


class CenterHead(nn.Module):
    """Towers ``centre``, ``offset`` and ``size`` over the map of search tokens.

    Source: OSTrack, released code (``cell``); ``free`` is the box code of our tiny sizes. Weights start by
    Xavier's rule (released code). The centre starts as a rare event, so that the first steps are not spent on
    learning that (ours).
    """

    def __init__(self, width: int, *, side: int, channels: Sequence[int], code: BoxCode) -> None:
        super().__init__()
        self.side, self.code = side, code
        self.centre = ConvTower(width, channels, 1)
        self.offset = ConvTower(width, channels, 2)
        self.size = ConvTower(width, channels, 2)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        if self.centre.out.bias is not None:
            nn.init.constant_(self.centre.out.bias, RARE)

    def forward(self, x_BNC: Tensor) -> CentreMaps:
        """(B, N, C) tokens in map order -> ``CentreMaps`` in float32."""
        b, _, c = x_BNC.shape
        map_BCSS = x_BNC.transpose(1, 2).reshape(b, c, self.side, self.side)
        logits_BSS = self.centre(map_BCSS)[:, 0].float()
        offset_B2SS, size_B2SS = self.offset(map_BCSS), self.size(map_BCSS)
        if self.code == "cell":
            boxes_BSS4 = decode_cells(offset_B2SS, size_B2SS)
        else:
            boxes_BSS4 = decode_boxes(offset_B2SS, size_B2SS, self.code)
        return CentreMaps(
            logits_BSS=logits_BSS, centre_BSS=bounded_sigmoid(logits_BSS), boxes_BSS4=boxes_BSS4
        )


def bounded_sigmoid(logits: Tensor) -> Tensor:
    """Sigmoid in [1e-4, 1 - 1e-4] (released code)."""
    return logits.sigmoid().clamp(LEAST, 1 - LEAST)


def decode_cells(offset_B2SS: Tensor, size_B2SS: Tensor) -> Tensor:
    """Raw channels -> (B, S, S, 4): centre = (cell + offset) / S, size a bounded sigmoid (released code).

    The offset is taken as it is, without a sigmoid; UVLTrack, whose code ``decode_boxes`` calls ``cell``, has
    one.
    """
    side = offset_B2SS.shape[-1]
    steps_S = torch.arange(side, device=offset_B2SS.device, dtype=torch.float32)
    cell_2SS = torch.stack(torch.meshgrid(steps_S, steps_S, indexing="xy"))
    centre_B2SS = (cell_2SS + offset_B2SS.float()) / side
    return torch.cat([centre_B2SS, bounded_sigmoid(size_B2SS.float())], dim=1).permute(0, 2, 3, 1)


# MERGED nn/heads.py
# The multi-modal contrastive prompt: target, distractor and background vectors that score search tokens.
#
# Source: UVLTrack's modality-adaptive box head (AAAI 2024, section 3), which LiteTrack keeps.
# Shapes: B batch, M key tokens (template and context), N search tokens, C width.


BACKGROUND_SHARE = 0.25


def temperature_parameter() -> nn.Parameter:
    """log(1 / 0.07), the usual start of a learned contrastive temperature."""
    return nn.Parameter(torch.tensor(math.log(1 / 0.07)))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of the last axis in float32: (..., N, C), (..., M, C) -> (..., N, M)."""
    unit_a = nn.functional.normalize(a.float(), dim=-1)
    unit_b = nn.functional.normalize(b.float(), dim=-1)
    return unit_a @ unit_b.transpose(-2, -1)


class ContrastivePrompter(nn.Module):
    """Builds three prompts from tokens whose in-box mask is known, and scores search tokens with them.

    ``spare=True`` registers the q, kv and proj layers that the released prompter holds but never uses, so
    that published checkpoints load strictly; they take no part in anything.
    """

    def __init__(self, width: int, mlp_ratio: float = 4.0, *, spare: bool = False) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(3, width) * 0.02)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.log_build = temperature_parameter()
        self.log_score = temperature_parameter()
        if spare:
            self.q = nn.Linear(width, width, bias=False)
            self.kv = nn.Linear(width, 2 * width, bias=False)
            self.proj = nn.Linear(width, width)

    def build(self, reference_BC: Tensor, keys_BMC: Tensor, inside_BM: Tensor, by_words_B: Tensor) -> Tensor:
        """Prompts (B, 3, C): rows target, distractor, background.

        ``inside_BM`` is True for key tokens in the target's box. ``by_words_B`` marks samples started by a
        sentence alone, which have no trusted keys: their prompts are the queries plus the reference.
        """
        logits_BM = cosine(keys_BMC, reference_BC[:, None])[..., 0] * self.log_build.exp()
        target_BM, distractor_BM, background_BM = _three_groups(logits_BM, inside_BM)
        weights_B3M = torch.stack([target_BM, distractor_BM, background_BM], dim=1)
        pooled_B3C = weights_B3M.to(keys_BMC.dtype) @ keys_BMC
        pooled_B3C = torch.where(by_words_B[:, None, None], torch.zeros_like(pooled_B3C), pooled_B3C)
        prompts = pooled_B3C + self.queries
        prompts = torch.cat([prompts[:, :1] + reference_BC[:, None], prompts[:, 1:]], dim=1)
        refined: Tensor = prompts + self.mlp(prompts)
        return torch.where(by_words_B[:, None, None], prompts, refined)

    def score(self, search_BNC: Tensor, prompts_B3C: Tensor) -> Tensor:
        """Two logits (B, N, 2): target, and the better of distractor, background and nothing (0)."""
        a_BN3 = cosine(search_BNC, prompts_B3C) * self.log_score.exp()
        other_BN = a_BN3[..., 1:].amax(dim=-1).clamp_min(0.0)
        return torch.stack([a_BN3[..., 0], other_BN], dim=-1)


def presence(logits_BN2: Tensor, without_neither_B: Tensor | None = None) -> Tensor:
    """(B, N, 2) -> (B, N) probability of the target; a third logit of 0 is for neither (test time only).

    The released code has no such third way out where it grounds a sentence: samples that are marked in
    ``without_neither_B`` have to choose between the target and the rest.
    """
    three = torch.cat([logits_BN2, torch.zeros_like(logits_BN2[..., :1])], dim=-1)
    probability_BN = three.softmax(dim=-1)[..., 0]
    if without_neither_B is None:
        return probability_BN
    return torch.where(without_neither_B[:, None], logits_BN2.softmax(dim=-1)[..., 0], probability_BN)


def _three_groups(logits_BM: Tensor, inside_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax weights over target tokens, and over those outside split into distractor and background.

    Outside, tokens are sorted by probability; the least similar ones that hold together less than a quarter
    of the mass are background, the rest distractors. An empty group gets zero weights.
    """
    lowest = torch.finfo(logits_BM.dtype).min
    outside_BM = ~inside_BM
    probability_BM = logits_BM.masked_fill(inside_BM, lowest).softmax(dim=-1).masked_fill(inside_BM, 0.0)
    sorted_BM, order_BM = probability_BM.detach().sort(dim=-1)
    is_background = torch.zeros_like(inside_BM).scatter(
        1, order_BM, sorted_BM.cumsum(dim=-1) < BACKGROUND_SHARE
    )
    return (
        _masked_softmax(logits_BM, inside_BM),
        _masked_softmax(logits_BM, outside_BM & ~is_background),
        _masked_softmax(logits_BM, outside_BM & is_background),
    )


def _masked_softmax(logits_BM: Tensor, mask_BM: Tensor) -> Tensor:
    lowest = torch.finfo(logits_BM.dtype).min
    weights = logits_BM.masked_fill(~mask_BM, lowest).softmax(dim=-1)
    return weights.masked_fill(~mask_BM, 0.0)


# MERGED nn/heads.py
# STARK's corner head (Yan et al., ICCV 2021): two convolution towers, the box from expected corners.
#
# Knows a map of features; knows no tokens and no tracker. Parameter names are those of the released code but
# for the place of the suffix: ``tl.conv1.0`` here is ``conv1_tl.0`` there.
#
# Shapes: B batch, C channels, S side of the map. Corners are x1, y1, x2, y2 in units of the crop's side.


def corner_tower(width: int, channels: Sequence[int]) -> nn.Sequential:
    """3x3 convolutions with batch norm and ReLU (``conv1``, ``conv2``, ...), then one 1x1 convolution."""
    steps: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (inside, outside) in enumerate(zip([width, *channels[:-1]], channels, strict=True), start=1):
        steps[f"conv{i}"] = nn.Sequential(
            nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()
        )
    steps[f"conv{len(channels) + 1}"] = nn.Conv2d(channels[-1], 1, 1)
    return nn.Sequential(steps)


def expected_place(logits_BSS: Tensor) -> Tensor:
    """Soft-argmax: (B, S, S) logits -> (B, 2) expected x and y in [0, 1).

    Cell i stands for i / S, its left or upper edge, as in the released code: the largest coordinate is
    (S - 1) / S.
    """
    side = logits_BSS.shape[-1]
    share_BSS = logits_BSS.float().flatten(1).softmax(dim=1).view_as(logits_BSS)
    places_S = torch.arange(side, device=logits_BSS.device, dtype=torch.float32) / side
    return torch.stack(
        [(share_BSS.sum(dim=1) * places_S).sum(dim=1), (share_BSS.sum(dim=2) * places_S).sum(dim=1)], dim=1
    )


class CornerHead(nn.Module):
    """One box a map: the top left corner from one tower, the bottom right one from the other."""

    def __init__(self, width: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.tl = corner_tower(width, channels)
        self.br = corner_tower(width, channels)

    def forward(self, map_BCSS: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, 4) corners in float32. Nothing orders the two (published)."""
        corners = [expected_place(tower(map_BCSS)[:, 0]) for tower in (self.tl, self.br)]
        return torch.cat(corners, dim=1)


def corners_to_box(corners_B4: Tensor, smallest: float = 0.0) -> Tensor:
    """x1, y1, x2, y2 -> cx, cy, w, h (B, 4); ``smallest`` > 0 bounds w and h from below.

    A running tracker needs a box with an area; in training the bound would cut the gradient of corners that
    are the wrong way round.
    """
    low, high = corners_B4.chunk(2, dim=-1)
    size = high - low
    if smallest > 0:
        size = size.clamp_min(smallest)
    return torch.cat([(low + high) / 2, size], dim=-1)
