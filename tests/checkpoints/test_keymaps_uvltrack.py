"""UVLTrack's and LiteTrack's files load by name, and UVLTrack then computes what its own code computes."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from published_shapes import UvlSizes, litetrack_shapes, uvltrack_shapes
from torch import Tensor
from uvltrack_published import Published, Tensors, box_mask, filled

from model_cases import boxed, boxes, make, pictures, sentences
from vltrack.checkpoints.key_maps import LITETRACK, UVLTRACK, apply_key_map
from vltrack.checkpoints.torch_files import read_tensors
from vltrack.core.errors import CheckpointMismatch
from vltrack.core.types import Mode
from vltrack.models.base import MODE_IDS, Prediction
from vltrack.models.litetrack import LiteTrack, LiteTrackConfig, base, uvltrack_base

NARROW = UvlSizes(width=32, heads=4, layers=12, split=6, hidden=64, channel=32, template=64, search=128)
SMALL = {
    "width": 32,
    "heads": 4,
    "text_hidden": 64,
    "table_width": 32,
    "head_channels": (32, 16, 8, 4),
    "template_size": 64,
    "search_size": 128,
}
WORDS = 40

PUBLISHED_FLAGS = {Mode.BBOX: 0, Mode.NL: 1, Mode.NLBBOX: 2}


def narrow(**changes: Any) -> LiteTrackConfig:
    return replace(uvltrack_base(), **SMALL, **changes)


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return filled(uvltrack_shapes(NARROW))


@pytest.fixture(scope="module")
def model(tensors: Tensors) -> LiteTrack:
    made: LiteTrack = make(narrow(), seed=7)
    apply_key_map(made, tensors, UVLTRACK)
    return made


@pytest.fixture(scope="module")
def published(tensors: Tensors) -> Published:
    return Published(tensors, NARROW)


# -- names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["net", "model", None])
def test_a_file_as_it_is_published_loads(tensors: Tensors, key: str | None, tmp_path: Path) -> None:
    """With the state of the training beside the network, under either key or bare."""
    content: dict[str, Any] = {key: tensors} if key else dict(tensors)
    content["optimizer"] = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}
    content |= {"epoch": 300, "net_type": "UVLTrack", "stats": {"loss": {"total": 1.0}}}
    torch.save(content, tmp_path / "UVLTrack_ep0300.pth.tar")
    model: LiteTrack = make(narrow(), seed=1)
    report = apply_key_map(model, read_tensors(tmp_path / "UVLTrack_ep0300.pth.tar"), UVLTRACK)
    state = model.state_dict()
    assert set(report.loaded) | set(report.kept_fresh) == set(state)
    assert {name.rpartition(".")[2] for name in report.kept_fresh} == {"num_batches_tracked"}
    assert set(report.ignored) == {
        "backbone.vit.pos_embed_z",
        "backbone.vit.pos_embed_x",
        "backbone.vit.norm.weight",
        "backbone.vit.norm.bias",
        "backbone.bert.pooler.dense.weight",
        "backbone.bert.pooler.dense.bias",
        "box_head.prompter.norm.weight",
        "box_head.prompter.norm.bias",
        "box_head.coodinate",
        "optimizer.state.0.exp_avg",
        *(name for name in tensors if name.endswith("num_batches_tracked")),
    }
    for own, there in {
        "blocks.11.attn.qkv.weight": "backbone.vit.blocks.11.attn.qkv.weight",
        "bert.encoder.layer.5.output.dense.bias": "backbone.bert.encoder.layer.5.output.dense.bias",
        "head.conv_bbox_grounding.body.10.running_var": "box_head.conv_bbox_grounding.3.1.running_var",
        "head.conv_bbox.body.3.weight": "box_head.conv_bbox.1.0.weight",
        "head.conv_offset.out.bias": "box_head.conv_offset.4.bias",
        "head.prompter.queries": "box_head.prompter.query_embed.weight",
        "head.prompter.log_build": "box_head.prompter.logit_scale",
        "head.prompter.log_score": "box_head.logit_scale",
        "log_contrast": "backbone.logit_scale",
    }.items():
        assert torch.equal(state[own], tensors[there]), own


def test_an_earlier_name_of_the_prompter(tensors: Tensors) -> None:
    older = {name.replace("box_head.prompter.", "box_head.image_tokenlize."): t for name, t in tensors.items()}
    model: LiteTrack = make(narrow(), seed=1)
    apply_key_map(model, older, UVLTRACK)
    assert torch.equal(model.head.prompter.queries, tensors["box_head.prompter.query_embed.weight"])


def test_litetrack_s_gates_load_and_what_is_ours_stays() -> None:
    model: LiteTrack = make(replace(base(), **SMALL, star_width=4), seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = filled(litetrack_shapes(NARROW, spare=False))
    for name in list(given):  # narrower gates than a sixteenth of 32 do not exist here: at least four
        if re.search(r"attn\.fc[12]\.", name):
            shape = dict(model.named_parameters())[
                name.removeprefix("backbone.vit.").replace("attn.", "attn.gate.")
            ].shape
            given[name] = torch.randn(shape)
    report = apply_key_map(model, {f"net.{name}": tensor for name, tensor in given.items()}, LITETRACK)
    after = model.state_dict()
    assert torch.equal(after["blocks.3.attn.gate.fc1.weight"], given["backbone.vit.blocks.3.attn.fc1.weight"])
    assert all(torch.equal(after[name], before[name]) for name in report.kept_fresh)
    kept = {name for name in report.kept_fresh if not name.endswith("num_batches_tracked")}
    assert kept == {name for name in after if name.startswith(("star_", "selector."))}
    with pytest.raises(CheckpointMismatch, match=r"missing .*blocks\.0\.attn\.gate\.fc1"):
        apply_key_map(model, filled(uvltrack_shapes(NARROW)), LITETRACK)


def test_what_a_map_of_a_whole_tracker_does_not_know_is_named(tensors: Tensors) -> None:
    """UVLTrack's file onto a network with LiteTrack's ideas would leave parts as they are: not in silence."""
    model = make(narrow(gate=True, star=True, select=True, star_width=4), seed=1)
    before = model.state_dict()["cls_token"].clone()
    with pytest.raises(CheckpointMismatch, match=r"unknown to the map \(first: .*attn\.gate"):
        apply_key_map(model, tensors, UVLTRACK)
    assert torch.equal(model.state_dict()["cls_token"], before)


# -- what is computed ---------------------------------------------------------------------------------


def sentence(batch: int) -> tuple[Tensor, Tensor]:
    """40 word pieces, as the released code pads them."""
    return sentences(batch, length=WORDS, words=9, seed=5)


def shown(batch: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Template, context, and boxes in both that do not touch the middle of a cell."""
    template, context = pictures(NARROW.template, batch, 11), pictures(NARROW.search, batch, 12)
    return template, context, boxes(batch, 13) * 0.99, boxes(batch, 14) * 0.99


