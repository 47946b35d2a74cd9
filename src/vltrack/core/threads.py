"""Thread settings of the numerical libraries, which read them from the environment when they are loaded."""

from __future__ import annotations

import os

from vltrack.core.errors import UsageError

MOST_THREADS = 1024
"""Many more end the process inside OpenMP."""

PASSIVE = {"OMP_WAIT_POLICY": "passive"}
"""Waiting OpenMP threads sleep: spinning ones make every step many times slower on a busy machine."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""For child processes: several with one thread each are faster than the reverse, and sums do not depend on
the number of cores."""


def check_threads(count: int | None) -> None:
    """Raise ``UsageError`` for a number of threads that is not 1 to 1024, ``TypeError`` for one that is not whole."""
    from vltrack.core.types import whole

    if count is not None and not 1 <= whole("threads", count) <= MOST_THREADS:
        raise UsageError(f"threads (--threads) must be 1 to {MOST_THREADS}, got {count}.")


def wait_passively() -> None:
    """Let OpenMP threads sleep while they wait, unless the user set it. Call before torch is loaded."""
    for name, value in PASSIVE.items():
        os.environ.setdefault(name, value)
