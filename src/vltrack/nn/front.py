"""What every tracker starts with: a stem, positions, and for the tiny sizes explicit matching beside it.

Knows pictures as tensors and a sentence as tokens; knows no trunk, no head, no tracker.

Shapes: B batch, L word pieces, C width, P template cells, K templates, M = K * P, N search cells, F features.
Boxes are cx, cy, w, h in units of the crop's side.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vltrack.nn.batched import Batched
from vltrack.nn.bert import Bert
from vltrack.nn.cells import cell_share
from vltrack.nn.match import TemplateMatch, WordMatch
from vltrack.nn.stems import STEMS, MobileStem, Patches
from vltrack.nn.vit import sincos_positions

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
    """Whose word pieces ``read_text`` takes, ``bert`` or ``clip`` (``prep.vocabularies``)."""
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
