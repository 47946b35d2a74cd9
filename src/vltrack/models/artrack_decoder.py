"""The fusion of template and search tokens, and the decoder that writes a box as four words.

Source: released code of ARTrack (the same file serves AITrack); layer norms with epsilon 1e-5, order of
updates and parameter names are its own, except where a name would hide what it is. The key-value cache is
ours: a cached run writes what an uncached one does. Knows tokens and words, no picture and no sentence.

Shapes: B batch, M = K * P cells of K templates, N search cells, C width, H heads, T words, V vocabulary.
Boxes are cx, cy, w, h in units of the search crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from vltrack.nn.attention import Attention, CrossAttention, Mlp, attend

# MERGED models/artrack_decoder.py
# Positions as additive attention bias between square grids: untied absolute (TUPE) plus relative.
#
# Parameter names are ARTrack's. Knows grids, not what lies on them. Source: released code of ARTrack.
#
# Shapes: H heads, P and N cells of two grids, row by row, C width.


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


# MERGED models/artrack_decoder.py
# Boxes as words: coordinates cut into bins, and back. Knows numbers, no network.
#
# Source: released code of ARTrack. Boxes are cx, cy, w, h in units of the search crop; corners are
# x1, y1, x2,
# y2. Shapes: B batch, T words, V vocabulary.


COORDINATES = 4
"""Words of a box."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Coordinates as words: ``bins`` a crop's side over ``reach`` sides, the crop in their middle.

    Word k stands for the coordinate k / (bins - 1) - (reach - 1) / 2; a start and an end word follow.
    """

    bins: int = 400
    reach: int = 2

    def __post_init__(self) -> None:
        if self.bins < 2 or self.reach < 1:
            raise ValueError(f"bins must be at least 2 and reach 1, got {self.bins} and {self.reach}")

    @property
    def coordinates(self) -> int:
        """How many words are coordinates."""
        return self.bins * self.reach

    @property
    def start(self) -> int:
        """The word before the box."""
        return self.coordinates

    @property
    def end(self) -> int:
        """The word after it."""
        return self.coordinates + 1

    @property
    def size(self) -> int:
        """All words."""
        return self.coordinates + 2

    @property
    def margin(self) -> float:
        """How far beside the crop a coordinate may lie."""
        return (self.reach - 1) / 2

    def words(self, box_B4: Tensor) -> Tensor:
        """Boxes (..., 4) -> words (..., 4) int64 of their corners: clamped, then cut off, not rounded."""
        half = box_B4[..., 2:] / 2
        corners = torch.cat([box_B4[..., :2] - half, box_B4[..., :2] + half], dim=-1).float()
        clamped = corners.clamp(-self.margin, 1 + self.margin)
        return ((clamped + self.margin) * (self.bins - 1)).long()

    def values(self, words: Tensor) -> Tensor:
        """The coordinates that words stand for."""
        return words / (self.bins - 1) - self.margin

    def box(self, words_B4: Tensor) -> Tensor:
        """Words (..., 4) of corners -> boxes (..., 4); corners in the wrong order give a size of one word."""
        return corners_to_box(self.values(words_B4), least=1 / (self.bins - 1))

    def expected(self, logits_BTV: Tensor) -> Tensor:
        """The box (B, 4) of the coordinates' expectations under a softmax over coordinate words.

        The released code takes the middles of 800 equal bins here, not the values of the words: up to 0.4 %
        of the crop beside the box that is decoded. Ours is the expectation of the box that runs. A box whose
        corners stand in the wrong order has a negative size.
        """
        share_B4V = logits_BTV[:, :COORDINATES, : self.coordinates].float().softmax(dim=-1)
        values_V = self.values(torch.arange(self.coordinates, device=logits_BTV.device, dtype=torch.float32))
        return corners_to_box((share_B4V * values_V).sum(dim=-1))


def corners_to_box(corners: Tensor, least: float | None = None) -> Tensor:
    """x1, y1, x2, y2 -> cx, cy, w, h (..., 4), with sides of at least ``least`` where it is given."""
    low, high = corners[..., :2], corners[..., 2:]
    size = high - low
    return torch.cat([(low + high) / 2, size if least is None else size.clamp_min(least)], dim=-1)


KeysValues = tuple[Tensor, Tensor]
_SURE = 8
"""How many words beside the chosen one still count for the score: 2 % of the crop's side."""


# -- the fusion encoder ---------------------------------------------------------------------------------


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


