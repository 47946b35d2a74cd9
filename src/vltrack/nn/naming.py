"""What names a target beside its picture: vectors of regions and sentences in one space, added to tokens.

Knows vectors and boxes, no tracker. Source: AITrack's released code (a region's vector from Alpha-CLIP, added
to all tokens of that region); sentences, the mean of both and the learned scale are ours.

Shapes: B batch, N = S * S cells, C width. Boxes are cx, cy, w, h in units of the crop's side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vltrack.nn.batched import Batched
from vltrack.nn.cells import cell_share
from vltrack.nn.clip import ClipVision, clip_picture


@dataclass(frozen=True, kw_only=True)
class Name(Batched):
    """What is said of a region: a vector (B, C) of unit length, and whether anything is said at all (B,)."""

    vector_BC: Tensor
    known_B: Tensor

    @classmethod
    def of(cls, vector_BC: Tensor, known_B: Tensor) -> Name:
        """From a vector of any length."""
        return cls(vector_BC=nn.functional.normalize(vector_BC.float(), dim=-1), known_B=known_B)

    def unless(self, hidden_B: Tensor) -> Name:
        """Nothing is said of the samples that are hidden."""
        return Name(vector_BC=self.vector_BC, known_B=self.known_B & ~hidden_B)

    def beside(self, other: Name) -> Name:
        """normalise(mean of those that are there); ``where``, so that nothing of an absent one can pass."""
        parts = (torch.where(n.known_B[:, None], n.vector_BC, 0.0) for n in (self, other))
        known_B = self.known_B | other.known_B
        mean_BC = torch.where(known_B[:, None], sum(parts, start=torch.zeros_like(self.vector_BC)), 1.0)
        return Name.of(mean_BC, known_B)


class Alignment(nn.Module):
    """Additive image-text alignment: F + s * Linear(LN(e)) on every token of a region.

    Released code adds e as it is: a unit vector of 768 numbers of about 0.04 beside tokens of about 1, with
    nearly no effect. Ours is learned: the linear map starts at zero, so that an ARTrack checkpoint starts as
    what it is, and the scale at one, so that the map has a gradient at once.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.linear = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(()))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens_BNC: Tensor, name: Name) -> Tensor:
        """(B, N, C) -> (B, N, C); samples that nothing names stay as they are."""
        told_BC = self.scale * self.linear(self.norm(name.vector_BC))
        return tokens_BNC + torch.where(name.known_B[:, None], told_BC, 0.0)[:, None]


@torch.no_grad()
def clip_region(
    tower: ClipVision,
    image_B3SS: Tensor,
    box_B4: Tensor,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Tensor:
    """(B, C) what Alpha-CLIP sees in the box of a picture that was normalised by ``mean`` and ``std``.

    The mask is the box's rectangle, as in the published training. The class token is read, as CLIP was
    trained (released code: the last patch's), and no gradient reaches the tower (published).
    """
    picture = clip_picture(image_B3SS, mean, std, tower.size)
    mask_B1SS = cell_share(box_B4, tower.size).view(-1, 1, tower.size, tower.size)
    seen_BC: Tensor = tower(picture, mask_B1SS.to(picture.dtype))
    return seen_BC


def pooled_region(tokens_BNC: Tensor, box_B4: Tensor) -> Tensor:
    """(B, C) mean of the tokens in the box, each by its share in it; 0 for a box outside the crop (ours)."""
    share_BN = cell_share(box_B4, int(tokens_BNC.shape[1] ** 0.5)).to(tokens_BNC.dtype)
    total_B1 = share_BN.sum(dim=1, keepdim=True).clamp_min(1e-3)
    return (share_BN[:, None] @ tokens_BNC)[:, 0] / total_B1
