"""Decode image files inside the decoder process, strictly: a damaged image is reported, never half gray.

OpenCV returns half-gray images for damaged files. Its image libraries print the damage to standard error
only, so that output is read back: an image about which they print an error counts as damaged.
"""

from __future__ import annotations

import re

import cv2
import numpy as np

from vltrack.core.types import Image
from vltrack.video.decoder_main import StderrLog, forbid_new_descriptors
from vltrack.video.ipc import IpcServer

# Messages about color profiles, text chunks or a few bytes of padding before the end marker (many webcams
# write them) do not concern pixels.
_HARMLESS = re.compile(
    r"iCCP|sRGB|gAMA|cHRM|tEXt|zTXt|iTXt|eXIf|bKGD|Unknown field|unknown field"
    r"|Corrupt JPEG data: [1-4] extraneous bytes before marker 0xd9"
)


MODES = {
    b"I": cv2.IMREAD_COLOR,
    b"R": cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    b"A": cv2.IMREAD_UNCHANGED,  # ignores the orientation as well
}
"""How an image is decoded, by the first letter of its request (``client.DecoderProcess.request``)."""


def serve_images(server: IpcServer) -> None:
    """Decode requested images one by one until the reader closes its end.

    16-bit channels are scaled to 8, gray is repeated; EXIF orientation is applied and alpha dropped in mode ``I``.
    """
    cv2.setNumThreads(1)
    log = StderrLog()
    forbid_new_descriptors()
    while True:
        request = server.request()
        try:
            image = _decode(request)
        except cv2.error:
            image = None
        lines = [line for line in log.take().strip().splitlines() if line.strip()]
        if image is None or not all(map(_HARMLESS.search, lines)):
            server.send("gap", reason=lines[0][:200] if lines else "not decodable")
            continue
        slot = server.reserve(*image.shape)
        code = cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        cv2.cvtColor(image, code, dst=slot.pixels)
        server.send_frame(slot)


def _decode(request: bytes) -> Image | None:
    """BGR uint8 (H, W, 3), in mode ``A`` BGRA (H, W, 4); None where it is damaged."""
    image = cv2.imdecode(np.frombuffer(request, dtype=np.uint8, offset=1), MODES[request[:1]])
    if image is None or image.dtype not in (np.uint8, np.uint16):
        return None
    pixels = np.asarray(image if image.dtype == np.uint8 else image.astype(np.uint16) >> 8, dtype=np.uint8)
    codes = {1: cv2.COLOR_GRAY2BGRA, 3: cv2.COLOR_BGR2BGRA} if request[:1] == b"A" else {}
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    return np.asarray(cv2.cvtColor(pixels, codes[channels]), dtype=np.uint8) if channels in codes else pixels
