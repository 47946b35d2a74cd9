"""LiteTrack with one-way attention: the target's tokens do not attend to the search region, and are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model_cases import Scene, apart, boxed, boxes, generator, make, narrow_base, pictures, random_batch, small
from vltrack.models.base import MODE_IDS, text_key_mask
from vltrack.models.litetrack import Features, LiteTrack, TargetSide, tiny
from vltrack.nn.attention import key_bias
from vltrack.training.losses import PairObjective
from vltrack.training.recipes import LossWeights

CONFIGS = {
    "tiny": lambda: replace(tiny(), one_way=True),
    "narrow-base": lambda: narrow_base(one_way=True),
    "budget": lambda: replace(tiny(), one_way=True, select_budget=20),
}


@pytest.fixture(scope="module", params=CONFIGS)
def scene(request: pytest.FixtureRequest) -> Scene:
    scene = Scene(small(CONFIGS[request.param]()))
    scene.search = torch.randn(scene.search.shape, generator=generator(4))  # no two cells are about as redundant
    return scene


@torch.no_grad()
def masked_by_hand(model: LiteTrack, scene: Scene, flag_B: Tensor) -> Features:
    """All tokens in one sequence; the columns of the search region are hidden from the others' rows."""
    both, text = model.joint_template(*(model.embed_template(boxed(scene.template, scene.box)),) * 2), scene.text()
    embedded, _ = model.embed_search(scene.search, both, text, flag_B, select=False)
    m, n, words = both.tokens_BMC.shape[1], embedded.tokens_BNC.shape[1], text.valid_BL.shape[1]
    x = torch.cat([model.cls_token.expand(len(flag_B), -1, -1), both.tokens_BMC, embedded.tokens_BNC], dim=1)
    is_target = torch.tensor([True] * (1 + m) + [False] * n + [True] * words)
    hidden = torch.zeros(len(is_target), len(is_target)).masked_fill(is_target[:, None] & ~is_target, float("-inf"))
    bias = hidden + key_bias(torch.cat([torch.ones(x.shape[:2]).bool(), text_key_mask(flag_B, text.valid_BL)], dim=1))
    said = text.tokens_BLC
    for i, block in enumerate(model.blocks):
        if i < model.config.split_layers:
            x = block(model.star_vision[i](x), bias[..., : 1 + m + n, : 1 + m + n])
        else:
            joint = block(torch.cat([x + model.modal_embed[0], said + model.modal_embed[1]], dim=1), bias)
            x, said = joint[:, : 1 + m + n], joint[:, 1 + m + n :]
    return Features(
        class_BC=x[:, 0],
        template_BMC=x[:, 1 : 1 + m],
        search_BNC=x[:, 1 + m :],
        text_BC=said[:, 0],
        embedded=embedded,
        selection=None,
        contrasts=(),
    )


@pytest.mark.parametrize("mode", ["bbox", "nlbbox"])
@torch.no_grad()
def test_equals_one_sequence_with_hidden_columns(mode: str) -> None:
    # Gates pool over the target's tokens and the search region's apart: switched off to compare.
    scene = Scene(small(replace(tiny(), one_way=True, gate=False, select=False)))
    model, flag_B = scene.model, torch.full((2,), MODE_IDS[mode])
    both = model.joint_template(*(model.embed_template(boxed(scene.template, scene.box)),) * 2)
    seen, plain = model.forward_features(scene.search, both, scene.text(), flag_B), masked_by_hand(model, scene, flag_B)
    for name in ("class_BC", "template_BMC", "search_BNC"):
        torch.testing.assert_close(getattr(seen, name), getattr(plain, name), rtol=0, atol=1e-5)
    if mode == "nlbbox":
        torch.testing.assert_close(seen.text_BC, plain.text_BC, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_step_computes_the_search_region_alone(scene: Scene) -> None:
    model, memory, lengths = scene.model, scene.memory("nlbbox"), list[int]()
    handles = [b.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1])) for b in model.blocks]
    seen = model.locate(scene.search, memory)
    for handle in handles:
        handle.remove()
    if model.config.select_budget:
        assert set(lengths) == {model.config.select_budget}
    assert len(lengths) == len(model.blocks)
    assert max(lengths) <= model.search_side**2
    # The same where the side is not known yet.
    assert apart(seen, model.locate(scene.search, replace(memory, side=None))) <= 1e-6


@torch.no_grad()
def test_the_side_follows_templates_and_text_not_the_search_region(scene: Scene) -> None:
    def side(**changes: Tensor) -> TargetSide:
        given = {"template": scene.template, "context": scene.search, **changes}
        crops = (boxed(given[name], scene.box) for name in ("template", "context"))
        return scene.model.init_template(*crops, scene.text()).side

    first = side()
    assert torch.equal(first.joint_BI2HUD, side(context=scene.search.flip(2)).joint_BI2HUD)
    assert not torch.equal(first.split_BI2HTD, side(template=scene.template.flip(2)).split_BI2HTD)
    assert not torch.equal(
        first.joint_BI2HUD, scene.memory("bbox").side.joint_BI2HUD[..., : first.valid_BU.shape[1], :]
    )


@torch.no_grad()
def test_a_new_template_renews_the_side(scene: Scene) -> None:
    model, memory = scene.model, scene.memory("nlbbox")
    seen, box = model.locate(scene.search, memory), boxes(2, 79)
    assert model.update_template(memory, seen, box).side is memory.side
    if model.template_count < 2:
        return
    crop = boxed(pictures(model.template_size, 2, 5), boxes(2, 6))
    updated = model.update_template(memory, seen, box, crop)
    assert not torch.equal(updated.side.split_BI2HTD, memory.side.split_BI2HTD)
    later = pictures(model.search_size, 2, 77)
    assert apart(model.locate(later, updated), model.locate(later, replace(updated, side=None))) <= 1e-6


@pytest.mark.parametrize("mode", ["bbox", "nl", "nlbbox"])
@torch.no_grad()
def test_targets_together_equal_each_alone(scene: Scene, mode: str) -> None:
    together = scene.predict(mode)
    for index in range(2):
        assert apart(together.index_select([index]), scene.alone(index).predict(mode)) <= 1e-5


def test_same_parameters_and_all_of_them_learn(scene: Scene) -> None:
    model = make(scene.model.config)
    two_way = make(replace(model.config, one_way=False)).state_dict()
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in two_way.items()
    }
    PairObjective(model.train(), LossWeights())(random_batch(model.config), True)["total"].backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    idle = {name for name, gradient in gradients.items() if gradient is None}
    assert all(name.startswith("selector.") for name in idle)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients.values() if gradient is not None)
