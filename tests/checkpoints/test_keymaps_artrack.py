"""ARTrack's and AITrack's files by name: all of them load, nothing is left out in silence.

The files are made here with exactly the published names and shapes, narrow where a width is free; the
published widths are compared without memory.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model_cases import CONFIGS, Scene, boxed, boxes, make, pictures
from vltrack.checkpoints.key_maps import AITRACK, ARTRACK, KeyMap, apply_key_map
from vltrack.core.errors import CheckpointMismatch
from vltrack.models.aitrack import AITrack, AITrackConfig, artrack_base, base

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, out: int, inside: int) -> Shapes:
    return {f"{name}.weight": (out, inside), f"{name}.bias": (out,)}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def trunk_shapes(config: AITrackConfig) -> Shapes:
    """``net.backbone``: a ViT with positions for both regions beside its own."""
    c, out = config.width, "net.backbone."
    shapes: Shapes = {
        f"{out}cls_token": (1, 1, c),
        f"{out}pos_embed": (1, 197, c),
        f"{out}pos_embed_z": (1, (config.template_size // 16) ** 2, c),
        f"{out}pos_embed_x": (1, (config.search_size // 16) ** 2, c),
        f"{out}patch_embed.proj.weight": (c, 3, 16, 16),
        f"{out}patch_embed.proj.bias": (c,),
        **norm(f"{out}norm", c),
    }
    for i in range(config.layers):
        block = f"{out}blocks.{i}."
        shapes |= {
            **norm(f"{block}norm1", c),
            **linear(f"{block}attn.qkv", 3 * c, c),
            **linear(f"{block}attn.proj", c, c),
            **norm(f"{block}norm2", c),
            **linear(f"{block}mlp.fc1", 4 * c, c),
            **linear(f"{block}mlp.fc2", c, 4 * c),
        }
    return shapes


def encoder_shapes(config: AITrackConfig) -> Shapes:
    """``net.pix_head.encoder``."""
    c, h, out = config.width, config.heads, "net.pix_head.encoder."
    z, x = config.template_size // 16, config.search_size // 16
    shapes: Shapes = {}
    for i in range(config.fusion_layers):
        layer = f"{out}layers.{i}."
        for name in ("z_norm1", "x_norm1", "z_norm2_1", "z_norm2_2", "x_norm2_1", "x_norm2_2"):
            shapes |= norm(f"{layer}{name}", c)
        for stream in ("z", "x"):
            shapes |= norm(f"{layer}{stream}_norm3", c)
            shapes |= linear(f"{layer}{stream}_self_attn.qkv", 3 * c, c)
            shapes |= linear(f"{layer}{stream}_self_attn.proj", c, c)
            shapes |= linear(f"{layer}{stream}_mlp.fc1", 4 * c, c)
            shapes |= linear(f"{layer}{stream}_mlp.fc2", c, 4 * c)
        for way in ("z_x", "x_z"):
            shapes |= linear(f"{layer}{way}_cross_attention.q", c, c)
            shapes |= linear(f"{layer}{way}_cross_attention.kv", 2 * c, c)
            shapes |= linear(f"{layer}{way}_cross_attention.proj", c, c)
    for stream, side in (("z", z), ("x", x)):
        shapes |= {
            f"{out}{stream}_pos_enc.pos.w_pos": (side, c),
            f"{out}{stream}_pos_enc.pos.h_pos": (side, c),
            **norm(f"{out}{stream}_pos_enc.norm", c),
            **linear(f"{out}{stream}_pos_enc.pos_q_linear", c, c),
            **linear(f"{out}{stream}_pos_enc.pos_k_linear", c, c),
        }
    for table, offsets in (("z", 2 * z - 1), ("x", 2 * x - 1), ("z_x", z + x - 1), ("x_z", z + x - 1)):
        shapes[f"{out}{table}_rel_pos_bias_table.relative_position_bias_table"] = (h, offsets**2)
    return shapes


def decoder_shapes(config: AITrackConfig) -> Shapes:
    """``net.pix_head`` but for its encoder."""
    c, out = config.width, "net.pix_head."
    shapes: Shapes = {
        f"{out}word_embeddings.weight": (802, c),
        f"{out}position_embeddings.weight": (5, c),
        f"{out}output_bias": (802,),
        f"{out}identity_search": (1, 1, c),
        **norm(f"{out}decoder.norm", c),
    }
    if config.history:
        shapes[f"{out}prev_position_embeddings.weight"] = (4 * config.history, c)
    for i in range(config.decoder_layers):
        layer = f"{out}decoder.layers.{i}."
        for name in ("norm_1", "norm_2_query", "norm_2_memory", "norm_3"):
            shapes |= norm(f"{layer}{name}", c)
        for name in ("self_attn1", "multihead_attn"):
            shapes |= {f"{layer}{name}.in_proj_weight": (3 * c, c), f"{layer}{name}.in_proj_bias": (3 * c,)}
            shapes |= linear(f"{layer}{name}.out_proj", c, c)
        shapes |= {**linear(f"{layer}mlpz.fc1", 4 * c, c), **linear(f"{layer}mlpz.fc2", c, 4 * c)}
    return shapes


def artrack_shapes(config: AITrackConfig) -> Shapes:
    """All of ARTrackSeq_ep0060.pth.tar, with one tensor of the optimizer."""
    return {
        "net.identity": (1, 2, config.width),
        **trunk_shapes(config),
        **encoder_shapes(config),
        **decoder_shapes(config),
        "optimizer.state.0.exp_avg": (1, 2, config.width),
    }


def clip_shapes(config: AITrackConfig) -> Shapes:
    """``net.lang_embedding``: the picture's attention is Alpha-CLIP's own, the sentence's is torch's."""
    v, t, d, out = config.roi_width, config.table_width, config.width, "net.lang_embedding.clip_model."
    shapes: Shapes = {
        f"{out}visual.class_embedding": (v,),
        f"{out}visual.positional_embedding": ((config.roi_size // config.roi_patch) ** 2 + 1, v),
        f"{out}visual.proj": (v, d),
        f"{out}visual.conv1.weight": (v, 3, config.roi_patch, config.roi_patch),
        f"{out}visual.conv1_alpha.weight": (v, 1, config.roi_patch, config.roi_patch),
        **norm(f"{out}visual.ln_pre", v),
        **norm(f"{out}visual.ln_post", v),
        f"{out}token_embedding.weight": (49408, t),
        f"{out}positional_embedding": (77, t),
        **norm(f"{out}ln_final", t),
        f"{out}text_projection": (t, d),
        f"{out}logit_scale": (),
    }
    for tower, c, layers, sign in (("visual.", v, config.roi_layers, "."), ("", t, config.text_layers, "_")):
        for i in range(layers):
            layer = f"{out}{tower}transformer.resblocks.{i}."
            shapes |= {
                f"{layer}attn.in_proj{sign}weight": (3 * c, c),
                f"{layer}attn.in_proj{sign}bias": (3 * c,),
                **linear(f"{layer}attn.out_proj", c, c),
                **linear(f"{layer}mlp.c_fc", 4 * c, c),
                **linear(f"{layer}mlp.c_proj", c, 4 * c),
                **norm(f"{layer}ln_1", c),
                **norm(f"{layer}ln_2", c),
            }
    return shapes


def file_of(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


NARROW_ARTRACK = CONFIGS["aitrack narrow artrack-base"]()
NARROW_AITRACK = CONFIGS["aitrack narrow base"]()


@pytest.mark.parametrize(
    ("keymap", "config", "shapes", "spare", "fresh"),
    [
        (ARTRACK, NARROW_ARTRACK, artrack_shapes(NARROW_ARTRACK), 4, set()),
        (ARTRACK, replace(NARROW_ARTRACK, history=0), artrack_shapes(replace(NARROW_ARTRACK, history=0)), 4, set()),
        (AITRACK, NARROW_AITRACK, artrack_shapes(NARROW_AITRACK) | clip_shapes(NARROW_AITRACK), 5, {"align"}),
    ],
    ids=["artrack-seq", "artrack-first-stage", "aitrack"],
)
def test_a_file_of_the_published_names_loads_whole(
    keymap: KeyMap, config: AITrackConfig, shapes: Shapes, spare: int, fresh: set[str]
) -> None:
    tensors, model = file_of(shapes), make(config)
    report = apply_key_map(model, tensors, keymap)
    assert len(report.loaded) == len(shapes) - spare
    assert len(report.ignored) == spare
    assert {name.split(".")[0] for name in report.kept_fresh} == fresh
    state, net = model.state_dict(), "net.pix_head."
    assert torch.equal(
        state["decoder.layers.2.multihead_attn.in_proj.weight"],
        tensors[f"{net}decoder.layers.2.multihead_attn.in_proj_weight"],
    )
    assert torch.equal(state["decoder.word_embeddings.weight"], tensors[f"{net}word_embeddings.weight"])
    assert torch.equal(state["decoder.output_bias"], tensors[f"{net}output_bias"])
    assert torch.equal(
        state["encoder.x_z_rel_pos_bias_table.relative_position_bias_table"],
        tensors[f"{net}encoder.x_z_rel_pos_bias_table.relative_position_bias_table"],
    )
    assert torch.equal(state["norm.bias"], tensors["net.backbone.norm.bias"])
    if model.roi is not None:
        clip = "net.lang_embedding.clip_model."
        assert torch.equal(state["roi.conv1_alpha.weight"], tensors[f"{clip}visual.conv1_alpha.weight"])
        assert torch.equal(
            state["clip_text.transformer.resblocks.1.attn.in_proj.bias"],
            tensors[f"{clip}transformer.resblocks.1.attn.in_proj_bias"],
        )


def test_artracks_weights_run_in_aitrack_as_in_artrack() -> None:
    """What ARTrack's file leaves fresh in ``base`` (alignment, CLIP) has no say before it has learned."""
    tensors = file_of(artrack_shapes(NARROW_ARTRACK))
    parent, scene = make(NARROW_ARTRACK), Scene(NARROW_ARTRACK)
    child = AITrack(NARROW_AITRACK).eval()
    for model in (parent, child):
        apply_key_map(model, tensors, ARTRACK)
    template, search, box = pictures(128, 2), pictures(256, 2, 5), boxes(2)
    with torch.no_grad():
        seen = [
            m.locate(search, m.init_template(boxed(template, box), boxed(search, box)), scene.past())
            for m in (parent, child)
        ]
    assert torch.equal(seen[0].boxes_BSS4, seen[1].boxes_BSS4)
    assert torch.equal(seen[0].center_BSS, seen[1].center_BSS)


