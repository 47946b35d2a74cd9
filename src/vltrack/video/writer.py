"""Write annotated videos: H.264 that browsers play; a file appears complete or not at all."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np

from vltrack.core.errors import ResourceError, UsageError
from vltrack.core.files import as_resource_error, atomic_path
from vltrack.core.types import Image
from vltrack.video.audio import RATE, AudioReader

# Ticks per second: divisible by all usual rates (24, 25, 30, 50, 60, 1000/1001 of them), the clock of MPEG.
_TICKS = 90_000
_DEFAULT_RATE = 25.0
_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".m4v"})
_JITTER = 0.1
"""Seconds by which a piece of sound may be off the end of the one before and still follow it."""
_BT709 = 1
_LIMITED_RANGE = 1


class _Abandoned(Exception):
    """Makes the temporary file's context delete it, without replacing the error that ended the block."""


class VideoWriter:
    """Context manager that writes RGB images as H.264 yuv420p; the file appears only when the block succeeds.

    The same images, times and libraries give the same bytes, on any number of cores. Memory is at most that of
    thirty frames at 720p, and of seven at 8K.

    Args:
        path: ``.mp4`` (fast start), ``.mov``, ``.m4v`` or ``.mkv``; its folder must exist.
        width, height: pixels of the images; odd sides are padded by one repeated row or column.
        rate: frames per second where ``write`` is given no seconds, default 25.
        sample_aspect: width of a displayed pixel divided by its height.
        audio: a video file whose sound is added, as AAC, from the first image that is written to the last.
        overwrite: replace an existing file.

    Raises:
        UsageError: the file exists and ``overwrite`` is off; unknown extension; sizes below 1.
        ResourceError: the folder is missing or read-only, the disk is full, the encoder is missing.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        width: int,
        height: int,
        rate: float | None = None,
        sample_aspect: float = 1.0,
        audio: Path | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        if width < 1 or height < 1:
            raise UsageError(f"Cannot write a video of {width}x{height} pixels.")
        if self.path.suffix.lower() not in _SUFFIXES:
            raise UsageError(f"Cannot write {self.path}: unknown extension.", hint="Videos are .mp4 or .mkv.")
        if self.path.is_dir():
            raise UsageError(f"{self.path} is a folder.", hint="Name a file in it.")
        if not overwrite and os.path.lexists(self.path):
            raise UsageError(f"{self.path} already exists.", hint="Pass overwrite (--overwrite) to replace it.")
        self.width, self.height = width, height
        self.frames = 0
        self._rate = rate if rate and 0 < rate <= 1000 else _DEFAULT_RATE
        self._aspect = sample_aspect
        self._last_ticks: int | None = None
        self._audio = audio
        self._sound: _Sound | None = None
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._open(stack.enter_context(atomic_path(self.path)))
            self._stack = stack.pop_all()
        return self

    def _open(self, temporary: Path) -> None:
        mov = self.path.suffix.lower() != ".mkv"
        try:
            options = {"movflags": "+faststart"} if mov else {}
            form = "mp4" if mov else "matroska"
            self._container = av.open(os.fspath(temporary), "w", format=form, container_options=options)
            stream = self._container.add_stream("libx264", rate=Fraction(self._rate).limit_denominator(1001))
        except (av.FFmpegError, ValueError) as error:
            raise self._resource_error(error) from error
        if self.width % 2 or self.height % 2:
            self._container.metadata["comment"] = f"image {self.width}x{self.height}, padded to even sides"
        stream.width, stream.height = self.width + self.width % 2, self.height + self.height % 2
        stream.pix_fmt = "yuv420p"
        # About 2 Mbit/s at 720p: against veryfast with crf 20 0.6 of the time, 13-20 % more bytes, 0.04-0.25 dB less.
        # By default the encoder keeps some twenty frames, which are 2 GB at 8K.
        ahead = max(1, min(10, 24_000_000 // (self.width * self.height)))
        small = {"bf": "0", "x264-params": "subme=0"} if ahead == 1 else {}
        stream.options = {"crf": "21", "preset": "superfast", "rc-lookahead": str(ahead)} | small
        stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS)
        context = stream.codec_context
        context.sample_aspect_ratio = Fraction(self._aspect).limit_denominator(1000)
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        context.thread_count = 4  # not the number of cores, on which the bytes of the file would depend
        self._stream = stream
        if self._audio is not None:
            self._sound = _Sound(self._container, self._audio)

    def write(self, image: Image, seconds: float | None = None) -> None:
        """Add one image.

        Args:
            image: RGB uint8 (height, width, 3). Another size is cut or padded at the right and bottom edge.
            seconds: presentation time; ``None`` continues at the writer's rate. Time that does not advance is
                moved on by the smallest step, so that no image is lost.

        Raises:
            ResourceError: the disk is full or the file cannot be written.
            UsageError: not RGB uint8, or the writer is not open.
        """
        if self._container is None:
            raise UsageError("The video writer is not open.", hint="Use it as a context manager.")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise UsageError(f"An image must be RGB uint8 (H, W, 3), got {image.dtype} {image.shape}.")
        frame = av.VideoFrame.from_numpy_buffer(self._fitted(image), format="rgb24")  # no copy
        frame = frame.reformat(
            format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE, interpolation="BILINEAR"
        )
        frame.pts, frame.time_base = self._ticks(seconds), Fraction(1, _TICKS)
        self._add_sound(frame.pts / _TICKS)
        self._encode(frame)
        self.frames += 1

    def _add_sound(self, seconds: float, *, last: bool = False) -> None:
        if self._sound is not None:
            try:
                self._sound.write(seconds, last=last)
            except (av.FFmpegError, OSError) as error:
                raise self._resource_error(error) from error

    def _ticks(self, seconds: float | None) -> int:
        step = round(_TICKS / self._rate)
        if seconds is None or not np.isfinite(seconds):
            ticks = 0 if self._last_ticks is None else self._last_ticks + step
        else:
            ticks = round(seconds * _TICKS)
        if self._last_ticks is not None:
            # Matroska counts milliseconds: anything closer would fall together.
            ticks = max(ticks, self._last_ticks + _TICKS // 1000)
        self._last_ticks = ticks
        return ticks

    def _fitted(self, image: Image) -> Image:
        image = image[: self.height, : self.width]
        down = self.height + self.height % 2 - image.shape[0]
        right = self.width + self.width % 2 - image.shape[1]
        if down or right:
            image = np.pad(image, ((0, down), (0, right), (0, 0)), mode="edge")
        return np.ascontiguousarray(image)

    def _encode(self, frame: Any) -> None:
        """Write one frame; None flushes."""
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except (av.FFmpegError, OSError) as error:
            raise self._resource_error(error) from error

    def _resource_error(self, error: BaseException) -> ResourceError:
        if isinstance(error, OSError):
            return as_resource_error(error, self.path)
        return ResourceError(f"Cannot write {self.path}: {error}.", hint="Choose another place to write to.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(_Abandoned), self._stack:
            try:
                if kind is None:
                    if self.frames == 0:
                        raise UsageError(f"No image was written to {self.path}.")
                    self._add_sound((self._last_ticks or 0) / _TICKS + 1 / self._rate, last=True)
                    self._encode(None)
                self._container.close()
            except (av.FFmpegError, OSError) as failure:
                if kind is None:  # else the file is not wanted, and the first error counts
                    raise self._resource_error(failure) from failure
            finally:
                self._container = None
                if self._sound is not None:
                    self._sound.close()
            if kind is not None:
                raise _Abandoned


class _Sound:
    """The sound of a video file as a second stream; it is read as far as images are written."""

    def __init__(self, container: Any, path: Path) -> None:
        self._container, self._path = container, path
        self._stream = container.add_stream("aac", rate=RATE, layout="stereo", bit_rate=128_000)
        self._stream.time_base = Fraction(1, RATE)
        self._reader: AudioReader | None = None
        self._place = -RATE

    def write(self, seconds: float, *, last: bool = False) -> None:
        """Write what comes before ``seconds``; the first call says where the sound begins."""
        if self._reader is None:
            self._reader = AudioReader(self._path, seconds)
        for stated, samples in self._reader.until(seconds):
            # Matroska rounds times to milliseconds.
            place = self._place if abs(stated - self._place) < _JITTER * RATE else stated
            if place < self._place:  # damaged times
                continue
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = RATE, place, Fraction(1, RATE)
            self._place = place + len(samples)
            self._mux(frame)
        if last:
            self._mux(None)

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            self._reader.close()
