"""Token selection of LiteTrack: search tokens that resemble an earlier one leave the backbone and are restored.

Shapes: B batch, N = S*S search cells, R search cells that are kept, C width, T keys of an attention.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vltrack.models.base import Batched
from vltrack.nn.attention import gather_tokens, key_bias, scatter_tokens, tracing
from vltrack.nn.device import full_precision

GATE_TEMPERATURE = 0.1
MIDDLE = 0.3
"""Share of the search region's side: with a budget, cells nearer to its middle than this are kept first."""


@dataclass(frozen=True, kw_only=True)
class Selection(Batched):
    """Search tokens that are kept.

    Attributes:
        keep_BN: bool, True for kept tokens.
        order_BR: long, positions of the R best tokens (kept ones first, fillers after them), in map order.
        source_BN: long, for every token the most similar kept one (itself, if kept).
        gate_BN: soft gate in (0, 1) that carries the threshold's gradient.
    """

    keep_BN: Tensor
    order_BR: Tensor
    source_BN: Tensor
    gate_BN: Tensor


class TokenSelector(nn.Module):
    """Keep tokens whose largest cosine similarity to an earlier one is below a learned threshold.

    r_i = max over j < i of cos(x_i, x_j); kept if r_i < tanh(theta) + MLP(mean x). The count is rounded up to
    a multiple of ``bucket`` so that shapes repeat; the center token always stays. With a ``budget`` the threshold
    has no effect: that many tokens are kept, first those around the middle, where boxes lose most without their
    own tokens, nearest ones first, then those with the smallest r_i.

    The published code compares with a fixed 0.8 and then only stops the gradient of redundant tokens. A
    "learnable dynamic threshold" is claimed but not in the code; threshold, budget, dropping and restoring
    are our design.
    """

    def __init__(self, width: int, threshold: float = 0.8, bucket: int = 32, budget: int = 0) -> None:
        super().__init__()
        self.bucket, self.budget = bucket, budget
        self.theta = nn.Parameter(torch.atanh(torch.tensor(float(threshold))))
        first, last = nn.Linear(width, 16), nn.Linear(16, 1)
        self.offset = nn.Sequential(first, nn.ReLU(), last)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)

    def forward(self, x_BNC: Tensor, anywhere_B: Tensor | None = None) -> Selection:
        """Choose among (B, N, C), N a square number; the similarity itself carries no gradient.

        ``anywhere_B`` marks samples whose target may be anywhere, not around the middle.
        """
        with full_precision(x_BNC.device):
            fixed_BNC = x_BNC.detach().float()
            unit_BNC = nn.functional.normalize(fixed_BNC, dim=-1)
            similar_BNN = unit_BNC @ unit_BNC.transpose(1, 2)
            # Largest similarity to an earlier token; -1 for the first
            later_NN = torch.ones_like(similar_BNN[0], dtype=torch.bool).triu()
            redundancy_BN = similar_BNN.masked_fill(later_NN, -1.0).amax(dim=2)
            threshold_B1 = torch.tanh(self.theta) + self.offset(fixed_BNC.mean(dim=1))
            gate_BN = torch.sigmoid((threshold_B1 - redundancy_BN) / GATE_TEMPERATURE)
        keep_BN, order_BR = self._kept(redundancy_BN, redundancy_BN < threshold_B1, anywhere_B)
        # Of each dropped token, the most similar kept one
        own_N = torch.arange(keep_BN.shape[1], device=keep_BN.device)
        reachable_BNN = similar_BNN.masked_fill(~keep_BN[:, None, :], -2.0)
        source_BN = torch.where(keep_BN, own_N[None], reachable_BNN.argmax(dim=2))
        return Selection(keep_BN=keep_BN, order_BR=order_BR, source_BN=source_BN, gate_BN=gate_BN)

    def _kept(self, redundancy_BN: Tensor, wanted_BN: Tensor, anywhere_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """``keep_BN`` and ``order_BR``."""
        n = redundancy_BN.shape[1]
        side = int(n**0.5)
        # The center token comes first: -2 is below any cosine
        own_N = torch.arange(n, device=redundancy_BN.device)
        priority_BN = redundancy_BN.masked_fill(own_N == (side // 2) * side + side // 2, -2.0)
        if self.budget:
            line_S = (torch.arange(side, device=own_N.device) - (side - 1) / 2) / side
            away_N = (line_S[:, None].square() + line_S.square()).sqrt().flatten()
            near_BN = (away_N < MIDDLE).expand_as(redundancy_BN)
            if anywhere_B is not None:
                near_BN = near_BN & ~anywhere_B[:, None]
            # Of cells equally far away the first ones: every runtime has to choose the same
            priority_BN = torch.where(near_BN, away_N + 1e-5 * own_N - 4.0, priority_BN)
            order_BR = priority_BN.topk(min(self.budget, n), largest=False).indices.sort(dim=1).values
            keep_BN = (order_BR[..., None] == own_N).any(dim=1)
        else:
            # Counts rounded up to multiples of the bucket (OpenVINO takes n // bucket * bucket for n)
            counts_B = wanted_BN.sum(dim=1).clamp_min(1)
            counts_B = (counts_B + -counts_B % self.bucket).clamp_max(n)
            # Rank of a token: how many come before it, of equal ones those with a smaller number
            other_BN1, own_B1N = priority_BN[..., None], priority_BN[:, None]
            ranks_BN = ((other_BN1 < own_B1N) | ((other_BN1 == own_B1N) & (own_N[:, None] < own_N))).sum(dim=1)
            keep_BN = ranks_BN < counts_B[:, None]
            most = 0 if tracing() else int(counts_B.max())  # a graph's shapes cannot depend on data
            order_BR = ranks_BN.argsort(dim=1)[:, :most].sort(dim=1).values
        return keep_BN, order_BR


@dataclass(frozen=True, kw_only=True)
class KeptTokens:
    """Search tokens that enter the backbone: kept ones, or in training under a threshold all of them.

    Attributes:
        tokens_BRC, valid_BR: the tokens, and which of them may be keys.
        before_BNC: all tokens.
        selection: None where all are kept.
        dropped: redundant tokens are really gone.
    """

    tokens_BRC: Tensor
    valid_BR: Tensor
    before_BNC: Tensor
    selection: Selection | None
    dropped: bool

    @classmethod
    def of(cls, x_BNC: Tensor, selection: Selection | None, *, soft: bool) -> KeptTokens:
        """Apply a selection; a ``soft`` one keeps the values, and its gate cuts a redundant token's gradient."""
        if selection is None:
            tokens, valid = x_BNC, torch.ones(x_BNC.shape[:2], dtype=torch.bool, device=x_BNC.device)
        elif soft:
            gate_BN1 = selection.gate_BN[..., None].to(x_BNC.dtype)
            tokens, valid = gate_BN1 * x_BNC + (1 - gate_BN1) * x_BNC.detach(), selection.keep_BN
        else:
            tokens, valid = gather_tokens(x_BNC, selection.order_BR), selection.keep_BN.gather(1, selection.order_BR)
        dropped = selection is not None and not soft
        return cls(tokens_BRC=tokens, valid_BR=valid, before_BNC=x_BNC, selection=selection, dropped=dropped)

    def bias(self, valid_BT: Tensor) -> Tensor | None:
        """Key bias (B, 1, 1, T) of tokens that end with these; in training the threshold gets a gradient."""
        bias = key_bias(valid_BT)
        if self.selection is None or self.dropped or bias is None:
            return bias
        # Straight-through: the value is 0, the gradient reaches the threshold through kept keys.
        gate_BN = self.selection.gate_BN
        pull_BN = torch.log1p(gate_BN - gate_BN.detach())
        pull_BT = nn.functional.pad(pull_BN, (valid_BT.shape[1] - pull_BN.shape[1], 0))
        return bias + pull_BT[:, None, None]

    def spread(self, values_BR: Tensor) -> Tensor:
        """(B, R) -> (B, N): a dropped token has the value of the most similar one that was kept."""
        if self.selection is None or not self.dropped:
            return values_BR
        place_BN = self.selection.keep_BN.long().cumsum(dim=1) - 1
        return values_BR.gather(1, place_BN.gather(1, self.selection.source_BN))

    def restore(self, after_BRC: Tensor) -> Tensor:
        """(B, R, C) -> (B, N, C). A dropped token gets its embedding plus its nearest kept one's update.

        Copying the update instead of the token keeps each token's own position (unpublished; our design).
        """
        if self.selection is None:
            return after_BRC
        after_BNC = after_BRC
        if self.dropped:
            after_BNC = scatter_tokens(after_BRC, self.selection.order_BR, self.before_BNC.shape[1])
        update_BNC = after_BNC - self.before_BNC
        filled_BNC = self.before_BNC + gather_tokens(update_BNC, self.selection.source_BN)
        return torch.where(self.selection.keep_BN[..., None], after_BNC, filled_BNC)
