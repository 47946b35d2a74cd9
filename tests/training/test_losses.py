"""Labels and losses against values by hand; right outputs cost little, and gradients are finite."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vltrack.models.artrack_decoder import BoxTokenizer
from vltrack.nn.boxes import box_mask
from vltrack.training.losses import (
    TERMS,
    Labels,
    dense_match,
    focal,
    gaussian_centers,
    giou,
    layer_contrast,
    matching_labels,
    nt_xent,
    prompt_contrast,
    siou,
    siou_loss,
    token_loss,
)
from vltrack.training.recipes import LossWeights

SIDE = 14
unit = st.floats(0.1, 0.9)


@given(x=unit, y=unit, w=st.floats(0.02, 1.5), h=st.floats(0.02, 1.5))
@settings(max_examples=60, deadline=None)
def test_peak_is_one_at_the_center(x: float, y: float, w: float, h: float) -> None:
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
    cells = box_mask(box, SIDE, 0.5).view(2, SIDE, SIDE)
    named = torch.where(cells[..., None], box[:, None, None, :], torch.rand(2, SIDE, SIDE, 4))

    def loss(*present: bool) -> float:
        some = {name: torch.ones(2, dtype=torch.bool) for name in ("has_text_B", "target_B")}
        labels = Labels(box_B4=box, present_B=torch.tensor(present), weights=LossWeights(box_cells=0.5), **some)
        return sum(float(TERMS[name][1](named, labels)) for name in ("giou", "l1"))

    assert loss(True, True) < 1e-5
    named[1] = 0.9
    assert loss(True, False) < 1e-5
    assert loss(True, True) > 0.1


@given(x=st.sampled_from([0.0, 0.5, 1.0]), y=st.sampled_from([0.0, 1.0]))
def test_a_center_on_the_border_has_a_cell(x: float, y: float) -> None:
    assert box_mask(torch.tensor([[x, y, 0.01, 0.01]]), SIDE, 0.5).sum() == 1


def test_layer_contrast_prefers_the_target_over_hard_negatives() -> None:
    box = torch.tensor([[0.5, 0.5, 0.3, 0.3]])
    inside = box_mask(box, SIDE).float()
    weight = torch.ones(1)
    assert layer_contrast(inside * 20, box, weight) < 0.01 < 1 < layer_contrast(-inside * 20, box, weight)


def test_prompt_contrast_ignores_the_rim_of_the_box_and_handles_absence() -> None:
    box = torch.tensor([[0.5, 0.5, 0.6, 0.6]])
    inner, outer = (box_mask(box, SIDE, share) for share in (0.75, 1.0))
    rim = outer & ~inner
    here = torch.tensor([True])
    logits = torch.stack([inner.float() * 9, (~inner).float() * 9], dim=-1)
    changed = torch.where(rim[..., None], torch.flip(logits, dims=(-1,)), logits)
    assert prompt_contrast(logits, box, here) < 0.01
    assert torch.equal(prompt_contrast(logits, box, here), prompt_contrast(changed, box, here))
    assert prompt_contrast(logits, box, ~here) > 1


# -- dense matching (SATracker) -----------------------------------------------------------------------------

# On a map of 8 cells: from 2 to 6 in both directions; its inner three quarters from 2.5 to 5.5.
BOX = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
PRESENT = torch.tensor([True])


def test_center_is_positive_rim_ignored_and_rest_negative() -> None:
    positive, weights = matching_labels(torch.tensor([[0.5, 0.5, 0.5, 0.25]]), PRESENT, 8)
    # Columns 2..5 and rows 3, 4 lie in the box; 2.5 and 5.5 are on the edge of the inner part, which is in.
    kinds = torch.where(positive, 2, (weights == 0).int()).view(8, 8)
    assert kinds[3:5].tolist() == [[0, 0, 2, 2, 2, 2, 0, 0]] * 2
    assert int(kinds.sum()) == 16
    positive, weights = matching_labels(torch.tensor([[0.5, 0.5, 0.45, 0.45]]), PRESENT, 8)
    kinds = torch.where(positive, 2, (weights == 0).int()).view(8, 8)
    assert kinds[2:6, 2:6].tolist() == [[1, 1, 1, 1], [1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1]]
    assert set(weights[positive].tolist()) == {16.0}
    assert set(weights.view(8, 8)[kinds == 0].tolist()) == {0.5625}


def test_a_target_smaller_than_a_cell_has_the_cell_of_its_center() -> None:
    positive, weights = matching_labels(torch.tensor([[0.49, 0.26, 0.01, 0.01]]), PRESENT, 8)
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
    assert torch.equal(positive, box_mask(box, 8, 0.75) & present[:, None])


def test_value_by_hand() -> None:
    """Four cells, one of them the target's: every other one weighs 0.5625."""
    box = torch.tensor([[0.25, 0.25, 0.1, 0.1]])
    logits = torch.tensor([[2.0, -1.0, 0.0, 3.0]])
    softplus = [math.log1p(math.exp(v)) for v in (-2.0, -1.0, 0.0, 3.0)]
    expected = (16 * softplus[0] + 0.5625 * sum(softplus[1:])) / (16 + 3 * 0.5625)
    assert float(dense_match([logits], box, PRESENT)) == pytest.approx(expected, rel=1e-6)


