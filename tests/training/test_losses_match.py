"""Which cells are the target's and which are left out, and the loss on their similarities, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from vltrack.training.losses import dense_match, inner_cells, matching_labels, prompt_contrast

# On a map of 8 cells: from 2 to 6 in both directions; its inner three quarters from 2.5 to 5.5.
BOX = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
HERE = torch.tensor([True])


def test_centre_is_positive_the_rim_left_out_and_the_rest_negative() -> None:
    positive, weights = matching_labels(torch.tensor([[0.5, 0.5, 0.5, 0.25]]), HERE, 8)
    # Columns 2..5 and rows 3, 4 lie in the box; 2.5 and 5.5 are on the edge of the inner part, which is in.
    kinds = torch.where(positive, 2, (weights == 0).int()).view(8, 8)
    assert kinds[3:5].tolist() == [[0, 0, 2, 2, 2, 2, 0, 0]] * 2
    assert int(kinds.sum()) == 16
    positive, weights = matching_labels(torch.tensor([[0.5, 0.5, 0.45, 0.45]]), HERE, 8)
    kinds = torch.where(positive, 2, (weights == 0).int()).view(8, 8)
    assert kinds[2:6, 2:6].tolist() == [[1, 1, 1, 1], [1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1]]
    assert set(weights[positive].tolist()) == {16.0}
    assert set(weights.view(8, 8)[kinds == 0].tolist()) == {0.5625}


def test_a_target_smaller_than_a_cell_has_the_cell_of_its_centre() -> None:
    positive, weights = matching_labels(torch.tensor([[0.49, 0.26, 0.01, 0.01]]), HERE, 8)
    assert positive.nonzero().tolist() == [[0, 2 * 8 + 3]]
    assert int((weights == 0).sum()) == 0


def test_an_absent_target_has_no_cell() -> None:
    positive, weights = matching_labels(BOX, torch.tensor([False]), 8)
    assert not bool(positive.any())
    assert weights.unique().tolist() == [0.5625]


def test_labels_are_those_of_the_prompt_contrast() -> None:
    """Two-class cross-entropy on (s, 0) is binary cross-entropy on s: both losses see one labelling."""
    random = torch.Generator().manual_seed(0)
    share = torch.rand(5, 4, generator=random)
    box = torch.cat([0.3 + 0.4 * share[:, :2], 0.1 + 0.4 * share[:, 2:]], dim=1)
    present = torch.tensor([True, True, False, True, True])
    logits = torch.randn(5, 64, generator=random)
    two = torch.stack([logits, torch.zeros_like(logits)], dim=-1)
    torch.testing.assert_close(dense_match([logits], box, present), prompt_contrast(two, box, present))
    positive, _ = matching_labels(box, present, 8)
    assert torch.equal(positive, inner_cells(box, 8, 0.75).flatten(1) & present[:, None])


def test_value_by_hand() -> None:
    """Four cells, one of them the target's: every other one weighs 0.5625."""
    box = torch.tensor([[0.25, 0.25, 0.1, 0.1]])
    logits = torch.tensor([[2.0, -1.0, 0.0, 3.0]])
    softplus = [math.log1p(math.exp(v)) for v in (-2.0, -1.0, 0.0, 3.0)]
    expected = (16 * softplus[0] + 0.5625 * sum(softplus[1:])) / (16 + 3 * 0.5625)
    assert float(dense_match([logits], box, HERE)) == pytest.approx(expected, rel=1e-6)


def test_levels_count_alike() -> None:
    random = torch.Generator().manual_seed(1)
    a, b, c = torch.randn(3, 2, 64, generator=random)
    box, present = BOX.expand(2, 4), torch.tensor([True, True])
    each = [float(dense_match([one], box, present)) for one in (a, b, c)]
    assert float(dense_match([a, b, c], box, present)) == pytest.approx(sum(each) / 3, rel=1e-6)
    with pytest.raises(ValueError, match="no similarities"):
        dense_match([], box, present)


def test_right_similarities_cost_less_and_the_rim_costs_nothing() -> None:
    positive, weights = matching_labels(torch.tensor([[0.5, 0.5, 0.45, 0.45]]), HERE, 8)
    box = torch.tensor([[0.5, 0.5, 0.45, 0.45]])
    right = torch.where(positive, 8.0, -8.0)
    assert float(dense_match([right], box, HERE)) < 1e-3
    assert float(dense_match([-right], box, HERE)) > 7
    logits = right.clone().requires_grad_()
    dense_match([logits], box, HERE).backward()
    assert logits.grad is not None
    assert bool((logits.grad[weights == 0] == 0).all())
    assert bool((logits.grad[weights > 0] != 0).all())
