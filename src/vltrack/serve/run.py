"""Start the studio: address, token, log, and the server's end."""

from __future__ import annotations

import errno
import logging
import logging.handlers
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vltrack.core.errors import ResourceError, UsageError
from vltrack.core.files import as_resource_error, cache_folder, printable

if TYPE_CHECKING:
    from vltrack.serve.settings import Settings

_LOG_BYTES, _LOGS = 10 << 20, 10


def studio(
    video: str | Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8008,
    media: str | Path | None = None,
    token: str | None = None,
    keep_days: float | None = None,
    ready: Callable[[str, str | None], object] = lambda address, token: None,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        video: a file or folder to open at once.
        host, port: of the page; port 0 takes a free one.
        media: folder of uploads, tracks and the database; None is ``studio`` in the cache folder.
        token: that every request needs, or ``auto``; needed where ``host`` is not the loopback interface.
        keep_days: remove videos that were not opened for so many days; None keeps them.
        ready: called with the address of the page, and the token, once it can be opened.

    Raises:
        UsageError: a host that other machines reach without a token; the extra is not installed.
        ResourceError: the port is in use or needs privileges, or the folder cannot be written.
        StateError: another studio uses the folder.
        InputError: the video cannot be read.

    Examples:
        >>> from vltrack.serve.run import studio
        >>> studio("clip.mp4", port=8008)  # doctest: +SKIP
    """
    try:
        import uvicorn

        from vltrack.serve.app import secured
        from vltrack.serve.settings import Settings, choose_token
    except ImportError as error:
        hint = 'Run: pip install "vltrack[studio]"'
        raise UsageError(f"The studio needs the package {error.name}, which is not installed.", hint=hint) from error
    token = choose_token(host, token)
    folder = Path(media) if media is not None else cache_folder() / "studio"
    with listen(host, port) as listening:
        port = listening.getsockname()[1]
        settings = Settings(media=folder, host=host, port=port, token=token, keep_days=keep_days)
        opened = _prepare_folder(settings, video)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{port}/" + (f"#{opened}" if opened else "")
        config = uvicorn.Config(
            secured(settings), log_config=None, access_log=True, server_header=False, date_header=False, ws="none",
            lifespan="on", http="h11", h11_max_incomplete_event_size=16 << 10, limit_concurrency=256,
            timeout_keep_alive=15, timeout_graceful_shutdown=2,
        )  # fmt: skip
        write_log(folder / "studio.log")
        server = uvicorn.Server(config)
        ready(address, token)
        server.run(sockets=[listening])


def _prepare_folder(settings: Settings, video: str | Path | None) -> str | None:
    """Open the folder once, so that what is wrong with it or the video is said before the server starts."""
    from vltrack.serve.studio import Studio

    once = Studio(settings)
    try:
        return once.open_path(Path(video)) if video is not None else None
    finally:
        once.close()


def listen(host: str, port: int) -> socket.socket:
    """Return an open server socket. Raises ``ResourceError`` where the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        number = getattr(error, "errno", None)
        reasons = {errno.EADDRINUSE: "it is in use", errno.EACCES: "it needs privileges"}
        reason = reasons.get(number or 0, getattr(error, "strerror", None) or str(error))
        raise ResourceError(
            f"Cannot use {printable(host)}, port {port}: {reason}.", hint="Choose another --port, or 0 for a free one."
        ) from error
    return listening


class _OneLine(logging.Formatter):
    """Records on one line: what a request says is escaped, and its query is left out."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name == "uvicorn.access" and isinstance(record.args, tuple) and len(record.args) == 5:
            _, method, path, _, status = record.args
            record.msg, record.args = "%s %s %s", (method, str(path).partition("?")[0][:300], status)
        return printable(super().format(record).replace("\n", " | "))


def write_log(path: Path) -> None:
    """Write the server's log to a file that is rotated: ten of 10 MB."""
    try:
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=_LOG_BYTES, backupCount=_LOGS - 1, encoding="utf-8"
        )
    except OSError as error:
        raise as_resource_error(error, path) from error
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    for name in ("uvicorn", "uvicorn.access", "uvicorn.error"):
        logger = logging.getLogger(name)
        for old in logger.handlers:
            old.close()
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