def test_levels_count_alike() -> None:
    random = torch.Generator().manual_seed(1)
    a, b, c = torch.randn(3, 2, 64, generator=random)
    box, present = BOX.expand(2, 4), torch.tensor([True, True])
    each = [float(dense_match([one], box, present)) for one in (a, b, c)]
    assert float(dense_match([a, b, c], box, present)) == pytest.approx(sum(each) / 3, rel=1e-6)


def test_right_similarities_cost_less_and_the_rim_costs_nothing() -> None:
    positive, weights = matching_labels(torch.tensor([[0.5, 0.5, 0.45, 0.45]]), PRESENT, 8)
    box = torch.tensor([[0.5, 0.5, 0.45, 0.45]])
    right = torch.where(positive, 8.0, -8.0)
    assert float(dense_match([right], box, PRESENT)) < 1e-3
    assert float(dense_match([-right], box, PRESENT)) > 7
    logits = right.clone().requires_grad_()
    dense_match([logits], box, PRESENT).backward()
    assert logits.grad is not None
    assert bool((logits.grad[weights == 0] == 0).all())
    assert bool((logits.grad[weights > 0] != 0).all())


# -- NT-Xent (All-in-One) -----------------------------------------------------------------------------------


def vectors(count: int, seed: int, width: int = 6) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def by_the_definition(a: Tensor, b: Tensor, negatives: list[list[int]]) -> float:
    """``negatives`` are indices into [a; b] for each vector of [a; b]; an empty list leaves it out."""
    both = [row / row.norm() for row in torch.cat([a, b])]
    losses = []
    for i, others in enumerate(negatives):
        partner = float(both[i] @ both[(i + len(a)) % len(both)]) / 0.5
        if others:
            total = sum(math.exp(float(both[i] @ both[j]) / 0.5) for j in others)
            losses.append(math.log(total + math.exp(partner)) - partner)
    return sum(losses) / len(losses)


def test_nt_xent_by_the_definition() -> None:
    a, b = vectors(4, 0), vectors(4, 1)
    negatives = [[j for j in range(8) if j % 4 != i % 4] for i in range(8)]
    expected = by_the_definition(a, b, negatives)
    assert float(nt_xent(a, b)) == pytest.approx(expected, rel=1e-5)
    assert float(nt_xent(3 * a, 0.1 * b)) == pytest.approx(expected, rel=1e-5)


def test_views_of_one_target_are_not_negatives_of_each_other() -> None:
    a, b, target = vectors(4, 2), vectors(4, 3), torch.tensor([0, 0, 1, 1])
    negatives = [[j for j in range(8) if int(target[j % 4]) != int(target[i % 4])] for i in range(8)]
    assert float(nt_xent(a, b, target_B=target)) == pytest.approx(by_the_definition(a, b, negatives), rel=1e-5)


