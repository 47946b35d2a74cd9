"""Cosine-similarity token selection that really drops tokens, and the way back to the map (LiteTrack idea 2).

Published code marks a token as redundant when an earlier one is more similar than a fixed 0.8, and then only
stops its gradient. "Learnable dynamic threshold" is claimed but not in the code; threshold, budget, dropping
and restoring here are our design (docs/trackers/litetrack.md).

Shapes: B batch, N tokens of the whole map, K kept ones, C width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vltrack.nn.attention import Block, attend
from vltrack.nn.device import full_precision

TEMPERATURE = 0.1


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which tokens stay.

    Attributes:
        keep_BN: bool, True for kept tokens.
        order_BK: long, positions of the K best tokens (kept ones first, fillers after them), in map order.
        filler_BK: bool, True where ``order_BK`` holds a token that this sample does not keep.
        source_BN: long, for every token the most similar kept one (itself, if kept).
        soft_BN: gate in (0, 1) that carries the threshold's gradient.
    """

    keep_BN: Tensor
    order_BK: Tensor
    filler_BK: Tensor
    source_BN: Tensor
    soft_BN: Tensor


class TokenSelector(nn.Module):
    """Keep tokens whose largest cosine similarity to an earlier one is below a learned threshold.

    r_i = max over j < i of cos(x_i, x_j); kept if r_i < tanh(theta) + MLP(mean x). The count is rounded up to
    a multiple of ``bucket`` so that shapes repeat; the centre token always stays.
    """

    def __init__(self, width: int, *, threshold: float = 0.8, bucket: int = 32) -> None:
        super().__init__()
        self.bucket = bucket
        self.theta = nn.Parameter(torch.atanh(torch.tensor(float(threshold))))
        first, last = nn.Linear(width, 16), nn.Linear(16, 1)
        self.offset = nn.Sequential(first, nn.ReLU(), last)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)

    def forward(self, x_BNC: Tensor) -> Selection:
        """Choose among (B, N, C), N a square number; the similarity itself carries no gradient."""
        with full_precision(x_BNC.device):
            fixed_BNC = x_BNC.detach().float()
            unit_BNC = nn.functional.normalize(fixed_BNC, dim=-1)
            similar_BNN = unit_BNC @ unit_BNC.transpose(1, 2)
            redundancy_BN = _largest_earlier(similar_BNN)
            threshold_B1 = torch.tanh(self.theta) + self.offset(fixed_BNC.mean(dim=1))
            soft_BN = torch.sigmoid((threshold_B1 - redundancy_BN) / TEMPERATURE)
        return self._choose(similar_BNN, redundancy_BN, redundancy_BN < threshold_B1, soft_BN)

    def _choose(
        self, similar_BNN: Tensor, redundancy_BN: Tensor, wanted_BN: Tensor, soft_BN: Tensor
    ) -> Selection:
        n = redundancy_BN.shape[1]
        side = int(n**0.5)
        priority_BN = redundancy_BN.clone()
        priority_BN[:, (side // 2) * side + side // 2] = -2.0
        counts_B = wanted_BN.sum(dim=1).clamp_min(1)
        counts_B = ((counts_B + self.bucket - 1) // self.bucket * self.bucket).clamp_max(n)
        ranked_BN = priority_BN.argsort(dim=1, stable=True)
        ranks_BN = torch.empty_like(ranked_BN)
        ranks_BN.scatter_(1, ranked_BN, torch.arange(n, device=ranked_BN.device).expand_as(ranked_BN))
        keep_BN = ranks_BN < counts_B[:, None]
        order_BK = ranked_BN[:, : int(counts_B.max())].sort(dim=1).values
        reachable_BNN = similar_BNN.masked_fill(~keep_BN[:, None, :], -2.0)
        own_N = torch.arange(n, device=keep_BN.device)
        source_BN = torch.where(keep_BN, own_N[None], reachable_BNN.argmax(dim=2))
        return Selection(
            keep_BN=keep_BN,
            order_BK=order_BK,
            filler_BK=~keep_BN.gather(1, order_BK),
            source_BN=source_BN,
            soft_BN=soft_BN,
        )


def _largest_earlier(similar_BNN: Tensor) -> Tensor:
    """Row-wise maximum over the strictly lower triangle; -1 for the first token."""
    n = similar_BNN.shape[1]
    later = torch.ones(n, n, dtype=torch.bool, device=similar_BNN.device).triu()
    return similar_BNN.masked_fill(later, -1.0).amax(dim=2)


def soften(x_BNC: Tensor, selection: Selection) -> Tensor:
    """In training nothing is dropped: the value stays, a redundant token's gradient is cut by its gate."""
    soft_BN1 = selection.soft_BN[..., None].to(x_BNC.dtype)
    return soft_BN1 * x_BNC + (1 - soft_BN1) * x_BNC.detach()


def straight_through(selection: Selection) -> Tensor:
    """(B, N) to add to attention logits: the value is 0, the gradient reaches the threshold."""
    return torch.log1p(selection.soft_BN - selection.soft_BN.detach())


def take(x_BNC: Tensor, order_BK: Tensor) -> Tensor:
    """Gather tokens: (B, N, C), (B, K) -> (B, K, C)."""
    return x_BNC.gather(1, order_BK[..., None].expand(-1, -1, x_BNC.shape[-1]))


def put_back(kept_BKC: Tensor, order_BK: Tensor, tokens: int) -> Tensor:
    """Scatter (B, K, C) to (B, N, C); the places in between are zero and must be filled by ``restore``."""
    full_BNC = kept_BKC.new_zeros(kept_BKC.shape[0], tokens, kept_BKC.shape[2])
    return full_BNC.scatter(1, order_BK[..., None].expand_as(kept_BKC), kept_BKC)


def restore(after_BNC: Tensor, before_BNC: Tensor, selection: Selection) -> Tensor:
    """Fill dropped tokens: their own embedding plus what the trunk added to the most similar kept one.

    Copying the update instead of the token keeps each token's own position (unpublished; our design).
    """
    update_BNC = after_BNC - before_BNC
    filled_BNC = before_BNC + take(update_BNC, selection.source_BN)
    return torch.where(selection.keep_BN[..., None], after_BNC, filled_BNC)


# MERGED nn/token_pruning.py
# OSTrack's early candidate elimination: search tokens that the template does not attend to leave the trunk.
#
# Knows one transformer block and which of its tokens are candidates; knows no tracker.
# ``nn.token_pruning`` gathers
# tokens and puts them back.
#
# Shapes: B batch, C width, H heads, D = C / H, M template tokens, N search tokens of the whole map, K of them
# still there, R template tokens that are asked, T = M + K.


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
