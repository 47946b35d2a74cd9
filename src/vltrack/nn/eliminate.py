"""OSTrack's early candidate elimination: search tokens that the template does not attend to leave the trunk.

Knows one transformer block and which of its tokens are candidates; knows no tracker. ``nn.select`` gathers
tokens and puts them back.

Shapes: B batch, C width, H heads, D = C / H, M template tokens, N search tokens of the whole map, K of them
still there, R template tokens that are asked, T = M + K.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vltrack.nn.attention import Block, attend
from vltrack.nn.select import put_back, take


def centre_cell(side: int) -> int:
    """Place of the middle cell of a square map; of four middle ones the upper left (released code)."""
    middle = (side - 1) // 2
    return middle * side + middle


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The search tokens that are still in the running.

    Either eliminated tokens are gone (``seen_BK`` is None), or, where samples of one batch keep different
    numbers, they are all there and ``seen_BK`` tells which may still be attended to. Both give the same
    result.

    Attributes:
        order_BK: places in the map of the tokens that are there, in map order.
        seen_BK: which of them are candidates; None if all are.
        count: how many candidates a sample has that eliminates.
        cells: N.
    """

    order_BK: Tensor
    seen_BK: Tensor | None
    count: int
    cells: int

    @classmethod
    def all_of(cls, x_BNC: Tensor, *, in_place: bool) -> Candidates:
        """Every token of the map; ``in_place`` hides what is eliminated instead of removing it."""
        b, n, _ = x_BNC.shape
        order_BN = torch.arange(n, device=x_BNC.device).expand(b, -1)
        seen_BN = torch.ones_like(order_BN, dtype=torch.bool) if in_place else None
        return cls(order_BK=order_BN, seen_BK=seen_BN, count=n, cells=n)

    def best(
        self, x_BKC: Tensor, score_BK: Tensor, ratio: float, spared_B: Tensor | None = None
    ) -> tuple[Candidates, Tensor]:
        """Keep ceil(``ratio`` * count) candidates with the highest score, in map order.

        Samples marked in ``spared_B`` keep all of theirs, which needs ``in_place``.
        Returns the candidates that are left, and the tokens that are there.
        """
        count = math.ceil(ratio * self.count)
        if self.seen_BK is None:
            chosen = score_BK.argsort(dim=1, descending=True, stable=True)[:, :count].sort(dim=1).values
            left = Candidates(
                order_BK=self.order_BK.gather(1, chosen), seen_BK=None, count=count, cells=self.cells
            )
            return left, take(x_BKC, chosen)
        score_BK = score_BK.masked_fill(~self.seen_BK, -1.0)  # below any attention
        chosen = score_BK.argsort(dim=1, descending=True, stable=True)[:, :count]
        seen_BK = torch.zeros_like(self.seen_BK).scatter(1, chosen, True)
        if spared_B is not None:
            seen_BK = torch.where(spared_B[:, None], self.seen_BK, seen_BK)
        return Candidates(order_BK=self.order_BK, seen_BK=seen_BK, count=count, cells=self.cells), x_BKC

    def back(self, x_BKC: Tensor) -> Tensor:
        """(B, K, C) -> the whole map (B, N, C); eliminated places are zero (released code)."""
        if self.seen_BK is not None:
            return x_BKC.masked_fill(~self.seen_BK[..., None], 0.0)
        return x_BKC if self.count == self.cells else put_back(x_BKC, self.order_BK, self.cells)


def attend_and_score(block: Block, x_BTC: Tensor, bias: Tensor | None, rows: slice) -> tuple[Tensor, Tensor]:
    """The first half of a block, and how much its ``rows`` attend to each token: (B, T, C) and (B, T).

    The score is the attention after the softmax over all T keys, a mean over heads and rows (released code,
    which asks the middle cell of the template). Only those rows of the attention are written out. It carries
    no gradient.
    """
    attention, (b, t, c) = block.attn, x_BTC.shape
    qkv = attention.qkv(block.norm1(x_BTC)).view(b, t, 3, attention.heads, c // attention.heads)
    q_BHTD, k_BHTD, v_BHTD = qkv.permute(2, 0, 3, 1, 4)
    out_BTC = attend(q_BHTD, k_BHTD, v_BHTD, bias).transpose(1, 2).reshape(b, t, c)
    asked_BHRD = q_BHTD[:, :, rows].detach().float() * q_BHTD.shape[-1] ** -0.5
    logits_BHRT = asked_BHRD @ k_BHTD.detach().float().transpose(-2, -1)
    if bias is not None:
        logits_BHRT = logits_BHRT + bias
    return x_BTC + attention.proj(out_BTC), logits_BHRT.softmax(dim=-1).mean(dim=(1, 2))


def digest(block: Block, x_BTC: Tensor) -> Tensor:
    """The second half of a block, for the tokens that are left."""
    out: Tensor = x_BTC + block.mlp(block.norm2(x_BTC))
    return out
