"""``Spool``: frames in order, kept to be read backward without decoding the video again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Self

import cv2
import numpy as np

from vltrack.core.files import as_resource_error
from vltrack.core.types import Frame, Image

MEMORY = 256 << 20
"""Bytes of frames that are kept as they are; the others lie in a temporary file, as JPEG."""
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]


class Spool:
    """Frames as a context: the first in memory, those beyond ``memory`` bytes as JPEG in a temporary file."""

    def __init__(self, memory: int = MEMORY) -> None:
        self._most, self._bytes = memory, 0
        self._frames: list[tuple[Frame, int, int]] = []
        self._file: IO[bytes] | None = None

    def add(self, frame: Frame) -> None:
        """Keep a copy of a frame. Raises ``ResourceError`` where the disk is full."""
        image = frame.image
        if image is None or self._bytes + image.nbytes <= self._most:
            self._bytes += 0 if image is None else image.nbytes
            self._frames.append((replace(frame, image=None if image is None else image.copy()), 0, 0))
            return
        data = cv2.imencode(".jpg", image[:, :, ::-1], _QUALITY)[1].tobytes()
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="vltrack-")  # noqa: SIM115 - closed by the context
            start = self._file.seek(0, 2)
            self._file.write(data)
        except OSError as error:
            raise as_resource_error(error, Path(tempfile.gettempdir())) from error
        self._frames.append((replace(frame, image=None), start, len(data)))

    def __reversed__(self) -> Iterator[Frame]:
        for frame, start, size in reversed(self._frames):
            if size and self._file is not None:
                self._file.seek(start)
                yield replace(frame, image=_decoded(self._file.read(size)))
            else:
                yield frame

    def clear(self) -> None:
        """Drop all frames."""
        self._frames.clear()
        self._bytes = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.clear()


def _decoded(data: bytes) -> Image:
    read = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(np.asarray(read, dtype=np.uint8)[:, :, ::-1])
