"""LiteTrack: a modality-unified ViT with BERT joined in its upper half, and a contrastive-prompt center head.

Sources: LiteTrack (Yang L., unpublished paper, released code) on top of UVLTrack (AAAI 2024). The four ideas
of the paper are switches of the configuration: ``freeze`` (see ``freeze_plan``), ``select``, ``gate``,
``star``. What is published and what is ours: docs/trackers/litetrack.md. ``base`` has the published sizes;
``tiny`` runs the same code on a MobileNetV2 stem with correlation.

Shapes: B batch, L word pieces, C width, P = Sz*Sz template cells, K templates, M = K*P, N = Sx*Sx search
cells, R search cells that are kept. Boxes are cx, cy, w, h in units of the crop's side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from vltrack.core.types import Mode
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
    is_box_only,
    is_text_only,
    text_key_mask,
)
from vltrack.models.embedding import InputEmbedding, Search
from vltrack.models.selection import KeptTokens, Selection, TokenSelector
from vltrack.nn.attention import Block, Mlp, key_bias
from vltrack.nn.bert import Bert
from vltrack.nn.boxes import box_mask
from vltrack.nn.heads import RARE, BoxCode, ConvTower, as_map, cosine, decode_boxes, temperature_parameter

BACKGROUND_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class LiteTrackConfig(TrackerConfig):
    """All sizes and switches. The defaults are ``base``.

    Attributes:
        split_layers, joint_layers: vision and text apart (also the number of BERT layers), then in one sequence.
        head_channels, box_code: of the head's convolution towers; how a cell encodes its box.
        contrast_from: first layer (from 0) with a contrast loss.
        freeze, frozen_blocks: see ``freeze_plan``.
        select, select_threshold, select_bucket: token selection; initial cosine threshold; counts are rounded
            up to multiples of the bucket.
        select_budget: where it is not 0, so many tokens are kept whatever the threshold, in training too, but all
            in a start from text alone (ours).
        gate, star, star_width: channel gate in every block; adapters in the split layers, and their hidden width.
        neither_by_words: a text-only start, too, may answer that no cell is the target (ours, off in base).
        prompter_spare: layers without effect that UVLTrack's checkpoints hold, so that they load strictly.
        one_way: class token, template and sentence do not attend to the search region, so that their keys and
            values are computed once per template (ours).
    """

    split_layers: int = 6
    joint_layers: int = 6
    head_channels: tuple[int, ...] = (256, 128, 64, 32)
    contrast_from: int = 3
    box_code: BoxCode = "cell"
    # the paper's ideas
    freeze: bool = True
    frozen_blocks: int = 4
    select: bool = True
    select_threshold: float = 0.8
    select_bucket: int = 32
    select_budget: int = 0
    gate: bool = True
    star: bool = True
    star_width: int = 85
    neither_by_words: bool = False
    prompter_spare: bool = False
    one_way: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("split_layers", "joint_layers", "select_bucket", "star_width")
        if not 0 <= self.contrast_from < self.split_layers + self.joint_layers:
            raise ValueError(f"contrast_from must name one of the layers, got {self.contrast_from}")
        if not -1.0 < self.select_threshold < 1.0:
            raise ValueError(f"select_threshold is a cosine, got {self.select_threshold}")
        if self.select_budget < 0:
            raise ValueError(f"select_budget is a number of tokens, got {self.select_budget}")


def base() -> LiteTrackConfig:
    """The published sizes: ViT-B/16 and six BERT-base layers, 128/256 px."""
    return LiteTrackConfig()


def uvltrack_base() -> LiteTrackConfig:
    """The parent, UVLTrack-B: LiteTrack with its four ideas switched off."""
    return LiteTrackConfig(freeze=False, select=False, gate=False, star=False, prompter_spare=True)


def uvltrack_large() -> LiteTrackConfig:
    """UVLTrack-L: ViT-L/16 and the lower half of BERT-large, in a wider search region (released code)."""
    return replace(
        uvltrack_base(),
        search_factor=5.0,
        width=1024,
        heads=16,
        text_hidden=4096,
        table_width=1024,
        split_layers=12,
        joint_layers=12,
        contrast_from=8,
    )


def tiny() -> LiteTrackConfig:
    """Runs live on one thread of a laptop (unpublished; our design)."""
    return LiteTrackConfig(
        **TINY,
        split_layers=2,
        joint_layers=2,
        head_channels=(96, 48),
        contrast_from=1,
        box_code="free",
        frozen_blocks=0,
        star_width=32,
        neither_by_words=True,
    )


@dataclass(frozen=True, kw_only=True)
class LayeredText(Text):
    """In training also the sentence's [CLS] (B, I, C) after each split layer from ``contrast_from`` on."""

    layers_BIC: Tensor


