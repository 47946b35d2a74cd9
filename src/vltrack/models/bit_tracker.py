"""BIT-Tracker: CNN and transformer features of the search region attend to each other; corner and score head.

Sources: BIT-Tracker (IEEE TCSVT 34(8):7259, 2024), of which a figure and an abstract are public, on top of
STARK (Yan et al., ICCV 2021, released code). What the figure names is a switch: ``dsa`` and ``dca``
(multi-level aggregation, MDAI), ``ctif`` (bidirectional interaction), ``recent_template`` (dynamic template),
``score`` (its gate); their inside is unpublished and our reconstruction. Text is our extension. What is
published: docs/trackers/bit-tracker.md. ``base`` has STARK-ST101's sizes, ``stark_base`` is STARK-ST101
itself, ``tiny`` is our own.

STARK hides padded pixels of a crop from attention and squeezes its sines into the rest; its presets do so too
(``mask_padding``), where the caller gives the mask.

Shapes: B batch, L word pieces, C width, P template cells, M = 2 P cells of both templates, N = S * S search
cells, T = M + N + L tokens in the order [first template, dynamic template, search, text]. Boxes are cx, cy,
w, h, corners x1, y1, x2, y2, in units of the crop's side.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from vltrack.core.errors import ConfigError
from vltrack.core.types import Mode
from vltrack.models.base import (
    STRIDE,
    TINY,
    BoxedCrop,
    Prediction,
    Template,
    TemplateMemory,
    Text,
    TrackerBase,
    TrackerConfig,
    TrainOutputs,
    Views,
    bert_of,
    flags_of,
    is_text_only,
    text_key_mask,
)
from vltrack.models.embedding import InputEmbedding
from vltrack.nn.attention import CrossAttention, Mlp, key_bias
from vltrack.nn.backbones import ResNetStem
from vltrack.nn.boxes import corners_to_box
from vltrack.nn.detr import EncoderLayer, QueryDecoder, detr_positions
from vltrack.nn.heads import as_map

MIN_SIDE = 1e-3
"""Least side of a box in units of the crop: corners may come in the wrong order."""
INITIAL_SCALE = 0.02
"""Scale of the last linear map of a new residual part at the start."""


@dataclass(frozen=True, kw_only=True)
class BITTrackerConfig(TrackerConfig):
    """All sizes and switches. The defaults are ``base``.

    Attributes:
        mlp_ratio: hidden width of every feed-forward part over the width.
        layers: of the encoder.
        taps: encoder layers, counted from 1, whose outputs are aggregated; the last is the last layer.
        corner_channels: of the corner head's towers.
        dropout: in encoder and decoder, in training only.
        recent_template: the dynamic template.
        dsa, dca: the two halves of MDAI: self-attention of each level; cross-attention of the last to all.
        ctif: the interaction of CNN and transformer features.
        score: the head that scores whether the target is in view, and so gates the dynamic template.
        decoder: STARK's one-query decoder, which weighs the search features in its own way.
        mask_padding: cells outside the frame are hidden from attention, and positions count without them.
        text: ``bert``: text tokens join the encoder (ours); ``none`` is the paper.
        text_width, text_layers, text_heads: of BERT; a linear map brings its width to ours.
    """

    stem: Literal["patch16", "mobilenet", "resnet50", "resnet101"] = "resnet101"
    search_size: int = 320
    search_factor: float = 5.0
    width: int = 256
    heads: int = 8
    mlp_ratio: float = 8.0
    layers: int = 6
    taps: tuple[int, ...] = (4, 5, 6)
    corner_channels: tuple[int, ...] = (256, 128, 64, 32)
    dropout: float = 0.1
    recent_template: bool = True
    # the paper's ideas
    dsa: bool = True
    dca: bool = True
    ctif: bool = True
    score: bool = True
    # STARK's, which BIT-Tracker leaves out
    decoder: bool = False
    mask_padding: bool = False
    # ours
    text: Literal["none", "bert"] = "none"
    text_width: int = 768
    text_layers: int = 6
    text_heads: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = all(a < b for a, b in pairwise((0, *self.taps)))
        if not self.taps or not rising or self.taps[-1] != self.layers:
            raise ValueError(f"taps must rise to the last of the {self.layers} layers, got {self.taps}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is a share below 1, got {self.dropout}")
        if self.word_match and self.text == "none":
            raise ValueError("word_match needs text='bert'")
        if self.text_layers < 1 or self.text_width % self.text_heads:
            raise ValueError(f"text_width {self.text_width} is not a multiple of {self.text_heads} heads")

    @property
    def hidden(self) -> int:
        """Hidden width of the feed-forward parts."""
        return int(self.width * self.mlp_ratio)


def base() -> BITTrackerConfig:
    """BIT-101: the sizes of STARK-ST101."""
    return BITTrackerConfig()


def base_r50() -> BITTrackerConfig:
    """The same on ResNet-50."""
    return BITTrackerConfig(stem="resnet50")


def stark_base() -> BITTrackerConfig:
    """The parent, STARK-ST101: no MDAI and no CTIF, but the decoder."""
    return BITTrackerConfig(dsa=False, dca=False, ctif=False, decoder=True, mask_padding=True)


def stark_r50() -> BITTrackerConfig:
    """STARK-ST50."""
    return replace(stark_base(), stem="resnet50")


def stark_s50() -> BITTrackerConfig:
    """STARK-S50: one template and no score."""
    return replace(stark_r50(), recent_template=False, score=False)


def tiny() -> BITTrackerConfig:
    """Runs live on one thread of a laptop (unpublished; our design)."""
    return BITTrackerConfig(
        **TINY,
        search_factor=4.0,
        layers=3,
        taps=(1, 2, 3),
        corner_channels=(96, 64, 32),
        dropout=0.0,
        text="bert",
        text_width=128,
        text_layers=2,
        text_heads=4,
    )


@dataclass(frozen=True, kw_only=True)
class CornerOutputs:
    """Corners (B, 4), the score's logits (B,), similarity of cells to the sentence (B, N)."""

    corners_B4: Tensor
    score_B: Tensor | None
    text_similarity_BN: Tensor | None


