"""Transformer parts with a key mask: self- and cross-attention, MLP, blocks, and LiteTrack's channel gate.

Parameter names of ``Block`` are timm's (``norm1 attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2``) so that public
ViT weights load.

Shapes: B batch, N query tokens, M key tokens, C width, H heads, D = C / H.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def key_bias(valid_BN: Tensor) -> Tensor | None:
    """(B, N) bool -> (B, 1, 1, N) float32 additive bias: 0 for valid keys, -inf for masked ones.

    None while a graph is traced (``export.graphs``) in which every key is valid.
    """
    if all_traced(valid_BN):
        return None
    bias = torch.zeros(valid_BN.shape, device=valid_BN.device)
    return bias.masked_fill(~valid_BN, float("-inf"))[:, None, None, :]


def tracing() -> bool:
    """Return whether a graph is being traced (``export.graphs``)."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def all_traced(mask: Tensor) -> bool:
    """Return whether a graph is being traced (``export.graphs``) in which this mask is True everywhere.

    Masks of a graph are constants: flags and the lengths of sentences, which have no padding at inference.
    """
    return tracing() and bool(mask.all())


def gather_tokens(x_BNC: Tensor, order_BK: Tensor) -> Tensor:
    """(B, N, C), (B, K) -> (B, K, C)."""
    if tracing():  # whole rows of the one sample
        return x_BNC.index_select(1, order_BK[0])
    return x_BNC.gather(1, order_BK[..., None].expand(-1, -1, x_BNC.shape[-1]))


def scatter_tokens(kept_BKC: Tensor, order_BK: Tensor, tokens: int) -> Tensor:
    """(B, K, C), (B, K) -> (B, ``tokens``, C) with zeros in the other places."""
    if tracing():  # whole rows of the one sample; the row before them is zero
        rows_1K = torch.arange(1, order_BK.shape[1] + 1)[None]
        row_1N = torch.zeros(1, tokens, dtype=torch.long).scatter(1, order_BK, rows_1K)
        return gather_tokens(nn.functional.pad(kept_BKC, (0, 0, 1, 0)), row_1N)
    full_BNC = kept_BKC.new_zeros(kept_BKC.shape[0], tokens, kept_BKC.shape[2])
    return full_BNC.scatter(1, order_BK[..., None].expand_as(kept_BKC), kept_BKC)