@dataclass(frozen=True, kw_only=True)
class TargetSide(Batched):
    """What the search region attends to in a model with ``one_way``; T = 1 + M tokens, U = T + L.

    Attributes:
        class_BC, template_BMC, text_BC: class token, template and sentence's [CLS] after all layers.
        split_BI2HTD, joint_BI2HUD: keys and values in each split layer and in each joint one.
        valid_BU: tokens that may be keys.
        marks_BI2C: in training, class token and [CLS] after each layer from ``contrast_from`` on.
    """

    class_BC: Tensor
    template_BMC: Tensor
    text_BC: Tensor
    split_BI2HTD: Tensor
    joint_BI2HUD: Tensor
    valid_BU: Tensor
    marks_BI2C: Tensor


@dataclass(frozen=True, kw_only=True)
class Features(Batched):
    """Backbone output of one search region.

    Attributes:
        class_BC, template_BMC, search_BNC, text_BC: class token, template, search region, sentence's [CLS].
        embedded: the search region before the backbone.
        selection: of the search tokens; None without selection.
        contrasts: in training, the layer contrasts (B, N).
    """

    class_BC: Tensor
    template_BMC: Tensor
    search_BNC: Tensor
    text_BC: Tensor
    embedded: Search
    selection: Selection | None
    contrasts: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class PromptPrediction(Prediction):
    """A prediction with the features from which prompts can be updated."""

    features: Features


@dataclass(frozen=True, kw_only=True)
class PromptMemory(TemplateMemory):
    """Templates, the contrastive prompts (B, 3, C), and with ``one_way`` what the search region attends to."""

    prompts_B3C: Tensor
    side: TargetSide | None = None


