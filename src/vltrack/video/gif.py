"""Write annotated videos as animated GIF: small, silent, plays where a video does not."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av

from vltrack.core.errors import ResourceError
from vltrack.core.files import as_resource_error, atomic_path
from vltrack.core.types import Image

LONGEST_SIDE, RATE = 480, 12.5
_TICKS = 100  # per second, of the format


class _Abandoned(Exception):
    """Makes the temporary file's context delete it, without replacing the error that ended the block."""


class GifWriter:
    """Context manager that writes RGB images as GIF; the file appears only when the block succeeds.

    Images are reduced to ``LONGEST_SIDE``, and those left out that come faster than ``RATE``. Every image has its own
    palette, so that memory does not grow.

    Args:
        path: replaced where it exists.
        width, height: pixels of the images.

    Raises:
        ResourceError: it cannot be written.
    """

    def __init__(self, path: Path, *, width: int, height: int) -> None:
        self._path = path
        scale = min(1.0, LONGEST_SIDE / max(width, height))
        self._size = max(1, round(width * scale)), max(1, round(height * scale))
        self._first: float | None = None
        self._last = -1

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self._path))
            try:
                self._container: Any = av.open(os.fspath(temporary), "w", format="gif")
            except (av.FFmpegError, OSError) as error:
                raise self._resource_error(error) from error
            self._stream: Any = self._container.add_stream("gif", rate=_TICKS)
            self._stream.width, self._stream.height = self._size
            self._stream.pix_fmt = "pal8"
            self._stream.time_base = Fraction(1, _TICKS)
            self._stack = stack.pop_all()
        return self

    def write(self, image: Image, seconds: float) -> None:
        """Add one image, if it is time for one. Raises ``ResourceError``."""
        self._first = seconds if self._first is None else self._first
        ticks = round((seconds - self._first) * _TICKS)
        if self._last >= 0 and ticks - self._last < _TICKS / RATE - 1:
            return
        self._last = ticks
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = frame.reformat(*self._size, format="rgb24", interpolation="AREA")
        try:
            for packet in self._stream.encode(self._with_palette(frame, ticks)):
                self._container.mux(packet)
        except (av.FFmpegError, OSError) as error:
            raise self._resource_error(error) from error

    def _with_palette(self, frame: Any, ticks: int) -> Any:
        """Return the image as at most 256 colors of its own."""
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format.name, time_base=Fraction(1, _TICKS)
        )
        split, generate, use = (
            graph.add("split"),
            graph.add("palettegen", "stats_mode=single"),
            graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=5"),
        )
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(generate, 0, 0)
        split.link_to(use, 1, 0)
        generate.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        frame.pts, frame.time_base = 0, Fraction(1, _TICKS)
        source.push(frame)
        source.push(None)
        found = sink.pull()
        found.pts, found.time_base = ticks, Fraction(1, _TICKS)
        return found

    def _resource_error(self, error: BaseException) -> ResourceError:
        if isinstance(error, OSError):
            return as_resource_error(error, self._path)
        return ResourceError(f"Cannot write {self._path}: {error}.", hint="Choose another place to write to.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(_Abandoned), self._stack:
            try:
                if kind is None:
                    for packet in self._stream.encode(None):
                        self._container.mux(packet)
                self._container.close()
            except (av.FFmpegError, OSError) as failure:
                if kind is None:
                    raise self._resource_error(failure) from failure
            if kind is not None:
                raise _Abandoned
