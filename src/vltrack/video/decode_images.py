"""Decode image files inside the decoder process, strictly: a damaged image is reported, never half gray.

OpenCV returns half-gray images for damaged files. Its image libraries print the damage to standard error
only, so that output is read back: an image about which they print an error counts as damaged.
"""

from __future__ import annotations

import re

import cv2
import numpy as np

from vltrack.video.decoder_main import StderrLog, forbid_new_descriptors
from vltrack.video.ipc import IpcServer

# Messages about color profiles, text chunks or a few bytes of padding before the end marker (many webcams
# write them) do not concern pixels.
_HARMLESS = re.compile(
    r"iCCP|sRGB|gAMA|cHRM|tEXt|zTXt|iTXt|eXIf|bKGD|Unknown field|unknown field"
    r"|Corrupt JPEG data: [1-4] extraneous bytes before marker 0xd9"
)


def serve_images(server: IpcServer) -> None:
    """Decode requested images one by one until the reader closes its end.

    16-bit channels are scaled to 8, EXIF orientation is applied, gray is repeated, alpha is dropped.
    """
    cv2.setNumThreads(1)
    log = StderrLog()
    forbid_new_descriptors()
    while True:
        data = server.request()
        try:
            image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            image = None
        lines = [line for line in log.take().strip().splitlines() if line.strip()]
        if image is None or not all(map(_HARMLESS.search, lines)):
            server.send("gap", reason=lines[0][:200] if lines else "not decodable")
            continue
        slot = server.reserve(*image.shape[:2])
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=slot.pixels)
        server.send_frame(slot)
