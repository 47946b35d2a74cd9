"""Settings and limits of the studio, and the rules for its address."""

from __future__ import annotations

import ipaddress
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from vltrack.core.errors import UsageError

TOKEN_VARIABLE = "VLTRACK_STUDIO_TOKEN"  # noqa: S105 - the name of a variable
_SHORTEST_TOKEN = 16


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one server may cost, and where it keeps its files.

    Attributes:
        media: folder of uploaded videos, tracks and the database.
        host, port: of the page; port 0 takes a free one.
        token: that every request needs; None on the loopback interface.
        max_upload: bytes of one video; reserve: bytes of the disk that stay free.
        max_body: bytes of a JSON body.
        idle_s, slowest: an upload ends that gives nothing for so long, or fewer bytes a second on average.
        queue: jobs of one video that wait or run at most; of all videos four times as many.
        finds: sentences that wait at most.
        cache: bytes of JPEG frames in memory; readers: videos that are open at once.
        silent_s: seconds after which a worker that reports nothing is stopped.
        keep_days: days after which a video that was not opened is removed; None keeps all.
    """

    media: Path
    host: str = "127.0.0.1"
    port: int = 8008
    token: str | None = None
    max_upload: int = 16 << 30
    reserve: int = 1 << 30
    max_body: int = 64 << 10
    idle_s: float = 30.0
    slowest: int = 64 << 10
    queue: int = 8
    finds: int = 4
    cache: int = 64 << 20
    readers: int = 4
    silent_s: float = 180.0
    keep_days: float | None = None


def is_loopback(host: str) -> bool:
    """Whether a server at an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def choose_token(host: str, token: str | None) -> str | None:
    """Return the token that requests need: none on the loopback interface, unless one is given; ``auto`` makes one.

    Raises:
        UsageError: the address can be reached from other machines, and the token is missing or short.
    """
    token = token or os.environ.get(TOKEN_VARIABLE)
    if token == "auto":  # noqa: S105
        return secrets.token_urlsafe(24)
    if token is None:
        if is_loopback(host):
            return None
        raise UsageError(
            f"The host {host} can be reached from other machines, and no token protects the studio.",
            hint=f"Pass --token auto, set {TOKEN_VARIABLE}, or leave --host out.",
        )
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise UsageError(
            f"The token is not {_SHORTEST_TOKEN} or more printable ASCII characters.", hint="--token auto makes one."
        )
    return token


def allowed_host(value: str, settings: Settings) -> bool:
    """Whether a ``Host`` header names this server: by its address, or on loopback as ``localhost``.

    A page of another site whose name is made to resolve to this machine is refused. Other interfaces accept any
    IP address: such a name is none.
    """
    name, colon, port = value.rpartition(":")
    if not colon or (value.startswith("[") and value.endswith("]")):
        name, port = value, "80"
    if not port.isascii() or not port.isdigit() or int(port) != settings.port:
        return False
    name = name.strip("[]").lower()
    if is_loopback(settings.host):
        return name == "localhost" or is_loopback(name)
    if name == settings.host.lower():
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
