"""Stems: networks that turn an image into stride-16 tokens, and where a model correlates, its features.

``PatchStem`` is a ViT's patch embedding, ``MobileStem`` MobileNetV2, ``ResNetStem`` ResNet-50 or -101.

Shapes: B batch, N = (S / 16)^2 cells row by row, C width, F coarse channels, F' fine channels (four a cell).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


def sincos_positions(width: int, side: int) -> Tensor:
    """Fixed positions (side * side, width) of a square grid, row by row, as in MAE.

    The first half of the channels encodes the column, the second the row; each half is [sin, cos] over
    frequencies 10000^(-i / (width / 4)).
    """
    if width % 4:
        raise ValueError(f"width {width} is not a multiple of 4")
    omega = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles_SQ = torch.arange(side, dtype=torch.float64)[:, None] * omega[None]
    axis_SH = torch.cat([angles_SQ.sin(), angles_SQ.cos()], dim=1)
    columns = axis_SH[None, :, :].expand(side, side, -1)
    rows = axis_SH[:, None, :].expand(side, side, -1)
    return torch.cat([columns, rows], dim=-1).reshape(side * side, width).float()


# (expansion, channels, repeats, stride) of the inverted residuals up to stride 16 with 96 channels
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
STRIDE8_CHANNELS = 32
STRIDE16_CHANNELS = 96


class MobileNetV2(nn.Module):
    """MobileNetV2 1.0 to stride 16, batch norm folded in: features at strides 8 (32 channels) and 16 (96).

    Public weights: ImageNet, Apache-2.0. Layers are numbered as in the published file (``NN.weight``,
    ``NN.bias``): 00-02 first block, then three per block. Padding is TensorFlow's SAME: stride 1 one pixel on
    every side; stride 2 with an even input none left and top, one right and bottom. Input is RGB / 127.5 - 1.
    """

    def __init__(self) -> None:
        super().__init__()
        convs: list[nn.Conv2d] = [_conv(3, 32, 3, 2)]
        # one entry per block: (first conv, one past the last, residual)
        self._blocks: list[tuple[int, int, bool]] = []
        channels = 32
        for expansion, out, repeats, first_stride in _STAGES:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                begin, hidden = len(convs), channels * expansion
                if expansion > 1:
                    convs.append(_conv(channels, hidden, 1, 1))
                convs.append(_conv(hidden, hidden, 3, stride, groups=hidden))
                convs.append(_conv(hidden, out, 1, 1))
                self._blocks.append((begin, len(convs), stride == 1 and channels == out))
                channels = out
        self.convs = nn.ModuleList(convs)

    def forward(self, image_B3SS: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S), S a multiple of 16 -> (B, 32, S/8, S/8) and (B, 96, S/16, S/16)."""
        learn = [any(p.requires_grad for p in self.convs[:end].parameters()) for _, end, _ in self._blocks]
        frozen = learn.index(True) if any(learn) else len(learn)
        maps = image_B3SS, image_B3SS
        if self.training and frozen:
            if torch.is_autocast_enabled(image_B3SS.device.type):
                maps = (image_B3SS.to(torch.get_autocast_dtype(image_B3SS.device.type)),) * 2
            with torch.no_grad():
                maps = self._run(maps, 0, frozen)
        return self._run(maps, frozen if self.training else 0, len(learn))

    def _run(self, maps: tuple[Tensor, Tensor], first: int, last: int) -> tuple[Tensor, Tensor]:
        """Blocks ``first`` up to ``last``, from and to a map at stride 8, once reached, and the latest map."""
        stride8, x = maps
        if not first:
            x = _activated(self.convs[0], x)
        for begin, end, residual in self._blocks[first:last]:
            y = x
            for i in range(begin, end - 1):
                y = _activated(self.convs[i], y)
            y = self.convs[end - 1](y)
            x = x + y if residual else y
            if x.shape[1] == STRIDE8_CHANNELS:
                stride8 = x
        return stride8, x

    def load_numbered(self, arrays: dict[str, Tensor]) -> None:
        """Load ``NN.weight`` and ``NN.bias`` into every convolution (00, 01, ...).

        Raises:
            KeyError: one is missing. ValueError: one has another shape.
        """
        with torch.no_grad():
            for number, conv in enumerate(self.convs):
                for name, own in conv.named_parameters():
                    given = arrays[f"{number:02d}.{name}"]
                    if given.shape != own.shape:  # copy_ would broadcast
                        raise ValueError(f"{number:02d}.{name} is {tuple(given.shape)}, not {tuple(own.shape)}")
                    own.copy_(given)


