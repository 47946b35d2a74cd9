"""Names and shapes of the tensors in published files, written down from the released code of each project.

Every function returns name -> shape, at the published widths or at narrow ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vltrack.models.aitrack import AITrackConfig

Shapes = dict[str, tuple[int, ...]]
STATISTICS = ("weight", "bias", "running_mean", "running_var")


def under(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def linear(name: str, out: int, inside: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (out, inside)} | ({f"{name}.bias": (out,)} if bias else {})


def norm(name: str, width: int, weight: str = "weight", bias: str = "bias") -> Shapes:
    return {f"{name}.{weight}": (width,), f"{name}.{bias}": (width,)}


def batch_norm(name: str, width: int, counter: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.{part}": (width,) for part in STATISTICS}
    return shapes | ({f"{name}.num_batches_tracked": ()} if counter else {})


def conv(name: str, out: int, inside: int, kernel: int) -> Shapes:
    return {f"{name}.weight": (out, inside, kernel, kernel), f"{name}.bias": (out,)}


def tower(layers: list[str], inside: int, channels: tuple[int, ...], out: int) -> Shapes:
    """Convolutions with batch norms, then a 1x1 convolution; ``layers`` are their names."""
    shapes: Shapes = {}
    for layer, outside in zip(layers, channels, strict=False):
        shapes |= conv(f"{layer}.0", outside, inside, 3) | batch_norm(f"{layer}.1", outside)
        inside = outside
    return shapes | conv(layers[-1], out, inside, 1)


def random_tensors(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    whole = ("input_resolution", "context_length", "vocab_size", "position_ids")
    return {
        name: torch.arange(7) if name.endswith(whole) else torch.randn(shape, generator=generator) * 0.1
        for name, shape in shapes.items()
    }


# -- MAE, BERT ---------------------------------------------------------------------------------------------


def vit_blocks(width: int, layers: int) -> Shapes:
    shapes: Shapes = {}
    for i in range(layers):
        block = f"blocks.{i}."
        shapes |= norm(f"{block}norm1", width) | norm(f"{block}norm2", width)
        shapes |= linear(f"{block}attn.qkv", 3 * width, width) | linear(f"{block}attn.proj", width, width)
        shapes |= linear(f"{block}mlp.fc1", 4 * width, width) | linear(f"{block}mlp.fc2", width, 4 * width)
    return shapes


def mae_shapes(width: int = 64, layers: int = 12, wrapper: str = "model.") -> Shapes:
    """mae_pretrain_vit_base.pth: 150 tensors for 12 layers of width 768."""
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 14 * 14 + 1, width)}
    shapes |= conv("patch_embed.proj", width, 3, 16) | vit_blocks(width, layers) | norm("norm", width)
    return under(wrapper, shapes)


def bert_shapes(width: int, hidden: int, layers: int = 12, names: tuple[str, str] = ("weight", "bias")) -> Shapes:
    """Embeddings, layers and pooler of BERT."""
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (30522, width),
        "embeddings.position_embeddings.weight": (512, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        **norm("embeddings.LayerNorm", width, *names),
        **linear("pooler.dense", width, width),
    }
    for i in range(layers):
        layer = f"encoder.layer.{i}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= linear(f"{layer}{name}", width, width)
        shapes |= linear(f"{layer}intermediate.dense", hidden, width) | linear(f"{layer}output.dense", width, hidden)
        for name in ("attention.output", "output"):
            shapes |= norm(f"{layer}{name}.LayerNorm", width, *names)
    return shapes


def bert_file(width: int = 64, hidden: int = 128, layers: int = 12, *, old: bool = False) -> Shapes:
    """bert-base-uncased as published: with the heads of its two training tasks."""
    names = ("gamma", "beta") if old else ("weight", "bias")
    return under("bert.", bert_shapes(width, hidden, layers, names)) | {
        "cls.predictions.bias": (30522,),
        **linear("cls.predictions.transform.dense", width, width),
        **norm("cls.predictions.transform.LayerNorm", width, *names),
        **linear("cls.predictions.decoder", 30522, width, bias=False),
        **linear("cls.seq_relationship", 2, width),
    }


# -- OSTrack, All-in-One -----------------------------------------------------------------------------------


def backbone_shapes(width: int, layers: int, cells: tuple[int, int]) -> Shapes:
    """OSTrack's and ARTrack's ``backbone``: a ViT with positions for both regions next to its own."""
    z, x = cells
    positions: Shapes = {"pos_embed_z": (1, z, width), "pos_embed_x": (1, x, width)}
    return under("backbone.", mae_shapes(width, layers, wrapper="") | positions)


def ostrack_shapes(width: int, channels: tuple[int, ...], wrapper: str = "net.") -> Shapes:
    """OSTrack_ep0300.pth.tar of vitb_256_mae_ce_32x4_ep300: the entries under ``net``."""
    shapes = backbone_shapes(width, 12, (64, 256))
    for name, out in (("ctr", 1), ("offset", 2), ("size", 2)):
        layers = [f"box_head.conv{i}_{name}" for i in range(1, 6)]
        shapes |= tower(layers, width, channels, out)
    return under(wrapper, shapes)


def all_in_one_shapes(width: int, channels: tuple[int, ...], out: int) -> Shapes:
    """All-in-One's: OSTrack's, an embedding layer of 40 positions, the projections and the aligners."""
    table = "language_embeddings."
    shapes: Shapes = {
        f"{table}word_embeddings.weight": (30522, width),
        f"{table}position_embeddings.weight": (40, width),
        f"{table}token_type_embeddings.weight": (2, width),
        **norm(f"{table}LayerNorm", width),
        f"{table}position_ids": (1, 40),
        **linear("backbone.language_proj", width, width),
        **linear("backbone.language_xz_proj", out, width),
        **linear("backbone.vision_x_proj", out, 256 * width),
        **linear("backbone.vision_z_proj", out, 64 * width),
    }
    return ostrack_shapes(width, channels) | under("net.", shapes)


# -- ARTrack, AITrack --------------------------------------------------------------------------------------


def artrack_encoder(config: AITrackConfig) -> Shapes:
    c, h = config.width, config.heads
    z, x = config.template_size // 16, config.search_size // 16
    shapes: Shapes = {}
    for i in range(config.fusion_layers):
        layer = f"layers.{i}."
        for name in ("z_norm1", "x_norm1", "z_norm2_1", "z_norm2_2", "x_norm2_1", "x_norm2_2", "z_norm3", "x_norm3"):
            shapes |= norm(f"{layer}{name}", c)
        for stream in ("z", "x"):
            shapes |= linear(f"{layer}{stream}_self_attn.qkv", 3 * c, c)
            shapes |= linear(f"{layer}{stream}_self_attn.proj", c, c)
            shapes |= linear(f"{layer}{stream}_mlp.fc1", 4 * c, c) | linear(f"{layer}{stream}_mlp.fc2", c, 4 * c)
        for way in ("z_x", "x_z"):
            for name, out in (("q", c), ("kv", 2 * c), ("proj", c)):
                shapes |= linear(f"{layer}{way}_cross_attention.{name}", out, c)
    for stream, side in (("z", z), ("x", x)):
        shapes |= {f"{stream}_pos_enc.pos.w_pos": (side, c), f"{stream}_pos_enc.pos.h_pos": (side, c)}
        shapes |= norm(f"{stream}_pos_enc.norm", c)
        for name in ("pos_q_linear", "pos_k_linear"):
            shapes |= linear(f"{stream}_pos_enc.{name}", c, c)
    for table, offsets in (("z", 2 * z - 1), ("x", 2 * x - 1), ("z_x", z + x - 1), ("x_z", z + x - 1)):
        shapes[f"{table}_rel_pos_bias_table.relative_position_bias_table"] = (h, offsets**2)
    return shapes


def artrack_head(config: AITrackConfig) -> Shapes:
    c = config.width
    shapes: Shapes = {
        "word_embeddings.weight": (802, c),
        "position_embeddings.weight": (5, c),
        "output_bias": (802,),
        "identity_search": (1, 1, c),
        **norm("decoder.norm", c),
        **under("encoder.", artrack_encoder(config)),
    }
    if config.history:
        shapes["prev_position_embeddings.weight"] = (4 * config.history, c)
    for i in range(config.decoder_layers):
        layer = f"decoder.layers.{i}."
        for name in ("norm_1", "norm_2_query", "norm_2_memory", "norm_3"):
            shapes |= norm(f"{layer}{name}", c)
        for name in ("self_attn1", "multihead_attn"):
            shapes |= packed_attention(f"{layer}{name}.", c)
        shapes |= linear(f"{layer}mlpz.fc1", 4 * c, c) | linear(f"{layer}mlpz.fc2", c, 4 * c)
    return shapes


def packed_attention(prefix: str, width: int, joined: str = "in_proj_") -> Shapes:
    """torch's multi-head attention; Alpha-CLIP's own has ``in_proj.`` for ``joined``."""
    packed: Shapes = {f"{prefix}{joined}weight": (3 * width, width), f"{prefix}{joined}bias": (3 * width,)}
    return packed | linear(f"{prefix}out_proj", width, width)


def artrack_shapes(config: AITrackConfig) -> Shapes:
    """All of ARTrackSeq_ep0060.pth.tar, with one tensor of the optimizer."""
    cells = ((config.template_size // 16) ** 2, (config.search_size // 16) ** 2)
    return {
        "net.identity": (1, 2, config.width),
        **under("net.", backbone_shapes(config.width, config.layers, cells)),
        **under("net.pix_head.", artrack_head(config)),
        "optimizer.state.0.exp_avg": (1, 2, config.width),
    }


def aitrack_shapes(config: AITrackConfig) -> Shapes:
    """AITrack's: ARTrack's, and Alpha-CLIP, whose text encoder has torch's attention."""
    side = config.roi_size // config.roi_patch
    image = alpha_shapes(config.roi_width, config.roi_layers, config.width, config.roi_patch, side)
    text = clip_text(config.table_width, config.text_layers, config.width, 49408)
    clip = under("visual.", image) | text | {"logit_scale": ()}
    return artrack_shapes(config) | under("net.lang_embedding.clip_model.", clip)


