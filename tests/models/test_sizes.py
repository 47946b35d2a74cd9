"""Parameter counts against the published ones, and that what is called unused when running is unused."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from model_cases import LITETRACK, Scene, equal, make, small
from vltrack.models.litetrack import base, tiny, uvltrack_base


@pytest.fixture(scope="module")
def model_size() -> ModuleType:
    """benchmarks/model_size.py, which is no part of the package."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "model_size.py"
    spec = importlib.util.spec_from_file_location("model_size", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["model_size"] = module
    spec.loader.exec_module(module)
    return module


def test_counts_are_the_published_ones_within_a_hundredth(model_size: ModuleType) -> None:
    parent = model_size.count_parameters(uvltrack_base())
    assert parent.total == pytest.approx(167.73e6, rel=0.01)
    assert parent.trainable == parent.total
    ours = model_size.count_parameters(base())
    assert ours.trainable == pytest.approx(108.4e6, rel=0.01)
    assert ours.total == pytest.approx(169.5e6, rel=0.01)
    # It is not smaller when it runs: freezing saves training, not work.
    assert ours.running == pytest.approx(ours.total, rel=0.001)


def test_tiny_is_tiny(model_size: ModuleType) -> None:
    """At most 12 MB in fp16, the text side included."""
    assert model_size.count_parameters(tiny()).total * 2 < 12e6


@pytest.mark.parametrize("name", LITETRACK, ids=lambda name: name.replace(" ", "-"))
def test_what_only_training_reads_has_no_say(name: str, model_size: ModuleType) -> None:
    scene = Scene(small(LITETRACK[name]()))
    before = [scene.see(mode) for mode in ("bbox", "nl", "nlbbox")]
    with torch.no_grad():
        for key, parameter in scene.model.named_parameters():
            if key.startswith(model_size.TRAINING_ONLY):
                parameter.fill_(7.0)
    assert all(equal(a, scene.see(mode)) for a, mode in zip(before, ("bbox", "nl", "nlbbox"), strict=True))


def test_dropping_saves_work(model_size: ModuleType) -> None:
    """Counted by torch: fewer multiplications with fewer tokens, and none saved without selection."""
    for name, saves in (("litetrack narrow base", True), ("litetrack narrow uvltrack-base", False)):
        work = model_size.count_work(make(LITETRACK[name]()))
        assert (work.frame_kept < 0.85 * work.frame) == saves
        assert work.frame_kept <= work.frame
        assert work.text > 0
        assert work.ground > 0.9 * work.frame
