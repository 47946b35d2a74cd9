"""The grounder: a detector's boxes, ranked by how well a sentence names them (unpublished; our design).

PicoDet-S proposes boxes at several scales. From them come parts (the head of every person) and pairs (a rider
with the vehicle, two people). Each box is a token: class logits, features of the neck, mean colors, place and
size. A sentence is a sequence of word pieces through a small transformer. A joint transformer over boxes, word
pieces and a "none" token gives one logit per box and one for "nothing in this image fits".

Shapes: N boxes, Q sentences, L word pieces, C width, K classes of the detector, F features of a box. Boxes are
x0, y0, x1, y1 in shares of the image's width and height.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from vltrack.nn.attention import Block, gather_tokens, key_bias, tracing
from vltrack.nn.picodet import CLASSES, MEAN, STD, Level, PicoDet, boxes_of

PERSON = CLASSES.index("person")
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
BOX, HEAD, PAIR = 0, 1, 2
"""Kinds of proposals."""


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


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """Boxes of one image and what is known of each.

    Attributes:
        box_N4: x0, y0, x1, y1 in shares of the image.
        aspect: width of the image over its height.
        logits_NK: class logits of the detector; of parts and pairs those of what they belong to.
        feature_NF: features of the neck at the cell, and at ``POINTS`` of the box.
        color_NG: mean Lab colors of ``GRID``, divided by 100.
        kind_N: ``BOX``, ``HEAD`` or ``PAIR``.
        owners_N2: of a part its owner twice, of a pair its members, of other boxes -1.
    """

    box_N4: Tensor
    aspect: float
    logits_NK: Tensor
    feature_NF: Tensor
    color_NG: Tensor
    kind_N: Tensor
    owners_N2: Tensor


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

    # -- proposals ------------------------------------------------------------------------------------------

    def propose(self, images: Sequence[Tensor], shapes: Sequence[tuple[int, int]]) -> Proposals:
        """Find boxes in one image, given at every scale of the configuration.

        Args:
            images: per scale (1, 3, H, W) normalized RGB (``nn.picodet.MEAN``, ``STD``), padded with zeros at
                the right and bottom to multiples of 32.
            shapes: per scale height and width of the image without padding.
        """
        outputs = [self.detector(image) for image in images]
        boxes, logits, cells = zip(
            *(_positions(levels, shape) for levels, shape in zip(outputs, shapes, strict=True)), strict=True
        )
        box_N4, logits_NK, cell_NF = (torch.cat(parts) for parts in (boxes, logits, cells))
        box_N4 = box_N4.clamp(0, 1)
        score_N = logits_NK.amax(dim=1).sigmoid()
        side_N = (box_N4[:, 2:] - box_N4[:, :2]).amin(dim=1)
        usable = torch.nonzero((score_N > self.config.threshold) & (side_N > 0.004))[:, 0]
        order = usable[score_N[usable].argsort(descending=True)[: self.config.candidates]]
        if not len(order):  # nothing at all: the whole image is the one box
            order = score_N.argmax()[None]
            box_N4 = box_N4.index_put((order,), box_N4.new_tensor([[0.0, 0.0, 1.0, 1.0]]))
        kept = order[_suppress(box_N4[order], self.config.overlap, self.config.proposals)]
        height, width = shapes[-1]
        found = Proposals(
            box_N4=box_N4[kept],
            aspect=width / height,
            logits_NK=logits_NK[kept],
            feature_NF=torch.cat([cell_NF[kept], _sample(outputs[-1], shapes[-1], box_N4[kept], POINTS).flatten(1)], 1),
            color_NG=_mean_colors(images[0], shapes[0], box_N4[kept]),
            kind_N=torch.full((len(kept),), BOX, device=box_N4.device),
            owners_N2=torch.full((len(kept), 2), -1, device=box_N4.device),
        )
        owners, kinds, extra_N4 = self._derived(found, outputs[-1], shapes[-1])
        if not len(owners):
            return found
        roi = _sample(outputs[-1], shapes[-1], extra_N4, POINTS).flatten(1)
        return replace(
            found,
            box_N4=torch.cat([found.box_N4, extra_N4]),
            logits_NK=torch.cat([found.logits_NK, found.logits_NK[owners].amax(dim=1)]),
            feature_NF=torch.cat([found.feature_NF, torch.cat([found.feature_NF[owners, :96].mean(dim=1), roi], 1)]),
            color_NG=torch.cat([found.color_NG, _mean_colors(images[0], shapes[0], extra_N4)]),
            kind_N=torch.cat([found.kind_N, kinds]),
            owners_N2=torch.cat([found.owners_N2, owners]),
        )

    def head_inputs(self, levels: Sequence[Level], shape: tuple[int, int], box_N4: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, P, 96) of the upper halves of people, and facts (N, 4) about their boxes."""
        height, width = shape
        size_N2 = box_N4[:, 2:] - box_N4[:, :2]
        upper_N4 = torch.cat([box_N4[:, :2], box_N4[:, 2:] - size_N2 * size_N2.new_tensor([0.0, 0.5])], dim=1)
        ratio_N = (size_N2[:, 0] * width / (size_N2[:, 1] * height).clamp_min(1e-3)).clamp_min(1e-3).log()
        borders = torch.stack([box_N4[:, 1] < 0.01, box_N4[:, 3] > 0.99], dim=1).float()
        about_N4 = torch.cat([ratio_N[:, None], size_N2[:, 1:].clamp_min(1e-3).log(), borders], dim=1)
        return _sample(levels, shape, upper_N4, HEAD_POINTS), about_N4

    def decode_heads(self, point_NPF: Tensor, about_N4: Tensor, box_N4: Tensor, drop: float = 0.0) -> Tensor:
        """Boxes (N, 4) of heads from ``head_inputs`` and the people's boxes; ``drop``: dropout in training."""
        reduced = functional.gelu(self.head_points(point_NPF)).flatten(1)
        if drop:
            reduced = functional.dropout(reduced, drop)
        out_N4 = self.head_regressor(torch.cat([reduced, about_N4], dim=1))
        # Center as shares of the person's box, size as its logarithm.
        size_N2 = box_N4[:, 2:] - box_N4[:, :2]
        center_N2 = box_N4[:, :2] + (out_N4[:, :2] * 0.25 + out_N4.new_tensor([0.5, 0.08])) * size_N2
        half_N2 = (out_N4[:, 2:].clamp(-2.5, 2.5) + out_N4.new_tensor([-0.9, -1.8])).exp() * size_N2 / 2
        return torch.cat([center_N2 - half_N2, center_N2 + half_N2], dim=1)

    def _derived(
        self, found: Proposals, levels: Sequence[Level], shape: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Owners (M, 2), kinds (M,) and boxes (M, 4) of heads and pairs."""
        probability_NK = found.logits_NK.sigmoid()
        person_N = probability_NK[:, PERSON].tolist()
        people = [i for i, probability in enumerate(person_N) if probability > 0.15]
        people = sorted(people, key=lambda i: -person_N[i])[: self.config.heads_of]
        owners, kinds = [(i, i) for i in people], [HEAD] * len(people)
        boxes = [self._heads(levels, shape, found.box_N4[people])] if people else []
        mount_N = probability_NK[:, list(MOUNTS)].amax(dim=1)
        mounts = [i for i in range(len(mount_N)) if mount_N[i] > 0.15 and i not in people]
        box_N4 = found.box_N4
        pairs: list[tuple[float, int, int]] = []
        for i in people:
            for j in (*mounts, *(p for p in people if p > i)):
                if score := _pair_score(box_N4[i], box_N4[j], found.aspect, mount=j in mounts):
                    pairs.append((score * person_N[i], i, j))
        pairs = sorted(pairs, reverse=True)[: self.config.pairs]
        for _, i, j in pairs:
            owners.append((i, j))
            kinds.append(PAIR)
            low, high = torch.minimum(box_N4[i, :2], box_N4[j, :2]), torch.maximum(box_N4[i, 2:], box_N4[j, 2:])
            boxes.append(torch.cat([low, high])[None])
        extra = torch.cat(boxes) if boxes else box_N4.new_zeros(0, 4)
        owners_M2 = torch.tensor(owners, dtype=torch.long, device=extra.device).reshape(-1, 2)
        return owners_M2, torch.tensor(kinds, dtype=torch.long, device=extra.device), extra

    def _heads(self, levels: Sequence[Level], shape: tuple[int, int], box_N4: Tensor) -> Tensor:
        return self.decode_heads(*self.head_inputs(levels, shape, box_N4), box_N4).clamp(0, 1)

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
        fits_QN = torch.where(kind_QN == BOX, agreement_QN, part_QN)
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


def _positions(levels: Sequence[Level], shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes in shares of the image (N, 4), class logits (N, K) and features (N, 96) of all positions."""
    height, width = shape
    box_N4 = boxes_of(levels)[0]
    box_N4 = box_N4 / box_N4.new_tensor([width, height, width, height])
    logits_NK = torch.cat([level.class_logits_BKHW[0].flatten(1).T for level in levels])
    cell_NF = torch.cat([level.feature_BCHW[0].flatten(1).T for level in levels])
    return box_N4, logits_NK.float(), cell_NF.float()


def pairwise_iou(a_N4: Tensor, b_M4: Tensor) -> Tensor:
    """(N, M) IoU of boxes x0, y0, x1, y1."""
    low, high = torch.maximum(a_N4[:, None, :2], b_M4[:, :2]), torch.minimum(a_N4[:, None, 2:], b_M4[:, 2:])
    shared = (high - low).clamp_min(0).prod(dim=2)
    area_N, area_M = ((b[:, 2:] - b[:, :2]).prod(dim=1) for b in (a_N4, b_M4))
    return shared / (area_N[:, None] + area_M - shared).clamp_min(1e-9)


def _sample(levels: Sequence[Level], shape: tuple[int, int], box_N4: Tensor, points: tuple[int, int]) -> Tensor:
    """(N, P, 96) features at ``points`` (columns, rows) of each box, from the level that fits the box's size."""
    height, width = shape
    side_N = ((box_N4[:, 2] - box_N4[:, 0]) * width * (box_N4[:, 3] - box_N4[:, 1]) * height).clamp_min(1).sqrt()
    x, y = ((torch.arange(count, dtype=torch.float32) + 0.5) / count for count in points)
    share_P2 = torch.cartesian_prod(y, x).flip(1)  # x changes first
    point_NP2 = box_N4[:, None, :2] + share_P2.to(box_N4) * (box_N4[:, 2:] - box_N4[:, :2])[:, None]
    out_NPF = box_N4.new_zeros(len(box_N4), len(share_P2), 96)
    level_N = (side_N / (8 * max(points))).log2().round().clamp(0, 2).long()
    for number, level in enumerate(levels[:3]):
        chosen = torch.nonzero(level_N == number)[:, 0]
        if len(chosen):
            rows, columns = level.feature_BCHW.shape[2:]
            scale = point_NP2.new_tensor([width / (columns * level.stride), height / (rows * level.stride)])
            grid = (point_NP2[chosen] * scale * 2 - 1)[None]
            out_NPF[chosen] = functional.grid_sample(level.feature_BCHW.float(), grid, align_corners=False)[0].permute(
                1, 2, 0
            )
    return out_NPF


def _suppress(box_N4: Tensor, overlap: float, most: int) -> Tensor:
    """Indices of boxes, best first, of which no two overlap by more than ``overlap``, whatever their class."""
    near = (pairwise_iou(box_N4, box_N4) > overlap).numpy(force=True)
    kept: list[int] = []
    for i in range(len(box_N4)):
        if len(kept) == most:
            break
        if not near[i, kept].any():
            kept.append(i)
    return torch.tensor(kept, dtype=torch.long, device=box_N4.device)


def _pair_score(a_4: Tensor, b_4: Tensor, aspect: float, *, mount: bool) -> float:
    """How much a person ``a`` and a mount or second person ``b`` look like a pair; 0: not at all."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a_4.tolist(), b_4.tolist()
    across = min(ax1, bx1) - max(ax0, bx0)
    down = min(ay1, by1) - max(ay0, by0)
    if mount:
        if across < 0.4 * min(ax1 - ax0, bx1 - bx0) or down < -0.05 * (ay1 - ay0) or by1 < ay0 + 0.5 * (ay1 - ay0):
            return 0.0
        return 1.5
    tall, other = ay1 - ay0, by1 - by0
    if down < 0.7 * max(tall, other) or across > 0.5 * min(ax1 - ax0, bx1 - bx0):
        return 0.0
    return max(0.0, 1.0 + float(across * aspect / (0.35 * tall)))


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


def _mean_colors(image: Tensor, shape: tuple[int, int], box_N4: Tensor) -> Tensor:
    """(N, 3 * columns * rows) mean Lab colors of a grid in each box, divided by 100."""
    height, width = shape
    device, box_N4, image = box_N4.device, box_N4.cpu(), image.cpu()  # sums need float64, which not every device has
    rgb = image[0, :, :height, :width].float() * image.new_tensor(STD)[:, None, None]
    rgb = rgb + image.new_tensor(MEAN)[:, None, None]
    total = functional.pad(rgb.double().cumsum(1).cumsum(2), (1, 0, 1, 0))
    columns, rows = GRID
    edges = [
        low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, count + 1)
        for low, high, count in ((box_N4[:, 0], box_N4[:, 2], columns), (box_N4[:, 1], box_N4[:, 3], rows))
    ]
    x_NE = (edges[0] * width).round().long().clamp(0, width)
    y_NE = (edges[1] * height).round().long().clamp(0, height)
    x0, y0 = x_NE[:, :-1].clamp_max(width - 1)[:, None], y_NE[:, :-1].clamp_max(height - 1)[..., None]
    x1, y1 = torch.maximum(x_NE[:, 1:][:, None], x0 + 1), torch.maximum(y_NE[:, 1:][..., None], y0 + 1)
    mean = (total[:, y1, x1] - total[:, y0, x1] - total[:, y1, x0] + total[:, y0, x0]) / ((y1 - y0) * (x1 - x0))
    return (lab_of(mean.float().permute(1, 2, 3, 0)).flatten(1) / 100).to(device)


def lab_of(rgb: Tensor) -> Tensor:
    """CIE Lab (D65) of sRGB colors (..., 3) in [0, 1]."""
    rgb = rgb.clamp(0, 1)
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = rgb.new_tensor(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = linear @ to_xyz.T / rgb.new_tensor([0.95047, 1.0, 1.08883])
    f = torch.where(xyz > 0.008856, xyz.clamp_min(1e-8) ** (1 / 3), 7.787 * xyz + 16 / 116)
    return torch.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], dim=-1)
