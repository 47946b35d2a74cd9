"""Numbers as JSON can hold them. Knows one rule: what is not defined is null."""

from __future__ import annotations

import math


def told_number(value: float) -> float | None:
    """The number, or None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None
