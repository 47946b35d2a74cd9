"""Past boxes in units of the search crop: those of a start, and those that training on pairs makes up.

A search crop is cut around the last box, so at test the last box is always its middle, of the same area.
Knows boxes, no picture. Unpublished; our design (the published first stage has no past at all).

Shapes: B batch, H past boxes, oldest first. Boxes are cx, cy, w, h in units of the search crop.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

_ASPECT, _STEP, _SHAKE, _GROWTH, _STILL = 0.15, 0.02, 0.008, 0.015, 0.25


def unmoved(size_B2: Tensor, count: int) -> Tensor:
    """(B, H, 4): ``count`` times the box of this size in the middle, as at the first frame (published)."""
    box_B4 = torch.cat([torch.full_like(size_B2, 0.5), size_B2], dim=1)
    return box_B4[:, None].expand(-1, count, -1)


def anywhere(batch: int, count: int, like: Tensor) -> Tensor:
    """(B, H, 4): the whole picture, for a start by words, which has no past."""
    return like.new_tensor([0.5, 0.5, 1.0, 1.0]).expand(batch, count, 4)


def rehearsed(box_B4: Tensor, factor: float, count: int) -> Tensor:
    """A made-up past (B, H, 4) of targets whose boxes in the present crop are ``box_B4``.

    The last box is what the crop would have been cut around: its middle, area 1 / factor^2, the true aspect
    within some 15 %. The older ones lie on a nearly straight way there, drawn without a look at the true box;
    a quarter of all targets has not moved at all, as at a start. So the past tells the shape, roughly, and
    not the place: where a target goes on to is learned on clips. Noise is drawn from the boxes' own bytes, so
    that a training step stays a function of its data.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(box_B4.detach().cpu().numpy().tobytes()))
    b = len(box_B4)

    def noise(*shape: int) -> Tensor:
        return torch.randn(b, *shape, generator=generator).to(box_B4)

    lean_B = (box_B4[:, 2] / box_B4[:, 3].clamp_min(1e-3)).clamp(1 / 16, 16).log() / 2 + _ASPECT * noise()
    size_B2 = torch.stack([lean_B, -lean_B], dim=1).exp() / factor
    age_H1 = torch.arange(count - 1, -1, -1).to(box_B4)[:, None]
    walk_BH4 = age_H1 * (noise(1, 4) * _STEP) + age_H1.sqrt() * noise(count, 4) * _SHAKE
    walk_BH4 = walk_BH4 * walk_BH4.new_tensor([1.0, 1.0, _GROWTH / _STEP, _GROWTH / _STEP])
    moves_B = torch.rand(b, generator=generator) >= _STILL
    walk_BH4 = walk_BH4 * moves_B.to(box_B4)[:, None, None]
    last_BH4 = unmoved(size_B2, count)
    return torch.cat([last_BH4[..., :2] + walk_BH4[..., :2], last_BH4[..., 2:] * walk_BH4[..., 2:].exp()], -1)
