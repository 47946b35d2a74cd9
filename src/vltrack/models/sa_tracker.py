"""SATracker: a ViT and a BERT that run in lockstep and exchange features at several levels.

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

import torch
from torch import Tensor, nn

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
from vltrack.nn.attention import Block, CrossAttention, key_bias
from vltrack.nn.bert import Bert
from vltrack.nn.heads import BoxCode, CenterHead, CenterMaps, cosine, temperature_parameter


@dataclass(frozen=True, kw_only=True)
class SATrackerConfig(TrackerConfig):
    """All sizes and switches. The defaults are ``base``.

    Attributes:
        layers: blocks of the ViT; the BERT has as many, up to the last level.
        tem, tem_after: target enhance modules, and the layers (from 0) after which they act.
        sam, sam_after: semantic aware modules, likewise.
        dense: similarities of all levels for the dense matching loss.
        match_width: of the projections in which TEM compares cells with the target.
        head_channels, box_code: of the center head.
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
        self.require_positive("layers", "match_width", "text_hidden")
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
        **TINY, layers=4, tem_after=(1,), sam_after=(2, 3), match_width=64, head_channels=(96, 48), box_code="free"
    )


class SATracker(TrackerBase[TemplateMemory]):
    """See the module's docstring. Its memory holds the templates."""

    bert: Bert

    def __init__(self, config: SATrackerConfig) -> None:
        super().__init__(config)
        self.config = config
        width, heads = config.width, config.heads
        self.embed = InputEmbedding(config)
        self.register_positions(learned=False)
        # Below the first level the text does not depend on the image: read_text encodes it once per sentence.
        # Above the last level it is not used.
        self.text_alone, self.text_layers = (config.levels[0] + 1, config.levels[-1] + 1) if config.levels else (0, 0)
        self.blocks = nn.ModuleList(Block(width, heads, config.mlp_ratio) for _ in range(config.layers))
        self.bert = bert_of(config, self.text_layers)
        self.tem = nn.ModuleDict()
        for i in config.tem_after * config.tem:
            self.tem[str(i)] = TargetEnhance(width, heads, config.match_width)
        self.sam = nn.ModuleDict()
        for i in config.sam_after * config.sam:
            self.sam[str(i)] = SemanticAware(width, heads, both=i + 1 < self.text_layers)
        self.log_match = temperature_parameter()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = CenterHead(width, side=self.search_side, channels=config.head_channels, code=config.box_code)
        self.training_only = () if config.tem else ("log_match",)

    # -- once per sentence, once per template ---------------------------------------------------------------

    def read_text(self, ids_BL: Tensor, valid_BL: Tensor) -> Text:
        """Word-piece ids (B, L) int64 with [CLS] first; ``valid_BL`` is False for padding.

        Only as far as vision does not matter: the embeddings and the BERT layers up to the first level (after
        layer 3 in ``base``). The layers above run with every search region.
        """
        bias = key_bias(valid_BL)
        x_BLC = self.bert.embeddings(ids_BL)
        for layer in self.bert.layers[: self.text_alone]:
            x_BLC = layer(x_BLC, bias)
        return Text(tokens_BLC=x_BLC, valid_BL=valid_BL)

    def embed_template(self, crop: BoxedCrop) -> Template:
        """Template patches with positions, as in a plain ViT."""
        return self.embed.template(crop, self.pos_embed_z)

    # -- the synchronous learning backbone ------------------------------------------------------------------

    def forward_maps(
        self, search_B3SS: Tensor, template: Template, text: Text, flag_B: Tensor
    ) -> tuple[CenterMaps, Search, list[Tensor]]:
        """Everything from images to maps; also the embedded search region and the similarities for losses."""
        # Search patches with positions, as in a plain ViT
        search = self.embed.search(search_B3SS, template, text, is_text_only(flag_B), self.pos_embed_x)
        # Synchronous learning backbone
        x_BNC, matches = self.forward_backbone(search, template, text, flag_B)
        # Head
        return self.head(search.add_skip(self.norm(x_BNC))), search, matches

    def forward_backbone(
        self, search: Search, template: Template, text: Text, flag_B: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Search tokens (B, N, C) after all layers, and in training the similarities (B, N) of all levels."""
        m, n = template.inside_BM.shape[1], search.tokens_BNC.shape[1]
        masks = AttentionMasks.of(template, text, flag_B, n)
        # Masked text is zeroed: where, not a product, so that not even a NaN can pass
        text_BLC = torch.where(masks.text_valid_BL[..., None], text.tokens_BLC, 0.0)
        vision = torch.cat([template.tokens_BMC, search.tokens_BNC], dim=1)
        scale, matches, has_tokens = self.log_match.exp(), list[Tensor](), bool(text_BLC.shape[1])
        for i, block in enumerate(self.blocks):
            # One layer of vision, one of text
            vision = block(vision, masks.vision_bias)
            if self.text_alone <= i < self.text_layers and has_tokens:
                text_BLC = self.bert.layers[i](text_BLC, masks.open_text_bias)
            # Target enhance module
            if str(i) in self.tem:
                vision, logits_BN2 = self.tem[str(i)](vision, text_BLC, masks, scale)
                matches += self._match(logits_BN2, masks)
            # Semantic aware module
            if str(i) in self.sam and has_tokens:
                vision, text_BLC = self.sam[str(i)](vision, text_BLC, masks)
                target_B2C = target_queries(vision[:, :m], text_BLC, masks)
                matches += self._match(scale * cosine(vision[:, m:], target_B2C), masks)
        return vision[:, m:], matches

    def _match(self, logits_BN2: Tensor, masks: AttentionMasks) -> list[Tensor]:
        """Similarities (B, N) to the visual and the textual target; the other one for a missing one."""
        if not (self.training and self.config.dense):
            return []
        to_vision, to_text = logits_BN2.unbind(dim=2)
        has_text_B1, has_box_B1 = masks.has_text_B[:, None], masks.has_box_B[:, None]
        return [torch.where(has_box_B1, to_vision, to_text), torch.where(has_text_B1, to_text, to_vision)]

    # -- the protocol ---------------------------------------------------------------------------------------

    def locate(self, search_B3SS: Tensor, memory: TemplateMemory, past_BH4: Tensor | None = None) -> Prediction:
        """Search crops (B, 3, Sx, Sx), one per target of the memory."""
        both = self.joint_template(memory.first, memory.recent)
        return Prediction.from_center(self.forward_maps(search_B3SS, both, memory.text, memory.flag_B)[0])

    def ground(self, scene_B3SS: Tensor, text: Text) -> Prediction:
        """Find the target from text in letterboxed frames (B, 3, Sx, Sx); the template is masked."""
        flag_B = flags_of(Mode.NL, scene_B3SS)
        blank = self.no_template(scene_B3SS)
        return Prediction.from_center(self.forward_maps(scene_B3SS, blank, text, flag_B)[0])

    def forward(self, views: Views, *, select: bool = True) -> TrainOutputs:
        """Training pass (see the base class)."""
        # Sentence and templates, then everything else
        text, template, images_B3SS = self.embed_views(views)
        maps, search, matches = self.forward_maps(images_B3SS, template, text, views.flag_B[views.target_of_view()])
        return TrainOutputs(
            boxes_BSS4=maps.boxes_BSS4,
            center_BSS=maps.logits_BSS,
            matches=matches or None,
            text_similarity_BN=search.text_similarity_BN,
        )


@dataclass(frozen=True, kw_only=True)
class AttentionMasks:
    """Attention masks and modality flags of one batch.

    Attributes:
        has_text_B, has_box_B: samples whose target is given by text, and those by a box.
        inside_BM: share of each template cell that is the target; 0 in text-only samples.
        text_valid_BL: word pieces that count; none of a box-only sample.
        vision_bias: (B, 1, 1, M + N) hides the template of text-only samples.
        target_bias: (B, 1, 1, M + L) hides that, padding, and the whole sentence of a box-only sample.
        open_text_bias: (B, 1, 1, L) hides word pieces likewise, but is open where a sample has no text, as softmax
            needs a key: its result is masked by ``has_text_B``.
    """

    has_text_B: Tensor
    has_box_B: Tensor
    inside_BM: Tensor
    text_valid_BL: Tensor
    vision_bias: Tensor | None
    target_bias: Tensor | None
    open_text_bias: Tensor | None

    @classmethod
    def of(cls, template: Template, text: Text, flag_B: Tensor, cells: int) -> AttentionMasks:
        """Masks for M template tokens, ``cells`` search tokens and L word pieces."""
        has_box_B, text_valid_BL = ~is_text_only(flag_B), text_key_mask(flag_B, text.valid_BL)
        has_text_B = text_valid_BL.any(dim=1)
        template_valid_BM = has_box_B[:, None].expand(template.inside_BM.shape)
        return cls(
            has_text_B=has_text_B,
            has_box_B=has_box_B,
            inside_BM=torch.where(template_valid_BM, template.inside_BM, 0.0),
            text_valid_BL=text_valid_BL,
            vision_bias=key_bias(nn.functional.pad(template_valid_BM, (0, cells), value=True)),
            target_bias=key_bias(torch.cat([template_valid_BM, text_valid_BL], dim=1)),
            open_text_bias=key_bias(text_valid_BL | ~has_text_B[:, None]),
        )


class TargetEnhance(nn.Module):
    """TEM: the target as two queries, added to search tokens where these resemble the target.

    q = [mean of the template's cells in the box; the sentence's CLS], q += MHA(q; [z; t]),
    x += gamma * sigmoid(max_k tau * cos(W x, W' q_k)) * MHA(x; q), z += gamma * MHA(z; q), gamma from 0.
    Unpublished; our design.
    """

    def __init__(self, width: int, heads: int, match_width: int) -> None:
        super().__init__()
        self.gather = PreNormCrossAttention(width, heads)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.norm_q = nn.LayerNorm(width, eps=1e-6)
        self.spread = CrossAttention(width, heads)
        self.match_x = nn.Linear(width, match_width, bias=False)
        self.match_q = nn.Linear(width, match_width, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, vision: Tensor, text_BLC: Tensor, masks: AttentionMasks, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Vision (B, M + N, C) enhanced, and the logits (B, N, 2) of each cell to both queries."""
        m = masks.inside_BM.shape[1]
        z_BMC = vision[:, :m]
        # Two queries gather from template and text
        q_B2C = target_queries(z_BMC, text_BLC, masks)
        q_B2C = self.gather(q_B2C, torch.cat([z_BMC, text_BLC], dim=1), masks.target_bias)
        known_B2 = torch.stack([masks.has_box_B, masks.has_text_B], dim=1)
        q_B2C = torch.where(known_B2[..., None], self.norm_q(q_B2C), 0.0)
        # Similarity of each search cell to both; the better one weighs what is added
        normed = self.norm(vision)
        logits_BN2 = scale * cosine(self.match_x(normed[:, m:]), self.match_q(q_B2C))
        best_BN = logits_BN2.masked_fill(~known_B2[:, None], float("-inf")).amax(dim=2)
        share = nn.functional.pad(best_BN.sigmoid(), (m, 0), value=1.0)[..., None].to(vision.dtype)
        attended = self.spread(normed, q_B2C, key_bias(known_B2))
        return vision + self.gamma * share * attended, logits_BN2


class SemanticAware(nn.Module):
    """SAM: vision attends to text and text to vision at once, each to the other's old values.

    v' = v + g_v MHA(LN v; LN t), t' = t + g_t MHA(LN t; LN v), both gates from 0. At the last level text is
    not used any more: there ``both`` is False. Unpublished; our design.
    """

    def __init__(self, width: int, heads: int, *, both: bool) -> None:
        super().__init__()
        self.to_vision = PreNormCrossAttention(width, heads, gate=True)
        self.to_words = PreNormCrossAttention(width, heads, gate=True) if both else None

    def forward(self, vision: Tensor, text_BLC: Tensor, masks: AttentionMasks) -> tuple[Tensor, Tensor]:
        """Vision (B, M + N, C) and text (B, L, C), both updated; vision is unchanged without text."""
        enhanced = self.to_vision(vision, text_BLC, masks.open_text_bias)
        new_BLC = text_BLC if self.to_words is None else self.to_words(text_BLC, vision, masks.vision_bias)
        return torch.where(masks.has_text_B[:, None, None], enhanced, vision), new_BLC


class PreNormCrossAttention(nn.Module):
    """x + g CA(LN x; LN y); with ``gate`` g is learned from 0, so that the block starts as the identity."""

    def __init__(self, width: int, heads: int, *, gate: bool = False) -> None:
        super().__init__()
        self.attn = CrossAttention(width, heads)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.norm_y = nn.LayerNorm(width, eps=1e-6)
        self.gate = nn.Parameter(torch.zeros(())) if gate else None

    def forward(self, x_BNC: Tensor, y_BMC: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, N, C), (B, M, C) -> (B, N, C). ``bias`` must leave at least one key to every query."""
        attended: Tensor = self.attn(self.norm1(x_BNC), self.norm_y(y_BMC), bias)
        return x_BNC + (attended if self.gate is None else self.gate * attended)


def target_queries(z_BMC: Tensor, text_BLC: Tensor, masks: AttentionMasks) -> Tensor:
    """(B, 2, C): mean of the template's tokens weighted by the target's share, and the sentence's [CLS].

    The latter is zero for a batch without word pieces.
    """
    total_B1 = masks.inside_BM.sum(dim=1, keepdim=True).clamp_min(1e-6)
    mean_BC = (z_BMC * (masks.inside_BM / total_B1).to(z_BMC.dtype)[..., None]).sum(dim=1)
    cls_BC = text_BLC[:, 0] if text_BLC.shape[1] else torch.zeros_like(z_BMC[:, 0])
    return torch.stack([mean_BC, cls_BC], dim=1)
