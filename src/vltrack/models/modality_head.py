"""UVLTrack's modality-adaptive box head: prompts beside convolution towers. Knows tokens, not their origin.

Shapes: B batch, N = S * S search cells, C width. Boxes are cx, cy, w, h in units of the crop's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from vltrack.models.base import Flag, Prediction, Tokens
from vltrack.nn.heads import BoxCode, ConvTower, decode_boxes
from vltrack.nn.prompt import ContrastivePrompter, presence


class ModalityHead(nn.Module):
    """Contrastive prompts beside convolution towers for centre, offset and size."""

    def __init__(
        self,
        width: int,
        *,
        side: int,
        channels: Sequence[int],
        code: BoxCode,
        mlp_ratio: float = 4.0,
        spare: bool = False,
        neither_by_words: bool = False,
    ) -> None:
        super().__init__()
        self.side, self.code, self.neither_by_words = side, code, neither_by_words
        self.prompter = ContrastivePrompter(width, mlp_ratio, spare=spare)
        self.conv_cls = ConvTower(width, channels, 1)
        self.conv_offset = ConvTower(width, channels, 2)
        self.conv_bbox = ConvTower(width, channels, 2)
        self.conv_bbox_grounding = ConvTower(width, channels, 2)
        # A rare event: start the centre map low so that the first steps are not spent on that.
        nn.init.constant_(cast(Tensor, self.conv_cls.out.bias), -4.0)

    def forward(self, tokens: Tokens, aux: dict[str, Any], prompts_B3C: Tensor, flag_B: Tensor) -> Prediction:
        """Maps of the search region; by words alone the size comes from its own tower (published)."""
        contrast_BN2 = self.prompter.score(tokens.search_BNC, prompts_B3C)
        x_BNC = tokens.search_BNC + aux["detail"] if "detail" in aux else tokens.search_BNC
        b, _, c = x_BNC.shape
        map_BCSS = x_BNC.transpose(1, 2).reshape(b, c, self.side, self.side)
        centre = self.conv_cls(map_BCSS)[:, 0].float()
        by_words_B = flag_B == Flag.NL
        size = self._size(map_BCSS, by_words_B)
        sure_B = None if self.neither_by_words else by_words_B
        logits = {}
        if self.training:
            logits = {"centre": centre, "prompt": contrast_BN2, **aux}
        return Prediction(
            centre_BSS=centre.sigmoid(),
            presence_BSS=presence(contrast_BN2, sure_B).view(b, self.side, self.side),
            boxes_BSS4=decode_boxes(self.conv_offset(map_BCSS), size, self.code),
            tokens=tokens,
            logits=logits,
        )

    def _size(self, map_BCSS: Tensor, by_words_B: Tensor) -> Tensor:
        """At inference only the towers that a flag asks for are computed."""
        if self.training or (by_words_B.any() and not by_words_B.all()):
            choice = by_words_B[:, None, None, None]
            return torch.where(choice, self.conv_bbox_grounding(map_BCSS), self.conv_bbox(map_BCSS))
        tower = self.conv_bbox_grounding if bool(by_words_B.all()) else self.conv_bbox
        size: Tensor = tower(map_BCSS)
        return size


def by_flag(flag_B: Tensor, vision: Tensor, words: Tensor) -> Tensor:
    """Per sample: vision for BBOX, words for NL, their mean for NLBBOX.

    ``where``, not a product, so that nothing of a masked modality can pass.
    """
    flag = flag_B.view((-1,) + (1,) * (vision.ndim - 1))
    both = torch.where(flag == Flag.NL, words, (vision + words) / 2)
    return torch.where(flag == Flag.BBOX, vision, both)
