"""Name maps from our parameters to those of published checkpoints, and the function that applies one.

Every name of ours that a map covers must be in the checkpoint, every other one must be listed as fresh; every
published name must be used or listed as ignored. The facts are from the released code of each project.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from vltrack.checkpoints.store import describe_faults, is_finite, tensor_faults
from vltrack.checkpoints.torch_files import Given, lazily, like, value
from vltrack.core.errors import CheckpointMismatch, CheckpointNonFinite


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """Names of a family of published checkpoints.

    Attributes:
        title: of the checkpoint, for messages.
        wrapper: prefix that all published names may have; removed.
        aliases: (pattern, replacement) from older published names to the current ones, applied in turn.
        names: (pattern of our name, template of the published one); the first that matches counts.
        ignored: patterns of published names without a counterpart in our models.
        fresh: patterns of our names that are not in this checkpoint. The default, all, is for a map of a part
            of the model (a ViT, a BERT); one of a whole tracker lists what it leaves.
        skipped: prefixes of names, ours or published, that are left out on request; see ``partial_map``.
        spared: published names of our skipped parameters.
    """

    title: str
    wrapper: str
    aliases: tuple[tuple[str, str], ...] = ()
    names: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]
    fresh: tuple[str, ...] = (r".*",)
    skipped: tuple[str, ...] = ()
    spared: frozenset[str] = frozenset()

    def published(self, own: str) -> str | None:
        """Return the published name of one of ours; None where this checkpoint has none."""
        if own.startswith(self.skipped):
            return None
        for pattern, template in self.names:
            found = re.fullmatch(pattern, own)
            if found:
                return found.expand(template)
        return None

    def current(self, name: str) -> str:
        """Return a published name without the wrapper and in its current spelling."""
        name = name.removeprefix(self.wrapper)
        for pattern, replacement in self.aliases:
            name = re.sub(pattern, replacement, name)
        return name

    def ignores(self, name: str) -> bool:
        """Return whether a published name (current spelling) may be left unused."""
        left_out = name in self.spared or name.startswith(self.skipped)
        return left_out or any(re.fullmatch(pattern, name) for pattern in self.ignored)

    def keeps(self, own: str) -> bool:
        """Return whether one of our names may keep its initial value."""
        return own.startswith(self.skipped) or any(re.fullmatch(pattern, own) for pattern in self.fresh)


# -- applying a map ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NameMatch:
    """Match of the names of a file and of a network through a key map.

    Attributes:
        wanted: our names -> published names.
        found: number of published names that are wanted and given.
        faults: what does not match -> names.
    """

    wanted: dict[str, str]
    found: int
    faults: dict[str, list[str]]

    @property
    def fits(self) -> bool:
        """Return whether every name is accounted for."""
        return not any(self.faults.values())


def match_names(keymap: KeyMap, own: Iterable[str], given: Iterable[str]) -> NameMatch:
    """Match our names with published ones. Shapes are compared by ``apply_key_map``."""
    own = tuple(own)
    current = dict.fromkeys(map(keymap.current, given))
    wanted = {name: source for name in own if (source := keymap.published(name)) is not None}
    used = set(wanted.values())
    missing = [f"{name} (there {source})" for name, source in wanted.items() if source not in current]
    faults = {
        "missing": missing if wanted else ["all names: the model has no part for it"],
        "unknown to the map": [name for name in own if name not in wanted and not keymap.keeps(name)],
        "unexpected": [name for name in current if name not in used and not keymap.ignores(name)],
    }
    return NameMatch(wanted=wanted, found=len(used & current.keys()), faults=faults)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Result of ``apply_key_map``: names of ours loaded and left fresh, and published ones ignored."""

    loaded: tuple[str, ...]
    kept_fresh: tuple[str, ...]
    ignored: tuple[str, ...]


