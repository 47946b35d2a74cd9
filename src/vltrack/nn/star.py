"""The star adapter: a product of two linear maps, added with a weight that starts at zero (LiteTrack)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StarAdapter(nn.Module):
    """x + alpha * g(ReLU6(f1 x) * f2 x).

    The published code builds this with new random weights in every forward pass and without a residual; here
    it is registered, bottlenecked to ``hidden`` and starts as the identity (unpublished; our design).
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.f1 = nn.Linear(width, hidden)
        self.f2 = nn.Linear(width, hidden)
        self.g = nn.Linear(hidden, width)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        out: Tensor = x + self.alpha * self.g(nn.functional.relu6(self.f1(x)) * self.f2(x))
        return out
