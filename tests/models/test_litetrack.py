"""LiteTrack: memory equals computing anew, prompts, masks of the gate and of the reference, what learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model_cases import (
    LITETRACK,
    Scene,
    apart,
    boxed,
    boxes,
    generator,
    make,
    narrow_base,
    outputs,
    pictures,
    random_batch,
    small,
)
from vltrack.core.types import Mode
from vltrack.models import litetrack
from vltrack.models.base import MODE_IDS, Prediction, Text
from vltrack.models.litetrack import LiteTrack, tiny
from vltrack.nn.attention import ChannelGate
from vltrack.training.losses import PairObjective
from vltrack.training.recipes import LossWeights

EXACT = 1e-5


@pytest.fixture(scope="module", params=LITETRACK, ids=lambda name: name.replace(" ", "-"))
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(small(LITETRACK[request.param]()))


# -- memory and prompts -------------------------------------------------------------------------------


@torch.no_grad()
def plainly(scene: Scene, search: Tensor, mode: Mode) -> Prediction:
    """Everything from images and word ids, nothing kept: context frame, prompts, search frame."""
    model = scene.model
    flag_B = torch.full((2,), MODE_IDS[mode])
    text = model.no_text(2) if mode is Mode.BBOX else model.read_text(scene.ids, scene.valid)
    template = model.embed_template(boxed(scene.template, scene.box))
    both = model.joint_template(template, template)
    context = model.forward_features(scene.search, both, text, flag_B)
    prompts = model.build_prompts(context, both, scene.box, flag_B)
    return model.head.predict(model.forward_features(search, both, text, flag_B), prompts, flag_B)


@pytest.mark.parametrize("mode", [Mode.BBOX, Mode.NLBBOX])
@torch.no_grad()
def test_a_start_and_an_update_equal_computing_all_anew(scene: Scene, mode: Mode) -> None:
    model, memory = scene.model, scene.memory(mode)
    later, box = pictures(model.search_size, 2, 77), boxes(2, 79)
    assert apart(model.locate(later, memory), plainly(scene, later, mode)) <= EXACT
    # An update takes the features of the located frame; they are what the backbone gives for that frame.
    updated = model.update_template(memory, model.locate(later, memory), box)
    both = model.joint_template(memory.first, memory.recent)
    features = model.forward_features(later, both, memory.text, memory.flag_B)
    plain = model.build_prompts(features, both, box, memory.flag_B)
    torch.testing.assert_close(updated.prompts_B3C, plain, rtol=0, atol=EXACT)
    assert not torch.allclose(updated.prompts_B3C, memory.prompts_B3C)
    # From the frame of the start and its box the prompts of the start come again.
    again = model.update_template(memory, model.locate(scene.search, memory), scene.box)
    torch.testing.assert_close(again.prompts_B3C, memory.prompts_B3C, rtol=0, atol=EXACT)


@torch.no_grad()
def test_targets_in_one_pass_equal_each_alone_in_any_order(scene: Scene) -> None:
    """Starts, predictions and updates of two targets; one more in the batch changes only rounding."""
    model, memory, order = scene.model, scene.memory("nlbbox"), [1, 0, 1]
    crops, box = scene.search[order], scene.box[order]
    together = model.locate(crops, memory.index_select(order))
    updated = model.update_template(memory.index_select(order), together, box)
    for place, index in enumerate(order):
        alone = scene.alone(index)
        own = alone.memory("nlbbox")
        torch.testing.assert_close(memory.prompts_B3C[index], own.prompts_B3C[0], rtol=0, atol=EXACT)
        seen = model.locate(alone.search, own)
        assert apart(together.index_select([place]), seen) <= EXACT
        plain = model.update_template(own, together.index_select([place]), box[place : place + 1])
        torch.testing.assert_close(updated.prompts_B3C[place], plain.prompts_B3C[0], rtol=0, atol=EXACT)


def test_another_trackers_prediction_cannot_update(scene: Scene) -> None:
    seen = scene.predict("bbox")
    foreign = Prediction(**{name: getattr(seen, name) for name in ("center_BSS", "presence_BSS", "boxes_BSS4")})
    with pytest.raises(ValueError, match="features"):
        scene.model.update_template(scene.memory("bbox"), foreign, scene.box)


def test_grounded_boxes_come_from_their_own_tower(scene: Scene) -> None:
    """Sizes of text-only samples and of the others are read from different towers (published)."""
    text_only, with_box = scene.predict("nl"), scene.predict("nlbbox")
    tower = scene.model.head.conv_bbox_grounding
    weights = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(0.1)
    try:
        assert apart(text_only, scene.predict("nl")) > 1e-4
        assert apart(with_box, scene.predict("nlbbox")) == 0
    finally:
        tower.load_state_dict(weights)


# -- masks --------------------------------------------------------------------------------------------


def some_text(scene: Scene, seed: int) -> Text:
    tokens = torch.randn(2, 5, scene.model.config.width, generator=generator(seed)) * 3
    return Text(tokens_BLC=tokens, valid_BL=torch.ones(2, 5, dtype=torch.bool))


@torch.no_grad()
def box_only_updates(scene: Scene) -> tuple[Tensor, Tensor]:
    """Prompts of box-only targets updated from a frame, with two different sentences in the batch."""
    memories = [replace(scene.memory("bbox"), text=some_text(scene, seed)) for seed in (1, 2)]
    one, two = (
        scene.model.update_template(m, scene.model.locate(scene.search, m), scene.box).prompts_B3C for m in memories
    )
    return one, two


def test_updated_prompts_ignore_a_masked_sentence(scene: Scene) -> None:
    assert torch.equal(*box_only_updates(scene))


def test_a_reference_that_ignores_the_mode_is_noticed(scene: Scene, monkeypatch) -> None:
    monkeypatch.setattr(litetrack, "blend_modalities", lambda flag, vision, text: (vision + text) / 2)
    assert not torch.equal(*box_only_updates(scene))


def test_a_gate_that_ignores_the_mask_is_noticed(scene: Scene, monkeypatch) -> None:
    if not scene.model.config.gate:
        pytest.skip("this size has no channel gate")
    whole = ChannelGate.forward
    monkeypatch.setattr(ChannelGate, "forward", lambda self, out, valid: whole(self, out, None))
    assert not torch.equal(*box_only_updates(scene))


def test_each_sample_of_a_mixed_batch_has_its_own_mode(scene: Scene) -> None:
    """The box-only sample ignores its sentence; the other one does not."""
    flags = torch.tensor([MODE_IDS[Mode.BBOX], MODE_IDS[Mode.NLBBOX]])
    with torch.no_grad():
        memory = replace(scene.memory("nlbbox"), flag_B=flags)
        first, second = (
            scene.model.locate(scene.search, replace(memory, text=some_text(scene, seed))) for seed in (1, 2)
        )
    for x, y in zip(outputs(first), outputs(second), strict=True):
        assert torch.equal(x[0], y[0])
        assert not torch.equal(x[1], y[1])


# -- what learns --------------------------------------------------------------------------------------


def step(model: LiteTrack, *, select: bool = True, weights: LossWeights | None = None) -> dict[str, Tensor]:
    model.train()
    terms = PairObjective(model, weights or LossWeights())(random_batch(model.config), select)
    terms["total"].backward()
    return terms


def test_adapters_start_as_the_identity_and_learn_after_one_step() -> None:
    """With alpha at zero only alpha learns; after one step the whole adapter does. One cut off is noticed."""
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
    model.star_vision[1].register_forward_hook(lambda module, inputs, output: inputs[0])
    step(model)
    dead = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert dead == {n for n, _ in model.named_parameters() if n.startswith("star_vision.1.")}
    rest = [adapter for adapter in adapters if adapter is not model.star_vision[1]]
    assert all(float(p.grad.abs().max()) > 0 for adapter in rest for p in adapter.parameters())


@pytest.mark.parametrize("make_config", [tiny, narrow_base], ids=["tiny", "narrow-base"])
def test_threshold_learns_from_the_task_alone(make_config) -> None:
    """Without the loss on its budget, through the keys that it keeps (straight through)."""
    model = make(small(make_config()))
    step(model, weights=LossWeights(selection=0.0))
    grads = [parameter.grad for parameter in model.selector.parameters()]
    assert all(grad is not None and float(grad.abs().max()) > 0 for grad in grads)


def test_with_selection_off_the_threshold_still_learns_its_budget() -> None:
    model = make(small(tiny()))
    assert "selection" in step(model, select=False)
    assert float(model.selector.theta.grad.abs()) > 0