def test_samples_without_a_sentence_take_no_part() -> None:
    a, b, used = vectors(5, 4), vectors(5, 5), torch.tensor([True, False, True, True, False])
    some = nt_xent(a, b, used_B=used)
    torch.testing.assert_close(some, nt_xent(a[used], b[used]))
    wild = torch.where(used[:, None], b, torch.full_like(b, 9.0))
    assert torch.equal(some, nt_xent(a, wild, used_B=used))


def test_aligned_vectors_cost_least_and_constant_ones_make_no_difference() -> None:
    """The released model's sentence vector is one constant: no arrangement of the others helps."""
    a = torch.eye(6)
    assert float(nt_xent(a, a)) < float(nt_xent(a, a.roll(1, dims=0)))
    constant = torch.ones(6, 6)
    assert float(nt_xent(a, constant)) == pytest.approx(float(nt_xent(a.roll(1, dims=0), constant)), rel=1e-6)


def test_none_and_one_are_zero_with_a_gradient() -> None:
    a, b = vectors(2, 6).requires_grad_(), vectors(2, 7).requires_grad_()
    for used in ([False, False], [True, False]):
        loss = nt_xent(a, b, used_B=torch.tensor(used))
        assert float(loss.detach()) == 0
        gradient = torch.autograd.grad(loss, [a, b])
        assert all(float(g.abs().max()) == 0 for g in gradient)


def test_both_sides_get_a_gradient() -> None:
    a, b = vectors(3, 8).requires_grad_(), vectors(3, 9).requires_grad_()
    nt_xent(a, b).backward()
    assert float(a.grad.abs().min()) > 0
    assert float(b.grad.abs().min()) > 0


# -- coordinate tokens (ARTrack) and SIoU -------------------------------------------------------------------

TOKENIZER = BoxTokenizer()


def box(*numbers: float) -> torch.Tensor:
    return torch.tensor([numbers])


def test_siou_of_equal_boxes_is_zero() -> None:
    assert float(siou(box(0.5, 0.4, 0.2, 0.3), box(0.5, 0.4, 0.2, 0.3))) == pytest.approx(0.0, abs=1e-6)


def test_siou_side_by_side() -> None:
    """Half a width apart along x: no angle, IoU 1/3, hull 1.5 wide."""
    found = float(siou(box(0.5, 0.0, 1.0, 1.0), box(0.0, 0.0, 1.0, 1.0)))
    distance = 1 - math.exp(-2 * (0.5 / 1.5) ** 2)
    assert found == pytest.approx(1 - 1 / 3 + distance / 2, abs=1e-6)


def test_siou_on_the_diagonal() -> None:
    """At 45 degrees the angle's cost is 1, so that gamma is 1."""
    found = float(siou(box(0.5, 0.5, 1.0, 1.0), box(0.0, 0.0, 1.0, 1.0)))
    distance = 2 * (1 - math.exp(-((0.5 / 1.5) ** 2)))
    assert found == pytest.approx(1 - 0.25 / 1.75 + distance / 2, abs=1e-6)


def test_siou_of_another_shape() -> None:
    """Twice as wide and half as high about one centre: each side differs by half of the larger one."""
    found = float(siou(box(0.0, 0.0, 2.0, 0.5), box(0.0, 0.0, 1.0, 1.0)))
    shape = 2 * (1 - math.exp(-0.5)) ** 4
    assert found == pytest.approx(1 - 0.5 / 1.5 + shape / 2, abs=1e-6)


