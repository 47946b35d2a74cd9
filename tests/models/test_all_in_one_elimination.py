"""Candidate elimination: which tokens stay; removed and masked ones give the same; the map comes back."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vltrack.models.all_in_one import Candidates, attention_with_scores, center_cell, mlp_residual
from vltrack.nn.attention import Block, key_bias

WIDTH, HEADS, M = 16, 4, 9


def block(seed: int = 0) -> Block:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Block(WIDTH, HEADS)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        return made.eval()


def tokens(count: int, seed: int = 1, batch: int = 2) -> Tensor:
    return torch.randn(batch, count, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("side", "middle"), [(7, 3), (8, 3), (12, 5), (14, 6), (16, 7)])
def test_middle_cell_of_the_released_code(side: int, middle: int) -> None:
    assert center_cell(side) == middle * side + middle


def test_published_counts() -> None:
    left, x = Candidates.all_of(tokens(256), in_place=False), tokens(256)
    counts = []
    for _ in range(3):
        left, x = left.keep_topk(x, torch.rand(2, x.shape[1]), 0.7)
        counts.append(x.shape[1])
    assert counts == [180, 126, 89]


def test_halves_are_the_whole_block() -> None:
    net, x = block(), tokens(30)
    bias = key_bias(torch.arange(30).expand(2, -1) != 4)
    with torch.no_grad():
        half, _ = attention_with_scores(net, x, bias, slice(1))
        torch.testing.assert_close(mlp_residual(net, half), net(x, bias))


def test_score_by_the_definition() -> None:
    """Softmax over all keys, mean over heads and the query rows; nothing for a masked key."""
    net, x, rows = block(), tokens(20), slice(4, 8, 3)
    valid = torch.arange(20).expand(2, -1) != 13
    with torch.no_grad():
        _, score = attention_with_scores(net, x, key_bias(valid), rows)
        normed = torch.nn.functional.layer_norm(x, (WIDTH,), net.norm1.weight, net.norm1.bias, 1e-6)
        q, k, _ = net.attn.qkv(normed).split(WIDTH, dim=-1)
        expected = torch.zeros(2, 20)
        for sample in range(2):
            for row in (4, 7):
                for h in range(HEADS):
                    part = slice(h * WIDTH // HEADS, (h + 1) * WIDTH // HEADS)
                    logits = k[sample, :, part] @ q[sample, row, part] / math.sqrt(WIDTH // HEADS)
                    logits[13] = -math.inf
                    expected[sample] += logits.softmax(dim=0) / (HEADS * 2)
    torch.testing.assert_close(score, expected)
    torch.testing.assert_close(score.sum(dim=1), torch.ones(2))
    assert float(score[:, 13].max()) == 0


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 40),
    ratios=st.lists(st.floats(0.05, 1.0), min_size=1, max_size=3),
    seed=st.integers(0, 10_000),
    levels=st.sampled_from([3, 1_000_000]),
)
def test_gone_and_hidden_tokens_are_the_same(n: int, ratios: list[float], seed: int, levels: int) -> None:
    """Over several rounds, with ties (few levels of score); the highest scores stay."""
    random = torch.Generator().manual_seed(seed)
    x = tokens(n, seed)
    gone, hidden = Candidates.all_of(x, in_place=False), Candidates.all_of(x, in_place=True)
    x_gone, x_hidden = x, x
    for ratio in ratios:
        score = torch.randint(levels, (2, n), generator=random).float() / levels
        here = score.gather(1, gone.order_BK)
        before = gone.count
        gone, x_gone = gone.keep_topk(x_gone, here, ratio)
        hidden, x_hidden = hidden.keep_topk(x_hidden, score, ratio)
        assert gone.count == hidden.count == x_gone.shape[1] == math.ceil(ratio * before)
        kept = score.gather(1, gone.order_BK).amin(dim=1)
        assert bool((kept >= here.topk(gone.count, dim=1).values.amin(dim=1)).all())
    assert bool((gone.order_BK.diff(dim=1) > 0).all())
    assert torch.equal(torch.zeros(2, n, dtype=torch.bool).scatter(1, gone.order_BK, True), hidden.seen_BK)
    assert torch.equal(gone.scatter_back(x_gone), hidden.scatter_back(x_hidden))
    assert torch.equal(gone.scatter_back(x_gone) != 0, hidden.seen_BK[..., None].expand_as(x))


def test_a_spared_sample_keeps_all() -> None:
    x = tokens(10)
    left, there = Candidates.all_of(x, in_place=True).keep_topk(x, torch.rand(2, 10), 0.3, torch.tensor([True, False]))
    assert left.seen_BK is not None
    assert left.seen_BK.sum(dim=1).tolist() == [10, 3]
    assert torch.equal(left.scatter_back(there)[0], x[0])


def test_nothing_eliminated_is_the_map_itself() -> None:
    x = tokens(10)
    assert torch.equal(Candidates.all_of(x, in_place=False).scatter_back(x), x)
    assert torch.equal(Candidates.all_of(x, in_place=True).scatter_back(x), x)


def test_eliminated_tokens_are_masked_for_later_blocks() -> None:
    """A block over the tokens that are left equals a block over all with the eliminated ones masked."""
    first, second, x = block(), block(5), tokens(M + 25)
    with torch.no_grad():
        half, score = attention_with_scores(first, x, None, slice(4, 5))
        z, s = half[:, :M], half[:, M:]
        gone, kept = Candidates.all_of(s, in_place=False).keep_topk(s, score[:, M:], 0.6)
        hidden, same = Candidates.all_of(s, in_place=True).keep_topk(s, score[:, M:], 0.6)
        short = second(mlp_residual(first, torch.cat([z, kept], dim=1)))
        seen = torch.cat([torch.ones(2, M, dtype=torch.bool), hidden.seen_BK], dim=1)
        full = second(mlp_residual(first, torch.cat([z, same], dim=1)), key_bias(seen))
    torch.testing.assert_close(gone.scatter_back(short[:, M:]), hidden.scatter_back(full[:, M:]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(short[:, :M], full[:, :M], atol=1e-5, rtol=1e-5)


def test_scores_carry_no_gradient() -> None:
    net, x = block(), tokens(12).requires_grad_()
    _, score = attention_with_scores(net, x, None, slice(1))
    assert not score.requires_grad
