"""Dataclasses of tensors whose first axis is the target. Knows no meaning of the tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, Generic, Literal, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from vltrack.nn.backbones import STEMS, MobileStem, Patches, sincos_positions
from vltrack.nn.bert import Bert
from vltrack.nn.boxes import cell_share
from vltrack.nn.correlation import TemplateMatch, WordMatch
from vltrack.nn.heads import CentreMaps


class Batched:
    """Joined and taken apart for several targets.

    Entries that are no tensors (a prediction's ``logits``) are passed on from the first part as they are.
    """

    def pick(self, indices: Sequence[int] | Tensor) -> Self:
        """The targets ``indices`` of the batch."""
        index = torch.as_tensor(indices, dtype=torch.long)
        picked: Self = _map([self], lambda tensors: tensors[0][index.to(tensors[0].device)])
        return picked

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """One batch from several."""
        joined: Self = _map(list(parts), lambda tensors: torch.cat(tensors, dim=0))
        return joined


def _map(parts: list[Any], function: Any) -> Any:
    changed: dict[str, Any] = {}
    for entry in dataclasses.fields(parts[0]):
        values = [getattr(part, entry.name) for part in parts]
        if isinstance(values[0], Tensor):
            changed[entry.name] = function(values)
        elif isinstance(values[0], Batched):
            changed[entry.name] = _map(values, function)
        else:
            changed[entry.name] = values[0]
    return dataclasses.replace(parts[0], **changed)


# MERGED models/base.py
# What every tracker starts with: a stem, positions, and for the tiny sizes explicit matching beside it.
#
# Knows pictures as tensors and a sentence as tokens; knows no trunk, no head, no tracker.
#
# Shapes: B batch, L word pieces, C width, P template cells, K templates, M = K * P, N search cells, F
# features.
# Boxes are cx, cy, w, h in units of the crop's side.


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STRIDE = 16


@dataclass(frozen=True, kw_only=True)
class FrontConfig:
    """The sizes that all trackers share; a tracker's configuration adds its own to them.

    Attributes:
        stem: what makes stride-16 tokens of a picture.
        template_size, search_size: sides of the crops in pixels, multiples of 16.
        template_factor, search_factor: side of a crop over sqrt(w * h) of the target.
        pixel_mean, pixel_std: of RGB in [0, 1].
        width, heads, mlp_ratio: of the trunk.
        text_hidden, table_width, max_words: of the text side; a narrower table is projected up to the width.
        match: explicit matching of search and template features (ours).
        word_match: matching of search features and words (ours).
        recent_template: a second template from a recent, confident frame (ours).
        detail: the stem's features once more beside the trunk's output (ours).
    """

    stem: Literal["patch16", "mobilenet", "resnet50", "resnet101"] = "patch16"
    template_size: int = 128
    template_factor: float = 2.0
    search_size: int = 256
    search_factor: float = 4.0
    pixel_mean: tuple[float, float, float] = IMAGENET_MEAN
    pixel_std: tuple[float, float, float] = IMAGENET_STD
    width: int = 768
    heads: int = 12
    mlp_ratio: float = 4.0
    text_hidden: int = 3072
    table_width: int = 768
    max_words: int = 40
    match: bool = False
    word_match: bool = False
    recent_template: bool = False
    detail: bool = False

    def __post_init__(self) -> None:
        for name in ("template_size", "search_size"):
            if getattr(self, name) < STRIDE or getattr(self, name) % STRIDE:
                raise ValueError(f"{name} must be a multiple of {STRIDE}, got {getattr(self, name)}")
        for name in ("heads", "table_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width < 4 or self.width % 4 or self.width % self.heads:
            raise ValueError(f"width must be a multiple of 4 and of heads ({self.heads}), got {self.width}")
        if self.stem != "mobilenet" and (self.match or self.word_match or self.detail):
            raise ValueError("match, word_match and detail need the features of the mobilenet stem")


TINY: dict[str, Any] = {
    "stem": "mobilenet",
    "template_size": 112,
    "search_size": 224,
    "pixel_mean": (0.5, 0.5, 0.5),
    "pixel_std": (0.5, 0.5, 0.5),
    "width": 128,
    "heads": 4,
    "mlp_ratio": 3.0,
    "text_hidden": 384,
    "table_width": 64,
    "max_words": 24,
    "match": True,
    "word_match": True,
    "recent_template": True,
    "detail": True,
}
"""What every tiny size shares: it runs live on one thread of a laptop (unpublished; our design)."""


def sentence_reader(config: FrontConfig, layers: int) -> Bert:
    """A BERT of the trunk's width and heads.

    It has BERT's own 512 positions, so that its published table loads; at the tiny sizes as many as words.
    """
    return Bert(
        width=config.width,
        layers=layers,
        heads=config.heads,
        hidden=config.text_hidden,
        table_width=config.table_width,
        positions=config.max_words if config.stem == "mobilenet" else 512,
    )


@dataclass(frozen=True, kw_only=True)
class Text(Batched):
    """A sentence, read once: token features (B, L, C) and which of them are words (B, L)."""

    tokens_BLC: Tensor
    valid_BL: Tensor

    def padded(self, length: int) -> Text:
        """The same words with masked padding up to ``length``, so that sentences can share a batch.

        Raises:
            ValueError: the sentence is longer than that; words are never cut here.
        """
        missing = length - self.valid_BL.shape[1]
        if missing < 0:
            raise ValueError(f"{self.valid_BL.shape[1]} word pieces do not fit into {length}")
        return Text(
            tokens_BLC=nn.functional.pad(self.tokens_BLC, (0, 0, 0, missing)),
            valid_BL=nn.functional.pad(self.valid_BL, (0, missing)),
        )


def sentence_mean(text: Text) -> Tensor:
    """(B, C) mean over words, not padding; 0 for a sentence of none."""
    kept_BLC = text.tokens_BLC.masked_fill(~text.valid_BL[..., None], 0.0)
    return kept_BLC.sum(dim=1) / text.valid_BL.sum(dim=1, keepdim=True).clamp_min(1)


@dataclass(frozen=True, kw_only=True)
class Template(Batched):
    """Template features of K templates, embedded once.

    Attributes:
        tokens_BMC: (B, M, C) tokens with positions.
        inside_BM: (B, M) soft share of each cell that lies in the target's box.
        keys_BKPF, pooled_BKF, fine_BKF: what explicit matching needs; width 0 in models without it.
    """

    tokens_BMC: Tensor
    inside_BM: Tensor
    keys_BKPF: Tensor
    pooled_BKF: Tensor
    fine_BKF: Tensor

    def beside(self, other: Template) -> Template:
        """Both templates' features, self first."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return Template(**{name: torch.cat(pair, dim=1) for name, pair in pairs.items()})


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search region before the trunk.

    Attributes:
        tokens_BNC: with position, and where a model matches, with what matching found.
        plain_BNC: the stem's tokens without all of that: a ViT's raw patch embedding, a CNN's feature.
        detail_BNC: the stem's features for the head (``detail``), or None.
        heard_BN: similarity of each cell to the sentence (``word_match``), or None.
    """

    tokens_BNC: Tensor
    plain_BNC: Tensor
    detail_BNC: Tensor | None
    heard_BN: Tensor | None


class Front(nn.Module):
    """Base class of the trackers: their common attributes, pictures to tokens, and the explicit matching.

    A base class, not a part, so that parameters keep the short names that weight files hold. A subclass may
    replace the fixed positions by parameters of the same names.
    """

    history = 0
    """How many past boxes ``locate`` wants to know."""
    vocabulary = "bert"
    """Whose word pieces ``read_text`` takes, ``bert`` or ``clip`` (``prep.tokenizers``)."""
    training_only: tuple[str, ...] = ()
    """Beginnings of the names of parameters that a running tracker never reads."""
    template_pos: Tensor
    search_pos: Tensor
    pos_embed_z: Tensor
    pos_embed_x: Tensor
    """These two only after ``lay_positions_later``."""

    def __init__(self, config: FrontConfig) -> None:
        super().__init__()
        self.template_size, self.search_size = config.template_size, config.search_size
        self.template_factor, self.search_factor = config.template_factor, config.search_factor
        self.max_words, self.pixel_mean, self.pixel_std = (
            config.max_words,
            config.pixel_mean,
            config.pixel_std,
        )
        self.template_side, self.search_side = config.template_size // STRIDE, config.search_size // STRIDE
        self.width, self.templates = config.width, 2 if config.recent_template else 1
        self.stem = STEMS[config.stem](config.width)
        self.register_buffer(
            "template_pos", sincos_positions(config.width, self.template_side), persistent=False
        )
        self.register_buffer("search_pos", sincos_positions(config.width, self.search_side), persistent=False)
        coarse, fine = self.stem.coarse, self.stem.fine
        self.matcher: TemplateMatch | None = None
        if config.match:
            self.matcher = TemplateMatch(coarse, fine, self.template_side**2, self.templates, config.width)
            self.inside_embed = nn.Parameter(torch.randn(2, config.width) * 0.02)
        self.word_matcher = WordMatch(coarse, fine, config.width) if config.word_match else None
        self.detail = nn.Linear(coarse + 4 * fine, config.width) if config.detail else None

    def lay_no_positions(self) -> None:
        """For a trunk that adds positions itself, later than here: tokens leave the front without."""
        self.register_buffer("template_pos", torch.zeros(()), persistent=False)
        self.register_buffer("search_pos", torch.zeros(()), persistent=False)

    def lay_positions_later(self, *, learned: bool) -> None:
        """``pos_embed_z`` (1, P, C) and ``pos_embed_x`` (1, N, C) for the trunk to add, none laid here.

        They are parameters that start as sines (OSTrack's names), or fixed sines.
        """
        self.lay_no_positions()
        for name, side in (("pos_embed_z", self.template_side), ("pos_embed_x", self.search_side)):
            sines_1NC = sincos_positions(self.width, side)[None]
            if learned:
                self.register_parameter(name, nn.Parameter(sines_1NC))
            else:
                self.register_buffer(name, sines_1NC, persistent=False)

    def no_text(self, batch: int) -> Text:
        """A sentence of no words for ``batch`` targets."""
        device = next(self.parameters()).device
        return Text(
            tokens_BLC=torch.zeros(batch, 0, self.width, device=device),
            valid_BL=torch.zeros(batch, 0, dtype=torch.bool, device=device),
        )

    def embed_template(self, image_B3SS: Tensor, box_B4: Tensor) -> Template:
        """One template crop (B, 3, Sz, Sz) with its box."""
        patches: Patches = self.stem(image_B3SS)
        inside_BP = cell_share(box_B4, self.template_side)
        tokens_BPC = patches.tokens_BNC + self.template_pos
        if self.matcher is None:
            none = tokens_BPC.new_zeros(len(tokens_BPC), 1, 0)
            return Template(
                tokens_BMC=tokens_BPC,
                inside_BM=inside_BP,
                keys_BKPF=none[..., None],
                pooled_BKF=none,
                fine_BKF=none,
            )
        share = inside_BP[..., None]
        tokens_BPC = tokens_BPC + share * self.inside_embed[0] + (1 - share) * self.inside_embed[1]
        keys, pooled, fine = self.matcher.describe(patches.coarse_BNF, patches.fine_B4NF, inside_BP)
        return Template(
            tokens_BMC=tokens_BPC,
            inside_BM=inside_BP,
            keys_BKPF=keys[:, None],
            pooled_BKF=pooled[:, None],
            fine_BKF=fine[:, None],
        )

    def no_template(self, like_B3SS: Tensor) -> Template:
        """A blank template without a target, for starts by words; its tokens must be masked."""
        b = len(like_B3SS)
        blank = like_B3SS.new_zeros(b, 3, self.template_size, self.template_size)
        nothing = self.embed_template(blank, blank.new_zeros(b, 4))
        return self.pair(nothing, nothing)

    def pair(self, first: Template, recent: Template) -> Template:
        """The templates that the trunk sees: both, or the first alone where ``recent_template`` is off."""
        return first.beside(recent) if self.templates == 2 else first

    def embed_search(self, image_B3SS: Tensor, template: Template, text: Text, by_words_B: Tensor) -> Search:
        """A search crop or a letterboxed frame (B, 3, Sx, Sx).

        Matching with the template counts unless the target is named by words alone (``by_words_B``); matching
        with the words counts only then, and its similarity is also there in training, for a loss.
        """
        patches: Patches = self.stem(image_B3SS)
        x_BNC = patches.tokens_BNC + self.search_pos
        by_words_B11 = by_words_B[:, None, None]
        if self.matcher is not None:
            found = self.matcher(
                patches.coarse_BNF,
                patches.fine_B4NF,
                template.keys_BKPF,
                template.pooled_BKF,
                template.fine_BKF,
            )
            x_BNC = x_BNC + torch.where(by_words_B11, torch.zeros_like(found), found)
        heard_BN = None
        if (
            self.word_matcher is not None
            and text.valid_BL.shape[1]
            and (self.training or bool(by_words_B.any()))
        ):
            heard, heard_BN = self.word_matcher(
                patches.coarse_BNF, patches.fine_B4NF, text.tokens_BLC, text.valid_BL
            )
            x_BNC = x_BNC + torch.where(by_words_B11, heard, torch.zeros_like(heard))
        detail_BNC = None
        if self.detail is not None:
            fine_BNF = patches.fine_B4NF.reshape(*x_BNC.shape[:2], -1)
            detail_BNC = self.detail(torch.cat([patches.coarse_BNF, fine_BNF], dim=-1))
        return Search(
            tokens_BNC=x_BNC, plain_BNC=patches.tokens_BNC, detail_BNC=detail_BNC, heard_BN=heard_BN
        )

    def stem_freeze_plan(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """The tiny sizes' frozen convolutions (the first six blocks), and in which order they come free."""
        if not isinstance(self.stem, MobileStem):
            return [], []
        convs = list(self.stem.trunk.convs[:18])
        return list(convs), [nn.ModuleList(convs[9:]), nn.ModuleList(convs[:9])]


# MERGED models/base.py
# What every tracker is: the protocol and the tensors in it. Knows no tracker and no pixels' origin.
#
# Shapes: B batch (targets), L word pieces, C width, P template cells, K templates, N = S * S search cells.
# Boxes inside models are cx, cy, w, h in units of the crop's side.


class Flag(IntEnum):
    """How a sample's target is named; only sets which tokens are valid."""

    BBOX = 0
    NL = 1
    NLBBOX = 2


def audible(flag_B: Tensor, valid_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Which samples hear their sentence (B,), and which word pieces they hear (B, L).

    ``valid_BL`` are words, not padding; a sample that is named by a box alone hears none of them.
    """
    heard_BL = valid_BL & (flag_B != Flag.BBOX)[:, None]
    return heard_BL.any(dim=1), heard_BL


@dataclass(frozen=True, kw_only=True)
class Tokens(Batched):
    """The trunk's output for one search region.

    Class token (B, C), template (B, M, C), search (B, N, C) and the sentence's [CLS] (B, C).
    """

    vision_BC: Tensor
    template_BMC: Tensor
    search_BNC: Tensor
    words_BC: Tensor


@dataclass(frozen=True, kw_only=True)
class Memory(Batched):
    """Everything of a target that does not change from frame to frame; each tracker adds what it keeps."""

    flag_B: Tensor
    text: Text


@dataclass(frozen=True, kw_only=True)
class Prediction(Batched):
    """What a model says of one search region. A model that names one box has maps of one cell (S = 1).

    Attributes:
        centre_BSS: probability that the target's centre lies in the cell.
        presence_BSS: probability that the cell belongs to the target, not to a distractor or the background.
        boxes_BSS4: the box that each cell names: cx, cy, w, h in units of the crop.
        tokens: the trunk's output, for models whose memory is refreshed from it.
        logits: raw outputs that losses need, by name; empty at inference.
    """

    centre_BSS: Tensor
    presence_BSS: Tensor
    boxes_BSS4: Tensor
    tokens: Tokens | None = None
    logits: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, maps: CentreMaps) -> Prediction:
        """From OSTrack's head: what it says of the centre is all it says of the presence, which is 1."""
        return cls(
            centre_BSS=maps.centre_BSS,
            presence_BSS=torch.ones_like(maps.centre_BSS),
            boxes_BSS4=maps.boxes_BSS4,
        )


@dataclass(frozen=True, kw_only=True)
class Views(Batched):
    """Training samples: of each target a template and V search views, with a sentence where it has one.

    Attributes:
        template_B3SS, template_box_B4: the first template with its box.
        recent_BV3SS, recent_box_BV4: for each view a template as if cut some frames ago.
        search_BV3SS, box_BV4, present_BV: the views, the target's box in each, and whether it is in it.
        ids_BL, words_BL: word pieces and which of them are words; samples of BBOX have none.
        flag_B: ``Flag``.
    """

    template_B3SS: Tensor
    template_box_B4: Tensor
    recent_BV3SS: Tensor
    recent_box_BV4: Tensor
    search_BV3SS: Tensor
    box_BV4: Tensor
    present_BV: Tensor
    ids_BL: Tensor
    words_BL: Tensor
    flag_B: Tensor

    @property
    def readable_BL(self) -> Tensor:
        """``words_BL``, all true where a sample has none: attention over no key at all has no value.

        What is read there is never used: the flag hides it.
        """
        return self.words_BL | (self.flag_B == Flag.BBOX)[:, None]

    def each(self) -> Tensor:
        """(B * V,) the target that each view belongs to; views of one target follow each other."""
        targets, views = self.present_BV.shape
        return torch.arange(targets, device=self.flag_B.device).repeat_interleave(views)


M = TypeVar("M", bound=Memory)


@runtime_checkable
class TrackerModel(Protocol[M]):
    """The whole contract between a model, the tracking policy and training; ``M`` is what it remembers."""

    template_size: int
    template_factor: float
    search_size: int
    search_factor: float
    max_words: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    history: int
    vocabulary: str
    training_only: tuple[str, ...]

    def read_text(self, ids_BL: Tensor, valid_BL: Tensor) -> Text:
        """Once a sentence."""
        ...

    def ground(self, scene_B3SS: Tensor, text: Text) -> Prediction:
        """Find the target in a letterboxed frame by words alone."""
        ...

    def remember(
        self,
        template_B3SS: Tensor,
        template_box_B4: Tensor,
        context_B3SS: Tensor,
        context_box_B4: Tensor,
        text: Text | None = None,
    ) -> M:
        """Start: a template crop and a search-sized crop of the same frame, with the box in each."""
        ...

    def refresh(
        self,
        memory: M,
        seen: Prediction,
        box_B4: Tensor,
        template_B3SS: Tensor | None = None,
        template_box_B4: Tensor | None = None,
    ) -> M:
        """A memory that has learned from a confident frame."""
        ...

    def locate(self, search_B3SS: Tensor, memory: M, past_BH4: Tensor | None = None) -> Prediction:
        """Each frame.

        ``past_BH4`` are the last H = ``history`` boxes, oldest first, cx, cy, w, h in units of this search
        crop; None where ``history`` is 0.
        """
        ...

    def rehearse(self, views: Views, *, select: bool = True) -> dict[str, Any]:
        """The training pass: the parts that run at test time, in that order, over all views of all targets.

        Returns raw outputs by the names of ``training.losses.TERMS``, with B * V first. ``select=False``
        keeps all tokens in models that drop some.
        """
        ...

    def freeze_plan(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Modules frozen at the start, and the order in which plateaus of the loss free them."""
        ...


# MERGED models/base.py
# What trackers do alike that remember a first and a recent template: start, refresh, the views of training.
#
# Knows the protocol (``models.base``); knows no trunk, no head and no tracker.
#
# Shapes: B batch (targets), V views, L word pieces, C width, M template cells, S side of a crop in pixels.
# Boxes are cx, cy, w, h in units of the crop's side.


@dataclass(frozen=True, kw_only=True)
class TemplateMemory(Memory):
    """The first template, and the last sure one: the first again as long as there is none."""

    first: Template
    recent: Template


T = TypeVar("T", bound=TemplateMemory)


class TemplateTracker(Front, Generic[T]):
    """A front with a memory ``T`` of templates; a subclass that remembers more adds it to what is here."""

    def remember(
        self,
        template_B3SS: Tensor,
        template_box_B4: Tensor,
        context_B3SS: Tensor,
        context_box_B4: Tensor,
        text: Text | None = None,
    ) -> TemplateMemory:
        """Start of a target, or of several: BBOX where ``text`` is None, else NLBBOX. Needs no context."""
        first = self.embed_template(template_B3SS, template_box_B4)
        flag = Flag.BBOX if text is None else Flag.NLBBOX
        flag_B = torch.full((len(template_B3SS),), int(flag), device=template_B3SS.device)
        text = self.no_text(len(template_B3SS)) if text is None else text
        return TemplateMemory(flag_B=flag_B, text=text, first=first, recent=first)

    def refresh(
        self,
        memory: T,
        seen: Prediction,
        box_B4: Tensor,
        template_B3SS: Tensor | None = None,
        template_box_B4: Tensor | None = None,
    ) -> T:
        """A new recent template where one is given and the size has room for it; else the same memory."""
        if template_B3SS is None or template_box_B4 is None or self.templates < 2:
            return memory
        return replace(memory, recent=self.embed_template(template_B3SS, template_box_B4))

    def templates_of(self, views: Views) -> tuple[Template, Template]:
        """The first template of each target (B), and what the trunk sees beside each view (B * V)."""
        first = self.embed_template(views.template_B3SS, views.template_box_B4)
        return first, self.beside_recent(first.pick(views.each()), views)

    def beside_recent(self, first: Template, views: Views) -> Template:
        """The first template of each view (B * V) and a recent one, as if cut some frames ago.

        The first alone where the size has no room for another.
        """
        if self.templates < 2:
            return first
        recent = self.embed_template(views.recent_BV3SS.flatten(0, 1), views.recent_box_BV4.flatten(0, 1))
        return first.beside(recent)
