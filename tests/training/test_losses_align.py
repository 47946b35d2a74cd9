"""NT-Xent against its definition, and what does not count as a negative."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vltrack.training.losses import nt_xent


def vectors(count: int, seed: int, width: int = 6) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def by_the_definition(a: Tensor, b: Tensor, negatives: list[list[int]], temperature: float = 0.5) -> float:
    """``negatives`` are places in [a; b] for each vector of [a; b]; an empty list leaves the vector out."""
    both = [row / row.norm() for row in torch.cat([a, b])]
    losses = []
    for i, others in enumerate(negatives):
        partner = float(both[i] @ both[(i + len(a)) % len(both)]) / temperature
        if others:
            total = sum(math.exp(float(both[i] @ both[j]) / temperature) for j in others)
            losses.append(math.log(total + math.exp(partner)) - partner)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.5, 0.1])
def test_by_the_definition(temperature: float) -> None:
    a, b = vectors(4, 0), vectors(4, 1)
    negatives = [[j for j in range(8) if j % 4 != i % 4] for i in range(8)]
    expected = by_the_definition(a, b, negatives, temperature)
    assert float(nt_xent(a, b, temperature=temperature)) == pytest.approx(expected, rel=1e-5)
    assert float(nt_xent(3 * a, 0.1 * b, temperature=temperature)) == pytest.approx(expected, rel=1e-5)


def test_views_of_one_target_are_no_negatives_of_each_other() -> None:
    a, b, target = vectors(4, 2), vectors(4, 3), torch.tensor([0, 0, 1, 1])
    negatives = [[j for j in range(8) if int(target[j % 4]) != int(target[i % 4])] for i in range(8)]
    assert float(nt_xent(a, b, target_B=target)) == pytest.approx(
        by_the_definition(a, b, negatives), rel=1e-5
    )


def test_samples_without_a_sentence_take_no_part() -> None:
    a, b, used = vectors(5, 4), vectors(5, 5), torch.tensor([True, False, True, True, False])
    some = nt_xent(a, b, used_B=used)
    torch.testing.assert_close(some, nt_xent(a[used], b[used]))
    wild = torch.where(used[:, None], b, torch.full_like(b, 9.0))
    assert torch.equal(some, nt_xent(a, wild, used_B=used))


def test_aligned_vectors_cost_least_and_constant_ones_teach_nothing() -> None:
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