class LiteTrack(TrackerBase[PromptMemory]):
    """See the module's docstring."""

    bert: Bert
    training_only = ("log_contrast", "head.prompter.q.", "head.prompter.kv.", "head.prompter.proj.")

    def __init__(self, config: LiteTrackConfig) -> None:
        super().__init__(config)
        self.config = config
        width, depth = config.width, config.split_layers + config.joint_layers
        self.embed = InputEmbedding(config, binary_mask=True)
        self.register_positions(learned=False)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp_ratio, gate=config.gate) for _ in range(depth)
        )
        self.modal_embed = nn.Parameter(torch.randn(2, width) * 0.02)
        self.bert = bert_of(config, config.split_layers)
        if config.star:
            split = range(config.split_layers)
            self.star_vision = nn.ModuleList(StarAdapter(width, config.star_width) for _ in split)
            self.star_text = nn.ModuleList(StarAdapter(width, config.star_width) for _ in split)
        self.selector: TokenSelector | None = None
        if config.select:
            self.selector = TokenSelector(width, config.select_threshold, config.select_bucket, config.select_budget)
        self.log_contrast = temperature_parameter()
        self.head = ModalityHead(config, self.search_side)

    # -- once per sentence, once per template -----------------------------------------------------------

    def read_text(self, ids_BL: Tensor, valid_BL: Tensor) -> Text:
        """Word-piece ids (B, L) int64 with [CLS] first; ``valid_BL`` is False for padding."""
        bias, cls_tokens = key_bias(valid_BL), []
        # Split layers: text alone
        x_BLC = self.bert.embeddings(ids_BL)
        for i, layer in enumerate(self.bert.layers):
            if self.config.star:
                x_BLC = self.star_text[i](x_BLC)
            x_BLC = layer(x_BLC, bias)
            if i >= self.config.contrast_from:
                cls_tokens.append(x_BLC[:, 0])
        if self.training and cls_tokens:
            return LayeredText(tokens_BLC=x_BLC, valid_BL=valid_BL, layers_BIC=torch.stack(cls_tokens, dim=1))
        return Text(tokens_BLC=x_BLC, valid_BL=valid_BL)

    def embed_template(self, crop: BoxedCrop) -> Template:
        """Template patches with positions (UVLTrack)."""
        return self.embed.template(crop, self.pos_embed_z)

    # -- the modality-unified backbone --------------------------------------------------------------------

    def forward_features(
        self,
        search_B3SS: Tensor,
        template: Template,
        text: Text,
        flag_B: Tensor,
        *,
        select: bool = True,
        side: TargetSide | None = None,
    ) -> Features:
        """Template, search region and sentence through the backbone.

        ``select=False`` keeps all tokens in this pass; in training under a threshold the gates are there all the
        same. With ``one_way`` a ``side`` that is known already saves its layers.
        """
        config, (b, m) = self.config, template.inside_BM.shape
        embedded, gates = self.embed_search(search_B3SS, template, text, flag_B, select=select)
        soft = self.training and not config.select_budget
        kept = KeptTokens.of(embedded.tokens_BNC, gates if select else None, soft=soft)
        if config.one_way:
            return self._one_way(embedded, kept, gates, side or self.target_side(template, text, flag_B), flag_B)
        # Key masks: no template in text-only samples, no text in box-only samples
        use_template_B1 = ~is_text_only(flag_B)[:, None]
        vision_valid = torch.cat([use_template_B1.expand(b, 1 + m), kept.valid_BR], dim=1)
        text_valid = text_key_mask(flag_B, text.valid_BL)
        vision_bias, text_bias = kept.bias(vision_valid), key_bias(text_valid)
        vision_TC = torch.cat([self.cls_token.expand(b, -1, -1), template.tokens_BMC, kept.tokens_BRC], dim=1)
        text_LC, contrasts = text.tokens_BLC, []
        # Split layers: vision alone; the text's own are in read_text
        for i, block in enumerate(self.blocks[: config.split_layers]):
            if config.star:
                vision_TC = self.star_vision[i](vision_TC)
            vision_TC = block(vision_TC, vision_bias, vision_valid)
            contrasts += self._contrast(i, vision_TC, text_LC, text, kept, flag_B)
        # Joint layers: vision and text tokens in one sequence
        joint_valid = torch.cat([vision_valid, text_valid], dim=1)
        tokens = 1 + m + kept.tokens_BRC.shape[1]  # OpenVINO takes vision_TC.shape[1] for that of the whole
        for i, block in enumerate(self.blocks[config.split_layers :], start=config.split_layers):
            joint = torch.cat([vision_TC + self.modal_embed[0], text_LC + self.modal_embed[1]], dim=1)
            both = [bias for bias in (vision_bias, text_bias) if bias is not None]  # fewer in a traced graph
            joint_bias = torch.cat(both, dim=-1) if len(both) == 2 else key_bias(joint_valid)
            joint = block(joint, joint_bias, joint_valid)
            vision_TC, text_LC = joint[:, :tokens], joint[:, tokens:]
            contrasts += self._contrast(i, vision_TC, text_LC, text, kept, flag_B)
        class_BC = vision_TC[:, 0]
        return Features(
            class_BC=class_BC,
            template_BMC=vision_TC[:, 1 : 1 + m],
            # Dropped tokens return to their places in the map
            search_BNC=kept.restore(vision_TC[:, 1 + m :]),
            text_BC=text_LC[:, 0] if text_LC.shape[1] else torch.zeros_like(class_BC),
            embedded=embedded,
            selection=gates,
            contrasts=tuple(contrasts),
        )

    def target_side(self, template: Template, text: Text, flag_B: Tensor) -> TargetSide:
        """Class token, template and sentence through the backbone, without a search region (``one_way``).

        Text-only samples attend to their template in the split layers all the same: softmax needs a key. The
        search region does not.
        """
        config, (b, m) = self.config, template.inside_BM.shape
        vision_valid = (~is_text_only(flag_B))[:, None].expand(b, 1 + m)
        valid_BU = torch.cat([vision_valid, text_key_mask(flag_B, text.valid_BL)], dim=1)
        x_BTC = torch.cat([self.cls_token.expand(b, -1, -1), template.tokens_BMC], dim=1)
        open_BT = torch.ones_like(vision_valid)
        keys_values, marks = [], []
        for i, block in enumerate(self.blocks[: config.split_layers]):
            if config.star:
                x_BTC = self.star_vision[i](x_BTC)
            keys_values.append(cast(Block, block).keys_values(x_BTC))
            x_BTC = block(x_BTC, key_bias(open_BT), open_BT)
            marks += self._marks(i, x_BTC, text.tokens_BLC, text)
        split_BI2HTD, text_LC = torch.stack(keys_values, dim=1), text.tokens_BLC
        keys_values.clear()
        for i, block in enumerate(self.blocks[config.split_layers :], start=config.split_layers):
            joint = torch.cat([x_BTC + self.modal_embed[0], text_LC + self.modal_embed[1]], dim=1)
            keys_values.append(cast(Block, block).keys_values(joint))
            joint = block(joint, key_bias(valid_BU), valid_BU)
            x_BTC, text_LC = joint[:, : 1 + m], joint[:, 1 + m :]
            marks += self._marks(i, x_BTC, text_LC, text)
        class_BC = x_BTC[:, 0]
        return TargetSide(
            class_BC=class_BC,
            template_BMC=x_BTC[:, 1:],
            text_BC=text_LC[:, 0] if text_LC.shape[1] else torch.zeros_like(class_BC),
            split_BI2HTD=split_BI2HTD,
            joint_BI2HUD=torch.stack(keys_values, dim=1),
            valid_BU=valid_BU,
            marks_BI2C=torch.stack(marks, dim=1) if marks else class_BC.new_zeros(b, 0, 2, self.width),
        )

    def _one_way(
        self, embedded: Search, kept: KeptTokens, gates: Selection | None, side: TargetSide, flag_B: Tensor
    ) -> Features:
        """The search region through the backbone; it attends to ``side`` and to itself."""
        config, x_BRC, contrasts = self.config, kept.tokens_BRC, list[Tensor]()
        for i, block in enumerate(self.blocks):
            if i < config.split_layers:
                if config.star:
                    x_BRC = self.star_vision[i](x_BRC)
                seen = side.split_BI2HTD[:, i]
            else:
                x_BRC = x_BRC + self.modal_embed[0]
                seen = side.joint_BI2HUD[:, i - config.split_layers]
            bias = kept.bias(torch.cat([side.valid_BU[:, : seen.shape[3]], kept.valid_BR], dim=1))
            x_BRC = block(x_BRC, bias, kept.valid_BR, seen)
            if self.training and i >= config.contrast_from:
                marks_B2C = side.marks_BI2C[:, i - config.contrast_from]
                contrasts.append(self._similarity(x_BRC, marks_B2C, kept, flag_B))
        return Features(
            class_BC=side.class_BC,
            template_BMC=side.template_BMC,
            search_BNC=kept.restore(x_BRC),
            text_BC=side.text_BC,
            embedded=embedded,
            selection=gates,
            contrasts=tuple(contrasts),
        )

    def _contrast(
        self, layer: int, vision_TC: Tensor, text_LC: Tensor, text: Text, kept: KeptTokens, flag_B: Tensor
    ) -> list[Tensor]:
        """In training, layer contrast (B, N): cosine of search tokens to the class token, [CLS], or both."""
        search_BRC = vision_TC[:, vision_TC.shape[1] - kept.tokens_BRC.shape[1] :]
        marks = self._marks(layer, vision_TC, text_LC, text)
        return [self._similarity(search_BRC, marks_B2C, kept, flag_B) for marks_B2C in marks]

    def _marks(self, layer: int, vision_TC: Tensor, text_LC: Tensor, text: Text) -> list[Tensor]:
        """In training, from ``contrast_from`` on: class token and [CLS] (B, 2, C); twice the first without text."""
        start = self.config.contrast_from
        if not self.training or layer < start:
            return []
        cls_B1C = text_LC[:, :1] if text_LC.shape[1] else vision_TC[:, :1]
        if layer < self.config.split_layers and isinstance(text, LayeredText):
            cls_B1C = text.layers_BIC[:, layer - start, None]
        return [torch.cat([vision_TC[:, :1], cls_B1C], dim=1)]

    def _similarity(self, search_BRC: Tensor, marks_B2C: Tensor, kept: KeptTokens, flag_B: Tensor) -> Tensor:
        to_both = cosine(search_BRC, marks_B2C)
        return kept.spread(blend_modalities(flag_B, to_both[..., 0], to_both[..., -1])) * self.log_contrast.exp()

    def embed_search(
        self, search_B3SS: Tensor, template: Template, text: Text, flag_B: Tensor, *, select: bool
    ) -> tuple[Search, Selection | None]:
        """The search region's tokens, and which of them enter the backbone. Graphs are cut here (``export.graphs``)."""
        # Search patches with positions
        embedded = self.embed.search(search_B3SS, template, text, is_text_only(flag_B), self.pos_embed_x)
        # Token selection: redundant search tokens leave; in training they only stop being keys
        learns = self.training and not self.config.select_budget
        selector = self.selector if select or learns else None
        return embedded, None if selector is None else selector(embedded.tokens_BNC, is_text_only(flag_B))

    def build_prompts(self, features: Features, template: Template, box_B4: Tensor, flag_B: Tensor) -> Tensor:
        """Prompts (B, 3, C) from a frame whose box is known; of a text-only sample from the sentence."""
        reference_BC = blend_modalities(flag_B, features.class_BC, features.text_BC)
        keys_BMC = torch.cat([features.template_BMC, features.search_BNC], dim=1)
        inside = torch.cat([template.inside_BM > 0.5, box_mask(box_B4, self.search_side)], dim=1)
        return self.head.prompter.build(reference_BC, keys_BMC, inside, is_text_only(flag_B))

    # -- the protocol ---------------------------------------------------------------------------------------

    def init_template(self, template: BoxedCrop, context: BoxedCrop, text: Text | None = None) -> PromptMemory:
        """Start targets: box-only where ``text`` is None, else box and text."""
        start = super().init_template(template, context, text)
        both = self.joint_template(start.first, start.recent)
        side = self.target_side(both, start.text, start.flag_B) if self.config.one_way else None
        features = self.forward_features(context.image_B3SS, both, start.text, start.flag_B, side=side)
        prompts = self.build_prompts(features, both, context.box_B4, start.flag_B)
        return PromptMemory(**vars(start), prompts_B3C=prompts, side=side)

    def update_template(
        self, memory: PromptMemory, prediction: Prediction, box_B4: Tensor, template: BoxedCrop | None = None
    ) -> PromptMemory:
        """New prompts from a confident frame (published) and, where given, a new recent template (ours).

        Raises:
            ValueError: ``prediction`` is not one of LiteTrack.
        """
        if not isinstance(prediction, PromptPrediction):
            raise ValueError("The prediction has no features to build prompts from.")
        both = self.joint_template(memory.first, memory.recent)
        prompts = self.build_prompts(prediction.features, both, box_B4, memory.flag_B)
        memory = super().update_template(memory, prediction, box_B4, template)
        side = memory.side
        if side is not None and template is not None:
            both = self.joint_template(memory.first, memory.recent)
            side = self.target_side(both, memory.text, memory.flag_B)
        return replace(memory, prompts_B3C=prompts, side=side)

    def locate(self, search_B3SS: Tensor, memory: PromptMemory, past_BH4: Tensor | None = None) -> PromptPrediction:
        """Search crops (B, 3, Sx, Sx), one per target of the memory."""
        both = self.joint_template(memory.first, memory.recent)
        features = self.forward_features(search_B3SS, both, memory.text, memory.flag_B, side=memory.side)
        return self.head.predict(features, memory.prompts_B3C, memory.flag_B)

    def ground(self, scene_B3SS: Tensor, text: Text) -> PromptPrediction:
        """Find the target from text in letterboxed frames (B, 3, Sx, Sx); the template is masked."""
        blank, b = self.no_template(scene_B3SS), len(scene_B3SS)
        flag_B = flags_of(Mode.NL, scene_B3SS)
        # With a budget all tokens stay: the target may be anywhere
        features = self.forward_features(scene_B3SS, blank, text, flag_B, select=not self.config.select_budget)
        prompts = self.build_prompts(features, blank, scene_B3SS.new_zeros(b, 4), flag_B)
        return self.head.predict(features, prompts, flag_B)

    def forward(self, views: Views, *, select: bool = True) -> TrainOutputs:
        """Training pass (see the base class).

        The views of a target are each other's context: prompts for one are built from the other (UVLTrack),
        and its recent template is cut from the other (ours).
        """
        budget = self.config.select_budget
        flag_B, box_B4 = views.flag_B[views.target_of_view()], views.search.box_B4.flatten(0, 1)
        # Sentence, templates, search region through the backbone
        text, template, images_B3SS = self.embed_views(views)
        features = self.forward_features(images_B3SS, template, text, flag_B, select=select)
        # Prompts from the other view of the target
        known_B4 = torch.where(views.present_BV.flatten()[:, None], box_B4, torch.zeros_like(box_B4))
        prompts_B3C = self.build_prompts(features, template, known_B4, flag_B)
        other_B = torch.arange(len(flag_B), device=flag_B.device).view(views.present_BV.shape).flip(1).flatten()
        # Head
        center_BSS, prompt_BN2, boxes_BSS4 = self.head(features, prompts_B3C[other_B], flag_B)
        return TrainOutputs(
            boxes_BSS4=boxes_BSS4,
            center_BSS=center_BSS,
            prompt_BN2=prompt_BN2,
            contrasts=features.contrasts,
            gate_BN=None if budget or features.selection is None else features.selection.gate_BN,
            text_similarity_BN=features.embedded.text_similarity_BN,
        )

    def freeze_plan(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Modules frozen at the start, and the order in which plateaus of the loss unfreeze them (idea 1).

        Base: patch embedding, word embeddings, BERT layer 0 and the lowest ViT blocks; blocks return top down
        (the released plan names candidates but is never executed; order and pace are our design). Tiny: see
        the base class.
        """
        if not self.config.freeze:
            return [], []
        if self.config.stem == "mobilenet":
            return super().freeze_plan()
        lowest = list(self.blocks[: self.config.frozen_blocks])
        return [self.embed.stem, self.bert.embeddings, self.bert.layers[0], *lowest], lowest[:0:-1]


def blend_modalities(flag_B: Tensor, vision: Tensor, text: Tensor) -> Tensor:
    """Per sample: vision for box-only, text for text-only, their mean for both.

    ``where``, not a product, so that not even a NaN of a masked modality can pass.
    """
    shape = (-1,) + (1,) * (vision.ndim - 1)
    both = torch.where(is_text_only(flag_B).view(shape), text, (vision + text) / 2)
    return torch.where(is_box_only(flag_B).view(shape), vision, both)


# -- star adapter (idea 4) -----------------------------------------------------------------------------------


class StarAdapter(nn.Module):
    """x + alpha * g(ReLU6(f1 x) * f2 x), with alpha starting at zero.

    The published code builds this with new random weights in every forward pass and without a residual; here
    it is registered, bottlenecked to ``hidden`` and starts as the identity (unpublished; our design).
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.f1 = nn.Linear(width, hidden)
        self.f2 = nn.Linear(width, hidden)
        self.g = nn.Linear(hidden, width)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        out: Tensor = x + self.alpha * self.g(nn.functional.relu6(self.f1(x)) * self.f2(x))
        return out


# -- the modality-adaptive box head (UVLTrack, section 3) ----------------------------------------------------


class ModalityHead(nn.Module):
    """Contrastive prompts, and convolution towers for center, offset and size."""

    def __init__(self, config: LiteTrackConfig, side: int) -> None:
        super().__init__()
        width, channels = config.width, config.head_channels
        self.side, self.code, self.allow_none = side, config.box_code, config.neither_by_words
        self.prompter = ContrastivePrompter(width, config.mlp_ratio, unused_layers=config.prompter_spare)
        self.conv_cls = ConvTower(width, channels, 1)
        self.conv_offset = ConvTower(width, channels, 2)
        self.conv_bbox = ConvTower(width, channels, 2)
        self.conv_bbox_grounding = ConvTower(width, channels, 2)
        # A rare event: start the center map low so that the first steps are not spent on that.
        nn.init.constant_(cast(Tensor, self.conv_cls.out.bias), RARE)

    def forward(self, features: Features, prompts_B3C: Tensor, flag_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Center logits (B, S, S), prompt logits (B, N, 2) and boxes (B, S, S, 4) of the search region."""
        prompt_BN2 = self.prompter.score(features.search_BNC, prompts_B3C)
        map_BCSS = as_map(features.embedded.add_skip(features.search_BNC), self.side)
        center_BSS = self.conv_cls(map_BCSS)[:, 0].float()
        size_B2SS = self._size(map_BCSS, is_text_only(flag_B))
        return center_BSS, prompt_BN2, decode_boxes(self.conv_offset(map_BCSS), size_B2SS, self.code)

    def predict(self, features: Features, prompts_B3C: Tensor, flag_B: Tensor) -> PromptPrediction:
        """Maps of the search region; text-only samples take the size from their own tower (published)."""
        center_BSS, prompt_BN2, boxes_BSS4 = self(features, prompts_B3C, flag_B)
        # The released code has no third class where it grounds a sentence.
        two_classes_B = torch.zeros_like(flag_B, dtype=torch.bool) if self.allow_none else is_text_only(flag_B)
        return PromptPrediction(
            center_BSS=center_BSS.sigmoid(),
            presence_BSS=presence(prompt_BN2, two_classes_B).view_as(center_BSS),
            boxes_BSS4=boxes_BSS4,
            features=features,
        )

    def _size(self, map_BCSS: Tensor, text_only_B: Tensor) -> Tensor:
        """At inference only the towers that a flag needs are computed."""
        if self.training or (text_only_B.any() and not text_only_B.all()):
            choice = text_only_B[:, None, None, None]
            return torch.where(choice, self.conv_bbox_grounding(map_BCSS), self.conv_bbox(map_BCSS))
        tower = self.conv_bbox_grounding if bool(text_only_B.all()) else self.conv_bbox
        size: Tensor = tower(map_BCSS)
        return size


class ContrastivePrompter(nn.Module):
    """Build three prompts from tokens whose in-box mask is known, and score search tokens with them.

    ``unused_layers`` registers the q, kv and proj layers that the released prompter holds but never uses, so
    that published checkpoints load strictly; they take no part in anything.
    """

    def __init__(self, width: int, mlp_ratio: float = 4.0, *, unused_layers: bool = False) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(3, width) * 0.02)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.log_build = temperature_parameter()
        self.log_score = temperature_parameter()
        if unused_layers:
            self.q = nn.Linear(width, width, bias=False)
            self.kv = nn.Linear(width, 2 * width, bias=False)
            self.proj = nn.Linear(width, width)

    def build(self, reference_BC: Tensor, keys_BMC: Tensor, inside_BM: Tensor, text_only_B: Tensor) -> Tensor:
        """Prompts (B, 3, C): rows target, distractor, background.

        ``inside_BM`` is True for key tokens in the target's box. ``text_only_B`` marks samples started by a
        sentence alone, which have no trusted keys: their prompts are the queries plus the reference.
        """
        logits_BM = cosine(keys_BMC, reference_BC[:, None])[..., 0] * self.log_build.exp()
        weights_B3M = torch.stack(_group_weights(logits_BM, inside_BM), dim=1)
        pooled_B3C = weights_B3M.to(keys_BMC.dtype) @ keys_BMC
        pooled_B3C = torch.where(text_only_B[:, None, None], torch.zeros_like(pooled_B3C), pooled_B3C)
        prompts = pooled_B3C + self.queries
        prompts = torch.cat([prompts[:, :1] + reference_BC[:, None], prompts[:, 1:]], dim=1)
        refined: Tensor = prompts + self.mlp(prompts)
        return torch.where(text_only_B[:, None, None], prompts, refined)

    def score(self, search_BNC: Tensor, prompts_B3C: Tensor) -> Tensor:
        """Two logits (B, N, 2): target, and the better of distractor, background and nothing (0)."""
        a_BN3 = cosine(search_BNC, prompts_B3C) * self.log_score.exp()
        other_BN = a_BN3[..., 1:].amax(dim=-1).clamp_min(0.0)
        return torch.stack([a_BN3[..., 0], other_BN], dim=-1)


def presence(logits_BN2: Tensor, two_classes_B: Tensor) -> Tensor:
    """(B, N, 2) -> (B, N) probability of the target; a third logit of 0 is for neither (inference only).

    Samples marked in ``two_classes_B`` choose between the target and the rest alone.
    """
    three = torch.cat([logits_BN2, torch.zeros_like(logits_BN2[..., :1])], dim=-1)
    return torch.where(two_classes_B[:, None], logits_BN2.softmax(dim=-1)[..., 0], three.softmax(dim=-1)[..., 0])


def _group_weights(logits_BM: Tensor, inside_BM: Tensor) -> list[Tensor]:
    """Softmax weights over target tokens, and over those outside split into distractor and background.

    Outside, tokens are sorted by probability; the least similar ones that hold together less than a quarter
    of the mass are background, the rest distractors. An empty group gets zero weights.
    """
    lowest = torch.finfo(logits_BM.dtype).min
    probability_BM = logits_BM.masked_fill(inside_BM, lowest).softmax(dim=-1).masked_fill(inside_BM, 0.0)
    sorted_BM, order_BM = probability_BM.detach().sort(dim=-1)
    low_mass_BM = sorted_BM.cumsum(dim=-1) < BACKGROUND_SHARE
    background_BM = torch.zeros_like(inside_BM).scatter(1, order_BM, low_mass_BM)
    groups = (inside_BM, ~inside_BM & ~background_BM, ~inside_BM & background_BM)
    return [logits_BM.masked_fill(~g, lowest).softmax(dim=-1).masked_fill(~g, 0.0) for g in groups]
