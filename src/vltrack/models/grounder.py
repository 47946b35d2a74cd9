"""The grounder: a detector's boxes, ranked by how well a sentence names them (unpublished; our design).

PicoDet-S proposes boxes at several scales. From them come parts (the head of every person) and pairs (a rider
with the vehicle, two people). Each box is a token: class logits, features of the neck, mean colors, place and
size. A sentence is a sequence of word pieces through a small transformer. A joint transformer over boxes, word
pieces and a "none" token gives one logit per box and one for "nothing in this image fits".

Shapes: N boxes, Q sentences, L word pieces, C width, K classes of the detector, F features of a box. Boxes are
x0, y0, x1, y1 in shares of the image's width and height.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vltrack.nn.attention import Block, gather_tokens, key_bias, tracing
from vltrack.nn.picodet import CLASSES, MEAN, STD, PicoDet, boxes_of

MOUNTS = tuple(
    CLASSES.index(name)
    for name in ("bicycle", "motorcycle", "horse", "skis", "snowboard", "skateboard", "surfboard", "elephant")
)
"""Classes that form a pair with the person on them."""
NOUNS = (*CLASSES, "head", "pair", "other")
"""Classes of a sentence's head noun; the detector knows none of the last three."""
GRID = (3, 6)
"""Columns and rows of the mean colors of a box."""
POINTS, HEAD_POINTS = (3, 3), (5, 7)
"""Columns and rows of the points at which the neck's features are sampled: in a box, in the upper half of a person."""
Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class GrounderConfig:
    """Sizes of the grounder.

    Attributes:
        scales: longer sides in pixels at which the detector reads the image.
        threshold, overlap: least class probability of a proposal, and largest IoU of two of them.
        candidates, proposals: positions before and boxes after non-maximum suppression.
        heads_of, pairs: most people whose heads, and most pairs, that are added.
        width, heads, mlp_ratio, text_layers, joint_layers: of the transformers.
        table_width, max_words: of the word table and of a sentence.
    """

    scales: tuple[int, ...] = (416, 640)
    threshold: float = 0.02
    overlap: float = 0.65
    candidates: int = 400
    proposals: int = 48
    heads_of: int = 12
    pairs: int = 8
    width: int = 128
    heads: int = 4
    mlp_ratio: float = 2.0
    text_layers: int = 2
    joint_layers: int = 3
    table_width: int = 96
    max_words: int = 32
    vocabulary: int = 30522

    def __post_init__(self) -> None:
        if not self.scales or not all(32 <= scale <= 2048 for scale in self.scales):
            raise ValueError(f"scales must lie in 32..2048, got {self.scales}")
        for name in ("candidates", "proposals", "heads_of", "pairs", "max_words"):
            if not 0 <= getattr(self, name) <= 4096:
                raise ValueError(f"{name} must lie in 0..4096, got {getattr(self, name)}")


