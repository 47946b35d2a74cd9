"""Paired bootstrap intervals: known answers, coverage, pairing, and too few sequences."""

from __future__ import annotations

import itertools
import json
import math
import tracemalloc

import numpy as np
import pytest

from vltrack.metrics import bootstrap
from vltrack.metrics.bootstrap import paired_bootstrap


def test_two_sequences_have_a_known_distribution() -> None:
    """Of the gains 0 and 1 the resampled mean is 0, 1/2, 1 with chances 1/4, 1/2, 1/4."""
    seen = paired_bootstrap([0.0, 1.0], level=0.4, draws=40_000)
    assert (seen.mean, seen.low, seen.high) == (0.5, 0.5, 0.5)
    assert seen.share_above_zero == pytest.approx(0.875, abs=0.01)  # a tie counts half
    wide = paired_bootstrap([0.0, 1.0])
    assert (wide.low, wide.high) == (0.0, 1.0)
    assert not wide.excludes_zero


def test_the_quantiles_are_those_of_all_resamples() -> None:
    gains = np.array([-1.0, 0.5, 2.0, 4.0, 1.0])
    every = np.array([gains[list(pick)].mean() for pick in itertools.product(range(5), repeat=5)])
    seen = paired_bootstrap(gains, draws=100_000, level=0.9)
    assert seen.mean == pytest.approx(gains.mean())
    assert [seen.low, seen.high] == pytest.approx(np.quantile(every, [0.05, 0.95]), abs=0.06)
    assert seen.share_above_zero == pytest.approx((every > 0).mean() + (every == 0).mean() / 2, abs=0.005)


def test_pairing_removes_what_sequences_have_in_common() -> None:
    rng = np.random.default_rng(3)
    hard = rng.uniform(0, 100, size=40)
    seen = paired_bootstrap(hard + 1 + 0.5 * rng.normal(size=40), hard)
    assert seen.excludes_zero
    assert seen.high - seen.low < 0.6
    shuffled = paired_bootstrap(hard + 1, rng.permutation(hard))
    assert shuffled.high - shuffled.low > 10


def test_the_coverage_of_the_interval_is_about_its_level() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(loc=0.3, size=(300, 40))
    hits = 0
    for number, sample in enumerate(samples):
        seen = paired_bootstrap(sample, draws=800, seed=number)
        hits += seen.low <= 0.3 <= seen.high
    assert 0.90 <= hits / len(samples) <= 0.98


def test_seed_chunks_and_order_of_the_two(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 23))
    whole, mirrored = paired_bootstrap(a, b, draws=2000), paired_bootstrap(b, a, draws=2000)
    assert whole == paired_bootstrap(a, b, draws=2000)
    assert whole.low != paired_bootstrap(a, b, draws=2000, seed=1).low
    assert [whole.mean, whole.low, whole.high] == pytest.approx([-mirrored.mean, -mirrored.high, -mirrored.low])
    assert whole.p_value == pytest.approx(mirrored.p_value)
    monkeypatch.setattr(bootstrap, "CHUNK", 50)
    assert whole == paired_bootstrap(a, b, draws=2000)


def test_fewer_than_two_sequences_give_no_interval() -> None:
    none, one = paired_bootstrap([]), paired_bootstrap([3.0], [1.0])
    assert math.isnan(none.mean)
    assert one.mean == 2.0
    for seen in (none, one):
        assert not seen.is_interval
        assert not seen.excludes_zero
        assert math.isnan(seen.low)
        assert math.isnan(seen.p_value)
        assert "NaN" not in json.dumps(seen.to_dict())
        assert seen.to_dict()["low"] is None
    assert none.describe() == "no sequence to compare"
    assert one.describe() == "+2.00 on one sequence (no interval)"


def test_a_missing_number_leaves_its_pair_out_and_is_counted() -> None:
    seen = paired_bootstrap([1.0, math.nan, 2.0, 3.0], [0.0, 0.0, math.inf, 0.0])
    assert (seen.sequences, seen.left_out, seen.mean) == (2, 2, 2.0)
    assert seen.describe(1) == "+2.0 [+1.0, +3.0] over 2 sequences"


def test_no_difference_is_not_significant_and_p_is_never_zero() -> None:
    seen = paired_bootstrap([5.0] * 12, [5.0] * 12)
    assert (seen.low, seen.high, seen.share_above_zero, seen.p_value) == (0.0, 0.0, 0.5, 1.0)
    assert not seen.excludes_zero
    assert paired_bootstrap([1.0, 2.0, 3.0] * 2, draws=500).p_value == 1 / 500
    assert math.isnan(paired_bootstrap([1.0, 2.0, 3.0, 2.0, 1.0], draws=500).p_value)  # fewer than six


def test_memory_stays_bounded() -> None:
    gains = np.random.default_rng(0).normal(size=20_000)
    tracemalloc.start()
    paired_bootstrap(gains, draws=300)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # at once it would be 96 MB


@pytest.mark.parametrize(
    "call",
    [
        lambda: paired_bootstrap([1.0, 2.0], [1.0]),
        lambda: paired_bootstrap([[1.0, 2.0]]),
        lambda: paired_bootstrap([1.0, 2.0], draws=0),
        lambda: paired_bootstrap([1.0, 2.0], level=1.0),
    ],
)
def test_what_cannot_be_compared_is_refused(call) -> None:
    with pytest.raises(ValueError, match=r"Paired numbers|Invalid draws"):
        call()
