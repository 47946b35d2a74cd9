"""The tensors that pass through a tracker: joining, picking, padding, and boxes on the grid of cells."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_cases import Scene, narrow_base
from vltrack.models.base import Memory, Text
from vltrack.models.litetrack import LiteTrackConfig, base, tiny, uvltrack_base
from vltrack.nn.boxes import cell_inside, cell_share

box = st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5), st.floats(0.01, 2.0), st.floats(0.01, 2.0))


@settings(max_examples=60, deadline=None)
@given(box=box, side=st.sampled_from([1, 7, 8, 14]))
def test_share_of_each_cell_is_the_overlap_of_two_rectangles(box, side: int) -> None:
    cx, cy, w, h = box
    share = cell_share(torch.tensor([box]), side)[0]
    assert share.shape == (side * side,)
    for row, column in {(0, 0), (side // 2, 0), (side - 1, side // 2)}:
        overlap = 1.0
        for cell, centre, extent in ((column, cx, w), (row, cy, h)):
            low, high = max(cell / side, centre - extent / 2), min((cell + 1) / side, centre + extent / 2)
            overlap *= max(high - low, 0.0) * side
        assert float(share[row * side + column]) == pytest.approx(overlap, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(box=box, side=st.sampled_from([1, 7, 14]))
def test_cells_inside_are_those_whose_centre_is_and_never_none(box, side: int) -> None:
    cx, cy, w, h = box
    inside = cell_inside(torch.tensor([box]), side)[0].view(side, side)
    assert bool(inside.any())
    for row, column in {(0, 0), (side - 1, side // 2), (side // 2, side - 1)}:
        x, y = (column + 0.5) / side, (row + 0.5) / side
        # Away from edges, where rounding decides.
        if abs(abs(x - cx) - w / 2) > 1e-4 and abs(abs(y - cy) - h / 2) > 1e-4:
            holds = abs(x - cx) < w / 2 and abs(y - cy) < h / 2
            middle = (min(max(int(cx * side), 0), side - 1), min(max(int(cy * side), 0), side - 1))
            if (column, row) != middle:
                assert bool(inside[row, column]) == holds


def test_a_box_without_area_holds_no_cell() -> None:
    nothing = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.3]])
    assert not bool(cell_inside(nothing, 14).any())
    assert float(cell_share(nothing, 14).abs().sum()) == 0
    edge = cell_inside(torch.tensor([[1.0, 1.0, 0.01, 0.01]]), 4)
    assert edge[0].nonzero().flatten().tolist() == [15]


def test_padding_adds_masked_words_and_cuts_none() -> None:
    text = Text(tokens_BLC=torch.ones(2, 3, 4), valid_BL=torch.ones(2, 3, dtype=torch.bool))
    longer = text.padded(5)
    assert longer.tokens_BLC.shape == (2, 5, 4)
    assert longer.valid_BL.sum(dim=1).tolist() == [3, 3]
    assert torch.equal(text.padded(3).tokens_BLC, text.tokens_BLC)
    with pytest.raises(ValueError, match="3 word pieces"):
        text.padded(2)


def test_joined_and_picked_apart_is_the_same() -> None:
    scene = Scene(narrow_base())
    with torch.no_grad():
        memory = scene.memory("nlbbox")
    back = Memory.join([memory.pick([0]), memory.pick([1])])
    assert torch.equal(back.first.tokens_BMC, memory.first.tokens_BMC)
    assert torch.equal(back.text.valid_BL, memory.text.valid_BL)
    assert torch.equal(back.prompts_B3C, memory.prompts_B3C)
    turned = memory.pick([1, 0])
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


def test_sizes_are_what_they_say() -> None:
    assert base() == LiteTrackConfig()
    parent = uvltrack_base()
    assert not any((parent.freeze, parent.select, parent.gate, parent.star))
    assert (base().width, base().split_layers + base().joint_layers, base().search_size) == (768, 12, 256)
    assert all((tiny().freeze, tiny().select, tiny().gate, tiny().star))
