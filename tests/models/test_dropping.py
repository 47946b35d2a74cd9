"""At inference tokens are really dropped, and what is seen is what the masked computation sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model_cases import Scene, apart, equal, narrow_base, pictures
from vltrack.models.base import Prediction
from vltrack.models.litetrack import LiteTrack, tiny
from vltrack.nn.token_pruning import Selection

MODES = ("bbox", "nl", "nlbbox")


@pytest.fixture(scope="module", params=[tiny, narrow_base], ids=["tiny", "narrow-base"])
def scene(request: pytest.FixtureRequest) -> Scene:
    """A scene with large even areas, where most tokens repeat an earlier one."""
    scene = Scene(request.param())
    even = torch.zeros_like(scene.search)
    side = scene.model.search_size
    even[:, :, side // 3 : side // 2, side // 3 : side // 2] = pictures(side, 2, 5)[
        :, :, side // 3 : side // 2, side // 3 : side // 2
    ]
    scene.search = even
    return scene


@contextmanager
def spied(model: LiteTrack) -> Iterator[tuple[list[int], list[Selection]]]:
    """How many tokens went into each block, and what was selected."""
    lengths: list[int] = []
    chosen: list[Selection] = []
    handles = [
        block.register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[0].shape[1]))
        for block in model.blocks
    ]
    handles.append(model.selector.register_forward_hook(lambda module, inputs, output: chosen.append(output)))
    try:
        yield lengths, chosen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def masked_instead(model: LiteTrack) -> Iterator[None]:
    """The same tokens kept, but all go through the blocks; the others only lose their say."""

    def all_stay(module: object, inputs: tuple[Tensor], chosen: Selection) -> Selection:
        everyone = torch.arange(chosen.keep_BN.shape[1]).expand_as(chosen.source_BN)
        return replace(chosen, order_BK=everyone, filler_BK=~chosen.keep_BN)

    handle = model.selector.register_forward_hook(all_stay)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("mode", MODES)
def test_tokens_that_go_through_the_blocks_are_a_bucket_below_all(scene: Scene, mode: str) -> None:
    model = scene.model
    text = 0 if mode == "bbox" else scene.ids.shape[1]
    template = model.templates * model.template_side**2
    with torch.no_grad():
        memory = scene.memory("bbox" if mode == "bbox" else "nlbbox")
    with spied(model) as (lengths, chosen), torch.no_grad():
        if mode == "nl":
            model.ground(scene.search, scene.text())
        else:
            model.locate(scene.search, memory)
    kept = int(chosen[0].keep_BN.sum(dim=1).max())
    assert kept % model.config.select_bucket == 0
    assert kept < model.search_side**2
    config = model.config
    assert (
        lengths
        == [1 + template + kept] * config.split_layers + [1 + template + kept + text] * config.joint_layers
    )


def test_an_eventful_picture_keeps_more(scene: Scene) -> None:
    counts = []
    for search in (scene.search, torch.randn_like(scene.search) * 3):
        with spied(scene.model) as (_, chosen), torch.no_grad():
            scene.model.locate(search, scene.memory("bbox"))
        counts.append(int(chosen[-1].keep_BN.sum()))
    assert counts[1] >= counts[0]


@pytest.mark.parametrize("mode", MODES)
def test_gathered_equals_masked(scene: Scene, mode: str) -> None:
    gathered = scene.see(mode)
    with masked_instead(scene.model):
        masked = scene.see(mode)
    assert apart(gathered, masked) <= 1e-5
    torch.testing.assert_close(gathered.tokens.search_BNC, masked.tokens.search_BNC, rtol=1e-5, atol=1e-5)


def test_samples_with_different_counts_share_a_batch(scene: Scene) -> None:
    """The one with fewer kept tokens carries fillers; it sees what it sees alone."""
    model = scene.model
    crops = torch.stack([scene.search[0], torch.randn(scene.search[0].shape) * 3])
    memory = scene.memory("bbox")
    with spied(model) as (_, chosen), torch.no_grad():
        together: Prediction = model.locate(crops, memory)
    for index in range(2):
        with torch.no_grad():
            alone = model.locate(crops[index : index + 1], memory.pick([index]))
        assert apart(together.pick([index]), alone) <= 1e-5
    assert len(chosen) == 1


def test_selection_matters_and_can_be_switched_off(scene: Scene) -> None:
    """``select=False`` equals a threshold under which all tokens stay, and differs from dropping."""
    model = scene.model
    with torch.no_grad():
        memory = scene.memory("bbox")
        both = model.pair(memory.first, memory.recent)
        parts = [
            model.observe(scene.search, both, memory.text, memory.flag_B, select=select)
            for select in (True, False)
        ]
        dropped, whole = (model.decode(*part, memory.prompts_B3C, memory.flag_B) for part in parts)
        assert parts[1][1]["selection"] is None
        assert apart(dropped, whole) > 1e-6
        theta = model.selector.theta.clone()
        model.selector.theta.fill_(20.0)
        last = model.selector.offset[2]
        bias = last.bias.clone()
        last.bias.fill_(9.0)
        tokens, aux = model.observe(scene.search, both, memory.text, memory.flag_B)
        model.selector.theta.copy_(theta)
        last.bias.copy_(bias)
        assert bool(aux["selection"].keep_BN.all())
        assert apart(model.decode(tokens, aux, memory.prompts_B3C, memory.flag_B), whole) <= 1e-5


def test_a_mask_is_not_kept_for_the_next_picture(scene: Scene) -> None:
    memory = scene.memory("bbox")
    with torch.no_grad():
        before = scene.model.locate(scene.search, memory)
        scene.model.locate(torch.randn_like(scene.search), memory)
        assert equal(before, scene.model.locate(scene.search, memory))
