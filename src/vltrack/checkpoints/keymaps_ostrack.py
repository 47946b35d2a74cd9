"""OSTrack's and All-in-One's published names onto ours. Knows names and two facts of arithmetic, no files.

Facts are from the released code of both (botaoye/OSTrack, 983632847/All-in-One): their files hold the network
under ``net``, beside the state of the optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor
from torch.nn import functional

from vltrack.checkpoints.keymaps import MAE_VIT, KeyMap
from vltrack.core.errors import CheckpointMismatch

_TOWERS = (("centre", "ctr"), ("offset", "offset"), ("size", "size"))
_BLOCKS = r"(blocks\.\d+\.(?:norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\.(?:weight|bias))"
_PATCHES = r"stem\.(patch_embed\.proj\.(?:weight|bias))"
_CLS, _PREFIX = 101, "net."


def _head() -> list[tuple[str, str]]:
    """Each tower: four layers of convolution (0) and batch norm (1), then a 1x1 convolution (5)."""
    names = []
    for ours, theirs in _TOWERS:
        for layer in range(4):
            for part, tensors in enumerate(("weight|bias", "weight|bias|running_mean|running_var")):
                own = rf"head\.{ours}\.body\.{3 * layer + part}\.({tensors})"
                names.append((own, rf"box_head.conv{layer + 1}_{theirs}.{part}.\1"))
        names.append((rf"head\.{ours}\.out\.(weight|bias)", rf"box_head.conv5_{theirs}.\1"))
    return names


# OSTrack_ep0300.pth.tar and its kin, with and without candidate elimination (which has no weights).
OSTRACK = KeyMap(
    title="OSTrack",
    wrapper=_PREFIX,
    names=(
        (_PATCHES, r"backbone.\1"),
        (r"(pos_embed_[zx]|norm\.(?:weight|bias))", r"backbone.\1"),
        (_BLOCKS, r"backbone.\1"),
        *_head(),
    ),
    ignored=(
        r"backbone\.cls_token",  # of the ViT that it started from; no token of that kind enters the trunk
        r"backbone\.pos_embed",  # the ViT's own grid, from which pos_embed_z and pos_embed_x were cut
        r"box_head\..+\.num_batches_tracked",  # counts of training steps, which evaluation never reads
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
        # The word table is random: it was used without a gradient. Ours keeps what it has; see BERT_BASE.
        r"language_embeddings\..+",
    ),
)
"""For ``base``. Give it what ``fold_constant_sentence`` returns: then BBOX mode is the released tracker."""

# As MAE_VIT, for trunks of OSTrack's kind: with the final norm and without a class token.
MAE_TRUNK = replace(
    MAE_VIT,
    title="MAE ViT-B (trunk)",
    names=((_PATCHES, r"\1"), (_BLOCKS, r"\1"), (r"(norm\.(?:weight|bias))", r"\1")),
    ignored=(r"cls_token", r"pos_embed", r"mask_token", r"decoder_.*"),
)


def fold_constant_sentence(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released All-in-One checkpoint with its sentence in the patch embedding, where it changes nothing.

    The released code takes the [CLS] row of an embedding layer, the same vector for every sentence. Its gain
    of each channel, 1 + normalise(W l + b), is therefore a constant, and scaling the channels of a
    convolution's output is scaling the convolution. The aligners, which read patches before that gain, are
    divided by it. The result tracks by box as the released tracker does with any sentence.

    Raises:
        CheckpointMismatch: a tensor that this needs is missing.
    """
    folded = dict(tensors)
    wrapper = _PREFIX if any(name.startswith(_PREFIX) for name in folded) else ""

    def named(name: str) -> Tensor:
        if wrapper + name not in folded:
            raise CheckpointMismatch(f"the All-in-One weights do not fit: {wrapper}{name} is missing.")
        return folded[wrapper + name].double()

    row_C = (
        named("language_embeddings.word_embeddings.weight")[_CLS]
        + named("language_embeddings.position_embeddings.weight")[0]
        + named("language_embeddings.token_type_embeddings.weight")[0]
    )
    scale_C, shift_C = (named(f"language_embeddings.LayerNorm.{name}") for name in ("weight", "bias"))
    row_C = functional.layer_norm(row_C, row_C.shape, scale_C, shift_C, eps=1e-12)
    weight_CC, bias_C = (named(f"backbone.language_proj.{name}") for name in ("weight", "bias"))
    gain_C = 1 + functional.normalize(weight_CC @ row_C + bias_C, dim=0)
    gains = {"backbone.patch_embed.proj.weight": gain_C[:, None, None, None]}
    gains["backbone.patch_embed.proj.bias"] = gain_C
    for name in ("backbone.vision_x_proj.weight", "backbone.vision_z_proj.weight"):
        gains[name] = 1 / gain_C.repeat(named(name).shape[1] // len(gain_C))
    for name, gain in gains.items():
        folded[wrapper + name] = (named(name) * gain).to(folded[wrapper + name].dtype)
    return {name: t for name, t in folded.items() if not name.startswith(f"{wrapper}language_embeddings.")}
