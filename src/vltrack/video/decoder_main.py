"""The decoder process: takes one job from its reader, enters the sandbox, hands out rows. Knows no user, no
paths.

Started as ``python -P -m vltrack.video.decoder_main``: messages come in on descriptor 0 and
leave on descriptor 1, the shared memory and the media arrive as open descriptors.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
from typing import Any

from vltrack.video.ipc import MAX_IMAGE_BYTES, SLOTS, IpcServer, MediaError, ReaderGone, Receiver, Ring

# MERGED video/decoder_main.py
# Walls around the decoder process: memory, files, network, privileges. Knows nothing of media.
#
# Every step that the system offers is taken; a step that it refuses is skipped, because the list of allowed
# containers and the closed protocols hold without it.


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


def forbid_new_descriptors(spare: int = 0) -> None:
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
    outlet = IpcServer(out, receiver, ring)
    enter(job["memory_bytes"] + SLOTS * job["slot_bytes"], network=job["source"] == "network")
    try:
        _serve(job, outlet)
    except MediaError as refusal:
        outlet.say("error", code=refusal.code, message=refusal.message, hint=refusal.hint)
    except MemoryError:
        outlet.say(
            "error", code="VideoDecoderCrashed", message="the decoder ran out of its memory limit", hint=""
        )
    return 0


def _serve(job: dict[str, Any], outlet: IpcServer) -> None:
    # Loaded behind the first wall.
    if job["source"] == "images":
        from vltrack.video.decode_images import serve_images

        serve_images(outlet)
    else:
        from vltrack.video.decode import serve_video

        serve_video(job, outlet)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ReaderGone:
        sys.exit(0)


# MERGED video/decoder_main.py
# Descriptors as the file objects that PyAV reads: files and standard input. Knows no containers.


class MediaFile:
    """A descriptor as the file object that PyAV reads; read errors are remembered and look like the end."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.size = os.fstat(handle).st_size
        self.failure = ""

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes, none at the end."""
        try:
            return os.read(self.handle, count)
        except OSError as error:
            self.failure = error.strerror or str(error)
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        """As for files."""
        return os.lseek(self.handle, offset, whence)

    def tell(self) -> int:
        """As for files."""
        return os.lseek(self.handle, 0, os.SEEK_CUR)

    def shrunk(self) -> bool:
        """Whether somebody has shortened the file while it was read."""
        return os.fstat(self.handle).st_size < self.size


class MediaPipe:
    """Standard input as a file object without seeking; says that it waits, so the watchdog stays calm."""

    failure = ""

    def __init__(self, handle: int, outlet: IpcServer) -> None:
        self._handle = handle
        self._outlet = outlet

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes, none at the end."""
        while not select.select([self._handle], [], [], 1.0)[0]:
            self._outlet.say("wait")
        try:
            return os.read(self._handle, count)
        except OSError as error:
            self.failure = error.strerror or str(error)
            return b""

    def shrunk(self) -> bool:
        """A stream has no size."""
        return False


# MERGED video/decoder_main.py
# What media libraries print about damage. They print it and go on; this reads it back. Knows no media.


class StderrLog:
    """Standard error of this process as a pipe that can be asked what was printed.

    Python's own ``sys.stderr`` stays where it was, so that a traceback still reaches the reader.
    """

    def __init__(self) -> None:
        sys.stderr = os.fdopen(os.dup(2), "w")
        self._read, write = os.pipe()
        # A library that prints more than a pipe holds loses words rather than time.
        os.set_blocking(self._read, False)
        os.set_blocking(write, False)
        os.dup2(write, 2)
        os.close(write)

    def take(self) -> str:
        """What was printed since the last call."""
        try:
            return os.read(self._read, 1 << 16).decode(errors="replace")
        except BlockingIOError:
            return ""
