"""Tensors that flow through a tracker: concatenation, selection, padding; configurations; names in files."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model_cases import CONFIGS, Scene, make, narrow_base
from vltrack.models import MODELS
from vltrack.models.base import FILE_NAMES, MODE_IDS, Memory, Text
from vltrack.models.litetrack import LiteTrackConfig, base, tiny, uvltrack_base


def test_padding_adds_masked_tokens_and_cuts_none() -> None:
    text = Text(tokens_BLC=torch.ones(2, 3, 4), valid_BL=torch.ones(2, 3, dtype=torch.bool))
    longer = text.padded(5)
    assert longer.tokens_BLC.shape == (2, 5, 4)
    assert longer.valid_BL.sum(dim=1).tolist() == [3, 3]
    assert torch.equal(text.padded(3).tokens_BLC, text.tokens_BLC)
    with pytest.raises(ValueError, match=r"3 .* 2"):
        text.padded(2)


def test_concatenated_and_selected_is_the_same() -> None:
    scene = Scene(narrow_base())
    with torch.no_grad():
        memory = scene.memory("nlbbox")
    back = Memory.cat([memory.index_select([0]), memory.index_select([1])])
    assert torch.equal(back.first.tokens_BMC, memory.first.tokens_BMC)
    assert torch.equal(back.text.valid_BL, memory.text.valid_BL)
    assert torch.equal(back.prompts_B3C, memory.prompts_B3C)
    turned = memory.index_select([1, 0])
    assert torch.equal(turned.recent.inside_BM[0], memory.recent.inside_BM[1])
    assert torch.equal(turned.flag_B, memory.flag_B)


@pytest.mark.parametrize(
    "change",
    [
        {"search_size": 250},
        {"template_size": 0},
        {"heads": 0},
        {"heads": 7},
        {"width": 770},
        {"split_layers": 0},
        {"joint_layers": 0},
        {"select_bucket": 0},
        {"select_threshold": 1.0},
        {"contrast_from": 12},
        {"match": True},
        {"detail": True},
    ],
    ids=str,
)
def test_configurations_are_checked_on_construction(change) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(base(), **change)


def test_presets_have_their_published_sizes() -> None:
    assert base() == LiteTrackConfig()
    parent = uvltrack_base()
    assert not any((parent.freeze, parent.select, parent.gate, parent.star))
    assert (base().width, base().split_layers + base().joint_layers, base().search_size) == (768, 12, 256)
    assert all((tiny().freeze, tiny().select, tiny().gate, tiny().star))


@pytest.mark.parametrize("tracker", MODELS)
def test_parameters_have_their_names_in_files(tracker: str) -> None:
    """The names that shipped weights, checkpoints and recipes use, both ways."""
    model = make(CONFIGS[f"{tracker} tiny"]())
    state, named = model.state_dict(), dict(model.named_parameters())
    assert {"stem.trunk.convs.0.weight", "matcher.key.weight", "word_matcher.see.0.weight"} < set(named)
    assert {"inside_embed", "detail.weight"} < set(named)
    assert set(named) <= set(state)
    assert not any(name.startswith(("embed.", "head.center.", "text_proj.")) for name in state)
    assert next(iter(named)) == "inside_embed"
    doubled = {name: tensor * 2 for name, tensor in state.items()}
    model.load_state_dict(doubled)
    assert all(torch.equal(model.state_dict()[name], doubled[name]) for name in state)
    assert torch.equal(model.embed.stem.backbone.convs[0].weight, doubled["stem.trunk.convs.0.weight"])
    # Inside another module the names keep that module's prefix.
    inside = torch.nn.ModuleDict({"model": model}).state_dict()
    assert {name.removeprefix("model.") for name in inside} == set(state)


def test_names_in_files_lead_back() -> None:
    assert len(set(FILE_NAMES.values())) == len(FILE_NAMES)
    assert sorted(MODE_IDS.values()) == [0, 1, 2]
