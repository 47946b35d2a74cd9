"""Alpha-CLIP's image encoder, which is CLIP's with a mask channel, and CLIP's text encoder.

Parameter names are those of the published checkpoints: OpenAI's, and where the two spell one thing in two
ways (``attn.in_proj_weight`` and ``attn.in_proj.weight``), Alpha-CLIP's. The defaults are ViT-L/14.
Sources: released code of openai/CLIP (names, order of layers, pooling) and SunzeY/AlphaCLIP (mask channel).

Shapes: B batch, S side of the image in pixels, N patches, L word pieces, C width, D width of the shared
space of images and sentences.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from vltrack.nn.attention import attend_packed, tracing

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
ALPHA_MEAN, ALPHA_STD = 0.5, 0.26
HEAD_WIDTH = 64
"""Channels per head."""


def to_clip_input(image_B3SS: Tensor, mean: tuple[float, ...], std: tuple[float, ...], size: int) -> Tensor:
    """Convert an image normalized by ``mean`` and ``std`` to the size and normalization of CLIP.

    (B, 3, S, S) -> (B, 3, size, size); cubic and antialiased as in CLIP's own preparation, except that values
    are not rounded to bytes on the way.
    """
    their_mean, their_std, own_mean, own_std = (
        image_B3SS.new_tensor(values)[:, None, None] for values in (mean, std, CLIP_MEAN, CLIP_STD)
    )
    plain_B3SS = image_B3SS * their_std + their_mean
    side = int(plain_B3SS.shape[-1])
    if side != size and tracing():  # as a matrix, which every runtime has
        every_11SS = torch.eye(side)[None, None]
        weights = nn.functional.interpolate(every_11SS, size=(size, side), mode="bicubic", antialias=True).numpy()
        scale = torch.from_numpy(weights[0, 0].copy())
        plain_B3SS = (scale @ plain_B3SS @ scale.T).clamp(0, 1)
    elif side != size:
        plain_B3SS = nn.functional.interpolate(plain_B3SS, size=(size, size), mode="bicubic", antialias=True).clamp(
            0, 1
        )
    return (plain_B3SS - own_mean) / own_std


class ClipBlock(nn.Module):
    """One pre-norm layer; ``width`` is a multiple of ``HEAD_WIDTH``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"in_proj": nn.Linear(width, 3 * width), "out_proj": nn.Linear(width, width)})
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x_BNC: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C); ``bias`` is added to the attention's logits."""
        packed = self.attn["in_proj"](self.ln_1(x_BNC))
        x_BNC = x_BNC + self.attn["out_proj"](attend_packed(packed, self.heads, bias))
        inner = self.mlp["c_fc"](self.ln_2(x_BNC))
        # "Quick GELU": what the published weights were trained with; the exact GELU gives other numbers.
        out: Tensor = x_BNC + self.mlp["c_proj"](inner * torch.sigmoid(1.702 * inner))
        return out


def _layers(width: int, layers: int) -> nn.ModuleDict:
    return nn.ModuleDict({"resblocks": nn.ModuleList(ClipBlock(width) for _ in range(layers))})


class ClipVision(nn.Module):
    """Image encoder that takes a mask of the region of interest (Alpha-CLIP)."""

    def __init__(
        self, *, size: int = 224, patch: int = 14, width: int = 1024, layers: int = 24, out: int = 768
    ) -> None:
        super().__init__()
        if size % patch:
            raise ValueError(f"size {size} is not a multiple of patch {patch}")
        self.size = size
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        self.conv1_alpha = nn.Conv2d(1, width, kernel_size=patch, stride=patch, bias=False)
        nn.init.zeros_(self.conv1_alpha.weight)  # as published: starts as plain CLIP
        scale = width**-0.5
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn((size // patch) ** 2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = _layers(width, layers)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, out))

    def forward(self, image_B3SS: Tensor, mask_B1SS: Tensor) -> Tensor:
        """The class token in the shared space, (B, D), not yet of unit length.

        ``mask_B1SS`` holds shares of 0 to 1 in the image's own pixels.
        """
        x_BCHW = self.conv1(image_B3SS) + self.conv1_alpha((mask_B1SS - ALPHA_MEAN) / ALPHA_STD)
        patches_BNC = x_BCHW.flatten(2).transpose(1, 2)
        first_B1C = self.class_embedding.expand(len(patches_BNC), 1, -1)
        x_BNC: Tensor = self.ln_pre(torch.cat([first_B1C, patches_BNC], dim=1) + self.positional_embedding)
        for block in cast(nn.ModuleList, self.transformer["resblocks"]):
            x_BNC = block(x_BNC)
        pooled_BD: Tensor = self.ln_post(x_BNC[:, 0]) @ self.proj
        return pooled_BD


class ClipText(nn.Module):
    """Text encoder: causal attention; the last word piece (end of text) stands for the sentence."""

    causal_LL: Tensor

    def __init__(
        self, *, vocabulary: int = 49408, length: int = 77, width: int = 768, layers: int = 12, out: int = 768
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(length, width))
        self.transformer = _layers(width, layers)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, out))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        causal_LL = torch.full((length, length), float("-inf")).triu(1)
        self.register_buffer("causal_LL", causal_LL, persistent=False)

    def forward(self, ids_BL: Tensor, valid_BL: Tensor) -> Tensor:
        """The sentence in the shared space, (B, D), not yet of unit length.

        ``ids_BL``: start of text, pieces, end of text, padding; ``valid_BL``: which are not padding.
        Padding is optional: attention is causal. The released code finds the end of text as the largest
        id; that is the last valid one.

        Raises:
            ValueError: more pieces than positions.
        """
        length = ids_BL.shape[1]
        if length > len(self.positional_embedding):
            raise ValueError(f"{length} word pieces; the encoder has {len(self.positional_embedding)} positions")
        x_BLC = self.token_embedding(ids_BL) + self.positional_embedding[:length]
        for block in cast(nn.ModuleList, self.transformer["resblocks"]):
            x_BLC = block(x_BLC, self.causal_LL[:length, :length])
        last_B = (valid_BL.sum(dim=1) - 1).clamp_min(0)
        end_BC = x_BLC.gather(1, last_B[:, None, None].expand(-1, 1, x_BLC.shape[-1]))[:, 0]
        pooled_BD: Tensor = self.ln_final(end_BC) @ self.text_projection
        return pooled_BD
