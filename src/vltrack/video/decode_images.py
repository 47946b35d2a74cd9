"""Decode image files inside the decoder process, strictly: a damaged image is reported, never half gray.

OpenCV returns half-gray images for damaged files. Its image libraries print the damage to standard error
only, so that output is read back: an image about which they print an error counts as damaged.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vltrack.core.types import Image
from vltrack.video.decoder_main import StderrLog, forbid_new_descriptors, needed_bits
from vltrack.video.ipc import IpcServer

# Messages about chunks of a PNG that are not its pixels (their names begin in lower case), tags of a TIFF, or a few
# bytes of padding before the end marker of a JPEG (many webcams write them) do not concern pixels.
_HARMLESS = re.compile(
    r"libpng warning: [a-z][A-Za-z]{3}: |(?:TIFFFetch\w+|TIFFReadDirectory\w*|_TIFFVSetField): |unknown JFIF revision"
    r"|Corrupt JPEG data: [1-4] extraneous bytes before marker 0xd9"
)


_LOG_PREFIX = re.compile(r"^\[ *[A-Z]+:\d+@[\d.]+\] global \S+ \w+ ")
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
MODES = {
    b"I": _FLAGS,
    b"R": _FLAGS | cv2.IMREAD_IGNORE_ORIENTATION,
    b"A": cv2.IMREAD_UNCHANGED,  # ignores the orientation as well
}
"""How an image is decoded, by the first letter of its request (``client.DecoderProcess.request``)."""


def serve_images(server: IpcServer, *, sequence: bool = False) -> None:
    """Decode requested images one by one until the reader closes its end.

    Gray is repeated; EXIF orientation is applied and alpha dropped in mode ``I``. Channels of 16 bits are scaled
    from the range that their largest value needs (8, 10, 12, 14 or 16 bits).

    Args:
        server: the reader's other end.
        sequence: the images are frames, so that the range never narrows from one to the next.
    """
    cv2.setNumThreads(1)
    log = StderrLog()
    forbid_new_descriptors()
    pages = _Pages(log)
    bits = 8
    while True:
        request = server.request()
        try:
            image = pages.decode(request) if request[:1] == b"P" else _decode(request)
        except cv2.error:
            image = None
        lines = [line for line in log.take().strip().splitlines() if line.strip()]
        if image is None or not all(map(_HARMLESS.search, lines)):
            reason = _LOG_PREFIX.sub("", lines[0]).split(": OpenCV(")[0][:200] if lines else "not decodable"
            server.send("gap", reason=reason)
            continue
        if image.dtype == np.uint16:
            bits = max(bits if sequence else 8, needed_bits(int(image.max())))
            image = (image >> (bits - 8)).astype(np.uint8)
        image = _with_channels(image, alpha=request[:1] == b"A")
        slot = server.reserve(*image.shape)
        code = cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        cv2.cvtColor(image, code, dst=slot.pixels)
        server.send_frame(slot)


def _decode(request: bytes) -> NDArray[Any] | None:
    """BGR of 8 or 16 bits, in mode ``A`` as stored; None where it is damaged."""
    return _usable(cv2.imdecode(np.frombuffer(request, dtype=np.uint8, offset=1), MODES[request[:1]]))


def _usable(image: NDArray[Any] | None) -> NDArray[Any] | None:
    return image if image is not None and image.dtype in (np.uint8, np.uint16) else None


class _Pages:
    """Pages of the last file that was sent; those of an animation are decoded a few ahead."""

    def __init__(self, log: StderrLog) -> None:
        self._log = log
        self._file = np.empty(0, np.uint8)
        self._ready: dict[int, NDArray[Any]] = {}

    def decode(self, request: bytes) -> NDArray[Any] | None:
        """As ``_decode``, for a page: ``P``, its number, the page up to which to decode, the file if it is another."""
        page, end = struct.unpack_from(">II", request, 1)
        if len(request) > 9:
            self._file = np.frombuffer(request, dtype=np.uint8, offset=9)
        if page not in self._ready:
            images: Any
            if self._file[:4].tobytes() == b"RIFF":  # of which ``imdecodemulti`` always returns the first pages
                images = [image[..., :3] for image in cv2.imdecodeanimation(self._file, page, end - page)[1].frames]
                self._log.take()  # names the first page that is damaged, which is not among them
            else:
                images = cv2.imdecodemulti(self._file, _FLAGS, range=(page, end))[1]
            self._ready = dict(enumerate(images, page))
        return _usable(self._ready.pop(page, None))


def _with_channels(pixels: Image, *, alpha: bool) -> Image:
    """BGR of gray, with ``alpha`` BGRA of gray or BGR."""
    codes = {1: cv2.COLOR_GRAY2BGRA, 3: cv2.COLOR_BGR2BGRA} if alpha else {1: cv2.COLOR_GRAY2BGR}
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    return np.asarray(cv2.cvtColor(pixels, codes[channels]), dtype=np.uint8) if channels in codes else pixels
