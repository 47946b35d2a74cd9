"""Frame sources: their interface, limits, facts, report, accepted media formats, and prefetching."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, Self

from vltrack.core.errors import UsageError, VltrackError
from vltrack.core.types import Frame, whole

Kind = Literal["file", "folder", "camera", "stdin", "network", "frames"]


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


IMAGE_SUFFIXES = frozenset(_names(".jpg .jpeg .jpe .jfif .jif .png .bmp .dib .webp .tif .tiff .ppm .pgm .pbm .pnm"))
# Images that are not read; where they are left out of a folder they are named.
FOREIGN_IMAGES = frozenset(
    _names(
        ".heic .heif .avif .jxl .jp2 .j2k .jpx .jxr .jls .tga .exr .hdr .pfm .gif .psd .svg .dpx .pcx .qoi .ico "
        ".raw .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf"
    )
)


# Containers by FFmpeg's demuxer names. Absent on purpose: every format that can name another file or address
# (hls, dash, concat, sdp, image2, lavfi, imf, ...). Audio containers are listed so that a sound file gets the
# error "no video stream" instead of "not a known video container".
CONTAINERS = _names(
    "mov matroska avi mpegts mpeg mpegvideo flv asf ogg gif apng h264 hevc m4v mjpeg ivf obu yuv4mpegpipe "
    "mxf dv nut rm mp3 wav flac aac"
)
# Concatenated images, on standard input or in a file (motion JPEG is stored like that).
PIPES = _names("jpeg_pipe png_pipe bmp_pipe webp_pipe ppm_pipe pgm_pipe tiff_pipe mpjpeg")
VIDEO_CODECS = _names(
    "h264 hevc vp8 vp9 libvpx libvpx-vp9 av1 libdav1d mpeg1video mpeg2video mpegvideo mpeg4 msmpeg4 "
    "msmpeg4v1 msmpeg4v2 h263 h263i h263p flv wmv1 wmv2 wmv3 vc1 mjpeg mjpegb png apng gif bmp tiff webp "
    "ppm pgm rawvideo wrapped_avframe prores dnxhd cfhd ffv1 huffyuv ffvhuff utvideo magicyuv qtrle theora "
    "dvvideo cinepak svq1 svq3 rv10 rv20 rv30 rv40 msvideo1 msrle rpza v210 vvc"
)
_AHEAD_BYTES = 64 << 20  # of frames that were read ahead
_JOIN_S = 0.2  # how long a prefetching thread may take to notice that it was stopped


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what a source may cost. All are checked before memory is taken.

    Attributes:
        max_pixels: largest width * height of one frame.
        memory_bytes: address space of the decoder process (RLIMIT_AS), at least 512 MiB.
        frame_timeout_s: seconds without a message after which the decoder is stopped.
        bad_share: share of undecodable frames of a video above which its result counts as degraded.
        folder_rate: frames per second assumed for image folders and image streams, which carry no time.

    Raises:
        UsageError: a limit out of range.
    """

    max_pixels: int = 100_000_000
    memory_bytes: int = 4 << 30
    frame_timeout_s: float = 30.0
    bad_share: float = 0.05
    folder_rate: float = 25.0

    def __post_init__(self) -> None:
        for name in ("max_pixels", "frame_timeout_s", "folder_rate"):
            if (value := getattr(self, name)) <= 0:
                raise UsageError(f"Video limit {name} must be positive, got {value}.")
        if self.memory_bytes < 512 << 20:
            raise UsageError(f"Video limit memory_bytes must be at least 512 MiB, got {self.memory_bytes}.")
        if not 0 <= self.bad_share <= 1:
            raise UsageError(f"Video limit bad_share must be between 0 and 1, got {self.bad_share}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameSlice:
    """Frame numbers to return: ``start``, ``start + stride``, ... below ``end`` (None: to the last).

    Raises:
        TypeError: a number is not whole.
        UsageError: the range does not run forward from a frame that exists.
    """

    start: int = 0
    end: int | None = None
    stride: int = 1

    def __post_init__(self) -> None:
        for name in ("start", "end", "stride"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, whole(name, value))
        if self.start < 0 or self.stride < 1 or (self.end is not None and self.end <= self.start):
            raise UsageError(
                f"Invalid frame range: start={self.start}, end={self.end}, stride={self.stride}.",
                hint="The first frame is 0, the end is not included, the stride is at least 1.",
            )


WHOLE = FrameSlice()
DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInfo:
    """Facts about a source, available once its first frame is decoded.

    Attributes:
        kind: where the frames come from; ``frames`` is a list of images from a glob, or a single image.
        name: path or address as given, without user name and password.
        width, height: pixels of the first frame as displayed (rotation applied), stored pixels (not square
            ones).
        rate: frames per second that the container claims; an assumption for image folders; ``None`` if
            unknown.
        frames: expected number of frames in the whole source (not in the slice), ``None`` if unknown.
        seconds: duration that the container claims, ``None`` if unknown.
        rotation: degrees clockwise (0, 90, 180, 270) that were applied to the stored pixels.
        mirrored: whether the stored pixels were also mirrored left to right, before the rotation.
        sample_aspect: width of a displayed pixel divided by its height.
        audio: whether a file has sound.
    """

    kind: Kind
    name: str
    width: int
    height: int
    rate: float | None
    frames: int | None
    seconds: float | None
    rotation: int = 0
    mirrored: bool = False
    sample_aspect: float = 1.0
    audio: bool = False

    @property
    def frames_about(self) -> int | None:
        """``frames``, or what duration and rate give where the container counts none (Matroska, MPEG)."""
        return self.frames or (round(self.seconds * self.rate) if self.seconds and self.rate else None)


@dataclass(kw_only=True)
class ReadReport:
    """Reading statistics; grow as frames are taken, complete when the iterator has ended.

    Attributes:
        decoded: frames returned with an image.
        missing: gap rows returned (``image is None``).
        damaged: frames returned whose image the decoder had to conceal; they carry the flag ``damaged``.
        bad_packets: damaged packets or images that were skipped.
        expected: frames that the container promises, ``None`` if unknown.
        ignored_files: files of a folder that are not images, or hidden.
        truncated: the source ended before its promised end.
        warnings: sentences for the user.
        failure: error that ended the reading early (timeout, crash, read error), ``None`` without one.
        bad_share: share of missing and damaged frames above which the result is degraded.
    """

    decoded: int = 0
    missing: int = 0
    damaged: int = 0
    bad_packets: int = 0
    expected: int | None = None
    ignored_files: int = 0
    truncated: bool = False
    warnings: list[str] = field(default_factory=list)
    failure: VltrackError | None = None
    bad_share: float = 0.05

    @property
    def degraded(self) -> bool:
        """Return whether the result is only partial, so that the command has to exit with code 7."""
        if self.failure is not None or self.truncated:
            return True
        return self.missing + self.damaged > self.bad_share * (self.decoded + self.missing)


class FrameSource(ABC):
    """An iterator of ``Frame`` that is also a context manager; made by ``open_source``.

    ``Frame.index`` counts frames of the source (not of the slice), ``Frame.seconds`` runs from its first
    frame. Failures before the first frame raise when the source is opened. Failures after it end the
    iteration and are kept in ``report.failure``, so that the rows so far survive.

    Attributes:
        info: facts about the source.
        report: statistics of the reading so far.
    """

    info: SourceInfo
    report: ReadReport

    def __iter__(self) -> Iterator[Frame]:
        return self

    @abstractmethod
    def __next__(self) -> Frame: ...

    @abstractmethod
    def cancel(self) -> None:
        """Make a ``next()`` that waits in another thread end soon. Safe from any thread, repeatable."""

    @abstractmethod
    def close(self) -> None:
        """Stop the decoder and free its memory. Safe to call any number of times."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _End:
    """The end of a prefetched iteration; ``error`` is what stopped the producer."""

    error: BaseException | None = None


@contextmanager
def prefetch(frames: Iterable[Frame], depth: int = 4) -> Iterator[Iterator[Frame]]:
    """Iterate ``frames`` in a thread that runs at most ``depth`` frames ahead, large ones by fewer.

    An exception of the producer is raised where its frame would have come. When the block is left early the
    producer is stopped: at once where it has a ``cancel`` method (every ``FrameSource``); otherwise it is
    abandoned as a daemon thread after a moment, so a stuck producer never delays an exception.

    Raises:
        UsageError: ``depth`` is below 1.
    """
    if depth < 1:
        raise UsageError(f"Prefetch depth must be at least 1, got {depth}.")
    fetched: queue.Queue[Frame | _End] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: Frame | _End) -> bool:
        while not stop.is_set():
            with suppress(queue.Full):
                fetched.put(item, timeout=0.05)
                break
        size = 0 if isinstance(item, _End) or item.image is None else item.image.nbytes
        del item
        while fetched.qsize() * size > _AHEAD_BYTES and not stop.wait(0.005):
            pass
        return not stop.is_set()

    def produce() -> None:
        end = _End()
        try:
            all(map(put, frames))
        except BaseException as error:  # noqa: BLE001 - passed to the consumer, which raises it
            end = _End(error)
        put(end)

    def consume() -> Iterator[Frame]:
        while not isinstance(item := fetched.get(), _End):
            yield item
        if item.error is not None:
            raise item.error

    producer = threading.Thread(target=produce, name="vltrack-prefetch", daemon=True)
    producer.start()
    try:
        yield consume()
    finally:
        stop.set()
        with suppress(queue.Empty):
            while True:
                fetched.get_nowait()
        producer.join(_JOIN_S)
        cancel: Callable[[], None] | None = getattr(frames, "cancel", None)
        if producer.is_alive() and cancel is not None:
            cancel()
            producer.join(_JOIN_S)
