"""AITrack: ARTrack's box-writing decoder over a ViT, aligned with what CLIP sees in the target's region.

Sources: AITrack (Alawode and Javed, IEEE Access 2025, and its released code) on top of ARTrack-Seq (CVPR
2023). The ideas are switches of the configuration: ``roi`` (the ROI-based text-guided encoder), ``history``
(past boxes as prompt), ``text`` (sentences in the same space; ours). The released code has defects that ours
has not: docs/trackers/aitrack.md. ``base`` has the published sizes, ``artrack_base`` is ARTrack-Seq-256
itself, ``tiny`` is our own.

Shapes: B batch, L word pieces, C width, P = Sz*Sz template cells, K templates, M = K*P, N = Sx*Sx search
cells, H past boxes, V vocabulary. Boxes are cx, cy, w, h in units of the crop's side.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vltrack.core.errors import ConfigError
from vltrack.models.artrack_decoder import FusionEncoder, KeysValues, SequenceDecoder, Vocabulary
from vltrack.models.base import (
    TINY,
    Batched,
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
from vltrack.nn.boxes import cell_share
from vltrack.nn.clip import HEAD_WIDTH, ClipText, ClipVision, clip_picture

# MERGED models/aitrack.py
# What names a target beside its picture: vectors of regions and sentences in one space, added to tokens.
#
# Knows vectors and boxes, no tracker. Source: AITrack's released code (a region's vector from Alpha-
# CLIP, added
# to all tokens of that region); sentences, the mean of both and the learned scale are ours.
#
# Shapes: B batch, N = S * S cells, C width. Boxes are cx, cy, w, h in units of the crop's side.


@dataclass(frozen=True, kw_only=True)
class Name(Batched):
    """What is said of a region: a vector (B, C) of unit length, and whether anything is said at all (B,)."""

    vector_BC: Tensor
    known_B: Tensor

    @classmethod
    def of(cls, vector_BC: Tensor, known_B: Tensor) -> Name:
        """From a vector of any length."""
        return cls(vector_BC=nn.functional.normalize(vector_BC.float(), dim=-1), known_B=known_B)

    def unless(self, hidden_B: Tensor) -> Name:
        """Nothing is said of the samples that are hidden."""
        return Name(vector_BC=self.vector_BC, known_B=self.known_B & ~hidden_B)

    def beside(self, other: Name) -> Name:
        """normalise(mean of those that are there); ``where``, so that nothing of an absent one can pass."""
        parts = (torch.where(n.known_B[:, None], n.vector_BC, 0.0) for n in (self, other))
        known_B = self.known_B | other.known_B
        mean_BC = torch.where(known_B[:, None], sum(parts, start=torch.zeros_like(self.vector_BC)), 1.0)
        return Name.of(mean_BC, known_B)


class Alignment(nn.Module):
    """Additive image-text alignment: F + s * Linear(LN(e)) on every token of a region.

    Released code adds e as it is: a unit vector of 768 numbers of about 0.04 beside tokens of about 1, with
    nearly no effect. Ours is learned: the linear map starts at zero, so that an ARTrack checkpoint starts as
    what it is, and the scale at one, so that the map has a gradient at once.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.linear = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(()))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens_BNC: Tensor, name: Name) -> Tensor:
        """(B, N, C) -> (B, N, C); samples that nothing names stay as they are."""
        told_BC = self.scale * self.linear(self.norm(name.vector_BC))
        return tokens_BNC + torch.where(name.known_B[:, None], told_BC, 0.0)[:, None]


