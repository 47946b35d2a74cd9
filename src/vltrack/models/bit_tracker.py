"""BIT-Tracker: CNN and transformer features of the search region question each other; a corner head, a gate.

Sources: BIT-Tracker (IEEE TCSVT 34(8):7259, 2024), of which a figure and an abstract are public, on top of
STARK (Yan et al., ICCV 2021, released code). What the figure names is a switch: ``dsa`` and ``dca``
(multi-level aggregation, MDAI), ``ctif`` (bidirectional interaction), ``recent_template`` (dynamic template),
``score`` (its gate). Words are our extension. What is published: docs/trackers/bit-tracker.md.
``base`` has STARK-ST101's sizes, ``stark_base`` is STARK-ST101 itself, ``tiny`` is our own.

STARK hides padded pixels of a crop from attention and squeezes its sines into the rest. A crop here has no
padding mask: every pixel counts, so outputs equal STARK's only for crops that lie within the frame.

Shapes: B batch, L word pieces, C width, P template cells, M = 2 P cells of both templates, N search cells,
T = M + N + L tokens in the order [first template, dynamic template, search, words].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vltrack.core.errors import ConfigError
from vltrack.models.base import (
    TINY,
    Flag,
    FrontConfig,
    Prediction,
    Template,
    TemplateMemory,
    TemplateTracker,
    Text,
    Views,
    audible,
)
from vltrack.nn.attention import CrossBlock, key_bias
from vltrack.nn.backbones import ResNetStem
from vltrack.nn.bert import Bert
from vltrack.nn.detr import EncoderLayer, QueryDecoder, detr_positions
from vltrack.nn.heads import CornerHead, corners_to_box

# MERGED models/bit_tracker.py
# BIT-Tracker's own parts: MDAI, CTIF and the score head. Knows tokens, not their origin, and no tracker.
#
# A figure names them and shows what enters and leaves; their inside is unpublished and our reconstruction.
#
# Shapes: B batch, T tokens of all kinds, N search cells, C width.


SMALL = 0.02
"""How much smaller than usual the last map of a new residual part starts."""


class LevelAggregation(nn.Module):
    """MDAI: the outputs of several encoder layers become one.

    DSA: each level u = LN(h + SA(h + p; h + p; h)), with weights of its own. DCA: the last level asks all
    levels, each marked by a learned vector, then an FFN. Both start near the identity, so that an encoder
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
        self.dca: CrossBlock | None = None
        if dca:
            self.dca = _idle_block(width, heads, hidden)
            self.level_embed = nn.Parameter(torch.randn(levels, width) * 0.02)

    def forward(self, levels: list[Tensor], pos_TC: Tensor, bias: Tensor) -> Tensor:
        """Tokens (B, T, C) of each tap, lowest first -> (B, T, C). ``bias`` (B, 1, 1, T) hides keys."""
        if self.dca is None:
            levels = levels[-1:]
        if self.dsa is not None:
            levels = [layer(h_BTC, pos_TC, bias) for layer, h_BTC in zip(self.dsa, levels, strict=True)]
        if self.dca is None:
            return levels[-1]
        keys = torch.cat([u + mark for u, mark in zip(levels, self.level_embed, strict=True)], dim=1)
        biases, places = torch.cat([bias] * len(levels), dim=-1), pos_TC.repeat(len(levels), 1)
        out: Tensor = self.dca(levels[-1], keys, biases, pos_TC, places)
        return out


class Interaction(nn.Module):
    """CTIF: CNN and transformer each ask the other, and both answers become one.

    a = block(g; c), b = block(c; g), f = LN(W [a; b]) with W at first "a, and a little of b".
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.ask_cnn = _idle_block(width, heads, hidden)
        self.ask_transformer = CrossBlock(width, heads, norm="post", hidden=hidden)
        self.merge = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        _start_small(self.merge)
        with torch.no_grad():
            self.merge.weight[:, :width] += torch.eye(width)

    def forward(self, g_BNC: Tensor, c_BNC: Tensor, pos_NC: Tensor) -> Tensor:
        """The search region as the encoder and as the CNN has it, (B, N, C) each -> (B, N, C)."""
        a_BNC = self.ask_cnn(g_BNC, c_BNC, x_pos=pos_NC, y_pos=pos_NC)
        b_BNC = self.ask_transformer(c_BNC, g_BNC, x_pos=pos_NC, y_pos=pos_NC)
        out: Tensor = self.norm(self.merge(torch.cat([a_BNC, b_BNC], dim=-1)))
        return out


class ScoreHead(nn.Module):
    """Is the target in the search region? Three linear layers, as STARK's.

    With ``pool`` they read Z': the target beside the search region, pooled by attention. Without, they read
    the decoder's query, as in STARK.
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


def _idle_block(width: int, heads: int, hidden: int) -> CrossBlock:
    block = CrossBlock(width, heads, norm="post", hidden=hidden)
    _start_small(block.attn.proj, *([block.mlp.fc2] if block.mlp is not None else []))
    return block