def apply_key_map(model: nn.Module, tensors: Mapping[str, Given], keymap: KeyMap) -> Report:
    """Copy published tensors into ``model``; nothing is copied unless all of them fit.

    Raises:
        CheckpointMismatch: names of ours without a published tensor or not in the map, published names
            neither used nor ignored, two published names for one, other shapes or number types (ten each).
        CheckpointNonFinite: a tensor that would be loaded holds NaN or infinity.
    """
    own = model.state_dict()
    match = match_names(keymap, own, tensors)
    given = {keymap.current(name): tensor for name, tensor in tensors.items()}
    spellings = Counter(map(keymap.current, tensors))
    twice = [name for name, count in spellings.items() if count > 1]
    fitting = {name: given[source] for name, source in match.wanted.items() if source in given}
    shapes = {name: like(tensor) for name, tensor in fitting.items()}
    faults = {"given twice": twice, **match.faults, **tensor_faults(own, shapes)}
    if any(faults.values()):
        raise CheckpointMismatch(f"The {keymap.title} weights do not fit: {describe_faults(faults)}.")
    for name, tensor in fitting.items():
        if not is_finite(value(tensor)):
            raise CheckpointNonFinite(f"{keymap.title}: tensor {match.wanted[name]} holds NaN or infinity.")
    with torch.no_grad():
        for name, tensor in fitting.items():
            own[name].copy_(value(tensor))  # those in a file are read anew: one at a time is in memory
    used = set(match.wanted.values())
    return Report(
        loaded=tuple(fitting),
        kept_fresh=tuple(name for name in own if name not in fitting),
        ignored=tuple(name for name in given if name not in used),
    )


# -- pretrained backbones ---------------------------------------------------------------------------------

_BLOCKS = r"(blocks\.\d+\.(?:norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\.(?:weight|bias))"
_PATCHES = r"stem\.(patch_embed\.proj\.(?:weight|bias))"
_NORM = r"norm\.(?:weight|bias)"
_ONE_STREAM = tuple((own, r"backbone.\1") for own in (_PATCHES, rf"(pos_embed_[zx]|{_NORM})", _BLOCKS))
"""OSTrack's backbone, which ARTrack shares."""
_UNUSED_VIT = (
    r"backbone\.cls_token",  # of the pretrained ViT; there is no such token in the backbone
    r"backbone\.pos_embed",  # the ViT's own grid, from which pos_embed_z and pos_embed_x were cut
)

# facebookresearch/mae, mae_pretrain_vit_base.pth and _large.pth: one dictionary "model". Our positions are
# fixed (the same sines, for other grids), the final norm is left out, and so is the decoder of the
# visualization files.
MAE_VIT = KeyMap(
    title="MAE ViT",
    wrapper="model.",
    names=((r"cls_token", r"cls_token"), (_PATCHES, r"\1"), (_BLOCKS, r"\1")),
    ignored=(r"pos_embed", _NORM, r"mask_token", r"decoder_.*"),
)

# For backbones of OSTrack's kind: with the final norm and without a class token.
MAE_BACKBONE = replace(
    MAE_VIT,
    title=" ".join(("MAE ViT-B", "(trunk)")),  # as in the cards of imported weights
    names=((_PATCHES, r"\1"), (_BLOCKS, r"\1"), (rf"({_NORM})", r"\1")),
    ignored=(r"cls_token", r"pos_embed", r"mask_token", r"decoder_.*"),
)


def bert(layers: int, *, large: bool = False) -> KeyMap:
    """Map of Hugging Face's bert-base-uncased or bert-large-uncased onto a model with its lowest ``layers``.

    Layers above ours and the heads of the pretraining tasks are ignored.
    """
    title, there = ("BERT-large", 24) if large else ("BERT-base", 12)
    if not 0 <= layers <= there:
        raise ValueError(f"{title} has {there} layers, {layers} are asked for")
    above = "|".join(str(i) for i in range(layers, there))
    return KeyMap(
        title=title,
        wrapper="bert.",
        aliases=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
        names=((r"bert\.((?:embeddings|encoder\.layer\.\d+)\..+)", r"\1"),),
        ignored=(
            rf"encoder\.layer\.({above})\..+",
            r"embeddings\.position_ids",
            r"pooler\.dense\.(weight|bias)",
            r"cls\.(predictions|seq_relationship)\..+",
        ),
    )


# -- ARTrack and AITrack (MIV-XJTU/ARTrack, BasitAlawode/AITrack) -------------------------------------------
#
# Files hold the network under ``net``, next to the state of the optimizer.

# ARTrackSeq_ep0060.pth.tar and the like for ``artrack_base``. The first stage's files (ARTrack) have no past
# boxes: they fit the same configuration with ``history=0``.
ARTRACK = KeyMap(
    title="ARTrack",
    wrapper="net.",
    aliases=((r"attn(1?)\.in_proj_(weight|bias)$", r"attn\1.in_proj.\2"),),
    names=(
        (r"identity", r"identity"),
        *_ONE_STREAM,
        (r"(encoder\..+)", r"pix_head.\1"),
        (r"(decoder\.(?:layers\..+|norm\.(?:weight|bias)))", r"pix_head.\1"),
        (r"decoder\.((?:word|position|prev_position)_embeddings\.weight|output_bias)", r"pix_head.\1"),
    ),
    ignored=(
        *_UNUSED_VIT,
        r"pix_head\.identity_search",  # passed from layer to layer and never read
        r"(optimizer|lr_scheduler)\..+",  # the state of a training
    ),
    fresh=(r"(align|roi|clip_text)\..+",),  # of ``base``, which may be initialized from such a file
)

