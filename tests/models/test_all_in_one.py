"""All-in-One: text gain, mix-up, box-only, elimination, training is inference, sizes, switches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from model_cases import CONFIGS, Scene, apart, boxed, equal, make, random_batch, sentences, small, views_of
from vltrack.core.errors import ConfigError
from vltrack.core.types import Mode
from vltrack.models.all_in_one import AllInOne, AllInOneConfig, base, ostrack_base, tiny
from vltrack.models.base import MODE_IDS, Text
from vltrack.training.losses import PairObjective
from vltrack.training.recipes import LossWeights

CASES = [name.removeprefix("all-in-one ") for name in CONFIGS if name.startswith("all-in-one ")]
WITH_TEXT = [name for name in CASES if "ostrack" not in name]


def config_of(case: str, **changes: Any) -> AllInOneConfig:
    made: AllInOneConfig = replace(CONFIGS[f"all-in-one {case}"](), **changes)
    return made


def small_scene(case: str, batch: int = 2, **changes: Any) -> Scene:
    return Scene(small(config_of(case, **changes)), batch)


def with_word(scene: Scene, word: int) -> Scene:
    scene.ids = scene.ids.clone()
    scene.ids[:, 2] = word
    return scene


# -- the sentence ------------------------------------------------------------------------------------


def effect_of_text(scene: Scene, mode: str) -> float:
    """Largest change of the prediction by another sentence."""
    before = scene.predict(mode)
    return apart(before, with_word(scene, 2417).predict(mode))


def test_the_released_bug_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the first row of the embeddings in the mean's place, every sentence is the same to the bit."""

    assert effect_of_text(small_scene("narrow base"), "nlbbox") > 1e-4
    monkeypatch.setattr(Text, "mean", lambda text: text.tokens_BLC[:, 0])
    assert effect_of_text(small_scene("narrow base"), "nlbbox") == 0
    assert effect_of_text(small_scene("narrow base"), "nl") == 0


@pytest.mark.parametrize("case", WITH_TEXT)
def test_box_only_reads_no_text_parameter(case: str) -> None:
    """Bit by bit the same with every parameter of the text side broken."""
    scene = small_scene(case)
    before = scene.predict("bbox")
    with torch.no_grad():
        for name, parameter in scene.model.named_parameters():
            if name.startswith(("bert.", "language.", "word_matcher.", "aligner.")):
                parameter.fill_(float("nan"))
    assert equal(before, scene.predict("bbox"))


@pytest.mark.parametrize("case", WITH_TEXT)
def test_box_only_is_the_model_without_mixup(case: str) -> None:
    """No sentence is the identity, not a sentence of zeros through a layer with a bias."""
    scene, plain = small_scene(case), small_scene(case, mixup=False)
    plain.model.load_state_dict(scene.model.state_dict())
    assert equal(scene.predict("bbox"), plain.predict("bbox"))
    assert equal(plain.predict("bbox"), plain.predict("nlbbox"))
    assert apart(scene.predict("bbox"), scene.predict("nlbbox")) > 1e-4


def test_gain_by_the_definition() -> None:
    """normalize(W mean of the tokens + b), of unit length, without padding; 0 without any."""
    model: AllInOne = make(small(config_of("narrow base")))
    ids, valid = sentences(3, length=9, words=6)
    flag_B = torch.tensor([MODE_IDS[mode] for mode in (Mode.NLBBOX, Mode.NL, Mode.BBOX)])
    with torch.no_grad():
        gain = model.text_gain(model.read_text(ids, valid), flag_B)
        rows = model.bert.embeddings(ids[:2])[:, :6].mean(dim=1)
        expected = torch.nn.functional.normalize(rows @ model.language.weight.T + model.language.bias, dim=1)
        none = model.text_gain(model.no_text(2), flag_B[:2])
    torch.testing.assert_close(gain[:2], expected)
    torch.testing.assert_close(gain[:2].norm(dim=1), torch.ones(2))
    assert not bool(gain[2].any())
    assert none.shape == (2, 64)
    assert not bool(none.any())


def test_mixup_scales_patches_before_their_positions() -> None:
    """x + L * x, then positions, the template first: the first block's input."""
    scene = small_scene("narrow base")
    model, caught = scene.model, []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    scene.predict("nlbbox")
    with torch.no_grad():
        gain = 1 + scene.memory("nlbbox").gain_BC[:, None]
        z = model.embed.stem(scene.template).tokens_BNC * gain + model.pos_embed_z
        x = model.embed.stem(scene.search).tokens_BNC * gain + model.pos_embed_x
    torch.testing.assert_close(caught[0], torch.cat([z, x], dim=1))


# -- candidate elimination ---------------------------------------------------------------------------


def backbone_input(model: AllInOne, batch: int = 3) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(4)
    cells = model.template_count * model.template_side**2, model.search_side**2
    z, x = (torch.randn(batch, n, model.width, generator=random) for n in cells)
    return z, x


