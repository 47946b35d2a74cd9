"""Box codes, positions, the star adapter, explicit matching, devices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vltrack.core.errors import ResourceError
from vltrack.models.litetrack import StarAdapter
from vltrack.nn.backbones import sincos_positions
from vltrack.nn.correlation import TemplateMatch
from vltrack.nn.device import choose_device, mixed_precision
from vltrack.nn.heads import ConvTower, decode_boxes


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
def test_box_codes_can_name_any_box(cx: float, cy: float, w: float, h: float, side: int) -> None:
    """The raw channels that a box would be written in decode to that box, x before y, at the right cell."""
    column, row = min(int(cx * side), side - 1), min(int(cy * side), side - 1)
    truth = torch.tensor([cx, cy, w, h])
    offset, size = torch.zeros(1, 2, side, side), torch.zeros(1, 2, side, side)
    inner = [min(max(v * side - c, 1e-4), 1 - 1e-4) for v, c in ((cx, column), (cy, row))]
    offset[0, :, row, column] = torch.tensor([logit(v) for v in inner])
    size[0, :, row, column] = torch.tensor([logit(w), logit(h)])
    torch.testing.assert_close(decode_boxes(offset, size, "cell")[0, row, column], truth, atol=1e-4, rtol=0)
    # "free" can be said by any cell, here by one far from the centre.
    row, column = side - 1 - row, side - 1 - column
    offset[0, :, row, column] = torch.tensor([cx * side - column - 0.5, cy * side - row - 0.5])
    size[0, :, row, column] = (4 * truth[2:]).log()
    torch.testing.assert_close(decode_boxes(offset, size, "free")[0, row, column], truth, atol=1e-4, rtol=0)


@pytest.mark.parametrize("code", ["cell", "free"])
def test_box_codes_stay_finite(code: str) -> None:
    wild = torch.full((1, 2, 4, 4), 1e4)
    for offset, size in ((wild, wild), (-wild, -wild)):
        boxes = decode_boxes(offset, size, code)
        assert bool(torch.isfinite(boxes).all())
        assert float(boxes[..., 2:].min()) >= 0


def test_tower_keeps_the_map() -> None:
    assert ConvTower(8, (6, 4), 2).eval()(torch.zeros(3, 8, 5, 5)).shape == (3, 2, 5, 5)


def test_positions_by_the_formula() -> None:
    """[sin column, cos column, sin row, cos row] of index / 10000^(i / (width / 4))."""
    side, width = 5, 16
    table = sincos_positions(width, side)
    assert table.shape == (25, width)
    for row, column, i in ((0, 0, 0), (1, 3, 2), (4, 2, 3)):
        rate = torch.tensor(10000.0 ** (-i / 4), dtype=torch.float64)
        expected = [(column * rate).sin(), (column * rate).cos(), (row * rate).sin(), (row * rate).cos()]
        actual = [float(table[row * side + column, i + 4 * part]) for part in range(4)]
        assert actual == pytest.approx([float(v) for v in expected], abs=1e-6)
    with pytest.raises(ValueError, match="18"):
        sincos_positions(18, 4)


def test_star_adapter_starts_as_the_identity_and_is_registered() -> None:
    star, x = StarAdapter(8, 3), torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(star(x), x)
    assert set(star.state_dict()) == {
        "alpha", "f1.weight", "f1.bias", "f2.weight", "f2.bias", "g.weight", "g.bias"
    }  # fmt: skip
    star(x).sum().backward()
    assert float(star.alpha.grad.abs()) > 0  # the way out of the identity
    with torch.no_grad():
        star.alpha.fill_(0.5)
        first, second = star(x), star(x)
        expected = x + 0.5 * star.g((star.f1(x).clamp(0, 6)) * star.f2(x))
    assert torch.equal(first, second)  # no weights drawn anew in a call
    torch.testing.assert_close(first, expected)


def matcher(templates: int = 1) -> TemplateMatch:
    return TemplateMatch(6, 4, 9, templates, 5).eval()


def test_matching_points_at_the_cell_that_holds_the_target() -> None:
    """Before any training the similarity to the target's pooled features peaks where these features are."""
    random = torch.Generator().manual_seed(0)
    coarse, fine = torch.randn(1, 9, 6, generator=random), torch.randn(1, 36, 4, generator=random)
    inside = torch.zeros(1, 9)
    inside[0, 4] = 1.0
    net = matcher()
    with torch.no_grad():
        keys, pooled, fine_pooled = net.describe(coarse, fine, inside)
        search = torch.randn(1, 16, 6, generator=random)
        search[0, 11] = 3 * coarse[0, 4]
        similarity = torch.nn.functional.normalize(net.key(search), dim=-1) @ pooled[0]
    assert int(similarity[0].argmax()) == 11
    assert float(similarity[0, 11]) == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(
        keys[0].abs().sum(dim=1) > 0, inside[0] > 0
    )  # background of the template is weighted out
    # The four fine cells of a template cell lie together.
    four = torch.nn.functional.normalize(fine[0, 16:20], dim=-1).sum(dim=0)
    torch.testing.assert_close(fine_pooled[0], torch.nn.functional.normalize(four, dim=0))


@torch.no_grad()
def test_two_templates_are_matched_each_in_its_place() -> None:
    random = torch.Generator().manual_seed(1)
    net = matcher(templates=2)
    parts = []
    for _ in range(2):
        described = net.describe(
            torch.randn(1, 9, 6, generator=random),
            torch.randn(1, 36, 4, generator=random),
            torch.rand(1, 9, generator=random),
        )
        parts.append([tensor[:, None] for tensor in described])
    both = [torch.cat(pair, dim=1) for pair in zip(*parts, strict=True)]
    search = torch.randn(1, 16, 6, generator=random), torch.randn(1, 64, 4, generator=random)
    out = net(*search, *both)
    assert out.shape == (1, 16, 5)
    swapped = net(*search, *[tensor.flip(1) for tensor in both])
    assert float((out - swapped).abs().max()) > 1e-4  # the order tells first from recent


def test_matching_without_a_box_finds_nothing() -> None:
    net = matcher()
    described = net.describe(torch.randn(1, 9, 6), torch.randn(1, 36, 4), torch.zeros(1, 9))
    assert all(float(tensor.detach().abs().sum()) == 0 for tensor in described)


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    for absent in ("tpu", "cuda:0" if not torch.cuda.is_available() else "xyz"):
        with pytest.raises(ResourceError, match="cpu"):
            choose_device(absent)


def test_mixed_precision_can_be_switched_off() -> None:
    with mixed_precision(torch.device("cpu"), enabled=False):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
