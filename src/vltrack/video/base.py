"""What every source of frames promises: limits, facts, a report, an iterator. Knows no media format."""

from __future__ import annotations

import queue
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from vltrack.core.errors import UsageError, VltrackError
from vltrack.core.types import Frame

Kind = Literal["file", "folder", "camera", "stdin", "network", "frames"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what a source may cost. All are checked before memory is taken.

    Attributes:
        max_pixels: largest width * height of one frame.
        memory_bytes: address space of the decoder process (RLIMIT_AS).
        frame_timeout_s: longest silence of the decoder before it is stopped.
        bad_share: share of undecodable frames of a video above which its result counts as degraded.
        folder_rate: frames per second assumed for image folders and picture streams, which carry no time.
    """

    max_pixels: int = 100_000_000
    memory_bytes: int = 4 << 30
    frame_timeout_s: float = 30.0
    bad_share: float = 0.05
    folder_rate: float = 25.0

    def __post_init__(self) -> None:
        if self.max_pixels < 1 or self.frame_timeout_s <= 0 or self.folder_rate <= 0:
            raise UsageError("video limits must be positive.")
        if self.memory_bytes < 512 << 20:
            raise UsageError(
                f"the decoder needs at least 512 MiB of address space, got {self.memory_bytes} bytes."
            )
        if not 0 <= self.bad_share <= 1:
            raise UsageError(f"bad_share is a share between 0 and 1, got {self.bad_share}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInfo:
    """Facts about a source, known once its first frame is decoded.

    Attributes:
        kind: where the frames come from; ``frames`` is a list of images named by a glob or a single image.
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


@dataclass(kw_only=True)
class ReadReport:
    """What happened while reading; grows as frames are taken, complete when the iterator has ended.

    Attributes:
        decoded: frames handed out with a picture.
        missing: gap rows handed out (``image is None``).
        damaged: frames handed out whose picture the decoder had to patch; they carry the flag ``damaged``.
        bad_packets: damaged packets or images that were skipped.
        expected: frames that the container promises, ``None`` if unknown.
        ignored_files: files of a folder that are no images, or hidden.
        truncated: the source ended before its promised end.
        warnings: sentences for people.
        failure: what ended the reading early (time-out, crash, read error), ``None`` if nothing did.
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
        """Whether the result is only partial, so that the command has to leave with exit code 7."""
        if self.failure is not None or self.truncated:
            return True
        return self.missing + self.damaged > self.bad_share * (self.decoded + self.missing)


class FrameSource(ABC):
    """An iterator of ``Frame`` that is also a context manager.

    ``Frame.index`` counts frames of the source (not of the slice), ``Frame.seconds`` runs from its first
    frame. Failures before the first frame raise when the source is opened. Failures after it end the
    iteration and are kept in ``report.failure``, so that the rows so far survive.
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
        """Stop the decoder and free everything. Safe to call any number of times."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# MERGED video/base.py
# Which media are let in: containers, codecs, image names, refused addresses, playlists. Decodes nothing.


IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"}
)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Containers by FFmpeg's demuxer names. Absent on purpose: everything that can name another file or address
# (hls, dash, concat, sdp, image2, lavfi, imf, ...). The audio containers are there so that a song is told
# apart from noise ("no picture track" instead of "not a video").
CONTAINERS = _names(
    "mov matroska avi mpegts mpeg mpegvideo flv asf ogg gif apng h264 hevc m4v mjpeg ivf obu yuv4mpegpipe "
    "mxf dv nut rm mp3 wav flac aac"
)

# Concatenated pictures, on standard input or in a file (motion JPEG looks like that).
PIPES = _names("jpeg_pipe png_pipe bmp_pipe webp_pipe ppm_pipe pgm_pipe tiff_pipe mpjpeg")

VIDEO_CODECS = _names(
    "h264 hevc vp8 vp9 libvpx libvpx-vp9 av1 libdav1d mpeg1video mpeg2video mpegvideo mpeg4 msmpeg4 "
    "msmpeg4v1 msmpeg4v2 h263 h263i h263p flv wmv1 wmv2 wmv3 vc1 mjpeg mjpegb png apng gif bmp tiff webp "
    "ppm pgm rawvideo wrapped_avframe prores dnxhd cfhd ffv1 huffyuv ffvhuff utvideo magicyuv qtrle theora "
    "dvvideo cinepak svq1 svq3 rv10 rv20 rv30 rv40 msvideo1 msrle rpza v210 vvc"
)

_ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+:|^(subfile|concatf?|crypto|async|cache)[,:]", re.ASCII)
_PATTERN = re.compile(r"%0?\d*d")
_PLAYLISTS = (
    (re.compile(rb"^(\xef\xbb\xbf)?\s*#EXTM3U"), "an M3U playlist"),
    (re.compile(rb"^(\xef\xbb\xbf)?\s*ffconcat\b"), "an ffconcat list"),
    (re.compile(rb"^\s*v=0\s*\r?\n\s*o="), "an SDP description"),
    (re.compile(rb"^(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?<(MPD|Smooth\w+|asx|smil)\b"), "a manifest"),
    (re.compile(rb"^\s*\[(playlist|Reference)\]", re.I), "a playlist"),
    (re.compile(rb"^RTSPtext"), "a redirection"),
    (re.compile(rb"^\s*file\s+'?[^\n]*\n", re.I), "a list of files"),
)  # fmt: skip


def is_address(text: str) -> bool:
    """Whether the text reads as a URL or an FFmpeg protocol and not as a path (``C:`` is a drive)."""
    return _ADDRESS.match(text) is not None


def is_pattern(text: str) -> bool:
    """Whether the text is a printf-like image pattern (``img_%04d.jpg``)."""
    return _PATTERN.search(text) is not None


def playlist_kind(head: bytes) -> str | None:
    """What kind of playlist a file begins like, ``None`` if none. Such files name other files."""
    for expression, kind in _PLAYLISTS:
        if expression.match(head):
            return kind
    return None


def shown(name: object) -> str:
    """A file name as it may be printed: control characters and undecodable bytes escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(name)
    )


