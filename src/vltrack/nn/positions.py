"""Positions as additive attention bias between square grids: untied absolute (TUPE) plus relative.

Parameter names are ARTrack's. Knows grids, not what lies on them. Source: released code of ARTrack.

Shapes: H heads, P and N cells of two grids, row by row, C width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _Axes(nn.Module):
    """One learned vector a column and one a row."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.w_pos = nn.Parameter(torch.randn(side, width) * 0.02)
        self.h_pos = nn.Parameter(torch.randn(side, width) * 0.02)


class UntiedPositions(nn.Module):
    """Queries and keys (H, N, D) of a grid's places alone, apart from what lies there."""

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.pos = _Axes(width, side)
        self.norm = nn.LayerNorm(width)
        self.pos_q_linear = nn.Linear(width, width)
        self.pos_k_linear = nn.Linear(width, width)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Queries, already divided by sqrt(D), and keys."""
        places_NC = self.norm((self.pos.h_pos[:, None] + self.pos.w_pos[None]).flatten(0, 1))
        q, k = (
            linear(places_NC).view(len(places_NC), self.heads, -1).transpose(0, 1)
            for linear in (self.pos_q_linear, self.pos_k_linear)
        )
        return q * q.shape[-1] ** -0.5, k


class RelativeBias(nn.Module):
    """A learned number a head for every offset between cells of two grids of the same cell size."""

    index_PN: Tensor

    def __init__(self, heads: int, side: int, other_side: int) -> None:
        super().__init__()
        offsets = side + other_side - 1
        self.relative_position_bias_table = nn.Parameter(torch.randn(heads, offsets**2) * 0.02)
        self.register_buffer("index_PN", relative_index(side, other_side), persistent=False)

    def forward(self) -> Tensor:
        """(H, P, N)."""
        return self.relative_position_bias_table[:, self.index_PN]


def relative_index(side: int, other_side: int) -> Tensor:
    """(P, N) number of the offset (rows, columns) from each cell of the second grid to each of the first.

    Offsets are numbered in ascending order, rows first, as in the released tables.
    """
    steps = torch.arange(side)[:, None] - torch.arange(other_side)[None] + other_side - 1
    rows, columns = steps[:, None, :, None], steps[None, :, None, :]
    return (rows * (side + other_side - 1) + columns).reshape(side**2, other_side**2)
