"""LiteTrack: a modality-unified ViT with BERT joined in its upper half, and a contrastive-prompt centre head.

Sources: LiteTrack (Yang L., unpublished paper, released code) on top of UVLTrack (AAAI 2024). The four ideas
of the paper are switches of the configuration: ``freeze`` (see ``freeze_plan``), ``select``, ``gate``,
``star``. What is published and what is ours: docs/trackers/litetrack.md. ``base`` has the published sizes;
``tiny`` runs the same code on a MobileNetV2 stem with explicit matching.

Shapes: B batch, L word pieces, C width, P = Sz*Sz template cells, K templates, M = K*P, N = Sx*Sx search
cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from vltrack.models.base import (
    TINY,
    Flag,
    FrontConfig,
    Prediction,
    Template,
    TemplateMemory,
    TemplateTracker,
    Text,
    Tokens,
    Views,
    audible,
    sentence_reader,
)
from vltrack.nn.attention import Block, key_bias
from vltrack.nn.backbones import MobileStem
from vltrack.nn.boxes import cell_inside
from vltrack.nn.heads import (
    BoxCode,
    ContrastivePrompter,
    ConvTower,
    cosine,
    decode_boxes,
    presence,
    temperature_parameter,
)
from vltrack.nn.token_pruning import (
    Selection,
    TokenSelector,
    put_back,
    restore,
    soften,
    straight_through,
    take,
)

# MERGED models/litetrack.py
# UVLTrack's modality-adaptive box head: prompts beside convolution towers. Knows tokens, not their origin.
#
# Shapes: B batch, N = S * S search cells, C width. Boxes are cx, cy, w, h in units of the crop's side.


class ModalityHead(nn.Module):
    """Contrastive prompts beside convolution towers for centre, offset and size."""

    def __init__(
        self,
        width: int,
        *,
        side: int,
        channels: Sequence[int],
        code: BoxCode,
        mlp_ratio: float = 4.0,
        spare: bool = False,
        neither_by_words: bool = False,
    ) -> None:
        super().__init__()
        self.side, self.code, self.neither_by_words = side, code, neither_by_words
        self.prompter = ContrastivePrompter(width, mlp_ratio, spare=spare)
        self.conv_cls = ConvTower(width, channels, 1)
        self.conv_offset = ConvTower(width, channels, 2)
        self.conv_bbox = ConvTower(width, channels, 2)
        self.conv_bbox_grounding = ConvTower(width, channels, 2)
        # A rare event: start the centre map low so that the first steps are not spent on that.
        nn.init.constant_(cast(Tensor, self.conv_cls.out.bias), -4.0)

    def forward(self, tokens: Tokens, aux: dict[str, Any], prompts_B3C: Tensor, flag_B: Tensor) -> Prediction:
        """Maps of the search region; by words alone the size comes from its own tower (published)."""
        contrast_BN2 = self.prompter.score(tokens.search_BNC, prompts_B3C)
        x_BNC = tokens.search_BNC + aux["detail"] if "detail" in aux else tokens.search_BNC
        b, _, c = x_BNC.shape
        map_BCSS = x_BNC.transpose(1, 2).reshape(b, c, self.side, self.side)
        centre = self.conv_cls(map_BCSS)[:, 0].float()
        by_words_B = flag_B == Flag.NL
        size = self._size(map_BCSS, by_words_B)
        sure_B = None if self.neither_by_words else by_words_B
        logits = {}
        if self.training:
            logits = {"centre": centre, "prompt": contrast_BN2, **aux}
        return Prediction(
            centre_BSS=centre.sigmoid(),
            presence_BSS=presence(contrast_BN2, sure_B).view(b, self.side, self.side),
            boxes_BSS4=decode_boxes(self.conv_offset(map_BCSS), size, self.code),
            tokens=tokens,
            logits=logits,
        )

    def _size(self, map_BCSS: Tensor, by_words_B: Tensor) -> Tensor:
        """At inference only the towers that a flag asks for are computed."""
        if self.training or (by_words_B.any() and not by_words_B.all()):
            choice = by_words_B[:, None, None, None]
            return torch.where(choice, self.conv_bbox_grounding(map_BCSS), self.conv_bbox(map_BCSS))
        tower = self.conv_bbox_grounding if bool(by_words_B.all()) else self.conv_bbox
        size: Tensor = tower(map_BCSS)
        return size


def by_flag(flag_B: Tensor, vision: Tensor, words: Tensor) -> Tensor:
    """Per sample: vision for BBOX, words for NL, their mean for NLBBOX.

    ``where``, not a product, so that nothing of a masked modality can pass.
    """
    flag = flag_B.view((-1,) + (1,) * (vision.ndim - 1))
    both = torch.where(flag == Flag.NL, words, (vision + words) / 2)
    return torch.where(flag == Flag.BBOX, vision, both)


# MERGED models/litetrack.py
# The star adapter: a product of two linear maps, added with a weight that starts at zero (LiteTrack).


class StarAdapter(nn.Module):
    """x + alpha * g(ReLU6(f1 x) * f2 x).

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


