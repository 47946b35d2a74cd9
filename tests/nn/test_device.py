"""Choice of device and number type."""

from __future__ import annotations

import pytest
import torch

from vltrack.core.errors import ResourceError
from vltrack.nn.device import choose_device, mixed_precision


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    for absent in ("tpu", "cuda:0" if not torch.cuda.is_available() else "xyz"):
        with pytest.raises(ResourceError, match="cpu"):
            choose_device(absent)


def test_mixed_precision_can_be_switched_off() -> None:
    with mixed_precision(torch.device("cpu"), enabled=False):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
