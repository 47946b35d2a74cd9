"""CLIP's and Alpha-CLIP's published names onto our towers. Knows names, no files and no tracker.

Three kinds of files hold CLIP ViT-L/14: OpenAI's archive (a TorchScript program, which is not read; its state
dictionary is), Hugging Face's ``openai/clip-vit-large-patch14`` (other names, see ``from_hugging_face``), and
Alpha-CLIP's, which has the picture's tower alone. Prefixes are those of AITrack: ``roi.`` is the picture's
tower, ``clip_text.`` the sentence's; an empty prefix is a tower on its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vltrack.checkpoints.keymaps import KeyMap

_TEXT = (
    r"(?:token_embedding\.weight|positional_embedding|ln_final\.(?:weight|bias)|text_projection"
    r"|transformer\.resblocks\.(?:\d|1[01])\..+)"
)
# The temperature of CLIP's own loss, three sizes that the archive keeps as numbers, and position numbers of
# older Hugging Face files.
_SPARE = (r"logit_scale", r"input_resolution", r"context_length", r"vocab_size", r".*position_ids")
_IN_PROJ = ((r"attn\.in_proj_(weight|bias)$", r"attn.in_proj.\1"),)


def clip_map(*, picture: str | None = "roi.", text: str | None = "clip_text.") -> KeyMap:
    """CLIP ViT-L/14 onto towers under these prefixes; ``None`` where a tower is not wanted.

    A model without a tower for sentences leaves the file's out. ``conv1_alpha`` is not in these files: it
    keeps its zeros, which is plain CLIP.
    """
    names = []
    if picture is not None:
        names.append((rf"{re.escape(picture)}((?!conv1_alpha).+)", r"visual.\1"))
    if text is not None:
        names.append((rf"{re.escape(text)}({_TEXT})", r"\1"))
    spare = _SPARE + (() if picture is not None else (r"visual\..+",))
    return KeyMap(
        title="CLIP ViT-L/14", wrapper="", aliases=_IN_PROJ, names=tuple(names), ignored=(*spare, _TEXT)
    )


def alpha_clip_map(*, picture: str = "roi.") -> KeyMap:
    """Alpha-CLIP L/14 (the picture's tower with ``conv1_alpha``) onto the tower under this prefix."""
    return KeyMap(
        title="Alpha-CLIP L/14",
        wrapper="visual.",
        aliases=_IN_PROJ,
        names=((rf"{re.escape(picture)}(.+)", r"\1"),),
        ignored=(),
    )


CLIP_VIT_L14 = clip_map()
ALPHA_CLIP_L14 = alpha_clip_map()

_HUGGING_FACE = (
    (r"text_model\.embeddings\.token_embedding\.weight", "token_embedding.weight"),
    (r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"text_model\.final_layer_norm\.(weight|bias)", r"ln_final.\1"),
    (r"vision_model\.embeddings\.class_embedding", "visual.class_embedding"),
    (r"vision_model\.embeddings\.patch_embedding\.weight", "visual.conv1.weight"),
    (r"vision_model\.embeddings\.position_embedding\.weight", "visual.positional_embedding"),
    (r"vision_model\.pre_layrnorm\.(weight|bias)", r"visual.ln_pre.\1"),
    (r"vision_model\.post_layernorm\.(weight|bias)", r"visual.ln_post.\1"),
)
_LAYER = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_IN_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_TURNED = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
_PARTS = tuple(f"self_attn.{part}_proj" for part in "qkv")


def from_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP of Hugging Face under OpenAI's names; any other file is passed on as it is.

    Query, key and value become one matrix, the two projections are turned. Names that are not known stay, and
    so do the three where one is missing or of another shape: the key map then names what does not fit.
    """
    if not any(name.startswith(("text_model.", "vision_model.")) for name in tensors):
        return dict(tensors)
    renamed: dict[str, Tensor] = {}
    joined: dict[str, dict[str, str]] = {}
    for name, tensor in tensors.items():
        found = _LAYER.fullmatch(name)
        if found and found[3] in _PARTS:
            target = _in_layer(found, "attn.in_proj")
            joined.setdefault(target, {})[found[3]] = name
        elif found and found[3] in _IN_LAYER:
            renamed[_in_layer(found, _IN_LAYER[found[3]])] = tensor
        elif name in _TURNED and tensor.ndim == 2:
            renamed[_TURNED[name]] = tensor.T
        else:
            renamed[_outside(name)] = tensor
    for target, parts in joined.items():
        shapes = {tensors[name].shape for name in parts.values()}
        if len(parts) == len(_PARTS) and len(shapes) == 1 and shapes != {torch.Size()}:
            renamed[target] = torch.cat([tensors[parts[part]] for part in _PARTS])
        else:
            renamed.update({name: tensors[name] for name in parts.values()})
    return renamed


def _in_layer(found: re.Match[str], part: str) -> str:
    tower = "visual." if found[1] == "vision" else ""
    return f"{tower}transformer.resblocks.{found[2]}.{part}.{found[4]}"


def _outside(name: str) -> str:
    for pattern, template in _HUGGING_FACE:
        found = re.fullmatch(pattern, name)
        if found:
            return found.expand(template)
    return name
