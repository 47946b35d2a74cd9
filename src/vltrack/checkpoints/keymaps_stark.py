"""STARK's and torchvision's ResNet names onto ours. Knows names, no files and no numbers.

Facts are from the released code (researchmm/Stark, networks STARK-ST50 and STARK-ST101, stage 1 and 2): files
hold the network under ``net``, beside the state of the training. Its batch norms in the ResNet are frozen and
have four buffers; its sine positions are computed, not stored.
"""

from __future__ import annotations

from vltrack.checkpoints.keymaps import KeyMap

_COUNTERS = r"head\..+\.num_batches_tracked"

_SHARED = (
    (r"stem\.body\.(.+)", r"backbone.0.body.\1"),
    (r"stem\.project\.(weight|bias)", r"bottleneck.\1"),
    (r"encoder\.(\d+\..+)", r"transformer.encoder.layers.\1"),
    # a tower's name stands behind its layer there: tl.conv1.0.weight, conv1_tl.0.weight
    (r"head\.(tl|br)\.conv(\d)((?:\.[01])?\.(?!num_batches)\w+)", r"box_head.conv\2_\1\3"),
)
_TRAINING = (
    r"box_head\..+\.num_batches_tracked",  # counts of training steps, which evaluation never reads
    r"(optimizer|lr_scheduler|stats|settings)\..+",
)

# STARKST_ep0050.pth.tar of baseline and baseline_R101, onto the presets.
STARK = KeyMap(
    title="STARK-ST",
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
        # BIT-Tracker has no decoder, and its score head reads something else, twice as wide.
        r"transformer\.decoder\..+",
        r"query_embed\.weight",
        r"cls_head\.layers\.\d\.(weight|bias)",
    ),
    fresh=(_COUNTERS, r"(mdai|ctif|score_head|bert|text_project)\..+", r"text_type"),
)
"""The same files onto ``base`` and ``base-r50``, to start training: all but the decoder and the score."""

# torchvision's resnet50 and resnet101 of any year; newer files count training steps.
RESNET = KeyMap(
    title="torchvision ResNet",
    wrapper="",
    names=((r"stem\.body\.(.+)", r"\1"),),
    ignored=(r"layer4\..+", r"fc\.(weight|bias)", r".+\.num_batches_tracked"),
)
