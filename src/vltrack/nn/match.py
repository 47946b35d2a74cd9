"""Explicit matching: cosine similarities between search and template features, beside the tokens.

With ImageNet features this points at the target from the first minutes of training. Unpublished; our design,
for the tiny sizes. Shapes: B batch, K templates, P template cells, N search cells, F feature channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TemplateMatch(nn.Module):
    """Similarities to every template cell and to the pooled target, as ``width`` channels a search token."""

    def __init__(self, coarse: int, fine: int, cells: int, templates: int, width: int) -> None:
        super().__init__()
        self.templates = templates
        self.key = nn.Linear(coarse, coarse, bias=False)
        self.fine_key = nn.Linear(fine, fine, bias=False)
        nn.init.eye_(self.key.weight)
        nn.init.eye_(self.fine_key.weight)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.project = nn.Linear(templates * (cells + 5), width)

    def describe(
        self, coarse_BPF: Tensor, fine_B4PF: Tensor, inside_BP: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Template side, once a template: unit keys weighted by the soft in-box mask, two pooled vectors.

        ``fine_B4PF`` (B, 4P, F') are the features at half the stride, four a cell.
        Returns (B, P, F) keys, (B, F) pooled, (B, F') pooled fine.
        """
        key_BPF = nn.functional.normalize(self.key(coarse_BPF).float(), dim=-1)
        fine_key = nn.functional.normalize(self.fine_key(fine_B4PF).float(), dim=-1)
        weight_BP1 = inside_BP[..., None].float()
        pooled_BF = nn.functional.normalize((key_BPF * weight_BP1).sum(dim=1), dim=-1)
        fine_weight = weight_BP1.repeat_interleave(4, dim=1)
        fine_pooled = nn.functional.normalize((fine_key * fine_weight).sum(dim=1), dim=-1)
        return key_BPF * weight_BP1, pooled_BF, fine_pooled

    def forward(
        self,
        coarse_BNF: Tensor,
        fine_B4NF: Tensor,
        keys_BKPF: Tensor,
        pooled_BKF: Tensor,
        fine_pooled_BKF: Tensor,
    ) -> Tensor:
        """Search side: -> (B, N, width) to be added to the search tokens."""
        b, n, _ = coarse_BNF.shape
        key_BNF = nn.functional.normalize(self.key(coarse_BNF).float(), dim=-1)
        fine_key = nn.functional.normalize(self.fine_key(fine_B4NF).float(), dim=-1)
        cells_BNM = key_BNF @ keys_BKPF.flatten(1, 2).transpose(1, 2)
        pooled_BNK = key_BNF @ pooled_BKF.transpose(1, 2)
        fine_BN4K = (fine_key @ fine_pooled_BKF.transpose(1, 2)).view(b, n, 4 * self.templates)
        similarities = torch.cat([cells_BNM, pooled_BNK, fine_BN4K], dim=-1) * (3.0 * self.log_scale.exp())
        projected: Tensor = self.project(similarities)
        return projected
