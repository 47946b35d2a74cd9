"""Published weights by name: files of exactly the published names and shapes load; nothing is left out.

The files are made here, small where only names matter, and once with the published widths on the meta device.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_cases import make, narrow_base
from vltrack.checkpoints.key_maps import BERT_BASE, MAE_VIT, KeyMap, Report, apply_key_map
from vltrack.core.errors import CheckpointMismatch, CheckpointNonFinite
from vltrack.models.litetrack import LiteTrack, base, tiny


def mae_shapes(
    width: int = 64, layers: int = 12, side: int = 14, wrapper: str = "model."
) -> dict[str, tuple[int, ...]]:
    """mae_pretrain_vit_base.pth: 150 tensors for 12 layers of width 768."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, side * side + 1, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
    }
    for i in range(layers):
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{norm}.weight": (width,), f"blocks.{i}.{norm}.bias": (width,)}
        for name, out, inside in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ):
            shapes |= {f"blocks.{i}.{name}.weight": (out, inside), f"blocks.{i}.{name}.bias": (out,)}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    return {f"{wrapper}{name}": shape for name, shape in shapes.items()}


def bert_shapes(
    width: int = 64, hidden: int = 128, wrapper: str = "bert.", old: bool = False
) -> dict[str, tuple[int, ...]]:
    """bert-base-uncased: 12 layers, with the pooler and the heads of its two training tasks."""
    weight, bias = ("gamma", "beta") if old else ("weight", "bias")
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (30522, width),
        "embeddings.position_embeddings.weight": (512, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        f"embeddings.LayerNorm.{weight}": (width,),
        f"embeddings.LayerNorm.{bias}": (width,),
        "pooler.dense.weight": (width, width),
        "pooler.dense.bias": (width,),
    }
    for i in range(12):
        layer = f"encoder.layer.{i}."
        for name, out, inside in (
            ("attention.self.query", width, width),
            ("attention.self.key", width, width),
            ("attention.self.value", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", hidden, width),
            ("output.dense", width, hidden),
        ):
            shapes |= {f"{layer}{name}.weight": (out, inside), f"{layer}{name}.bias": (out,)}
        for norm in ("attention.output", "output"):
            shapes |= {f"{layer}{norm}.LayerNorm.{weight}": (width,), f"{layer}{norm}.LayerNorm.{bias}": (width,)}
    heads: dict[str, tuple[int, ...]] = {
        "cls.predictions.bias": (30522,),
        "cls.predictions.transform.dense.weight": (width, width),
        "cls.predictions.transform.dense.bias": (width,),
        f"cls.predictions.transform.LayerNorm.{weight}": (width,),
        f"cls.predictions.transform.LayerNorm.{bias}": (width,),
        "cls.predictions.decoder.weight": (30522, width),
        "cls.seq_relationship.weight": (2, width),
        "cls.seq_relationship.bias": (2,),
    }
    return {f"{wrapper}{name}": shape for name, shape in shapes.items()} | (heads if wrapper else {})


def filled(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def model() -> LiteTrack:
    return make(narrow_base())


@pytest.fixture(scope="module")
def mae() -> dict[str, Tensor]:
    return filled(mae_shapes())


@pytest.fixture(scope="module")
def bert() -> dict[str, Tensor]:
    return filled(bert_shapes())


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
    given = filled(bert_shapes(wrapper=wrapper, old=old))
    save_file(given, tmp_path / "bert.safetensors")
    report = apply_key_map(model, load_file(tmp_path / "bert.safetensors"), BERT_BASE)
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


def test_published_names_and_shapes_fit_base() -> None:
    """Every tensor of both files at their real widths, without memory."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in LiteTrack(base()).state_dict().items()}
    for keymap, published in ((MAE_VIT, mae_shapes(768)), (BERT_BASE, bert_shapes(768, 3072))):
        current = {keymap.current(name): shape for name, shape in published.items()}
        wanted = {own: source for own in shapes if (source := keymap.published(own))}
        assert all(current[source] == shapes[own] for own, source in wanted.items())
        assert all(keymap.ignores(name) for name in current.keys() - set(wanted.values()))
    assert len(mae_shapes(768)) == 150


@pytest.mark.parametrize("keymap", [MAE_VIT, BERT_BASE], ids=["mae", "bert"])
def test_each_missing_tensor_is_named(model: LiteTrack, mae, bert, keymap: KeyMap) -> None:
    given = mae if keymap is MAE_VIT else bert
    before = model.state_dict()["cls_token"].clone()
    for name in given:
        current = keymap.current(name)
        if keymap.ignores(current) and "layer.1" not in name:
            continue
        rest = {n: t for n, t in given.items() if n != name}
        if keymap.ignores(current):
            apply_key_map(model, rest, keymap)
            continue
        with pytest.raises(CheckpointMismatch, match=current.replace(".", r"\.")):
            apply_key_map(model, rest, keymap)
    if keymap is MAE_VIT:
        with pytest.raises(CheckpointMismatch):
            apply_key_map(model, {n: t * 2 for n, t in given.items() if "blocks.11.mlp.fc2.bias" not in n}, keymap)
        assert torch.equal(model.state_dict()["cls_token"], before), "nothing is copied unless all fits"


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


def test_a_model_of_another_width_or_kind_is_refused(mae, bert) -> None:
    with pytest.raises(CheckpointMismatch, match="of another shape"):
        apply_key_map(make(narrow_base(width=32)), mae, MAE_VIT)
    for keymap, given in ((MAE_VIT, mae), (BERT_BASE, bert)):
        with pytest.raises(CheckpointMismatch):
            apply_key_map(make(tiny()), given, keymap)
    with pytest.raises(CheckpointMismatch, match="no part for it"):
        apply_key_map(torch.nn.Linear(2, 2), mae, MAE_VIT)
