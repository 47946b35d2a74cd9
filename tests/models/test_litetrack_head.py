"""The contrastive prompt against its description, one token at a time; the star adapter."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vltrack.models.litetrack import ContrastivePrompter, StarAdapter, presence

WIDTH = 12


@pytest.fixture
def prompter() -> ContrastivePrompter:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ContrastivePrompter(WIDTH).eval()


def scene(inside: list[int], seed: int = 1, keys: int = 30) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    mask = torch.zeros(1, keys, dtype=torch.bool)
    mask[0, inside] = True
    return torch.randn(1, WIDTH, generator=random), torch.randn(1, keys, WIDTH, generator=random), mask


def one_token_at_a_time(net: ContrastivePrompter, reference: Tensor, keys: Tensor, inside: Tensor) -> Tensor:
    logits = [float(torch.cosine_similarity(k, reference, dim=0)) / 0.07 for k in keys]
    within = [i for i in range(len(keys)) if inside[i]]
    outside = [i for i in range(len(keys)) if not inside[i]]
    total = sum(math.exp(logits[i]) for i in outside)
    background: list[int] = []
    mass = 0.0
    for i in sorted(outside, key=lambda i: logits[i]):
        mass += math.exp(logits[i]) / total
        if mass < 0.25:
            background.append(i)
    distractor = [i for i in outside if i not in background]

    def pooled(group: list[int]) -> Tensor:
        if not group:
            return torch.zeros(WIDTH)
        weights = torch.softmax(torch.tensor([logits[i] for i in group]), dim=0)
        return weights @ keys[group]

    rows = torch.stack([pooled(within), pooled(distractor), pooled(background)]) + net.queries
    rows = torch.cat([rows[:1] + reference, rows[1:]])
    return rows + net.mlp(rows)


@pytest.mark.parametrize("inside", [[3, 4, 9], [0], list(range(29)), list(range(30)), []])
def test_three_groups_as_described(prompter: ContrastivePrompter, inside: list[int]) -> None:
    reference, keys, mask = scene(inside)
    with torch.no_grad():
        actual = prompter.build(reference, keys, mask, torch.tensor([False]))
        expected = one_token_at_a_time(prompter, reference[0], keys[0], mask[0])
    torch.testing.assert_close(actual[0], expected, rtol=1e-4, atol=1e-4)


def test_text_only_no_key_counts(prompter: ContrastivePrompter) -> None:
    reference, keys, mask = scene([1, 2])
    with torch.no_grad():
        prompts = prompter.build(reference, keys, mask, torch.tensor([True]))
        again = prompter.build(reference, keys * 7 + 1, ~mask, torch.tensor([True]))
    assert torch.equal(prompts, again)
    expected = prompter.queries.detach().clone()
    expected[0] += reference[0]
    torch.testing.assert_close(prompts[0], expected)


def test_samples_do_not_mix(prompter: ContrastivePrompter) -> None:
    parts = [scene([1, 2], 3), scene([5], 4), scene([], 5)]
    text_only = torch.tensor([False, True, False])
    together = [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
    with torch.no_grad():
        batch = prompter.build(*together, text_only)
        alone = [prompter.build(*part, text_only[i : i + 1]) for i, part in enumerate(parts)]
    torch.testing.assert_close(batch, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_score_is_target_against_the_better_of_the_others(prompter: ContrastivePrompter) -> None:
    random = torch.Generator().manual_seed(6)
    search = torch.randn(1, 5, WIDTH, generator=random)
    prompts = torch.randn(1, 3, WIDTH, generator=random)
    with torch.no_grad():
        logits = prompter.score(search, prompts)[0]
    for n in range(5):
        a = [float(torch.cosine_similarity(search[0, n], p, dim=0)) / 0.07 for p in prompts[0]]
        assert logits[n].tolist() == pytest.approx([a[0], max(a[1], a[2], 0.0)], abs=1e-4)


def test_presence_has_a_third_class() -> None:
    logits = torch.tensor([[[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [-10.0, 0.0]]])
    assert presence(logits, torch.tensor([False]))[0].tolist() == pytest.approx([1 / 3, 1.0, 0.0, 0.0], abs=1e-3)


def test_unused_layers_take_no_part() -> None:
    net = ContrastivePrompter(WIDTH, unused_layers=True).eval()
    reference, keys, mask = scene([1, 2])
    with torch.no_grad():
        before = net.build(reference, keys, mask, torch.tensor([False]))
        for layer in (net.q, net.kv, net.proj):
            layer.weight.fill_(9.0)
        after = net.build(reference, keys, mask, torch.tensor([False]))
    assert torch.equal(before, after)


def test_star_adapter_starts_as_the_identity_and_is_registered() -> None:
    star, x = StarAdapter(8, 3), torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(star(x), x)
    assert set(star.state_dict()) == {
        "alpha", "f1.weight", "f1.bias", "f2.weight", "f2.bias", "g.weight", "g.bias"
    }  # fmt: skip
    star(x).sum().backward()
    assert float(star.alpha.grad.abs()) > 0  # the way out of the identity
    with torch.no_grad():
        star.alpha.fill_(0.5)
        first, second = star(x), star(x)
        expected = x + 0.5 * star.g((star.f1(x).clamp(0, 6)) * star.f2(x))
    assert torch.equal(first, second)  # no weights drawn anew in a call
    torch.testing.assert_close(first, expected)
