"""The ResNet trunk is that of ``transformers`` with the same weights, and its batch norm stays as it is."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from vltrack.nn.backbones import FrozenBatchNorm, ResNet

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


def picture(size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "learned"])
def test_parity_with_transformers(frozen: bool) -> None:
    theirs = their_model((3, 4, 6))
    given = theirs.state_dict()
    with torch.device("meta"):
        ours = ResNet(50, frozen_norm=frozen)
    ours.load_state_dict({name: given[their_name(name)] for name in ours.state_dict()}, assign=True)
    ours.eval()
    with torch.no_grad():
        expected = theirs(picture(64)).last_hidden_state
        actual = ours(picture(64))
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
    x = picture(16) * 3 + 5
    assert torch.allclose(model(x), x, rtol=1e-4)  # mean 0, variance 1: the identity
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert list(model.parameters()) == []


def test_another_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="50, 101, got 34"):
        ResNet(34)
