"""AITrack: ARTrack's autoregressive box decoder over a ViT, aligned with CLIP's embedding of the target.

Sources: AITrack (Alawode and Javed, IEEE Access 2025, and its released code) on top of ARTrack-Seq (CVPR
2023). The ideas are switches of the configuration: ``roi`` (the ROI-based text-guided encoder), ``history``
(past boxes as prompt), ``text`` (sentences in the same space; ours). The released code has defects that ours
does not have: docs/trackers/aitrack.md. ``base`` has the published sizes, ``artrack_base`` is ARTrack-Seq-256
itself, ``tiny`` is our own.

Shapes: B batch, L word pieces, C width, P = Sz*Sz template cells, K templates, M = K*P, N = Sx*Sx search
cells, H past boxes, T coordinate tokens, V their vocabulary. Boxes are cx, cy, w, h in units of the crop's
side.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from vltrack.core.errors import ConfigError
from vltrack.core.types import Mode
from vltrack.models.artrack_decoder import BoxTokenizer, FusionEncoder, KeysValues, SequenceDecoder
from vltrack.models.base import (
    TINY,
    Batched,
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
from vltrack.nn.attention import Block, key_bias, tracing
from vltrack.nn.boxes import box_coverage
from vltrack.nn.clip import HEAD_WIDTH, ClipText, ClipVision, to_clip_input


@dataclass(frozen=True, kw_only=True)
class AITrackConfig(TrackerConfig):
    """All sizes and switches. The defaults are ``base``.

    Attributes:
        layers, fusion_layers, decoder_layers: of the backbone, the z/x fusion encoder and the decoder.
        bins, reach: coordinate tokens per side of the crop, and how many sides they span.
        learned_positions: positions are parameters that start as sines (ARTrack), or fixed sines.
        history: past boxes before the start token.
        past_offset: pixels of the crop by which past boxes are moved up and left before they become tokens:
            0.5 in the released test code.
        roi: the region's vector: Alpha-CLIP's image encoder (frozen), the stem's tokens pooled (ours), none.
        roi_size, roi_patch, roi_width, roi_layers: of that encoder.
        text: the sentence's vector: CLIP's text encoder (frozen), BERT, or none. Ours: none is published.
        text_layers: of either; CLIP's is ``table_width`` wide.
        expected: predict the expected box of the coordinate tokens instead of the likeliest one (ours).
    """

    layers: int = 12
    fusion_layers: int = 3
    decoder_layers: int = 6
    bins: int = 400
    reach: int = 2
    learned_positions: bool = True
    max_words: int = 77
    # the papers' ideas
    history: int = 7
    past_offset: float = 0.5
    roi: Literal["clip", "pool", "none"] = "clip"
    roi_size: int = 224
    roi_patch: int = 14
    roi_width: int = 1024
    roi_layers: int = 24
    # ours
    text: Literal["clip", "bert", "none"] = "clip"
    text_layers: int = 12
    expected: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("layers", "fusion_layers", "decoder_layers", "text_layers", "roi_layers")
        if self.history < 0:
            raise ValueError(f"history must not be negative, got {self.history}")
        if self.word_match and self.text != "bert":
            raise ValueError("word_match compares cells with single words; only bert gives them")
        for name, wanted in (("roi_width", self.roi), ("table_width", self.text)):
            if wanted == "clip" and (getattr(self, name) < 1 or getattr(self, name) % HEAD_WIDTH):
                raise ValueError(f"CLIP's heads are {HEAD_WIDTH} wide; {name} is {getattr(self, name)}")


def base() -> AITrackConfig:
    """The published sizes: ViT-B/16 at 128/256 px, Alpha-CLIP L/14; with CLIP's text encoder (ours)."""
    return AITrackConfig()


def artrack_base() -> AITrackConfig:
    """The parent, ARTrack-Seq-256: AITrack without a region's or a sentence's vector."""
    return AITrackConfig(roi="none", text="none")


