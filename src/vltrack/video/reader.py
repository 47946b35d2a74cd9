"""``FrameReader``: any frame of a video or an image folder by its number, in any order."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Self

from vltrack.core.errors import BoxFrameOutOfRange, VideoReadError, VltrackError
from vltrack.core.files import printable
from vltrack.core.types import Frame
from vltrack.video.base import DEFAULT_LIMITS, FrameSource, Limits, ReadReport
from vltrack.video.client import Canceled, DecoderProcess, decoder_error
from vltrack.video.source import open_source


class FrameReader:
    """Reads frames by number, in a decoder process that stays open. Safe to share between threads.

    MP4, MOV, Matroska and WebM seek to the key frame before; other files go forward, or start over.

    Args:
        source: a video file, an image or a folder of images.
        limits: bounds on what it may cost.

    Attributes:
        info: facts about the source; ``frames``: their number, None if unknown.

    Raises:
        InputError, PartialResult, ResourceError: see ``open_source``.
    """

    def __init__(self, source: str | Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self._source, self._limits = str(source), limits
        self._lock = threading.RLock()
        self._decoder: DecoderProcess | None = None
        self._pass: FrameSource | None = open_source(self._source, limits=limits)
        self._next = 0
        self.info, self.frames = self._pass.info, self._pass.info.frames_about
        if self.info.kind == "file":
            self._open_numbered()

    def _open_numbered(self) -> None:
        """Ask the decoder for a table of frames; without one the file is read in passes."""
        media = os.open(self._source, os.O_RDONLY)
        try:
            job = {"source": "file", "format": None, "address": None, "numbered": True}
            decoder = DecoderProcess(job, name=self.info.name, limits=self._limits, media=media)
        finally:
            os.close(media)
        try:
            ready = decoder.receive()
        except VltrackError:
            ready = {"kind": "error"}
        if ready["kind"] != "ready":
            decoder.close()
            return
        self._decoder, self.frames = decoder, int(ready["frames"])
        if self._pass is not None:
            self._pass.close()
        self._pass = None

    def read(self, index: int) -> Frame:
        """Return one frame; its ``image`` is None where it does not decode.

        Raises:
            BoxFrameOutOfRange: no frame has that number.
            VideoReadError, VideoTimeout, VideoDecoderCrashed: reading broke off.
        """
        with self._lock:
            if index < 0 or (self._decoder is not None and index >= (self.frames or 0)):
                raise self._beyond(index)
            return self._in_passes(index) if self._decoder is None else self._numbered(self._decoder, index)

    def _numbered(self, decoder: DecoderProcess, index: int) -> Frame:
        decoder.request(str(index).encode(), b"F")
        try:
            message = decoder.receive()
        except VltrackError:
            self.close()  # the next read starts over, in passes
            raise
        if message["kind"] not in ("frame", "gap"):
            raise decoder_error(message, self.info.name)
        return Frame(image=message.get("image"), index=index, seconds=float(message["seconds"]))

    def _in_passes(self, index: int) -> Frame:
        if self._pass is None or not self._next <= index <= self._next + 500:
            if self._pass is not None:
                self._pass.close()
            self._pass = open_source(self._source, start=index, limits=self._limits)
        for frame in self._pass:
            self._next = frame.index + 1
            if frame.index >= index:
                return frame
        failure, self._pass = self._pass.report.failure, None
        if failure is not None:
            raise VideoReadError(failure.message, hint=failure.hint) from failure
        raise self._beyond(index)

    def _beyond(self, index: int) -> BoxFrameOutOfRange:
        hint = f"It has {self.frames} frames." if self.frames else "Choose another one."
        return BoxFrameOutOfRange(f"{printable(self.info.name)} has no frame {index}.", hint=hint)

    def frames_from(self, start: int) -> FrameSource:
        """Return the frames from ``start`` to the last as a source; closing it closes this reader."""
        return _From(self, start)

    def cancel(self) -> None:
        """Make a ``read`` that waits in another thread end with ``client.Canceled``."""
        for each in (self._decoder, self._pass):
            if each is not None:
                each.cancel()

    def close(self) -> None:
        """Stop the decoder. Safe to call any number of times."""
        with self._lock:
            for each in (self._decoder, self._pass):
                if each is not None:
                    each.close()
            self._decoder = self._pass = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class _From(FrameSource):
    """The frames of a reader from one on."""

    def __init__(self, reader: FrameReader, start: int) -> None:
        self._reader, self._next = reader, start
        count = reader.info.frames if reader.frames is None else reader.frames
        self.info = replace(reader.info, frames=None if count is None else max(0, count - start))
        self.report = ReadReport()

    def __next__(self) -> Frame:
        try:
            frame = self._reader.read(self._next)
        except (BoxFrameOutOfRange, Canceled):
            raise StopIteration from None
        except VltrackError as error:
            self.report.failure = error
            self.report.warnings.append(str(error))
            raise StopIteration from None
        self._next = frame.index + 1
        self.report.missing += frame.image is None
        self.report.decoded += frame.image is not None
        return frame

    def cancel(self) -> None:
        self._reader.cancel()

    def close(self) -> None:
        self._reader.close()
