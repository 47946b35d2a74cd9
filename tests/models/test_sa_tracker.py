"""SATracker: its equations by hand, gates that start closed, masks, and that each part is a switch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_cases import (
    CONFIGS,
    Scene,
    apart,
    attention_by_hand,
    equal,
    generator,
    make,
    norm_by_hand,
    random_batch,
    small,
    views_of,
)
from vltrack.core.types import Mode
from vltrack.models import MODELS, build, sa_tracker
from vltrack.models.base import Prediction, Text
from vltrack.models.sa_tracker import AttentionMasks, SATracker, SATrackerConfig
from vltrack.training.losses import PairObjective
from vltrack.training.recipes import LossWeights

NAMES = [name for name in CONFIGS if name.startswith("sa-tracker ")]
OFF = {"tem": False, "sam": False, "dense": False}


@pytest.fixture(scope="module", params=NAMES, ids=lambda name: name.replace(" ", "-"))
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(small(CONFIGS[request.param]()))


def fresh(config: SATrackerConfig) -> SATracker:
    """As training starts: gates closed."""
    torch.manual_seed(0)
    model: SATracker = build(MODELS["sa-tracker"], config).eval()
    return model


# -- the equations by hand ----------------------------------------------------------------------------


def attended(module: Any, x: Tensor, y: Tensor, open_keys: Tensor | None = None) -> Tensor:
    """Multi-head attention of one sample, (N, C) to (M, C), head by head."""
    q = x @ module.q.weight.T + module.q.bias
    k, v = (y @ module.kv.weight.T + module.kv.bias).chunk(2, dim=1)
    if open_keys is not None:
        k, v = k[open_keys], v[open_keys]
    return attention_by_hand(q, k, v, module.heads) @ module.proj.weight.T + module.proj.bias


def streams(model: SATracker, seed: int = 5) -> tuple[Tensor, Tensor, int]:
    """Vision (1, M + N, C) and words (1, 6, C) as in the middle of the backbone, and M."""
    m, n, c = model.template_count * model.template_side**2, model.search_side**2, model.width
    random = generator(seed)
    return torch.randn(1, m + n, c, generator=random), torch.randn(1, 6, c, generator=random), m


def masks(vision: int, template: int, words: int, mode: Mode, used: int = 4) -> AttentionMasks:
    """Of one sample with ``used`` word pieces, and the target in half of the template."""
    text_valid = (torch.arange(words) < used)[None] & torch.tensor(mode is not Mode.BBOX)
    has_box = torch.tensor([mode is not Mode.NL])
    open_vision = (torch.arange(vision) >= template)[None] | has_box

    def bias(valid: Tensor) -> Tensor:
        return torch.zeros(valid.shape).masked_fill(~valid, float("-inf"))[:, None, None]

    return AttentionMasks(
        has_text_B=text_valid.any(dim=1),
        has_box_B=has_box,
        inside_BM=torch.linspace(0, 1, template)[None] * has_box,
        text_valid_BL=text_valid,
        vision_bias=bias(open_vision),
        target_bias=bias(torch.cat([has_box.expand(1, template), text_valid], dim=1)),
        open_text_bias=bias(text_valid | torch.tensor(mode is Mode.BBOX)),
    )


@pytest.fixture(scope="module")
def model() -> SATracker:
    trained: SATracker = make(small(CONFIGS["sa-tracker narrow base"]()))
    return trained


@torch.no_grad()
def test_semantic_aware_module_updates_both_sides_at_once(model: SATracker) -> None:
    module = model.sam["7"]
    vision, words, m = streams(model)
    who = masks(vision.shape[1], m, 6, Mode.NLBBOX)
    v, t, heard = vision[0], words[0], torch.arange(6) < 4
    to_v, to_t = module.to_vision, module.to_words
    new_v = v + to_v.gate * attended(to_v.attn, norm_by_hand(to_v.norm1, v), norm_by_hand(to_v.norm_y, t), heard)
    new_t = t + to_t.gate * attended(to_t.attn, norm_by_hand(to_t.norm1, t), norm_by_hand(to_t.norm_y, v))
    got_v, got_t = module(vision, words, who)
    torch.testing.assert_close(got_v[0], new_v, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got_t[0], new_t, rtol=1e-4, atol=1e-5)
    # With text attending to the updated vision the numbers would be others.
    late_t = t + to_t.gate * attended(to_t.attn, norm_by_hand(to_t.norm1, t), norm_by_hand(to_t.norm_y, new_v))
    assert float((late_t - new_t).abs().max()) > 1e-3


@pytest.mark.parametrize("mode", list(Mode))
@torch.no_grad()
def test_target_enhance_module(model: SATracker, mode: Mode) -> None:
    module, scale = model.tem["3"], torch.tensor(5.0)
    vision, words, m = streams(model)
    who = masks(vision.shape[1], m, 6, mode)
    z, x, t = vision[0, :m], vision[0, m:], words[0]
    share = torch.linspace(0, 1, m)[:, None] if mode != Mode.NL else torch.zeros(m, 1)
    q = torch.stack([(z * share).sum(dim=0) / share.sum().clamp_min(1e-6), t[0]])
    keys = torch.cat([z, t])
    open_keys = torch.cat([torch.full((m,), mode != Mode.NL), (torch.arange(6) < 4) & torch.tensor(mode != Mode.BBOX)])
    gather = module.gather
    q = q + attended(gather.attn, norm_by_hand(gather.norm1, q), norm_by_hand(gather.norm_y, keys), open_keys)
    q = norm_by_hand(module.norm_q, q)[{Mode.BBOX: slice(0, 1), Mode.NL: slice(1, 2), Mode.NLBBOX: slice(0, 2)}[mode]]
    normed = norm_by_hand(module.norm, vision[0])
    a = nn.functional.normalize(normed[m:] @ module.match_x.weight.T, dim=1)
    b = nn.functional.normalize(q @ module.match_q.weight.T, dim=1)
    similar = scale * a @ b.T
    found = module.gamma * attended(module.spread, normed, q)
    expected = torch.cat([z + found[:m], x + similar.amax(dim=1).sigmoid()[:, None] * found[m:]])
    got, logits = module(vision, words, who, scale)
    torch.testing.assert_close(got[0], expected, rtol=1e-4, atol=1e-5)
    known = [mode != Mode.NL, mode != Mode.BBOX]
    torch.testing.assert_close(logits[0][:, known], similar, rtol=1e-4, atol=1e-4)


# -- switches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_at_the_start_both_modules_are_the_identity(name: str) -> None:
    """Bit by bit the network without them, until a gate opens."""
    config = small(CONFIGS[name]())
    with_them, without = fresh(config), fresh(replace(config, tem=False, sam=False))
    weights = with_them.state_dict()
    without.load_state_dict({key: weights[key] for key in without.state_dict()})
    scenes = [Scene(config), Scene(config)]
    for scene, model in zip(scenes, (with_them, without), strict=True):
        scene.model = model
    for mode in ("bbox", "nl", "nlbbox"):
        assert equal(scenes[0].predict(mode), scenes[1].predict(mode))
    for part in (*with_them.tem.values(), *(sam.to_vision for sam in with_them.sam.values())):
        gate = part.gamma if isinstance(part, sa_tracker.TargetEnhance) else part.gate
        with torch.no_grad():
            gate.fill_(0.3)
        assert apart(scenes[0].predict("nlbbox"), scenes[1].predict("nlbbox")) > 1e-6
        with torch.no_grad():
            gate.zero_()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("off", [{"tem": False}, {"sam": False}, {"dense": False}, OFF], ids=str)
def test_each_idea_can_be_switched_off(name: str, off: dict[str, bool]) -> None:
    config = replace(small(CONFIGS[name]()), **off)
    model = make(config)
    parts = {key.split(".")[0] for key, _ in model.named_parameters()}
    assert ("tem" in parts, "sam" in parts) == (config.tem, config.sam)
    outs = PairObjective(model.train(), LossWeights())(random_batch(config), True)
    assert ("dense_match" in outs) == bool(config.dense and config.levels)
    assert all(bool(torch.isfinite(value)) for value in outs.values())


def test_text_is_encoded_as_far_as_it_is_used() -> None:
    config = CONFIGS["sa-tracker narrow base"]()
    reached = {(True, True): (4, 12), (True, False): (4, 6), (False, True): (8, 12), (False, False): (0, 0)}
    for (tem, sam), expected in reached.items():
        with torch.device("meta"):
            model = SATracker(replace(config, tem=tem, sam=sam))
        assert (model.text_alone, model.text_layers) == expected
        assert len(model.bert.layers) == model.text_layers


def test_text_encoded_once_continues_as_the_whole_bert(scene: Scene) -> None:
    """Encoding stops after the first level; the layers above, run by hand, are those of the whole BERT."""
    model, valid = scene.model, scene.valid
    text = model.read_text(scene.ids, valid)
    bias = torch.zeros(valid.shape).masked_fill(~valid, float("-inf"))[:, None, None]
    with torch.no_grad():
        x = text.tokens_BLC
        for layer in list(model.bert.layers)[model.text_alone :]:
            x = layer(x, bias)
        torch.testing.assert_close(x, model.bert(scene.ids, bias))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tem_after": (12,)}, "tem_after.*0 to 11"),
        ({"tem_after": (5, 3)}, "tem_after.*in order"),
        ({"sam_after": ()}, "sam_after"),
        ({"sam_after": (7, 7)}, "sam_after"),
        ({"tem_after": (-1, 3)}, "tem_after"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"match_width": 0}, "match_width"),
        ({"head_channels": ()}, "head_channels"),
        ({"width": 100}, "width"),
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(sa_tracker.base(), **change)


# -- masks --------------------------------------------------------------------------------------------


@torch.no_grad()
def box_only_with(scene: Scene, tokens: Tensor) -> Prediction:
    """Box-only targets with a sentence of these tokens in the batch."""
    text = Text(tokens_BLC=tokens, valid_BL=torch.ones(2, 5, dtype=torch.bool))
    seen: Prediction = scene.model.locate(scene.search, replace(scene.memory("bbox"), text=text))
    return seen


def test_not_even_a_nan_passes_the_mask(scene: Scene) -> None:
    plain = torch.randn(2, 5, scene.model.width, generator=generator(1))
    assert equal(box_only_with(scene, plain), box_only_with(scene, plain * float("nan")))


@pytest.mark.parametrize(
    "broken", [{"target_bias": 0.0}, {"has_text_B": True}], ids=["the queries' mask", "the result's mask"]
)
def test_each_further_mask_is_needed(scene: Scene, broken: dict[str, Any], monkeypatch) -> None:
    """With masked text let into the backbone, each of the other two masks has to hide it, and does."""
    whole = AttentionMasks.of.__func__
    texts = [torch.randn(2, 5, scene.model.width, generator=generator(seed)) for seed in (1, 2)]

    def weak(cls: type, *args: Any) -> AttentionMasks:
        masks = whole(cls, *args)
        fills = {name: torch.full_like(getattr(masks, name), value) for name, value in broken.items()}
        return replace(masks, text_valid_BL=torch.ones_like(masks.text_valid_BL), **fills)

    assert equal(*(box_only_with(scene, text) for text in texts))
    monkeypatch.setattr(AttentionMasks, "of", classmethod(weak))
    assert not equal(*(box_only_with(scene, text) for text in texts))


# -- training -----------------------------------------------------------------------------------------


def test_closed_gates_learn_first_and_open_the_rest() -> None:
    model = fresh(small(CONFIGS["sa-tracker tiny"]())).train()
    batch = random_batch(model.config)

    def grads() -> dict[str, Tensor]:
        model.zero_grad()
        PairObjective(model, LossWeights(dense_match=0.0))(batch, True)["total"].backward()
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    gates = {n for n, p in model.named_parameters() if p.ndim == 0 and n.endswith(("gamma", "gate"))}
    first = grads()
    assert all(float(first[name].abs()) > 0 for name in gates if "to_words" not in name)
    assert float(first["tem.1.spread.q.weight"].abs().max()) == 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in gates:
                parameter -= 0.1 * first[name].sign() + 0.01
    second = grads()
    inside = [n for n in second if n.startswith(("tem.", "sam.")) and not n.endswith("kv.bias")]
    assert all(float(second[name].abs().max()) > 0 for name in inside)


def test_dense_similarities_of_a_missing_modality_are_the_others(scene: Scene) -> None:
    """Two per level: to the visual and to the textual target. A sample with only one of them has it twice."""
    config, model = scene.model.config, make(scene.model.config).train()
    views = views_of(model)
    outs = model.forward(views)
    visual, textual = outs.matches[0::2], outs.matches[1::2]
    assert len(visual) == len(textual) == len(config.levels)
    for one, other in zip(visual, textual, strict=True):
        assert one.shape == (6, model.search_side**2)
        assert (one == other).all(dim=1).tolist() == [True] * 4 + [False] * 2  # bbox, nl, nlbbox
    assert outs.boxes_BSS4.shape == (6, model.search_side, model.search_side, 4)
    assert model.eval().forward(views).matches is None


def test_sizes_of_base_and_tiny() -> None:
    """Base: ViT-B/16 and BERT-base without pooler, and 22.1 M for both modules (none is published)."""
    counts = {}
    for config in (sa_tracker.base(), sa_tracker.tiny()):
        with torch.device("meta"):
            model = SATracker(config)
        parts = dict.fromkeys((name.split(".")[0] for name, _ in model.named_parameters()), 0)
        for name, parameter in model.named_parameters():
            parts[name.split(".")[0]] += parameter.numel()
        counts[config.layers] = parts
    assert counts[12]["stem"] + counts[12]["blocks"] == 85_645_056
    assert counts[12]["bert"] == 108_891_648
    assert counts[12]["tem"] + counts[12]["sam"] == pytest.approx(22.1e6, rel=0.01)
    assert sum(counts[12].values()) == pytest.approx(223.1e6, rel=0.001)
    assert sum(counts[4].values()) * 2 < 12e6


def test_tiny_has_litetrack_tinys_names_and_shapes() -> None:
    """First weights come from there: every name of these parts that LiteTrack has is ours, alike in shape."""
    with torch.device("meta"):
        ours = SATracker(sa_tracker.tiny()).state_dict()
        theirs = build(MODELS["litetrack"], CONFIGS["litetrack tiny"]()).state_dict()
    parts = ("stem.", "matcher.", "inside_embed", "word_matcher.", "bert.", "blocks.", "detail.")
    lent = {name: tensor.shape for name, tensor in theirs.items() if name.startswith(parts)}
    kept = {name for name in lent if ".attn.gate." not in name}
    assert len(kept) > 150
    assert all(ours[name].shape == lent[name] for name in kept)
