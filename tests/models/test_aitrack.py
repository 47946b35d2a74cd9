"""AITrack: regions and sentences name the target, past boxes count, caches and batches change nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model_cases import CONFIGS, Scene, apart, equal, make, modes_of, pictures, random_batch, small
from vltrack.core.errors import ConfigError
from vltrack.models import aitrack
from vltrack.models.aitrack import AITrack, AITrackConfig, Alignment, Name, unmoved
from vltrack.models.base import Flag, Prediction, Views
from vltrack.training.checkpoint import freeze
from vltrack.training.losses import PairObjective
from vltrack.training.recipes import BY_WORDS

CASES = [name.removeprefix("aitrack ") for name in CONFIGS if name.startswith("aitrack ")]
HEARING = [name for name in CASES if "artrack" not in name]


def config_of(case: str, **changes: Any) -> AITrackConfig:
    made: AITrackConfig = replace(CONFIGS[f"aitrack {case}"](), **changes)
    return made


def small_scene(case: str, batch: int = 2, **changes: Any) -> Scene:
    """Random weights with a louder word table, and a stem that shows something.

    With the usual ones all words are about as likely, and a random MobileNet gives next to nothing.
    """
    scene = Scene(small(config_of(case, **changes)), batch)
    with torch.no_grad():
        scene.model.decoder.word_embeddings.weight *= 20
        if scene.model.config.stem == "mobilenet":
            scene.model.stem.project.weight *= 50
    return scene


def views_of(model: AITrack, seed: int = 0) -> Views:
    """One target of each mode, two views each, as the training loop gives them."""
    return PairObjective(model, BY_WORDS)._views(random_batch(model.config, seed))


# -- sentences ----------------------------------------------------------------------------------------


def heard(scene: Scene, mode: str) -> float:
    """How much another sentence changes what is seen."""
    before, ids = scene.see(mode), scene.ids
    scene.ids = ids.clone()
    scene.ids[:, 2] = 2417
    after = scene.see(mode)
    scene.ids = ids
    return apart(before, after)


@pytest.mark.parametrize("case", HEARING)
@pytest.mark.parametrize("mode", ["nlbbox", "nl"])
def test_another_sentence_changes_the_output(case: str, mode: str) -> None:
    assert heard(small_scene(case), mode) > 1e-4


def test_without_the_alignment_no_sentence_would_be_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken on purpose: the measure above sees it."""
    scene = small_scene("narrow base")
    assert heard(scene, "nlbbox") > 1e-4
    monkeypatch.setattr(Alignment, "forward", lambda self, tokens_BNC, name: tokens_BNC)
    assert heard(scene, "nlbbox") == 0
    assert heard(scene, "nl") == 0


@pytest.mark.parametrize("case", HEARING)
def test_a_box_alone_hears_nothing(case: str) -> None:
    """Bit by bit the same with every parameter of the text side broken."""
    scene = small_scene(case)
    before = scene.see("bbox")
    with torch.no_grad():
        for name, parameter in scene.model.named_parameters():
            if name.startswith(("bert.", "words.", "clip_text.", "word_matcher.")):
                parameter.fill_(float("nan"))
    assert equal(before, scene.see("bbox"))
    assert not bool(torch.isfinite(scene.see("nlbbox").centre_BSS).all())


@pytest.mark.parametrize("case", HEARING)
def test_in_training_too(case: str) -> None:
    """The sample named by a box keeps its logits whatever stands in its text; the two others do not."""
    model = make(small(config_of(case)))
    views = views_of(model)
    with torch.no_grad():
        before = model.rehearse(views)["sequence"].unflatten(0, (3, 2))
        after = model.rehearse(replace(views, ids_BL=views.ids_BL.roll(1, dims=1)))["sequence"]
    changed = (before - after.unflatten(0, (3, 2))).abs().amax(dim=(1, 2, 3))
    assert [bool(value > 1e-6) for value in changed] == [flag != Flag.BBOX for flag in Flag]


