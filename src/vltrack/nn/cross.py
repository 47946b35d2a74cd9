"""Attention from one token stream to another: the one block for every exchange between streams.

Serves BIT-Tracker's CNN-Transformer interaction, SATracker's enhance and semantic modules and AITrack's
fusion encoder. Shapes: B batch, N tokens that ask, M tokens that are asked, C width, H heads.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vltrack.nn.attention import Mlp, attend


class CrossAttention(nn.Module):
    """Multi-head attention of x to y, with linear maps ``q``, ``kv`` and ``proj``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def keys_values(self, y_BMC: Tensor, y_pos: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, M, D) of y, for callers that keep them; ``y_pos`` is added for keys only."""
        if y_pos is None:
            k_BMC, v_BMC = self.kv(y_BMC).chunk(2, dim=-1)
        else:
            weight_k, weight_v = self.kv.weight.chunk(2)
            bias_k, bias_v = self.kv.bias.chunk(2)
            k_BMC = nn.functional.linear(y_BMC + y_pos, weight_k, bias_k)
            v_BMC = nn.functional.linear(y_BMC, weight_v, bias_v)
        return self._split(k_BMC), self._split(v_BMC)

    def ask(self, x_BNC: Tensor, k_BHMD: Tensor, v_BHMD: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, N, C) against keys and values of ``keys_values`` -> (B, N, C)."""
        b, n, c = x_BNC.shape
        out_BNC = attend(self._split(self.q(x_BNC)), k_BHMD, v_BHMD, bias).transpose(1, 2).reshape(b, n, c)
        projected: Tensor = self.proj(out_BNC)
        return projected

    def forward(
        self,
        x_BNC: Tensor,
        y_BMC: Tensor,
        bias: Tensor | None = None,
        x_pos: Tensor | None = None,
        y_pos: Tensor | None = None,
    ) -> Tensor:
        """(B, N, C), (B, M, C) -> (B, N, C). ``bias`` is added to the logits, broadcast to (B, H, N, M)."""
        k, v = self.keys_values(y_BMC, y_pos)
        return self.ask(x_BNC if x_pos is None else x_BNC + x_pos, k, v, bias)

    def _split(self, t_BNC: Tensor) -> Tensor:
        b, n, c = t_BNC.shape
        return t_BNC.view(b, n, self.heads, c // self.heads).transpose(1, 2)


class CrossBlock(nn.Module):
    """Cross-attention with a residual, and where ``hidden`` is given an MLP after it.

    ``post``: x = LN(x + CA(x; y)), x = LN(x + MLP(x)), as in DETR. ``pre``: x + g CA(LN x; LN y) and
    + MLP(LN x), as in ViT; with ``gate`` g is a learned number that starts at zero, so that the block starts
    as the identity.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        norm: Literal["pre", "post"] = "pre",
        hidden: int = 0,
        gate: bool = False,
    ) -> None:
        super().__init__()
        if gate and (norm == "post" or hidden):
            raise ValueError("a gate belongs to a pre-norm block without MLP: only that one can start idle")
        self.pre = norm == "pre"
        self.attn = CrossAttention(width, heads)
        self.norm1 = nn.LayerNorm(width, eps=1e-6 if self.pre else 1e-5)
        if self.pre:
            self.norm_y = nn.LayerNorm(width, eps=1e-6)
        self.gate = nn.Parameter(torch.zeros(())) if gate else None
        self.mlp = Mlp(width, hidden) if hidden else None
        if hidden:
            self.norm2 = nn.LayerNorm(width, eps=1e-6 if self.pre else 1e-5)

    def forward(
        self,
        x_BNC: Tensor,
        y_BMC: Tensor,
        bias: Tensor | None = None,
        x_pos: Tensor | None = None,
        y_pos: Tensor | None = None,
    ) -> Tensor:
        """(B, N, C), (B, M, C) -> (B, N, C); positions are added for queries and keys only.

        ``bias`` must leave at least one key of y to every x, else attention has nothing to weigh: NaN.
        """
        if self.pre:
            found = self.attn(self.norm1(x_BNC), self.norm_y(y_BMC), bias, x_pos, y_pos)
            x_BNC = x_BNC + (found if self.gate is None else self.gate * found)
            return x_BNC if self.mlp is None else x_BNC + self.mlp(self.norm2(x_BNC))
        x_BNC = self.norm1(x_BNC + self.attn(x_BNC, y_BMC, bias, x_pos, y_pos))
        out: Tensor = x_BNC if self.mlp is None else self.norm2(x_BNC + self.mlp(x_BNC))
        return out
