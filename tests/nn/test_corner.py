"""The corner head: where the maps peak is where the corners are, in the released code's coordinates."""

from __future__ import annotations

import pytest
import torch

from vltrack.nn.heads import CornerHead, corners_to_box, expected_place

SIDE = 20


def test_expected_place_of_peaks_and_of_nothing() -> None:
    logits = torch.zeros(3, SIDE, SIDE)
    logits[0, 3, 17] = 60.0  # row 3, column 17
    logits[1, 5, 5] = logits[1, 5, 8] = 60.0
    place = expected_place(logits)
    torch.testing.assert_close(place[0], torch.tensor([17 / SIDE, 3 / SIDE]))
    torch.testing.assert_close(place[1], torch.tensor([6.5 / SIDE, 5 / SIDE]))
    torch.testing.assert_close(place[2], torch.full((2,), (SIDE - 1) / 2 / SIDE))  # not one half
    assert torch.allclose(expected_place(logits + 100.0), place)


def test_expected_place_is_the_released_sum_over_pixels() -> None:
    """Cells stand for pixels i * 16 of a crop of S * 16; each coordinate is a weighted sum over all cells."""
    logits = torch.randn(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    share = logits.flatten(1).softmax(dim=1)
    pixels = torch.arange(SIDE * SIDE)
    x, y = (pixels % SIDE * 16).float(), (pixels // SIDE * 16).float()
    expected = torch.stack([(share * x).sum(dim=1), (share * y).sum(dim=1)], dim=1) / (SIDE * 16)
    torch.testing.assert_close(expected_place(logits), expected, rtol=1e-6, atol=1e-6)


def test_each_tower_has_its_corner_and_gradients_reach_both() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = CornerHead(8, (8, 4))
    maps = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(1))
    head.eval()
    before = head(maps)
    assert before.shape == (2, 4)
    with torch.no_grad():
        head.br.conv3.weight.neg_()
    after = head(maps)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.equal(before[:, 2:], after[:, 2:])
    head.train()
    corners_to_box(head(maps)).square().sum().backward()
    # a shift of all logits moves nothing, so the last biases and what batch norm takes away have no gradient
    still = {n for n, p in head.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 1e-7)}
    assert still == {
        f"{side}.{name}" for side in ("tl", "br") for name in ("conv1.0.bias", "conv2.0.bias", "conv3.bias")
    }


def test_names_are_the_released_ones_but_for_the_suffix() -> None:
    with torch.device("meta"):
        state = CornerHead(256, (256, 128, 64, 32)).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if name.startswith("tl.")}
    assert shapes["tl.conv1.0.weight"] == (256, 256, 3, 3)
    assert shapes["tl.conv4.1.running_var"] == (32,)
    assert shapes["tl.conv5.weight"] == (1, 32, 1, 1)
    assert len(shapes) == 4 * 7 + 2


def test_boxes_from_corners() -> None:
    corners = torch.tensor([[0.1, 0.2, 0.5, 0.4], [0.5, 0.2, 0.1, 0.4]])
    torch.testing.assert_close(
        corners_to_box(corners), torch.tensor([[0.3, 0.3, 0.4, 0.2], [0.3, 0.3, -0.4, 0.2]])
    )
    bounded = corners_to_box(corners, smallest=0.01)
    assert float(bounded[1, 2]) == pytest.approx(0.01)
    torch.testing.assert_close(bounded[0], corners_to_box(corners)[0])
