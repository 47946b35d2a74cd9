"""Walls around the decoder process: memory, files, network, privileges. Knows nothing of media.

Every step that the system offers is taken; a step that it refuses is skipped, because the list of allowed
containers and the closed protocols hold without it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNET = 0x40000000


def enter(memory_bytes: int, *, network: bool) -> None:
    """First wall, before media libraries are loaded: privileges, network, memory, no file written."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if not network:
            # Only root may do this; for others the closed descriptor table below keeps sockets out as well.
            libc.unshare(_CLONE_NEWNET)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    if hasattr(resource, "RLIMIT_AS"):
        _limit(resource.RLIMIT_AS, memory_bytes)


def close_doors(spare: int = 0) -> None:
    """Second wall, after everything needed is loaded and opened: no new file or socket beyond ``spare``."""
    used = 0
    if spare:
        used = max(int(name) for name in os.listdir("/dev/fd")) + 1
    _limit(resource.RLIMIT_NOFILE, used + spare)


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    try:
        resource.setrlimit(which, (value, value))
    except (ValueError, OSError):
        # macOS refuses some limits; the others still hold.
        return
