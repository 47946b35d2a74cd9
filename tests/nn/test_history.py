"""Past boxes made up for training: what they tell, what they must not, and that they are the same twice."""

from __future__ import annotations

import torch

from vltrack.models.aitrack import anywhere, rehearsed, unmoved

FACTOR = 4.0


def truth(batch: int = 2000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(batch, 4, generator=generator)
    return torch.cat([0.2 + 0.6 * shares[:, :2], 0.1 + 0.3 * shares[:, 2:]], dim=1)


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def test_the_last_box_is_what_the_crop_was_cut_around() -> None:
    past = rehearsed(truth(), FACTOR, 7)
    last = past[:, -1]
    assert torch.equal(last[:, :2], torch.full_like(last[:, :2], 0.5))
    assert torch.allclose(last[:, 2:].prod(dim=1), torch.full((2000,), FACTOR**-2))
    assert float(past[..., 2:].min()) > 0


def test_it_tells_the_shape_roughly_and_nothing_of_the_place() -> None:
    box = truth()
    past = rehearsed(box, FACTOR, 7)
    aspect, told = (b[:, 2].log() - b[:, 3].log() for b in (box, past[:, -1]))
    assert correlation(aspect, told) > 0.8
    assert float((aspect - told).abs().median()) > 0.05
    drift = past[:, -1, :2] - past[:, 0, :2]
    for axis in (0, 1):
        assert abs(correlation(box[:, axis] - 0.5, drift[:, axis])) < 0.08


def test_a_quarter_has_not_moved_and_the_others_move_smoothly() -> None:
    past = rehearsed(truth(), FACTOR, 7)
    still = (past == past[:, -1:]).flatten(1).all(dim=1)
    assert 0.2 < float(still.float().mean()) < 0.3
    steps = past[~still].diff(dim=1)[..., :2].abs()
    assert float(steps.mean()) < 0.05
    assert float(past[..., :2].min()) > 0
    assert float(past[..., :2].max()) < 1


def test_the_same_boxes_have_the_same_past_whatever_was_drawn_before() -> None:
    box = truth(8)
    first = rehearsed(box, FACTOR, 7)
    torch.rand(5)
    assert torch.equal(first, rehearsed(box, FACTOR, 7))
    assert not torch.equal(first, rehearsed(box + 1e-3, FACTOR, 7))


def test_starts() -> None:
    size = torch.tensor([[0.2, 0.3]])
    assert torch.equal(unmoved(size, 7), torch.tensor([[[0.5, 0.5, 0.2, 0.3]] * 7]))
    assert torch.equal(anywhere(2, 3, size), torch.tensor([0.5, 0.5, 1.0, 1.0]).expand(2, 3, 4))
    assert rehearsed(truth(3), FACTOR, 1).shape == (3, 1, 4)
