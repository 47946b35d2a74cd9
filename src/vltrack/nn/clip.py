"""CLIP's image and text encoders, the former with Alpha-CLIP's mask channel as an option.

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

from vltrack.nn.attention import attend

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
ALPHA_MEAN, ALPHA_STD = 0.5, 0.26
HEAD_WIDTH = 64
"""Channels per head in all published encoders, and the default here."""


def to_clip_input(image_B3SS: Tensor, mean: tuple[float, ...], std: tuple[float, ...], size: int) -> Tensor:
    """Convert an image normalized by ``mean`` and ``std`` to the size and normalization of CLIP.

    (B, 3, S, S) -> (B, 3, size, size); cubic and antialiased as in CLIP's own preparation, except that values
    are not rounded to bytes on the way.
    """
    their_mean, their_std, own_mean, own_std = (
        image_B3SS.new_tensor(values)[:, None, None] for values in (mean, std, CLIP_MEAN, CLIP_STD)
    )
    plain_B3SS = image_B3SS * their_std + their_mean
    if plain_B3SS.shape[-1] != size:
        plain_B3SS = nn.functional.interpolate(plain_B3SS, size=(size, size), mode="bicubic", antialias=True).clamp(
            0, 1
        )
    return (plain_B3SS - own_mean) / own_std


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x_BNC: Tensor, bias: Tensor | None) -> Tensor:
        b, n, c = x_BNC.shape
        q, k, v = self.in_proj(x_BNC).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        out: Tensor = self.out_proj(attend(q, k, v, bias).transpose(1, 2).reshape(b, n, c))
        return out


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x_BNC: Tensor) -> Tensor:
        inner = self.c_fc(x_BNC)
        # "Quick GELU": what the published weights were trained with; the exact GELU gives other numbers.
        out: Tensor = self.c_proj(inner * torch.sigmoid(1.702 * inner))
        return out


class ClipBlock(nn.Module):
    """One pre-norm layer: ``ln_1``, ``attn.in_proj``, ``attn.out_proj``, ``ln_2``, ``mlp``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = _Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = _Mlp(width)

    def forward(self, x_BNC: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C); ``bias`` is added to the attention's logits."""
        x_BNC = x_BNC + self.attn(self.ln_1(x_BNC), bias)
        out: Tensor = x_BNC + self.mlp(self.ln_2(x_BNC))
        return out


def _layers(width: int, heads: int | None, layers: int) -> nn.ModuleDict:
    heads = width // HEAD_WIDTH if heads is None else heads
    return nn.ModuleDict({"resblocks": nn.ModuleList(ClipBlock(width, heads) for _ in range(layers))})


class ClipVision(nn.Module):
    """Image encoder; with ``alpha`` it takes a mask of the region of interest (Alpha-CLIP)."""

    def __init__(
        self,
        *,
        size: int = 224,
        patch: int = 14,
        width: int = 1024,
        layers: int = 24,
        heads: int | None = None,
        out: int = 768,
        alpha: bool = False,
    ) -> None:
        super().__init__()
        if size % patch:
            raise ValueError(f"size {size} is not a multiple of patch {patch}")
        self.size = size
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        self.conv1_alpha = nn.Conv2d(1, width, kernel_size=patch, stride=patch, bias=False) if alpha else None
        if self.conv1_alpha is not None:
            nn.init.zeros_(self.conv1_alpha.weight)  # as published: starts as plain CLIP
        scale = width**-0.5
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn((size // patch) ** 2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = _layers(width, heads, layers)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, out))

    def encode(self, image_B3SS: Tensor, mask_B1SS: Tensor | None = None) -> Tensor:
        """All tokens of the last layer, (B, 1 + N, C): the class token, then the patches row by row.

        ``mask_B1SS`` holds shares of 0 to 1 in the image's own pixels; ``None`` means the whole image.

        Raises:
            ValueError: a mask for an encoder without ``alpha``.
        """
        x_BCHW = self.conv1(image_B3SS)
        if self.conv1_alpha is not None:
            mask_B1SS = torch.ones_like(image_B3SS[:, :1]) if mask_B1SS is None else mask_B1SS
            x_BCHW = x_BCHW + self.conv1_alpha((mask_B1SS - ALPHA_MEAN) / ALPHA_STD)
        elif mask_B1SS is not None:
            raise ValueError("this encoder has no alpha channel; it cannot take a mask")
        patches_BNC = x_BCHW.flatten(2).transpose(1, 2)
        first_B1C = self.class_embedding.expand(len(patches_BNC), 1, -1)
        x_BNC: Tensor = self.ln_pre(torch.cat([first_B1C, patches_BNC], dim=1) + self.positional_embedding)
        for block in cast(nn.ModuleList, self.transformer["resblocks"]):
            x_BNC = block(x_BNC)
        return x_BNC

    def forward(self, image_B3SS: Tensor, mask_B1SS: Tensor | None = None) -> Tensor:
        """The class token in the shared space, (B, D), not yet of unit length. See ``encode``."""
        pooled_BD: Tensor = self.ln_post(self.encode(image_B3SS, mask_B1SS)[:, 0]) @ self.proj
        return pooled_BD


class ClipText(nn.Module):
    """Text encoder: causal attention; the last word piece (end of text) stands for the sentence."""

    causal_LL: Tensor

    def __init__(
        self,
        *,
        vocabulary: int = 49408,
        length: int = 77,
        width: int = 768,
        layers: int = 12,
        heads: int | None = None,
        out: int = 768,
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(length, width))
        self.transformer = _layers(width, heads, layers)
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
