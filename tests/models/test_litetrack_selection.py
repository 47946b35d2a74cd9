"""Token selection: which tokens stay, what is restored, what the threshold learns; real dropping."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_cases import Scene, apart, equal, make, narrow_base, pictures, random_batch, small
from vltrack.models.base import Prediction
from vltrack.models.litetrack import Features, LiteTrack, tiny
from vltrack.models.selection import KeptTokens, Selection, TokenSelector
from vltrack.nn.attention import gather_tokens
from vltrack.training.losses import PairObjective
from vltrack.training.recipes import LossWeights

WIDTH = 16


def selector(bucket: int = 32, threshold: float = 0.8, budget: int = 0) -> TokenSelector:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TokenSelector(WIDTH, threshold, bucket, budget)


def tokens(side: int, kinds: int, seed: int, batch: int = 2) -> Tensor:
    """(B, side * side, C): each token is one of ``kinds`` directions with a little noise."""
    random = torch.Generator().manual_seed(seed)
    directions = torch.randn(kinds, WIDTH, generator=random)
    choice = torch.randint(kinds, (batch, side * side), generator=random)
    return directions[choice] + 0.01 * torch.randn(batch, side * side, WIDTH, generator=random)


def kept_tokens(before: Tensor, selection: Selection) -> KeptTokens:
    return KeptTokens.of(before, selection, soft=False)


def kept_by_the_definition(x_NC: Tensor, threshold: float) -> list[bool]:
    """r_i is the largest cosine to an earlier token; kept if below the threshold."""
    unit = [row / row.norm() for row in x_NC]
    redundancy = [max((float(unit[i] @ unit[j]) for j in range(i)), default=-1.0) for i in range(len(unit))]
    return [r < threshold for r in redundancy]


def test_keeps_what_the_definition_keeps() -> None:
    net, x = selector(bucket=1), tokens(6, 9, 0)
    with torch.no_grad():
        selection = net(x)
        threshold = torch.tanh(net.theta) + net.offset(x.mean(dim=1))
    center = 3 * 6 + 3
    for sample in range(2):
        wanted = kept_by_the_definition(x[sample], float(threshold[sample]))
        kept = selection.keep_BN[sample].tolist()
        # The center takes the place of the most redundant token where it is not wanted itself.
        assert sum(kept) == sum(wanted)
        if wanted[center]:
            assert kept == wanted
        else:
            assert kept[center]
            assert sum(k and not w for k, w in zip(kept, wanted, strict=True)) == 1


@settings(max_examples=40, deadline=None)
@given(
    side=st.integers(2, 9),
    kinds=st.integers(1, 40),
    bucket=st.sampled_from([1, 8, 32]),
    threshold=st.floats(-0.95, 0.99),
    seed=st.integers(0, 10_000),
)
def test_whatever_the_picture(side: int, kinds: int, bucket: int, threshold: float, seed: int) -> None:
    x = tokens(side, kinds, seed, batch=3)
    n = side * side
    with torch.no_grad():
        selection = selector(bucket, threshold)(x)
    counts = selection.keep_BN.sum(dim=1)
    assert all(int(c) == n or int(c) % bucket == 0 for c in counts)
    assert int(counts.min()) >= 1
    assert selection.order_BR.shape[1] == int(counts.max())
    assert bool(selection.keep_BN[:, (side // 2) * side + side // 2].all()), "the center stays"
    # In map order, each token once.
    assert bool((selection.order_BR.diff(dim=1) > 0).all())
    assert torch.equal(selection.keep_BN.gather(1, selection.order_BR).sum(dim=1), counts)
    # Every token's source is kept; a kept token's is itself; a dropped one's is the most similar.
    assert bool(selection.keep_BN.gather(1, selection.source_BN).all())
    unit = torch.nn.functional.normalize(x, dim=-1)
    similar = (unit @ unit.transpose(1, 2)).masked_fill(~selection.keep_BN[:, None, :], -2.0)
    chosen = similar.gather(2, selection.source_BN[..., None])[..., 0]
    assert bool((chosen >= similar.amax(dim=2) - 1e-5)[~selection.keep_BN].all())
    own = torch.arange(n).expand(3, -1)
    assert torch.equal(selection.source_BN[selection.keep_BN], own[selection.keep_BN])


def test_a_sample_is_chosen_alone() -> None:
    """Neither the batch nor an earlier call changes a choice (the released code caches its first mask)."""
    net, x = selector(), tokens(14, 40, 3, batch=4)
    with torch.no_grad():
        together = net(x).keep_BN
        for sample in (3, 0, 2, 1):
            assert torch.equal(net(x[sample : sample + 1]).keep_BN[0], together[sample])


def test_a_lower_threshold_keeps_fewer() -> None:
    x = torch.randn(1, 256, WIDTH, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        counts = [int(selector(1, t)(x).keep_BN.sum()) for t in (0.95, 0.7, 0.5, 0.3)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0]


@pytest.mark.parametrize("threshold", [-0.9, 0.99])
def test_a_budget_keeps_the_middle_and_the_least_redundant_whatever_the_threshold(threshold: float) -> None:
    """The target of the first sample is in the middle of its region, that of the second one anywhere."""
    x, center = tokens(6, 9, 0), 3 * 6 + 3
    with torch.no_grad():
        chosen = selector(threshold=threshold, budget=18)(x, torch.tensor([False, True]))
    assert chosen.order_BR.shape == (2, 18)
    for sample in range(2):
        unit = torch.nn.functional.normalize(x[sample], dim=-1)
        redundancy = [-1.0, *(float((unit[:i] @ unit[i]).max()) for i in range(1, 36))]
        redundancy[center] = -2.0
        for i in range(36 if sample == 0 else 0):
            away = math.hypot(i // 6 - 2.5, i % 6 - 2.5)
            if away < 0.3 * 6:
                redundancy[i] = away / 6 + 1e-5 * i - 4
        expected = sorted(sorted(range(36), key=redundancy.__getitem__)[:18])
        assert chosen.order_BR[sample].tolist() == expected
        assert chosen.keep_BN[sample].nonzero()[:, 0].tolist() == expected
        assert bool(chosen.keep_BN[sample][chosen.source_BN[sample]].all())


def test_threshold_and_its_offset_learn() -> None:
    net, x = selector(), tokens(8, 20, 5)
    net(x).gate_BN.mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_soft_gate_is_one_half_at_the_threshold() -> None:
    net, x = selector(), tokens(8, 20, 6)
    with torch.no_grad():
        selection = net(x)
    side = (selection.gate_BN > 0.5).sum(dim=1)
    assert bool((selection.keep_BN.sum(dim=1) >= side).all())


def test_restore_fills_every_place() -> None:
    """A kept token is what the trunk made of it; a dropped one moves as its source moved."""
    net, before = selector(bucket=8), tokens(8, 12, 7)
    with torch.no_grad():
        selection = net(before)
        assert not bool(selection.keep_BN.all())
        update = torch.randn_like(before)
        full = before + update
        restored = kept_tokens(before, selection).restore(gather_tokens(full, selection.order_BR))
    expected = before + gather_tokens(update, selection.source_BN)
    torch.testing.assert_close(restored, expected, rtol=1e-5, atol=1e-5)
    kept = selection.keep_BN
    assert torch.equal(restored[kept], full[kept])


def test_fillers_do_not_leak_into_the_map() -> None:
    """Samples with fewer kept tokens are filled up; what the trunk makes of fillers is lost."""
    net = selector(bucket=4)
    before = torch.cat([tokens(6, 2, 8, batch=1), tokens(6, 30, 9, batch=1)])
    with torch.no_grad():
        selection: Selection = net(before)
        filler_BR = ~selection.keep_BN.gather(1, selection.order_BR)
        assert bool(filler_BR.any())
        kept = gather_tokens(before, selection.order_BR) + 1.0
        spoiled = torch.where(filler_BR[..., None], torch.full_like(kept, 1e6), kept)
        outcomes = [kept_tokens(before, selection).restore(k) for k in (kept, spoiled)]
    assert torch.equal(*outcomes)


# -- dropping in the backbone -------------------------------------------------------------------------

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
        return replace(chosen, order_BR=everyone)

    handle = model.selector.register_forward_hook(all_stay)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("mode", MODES)
def test_tokens_that_go_through_the_blocks_are_a_bucket_below_all(scene: Scene, mode: str) -> None:
    model = scene.model
    text = 0 if mode == "bbox" else scene.ids.shape[1]
    template = model.template_count * model.template_side**2
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
    assert lengths == [1 + template + kept] * config.split_layers + [1 + template + kept + text] * config.joint_layers


def test_an_eventful_picture_keeps_more(scene: Scene) -> None:
    counts = []
    for search in (scene.search, torch.randn_like(scene.search) * 3):
        with spied(scene.model) as (_, chosen), torch.no_grad():
            scene.model.locate(search, scene.memory("bbox"))
        counts.append(int(chosen[-1].keep_BN.sum()))
    assert counts[1] >= counts[0]


@pytest.mark.parametrize("mode", MODES)
def test_gathered_equals_masked(scene: Scene, mode: str) -> None:
    gathered = scene.predict(mode)
    with masked_instead(scene.model):
        masked = scene.predict(mode)
    assert apart(gathered, masked) <= 1e-5
    torch.testing.assert_close(gathered.features.search_BNC, masked.features.search_BNC, rtol=1e-5, atol=1e-5)


def test_samples_with_different_counts_share_a_batch(scene: Scene) -> None:
    """The one with fewer kept tokens carries fillers; it sees what it sees alone."""
    model = scene.model
    crops = torch.stack([scene.search[0], torch.randn(scene.search[0].shape) * 3])
    memory = scene.memory("bbox")
    with spied(model) as (_, chosen), torch.no_grad():
        together: Prediction = model.locate(crops, memory)
    for index in range(2):
        with torch.no_grad():
            alone = model.locate(crops[index : index + 1], memory.index_select([index]))
        assert apart(together.index_select([index]), alone) <= 1e-5
    assert len(chosen) == 1


def test_selection_matters_and_can_be_switched_off(scene: Scene) -> None:
    """``select=False`` equals a threshold under which all tokens stay, and differs from dropping."""
    model = scene.model
    with torch.no_grad():
        memory = scene.memory("bbox")
        both = model.joint_template(memory.first, memory.recent)

        def features(select: bool) -> Features:
            return model.forward_features(scene.search, both, memory.text, memory.flag_B, select=select)

        def predict(found: Features) -> Prediction:
            return model.head.predict(found, memory.prompts_B3C, memory.flag_B)

        whole = features(select=False)
        assert whole.selection is None
        assert apart(predict(features(select=True)), predict(whole)) > 1e-6
        theta, bias = model.selector.theta.clone(), model.selector.offset[2].bias.clone()
        model.selector.theta.fill_(20.0)
        model.selector.offset[2].bias.fill_(9.0)
        all_stay = features(select=True)
        model.selector.theta.copy_(theta)
        model.selector.offset[2].bias.copy_(bias)
        assert bool(all_stay.selection.keep_BN.all())
        assert apart(predict(all_stay), predict(whole)) <= 1e-5


def test_a_mask_is_not_kept_for_the_next_image(scene: Scene) -> None:
    memory = scene.memory("bbox")
    with torch.no_grad():
        before = scene.model.locate(scene.search, memory)
        scene.model.locate(torch.randn_like(scene.search), memory)
        assert equal(before, scene.model.locate(scene.search, memory))


# -- a budget -----------------------------------------------------------------------------------------


def test_a_budget_is_kept_by_every_picture_in_training_too() -> None:
    model = make(small(replace(tiny(), select_budget=20)))
    scene = Scene(model.config)
    scene.model = model
    template = 1 + model.template_count * model.template_side**2
    for search in (scene.search, torch.randn_like(scene.search) * 3):
        with spied(model) as (lengths, _), torch.no_grad():
            model.locate(search, scene.memory("bbox"))
        assert set(lengths) == {template + 20}
    objective = PairObjective(model.train(), LossWeights())
    with spied(model) as (lengths, _):
        terms = objective(random_batch(model.config), True)
    assert lengths[0] == template + 20
    assert "selection" not in terms
    terms["total"].backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert idle == {name for name, _ in model.named_parameters() if name.startswith("selector.")}
    with spied(model) as (lengths, _):
        objective(random_batch(model.config), False)
    assert lengths[0] == template + model.search_side**2


def test_layer_contrast_of_a_dropped_token_is_its_sources() -> None:
    before = tokens(6, 12, 7)
    with torch.no_grad():
        selection = selector(budget=9)(before)
        kept = kept_tokens(before, selection)
        values = torch.randn(2, 9)
        spread = kept.spread(values)
    for sample in range(2):
        by_token = dict(zip(selection.order_BR[sample].tolist(), values[sample].tolist(), strict=True))
        assert spread[sample].tolist() == [by_token[token] for token in selection.source_BN[sample].tolist()]


def test_a_budget_of_all_tokens_equals_no_selection() -> None:
    whole, off = (Scene(small(replace(tiny(), **change))) for change in ({"select_budget": 500}, {"select": False}))
    off.model.load_state_dict(whole.model.state_dict(), strict=False)
    assert apart(whole.predict("nlbbox"), off.predict("nlbbox")) <= 1e-5
