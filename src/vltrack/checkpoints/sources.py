"""Published weights by family: which of our networks they fit, and how a file is detected by its names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from vltrack.checkpoints.key_maps import (
    AITRACK,
    ALL_IN_ONE,
    ALPHA_CLIP_L14,
    ARTRACK,
    CLIP_VIT_L14,
    CLS,
    LITETRACK,
    MAE_BACKBONE,
    MAE_VIT,
    OSTRACK,
    RESNET,
    STARK,
    STARK_START,
    UVLTRACK,
    KeyMap,
    bert,
    clip_map,
    fold_constant_sentence,
    from_hugging_face,
)
from vltrack.checkpoints.torch_files import Given
from vltrack.core.types import Mode

Prepare = Callable[[Mapping[str, Given]], dict[str, Given]]


@dataclass(frozen=True, kw_only=True)
class WeightSource:
    """A family of published weights.

    Attributes:
        title: the name of the method. docs/import-weights.md lists its files.
        mark: pattern of a name that such files hold, and families further down in ``SOURCES`` do not.
        license: under which the weights are published; "not stated" if their authors do not say.
        maps: our network's name -> key map to the names in the file.
        trained: modes in which a tracker from this file alone works as published; empty for a backbone,
            which is a start for training.
        starts: names of our networks for which it is only a start, in spite of ``trained``.
        fresh: prefixes of our parameters that may stay at their initial values without harm in these modes.
        ambiguous: used only if the user gives the kind, as another family has the same names.
        prepare: function applied to the tensors before they are mapped; ``prepared`` describes it.
    """

    title: str
    mark: str
    license: str
    maps: Mapping[str, KeyMap]
    trained: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    ambiguous: bool = False
    prepare: Prepare | None = None
    prepared: str = ""

    def ready(self, given: Mapping[str, Given]) -> Mapping[str, Given]:
        """Return the tensors as ``maps`` expect them. CheckpointMismatch: they are not of this family."""
        return given if self.prepare is None else self.prepare(given)


_LITETRACK = ("litetrack-base", "litetrack-uvltrack-base")
_OSTRACK_LIKE = (
    *("all-in-one-base", "all-in-one-ostrack-base", "sa-tracker-base"),
    *("aitrack-base", "aitrack-artrack-base"),
)
_STARK = ("bit-tracker-stark-base", "bit-tracker-stark-r50")
_BIT = ("bit-tracker-base", "bit-tracker-base-r50")
MODES = tuple(Mode)


def _without_masks(keymap: KeyMap) -> KeyMap:
    """Return the key map for TorchScript files too, which may store the causal mask of each layer."""
    return replace(keymap, ignored=(*keymap.ignored, r".*attn_mask"))


_ALL_IN_ONE = WeightSource(
    title="All-in-One",
    mark=r"backbone\.language_proj\.weight$",
    license="MIT",
    maps={"all-in-one-base": ALL_IN_ONE},
    trained=(Mode.BBOX,),
    fresh=("bert.",),
    prepare=fold_constant_sentence,
    prepared="what the released code reads in place of a sentence is folded into the patch embedding",
)
# The first whose mark is in a file is the family, so derived methods come before their parents.
SOURCES: dict[str, WeightSource] = {
    "all-in-one": _ALL_IN_ONE,
    "all-in-one-sentence": replace(
        _ALL_IN_ONE,
        prepare=partial(fold_constant_sentence, row=CLS),
        prepared="what the released code reads of every sentence is folded into the patch embedding",
        ambiguous=True,
    ),
    "ostrack": WeightSource(
        title="OSTrack",
        mark=r"box_head\.conv5_ctr\.weight$",
        license="MIT",
        maps=dict.fromkeys(("all-in-one-ostrack-base", "all-in-one-base"), OSTRACK),
        trained=(Mode.BBOX,),
        starts=("all-in-one-base",),
    ),
    "litetrack": WeightSource(
        title="LiteTrack",
        mark=r"backbone\.vit\.blocks\.0\.attn\.fc1\.weight$",
        license="not stated",
        maps={"litetrack-base": LITETRACK},
        trained=MODES,
        fresh=("star_vision.", "star_text.", "selector."),
    ),
    "uvltrack": WeightSource(
        title="UVLTrack",
        mark=r"box_head\.conv_cls\.",
        license="MIT",
        maps=dict.fromkeys(("litetrack-uvltrack-base", "litetrack-uvltrack-large"), UVLTRACK),
        trained=MODES,
    ),
    "aitrack": WeightSource(
        title="AITrack",
        mark=r"lang_embedding\.clip_model\.",
        license="MIT; made from ARTrack, which is not for commercial use",
        maps={"aitrack-base": AITRACK},
        trained=(Mode.BBOX,),
        fresh=("align.",),
    ),
    "artrack": WeightSource(
        title="ARTrack",
        mark=r"pix_head\.",
        license="not for commercial use, says its page",
        maps=dict.fromkeys(("aitrack-artrack-base", "aitrack-base"), ARTRACK),
        trained=(Mode.BBOX,),
        starts=("aitrack-base",),
    ),
    "stark": WeightSource(
        title="STARK",
        mark=r"box_head\.conv1_tl\.",
        license="MIT",
        maps={**dict.fromkeys((*_STARK, "bit-tracker-stark-s50"), STARK), **dict.fromkeys(_BIT, STARK_START)},
        trained=(Mode.BBOX,),
        starts=_BIT,
    ),
    "alpha-clip": WeightSource(
        title="Alpha-CLIP", mark=r"conv1_alpha\.weight$", license="Apache-2.0", maps={"aitrack-base": ALPHA_CLIP_L14}
    ),
    "clip": WeightSource(
        title="CLIP",
        mark=r"^token_embedding\.weight$|^text_model\.",
        license="MIT",
        maps={"aitrack-base": _without_masks(clip_map(image=None))},
        prepare=from_hugging_face,
    ),
    "clip-both": WeightSource(
        title="CLIP",
        mark=r"^token_embedding\.weight$|^text_model\.",
        license="MIT",
        maps={"aitrack-base": _without_masks(CLIP_VIT_L14)},
        prepare=from_hugging_face,
        ambiguous=True,
    ),
    "bert": WeightSource(
        title="BERT",
        mark=r"embeddings\.word_embeddings\.weight$",
        license="Apache-2.0",
        maps={
            **dict.fromkeys(_LITETRACK, bert(6)),
            "litetrack-uvltrack-large": bert(12, large=True),
            "all-in-one-base": bert(0),
            "sa-tracker-base": bert(12),
        },
    ),
    "resnet": WeightSource(
        title="ResNet",
        mark=r"^layer3\.0\.conv1\.weight$",
        license="BSD-3-Clause",
        maps=dict.fromkeys((*_STARK, "bit-tracker-stark-s50", *_BIT), RESNET),
    ),
    "mae": WeightSource(
        title="MAE",
        mark=r"blocks\.0\.attn\.qkv\.weight$",
        license="CC-BY-NC-4.0",
        maps={
            **dict.fromkeys((*_LITETRACK, "litetrack-uvltrack-large"), MAE_VIT),
            **dict.fromkeys(_OSTRACK_LIKE, MAE_BACKBONE),
        },
    ),
}


# Prefixes under which training code saves a network.
_WRAPPERS = re.compile(r"^(?:(?:state_dict|model_state_dict|model|net|network|module)\.)+")


def bare(name: str) -> str:
    """Return a name without the prefixes of wrapped files: ``net.module.x`` -> ``x``."""
    return _WRAPPERS.sub("", name.replace("_orig_mod.", ""))  # the latter is torch.compile's


def partial_map(keymap: KeyMap, own: Iterable[str], skipped: tuple[str, ...]) -> KeyMap:
    """Return ``keymap`` without the parameters whose name, ours or published, has a prefix in ``skipped``."""
    unwrapped = (bare(prefix).removeprefix(keymap.wrapper) for prefix in skipped)
    skipped = (*skipped, *(prefix for prefix in unwrapped if prefix))
    spared = {keymap.published(name) for name in own if name.startswith(skipped)}
    return replace(keymap, skipped=skipped, spared=frozenset(name for name in spared if name))
