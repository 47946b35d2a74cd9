"""ResNet-50 and ResNet-101 to stride 16 (He et al., CVPR 2016): the CNN of STARK and BIT-Tracker.

Knows pictures as tensors and nothing of tracking. Parameter names are torchvision's (``conv1 bn1
layer1.0.conv1 ... layer3.22.bn3``), so public weights load; the fourth stage and the classifier are left
out. The stride sits on the 3x3 convolution, as in torchvision.

Shapes: B batch, S side of the picture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STAGES = {50: (3, 4, 6), 101: (3, 4, 23)}
CHANNELS = 1024
"""Of the third stage, whose features leave."""


class FrozenBatchNorm(nn.Module):
    """Batch norm with fixed statistics and a fixed scale and shift: four buffers, nothing to train.

    Published in DETR; STARK trains its CNN this way, because a batch of few pictures has no good statistics.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x_BCHW * scale[:, None, None].to(x_BCHW.dtype) + shift[:, None, None].to(x_BCHW.dtype)


def _norm(channels: int, frozen: bool) -> nn.Module:
    return FrozenBatchNorm(channels) if frozen else nn.BatchNorm2d(channels)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; four times ``channels`` leave."""

    def __init__(self, inside: int, channels: int, stride: int, *, frozen: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, channels, 1, bias=False)
        self.bn1 = _norm(channels, frozen)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = _norm(channels, frozen)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = _norm(4 * channels, frozen)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inside != 4 * channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, 4 * channels, 1, stride=stride, bias=False), _norm(4 * channels, frozen)
            )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4 * channels, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x_BCHW)))
        y = torch.relu(self.bn2(self.conv2(y)))
        shortcut = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        return torch.relu(self.bn3(self.conv3(y)) + shortcut)


class ResNet(nn.Module):
    """The first three stages.

    Args:
        depth: 50 or 101.
        frozen_norm: batch norm with fixed statistics (as STARK), else one that learns.

    Raises:
        ValueError: another depth.
    """

    def __init__(self, depth: int, *, frozen_norm: bool = True) -> None:
        super().__init__()
        if depth not in STAGES:
            raise ValueError(f"depth must be one of {', '.join(map(str, STAGES))}, got {depth}")
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = _norm(64, frozen_norm)
        first, second, third = STAGES[depth]
        self.layer1 = _stage(64, 64, first, 1, frozen_norm)
        self.layer2 = _stage(256, 128, second, 2, frozen_norm)
        self.layer3 = _stage(512, 256, third, 2, frozen_norm)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image_B3SS: Tensor) -> Tensor:
        """(B, 3, S, S), normalised as ImageNet, S a multiple of 16 -> (B, 1024, S / 16, S / 16)."""
        x = torch.relu(self.bn1(self.conv1(image_B3SS)))
        x = nn.functional.max_pool2d(x, 3, stride=2, padding=1)
        out: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return out


def _stage(inside: int, channels: int, blocks: int, stride: int, frozen: bool) -> nn.Sequential:
    first = Bottleneck(inside, channels, stride, frozen=frozen)
    return nn.Sequential(
        first, *(Bottleneck(4 * channels, channels, 1, frozen=frozen) for _ in range(blocks - 1))
    )
