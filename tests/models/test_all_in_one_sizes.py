"""All-in-One's sizes against the published ones, and its switches: what can be turned off, what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model_cases import CONFIGS, Scene, random_batch, small
from vltrack.core.errors import ConfigError
from vltrack.models.all_in_one import AllInOne, AllInOneConfig, base, ostrack_base, tiny
from vltrack.training.losses import PairObjective
from vltrack.training.recipes import LossWeights


def hollow(config: AllInOneConfig) -> AllInOne:
    with torch.device("meta"):
        return AllInOne(config).eval()


def count(model: AllInOne, belongs: Callable[[str], bool]) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if belongs(name))


def test_parameters_of_the_published_sizes() -> None:
    """OSTrack's 92.1 M are those of its layers, as its profiler counts: positions are no layer."""
    parent = hollow(ostrack_base())
    assert count(parent, lambda n: not n.startswith("pos_embed")) == pytest.approx(92.1e6, rel=5e-4)
    assert count(parent, lambda n: n.startswith("head.")) == pytest.approx(6.47e6, rel=1e-3)
    ours = hollow(base())
    assert count(ours, lambda n: n.startswith("aligner.")) == pytest.approx(63e6, rel=0.01)
    assert count(ours, lambda n: n.startswith("bert.")) == pytest.approx(23.5e6, rel=0.02)
    assert count(ours, lambda n: not n.startswith(ours.training_only)) == pytest.approx(116e6, rel=0.01)
    assert count(hollow(replace(base(), align="pool")), lambda n: n.startswith("aligner.")) < 0.6e6
    assert count(hollow(tiny()), lambda n: True) < 6e6


@pytest.mark.parametrize("make_config", [ostrack_base, base])
def test_multiplications_of_a_frame(make_config: Callable[[], AllInOneConfig]) -> None:
    """OSTrack's 21.5 G are layers alone, without the products of attention, which are 1.1 G more."""
    model = hollow(make_config())
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        box, search = torch.zeros(1, 4), torch.zeros(1, 3, 256, 256)
        text = model.read_text(torch.zeros(1, 40, dtype=torch.long), torch.ones(1, 40, dtype=torch.bool))
        model.locate(search, model.remember(torch.zeros(1, 3, 128, 128), box, search, box, text))
    work = {str(name): flops / 2e9 for name, flops in counter.get_flop_counts()["Global"].items()}
    assert work["aten.addmm"] + work["aten.convolution"] == pytest.approx(21.5, rel=0.002)
    assert sum(work.values()) == pytest.approx(22.6, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"eliminate": (3, 12)}, "12"),
        ({"keep": 0.0}, "keep"),
        ({"text": "bert-k"}, "text_layers"),
        ({"text_layers": 2}, "text_layers"),
        ({"text": "none"}, "text side"),
        ({"mixup": False, "align": "none"}, "text side"),
        ({"search_size": 250}, "search_size"),
    ],
)
def test_configurations_that_cannot_be(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(base(), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"eliminate": ()},
        {"align": "none"},
        {"align": "pool"},
        {"mixup": False},
        {"text": "none", "mixup": False, "align": "none"},
        {"text": "bert-k", "text_layers": 1},
        {"learned_positions": False},
    ],
    ids=str,
)
def test_every_idea_is_a_switch(changes: dict[str, Any]) -> None:
    scene = Scene(small(replace(CONFIGS["all-in-one narrow base"](), **changes)))
    assert all(bool(torch.isfinite(scene.see(mode).boxes_BSS4).all()) for mode in ("bbox", "nlbbox"))
    if scene.model.config.mixup:
        assert bool(torch.isfinite(scene.see("nl").boxes_BSS4).all())
    else:
        with pytest.raises(ConfigError, match="words alone"):
            scene.see("nl")
    terms = PairObjective(scene.model.train(), LossWeights())(random_batch(scene.model.config), True)
    assert ("alignment_views" in terms) == (scene.model.config.align != "none")
    assert bool(torch.isfinite(terms["total"]))
