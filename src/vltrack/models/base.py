"""Common to all trackers: configuration, tensors that flow, and the base class.

Shapes: B targets, V views, L word pieces, C width, P template cells, K templates, M = K * P, N = S * S search
cells, T coordinate tokens. Boxes are cx, cy, w, h in units of the crop's side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

import torch
from torch import Tensor, nn

from vltrack.core.types import Mode
from vltrack.nn.attention import key_bias, tracing
from vltrack.nn.backbones import MobileStem, sincos_positions
from vltrack.nn.bert import Bert
from vltrack.nn.heads import CenterMaps

if TYPE_CHECKING:
    from vltrack.models.artrack_decoder import BoxTokenizer
    from vltrack.models.embedding import InputEmbedding

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STRIDE, MAX_SIZE = 16, 1024

# -- configuration --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TrackerConfig:
    """Sizes that all trackers share; each tracker's configuration adds its own.

    Attributes:
        stem: network that turns an image into tokens of stride 16.
        template_size, search_size: sides of the crops in pixels, multiples of 16 up to 1024.
        template_factor, search_factor: side of a crop over sqrt(w * h) of the target.
        pixel_mean, pixel_std: normalization of RGB in [0, 1].
        width, heads, mlp_ratio: of the backbone's transformer.
        text_hidden, table_width, max_words: of the text encoder; a narrower table is projected to the width.
        match: correlation of search and template features (ours).
        word_match: correlation of search features and word pieces (ours).
        recent_template: a second template from a recent, confident frame (ours).
        detail: skip connection from the stem's features to the head (ours).
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
            if not STRIDE <= getattr(self, name) <= MAX_SIZE or getattr(self, name) % STRIDE:
                said = f"must be a multiple of {STRIDE}, at most {MAX_SIZE}"
                raise ValueError(f"{name} {said}, got {getattr(self, name)}")
        self.require_positive("heads", "table_width")
        if self.width < 4 or self.width % 4 or self.width % self.heads:
            raise ValueError(f"width must be a multiple of 4 and of heads ({self.heads}), got {self.width}")
        if self.stem != "mobilenet" and (self.match or self.word_match or self.detail):
            raise ValueError("match, word_match and detail need the features of the mobilenet stem")

    def require_positive(self, *names: str) -> None:
        """Raise ``ValueError`` unless each of these attributes is at least 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


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
"""Values shared by every tiny size: it runs live on one thread of a laptop (unpublished; our design)."""


def bert_of(config: TrackerConfig, layers: int, width: int = 0, heads: int = 0) -> Bert:
    """Return a BERT, of the backbone's width and heads where none are given.

    It has BERT's own 512 positions, so that the published table loads; tiny sizes have ``max_words``.
    """
    return Bert(
        width=width or config.width,
        layers=layers,
        heads=heads or config.heads,
        hidden=config.text_hidden,
        table_width=config.table_width,
        positions=config.max_words if config.stem == "mobilenet" else 512,
    )


# -- modes as integers ------------------------------------------------------------------------------------

MODE_IDS: dict[Mode, int] = {mode: number for number, mode in enumerate(Mode)}
"""Integers of the modes in flag tensors (B,)."""


def flags_of(mode: Mode, like: Tensor) -> Tensor:
    """(B,) flags of one mode for the batch and device of ``like``."""
    return torch.full((len(like),), MODE_IDS[mode], device=like.device)


def is_text_only(flag_B: Tensor) -> Tensor:
    """(B,) bool: samples whose target is given by text alone."""
    return flag_B == MODE_IDS[Mode.NL]


def is_box_only(flag_B: Tensor) -> Tensor:
    """(B,) bool: samples whose target is given by a box alone."""
    return flag_B == MODE_IDS[Mode.BBOX]


def text_key_mask(flag_B: Tensor, valid_BL: Tensor) -> Tensor:
    """(B, L) bool: word pieces that count as attention keys; none of a sample given by a box alone.

    ``valid_BL`` is False for padding. A row without any True means that the sample has no text.
    """
    return valid_BL & ~is_box_only(flag_B)[:, None]


# -- tensors that flow ------------------------------------------------------------------------------------


class Batched:
    """Base of dataclasses of tensors whose first axis is the target; other values pass unchanged."""

    def index_select(self, indices: Sequence[int] | Tensor) -> Self:
        """Return the targets ``indices`` of the batch."""
        index = torch.as_tensor(indices, dtype=torch.long)
        selected: Self = _map([self], lambda tensors: tensors[0][index.to(tensors[0].device)])
        return selected

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Concatenate several batches into one."""
        joined: Self = _map(list(parts), lambda tensors: torch.cat(tensors, dim=0))
        return joined


