"""BIT-Tracker: its equations by hand, masks, the dynamic template, and that each part is a switch."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_cases import (
    CONFIGS,
    Scene,
    apart,
    boxes,
    equal,
    generator,
    make,
    outputs,
    pictures,
    random_batch,
    sentences,
)
from vltrack.core.errors import ConfigError
from vltrack.models import MODELS, bit_tracker, config_of
from vltrack.models.base import Flag, Memory, Prediction, Text
from vltrack.models.bit_tracker import (
    BITTracker,
    BITTrackerConfig,
    Interaction,
    LevelAggregation,
    ScoreHead,
    base,
    stark_base,
    tiny,
)
from vltrack.models.profile import count_parameters, without_memory
from vltrack.training.checkpoint import freeze
from vltrack.training.losses import PairObjective
from vltrack.training.recipes import LossWeights

HEARING, DEAF = ("bit-tracker tiny", "bit-tracker narrow base"), "bit-tracker narrow stark-base"
# What mathematics makes zero. Batch norm takes a bias away, softmax a shift of all logits; STARK's query is
# alone and at first zero, so that in its first self-attention nothing is weighed and no value is mapped.
NEUTRAL = re.compile(
    r".*attention\.self\.key\.bias|head\.(tl|br)\.conv\d\.(0\.)?bias|score_head\.pool\.bias"
    r"|decoder\.layers\.0\.self_attn\.in_proj_weight"
)
C, HEADS, HIDDEN, T = 16, 2, 24, 7


def config(name: str, **changes: Any) -> BITTrackerConfig:
    made: BITTrackerConfig = replace(CONFIGS[name](), **changes)
    return replace(made, template_size=64, search_size=128) if name.endswith("tiny") else made


@lru_cache
def scene_of(name: str, batch: int = 2) -> Scene:
    return Scene(config(name), batch=batch)


@pytest.fixture(params=HEARING, ids=lambda name: name.replace(" ", "-"))
def scene(request: pytest.FixtureRequest) -> Scene:
    return scene_of(request.param)


# -- the equations by hand ----------------------------------------------------------------------------


def randomised(module: Any, seed: int = 0) -> Any:
    random = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.4)
    return module.eval()


def tokens(count: int = T, seed: int = 1) -> Tensor:
    return torch.randn(1, count, C, generator=generator(seed))


def norm(module: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * module.weight + module.bias


def mixed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(N, C) asks (M, C), head by head."""
    size, parts = C // HEADS, []
    for h in range(HEADS):
        part = slice(h * size, (h + 1) * size)
        parts.append((q[:, part] @ k[:, part].T / size**0.5).softmax(dim=1) @ v[:, part])
    return torch.cat(parts, dim=1)


def crossed(block: Any, x: Tensor, y: Tensor, x_pos: Tensor, y_pos: Tensor) -> Tensor:
    """LN(x + CA(x; y)), then LN(x + MLP(x))."""
    attn, mlp = block.attn, block.mlp
    weight_k, weight_v = attn.kv.weight.chunk(2)
    bias_k, bias_v = attn.kv.bias.chunk(2)
    q = (x + x_pos) @ attn.q.weight.T + attn.q.bias
    out = mixed(q, (y + y_pos) @ weight_k.T + bias_k, y @ weight_v.T + bias_v)
    x = norm(block.norm1, x + out @ attn.proj.weight.T + attn.proj.bias)
    inner = nn.functional.gelu(x @ mlp.fc1.weight.T + mlp.fc1.bias)
    return norm(block.norm2, x + inner @ mlp.fc2.weight.T + mlp.fc2.bias)