def tiny() -> AITrackConfig:
    """Runs live on one thread of a laptop (unpublished; our design)."""
    return AITrackConfig(
        **TINY,
        layers=4,
        fusion_layers=1,
        decoder_layers=2,
        learned_positions=False,
        past_offset=0.0,
        roi="pool",
        text="bert",
        text_layers=2,
        expected=True,
    )


@dataclass(frozen=True, kw_only=True)
class ConditionEmbedding(Batched):
    """Embedding of a region or a sentence: (B, C) of unit length, and whether a sample has one (B,)."""

    vector_BC: Tensor
    known_B: Tensor

    @classmethod
    def normalized(cls, vector_BC: Tensor, known_B: Tensor) -> ConditionEmbedding:
        """From a vector of any length."""
        return cls(vector_BC=nn.functional.normalize(vector_BC.float(), dim=-1), known_B=known_B)

    def masked_out(self, hidden_B: Tensor) -> ConditionEmbedding:
        """Without the samples that are hidden."""
        return replace(self, known_B=self.known_B & ~hidden_B)

    def average(self, other: ConditionEmbedding) -> ConditionEmbedding:
        """normalize(mean of those that are there); ``where``, so that no NaN of an absent one passes."""
        parts = (torch.where(e.known_B[:, None], e.vector_BC, 0.0) for e in (self, other))
        known_B = self.known_B | other.known_B
        mean_BC = torch.where(known_B[:, None], sum(parts, start=torch.zeros_like(self.vector_BC)), 1.0)
        return ConditionEmbedding.normalized(mean_BC, known_B)


@dataclass(frozen=True, kw_only=True)
class RegionMemory(TemplateMemory):
    """Templates without positions, and the embeddings of the target in one space.

    Published memory is the past boxes alone; a recent template is ours.

    Attributes:
        region, sentence: of the first template's region, and of the sentence.
        size_B2: width and height of the target at the start, in units of a search crop around it.
    """

    region: ConditionEmbedding
    sentence: ConditionEmbedding
    size_B2: Tensor


