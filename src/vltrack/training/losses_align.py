"""The contrast between two views of the same targets in a batch (NT-Xent). Knows vectors, no model.

Shapes: B samples, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 0.5


def nt_xent(
    a_BD: Tensor,
    b_BD: Tensor,
    *,
    used_B: Tensor | None = None,
    target_B: Tensor | None = None,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """Cross-entropy of finding each vector's partner among all others of both views.

    Of 2B vectors each has its partner in the other view as its positive and all others, those of its own view
    too, as negatives; similarities are cosines over ``temperature`` (SimCLR; All-in-One, released code). Of a
    batch of one the loss is 0.

    Ours: ``used_B`` leaves samples out, such as those without a sentence; ``target_B`` numbers the targets,
    and another sample of the same target is no negative (two search views have one sentence).

    Returns a scalar, the mean over the vectors that are used; 0 where none is.
    """
    b = len(a_BD)
    with torch.autocast(a_BD.device.type, enabled=False):
        vectors = functional.normalize(torch.cat([a_BD, b_BD]).float(), dim=1)
        similar = vectors @ vectors.T / temperature
    place = torch.arange(2 * b, device=a_BD.device)
    partner = (place + b) % (2 * b)
    used = torch.ones_like(place, dtype=torch.bool) if used_B is None else used_B.repeat(2)
    target = place % b if target_B is None else target_B.repeat(2)
    negative = (target[:, None] != target[None]) & used[None]
    positive = place[None] == partner[:, None]
    logits = similar.masked_fill(~(negative | positive), float("-inf"))
    loss = functional.cross_entropy(logits, partner, reduction="none")
    kept = torch.where(used, loss, torch.zeros_like(loss))
    return kept.sum() / used.sum().clamp_min(1)
