"""Boxes as masks over cells, and corners as boxes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.nn.boxes import box_coverage, box_mask, corners_to_box

box = st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5), st.floats(0.01, 2.0), st.floats(0.01, 2.0))


@settings(max_examples=60, deadline=None)
@given(box=box, side=st.sampled_from([1, 7, 8, 14]))
def test_share_of_each_cell_is_the_overlap_of_two_rectangles(box, side: int) -> None:
    cx, cy, w, h = box
    share = box_coverage(torch.tensor([box]), side)[0]
    assert share.shape == (side * side,)
    for row, column in {(0, 0), (side // 2, 0), (side - 1, side // 2)}:
        overlap = 1.0
        for cell, center, extent in ((column, cx, w), (row, cy, h)):
            low, high = max(cell / side, center - extent / 2), min((cell + 1) / side, center + extent / 2)
            overlap *= max(high - low, 0.0) * side
        assert float(share[row * side + column]) == pytest.approx(overlap, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(box=box, side=st.sampled_from([1, 7, 14]))
def test_mask_has_cells_whose_center_is_inside_and_never_none(box, side: int) -> None:
    cx, cy, w, h = box
    inside = box_mask(torch.tensor([box]), side)[0].view(side, side)
    assert bool(inside.any())
    for row, column in {(0, 0), (side - 1, side // 2), (side // 2, side - 1)}:
        x, y = (column + 0.5) / side, (row + 0.5) / side
        # Away from edges, where rounding decides.
        if abs(abs(x - cx) - w / 2) > 1e-4 and abs(abs(y - cy) - h / 2) > 1e-4:
            holds = abs(x - cx) < w / 2 and abs(y - cy) < h / 2
            middle = (min(max(int(cx * side), 0), side - 1), min(max(int(cy * side), 0), side - 1))
            if (column, row) != middle:
                assert bool(inside[row, column]) == holds


def test_a_box_without_area_covers_no_cell() -> None:
    nothing = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.3]])
    assert not bool(box_mask(nothing, 14).any())
    assert float(box_coverage(nothing, 14).abs().sum()) == 0
    edge = box_mask(torch.tensor([[1.0, 1.0, 0.01, 0.01]]), 4)
    assert edge[0].nonzero().flatten().tolist() == [15]


def test_boxes_from_corners() -> None:
    corners = torch.tensor([[0.1, 0.2, 0.5, 0.4], [0.5, 0.2, 0.1, 0.4]])
    torch.testing.assert_close(corners_to_box(corners), torch.tensor([[0.3, 0.3, 0.4, 0.2], [0.3, 0.3, -0.4, 0.2]]))
    bounded = corners_to_box(corners, min_size=0.01)
    assert float(bounded[1, 2]) == pytest.approx(0.01)
    torch.testing.assert_close(bounded[0], corners_to_box(corners)[0])
