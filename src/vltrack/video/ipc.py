"""Inter-process communication between a source and its decoder process.

Messages are framed and travel over pipes; pixels travel through shared memory. Messages are JSON or raw
bytes, never pickle, so a decoder that a hostile file has taken over can send only numbers, text and pixels.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import select
import struct
import sys
import tempfile
from typing import Any, NamedTuple

import numpy as np

from vltrack.core.types import Image

SLOTS = 4
MAX_IMAGE_BYTES = 500 << 20
"""Bytes of an image file at most, which travels to the decoder in one message."""
_HEADER = struct.Struct(">I")


class Timeout(Exception):
    """No message came in time."""


class MediaError(Exception):
    """The media cannot be read; ``code`` is the name of the error class that the reader raises."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


class ReaderGone(Exception):
    """The reader has closed its end of the pipe; decoding stops."""


def send(descriptor: int, payload: bytes, timeout_s: float | None = None) -> None:
    """Write one message; a non-blocking pipe needs a ``timeout_s``.

    Raises:
        BrokenPipeError: the other side has closed the pipe.
        Timeout: the other side has read nothing for ``timeout_s`` seconds.
    """
    view = memoryview(_HEADER.pack(len(payload)) + payload)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            if not _ready(descriptor, select.POLLOUT, timeout_s):
                raise Timeout from None


class Receiver:
    """Reads framed messages of at most ``max_bytes`` from a pipe."""

    def __init__(self, descriptor: int, max_bytes: int = 1 << 20) -> None:
        self._descriptor, self._max_bytes = descriptor, max_bytes
        self._buffer = bytearray()

    def receive(self, timeout_s: float | None = None) -> bytes | None:
        """The next message, ``None`` when the other side has closed the pipe.

        Raises:
            Timeout: no data for ``timeout_s`` seconds.
            ValueError: the data is not framed in this way.
        """
        while (end := self._end()) is None:
            # Without a limit no poll: a process without free descriptors may not call it.
            if timeout_s is not None and not _ready(self._descriptor, select.POLLIN | select.POLLHUP, timeout_s):
                raise Timeout
            piece = os.read(self._descriptor, 1 << 16 if len(self._buffer) < 1 << 16 else 1 << 20)
            if not piece:
                return None
            self._buffer += piece
        message = bytes(memoryview(self._buffer)[_HEADER.size : end])
        del self._buffer[:end]
        return message

    def _end(self) -> int | None:
        """End of the first message in the buffer; None if it is not complete."""
        if len(self._buffer) < _HEADER.size:
            return None
        (size,) = _HEADER.unpack_from(self._buffer)
        if size > self._max_bytes:
            raise ValueError("message too long")
        return _HEADER.size + size if len(self._buffer) >= _HEADER.size + size else None


def _ready(descriptor: int, events: int, timeout_s: float | None) -> bool:
    poll = select.poll()
    poll.register(descriptor, events)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


class Ring:
    """``SLOTS`` frame buffers in anonymous shared memory.

    The memory has no name, so no file is left behind however the processes end; pages are taken only as far
    as frames fill them. A ``handle`` from 0 on is a descriptor. Where a limit on the size of files (``ulimit -f``)
    forbids that, it is -1 - ID of a shared memory segment of System V.
    """

    def __init__(self, handle: int, slot_bytes: int) -> None:
        self.handle, self.slot_bytes = handle, slot_bytes
        size = SLOTS * slot_bytes
        self._map: Any = mmap.mmap(handle, size) if handle >= 0 else _attach(-1 - handle, size)

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
        try:
            os.ftruncate(handle, SLOTS * slot_bytes)
        except OSError as error:
            os.close(handle)
            if error.errno != errno.EFBIG or sys.platform != "linux":
                raise
            segment = _libc().shmget(0, ctypes.c_size_t(SLOTS * slot_bytes), 0o1600)  # private, to be created
            if segment < 0:
                raise
            ring = cls(-1 - segment, slot_bytes)
            _libc().shmctl(segment, 0, None)  # removed when the last process detaches
            return ring
        return cls(handle, slot_bytes)

    def view(self, slot: int, height: int, width: int, channels: int = 3) -> Image:
        """Uint8 (height, width, channels), RGB or RGBA, that shares memory with a slot. Drop it before ``close``.

        Raises:
            ValueError: the frame does not fit or the slot does not exist.
        """
        count = height * width * channels
        if not (0 <= slot < SLOTS and min(height, width) > 0 and channels in (3, 4) and count <= self.slot_bytes):
            raise ValueError(f"no room for a frame of {width}x{height} in slot {slot}")
        flat = np.frombuffer(self._map, dtype=np.uint8, count=count, offset=slot * self.slot_bytes)
        return flat.reshape(height, width, channels)

    def close(self) -> None:
        """Unmap and close."""
        if self.handle < 0:
            _libc().shmdt(ctypes.byref(self._map))
            return
        self._map.close()
        os.close(self.handle)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _attach(segment: int, size: int) -> ctypes.Array[ctypes.c_ubyte]:
    attach = _libc().shmat
    attach.restype = ctypes.c_void_p
    address = attach(segment, None, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "shared memory cannot be attached")
    return (ctypes.c_ubyte * size).from_address(address)


class FrameSlot(NamedTuple):
    """A frame buffer in shared memory, to be filled with (H, W, 3) RGB or (H, W, 4) RGBA uint8 and then sent."""

    slot: int
    pixels: Image


class IpcServer:
    """The decoder's side: reserves free slots, sends rows, facts and errors."""

    def __init__(self, descriptor: int, receiver: Receiver, ring: Ring) -> None:
        self._descriptor, self._receiver, self._ring = descriptor, receiver, ring
        self._free = set(range(SLOTS))
        self._requests: list[bytes] = []

    def send(self, kind: str, **facts: Any) -> None:
        """Send one message. Raises ``ReaderGone``."""
        try:
            send(self._descriptor, json.dumps({"kind": kind, **facts}).encode())
        except BrokenPipeError as error:
            raise ReaderGone from error

    def reserve(self, height: int, width: int, channels: int = 3) -> FrameSlot:
        """A free slot for a frame; waits until the reader has emptied one. Raises ``ReaderGone``."""
        # Big frames use fewer slots, so that the ring stays small compared with the frames themselves.
        usable = max(1, min(SLOTS, (128 << 20) // (height * width * channels)))
        while SLOTS - len(self._free) >= usable:
            self._take_message()
        slot = min(self._free)
        return FrameSlot(slot, self._ring.view(slot, height, width, channels))

    def send_frame(self, frame: FrameSlot, **facts: Any) -> None:
        """Send a filled slot. Raises ``ReaderGone``."""
        self._free.discard(frame.slot)
        height, width, channels = frame.pixels.shape
        self.send("frame", slot=frame.slot, height=height, width=width, channels=channels, **facts)

    def request(self) -> bytes:
        """The next request: a mode (``decode_images.MODES``) and an image. ``ReaderGone`` when there will be none."""
        while not self._requests:
            self._take_message()
        return self._requests.pop(0)

    def _take_message(self) -> None:
        message = self._receiver.receive()
        if message is None:
            raise ReaderGone
        if message[:1] == b"S":
            self._free.add(message[1])
        else:
            self._requests.append(message)
