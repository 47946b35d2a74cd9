"""Labels and losses: what is right costs nothing, what is wrong costs more, and gradients are finite."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.training.losses import (
    box_losses,
    focal,
    gaussian_centers,
    giou,
    inner_cells,
    layer_contrast,
    prompt_contrast,
)

SIDE = 14
unit = st.floats(0.1, 0.9)


@given(x=unit, y=unit, w=st.floats(0.02, 1.5), h=st.floats(0.02, 1.5))
@settings(max_examples=60, deadline=None)
def test_the_peak_lies_at_the_centre_and_is_one(x: float, y: float, w: float, h: float) -> None:
    target = gaussian_centers(torch.tensor([[x, y, w, h]]), SIDE)[0]
    peak = int(target.argmax())
    assert (peak % SIDE, peak // SIDE) == (int(x * SIDE), int(y * SIDE))
    assert target.max() == 1
    assert (target == 1).sum() == 1


def test_a_larger_target_has_a_wider_peak() -> None:
    small, large = gaussian_centers(torch.tensor([[0.5, 0.5, 0.1, 0.1], [0.5, 0.5, 0.8, 0.8]]), SIDE)
    assert large.sum() > small.sum()


def test_focal_is_small_where_the_map_is_right_and_large_where_it_is_wrong() -> None:
    target = gaussian_centers(torch.tensor([[0.5, 0.5, 0.3, 0.3]]), SIDE)
    right = torch.where(target == 1, 8.0, -8.0)
    wrong = torch.where(target == 1, -8.0, 8.0)
    assert focal(right, target) < 0.01 < 10 < focal(wrong, target)
    nothing = torch.zeros_like(target)
    assert focal(torch.full_like(target, -8.0), nothing) < 0.01 < focal(right, nothing)


def test_giou_of_equal_boxes_is_one_and_of_distant_ones_negative() -> None:
    box = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    assert torch.allclose(giou(box, box)[0], torch.ones(1))
    assert giou(box, torch.tensor([[3.0, 3.0, 0.2, 0.4]]))[0] < -0.9


def test_only_chosen_cells_and_present_targets_count_in_the_box_loss() -> None:
    box = torch.tensor([[0.5, 0.5, 0.3, 0.3], [0.2, 0.2, 0.1, 0.1]])
    cells = inner_cells(box, SIDE, 0.5)
    named = torch.where(cells[..., None], box[:, None, None, :], torch.rand(2, SIDE, SIDE, 4))
    assert sum(box_losses(named, box, cells, torch.ones(2))) < 1e-5
    named[1] = 0.9
    assert sum(box_losses(named, box, cells, torch.tensor([1.0, 0.0]))) < 1e-5
    assert sum(box_losses(named, box, cells, torch.ones(2))) > 0.1


@given(x=st.sampled_from([0.0, 0.5, 1.0]), y=st.sampled_from([0.0, 1.0]))
def test_a_centre_on_the_border_has_a_cell(x: float, y: float) -> None:
    assert inner_cells(torch.tensor([[x, y, 0.01, 0.01]]), SIDE, 0.5).sum() == 1


def test_layer_contrast_prefers_the_target_over_hard_negatives() -> None:
    box = torch.tensor([[0.5, 0.5, 0.3, 0.3]])
    inside = inner_cells(box, SIDE, 1.0).flatten(1).float()
    weight = torch.ones(1)
    assert layer_contrast(inside * 20, box, weight) < 0.01 < 1 < layer_contrast(-inside * 20, box, weight)


def test_prompt_contrast_ignores_the_rim_of_the_box_and_knows_absence() -> None:
    box = torch.tensor([[0.5, 0.5, 0.6, 0.6]])
    inner, outer = (inner_cells(box, SIDE, share).flatten(1) for share in (0.75, 1.0))
    rim = outer & ~inner
    here = torch.tensor([True])
    logits = torch.stack([inner.float() * 9, (~inner).float() * 9], dim=-1)
    changed = torch.where(rim[..., None], torch.flip(logits, dims=(-1,)), logits)
    assert prompt_contrast(logits, box, here) < 0.01
    assert torch.equal(prompt_contrast(logits, box, here), prompt_contrast(changed, box, here))
    assert prompt_contrast(logits, box, ~here) > 1