@pytest.mark.parametrize("dca", [True, False])
@pytest.mark.parametrize("dsa", [True, False])
@torch.no_grad()
def test_aggregation_of_levels(dsa: bool, dca: bool) -> None:
    part = randomised(LevelAggregation(C, HEADS, HIDDEN, levels=3, dsa=dsa, dca=dca))
    levels, pos, bias = [tokens(seed=s) for s in (1, 2, 3)], tokens(seed=4)[0], torch.zeros(1, 1, 1, T)
    bias[..., 2] = float("-inf")
    seen = torch.arange(T) != 2
    used = [level[0] for level in (levels if dca else levels[-1:])]
    if dsa:
        for i, layer in enumerate(part.dsa):
            h, attn = used[i], layer.self_attn
            maps = zip(attn.in_proj_weight.chunk(3), attn.in_proj_bias.chunk(3), strict=True)
            q, k, v = (x @ w.T + b for x, (w, b) in zip((h + pos, h + pos, h), maps, strict=True))
            out = mixed(q, k[seen], v[seen])
            used[i] = norm(layer.norm1, h + out @ attn.out_proj.weight.T + attn.out_proj.bias)
    expected = used[-1]
    if dca:
        keys = torch.cat([(u + mark)[seen] for u, mark in zip(used, part.level_embed, strict=True)])
        expected = crossed(part.dca, used[-1], keys, pos, pos[seen].repeat(3, 1))
    got = part(levels, pos, bias)[0]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_interaction_asks_both_ways() -> None:
    part = randomised(Interaction(C, HEADS, HIDDEN))
    g, c, pos = tokens(seed=1), tokens(seed=2), tokens(seed=3)[0]
    a = crossed(part.ask_cnn, g[0], c[0], pos, pos)
    b = crossed(part.ask_transformer, c[0], g[0], pos, pos)
    expected = norm(part.norm, torch.cat([a, b], dim=1) @ part.merge.weight.T + part.merge.bias)
    torch.testing.assert_close(part(g, c, pos)[0], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_score_reads_the_target_and_the_pooled_region() -> None:
    part, target, f = randomised(ScoreHead(C, pool=True)), tokens(1, 5)[0], tokens(seed=6)
    share = (f[0] @ part.pool.weight.T + part.pool.bias).softmax(dim=0)
    x = torch.cat([target[0], (share * f[0]).sum(dim=0)])
    for i, layer in enumerate(part.layers):
        x = layer.weight @ x + layer.bias
        x = x.relu() if i < 2 else x
    torch.testing.assert_close(part(target, f), x)
    alone = randomised(ScoreHead(C, pool=False))
    assert torch.equal(alone(target, f), alone(target, f * 2))


@torch.no_grad()
def test_new_parts_start_near_the_identity() -> None:
    """On tokens of unit spread, as an encoder's last norm leaves them; the CNN's answer is heard a little."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mdai = LevelAggregation(64, 4, 128, levels=3, dsa=True, dca=True)
        ctif = Interaction(64, 4, 128)
    levels = [torch.randn(1, 30, 64, generator=generator(s)) for s in range(3)]
    levels = [nn.functional.layer_norm(level, (64,)) for level in levels]
    pos = torch.zeros(30, 64)
    for out in (mdai(levels, pos, torch.zeros(1, 1, 1, 30)), ctif(levels[-1], levels[0], pos)):
        change = (out - levels[-1]).abs()
        assert 1e-4 < float(change.mean()) < 0.05


# -- masks --------------------------------------------------------------------------------------------


def some_text(scene: Scene, seed: int) -> Text:
    words = torch.randn(2, 5, scene.model.config.width, generator=generator(seed)) * 3
    return Text(tokens_BLC=words, valid_BL=torch.ones(2, 5, dtype=torch.bool))


@torch.no_grad()
def by_box_beside(scene: Scene, seed: int) -> Prediction:
    """BBOX with somebody's sentence in the batch."""
    memory = replace(scene.memory("bbox"), text=some_text(scene, seed))
    return scene.locate(scene.search, memory)


def text_stays_out(scene: Scene) -> bool:
    return equal(by_box_beside(scene, 1), by_box_beside(scene, 2))


@torch.no_grad()
def template_stays_out(scene: Scene) -> bool:
    """NL with a template in the batch, as in training."""
    seen = []
    for picture, box in ((scene.template, scene.box), (scene.template.flip(3) * 2 - 1, scene.box * 0.7)):
        first = scene.model.embed_template(picture, box)
        flag_B = torch.full((2,), int(Flag.NL))
        found = scene.model.observe(scene.search, scene.model.pair(first, first), scene.text(), flag_B)
        seen.append((found.corners_B4, found.score_B))
    return all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def padding_stays_out(scene: Scene) -> bool:
    before, ids = [scene.see(mode) for mode in ("nlbbox", "nl")], scene.ids
    scene.ids = torch.where(scene.valid, ids, torch.full_like(ids, 2417))
    after = [scene.see(mode) for mode in ("nlbbox", "nl")]
    scene.ids = ids
    return all(equal(a, b) for a, b in zip(before, after, strict=True))


CHECKS = pytest.mark.parametrize("check", [text_stays_out, template_stays_out, padding_stays_out])


@CHECKS
def test_masked_parts_have_no_influence(scene: Scene, check) -> None:
    assert check(scene)


@CHECKS
def test_a_lost_key_mask_is_noticed(scene: Scene, check, monkeypatch) -> None:
    whole = bit_tracker.key_bias
    monkeypatch.setattr(bit_tracker, "key_bias", lambda valid: torch.zeros_like(whole(valid)))
    assert not check(scene)


def test_one_sample_s_mode_is_its_own(scene: Scene) -> None:
    """In a mixed batch the BBOX sample does not hear its sentence; the NLBBOX one does."""
    with torch.no_grad():
        memory = replace(scene.memory("nlbbox"), flag_B=torch.tensor([int(Flag.BBOX), int(Flag.NLBBOX)]))
        first, second = (
            scene.locate(scene.search, replace(memory, text=some_text(scene, seed))) for seed in (1, 2)
        )
    assert torch.equal(first.boxes_BSS4[0], second.boxes_BSS4[0])
    assert not torch.equal(first.boxes_BSS4[1], second.boxes_BSS4[1])
    assert torch.equal(first.presence_BSS[0], second.presence_BSS[0])
    assert not torch.equal(first.presence_BSS[1], second.presence_BSS[1])


# -- without a text side, as published ----------------------------------------------------------------


def test_the_published_tracker_has_no_words() -> None:
    scene = scene_of(DEAF)
    assert not any("bert" in name or "text" in name for name in scene.model.state_dict())
    assert scene.text().valid_BL.shape == (2, 0)
    with pytest.raises(ConfigError, match=r"text='none'.*text='bert'"):
        scene.see("nl")
    assert equal(scene.see("bbox"), scene.see("nlbbox"))  # a sentence beside a box is left aside
    names = MODELS["bit-tracker"].sizes
    assert {size for size in names if config_of(MODELS["bit-tracker"], size).text == "bert"} == {"tiny"}


def test_with_words_the_same_weights_see_the_same_by_box() -> None:
    """``text`` adds parameters and, in BBOX mode, nothing else."""
    plain, hearing = (make(config("bit-tracker narrow base", text=text)) for text in ("none", "bert"))
    missing, unexpected = hearing.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"bert", "text_project", "text_type"}
    scenes = [scene_of("bit-tracker narrow base")] * 2
    seen = []
    for scene, model in zip(scenes, (plain, hearing), strict=True):
        with torch.no_grad():
            memory = model.remember(scene.template, scene.box, scene.search, scene.box)
            seen.append(model.locate(scene.search, memory))
    assert equal(*seen)