@torch.no_grad()
@pytest.mark.parametrize("case", HEARING)
def test_padding_is_no_word(case: str) -> None:
    scene = small_scene(case)
    memory = scene.memory("nlbbox")
    longer = scene.text().padded(memory.text.valid_BL.shape[1] + 4)
    again = scene.model.remember(scene.template, scene.box, scene.search, scene.box, longer)
    assert torch.allclose(memory.said.vector_BC, again.said.vector_BC, atol=1e-6)
    assert apart(scene.locate(scene.search, memory), scene.locate(scene.search, again)) < 1e-4


def test_no_text_side_no_start_by_words() -> None:
    with pytest.raises(ConfigError, match="words alone"):
        small_scene("narrow artrack-base").see("nl")


def test_by_words_no_template_is_seen() -> None:
    """In training, where there is one: it must be masked as at test."""
    for case in HEARING:
        model = make(small(config_of(case)))
        views = views_of(model)
        other = replace(
            views, template_B3SS=views.template_B3SS.flip(-1), recent_BV3SS=views.recent_BV3SS.flip(-1)
        )
        with torch.no_grad():
            change = (model.rehearse(views)["sequence"] - model.rehearse(other)["sequence"]).abs()
        changed = change.unflatten(0, (3, 2)).amax(dim=(1, 2, 3))
        assert [bool(value > 1e-6) for value in changed] == [flag != Flag.NL for flag in Flag]


# -- names and the alignment --------------------------------------------------------------------------


def test_the_mean_of_those_names_that_are_there() -> None:
    one = Name.of(torch.tensor([[3.0, 0.0]] * 4), torch.tensor([True, True, False, False]))
    broken = torch.tensor([[0.0, 5.0], [0.0, float("nan")], [0.0, 5.0], [float("nan")] * 2])
    other = Name.of(broken, torch.tensor([True, False, True, False]))
    both = one.beside(other)
    half = 0.5**0.5
    assert both.known_B.tolist() == [True, True, True, False]
    assert torch.allclose(both.vector_BC[:3], torch.tensor([[half, half], [1.0, 0.0], [0.0, 1.0]]))
    hidden = both.unless(torch.tensor([False, True, False, True]))
    assert hidden.known_B.tolist() == [True, False, True, False]


def test_alignment_by_the_definition_and_alive_after_one_step() -> None:
    torch.manual_seed(0)
    align, tokens = Alignment(16), torch.randn(3, 5, 16)
    name = Name.of(torch.randn(3, 16), torch.tensor([True, True, False]))
    assert torch.equal(align(tokens, name), tokens)  # an ARTrack checkpoint starts as what it is
    align(tokens, name).square().sum().backward()
    assert float(align.linear.weight.grad.abs().max()) > 0
    with torch.no_grad():
        align.linear.weight -= 0.1 * align.linear.weight.grad
        align.scale.fill_(2.0)
        told = 2.0 * (torch.nn.functional.layer_norm(name.vector_BC, (16,), eps=1e-6) @ align.linear.weight.T)
    expected = tokens + told[:, None] * torch.tensor([1.0, 1.0, 0.0])[:, None, None]
    assert torch.allclose(align(tokens, name), expected, atol=1e-6)
    assert float(told[:2].abs().mean()) > 0.1  # beside tokens of 1; the released vector has 0.04


@torch.no_grad()
@pytest.mark.parametrize("case", HEARING)
def test_regions_are_read_in_their_box_and_remembered(case: str) -> None:
    scene = small_scene(case)
    model, memory = scene.model, scene.memory("bbox")
    tokens = model.embed_template(scene.template, scene.box).tokens_BMC
    again = model.region(scene.template, tokens, scene.box)
    assert torch.equal(memory.region.vector_BC, again.vector_BC)
    assert torch.allclose(again.vector_BC.norm(dim=1), torch.ones(2), atol=1e-5)
    other = model.region(scene.template, tokens, scene.box + torch.tensor([0.2, 0, 0, 0]))
    assert float((other.vector_BC - again.vector_BC).abs().max()) > 1e-4
    # The search region's vector is read where the target was last.
    past = scene.past()
    moved = past.clone()
    moved[:, -1, 0] += 0.02  # half a word: the prompt may or may not change, the mask does
    by_words = torch.zeros(2, dtype=torch.bool)
    search = model.embed_search(scene.search, model.pair(memory.first, memory.recent), memory.text, by_words)
    vectors = [model.region(scene.search, search.plain_BNC, p[:, -1]).vector_BC for p in (past, moved)]
    assert float((vectors[0] - vectors[1]).abs().max()) > 1e-5


