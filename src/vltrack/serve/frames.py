"""Frames of the studio's videos as JPEG, by number: a few open readers, and a bounded memory of images."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cv2

from vltrack.core.errors import ImageError
from vltrack.core.types import Frame
from vltrack.video.reader import FrameReader

BEHIND = 12
"""Frames before the one that is asked for, kept where the reader goes back: stepping back reads them next."""
_QUALITY, _THUMBNAIL = 88, 320


class Frames:
    """Readers and JPEGs, both the latest used ones.

    Args:
        cache: bytes of JPEGs; readers: videos that are open at once.
    """

    def __init__(self, cache: int, readers: int) -> None:
        self._most, self._readers_most = cache, readers
        self._lock = threading.Lock()
        self._images: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._bytes = 0
        self._readers: OrderedDict[str, FrameReader] = OrderedDict()
        self._places: dict[str, int] = {}

    def reader(self, path: str | Path) -> FrameReader:
        """Return the open reader of a video. Raises what ``FrameReader`` raises."""
        key = str(path)
        with self._lock:
            if key in self._readers:
                self._readers.move_to_end(key)
                return self._readers[key]
        opened = FrameReader(key)
        with self._lock:
            known = self._readers.setdefault(key, opened)
            closing = [opened] if known is not opened else []
            while len(self._readers) > self._readers_most:
                closing.append(self._readers.popitem(last=False)[1])
        for each in closing:
            each.close()
        return known

    def jpeg(self, path: str | Path, index: int, width: int = 0) -> bytes:
        """Return one frame as JPEG, reduced to ``width`` pixels where it is wider and ``width`` is not 0.

        Raises:
            ImageError: the frame does not decode.
            BoxFrameOutOfRange, VideoReadError, ...: see ``FrameReader.read``.
        """
        key = (str(path), index, width)
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
                return self._images[key]
            back = (width == 0 or width > _THUMBNAIL) and 0 < self._places.get(key[0], 0) - index <= BEHIND
            self._places[key[0]] = index
        reader = self.reader(path)
        if back:
            for before in range(max(0, index - BEHIND), index):
                if (key[0], before, width) not in self._images:
                    self._keep((key[0], before, width), reader.read(before))
        image = self._keep(key, reader.read(index))
        if image is None:
            raise ImageError(f"Frame {index} does not decode.", hint="Go to another one.")
        return image

    def _keep(self, key: tuple[str, int, int], frame: Frame) -> bytes | None:
        if frame.image is None:
            return None
        image: Any = frame.image[:, :, ::-1]
        width = key[2]
        if width and width < image.shape[1]:
            size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        data = bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes())
        with self._lock:
            if key not in self._images:
                self._bytes += len(data)
            self._images[key] = data
            while self._bytes > self._most and len(self._images) > 1:
                self._bytes -= len(self._images.popitem(last=False)[1])
        return data

    def forget(self, path: str | Path) -> None:
        """Close the reader of a video and drop its images."""
        with self._lock:
            reader = self._readers.pop(str(path), None)
            for key in [key for key in self._images if key[0] == str(path)]:
                self._bytes -= len(self._images.pop(key))
        if reader is not None:
            reader.close()

    def close(self) -> None:
        """Close all readers."""
        with self._lock:
            paths = list(self._readers)
        for path in paths:
            self.forget(path)
