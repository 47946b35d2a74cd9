"""What a mode masks cannot influence what is seen, to the last bit; the check notices when a mask is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model_cases import LITETRACK, Scene, equal, generator, outputs, small
from vltrack.models import litetrack
from vltrack.models.base import Flag, Memory, Prediction, Text
from vltrack.models.litetrack import LiteTrack
from vltrack.nn.attention import ChannelGate


@pytest.fixture(scope="module", params=LITETRACK, ids=lambda name: name.replace(" ", "-"))
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(small(LITETRACK[request.param]()))


def some_text(scene: Scene, seed: int) -> Text:
    tokens = torch.randn(2, 5, scene.model.config.width, generator=generator(seed)) * 3
    return Text(tokens_BLC=tokens, valid_BL=torch.ones(2, 5, dtype=torch.bool))


@torch.no_grad()
def by_box_beside(scene: Scene, seed: int) -> Prediction:
    """BBOX with somebody's sentence in the batch, as when targets of several modes are tracked at once."""
    memory = scene.memory("bbox")
    return scene.model.locate(scene.search, replace(memory, text=some_text(scene, seed)))


@torch.no_grad()
def by_words_beside(scene: Scene, template: Tensor, box: Tensor) -> list[Tensor]:
    """NL with a template in the batch, as in training: trunk, prompts and maps."""
    model = scene.model
    first = model.embed_template(template, box)
    both = model.pair(first, first)
    flag = torch.full((2,), int(Flag.NL))
    tokens, aux = model.observe(scene.search, both, scene.text(), flag)
    prompts = model.prompt(tokens, both, torch.zeros(2, 4), flag)
    seen = model.decode(tokens, aux, prompts, flag)
    return [*outputs(seen), prompts, tokens.search_BNC, tokens.words_BC]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def text_stays_out(scene: Scene) -> bool:
    return equal(by_box_beside(scene, 1), by_box_beside(scene, 2))


def template_stays_out(scene: Scene) -> bool:
    other = scene.template.flip(3) * 2 - 1
    plain = by_words_beside(scene, scene.template, scene.box)
    return same(plain, by_words_beside(scene, other, scene.box * 0.7))


def padding_stays_out(scene: Scene) -> bool:
    before, ids = [scene.see(mode) for mode in ("nlbbox", "nl")], scene.ids
    scene.ids = torch.where(scene.valid, ids, torch.full_like(ids, 2417))
    after = [scene.see(mode) for mode in ("nlbbox", "nl")]
    scene.ids = ids
    return all(equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("check", [text_stays_out, template_stays_out, padding_stays_out])
def test_masked_parts_have_no_influence(scene: Scene, check, training: bool) -> None:
    scene.model.train(training)
    try:
        assert check(scene)
    finally:
        scene.model.eval()


def test_words_appended_beside_a_box_change_nothing_but_rounding(scene: Scene) -> None:
    with torch.no_grad():
        alone = scene.model.locate(scene.search, scene.memory("bbox"))
    for x, y in zip(outputs(alone), outputs(by_box_beside(scene, 1)), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


def test_one_sample_s_mode_is_its_own(scene: Scene) -> None:
    """In a mixed batch the BBOX sample does not hear its sentence; the NLBBOX one does."""
    with torch.no_grad():
        memory = replace(scene.memory("nlbbox"), flag_B=torch.tensor([int(Flag.BBOX), int(Flag.NLBBOX)]))
        first, second = (
            scene.model.locate(scene.search, replace(memory, text=some_text(scene, seed))) for seed in (1, 2)
        )
    for x, y in zip(outputs(first), outputs(second), strict=True):
        assert torch.equal(x[0], y[0])
        assert not torch.equal(x[1], y[1])


class TestTheChecksCatch:
    """Broken on purpose, as released codes were: every check above must fail."""

    def test_a_lost_key_mask(self, scene: Scene, monkeypatch) -> None:
        whole = litetrack.key_bias
        monkeypatch.setattr(litetrack, "key_bias", lambda valid: torch.zeros_like(whole(valid)))
        assert not text_stays_out(scene)
        assert not template_stays_out(scene)
        assert not padding_stays_out(scene)

    def test_a_gate_that_ignores_the_mask(self, scene: Scene, monkeypatch) -> None:
        if not scene.model.config.gate:
            pytest.skip("this size has no channel gate")
        whole = ChannelGate.forward
        monkeypatch.setattr(ChannelGate, "forward", lambda self, out, valid: whole(self, out, None))
        assert not text_stays_out(scene)
        assert not template_stays_out(scene)

    def test_a_reference_that_ignores_the_mode(self, scene: Scene, monkeypatch) -> None:
        monkeypatch.setattr(litetrack, "by_flag", lambda flag, vision, words: (vision + words) / 2)
        first, second = (self.prompts(scene.model, scene, seed) for seed in (1, 2))
        assert not torch.equal(first, second)

    def test_and_that_reference_is_right_as_it_stands(self, scene: Scene) -> None:
        first, second = (self.prompts(scene.model, scene, seed) for seed in (1, 2))
        assert torch.equal(first, second)

    @staticmethod
    @torch.no_grad()
    def prompts(model: LiteTrack, scene: Scene, seed: int) -> Tensor:
        """BBOX prompts refreshed from a frame seen beside somebody's sentence."""
        memory: Memory = replace(scene.memory("bbox"), text=some_text(scene, seed))
        return model.refresh(memory, model.locate(scene.search, memory), scene.box).prompts_B3C
