"""The multi-modal contrastive prompt: target, distractor and background vectors that score search tokens.

Source: UVLTrack's modality-adaptive box head (AAAI 2024, section 3), which LiteTrack keeps.
Shapes: B batch, M key tokens (template and context), N search tokens, C width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vltrack.nn.attention import Mlp

BACKGROUND_SHARE = 0.25


def temperature_parameter() -> nn.Parameter:
    """log(1 / 0.07), the usual start of a learned contrastive temperature."""
    return nn.Parameter(torch.tensor(math.log(1 / 0.07)))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of the last axis in float32: (..., N, C), (..., M, C) -> (..., N, M)."""
    unit_a = nn.functional.normalize(a.float(), dim=-1)
    unit_b = nn.functional.normalize(b.float(), dim=-1)
    return unit_a @ unit_b.transpose(-2, -1)


class ContrastivePrompter(nn.Module):
    """Builds three prompts from tokens whose in-box mask is known, and scores search tokens with them.

    ``spare=True`` registers the q, kv and proj layers that the released prompter holds but never uses, so
    that published checkpoints load strictly; they take no part in anything.
    """

    def __init__(self, width: int, mlp_ratio: float = 4.0, *, spare: bool = False) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(3, width) * 0.02)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.log_build = temperature_parameter()
        self.log_score = temperature_parameter()
        if spare:
            self.q = nn.Linear(width, width, bias=False)
            self.kv = nn.Linear(width, 2 * width, bias=False)
            self.proj = nn.Linear(width, width)

    def build(self, reference_BC: Tensor, keys_BMC: Tensor, inside_BM: Tensor, by_words_B: Tensor) -> Tensor:
        """Prompts (B, 3, C): rows target, distractor, background.

        ``inside_BM`` is True for key tokens in the target's box. ``by_words_B`` marks samples started by a
        sentence alone, which have no trusted keys: their prompts are the queries plus the reference.
        """
        logits_BM = cosine(keys_BMC, reference_BC[:, None])[..., 0] * self.log_build.exp()
        target_BM, distractor_BM, background_BM = _three_groups(logits_BM, inside_BM)
        weights_B3M = torch.stack([target_BM, distractor_BM, background_BM], dim=1)
        pooled_B3C = weights_B3M.to(keys_BMC.dtype) @ keys_BMC
        pooled_B3C = torch.where(by_words_B[:, None, None], torch.zeros_like(pooled_B3C), pooled_B3C)
        prompts = pooled_B3C + self.queries
        prompts = torch.cat([prompts[:, :1] + reference_BC[:, None], prompts[:, 1:]], dim=1)
        refined: Tensor = prompts + self.mlp(prompts)
        return torch.where(by_words_B[:, None, None], prompts, refined)

    def score(self, search_BNC: Tensor, prompts_B3C: Tensor) -> Tensor:
        """Two logits (B, N, 2): target, and the better of distractor, background and nothing (0)."""
        a_BN3 = cosine(search_BNC, prompts_B3C) * self.log_score.exp()
        other_BN = a_BN3[..., 1:].amax(dim=-1).clamp_min(0.0)
        return torch.stack([a_BN3[..., 0], other_BN], dim=-1)


def presence(logits_BN2: Tensor, without_neither_B: Tensor | None = None) -> Tensor:
    """(B, N, 2) -> (B, N) probability of the target; a third logit of 0 is for neither (test time only).

    The released code has no such third way out where it grounds a sentence: samples that are marked in
    ``without_neither_B`` have to choose between the target and the rest.
    """
    three = torch.cat([logits_BN2, torch.zeros_like(logits_BN2[..., :1])], dim=-1)
    probability_BN = three.softmax(dim=-1)[..., 0]
    if without_neither_B is None:
        return probability_BN
    return torch.where(without_neither_B[:, None], logits_BN2.softmax(dim=-1)[..., 0], probability_BN)


def _three_groups(logits_BM: Tensor, inside_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax weights over target tokens, and over those outside split into distractor and background.

    Outside, tokens are sorted by probability; the least similar ones that hold together less than a quarter
    of the mass are background, the rest distractors. An empty group gets zero weights.
    """
    lowest = torch.finfo(logits_BM.dtype).min
    outside_BM = ~inside_BM
    probability_BM = logits_BM.masked_fill(inside_BM, lowest).softmax(dim=-1).masked_fill(inside_BM, 0.0)
    sorted_BM, order_BM = probability_BM.detach().sort(dim=-1)
    is_background = torch.zeros_like(inside_BM).scatter(
        1, order_BM, sorted_BM.cumsum(dim=-1) < BACKGROUND_SHARE
    )
    return (
        _masked_softmax(logits_BM, inside_BM),
        _masked_softmax(logits_BM, outside_BM & ~is_background),
        _masked_softmax(logits_BM, outside_BM & is_background),
    )


def _masked_softmax(logits_BM: Tensor, mask_BM: Tensor) -> Tensor:
    lowest = torch.finfo(logits_BM.dtype).min
    weights = logits_BM.masked_fill(~mask_BM, lowest).softmax(dim=-1)
    return weights.masked_fill(~mask_BM, 0.0)
