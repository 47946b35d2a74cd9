"""The center head as OSTrack's, the box codes, the towers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.nn.heads import CenterHead, ConvTower, cosine, decode_boxes, decode_cells, temperature_parameter


def head(code: str = "cell", side: int = 4) -> CenterHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CenterHead(8, side=side, channels=(6, 4), code=code).eval()


def tokens(side: int = 4, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, side * side, 8, generator=torch.Generator().manual_seed(1))


@settings(max_examples=50, deadline=None)
@given(
    cx=st.floats(0.0, 0.999),
    cy=st.floats(0.0, 0.999),
    w=st.floats(0.001, 0.999),
    h=st.floats(0.001, 0.999),
    side=st.sampled_from([7, 16]),
)
def test_a_box_written_into_its_cell_comes_back(cx: float, cy: float, w: float, h: float, side: int) -> None:
    column, row = int(cx * side), int(cy * side)
    offset, size = torch.zeros(1, 2, side, side), torch.zeros(1, 2, side, side)
    offset[0, :, row, column] = torch.tensor([cx * side - column, cy * side - row])
    size[0, :, row, column] = torch.logit(torch.tensor([w, h]))
    boxes = decode_cells(offset, size)
    torch.testing.assert_close(boxes[0, row, column], torch.tensor([cx, cy, w, h]), atol=1e-5, rtol=0)
    empty = boxes[0, (row + 1) % side, (column + 2) % side]
    wanted = torch.tensor([((column + 2) % side) / side, ((row + 1) % side) / side, 0.5, 0.5])
    torch.testing.assert_close(empty, wanted)


def test_the_offset_is_raw_and_the_size_bounded() -> None:
    """UVLTrack's code, which is called ``cell`` in nn.heads, bends the offset; OSTrack's does not."""
    offset, size = torch.full((1, 2, 2, 2), 1.7), torch.full((1, 2, 2, 2), 50.0)
    box = decode_cells(offset, size)[0, 1, 0]
    torch.testing.assert_close(box, torch.tensor([1.7 / 2, 2.7 / 2, 1 - 1e-4, 1 - 1e-4]))
    assert not torch.allclose(box, decode_boxes(offset, size, "cell")[0, 1, 0], atol=0.1)
    assert float(decode_cells(offset, -size)[..., 2:].max()) == pytest.approx(1e-4)


def test_free_is_the_box_code_of_the_tiny_sizes() -> None:
    net, x = head("free"), tokens()
    with torch.no_grad():
        maps = net(x)
        picture = x.transpose(1, 2).reshape(2, 8, 4, 4)
        expected = decode_boxes(net.offset(picture), net.size(picture), "free")
    assert torch.equal(maps.boxes_BSS4, expected)


@pytest.mark.parametrize("code", ["cell", "free"])
def test_maps_fit_the_tokens(code: str) -> None:
    net, x = head(code), tokens()
    with torch.no_grad():
        maps = net(x)
        assert maps.boxes_BSS4.shape == (2, 4, 4, 4)
        assert torch.equal(maps.center_BSS, maps.logits_BSS.sigmoid().clamp(1e-4, 1 - 1e-4))
        # A token changes its own cell and its neighbours within reach of two 3x3 layers, row by row.
        changed = x.clone()
        changed[:, 0] += 1.0
        moved = (net(changed).logits_BSS - maps.logits_BSS).abs() > 0
    assert bool(moved[:, 0, 0].all())
    assert not bool(moved[:, 3].any())
    assert not bool(moved[:, :, 3].any())


def test_centers_start_as_rare() -> None:
    with torch.no_grad():
        assert float(head()(torch.zeros(1, 16, 8)).center_BSS.max()) < 0.05


def test_names_and_published_size() -> None:
    """6.47 M parameters at OSTrack's widths, in three towers of four layers and one 1x1 convolution."""
    with torch.device("meta"):
        net = CenterHead(768, side=16, channels=(256, 128, 64, 32), code="cell")
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(6.47e6, rel=1e-3)
    names = {f"{tower}.{part}" for tower in ("center", "offset", "size") for part in ("body", "out")}
    assert {".".join(name.split(".")[:2]) for name in net.state_dict()} == names


def logit(p: float) -> float:
    return float(torch.logit(torch.tensor(p, dtype=torch.float64)))


@settings(max_examples=50, deadline=None)
@given(
    cx=st.floats(0.02, 0.98),
    cy=st.floats(0.02, 0.98),
    w=st.floats(0.02, 0.95),
    h=st.floats(0.02, 0.95),
    side=st.sampled_from([7, 14, 16]),
)
def test_box_codes_can_express_any_box(cx: float, cy: float, w: float, h: float, side: int) -> None:
    """The raw channels that a box would be written in decode to that box, x before y, at the right cell."""
    column, row = min(int(cx * side), side - 1), min(int(cy * side), side - 1)
    expected = torch.tensor([cx, cy, w, h])
    offset, size = torch.zeros(1, 2, side, side), torch.zeros(1, 2, side, side)
    inner = [min(max(v * side - c, 1e-4), 1 - 1e-4) for v, c in ((cx, column), (cy, row))]
    offset[0, :, row, column] = torch.tensor([logit(v) for v in inner])
    size[0, :, row, column] = torch.tensor([logit(w), logit(h)])
    torch.testing.assert_close(decode_boxes(offset, size, "cell")[0, row, column], expected, atol=1e-4, rtol=0)
    # Under "free" any cell can predict it, here one far from the center.
    row, column = side - 1 - row, side - 1 - column
    offset[0, :, row, column] = torch.tensor([cx * side - column - 0.5, cy * side - row - 0.5])
    size[0, :, row, column] = (4 * expected[2:]).log()
    torch.testing.assert_close(decode_boxes(offset, size, "free")[0, row, column], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("code", ["cell", "free"])
def test_box_codes_stay_finite(code: str) -> None:
    wild = torch.full((1, 2, 4, 4), 1e4)
    for offset, size in ((wild, wild), (-wild, -wild)):
        boxes = decode_boxes(offset, size, code)
        assert bool(torch.isfinite(boxes).all())
        assert float(boxes[..., 2:].min()) >= 0


def test_tower_keeps_the_map() -> None:
    assert ConvTower(8, (6, 4), 2).eval()(torch.zeros(3, 8, 5, 5)).shape == (3, 2, 5, 5)


def test_cosine_and_temperature() -> None:
    a = torch.tensor([[[3.0, 0.0], [0.0, 0.0]]])
    b = torch.tensor([[[0.5, 0.5]]])
    assert cosine(a, b).flatten().tolist() == pytest.approx([math.sqrt(0.5), 0.0])
    assert float(temperature_parameter().detach().exp()) == pytest.approx(1 / 0.07)
