"""The verb ``studio``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vltrack.cli import options as opt
from vltrack.cli.console import say


def studio(
    video: Annotated[Path | None, Argument(metavar="[VIDEO]", help="Video file or folder of images to open.")] = None,
    host: Annotated[str, Option(help="Address of the page; other than loopback only with a token.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 8008,
    media: Annotated[
        Path | None, Option(metavar="DIR", help="Folder of uploads, tracks and the database. Default: in the cache.")
    ] = None,
    token: Annotated[
        str | None, Option(help="What a page has to log in with; auto makes one. Better: $VLTRACK_STUDIO_TOKEN.")
    ] = None,
    keep_days: Annotated[float | None, Option(min=0, help="Remove videos not opened for so many days.")] = None,
    debug: opt.Debug = False,
) -> None:
    """Name, track, review and correct targets on a local web page.

    Needs the extra: pip install "vltrack[studio]". Nothing leaves this machine; Ctrl-C ends it.

    \b
    vltrack studio
    vltrack studio clip.mp4 --port 9000
    """
    from vltrack.serve.run import studio as serve

    def ready(address: str, made: str | None) -> None:
        say(f"open {address}  (Ctrl-C ends)")
        if made is not None and token == "auto":  # noqa: S105
            say(f"token: {made}")

    serve(video, host=host, port=port, media=media, token=token, keep_days=keep_days, ready=ready)
