"""The optimizer of a run, its learning rate, and statistics that stay."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vltrack.training.recipes import TrainConfig


def make_optimizer(model: Any, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with a lower rate for ``low_lr_prefixes``, and weight decay for matrices only."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        low_lr = name.startswith(config.low_lr_prefixes)
        groups.setdefault((low_lr, parameter.ndim > 1), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "full_rate": config.learning_rate * (config.low_lr_factor if low_lr else 1.0),
            "weight_decay": config.weight_decay if matrix else 0.0,
        }
        for (low_lr, matrix), parameters in groups.items()
    ]
    return torch.optim.AdamW(settings, lr=config.learning_rate, betas=config.betas, fused=True)


def schedule(config: TrainConfig, step: int) -> float:
    """Factor on the learning rate: linear warm-up, then one drop to a tenth, or a cosine to ``final_rate``."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.rate_drop_at:
        return 1.0 if step < config.rate_drop_at * config.steps else 0.1
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def running_stats(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """The running statistics of batch norms that a step changes, and copies of them."""
    norms = (m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.training)
    return [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]


def freeze_bn_stats(model: nn.Module) -> None:
    """Keep the running statistics of frozen batch norms."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()
