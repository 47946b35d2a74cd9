"""All-in-One: the sentence is heard, the released bug would be seen, BBOX is exact, training is what runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model_cases import (
    CONFIGS,
    Scene,
    apart,
    boxes,
    equal,
    make,
    modes_of,
    pictures,
    random_batch,
    sentences,
    small,
)
from vltrack.models import all_in_one
from vltrack.models.all_in_one import AllInOne, AllInOneConfig
from vltrack.models.base import Flag, Prediction, Text, Views
from vltrack.training.losses import PairObjective
from vltrack.training.recipes import LossWeights

CASES = [name.removeprefix("all-in-one ") for name in CONFIGS if name.startswith("all-in-one ")]
HEARING = [name for name in CASES if "ostrack" not in name]


def config_of(case: str, **changes: Any) -> AllInOneConfig:
    made: AllInOneConfig = replace(CONFIGS[f"all-in-one {case}"](), **changes)
    return made


def small_scene(case: str, batch: int = 2, **changes: Any) -> Scene:
    return Scene(small(config_of(case, **changes)), batch)


def with_words(scene: Scene, word: int) -> Scene:
    scene.ids = scene.ids.clone()
    scene.ids[:, 2] = word
    return scene


def views_of(config: AllInOneConfig, seed: int = 0) -> Views:
    """One target of each mode, two views each, as the training loop gives them."""
    return PairObjective(make(config), LossWeights())._views(random_batch(config, seed))


# -- the sentence ------------------------------------------------------------------------------------


def heard(scene: Scene, mode: str) -> float:
    """How much another sentence changes what is seen."""
    before = scene.see(mode)
    return apart(before, with_words(scene, 2417).see(mode))


@pytest.mark.parametrize("case", HEARING)
def test_another_sentence_changes_the_output(case: str) -> None:
    assert heard(small_scene(case), "nlbbox") > 1e-4
    assert heard(small_scene(case), "nl") > 1e-4


def test_the_released_bug_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the first row of the embeddings in the mean's place, every sentence is the same to the bit."""

    def first_row(text: Text) -> Tensor:
        return text.tokens_BLC[:, 0]

    monkeypatch.setattr(all_in_one, "sentence_mean", first_row)
    assert heard(small_scene("narrow base"), "nlbbox") == 0
    assert heard(small_scene("narrow base"), "nl") == 0


@pytest.mark.parametrize("case", HEARING)
def test_a_box_alone_hears_nothing(case: str) -> None:
    """Bit by bit the same with every parameter of the text side broken."""
    scene = small_scene(case)
    before = scene.see("bbox")
    with torch.no_grad():
        for name, parameter in scene.model.named_parameters():
            if name.startswith(("bert.", "language.", "word_matcher.", "aligner.")):
                parameter.fill_(float("nan"))
    assert equal(before, scene.see("bbox"))


@pytest.mark.parametrize("case", HEARING)
def test_a_box_is_what_the_model_without_mixup_sees(case: str) -> None:
    """No sentence is the identity, not a sentence of zeros through a layer with a bias."""
    scene, plain = small_scene(case), small_scene(case, mixup=False)
    plain.model.load_state_dict(scene.model.state_dict())
    assert equal(scene.see("bbox"), plain.see("bbox"))
    assert equal(plain.see("bbox"), plain.see("nlbbox"))
    assert apart(scene.see("bbox"), scene.see("nlbbox")) > 1e-4


def test_gain_by_the_definition() -> None:
    """normalise(W mean of the words + b), of unit length, over words and not over padding; 0 without any."""
    model: AllInOne = make(small(config_of("narrow base")))
    ids, valid = sentences(3, length=9, words=6)
    flag_B = torch.tensor([Flag.NLBBOX, Flag.NL, Flag.BBOX])
    with torch.no_grad():
        gain = model.listen(model.read_text(ids, valid), flag_B)
        rows = model.bert.embeddings(ids[:2])[:, :6].mean(dim=1)
        expected = torch.nn.functional.normalize(rows @ model.language.weight.T + model.language.bias, dim=1)
        none = model.listen(model.no_text(2), flag_B[:2])
    torch.testing.assert_close(gain[:2], expected)
    torch.testing.assert_close(gain[:2].norm(dim=1), torch.ones(2))
    assert not bool(gain[2].any())
    assert none.shape == (2, 64)
    assert not bool(none.any())


