"""Files as others publish them, small: every tensor that a key map asks for, by its published name.

What the names are is held by the tests of each key map; here it is what becomes of such a file.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from model_cases import CONFIGS
from vltrack.checkpoints.sources import SOURCES
from vltrack.models import ModelCard, build, split_name


def narrow_config(card: ModelCard, size: str) -> Any:
    """In place of ``models.config_of``: the same network with every width cut down."""
    return CONFIGS[f"{card.name} narrow {size}"]()


@cache
def shapes_of(name: str) -> dict[str, torch.Size]:
    """Every parameter of one of ours, narrow."""
    card, size = split_name(name)
    model = build(card, narrow_config(card, size))
    return {own: tensor.shape for own, tensor in model.state_dict().items()}


def published(kind: str, name: str, seed: int = 0) -> dict[str, Tensor]:
    """The tensors of a file of this kind that fits ``name``, drawn anew."""
    keymap = SOURCES[kind].maps[name]
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for own, shape in shapes_of(name).items():
        there = keymap.published(own)
        if there is not None:
            tensors[keymap.wrapper + there] = torch.rand(shape, generator=random) + 0.1
    return tensors | beside(kind, tensors)


def beside(kind: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the file holds that has no place with us."""
    if kind != "all-in-one":
        return {}
    width = len(tensors["net.backbone.patch_embed.proj.bias"])
    table = "net.language_embeddings."
    return {
        f"{table}word_embeddings.weight": torch.ones(200, width),
        f"{table}position_embeddings.weight": torch.rand(40, width),
        f"{table}token_type_embeddings.weight": torch.zeros(2, width),
        f"{table}LayerNorm.weight": torch.ones(width),
        f"{table}LayerNorm.bias": torch.zeros(width),
    }
