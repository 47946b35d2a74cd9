"""AITrack: region and text conditioning, past boxes, cached decoding, training is inference, switches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model_cases import CONFIGS, Scene, apart, boxed, equal, make, random_batch, small, views_of
from vltrack.models import aitrack
from vltrack.models.aitrack import (
    AITrack,
    AITrackConfig,
    Alignment,
    ConditionEmbedding,
    full_image_prior,
    sample_history,
    static_history,
)
from vltrack.models.artrack_decoder import confidence
from vltrack.training.losses import PairObjective
from vltrack.training.recipes import COORDINATE_LOSSES

CASES = [name.removeprefix("aitrack ") for name in CONFIGS if name.startswith("aitrack ")]
WITH_TEXT = [name for name in CASES if "artrack" not in name]


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
            scene.model.embed.stem.project.weight *= 50
    return scene


# -- sentences ----------------------------------------------------------------------------------------


def effect_of_text(scene: Scene, mode: str) -> float:
    """Largest change of the prediction by another sentence."""
    before, ids = scene.predict(mode), scene.ids
    scene.ids = ids.clone()
    scene.ids[:, 2] = 2417
    after = scene.predict(mode)
    scene.ids = ids
    return apart(before, after)


def test_without_the_alignment_no_sentence_would_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken on purpose: the measure above sees it."""
    scene = small_scene("narrow base")
    assert effect_of_text(scene, "nlbbox") > 1e-4
    monkeypatch.setattr(Alignment, "forward", lambda self, tokens_BNC, condition: tokens_BNC)
    assert effect_of_text(scene, "nlbbox") == 0
    assert effect_of_text(scene, "nl") == 0


@pytest.mark.parametrize("case", WITH_TEXT)
def test_box_only_reads_no_text_parameter(case: str) -> None:
    """Bit by bit the same with every parameter of the text side broken."""
    scene = small_scene(case)
    before = scene.predict("bbox")
    with torch.no_grad():
        for name, parameter in scene.model.named_parameters():
            if name.startswith(("bert.", "words.", "clip_text.", "word_matcher.")):
                parameter.fill_(float("nan"))
    assert equal(before, scene.predict("bbox"))
    assert not bool(torch.isfinite(scene.predict("nlbbox").center_BSS).all())


@pytest.mark.parametrize("case", WITH_TEXT)
def test_in_training_box_only_samples_ignore_text(case: str) -> None:
    """The box-only sample keeps its logits with any text; the two others do not."""
    model = make(small(config_of(case)))
    views = views_of(model)
    with torch.no_grad():
        before = model(views).coordinates_BTV.unflatten(0, (3, 2))
        after = model.forward(replace(views, ids_BL=views.ids_BL.roll(1, dims=1))).coordinates_BTV
    changed = (before - after.unflatten(0, (3, 2))).abs().amax(dim=(1, 2, 3))
    assert [bool(value > 1e-6) for value in changed] == [False, True, True]  # bbox, nl, nlbbox


# -- names and the alignment --------------------------------------------------------------------------


def test_the_average_is_of_the_embeddings_that_are_there() -> None:
    one = ConditionEmbedding.normalized(torch.tensor([[3.0, 0.0]] * 4), torch.tensor([True, True, False, False]))
    broken = torch.tensor([[0.0, 5.0], [0.0, float("nan")], [0.0, 5.0], [float("nan")] * 2])
    other = ConditionEmbedding.normalized(broken, torch.tensor([True, False, True, False]))
    both = one.average(other)
    half = 0.5**0.5
    assert both.known_B.tolist() == [True, True, True, False]
    assert torch.allclose(both.vector_BC[:3], torch.tensor([[half, half], [1.0, 0.0], [0.0, 1.0]]))
    hidden = both.masked_out(torch.tensor([False, True, False, True]))
    assert hidden.known_B.tolist() == [True, False, True, False]


def test_alignment_by_the_definition_and_alive_after_one_step() -> None:
    torch.manual_seed(0)
    align, tokens = Alignment(16), torch.randn(3, 5, 16)
    condition = ConditionEmbedding.normalized(torch.randn(3, 16), torch.tensor([True, True, False]))
    assert torch.equal(align(tokens, condition), tokens)  # an ARTrack checkpoint starts unchanged
    align(tokens, condition).square().sum().backward()
    assert float(align.linear.weight.grad.abs().max()) > 0
    with torch.no_grad():
        align.linear.weight -= 0.1 * align.linear.weight.grad
        align.scale.fill_(2.0)
        normed = torch.nn.functional.layer_norm(condition.vector_BC, (16,), eps=1e-6)
        shift = 2.0 * (normed @ align.linear.weight.T)
    expected = tokens + shift[:, None] * torch.tensor([1.0, 1.0, 0.0])[:, None, None]
    assert torch.allclose(align(tokens, condition), expected, atol=1e-6)
    assert float(shift[:2].abs().mean()) > 0.1  # next to tokens of 1; the released vector has 0.04