@pytest.mark.parametrize("case", HEARING)
def test_cached_text_is_fresh_text(case: str) -> None:
    """What memory holds is what reading again gives, and padding to share a batch has no say."""
    scene = small_scene(case)
    text = scene.text()
    start = scene.template, scene.box, scene.search, scene.box
    with torch.no_grad():
        memory, again = scene.model.remember(*start, text), scene.model.remember(*start, scene.text())
        padded = scene.model.remember(*start, text.padded(scene.model.max_words))
        seen = [scene.model.locate(scene.search, m) for m in (memory, again, padded)]
    assert torch.equal(memory.gain_BC, again.gain_BC)
    assert equal(seen[0], seen[1])
    assert apart(seen[0], seen[2]) < 1e-5


def test_mixup_scales_patches_before_their_positions() -> None:
    """x + L * x, then positions, the template first: the first block's input."""
    scene = small_scene("narrow base")
    model, caught = scene.model, []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    scene.see("nlbbox")
    with torch.no_grad():
        gain = 1 + scene.memory("nlbbox").gain_BC[:, None]
        z = model.stem(scene.template).tokens_BNC * gain + model.pos_embed_z
        x = model.stem(scene.search).tokens_BNC * gain + model.pos_embed_x
    torch.testing.assert_close(caught[0], torch.cat([z, x], dim=1))


# -- candidate elimination ---------------------------------------------------------------------------


def trunk_input(model: AllInOne, batch: int = 3) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(4)
    cells = model.templates * model.template_side**2, model.search_side**2
    z, x = (torch.randn(batch, n, model.width, generator=random) for n in cells)
    return z, x


