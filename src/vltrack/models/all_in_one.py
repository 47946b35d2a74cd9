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

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn

from vltrack.core.errors import ConfigError
from vltrack.core.types import Mode
from vltrack.models.base import (
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
from vltrack.models.embedding import InputEmbedding, Search
from vltrack.nn.attention import (
    Block,
    all_traced,
    attend,
    gather_tokens,
    key_bias,
    scatter_tokens,
    split_packed,
    tracing,
)
from vltrack.nn.heads import BoxCode, CenterHead, CenterMaps


@dataclass(frozen=True, kw_only=True)
class AllInOneConfig(TrackerConfig):
    """All sizes and switches. The defaults are ``base``.

    Attributes:
        layers: ViT blocks.
        eliminate, keep: layers (from 0) after whose attention search tokens leave, and the share that stays.
        text: ``none``; the trained embeddings alone; or ``text_layers`` BERT layers on top of them.
        mixup: the sentence scales the patches.
        align, align_width: the training-only vectors are read from all patches in their places (published),
            from their mean (ours), or not at all; and their width.
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
        uses_text = self.mixup or self.word_match or self.align != "none"
        if uses_text == (self.text == "none"):
            raise ValueError("mixup, word_match and align need a text side, and a text side one of them")


@dataclass(frozen=True, kw_only=True)
class MixedMemory(TemplateMemory):
    """Templates without positions, and the text gain of each channel (B, C).

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


class AllInOne(TrackerBase[MixedMemory]):
    """See the module's docstring."""

    training_only = ("aligner.",)

    def __init__(self, config: AllInOneConfig) -> None:
        super().__init__(config)
        self.config = config
        width = config.width
        self.embed = InputEmbedding(config)
        self.register_positions(learned=config.learned_positions)
        self.blocks = nn.ModuleList(Block(width, config.heads, config.mlp_ratio) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = CenterHead(width, side=self.search_side, channels=config.head_channels, code=config.box_code)
        self.bert = bert_of(config, config.text_layers) if config.text != "none" else None
        self.language = nn.Linear(width, width) if config.mixup or config.align != "none" else None
        self.aligner: Aligner | None = None
        if config.align != "none":
            cells = (self.search_side**2, self.template_side**2) if config.align == "flat" else None
            self.aligner = Aligner(width, config.align_width, cells)

    # -- once per sentence ----------------------------------------------------------------------------------

    def text_gain(self, text: Text, flag_B: Tensor) -> Tensor:
        """(B, C) of unit length, added to the gain 1 of each channel; 0 without a sentence.

        normalize(W mean of the word pieces), without padding (ours; the paper's code has the mean of all as a
        comment and takes the [CLS] row of an embedding table, which is the same for every sentence).
        """
        has_text_B1 = text_key_mask(flag_B, text.valid_BL).any(dim=1, keepdim=True)
        if self.language is None:
            return torch.zeros(len(has_text_B1), self.width, device=has_text_B1.device)
        gain_BC = nn.functional.normalize(self.language(text.mean()).float(), dim=-1)
        return torch.where(has_text_B1, gain_BC, torch.zeros_like(gain_BC))

    # -- the one-stream backbone -----------------------------------------------------------------------------

    def forward_maps(
        self, search: Search, template: Template, gain_BC: Tensor, text_only_B: Tensor | None, *, select: bool
    ) -> CenterMaps:
        """Everything from patches to maps. ``text_only_B`` marks text-only samples, None if the batch has no such
        sample.

        A text-only sample masks its template, and none of its search tokens is eliminated: there is no
        template to score against (ours).
        """
        z_BMC, x_BNC = template.tokens_BMC, search.tokens_BNC
        # Mix-up: the sentence scales the channels of all patches
        if self.config.mixup:
            x_BNC = x_BNC + gain_BC[:, None] * x_BNC
        # Positions come after mix-up (released code)
        x_BNC = x_BNC + self.pos_embed_x
        if z_BMC.shape[1]:  # a traced text-only start has no template
            if self.config.mixup:
                z_BMC = z_BMC + gain_BC[:, None] * z_BMC
            z_BMC = z_BMC + self.pos_embed_z.repeat(1, self.template_count, 1)
        # Joint layers: template and search tokens in one sequence
        x_BNC = self.forward_backbone(z_BMC, x_BNC, text_only_B, select=select)
        # Head
        maps: CenterMaps = self.head(search.add_skip(x_BNC))
        return maps

    def forward_backbone(
        self, z_BMC: Tensor, x_BNC: Tensor, text_only_B: Tensor | None = None, *, select: bool = True
    ) -> Tensor:
        """Tokens with positions -> (B, N, C) search tokens after the final norm, zero where eliminated."""
        m = z_BMC.shape[1]
        # The middle cell of each template scores the search tokens
        middles = slice(center_cell(self.template_side), m, self.template_side**2)
        left = Candidates.all_of(x_BNC, in_place=text_only_B is not None)
        both_BTC = torch.cat([z_BMC, x_BNC], dim=1)
        for i, module in enumerate(self.blocks):
            block, bias = cast(Block, module), left.key_bias(m, text_only_B)
            if select and i in self.config.eliminate:
                # Candidate elimination between attention and MLP
                both_BTC, score_BT = attention_with_scores(block, both_BTC, bias, middles)
                left, x_BKC = left.keep_topk(both_BTC[:, m:], score_BT[:, m:], self.config.keep, text_only_B)
                both_BTC = mlp_residual(block, torch.cat([both_BTC[:, :m], x_BKC], dim=1))
            else:
                both_BTC = block(both_BTC, bias)
        # Eliminated tokens return to the map as zeros
        return left.scatter_back(self.norm(both_BTC[:, m:]))

    # -- the protocol ----------------------------------------------------------------------------------------

    def init_template(self, template: BoxedCrop, context: BoxedCrop, text: Text | None = None) -> MixedMemory:
        """Start targets: box-only where ``text`` is None, else box and text. The context is not used."""
        start = super().init_template(template, context, text)
        return MixedMemory(**vars(start), gain_BC=self.text_gain(start.text, start.flag_B))

    def locate(self, search_B3SS: Tensor, memory: MixedMemory, past_BH4: Tensor | None = None) -> Prediction:
        """Search crops (B, 3, Sx, Sx), one per target of the memory."""
        both = self.joint_template(memory.first, memory.recent)
        search = self.embed.search(search_B3SS, both, memory.text, torch.zeros_like(memory.flag_B).bool())
        return Prediction.from_center(self.forward_maps(search, both, memory.gain_BC, None, select=True))

    def ground(self, scene_B3SS: Tensor, text: Text) -> Prediction:
        """Find the target from text in letterboxed frames (B, 3, Sx, Sx): the template is masked (ours).

        Raises:
            ConfigError: no text reaches the backbone of this model.
        """
        if not (self.config.mixup or self.config.word_match):
            raise ConfigError(
                f"This All-in-One has text={self.config.text!r} and no mix-up: text alone cannot start it.",
                hint="Give a box, or use the size tiny or base.",
            )
        blank = self.no_template(scene_B3SS)
        flag_B = flags_of(Mode.NL, scene_B3SS)
        text_only_B, gain_BC = is_text_only(flag_B), self.text_gain(text, flag_B)
        search = self.embed.search(scene_B3SS, blank, text, text_only_B)
        return Prediction.from_center(self.forward_maps(search, blank, gain_BC, text_only_B, select=False))

    def forward(self, views: Views, *, select: bool = True) -> TrainOutputs:
        """Training pass (see the base class), and the vectors of the alignment."""
        target_B = views.target_of_view()
        text_only_B = is_text_only(views.flag_B[target_B])
        # Sentence and its gain, template, search region
        text = self.read_text(views.ids_BL, views.attendable_BL)
        gain_BC = self.text_gain(text, views.flag_B)[target_B]
        first, template = self.embed_templates(views)
        images_B3SS = views.search.image_B3SS.flatten(0, 1)
        search = self.embed.search(images_B3SS, template, text.index_select(target_B), text_only_B)
        # Backbone and head
        masked_B = text_only_B if text_only_B.any() else None
        maps = self.forward_maps(search, template, gain_BC, masked_B, select=select)
        # Multi-modal alignment: patches before mix-up and positions
        alignment = None
        if self.aligner is not None:
            alignment = self.aligner(search.patches_BNC, first.tokens_BMC[target_B], gain_BC)
        return TrainOutputs(
            boxes_BSS4=maps.boxes_BSS4,
            center_BSS=maps.logits_BSS,
            text_similarity_BN=search.text_similarity_BN,
            alignment=alignment,
        )

    def freeze_plan(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Nothing at ``base`` (published: the backbone only learns more slowly); the stem alone at tiny."""
        frozen, order = super().freeze_plan()
        return [module for module in frozen if not isinstance(module, nn.Embedding)], order


class Aligner(nn.Module):
    """Multi-modal alignment (paper): unit vectors of search region, template and sentence.

    They are read before mix-up and positions, so that the contrast trains the patch embedding; inference
    never reads them. ``cells`` are the numbers of search and template patches that are read each in its place
    (published); None reads their mean (ours).
    """

    def __init__(self, width: int, out: int, cells: tuple[int, int] | None) -> None:
        super().__init__()
        search_cells, template_cells = cells or (1, 1)
        self.read = partial(torch.flatten, start_dim=1) if cells else partial(torch.mean, dim=1)
        self.search = nn.Linear(width * search_cells, out)
        self.template = nn.Linear(width * template_cells, out)
        self.text = nn.Linear(width, out)

    def forward(self, x_BNC: Tensor, z_BPC: Tensor, gain_BC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (B, D) of search, template and text; the last is meaningless without a sentence."""
        x_BE, z_BE = self.read(x_BNC), self.read(z_BPC)
        x_BD, z_BD, text_BD = (
            nn.functional.normalize(vector.float(), dim=-1)
            for vector in (self.search(x_BE), self.template(z_BE), self.text(gain_BC))
        )
        return x_BD, z_BD, text_BD


# -- candidate elimination (OSTrack) ------------------------------------------------------------------------


def center_cell(side: int) -> int:
    """Index of the middle cell of a square map; of four middle ones the upper left (released code)."""
    middle = (side - 1) // 2
    return middle * side + middle


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Search tokens that are not eliminated.

    Either eliminated tokens are gone (``seen_BK`` is None), or, where samples of one batch keep different
    numbers, all are there and ``seen_BK`` masks them as keys. Both give the same result.

    Attributes:
        order_BK: places in the map of the tokens that are there, in map order.
        seen_BK: which of them are candidates; None if all are.
        count: number of candidates of a sample that eliminates.
        cells: N.
    """

    order_BK: Tensor
    seen_BK: Tensor | None
    count: int
    cells: int

    @classmethod
    def all_of(cls, x_BNC: Tensor, *, in_place: bool) -> Candidates:
        """Every token of the map; ``in_place`` masks what is eliminated instead of removing it."""
        b, n, _ = x_BNC.shape
        order_BN = torch.arange(n, device=x_BNC.device).expand(b, -1)
        seen_BN = torch.ones_like(order_BN, dtype=torch.bool) if in_place else None
        return cls(order_BK=order_BN, seen_BK=seen_BN, count=n, cells=n)

    def key_bias(self, m: int, text_only_B: Tensor | None) -> Tensor | None:
        """Bias (B, 1, 1, M + K) that hides the template of text-only samples and eliminated tokens."""
        if text_only_B is None or self.seen_BK is None:
            return None
        return key_bias(torch.cat([~text_only_B[:, None].expand(-1, m), self.seen_BK], dim=1))

    def keep_topk(
        self, x_BKC: Tensor, score_BK: Tensor, ratio: float, spared_B: Tensor | None = None
    ) -> tuple[Candidates, Tensor]:
        """Keep ceil(``ratio`` * count) candidates with the highest score, in map order.

        Samples marked in ``spared_B`` keep all of theirs, which needs ``in_place``.
        Returns the candidates that are left, and the tokens that are there.
        """
        count = math.ceil(ratio * self.count)
        if self.seen_BK is None:
            if tracing():  # graphs cannot sort; of equal scores they may keep another one
                chosen = score_BK.topk(count, dim=1).indices.topk(count, dim=1, largest=False).values
            else:
                chosen = score_BK.argsort(dim=1, descending=True, stable=True)[:, :count].sort(dim=1).values
            order_BK = self.order_BK.gather(1, chosen)
            return replace(self, order_BK=order_BK, count=count), gather_tokens(x_BKC, chosen)
        score_BK = score_BK.masked_fill(~self.seen_BK, -1.0)  # below any attention
        chosen = score_BK.argsort(dim=1, descending=True, stable=True)[:, :count]
        seen_BK = torch.zeros_like(self.seen_BK).scatter(1, chosen, True)
        if spared_B is not None:
            seen_BK = torch.where(spared_B[:, None], self.seen_BK, seen_BK)
        return replace(self, seen_BK=seen_BK, count=count), x_BKC

    def scatter_back(self, x_BKC: Tensor) -> Tensor:
        """(B, K, C) -> the whole map (B, N, C); eliminated places are zero (released code)."""
        if self.seen_BK is not None and not all_traced(self.seen_BK):
            return x_BKC.masked_fill(~self.seen_BK[..., None], 0.0)
        return x_BKC if self.count == self.cells else scatter_tokens(x_BKC, self.order_BK, self.cells)


def attention_with_scores(block: Block, x_BTC: Tensor, bias: Tensor | None, rows: slice) -> tuple[Tensor, Tensor]:
    """First half of a block (B, T, C), and how much its ``rows`` attend to each token (B, T).

    The score is the attention after the softmax over all T keys, a mean over heads and rows (released code,
    which takes the middle cell of the template). Only those rows of the attention are written out. It carries
    no gradient.
    """
    attention = block.attn
    q_BHTD, k_BHTD, v_BHTD = split_packed(attention.qkv(block.norm1(x_BTC)), attention.heads)
    out_BTC = attend(q_BHTD, k_BHTD, v_BHTD, bias).transpose(1, 2).flatten(2)
    query_BHRD = q_BHTD[:, :, rows].detach().float() * q_BHTD.shape[-1] ** -0.5
    logits_BHRT = query_BHRD @ k_BHTD.detach().float().transpose(-2, -1)
    if bias is not None:
        logits_BHRT = logits_BHRT + bias
    return x_BTC + block.branch(attention.proj(out_BTC)), logits_BHRT.softmax(dim=-1).mean(dim=(1, 2))


def mlp_residual(block: Block, x_BTC: Tensor) -> Tensor:
    """Second half of a block."""
    out: Tensor = x_BTC + block.branch(block.mlp(block.norm2(x_BTC)))
    return out
