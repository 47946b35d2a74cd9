"""The decoder process: takes one job from its reader, enters the sandbox, hands out rows. Knows no user, no
paths.

Started as ``python -P -m vltrack.video.decoder``: messages come in on descriptor 0 and leave on descriptor 1,
the shared memory and the media arrive as open descriptors.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from vltrack.video import sandbox
from vltrack.video.channel import MAX_IMAGE_BYTES, SLOTS, Receiver, Ring
from vltrack.video.outlet import Outlet, ReaderGone, Refusal


def main() -> int:
    """Serve one job. Exit status 0 unless the interpreter itself fails."""
    receiver = Receiver(0, MAX_IMAGE_BYTES + 1)
    first = receiver.receive()
    if first is None:
        return 0
    job = json.loads(first)
    # Nothing that a library prints may get between the messages.
    out = os.dup(1)
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 1)
    ring = Ring(job["ring"], job["slot_bytes"])
    outlet = Outlet(out, receiver, ring)
    sandbox.enter(job["memory_bytes"] + SLOTS * job["slot_bytes"], network=job["source"] == "network")
    try:
        _serve(job, outlet)
    except Refusal as refusal:
        outlet.say("error", code=refusal.code, message=refusal.message, hint=refusal.hint)
    except MemoryError:
        outlet.say(
            "error", code="VideoDecoderCrashed", message="the decoder ran out of its memory limit", hint=""
        )
    return 0


def _serve(job: dict[str, Any], outlet: Outlet) -> None:
    # Loaded behind the first wall.
    if job["source"] == "images":
        from vltrack.video.decode_images import serve_images

        serve_images(outlet)
    else:
        from vltrack.video.decode_video import serve_video

        serve_video(job, outlet)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ReaderGone:
        sys.exit(0)