def agree(seen: Prediction, expected: tuple[Tensor, ...]) -> None:
    for ours, theirs in zip((seen.center_BSS, seen.presence_BSS, seen.boxes_BSS4), expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", [Mode.BBOX, Mode.NLBBOX])
@torch.no_grad()
def test_tracking_is_what_the_released_code_computes(model: LiteTrack, published: Published, mode: Mode) -> None:
    template, context, template_box, context_box = shown()
    ids, valid = sentence(2)
    text, flag = model.read_text(ids, valid) if mode is Mode.NLBBOX else None, PUBLISHED_FLAGS[mode]
    if mode is Mode.BBOX:
        ids, valid = torch.zeros_like(ids), torch.zeros_like(valid)
    memory = model.init_template(boxed(template, template_box), boxed(context, context_box), text)
    template_mask = box_mask(template_box, NARROW.template // 16)
    out = published.backbone(template, context, ids, valid, flag)
    prompts = published.prompts(out, template_mask, box_mask(context_box, NARROW.search // 16), flag)
    torch.testing.assert_close(memory.prompts_B3C.double(), prompts, rtol=0, atol=2e-5)
    search = pictures(NARROW.search, 2, 21)
    seen = model.locate(search, memory)
    out = published.backbone(template, search, ids, valid, flag)
    agree(seen, published.head(out, prompts, flag, grounding=False))
    # twenty frames later: prompts from the frame itself and the box that was found there
    found = seen.boxes_BSS4[:, 4, 5]
    again = model.update_template(memory, seen, found)
    expected = published.prompts(out, template_mask, box_mask(found, NARROW.search // 16), flag)
    torch.testing.assert_close(again.prompts_B3C.double(), expected, rtol=0, atol=2e-5)


@torch.no_grad()
def test_grounding_is_what_the_released_code_computes(model: LiteTrack, published: Published) -> None:
    """A blank template, and two ways out only: the target or the rest."""
    scene = pictures(NARROW.search, 2, 31)
    ids, valid = sentence(2)
    blank = torch.zeros(2, 3, NARROW.template, NARROW.template)
    nothing = torch.zeros(2, published.zcells, dtype=torch.bool)
    out = published.backbone(blank, scene, ids, valid, 1)
    prompts = published.prompts(out, nothing, torch.zeros(2, published.xcells, dtype=torch.bool), 1)
    seen = model.ground(scene, model.read_text(ids, valid))
    agree(seen, published.head(out, prompts, 1, grounding=True))
    three = published.head(out, prompts, 1, grounding=False)[1]
    assert float((seen.presence_BSS - three).abs().max()) > 1e-3


@pytest.mark.parametrize("mode", list(Mode))
def test_layer_contrasts_are_the_published_ones(tensors: Tensors, published: Published, mode: Mode) -> None:
    """In training: similarities after layers 3 to 11."""
    model: LiteTrack = make(narrow(), seed=7).train()
    apply_key_map(model, tensors, UVLTRACK)
    template, context, template_box, _ = shown()
    ids, valid = sentence(2)
    with torch.no_grad():
        first = model.embed_template(boxed(template, template_box))
        flags = torch.full((2,), MODE_IDS[mode])
        features = model.forward_features(context, first, model.read_text(ids, valid), flags)
    flag = PUBLISHED_FLAGS[mode]
    expected = published.backbone(template, context, ids, valid, flag)["logits"][:, 3:]
    torch.testing.assert_close(torch.stack(features.contrasts, dim=1).double(), expected, rtol=0, atol=1e-4)


def test_the_comparison_notices_another_convention(model: LiteTrack, published: Published) -> None:
    """Positions of rows for columns, another epsilon, a lost modal embedding: each is seen in the boxes."""
    scene = pictures(NARROW.search, 1, 31)
    ids, valid = sentence(1)
    blank = torch.zeros(1, 3, NARROW.template, NARROW.template)

    def maps(of: Published) -> tuple[Tensor, ...]:
        out = of.backbone(blank, scene, ids, valid, 1)
        nothing = [torch.zeros(1, cells, dtype=torch.bool) for cells in (of.zcells, of.xcells)]
        return of.head(out, of.prompts(out, *nothing, 1), 1, grounding=True)

    plain = maps(published)
    side = NARROW.search // 16
    turned = published.t["backbone.vit.pos_embed_x"].view(1, side, side, -1).transpose(1, 2).flatten(1, 2)
    for name, other in {
        "backbone.vit.pos_embed_x": turned,
        "backbone.vit.modal_embed": torch.zeros_like(published.t["backbone.vit.modal_embed"]),
        "box_head.logit_scale": torch.tensor(math.log(1 / 0.07)).double(),
    }.items():
        changed = Published({**published.t, name: other}, NARROW)
        assert max(float((a - b).abs().max()) for a, b in zip(plain, maps(changed), strict=True)) > 1e-4, name