# -- memory and batches -------------------------------------------------------------------------------


def test_only_the_dynamic_template_is_replaced(scene: Scene) -> None:
    model, memory = scene.model, scene.memory("nlbbox")
    crop, box = pictures(model.template_size, 2, 80), boxes(2, 81)
    with torch.no_grad():
        before = model.locate(scene.search, memory)
        after = model.refresh(memory, before, scene.box, crop, box)
        fresh = model.embed_template(crop, box)
        assert apart(before, model.locate(scene.search, after)) > 1e-6
    assert after.first is memory.first
    assert after.text is memory.text
    assert torch.equal(after.recent.tokens_BMC, fresh.tokens_BMC)
    assert model.refresh(memory, before, scene.box) is memory


def test_one_template_where_the_dynamic_one_is_off() -> None:
    made = config("bit-tracker narrow base", recent_template=False)
    scene = Scene(made)
    memory = scene.memory("bbox")
    assert len(scene.model.places_TC) == 4 + 16
    seen = scene.see("bbox")
    assert scene.model.refresh(memory, seen, scene.box, scene.template, scene.box) is memory


@pytest.mark.parametrize("name", [*HEARING, DEAF])
def test_a_batch_of_three_is_three_singles(name: str) -> None:
    scene = scene_of(name, batch=3)
    for mode in scene.modes:
        together = scene.see(mode)
        for i in range(3):
            one = slice(i, i + 1)
            parts = scene.template[one], scene.box[one], scene.search[one], scene.box[one]
            with torch.no_grad():
                text = scene.model.read_text(scene.ids[one], scene.valid[one]) if mode != "bbox" else None
                if mode == "nl":
                    alone = scene.model.ground(scene.search[one], text)
                else:
                    alone = scene.model.locate(scene.search[one], scene.model.remember(*parts, text))
            assert apart(together.pick([i]), alone) < 1e-5, mode