@torch.no_grad()
@pytest.mark.parametrize("case", WITH_TEXT)
def test_regions_are_embedded_in_their_box_and_kept(case: str) -> None:
    scene = small_scene(case)
    model, memory = scene.model, scene.memory("bbox")
    tokens = model.embed_template(boxed(scene.template, scene.box)).tokens_BMC
    again = model.embed_region(scene.template, tokens, scene.box)
    assert torch.equal(memory.region.vector_BC, again.vector_BC)
    assert torch.allclose(again.vector_BC.norm(dim=1), torch.ones(2), atol=1e-5)
    other = model.embed_region(scene.template, tokens, scene.box + torch.tensor([0.2, 0, 0, 0]))
    assert float((other.vector_BC - again.vector_BC).abs().max()) > 1e-4
    # The search region's vector is of where the target was last.
    past = scene.past()
    moved = past.clone()
    moved[:, -1, 0] += 0.02  # half a token: the sequence may or may not change, the mask does
    by_words = torch.zeros(2, dtype=torch.bool)
    search = model.embed.search(scene.search, model.joint_template(memory.first, memory.recent), memory.text, by_words)
    vectors = [model.embed_region(scene.search, search.patches_BNC, p[:, -1]).vector_BC for p in (past, moved)]
    assert float((vectors[0] - vectors[1]).abs().max()) > 1e-5


# -- past boxes, the cache, batches -------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_the_past_counts_and_none_is_a_static_target(case: str) -> None:
    scene = small_scene(case)
    model, memory, past = scene.model, scene.memory("bbox"), scene.past()
    first = model.locate(scene.search, memory, past)
    older = past.clone()
    older[:, 0, 2:] *= 2
    assert apart(first, model.locate(scene.search, memory, older)) > 1e-4
    static = static_history(scene.box[:, 2:], 7)
    assert equal(model.locate(scene.search, memory), model.locate(scene.search, memory, static))


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_cached_generation_is_the_whole_sequence_again(case: str) -> None:
    scene = small_scene(case, batch=3)
    model, memory = scene.model, scene.memory("nlbbox" if "nlbbox" in scene.modes else "bbox")
    start, memory_kv = model._condition(scene.search, memory, scene.past())
    tokens, logits = model.decoder.generate(start, memory_kv)
    sequence = start
    for i in range(4):
        again = model.decoder(sequence, memory_kv)[:, -1]
        assert torch.allclose(again, logits[:, i], atol=1e-5)
        sequence = torch.cat([sequence, again.argmax(dim=-1, keepdim=True)], dim=1)
    assert torch.equal(sequence[:, -4:], tokens)
    seen = model.locate(scene.search, memory, scene.past())
    named = model.decoder.predict_box(start, memory_kv, expected=model.config.expected)[0]
    assert torch.equal(seen.boxes_BSS4[:, 0, 0], named)


@torch.no_grad()
def test_the_parent_is_the_parts_in_the_published_order() -> None:
    """ARTrack by its parts: (patches + position) + identity, blocks over [z; x], norm, encoder, decoder.

    Past boxes are half a pixel of the crop to the upper left, as in the released test code.
    """
    scene = small_scene("narrow artrack-base")
    model, past = scene.model, scene.past()
    z = model.embed.stem(scene.template).tokens_BNC + model.pos_embed_z + model.identity[:, 0]
    x = model.embed.stem(scene.search).tokens_BNC + model.pos_embed_x + model.identity[:, 1]
    tokens = torch.cat([z, x], dim=1)
    for block in model.blocks:
        tokens = block(tokens)
    z, x = model.encoder(*model.norm(tokens).split([z.shape[1], x.shape[1]], dim=1))
    places = torch.cat([model.pos_embed_z + model.identity[:, 0], model.pos_embed_x + model.identity[:, 1]], 1)
    memory_kv = model.decoder.keys_values(torch.cat([z, x], dim=1), places)
    half = torch.tensor([0.5, 0.5, 0.0, 0.0]) / model.search_size
    found, logits = model.decoder.generate(model.decoder.start_sequence(past - half), memory_kv)
    seen = scene.predict("bbox")
    assert torch.equal(seen.boxes_BSS4[:, 0, 0], model.decoder.tokenizer.decode(found))
    assert torch.allclose(seen.center_BSS[:, 0, 0], confidence(found, logits), atol=1e-6)


# -- training -----------------------------------------------------------------------------------------