@dataclass(frozen=True, kw_only=True)
class LiteTrackConfig(FrontConfig):
    """All sizes and switches. The defaults are ``base``."""

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
    gate: bool = True
    star: bool = True
    star_width: int = 85
    # ours, off in base: a start by words, too, may answer that no cell is the target
    neither_by_words: bool = False
    # published but without effect; only so that UVLTrack's own checkpoints load strictly
    prompter_spare: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("split_layers", "joint_layers", "select_bucket", "star_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.contrast_from < self.split_layers + self.joint_layers:
            raise ValueError(f"contrast_from must name one of the layers, got {self.contrast_from}")
        if not -1.0 < self.select_threshold < 1.0:
            raise ValueError(f"select_threshold is a cosine, got {self.select_threshold}")


@dataclass(frozen=True, kw_only=True)
class LayeredText(Text):
    """In training also the sentence's [CLS] (B, I, C) after each split layer from ``contrast_from`` on."""

    layers_BIC: Tensor


@dataclass(frozen=True, kw_only=True)
class PromptMemory(TemplateMemory):
    """Templates and the contrastive prompts (B, 3, C)."""

    prompts_B3C: Tensor


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


class LiteTrack(TemplateTracker[PromptMemory]):
    """See the module's docstring. Implements ``models.base.TrackerModel``."""

    training_only = ("log_contrast", "head.prompter.q.", "head.prompter.kv.", "head.prompter.proj.")

    def __init__(self, config: LiteTrackConfig) -> None:
        super().__init__(config)
        self.config = config
        width, depth = config.width, config.split_layers + config.joint_layers
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp_ratio, gate=config.gate) for _ in range(depth)
        )
        self.modal_embed = nn.Parameter(torch.randn(2, width) * 0.02)
        self.bert = sentence_reader(config, config.split_layers)
        if config.star:
            split = range(config.split_layers)
            self.star_vision = nn.ModuleList(StarAdapter(width, config.star_width) for _ in split)
            self.star_text = nn.ModuleList(StarAdapter(width, config.star_width) for _ in split)
        self.selector: TokenSelector | None = None
        if config.select:
            threshold, bucket = config.select_threshold, config.select_bucket
            self.selector = TokenSelector(width, threshold=threshold, bucket=bucket)
        self.log_contrast = temperature_parameter()
        self.head = ModalityHead(
            width,
            side=self.search_side,
            channels=config.head_channels,
            code=config.box_code,
            mlp_ratio=config.mlp_ratio,
            spare=config.prompter_spare,
            neither_by_words=config.neither_by_words,
        )

    # -- once a sentence, once a template ---------------------------------------------------------

    def read_text(self, ids_BL: Tensor, valid_BL: Tensor) -> Text:
        """Word-piece ids (B, L) int64 with [CLS] first, and which are not padding -> ``Text``."""
        bias = key_bias(valid_BL)
        x_BLC, firsts = self.bert.embeddings(ids_BL), []
        for i, layer in enumerate(self.bert.layers):
            if self.config.star:
                x_BLC = self.star_text[i](x_BLC)
            x_BLC = layer(x_BLC, bias)
            if i >= self.config.contrast_from:
                firsts.append(x_BLC[:, 0])
        if self.training and firsts:
            return LayeredText(tokens_BLC=x_BLC, valid_BL=valid_BL, layers_BIC=torch.stack(firsts, dim=1))
        return Text(tokens_BLC=x_BLC, valid_BL=valid_BL)

    def embed_template(self, image_B3SS: Tensor, box_B4: Tensor) -> Template:
        """One template crop (B, 3, Sz, Sz) with its box.

        Without explicit matching a cell is the target's or it is not, by its centre (released code); with it
        ``inside_BM`` stays the share of its area (ours).
        """
        template = super().embed_template(image_B3SS, box_B4)
        if self.matcher is not None:
            return template
        inside_BM = cell_inside(box_B4, self.template_side).to(template.inside_BM.dtype)
        return replace(template, inside_BM=inside_BM)

    # -- the trunk --------------------------------------------------------------------------------

    def observe(
        self, search_B3SS: Tensor, template: Template, text: Text, flag_B: Tensor, *, select: bool = True
    ) -> tuple[Tokens, dict[str, Any]]:
        """Template, search region and sentence through the trunk; the second part is what losses need.

        ``select=False`` keeps all tokens in this pass; the threshold still learns its budget.
        """
        search = self.embed_search(search_B3SS, template, text, flag_B == Flag.NL)
        x_BNC = search.tokens_BNC
        selection = None
        if self.selector is not None and (select or self.training):
            selection = self.selector(x_BNC)
        tokens, aux = self._trunk(x_BNC, template, text, flag_B, selection if select else None)
        aux["selection"], aux["heard"] = selection, search.heard_BN
        if search.detail_BNC is not None:
            aux["detail"] = search.detail_BNC
        return tokens, aux

    def _trunk(
        self, x_BNC: Tensor, template: Template, text: Text, flag_B: Tensor, selection: Selection | None
    ) -> tuple[Tokens, dict[str, Any]]:
        config, before_BNC = self.config, x_BNC
        dropping = selection is not None and not self.training
        seen_BN = torch.ones(x_BNC.shape[:2], dtype=torch.bool, device=x_BNC.device)
        if selection is not None and dropping:
            x_BNC, seen_BN = take(x_BNC, selection.order_BK), ~selection.filler_BK
        elif selection is not None:
            x_BNC, seen_BN = soften(x_BNC, selection), selection.keep_BN
        b, m = template.tokens_BMC.shape[:2]
        by_box_B1 = (flag_B != Flag.NL)[:, None]
        vision_valid = torch.cat([by_box_B1.expand(b, 1 + m), seen_BN], dim=1)
        _, text_valid = audible(flag_B, text.valid_BL)
        vision_bias = key_bias(vision_valid)
        if selection is not None and self.training:
            # The gradient reaches the threshold through kept keys.
            pull_BT = nn.functional.pad(straight_through(selection), (1 + m, 0))
            vision_bias = vision_bias + pull_BT[:, None, None]
        text_bias = key_bias(text_valid)
        joint_valid = torch.cat([vision_valid, text_valid], dim=1)
        vision = torch.cat([self.cls_token.expand(b, -1, -1), template.tokens_BMC, x_BNC], dim=1)
        words = text.tokens_BLC
        contrasts: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            if i < config.split_layers:
                if config.star:
                    vision = self.star_vision[i](vision)
                vision = block(vision, vision_bias, vision_valid)
            else:
                joint = torch.cat([vision + self.modal_embed[0], words + self.modal_embed[1]], dim=1)
                joint = block(joint, torch.cat([vision_bias, text_bias], dim=-1), joint_valid)
                vision, words = joint.split([vision.shape[1], words.shape[1]], dim=1)
            if self.training and i >= config.contrast_from:
                first_B1C = words[:, :1]
                if i < config.split_layers and isinstance(text, LayeredText):
                    first_B1C = text.layers_BIC[:, i - config.contrast_from, None]
                contrasts.append(self._contrast(vision, first_B1C, m, flag_B))
        vision_BC, template_BMC, x_BNC = vision[:, 0], vision[:, 1 : 1 + m], vision[:, 1 + m :]
        if selection is not None:
            if dropping:
                x_BNC = put_back(x_BNC, selection.order_BK, before_BNC.shape[1])
            x_BNC = restore(x_BNC, before_BNC, selection)
        words_BC = words[:, 0] if words.shape[1] else torch.zeros_like(vision_BC)
        tokens = Tokens(vision_BC=vision_BC, template_BMC=template_BMC, search_BNC=x_BNC, words_BC=words_BC)
        return tokens, {"contrasts": contrasts}

    def _contrast(self, vision: Tensor, first_B1C: Tensor, m: int, flag_B: Tensor) -> Tensor:
        """Layer contrast (B, N): cosine of search tokens to the class token, the sentence's, or both."""
        by_vision = cosine(vision[:, 1 + m :], vision[:, :1])[..., 0]
        by_words = cosine(vision[:, 1 + m :], first_B1C)[..., 0] if first_B1C.shape[1] else by_vision
        return by_flag(flag_B, by_vision, by_words) * self.log_contrast.exp()

    # -- prompts, boxes, the protocol ----------------------------------------------------------------

    def prompt(self, tokens: Tokens, template: Template, box_B4: Tensor, flag_B: Tensor) -> Tensor:
        """Contrastive prompts (B, 3, C) from a frame whose box is known; in NL from the sentence alone."""
        reference_BC = by_flag(flag_B, tokens.vision_BC, tokens.words_BC)
        keys_BMC = torch.cat([tokens.template_BMC, tokens.search_BNC], dim=1)
        inside = torch.cat([template.inside_BM > 0.5, cell_inside(box_B4, self.search_side)], dim=1)
        return self.head.prompter.build(reference_BC, keys_BMC, inside, flag_B == Flag.NL)

    def decode(self, tokens: Tokens, aux: dict[str, Any], prompts_B3C: Tensor, flag_B: Tensor) -> Prediction:
        """Tokens and prompts -> maps and boxes."""
        seen: Prediction = self.head(tokens, aux, prompts_B3C, flag_B)
        return seen

    def remember(
        self,
        template_B3SS: Tensor,
        template_box_B4: Tensor,
        context_B3SS: Tensor,
        context_box_B4: Tensor,
        text: Text | None = None,
    ) -> PromptMemory:
        """Start of a target, or of several: BBOX where ``text`` is None, else NLBBOX."""
        start = super().remember(template_B3SS, template_box_B4, context_B3SS, context_box_B4, text)
        both = self.pair(start.first, start.recent)
        tokens, _ = self.observe(context_B3SS, both, start.text, start.flag_B)
        prompts = self.prompt(tokens, both, context_box_B4, start.flag_B)
        return PromptMemory(**vars(start), prompts_B3C=prompts)

    def refresh(
        self,
        memory: PromptMemory,
        seen: Prediction,
        box_B4: Tensor,
        template_B3SS: Tensor | None = None,
        template_box_B4: Tensor | None = None,
    ) -> PromptMemory:
        """New prompts from a confident frame (published) and, where given, a new recent template (ours).

        Raises:
            ValueError: ``seen`` is no prediction of this model.
        """
        if seen.tokens is None:
            raise ValueError("the prediction holds no tokens to build prompts from")
        both = self.pair(memory.first, memory.recent)
        prompts = self.prompt(seen.tokens, both, box_B4, memory.flag_B)
        memory = super().refresh(memory, seen, box_B4, template_B3SS, template_box_B4)
        return replace(memory, prompts_B3C=prompts)

    def locate(self, search_B3SS: Tensor, memory: PromptMemory, past_BH4: Tensor | None = None) -> Prediction:
        """Search crops (B, 3, Sx, Sx), one a target of the memory."""
        both = self.pair(memory.first, memory.recent)
        tokens, aux = self.observe(search_B3SS, both, memory.text, memory.flag_B)
        return self.decode(tokens, aux, memory.prompts_B3C, memory.flag_B)

    def ground(self, scene_B3SS: Tensor, text: Text) -> Prediction:
        """Find the target by words in letterboxed frames (B, 3, Sx, Sx); the template is masked."""
        nothing, b = self.no_template(scene_B3SS), len(scene_B3SS)
        flag_B = torch.full((b,), int(Flag.NL), device=scene_B3SS.device)
        tokens, aux = self.observe(scene_B3SS, nothing, text, flag_B)
        prompts = self.prompt(tokens, nothing, scene_B3SS.new_zeros(b, 4), flag_B)
        return self.decode(tokens, aux, prompts, flag_B)

    def rehearse(self, views: Views, *, select: bool = True) -> dict[str, Any]:
        """The training pass (see the protocol).

        The views of a target are each other's context: prompts for one are built from the other (UVLTrack),
        and its recent template is cut from the other (ours).
        """
        each_B, count = views.each(), views.present_BV.shape[1]
        flag_B, present_B = views.flag_B[each_B], views.present_BV.flatten()
        box_B4 = views.box_BV4.flatten(0, 1)
        text = self.read_text(views.ids_BL, views.readable_BL).pick(each_B)
        _, template = self.templates_of(views)
        tokens, aux = self.observe(views.search_BV3SS.flatten(0, 1), template, text, flag_B, select=select)
        known_B4 = torch.where(present_B[:, None], box_B4, torch.zeros_like(box_B4))
        prompts = self.prompt(tokens, template, known_B4, flag_B)
        other_B = torch.arange(len(flag_B), device=flag_B.device).view(-1, count).flip(1).flatten()
        seen = self.decode(tokens, aux, prompts[other_B], flag_B)
        return {"boxes": seen.boxes_BSS4, **seen.logits}

    def freeze_plan(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Modules frozen at the start, and the order in which plateaus of the loss free them (paper idea 1).

        Base: patch embedding, word embeddings, BERT layer 0 and the lowest ViT blocks; blocks return top down
        (the released plan names candidates but is never executed; order and pace are our design). Tiny: the
        stem's first six convolution blocks and the word table; the stem's upper frozen part returns first.
        """
        if not self.config.freeze:
            return [], []
        if isinstance(self.stem, MobileStem):
            frozen, order = self.stem_freeze_plan()
            return [*frozen, self.bert.embeddings.word_embeddings], order
        lowest = list(self.blocks[: self.config.frozen_blocks])
        return [self.stem, self.bert.embeddings, self.bert.layers[0], *lowest], lowest[:0:-1]
