"""Transformer blocks with a key mask: attention, MLP, the pre-norm block, and LiteTrack's channel gate.

Parameter names are timm's (``norm1 attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2``) so that public ViT weights
load.

Shapes: B batch, N tokens, C width, H heads, D = C / H.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


def key_bias(valid_BN: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, N) bool -> (B, 1, 1, N) additive bias: 0 where valid, -inf where a key must not be seen."""
    bias = torch.zeros(valid_BN.shape, dtype=dtype, device=valid_BN.device)
    return bias.masked_fill(~valid_BN, float("-inf"))[:, None, None, :]


def attend(q_BHND: Tensor, k_BHMD: Tensor, v_BHMD: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention, written out on the CPU: the fused kernel is 2.5x slower there in bf16."""
    if q_BHND.device.type != "cpu":
        mask = None if bias is None else bias.to(q_BHND.dtype)
        fused: Tensor = nn.functional.scaled_dot_product_attention(q_BHND, k_BHMD, v_BHMD, attn_mask=mask)
        return fused
    logits = (q_BHND * q_BHND.shape[-1] ** -0.5) @ k_BHMD.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias
    weights: Tensor = logits.softmax(dim=-1).to(v_BHMD.dtype)
    return weights @ v_BHMD


class ChannelGate(nn.Module):
    """Squeeze-and-excitation gate on the attention output (LiteTrack's CSA).

    Published code pools over all tokens and loses the mask on the way; ours pools over valid tokens only, and
    starts at sigmoid(4) = 0.98 so that pretrained blocks keep working (unpublished; our design).
    """

    def __init__(self, width: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, max(4, width // reduction))
        self.fc2 = nn.Linear(max(4, width // reduction), width)
        nn.init.normal_(self.fc2.weight, std=0.01)
        nn.init.constant_(self.fc2.bias, 4.0)

    def forward(self, out_BNC: Tensor, valid_BN: Tensor | None) -> Tensor:
        """Scale the channels of (B, N, C) by a gate computed from the mean over valid tokens."""
        if valid_BN is None:
            pooled_BC = out_BNC.mean(dim=1)
        else:
            weight_BN1 = valid_BN.to(out_BNC.dtype)[..., None]
            # masked_fill, not a product: nothing of a masked token may reach the sum.
            kept_BNC = out_BNC.masked_fill(~valid_BN[..., None], 0.0)
            pooled_BC = kept_BNC.sum(dim=1) / weight_BN1.sum(dim=1).clamp_min(1.0)
        gate_BC = torch.sigmoid(self.fc2(torch.relu(self.fc1(pooled_BC))))
        return out_BNC * gate_BC[:, None, :].to(out_BNC.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with a key mask and an optional channel gate before the output projection."""

    def __init__(self, width: int, heads: int, *, gate: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.gate = ChannelGate(width) if gate else None

    def forward(self, x_BNC: Tensor, bias: Tensor | None = None, valid_BN: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C). ``bias`` (B, 1, 1, N) hides keys; the gate pools over ``valid_BN``."""
        b, n, c = x_BNC.shape
        q, k, v = self.qkv(x_BNC).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        out_BNC = attend(q, k, v, bias).transpose(1, 2).reshape(b, n, c)
        if self.gate is not None:
            out_BNC = self.gate(out_BNC, valid_BN)
        projected: Tensor = self.proj(out_BNC)
        return projected


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        out: Tensor = self.fc2(nn.functional.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Pre-norm transformer block (ViT)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0, *, gate: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, gate=gate)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x_BNC: Tensor, bias: Tensor | None = None, valid_BN: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x_BNC = x_BNC + self.attn(self.norm1(x_BNC), bias, valid_BN)
        out: Tensor = x_BNC + self.mlp(self.norm2(x_BNC))
        return out


# MERGED nn/attention.py
# Attention from one token stream to another: the one block for every exchange between streams.
#
# Serves BIT-Tracker's CNN-Transformer interaction, SATracker's enhance and semantic modules and AITrack's
# fusion encoder. Shapes: B batch, N tokens that ask, M tokens that are asked, C width, H heads.


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
