"""BIT-Tracker: its equations by hand, the dynamic template, that each part is a switch, the corner head."""

from __future__ import annotations

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
    attention_by_hand,
    boxed,
    equal,
    generator,
    make,
    norm_by_hand,
    outputs,
    random_batch,
    views_of,
)
from vltrack.core.errors import ConfigError
from vltrack.models import MODELS, config_of
from vltrack.models.bit_tracker import (
    BITTracker,
    BITTrackerConfig,
    CornerHead,
    Interaction,
    LevelAggregation,
    ScoreHead,
    base,
    soft_argmax,
    stark_base,
    tiny,
)
from vltrack.models.profile import count_parameters, without_memory
from vltrack.nn.boxes import corners_to_box
from vltrack.training.checkpoint import freeze
from vltrack.training.losses import PairObjective
from vltrack.training.recipes import LossWeights

WITH_TEXT, BOX_ONLY = ("bit-tracker tiny", "bit-tracker narrow base"), "bit-tracker narrow stark-base"
C, HEADS, HIDDEN, T = 16, 2, 24, 7


def config(name: str, **changes: Any) -> BITTrackerConfig:
    made: BITTrackerConfig = replace(CONFIGS[name](), **changes)
    return replace(made, template_size=64, search_size=128) if name.endswith("tiny") else made


@lru_cache
def scene_of(name: str, batch: int = 2) -> Scene:
    return Scene(config(name), batch=batch)


@pytest.fixture(params=WITH_TEXT, ids=lambda name: name.replace(" ", "-"))
def scene(request: pytest.FixtureRequest) -> Scene:
    return scene_of(request.param)


# -- the equations by hand ----------------------------------------------------------------------------


def randomized(module: Any, seed: int = 0) -> Any:
    random = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.4)
    return module.eval()


def tokens(count: int = T, seed: int = 1) -> Tensor:
    return torch.randn(1, count, C, generator=generator(seed))


def crossed(block: Any, x: Tensor, y: Tensor, x_pos: Tensor, y_pos: Tensor) -> Tensor:
    """LN(x + CA(x; y)), then LN(x + MLP(x))."""
    attn, mlp = block.attn, block.mlp
    weight_k, weight_v = attn.kv.weight.chunk(2)
    bias_k, bias_v = attn.kv.bias.chunk(2)
    q = (x + x_pos) @ attn.q.weight.T + attn.q.bias
    out = attention_by_hand(q, (y + y_pos) @ weight_k.T + bias_k, y @ weight_v.T + bias_v, HEADS)
    x = norm_by_hand(block.norm1, x + out @ attn.proj.weight.T + attn.proj.bias)
    inner = nn.functional.gelu(x @ mlp.fc1.weight.T + mlp.fc1.bias)
    return norm_by_hand(block.norm2, x + inner @ mlp.fc2.weight.T + mlp.fc2.bias)


