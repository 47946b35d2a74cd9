"""The one place where decoded video pictures become RGB uint8, upright. Knows PyAV frames, no containers.

Rules: matrix and range are the ones the stream states; a stream that states none is taken as BT.601, and as
limited range unless its pixel format is a full-range one (the same choice as FFmpeg and OpenCV). More than 8
bits are scaled to 8, gray is repeated, palettes are looked up, alpha is dropped. Pixels stay as stored: a
sample aspect ratio is reported, not applied.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vltrack.core.types import Image

_FULL_RANGE = 2
# libswscale flags: bilinear (2), accurate rounding (0x40000), full chroma interpolation (0x2000). Without
# them deep formats come out up to 4 levels too dark; 8-bit ones stay within 2 and keep the fast path.
_ACCURATE = 0x42002


@dataclass(frozen=True, slots=True)
class Upright:
    """How stored pixels become displayed: mirrored left to right, then turned clockwise by ``rotation``."""

    rotation: int = 0
    mirrored: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Displayed (width, height) of a stored size."""
        return (height, width) if self.rotation in (90, 270) else (width, height)

    def apply(self, image: Image, out: Image) -> None:
        """Write the displayed picture of a stored RGB (H, W, 3) into ``out``."""
        source, target = _as_cells(image), _as_cells(out)
        if self.mirrored:
            source = source[:, ::-1]
        target[...] = np.rot90(source, -self.rotation // 90)


def _as_cells(image: Image) -> NDArray[np.void]:
    """(H, W, 3) bytes as (H, W) cells of three bytes: turning moves whole pixels, twice as fast."""
    cells: NDArray[np.void] = image.view("V3")[..., 0]
    return cells


def upright_of(frame: av.VideoFrame) -> Upright:
    """The turn that a frame's display matrix asks for (H.273 and ISO 14496-12: nine 32-bit numbers)."""
    side: Any = frame.side_data.get("DISPLAYMATRIX")
    if side is None or side.buffer_size < 36:
        return Upright()
    a, b, _, c, d = struct.unpack_from("=5i", memoryview(side))
    return upright_of_matrix(a, b, c, d)


def upright_of_matrix(a: int, b: int, c: int, d: int) -> Upright:
    """The turn for the linear part of a display matrix: x' = a x + c y, y' = b x + d y, to a right angle."""
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Upright(0 if a + d >= 0 else 180, mirrored)
    return Upright(90 if b - c > 0 else 270, mirrored)


class Converter:
    """Turns decoded frames into RGB; keeps the scaling tables between frames of the same format."""

    def __init__(self) -> None:
        self._reformatter = av.video.reformatter.VideoReformatter()

    def rgb(self, frame: av.VideoFrame) -> Image:
        """RGB uint8 (H, W, 3) as stored, valid until the next call.

        Raises:
            av.FFmpegError, ValueError: the pixel format cannot be converted.
        """
        deep = any(component.bits > 8 for component in frame.format.components)
        converted = self._reformatter.reformat(
            frame,
            format="rgb24",
            dst_color_range=_FULL_RANGE,
            interpolation=_ACCURATE if deep else None,
            threads=1,
        )
        return np.asarray(converted.to_ndarray(), dtype=np.uint8)
