"""ARTrack's and AITrack's published files load into our networks; ARTrack's run alike in both."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from published_shapes import Shapes, aitrack_shapes, artrack_shapes, random_tensors

from model_cases import CONFIGS, Scene, boxed, boxes, make, pictures
from vltrack.checkpoints.key_maps import AITRACK, ARTRACK, KeyMap, apply_key_map
from vltrack.core.errors import CheckpointMismatch
from vltrack.models.aitrack import AITrack, AITrackConfig

NARROW_ARTRACK = CONFIGS["aitrack narrow artrack-base"]()
NARROW_AITRACK = CONFIGS["aitrack narrow base"]()


@pytest.mark.parametrize(
    ("keymap", "config", "shapes", "spare", "fresh"),
    [
        (ARTRACK, NARROW_ARTRACK, artrack_shapes(NARROW_ARTRACK), 4, set()),
        (ARTRACK, replace(NARROW_ARTRACK, history=0), artrack_shapes(replace(NARROW_ARTRACK, history=0)), 4, set()),
        (AITRACK, NARROW_AITRACK, aitrack_shapes(NARROW_AITRACK), 5, {"align"}),
    ],
    ids=["artrack-seq", "artrack-first-stage", "aitrack"],
)
def test_a_file_of_the_published_names_loads_whole(
    keymap: KeyMap, config: AITrackConfig, shapes: Shapes, spare: int, fresh: set[str]
) -> None:
    tensors, model = random_tensors(shapes), make(config)
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
    if model.config.roi == "clip":
        clip = "net.lang_embedding.clip_model."
        assert torch.equal(state["roi.conv1_alpha.weight"], tensors[f"{clip}visual.conv1_alpha.weight"])
        assert torch.equal(
            state["clip_text.transformer.resblocks.1.attn.in_proj.bias"],
            tensors[f"{clip}transformer.resblocks.1.attn.in_proj_bias"],
        )


def test_artracks_weights_run_in_aitrack_as_in_artrack() -> None:
    """What ARTrack's file leaves fresh in ``base`` (alignment, CLIP) has no say before it has learned."""
    tensors = random_tensors(artrack_shapes(NARROW_ARTRACK))
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


def test_files_of_the_first_stage_have_no_past_boxes() -> None:
    first_stage = artrack_shapes(replace(NARROW_ARTRACK, history=0))
    with pytest.raises(CheckpointMismatch, match="prev_position"):
        apply_key_map(make(NARROW_ARTRACK), random_tensors(first_stage), ARTRACK)