def _conv(inside: int, outside: int, kernel: int, stride: int, groups: int = 1) -> nn.Conv2d:
    padding = kernel // 2 if stride == 1 else 0
    return nn.Conv2d(inside, outside, kernel, stride=stride, padding=padding, groups=groups)


_SUPPORTED = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
_FUSED: Callable[..., Tensor] | None = (
    getattr(torch.ops.mkldnn, "_convolution_pointwise", None) if _SUPPORTED() else None
)
"""oneDNN's convolution with an activation, where torch and the processor have it."""


def _activated(module: nn.Module, x: Tensor) -> Tensor:
    """Convolution with SAME padding and ReLU6.

    In bfloat16 on the CPU, which only training uses, it runs as oneDNN does it best: without a gradient in one pass.
    """
    conv, fast = cast(nn.Conv2d, module), x.dtype == torch.bfloat16 and x.device.type == "cpu"
    if fast and _FUSED is not None and not torch.is_grad_enabled():
        weight, bias = conv.weight.to(x.dtype), cast(Tensor, conv.bias).to(x.dtype)
        shape = conv.padding, conv.stride, conv.dilation, conv.groups
        return _FUSED(_padded(x) if conv.stride[0] == 2 else x, weight, bias, *shape, "hardtanh", [0.0, 6.0], "")
    if conv.stride[0] == 2:
        x = functional.pad(x, (0, 1, 0, 1))
    if fast and conv.stride[0] == 2 and conv.groups > 1:
        # The gradient of such a layer takes a fifth of the time in float32.
        with torch.autocast("cpu", enabled=False):
            out: Tensor = conv(x.float()).to(x.dtype)
    else:
        out = conv(x)
    return functional.relu6(out, inplace=True)


def _padded(x: Tensor) -> Tensor:
    """One row and column of zeros at the bottom and right: faster than ``functional.pad``, without a gradient."""
    b, c, h, w = x.shape
    out = torch.empty((b, c, h + 1, w + 1), dtype=x.dtype, memory_format=torch.channels_last)
    out[:, :, h] = 0
    out[..., w] = 0
    out[:, :, :h, :w] = x
    return out


