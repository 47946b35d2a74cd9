"""UVLTrack's and LiteTrack's published names onto our ``LiteTrack``. Knows names, no files.

Facts are from the released code of both (OpenSpaceAI/UVLTrack, yll1214/LiteTrack): files hold the network
under ``net`` (``model`` in files that were made smaller), beside the state of the training.
"""

from __future__ import annotations

from dataclasses import replace

from vltrack.checkpoints.keymaps import KeyMap

_TOWERS = "conv_cls|conv_offset|conv_bbox|conv_bbox_grounding"
_NORMED = "weight|bias|running_mean|running_var"


def _towers() -> list[tuple[str, str]]:
    """Four layers of convolution (0) and batch norm (1) and a ReLU (2) each, then a 1x1 convolution."""
    names = []
    for layer in range(4):
        for part, tensors in enumerate(("weight|bias", _NORMED)):
            own = rf"head\.({_TOWERS})\.body\.{3 * layer + part}\.({tensors})"
            names.append((own, rf"box_head.\1.{layer}.{part}.\2"))
    return [*names, (rf"head\.({_TOWERS})\.out\.(weight|bias)", r"box_head.\1.4.\2")]


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
        (r"stem\.(patch_embed\.proj\.(?:weight|bias))", r"backbone.vit.\1"),
        (
            r"(blocks\.\d+\.(?:norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\.(?:weight|bias))",
            r"backbone.vit.\1",
        ),
        (r"(bert\.(?:embeddings|encoder\.layer\.\d+)\..+)", r"backbone.\1"),
        (r"log_contrast", "backbone.logit_scale"),
        (r"head\.prompter\.queries", "box_head.prompter.query_embed.weight"),
        (r"head\.prompter\.log_build", "box_head.prompter.logit_scale"),
        (r"head\.prompter\.log_score", "box_head.logit_scale"),
        (r"head\.(prompter\.(?:mlp\.fc[12]|q|kv|proj)\.(?:weight|bias))", r"box_head.\1"),
        *_towers(),
    ),
    ignored=(
        r"backbone\.vit\.pos_embed_[zx]",  # fixed, the sines that we compute
        r"backbone\.vit\.norm\.(weight|bias)",  # never applied
        r"backbone\.bert\.pooler\.dense\.(weight|bias)",  # never applied
        r"box_head\.prompter\.(q|kv|proj|norm)\.(weight|bias)",  # never applied
        r"box_head\.coodinate",  # the numbers of the cells
        r"box_head\..+\.num_batches_tracked",  # counts of training steps, which evaluation never reads
        r"(optimizer|lr_scheduler|stats)\..+",  # the state of a training
    ),
    fresh=(r"head\.conv_.+\.num_batches_tracked",),
)
"""``UVLTrack_ep0300.pth.tar`` of both sizes onto ``uvltrack-base`` and ``uvltrack-large``."""

LITETRACK = replace(
    UVLTRACK,
    title="LiteTrack",
    names=(*UVLTRACK.names, (r"(blocks\.\d+\.attn)\.gate\.(fc[12]\.(?:weight|bias))", r"backbone.vit.\1.\2")),
    # A linear layer of 4 C x 4 C beside every MLP of some versions, whose call is commented out.
    ignored=(*UVLTRACK.ignored, r"backbone\.vit\.blocks\.\d+\.mlp\.dwconv\..+"),
    fresh=(
        *UVLTRACK.fresh,
        r"star_(vision|text)\..+",  # made anew at every call there, so that no file holds them
        r"selector\..+",  # a fixed threshold there
    ),
)
"""LiteTrack's files onto ``litetrack-base``: the gates come from there, adapters and selector stay as made.

The released network draws the weights of its adapters anew in every pass, and loses its mask in the gated
attention: what such a file computes there is no function of the file. Here it computes what stands in it.
"""