class AITrack(TrackerBase[RegionMemory]):
    """See the module's docstring."""

    reads_blank = True

    def __init__(self, config: AITrackConfig) -> None:
        super().__init__(config)
        self.config, self.history = config, config.history
        self.vocabulary = "clip" if config.text == "clip" else "bert"
        width, heads, ratio = config.width, config.heads, config.mlp_ratio
        sides = self.template_side, self.search_side
        self.tokenizer = BoxTokenizer(bins=config.bins, reach=config.reach)
        self.embed = InputEmbedding(config)
        self.register_positions(learned=config.learned_positions)
        self.identity = nn.Parameter(torch.randn(1, 2, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        fusion, decoder = config.fusion_layers, config.decoder_layers
        self.encoder = FusionEncoder(width, heads, ratio, fusion, sides=sides, templates=self.template_count)
        self.decoder = SequenceDecoder(width, heads, ratio, decoder, tokenizer=self.tokenizer, history=self.history)
        self.align = None if config.roi == config.text == "none" else Alignment(width)
        # Encoders of the region and of the sentence; CLIP's never learn, as published.
        self.roi: ClipRegion | PooledRegion | None = None
        if config.roi != "none":
            self.roi = ClipRegion(config) if config.roi == "clip" else PooledRegion(config)
        self.text_proj = nn.Linear(width, width) if config.text == "bert" else nn.Identity()
        self.bert = bert_of(config, config.text_layers) if config.text == "bert" else None
        self.clip_text: ClipText | None = None
        if config.text == "clip":
            sizes = {"length": config.max_words, "width": config.table_width, "layers": config.text_layers}
            self.clip_text = ClipText(**sizes, out=width).requires_grad_(False)

    # -- embeddings of sentences and regions, in one space ---------------------------------------------------

    def read_text(self, ids_BL: Tensor, valid_BL: Tensor) -> Text:
        """Word pieces (B, L) int64 of ``vocabulary``; ``valid_BL`` is False for padding.

        CLIP gives one vector for the whole sentence: a text of one token.
        """
        if self.clip_text is not None:
            with torch.no_grad():
                pooled_BC = self.clip_text(ids_BL, valid_BL)
            return Text(tokens_BLC=pooled_BC[:, None], valid_BL=valid_BL.any(dim=1, keepdim=True))
        return super().read_text(ids_BL, valid_BL)

    def embed_sentence(self, text: Text, flag_B: Tensor) -> ConditionEmbedding:
        """Mean of the sentence's tokens, of unit length (ours); absent where it has none."""
        mask_BL = text_key_mask(flag_B, text.valid_BL)
        mean_BC = self.text_proj(replace(text, valid_BL=mask_BL).mean())
        return ConditionEmbedding.normalized(mean_BC, mask_BL.any(dim=1))

    def embed_region(self, image_B3SS: Tensor, patches_BNC: Tensor, box_B4: Tensor) -> ConditionEmbedding:
        """Image content of the box (paper: ROI-based text-guided encoder); absent where switched off.

        ``patches_BNC`` are the stem's tokens, without positions.
        """
        known_B = torch.ones(len(box_B4), dtype=torch.bool, device=box_B4.device)
        if self.roi is None:
            return ConditionEmbedding(vector_BC=torch.zeros_like(patches_BNC[:, 0]), known_B=~known_B)
        return ConditionEmbedding.normalized(self.roi(image_B3SS, patches_BNC, box_B4), known_B)

    # -- backbone, alignment, fusion -------------------------------------------------------------------------

    def forward_features(
        self,
        search: Search,
        template: Template,
        z_condition: ConditionEmbedding,
        x_condition: ConditionEmbedding,
        text_only_B: Tensor | None,
    ) -> list[KeysValues]:
        """Tokens of both regions, aligned with their conditions and fused -> keys and values of the decoder.

        ``text_only_B`` marks text-only samples, None if the batch has no such sample: their template is masked in
        the backbone, and after it the template's tokens hold the sentence alone (ours).
        """
        # Positions and the identity of both regions: after region pooling, so the stem's tokens have none
        z_pos = self.pos_embed_z.repeat(1, self.template_count, 1)
        z_BMC = template.tokens_BMC + z_pos + self.identity[:, :1]
        x_BNC = search.tokens_BNC + self.pos_embed_x + self.identity[:, 1:]
        (b, m), n = z_BMC.shape[:2], x_BNC.shape[1]
        # Joint layers: template and search tokens in one sequence
        bias = None
        if text_only_B is not None:
            bias = key_bias(nn.functional.pad(~text_only_B[:, None].expand(b, m), (0, n), value=True))
        tokens = torch.cat([z_BMC, x_BNC], dim=1)
        for block in self.blocks:
            tokens = block(tokens, bias)
        z_BMC, x_BNC = self.norm(tokens).split([m, n], dim=1)
        if text_only_B is not None:
            z_BMC = torch.where(text_only_B[:, None, None], 0.0, z_BMC)
        x_BNC = search.add_skip(x_BNC)
        # Additive image-text alignment
        if self.align is not None:
            z_BMC, x_BNC = self.align(z_BMC, z_condition), self.align(x_BNC, x_condition)
        # Fusion encoder; the decoder's keys get positions and identity once more
        both = torch.cat(self.encoder(z_BMC, x_BNC), dim=1)
        pos = torch.cat([z_pos + self.identity[:, :1], self.pos_embed_x + self.identity[:, 1:]], dim=1)
        return self.decoder.keys_values(both, pos)

    def start_sequence(self, past_BH4: Tensor) -> Tensor:
        """Tokens before the box: past boxes and the start token."""
        offset = self.config.past_offset / self.search_size
        shift_4 = past_BH4.new_tensor([offset, offset, 0, 0])
        return self.decoder.start_sequence(past_BH4[:, : self.history] - shift_4)

    # -- the protocol ----------------------------------------------------------------------------------------

    def init_template(self, template: BoxedCrop, context: BoxedCrop, text: Text | None = None) -> RegionMemory:
        """Start targets: box-only where ``text`` is None, else box and text.

        Of the context only the box is needed: the size in which a static target will appear.
        """
        start = super().init_template(template, context, text)
        return RegionMemory(
            **vars(start),
            region=self.embed_region(template.image_B3SS, start.first.tokens_BMC, template.box_B4),
            sentence=self.embed_sentence(start.text, start.flag_B),
            size_B2=context.box_B4[:, 2:],
        )

    def locate(self, search_B3SS: Tensor, memory: RegionMemory, past_BH4: Tensor | None = None) -> Prediction:
        """Search crops (B, 3, Sx, Sx), one per target of the memory; without a past the target is static."""
        return self._predict(*self._condition(search_B3SS, memory, past_BH4))

    def locate_expected(self, search_B3SS: Tensor, memory: RegionMemory, past_BH4: Tensor) -> Tensor:
        """The expected box (B, 4) of the tokens that ``locate`` generates, with a gradient: for stage two."""
        return self.decoder.generate_expected(*self._condition(search_B3SS, memory, past_BH4))

    def ground(self, scene_B3SS: Tensor, text: Text) -> Prediction:
        """Find the target from text in letterboxed frames (B, 3, Sx, Sx) (ours).

        The template is masked, the past is the whole image, and the sentence alone conditions both regions.

        Raises:
            ConfigError: this model has no text side.
        """
        if self.config.text == "none":
            raise ConfigError(
                "This AITrack has no text side: it cannot start from text alone.",
                hint="Give a box, or use the size tiny or base.",
            )
        blank, b = self.no_template(scene_B3SS), len(scene_B3SS)
        flag_B = flags_of(Mode.NL, scene_B3SS)
        text_only_B, sentence = is_text_only(flag_B), self.embed_sentence(text, flag_B)
        search = self.embed.search(scene_B3SS, blank, text, text_only_B)
        memory = self.forward_features(search, blank, sentence, sentence, text_only_B)
        return self._predict(self.start_sequence(full_image_prior(b, self.history, scene_B3SS)), memory)

    def forward(self, views: Views, *, select: bool = True) -> TrainOutputs:
        """Stage-1 training pass: teacher forcing on image pairs. ``select`` has no effect.

        The past is sampled (``sample_history``); in text-only samples it is the whole image, as at test time.
        """
        target_B = views.target_of_view()
        flag_B, box_B4 = views.flag_B[target_B], views.search.box_B4.flatten(0, 1)
        text_only_B, b = is_text_only(flag_B), len(flag_B)
        # Sentence, template and its region
        text = self.read_text(views.ids_BL, views.attendable_BL).index_select(target_B)
        sentence = self.embed_sentence(text, flag_B)
        first, template = self.embed_templates(views)
        z_region = self.embed_region(views.template.image_B3SS, first.tokens_BMC, views.template.box_B4)
        # Past boxes; the search region, and in it the region of the last box
        past_BH4 = sample_history(box_B4, self.search_factor, max(1, self.history))
        full_BH4 = full_image_prior(b, past_BH4.shape[1], box_B4)
        past_BH4 = torch.where(text_only_B[:, None, None], full_BH4, past_BH4)
        images_B3SS = views.search.image_B3SS.flatten(0, 1)
        search = self.embed.search(images_B3SS, template, text, text_only_B)
        x_region = self.embed_region(images_B3SS, search.patches_BNC, past_BH4[:, -1])
        # Backbone, alignment, fusion
        z_condition, x_condition = (
            region.masked_out(text_only_B).average(sentence) for region in (z_region.index_select(target_B), x_region)
        )
        masked_B = text_only_B if text_only_B.any() else None
        memory = self.forward_features(search, template, z_condition, x_condition, masked_B)
        # Decoder: all coordinate tokens at once, from the annotated ones
        logits_BTV = self.decoder.teacher_forcing(self.start_sequence(past_BH4), box_B4, memory)
        expected_B4 = self.decoder.tokenizer.soft_argmax(logits_BTV)
        bounded_B4 = torch.cat([expected_B4[:, :2], expected_B4[:, 2:].clamp_min(1e-3)], dim=1)
        return TrainOutputs(
            boxes_BSS4=bounded_B4[:, None, None],
            coordinates_BTV=logits_BTV,
            expected_B4=expected_B4,
            text_similarity_BN=search.text_similarity_BN,
        )

    def _condition(
        self, search_B3SS: Tensor, memory: RegionMemory, past_BH4: Tensor | None
    ) -> tuple[Tensor, list[KeysValues]]:
        """A search crop and a past -> the start of the sequence, and the decoder's keys and values."""
        if past_BH4 is None:
            past_BH4 = static_history(memory.size_B2, max(1, self.history))
        both = self.joint_template(memory.first, memory.recent)
        never_B = torch.zeros_like(memory.sentence.known_B)
        search = self.embed.search(search_B3SS, both, memory.text, never_B)
        x_region = self.embed_region(search_B3SS, search.patches_BNC, past_BH4[:, -1])
        z_condition, x_condition = (region.average(memory.sentence) for region in (memory.region, x_region))
        return self.start_sequence(past_BH4), self.forward_features(search, both, z_condition, x_condition, None)

    def _predict(self, start_BT: Tensor, memory: list[KeysValues]) -> Prediction:
        """Generate four tokens -> one box. The score is the tokens' confidence (ours: the published
        model has no score)."""
        box_B4, score_B = self.decoder.predict_box(start_BT, memory, expected=self.config.expected)
        score_B11 = score_B[:, None, None]
        return Prediction(
            center_BSS=score_B11, presence_BSS=torch.ones_like(score_B11), boxes_BSS4=box_B4[:, None, None]
        )


# -- alignment and regions -----------------------------------------------------------------------------------


class Alignment(nn.Module):
    """Additive image-text alignment: F + s * Linear(LN(e)) on every token of a region.

    Released code adds e unchanged: a unit vector of 768 numbers of about 0.04 to tokens of about 1, with
    nearly no effect. Ours is learned: the linear map starts at zero, so that an ARTrack checkpoint starts
    unchanged, and the scale at one, so that the map has a gradient at once.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.linear = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(()))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens_BNC: Tensor, condition: ConditionEmbedding) -> Tensor:
        """(B, N, C) -> (B, N, C); samples without a condition stay unchanged."""
        if tracing() and not bool(self.linear.weight.any()) and not bool(self.linear.bias.any()):
            return tokens_BNC  # an imported ARTrack: without this the graph would encode the region for nothing
        shift_BC = self.scale * self.linear(self.norm(condition.vector_BC))
        return tokens_BNC + torch.where(condition.known_B[:, None], shift_BC, 0.0)[:, None]


class ClipRegion(nn.Module):
    """(B, C) Alpha-CLIP's embedding of the box.

    The mask is the box's rectangle, as in the published training. The class token is read, as CLIP was
    trained (released code: the last patch's), and no gradient reaches the encoder (published).
    """

    def __init__(self, config: AITrackConfig) -> None:
        super().__init__()
        self.mean, self.std = config.pixel_mean, config.pixel_std
        sizes = {"size": config.roi_size, "patch": config.roi_patch, "layers": config.roi_layers}
        self.encoder = ClipVision(**sizes, width=config.roi_width, out=config.width).requires_grad_(False)

    @torch.no_grad()
    def forward(self, image_B3SS: Tensor, patches_BNC: Tensor, box_B4: Tensor) -> Tensor:
        """See ``embed_region``."""
        size = self.encoder.size
        image_B3SS = to_clip_input(image_B3SS, self.mean, self.std, size)
        mask_B1SS = box_coverage(box_B4, size).view(-1, 1, size, size)
        vector_BC: Tensor = self.encoder(image_B3SS, mask_B1SS.to(image_B3SS.dtype))
        return vector_BC


class PooledRegion(nn.Module):
    """(B, C) mean of the patches in the box, each by its share in it; 0 for a box outside the crop (ours)."""

    def __init__(self, config: AITrackConfig) -> None:
        super().__init__()
        self.pool = nn.Linear(config.width, config.width)

    def forward(self, image_B3SS: Tensor, patches_BNC: Tensor, box_B4: Tensor) -> Tensor:
        """See ``embed_region``."""
        share_BN = box_coverage(box_B4, int(patches_BNC.shape[1] ** 0.5)).to(patches_BNC.dtype)
        total_B1 = share_BN.sum(dim=1, keepdim=True).clamp_min(1e-3)
        vector_BC: Tensor = self.pool((share_BN[:, None] @ patches_BNC)[:, 0] / total_B1)
        return vector_BC


# -- past boxes, in units of the search crop, oldest first: (B, H, 4) ----------------------------------------
#
# A search crop is cut around the last box, so at test the last box is always in its middle, of the same area.

_ASPECT_NOISE, _STEP, _JITTER, _GROWTH, _STATIC_SHARE = 0.15, 0.02, 0.008, 0.015, 0.25


def static_history(size_B2: Tensor, count: int) -> Tensor:
    """``count`` times the box of this size in the middle, as at the first frame (published)."""
    box_B4 = torch.cat([torch.full_like(size_B2, 0.5), size_B2], dim=1)
    return box_B4[:, None].expand(-1, count, -1)


def full_image_prior(batch: int, count: int, like: Tensor) -> Tensor:
    """The whole image, for a text-only start, which has no past."""
    return like.new_tensor([0.5, 0.5, 1.0, 1.0]).expand(batch, count, 4)


def sample_history(box_B4: Tensor, factor: float, count: int) -> Tensor:
    """Random past of targets whose boxes in the present crop are ``box_B4``, for training on pairs.

    The last box is the one around which the crop would have been cut: its middle, area 1 / factor^2, the
    annotated aspect within some 15 %. The older ones lie on a nearly straight way there, independent of the
    annotated box; a quarter of all targets has not moved at all, as at a start. So the past predicts the
    shape, roughly, and not the place: motion is learned on clips. Noise is drawn from the boxes' own bytes,
    so that a training step stays a function of its data. Unpublished; our design (the published first stage
    has no past at all).
    """
    generator = torch.Generator().manual_seed(zlib.crc32(box_B4.detach().cpu().numpy().tobytes()))
    b = len(box_B4)

    def noise(*shape: int) -> Tensor:
        return torch.randn(b, *shape, generator=generator).to(box_B4)

    aspect_B = (box_B4[:, 2] / box_B4[:, 3].clamp_min(1e-3)).clamp(1 / 16, 16).log() / 2
    aspect_B = aspect_B + _ASPECT_NOISE * noise()
    size_B2 = torch.stack([aspect_B, -aspect_B], dim=1).exp() / factor
    age_H1 = torch.arange(count - 1, -1, -1).to(box_B4)[:, None]
    walk_BH4 = age_H1 * (noise(1, 4) * _STEP) + age_H1.sqrt() * noise(count, 4) * _JITTER
    walk_BH4 = walk_BH4 * walk_BH4.new_tensor([1.0, 1.0, _GROWTH / _STEP, _GROWTH / _STEP])
    moves_B = torch.rand(b, generator=generator) >= _STATIC_SHARE
    walk_BH4 = walk_BH4 * moves_B.to(box_B4)[:, None, None]
    last_BH4 = static_history(size_B2, count)
    return torch.cat([last_BH4[..., :2] + walk_BH4[..., :2], last_BH4[..., 2:] * walk_BH4[..., 2:].exp()], -1)
