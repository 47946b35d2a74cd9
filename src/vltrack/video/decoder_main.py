"""The decoder process: limits itself, takes one job from its reader and sends rows of frames.

Started as ``python -P -m vltrack.video.decoder_main``: messages come in on descriptor 0 and leave on
descriptor 1, the shared memory and the media arrive as open descriptors. Every limit that the system offers
is set; one that it refuses is skipped, because the list of allowed containers and the closed protocols hold
without it.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import threading

if sys.platform != "win32":
    import resource

from vltrack.video.ipc import MAX_IMAGE_BYTES, SLOTS, IpcServer, MediaError, ReaderGone, Receiver, Ring


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
    server = IpcServer(out, receiver, Ring(job["ring"], job["slot_bytes"]))
    limit_process(job["memory_bytes"] + SLOTS * job["slot_bytes"], network=job["source"] == "network")
    threading.Thread(target=_end_with_reader, daemon=True).start()
    try:
        # Media libraries are loaded after the first limits are set.
        if job["source"] == "images":
            from vltrack.video.decode_images import serve_images

            serve_images(server, sequence=bool(job.get("sequence")))
        elif job.get("numbered"):
            from vltrack.video.seek import serve_frames

            serve_frames(job, server)
        elif job["source"] == "audio":
            from vltrack.video.audio import serve_audio

            serve_audio(job, server)
        else:
            from vltrack.video.decode import serve_video

            serve_video(job, server)
    except MediaError as error:
        server.send("error", code=error.code, message=error.message, hint=error.hint)
    except MemoryError:
        message = "the decoder ran out of its memory limit"
        server.send("error", code="VideoDecoderCrashed", message=message, hint="")
    return 0


def _end_with_reader() -> None:
    """End this process when its reader has ended, also where a library decodes for ever."""
    closed = select.poll()
    closed.register(0, 0)  # waits for nothing but its other end to be closed
    closed.poll()
    os._exit(0)


def limit_process(memory_bytes: int, *, network: bool) -> None:
    """Limit privileges, network, memory and file writes; called before media libraries are loaded."""
    for stop in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to this process too
        signal.signal(stop, signal.SIG_IGN)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        if not network:
            # Only root may do this; for others the closed descriptor table keeps sockets out as well.
            libc.unshare(0x40000000)  # CLONE_NEWNET
    _set_limit("RLIMIT_FSIZE", 0)
    _set_limit("RLIMIT_CORE", 0)
    _set_limit("RLIMIT_AS", memory_bytes)


def forbid_new_descriptors(spare: int = 0) -> None:
    """Allow no new file or socket beyond ``spare``; called after everything needed is loaded and opened."""
    used = max(int(name) for name in os.listdir("/dev/fd")) + 1 if spare else 0
    _set_limit("RLIMIT_NOFILE", used + spare)


def _set_limit(name: str, value: int) -> None:
    if sys.platform == "win32" or not hasattr(resource, name):
        return
    which = getattr(resource, name)
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    try:
        resource.setrlimit(which, (value, value))
    except (ValueError, OSError):
        # macOS refuses some limits; the others still hold.
        return


def protections() -> dict[str, bool]:
    """Limits of the decoder process that this system enforces, by name; for ``vltrack doctor``.

    ``memory``: upper bound of its address space. ``files``: no file written, no file or socket opened while
    it decodes. ``privileges``: none can be gained. ``network``: a network namespace of its own.
    """
    linux, posix = sys.platform == "linux", sys.platform != "win32"
    return {
        "memory": posix and sys.platform != "darwin",
        "files": posix,
        "privileges": linux,
        "network": linux and os.geteuid() == 0,
    }


class Media:
    """A descriptor as the file object that PyAV reads; a read error is kept in ``failure`` and ends it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self.failure = ""

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes, none at the end."""
        try:
            return os.read(self._descriptor, count)
        except OSError as error:
            self.failure = error.strerror or str(error)
            return b""


class MediaFile(Media):
    """A file, with seeking."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """As for files."""
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        """As for files."""
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def shrunk(self) -> bool:
        """Return whether the file has become shorter since it was opened."""
        return os.fstat(self._descriptor).st_size < self._size


class MediaPipe(Media):
    """Standard input, without seeking.

    Sends ``wait`` messages while it waits for data, so that the reader's timeout does not expire.
    """

    def __init__(self, descriptor: int, server: IpcServer) -> None:
        super().__init__(descriptor)
        self._server, self.empty = server, True

    def read(self, count: int) -> bytes:
        while not select.select([self._descriptor], [], [], 1.0)[0]:
            self._server.send("wait")
        data = super().read(count)
        self.empty = self.empty and not data
        return data


def needed_bits(largest: int) -> int:
    """Bits of the smallest usual range (8, 10, 12, 14, 16) that holds a value of a 16-bit image."""
    return next((bits for bits in (8, 10, 12, 14) if largest < 1 << bits), 16)


class StderrLog:
    """Standard error of this process as a pipe, to read back what FFmpeg and image libraries print of damage.

    Python's own ``sys.stderr`` keeps its descriptor, so that a traceback still reaches the reader.
    """

    def __init__(self) -> None:
        sys.stderr = os.fdopen(os.dup(2), "w")
        self._read, write = os.pipe()
        # A library that prints more than a pipe holds loses text rather than time.
        os.set_blocking(self._read, False)
        os.set_blocking(write, False)
        os.dup2(write, 2)
        os.close(write)

    def take(self) -> str:
        """Text printed since the last call."""
        try:
            return os.read(self._read, 1 << 16).decode(errors="replace")
        except BlockingIOError:
            return ""


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ReaderGone:
        sys.exit(0)
