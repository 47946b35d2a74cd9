"""PicoDet-S against the operation list of its published file, boxes by hand, and what is refused."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vltrack.nn import picodet
from vltrack.nn.picodet import Level, PicoDet, boxes_of

FILE = Path("weights") / "picodet_s_416_coco_fp16.npz"


def fresh() -> PicoDet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PicoDet()


def numbered(net: PicoDet) -> dict[str, Tensor]:
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    return {
        f"{number:03d}.{name}": torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        for number, conv in enumerate(convs)
        for name, parameter in conv.named_parameters()
    }


def images(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def outputs(levels: tuple[Level, ...]) -> list[Tensor]:
    return [part for level in levels for part in (level.feature_BCHW, level.class_logits_BKHW, level.box_logits_BDHW)]


@pytest.fixture(scope="module")
def reference(shared: Path) -> Any:
    """The module that interprets the operations listed in the published file."""
    spec = importlib.util.spec_from_file_location("reference_picodet", shared / "weights" / "picodet.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def published(shared: Path) -> PicoDet:
    net = PicoDet()
    with np.load(shared / FILE, allow_pickle=False) as file:
        net.load_numbered({name: torch.from_numpy(file[name]) for name in file.files if name != "ops"})
    return net


def outputs_of_both(ours: PicoDet, theirs: Any, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    expected = theirs(image)
    taps = zip(("p8", "p16", "p32", "p64"), expected["heads"], strict=True)
    return outputs(ours(image)), [part for tap, heads in taps for part in (expected[tap], *heads)]


@pytest.mark.parametrize(("batch", "height", "width"), [(2, 96, 160), (1, 416, 320)])
def test_outputs_are_those_of_the_operation_list(
    batch: int, height: int, width: int, shared: Path, reference: Any, published: PicoDet
) -> None:
    with torch.no_grad():
        found, expected = outputs_of_both(published, reference.PicoDet(shared / FILE), images(batch, height, width))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_gradients_are_those_of_the_operation_list(shared: Path, reference: Any, published: PicoDet) -> None:
    """Activations in place must not spoil the way back; in float64, which leaves no room for rounding."""
    ours, theirs = copy.deepcopy(published).double(), reference.PicoDet(shared / FILE).double()
    for parts in outputs_of_both(ours, theirs, images(1, 64, 96).double()):
        torch.stack([part.square().mean() for part in parts]).sum().backward()
    gradients = {name: theirs.w[name.replace(".", "_")].grad for name in numbered(ours)}
    own = dict(zip(gradients, (parameter.grad for parameter in ours.parameters()), strict=True))
    torch.testing.assert_close(own, gradients, rtol=1e-8, atol=1e-8)


def test_boxes_are_those_of_the_reference(shared: Path, reference: Any, published: PicoDet) -> None:
    image, theirs = images(1, 96, 160), reference.PicoDet(shared / FILE)
    with torch.no_grad():
        levels = published(image)
        assert [level.stride for level in levels] == [8, 16, 32, 64]
        # Every position, sorted by its best class: no threshold, nothing suppressed.
        (expected,) = theirs.detect(theirs(image), score=-1.0, iou=2.0, top=10**6)
    score, label = torch.cat([level.class_logits_BKHW.flatten(2) for level in levels], dim=2)[0].sigmoid().max(dim=0)
    order = score.argsort(descending=True)
    assert len(order) == len(expected) == 12 * 20 + 6 * 10 + 3 * 5 + 2 * 3
    torch.testing.assert_close(boxes_of(levels)[0, order], expected[:, :4], rtol=0, atol=1e-2)
    torch.testing.assert_close(score[order], expected[:, 4], rtol=0, atol=1e-4)
    assert torch.equal(label[order].float(), expected[:, 5])


def test_constants_are_those_of_the_reference(reference: Any) -> None:
    assert tuple(reference.CLASSES) == picodet.CLASSES
    assert (reference.MEAN, reference.STD) == (picodet.MEAN, picodet.STD)


def test_boxes_by_hand() -> None:
    """Left, top, right and bottom 1, 2, 3 and 4.5 strides from the center of the cell in row 1, column 2."""
    logits_BDHW = torch.zeros(1, 32, 2, 3)
    sides_4D = logits_BDHW[0, :, 1, 2].view(4, 8)
    for side, bins in enumerate(([1], [2], [3], [4, 5])):
        sides_4D[side, bins] = 100.0
    fine, coarse = (
        Level(stride=stride, feature_BCHW=torch.empty(0), class_logits_BKHW=torch.empty(0), box_logits_BDHW=logits)
        for stride, logits in ((8, logits_BDHW[..., :1, :1]), (16, logits_BDHW))
    )
    boxes_BN4 = boxes_of([fine, coarse])
    assert boxes_BN4.shape == (1, 1 + 6, 4)
    # All bins alike: 3.5 strides on each side.
    assert boxes_BN4[0, 0].tolist() == [4 - 28, 4 - 28, 4 + 28, 4 + 28]
    assert boxes_BN4[0, 3].tolist() == [40 - 56, 8 - 56, 40 + 56, 8 + 56]
    assert boxes_BN4[0, 6].tolist() == [40 - 16, 24 - 32, 40 + 48, 24 + 72]


def test_size_of_the_network() -> None:
    net = fresh()
    assert sum(parameter.numel() for parameter in net.parameters()) == 983_891
    assert len(numbered(net)) == 2 * 133


def test_numbered_arrays_are_loaded_and_wrong_ones_refused() -> None:
    net = fresh()
    arrays = numbered(net)
    net.load_numbered(arrays)
    torch.testing.assert_close(list(net.parameters()), list(arrays.values()), rtol=0, atol=0)
    with pytest.raises(KeyError, match=r"132\.bias"):
        net.load_numbered({name: array for name, array in arrays.items() if name != "132.bias"})
    with pytest.raises(ValueError, match=r"133\.weight"):
        net.load_numbered(arrays | {"133.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"007\.weight.*\(48, 1, 1, 1\)"):  # would broadcast
        net.load_numbered(arrays | {"007.weight": torch.zeros(48, 1, 1, 1)})


def test_gradient_reaches_the_image_and_every_parameter() -> None:
    net, image = fresh(), images(1, 64, 96).requires_grad_()
    levels = net(image)
    (
        boxes_of(levels).square().mean() + torch.stack([part.square().mean() for part in outputs(levels)]).sum()
    ).backward()
    gradients = {name: parameter.grad for name, parameter in [("image", image), *net.named_parameters()]}
    assert [
        name for name, grad in gradients.items() if grad is None or not grad.isfinite().all() or not grad.any()
    ] == []


@pytest.mark.parametrize(("height", "width"), [(100, 96), (96, 48)])
def test_sides_that_are_no_multiples_of_32_are_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"{width} x {height}"):
        fresh()(images(1, height, width))