_TEXT = r"(?:token_embedding|transformer|ln_final|positional_embedding|text_projection)"

# AITrack's for ``base``: ARTrack's and all of Alpha-CLIP. The alignment has no parameters there: ours keeps
# its initial value, which adds nothing; what the released code adds has nearly no effect. No file of
# AITrack's authors was at hand.
AITRACK = KeyMap(
    title="AITrack",
    wrapper=ARTRACK.wrapper,
    aliases=ARTRACK.aliases,
    names=(
        *ARTRACK.names,
        (r"roi\.(.+)", r"lang_embedding.clip_model.visual.\1"),
        (rf"clip_text\.({_TEXT}.*)", r"lang_embedding.clip_model.\1"),
    ),
    ignored=(
        *ARTRACK.ignored,
        r"lang_embedding\.clip_model\.logit_scale",  # the temperature of CLIP's own loss
        # For models without a text side.
        rf"lang_embedding\.clip_model\.{_TEXT}.*",
    ),
    fresh=(r"align\..+",),
)


# -- CLIP ViT-L/14 and Alpha-CLIP --------------------------------------------------------------------------
#
# Three kinds of files: OpenAI's archive (a TorchScript program, which is not read; its state dictionary is),
# Hugging Face's ``openai/clip-vit-large-patch14`` (``from_hugging_face`` renames it), and Alpha-CLIP's, which
# has the image encoder alone. ``roi.`` is AITrack's prefix of the image encoder, ``clip_text.`` that of the
# text encoder; with an empty prefix the encoder is the whole model.

_CLIP_TEXT = (
    r"(?:token_embedding\.weight|positional_embedding|ln_final\.(?:weight|bias)|text_projection"
    r"|transformer\.resblocks\.(?:\d|1[01])\..+)"
)
# The temperature of CLIP's own loss, three sizes that the archive stores as tensors, and position indices of
# older Hugging Face files.
_SPARE = (r"logit_scale", r"input_resolution", r"context_length", r"vocab_size", r".*position_ids")
_IN_PROJ = ((r"attn\.in_proj_(weight|bias)$", r"attn.in_proj.\1"),)


def clip_map(*, image: str | None = "roi.", text: str | None = "clip_text.") -> KeyMap:
    """Map of CLIP ViT-L/14 onto encoders under these prefixes; ``None`` ignores an encoder.

    A model without a text encoder ignores the file's too. ``conv1_alpha`` is not in these files: it keeps its
    zeros, which is plain CLIP.
    """
    names = []
    if image is not None:
        names.append((rf"{re.escape(image)}((?!conv1_alpha).+)", r"visual.\1"))
    if text is not None:
        names.append((rf"{re.escape(text)}({_CLIP_TEXT})", r"\1"))
    spare = _SPARE + (() if image is not None else (r"visual\..+",))
    return KeyMap(title="CLIP ViT-L/14", wrapper="", aliases=_IN_PROJ, names=tuple(names), ignored=(*spare, _CLIP_TEXT))


CLIP_VIT_L14 = clip_map()

# The image encoder with ``conv1_alpha``.
ALPHA_CLIP_L14 = KeyMap(
    title="Alpha-CLIP L/14", wrapper="visual.", aliases=_IN_PROJ, names=((r"roi\.(.+)", r"\1"),), ignored=()
)