# -- CLIP, Alpha-CLIP --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ClipSizes:
    """Of CLIP ViT-L/14: widths of both encoders and of their output, side of a patch, patches, word pieces."""

    vision: int = 1024
    text: int = 768
    out: int = 768
    patch: int = 14
    side: int = 16
    words: int = 49408


def clip_layers(width: int, layers: int, joined: str) -> Shapes:
    shapes: Shapes = {}
    for i in range(layers):
        layer = f"transformer.resblocks.{i}."
        shapes |= packed_attention(f"{layer}attn.", width, joined)
        shapes |= linear(f"{layer}mlp.c_fc", 4 * width, width) | linear(f"{layer}mlp.c_proj", width, 4 * width)
        shapes |= norm(f"{layer}ln_1", width) | norm(f"{layer}ln_2", width)
    return shapes


def clip_image(width: int, layers: int, out: int, patch: int, side: int, joined: str) -> Shapes:
    shapes: Shapes = {
        "class_embedding": (width,),
        "positional_embedding": (side**2 + 1, width),
        "proj": (width, out),
        "conv1.weight": (width, 3, patch, patch),
    }
    return shapes | norm("ln_pre", width) | norm("ln_post", width) | clip_layers(width, layers, joined)


def clip_text(width: int, layers: int, out: int, words: int) -> Shapes:
    shapes: Shapes = {"positional_embedding": (77, width), "text_projection": (width, out)}
    shapes |= {"token_embedding.weight": (words, width)}
    return shapes | norm("ln_final", width) | clip_layers(width, layers, "in_proj_")