class FusionEncoder(nn.Module):
    """``layers`` fusion layers with one set of positions for all of them.

    With K templates (ours) each has the positions of the first.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        layers: int,
        *,
        template_side: int,
        search_side: int,
        templates: int = 1,
    ) -> None:
        super().__init__()
        self.templates = templates
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
        k = self.templates
        zz = z_q @ z_k.transpose(1, 2) + self.z_rel_pos_bias_table()
        xx = x_q @ x_k.transpose(1, 2) + self.x_rel_pos_bias_table()
        zx = z_q @ x_k.transpose(1, 2) + self.z_x_rel_pos_bias_table()
        xz = x_q @ z_k.transpose(1, 2) + self.x_z_rel_pos_bias_table()
        return FusionBias(
            zz=zz.repeat(1, k, k)[None], xx=xx[None], zx=zx.repeat(1, k, 1)[None], xz=xz.repeat(1, 1, k)[None]
        )


# -- the decoder ----------------------------------------------------------------------------------------


class WordAttention(nn.Module):
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
        """(B, T, C) asking keys and values of ``keys_values`` -> (B, T, C)."""
        out_BHTD = attend(self._map(query_BTC, 0), *known, bias)
        out: Tensor = self.out_proj(out_BHTD.transpose(1, 2).flatten(2))
        return out

    def _map(self, x_BNC: Tensor, part: int) -> Tensor:
        weight, bias = self.in_proj.weight.chunk(3)[part], self.in_proj.bias.chunk(3)[part]
        b, n, c = x_BNC.shape
        mapped_BNC = nn.functional.linear(x_BNC, weight, bias)
        return mapped_BNC.view(b, n, self.heads, c // self.heads).transpose(1, 2)


class WordLayer(nn.Module):
    """Causal attention over the words, attention to the picture, MLP.

    As released, values are not normalised (queries and keys are), and positions are added to queries and keys
    of every layer.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.self_attn1 = WordAttention(width, heads)
        self.norm_2_query = nn.LayerNorm(width)
        self.norm_2_memory = nn.LayerNorm(width)
        self.multihead_attn = WordAttention(width, heads)
        self.norm_3 = nn.LayerNorm(width)
        self.mlpz = Mlp(width, int(width * mlp_ratio))

    def picture(self, memory_BMC: Tensor, pos_1MC: Tensor) -> KeysValues:
        """Keys and values of the picture's tokens, once a frame."""
        return self.multihead_attn.keys_values(self.norm_2_memory(memory_BMC) + pos_1MC, memory_BMC)

    def forward(
        self,
        x_BTC: Tensor,
        pos_TC: Tensor,
        picture: KeysValues,
        before: KeysValues | None,
        bias: Tensor | None,
    ) -> tuple[Tensor, KeysValues]:
        """T new words after those of ``before`` -> their features, and the keys and values of all."""
        place_BTC = self.norm_1(x_BTC) + pos_TC
        known = self.self_attn1.keys_values(place_BTC, x_BTC)
        if before is not None:
            known = (torch.cat([before[0], known[0]], dim=2), torch.cat([before[1], known[1]], dim=2))
        x_BTC = x_BTC + self.self_attn1(place_BTC, known, bias)
        x_BTC = x_BTC + self.multihead_attn(self.norm_2_query(x_BTC) + pos_TC, picture)
        out: Tensor = x_BTC + self.mlpz(self.norm_3(x_BTC))
        return out, known


