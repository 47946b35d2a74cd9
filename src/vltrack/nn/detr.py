"""DETR's transformer layers (Carion et al., ECCV 2020) as STARK uses them: post-norm, positions on q and k.

Parameter names are torch's and DETR's
(``self_attn.in_proj_weight self_attn.out_proj linear1 linear2 norm1 norm2``, in the decoder
``multihead_attn`` and ``norm3``), so public weights load.

Shapes: B batch, N query tokens, M key tokens, C width, H heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vltrack.nn.attention import attend, split_heads


def detr_positions(width: int, seen_BSS: Tensor) -> Tensor:
    """Fixed sines (B, S * S, width) of square grids, row by row, as in DETR with ``normalize``.

    Of each column and row the cells that are seen (B, S, S) count from 1 and are scaled to (0, 2 pi]: padding
    squeezes the sines. The first half of the channels encodes the row, the second the column; within each half
    sine and cosine alternate over frequencies 10000^(-2 i / (width / 2)).

    Raises:
        ValueError: ``width`` is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"width {width} is not a multiple of 4")
    half = width // 2
    period_Q = 10000.0 ** (torch.arange(0, half, 2, dtype=torch.float32, device=seen_BSS.device) / half)
    halves = []
    for axis in (1, 2):
        count_BSS = seen_BSS.cumsum(axis, dtype=torch.float32)
        total_BSS = count_BSS.select(axis, -1).unsqueeze(axis)
        place_BSS = count_BSS / (total_BSS + 1e-6) * (2 * math.pi)
        angle_BSSQ = place_BSS[..., None] / period_Q
        halves.append(torch.stack([angle_BSSQ.sin(), angle_BSSQ.cos()], dim=-1).flatten(3))
    return torch.cat(halves, dim=-1).flatten(1, 2)


class PackedAttention(nn.Module):
    """Multi-head attention with q, k and v maps packed in one matrix, as ``torch.nn.MultiheadAttention``."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        _initialize(self.out_proj)

    def forward(self, q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, N, C) attends to (B, M, C) -> (B, N, C). ``bias`` (B, H, N, M) is added to the logits."""
        weights, shifts = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            split_heads(nn.functional.linear(t, weight, shift), self.heads)
            for t, weight, shift in zip((q_BNC, k_BMC, v_BMC), weights, shifts, strict=True)
        )
        if self.training and self.dropout > 0:
            mask = None if bias is None else bias.to(q.dtype)
            out = nn.functional.scaled_dot_product_attention(q, k, v, mask, dropout_p=self.dropout)
        else:
            out = attend(q, k, v, bias)
        projected: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        return projected


class EncoderLayer(nn.Module):
    """x = LN(x + SA(x + p; x + p; x)), and with ``hidden`` x = LN(x + FFN(x)); ReLU inside."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.self_attn = PackedAttention(width, heads, dropout)
        self.norm1 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.hidden = hidden
        if hidden:
            self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
            self.norm2 = nn.LayerNorm(width)
            _initialize(self.linear1, self.linear2)

    def forward(self, x_BNC: Tensor, pos_NC: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, N, C) with positions (N, C) or (B, N, C) -> (B, N, C). ``bias`` (B, 1, 1, N) hides keys."""
        query_BNC = x_BNC + pos_NC
        x_BNC = self.norm1(x_BNC + self.dropout(self.self_attn(query_BNC, query_BNC, x_BNC, bias)))
        if not self.hidden:
            return x_BNC
        inner_BNC = self.linear2(self.dropout(torch.relu(self.linear1(x_BNC))))
        out: Tensor = self.norm2(x_BNC + self.dropout(inner_BNC))
        return out


class QueryDecoderLayer(nn.Module):
    """Self-attention of the query, attention to the memory, FFN; post-norm, ReLU inside."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.self_attn = PackedAttention(width, heads, dropout)
        self.multihead_attn = PackedAttention(width, heads, dropout)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        _initialize(self.linear1, self.linear2)

    def forward(
        self, x_B1C: Tensor, query_1C: Tensor, keys_BMC: Tensor, memory_BMC: Tensor, bias: Tensor | None
    ) -> Tensor:
        """(B, 1, C) -> (B, 1, C). ``query_1C`` is added to queries, ``keys_BMC`` is memory + positions."""
        query_B1C = x_B1C + query_1C
        x_B1C = self.norm1(x_B1C + self.dropout(self.self_attn(query_B1C, query_B1C, x_B1C)))
        found = self.multihead_attn(x_B1C + query_1C, keys_BMC, memory_BMC, bias)
        x_B1C = self.norm2(x_B1C + self.dropout(found))
        inner = self.linear2(self.dropout(torch.relu(self.linear1(x_B1C))))
        out: Tensor = self.norm3(x_B1C + self.dropout(inner))
        return out


class QueryDecoder(nn.Module):
    """STARK's decoder: one learned query attends to the encoder's tokens."""

    def __init__(self, width: int, heads: int, hidden: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.query_embed = nn.Embedding(1, width)
        self.layers = nn.ModuleList(QueryDecoderLayer(width, heads, hidden, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, memory_BMC: Tensor, pos_MC: Tensor, bias: Tensor | None = None) -> Tensor:
        """Encoder tokens (B, M, C) with positions (M, C) or (B, M, C) -> the query after the decoder (B, C)."""
        query_1C = self.query_embed(torch.zeros(1, dtype=torch.long, device=memory_BMC.device))
        x_B1C = memory_BMC.new_zeros(len(memory_BMC), 1, memory_BMC.shape[-1])
        keys_BMC = memory_BMC + pos_MC
        for layer in self.layers:
            x_B1C = layer(x_B1C, query_1C, keys_BMC, memory_BMC, bias)
        out: Tensor = self.norm(x_B1C)[:, 0]
        return out


def _initialize(*linears: nn.Linear) -> None:
    """DETR's initialization: Xavier weights, biases of zero as in torch's attention."""
    for linear in linears:
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