def _start_small(*linears: nn.Linear) -> None:
    """Little leaves at first, yet gradients pass."""
    with torch.no_grad():
        for linear in linears:
            linear.weight.mul_(SMALL)
            linear.bias.zero_()


SMALLEST = 1e-3
"""Least side of a box in units of the crop: corners that are the wrong way round make no box."""


@dataclass(frozen=True, kw_only=True)
class BITTrackerConfig(FrontConfig):
    """All sizes and switches. The defaults are ``base``.

    Attributes:
        mlp_ratio: hidden width of every feed-forward part over the width.
        layers: of the encoder.
        taps: encoder layers, counted from 1, whose outputs are aggregated; the last is the last layer.
        corner_channels: of the corner head's towers.
        dropout: in encoder and decoder, in training only.
        recent_template: the dynamic template.
        dsa, dca: the two halves of MDAI: separate self-attention of each level; one level asks all.
        ctif: the interaction of CNN and transformer features.
        score: the head that tells whether the target is in view, and so gates the dynamic template.
        decoder: STARK's one-query decoder, which weighs the search features in its own way.
        text: ``bert``: words join the encoder's tokens (ours); ``none`` is the paper.
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
    return BITTrackerConfig(dsa=False, dca=False, ctif=False, decoder=True)


def stark_r50() -> BITTrackerConfig:
    """STARK-ST50."""
    return replace(stark_base(), stem="resnet50")


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
class Seen:
    """Corners (B, 4) as the towers say, the score's logits (B,), similarity of cells to words (B, N)."""

    corners_B4: Tensor
    score_B: Tensor | None
    heard_BN: Tensor | None