class FrozenBatchNorm(nn.Module):
    """Batch norm with fixed statistics and a fixed scale and shift: four buffers, nothing to train.

    Published in DETR; STARK trains its CNN this way, because a small batch has no good statistics.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x_BCHW * scale[:, None, None].to(x_BCHW.dtype) + shift[:, None, None].to(x_BCHW.dtype)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; four times ``channels`` leave."""

    def __init__(self, inside: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, channels, 1, bias=False)
        self.bn1 = FrozenBatchNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = FrozenBatchNorm(4 * channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inside != 4 * channels:
            widen = nn.Conv2d(inside, 4 * channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(widen, FrozenBatchNorm(4 * channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4 * channels, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x_BCHW)))
        y = torch.relu(self.bn2(self.conv2(y)))
        shortcut = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        return torch.relu(self.bn3(self.conv3(y)) + shortcut)


class ResNet(nn.Module):
    """ResNet-50 or -101 to stride 16 (He et al., CVPR 2016), the CNN of STARK and BIT-Tracker: three stages.

    Parameter names are torchvision's, so public weights load; the fourth stage and the classifier are left
    out. The stride is in the 3x3 convolution, as in torchvision. ``depth`` is 50 or 101.
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm(64)
        self.layer1 = _stage(64, 64, 3, 1)
        self.layer2 = _stage(256, 128, 4, 2)
        self.layer3 = _stage(512, 256, {50: 6, 101: 23}[depth], 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image_B3SS: Tensor) -> Tensor:
        """(B, 3, S, S), normalized as for ImageNet, S a multiple of 16 -> (B, 1024, S / 16, S / 16)."""
        x = torch.relu(self.bn1(self.conv1(image_B3SS)))
        x = nn.functional.max_pool2d(x, 3, stride=2, padding=1)
        out: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return out


def _stage(inside: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(inside, channels, stride)
    return nn.Sequential(first, *(Bottleneck(4 * channels, channels, 1) for _ in range(blocks - 1)))


@dataclass(frozen=True, kw_only=True)
class Patches:
    """Tokens (B, N, C), features at stride 16 (B, N, F) and stride 8 (B, 4N, F'), a cell's four together."""

    tokens_BNC: Tensor
    coarse_BNF: Tensor
    fine_B4NF: Tensor


def tokens_alone(map_BCSS: Tensor) -> Patches:
    """Patches of a map, row by row, with empty features."""
    tokens_BNC = map_BCSS.flatten(2).transpose(1, 2)
    return Patches(tokens_BNC=tokens_BNC, coarse_BNF=tokens_BNC[..., :0], fine_B4NF=tokens_BNC[..., :0])


class PatchStem(nn.Module):
    """ViT's patch embedding; tokens without further features."""

    coarse = fine = 0

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, kernel_size=16, stride=16)})

    def forward(self, image_B3SS: Tensor) -> Patches:
        """(B, 3, S, S) -> ``Patches`` with empty features."""
        return tokens_alone(self.patch_embed["proj"](image_B3SS))


class MobileStem(nn.Module):
    """MobileNetV2 to stride 16; tokens are a linear map of both strides' features."""

    coarse, fine = STRIDE16_CHANNELS, STRIDE8_CHANNELS

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = MobileNetV2()
        self.project = nn.Linear(self.coarse + 4 * self.fine, width)

    def forward(self, image_B3SS: Tensor) -> Patches:
        """(B, 3, S, S) -> ``Patches``."""
        fine_map, coarse_map = self.backbone(image_B3SS.contiguous(memory_format=torch.channels_last))
        b, f, s2, _ = fine_map.shape
        s = s2 // 2
        coarse = coarse_map.flatten(2).transpose(1, 2)
        fine = fine_map.view(b, f, s, 2, s, 2).permute(0, 2, 4, 3, 5, 1).reshape(b, 4 * s * s, f)
        tokens = self.project(torch.cat([coarse, fine.reshape(b, s * s, 4 * f)], dim=-1))
        return Patches(tokens_BNC=tokens, coarse_BNF=coarse, fine_B4NF=fine)


class ResNetStem(nn.Module):
    """ResNet to stride 16 with frozen batch norm, then a 1x1 convolution to the width (as STARK)."""

    coarse = fine = 0

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.body = ResNet(depth)
        self.project = nn.Conv2d(1024, width, 1)

    def forward(self, image_B3SS: Tensor) -> Patches:
        """(B, 3, S, S) -> ``Patches`` with empty features."""
        return tokens_alone(self.project(self.body(image_B3SS)))


STEMS: dict[str, Callable[[int], PatchStem | MobileStem | ResNetStem]] = {
    "patch16": PatchStem,
    "mobilenet": MobileStem,
    "resnet50": partial(ResNetStem, depth=50),
    "resnet101": partial(ResNetStem, depth=101),
}
"""By configuration name: a function from the width to a stem."""