def clip_shapes(sizes: ClipSizes) -> Shapes:
    """The state dictionary of OpenAI's ViT-L-14.pt, with three sizes kept as numbers."""
    image = clip_image(sizes.vision, 24, sizes.out, sizes.patch, sizes.side, "in_proj_")
    numbers: Shapes = dict.fromkeys(("logit_scale", "input_resolution", "context_length", "vocab_size"), ())
    return under("visual.", image) | clip_text(sizes.text, 12, sizes.out, sizes.words) | numbers


def alpha_shapes(width: int, layers: int, out: int, patch: int, side: int) -> Shapes:
    """clip_l14_grit20m_fultune_2xe.pth: the image encoder alone, with the mask channel."""
    return clip_image(width, layers, out, patch, side, "in_proj.") | {"conv1_alpha.weight": (width, 1, patch, patch)}


def hugging_shapes(sizes: ClipSizes) -> Shapes:
    """openai/clip-vit-large-patch14, model.safetensors (with the position numbers of its first versions)."""
    shapes: Shapes = {
        "logit_scale": (),
        **linear("text_projection", sizes.out, sizes.text, bias=False),
        **linear("visual_projection", sizes.out, sizes.vision, bias=False),
        "text_model.embeddings.position_ids": (1, 77),
        "text_model.embeddings.token_embedding.weight": (sizes.words, sizes.text),
        "text_model.embeddings.position_embedding.weight": (77, sizes.text),
        **norm("text_model.final_layer_norm", sizes.text),
        "vision_model.embeddings.position_ids": (1, sizes.side**2 + 1),
        "vision_model.embeddings.class_embedding": (sizes.vision,),
        "vision_model.embeddings.patch_embedding.weight": (sizes.vision, 3, sizes.patch, sizes.patch),
        "vision_model.embeddings.position_embedding.weight": (sizes.side**2 + 1, sizes.vision),
        **norm("vision_model.pre_layrnorm", sizes.vision),
        **norm("vision_model.post_layernorm", sizes.vision),
    }
    for encoder, width, layers in (("text", sizes.text, 12), ("vision", sizes.vision, 24)):
        for i in range(layers):
            layer = f"{encoder}_model.encoder.layers.{i}."
            for part in ("q", "k", "v", "out"):
                shapes |= linear(f"{layer}self_attn.{part}_proj", width, width)
            shapes |= linear(f"{layer}mlp.fc1", 4 * width, width) | linear(f"{layer}mlp.fc2", width, 4 * width)
            shapes |= norm(f"{layer}layer_norm1", width) | norm(f"{layer}layer_norm2", width)
    return shapes