@pytest.mark.parametrize("case", CASES)
def test_hidden_in_training_is_gone_when_running(case: str) -> None:
    """A mixed batch hides eliminated tokens; alone they are removed: the same tokens, to rounding."""
    model: AllInOne = make(config_of(case))
    z, x = trunk_input(model)
    with torch.no_grad():
        gone = model.trunk(z, x)
        hidden = model.trunk(z, x, torch.zeros(3, dtype=torch.bool))
        spared = model.trunk(z, x, torch.tensor([False, True, False]))
        whole = model.trunk(z, x, select=False)
    torch.testing.assert_close(gone, hidden, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(spared[::2], gone[::2], atol=2e-4, rtol=1e-4)
    left = (gone != 0).any(dim=2).sum(dim=1)
    assert left.tolist() == [89 if "base" in case else 97] * 3
    assert bool((spared[1] != 0).all())
    assert bool((whole != 0).all())
    assert float((gone - whole)[gone != 0].abs().max()) > 1e-3, "who stays sees fewer"


def test_nobody_can_see_what_left() -> None:
    """After the first elimination nothing of the removed tokens reaches those that stay."""
    model: AllInOne = make(config_of("narrow base", eliminate=(3,)))
    z, x = trunk_input(model, 1)
    swamped = []

    def swamp(_: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Put noise where the mask of the in-place way says that nobody looks."""
        tokens, bias = inputs[0].clone(), inputs[1]
        tokens[:, bias[0, 0, 0] == float("-inf")] = 50.0
        swamped.append(int((bias == float("-inf")).sum()))
        return tokens, bias

    by_words = torch.zeros(1, dtype=torch.bool)
    with torch.no_grad():
        before = model.trunk(z, x, by_words)
        model.blocks[4].register_forward_pre_hook(swamp)
        after = model.trunk(z, x, by_words)
    assert swamped == [256 - 180]
    assert torch.equal(before, after)


@pytest.mark.parametrize("case", HEARING)
def test_training_is_what_runs(case: str) -> None:
    """In eval mode the rehearsal of a mixed batch is locate and ground of each sample alone."""
    config = small(config_of(case))
    model, views = make(config), views_of(config)
    # Running trackers have one recent template; give the rehearsal the first one twice.
    views = replace(
        views,
        recent_BV3SS=views.template_B3SS[:, None].expand(-1, 2, -1, -1, -1),
        recent_box_BV4=views.template_box_B4[:, None].expand(-1, 2, -1),
    )
    with torch.no_grad():
        outs = model.rehearse(views)
        for sample, flag in enumerate(views.flag_B.tolist()):
            one = slice(sample, sample + 1)
            text = model.read_text(views.ids_BL[one], views.words_BL[one]) if flag != Flag.BBOX else None
            for view in range(2):
                search, box = views.search_BV3SS[one, view], views.box_BV4[one, view]
                if flag == Flag.NL:
                    seen = model.ground(search, text)
                else:
                    start = views.template_B3SS[one], views.template_box_B4[one]
                    seen = model.locate(search, model.remember(*start, search, box, text))
                place = 2 * sample + view
                torch.testing.assert_close(outs["boxes"][place], seen.boxes_BSS4[0], atol=1e-4, rtol=1e-4)
                centre = outs["centre"][place].sigmoid().clamp(1e-4, 1 - 1e-4)
                torch.testing.assert_close(centre, seen.centre_BSS[0], atol=1e-4, rtol=1e-4)


# -- training ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_gets_a_gradient(case: str) -> None:
    """From one sample of each mode, none excepted."""
    model: AllInOne = make(small(config_of(case))).train()
    terms = PairObjective(model, LossWeights())(random_batch(model.config), True)
    assert all(bool(torch.isfinite(value)) for value in terms.values())
    aligned = {"alignment_search_words", "alignment_template_words", "alignment_views"}
    assert aligned <= terms.keys() or model.aligner is None
    terms["total"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_vectors_are_read_from_raw_patches() -> None:
    """Before mix-up and positions; of unit length; each patch in its place (flat) or their mean (pool)."""
    for align in ("flat", "pool"):
        config = small(config_of("narrow base", align=align))
        model, views = make(config), views_of(config)
        with torch.no_grad():
            vectors = model.rehearse(views)["vectors"]
            patches = model.stem(views.search_BV3SS.flatten(0, 1)).tokens_BNC
            read = patches.flatten(1) if align == "flat" else patches.mean(dim=1)
            expected = read @ model.aligner.search.weight.T + model.aligner.search.bias
        torch.testing.assert_close(vectors["a_x"], torch.nn.functional.normalize(expected, dim=1))
        assert vectors["a_z"].shape == vectors["a_l"].shape == (6, config.align_width)
        # A sentence belongs to both views of its target.
        assert torch.equal(vectors["a_l"][0::2], vectors["a_l"][1::2])
        assert torch.equal(vectors["a_z"][0::2], vectors["a_z"][1::2])


def test_by_words_alone_the_template_has_no_say() -> None:
    config = small(config_of("narrow base", recent_template=True))
    model, views = make(config), views_of(config)
    t = config.template_size
    recent = pictures(t, 6, 8).view(3, 2, 3, t, t)
    other = replace(views, template_B3SS=pictures(t, 3, 7), recent_BV3SS=recent)
    with torch.no_grad():
        before, after = model.rehearse(views)["centre"], model.rehearse(other)["centre"]
    by_words = (views.flag_B == Flag.NL).repeat_interleave(2)
    torch.testing.assert_close(before[by_words], after[by_words])
    assert float((before - after)[~by_words].abs().flatten(1).amax(dim=1).min()) > 1e-3


@pytest.mark.parametrize("case", HEARING)
def test_the_aligner_is_no_part_of_what_runs(case: str) -> None:
    scene = small_scene(case)
    before = [scene.see(mode) for mode in ("bbox", "nl", "nlbbox")]
    named = {n for n, _ in scene.model.named_parameters() if n.startswith(scene.model.training_only)}
    assert named == {
        f"aligner.{part}.{n}" for part in ("search", "template", "words") for n in ("weight", "bias")
    }
    scene.model.aligner = None
    assert all(equal(a, scene.see(m)) for a, m in zip(before, ("bbox", "nl", "nlbbox"), strict=True))


# -- memory, batches ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "mode"), [(c, m) for c in CASES for m in modes_of(config_of(c))])
def test_a_batch_of_three_is_three_singles(case: str, mode: str) -> None:
    scene = small_scene(case, batch=3)
    together = scene.see(mode)
    for sample in range(3):
        one = slice(sample, sample + 1)
        text = scene.model.read_text(scene.ids[one], scene.valid[one])
        with torch.no_grad():
            if mode == "nl":
                alone: Prediction = scene.model.ground(scene.search[one], text)
            else:
                start = scene.template[one], scene.box[one], scene.search[one], scene.box[one]
                memory = scene.model.remember(*start, text if mode == "nlbbox" else None)
                alone = scene.model.locate(scene.search[one], memory)
        assert apart(together.pick([sample]), alone) < 1e-4


def test_only_the_recent_template_is_refreshed() -> None:
    for case, changes in (("narrow base", False), ("tiny", True)):
        scene = small_scene(case)
        with torch.no_grad():
            memory = scene.memory("nlbbox")
            seen = scene.model.locate(scene.search, memory)
            other = pictures(scene.model.template_size, 2, 77), boxes(2, 78)
            after = scene.model.refresh(memory, seen, scene.box, *other)
            again = scene.model.locate(scene.search, after)
        assert equal(seen, again) != changes
        assert torch.equal(after.first.tokens_BMC, memory.first.tokens_BMC)
        assert torch.equal(after.gain_BC, memory.gain_BC)
        assert scene.model.refresh(memory, seen, scene.box) is memory
