"""What is kept between frames equals computing it anew: templates, sentence, prompts, batches of targets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model_cases import LITETRACK, Scene, apart, boxes, outputs, pictures, sentences, small
from vltrack.models.base import Flag, Memory, Prediction

EXACT = 1e-5


@pytest.fixture(scope="module", params=LITETRACK, ids=lambda name: name.replace(" ", "-"))
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(small(LITETRACK[request.param]()))


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def plainly(scene: Scene, search: torch.Tensor, mode: str) -> Prediction:
    """Everything from the pictures and the word ids, nothing kept: context frame, prompts, search frame."""
    model = scene.model
    flag = torch.full((2,), int(Flag.BBOX if mode == "bbox" else Flag.NLBBOX))

    def trunk(image: torch.Tensor):
        text = model.no_text(2) if mode == "bbox" else model.read_text(scene.ids, scene.valid)
        template = model.embed_template(scene.template, scene.box)
        both = model.pair(template, template)
        return *model.observe(image, both, text, flag), both

    tokens, _, both = trunk(scene.search)
    prompts = model.prompt(tokens, both, scene.box, flag)
    tokens, aux, _ = trunk(search)
    return model.decode(tokens, aux, prompts, flag)


@pytest.mark.parametrize("mode", ["bbox", "nlbbox"])
def test_remember_and_locate_equal_computing_all_anew(scene: Scene, mode: str) -> None:
    memory, later = scene.memory(mode), pictures(scene.model.search_size, 2, 77)
    kept = scene.model.locate(later, memory)
    assert apart(kept, plainly(scene, later, mode)) <= EXACT
    assert apart(kept, scene.model.locate(later, memory)) == 0  # a look does not change the memory


@pytest.mark.parametrize("mode", ["bbox", "nlbbox"])
def test_refreshed_prompts_equal_those_computed_from_the_frame(scene: Scene, mode: str) -> None:
    """The tokens of the located frame are used again; they are what the trunk gives for that frame."""
    model, memory = scene.model, scene.memory(mode)
    frame, box = pictures(model.search_size, 2, 78), boxes(2, 79)
    refreshed = model.refresh(memory, model.locate(frame, memory), box)
    both = model.pair(memory.first, memory.recent)
    tokens, _ = model.observe(frame, both, memory.text, memory.flag_B)
    plain = model.prompt(tokens, both, box, memory.flag_B)
    torch.testing.assert_close(refreshed.prompts_B3C, plain, rtol=0, atol=EXACT)
    assert not torch.allclose(refreshed.prompts_B3C, memory.prompts_B3C)
    assert refreshed.recent is memory.recent
    assert refreshed.first is memory.first
    # From the frame of the start and its box the prompts of the start come again.
    again = model.refresh(memory, model.locate(scene.search, memory), scene.box)
    torch.testing.assert_close(again.prompts_B3C, memory.prompts_B3C, rtol=0, atol=EXACT)


def test_a_new_recent_template_is_that_template(scene: Scene) -> None:
    model, memory = scene.model, scene.memory("bbox")
    crop, box = pictures(model.template_size, 2, 80), boxes(2, 81)
    seen = model.locate(scene.search, memory)
    refreshed = model.refresh(memory, seen, scene.box, crop, box)
    if not model.config.recent_template:
        assert refreshed.recent is memory.recent
        return
    fresh = model.embed_template(crop, box)
    assert torch.equal(refreshed.recent.tokens_BMC, fresh.tokens_BMC)
    assert torch.equal(refreshed.first.tokens_BMC, memory.first.tokens_BMC)
    assert apart(model.locate(scene.search, refreshed), seen) > 1e-4


def targets(scene: Scene) -> tuple[list[Memory], torch.Tensor]:
    """Four targets of one video: by box, by both with sentences of two lengths, and by box found again."""
    model, memories = scene.model, []
    for number, length in enumerate((0, 9, 5, 0)):
        template, box = pictures(model.template_size, 1, 90 + number), boxes(1, 94 + number)
        context = pictures(model.search_size, 1, 98 + number)
        text = model.read_text(*sentences(1, length, words=length - 1, seed=number)) if length else None
        memories.append(model.remember(template, box, context, box, text))
    return memories, pictures(model.search_size, 4, 103)


def joined(memories: list[Memory]) -> Memory:
    longest = max(m.text.valid_BL.shape[1] for m in memories)
    return Memory.join([replace(m, text=m.text.padded(longest)) for m in memories])


def test_several_targets_in_one_pass_equal_each_alone(scene: Scene) -> None:
    memories, crops = targets(scene)
    together = scene.model.locate(crops, joined(memories))
    for index, memory in enumerate(memories):
        alone = scene.model.locate(crops[index : index + 1], memory)
        assert apart(together.pick([index]), alone) <= EXACT, index
        box = boxes(1, 120 + index)
        refreshed = scene.model.refresh(memory, together.pick([index]), box)
        plain = scene.model.refresh(memory, alone, box)
        torch.testing.assert_close(refreshed.prompts_B3C, plain.prompts_B3C, rtol=0, atol=EXACT)


def test_the_order_of_targets_does_not_matter(scene: Scene) -> None:
    memories, crops = targets(scene)
    order = [2, 0, 3, 1]
    straight = scene.model.locate(crops, joined(memories))
    turned = scene.model.locate(crops[order], joined([memories[i] for i in order]))
    assert apart(straight.pick(order), turned) <= EXACT
    picked = scene.model.locate(crops[order], joined(memories).pick(order))
    assert apart(turned, picked) <= EXACT


def test_started_in_one_pass_equals_each_alone(scene: Scene) -> None:
    for mode in ("bbox", "nlbbox"):
        together = scene.memory(mode)
        for index in range(2):
            one = slice(index, index + 1)
            text = scene.model.read_text(scene.ids[one], scene.valid[one]) if mode == "nlbbox" else None
            parts = scene.template[one], scene.box[one], scene.search[one], scene.box[one]
            alone = scene.model.remember(*parts, text)
            torch.testing.assert_close(
                together.pick([index]).prompts_B3C, alone.prompts_B3C, rtol=0, atol=EXACT
            )


def test_several_scenes_grounded_in_one_pass_equal_each_alone(scene: Scene) -> None:
    together = scene.see("nl")
    for index in range(2):
        one = slice(index, index + 1)
        text = scene.model.read_text(scene.ids[one], scene.valid[one])
        assert apart(together.pick([index]), scene.model.ground(scene.search[one], text)) <= EXACT


def test_padding_changes_nothing(scene: Scene) -> None:
    memory = scene.memory("nlbbox")
    longer = replace(memory, text=memory.text.padded(scene.model.max_words))
    assert apart(scene.model.locate(scene.search, memory), scene.model.locate(scene.search, longer)) <= EXACT
    grounded = scene.model.ground(scene.search, longer.text)
    assert apart(scene.see("nl"), grounded) <= EXACT


def test_grounded_boxes_come_from_their_own_tower(scene: Scene) -> None:
    """Sizes by words alone and sizes beside a template are read from different towers (published)."""
    by_words, by_box = scene.see("nl"), scene.see("nlbbox")
    with torch.no_grad():
        for parameter in scene.model.head.conv_bbox_grounding.parameters():
            parameter.add_(0.1)
        try:
            assert apart(by_words, scene.see("nl")) > 1e-4
            assert apart(by_box, scene.see("nlbbox")) == 0
        finally:
            for parameter in scene.model.head.conv_bbox_grounding.parameters():
                parameter.sub_(0.1)
    assert len(outputs(by_words)) == 3