# MERGED video/base.py
# Frames fetched ahead in a thread: bounded, cancellable, never holding up an exception. Knows no media.


# How long a producer may take to notice that nobody wants its frames any more.
_PATIENCE_S = 0.2


@dataclass(frozen=True, slots=True)
class _End:
    """The producer is done; ``error`` is what stopped it."""

    error: BaseException | None = None


@contextmanager
def prefetch(frames: Iterable[Frame], depth: int = 4) -> Iterator[Iterator[Frame]]:
    """Iterate ``frames`` in a thread that runs at most ``depth`` frames ahead.

    An exception of the producer is raised where its frame would have come. When the block is left early the
    producer is stopped: at once where it has a ``cancel`` method (every ``FrameSource``); otherwise it is
    abandoned as a daemon thread after a moment, so a stuck producer never holds up an exception.

    Raises:
        UsageError: ``depth`` is below 1.
    """
    if depth < 1:
        raise UsageError(f"prefetch depth must be at least 1, got {depth}.")
    line: queue.Queue[Frame | _End] = queue.Queue(maxsize=depth)
    stop = threading.Event()
    producer = threading.Thread(
        target=_produce, args=(frames, line, stop), name="vltrack-prefetch", daemon=True
    )
    producer.start()
    try:
        yield _consume(line)
    finally:
        stop.set()
        _drain(line)
        producer.join(_PATIENCE_S)
        cancel: Callable[[], None] | None = getattr(frames, "cancel", None)
        if producer.is_alive() and cancel is not None:
            cancel()
            producer.join(_PATIENCE_S)


def _produce(frames: Iterable[Frame], line: queue.Queue[Frame | _End], stop: threading.Event) -> None:
    end = _End()
    try:
        for frame in frames:
            if not _put(line, frame, stop):
                return
    except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
        end = _End(error)
    _put(line, end, stop)


def _put(line: queue.Queue[Frame | _End], item: Frame | _End, stop: threading.Event) -> bool:
    """Put an item unless told to stop; whether it was put."""
    while not stop.is_set():
        try:
            line.put(item, timeout=0.05)
        except queue.Full:
            continue
        return True
    return False


def _consume(line: queue.Queue[Frame | _End]) -> Iterator[Frame]:
    while True:
        item = line.get()
        if isinstance(item, _End):
            if item.error is not None:
                raise item.error
            return
        yield item


def _drain(line: queue.Queue[Frame | _End]) -> None:
    try:
        while True:
            line.get_nowait()
    except queue.Empty:
        return