def test_siou_is_the_papers_formula_at_any_angle() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(200, 4, generator=generator) + 0.1 for _ in range(2))
    dx, dy = (a - b)[:, :2].abs().unbind(1)
    sine = dy / (dx**2 + dy**2).sqrt()
    angle = 1 - 2 * torch.sin(torch.arcsin(sine) - math.pi / 4) ** 2
    low = torch.minimum(a[:, :2] - a[:, 2:] / 2, b[:, :2] - b[:, 2:] / 2)
    hull = torch.maximum(a[:, :2] + a[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2) - low
    distance = (1 - (-(2 - angle)[:, None] * ((a - b)[:, :2] / hull) ** 2).exp()).sum(1)
    shape = (1 - (-(a - b)[:, 2:].abs() / torch.maximum(a, b)[:, 2:]).exp()).pow(4).sum(1)
    left = torch.maximum(a[:, :2] - a[:, 2:] / 2, b[:, :2] - b[:, 2:] / 2)
    right = torch.minimum(a[:, :2] + a[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2)
    inter = (right - left).clamp_min(0).prod(1)
    iou = inter / (a[:, 2:].prod(1) + b[:, 2:].prod(1) - inter)
    assert torch.allclose(siou(a, b), 1 - iou + (distance + shape) / 2, atol=1e-5)


@pytest.mark.parametrize(
    "numbers",
    [(0.5, 0.5, 0.2, 0.2), (0.9, 0.5, 0.2, 0.2), (0.5, 0.5, -0.1, 0.2), (0.1, 0.9, 0.0, 0.0)],
    ids=["equal", "side by side", "negative", "empty"],
)
def test_siou_has_a_finite_gradient_everywhere(numbers: tuple[float, ...]) -> None:
    guess = box(*numbers).requires_grad_()
    loss = siou(guess, box(0.5, 0.5, 0.2, 0.2)).sum()
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(guess.grad).all())


def test_a_negative_size_is_led_back() -> None:
    guess = box(0.5, 0.5, -0.1, 0.2).requires_grad_()
    siou(guess, box(0.5, 0.5, 0.2, 0.2)).sum().backward()
    assert float(guess.grad[0, 2]) < 0  # wider is better


def test_absent_targets_do_not_count() -> None:
    guess, truth = torch.cat([box(0.5, 0.5, 0.2, 0.2), box(0.1, 0.1, 0.1, 0.1)]), box(0.5, 0.5, 0.2, 0.2)
    truth = truth.expand(2, 4)
    assert float(siou_loss(guess, truth, torch.tensor([1.0, 0.0]))) == pytest.approx(0.0, abs=1e-6)
    assert float(siou_loss(guess, truth, torch.zeros(2))) == 0.0
    logits = torch.zeros(2, 5, TOKENIZER.size, requires_grad=True)
    token_loss(logits, truth, torch.tensor([1.0, 0.0]), TOKENIZER).backward()
    assert float(logits.grad[1].abs().max()) == 0.0
    assert float(logits.grad[0].abs().max()) > 0.0


def test_token_loss_by_hand() -> None:
    """Coordinates are certain, the end token is not: log 802 with a weight of .1 among 4.1."""
    truth = box(0.5, 0.6, 0.25, 0.2)
    logits = torch.zeros(1, 5, TOKENIZER.size)
    logits[0, torch.arange(4), torch.tensor([349, 399, 448, 478])] = 100.0
    found = float(token_loss(logits, truth, torch.ones(1), TOKENIZER))
    assert found == pytest.approx(0.1 * math.log(802) / 4.1, rel=1e-4)
    assert float(token_loss(logits[:, :4], truth, torch.ones(1), TOKENIZER)) == pytest.approx(0.0, abs=1e-5)


def test_token_loss_is_cross_entropy_with_class_weights() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 5, TOKENIZER.size, generator=generator)
    truth = torch.rand(3, 4, generator=generator) * 0.5 + 0.2
    labels = torch.cat([TOKENIZER.encode(truth), torch.full((3, 1), TOKENIZER.coordinates + 1)], dim=1)
    weights = torch.ones(TOKENIZER.size)
    weights[800:] = 0.1
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), weight=weights)
    assert torch.allclose(token_loss(logits, truth, torch.ones(3), TOKENIZER), expected)