# -- torchvision's ResNet, STARK ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StarkSizes:
    """Of a released network; ``channel`` halves with every layer of a tower, ``layers`` are of each stack."""

    depth: int = 101
    width: int = 256
    heads: int = 8
    hidden: int = 2048
    layers: int = 6
    channel: int = 256
    template: int = 128
    search: int = 320


def resnet_shapes(depth: int, stages: int = 4, *, counters: bool = False) -> Shapes:
    """torchvision's file, with ``stages=3`` STARK's ``backbone.0.body``."""
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7)} | batch_norm("bn1", 64, counters)
    inside = 64
    for stage, blocks in enumerate({50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth][:stages], start=1):
        width = 32 << stage
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            kernels = {"conv1": (width, inside, 1, 1), "conv2": (width, width, 3, 3), "conv3": (4 * width, width, 1, 1)}
            for conv_, shape in kernels.items():
                shapes |= {f"{name}.{conv_}.weight": shape}
                shapes |= batch_norm(f"{name}.{conv_.replace('conv', 'bn')}", shape[0], counters)
            if block == 0:
                shapes |= {f"{name}.downsample.0.weight": (4 * width, inside, 1, 1)}
                shapes |= batch_norm(f"{name}.downsample.1", 4 * width, counters)
            inside = 4 * width
    return shapes | (linear("fc", 1000, 2048) if stages == 4 else {})


def stark_shapes(sizes: StarkSizes, *, score: bool = True) -> Shapes:
    """STARKST_ep0050.pth.tar, or without the score STARKS_ep0500.pth.tar: the entries under ``net``."""
    c = sizes.width
    shapes = under("backbone.0.body.", resnet_shapes(sizes.depth, 3))
    shapes |= conv("bottleneck", c, 1024, 1) | {"query_embed.weight": (1, c)}
    for stack, attentions, norms in (("encoder", ("self_attn",), 2), ("decoder", ("self_attn", "multihead_attn"), 3)):
        for i in range(sizes.layers):
            layer = f"transformer.{stack}.layers.{i}."
            for attention in attentions:
                shapes |= packed_attention(f"{layer}{attention}.", c)
            shapes |= linear(f"{layer}linear1", sizes.hidden, c) | linear(f"{layer}linear2", c, sizes.hidden)
            for number in range(1, norms + 1):
                shapes |= norm(f"{layer}norm{number}", c)
    shapes |= norm("transformer.decoder.norm", c)
    for corner in ("tl", "br"):
        channels = tuple(sizes.channel >> i for i in range(4))
        shapes |= tower([f"box_head.conv{i}_{corner}" for i in range(1, 6)], c, channels, 1)
    for i, out in enumerate((c, c, 1) if score else ()):
        shapes |= linear(f"cls_head.layers.{i}", out, c)
    return under("net.", shapes)


