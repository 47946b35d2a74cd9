"""Cross-entropy of coordinate words and SIoU against numbers computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from vltrack.models.artrack_decoder import BoxTokenizer
from vltrack.training.losses import siou, siou_loss, token_loss

WORDS = BoxTokenizer()


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
    logits = torch.zeros(2, 5, WORDS.size, requires_grad=True)
    token_loss(logits, truth, torch.tensor([1.0, 0.0]), WORDS).backward()
    assert float(logits.grad[1].abs().max()) == 0.0
    assert float(logits.grad[0].abs().max()) > 0.0


def test_word_loss_by_hand() -> None:
    """Coordinates are certain, the end word is not: log 802 with a weight of .1 among 4.1."""
    truth = box(0.5, 0.6, 0.25, 0.2)
    logits = torch.zeros(1, 5, WORDS.size)
    logits[0, torch.arange(4), torch.tensor([349, 399, 448, 478])] = 100.0
    found = float(token_loss(logits, truth, torch.ones(1), WORDS))
    assert found == pytest.approx(0.1 * math.log(802) / 4.1, rel=1e-4)
    assert float(token_loss(logits[:, :4], truth, torch.ones(1), WORDS)) == pytest.approx(0.0, abs=1e-5)


def test_word_loss_is_torchs_with_class_weights() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 5, WORDS.size, generator=generator)
    truth = torch.rand(3, 4, generator=generator) * 0.5 + 0.2
    labels = torch.cat([WORDS.encode(truth), torch.full((3, 1), WORDS.end)], dim=1)
    weights = torch.ones(WORDS.size)
    weights[800:] = 0.1
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), weight=weights)
    assert torch.allclose(token_loss(logits, truth, torch.ones(3), WORDS), expected)