@torch.no_grad()
def test_training_is_inference() -> None:
    """The first token's logits of a training pass are those of ``locate`` after the same past."""
    for case in CASES:
        model = make(small(config_of(case)))
        views = views_of(model)
        pasts: list[Tensor] = []
        start = model.start_sequence
        model.start_sequence = lambda past, start=start, pasts=pasts: pasts.append(past) or start(past)
        outs = model.forward(views)
        del model.start_sequence
        search = boxed(views.search.image_B3SS[0, :1], views.search.box_B4[0, :1])  # the box-only target
        memory = model.init_template(views.template.index_select([0]), search)
        if model.config.recent_template:
            crop = boxed(views.recent.image_B3SS[0, :1], views.recent.box_B4[0, :1])
            memory = replace(memory, recent=model.embed_template(crop))
        sequence, memory_kv = model._condition(search.image_B3SS, memory, pasts[0][[0]])
        logits = model.decoder(sequence, memory_kv)[0, -1]
        assert torch.allclose(logits, outs.coordinates_BTV[0, 0], atol=1e-4)


@torch.no_grad()
def test_a_training_pass_is_a_function_of_its_data() -> None:
    model = make(small(config_of("tiny")))
    first = model.forward(views_of(model))
    torch.rand(3)
    assert torch.equal(first.coordinates_BTV, model.forward(views_of(model)).coordinates_BTV)
    assert first.coordinates_BTV.shape == (6, 5, 802)
    assert first.expected_B4.shape == (6, 4)
    assert first.boxes_BSS4.shape == (6, 1, 1, 4)
    assert float(first.boxes_BSS4[..., 2:].min()) > 0


def test_follow_expects_the_tokens_that_are_generated() -> None:
    for case in ("tiny", "narrow artrack-base"):
        scene = small_scene(case)
        model, memory = scene.model, scene.memory("bbox")
        expected = model.locate_expected(scene.search, memory, scene.past())
        _, logits = model.decoder.generate(*model._condition(scene.search, memory, scene.past()))
        assert torch.allclose(expected, model.decoder.tokenizer.soft_argmax(logits), atol=1e-5)
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
    assert sum(millions(part) for part in (model.blocks, model.embed.stem, model.norm)) == pytest.approx(85.6, abs=0.1)


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
    assert all(bool(torch.isfinite(scene.predict(mode).boxes_BSS4).all()) for mode in scene.modes)
    if "nl" in scene.modes:
        assert effect_of_text(scene, "nl") > 1e-6
    terms = PairObjective(scene.model.train(), COORDINATE_LOSSES)(random_batch(scene.model.config), True)
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


# -- sampled past boxes --------------------------------------------------------------------------------

FACTOR = 4.0


def annotated(batch: int = 2000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(batch, 4, generator=generator)
    return torch.cat([0.2 + 0.6 * shares[:, :2], 0.1 + 0.3 * shares[:, 2:]], dim=1)


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def test_the_last_box_is_what_the_crop_was_cut_around() -> None:
    past = sample_history(annotated(), FACTOR, 7)
    last = past[:, -1]
    assert torch.equal(last[:, :2], torch.full_like(last[:, :2], 0.5))
    assert torch.allclose(last[:, 2:].prod(dim=1), torch.full((2000,), FACTOR**-2))
    assert float(past[..., 2:].min()) > 0


def test_it_predicts_the_shape_roughly_and_not_the_place() -> None:
    box = annotated()
    past = sample_history(box, FACTOR, 7)
    aspect, past_aspect = (b[:, 2].log() - b[:, 3].log() for b in (box, past[:, -1]))
    assert correlation(aspect, past_aspect) > 0.8
    assert float((aspect - past_aspect).abs().median()) > 0.05
    drift = past[:, -1, :2] - past[:, 0, :2]
    for axis in (0, 1):
        assert abs(correlation(box[:, axis] - 0.5, drift[:, axis])) < 0.08


def test_a_quarter_has_not_moved_and_the_others_move_smoothly() -> None:
    past = sample_history(annotated(), FACTOR, 7)
    still = (past == past[:, -1:]).flatten(1).all(dim=1)
    assert 0.2 < float(still.float().mean()) < 0.3
    steps = past[~still].diff(dim=1)[..., :2].abs()
    assert float(steps.mean()) < 0.05
    assert float(past[..., :2].min()) > 0
    assert float(past[..., :2].max()) < 1


def test_the_same_boxes_have_the_same_past_whatever_was_drawn_before() -> None:
    box = annotated(8)
    first = sample_history(box, FACTOR, 7)
    torch.rand(5)
    assert torch.equal(first, sample_history(box, FACTOR, 7))
    assert not torch.equal(first, sample_history(box + 1e-3, FACTOR, 7))


def test_starts() -> None:
    size = torch.tensor([[0.2, 0.3]])
    assert torch.equal(static_history(size, 7), torch.tensor([[[0.5, 0.5, 0.2, 0.3]] * 7]))
    assert torch.equal(full_image_prior(2, 3, size), torch.tensor([0.5, 0.5, 1.0, 1.0]).expand(2, 3, 4))
    assert sample_history(annotated(3), FACTOR, 1).shape == (3, 1, 4)