@pytest.mark.parametrize("case", CASES)
def test_masked_in_training_is_gone_at_inference(case: str) -> None:
    """A mixed batch masks eliminated tokens; alone they are removed: the same tokens, to rounding."""
    model: AllInOne = make(config_of(case))
    z, x = backbone_input(model)
    with torch.no_grad():
        gone = model.forward_backbone(z, x)
        hidden = model.forward_backbone(z, x, torch.zeros(3, dtype=torch.bool))
        spared = model.forward_backbone(z, x, torch.tensor([False, True, False]))
        whole = model.forward_backbone(z, x, select=False)
    torch.testing.assert_close(gone, hidden, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(spared[::2], gone[::2], atol=2e-4, rtol=1e-4)
    left = (gone != 0).any(dim=2).sum(dim=1)
    assert left.tolist() == [89 if "base" in case else 97] * 3
    assert bool((spared[1] != 0).all())
    assert bool((whole != 0).all())
    assert float((gone - whole)[gone != 0].abs().max()) > 1e-3, "kept tokens have fewer keys"


def test_eliminated_tokens_have_no_influence() -> None:
    """After the first elimination nothing of the removed tokens reaches those that stay."""
    model: AllInOne = make(config_of("narrow base", eliminate=(3,)))
    z, x = backbone_input(model, 1)
    swamped = []

    def swamp(_: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Put noise where the mask hides the keys."""
        tokens, bias = inputs[0].clone(), inputs[1]
        tokens[:, bias[0, 0, 0] == float("-inf")] = 50.0
        swamped.append(int((bias == float("-inf")).sum()))
        return tokens, bias

    text_only = torch.zeros(1, dtype=torch.bool)
    with torch.no_grad():
        before = model.forward_backbone(z, x, text_only)
        model.blocks[4].register_forward_pre_hook(swamp)
        after = model.forward_backbone(z, x, text_only)
    assert swamped == [256 - 180]
    assert torch.equal(before, after)


@pytest.mark.parametrize("case", WITH_TEXT)
def test_training_is_inference(case: str) -> None:
    """In eval mode the training pass of a mixed batch is locate and ground of each sample alone."""
    model = make(small(config_of(case)))
    views = views_of(model)
    # At a start the recent template is the first one.
    first = views.template
    recent = boxed(first.image_B3SS[:, None].expand(-1, 2, -1, -1, -1), first.box_B4[:, None].expand(-1, 2, -1))
    views = replace(views, recent=recent)
    with torch.no_grad():
        outs = model.forward(views)
        for sample, mode in enumerate((Mode.BBOX, Mode.NL, Mode.NLBBOX)):
            one = slice(sample, sample + 1)
            text = model.read_text(views.ids_BL[one], views.valid_BL[one]) if mode != Mode.BBOX else None
            for view in range(2):
                search = boxed(views.search.image_B3SS[one, view], views.search.box_B4[one, view])
                if mode is Mode.NL:
                    seen = model.ground(search.image_B3SS, text)
                else:
                    memory = model.init_template(first.index_select([sample]), search, text)
                    seen = model.locate(search.image_B3SS, memory)
                place = 2 * sample + view
                torch.testing.assert_close(outs.boxes_BSS4[place], seen.boxes_BSS4[0], atol=1e-4, rtol=1e-4)
                center = outs.center_BSS[place].sigmoid().clamp(1e-4, 1 - 1e-4)
                torch.testing.assert_close(center, seen.center_BSS[0], atol=1e-4, rtol=1e-4)


# -- training ----------------------------------------------------------------------------------------


def test_vectors_are_read_from_raw_patches() -> None:
    """Before mix-up and positions; of unit length; each patch in its place (flat) or their mean (pool)."""
    for align in ("flat", "pool"):
        config = small(config_of("narrow base", align=align))
        model = make(config)
        views = views_of(model)
        with torch.no_grad():
            search, template, text = model.forward(views).alignment
            patches = model.embed.stem(views.search.image_B3SS.flatten(0, 1)).tokens_BNC
            read = patches.flatten(1) if align == "flat" else patches.mean(dim=1)
            expected = read @ model.aligner.search.weight.T + model.aligner.search.bias
        torch.testing.assert_close(search, torch.nn.functional.normalize(expected, dim=1))
        assert template.shape == text.shape == (6, config.align_width)
        # A sentence belongs to both views of its target.
        assert torch.equal(text[0::2], text[1::2])
        assert torch.equal(template[0::2], template[1::2])


@pytest.mark.parametrize("case", WITH_TEXT)
def test_inference_runs_without_the_aligner(case: str) -> None:
    scene = small_scene(case)
    before = [scene.predict(mode) for mode in ("bbox", "nl", "nlbbox")]
    named = {n for n, _ in scene.model.named_parameters() if n.startswith(scene.model.training_only)}
    assert named == {f"aligner.{part}.{n}" for part in ("search", "template", "words") for n in ("weight", "bias")}
    scene.model.aligner = None
    assert all(equal(a, scene.predict(m)) for a, m in zip(before, ("bbox", "nl", "nlbbox"), strict=True))


# -- sizes and switches ------------------------------------------------------------------------------


def hollow(config: AllInOneConfig) -> AllInOne:
    with torch.device("meta"):
        return AllInOne(config).eval()


def count(model: AllInOne, belongs: Callable[[str], bool]) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if belongs(name))


def test_parameters_of_the_published_sizes() -> None:
    """OSTrack's 92.1 M are those of its layers, as its profiler counts: positions are not a layer."""
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
        template = boxed(torch.zeros(1, 3, 128, 128), box)
        model.locate(search, model.init_template(template, boxed(search, box), text))
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
    assert all(bool(torch.isfinite(scene.predict(mode).boxes_BSS4).all()) for mode in ("bbox", "nlbbox"))
    if scene.model.config.mixup:
        assert bool(torch.isfinite(scene.predict("nl").boxes_BSS4).all())
    else:
        with pytest.raises(ConfigError):
            scene.predict("nl")
    terms = PairObjective(scene.model.train(), LossWeights())(random_batch(scene.model.config), True)
    assert ("alignment_views" in terms) == (scene.model.config.align != "none")
    assert bool(torch.isfinite(terms["total"]))
