"""MAE's and BERT's published weights load, and what does not fit is named before anything is copied."""

from __future__ import annotations

import pytest
import torch
from published_shapes import bert_file, mae_shapes, random_tensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_cases import make, narrow_base
from vltrack.checkpoints.key_maps import MAE_VIT, Report, apply_key_map, bert
from vltrack.core.errors import CheckpointMismatch, CheckpointNonFinite
from vltrack.models.litetrack import LiteTrack, tiny

BERT = bert(6)


@pytest.fixture(scope="module")
def model() -> LiteTrack:
    return make(narrow_base())


@pytest.fixture(scope="module")
def mae() -> dict[str, Tensor]:
    return random_tensors(mae_shapes())


def check_covers(model: LiteTrack, report: Report) -> None:
    assert set(report.loaded) | set(report.kept_fresh) == set(model.state_dict())
    assert not set(report.loaded) & set(report.kept_fresh)


@pytest.mark.parametrize("wrapper", ["model.", ""])
def test_mae_loads_into_stem_class_token_and_blocks(model: LiteTrack, mae, wrapper: str, tmp_path) -> None:
    save_file(
        {wrapper + name.removeprefix("model."): tensor for name, tensor in mae.items()}, tmp_path / "mae.safetensors"
    )
    report = apply_key_map(model, load_file(tmp_path / "mae.safetensors"), MAE_VIT)
    check_covers(model, report)
    state = model.state_dict()
    assert torch.equal(state["cls_token"], mae["model.cls_token"])
    assert torch.equal(state["stem.patch_embed.proj.weight"], mae["model.patch_embed.proj.weight"])
    for name in report.loaded:
        assert torch.equal(state[name], mae["model." + name.removeprefix("stem.")]), name
    assert len(report.loaded) == 3 + 12 * 12
    assert set(report.ignored) == {"pos_embed", "norm.weight", "norm.bias"}
    fresh = {name for name in report.kept_fresh if name.startswith(("blocks", "stem", "cls_token"))}
    assert fresh == {name for name in state if ".attn.gate." in name}


@pytest.mark.parametrize(("wrapper", "old"), [("bert.", False), ("bert.", True), ("", False), ("", True)])
def test_bert_loads_its_lower_six_layers(model: LiteTrack, wrapper: str, old: bool, tmp_path) -> None:
    given = random_tensors(bert_file(old=old))
    if not wrapper:
        given = {name.removeprefix("bert."): tensor for name, tensor in given.items() if name.startswith("bert.")}
    save_file(given, tmp_path / "bert.safetensors")
    report = apply_key_map(model, load_file(tmp_path / "bert.safetensors"), BERT)
    check_covers(model, report)
    state = model.state_dict()
    ours = {name for name in state if name.startswith("bert.")}
    assert set(report.loaded) == ours
    assert len(ours) == 5 + 6 * 16
    for name in ours:
        there = wrapper + name.removeprefix("bert.")
        if old:
            there = there.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        assert torch.equal(state[name], given[there]), name
    assert {name.split(".")[2] for name in report.ignored if name.startswith("encoder")} == {
        str(i) for i in range(6, 12)
    }
    assert len(report.ignored) == 6 * 16 + 2 + (8 if wrapper else 0)


def test_half_precision_is_cast(model: LiteTrack, mae) -> None:
    apply_key_map(model, {name: tensor.half() for name, tensor in mae.items()}, MAE_VIT)
    assert torch.equal(model.state_dict()["cls_token"], mae["model.cls_token"].half().float())


def test_a_missing_tensor_is_named_and_nothing_is_copied(model: LiteTrack, mae) -> None:
    before = model.state_dict()["cls_token"].clone()
    for name in ("cls_token", "patch_embed.proj.bias", "blocks.0.attn.qkv.weight", "blocks.11.mlp.fc2.bias"):
        rest = {given: tensor * 2 for given, tensor in mae.items() if given != f"model.{name}"}
        with pytest.raises(CheckpointMismatch, match=rf"1 missing .*there {name}"):
            apply_key_map(model, rest, MAE_VIT)
    assert torch.equal(model.state_dict()["cls_token"], before)


@pytest.mark.parametrize(("large", "there"), [(False, 12), (True, 24)])
def test_a_bert_ignores_the_layers_above_ours(large: bool, there: int) -> None:
    for layers in (0, 1, 6, 12):
        keymap = bert(layers, large=large)
        ignored = [i for i in range(there) if keymap.ignores(f"encoder.layer.{i}.output.dense.bias")]
        assert ignored == list(range(layers, there))
    with pytest.raises(ValueError, match=f"has {there} layers"):
        bert(there + 1, large=large)


def test_what_is_not_expected_is_named(model: LiteTrack, mae) -> None:
    for name, named in (
        ("model.blocks.12.norm1.weight", r"blocks\.12\.norm1\.weight"),
        ("model.head.weight", r"head\.weight"),
        ("optimizer", "optimizer"),
    ):
        with pytest.raises(CheckpointMismatch, match=f"1 unexpected .*{named}"):
            apply_key_map(model, {**mae, name: torch.zeros(1)}, MAE_VIT)
    with pytest.raises(CheckpointMismatch, match=r"1 given twice \(first: cls_token"):
        apply_key_map(model, {**mae, "cls_token": torch.zeros(1, 1, 64)}, MAE_VIT)


def test_other_shapes_kinds_and_numbers_are_named(model: LiteTrack, mae) -> None:
    short = {**mae, "model.blocks.3.norm1.bias": torch.zeros(1)}  # copying would broadcast
    with pytest.raises(CheckpointMismatch, match=r"blocks\.3\.norm1\.bias \(1,\) for \(64,\)"):
        apply_key_map(model, short, MAE_VIT)
    with pytest.raises(CheckpointMismatch, match=r"blocks\.3\.norm1\.bias torch\.int64"):
        whole = torch.zeros(64, dtype=torch.int64)
        apply_key_map(model, {**mae, "model.blocks.3.norm1.bias": whole}, MAE_VIT)
    spoiled = mae["model.blocks.3.norm1.bias"].clone()
    spoiled[5] = torch.nan
    with pytest.raises(CheckpointNonFinite, match=r"blocks\.3\.norm1\.bias"):
        apply_key_map(model, {**mae, "model.blocks.3.norm1.bias": spoiled}, MAE_VIT)


def test_a_model_of_another_width_or_kind_is_refused(mae) -> None:
    with pytest.raises(CheckpointMismatch, match="of another shape"):
        apply_key_map(make(narrow_base(width=32)), mae, MAE_VIT)
    for keymap, given in ((MAE_VIT, mae), (BERT, random_tensors(bert_file()))):
        with pytest.raises(CheckpointMismatch):
            apply_key_map(make(tiny()), given, keymap)
    with pytest.raises(CheckpointMismatch, match="no part for it"):
        apply_key_map(torch.nn.Linear(2, 2), mae, MAE_VIT)
