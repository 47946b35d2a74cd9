"""BERT encoder with a given number of layers and Hugging Face's parameter names.

The word table may be narrower than the width and projected up (``embeddings.embeddings_project``). The pooler
is left out.

Shapes: B batch, L word pieces, C width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from vltrack.nn.attention import attend, split_heads


class BertEmbeddings(nn.Module):
    """Word, position and type embeddings, normalized."""

    def __init__(self, width: int, table_width: int, positions: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(30522, table_width, padding_idx=0)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(1 if table_width != width else 2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)
        self.embeddings_project = nn.Linear(table_width, width) if table_width != width else None
        for table in (self.word_embeddings, self.position_embeddings, self.token_type_embeddings):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, ids_BL: Tensor) -> Tensor:
        """(B, L) int64 -> (B, L, C)."""
        words = self.word_embeddings(ids_BL)
        if self.embeddings_project is not None:
            words = self.embeddings_project(words)
        positions = self.position_embeddings(torch.arange(ids_BL.shape[1], device=ids_BL.device))
        normed: Tensor = self.LayerNorm(words + positions + self.token_type_embeddings.weight[0])
        return normed


class _SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x_BLC: Tensor, bias: Tensor | None) -> Tensor:
        q, k, v = (split_heads(linear(x_BLC), self.heads) for linear in (self.query, self.key, self.value))
        return attend(q, k, v, bias).transpose(1, 2).flatten(2)


class _Output(nn.Module):
    """Linear, add the residual, normalize (post-norm)."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dense(inner) + residual)
        return out


class BertLayer(nn.Module):
    """One post-norm layer: ``attention.self``, ``attention.output``, ``intermediate.dense``, ``output``."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": _SelfAttention(width, heads), "output": _Output(width, width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, hidden)})
        self.output = _Output(hidden, width)

    def forward(self, x_BLC: Tensor, bias: Tensor | None) -> Tensor:
        """(B, L, C) -> (B, L, C); ``bias`` (B, 1, 1, L) hides padding."""
        x_BLC = self.attention["output"](self.attention["self"](x_BLC, bias), x_BLC)
        out: Tensor = self.output(nn.functional.gelu(self.intermediate["dense"](x_BLC)), x_BLC)
        return out


class Bert(nn.Module):
    """Embeddings and ``layers`` encoder layers under the names ``embeddings.*`` and ``encoder.layer.N.*``."""

    def __init__(self, *, width: int, layers: int, heads: int, hidden: int, table_width: int, positions: int) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(width, table_width, positions)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(BertLayer(width, heads, hidden) for _ in range(layers))})

    @property
    def layers(self) -> nn.ModuleList:
        """The encoder layers, first to last."""
        return cast(nn.ModuleList, self.encoder["layer"])

    def forward(self, ids_BL: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, L) word-piece ids -> (B, L, C) of the last layer."""
        x_BLC: Tensor = self.embeddings(ids_BL)
        for layer in self.layers:
            x_BLC = layer(x_BLC, bias)
        return x_BLC
