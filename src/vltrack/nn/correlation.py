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


class WordMatch(nn.Module):
    """Turns a sentence and stem features into ``width`` channels a search token: where is what it names?

    Each cell sees its features and its place, and is compared with every word; learned word weights make one
    similarity to the sentence of them. The output starts at zero. Shapes as above, L words.
    """

    def __init__(self, coarse: int, fine: int, width: int) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.Linear(coarse + 4 * fine + 4, width), nn.GELU(), nn.Linear(width, width))
        self.hear = nn.Linear(width, width)
        self.weigh = nn.Linear(width, 1)
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.fuse = nn.Sequential(nn.Linear(2 * width + 2, width), nn.GELU())
        self.project = nn.Linear(width, width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(
        self, coarse_BNF: Tensor, fine_B4NF: Tensor, words_BLC: Tensor, valid_BL: Tensor
    ) -> tuple[Tensor, Tensor]:
        """-> what to add to the tokens (B, N, width), and each cell's similarity to the sentence (B, N)."""
        b, n, _ = coarse_BNF.shape
        features = [coarse_BNF, fine_B4NF.reshape(b, n, -1), _places(b, n, coarse_BNF)]
        seen_BNC = self.see(torch.cat(features, dim=-1))
        heard_BLC = self.hear(words_BLC)
        unit_seen = nn.functional.normalize(seen_BNC.float(), dim=-1)
        unit_heard = nn.functional.normalize(heard_BLC.float(), dim=-1)
        similar_BNL = unit_seen @ unit_heard.transpose(1, 2) * self.log_scale.exp()
        hidden_B1L = ~valid_BL[:, None, :]
        lowest = torch.finfo(similar_BNL.dtype).min
        weight_B1L = self.weigh(words_BLC).float().transpose(1, 2)
        weight_B1L = weight_B1L.masked_fill(hidden_B1L, lowest).softmax(dim=-1)
        sentence_BN1 = (similar_BNL * weight_B1L).masked_fill(hidden_B1L, 0.0).sum(dim=-1, keepdim=True)
        attention_BNL = similar_BNL.masked_fill(hidden_B1L, lowest).softmax(dim=-1)
        context_BNC = attention_BNL @ heard_BLC.float().masked_fill(~valid_BL[..., None], 0.0)
        beside_best_BN1 = sentence_BN1 - sentence_BN1.amax(dim=1, keepdim=True)
        evidence = torch.cat(
            [seen_BNC.float() * context_BNC, context_BNC, sentence_BN1, beside_best_BN1], dim=-1
        )
        return self.project(self.fuse(evidence)), sentence_BN1[..., 0]


def _places(batch: int, cells: int, like: Tensor) -> Tensor:
    """(B, N, 4): column, row and their squares, in [-1, 1], so that "left" and "middle" have a meaning."""
    side = int(cells**0.5)
    steps = torch.linspace(-1, 1, side, device=like.device, dtype=like.dtype)
    columns, rows = steps[None, :].expand(side, side).flatten(), steps[:, None].expand(side, side).flatten()
    return torch.stack([columns, rows, columns**2, rows**2], dim=-1).expand(batch, -1, -1)
