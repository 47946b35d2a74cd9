"""ARTrack's fusion of template and search tokens, and its autoregressive decoder of a box as four tokens.

Source: released code of ARTrack (the same file serves AITrack); layer norms with epsilon 1e-5, order of
updates and parameter names are its own, except where a name would hide what it is. The key-value cache is
ours: a cached run generates what an uncached one does.

Shapes: B batch, M = K * P cells of K templates, N search cells, C width, H heads, T coordinate tokens, V
their vocabulary. Boxes are cx, cy, w, h in units of the search crop, corners x1, y1, x2, y2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from vltrack.nn.attention import Attention, CrossAttention, Mlp, attend, split_heads
from vltrack.nn.boxes import corners_to_box

COORDINATES = 4
"""Tokens of a box."""
KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class BoxTokenizer:
    """Coordinates as tokens: ``bins`` per side of the crop over ``reach`` sides, the crop in their middle.

    Token k is the coordinate k / (bins - 1) - (reach - 1) / 2; a start and an end token follow.
    """

    bins: int = 400
    reach: int = 2

    def __post_init__(self) -> None:
        if self.bins < 2 or self.reach < 1:
            raise ValueError(f"bins must be at least 2 and reach 1, got {self.bins} and {self.reach}")

    @property
    def coordinates(self) -> int:
        """Number of tokens that are coordinates. It is the start token itself, and the next the end token."""
        return self.bins * self.reach

    @property
    def margin(self) -> float:
        """Largest distance of a coordinate from the crop."""
        return (self.reach - 1) / 2

    @property
    def size(self) -> int:
        """Number of all tokens."""
        return self.coordinates + 2

    @property
    def step(self) -> float:
        """Distance of two neighboring tokens."""
        return 1 / (self.bins - 1)

    def encode(self, box_B4: Tensor) -> Tensor:
        """Boxes (..., 4) -> tokens (..., 4) int64 of their corners: clamped, then cut off, not rounded."""
        half = box_B4[..., 2:] / 2
        corners = torch.cat([box_B4[..., :2] - half, box_B4[..., :2] + half], dim=-1).float()
        return ((corners.clamp(-self.margin, 1 + self.margin) + self.margin) * (self.bins - 1)).long()

    def values(self, tokens: Tensor) -> Tensor:
        """Coordinates of tokens."""
        return tokens / (self.bins - 1) - self.margin

    def decode(self, tokens_B4: Tensor) -> Tensor:
        """Tokens (..., 4) of corners -> boxes (..., 4); corners in the wrong order give sides of one step."""
        return corners_to_box(self.values(tokens_B4), self.step)

    def soft_argmax(self, logits_BTV: Tensor) -> Tensor:
        """The box (B, 4) of the coordinates' expectations under a softmax over coordinate tokens.

        The released code takes the middles of 800 equal bins here, not the values of the tokens: up to 0.4 %
        of the crop off the box that is decoded. Ours is the expectation of the decoded box. A box whose
        corners are in the wrong order has a negative size.
        """
        share_B4V = logits_BTV[:, :COORDINATES, : self.coordinates].float().softmax(dim=-1)
        values_V = self.values(torch.arange(self.coordinates, device=logits_BTV.device, dtype=torch.float32))
        return corners_to_box((share_B4V * values_V).sum(dim=-1))


# -- the decoder ----------------------------------------------------------------------------------------


class SequenceDecoder(nn.Module):
    """From past boxes and image tokens to the four tokens of a box, one after the other.

    The sequence is: the corners of ``history`` past boxes, oldest first, the start token, then the box.
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, layers: int, *, tokenizer: BoxTokenizer, history: int
    ) -> None:
        super().__init__()
        self.tokenizer, self.history = tokenizer, history
        # The released table leaves the start token without a gradient (padding); ours learns it.
        self.word_embeddings = nn.Embedding(tokenizer.size, width)
        nn.init.normal_(self.word_embeddings.weight, std=0.02)
        self.position_embeddings = nn.Embedding(COORDINATES + 1, width)
        self.prev_position_embeddings = nn.Embedding(COORDINATES * history, width) if history else None
        self.output_bias = nn.Parameter(torch.zeros(tokenizer.size))
        self.layers = nn.ModuleList(DecoderLayer(width, heads, mlp_ratio) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def start_sequence(self, past_BH4: Tensor) -> Tensor:
        """Past boxes (B, history, 4) -> tokens (B, 4 * history + 1), the start token last."""
        tokens_BT = self.tokenizer.encode(past_BH4).flatten(1)
        start_B1 = tokens_BT.new_full((len(tokens_BT), 1), self.tokenizer.coordinates)
        return torch.cat([tokens_BT, start_B1], dim=1)

    def keys_values(self, memory_BMC: Tensor, pos_1MC: Tensor) -> list[KeysValues]:
        """Keys and values of the image tokens for every layer, once per frame."""
        return [cast(DecoderLayer, layer).keys_values(memory_BMC, pos_1MC) for layer in self.layers]

    def forward(self, tokens_BT: Tensor, memory: list[KeysValues]) -> Tensor:
        """Tokens (B, T) from the first past one on -> logits (B, T, V) of the next ones."""
        return self._decode(tokens_BT, memory, None)[0]

    def teacher_forcing(self, start_BT: Tensor, box_B4: Tensor, memory: list[KeysValues]) -> Tensor:
        """Logits (B, 5, V) of the four tokens of a known box (B, 4), and of the end token."""
        tokens_BT = torch.cat([start_BT, self.tokenizer.encode(box_B4)], dim=1)
        logits_BTV: Tensor = self(tokens_BT, memory)
        return logits_BTV[:, -(COORDINATES + 1) :]

    def generate(self, start_BT: Tensor, memory: list[KeysValues]) -> tuple[Tensor, Tensor]:
        """The likeliest four tokens, each fed back: tokens (B, 4), logits (B, 4, V).

        As released, any token may be chosen, the start and end tokens too.
        """
        logits_BTV, cache = self._decode(start_BT, memory, None)
        found = [logits_BTV[:, -1:]]
        tokens = [found[0].argmax(dim=-1)]
        while len(tokens) < COORDINATES:
            logits_BTV, cache = self._decode(tokens[-1], memory, cache)
            found.append(logits_BTV)
            tokens.append(logits_BTV.argmax(dim=-1))
        return torch.cat(tokens, dim=1), torch.cat(found, dim=1)

    def predict_box(
        self, start_BT: Tensor, memory: list[KeysValues], *, expected: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The generated box (B, 4) and its confidence (B,).

        ``expected``: the box of the expectations instead (ours), with sides of at least one step.
        """
        tokens_B4, logits_B4V = self.generate(start_BT, memory)
        box_B4 = self.tokenizer.decode(tokens_B4)
        if expected:
            box_B4 = self.tokenizer.soft_argmax(logits_B4V)
            box_B4 = torch.cat([box_B4[:, :2], box_B4[:, 2:].clamp_min(self.tokenizer.step)], dim=1)
        return box_B4, confidence(tokens_B4, logits_B4V)

    def generate_expected(self, start_BT: Tensor, memory: list[KeysValues]) -> Tensor:
        """The expected box (B, 4) of the generated tokens, with a gradient."""
        with torch.no_grad():
            tokens_B4, _ = self.generate(start_BT, memory)
        logits_BTV = self(torch.cat([start_BT, tokens_B4[:, :-1]], dim=1), memory)
        return self.tokenizer.soft_argmax(logits_BTV[:, -COORDINATES:])

    def _decode(
        self, tokens_BT: Tensor, memory: list[KeysValues], cache: list[KeysValues] | None
    ) -> tuple[Tensor, list[KeysValues]]:
        """Logits of the tokens after these, which follow those of the cache; and the new cache."""
        done, count = 0 if cache is None else int(cache[0][0].shape[2]), int(tokens_BT.shape[1])
        # Positions: past boxes first, then start token and box
        pos_TC = self.position_embeddings.weight
        if self.prev_position_embeddings is not None:
            pos_TC = torch.cat([self.prev_position_embeddings.weight, pos_TC])
        pos_TC = pos_TC[done : done + count]
        # Causal mask
        bias = None
        if count > 1:
            bias = pos_TC.new_full((count, done + count), float("-inf")).triu(done + 1)
        # Decoder layers
        x_BTC, after = self._embed(tokens_BT), []
        for i, layer in enumerate(self.layers):
            x_BTC, known = layer(x_BTC, pos_TC, memory[i], None if cache is None else cache[i], bias)
            after.append(known)
        # Output layer: the embedding table
        logits_BTV = nn.functional.linear(self.norm(x_BTC), self.word_embeddings.weight, self.output_bias)
        return logits_BTV, after

    def _embed(self, tokens_BT: Tensor) -> Tensor:
        """Rows of the table, those longer than 1 scaled down to it.

        The released table is scaled in place whenever a row is read, so that its outputs depend on what was
        read before; nothing is written here.
        """
        rows_BTC: Tensor = self.word_embeddings(tokens_BT)
        length = rows_BTC.detach().norm(dim=-1, keepdim=True)
        return rows_BTC * torch.where(length > 1, 1 / (length + 1e-7), torch.ones_like(length))


def confidence(tokens_B4: Tensor, logits_B4V: Tensor) -> Tensor:
    """(B,) in 0..1: mean probability of the chosen tokens and their near neighbors (ours).

    A score head is missing. A single token of 800 is never likely where the edge is known to some pixels, so
    that eight tokens on each side, 2 % of the crop's side, count as agreement.
    """
    share_B4V = logits_B4V.float().softmax(dim=-1)
    near_B4V = torch.arange(share_B4V.shape[-1], device=share_B4V.device) - tokens_B4[..., None]
    # Rounding may bring a sum of shares above one.
    sure_B: Tensor = share_B4V.where(near_B4V.abs() <= 8, 0.0).sum(dim=-1).mean(dim=1)
    return sure_B.clamp(0, 1)


class DecoderLayer(nn.Module):
    """Causal attention over the tokens, attention to the image, MLP.

    As released, values are not normalized (queries and keys are), and positions are added to queries and keys
    of every layer.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.self_attn1 = DecoderAttention(width, heads)
        self.norm_2_query = nn.LayerNorm(width)
        self.norm_2_memory = nn.LayerNorm(width)
        self.multihead_attn = DecoderAttention(width, heads)
        self.norm_3 = nn.LayerNorm(width)
        self.mlpz = Mlp(width, int(width * mlp_ratio))

    def keys_values(self, memory_BMC: Tensor, pos_1MC: Tensor) -> KeysValues:
        """Keys and values of the image tokens."""
        return self.multihead_attn.keys_values(self.norm_2_memory(memory_BMC) + pos_1MC, memory_BMC)

    def forward(
        self, x_BTC: Tensor, pos_TC: Tensor, memory: KeysValues, cache: KeysValues | None, bias: Tensor | None
    ) -> tuple[Tensor, KeysValues]:
        """T new tokens after those of ``cache`` -> their features, and the keys and values of all."""
        query_BTC = self.norm_1(x_BTC) + pos_TC
        known = self.self_attn1.keys_values(query_BTC, x_BTC)
        if cache is not None:
            known = (torch.cat([cache[0], known[0]], dim=2), torch.cat([cache[1], known[1]], dim=2))
        x_BTC = x_BTC + self.self_attn1(query_BTC, known, bias)
        x_BTC = x_BTC + self.multihead_attn(self.norm_2_query(x_BTC) + pos_TC, memory)
        out: Tensor = x_BTC + self.mlpz(self.norm_3(x_BTC))
        return out, known


class DecoderAttention(nn.Module):
    """Attention with the three input maps in one (``in_proj``), each applied to another input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def keys_values(self, key_BMC: Tensor, value_BMC: Tensor) -> KeysValues:
        """Keys and values (B, H, M, D)."""
        return self._map(key_BMC, 1), self._map(value_BMC, 2)

    def forward(self, query_BTC: Tensor, known: KeysValues, bias: Tensor | None = None) -> Tensor:
        """(B, T, C) attends to keys and values of ``keys_values`` -> (B, T, C)."""
        out_BHTD = attend(self._map(query_BTC, 0), *known, bias)
        out: Tensor = self.out_proj(out_BHTD.transpose(1, 2).flatten(2))
        return out

    def _map(self, x_BNC: Tensor, part: int) -> Tensor:
        weight, bias = self.in_proj.weight.chunk(3)[part], self.in_proj.bias.chunk(3)[part]
        return split_heads(nn.functional.linear(x_BNC, weight, bias), self.heads)


# -- the fusion encoder ---------------------------------------------------------------------------------


class FusionEncoder(nn.Module):
    """``layers`` fusion layers with one set of positions for all; ``sides`` of template and search map.

    With K templates (ours) each has the positions of the first.
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, layers: int, *, sides: tuple[int, int], templates: int = 1
    ) -> None:
        super().__init__()
        self.template_count, (template_side, search_side) = templates, sides
        self.layers = nn.ModuleList(FusionLayer(width, heads, mlp_ratio) for _ in range(layers))
        self.z_pos_enc = UntiedPositions(width, heads, template_side)
        self.x_pos_enc = UntiedPositions(width, heads, search_side)
        self.z_rel_pos_bias_table = RelativeBias(heads, template_side, template_side)
        self.x_rel_pos_bias_table = RelativeBias(heads, search_side, search_side)
        self.z_x_rel_pos_bias_table = RelativeBias(heads, template_side, search_side)
        self.x_z_rel_pos_bias_table = RelativeBias(heads, search_side, template_side)

    def forward(self, z_BMC: Tensor, x_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M, C), (B, N, C) -> the same."""
        bias = self._bias()
        for layer in self.layers:
            z_BMC, x_BNC = layer(z_BMC, x_BNC, bias)
        return z_BMC, x_BNC

    def _bias(self) -> FusionBias:
        (z_q, z_k), (x_q, x_k) = self.z_pos_enc(), self.x_pos_enc()
        k = self.template_count
        zz = z_q @ z_k.transpose(1, 2) + self.z_rel_pos_bias_table()
        xx = x_q @ x_k.transpose(1, 2) + self.x_rel_pos_bias_table()
        zx = z_q @ x_k.transpose(1, 2) + self.z_x_rel_pos_bias_table()
        xz = x_q @ z_k.transpose(1, 2) + self.x_z_rel_pos_bias_table()
        return FusionBias(
            zz=zz.repeat(1, k, k)[None], xx=xx[None], zx=zx.repeat(1, k, 1)[None], xz=xz.repeat(1, 1, k)[None]
        )


class FusionLayer(nn.Module):
    """Each stream attends to itself, then template to search, then search to the new template, then MLPs."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.z_norm1, self.x_norm1 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.z_norm2_1, self.x_norm2_1 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.z_norm2_2, self.x_norm2_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.z_norm3, self.x_norm3 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.z_self_attn, self.x_self_attn = Attention(width, heads), Attention(width, heads)
        self.z_x_cross_attention = CrossAttention(width, heads)
        self.x_z_cross_attention = CrossAttention(width, heads)
        hidden = int(width * mlp_ratio)
        self.z_mlp, self.x_mlp = Mlp(width, hidden), Mlp(width, hidden)

    def forward(self, z_BMC: Tensor, x_BNC: Tensor, bias: FusionBias) -> tuple[Tensor, Tensor]:
        """(B, M, C), (B, N, C) -> the same."""
        z_BMC = z_BMC + self.z_self_attn(self.z_norm1(z_BMC), bias.zz)
        x_BNC = x_BNC + self.x_self_attn(self.x_norm1(x_BNC), bias.xx)
        z_BMC = z_BMC + self.z_x_cross_attention(self.z_norm2_1(z_BMC), self.x_norm2_1(x_BNC), bias.zx)
        x_BNC = x_BNC + self.x_z_cross_attention(self.x_norm2_2(x_BNC), self.z_norm2_2(z_BMC), bias.xz)
        return z_BMC + self.z_mlp(self.z_norm3(z_BMC)), x_BNC + self.x_mlp(self.x_norm3(x_BNC))


@dataclass(frozen=True, kw_only=True)
class FusionBias:
    """Positions as attention bias (1, H, queries, keys) for the four attentions of a layer."""

    zz: Tensor
    xx: Tensor
    zx: Tensor
    xz: Tensor


# -- positions as additive attention bias between square grids: untied absolute (TUPE) plus relative ------


class UntiedPositions(nn.Module):
    """Queries and keys (H, N, D) of a grid's places alone, apart from what lies there."""

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        # One learned vector a column and one a row; a dict would be sorted by name
        self.pos = nn.ParameterDict([(name, torch.randn(side, width) * 0.02) for name in ("w_pos", "h_pos")])
        self.norm = nn.LayerNorm(width)
        self.pos_q_linear = nn.Linear(width, width)
        self.pos_k_linear = nn.Linear(width, width)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Queries, already divided by sqrt(D), and keys."""
        places_NC = self.norm((self.pos["h_pos"][:, None] + self.pos["w_pos"][None]).flatten(0, 1))
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
