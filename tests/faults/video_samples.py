"""Videos made on the spot for the fault tests: the brightness of a frame is its number."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vltrack.core.types import Frame
from vltrack.video.source import FrameSource, open_source

STEP = 2


def numbered_image(number: int, width: int = 160, height: int = 120) -> NDArray[np.uint8]:
    """Gray texture whose median encodes the number (up to 110)."""
    texture = np.random.default_rng(0).integers(-6, 7, (height, width, 1))
    return np.broadcast_to(20 + STEP * number + texture, (height, width, 3)).astype(np.uint8)


def read(path: Path | str, **options: Any) -> tuple[FrameSource, list[Frame]]:
    """A source, read to its end and closed, and its frames."""
    with open_source(path, **options) as source:
        return source, list(source)


def number_of(image: NDArray[np.uint8]) -> int:
    """Number of the ``numbered_image`` that an image shows."""
    return round((float(np.median(image)) - 20) / STEP)


def write_video(
    path: Path,
    count: int = 30,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    width: int = 160,
    height: int = 120,
    rate: int = 25,
    options: dict[str, str] | None = None,
    milliseconds: list[int] | None = None,
    rotation: int | None = None,
    matrix: tuple[int, ...] | None = None,
    sample_aspect: Fraction | None = None,
    container: dict[str, str] | None = None,
    images: list[NDArray[np.uint8]] | None = None,
) -> Path:
    """A video of ``numbered_image`` 0, 1, 2, ... (or of given images)."""
    with av.open(str(path), "w", container_options=container or {}) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if milliseconds and not codec.startswith("mpeg"):  # those know few rates
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if sample_aspect:
            stream.codec_context.sample_aspect_ratio = sample_aspect
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for number in range(count):
            image = images[number] if images else numbered_image(number, width, height)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if milliseconds:
                frame.pts, frame.time_base = milliseconds[number], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def spoil(path: Path, *, begin: float, share: float, mode: str) -> Path:
    """Overwrite or cut out a stretch of a file in place."""
    data = bytearray(path.read_bytes())
    low, length = int(len(data) * begin), int(len(data) * share)
    if mode == "zero":
        data[low : low + length] = bytes(length)
    elif mode == "noise":
        noise = np.random.default_rng(1).integers(0, 256, length, dtype=np.uint8)
        data[low : low + length] = noise.tobytes()
    else:
        del data[low : low + length]
    path.write_bytes(data)
    return path
