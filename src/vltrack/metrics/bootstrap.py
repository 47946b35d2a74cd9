"""Paired bootstrap intervals over sequences.

Two trackers (or one tracker in two settings) are compared sequence by sequence: the difference is taken
within each sequence, and whole sequences are resampled with replacement (Efron and Tibshirani 1993,
chapter 13). This removes what makes a sequence easy or hard for both, and never separates frames of one
video, which are not independent. The interval is the *percentile* interval: quantiles of the resampled means.
With few sequences (below about ten) it is too narrow; it does not cover the randomness of training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.json_io import finite_or_none
from vltrack.core.types import Floats

FEWEST = 6
"""Fewest sequences for a decision: of two equal trackers one is better in all of n sequences with probability
2 ** (1 - n), more than one in twenty up to n = 5; the bootstrap alone would call them different.
"""
CHUNK = 1 << 20
"""Numbers drawn at once: bounds the memory (about 16 MB), whatever the number of sequences and draws."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean over sequences with its interval.

    Attributes:
        mean: mean (difference) over the sequences, in the unit of the input; NaN without a sequence.
        low, high: ends of the percentile interval; NaN if there is none (fewer than two sequences).
        share_above_zero: share of the resampled means above 0, exact zeros counting half; NaN without an
            interval.
        sequences: number that count.
        left_out: number that do not, because a number of the pair is missing (NaN or infinite).
        level: of the interval, 0.95 for 95 %.
        draws: number of resamples; 0 without an interval.
    """

    mean: float
    low: float
    high: float
    share_above_zero: float
    sequences: int
    left_out: int
    level: float
    draws: int

    @property
    def is_interval(self) -> bool:
        """Return whether there are enough sequences (two) for an interval."""
        return self.sequences >= 2

    @property
    def excludes_zero(self) -> bool:
        """Return whether the whole interval lies on one side of 0; never without an interval."""
        return self.is_interval and (self.low > 0 or self.high < 0)

    @property
    def p_value(self) -> float:
        """Two-sided: twice the smaller share of resampled means on one side of 0, at least 1 / draws.

        NaN below ``FEWEST`` sequences, where it would be far too small.
        """
        if self.sequences < FEWEST:
            return math.nan
        smaller = min(self.share_above_zero, 1 - self.share_above_zero)
        return min(1.0, max(2 * smaller, 1 / self.draws))

    def describe(self, digits: int = 2) -> str:
        """Format as ``+1.23 [+0.40, +2.10] over 31 sequences``."""
        if self.sequences == 0:
            return "no sequence to compare"
        if not self.is_interval:
            return f"{self.mean:+.{digits}f} on one sequence (no interval)"
        ends = f"[{self.low:+.{digits}f}, {self.high:+.{digits}f}]"
        return f"{self.mean:+.{digits}f} {ends} over {self.sequences} sequences"

    def to_dict(self) -> dict[str, Any]:
        """For JSON: every attribute, ``p_value`` and ``excludes_zero``; None for what is not defined."""
        names = ("mean", "low", "high", "share_above_zero", "p_value", "sequences", "left_out", "level", "draws")
        values = {name: finite_or_none(getattr(self, name)) for name in names}
        return values | {"excludes_zero": self.excludes_zero, "method": "paired percentile bootstrap"}


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike | None = None, *, draws: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Compute the mean of ``a - b`` (of ``a`` without ``b``) over sequences and its percentile interval.

    Args:
        a: (S,) one number per sequence, for example success AUC in percent.
        b: (S,) the same for the other tracker or setting, or None.
        draws: number of resamples of S sequences.
        seed: the same seed and numbers give the same interval.
        level: of the interval, strictly between 0 and 1.

    Returns:
        An ``Interval``; with fewer than two sequences that count, without ends (``is_interval``).

    Raises:
        ValueError: the shapes differ or are not (S,), ``draws`` below 1, or ``level`` out of range.
    """
    first = np.asarray(a, dtype=np.float64)
    second = np.zeros_like(first) if b is None else np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"Paired numbers are (S,) twice, got {first.shape} and {second.shape}")
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"Invalid draws or level: {draws}, {level}. Take 1 draw or more, and a level between 0 and 1.")
    counts: NDArray[np.bool_] = np.isfinite(first) & np.isfinite(second)
    gains = first[counts] - second[counts]
    low, high, above = math.nan, math.nan, math.nan
    if len(gains) >= 2:
        means = _resampled_means(gains, draws, seed)
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2]).tolist()
        above = float((means > 0).mean() + (means == 0).mean() / 2)
    return Interval(
        mean=float(gains.mean()) if len(gains) else math.nan,
        low=low,
        high=high,
        share_above_zero=above,
        sequences=len(gains),
        left_out=len(first) - len(gains),
        level=level,
        draws=draws if len(gains) >= 2 else 0,
    )


def _resampled_means(gains: Floats, draws: int, seed: int) -> Floats:
    """(draws,) means of S numbers resampled from the (S,) ``gains``."""
    rng = np.random.default_rng(seed)
    number = len(gains)
    rows = max(1, CHUNK // number)
    means = np.empty(draws)
    for begin in range(0, draws, rows):
        end = min(begin + rows, draws)
        means[begin:end] = gains[rng.integers(number, size=(end - begin, number))].mean(axis=1)
    return means
