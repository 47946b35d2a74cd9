"""The decoder process's side of the channel: asks for slots, sends rows and facts. Decodes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vltrack.video.channel import RING_BYTES, SLOTS, Receiver, Ring, send_json


class Refusal(Exception):
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


class Outlet:
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
