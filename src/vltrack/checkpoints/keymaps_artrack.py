"""ARTrack's and AITrack's published names onto ours. Knows names, no files.

Facts are from the released code of both (MIV-XJTU/ARTrack, BasitAlawode/AITrack): their files hold the
network under ``net``, beside the state of the optimizer. No file of AITrack's authors was at hand.
"""

from __future__ import annotations

from vltrack.checkpoints.keymaps import KeyMap

# ARTrackSeq_ep0060.pth.tar and its kin for ``artrack_base``. The first stage's files (ARTrack) know no past
# boxes: they fit the same configuration with ``history=0``.
ARTRACK = KeyMap(
    title="ARTrack",
    wrapper="net.",
    aliases=((r"attn(1?)\.in_proj_(weight|bias)$", r"attn\1.in_proj.\2"),),
    names=(
        (r"identity", r"identity"),
        (r"stem\.(patch_embed\.proj\.(?:weight|bias))", r"backbone.\1"),
        (r"(pos_embed_[zx]|norm\.(?:weight|bias))", r"backbone.\1"),
        (
            r"(blocks\.\d+\.(?:norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\.(?:weight|bias))",
            r"backbone.\1",
        ),
        (r"(encoder\..+)", r"pix_head.\1"),
        (r"(decoder\.(?:layers\..+|norm\.(?:weight|bias)))", r"pix_head.\1"),
        (
            r"decoder\.((?:word|position|prev_position)_embeddings\.weight|output_bias)",
            r"pix_head.\1",
        ),
    ),
    ignored=(
        r"backbone\.cls_token",  # of the ViT that it started from; no token of that kind enters the trunk
        r"backbone\.pos_embed",  # the ViT's own grid, from which pos_embed_z and pos_embed_x were cut
        r"pix_head\.identity_search",  # handed on from layer to layer and never read
        r"(optimizer|lr_scheduler)\..+",  # the state of a training
    ),
    fresh=(r"(align|roi|clip_text)\..+",),  # of ``base``, which may start from such a file
)

_TEXT = r"(?:token_embedding|transformer|ln_final|positional_embedding|text_projection)"

# AITrack's for ``base``: ARTrack's and all of Alpha-CLIP. The alignment has no parameters there: ours keeps
# its start, which adds nothing; what the released code adds has nearly no effect.
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