def test_clip_stays_as_it_is_and_everything_else_learns() -> None:
    """After one step of the objective; all of it with the frozen parts' gradients absent."""
    # A constant on all keys leaves the softmax.
    neutral = re.compile(r".*attention\.self\.key\.bias|encoder\.[zx]_pos_enc\.pos_k_linear\.bias")
    for case in CASES:
        model = make(small(config_of(case))).train()
        PairObjective(model, BY_WORDS)(random_batch(model.config), True)["total"].backward()
        grads = {name: parameter.grad for name, parameter in model.named_parameters()}
        frozen = {name for name in grads if name.startswith(("roi.", "clip_text."))}
        assert {name for name, grad in grads.items() if grad is None} == frozen
        assert bool(frozen) == (case == "narrow base")
        dead = {n for n, g in grads.items() if g is not None and not float(g.abs().max()) > 0}
        assert not {name for name in dead if not neutral.fullmatch(name)}, case


@pytest.mark.parametrize("case", CASES)
def test_frozen_parts_get_no_gradient(case: str) -> None:
    model = make(small(config_of(case))).train()
    frozen, order = model.freeze_plan()
    freeze(frozen)
    PairObjective(model, BY_WORDS)(random_batch(model.config), True)["total"].backward()
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {name for name, p in model.named_parameters() if p.grad is None} == still
    assert bool(still) == (case != "narrow artrack-base")
    assert bool(order) == (case == "tiny")


# -- past boxes, the cache, batches -------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_the_past_counts_and_none_is_a_still_target(case: str) -> None:
    scene = small_scene(case)
    model, memory, past = scene.model, scene.memory("bbox"), scene.past()
    first = model.locate(scene.search, memory, past)
    older = past.clone()
    older[:, 0, 2:] *= 2
    assert apart(first, model.locate(scene.search, memory, older)) > 1e-4
    still = unmoved(scene.box[:, 2:], 7)
    assert equal(model.locate(scene.search, memory), model.locate(scene.search, memory, still))


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_cached_writing_is_reading_everything_again(case: str) -> None:
    scene = small_scene(case, batch=3)
    model, memory = scene.model, scene.memory("nlbbox" if "nlbbox" in scene.modes else "bbox")
    prompt, picture = model._prompted(scene.search, memory, scene.past())
    words, logits = model.decoder.write(prompt, picture)
    sequence = prompt
    for i in range(4):
        again = model.decoder(sequence, picture)[:, -1]
        assert torch.allclose(again, logits[:, i], atol=1e-5)
        sequence = torch.cat([sequence, again.argmax(dim=-1, keepdim=True)], dim=1)
    assert torch.equal(sequence[:, -4:], words)
    seen = model.locate(scene.search, memory, scene.past())
    named = model.decoder.answer(prompt, picture, expected=model.config.expected)[0]
    assert torch.equal(seen.boxes_BSS4[:, 0, 0], named)


@torch.no_grad()
@pytest.mark.parametrize(("case", "mode"), [(c, m) for c in CASES for m in modes_of(config_of(c))])
def test_a_batch_of_three_is_three_singles(case: str, mode: str) -> None:
    scene = small_scene(case, batch=3)
    together, model = scene.see(mode), scene.model
    for i in range(3):
        if mode == "nl":
            alone: Prediction = model.ground(scene.search[i : i + 1], scene.text().pick([i]))
        else:
            memory = scene.memory(mode).pick([i])
            alone = model.locate(scene.search[i : i + 1], memory, scene.past()[i : i + 1])
        assert apart(together.pick([i]), alone) < 1e-4