class SequenceDecoder(nn.Module):
    """From past boxes and picture tokens to the four words of a box, one after the other.

    The sequence is: the corners of ``history`` past boxes, oldest first, the start word, then the box.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        layers: int,
        *,
        vocabulary: Vocabulary,
        history: int,
    ) -> None:
        super().__init__()
        self.vocabulary, self.history = vocabulary, history
        # The released table leaves the start word without a gradient (padding); ours learns it.
        self.word_embeddings = nn.Embedding(vocabulary.size, width)
        nn.init.normal_(self.word_embeddings.weight, std=0.02)
        self.position_embeddings = nn.Embedding(COORDINATES + 1, width)
        self.prev_position_embeddings = nn.Embedding(COORDINATES * history, width) if history else None
        self.output_bias = nn.Parameter(torch.zeros(vocabulary.size))
        self.layers = nn.ModuleList(WordLayer(width, heads, mlp_ratio) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def prompt(self, past_BH4: Tensor) -> Tensor:
        """Past boxes (B, history, 4) -> words (B, 4 * history + 1), the start word last."""
        words_BT = self.vocabulary.words(past_BH4).flatten(1)
        start_B1 = words_BT.new_full((len(words_BT), 1), self.vocabulary.start)
        return torch.cat([words_BT, start_B1], dim=1)

    def picture(self, memory_BMC: Tensor, pos_1MC: Tensor) -> list[KeysValues]:
        """What every layer asks of the picture's tokens, once a frame."""
        return [cast(WordLayer, layer).picture(memory_BMC, pos_1MC) for layer in self.layers]

    def forward(self, words_BT: Tensor, picture: list[KeysValues]) -> Tensor:
        """Teacher forced: words (B, T) from the first past one on -> logits (B, T, V) of the ones after."""
        logits_BTV, _ = self._read(words_BT, picture, None)
        return logits_BTV

    def retell(self, prompt_BT: Tensor, box_B4: Tensor, picture: list[KeysValues]) -> Tensor:
        """Teacher forced over a known box (B, 4): logits (B, 5, V) of its four words and of the end word."""
        words_BT = torch.cat([prompt_BT, self.vocabulary.words(box_B4)], dim=1)
        logits_BTV: Tensor = self(words_BT, picture)
        return logits_BTV[:, -(COORDINATES + 1) :]

    def write(self, prompt_BT: Tensor, picture: list[KeysValues]) -> tuple[Tensor, Tensor]:
        """The likeliest four words after a prompt, each read back: words (B, 4), logits (B, 4, V).

        As released, any word may be chosen, the start and end words too; no box comes of these by intent.
        """
        logits_BTV, cache = self._read(prompt_BT, picture, None)
        found = [logits_BTV[:, -1:]]
        words = [found[0].argmax(dim=-1)]
        while len(words) < COORDINATES:
            logits_BTV, cache = self._read(words[-1], picture, cache)
            found.append(logits_BTV)
            words.append(logits_BTV.argmax(dim=-1))
        return torch.cat(words, dim=1), torch.cat(found, dim=1)

    def answer(
        self, prompt_BT: Tensor, picture: list[KeysValues], *, expected: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The box (B, 4) of the words that ``write`` writes, and how sure they are (B,).

        ``expected``: the box of their expectations instead (ours), with sides of at least one word.
        """
        words_B4, logits_B4V = self.write(prompt_BT, picture)
        box_B4 = self.vocabulary.box(words_B4)
        if expected:
            box_B4 = self.vocabulary.expected(logits_B4V)
            least = 1 / (self.vocabulary.bins - 1)
            box_B4 = torch.cat([box_B4[:, :2], box_B4[:, 2:].clamp_min(least)], dim=1)
        return box_B4, self.sureness(words_B4, logits_B4V)

    def expect(self, prompt_BT: Tensor, picture: list[KeysValues]) -> Tensor:
        """The expected box (B, 4) of the words that ``write`` writes, with a gradient."""
        with torch.no_grad():
            words_B4, _ = self.write(prompt_BT, picture)
        logits_BTV = self(torch.cat([prompt_BT, words_B4[:, :-1]], dim=1), picture)
        return self.vocabulary.expected(logits_BTV[:, -COORDINATES:])

    def sureness(self, words_B4: Tensor, logits_B4V: Tensor) -> Tensor:
        """(B,) in 0..1: mean probability of the chosen words and their near neighbours (ours).

        There is no score head. A single word of 800 is never likely where the edge is known to some pixels,
        so that words within 2 % of the crop's side count as agreement.
        """
        share_B4V = logits_B4V.float().softmax(dim=-1)
        near_B4V = torch.arange(share_B4V.shape[-1], device=share_B4V.device) - words_B4[..., None]
        # Rounding may bring a sum of shares above one.
        sure_B: Tensor = share_B4V.where(near_B4V.abs() <= _SURE, 0.0).sum(dim=-1).mean(dim=1)
        return sure_B.clamp(0, 1)

    def _read(
        self, words_BT: Tensor, picture: list[KeysValues], cache: list[KeysValues] | None
    ) -> tuple[Tensor, list[KeysValues]]:
        done = 0 if cache is None else cache[0][0].shape[2]
        count = words_BT.shape[1]
        pos_TC = self._positions()[done : done + count]
        bias = None
        if count > 1:
            bias = pos_TC.new_full((count, done + count), float("-inf")).triu(done + 1)
        x_BTC, after = self._embed(words_BT), []
        for i, layer in enumerate(self.layers):
            x_BTC, known = layer(x_BTC, pos_TC, picture[i], None if cache is None else cache[i], bias)
            after.append(known)
        logits_BTV = nn.functional.linear(self.norm(x_BTC), self.word_embeddings.weight, self.output_bias)
        return logits_BTV, after

    def _positions(self) -> Tensor:
        own = self.position_embeddings.weight
        before = self.prev_position_embeddings
        return own if before is None else torch.cat([before.weight, own])

    def _embed(self, words_BT: Tensor) -> Tensor:
        """Rows of the table, those longer than 1 scaled down to it.

        The released table is scaled in place whenever a row is read, so that its outputs depend on what was
        read before; nothing is written here.
        """
        rows_BTC: Tensor = self.word_embeddings(words_BT)
        length = rows_BTC.detach().norm(dim=-1, keepdim=True)
        return rows_BTC * torch.where(length > 1, 1 / (length + 1e-7), torch.ones_like(length))
