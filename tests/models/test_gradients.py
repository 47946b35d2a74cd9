"""Every parameter learns: after one step of the training objective on random pictures each has a gradient."""

from __future__ import annotations

import re

import pytest
import torch

from model_cases import LITETRACK, make, narrow_base, random_batch, small
from vltrack.models.litetrack import LiteTrack, tiny
from vltrack.training.checkpoint import freeze
from vltrack.training.losses import PairObjective
from vltrack.training.recipes import LossWeights

# Registered for UVLTrack's own checkpoints, without effect there and here (see nn/test_prompt.py).
SPARE = re.compile(r"head\.prompter\.(q|kv|proj)\.")
# What mathematics makes zero: a constant added to all keys leaves the softmax, one added to a channel before
# batch norm is taken away by the mean. They have a gradient, of rounding errors.
NEUTRAL = re.compile(r".*attention\.self\.key\.bias|head\.conv_\w+\.body\.(0|3|6|9)\.bias")


def step(
    model: LiteTrack, *, select: bool = True, weights: LossWeights | None = None
) -> dict[str, torch.Tensor]:
    model.train()
    terms = PairObjective(model, weights or LossWeights())(random_batch(model.config), select)
    terms["total"].backward()
    return terms


def dead(model: LiteTrack) -> set[str]:
    """Parameters whose gradient is zero and need not be."""
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert all(bool(torch.isfinite(grad).all()) for grad in grads.values())
    return {n for n, grad in grads.items() if not float(grad.abs().max()) > 0 and not NEUTRAL.fullmatch(n)}


@pytest.mark.parametrize("name", LITETRACK, ids=lambda name: name.replace(" ", "-"))
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = make(small(LITETRACK[name]()))
    terms = step(model)
    assert all(bool(torch.isfinite(value)) for value in terms.values())
    without = {n for n, p in model.named_parameters() if p.grad is None}
    assert without == {n for n, _ in model.named_parameters() if SPARE.match(n)}
    assert not dead(model)


def test_the_check_catches_a_part_that_is_not_connected() -> None:
    """As released, made anew at each call, a star adapter would leave the registered one without one."""
    model = make(small(tiny()))
    model.star_vision[1].register_forward_hook(lambda module, inputs, output: inputs[0])
    step(model)
    without = {n for n, p in model.named_parameters() if p.grad is None}
    assert without == {n for n, _ in model.named_parameters() if n.startswith("star_vision.1.")}


def test_adapters_that_start_as_the_identity_wake_up() -> None:
    """With alpha at its start of zero only alpha learns at first; after one step all of the adapter does."""
    model = make(small(tiny()))
    adapters = [*model.star_vision, *model.star_text]
    with torch.no_grad():
        for adapter in adapters:
            adapter.alpha.zero_()
    step(model)
    for adapter in adapters:
        assert float(adapter.alpha.grad.abs()) > 0
        assert float(adapter.g.weight.grad.abs().max()) == 0
    with torch.no_grad():
        for adapter in adapters:
            adapter.alpha -= 0.1 * adapter.alpha.grad.sign()
    model.zero_grad()
    step(model)
    assert all(float(p.grad.abs().max()) > 0 for adapter in adapters for p in adapter.parameters())


@pytest.mark.parametrize("make_config", [tiny, narrow_base], ids=["tiny", "narrow-base"])
def test_threshold_learns_from_the_task_alone(make_config) -> None:
    """Without the loss on its budget, through the keys that it lets in (straight through)."""
    model = make(small(make_config()))
    step(model, weights=LossWeights(selection=0.0))
    grads = [parameter.grad for parameter in model.selector.parameters()]
    assert all(grad is not None and float(grad.abs().max()) > 0 for grad in grads)


def test_with_selection_off_the_threshold_still_learns_its_budget() -> None:
    model = make(small(tiny()))
    assert "selection" in step(model, select=False)
    assert float(model.selector.theta.grad.abs()) > 0


@pytest.mark.parametrize("make_config", [tiny, narrow_base], ids=["tiny", "narrow-base"])
def test_frozen_parameters_get_none_and_all_others_one(make_config) -> None:
    model = make(small(make_config()))
    frozen, _ = model.freeze_plan()
    freeze(frozen)
    step(model)
    still = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert still
    assert {n for n, p in model.named_parameters() if p.grad is None} == still