def test_the_published_sizes_have_these_shapes() -> None:
    for config, shapes, keymap in (
        (artrack_base(), artrack_shapes(artrack_base()), ARTRACK),
        (base(), artrack_shapes(base()) | clip_shapes(base()), AITRACK),
    ):
        with torch.device("meta"):
            model = AITrack(config)
        published = {keymap.current(name): shape for name, shape in shapes.items()}
        own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        wanted = {name: source for name in own if (source := keymap.published(name)) is not None}
        assert {name for name in own if name not in wanted} == {n for n in own if n.startswith("align.")}
        assert {published[source] == own[name] for name, source in wanted.items()} == {True}
        assert set(published) - set(wanted.values()) == {n for n in published if keymap.ignores(n)} - set(
            wanted.values()
        )


def test_a_name_that_nobody_knows_or_that_is_missing_is_told() -> None:
    shapes = artrack_shapes(NARROW_ARTRACK)
    with pytest.raises(CheckpointMismatch, match=r"pix_head\.extra"):
        apply_key_map(make(NARROW_ARTRACK), file_of({**shapes, "net.pix_head.extra": (3,)}), ARTRACK)
    shapes.pop("net.pix_head.output_bias")
    with pytest.raises(CheckpointMismatch, match=r"decoder\.output_bias"):
        apply_key_map(make(NARROW_ARTRACK), file_of(shapes), ARTRACK)
    with pytest.raises(CheckpointMismatch, match="prev_position"):  # a file of the first stage
        first_stage = artrack_shapes(replace(NARROW_ARTRACK, history=0))
        apply_key_map(make(NARROW_ARTRACK), file_of(first_stage), ARTRACK)