def test_targets_with_sentences_of_two_lengths_and_without(scene: Scene) -> None:
    model, memories = scene.model, []
    for number, length in enumerate((0, 9, 5)):
        template, box = pictures(model.template_size, 1, 90 + number), boxes(1, 94 + number)
        text = model.read_text(*sentences(1, length, words=length - 1, seed=number)) if length else None
        memories.append(model.remember(template, box, scene.search[:1], box, text))
    crops = pictures(model.search_size, 3, 103)
    joined = Memory.join([replace(m, text=m.text.padded(9)) for m in memories])
    with torch.no_grad():
        together = model.locate(crops, joined)
        for i, memory in enumerate(memories):
            assert apart(together.pick([i]), model.locate(crops[i : i + 1], memory)) < 1e-5


# -- switches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("off", "gone"),
    [
        ({"dsa": False}, ("mdai.dsa",)),
        ({"dca": False}, ("mdai.dca", "mdai.level_embed")),
        ({"dsa": False, "dca": False}, ("mdai.dsa", "mdai.dca", "mdai.level_embed")),
        ({"ctif": False}, ("ctif",)),
        ({"score": False}, ("score_head",)),
        ({"text": "none"}, ("bert", "text_project", "text_type")),
    ],
    ids=str,
)
def test_a_part_that_is_off_is_gone(off: dict[str, Any], gone: tuple[str, ...]) -> None:
    whole, without = (scene_of("bit-tracker narrow base"), Scene(config("bit-tracker narrow base", **off)))
    names = [set(scene.model.state_dict()) for scene in (whole, without)]
    assert not names[1] - names[0]
    lost = names[0] - names[1]
    assert {start for start in gone if any(n.startswith(start) for n in lost)} == set(gone)
    others = {name for name in lost if not name.startswith(gone)}
    assert all(name.startswith("mdai.dsa.") for name in others)  # without DCA one level is enough
    seen = without.see("bbox")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in outputs(seen))
    if "score" in off:
        assert torch.equal(seen.presence_BSS, torch.ones(2, 1, 1))
        assert rehearsed(without)["score"] is None


@pytest.mark.parametrize("part", ["mdai", "ctif", "decoder"])
def test_each_part_changes_what_is_seen(part: str) -> None:
    name = DEAF if part == "decoder" else "bit-tracker narrow base"
    scene = Scene(config(name))
    before = scene.see("bbox")
    randomised(getattr(scene.model, part), seed=9)
    assert apart(before, scene.see("bbox")) > 1e-4


def test_presence_is_the_score(scene: Scene) -> None:
    with torch.no_grad():
        memory = scene.memory("bbox")
        both = scene.model.pair(memory.first, memory.recent)
        found = scene.model.observe(scene.search, both, memory.text, memory.flag_B)
    seen = scene.see("bbox")
    assert torch.equal(seen.presence_BSS[:, 0, 0], found.score_B.sigmoid())
    assert torch.equal(seen.centre_BSS, torch.ones(2, 1, 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"taps": ()}, "taps"),
        ({"taps": (4, 5)}, "taps"),
        ({"taps": (5, 4, 6)}, "taps"),
        ({"taps": (0, 6)}, "taps"),
        ({"dropout": 1.0}, "dropout"),
        ({"text_heads": 7}, "text_width"),
        ({"heads": 7}, "heads"),
        ({"match": True}, "match"),
    ],
    ids=str,
)
def test_configurations_are_checked_on_construction(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(base(), **change)
    with pytest.raises(ValueError, match="word_match"):
        replace(tiny(), text="none")


# -- training -----------------------------------------------------------------------------------------


def rehearsed(scene: Scene) -> dict[str, Any]:
    objective = PairObjective(scene.model, LossWeights())
    outs: dict[str, Any] = scene.model.rehearse(objective._views(random_batch(scene.model.config)))
    return outs


@pytest.mark.parametrize("name", [*HEARING, DEAF, "bit-tracker narrow base-r50"])
def test_every_parameter_gets_a_gradient(name: str) -> None:
    made = config(name)
    model = make(made).train()
    with torch.no_grad():  # biases start at zero, which hides what lies before them
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(len(parameter))))
    terms = PairObjective(model, LossWeights())(random_batch(made), True)
    assert all(bool(torch.isfinite(value)) for value in terms.values())
    terms["total"].backward()
    dead = {n for n, p in model.named_parameters() if p.grad is None or not float(p.grad.abs().max()) > 0}
    assert {n for n in dead if not NEUTRAL.fullmatch(n)} == set()
    assert {"giou", "l1", "score"} <= terms.keys()
    assert ("word_contrast" in terms) == (name == "bit-tracker tiny")