@pytest.mark.parametrize("dca", [True, False])
@pytest.mark.parametrize("dsa", [True, False])
@torch.no_grad()
def test_aggregation_of_levels(dsa: bool, dca: bool) -> None:
    part = randomized(LevelAggregation(C, HEADS, HIDDEN, levels=3, dsa=dsa, dca=dca))
    levels, pos, bias = [tokens(seed=s) for s in (1, 2, 3)], tokens(seed=4)[0], torch.zeros(1, 1, 1, T)
    bias[..., 2] = float("-inf")
    seen = torch.arange(T) != 2
    used = [level[0] for level in (levels if dca else levels[-1:])]
    if dsa:
        for i, layer in enumerate(part.dsa):
            h, attn = used[i], layer.self_attn
            maps = zip(attn.in_proj_weight.chunk(3), attn.in_proj_bias.chunk(3), strict=True)
            q, k, v = (x @ w.T + b for x, (w, b) in zip((h + pos, h + pos, h), maps, strict=True))
            out = attention_by_hand(q, k[seen], v[seen], HEADS)
            used[i] = norm_by_hand(layer.norm1, h + out @ attn.out_proj.weight.T + attn.out_proj.bias)
    expected = used[-1]
    if dca:
        keys = torch.cat([(u + mark)[seen] for u, mark in zip(used, part.level_embed, strict=True)])
        expected = crossed(part.dca, used[-1], keys, pos, pos[seen].repeat(3, 1))
    got = part(levels, pos, bias)[0]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_interaction_attends_both_ways() -> None:
    part = randomized(Interaction(C, HEADS, HIDDEN))
    g, c, pos = tokens(seed=1), tokens(seed=2), tokens(seed=3)[0]
    a = crossed(part.ask_cnn, g[0], c[0], pos, pos)
    b = crossed(part.ask_transformer, c[0], g[0], pos, pos)
    expected = norm_by_hand(part.norm, torch.cat([a, b], dim=1) @ part.merge.weight.T + part.merge.bias)
    torch.testing.assert_close(part(g, c, pos)[0], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_score_of_the_target_and_the_pooled_region() -> None:
    part, target, f = randomized(ScoreHead(C, pool=True)), tokens(1, 5)[0], tokens(seed=6)
    share = (f[0] @ part.pool.weight.T + part.pool.bias).softmax(dim=0)
    x = torch.cat([target[0], (share * f[0]).sum(dim=0)])
    for i, layer in enumerate(part.layers):
        x = layer.weight @ x + layer.bias
        x = x.relu() if i < 2 else x
    torch.testing.assert_close(part(target, f), x)
    alone = randomized(ScoreHead(C, pool=False))
    assert torch.equal(alone(target, f), alone(target, f * 2))


@torch.no_grad()
def test_new_parts_start_near_the_identity() -> None:
    """On tokens of unit spread, as an encoder's last norm leaves them; the CNN's part is small."""
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


# -- without a text side, as published ----------------------------------------------------------------


def test_the_published_tracker_has_no_text_side() -> None:
    scene = scene_of(BOX_ONLY)
    assert not any("bert" in name or "text" in name for name in scene.model.state_dict())
    assert scene.text().valid_BL.shape == (2, 0)
    with pytest.raises(ConfigError, match="text='none'"):
        scene.predict("nl")
    assert equal(scene.predict("bbox"), scene.predict("nlbbox"))  # a sentence with a box is ignored
    names = MODELS["bit-tracker"].sizes
    assert {size for size in names if config_of(MODELS["bit-tracker"], size).text == "bert"} == {"tiny"}


def test_with_a_text_side_the_same_weights_predict_the_same_from_a_box() -> None:
    """``text`` adds parameters and, in BBOX mode, nothing else."""
    plain, with_text = (make(config("bit-tracker narrow base", text=text)) for text in ("none", "bert"))
    missing, unexpected = with_text.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"bert", "text_project", "text_type"}
    scenes = [scene_of("bit-tracker narrow base")] * 2
    seen = []
    for scene, model in zip(scenes, (plain, with_text), strict=True):
        with torch.no_grad():
            crops = boxed(scene.template, scene.box), boxed(scene.search, scene.box)
            memory = model.init_template(*crops)
            seen.append(model.locate(scene.search, memory))
    assert equal(*seen)


# -- memory -------------------------------------------------------------------------------


def test_one_template_where_the_dynamic_one_is_off() -> None:
    made = config("bit-tracker narrow base", recent_template=False)
    scene = Scene(made)
    memory = scene.memory("bbox")
    assert len(scene.model.pos_TC) == 4 + 16
    seen = scene.predict("bbox")
    assert scene.model.update_template(memory, seen, scene.box, boxed(scene.template, scene.box)) is memory


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
    seen = without.predict("bbox")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in outputs(seen))
    if "score" in off:
        assert torch.equal(seen.presence_BSS, torch.ones(2, 1, 1))
        assert without.model.forward(views_of(without.model)).score_B is None


