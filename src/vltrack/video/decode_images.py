"""Image files inside the decoder process: bytes to upright RGB, strictly. Knows no files and no order.

OpenCV hands out half-gray pictures for damaged files. Its image libraries do complain, on standard error
only, so their complaints are read back: an image that was complained about counts as damaged.
"""

from __future__ import annotations

import re

import cv2
import numpy as np
from numpy.typing import NDArray

from vltrack.video import decoder_main as sandbox
from vltrack.video.decoder_main import StderrLog
from vltrack.video.ipc import IpcServer

# Many webcams write a byte or two before the end marker.
_PADDING = re.compile(r"Corrupt JPEG data: [1-4] extraneous bytes before marker 0xd9")


def serve_images(outlet: IpcServer) -> None:
    """Decode requested images one by one until the reader leaves.

    16-bit channels are scaled to 8, EXIF orientation is applied, gray is repeated, alpha is dropped.
    """
    cv2.setNumThreads(1)
    complaints = StderrLog()
    sandbox.forbid_new_descriptors()
    while True:
        data = outlet.request()
        image = _decoded(data)
        complaint = complaints.take()
        if image is None or _is_damage(complaint):
            outlet.say(
                "gap",
                reason=complaint.strip().splitlines()[0][:200] if complaint.strip() else "not decodable",
            )
            continue
        picture = outlet.place(*image.shape[:2])
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=picture.pixels)
        outlet.frame(picture)


def _decoded(data: bytes) -> NDArray[np.uint8] | None:
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if image is None else np.asarray(image, dtype=np.uint8)


def _is_damage(complaint: str) -> bool:
    """StderrLog about colour profiles, text chunks or a few bytes of padding do not touch pixels."""
    lines = [line for line in complaint.splitlines() if line.strip()]
    harmless = (
        "iCCP",
        "sRGB",
        "gAMA",
        "cHRM",
        "tEXt",
        "zTXt",
        "iTXt",
        "eXIf",
        "bKGD",
        "Unknown field",
        "unknown field",
    )
    return any(not any(word in line for word in harmless) and not _PADDING.search(line) for line in lines)