def test_outputs_of_the_training_pass(scene: Scene) -> None:
    outs = rehearsed(scene)
    assert outs["boxes"].shape == (6, 1, 1, 4)
    assert outs["score"].shape == (6,)
    by_box = rehearsed(scene_of(DEAF))
    assert by_box["heard"] is None


def test_second_stage_trains_the_score_alone() -> None:
    """Everything else is frozen; the statistics of the corner head's batch norms too."""
    made = config("bit-tracker narrow base-r50", dropout=0.0)
    model = make(made).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("score_head."))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    terms = PairObjective(model, LossWeights(giou=0.0, l1=0.0))(random_batch(made), True)
    terms["total"].backward()
    torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2).step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert {name.split(".")[0] for name in moved} == {"score_head"}
    model.requires_grad_(True)
    PairObjective(model, LossWeights())(random_batch(made), True)
    assert not torch.equal(before["head.tl.conv1.1.running_mean"], model.head.tl.conv1[1].running_mean)


def test_frozen_from_the_start() -> None:
    """As STARK: the CNN's first convolution and stage; its batch norms have nothing to train."""
    for name, parts in (
        ("bit-tracker narrow base", ("stem.body.conv1.", "stem.body.layer1.")),
        ("bit-tracker tiny", ("stem.trunk.convs.", "bert.embeddings.word_embeddings.")),
    ):
        model = make(config(name))
        frozen, order = model.freeze_plan()
        assert bool(order) == name.endswith("tiny")
        freeze(frozen)
        still = {n for n, p in model.named_parameters() if not p.requires_grad}
        assert still
        assert all(n.startswith(parts) for n in still)
        assert any(n.startswith("stem.") for n, p in model.named_parameters() if p.requires_grad)


# -- sizes --------------------------------------------------------------------------------------------


def test_counts_against_the_published_ones() -> None:
    """STARK-ST101 47.2 M; base: less the decoder (9.5 M), plus MDAI, CTIF and a wider score.

    STARK's own table is quoted with 42.4 M and 23.5 M, which leaves out the matrices of attention.
    """
    counts = {
        size: count_parameters(without_memory(MODELS["bit-tracker"], size)).total
        for size in MODELS["bit-tracker"].sizes
    }
    assert counts["stark-base"] == pytest.approx(47.2e6, rel=0.001)
    attention = 18 * 4 * (256 * 256 + 256)
    assert counts["stark-base"] - attention == pytest.approx(42.4e6, rel=0.002)
    assert counts["stark-r50"] - attention == pytest.approx(23.5e6, rel=0.002)
    with torch.device("meta"):
        parent, ours = BITTracker(stark_base()), BITTracker(base())
    parts = {
        name: sum(p.numel() for p in getattr(model, name).parameters())
        for model, name in ((parent, "decoder"), (ours, "mdai"), (ours, "ctif"))
    }
    wider = sum(p.numel() for p in ours.score_head.parameters()) - sum(
        p.numel() for p in parent.score_head.parameters()
    )
    assert parts["mdai"] + parts["ctif"] == pytest.approx(4.8e6, rel=0.02)
    assert counts["base"] == counts["stark-base"] - parts["decoder"] + parts["mdai"] + parts["ctif"] + wider
    assert counts["base"] == pytest.approx(42.6e6, rel=0.001)
