"""Which published weights fit which of our names, and how a file is recognised by the names in it.

Knows families of checkpoints and their key maps, no files and no numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

from torch import Tensor

from vltrack.checkpoints.key_maps import (
    AITRACK,
    ALL_IN_ONE,
    ALPHA_CLIP_L14,
    ARTRACK,
    CLIP_VIT_L14,
    LITETRACK,
    MAE_TRUNK,
    MAE_VIT,
    OSTRACK,
    RESNET,
    STARK,
    STARK_START,
    UVLTRACK,
    KeyMap,
    bert_base,
    bert_large,
    clip_map,
    fold_constant_sentence,
    from_hugging_face,
)

Prepare = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A family of published weights.

    Attributes:
        title: how people call it.
        file: the published file, as an example.
        mark: pattern of a name that such files hold, and of those that stand after it in the table none.
        licence: under which the weights are published; "not stated" where their authors say nothing.
        maps: by our name, how its parameters are called there.
        trained: the modes in which a tracker from this file alone works as published; none of a backbone,
            which is a start for training.
        starts: those of our names for which it is only a start all the same.
        fresh: beginnings of names of ours that may keep what they start with without harm in these modes.
        asked: taken only where the user names the kind, as the names in the file tell too little.
        prepare: what is done to the tensors before they are mapped, and ``prepared`` says it in words.
    """

    title: str
    file: str
    mark: str
    licence: str
    maps: Mapping[str, KeyMap]
    trained: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    asked: bool = False
    prepare: Prepare | None = None
    prepared: str = ""

    def ready(self, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The tensors as its maps expect them. CheckpointMismatch: they are not of this family."""
        return given if self.prepare is None else self.prepare(given)


_LITETRACK = ("litetrack-base", "litetrack-uvltrack-base")
_TRUNKS = (
    "all-in-one-base",
    "all-in-one-ostrack-base",
    "sa-tracker-base",
    "aitrack-base",
    "aitrack-artrack-base",
)
_STARK = ("bit-tracker-stark-base", "bit-tracker-stark-r50")
_BIT = ("bit-tracker-base", "bit-tracker-base-r50")
MODES = ("nl", "bbox", "nlbbox")


def _without_masks(keymap: KeyMap) -> KeyMap:
    """A program's archive may keep the causal mask of each layer as a tensor; ours is not stored."""
    return replace(keymap, ignored=(*keymap.ignored, r".*attn_mask"))


# The first whose mark is in a file names the family, so a child stands before its parent.
SOURCES: dict[str, Source] = {
    "all-in-one": Source(
        title="All-in-One",
        file="the released checkpoint of vitb_256_mae_ce_32x4_ep300",
        mark=r"backbone\.language_proj\.weight$",
        licence="MIT",
        maps={"all-in-one-base": ALL_IN_ONE},
        trained=("bbox",),
        fresh=("bert.",),
        prepare=fold_constant_sentence,
        prepared="the constant sentence of the released code is folded into the patch embedding",
    ),
    "ostrack": Source(
        title="OSTrack",
        file="OSTrack_ep0300.pth.tar of vitb_256_mae_ce_32x4_ep300",
        mark=r"box_head\.conv5_ctr\.weight$",
        licence="MIT",
        maps=dict.fromkeys(("all-in-one-ostrack-base", "all-in-one-base"), OSTRACK),
        trained=("bbox",),
        starts=("all-in-one-base",),
    ),
    "litetrack": Source(
        title="LiteTrack",
        file="the released checkpoint of baseline_base",
        mark=r"backbone\.vit\.blocks\.0\.attn\.fc1\.weight$",
        licence="not stated",
        maps={"litetrack-base": LITETRACK},
        trained=MODES,
        fresh=("star_vision.", "star_text.", "selector."),
    ),
    "uvltrack": Source(
        title="UVLTrack",
        file="UVLTrack_ep0300.pth.tar of baseline_base or baseline_large",
        mark=r"box_head\.conv_cls\.",
        licence="MIT",
        maps=dict.fromkeys(("litetrack-uvltrack-base", "litetrack-uvltrack-large"), UVLTRACK),
        trained=MODES,
    ),
    "aitrack": Source(
        title="AITrack",
        file="the released checkpoint of aitrack_256_full",
        mark=r"lang_embedding\.clip_model\.",
        licence="MIT; made from ARTrack, which is not for commercial use",
        maps={"aitrack-base": AITRACK},
        trained=("bbox",),
        fresh=("align.",),
    ),
    "artrack": Source(
        title="ARTrack",
        file="ARTrackSeq_ep0060.pth.tar of artrack_seq_256_full",
        mark=r"pix_head\.",
        licence="not for commercial use, says its page",
        maps=dict.fromkeys(("aitrack-artrack-base", "aitrack-base"), ARTRACK),
        trained=("bbox",),
        starts=("aitrack-base",),
    ),
    "stark": Source(
        title="STARK",
        file="STARKST_ep0050.pth.tar of baseline_R101, or of baseline for the sizes with ResNet-50",
        mark=r"box_head\.conv1_tl\.",
        licence="MIT",
        maps={**dict.fromkeys(_STARK, STARK), **dict.fromkeys(_BIT, STARK_START)},
        trained=("bbox",),
        starts=_BIT,
    ),
    "alpha-clip": Source(
        title="Alpha-CLIP",
        file="clip_l14_grit20m_fultune_2xe.pth",
        mark=r"conv1_alpha\.weight$",
        licence="Apache-2.0",
        maps={"aitrack-base": ALPHA_CLIP_L14},
    ),
    "clip": Source(
        title="CLIP",
        file="ViT-L-14.pt, or model.safetensors of openai/clip-vit-large-patch14: the tower for sentences",
        mark=r"^token_embedding\.weight$|^text_model\.",
        licence="MIT",
        maps={"aitrack-base": _without_masks(clip_map(picture=None))},
        prepare=from_hugging_face,
    ),
    "clip-both": Source(
        title="CLIP",
        file="the same files: both towers, where there is no Alpha-CLIP",
        mark=r"^token_embedding\.weight$|^text_model\.",
        licence="MIT",
        maps={"aitrack-base": _without_masks(CLIP_VIT_L14)},
        prepare=from_hugging_face,
        asked=True,
    ),
    "bert": Source(
        title="BERT",
        file="bert-base-uncased (large: bert-large-uncased): model.safetensors or pytorch_model.bin",
        mark=r"embeddings\.word_embeddings\.weight$",
        licence="Apache-2.0",
        maps={
            **dict.fromkeys(_LITETRACK, bert_base(6)),
            "litetrack-uvltrack-large": bert_large(12),
            "all-in-one-base": bert_base(0),
            "sa-tracker-base": bert_base(12),
        },
    ),
    "resnet": Source(
        title="ResNet",
        file="torchvision's resnet101-63fe2227.pth, resnet50-0676ba61.pth or their kin",
        mark=r"^layer3\.0\.conv1\.weight$",
        licence="BSD-3-Clause",
        maps=dict.fromkeys((*_STARK, *_BIT), RESNET),
    ),
    "mae": Source(
        title="MAE",
        file="mae_pretrain_vit_base.pth, mae_pretrain_vit_large.pth",
        mark=r"blocks\.0\.attn\.qkv\.weight$",
        licence="CC-BY-NC-4.0",
        maps={
            **dict.fromkeys((*_LITETRACK, "litetrack-uvltrack-large"), MAE_VIT),
            **dict.fromkeys(_TRUNKS, MAE_TRUNK),
        },
    ),
}


# Under which programs file a network, and what torch's DataParallel and compile put before its names.
_WRAPPERS = re.compile(r"(?:(?:state_dict|model_state_dict|model|net|network|module)\.)+")
_COMPILED = "_orig_mod."


def bare(name: str) -> str:
    """A name in a file without what stands before it in wrapped files: ``net.module.x`` -> ``x``."""
    name = name.replace(_COMPILED, "")
    return name.removeprefix(found[0]) if (found := _WRAPPERS.match(name)) else name


@dataclass(frozen=True, kw_only=True)
class PartialMap(KeyMap):
    """A key map without some of its names: ours that begin with ``without`` stay fresh, theirs stay out.

    ``spared`` are the published names of those of ours.
    """

    without: tuple[str, ...]
    spared: frozenset[str] = field(default_factory=frozenset)

    def published(self, own: str) -> str | None:
        """See ``KeyMap``."""
        return None if own.startswith(self.without) else super().published(own)

    def ignores(self, name: str) -> bool:
        """See ``KeyMap``."""
        return name in self.spared or name.startswith(self.without) or super().ignores(name)

    def keeps(self, own: str) -> bool:
        """See ``KeyMap``."""
        return own.startswith(self.without) or super().keeps(own)


def partial_map(keymap: KeyMap, own: Iterable[str], without: tuple[str, ...]) -> KeyMap:
    """``keymap`` without what begins with one of ``without``, be it a name of ours or a published one."""
    if not without:
        return keymap
    unwrapped = (bare(prefix).removeprefix(keymap.wrapper) for prefix in without)
    without = (*without, *(prefix for prefix in unwrapped if prefix))
    spared = {keymap.published(name) for name in own if name.startswith(without)}
    parts = {part.name: getattr(keymap, part.name) for part in fields(keymap)}
    return PartialMap(**parts, without=without, spared=frozenset(name for name in spared if name))


@dataclass(frozen=True, slots=True)
class Fit:
    """How the names in a file and those of a network go together through a key map.

    ``found`` are names that lead from one to the other; ``odd`` are missing, unexpected and unknown ones.
    """

    found: int
    odd: int


def fit(keymap: KeyMap, own: Iterable[str], given: Iterable[str]) -> Fit:
    """Counts names only; whether the shapes fit, ``initialise`` says."""
    current = {keymap.current(name) for name in given}
    sources = {name: keymap.published(name) for name in own}
    wanted = {source for source in sources.values() if source is not None}
    unexpected = [name for name in current - wanted if not keymap.ignores(name)]
    unknown = [name for name, source in sources.items() if source is None and not keymap.keeps(name)]
    return Fit(len(wanted & current), len(wanted - current) + len(unexpected) + len(unknown) + (not wanted))
