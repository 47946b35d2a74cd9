"""All-in-One: one ViT over template and search region, whose patches a sentence scales before they enter.

Sources: All-in-One (Zhang et al., ACM MM 2023, arXiv 2307.03373, and its released code) on top of OSTrack
(Ye et al., ECCV 2022). The ideas are switches of the configuration: ``text`` and ``mixup`` (language-injected
vision tokens), ``align`` (the multi-modal alignment, in training only), ``eliminate`` (OSTrack's candidate
elimination). Released code feeds a constant for every sentence; ours does not: docs/trackers/all-in-one.md.
``base`` has the published sizes, ``ostrack_base`` is OSTrack-256 itself, ``tiny`` is our own.

Shapes: B batch, L word pieces, C width, P = Sz*Sz template cells, K templates, M = K*P, N = Sx*Sx search
cells, T = M + those search tokens that are still there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from vltrack.core.errors import ConfigError
from vltrack.models.base import (
    TINY,
    Flag,
    FrontConfig,
    Prediction,
    Search,
    Template,
    TemplateMemory,
    TemplateTracker,
    Text,
    Views,
    audible,
    sentence_mean,
    sentence_reader,
)
from vltrack.nn.attention import Block, key_bias
from vltrack.nn.bert import Bert
from vltrack.nn.heads import BoxCode, CenterHead, CentreMaps
from vltrack.nn.token_pruning import Candidates, attend_and_score, centre_cell, digest


@dataclass(frozen=True, kw_only=True)
class AllInOneConfig(FrontConfig):
    """All sizes and switches. The defaults are ``base``.

    Attributes:
        layers: ViT blocks.
        eliminate, keep: layers (from 0) after whose attention search tokens leave, and the share that stays.
        text: ``none``; the trained embeddings alone; or ``text_layers`` BERT layers on top of them.
        mixup: whether the sentence scales the patches.
        align, align_width: whether the training-only vectors are read from all patches in their places
            (published), from their mean (ours), or not at all; and their width.
        learned_positions: positions are parameters that start as sines (OSTrack), or fixed sines.
    """

    layers: int = 12
    head_channels: tuple[int, ...] = (256, 128, 64, 32)
    box_code: BoxCode = "cell"
    learned_positions: bool = True
    # the papers' ideas
    eliminate: tuple[int, ...] = (3, 6, 9)
    keep: float = 0.7
    text: Literal["none", "embed-mean", "bert-k"] = "embed-mean"
    text_layers: int = 0
    mixup: bool = True
    align: Literal["flat", "pool", "none"] = "flat"
    align_width: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= layer < self.layers for layer in self.eliminate):
            raise ValueError(f"eliminate must name some of the {self.layers} layers, got {self.eliminate}")
        if not 0.0 < self.keep <= 1.0:
            raise ValueError(f"keep is a share above 0, got {self.keep}")
        if (self.text == "bert-k") != (self.text_layers > 0):
            raise ValueError(f"text {self.text!r} does not go with {self.text_layers} text_layers")
        hears = self.mixup or self.word_match or self.align != "none"
        if hears == (self.text == "none"):
            raise ValueError("mixup, word_match and align need a text side, and a text side one of them")


@dataclass(frozen=True, kw_only=True)
class MixedMemory(TemplateMemory):
    """Templates without positions, and what the sentence adds to each channel's gain (B, C).

    Published memory never changes; a recent template is ours.
    """

    gain_BC: Tensor


def base() -> AllInOneConfig:
    """The published sizes: ViT-B/16 at 128/256 px, a BERT word table, aligners over all patches."""
    return AllInOneConfig()


def ostrack_base() -> AllInOneConfig:
    """The parent, OSTrack-256 with candidate elimination: All-in-One without a text side."""
    return AllInOneConfig(text="none", mixup=False, align="none")


def tiny() -> AllInOneConfig:
    """Runs live on one thread of a laptop (unpublished; our design)."""
    return AllInOneConfig(
        **TINY,
        layers=4,
        head_channels=(96, 48),
        box_code="free",
        learned_positions=False,
        eliminate=(1, 2),
        text="bert-k",
        text_layers=2,
        align="pool",
        align_width=64,
    )


class AllInOne(TemplateTracker[MixedMemory]):
    """See the module's docstring. Implements ``models.base.TrackerModel``."""

    training_only = ("aligner.",)

    def __init__(self, config: AllInOneConfig) -> None:
        super().__init__(config)
        self.config = config
        width = config.width
        # Mix-up comes before the positions (released code): the front lays none, the trunk does.
        self.lay_positions_later(learned=config.learned_positions)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp_ratio) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = CenterHead(
            width, side=self.search_side, channels=config.head_channels, code=config.box_code
        )
        self.bert: Bert | None = None
        if config.text != "none":
            self.bert = sentence_reader(config, config.text_layers)
        self.language = nn.Linear(width, width) if config.mixup or config.align != "none" else None
        self.aligner: Aligner | None = None
        if config.align != "none":
            cells = (self.search_side**2, self.template_side**2) if config.align == "flat" else None
            self.aligner = Aligner(width, config.align_width, cells)

    # -- once a sentence, once a template ---------------------------------------------------------

    def read_text(self, ids_BL: Tensor, valid_BL: Tensor) -> Text:
        """Word-piece ids (B, L) int64 with [CLS] first, and which are not padding -> ``Text``.

        A model without a text side reads nothing: its features are zero.
        """
        if self.bert is None:
            tokens_BLC = torch.zeros(*ids_BL.shape, self.width, device=ids_BL.device)
        else:
            tokens_BLC = self.bert(ids_BL, key_bias(valid_BL) if self.config.text_layers else None)
        return Text(tokens_BLC=tokens_BLC, valid_BL=valid_BL)

    def listen(self, text: Text, flag_B: Tensor) -> Tensor:
        """What the sentence adds to each channel's gain, of unit length: (B, C); 0 where there is none.

        normalise(W mean of the words), over words and no padding (ours; the paper's code has the mean of all
        as a comment and takes the [CLS] row of an embedding table, which is the same for every sentence).
        """
        hears_B1 = audible(flag_B, text.valid_BL)[0][:, None]
        if self.language is None:
            return torch.zeros(len(hears_B1), self.width, device=hears_B1.device)
        gain_BC = nn.functional.normalize(self.language(sentence_mean(text)).float(), dim=-1)
        return torch.where(hears_B1, gain_BC, torch.zeros_like(gain_BC))

    # -- the trunk --------------------------------------------------------------------------------

    def see(
        self, search: Search, template: Template, gain_BC: Tensor, by_words_B: Tensor | None, *, select: bool
    ) -> CentreMaps:
        """Mix-up, positions, trunk and head. ``by_words_B`` marks starts by words, None where there is none.

        By words alone the template is masked, and no search token leaves: there is nobody to ask (ours).
        """
        z_BMC, x_BNC = template.tokens_BMC, search.tokens_BNC
        if self.config.mixup:
            z_BMC, x_BNC = (tokens + gain_BC[:, None] * tokens for tokens in (z_BMC, x_BNC))
        z_BMC = z_BMC + self.pos_embed_z.repeat(1, self.templates, 1)
        x_BNC = self.trunk(z_BMC, x_BNC + self.pos_embed_x, by_words_B, select=select)
        if search.detail_BNC is not None:
            x_BNC = x_BNC + search.detail_BNC
        maps: CentreMaps = self.head(x_BNC)
        return maps

    def trunk(
        self, z_BMC: Tensor, x_BNC: Tensor, by_words_B: Tensor | None = None, *, select: bool = True
    ) -> Tensor:
        """Tokens with positions -> (B, N, C) search tokens after the final norm, zero where eliminated."""
        m = z_BMC.shape[1]
        # the middle cell of each template, the order of tokens is [template; search]
        middles = slice(centre_cell(self.template_side), m, self.template_side**2)
        left = Candidates.all_of(x_BNC, in_place=by_words_B is not None)
        both_BTC = torch.cat([z_BMC, x_BNC], dim=1)
        for i, module in enumerate(self.blocks):
            block, bias = cast(Block, module), None
            if by_words_B is not None and left.seen_BK is not None:
                valid_BT = torch.cat([~by_words_B[:, None].expand(-1, m), left.seen_BK], dim=1)
                bias = key_bias(valid_BT)
            if select and i in self.config.eliminate:
                both_BTC, score_BT = attend_and_score(block, both_BTC, bias, middles)
                left, x_BKC = left.best(both_BTC[:, m:], score_BT[:, m:], self.config.keep, by_words_B)
                both_BTC = digest(block, torch.cat([both_BTC[:, :m], x_BKC], dim=1))
            else:
                both_BTC = block(both_BTC, bias)
        return left.back(self.norm(both_BTC[:, m:]))

    # -- the protocol -----------------------------------------------------------------------------

    def remember(
        self,
        template_B3SS: Tensor,
        template_box_B4: Tensor,
        context_B3SS: Tensor,
        context_box_B4: Tensor,
        text: Text | None = None,
    ) -> MixedMemory:
        """Start of a target, or of several: BBOX where ``text`` is None, else NLBBOX. Needs no context."""
        start = super().remember(template_B3SS, template_box_B4, context_B3SS, context_box_B4, text)
        return MixedMemory(**vars(start), gain_BC=self.listen(start.text, start.flag_B))

    def locate(self, search_B3SS: Tensor, memory: MixedMemory, past_BH4: Tensor | None = None) -> Prediction:
        """Search crops (B, 3, Sx, Sx), one a target of the memory."""
        both = self.pair(memory.first, memory.recent)
        search = self.embed_search(search_B3SS, both, memory.text, torch.zeros_like(memory.flag_B).bool())
        return Prediction.of(self.see(search, both, memory.gain_BC, None, select=True))

    def ground(self, scene_B3SS: Tensor, text: Text) -> Prediction:
        """Find the target by words in letterboxed frames (B, 3, Sx, Sx): the template is masked (ours).

        Raises:
            ConfigError: no word reaches the trunk of this model.
        """
        if not (self.config.mixup or self.config.word_match):
            raise ConfigError(
                f"this All-in-One has text={self.config.text!r} and no mix-up: words alone cannot start it.",
                hint="Give a box, or use the size tiny or base.",
            )
        nothing = self.no_template(scene_B3SS)
        flag_B = torch.full((len(scene_B3SS),), int(Flag.NL), device=scene_B3SS.device)
        by_words_B = torch.ones_like(flag_B, dtype=torch.bool)
        search = self.embed_search(scene_B3SS, nothing, text, by_words_B)
        return Prediction.of(self.see(search, nothing, self.listen(text, flag_B), by_words_B, select=False))

    def rehearse(self, views: Views, *, select: bool = True) -> dict[str, Any]:
        """The training pass (see the protocol), and the vectors of the alignment."""
        each_B = views.each()
        flag_B = views.flag_B[each_B]
        text = self.read_text(views.ids_BL, views.readable_BL)
        gain_BC = self.listen(text, views.flag_B)[each_B]
        first = self.embed_template(views.template_B3SS, views.template_box_B4).pick(each_B)
        template = self.beside_recent(first, views)
        by_words_B = flag_B == Flag.NL
        search = self.embed_search(views.search_BV3SS.flatten(0, 1), template, text.pick(each_B), by_words_B)
        maps = self.see(search, template, gain_BC, by_words_B if by_words_B.any() else None, select=select)
        outs = {"boxes": maps.boxes_BSS4, "centre": maps.logits_BSS, "heard": search.heard_BN}
        if self.aligner is not None:
            outs["vectors"] = self.aligner(search.plain_BNC, first.tokens_BMC, gain_BC)
        return outs

    def freeze_plan(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Nothing at ``base`` (published: the trunk only learns more slowly); the stem's start at tiny."""
        return self.stem_freeze_plan()


class Aligner(nn.Module):
    """Multi-modal alignment (paper): unit vectors of search region, template and sentence.

    They are read before mix-up and positions, so that the contrast teaches the patch embedding; a running
    tracker never reads them. ``cells`` are the numbers of search and template patches that are read each in
    its place (published); None reads their mean (ours).
    """

    def __init__(self, width: int, out: int, cells: tuple[int, int] | None) -> None:
        super().__init__()
        search_cells, template_cells = cells or (1, 1)
        self.flat = cells is not None
        self.search = nn.Linear(width * search_cells, out)
        self.template = nn.Linear(width * template_cells, out)
        self.words = nn.Linear(width, out)

    def forward(self, x_BNC: Tensor, z_BPC: Tensor, gain_BC: Tensor) -> dict[str, Tensor]:
        """-> ``a_x``, ``a_z``, ``a_l``, each (B, D); ``a_l`` means nothing for samples without a sentence."""
        x_BE, z_BE = (t.flatten(1) if self.flat else t.mean(dim=1) for t in (x_BNC, z_BPC))
        vectors = {"a_x": self.search(x_BE), "a_z": self.template(z_BE), "a_l": self.words(gain_BC)}
        return {name: nn.functional.normalize(vector.float(), dim=-1) for name, vector in vectors.items()}