class BITTracker(TrackerBase[TemplateMemory]):
    """See the module's docstring.

    Its memory holds the templates: the first, and the dynamic one, which is replaced when the caller gives
    another, as the score allows (published: above 0.5).
    """

    pos_TC: Tensor

    def __init__(self, config: BITTrackerConfig) -> None:
        super().__init__(config)
        self.config, self.mask_padding = config, config.mask_padding
        width, heads, dropout = config.width, config.heads, config.dropout
        self.embed = InputEmbedding(config)
        self.sides = [self.template_side] * self.template_count + [self.search_side]
        every_1T = torch.ones(1, sum(side**2 for side in self.sides), dtype=torch.bool)
        self.register_buffer("pos_TC", self._positions(every_1T)[0], persistent=False)
        self.encoder = nn.ModuleList(EncoderLayer(width, heads, config.hidden, dropout) for _ in range(config.layers))
        self.mdai = LevelAggregation(
            width, heads, config.hidden, levels=len(config.taps), dsa=config.dsa, dca=config.dca
        )
        self.ctif = Interaction(width, heads, config.hidden) if config.ctif else None
        self.decoder: QueryDecoder | None = None
        if config.decoder:
            self.decoder = QueryDecoder(width, heads, config.hidden, config.layers, dropout)
        self.head = CornerHead(width, config.corner_channels)
        self.score_head = ScoreHead(width, pool=not config.decoder) if config.score else None
        has_text = config.text == "bert"
        self.bert = bert_of(config, config.text_layers, config.text_width, config.text_heads) if has_text else None
        self.text_project = nn.Linear(config.text_width, width) if has_text else nn.Identity()
        self.text_type: Tensor | float = nn.Parameter(torch.randn(width) * 0.02) if has_text else 0.0

    # -- once per sentence ----------------------------------------------------------------------------------

    def read_text(self, ids_BL: Tensor, valid_BL: Tensor) -> Text:
        """Word-piece ids (B, L) int64 with [CLS] first; ``valid_BL`` is False for padding.

        Without a text side (as published) the text is empty.
        """
        text = super().read_text(ids_BL, valid_BL)
        return replace(text, tokens_BLC=self.text_project(text.tokens_BLC))

    def embed_template(self, crop: BoxedCrop) -> Template:
        """Embed one template per target, without positions; with the mask of its padding where there is one."""
        template = super().embed_template(crop)
        if crop.padded_BSS is None:
            return template
        return replace(template, padded_BM=_cells(crop.padded_BSS).flatten(1))

    # -- encoder, aggregation, interaction, heads -----------------------------------------------------------

    def forward_corners(
        self, search_B3SS: Tensor, template: Template, text: Text, flag_B: Tensor, padded_BSS: Tensor | None = None
    ) -> CornerOutputs:
        """Both templates, the search region and the sentence through everything."""
        # Patches without positions: DETR adds those to the queries and keys of every layer
        search = self.embed.search(search_B3SS, template, text, is_text_only(flag_B))
        m, n = template.tokens_BMC.shape[1], search.tokens_BNC.shape[1]
        pos_TC = self.pos_TC[-(m + n) :]
        # Key mask: no templates in text-only samples, no text in box-only ones
        vision_BT = nn.functional.pad(~is_text_only(flag_B)[:, None].expand(-1, m), (0, n), value=True)
        if padded_BSS is not None and template.padded_BM is not None:
            # Nor what lies outside the frame; positions count without it
            seen_BT = ~torch.cat([template.padded_BM, _cells(padded_BSS).flatten(1)], dim=1)
            pos_TC, vision_BT = self._positions(seen_BT), vision_BT & seen_BT
        pos_TC = nn.functional.pad(pos_TC, (0, 0, 0, text.valid_BL.shape[1]))
        bias = key_bias(torch.cat([vision_BT, text_key_mask(flag_B, text.valid_BL)], dim=1))
        x_BTC = torch.cat([template.tokens_BMC, search.tokens_BNC, text.tokens_BLC + self.text_type], dim=1)
        # Encoder: templates, search and text tokens in one sequence
        levels = []
        for i, layer in enumerate(self.encoder, start=1):
            x_BTC = layer(x_BTC, pos_TC, bias)
            if i in self.config.taps:
                levels.append(x_BTC)
        # MDAI: the tapped levels become one
        g_BTC = self.mdai(levels, pos_TC, bias)
        f_BNC = g_BTC[:, m : m + n]
        # CTIF: CNN and transformer features of the search region attend to each other
        if self.ctif is not None:
            f_BNC = self.ctif(f_BNC, search.patches_BNC, pos_TC[..., m : m + n, :])
        # STARK's decoder, or the mean of the templates, stands for the target
        if self.decoder is not None:
            target_BC = self.decoder(g_BTC, pos_TC, bias)
            f_BNC = f_BNC * (f_BNC @ target_BC[..., None])
        else:
            target_BC = self._target(g_BTC, m, n, flag_B)
        # Score head and corner head
        score_B = self.score_head(target_BC, f_BNC) if self.score_head is not None else None
        corners_B4 = self.head(as_map(search.add_skip(f_BNC), self.search_side))
        return CornerOutputs(corners_B4=corners_B4, score_B=score_B, text_similarity_BN=search.text_similarity_BN)

    def _positions(self, seen_BT: Tensor) -> Tensor:
        """(B, T, C) positions of templates and search region, of which some cells are not seen (B, T)."""
        parts = zip(torch.split(seen_BT, [side**2 for side in self.sides], dim=1), self.sides, strict=True)
        grids = [part_BN.reshape(-1, side, side) for part_BN, side in parts]
        return torch.cat([detr_positions(self.width, grid_BSS) for grid_BSS in grids], dim=1)

    @staticmethod
    def _target(g_BTC: Tensor, m: int, n: int, flag_B: Tensor) -> Tensor:
        """(B, C) mean of both templates' tokens; of text-only samples the sentence's [CLS]."""
        template_BC = g_BTC[:, :m].mean(dim=1)
        text_BC = g_BTC[:, m + n] if g_BTC.shape[1] > m + n else torch.zeros_like(template_BC)
        return torch.where(is_text_only(flag_B)[:, None], text_BC, template_BC)

    # -- the protocol ---------------------------------------------------------------------------------------

    def locate(
        self,
        search_B3SS: Tensor,
        memory: TemplateMemory,
        past_BH4: Tensor | None = None,
        padded_BSS: Tensor | None = None,
    ) -> Prediction:
        """Search crops (B, 3, Sx, Sx), one per target of the memory -> one box each, maps of one cell.

        ``padded_BSS`` (B, Sx, Sx) bool marks pixels outside the frame; used with ``mask_padding``.
        """
        both = self.joint_template(memory.first, memory.recent)
        return _prediction(self.forward_corners(search_B3SS, both, memory.text, memory.flag_B, padded_BSS))

    def ground(self, scene_B3SS: Tensor, text: Text) -> Prediction:
        """Find the target from text in letterboxed frames (B, 3, Sx, Sx); both templates are masked (ours).

        Raises:
            ConfigError: this model has no text side (``text="none"``, as published).
        """
        if self.config.text == "none":
            raise ConfigError(
                "This BIT-Tracker was built with text='none', as published: text alone cannot start it.",
                hint="Give a box, or use a size with text='bert', as tiny.",
            )
        flag_B = flags_of(Mode.NL, scene_B3SS)
        return _prediction(self.forward_corners(scene_B3SS, self.no_template(scene_B3SS), text, flag_B))

    def forward(self, views: Views, *, select: bool = True) -> TrainOutputs:
        """Training pass (see the base class).

        The score learns together with the box (ours, for tiny) or alone, all else frozen (published, stage
        2); a frozen corner head keeps the statistics of its batch norms. Without a text side all samples must
        be box-only.
        """
        self.head.train(self.training and any(p.requires_grad for p in self.head.parameters()))
        # Sentence and templates, then everything else
        text, template, images_B3SS = self.embed_views(views)
        out = self.forward_corners(images_B3SS, template, text, views.flag_B[views.target_of_view()])
        return TrainOutputs(
            boxes_BSS4=corners_to_box(out.corners_B4)[:, None, None],
            score_B=out.score_B,
            text_similarity_BN=out.text_similarity_BN,
        )

    def freeze_plan(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """ResNet's first convolution and stage stay frozen (as STARK); tiny as all tiny sizes."""
        stem = self.embed.stem
        if isinstance(stem, ResNetStem):
            return [stem.body.conv1, stem.body.layer1], []
        return super().freeze_plan()


def _prediction(out: CornerOutputs) -> Prediction:
    boxes_B114 = corners_to_box(out.corners_B4, MIN_SIDE)[:, None, None]
    certain_B11 = torch.ones_like(boxes_B114[..., 0])
    presence = certain_B11 if out.score_B is None else out.score_B.float().sigmoid()[:, None, None]
    return Prediction(center_BSS=certain_B11, presence_BSS=presence, boxes_BSS4=boxes_B114)


def _cells(padded_BSS: Tensor) -> Tensor:
    """Mask of pixels -> of cells: that of the upper left pixel, as nearest interpolation takes it (released code)."""
    return padded_BSS[..., ::STRIDE, ::STRIDE]


class LevelAggregation(nn.Module):
    """MDAI: the outputs of several encoder layers become one.

    DSA: each level u = LN(h + SA(h + p; h + p; h)), with weights of its own. DCA: the last level attends to
    all levels, each marked by a learned vector, then an FFN. Both start near the identity, so that an encoder
    trained without them goes on from where it was; not exactly, as layer norm comes once more.
    """

    def __init__(self, width: int, heads: int, hidden: int, *, levels: int, dsa: bool, dca: bool) -> None:
        super().__init__()
        used = levels if dca else 1
        self.dsa: nn.ModuleList | None = None
        if dsa:
            layers = [EncoderLayer(width, heads, 0) for _ in range(used)]
            _start_small(*(layer.self_attn.out_proj for layer in layers))
            self.dsa = nn.ModuleList(layers)
        self.dca: PostNormCrossBlock | None = None
        if dca:
            self.dca = PostNormCrossBlock(width, heads, hidden, small=True)
            self.level_embed = nn.Parameter(torch.randn(levels, width) * 0.02)

    def forward(self, levels: list[Tensor], pos_TC: Tensor, bias: Tensor | None) -> Tensor:
        """Tokens (B, T, C) of each tap, lowest first -> (B, T, C). ``bias`` (B, 1, 1, T) hides keys."""
        if self.dca is None:
            levels = levels[-1:]
        if self.dsa is not None:
            levels = [layer(h_BTC, pos_TC, bias) for layer, h_BTC in zip(self.dsa, levels, strict=True)]
        if self.dca is None:
            return levels[-1]
        keys = torch.cat([u + mark for u, mark in zip(levels, self.level_embed, strict=True)], dim=1)
        biases = None if bias is None else torch.cat([bias] * len(levels), dim=-1)
        places = torch.cat([pos_TC] * len(levels), dim=-2)
        out: Tensor = self.dca(levels[-1], keys, pos_TC, places, biases)
        return out


class Interaction(nn.Module):
    """CTIF: CNN and transformer features attend to each other, and both results become one.

    a = block(g; c), b = block(c; g), f = LN(W [a; b]) with W at first "a, and a little of b".
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.ask_cnn = PostNormCrossBlock(width, heads, hidden, small=True)
        self.ask_transformer = PostNormCrossBlock(width, heads, hidden)
        self.merge = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        _start_small(self.merge)
        with torch.no_grad():
            self.merge.weight[:, :width] += torch.eye(width)

    def forward(self, g_BNC: Tensor, c_BNC: Tensor, pos_NC: Tensor) -> Tensor:
        """The search region as the encoder and as the CNN has it, (B, N, C) each -> (B, N, C)."""
        a_BNC = self.ask_cnn(g_BNC, c_BNC, pos_NC, pos_NC)
        b_BNC = self.ask_transformer(c_BNC, g_BNC, pos_NC, pos_NC)
        out: Tensor = self.norm(self.merge(torch.cat([a_BNC, b_BNC], dim=-1)))
        return out


class ScoreHead(nn.Module):
    """Score whether the target is in the search region: three linear layers, as STARK's.

    With ``pool`` their input is Z': the target and the search region pooled by attention. Without, it is the
    decoder's query, as in STARK.
    """

    def __init__(self, width: int, *, pool: bool) -> None:
        super().__init__()
        self.pool = nn.Linear(width, 1) if pool else None
        sizes = (2 * width if pool else width, width, width)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, (width, width, 1), strict=True))

    def forward(self, target_BC: Tensor, f_BNC: Tensor) -> Tensor:
        """(B, C), (B, N, C) -> logits (B,)."""
        x = target_BC
        if self.pool is not None:
            share_BN1 = self.pool(f_BNC).softmax(dim=1)
            x = torch.cat([x, (share_BN1 * f_BNC).sum(dim=1)], dim=-1)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        logits_B: Tensor = self.layers[-1](x)[:, 0]
        return logits_B


class PostNormCrossBlock(nn.Module):
    """x = LN(x + CA(x; y)), x = LN(x + MLP(x)), as in DETR."""

    def __init__(self, width: int, heads: int, hidden: int, *, small: bool = False) -> None:
        super().__init__()
        self.attn = CrossAttention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden)
        self.norm2 = nn.LayerNorm(width)
        if small:
            _start_small(self.attn.proj, self.mlp.fc2)

    def forward(self, x_BNC: Tensor, y_BMC: Tensor, x_pos: Tensor, y_pos: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, N, C), (B, M, C) -> (B, N, C); positions are added for queries and keys only."""
        x_BNC = self.norm1(x_BNC + self.attn(x_BNC, y_BMC, bias, x_pos, y_pos))
        out: Tensor = self.norm2(x_BNC + self.mlp(x_BNC))
        return out


class CornerHead(nn.Module):
    """STARK's corner head: top left corner from one tower, bottom right one from the other.

    Parameter names are those of the released code but for the place of the suffix: ``tl.conv1.0`` here is
    ``conv1_tl.0`` there.
    """

    def __init__(self, width: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.tl = corner_tower(width, channels)
        self.br = corner_tower(width, channels)

    def forward(self, map_BCSS: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, 4) corners in float32, in any order (published)."""
        return torch.cat([soft_argmax(tower(map_BCSS)[:, 0]) for tower in (self.tl, self.br)], dim=1)


def corner_tower(width: int, channels: Sequence[int]) -> nn.Sequential:
    """3x3 convolutions with batch norm and ReLU (``conv1``, ``conv2``, ...), then one 1x1 convolution."""
    steps: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (inside, outside) in enumerate(zip([width, *channels[:-1]], channels, strict=True), start=1):
        steps[f"conv{i}"] = nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU())
    steps[f"conv{len(channels) + 1}"] = nn.Conv2d(channels[-1], 1, 1)
    return nn.Sequential(steps)


def soft_argmax(logits_BSS: Tensor) -> Tensor:
    """(B, S, S) logits -> (B, 2) expected x and y in [0, 1).

    Cell i is the coordinate i / S, its left or upper edge, as in the released code: the largest coordinate is
    (S - 1) / S.
    """
    side = logits_BSS.shape[-1]
    share_BSS = logits_BSS.float().flatten(1).softmax(dim=1).view_as(logits_BSS)
    places_S = torch.arange(side, device=logits_BSS.device, dtype=torch.float32) / side
    return torch.stack([(share_BSS.sum(dim=axis) * places_S).sum(dim=1) for axis in (1, 2)], dim=1)


def _start_small(*linears: nn.Linear) -> None:
    """Scale outputs down at the start, so that gradients pass but little is added."""
    with torch.no_grad():
        for linear in linears:
            linear.weight.mul_(INITIAL_SCALE)
            linear.bias.zero_()
