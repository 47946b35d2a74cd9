"""Token selection: which tokens stay, what is restored in place of the others, what the threshold learns."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vltrack.nn.token_pruning import Selection, TokenSelector, put_back, restore, take

WIDTH = 16


def selector(bucket: int = 32, threshold: float = 0.8) -> TokenSelector:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TokenSelector(WIDTH, threshold=threshold, bucket=bucket)


def tokens(side: int, kinds: int, seed: int, batch: int = 2) -> Tensor:
    """(B, side * side, C): each token is one of ``kinds`` directions with a little noise."""
    random = torch.Generator().manual_seed(seed)
    directions = torch.randn(kinds, WIDTH, generator=random)
    choice = torch.randint(kinds, (batch, side * side), generator=random)
    return directions[choice] + 0.01 * torch.randn(batch, side * side, WIDTH, generator=random)


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
    centre = 3 * 6 + 3
    for sample in range(2):
        wanted = kept_by_the_definition(x[sample], float(threshold[sample]))
        kept = selection.keep_BN[sample].tolist()
        # The centre takes the place of the most redundant token where it is not wanted itself.
        assert sum(kept) == sum(wanted)
        if wanted[centre]:
            assert kept == wanted
        else:
            assert kept[centre]
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
    assert selection.order_BK.shape[1] == int(counts.max())
    assert bool(selection.keep_BN[:, (side // 2) * side + side // 2].all()), "the centre stays"
    # In map order, each token once, fillers marked.
    assert bool((selection.order_BK.diff(dim=1) > 0).all())
    assert torch.equal(selection.keep_BN.gather(1, selection.order_BK), ~selection.filler_BK)
    assert torch.equal((~selection.filler_BK).sum(dim=1), counts)
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


def test_threshold_and_its_offset_learn() -> None:
    net, x = selector(), tokens(8, 20, 5)
    net(x).soft_BN.mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_soft_gate_is_one_half_at_the_threshold() -> None:
    net, x = selector(), tokens(8, 20, 6)
    with torch.no_grad():
        selection = net(x)
    side = (selection.soft_BN > 0.5).sum(dim=1)
    assert bool((selection.keep_BN.sum(dim=1) >= side).all())


def test_restore_fills_every_place() -> None:
    """A kept token is what the trunk made of it; a dropped one moves as its source moved."""
    net, before = selector(bucket=8), tokens(8, 12, 7)
    with torch.no_grad():
        selection = net(before)
        assert not bool(selection.keep_BN.all())
        update = torch.randn_like(before)
        full = before + update
        after = put_back(take(full, selection.order_BK), selection.order_BK, before.shape[1])
        restored = restore(after, before, selection)
    expected = before + take(update, selection.source_BN)
    torch.testing.assert_close(restored, expected, rtol=1e-5, atol=1e-5)
    kept = selection.keep_BN
    assert torch.equal(restored[kept], full[kept])


def test_fillers_do_not_leak_into_the_map() -> None:
    """Samples with fewer kept tokens are filled up; what the trunk makes of fillers is lost."""
    net = selector(bucket=4)
    before = torch.cat([tokens(6, 2, 8, batch=1), tokens(6, 30, 9, batch=1)])
    with torch.no_grad():
        selection: Selection = net(before)
        assert bool(selection.filler_BK.any())
        kept = take(before, selection.order_BK) + 1.0
        spoiled = torch.where(selection.filler_BK[..., None], torch.full_like(kept, 1e6), kept)
        outcomes = [restore(put_back(k, selection.order_BK, 36), before, selection) for k in (kept, spoiled)]
    assert torch.equal(*outcomes)