_RESBLOCK = r"transformer.resblocks.\1."
_HUGGING_FACE = {
    r"embeddings\.token_embedding\.weight": "token_embedding.weight",
    r"embeddings\.position_embedding\.weight": "positional_embedding",
    r"embeddings\.class_embedding": "class_embedding",
    r"embeddings\.patch_embedding\.weight": "conv1.weight",
    r"pre_layrnorm\.(weight|bias)": r"ln_pre.\1",
    r"post_layernorm\.(weight|bias)": r"ln_post.\1",
    r"final_layer_norm\.(weight|bias)": r"ln_final.\1",
    r"encoder\.layers\.(\d+)\.layer_norm([12])\.(weight|bias)": _RESBLOCK + r"ln_\2.\3",
    r"encoder\.layers\.(\d+)\.self_attn\.(in|out)_proj\.(weight|bias)": _RESBLOCK + r"attn.\2_proj.\3",
    r"encoder\.layers\.(\d+)\.mlp\.fc1\.(weight|bias)": _RESBLOCK + r"mlp.c_fc.\2",
    r"encoder\.layers\.(\d+)\.mlp\.fc2\.(weight|bias)": _RESBLOCK + r"mlp.c_proj.\2",
}
"""Names after ``text_model.`` or ``vision_model.`` -> OpenAI's."""
_TRANSPOSED = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
_PART = re.compile(r"(.+\.self_attn\.)([qkv])(_proj\.(?:weight|bias))")


def from_hugging_face(tensors: Mapping[str, Given]) -> dict[str, Given]:
    """Rename a CLIP of Hugging Face to OpenAI's names; any other file is returned unchanged.

    Query, key and value become one matrix, the two projections are transposed. Other names stay, and so do
    the three where one is missing or of another shape: the key map then reports what does not fit.
    """
    if not any(name.startswith(("text_model.", "vision_model.")) for name in tensors):
        return dict(tensors)
    renamed: dict[str, Given] = {}
    joined: dict[str, dict[str, str]] = {}
    for name, tensor in tensors.items():
        if part := _PART.fullmatch(name):
            joined.setdefault(_openai_name(f"{part[1]}in{part[3]}"), {})[part[2]] = name
        elif name in _TRANSPOSED and like(tensor).ndim == 2:
            renamed[_TRANSPOSED[name]] = lazily(torch.t, tensor)
        else:
            renamed[_openai_name(name)] = tensor
    for target, parts in joined.items():
        shapes = {like(tensors[name]).shape for name in parts.values()}
        if len(parts) == 3 and len(shapes) == 1 and shapes != {torch.Size()}:
            renamed[target] = lazily(lambda *three: torch.cat(three), *(tensors[parts[part]] for part in "qkv"))
        else:
            renamed.update({name: tensors[name] for name in parts.values()})
    return renamed


def _openai_name(name: str) -> str:
    encoder, _, rest = name.partition("_model.")
    for pattern, template in _HUGGING_FACE.items():
        found = re.fullmatch(pattern, rest)
        if found and encoder in ("text", "vision"):
            return ("visual." if encoder == "vision" else "") + found.expand(template)
    return name


# -- OSTrack and All-in-One (botaoye/OSTrack, 983632847/All-in-One) ------------------------------------------
#
# Files hold the network under ``net``, next to the state of the optimizer.

_OSTRACK_TOWERS = {"centre": "ctr", "offset": "offset", "size": "size"}
PAD, CLS, _PREFIX = 0, 101, "net."


def _towers(names: Mapping[str, str], layer: str) -> tuple[tuple[str, str], ...]:
    """Names of towers: four layers of convolution (0), batch norm (1) and ReLU (2), then a 1x1 convolution.

    ``names`` are our towers -> theirs; ``layer`` is the template of the published name of one layer.
    """
    pairs = []
    for ours, theirs in names.items():
        there = [rf"box_head.{layer.format(tower=theirs, index=i, number=i + 1)}" for i in range(5)]
        for i in range(4):
            for part in (0, 1):
                own = rf"head\.{ours}\.body\.{3 * i + part}\.(weight|bias|running_mean|running_var)"
                pairs.append((own, rf"{there[i]}.{part}.\1"))
        pairs.append((rf"head\.{ours}\.out\.(weight|bias)", rf"{there[4]}.\1"))
    return tuple(pairs)


# OSTrack_ep0300.pth.tar and the like, with and without candidate elimination (which has no weights).
OSTRACK = KeyMap(
    title="OSTrack",
    wrapper=_PREFIX,
    names=(*_ONE_STREAM, *_towers(_OSTRACK_TOWERS, "conv{number}_{tower}")),
    ignored=(
        *_UNUSED_VIT,
        r"box_head\..+\.num_batches_tracked",  # counts of training steps
        r"(optimizer|lr_scheduler)\..+",  # the state of a training
    ),
)

