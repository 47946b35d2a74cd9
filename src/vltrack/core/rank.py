"""Whether torchrun started this process, and as which one of the job."""

from __future__ import annotations

import os


def launched() -> bool:
    """Return whether this process is one of several that torchrun started."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def global_rank() -> int:
    """Number of this process in its job, 0 without one. Only that of rank 0 writes and prints."""
    return int(os.environ["RANK"]) if launched() else 0


def silence_torch() -> None:
    """Let torch's C++ part print errors only, in a process of a job: each would warn of the same. Call it first."""
    if launched():
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