class Grounder(nn.Module):
    """Detector, head regressor, text encoder and joint transformer."""

    table: Tensor
    table_scale: Tensor
    temperature: Tensor

    def __init__(self, config: GrounderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GrounderConfig()
        width = config.width
        self.detector = PicoDet()
        self.head_points = nn.Linear(96, 8)
        self.head_regressor = nn.Sequential(
            nn.Linear(8 * HEAD_POINTS[0] * HEAD_POINTS[1] + 4, 32), nn.GELU(), nn.Linear(32, 4)
        )
        # The word table is frozen, and kept as bytes: it is the largest part of the file.
        self.register_buffer("table", torch.zeros(config.vocabulary, config.table_width, dtype=torch.int8))
        self.register_buffer("table_scale", torch.ones(config.table_width))
        self.word_proj = nn.Linear(config.table_width, width)
        self.word_pos = nn.Parameter(torch.randn(config.max_words, width) * 0.02)
        self.text_blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp_ratio) for _ in range(config.text_layers)
        )
        self.noun_head = nn.Linear(width, len(NOUNS))
        self.class_proj = nn.Linear(len(CLASSES), width)
        self.cell_proj = nn.Linear(96, width)
        self.roi_proj = nn.Linear(96 * POINTS[0] * POINTS[1], width)
        self.color_proj = nn.Linear(3 * GRID[0] * GRID[1], width)
        self.place_proj = nn.Linear(16, width)
        self.kind_embed = nn.Embedding(3, width)
        self.owner_proj = nn.Linear(width, width)
        self.match_proj = nn.Linear(4, width)
        self.box_norm = nn.LayerNorm(width)
        self.box_mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.none_token = nn.Parameter(torch.randn(width) * 0.02)
        self.joint_blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp_ratio) for _ in range(config.joint_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.score_head = nn.Linear(width, 1)
        self.none_head = nn.Linear(width, 1)
        self.register_buffer("temperature", torch.ones(()))

    # -- calls ----------------------------------------------------------------------------------------------

    @property
    def sizes(self) -> dict[str, Any]:
        """Numbers and names for what is between the calls (``tracking.proposals``), as JSON values."""
        named = {"classes": CLASSES, "mounts": MOUNTS, "grid": GRID, "points": POINTS, "head_points": HEAD_POINTS}
        return {**asdict(self.config), **named, "mean": MEAN, "std": STD}

    def calls(self) -> dict[str, Callable[[Tensors], Tensors]]:
        """The networks by name, as functions of named tensors about one image.

        - ``detect``: ``image`` (1, 3, H, W) float32, normalized and padded to multiples of 32 -> of every position
          ``position_N4`` (x0, y0, x1, y1 in pixels), ``position_NK`` (class logits) and ``position_NF`` (features).
        - ``heads``: ``point_NPF`` (features in the upper half of a person), ``about_N4`` (facts about its box) and
          ``person_N4`` -> ``head_N4``.
        - ``rank``: what is known of the boxes (``tracking.proposals.Proposals``; ``aspect`` (1,)) and ``ids`` (1, L)
          -> ``probability_M``, the last one of "none fits".
        """

        def detect(tensors: Tensors) -> Tensors:
            levels = self.detector(tensors["image"])
            return {
                "position_N4": boxes_of(levels)[0],
                "position_NK": torch.cat([level.class_logits_BKHW[0].flatten(1).T for level in levels]),
                "position_NF": torch.cat([level.feature_BCHW[0].flatten(1).T for level in levels]),
            }

        def heads(tensors: Tensors) -> Tensors:
            point_NPF, about_N4 = tensors["point_NPF"], tensors["about_N4"]
            return {"head_N4": self.decode_heads(point_NPF, about_N4, tensors["person_N4"]).clamp(0, 1)}

        def rank(tensors: Tensors) -> Tensors:
            parts = {name: tensors[name][None] for name in ("box_N4", "logits_NK", "feature_NF", "color_NG", "kind_N")}
            logits_1NK, kind_1N, ids_1L = parts["logits_NK"], parts["kind_N"], tensors["ids"]
            x_1NC = self.embed_boxes(
                parts["box_N4"], tensors["aspect"], logits_1NK, parts["feature_NF"], parts["color_NG"], kind_1N,
                tensors["owners_N2"][None],
            )  # fmt: skip
            valid_1N, valid_1L = (torch.ones_like(each, dtype=torch.bool) for each in (kind_1N, ids_1L))
            logits_1M, _ = self.rank(x_1NC, logits_1NK, kind_1N, valid_1N, ids_1L, valid_1L)
            return {"probability_M": (logits_1M / self.temperature).softmax(dim=1)[0]}

        return {"detect": detect, "heads": heads, "rank": rank}

    def decode_heads(self, point_NPF: Tensor, about_N4: Tensor, box_N4: Tensor, drop: float = 0.0) -> Tensor:
        """Boxes (N, 4) of heads from what ``calls`` names for ``heads``; ``drop``: dropout in training."""
        reduced = functional.gelu(self.head_points(point_NPF)).flatten(1)
        if drop:
            reduced = functional.dropout(reduced, drop)
        out_N4 = self.head_regressor(torch.cat([reduced, about_N4], dim=1))
        # Center as shares of the person's box, size as its logarithm.
        size_N2 = box_N4[:, 2:] - box_N4[:, :2]
        center_N2 = box_N4[:, :2] + (out_N4[:, :2] * 0.25 + out_N4.new_tensor([0.5, 0.08])) * size_N2
        half_N2 = (out_N4[:, 2:].clamp(-2.5, 2.5) + out_N4.new_tensor([-0.9, -1.8])).exp() * size_N2 / 2
        return torch.cat([center_N2 - half_N2, center_N2 + half_N2], dim=1)

    # -- ranking --------------------------------------------------------------------------------------------

    def read_text(self, ids_QL: Tensor, valid_QL: Tensor) -> tuple[Tensor, Tensor]:
        """Encode sentences: tokens (Q, L, C), and logits (Q, len(NOUNS)) of the class of the head noun."""
        x_QLC = self.word_proj(self.table[ids_QL].float() * self.table_scale)
        x_QLC = x_QLC + self.word_pos[: ids_QL.shape[1]]
        bias = key_bias(valid_QL)
        for block in self.text_blocks:
            x_QLC = block(x_QLC, bias)
        return x_QLC, self.noun_head(x_QLC[:, 0])

    def embed_boxes(
        self, box_BN4: Tensor, aspect_B: Tensor, logits_BNK: Tensor, feature_BNF: Tensor, color_BNG: Tensor,
        kind_BN: Tensor, owners_BN2: Tensor,
    ) -> Tensor:  # fmt: skip
        """(B, N, C) tokens of the boxes of B images, without the sentence."""
        x_BNC = self.class_proj(logits_BNK / 4) + self.cell_proj(feature_BNF[..., :96])
        x_BNC = x_BNC + self.roi_proj(feature_BNF[..., 96:]) + self.color_proj(color_BNG)
        x_BNC = x_BNC + self.place_proj(_places(box_BN4, aspect_B, logits_BNK)) + self.kind_embed(kind_BN)
        has_owner_BN1 = (owners_BN2[..., :1] >= 0).float()
        at = owners_BN2.clamp_min(0)
        if tracing():  # the owners of the one image's boxes
            owner_BN2C = torch.stack([gather_tokens(x_BNC, at[..., each]) for each in (0, 1)], dim=2)
        else:
            owner_BN2C = x_BNC[torch.arange(len(at), device=at.device)[:, None, None], at]
        tokens_BNC: Tensor = x_BNC + self.owner_proj(owner_BN2C.mean(dim=2)) * has_owner_BN1
        return tokens_BNC

    def rank(
        self, x_QNC: Tensor, logits_QNK: Tensor, kind_QN: Tensor, valid_QN: Tensor, ids_QL: Tensor, valid_QL: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (Q, N + 1) of the boxes and, last, of "nothing fits"; and the noun's (Q, len(NOUNS))."""
        text_QLC, noun_QK = self.read_text(ids_QL, valid_QL)
        noun = noun_QK.softmax(dim=1)
        classes_QNK = logits_QNK.sigmoid()
        agreement_QN = (classes_QNK @ noun[:, : len(CLASSES), None])[..., 0]
        best_QN = classes_QNK.amax(dim=2)
        part_QN = noun[:, len(CLASSES) :].gather(1, (kind_QN - 1).clamp_min(0))  # "head" or "pair"
        fits_QN = torch.where(kind_QN > 0, part_QN, agreement_QN)
        match = torch.stack(
            [(agreement_QN + 1e-3).log(), agreement_QN, agreement_QN / (best_QN + 0.05), fits_QN], dim=2
        )
        x_QNC = x_QNC + self.match_proj(match)
        x_QNC = x_QNC + self.box_mlp(self.box_norm(x_QNC))
        none_Q1C = self.none_token.expand(len(x_QNC), 1, -1)
        joint = torch.cat([x_QNC, none_Q1C, text_QLC], dim=1)
        ones = valid_QL.new_ones(len(valid_QL), 1)
        bias = key_bias(torch.cat([valid_QN, ones, valid_QL], dim=1))
        for block in self.joint_blocks:
            joint = block(joint, bias)
        boxes = x_QNC.shape[1]
        joint = self.norm(joint[:, : boxes + 1])
        score_QN = self.score_head(joint[:, :boxes])[..., 0].masked_fill(~valid_QN, -1e4)
        return torch.cat([score_QN, self.none_head(joint[:, boxes])], dim=1), noun_QK


def pairwise_iou(a_N4: Tensor, b_M4: Tensor) -> Tensor:
    """(N, M) IoU of boxes x0, y0, x1, y1."""
    low, high = torch.maximum(a_N4[:, None, :2], b_M4[:, :2]), torch.minimum(a_N4[:, None, 2:], b_M4[:, 2:])
    shared = (high - low).clamp_min(0).prod(dim=2)
    area_N, area_M = ((b[:, 2:] - b[:, :2]).prod(dim=1) for b in (a_N4, b_M4))
    return shared / (area_N[:, None] + area_M - shared).clamp_min(1e-9)


def _places(box_BN4: Tensor, aspect_B: Tensor, logits_BNK: Tensor) -> Tensor:
    """(B, N, 16) place, logarithms of size and ratio, score and borders."""
    x0, y0, x1, y1 = box_BN4.unbind(dim=-1)
    w, h = (x1 - x0).clamp_min(1e-3), (y1 - y0).clamp_min(1e-3)
    aspect_BN = aspect_B[:, None].expand_as(w)
    score = logits_BNK.amax(dim=2).sigmoid()
    borders = [(x0 < 0.01).float(), (y0 < 0.01).float(), (x1 > 0.99).float(), (y1 > 0.99).float()]
    center = [(x0 + x1) - 1, (y0 + y1) - 1]
    values = [x0, y0, x1, y1, *center, w.log(), h.log(), (w * h).log(), (w / h * aspect_BN).log(), score]
    return torch.stack([*values, aspect_BN.log(), *borders], dim=-1)