@torch.no_grad()
def test_targets_with_and_without_a_sentence_share_a_batch() -> None:
    for case in HEARING:
        scene = small_scene(case, batch=1)
        memories = [scene.memory("bbox"), scene.memory("nlbbox")]
        longest = max(m.text.valid_BL.shape[1] for m in memories)
        joined = type(memories[0]).join([replace(m, text=m.text.padded(longest)) for m in memories])
        past = scene.past().expand(2, -1, -1)
        both = scene.model.locate(scene.search.expand(2, -1, -1, -1), joined, past)
        for i, mode in enumerate(("bbox", "nlbbox")):
            assert apart(both.pick([i]), scene.see(mode)) < 1e-4


@torch.no_grad()
def test_refresh_takes_a_recent_template_where_there_is_room() -> None:
    for case, takes in (("tiny", True), ("narrow base", False)):
        scene = small_scene(case)
        memory, seen = scene.memory("bbox"), scene.see("bbox")
        size = scene.model.template_size
        after = scene.model.refresh(memory, seen, scene.box, pictures(size, 2, 77), scene.box)
        assert torch.equal(after.first.tokens_BMC, memory.first.tokens_BMC)
        assert torch.equal(after.region.vector_BC, memory.region.vector_BC)
        assert (after is not memory) == takes
        assert equal(seen, scene.locate(scene.search, after)) != takes


@torch.no_grad()
def test_the_parent_is_the_parts_in_the_published_order() -> None:
    """ARTrack by its parts: (patches + position) + identity, blocks over [z; x], norm, encoder, decoder.

    Past boxes are half a pixel of the crop to the upper left, as in the released test code.
    """
    scene = small_scene("narrow artrack-base")
    model, past = scene.model, scene.past()
    z = model.stem(scene.template).tokens_BNC + model.pos_embed_z + model.identity[:, 0]
    x = model.stem(scene.search).tokens_BNC + model.pos_embed_x + model.identity[:, 1]
    tokens = torch.cat([z, x], dim=1)
    for block in model.blocks:
        tokens = block(tokens)
    z, x = model.encoder(*model.norm(tokens).split([z.shape[1], x.shape[1]], dim=1))
    places = torch.cat(
        [model.pos_embed_z + model.identity[:, 0], model.pos_embed_x + model.identity[:, 1]], 1
    )
    picture = model.decoder.picture(torch.cat([z, x], dim=1), places)
    half = torch.tensor([0.5, 0.5, 0.0, 0.0]) / model.search_size
    words, logits = model.decoder.write(model.decoder.prompt(past - half), picture)
    seen = scene.see("bbox")
    assert torch.equal(seen.boxes_BSS4[:, 0, 0], model.decoder.vocabulary.box(words))
    assert torch.allclose(seen.centre_BSS[:, 0, 0], model.decoder.sureness(words, logits), atol=1e-6)


# -- training -----------------------------------------------------------------------------------------


@torch.no_grad()
def test_training_sees_what_runs() -> None:
    """The first word's logits of a rehearsal are those of ``locate`` after the same past."""
    for case in CASES:
        model = make(small(config_of(case)))
        views = views_of(model)
        pasts: list[Tensor] = []
        prompt = model._prompt
        model._prompt = lambda past, prompt=prompt, pasts=pasts: pasts.append(past) or prompt(past)
        outs = model.rehearse(views)
        del model._prompt
        i = list(Flag).index(Flag.BBOX)
        memory = model.remember(
            views.template_B3SS[[i]],
            views.template_box_B4[[i]],
            views.search_BV3SS[i, :1],
            views.box_BV4[i, :1],
        )
        if model.config.recent_template:
            recent = model.embed_template(views.recent_BV3SS[i, :1], views.recent_box_BV4[i, :1])
            memory = replace(memory, recent=recent)
        read, picture = model._prompted(views.search_BV3SS[i, :1], memory, pasts[0][[2 * i]])
        assert torch.allclose(model.decoder(read, picture)[0, -1], outs["sequence"][2 * i, 0], atol=1e-4)


