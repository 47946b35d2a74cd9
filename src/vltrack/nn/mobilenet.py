"""The MobileNetV2 1.0 trunk to stride 16, batch norm folded in (public weights: ImageNet, Apache-2.0).

Layers are numbered as in the published file (``NN.weight``, ``NN.bias``): 00-02 first block, then three a
block. Padding is TensorFlow's SAME: stride 1 one pixel on every side; stride 2 with an even input none left
and top, one right and bottom. Input is RGB / 127.5 - 1.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

# (expansion, channels, repeats, stride) of the inverted residuals up to stride 16 with 96 channels
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
STRIDE8_CHANNELS = 32
STRIDE16_CHANNELS = 96


class MobileNetV2(nn.Module):
    """Features at strides 8 (32 channels) and 16 (96 channels)."""

    def __init__(self) -> None:
        super().__init__()
        convs: list[nn.Conv2d] = [_conv(3, 32, 3, 2)]
        # one entry a block: (first conv, one past the last, residual)
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
        x = functional.relu6(_same(self.convs[0], image_B3SS))
        stride8 = x
        for begin, end, residual in self._blocks:
            y = x
            for i in range(begin, end - 1):
                y = functional.relu6(_same(self.convs[i], y))
            y = self.convs[end - 1](y)
            x = x + y if residual else y
            if x.shape[1] == STRIDE8_CHANNELS:
                stride8 = x
        return stride8, x

    def load_numbered(self, arrays: dict[str, Tensor]) -> None:
        """Take ``NN.weight`` and ``NN.bias`` for every convolution (00, 01, ...).

        Raises:
            KeyError: one is missing. ValueError: one has another shape.
        """
        with torch.no_grad():
            for number, conv in enumerate(self.convs):
                for name, own in conv.named_parameters():
                    given = arrays[f"{number:02d}.{name}"]
                    if given.shape != own.shape:  # copy_ would broadcast
                        raise ValueError(
                            f"{number:02d}.{name} is {tuple(given.shape)}, not {tuple(own.shape)}"
                        )
                    own.copy_(given)


def _conv(inside: int, outside: int, kernel: int, stride: int, groups: int = 1) -> nn.Conv2d:
    padding = kernel // 2 if stride == 1 else 0
    return nn.Conv2d(inside, outside, kernel, stride=stride, padding=padding, groups=groups)


def _same(conv: nn.Module, x: Tensor) -> Tensor:
    if cast(nn.Conv2d, conv).stride[0] == 2:
        x = functional.pad(x, (0, 1, 0, 1))
    out: Tensor = conv(x)
    return out
