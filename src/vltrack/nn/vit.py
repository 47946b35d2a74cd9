"""What a ViT needs beside its blocks: the patch embedding and fixed two-dimensional sine-cosine positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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


class PatchEmbed(nn.Module):
    """Non-overlapping patches by one convolution (timm name ``proj``)."""

    def __init__(self, width: int, patch: int = 16) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch, stride=patch)

    def forward(self, image_B3SS: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, (S / patch)^2, C), row by row."""
        tokens: Tensor = self.proj(image_B3SS).flatten(2).transpose(1, 2)
        return tokens