@torch.no_grad()
def test_a_rehearsal_is_a_function_of_its_data() -> None:
    model = make(small(config_of("tiny")))
    first = model.rehearse(views_of(model))
    torch.rand(3)
    assert torch.equal(first["sequence"], model.rehearse(views_of(model))["sequence"])
    assert first["sequence"].shape == (6, 5, 802)
    assert first["expected"].shape == (6, 4)
    assert first["boxes"].shape == (6, 1, 1, 4)
    assert float(first["boxes"][..., 2:].min()) > 0


def test_following_expects_the_words_that_are_written() -> None:
    for case in ("tiny", "narrow artrack-base"):
        scene = small_scene(case)
        model, memory = scene.model, scene.memory("bbox")
        expected = model.follow(scene.search, memory, scene.past())
        prompt, picture = model._prompted(scene.search, memory, scene.past())
        _, logits = model.decoder.write(prompt, picture)
        assert torch.allclose(expected, model.decoder.vocabulary.expected(logits), atol=1e-5)
        expected.sum().backward()
        assert float(model.decoder.word_embeddings.weight.grad.abs().max()) > 0
        assert float(next(model.blocks.parameters()).grad.abs().max()) > 0


# -- sizes and switches -------------------------------------------------------------------------------


def millions(module: torch.nn.Module | None) -> float:
    return 0.0 if module is None else sum(p.numel() for p in module.parameters()) / 1e6


def test_parameters_of_the_published_sizes() -> None:
    """About 199 M are expected without the positions of the encoder (2.4 M) and some tables: see the docs."""
    with torch.device("meta"):
        model, parent = AITrack(aitrack.base()), AITrack(aitrack.artrack_base())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6
    assert trainable == pytest.approx(203.0, abs=0.05)
    assert trainable == pytest.approx(199, rel=0.025)
    assert millions(parent) + millions(model.align) == pytest.approx(trainable)
    assert millions(model.roi) == pytest.approx(304, abs=0.5)
    assert millions(model.roi) + millions(model.clip_text) == pytest.approx(428, abs=1)
    assert sum(millions(part) for part in (model.blocks, model.stem, model.norm)) == pytest.approx(
        85.6, abs=0.1
    )


def test_tiny_is_tiny() -> None:
    assert millions(make(aitrack.tiny())) * 2 < 12  # MB in fp16


@pytest.mark.parametrize(
    "changes",
    [
        {"history": 0},
        {"history": 2},
        {"roi": "pool"},
        {"roi": "none"},
        {"text": "none"},
        {"text": "bert", "text_hidden": 128},
        {"learned_positions": False},
        {"recent_template": True},
        {"bins": 200, "reach": 3},
        {"expected": True},
    ],
    ids=str,
)
def test_every_idea_is_a_switch(changes: dict[str, Any]) -> None:
    scene = small_scene("narrow base", **changes)
    assert scene.model.history == scene.model.config.history
    assert all(bool(torch.isfinite(scene.see(mode).boxes_BSS4).all()) for mode in scene.modes)
    if "nl" in scene.modes:
        assert heard(scene, "nl") > 1e-6
    terms = PairObjective(scene.model.train(), BY_WORDS)(random_batch(scene.model.config), True)
    assert {"sequence", "siou", "total", "iou"} <= set(terms)
    assert all(bool(torch.isfinite(value)) for value in terms.values())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"decoder_layers": 0}, "decoder_layers"),
        ({"history": -1}, "history"),
        ({"roi_width": 100}, "roi_width"),
        ({"stem": "mobilenet", "word_match": True}, "word_match"),
        ({"bins": 1}, "bins"),
    ],
)
def test_configurations_that_cannot_be(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        AITrack(config_of("narrow base", **changes))
