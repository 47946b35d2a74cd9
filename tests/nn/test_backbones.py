"""MobileNetV2 by its published description, ResNet by ``transformers``, patches and sine positions."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vltrack.nn.backbones import FrozenBatchNorm, MobileNetV2, MobileStem, PatchStem, ResNet, sincos_positions

# From the file's README: the last convolution of each block, and those to which the block's input is added.
BLOCK_ENDS = (2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35, 38)
RESIDUAL = {8, 14, 17, 23, 26, 29, 35, 38}
STRIDE8_END = 17


def tensorflow_same(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """SAME as TensorFlow defines it: ceil(size / stride) outputs, the odd pixel right and below."""
    sides = []
    for size, kernel in zip(x.shape[-2:], weight.shape[-2:], strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        sides = [total // 2, total - total // 2, *sides]
    groups = x.shape[1] // weight.shape[1]
    return functional.conv2d(functional.pad(x, sides), weight, bias, stride=stride, groups=groups)


def by_the_book(arrays: dict[str, Tensor], strides: dict[int, int], x: Tensor) -> tuple[Tensor, Tensor]:
    """Strides 8 and 16 of the published layer list."""
    stride8, entry = x, x
    last = max(BLOCK_ENDS)
    for number in range(last + 1):
        x = tensorflow_same(x, arrays[f"{number:02d}.weight"], arrays[f"{number:02d}.bias"], strides[number])
        if number not in BLOCK_ENDS:
            x = x.clamp(0, 6)
        if number == 0:
            entry = x
        if number in BLOCK_ENDS:
            x = x + entry if number in RESIDUAL else x
            entry = x
        if number == STRIDE8_END:
            stride8 = x
    return stride8, x


def fresh() -> MobileNetV2:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MobileNetV2().eval()


def numbered(net: MobileNetV2) -> dict[str, Tensor]:
    return {
        f"{number:02d}.{name}": parameter.detach()
        for number, conv in enumerate(net.convs)
        for name, parameter in conv.named_parameters()
    }


@pytest.mark.parametrize("side", [112, 224])
def test_same_padding_and_residuals_by_the_book(side: int) -> None:
    net = fresh()
    strides = {number: conv.stride[0] for number, conv in enumerate(net.convs)}
    assert math.prod(strides.values()) == 16
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        actual, expected = net(image), by_the_book(numbered(net), strides, image)
    for ours, book, shape in zip(actual, expected, [(1, 32, side // 8), (1, 96, side // 16)], strict=True):
        assert ours.shape == (*shape, shape[-1])
        torch.testing.assert_close(ours, book, rtol=1e-5, atol=1e-5)


def test_symmetric_padding_would_be_noticed() -> None:
    """With torch's usual padding of one pixel all round, stride 2 samples other pixels."""
    net, image = fresh(), torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    first = net.convs[0]
    same = tensorflow_same(image, first.weight, first.bias, 2)
    symmetric = functional.conv2d(image, first.weight, first.bias, stride=2, padding=1)
    assert float((same - symmetric).detach().abs().max()) > 1e-2


def test_the_published_file_loads_and_agrees_with_its_own_description(shared: Path) -> None:
    with np.load(shared / "train" / "mobilenet_v2_stem.npz", allow_pickle=False) as file:
        arrays = {k: torch.from_numpy(file[k]).float() for k in file.files if not k.endswith("meta")}
        strides = {int(k[:2]): int(file[k][1]) for k in file.files if k.endswith("meta")}
    net = fresh()
    net.load_numbered(arrays)
    assert {number: conv.stride[0] for number, conv in enumerate(net.convs)} == {
        number: strides[number] for number in range(len(net.convs))
    }
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        for ours, book in zip(net(image), by_the_book(arrays, strides, image), strict=True):
            torch.testing.assert_close(ours, book, rtol=1e-4, atol=1e-4)


def test_missing_and_misshaped_arrays_are_named() -> None:
    net = fresh()
    arrays = numbered(net)
    with pytest.raises(KeyError, match=r"07\.bias"):
        net.load_numbered({k: v for k, v in arrays.items() if k != "07.bias"})
    with pytest.raises(ValueError, match=r"07\.bias"):
        net.load_numbered({**arrays, "07.bias": arrays["07.bias"][:1]})


