"""How the reader and its decoder process talk: framed messages over pipes, pixels through shared memory.

Knows no media. No pickle crosses the border: messages are JSON or raw bytes, so a decoder that was taken over
by a hostile file can send nothing but numbers, words and pixels.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import struct
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SLOTS = 4
# Big frames use fewer of the slots, so that the ring stays small against the frames themselves.
RING_BYTES = 256 << 20
# An image file travels to the decoder in one message.
MAX_IMAGE_BYTES = 500 << 20
_HEADER = struct.Struct(">I")


class Timeout(Exception):
    """No message came in time."""


def send(handle: int, payload: bytes, timeout_s: float | None = None) -> None:
    """Write one message; a pipe that does not block needs a ``timeout_s``.

    Raises:
        BrokenPipeError: nobody reads any more.
        Timeout: the other side has taken nothing for ``timeout_s`` seconds.
    """
    view = memoryview(_HEADER.pack(len(payload)) + payload)
    while view:
        try:
            view = view[os.write(handle, view) :]
        except BlockingIOError:
            if not _ready(handle, select.POLLOUT, timeout_s):
                raise Timeout from None


def send_json(handle: int, message: dict[str, Any]) -> None:
    """Write one JSON message."""
    send(handle, json.dumps(message).encode())


class Receiver:
    """Reads framed messages of at most ``max_bytes`` from a pipe."""

    def __init__(self, handle: int, max_bytes: int = 1 << 20) -> None:
        self._handle = handle
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def receive(self, timeout_s: float | None = None) -> bytes | None:
        """The next message, ``None`` when the other side has closed the pipe.

        Raises:
            Timeout: nothing came for ``timeout_s`` seconds.
            ValueError: the other side does not speak this protocol.
        """
        while (message := self._cut()) is None:
            # Without a limit no poll: a process without descriptor numbers left (see sandbox) may not.
            if timeout_s is not None and not _ready(self._handle, select.POLLIN | select.POLLHUP, timeout_s):
                raise Timeout
            piece = os.read(self._handle, 1 << 16 if len(self._buffer) < 1 << 16 else 1 << 20)
            if not piece:
                return None
            self._buffer += piece
        return message

    def _cut(self) -> bytes | None:
        if len(self._buffer) < _HEADER.size:
            return None
        (size,) = _HEADER.unpack_from(self._buffer)
        if size > self._max_bytes:
            raise ValueError("message too long")
        if len(self._buffer) < _HEADER.size + size:
            return None
        message = bytes(memoryview(self._buffer)[_HEADER.size : _HEADER.size + size])
        del self._buffer[: _HEADER.size + size]
        return message


def _ready(handle: int, events: int, timeout_s: float | None) -> bool:
    poll = select.poll()
    poll.register(handle, events)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


class Ring:
    """``SLOTS`` places for frames in anonymous shared memory.

    The memory has no name, so nothing is left behind however the processes end; pages are taken only as far
    as frames fill them.
    """

    def __init__(self, handle: int, slot_bytes: int) -> None:
        self.handle = handle
        self.slot_bytes = slot_bytes
        self._map = mmap.mmap(handle, SLOTS * slot_bytes)

    @classmethod
    def create(cls, max_pixels: int) -> Ring:
        """A new ring for RGB frames of at most ``max_pixels``; the caller closes it."""
        page = mmap.ALLOCATIONGRANULARITY
        slot_bytes = -(-max_pixels * 3 // page) * page
        if hasattr(os, "memfd_create"):
            handle = os.memfd_create("vltrack-frames")
        else:
            with tempfile.TemporaryFile() as file:
                handle = os.dup(file.fileno())
        os.ftruncate(handle, SLOTS * slot_bytes)
        return cls(handle, slot_bytes)

    def view(self, slot: int, height: int, width: int) -> NDArray[np.uint8]:
        """RGB uint8 (height, width, 3) that shares memory with a slot. Drop it before ``close``.

        Raises:
            ValueError: the frame does not fit or the slot does not exist.
        """
        count = height * width * 3
        if not (0 <= slot < SLOTS and min(height, width) > 0 and count <= self.slot_bytes):
            raise ValueError(f"no room for a frame of {width}x{height} in slot {slot}")
        flat = np.frombuffer(self._map, dtype=np.uint8, count=count, offset=slot * self.slot_bytes)
        return flat.reshape(height, width, 3)

    def close(self) -> None:
        """Unmap and close."""
        self._map.close()
        os.close(self.handle)


# MERGED video/ipc.py
# The decoder process's side of the channel: asks for slots, sends rows and facts. Decodes nothing.


class MediaError(Exception):
    """The media cannot be read; ``code`` is the name of the error class that the reader raises."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


class ReaderGone(Exception):
    """The reader has closed its end; there is nobody to decode for."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A place in shared memory to be filled and then sent."""

    slot: int
    pixels: NDArray[np.uint8]


class IpcServer:
    """The decoder's side of the channel: asks for free slots, sends rows, facts and errors."""

    def __init__(self, handle: int, receiver: Receiver, ring: Ring) -> None:
        self._handle = handle
        self._receiver = receiver
        self._ring = ring
        self._free = set(range(SLOTS))
        self.requests: list[bytes] = []

    def say(self, kind: str, **facts: Any) -> None:
        """Send one message. Raises ``ReaderGone``."""
        try:
            send_json(self._handle, {"kind": kind, **facts})
        except BrokenPipeError as error:
            raise ReaderGone from error

    def place(self, height: int, width: int) -> Picture:
        """A free slot for a frame; waits until the reader has emptied one. Raises ``ReaderGone``."""
        usable = max(2, min(SLOTS, RING_BYTES // (height * width * 3)))
        while SLOTS - len(self._free) >= usable:
            self._take_message()
        slot = min(self._free)
        return Picture(slot, self._ring.view(slot, height, width))

    def frame(self, picture: Picture, **facts: Any) -> None:
        """Send a filled picture."""
        self._free.discard(picture.slot)
        height, width = picture.pixels.shape[:2]
        self.say("frame", slot=picture.slot, height=height, width=width, **facts)

    def request(self) -> bytes:
        """The next image to decode. Raises ``ReaderGone`` when there will be none."""
        while not self.requests:
            self._take_message()
        return self.requests.pop(0)

    def _take_message(self) -> None:
        message = self._receiver.receive()
        if message is None:
            raise ReaderGone
        if message[:1] == b"S":
            self._free.add(message[1])
        else:
            self.requests.append(message[1:])