# -- UVLTrack, LiteTrack -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class UvlSizes:
    """Of a released network; ``channel`` halves with every layer of a tower, ``split`` is BERT's layers."""

    width: int = 768
    heads: int = 12
    layers: int = 12
    split: int = 6
    hidden: int = 3072
    channel: int = 256
    template: int = 128
    search: int = 256


UVL_BASE = UvlSizes()
UVL_LARGE = UvlSizes(width=1024, heads=16, layers=24, split=12, hidden=4096)
UVL_TOWERS = {"conv_cls": 1, "conv_offset": 2, "conv_bbox": 2, "conv_bbox_grounding": 2}


def uvltrack_shapes(sizes: UvlSizes) -> Shapes:
    """UVLTrack_ep0300.pth.tar: a ViT, the lower half of a BERT with its pooler, and the head."""
    c, cells = sizes.width, (sizes.search // 16) ** 2
    vit: Shapes = {
        "cls_token": (1, 1, c),
        "pos_embed_z": (1, (sizes.template // 16) ** 2, c),
        "pos_embed_x": (1, cells, c),
        "modal_embed": (2, c),
        **conv("patch_embed.proj", c, 3, 16),
        **vit_blocks(c, sizes.layers),
        **norm("norm", c),
    }
    head: Shapes = {"logit_scale": (), "coodinate": (1, 2, cells)}
    for name, out in UVL_TOWERS.items():
        channels = tuple(sizes.channel >> i for i in range(4))
        head |= tower([f"{name}.{i}" for i in range(5)], c, channels, out)
    prompter = {"logit_scale": (), "query_embed.weight": (3, c), **norm("norm", c)}
    prompter |= linear("q", c, c, bias=False) | linear("kv", 2 * c, c, bias=False) | linear("proj", c, c)
    prompter |= linear("mlp.fc1", 4 * c, c) | linear("mlp.fc2", c, 4 * c)
    return {
        "backbone.logit_scale": (),
        **under("backbone.vit.", vit),
        **under("backbone.bert.", bert_shapes(c, sizes.hidden, sizes.split)),
        **under("box_head.", head | under("prompter.", prompter)),
    }


def litetrack_shapes(sizes: UvlSizes, *, spare: bool = True) -> Shapes:
    """As LiteTrack's released code has them: a gate in every attention, and an idle layer in every MLP."""
    shapes, c, squeezed = uvltrack_shapes(sizes), sizes.width, sizes.width // 16
    for i in range(sizes.layers):
        block = f"backbone.vit.blocks.{i}."
        shapes |= linear(f"{block}attn.fc1", squeezed, c) | linear(f"{block}attn.fc2", c, squeezed)
        if spare:
            shapes |= linear(f"{block}mlp.dwconv.linear.0", 4 * c, 4 * c)
    return shapes


def balanced(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random weights that keep activations of ordinary size, so that nothing saturates."""
    random, tensors = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=random)
        if name.endswith(("num_batches_tracked", "position_ids")):
            tensors[name] = torch.zeros(shape, dtype=torch.long)
        elif name.endswith("running_var"):
            tensors[name] = 0.5 + drawn.abs()
        elif ".bn3." in name and name.endswith("weight"):
            tensors[name] = 0.3 + 0.1 * drawn  # residual parts smaller than the way around them
        elif len(shape) > 1 and "embed" not in name.rpartition(".")[0].rpartition(".")[2]:
            gain = 0.5 if "conv5_tl" in name or "conv5_br" in name else 1.5
            tensors[name] = gain * drawn / math.sqrt(math.prod(shape[1:]))
        else:
            tensors[name] = 0.3 * drawn + (1.0 if len(shape) == 1 and name.endswith(".weight") else 0.0)
    return tensors