def test_stem_keeps_the_four_fine_cells_of_a_token_together() -> None:
    """The fine features of cell (row, column) are those at (2 row + i, 2 column + j) of the finer map."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stem = MobileStem(16).eval()
    image = torch.randn(2, 3, 80, 80, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        patches, (fine, coarse) = stem(image), stem.backbone(image)
    assert patches.tokens_BNC.shape == (2, 25, 16)
    for row, column in ((0, 0), (1, 3), (4, 2)):
        token = row * 5 + column
        torch.testing.assert_close(patches.coarse_BNF[:, token], coarse[:, :, row, column])
        for i in range(2):
            for j in range(2):
                torch.testing.assert_close(
                    patches.fine_B4NF[:, 4 * token + 2 * i + j], fine[:, :, 2 * row + i, 2 * column + j]
                )


def test_patch_stem_reads_row_by_row() -> None:
    stem = PatchStem(4)
    image = torch.zeros(1, 3, 48, 48)
    image[:, :, 16:32, 32:48] = 1.0  # row 1, column 2
    with torch.no_grad():
        tokens = stem(image).tokens_BNC[0]
    differs = (tokens - tokens[0]).abs().sum(dim=1) > 1e-6
    assert differs.nonzero().flatten().tolist() == [5]


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


# torchvision's names as patterns, transformers' as templates
_THEIRS = (
    (r"conv1\.weight", r"embedder.embedder.convolution.weight"),
    (r"bn1\.(\w+)", r"embedder.embedder.normalization.\1"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.weight", r"encoder.stages.{0}.layers.\2.layer.{1}.convolution.weight"),
    (r"layer(\d)\.(\d+)\.bn(\d)\.(\w+)", r"encoder.stages.{0}.layers.\2.layer.{1}.normalization.\4"),
    (r"layer(\d)\.(\d+)\.downsample\.0\.weight", r"encoder.stages.{0}.layers.\2.shortcut.convolution.weight"),
    (r"layer(\d)\.(\d+)\.downsample\.1\.(\w+)", r"encoder.stages.{0}.layers.\2.shortcut.normalization.\3"),
)


def their_name(ours: str) -> str:
    """Both count their parts, torchvision from one, transformers from zero."""
    for pattern, template in _THEIRS:
        found = re.fullmatch(pattern, ours)
        if found:
            numbers = [int(group) - 1 for group in found.groups() if group.isdigit()]
            return found.expand(template.format(*numbers[:1], numbers[-1] if numbers else 0))
    raise AssertionError(ours)


def their_model(depths: tuple[int, ...]) -> nn.Module:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(
        embedding_size=64, hidden_sizes=[256, 512, 1024], depths=list(depths), layer_type="bottleneck"
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = ResNetModel(config).eval()
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif "normalization" in name and tensor.is_floating_point():
                tensor.uniform_(-0.3, 0.3).add_(0.7 if name.endswith("weight") else 0.0)
    return model


def image(size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_parity_with_transformers() -> None:
    theirs = their_model((3, 4, 6))
    given = theirs.state_dict()
    with torch.device("meta"):
        ours = ResNet(50)
    ours.load_state_dict({name: given[their_name(name)] for name in ours.state_dict()}, assign=True)
    ours.eval()
    with torch.no_grad():
        expected = theirs(image(64)).last_hidden_state
        actual = ours(image(64))
    assert expected.std() > 0.05
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    spare = {name for name in given if name not in {their_name(own) for own in ours.state_dict()}}
    assert all(name.endswith("num_batches_tracked") for name in spare)


def test_sizes_of_both_depths() -> None:
    """8.54 M and 27.53 M; with frozen norms only convolutions train."""
    counts = {}
    for depth in (50, 101):
        with torch.device("meta"):
            model = ResNet(depth)
            assert model(torch.empty(1, 3, 96, 96)).shape == (1, 1024, 6, 6)
        counts[depth] = sum(t.numel() for name, t in model.state_dict().items() if "running" not in name)
        trained = sum(parameter.numel() for parameter in model.parameters())
        assert trained == sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d))
    # torchvision's whole networks, less stage four (14 964 736) and the classifier (2 049 000)
    assert counts == {50: 25_557_032 - 17_013_736, 101: 44_549_160 - 17_013_736}


def test_frozen_norm_does_not_follow_the_batch() -> None:
    model = FrozenBatchNorm(3).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = image(16) * 3 + 5
    assert torch.allclose(model(x), x, rtol=1e-4)  # mean 0, variance 1: the identity
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert list(model.parameters()) == []