@pytest.mark.parametrize("part", ["mdai", "ctif", "decoder"])
def test_each_part_changes_the_prediction(part: str) -> None:
    name = BOX_ONLY if part == "decoder" else "bit-tracker narrow base"
    scene = Scene(config(name))
    before = scene.predict("bbox")
    randomized(getattr(scene.model, part), seed=9)
    assert apart(before, scene.predict("bbox")) > 1e-4


def test_presence_is_the_score(scene: Scene) -> None:
    with torch.no_grad():
        memory = scene.memory("bbox")
        both = scene.model.joint_template(memory.first, memory.recent)
        found = scene.model.forward_corners(scene.search, both, memory.text, memory.flag_B)
    seen = scene.predict("bbox")
    assert torch.equal(seen.presence_BSS[:, 0, 0], found.score_B.sigmoid())
    assert torch.equal(seen.center_BSS, torch.ones(2, 1, 1))


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


def test_outputs_of_the_training_pass(scene: Scene) -> None:
    outs = scene.model.forward(views_of(scene.model))
    assert outs.boxes_BSS4.shape == (6, 1, 1, 4)
    assert outs.score_B.shape == (6,)
    parent = scene_of(BOX_ONLY).model
    assert parent.forward(views_of(parent)).text_similarity_BN is None


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


# -- the corner head ----------------------------------------------------------------------------------

SIDE = 20


def test_soft_argmax_of_peaks_and_of_nothing() -> None:
    logits = torch.zeros(3, SIDE, SIDE)
    logits[0, 3, 17] = 60.0  # row 3, column 17
    logits[1, 5, 5] = logits[1, 5, 8] = 60.0
    place = soft_argmax(logits)
    torch.testing.assert_close(place[0], torch.tensor([17 / SIDE, 3 / SIDE]))
    torch.testing.assert_close(place[1], torch.tensor([6.5 / SIDE, 5 / SIDE]))
    torch.testing.assert_close(place[2], torch.full((2,), (SIDE - 1) / 2 / SIDE))  # not one half
    assert torch.allclose(soft_argmax(logits + 100.0), place)


def test_soft_argmax_is_the_released_sum_over_pixels() -> None:
    """Cells stand for pixels i * 16 of a crop of S * 16; each coordinate is a weighted sum over all cells."""
    logits = torch.randn(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    share = logits.flatten(1).softmax(dim=1)
    pixels = torch.arange(SIDE * SIDE)
    x, y = (pixels % SIDE * 16).float(), (pixels // SIDE * 16).float()
    expected = torch.stack([(share * x).sum(dim=1), (share * y).sum(dim=1)], dim=1) / (SIDE * 16)
    torch.testing.assert_close(soft_argmax(logits), expected, rtol=1e-6, atol=1e-6)


def test_each_tower_has_its_corner_and_gradients_reach_both() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = CornerHead(8, (8, 4))
    maps = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(1))
    head.eval()
    before = head(maps)
    assert before.shape == (2, 4)
    with torch.no_grad():
        head.br.conv3.weight.neg_()
    after = head(maps)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.equal(before[:, 2:], after[:, 2:])
    head.train()
    corners_to_box(head(maps)).square().sum().backward()
    # a shift of all logits moves nothing, so the last biases and what batch norm takes away have no gradient
    still = {n for n, p in head.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 1e-7)}
    assert still == {
        f"{side}.{name}" for side in ("tl", "br") for name in ("conv1.0.bias", "conv2.0.bias", "conv3.bias")
    }


def test_names_are_the_released_ones_but_for_the_suffix() -> None:
    with torch.device("meta"):
        state = CornerHead(256, (256, 128, 64, 32)).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if name.startswith("tl.")}
    assert shapes["tl.conv1.0.weight"] == (256, 256, 3, 3)
    assert shapes["tl.conv4.1.running_var"] == (32,)
    assert shapes["tl.conv5.weight"] == (1, 32, 1, 1)
    assert len(shapes) == 4 * 7 + 2