def attend(q_BHND: Tensor, k_BHMD: Tensor, v_BHMD: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention; written out on the CPU, where the fused kernel is 2.5x slower in bf16."""
    if q_BHND.device.type != "cpu":
        mask = None if bias is None else bias.to(q_BHND.dtype)
        return nn.functional.scaled_dot_product_attention(q_BHND, k_BHMD, v_BHMD, attn_mask=mask)
    odd = k_BHMD.shape[2] % 8 if bias is not None and q_BHND.dtype == torch.bfloat16 else 0
    if odd and bias is not None:  # matrices of uneven rows are slow
        k_BHMD, v_BHMD = (nn.functional.pad(each, (0, 0, 0, 8 - odd)) for each in (k_BHMD, v_BHMD))
        bias = nn.functional.pad(bias, (0, 8 - odd), value=float("-inf"))
    logits = (q_BHND * q_BHND.shape[-1] ** -0.5) @ k_BHMD.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias.to(logits.dtype)
    # Autocast would copy all logits to float32; softmax sums in it anyway.
    with torch.autocast("cpu", enabled=False):
        weights: Tensor = logits.softmax(dim=-1)
    return weights.to(v_BHMD.dtype) @ v_BHMD


def split_heads(x_BNC: Tensor, heads: int) -> Tensor:
    """(B, N, C) -> (B, H, N, D)."""
    return x_BNC.view(*x_BNC.shape[:2], heads, -1).transpose(1, 2)


def split_packed(qkv_BNE: Tensor, heads: int) -> Tensor:
    """Queries, keys and values side by side: (B, N, 3 C) -> (3, B, H, N, D)."""
    return qkv_BNE.view(*qkv_BNE.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)


def attend_packed(qkv_BNE: Tensor, heads: int, bias: Tensor | None) -> Tensor:
    """Self-attention of queries, keys and values side by side: (B, N, 3 C) -> (B, N, C)."""
    q, k, v = split_packed(qkv_BNE, heads)
    return attend(q, k, v, bias).transpose(1, 2).flatten(2)


class ChannelGate(nn.Module):
    """Squeeze-and-excitation gate on the attention output (LiteTrack's CSA).

    Published code pools over all tokens and loses the mask on the way; ours pools over valid tokens only, and
    starts at sigmoid(4) = 0.98 so that pretrained blocks keep working (unpublished; our design).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(4, width // 16)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        nn.init.normal_(self.fc2.weight, std=0.01)
        nn.init.constant_(self.fc2.bias, 4.0)

    def forward(self, out_BNC: Tensor, valid_BN: Tensor | None) -> Tensor:
        """Scale the channels of (B, N, C) by a gate of their mean over valid tokens."""
        if valid_BN is None or all_traced(valid_BN):
            pooled_BC = out_BNC.mean(dim=1)
        else:
            weight_BN1 = valid_BN.to(out_BNC.dtype)[..., None]
            # masked_fill, not a product: not even a NaN of a masked token may reach the sum.
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

    def forward(
        self,
        x_BNC: Tensor,
        bias: Tensor | None = None,
        valid_BN: Tensor | None = None,
        seen_B2HMD: Tensor | None = None,
    ) -> Tensor:
        """(B, N, C) -> (B, N, C). ``bias`` (B, 1, 1, keys) hides keys; the gate pools over ``valid_BN``.

        ``seen_B2HMD`` are keys and values of M other tokens, which come before those of x.
        """
        q, k, v = split_packed(self.qkv(x_BNC), self.heads)
        if seen_B2HMD is not None:
            k, v = (torch.cat([seen_B2HMD[:, i], own], dim=2) for i, own in enumerate((k, v)))
        out_BNC = attend(q, k, v, bias).transpose(1, 2).flatten(2)
        if self.gate is not None:
            out_BNC = self.gate(out_BNC, valid_BN)
        projected: Tensor = self.proj(out_BNC)
        return projected

    def keys_values(self, x_BNC: Tensor) -> Tensor:
        """(B, N, C) -> (B, 2, H, N, D): keys and values of tokens to which others attend."""
        width = x_BNC.shape[-1]
        kv_BNE = nn.functional.linear(x_BNC, self.qkv.weight[width:], self.qkv.bias[width:])
        return kv_BNE.view(*x_BNC.shape[:2], 2, self.heads, -1).permute(0, 2, 3, 1, 4)


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
    """Pre-norm transformer block (ViT).

    Attributes:
        drop_path: share of samples whose attention, and whose MLP, is left out in training (stochastic depth); the
            others weigh more. A training recipe sets it.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0, *, gate: bool = False) -> None:
        super().__init__()
        self.drop_path = 0.0
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, gate=gate)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(
        self,
        x_BNC: Tensor,
        bias: Tensor | None = None,
        valid_BN: Tensor | None = None,
        seen_B2HMD: Tensor | None = None,
    ) -> Tensor:
        """(B, N, C) -> (B, N, C), see ``Attention``."""
        x_BNC = x_BNC + self.branch(self.attn(self.norm1(x_BNC), bias, valid_BN, seen_B2HMD))
        out: Tensor = x_BNC + self.branch(self.mlp(self.norm2(x_BNC)))
        return out

    def keys_values(self, x_BNC: Tensor) -> Tensor:
        """(B, N, C) -> (B, 2, H, N, D), see ``Attention``."""
        return self.attn.keys_values(self.norm1(x_BNC))

    def branch(self, y_BNC: Tensor) -> Tensor:
        """Leave the residual branch out of some samples in training, see ``drop_path``."""
        if not (self.training and self.drop_path):
            return y_BNC
        keep = 1 - self.drop_path
        kept_B11 = (torch.rand(len(y_BNC), 1, 1, device=y_BNC.device) < keep).to(y_BNC.dtype)
        return y_BNC * (kept_B11 / keep)


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

    def forward(
        self,
        x_BNC: Tensor,
        y_BMC: Tensor,
        bias: Tensor | None = None,
        x_pos: Tensor | None = None,
        y_pos: Tensor | None = None,
    ) -> Tensor:
        """(B, N, C), (B, M, C) -> (B, N, C); positions are added for queries and keys only.

        ``bias`` is added to the logits, broadcast to (B, H, N, M). It must leave at least one key to every
        query, else softmax is undefined: NaN.
        """
        if y_pos is None:
            k_BMC, v_BMC = self.kv(y_BMC).chunk(2, dim=-1)
        else:
            weight_k, weight_v = self.kv.weight.chunk(2)
            bias_k, bias_v = self.kv.bias.chunk(2)
            k_BMC = nn.functional.linear(y_BMC + y_pos, weight_k, bias_k)
            v_BMC = nn.functional.linear(y_BMC, weight_v, bias_v)
        q_BNC = self.q(x_BNC if x_pos is None else x_BNC + x_pos)
        q, k, v = (split_heads(each, self.heads) for each in (q_BNC, k_BMC, v_BMC))
        projected: Tensor = self.proj(attend(q, k, v, bias).transpose(1, 2).flatten(2))
        return projected
