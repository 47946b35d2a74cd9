"""Training pictures that take no download, and a validation that takes no time."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from vltrack.nn.backbones import MobileNetV2
from vltrack.training import loop as run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny picture set of tests/datasets with a stem of random numbers."""
    path = Path(__file__).parent.parent / "datasets" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_pictures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root: Path = module.make_picture_set(tmp_path_factory.mktemp("training"))
    arrays = {}
    for number, conv in enumerate(MobileNetV2().convs):
        arrays |= {f"{number:02d}.{k}": v.detach().numpy() for k, v in conv.named_parameters()}
    np.savez(root / "mobilenet_v2_stem.npz", **arrays)
    return root


@pytest.fixture(autouse=True)
def _quick_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        run, "validate", lambda model, device, policy: {"bbox": 0.5, "nlbbox": 0.5, "nl": 0.5}
    )
