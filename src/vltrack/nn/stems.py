"""Stems: an image becomes stride-16 tokens, and where a model matches explicitly, the features to match with.

Shapes: B batch, N = (S / 16)^2 cells row by row, C width, F coarse channels, F' fine channels (four a cell).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vltrack.nn.mobilenet import STRIDE8_CHANNELS, STRIDE16_CHANNELS, MobileNetV2
from vltrack.nn.resnet import CHANNELS, ResNet
from vltrack.nn.vit import PatchEmbed


@dataclass(frozen=True, kw_only=True)
class Patches:
    """Tokens (B, N, C), features at stride 16 (B, N, F) and stride 8 (B, 4N, F'), a cell's four together."""

    tokens_BNC: Tensor
    coarse_BNF: Tensor
    fine_B4NF: Tensor


class PatchStem(nn.Module):
    """ViT's patch embedding; no features beside the tokens."""

    coarse = 0
    fine = 0

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(width)

    def forward(self, image_B3SS: Tensor) -> Patches:
        """(B, 3, S, S) -> ``Patches`` with empty features."""
        tokens = self.patch_embed(image_B3SS)
        none = tokens[..., :0]
        return Patches(tokens_BNC=tokens, coarse_BNF=none, fine_B4NF=none)


class MobileStem(nn.Module):
    """MobileNetV2 to stride 16; tokens are a linear map of both strides' features."""

    coarse = STRIDE16_CHANNELS
    fine = STRIDE8_CHANNELS

    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = MobileNetV2()
        self.project = nn.Linear(self.coarse + 4 * self.fine, width)

    def forward(self, image_B3SS: Tensor) -> Patches:
        """(B, 3, S, S) -> ``Patches``."""
        fine_map, coarse_map = self.trunk(image_B3SS.contiguous(memory_format=torch.channels_last))
        b, f, s2, _ = fine_map.shape
        s = s2 // 2
        coarse = coarse_map.flatten(2).transpose(1, 2)
        fine = fine_map.view(b, f, s, 2, s, 2).permute(0, 2, 4, 3, 5, 1).reshape(b, 4 * s * s, f)
        tokens = self.project(torch.cat([coarse, fine.reshape(b, s * s, 4 * f)], dim=-1))
        return Patches(tokens_BNC=tokens, coarse_BNF=coarse, fine_B4NF=fine)


class ResNetStem(nn.Module):
    """ResNet to stride 16 with frozen batch norm, then a 1x1 convolution to the width (as STARK)."""

    coarse = 0
    fine = 0

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.body = ResNet(depth)
        self.project = nn.Conv2d(CHANNELS, width, 1)

    def forward(self, image_B3SS: Tensor) -> Patches:
        """(B, 3, S, S) -> ``Patches`` with empty features."""
        tokens = self.project(self.body(image_B3SS)).flatten(2).transpose(1, 2)
        none = tokens[..., :0]
        return Patches(tokens_BNC=tokens, coarse_BNF=none, fine_B4NF=none)


STEMS: dict[str, Callable[[int], PatchStem | MobileStem | ResNetStem]] = {
    "patch16": PatchStem,
    "mobilenet": MobileStem,
    "resnet50": partial(ResNetStem, depth=50),
    "resnet101": partial(ResNetStem, depth=101),
}
"""By configuration name: a function from the width to a stem."""