class BITTracker(TemplateTracker[TemplateMemory]):
    """See the module's docstring. Implements ``models.base.TrackerModel``.

    It remembers templates only: the first, and the dynamic one, which is replaced when the caller gives
    another, as the score allows (published: above 0.5).
    """

    places_TC: Tensor

    def __init__(self, config: BITTrackerConfig) -> None:
        super().__init__(config)
        self.config = config
        width, heads, dropout = config.width, config.heads, config.dropout
        # Positions enter at every layer's queries and keys (DETR), never the tokens: the front lays none.
        self.lay_no_positions()
        sides = [self.template_side] * self.templates + [self.search_side]
        places = torch.cat([detr_positions(width, side) for side in sides])
        self.register_buffer("places_TC", places, persistent=False)
        self.encoder = nn.ModuleList(
            EncoderLayer(width, heads, config.hidden, dropout) for _ in range(config.layers)
        )
        self.mdai = LevelAggregation(
            width, heads, config.hidden, levels=len(config.taps), dsa=config.dsa, dca=config.dca
        )
        self.ctif = Interaction(width, heads, config.hidden) if config.ctif else None
        self.decoder: QueryDecoder | None = None
        if config.decoder:
            self.decoder = QueryDecoder(width, heads, config.hidden, config.layers, dropout)
        self.head = CornerHead(width, config.corner_channels)
        self.score_head = ScoreHead(width, pool=not config.decoder) if config.score else None
        self.bert: Bert | None = None
        if config.text == "bert":
            self.bert = Bert(
                width=config.text_width,
                layers=config.text_layers,
                heads=config.text_heads,
                hidden=config.text_hidden,
                table_width=config.table_width,
                positions=config.max_words if config.stem == "mobilenet" else 512,
            )
            self.text_project = nn.Linear(config.text_width, width)
            self.text_type = nn.Parameter(torch.randn(width) * 0.02)

    # -- once a sentence --------------------------------------------------------------------------------

    def read_text(self, ids_BL: Tensor, valid_BL: Tensor) -> Text:
        """Word-piece ids (B, L) int64 with [CLS] first, and which are not padding -> ``Text``.

        Without a text side (as published) nothing is read: no words come back, and the box alone counts.
        """
        if self.bert is None:
            return self.no_text(len(ids_BL))
        words_BLC = self.text_project(self.bert(ids_BL, key_bias(valid_BL)))
        return Text(tokens_BLC=words_BLC, valid_BL=valid_BL)

    # -- the trunk --------------------------------------------------------------------------------------

    def observe(self, search_B3SS: Tensor, template: Template, text: Text, flag_B: Tensor) -> Seen:
        """Both templates, the search region and the words through everything."""
        search = self.embed_search(search_B3SS, template, text, flag_B == Flag.NL)
        m, n = template.tokens_BMC.shape[1], search.tokens_BNC.shape[1]
        pos_TC = nn.functional.pad(self.places_TC, (0, 0, 0, text.valid_BL.shape[1]))
        bias = self._key_bias(m, n, text, flag_B)
        x_BTC = torch.cat([template.tokens_BMC, search.tokens_BNC], dim=1)
        if self.bert is not None:
            x_BTC = torch.cat([x_BTC, text.tokens_BLC + self.text_type], dim=1)
        levels = []
        for i, layer in enumerate(self.encoder, start=1):
            x_BTC = layer(x_BTC, pos_TC, bias)
            if i in self.config.taps:
                levels.append(x_BTC)
        g_BTC = self.mdai(levels, pos_TC, bias)
        f_BNC = g_BTC[:, m : m + n]
        if self.ctif is not None:
            f_BNC = self.ctif(f_BNC, search.plain_BNC, pos_TC[m : m + n])
        if self.decoder is not None:
            target_BC = self.decoder(g_BTC, pos_TC, bias)
            f_BNC = f_BNC * (f_BNC @ target_BC[..., None])
        else:
            target_BC = self._target(g_BTC, m, n, flag_B)
        score_B = self.score_head(target_BC, f_BNC) if self.score_head is not None else None
        if search.detail_BNC is not None:
            f_BNC = f_BNC + search.detail_BNC
        map_BCSS = f_BNC.transpose(1, 2).unflatten(2, (self.search_side, self.search_side))
        return Seen(corners_B4=self.head(map_BCSS), score_B=score_B, heard_BN=search.heard_BN)

    @staticmethod
    def _key_bias(m: int, n: int, text: Text, flag_B: Tensor) -> Tensor:
        """(B, 1, 1, T): hides templates where words alone name the target, words where a box alone does."""
        by_box_B1, (_, heard_BL) = (flag_B != Flag.NL)[:, None], audible(flag_B, text.valid_BL)
        seen_BN = torch.ones(len(flag_B), n, dtype=torch.bool, device=flag_B.device)
        valid_BT = torch.cat([by_box_B1.expand(-1, m), seen_BN, heard_BL], dim=1)
        return key_bias(valid_BT)

    @staticmethod
    def _target(g_BTC: Tensor, m: int, n: int, flag_B: Tensor) -> Tensor:
        """(B, C) mean of both templates' tokens; in starts by words the sentence's [CLS] stands for them."""
        template_BC = g_BTC[:, :m].mean(dim=1)
        words_BC = g_BTC[:, m + n] if g_BTC.shape[1] > m + n else torch.zeros_like(template_BC)
        return torch.where((flag_B == Flag.NL)[:, None], words_BC, template_BC)

    # -- the protocol -----------------------------------------------------------------------------------

    def locate(
        self, search_B3SS: Tensor, memory: TemplateMemory, past_BH4: Tensor | None = None
    ) -> Prediction:
        """Search crops (B, 3, Sx, Sx), one a target of the memory -> one box each, maps of one cell."""
        both = self.pair(memory.first, memory.recent)
        return _prediction(self.observe(search_B3SS, both, memory.text, memory.flag_B))

    def ground(self, scene_B3SS: Tensor, text: Text) -> Prediction:
        """Find the target by words in letterboxed frames (B, 3, Sx, Sx); both templates are masked (ours).

        Raises:
            ConfigError: this model has no text side (``text="none"``, as published).
        """
        if self.bert is None:
            raise ConfigError(
                "this BIT-Tracker was built with text='none', as published: words alone cannot start it.",
                hint="Give a box, or use a size with text='bert', as tiny.",
            )
        flag_B = torch.full((len(scene_B3SS),), int(Flag.NL), device=scene_B3SS.device)
        return _prediction(self.observe(scene_B3SS, self.no_template(scene_B3SS), text, flag_B))

    def rehearse(self, views: Views, *, select: bool = True) -> dict[str, Any]:
        """The training pass (see the protocol): ``boxes`` (B * V, 1, 1, 4), ``score`` (B * V,), ``heard``.

        The score learns beside the box (ours, for tiny) or alone, all else frozen (published, stage 2); a
        frozen corner head keeps the statistics of its batch norms. Without a text side all samples must be
        BBOX.
        """
        each_B = views.each()
        flag_B = views.flag_B[each_B]
        self.head.train(self.training and any(p.requires_grad for p in self.head.parameters()))
        text = self.read_text(views.ids_BL, views.readable_BL).pick(each_B)
        _, template = self.templates_of(views)
        seen = self.observe(views.search_BV3SS.flatten(0, 1), template, text, flag_B)
        boxes = corners_to_box(seen.corners_B4)[:, None, None]
        return {"boxes": boxes, "score": seen.score_B, "heard": seen.heard_BN}

    def freeze_plan(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """ResNet's first convolution and stage stay frozen (as STARK); tiny as all tiny sizes."""
        if isinstance(self.stem, ResNetStem):
            return [self.stem.body.conv1, self.stem.body.layer1], []
        frozen, order = self.stem_freeze_plan()
        return frozen if self.bert is None else [*frozen, self.bert.embeddings.word_embeddings], order


def _prediction(seen: Seen) -> Prediction:
    boxes_B114 = corners_to_box(seen.corners_B4, SMALLEST)[:, None, None]
    certain_B11 = torch.ones_like(boxes_B114[..., 0])
    presence = certain_B11 if seen.score_B is None else seen.score_B.float().sigmoid()[:, None, None]
    return Prediction(centre_BSS=certain_B11, presence_BSS=presence, boxes_BSS4=boxes_B114)