def _map(parts: list[Any], function: Callable[[list[Tensor]], Tensor]) -> Any:
    def combined(values: list[Any]) -> Any:
        if isinstance(values[0], Tensor):
            return function(values)
        return _map(values, function) if isinstance(values[0], Batched) else values[0]

    names = [entry.name for entry in dataclasses.fields(parts[0])]
    return replace(parts[0], **{name: combined([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True, kw_only=True)
class BoxedCrop(Batched):
    """Crops (..., 3, S, S) with a box (..., 4) in each, and for trackers with ``mask_padding`` (..., S, S) bool."""

    image_B3SS: Tensor
    box_B4: Tensor
    padded_BSS: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Text(Batched):
    """An encoded sentence: token features (B, L, C), and which are word pieces, not padding (B, L)."""

    tokens_BLC: Tensor
    valid_BL: Tensor

    def padded(self, length: int) -> Text:
        """Return the same tokens with masked padding up to ``length``, so that sentences can share a batch.

        Raises:
            ValueError: the sentence is longer than ``length``; nothing is cut.
        """
        missing = length - self.valid_BL.shape[1]
        if missing < 0:
            raise ValueError(f"{self.valid_BL.shape[1]} word pieces do not fit into {length}")
        return Text(
            tokens_BLC=nn.functional.pad(self.tokens_BLC, (0, 0, 0, missing)),
            valid_BL=nn.functional.pad(self.valid_BL, (0, missing)),
        )

    def mean(self) -> Tensor:
        """(B, C) mean over word pieces, without padding; 0 for an empty sentence."""
        kept_BLC = self.tokens_BLC.masked_fill(~self.valid_BL[..., None], 0.0)
        return kept_BLC.sum(dim=1) / self.valid_BL.sum(dim=1, keepdim=True).clamp_min(1)


@dataclass(frozen=True, kw_only=True)
class Template(Batched):
    """Features of K templates.

    Attributes:
        tokens_BMC: tokens of all templates; with positions where the tracker adds them before the backbone.
        inside_BM: share of each cell that lies in the target's box.
        keys_BKPF, pooled_BKF, fine_BKF: for the correlation; width 0 in sizes without it.
        padded_BM: bool, cells outside the frame, in trackers with ``mask_padding``.
    """

    tokens_BMC: Tensor
    inside_BM: Tensor
    keys_BKPF: Tensor
    pooled_BKF: Tensor
    fine_BKF: Tensor
    padded_BM: Tensor | None = None

    def concat(self, other: Template) -> Template:
        """Return the features of both, self first."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self)}
        joined = {name: torch.cat(pair, dim=1) for name, pair in pairs.items() if pair[0] is not None}
        return Template(**joined)


@dataclass(frozen=True, kw_only=True)
class Memory(Batched):
    """State of a target that stays the same between updates; each tracker adds its own."""

    flag_B: Tensor
    text: Text


@dataclass(frozen=True, kw_only=True)
class TemplateMemory(Memory):
    """The first template and the most recent confident one, which equals the first until an update."""

    first: Template
    recent: Template


@dataclass(frozen=True, kw_only=True)
class Prediction(Batched):
    """Output for one search region. A model that predicts one box has maps of one cell (S = 1).

    Attributes:
        center_BSS: probability that the target's center lies in the cell.
        presence_BSS: probability that the cell belongs to the target, not to a distractor or the background.
        boxes_BSS4: the box that each cell predicts: cx, cy, w, h in units of the crop.
    """

    center_BSS: Tensor
    presence_BSS: Tensor
    boxes_BSS4: Tensor

    @classmethod
    def from_center(cls, maps: CenterMaps) -> Prediction:
        """Prediction of OSTrack's head, which has no presence score: presence is 1."""
        presence_BSS = torch.ones_like(maps.center_BSS)
        return cls(center_BSS=maps.center_BSS, presence_BSS=presence_BSS, boxes_BSS4=maps.boxes_BSS4)


@dataclass(frozen=True, kw_only=True)
class Views(Batched):
    """Training samples: per target a template and V search views, with a sentence where it has one.

    Attributes:
        template: the first template (B).
        recent: per view a template as if cut some frames ago (B, V).
        search: the views, and the target's box in each (B, V).
        present_BV: whether the target is in the view.
        ids_BL, valid_BL: word pieces, and which of them are not padding; none in box-only samples.
        flag_B: ``MODE_IDS``.
    """

    template: BoxedCrop
    recent: BoxedCrop
    search: BoxedCrop
    present_BV: Tensor
    ids_BL: Tensor
    valid_BL: Tensor
    flag_B: Tensor

    @property
    def attendable_BL(self) -> Tensor:
        """``valid_BL``, all True in box-only samples: softmax over no key at all is undefined.

        What such a sample reads is never used: its flag masks it.
        """
        return self.valid_BL | is_box_only(self.flag_B)[:, None]

    def target_of_view(self) -> Tensor:
        """(B * V,) index of the target of each view; views of one target follow each other."""
        targets, views = self.present_BV.shape
        return torch.arange(targets, device=self.flag_B.device).repeat_interleave(views)


@dataclass(frozen=True, kw_only=True)
class TrainOutputs:
    """Raw outputs of a training pass over B * V views; None where the tracker has no such output.

    Attributes:
        boxes_BSS4: the box that each cell predicts.
        center_BSS: logits of the center map.
        contrasts: similarity (B, N) of search tokens to the target after each layer (UVLTrack).
        prompt_BN2: logits of target and non-target (UVLTrack).
        text_similarity_BN: similarity of each cell to the sentence (``word_match``).
        gate_BN: soft gates of the token selection (LiteTrack).
        score_B: logits that the target is in view (BIT-Tracker).
        coordinates_BTV, expected_B4: logits of the coordinate tokens, and the expected box (ARTrack).
        matches: logits (B, N) of each level's similarity to the target (SATracker).
        alignment: unit vectors (B, D) of search region, template and sentence (All-in-One).
    """

    boxes_BSS4: Tensor
    center_BSS: Tensor | None = None
    contrasts: Sequence[Tensor] | None = None
    prompt_BN2: Tensor | None = None
    text_similarity_BN: Tensor | None = None
    gate_BN: Tensor | None = None
    score_B: Tensor | None = None
    coordinates_BTV: Tensor | None = None
    expected_B4: Tensor | None = None
    matches: Sequence[Tensor] | None = None
    alignment: tuple[Tensor, Tensor, Tensor] | None = None


# -- the base class -----------------------------------------------------------------------------------------

FILE_NAMES = {
    "embed.stem.backbone.": "stem.trunk.",
    "embed.stem.": "stem.",
    "embed.inside_embed": "inside_embed",
    "embed.correlation.": "matcher.",
    "embed.text_correlation.cell_mlp.": "word_matcher.see.",
    "embed.text_correlation.text_proj.": "word_matcher.hear.",
    "embed.text_correlation.piece_weight.": "word_matcher.weigh.",
    "embed.text_correlation.": "word_matcher.",
    "embed.skip.": "detail.",
    "head.center.": "head.centre.",
    "text_proj.": "words.",
    "roi.encoder.": "roi.",
    "roi.pool.": "roi_pool.",
    "aligner.text.": "aligner.words.",
}
"""Attribute path -> name in weight files, checkpoints, key maps and recipes, where parameters keep theirs."""
_ATTRIBUTES = {name: path for path, name in FILE_NAMES.items()}


def _renamed(name: str, table: dict[str, str]) -> str:
    for begin, other in table.items():
        if name.startswith(begin):
            return other + name.removeprefix(begin)
    return name


def _rename_keys(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any, table: dict[str, str]) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + _renamed(key.removeprefix(prefix), table)] = state.pop(key)


T = TypeVar("T", bound=TemplateMemory)


class TrackerBase(nn.Module, Generic[T]):
    """Base class of the trackers: what the tracking loop calls, template memory, names of parameters in files.

    ``T`` is the memory of a target. A subclass implements ``locate``, ``ground`` and ``forward``, sets ``embed``
    first and ``bert``, registers positions and adds its own parts. ``state_dict``, ``load_state_dict`` and
    ``named_parameters`` use the names of weight files (``FILE_NAMES``).
    """

    history = 0
    """Number of past boxes that ``locate`` takes."""
    vocabulary = "bert"
    """Vocabulary of ``read_text``: ``bert`` or ``clip`` (``prep.tokenizers``)."""
    training_only: tuple[str, ...] = ()
    """Prefixes of the names of parameters that inference never reads."""
    mask_padding = False
    """Whether ``locate`` and templates take a mask of the pixels outside the frame."""
    reads_blank = False
    """Whether a text-only start has a use for the tokens of ``no_template``, although they are masked."""
    tokenizer: BoxTokenizer | None = None
    """Of coordinate tokens, in trackers that predict them."""
    embed: InputEmbedding
    bert: Bert | None
    pos_embed_z: Tensor
    pos_embed_x: Tensor

    def __init__(self, config: TrackerConfig) -> None:
        super().__init__()
        self.template_size, self.search_size = config.template_size, config.search_size
        self.template_factor, self.search_factor = config.template_factor, config.search_factor
        self.pixel_mean, self.pixel_std = config.pixel_mean, config.pixel_std
        self.max_words, self.width = config.max_words, config.width
        self.template_side, self.search_side = config.template_size // STRIDE, config.search_size // STRIDE
        self.template_count = 2 if config.recent_template else 1
        to_files = partial(_rename_keys, table=FILE_NAMES)
        from_files = partial(_rename_keys, table=_ATTRIBUTES)
        self.register_state_dict_post_hook(to_files)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(from_files)  # type: ignore[no-untyped-call]

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield parameters under their names in files, ``inside_embed`` first.

        The order decides the last bit of the norm of all gradients, so it is part of a run's reproducibility.
        """
        begin = prefix + "." if prefix else ""
        named = super().named_parameters(prefix, recurse, remove_duplicate)
        ours = ((begin + _renamed(name.removeprefix(begin), FILE_NAMES), p) for name, p in named)
        yield from sorted(ours, key=lambda item: item[0] != begin + "inside_embed")

    def register_positions(self, *, learned: bool) -> None:
        """Add ``pos_embed_z`` (1, P, C) and ``pos_embed_x`` (1, N, C): sines, fixed or as initial values."""
        for name, side in (("pos_embed_z", self.template_side), ("pos_embed_x", self.search_side)):
            sines_1NC = sincos_positions(self.width, side)[None]
            if learned:
                self.register_parameter(name, nn.Parameter(sines_1NC))
            else:
                self.register_buffer(name, sines_1NC, persistent=False)

    # -- the calls of the tracking loop ---------------------------------------------------------------------

    def read_text(self, ids_BL: Tensor, valid_BL: Tensor) -> Text:
        """Encode a sentence, once per target: word-piece ids (B, L) int64; ``valid_BL`` is False for padding.

        Without a text side the text is empty.
        """
        if self.bert is None:
            return self.no_text(len(ids_BL))
        return Text(tokens_BLC=self.bert(ids_BL, key_bias(valid_BL)), valid_BL=valid_BL)

    def ground(self, scene_B3SS: Tensor, text: Text) -> Prediction:
        """Find the target from text alone in a letterboxed frame."""
        raise NotImplementedError

    def locate(self, search_B3SS: Tensor, memory: T, past_BH4: Tensor | None = None) -> Prediction:
        """Predict the target in a search crop, once per frame.

        ``past_BH4`` are the last H = ``history`` boxes, oldest first, in units of this search crop; None
        where ``history`` is 0.
        """
        raise NotImplementedError

    def init_template(self, template: BoxedCrop, context: BoxedCrop, text: Text | None = None) -> TemplateMemory:
        """Start targets from a template crop and a search-sized crop of the same frame, which is not used here.

        The targets are given by box alone where ``text`` is None, else by box and text.
        """
        first = self.embed_template(template)
        return TemplateMemory(
            flag_B=flags_of(Mode.BBOX if text is None else Mode.NLBBOX, template.box_B4),
            text=self.no_text(len(template.box_B4)) if text is None else text,
            first=first,
            recent=first,
        )

    def update_template(
        self, memory: T, prediction: Prediction, box_B4: Tensor, template: BoxedCrop | None = None
    ) -> T:
        """Update the memory after a confident frame: its box in the search crop, and a new template.

        Here the recent template is replaced where one is given and the size has one.
        """
        if template is None or self.template_count < 2:
            return memory
        return replace(memory, recent=self.embed_template(template))

    # -- text and templates -------------------------------------------------------------------------------

    def no_text(self, batch: int) -> Text:
        """Empty sentences for ``batch`` targets."""
        device = next(self.parameters()).device
        return Text(
            tokens_BLC=torch.zeros(batch, 0, self.width, device=device),
            valid_BL=torch.zeros(batch, 0, dtype=torch.bool, device=device),
        )

    def embed_template(self, crop: BoxedCrop) -> Template:
        """Embed one template per target, without positions."""
        return self.embed.template(crop)

    def no_template(self, like_B3SS: Tensor) -> Template:
        """Blank templates without a target, for text-only starts; their tokens must be masked.

        A traced graph (``export.graphs``) has no cell of them, unless the tracker reads masked ones.
        """
        b = len(like_B3SS)
        if tracing() and not self.reads_blank:
            tokens_B0C, none_B0 = like_B3SS.new_zeros(b, 0, self.width), like_B3SS.new_zeros(b, 0)
            return Template(
                tokens_BMC=tokens_B0C, inside_BM=none_B0, keys_BKPF=none_B0, pooled_BKF=none_B0, fine_BKF=none_B0
            )
        blank = like_B3SS.new_zeros(b, 3, self.template_size, self.template_size)
        empty = self.embed_template(BoxedCrop(image_B3SS=blank, box_B4=blank.new_zeros(b, 4)))
        return self.joint_template(empty, empty)

    def joint_template(self, first: Template, recent: Template) -> Template:
        """Templates that enter the backbone: both, or the first alone in sizes without a recent one."""
        return first.concat(recent) if self.template_count == 2 else first

    # -- training -----------------------------------------------------------------------------------------

    def embed_views(self, views: Views) -> tuple[Text, Template, Tensor]:
        """Sentence, templates and search image of each view (B * V)."""
        target_B = views.target_of_view()
        text = self.read_text(views.ids_BL, views.attendable_BL).index_select(target_B)
        return text, self.embed_templates(views)[1], views.search.image_B3SS.flatten(0, 1)

    def embed_templates(self, views: Views) -> tuple[Template, Template]:
        """The first template of each target (B), and for each view (B * V) that one joined with its recent one."""
        target_B, targets = views.target_of_view(), len(views.flag_B)
        if self.template_count < 2:
            first = self.embed_template(views.template)
            return first, first.index_select(target_B)
        recent = BoxedCrop(image_B3SS=views.recent.image_B3SS.flatten(0, 1), box_B4=views.recent.box_B4.flatten(0, 1))
        embedded = self.embed_template(BoxedCrop.cat([views.template, recent]))
        later = embedded.index_select(range(targets, targets + len(target_B)))
        return embedded.index_select(range(targets)), embedded.index_select(target_B).concat(later)

    def forward(self, views: Views, *, select: bool = True) -> TrainOutputs:
        """Training pass: the parts of inference, in that order, over all views of all targets.

        ``select=False`` keeps all tokens in trackers that drop some.
        """
        raise NotImplementedError

    def freeze_plan(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Modules frozen at the start, and the order in which plateaus of the loss unfreeze them (ours).

        Tiny: the stem's first six convolution blocks (the upper ones return first), and the word table.
        """
        stem = self.embed.stem
        if not isinstance(stem, MobileStem):
            return [], []
        convs = list(stem.backbone.convs[:18])
        table = [] if self.bert is None else [self.bert.embeddings.word_embeddings]
        return [*convs, *table], [nn.ModuleList(convs[9:]), nn.ModuleList(convs[:9])]
