"""BIT-Tracker's own parts: MDAI, CTIF and the score head. Knows tokens, not their origin, and no tracker.

A figure names them and shows what enters and leaves; their inside is unpublished and our reconstruction.

Shapes: B batch, T tokens of all kinds, N search cells, C width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vltrack.nn.cross import CrossBlock
from vltrack.nn.detr import EncoderLayer

SMALL = 0.02
"""How much smaller than usual the last map of a new residual part starts."""


class LevelAggregation(nn.Module):
    """MDAI: the outputs of several encoder layers become one.

    DSA: each level u = LN(h + SA(h + p; h + p; h)), with weights of its own. DCA: the last level asks all
    levels, each marked by a learned vector, then an FFN. Both start near the identity, so that an encoder
    trained without them goes on from where it was; not exactly, as layer norm comes once more.
    """

    def __init__(self, width: int, heads: int, hidden: int, *, levels: int, dsa: bool, dca: bool) -> None:
        super().__init__()
        used = levels if dca else 1
        self.dsa: nn.ModuleList | None = None
        if dsa:
            layers = [EncoderLayer(width, heads, 0) for _ in range(used)]
            _start_small(*(layer.self_attn.out_proj for layer in layers))
            self.dsa = nn.ModuleList(layers)
        self.dca: CrossBlock | None = None
        if dca:
            self.dca = _idle_block(width, heads, hidden)
            self.level_embed = nn.Parameter(torch.randn(levels, width) * 0.02)

    def forward(self, levels: list[Tensor], pos_TC: Tensor, bias: Tensor) -> Tensor:
        """Tokens (B, T, C) of each tap, lowest first -> (B, T, C). ``bias`` (B, 1, 1, T) hides keys."""
        if self.dca is None:
            levels = levels[-1:]
        if self.dsa is not None:
            levels = [layer(h_BTC, pos_TC, bias) for layer, h_BTC in zip(self.dsa, levels, strict=True)]
        if self.dca is None:
            return levels[-1]
        keys = torch.cat([u + mark for u, mark in zip(levels, self.level_embed, strict=True)], dim=1)
        biases, places = torch.cat([bias] * len(levels), dim=-1), pos_TC.repeat(len(levels), 1)
        out: Tensor = self.dca(levels[-1], keys, biases, pos_TC, places)
        return out


class Interaction(nn.Module):
    """CTIF: CNN and transformer each ask the other, and both answers become one.

    a = block(g; c), b = block(c; g), f = LN(W [a; b]) with W at first "a, and a little of b".
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.ask_cnn = _idle_block(width, heads, hidden)
        self.ask_transformer = CrossBlock(width, heads, norm="post", hidden=hidden)
        self.merge = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        _start_small(self.merge)
        with torch.no_grad():
            self.merge.weight[:, :width] += torch.eye(width)

    def forward(self, g_BNC: Tensor, c_BNC: Tensor, pos_NC: Tensor) -> Tensor:
        """The search region as the encoder and as the CNN has it, (B, N, C) each -> (B, N, C)."""
        a_BNC = self.ask_cnn(g_BNC, c_BNC, x_pos=pos_NC, y_pos=pos_NC)
        b_BNC = self.ask_transformer(c_BNC, g_BNC, x_pos=pos_NC, y_pos=pos_NC)
        out: Tensor = self.norm(self.merge(torch.cat([a_BNC, b_BNC], dim=-1)))
        return out


class ScoreHead(nn.Module):
    """Is the target in the search region? Three linear layers, as STARK's.

    With ``pool`` they read Z': the target beside the search region, pooled by attention. Without, they read
    the decoder's query, as in STARK.
    """

    def __init__(self, width: int, *, pool: bool) -> None:
        super().__init__()
        self.pool = nn.Linear(width, 1) if pool else None
        sizes = (2 * width if pool else width, width, width)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, (width, width, 1), strict=True))

    def forward(self, target_BC: Tensor, f_BNC: Tensor) -> Tensor:
        """(B, C), (B, N, C) -> logits (B,)."""
        x = target_BC
        if self.pool is not None:
            share_BN1 = self.pool(f_BNC).softmax(dim=1)
            x = torch.cat([x, (share_BN1 * f_BNC).sum(dim=1)], dim=-1)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        logits_B: Tensor = self.layers[-1](x)[:, 0]
        return logits_B


def _idle_block(width: int, heads: int, hidden: int) -> CrossBlock:
    block = CrossBlock(width, heads, norm="post", hidden=hidden)
    _start_small(block.attn.proj, *([block.mlp.fc2] if block.mlp is not None else []))
    return block


def _start_small(*linears: nn.Linear) -> None:
    """Little leaves at first, yet gradients pass."""
    with torch.no_grad():
        for linear in linears:
            linear.weight.mul_(SMALL)
            linear.bias.zero_()