ALL_IN_ONE = KeyMap(
    title="All-in-One",
    wrapper=_PREFIX,
    names=(
        *OSTRACK.names,
        (r"language\.(weight|bias)", r"backbone.language_proj.\1"),
        (r"aligner\.search\.(weight|bias)", r"backbone.vision_x_proj.\1"),
        (r"aligner\.template\.(weight|bias)", r"backbone.vision_z_proj.\1"),
        (r"aligner\.words\.(weight|bias)", r"backbone.language_xz_proj.\1"),
    ),
    ignored=(
        *OSTRACK.ignored,
        # The word table is random: it was used without a gradient. Ours stays fresh; see ``bert``.
        r"language_embeddings\..+",
    ),
)
"""For ``base``, after ``fold_constant_sentence``: then box-only tracking is the released tracker."""


def fold_constant_sentence(tensors: Mapping[str, Given], row: int = PAD) -> dict[str, Given]:
    """Fold the constant sentence of a released All-in-One checkpoint into the patch embedding.

    The released code takes the first row of an embedding layer: ``CLS`` for every sentence, ``PAD`` for a box
    alone. The gain of each channel, 1 + normalize(W l + b), is therefore a constant, and scaling the channels of
    a convolution's output is scaling the convolution. The aligners, which read patches before that gain, are
    divided by it. With a box alone the result tracks as the released tracker does with that row.

    Raises:
        CheckpointMismatch: a tensor that this needs is missing.
    """
    folded = dict(tensors)
    wrapper = _PREFIX if any(name.startswith(_PREFIX) for name in folded) else ""

    def named(name: str) -> Given:
        if wrapper + name not in folded:
            raise CheckpointMismatch(f"The All-in-One weights do not fit: {wrapper}{name} is missing.")
        return folded[wrapper + name]

    def embedding(table: str, row: int) -> Tensor:
        return value(named(f"language_embeddings.{table}_embeddings.weight"))[row].double()

    row_C = embedding("word", row) + embedding("position", 0) + embedding("token_type", 0)
    scale_C, shift_C = (value(named(f"language_embeddings.LayerNorm.{name}")).double() for name in ("weight", "bias"))
    row_C = functional.layer_norm(row_C, row_C.shape, scale_C, shift_C, eps=1e-12)
    weight_CC, bias_C = (value(named(f"backbone.language_proj.{name}")).double() for name in ("weight", "bias"))
    gain_C = 1 + functional.normalize(weight_CC @ row_C + bias_C, dim=0)
    gains = {"backbone.patch_embed.proj.weight": gain_C[:, None, None, None]}
    gains["backbone.patch_embed.proj.bias"] = gain_C
    for name in ("backbone.vision_x_proj.weight", "backbone.vision_z_proj.weight"):
        gains[name] = 1 / gain_C.repeat(like(named(name)).shape[1] // len(gain_C))
    for name, gain in gains.items():
        folded[wrapper + name] = lazily(partial(_scaled, gain), named(name))
    return {name: t for name, t in folded.items() if not name.startswith(f"{wrapper}language_embeddings.")}


def _scaled(gain: Tensor, tensor: Tensor) -> Tensor:
    return (tensor.double() * gain.to(tensor.device)).to(tensor.dtype)


# -- STARK and torchvision's ResNet (researchmm/Stark, STARK-ST50 and STARK-ST101, stages 1 and 2) ----------
#
# Files hold the network under ``net``, next to the state of the training. Batch norms of the ResNet are
# frozen and have four buffers; sine positions are computed, not stored.

_COUNTERS = r"head\..+\.num_batches_tracked"

_SHARED = (
    (r"stem\.body\.(.+)", r"backbone.0.body.\1"),
    (r"stem\.project\.(weight|bias)", r"bottleneck.\1"),
    (r"encoder\.(\d+\..+)", r"transformer.encoder.layers.\1"),
    # a tower's name follows its layer there: tl.conv1.0.weight, conv1_tl.0.weight
    (r"head\.(tl|br)\.conv(\d)((?:\.[01])?\.(?!num_batches)\w+)", r"box_head.conv\2_\1\3"),
)
_TRAINING = (
    r"box_head\..+\.num_batches_tracked",  # counts of training steps
    r"(optimizer|lr_scheduler|stats|settings)\..+",
)

# STARKST_ep0050.pth.tar of baseline and baseline_R101, and STARKS_ep0500.pth.tar, which has no score head, onto
# the presets.
STARK = KeyMap(
    title="STARK",
    wrapper="net.",
    names=(
        *_SHARED,
        (r"decoder\.query_embed\.weight", r"query_embed.weight"),
        (r"decoder\.((?:layers\.\d+|norm)\..+)", r"transformer.decoder.\1"),
        (r"score_head\.layers\.(\d\.(?:weight|bias))", r"cls_head.layers.\1"),
    ),
    ignored=_TRAINING,
    fresh=(_COUNTERS,),
)

STARK_START = KeyMap(
    title="STARK-ST (start)",
    wrapper="net.",
    names=_SHARED,
    ignored=(
        *_TRAINING,
        # BIT-Tracker has no decoder, and the input of its score head is another, twice as wide.
        r"transformer\.decoder\..+",
        r"query_embed\.weight",
        r"cls_head\.layers\.\d\.(weight|bias)",
    ),
    fresh=(_COUNTERS, r"(mdai|ctif|score_head|bert|text_project)\..+", r"text_type"),
)
"""The same files onto ``base`` and ``base-r50``, as a start for training: without decoder and score."""

# torchvision's resnet50 and resnet101 of any year; newer files count training steps.
RESNET = KeyMap(
    title="torchvision ResNet",
    wrapper="",
    names=((r"stem\.body\.(.+)", r"\1"),),
    ignored=(r"layer4\..+", r"fc\.(weight|bias)", r".+\.num_batches_tracked"),
)


# -- UVLTrack and LiteTrack (OpenSpaceAI/UVLTrack, yll1214/LiteTrack) ----------------------------------------
#
# Files hold the network under ``net`` (``model`` in reduced files), next to the state of the training.

_UVLTRACK_TOWERS = ("conv_cls", "conv_offset", "conv_bbox", "conv_bbox_grounding")

UVLTRACK = KeyMap(
    title="UVLTrack",
    wrapper="",
    aliases=(
        (r"^(net|model)\.", ""),
        (r"^module\.", ""),
        (r"^box_head\.image_tokenlize\.", "box_head.prompter."),  # an earlier name of the same part
    ),
    names=(
        (r"(cls_token|modal_embed)", r"backbone.vit.\1"),
        (_PATCHES, r"backbone.vit.\1"),
        (_BLOCKS, r"backbone.vit.\1"),
        (r"(bert\.(?:embeddings|encoder\.layer\.\d+)\..+)", r"backbone.\1"),
        (r"log_contrast", "backbone.logit_scale"),
        (r"head\.prompter\.queries", "box_head.prompter.query_embed.weight"),
        (r"head\.prompter\.log_build", "box_head.prompter.logit_scale"),
        (r"head\.prompter\.log_score", "box_head.logit_scale"),
        (r"head\.(prompter\.(?:mlp\.fc[12]|q|kv|proj)\.(?:weight|bias))", r"box_head.\1"),
        *_towers({name: name for name in _UVLTRACK_TOWERS}, "{tower}.{index}"),
    ),
    ignored=(
        r"backbone\.vit\.pos_embed_[zx]",  # fixed sines, which we compute
        r"backbone\.vit\.norm\.(weight|bias)",  # never applied
        r"backbone\.bert\.pooler\.dense\.(weight|bias)",  # never applied
        r"box_head\.prompter\.(q|kv|proj|norm)\.(weight|bias)",  # never applied
        r"box_head\.coodinate",  # the numbers of the cells
        r"box_head\..+\.num_batches_tracked",  # counts of training steps
        r"(optimizer|lr_scheduler|stats)\..+",  # the state of a training
    ),
    fresh=(r"head\.conv_.+\.num_batches_tracked",),
)
"""``UVLTrack_ep0300.pth.tar`` of both sizes onto ``uvltrack-base`` and ``uvltrack-large``."""

LITETRACK = replace(
    UVLTRACK,
    title="LiteTrack",
    names=(*UVLTRACK.names, (r"(blocks\.\d+\.attn)\.gate\.(fc[12]\.(?:weight|bias))", r"backbone.vit.\1.\2")),
    # A linear layer of 4 C x 4 C in every MLP of some versions, whose call is commented out.
    ignored=(*UVLTRACK.ignored, r"backbone\.vit\.blocks\.\d+\.mlp\.dwconv\..+"),
    fresh=(
        *UVLTRACK.fresh,
        r"star_(vision|text)\..+",  # created anew at every call there, so that no file has them
        r"selector\..+",  # a fixed threshold there
    ),
)
"""LiteTrack's files onto ``litetrack-base``: with the gates, but fresh adapters and selector.

The released network draws the weights of its adapters anew in every pass, and loses its mask in the gated
attention: its output is not a function of the file. Here it is.
"""