@torch.no_grad()
def clip_region(
    tower: ClipVision,
    image_B3SS: Tensor,
    box_B4: Tensor,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Tensor:
    """(B, C) what Alpha-CLIP sees in the box of a picture that was normalised by ``mean`` and ``std``.

    The mask is the box's rectangle, as in the published training. The class token is read, as CLIP was
    trained (released code: the last patch's), and no gradient reaches the tower (published).
    """
    picture = clip_picture(image_B3SS, mean, std, tower.size)
    mask_B1SS = cell_share(box_B4, tower.size).view(-1, 1, tower.size, tower.size)
    seen_BC: Tensor = tower(picture, mask_B1SS.to(picture.dtype))
    return seen_BC


def pooled_region(tokens_BNC: Tensor, box_B4: Tensor) -> Tensor:
    """(B, C) mean of the tokens in the box, each by its share in it; 0 for a box outside the crop (ours)."""
    share_BN = cell_share(box_B4, int(tokens_BNC.shape[1] ** 0.5)).to(tokens_BNC.dtype)
    total_B1 = share_BN.sum(dim=1, keepdim=True).clamp_min(1e-3)
    return (share_BN[:, None] @ tokens_BNC)[:, 0] / total_B1


# MERGED models/aitrack.py
# Past boxes in units of the search crop: those of a start, and those that training on pairs makes up.
#
# A search crop is cut around the last box, so at test the last box is always its middle, of the same area.
# Knows boxes, no picture. Unpublished; our design (the published first stage has no past at all).
#
# Shapes: B batch, H past boxes, oldest first. Boxes are cx, cy, w, h in units of the search crop.


_ASPECT, _STEP, _SHAKE, _GROWTH, _STILL = 0.15, 0.02, 0.008, 0.015, 0.25


def unmoved(size_B2: Tensor, count: int) -> Tensor:
    """(B, H, 4): ``count`` times the box of this size in the middle, as at the first frame (published)."""
    box_B4 = torch.cat([torch.full_like(size_B2, 0.5), size_B2], dim=1)
    return box_B4[:, None].expand(-1, count, -1)


def anywhere(batch: int, count: int, like: Tensor) -> Tensor:
    """(B, H, 4): the whole picture, for a start by words, which has no past."""
    return like.new_tensor([0.5, 0.5, 1.0, 1.0]).expand(batch, count, 4)


def rehearsed(box_B4: Tensor, factor: float, count: int) -> Tensor:
    """A made-up past (B, H, 4) of targets whose boxes in the present crop are ``box_B4``.

    The last box is what the crop would have been cut around: its middle, area 1 / factor^2, the true aspect
    within some 15 %. The older ones lie on a nearly straight way there, drawn without a look at the true box;
    a quarter of all targets has not moved at all, as at a start. So the past tells the shape, roughly, and
    not the place: where a target goes on to is learned on clips. Noise is drawn from the boxes' own bytes, so
    that a training step stays a function of its data.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(box_B4.detach().cpu().numpy().tobytes()))
    b = len(box_B4)

    def noise(*shape: int) -> Tensor:
        return torch.randn(b, *shape, generator=generator).to(box_B4)

    lean_B = (box_B4[:, 2] / box_B4[:, 3].clamp_min(1e-3)).clamp(1 / 16, 16).log() / 2 + _ASPECT * noise()
    size_B2 = torch.stack([lean_B, -lean_B], dim=1).exp() / factor
    age_H1 = torch.arange(count - 1, -1, -1).to(box_B4)[:, None]
    walk_BH4 = age_H1 * (noise(1, 4) * _STEP) + age_H1.sqrt() * noise(count, 4) * _SHAKE
    walk_BH4 = walk_BH4 * walk_BH4.new_tensor([1.0, 1.0, _GROWTH / _STEP, _GROWTH / _STEP])
    moves_B = torch.rand(b, generator=generator) >= _STILL
    walk_BH4 = walk_BH4 * moves_B.to(box_B4)[:, None, None]
    last_BH4 = unmoved(size_B2, count)
    return torch.cat([last_BH4[..., :2] + walk_BH4[..., :2], last_BH4[..., 2:] * walk_BH4[..., 2:].exp()], -1)


@dataclass(frozen=True, kw_only=True)
class AITrackConfig(FrontConfig):
    """All sizes and switches. The defaults are ``base``.

    Attributes:
        layers, fusion_layers, decoder_layers: of the trunk, the z/x fusion encoder and the decoder.
        bins, reach: words a crop's side, and how many sides they span.
        learned_positions: positions are parameters that start as sines (ARTrack), or fixed sines.
        history: past boxes before the start word.
        past_offset: pixels of the crop that past boxes are moved up and left before they become words: half a
            one in the released test code.
        roi: the region's vector: Alpha-CLIP's picture tower (frozen), the stem's tokens pooled (ours), none.
        roi_size, roi_patch, roi_width, roi_layers: of that tower.
        text: the sentence's vector: CLIP's text tower (frozen), BERT, or none. Ours: none is published.
        text_layers: of either; CLIP's is ``table_width`` wide.
        expected: the answer is the box that the words lead to expect, not that of the likeliest words (ours).
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
        for name in ("layers", "fusion_layers", "decoder_layers", "text_layers", "roi_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.history < 0:
            raise ValueError(f"history must not be negative, got {self.history}")
        if self.word_match and self.text != "bert":
            raise ValueError("word_match compares cells with single words; only bert gives them")
        for name, wanted in (("roi_width", self.roi), ("table_width", self.text)):
            if wanted == "clip" and (getattr(self, name) < 1 or getattr(self, name) % HEAD_WIDTH):
                raise ValueError(f"CLIP's heads are {HEAD_WIDTH} wide; {name} is {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class RegionMemory(TemplateMemory):
    """Templates without positions, and what names the target: vectors of unit length in one space.

    Published memory is the past boxes alone; a recent template is ours.

    Attributes:
        region, said: the first template's region, and the sentence.
        size_B2: width and height of the target at the start, in units of a search crop around it.
    """

    region: Name
    said: Name
    size_B2: Tensor


def base() -> AITrackConfig:
    """The published sizes: ViT-B/16 at 128/256 px, Alpha-CLIP L/14; with CLIP's text tower (ours)."""
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


class AITrack(TemplateTracker[RegionMemory]):
    """See the module's docstring. Implements ``models.base.TrackerModel``."""

    def __init__(self, config: AITrackConfig) -> None:
        super().__init__(config)
        self.config, self.history = config, config.history
        self.vocabulary = "clip" if config.text == "clip" else "bert"
        shape = width, heads, mlp_ratio = config.width, config.heads, config.mlp_ratio
        sides = {"template_side": self.template_side, "search_side": self.search_side}
        words = Vocabulary(bins=config.bins, reach=config.reach)
        # Regions are pooled from tokens without positions: the front lays none, the trunk does.
        self.lay_positions_later(learned=config.learned_positions)
        self.identity = nn.Parameter(torch.randn(1, 2, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.encoder = FusionEncoder(*shape, config.fusion_layers, **sides, templates=self.templates)
        self.decoder = SequenceDecoder(*shape, config.decoder_layers, vocabulary=words, history=self.history)
        self.align = None if config.roi == config.text == "none" else Alignment(width)
        self._build_names(config)

    def _build_names(self, config: AITrackConfig) -> None:
        """What gives regions and sentences their vectors; CLIP's towers are frozen, as published."""
        width = config.width
        self.roi: ClipVision | None = None
        self.roi_pool = nn.Linear(width, width) if config.roi == "pool" else None
        if config.roi == "clip":
            sizes = {"size": config.roi_size, "patch": config.roi_patch, "layers": config.roi_layers}
            tower = ClipVision(**sizes, width=config.roi_width, out=width, alpha=True)
            self.roi = tower.requires_grad_(False)
        self.clip_text: ClipText | None = None
        self.bert: Bert | None = None
        self.words = nn.Linear(width, width) if config.text == "bert" else None
        if config.text == "clip":
            sizes = {"length": config.max_words, "width": config.table_width, "layers": config.text_layers}
            self.clip_text = ClipText(**sizes, out=width).requires_grad_(False)
        elif config.text == "bert":
            self.bert = sentence_reader(config, config.text_layers)

    # -- names: sentences and regions in one space --------------------------------------------------------

    def read_text(self, ids_BL: Tensor, valid_BL: Tensor) -> Text:
        """Word pieces (B, L) int64 of ``vocabulary``, and which are not padding -> ``Text``.

        CLIP's tower gives one vector for the whole sentence: a text of one word. A model without a text side
        reads nothing: its features are zero.
        """
        if self.clip_text is not None:
            with torch.no_grad():
                pooled_BC = self.clip_text(ids_BL, valid_BL)
            return Text(tokens_BLC=pooled_BC[:, None], valid_BL=valid_BL.any(dim=1, keepdim=True))
        if self.bert is not None:
            return Text(tokens_BLC=self.bert(ids_BL, key_bias(valid_BL)), valid_BL=valid_BL)
        nothing_BLC = torch.zeros(*ids_BL.shape, self.width, device=ids_BL.device)
        return Text(tokens_BLC=nothing_BLC, valid_BL=valid_BL)

    def sentence(self, text: Text, flag_B: Tensor) -> Name:
        """The sentence as a name: the mean of its words, of unit length (ours); none where there is none."""
        hears_B, heard_BL = audible(flag_B, text.valid_BL)
        if self.config.text == "none":
            hears_B, heard_BL = torch.zeros_like(hears_B), torch.zeros_like(heard_BL)
        mean_BC = sentence_mean(replace(text, valid_BL=heard_BL))
        if self.words is not None:
            mean_BC = self.words(mean_BC)
        return Name.of(mean_BC, hears_B)

    def region(self, image_B3SS: Tensor, tokens_BNC: Tensor, box_B4: Tensor) -> Name:
        """What lies in the box (paper: ROI-based text-guided encoder); nothing where that is switched off.

        ``tokens_BNC`` are the stem's, without positions.
        """
        if self.roi is not None:
            vector_BC = clip_region(self.roi, image_B3SS, box_B4, self.pixel_mean, self.pixel_std)
        elif self.roi_pool is not None:
            vector_BC = self.roi_pool(pooled_region(tokens_BNC, box_B4))
        else:
            vector_BC = tokens_BNC.new_zeros(len(box_B4), self.width)
        known = self.config.roi != "none"
        return Name.of(vector_BC, torch.full((len(box_B4),), known, device=box_B4.device))

    # -- the trunk, the alignment, the fusion -------------------------------------------------------------

    def see(
        self, search: Search, template: Template, named_z: Name, named_x: Name, by_words_B: Tensor | None
    ) -> list[KeysValues]:
        """Tokens of both regions, aligned with their names and fused -> what the decoder asks.

        ``by_words_B`` marks starts by words, None where there is none: there the template is masked in the
        trunk, and after it the template's tokens hold the sentence alone (ours).
        """
        pos_z = self.pos_embed_z.repeat(1, self.templates, 1)
        z_BMC = template.tokens_BMC + pos_z + self.identity[:, :1]
        x_BNC = search.tokens_BNC + self.pos_embed_x + self.identity[:, 1:]
        (b, m), n = z_BMC.shape[:2], x_BNC.shape[1]
        bias = None
        if by_words_B is not None:
            bias = key_bias(nn.functional.pad(~by_words_B[:, None].expand(b, m), (0, n), value=True))
        tokens = torch.cat([z_BMC, x_BNC], dim=1)
        for block in self.blocks:
            tokens = block(tokens, bias)
        z_BMC, x_BNC = self.norm(tokens).split([m, n], dim=1)
        if by_words_B is not None:
            z_BMC = torch.where(by_words_B[:, None, None], 0.0, z_BMC)
        if search.detail_BNC is not None:
            x_BNC = x_BNC + search.detail_BNC
        if self.align is not None:
            z_BMC, x_BNC = self.align(z_BMC, named_z), self.align(x_BNC, named_x)
        both = torch.cat(self.encoder(z_BMC, x_BNC), dim=1)
        places = torch.cat([pos_z + self.identity[:, :1], self.pos_embed_x + self.identity[:, 1:]], dim=1)
        return self.decoder.picture(both, places)

    # -- the protocol -------------------------------------------------------------------------------------

    def remember(
        self,
        template_B3SS: Tensor,
        template_box_B4: Tensor,
        context_B3SS: Tensor,
        context_box_B4: Tensor,
        text: Text | None = None,
    ) -> RegionMemory:
        """Start of a target, or of several: BBOX where ``text`` is None, else NLBBOX.

        Of the context only the box is needed: the size in which a still target will appear.
        """
        start = super().remember(template_B3SS, template_box_B4, context_B3SS, context_box_B4, text)
        return RegionMemory(
            **vars(start),
            region=self.region(template_B3SS, start.first.tokens_BMC, template_box_B4),
            said=self.sentence(start.text, start.flag_B),
            size_B2=context_box_B4[:, 2:],
        )

    def locate(self, search_B3SS: Tensor, memory: RegionMemory, past_BH4: Tensor | None = None) -> Prediction:
        """Search crops (B, 3, Sx, Sx), one a target of the memory; without a past it has not moved."""
        return self._write(*self._prompted(search_B3SS, memory, past_BH4))

    def follow(self, search_B3SS: Tensor, memory: RegionMemory, past_BH4: Tensor) -> Tensor:
        """The expected box (B, 4) of the words that ``locate`` writes, with a gradient: for stage two."""
        return self.decoder.expect(*self._prompted(search_B3SS, memory, past_BH4))

    def ground(self, scene_B3SS: Tensor, text: Text) -> Prediction:
        """Find the target by words in letterboxed frames (B, 3, Sx, Sx) (ours).

        The template is masked, the past is the whole picture, and the sentence alone names both regions.

        Raises:
            ConfigError: this model has no text side.
        """
        if self.config.text == "none":
            raise ConfigError(
                "this AITrack has no text side: words alone cannot start it.",
                hint="Give a box, or use the size tiny or base.",
            )
        nothing, b = self.no_template(scene_B3SS), len(scene_B3SS)
        flag_B = torch.full((b,), int(Flag.NL), device=scene_B3SS.device)
        by_words_B, said = torch.ones_like(flag_B, dtype=torch.bool), self.sentence(text, flag_B)
        search = self.embed_search(scene_B3SS, nothing, text, by_words_B)
        picture = self.see(search, nothing, said, said, by_words_B)
        return self._write(self._prompt(anywhere(b, self.history, scene_B3SS)), picture)

    def rehearse(self, views: Views, *, select: bool = True) -> dict[str, Any]:
        """The first stage's training pass (see the protocol): pairs, all words at once from the true ones.

        The past is made up (``models.aitrack.rehearsed``); where words alone name the target it is the whole
        picture, as at test. ``select`` has no meaning here. ``sequence`` (B * V, 5, V) are the logits of the
        four coordinates and of the end word (``vocabulary`` tells their meaning), ``expected`` the box of the
        former's expectations.
        """
        each_B = views.each()
        flag_B, box_B4 = views.flag_B[each_B], views.box_BV4.flatten(0, 1)
        by_words_B, b = flag_B == Flag.NL, len(flag_B)
        text = self.read_text(views.ids_BL, views.readable_BL).pick(each_B)
        said = self.sentence(text, flag_B)
        first, template = self.templates_of(views)
        region_z = self.region(views.template_B3SS, first.tokens_BMC, views.template_box_B4).pick(each_B)
        past_BH4 = rehearsed(box_B4, self.search_factor, max(1, self.history))
        past_BH4 = torch.where(by_words_B[:, None, None], anywhere(b, past_BH4.shape[1], box_B4), past_BH4)
        image = views.search_BV3SS.flatten(0, 1)
        search = self.embed_search(image, template, text, by_words_B)
        region_x = self.region(image, search.plain_BNC, past_BH4[:, -1])
        named_z, named_x = (region.unless(by_words_B).beside(said) for region in (region_z, region_x))
        picture = self.see(search, template, named_z, named_x, by_words_B if by_words_B.any() else None)
        logits_BTV = self.decoder.retell(self._prompt(past_BH4), box_B4, picture)
        expected_B4 = self.decoder.vocabulary.expected(logits_BTV)
        shown_B4 = torch.cat([expected_B4[:, :2], expected_B4[:, 2:].clamp_min(1e-3)], dim=1)
        return {
            "sequence": logits_BTV,
            "expected": expected_B4,
            "vocabulary": self.decoder.vocabulary,
            "boxes": shown_B4[:, None, None],
            "heard": search.heard_BN,
        }

    def freeze_plan(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """CLIP's towers for good (published); at ``tiny`` the stem's start and the word table too."""
        frozen, order = self.stem_freeze_plan()
        towers: list[nn.Module] = [tower for tower in (self.roi, self.clip_text) if tower is not None]
        table = [self.bert.embeddings.word_embeddings] if self.bert is not None and frozen else []
        return [*towers, *frozen, *table], order

    def _prompted(
        self, search_B3SS: Tensor, memory: RegionMemory, past_BH4: Tensor | None
    ) -> tuple[Tensor, list[KeysValues]]:
        """A search crop and a past -> the decoder's prompt and picture."""
        past_BH4 = unmoved(memory.size_B2, max(1, self.history)) if past_BH4 is None else past_BH4
        both, never_B = self.pair(memory.first, memory.recent), torch.zeros_like(memory.said.known_B)
        search = self.embed_search(search_B3SS, both, memory.text, never_B)
        region_x = self.region(search_B3SS, search.plain_BNC, past_BH4[:, -1])
        named_z, named_x = memory.region.beside(memory.said), region_x.beside(memory.said)
        picture = self.see(search, both, named_z, named_x, None)
        return self._prompt(past_BH4), picture

    def _prompt(self, past_BH4: Tensor) -> Tensor:
        """The words before the box."""
        offset = self.config.past_offset / self.search_size
        return self.decoder.prompt(past_BH4[:, : self.history] - past_BH4.new_tensor([offset, offset, 0, 0]))

    def _write(self, prompt_BT: Tensor, picture: list[KeysValues]) -> Prediction:
        """Four words, greedily -> one box. The score is how sure the words are (ours: there is no head)."""
        box_B4, score_B = self.decoder.answer(prompt_BT, picture, expected=self.config.expected)
        score_B11 = score_B[:, None, None]
        sure = torch.ones_like(score_B11)
        return Prediction(centre_BSS=score_B11, presence_BSS=sure, boxes_BSS4=box_B4[:, None, None])
