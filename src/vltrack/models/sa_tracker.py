"""SATracker: a ViT and a BERT that advance in lockstep and speak to each other at several levels.

Source: Ge et al., "Beyond Visual Cues" (arXiv 2311.17085, ACM TOMM 2025), of which only the abstract is
public: both modalities are extracted and fused at the same pace (synchronous learning backbone), a target
enhance module (TEM) and a semantic aware module (SAM) act at several levels, a dense matching loss
supervises the representation. Everything else here (levels, equations, sizes, masks, head, schedule) is our
reconstruction: docs/trackers/sa-tracker.md. TEM, SAM and dense matching are switches of the configuration.

Shapes: B batch, L word pieces, C width, K templates, M = K * Sz * Sz template cells, N = Sx * Sx search
cells, D width of matching. Boxes are cx, cy, w, h in units of the crop's side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

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
    sentence_reader,
)
from vltrack.nn.attention import Block, CrossAttention, CrossBlock, key_bias
from vltrack.nn.heads import BoxCode, CenterHead, CentreMaps, cosine, temperature_parameter


@dataclass(frozen=True, kw_only=True)
class SATrackerConfig(FrontConfig):
    """All sizes and switches. The defaults are ``base``.

    Attributes:
        layers: blocks of the ViT; the BERT beside it has as many, up to the last level.
        tem, tem_after: target enhance modules, and the layers (from 0) after which they act.
        sam, sam_after: semantic aware modules, likewise.
        dense: similarities of all levels for the dense matching loss.
        match_width: of the projections in which TEM compares cells with the target.
        head_channels, box_code: of the centre head.
    """

    layers: int = 12
    tem: bool = True
    tem_after: tuple[int, ...] = (3, 5)
    sam: bool = True
    sam_after: tuple[int, ...] = (7, 9, 11)
    dense: bool = True
    match_width: int = 256
    head_channels: tuple[int, ...] = (256, 128, 64, 32)
    box_code: BoxCode = "cell"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("layers", "match_width", "text_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("tem_after", "sam_after"):
            after = getattr(self, name)
            if not after or list(after) != sorted(set(after)) or not 0 <= after[0] <= after[-1] < self.layers:
                raise ValueError(f"{name} must name layers 0 to {self.layers - 1} in order, got {after}")
        if not self.head_channels or min(self.head_channels) < 1:
            raise ValueError(f"head_channels must be positive numbers, got {self.head_channels}")

    @property
    def levels(self) -> tuple[int, ...]:
        """Layers after which the modalities meet, in order."""
        return tuple(sorted({*(self.tem_after * self.tem), *(self.sam_after * self.sam)}))


def base() -> SATrackerConfig:
    """ViT-B/16 and BERT-base, 128/256 px (unpublished; our design)."""
    return SATrackerConfig()


def tiny() -> SATrackerConfig:
    """Runs live on one thread of a laptop (unpublished; our design)."""
    return SATrackerConfig(
        **TINY,
        layers=4,
        tem_after=(1,),
        sam_after=(2, 3),
        match_width=64,
        head_channels=(96, 48),
        box_code="free",
    )


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """Who may see what: flags and masks of a batch, once a pass.

    Attributes:
        hears_B, sees_B: whether the sentence, and whether the template, name the target of a sample.
        inside_BM: how much of each template cell is the target; 0 where the template does not count.
        vision_bias: (B, 1, 1, M + N) hides the template from samples named by words alone.
        heard_bias: (B, 1, 1, L) hides padding, and all words of a sample named by a box alone.
        words_bias: the same, but without any words all are open, as softmax needs a key: what such a sample
            finds there is thrown away by ``hears_B``.
    """

    hears_B: Tensor
    sees_B: Tensor
    inside_BM: Tensor
    vision_bias: Tensor
    heard_bias: Tensor
    words_bias: Tensor


class TargetEnhance(nn.Module):
    """TEM: the target as two queries, and what they say added where the search region resembles them.

    q = [mean of the template's cells in the box; the sentence's CLS], q += MHA(q; [z; t]),
    x += gamma * sigmoid(max_k tau * cos(W x, W' q_k)) * MHA(x; q), z += gamma * MHA(z; q), gamma from 0.
    Unpublished; our design.
    """

    def __init__(self, width: int, heads: int, match_width: int) -> None:
        super().__init__()
        self.gather = CrossBlock(width, heads)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.norm_q = nn.LayerNorm(width, eps=1e-6)
        self.spread = CrossAttention(width, heads)
        self.match_x = nn.Linear(width, match_width, bias=False)
        self.match_q = nn.Linear(width, match_width, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(
        self, vision: Tensor, words_BLC: Tensor, who: Hearing, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Vision (B, M + N, C) enhanced, and the logits (B, N, 2) of each cell to both queries."""
        m = who.inside_BM.shape[1]
        z_BMC = vision[:, :m]
        q_B2C = torch.stack([mean_inside(z_BMC, who.inside_BM), first_word(words_BLC, vision)], dim=1)
        both_bias = torch.cat([who.vision_bias[..., :m], who.heard_bias], dim=-1)
        q_B2C = self.gather(q_B2C, torch.cat([z_BMC, words_BLC], dim=1), both_bias)
        known_B2 = torch.stack([who.sees_B, who.hears_B], dim=1)
        q_B2C = torch.where(known_B2[..., None], self.norm_q(q_B2C), 0.0)
        normed = self.norm(vision)
        logits_BN2 = scale * cosine(self.match_x(normed[:, m:]), self.match_q(q_B2C))
        best_BN = logits_BN2.masked_fill(~known_B2[:, None], float("-inf")).amax(dim=2)
        share = nn.functional.pad(best_BN.sigmoid(), (m, 0), value=1.0)[..., None].to(vision.dtype)
        found = self.spread(normed, q_B2C, key_bias(known_B2))
        return vision + self.gamma * share * found, logits_BN2


class SemanticAware(nn.Module):
    """SAM: vision asks the words and the words ask vision at once, each from the other's old values.

    v' = v + g_v MHA(LN v; LN t), t' = t + g_t MHA(LN t; LN v), both gates from 0. At the last level
    nobody will read the words any more: there ``both`` is False. Unpublished; our design.
    """

    def __init__(self, width: int, heads: int, *, both: bool) -> None:
        super().__init__()
        self.to_vision = CrossBlock(width, heads, gate=True)
        self.to_words = CrossBlock(width, heads, gate=True) if both else None

    def forward(self, vision: Tensor, words_BLC: Tensor, who: Hearing) -> tuple[Tensor, Tensor]:
        """Vision (B, M + N, C) and words (B, L, C), both updated; vision stays as it is without words."""
        told = self.to_vision(vision, words_BLC, who.words_bias)
        asked = words_BLC if self.to_words is None else self.to_words(words_BLC, vision, who.vision_bias)
        return torch.where(who.hears_B[:, None, None], told, vision), asked


class SATracker(TemplateTracker[TemplateMemory]):
    """See the module's docstring. Implements ``models.base.TrackerModel``; templates are all it remembers."""

    def __init__(self, config: SATrackerConfig) -> None:
        super().__init__(config)
        self.config = config
        width, heads = config.width, config.heads
        # The words are on their own up to the first level: that far they are read once a sentence. Above the
        # last level nobody reads them.
        self.alone, self.reach = ((config.levels[i] + 1) if config.levels else 0 for i in (0, -1))
        self.blocks = nn.ModuleList(Block(width, heads, config.mlp_ratio) for _ in range(config.layers))
        self.bert = sentence_reader(config, self.reach)
        self.tem = nn.ModuleDict()
        for i in config.tem_after * config.tem:
            self.tem[str(i)] = TargetEnhance(width, heads, config.match_width)
        self.sam = nn.ModuleDict()
        for i in config.sam_after * config.sam:
            self.sam[str(i)] = SemanticAware(width, heads, both=i + 1 < self.reach)
        self.log_match = temperature_parameter()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = CenterHead(
            width, side=self.search_side, channels=config.head_channels, code=config.box_code
        )
        self.training_only = () if config.tem else ("log_match",)

    # -- once a sentence --------------------------------------------------------------------------------

    def read_text(self, ids_BL: Tensor, valid_BL: Tensor) -> Text:
        """Word-piece ids (B, L) int64 with [CLS] first, and which are not padding -> ``Text``.

        Only as far as vision has no say: the embeddings and the BERT layers up to the first level (after
        layer 3 in ``base``). The layers above run with every search region.
        """
        bias = key_bias(valid_BL)
        x_BLC = self.bert.embeddings(ids_BL)
        for layer in self.bert.layers[: self.alone]:
            x_BLC = layer(x_BLC, bias)
        return Text(tokens_BLC=x_BLC, valid_BL=valid_BL)

    # -- the synchronous learning backbone --------------------------------------------------------------

    def observe(
        self, search_B3SS: Tensor, template: Template, text: Text, flag_B: Tensor
    ) -> tuple[CentreMaps, dict[str, Any]]:
        """A search region with its target's template and words -> maps, and what losses need beside them."""
        search = self.embed_search(search_B3SS, template, text, flag_B == Flag.NL)
        x_BNC, dense = self._lockstep(search, template, text, flag_B)
        x_BNC = self.norm(x_BNC)
        if search.detail_BNC is not None:
            x_BNC = x_BNC + search.detail_BNC
        return self.head(x_BNC), {"heard": search.heard_BN, "dense": dense or None}

    def _lockstep(
        self, search: Search, template: Template, text: Text, flag_B: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Search tokens (B, N, C) after all layers, and the similarities (B, N) of all levels in training."""
        who, words = self._hearing(search, template, text, flag_B)
        vision = torch.cat([template.tokens_BMC, search.tokens_BNC], dim=1)
        m, scale = template.tokens_BMC.shape[1], self.log_match.exp()
        dense: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            vision = block(vision, who.vision_bias)
            if self.alone <= i < self.reach and words.shape[1]:
                words = self.bert.layers[i](words, who.words_bias)
            if str(i) in self.tem:
                vision, logits_BN2 = self.tem[str(i)](vision, words, who, scale)
                dense += self._dense(logits_BN2, who)
            if str(i) in self.sam and words.shape[1]:
                vision, words = self.sam[str(i)](vision, words, who)
                named_B2C = torch.stack(
                    [mean_inside(vision[:, :m], who.inside_BM), first_word(words, vision)], dim=1
                )
                dense += self._dense(scale * cosine(vision[:, m:], named_B2C), who)
        return vision[:, m:], dense

    def _hearing(
        self, search: Search, template: Template, text: Text, flag_B: Tensor
    ) -> tuple[Hearing, Tensor]:
        """The masks of a pass, and the words: blank where a sample must not hear them."""
        (b, m), n = template.inside_BM.shape, search.tokens_BNC.shape[1]
        sees_B = flag_B != Flag.NL
        hears_B, heard_BL = audible(flag_B, text.valid_BL)
        template_valid = sees_B[:, None].expand(b, m)
        who = Hearing(
            hears_B=hears_B,
            sees_B=sees_B,
            inside_BM=torch.where(template_valid, template.inside_BM, 0.0),
            vision_bias=key_bias(nn.functional.pad(template_valid, (0, n), value=True)),
            heard_bias=key_bias(heard_BL),
            words_bias=key_bias(heard_BL | ~hears_B[:, None]),
        )
        # where, not a product: not even a NaN may pass.
        return who, torch.where(heard_BL[..., None], text.tokens_BLC, 0.0)

    def _dense(self, logits_BN2: Tensor, who: Hearing) -> list[Tensor]:
        """Similarities (B, N) to the visual and the textual target; the other one for a missing one."""
        if not (self.training and self.config.dense):
            return []
        by_sight, by_words = logits_BN2.unbind(dim=2)
        hears_B1, sees_B1 = who.hears_B[:, None], who.sees_B[:, None]
        return [torch.where(sees_B1, by_sight, by_words), torch.where(hears_B1, by_words, by_sight)]

    # -- the protocol -----------------------------------------------------------------------------------

    def locate(
        self, search_B3SS: Tensor, memory: TemplateMemory, past_BH4: Tensor | None = None
    ) -> Prediction:
        """Search crops (B, 3, Sx, Sx), one a target of the memory."""
        both = self.pair(memory.first, memory.recent)
        return Prediction.of(self.observe(search_B3SS, both, memory.text, memory.flag_B)[0])

    def ground(self, scene_B3SS: Tensor, text: Text) -> Prediction:
        """Find the target by words in letterboxed frames (B, 3, Sx, Sx); the template is masked."""
        flag_B = torch.full((len(scene_B3SS),), int(Flag.NL), device=scene_B3SS.device)
        return Prediction.of(self.observe(scene_B3SS, self.no_template(scene_B3SS), text, flag_B)[0])

    def rehearse(self, views: Views, *, select: bool = True) -> dict[str, Any]:
        """The training pass (see the protocol): ``boxes``, ``centre``, ``dense`` and ``heard``."""
        each_B = views.each()
        text = self.read_text(views.ids_BL, views.readable_BL).pick(each_B)
        _, template = self.templates_of(views)
        maps, aux = self.observe(views.search_BV3SS.flatten(0, 1), template, text, views.flag_B[each_B])
        return {"boxes": maps.boxes_BSS4, "centre": maps.logits_BSS, **aux}

    def freeze_plan(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Tiny: the lower stem and the word table (our design, as LiteTrack tiny); base: nothing."""
        frozen, order = self.stem_freeze_plan()
        return ([*frozen, self.bert.embeddings.word_embeddings], order) if frozen else ([], [])


def mean_inside(z_BMC: Tensor, inside_BM: Tensor) -> Tensor:
    """(B, C) mean of the template's tokens, weighted by how much of each cell is the target."""
    total_B1 = inside_BM.sum(dim=1, keepdim=True).clamp_min(1e-6)
    return (z_BMC * (inside_BM / total_B1).to(z_BMC.dtype)[..., None]).sum(dim=1)


def first_word(words_BLC: Tensor, like: Tensor) -> Tensor:
    """(B, C) the sentence's [CLS]; zeros where there are no words at all."""
    return words_BLC[:, 0] if words_BLC.shape[1] else torch.zeros_like(like[:, 0])
