"""Published weights into our models by name: declarative maps, and the one function that applies them.

A map reads from our names to the published ones. Every name of ours that it covers must come, every other one
must be listed as fresh; every published name must be used or be listed as ignored: nothing is skipped in
silence. Knows tensors, not files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vltrack.core.errors import CheckpointMismatch, CheckpointNonFinite


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """How a family of published checkpoints names what we name otherwise.

    Attributes:
        title: what error messages call the checkpoint.
        wrapper: prefix that all published names may carry; taken off where they do.
        aliases: (pattern, replacement) that bring older published names to the current ones, tried in turn.
        names: (pattern of our name, template of the published one); the first that matches counts.
        ignored: patterns of published names that have no place with us.
        fresh: patterns of our names for which this checkpoint has nothing. One of a part of the model (a ViT,
            a BERT) leaves all the rest as it is; one of a whole tracker says what it leaves.
    """

    title: str
    wrapper: str
    aliases: tuple[tuple[str, str], ...] = ()
    names: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]
    fresh: tuple[str, ...] = (r".*",)

    def published(self, own: str) -> str | None:
        """The published name of one of ours; None where this checkpoint has nothing for it."""
        for pattern, template in self.names:
            found = re.fullmatch(pattern, own)
            if found:
                return found.expand(template)
        return None

    def current(self, name: str) -> str:
        """A published name without the wrapper and in its current spelling."""
        name = name.removeprefix(self.wrapper)
        for pattern, replacement in self.aliases:
            name = re.sub(pattern, replacement, name)
        return name

    def ignores(self, name: str) -> bool:
        """Whether a published name (current spelling) is known to have no place with us."""
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)

    def keeps(self, own: str) -> bool:
        """Whether one of our names is known to have nothing in this checkpoint."""
        return any(re.fullmatch(pattern, own) for pattern in self.fresh)


# facebookresearch/mae, mae_pretrain_vit_base.pth and _large.pth: one dictionary "model". Our positions are
# fixed (the same sines, for other grids), there is no final norm, and of the visualisation files the decoder
# is not needed.
MAE_VIT = KeyMap(
    title="MAE ViT",
    wrapper="model.",
    names=(
        (r"cls_token", r"cls_token"),
        (r"stem\.(patch_embed\.proj\.(?:weight|bias))", r"\1"),
        (r"(blocks\.\d+\.(?:norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\.(?:weight|bias))", r"\1"),
    ),
    ignored=(r"pos_embed", r"norm\.(weight|bias)", r"mask_token", r"decoder_.*"),
)


def bert_base(layers: int) -> KeyMap:
    """Hugging Face, bert-base-uncased, onto a model that has its embeddings and its lowest ``layers``."""
    return _bert("BERT-base", layers, 12)


def bert_large(layers: int) -> KeyMap:
    """Hugging Face, bert-large-uncased, likewise."""
    return _bert("BERT-large", layers, 24)


def _bert(title: str, layers: int, there: int) -> KeyMap:
    """Layers above ours and the heads of the training tasks have no place here."""
    if not 0 <= layers <= there:
        raise ValueError(f"{title} has {there} layers, {layers} are asked for")
    above = "|".join(str(i) for i in range(layers, there))
    return KeyMap(
        title=title,
        wrapper="bert.",
        aliases=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
        names=((r"bert\.((?:embeddings|encoder\.layer\.\d+)\..+)", r"\1"),),
        ignored=(
            *([rf"encoder\.layer\.({above})\..+"] if above else []),
            r"embeddings\.position_ids",
            r"pooler\.dense\.(weight|bias)",
            r"cls\.(predictions|seq_relationship)\..+",
        ),
    )


# For models with six layers: LiteTrack and UVLTrack-B.
BERT_BASE = bert_base(6)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What ``initialise`` did: names of ours loaded or left as they were, and published ones ignored."""

    loaded: tuple[str, ...]
    kept_fresh: tuple[str, ...]
    ignored: tuple[str, ...]


def initialise(model: nn.Module, tensors: Mapping[str, Tensor], keymap: KeyMap) -> Report:
    """Copy published tensors into ``model``; nothing is copied unless everything fits.

    Raises:
        CheckpointMismatch: names of ours without a published tensor or of which the map knows nothing,
            published names that are neither used nor known to be ignored, two published names for one, other
            shapes or number types (ten each).
        CheckpointNonFinite: a tensor that would be loaded holds NaN or infinity.
    """
    given, faults = _by_current_name(tensors, keymap)
    own = model.state_dict()
    wanted = {name: source for name in own if (source := keymap.published(name)) is not None}
    used = set(wanted.values())
    faults["missing"] = [f"{name} (there {source})" for name, source in wanted.items() if source not in given]
    faults["unknown to the map"] = [n for n in own if n not in wanted and not keymap.keeps(n)]
    faults["unexpected"] = [n for n in given if n not in used and not keymap.ignores(n)]
    fitting = {name: given[source] for name, source in wanted.items() if source in given}
    faults["of another shape"] = [
        f"{name} {tuple(tensor.shape)} for {tuple(own[name].shape)}"
        for name, tensor in fitting.items()
        if tensor.shape != own[name].shape
    ]
    faults["of another kind"] = [
        f"{name} {tensor.dtype}" for name, tensor in fitting.items() if not tensor.is_floating_point()
    ]
    if not wanted:
        faults["missing"] = ["all names: the model has no part for it"]
    if any(faults.values()):
        said = "; ".join(f"{len(v)} {k} (first: {', '.join(v[:10])})" for k, v in faults.items() if v)
        raise CheckpointMismatch(f"the {keymap.title} weights do not fit: {said}.")
    for name, tensor in fitting.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointNonFinite(f"{keymap.title}: tensor {wanted[name]} holds NaN or infinity.")
    with torch.no_grad():
        for name, tensor in fitting.items():
            own[name].copy_(tensor)
    return Report(
        loaded=tuple(fitting),
        kept_fresh=tuple(name for name in own if name not in fitting),
        ignored=tuple(name for name in given if name not in used),
    )


def _by_current_name(
    tensors: Mapping[str, Tensor], keymap: KeyMap
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    given: dict[str, Tensor] = {}
    twice: list[str] = []
    for name, tensor in tensors.items():
        current = keymap.current(name)
        if current in given:
            twice.append(name)
        given[current] = tensor
    return given, {"given twice": twice}
