"""Decode videos and streams inside the decoder process: demux, decode, convert to RGB, number the frames.

Each packet is decoded on its own, so that damage costs only its own frames.
"""

from __future__ import annotations

import gc
import os
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import av
import av.logging
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from vltrack.core.types import Image
from vltrack.video.base import CONTAINERS, PIPES, VIDEO_CODECS
from vltrack.video.decoder_main import Media, MediaFile, MediaPipe, StderrLog, forbid_new_descriptors, needed_bits
from vltrack.video.ipc import IpcServer, MediaError
from vltrack.video.timestamps import MpegNumbers, Row, Timeline

# Errors that PyAV raises for damaged media (measured on mutated files), FFmpeg's own errors first.
DAMAGE = (av.FFmpegError, ValueError, IndexError, OSError)
_SKIPPED = 256  # frames before the first one that is wanted, between two signs of life
_MAX_FAILURES = 64  # damaged places in a row after which reading ends
_UNSTAMPED = frozenset({"h264", "hevc", "m4v", "mpegvideo", "obu"})
_BROADCAST = frozenset({"mpegts", "mpeg"})
_SINGLE_THREAD_PIXELS = 1920 * 1088
_FULL_RANGE = 2
# Streams of JPEG files, and where such a file says how many it holds (CIPA DC-007): the first is the photo, the others
# are its gain map, its preview or another view.
_JPEG_STREAMS = frozenset({"jpeg_pipe", "mjpeg"})
_MPF = re.compile(
    rb"MPF\0(?:II\*\0.{4,99}?\x01\xb0\x04\0\x01\0\0\0(.{4})|MM\0\*.{4,99}?\xb0\x01\0\x04\0\0\0\x01(.{4}))", re.DOTALL
)
# Codecs whose frames are image files, each with an EXIF orientation of its own.
_IMAGE_CODECS = frozenset({"mjpeg", "mjpegb", "png", "apng", "tiff", "webp"})
# Matrices that libswscale converts (ITU-T H.273): GBR, BT.709, unspecified, FCC, BT.601 (two), SMPTE 240M, BT.2020.
_MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9})
_UNSPECIFIED = 2
# What FFmpeg prints where a frame's own header claims more than ``max_pixels``.
_REFUSED_SIZE = re.compile(r"size (\d+x\d+) (?:is invalid|exceeds)")
# libswscale flags: bilinear (2), accurate rounding (0x40000), full chroma interpolation (0x2000). Without
# them deep formats come out up to 4 levels too dark; 8-bit ones stay within 2 and keep the fast path.
_ACCURATE = 0x42002


def serve_video(job: dict[str, Any], server: IpcServer) -> None:
    """Decode one source from its start and send every row of the slice.

    Raises:
        MediaError: the media cannot be read.
        ReaderGone: the reader has closed its end.
    """
    # FFmpeg's own way of printing; a Python callback could deadlock with the decoder's threads.
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.ERROR)
    log = StderrLog()
    container, file = open_container(job, server)
    forbid_new_descriptors(spare=16 if file is None else 0)
    try:
        decoder = _VideoDecoder(job, server, container, file, log)
        gc.freeze()  # makes collections cheap
        decoder.run()
    finally:
        container.close()


def open_container(job: dict[str, Any], server: IpcServer) -> tuple[Any, Media | None]:
    """The container, and the file object that is read (None: camera, network)."""
    source = job["source"]
    options = {"max_pixels": _coded_pixels(job["max_pixels"]), "codec_whitelist": ",".join(VIDEO_CODECS)}
    file: Media | None = None
    if source == "network":
        options |= {"protocol_whitelist": "rtsp,rtsps,rtp,rtcp,udp,tcp,tls", "rtsp_transport": "tcp"}
    elif source == "camera":
        options |= {"protocol_whitelist": "file"}
    else:
        file = MediaFile(job["media"]) if source == "file" else MediaPipe(job["media"], server)
        # Not even "file": the one descriptor is all that may be read.
        options |= {"protocol_whitelist": "none", "format_whitelist": ",".join(CONTAINERS + PIPES)}
    try:
        container = av.open(
            file or job["address"],
            format=job["format"],
            options=options,
            metadata_errors="replace",
            timeout=job["timeout_s"] if file is None else None,
        )
    except DAMAGE as error:
        raise _media_error(error, job, file) from error
    return container, file


def _coded_pixels(max_pixels: int) -> str:
    """FFmpeg's own limit, on coded sizes: those are rounded up to whole blocks."""
    return str(max_pixels + max_pixels // 4 + 65_536)


def _media_error(error: BaseException, job: dict[str, Any], file: Media | None) -> MediaError:
    if isinstance(error, MemoryError):
        raise MemoryError from error
    if job["source"] in ("camera", "network"):
        reason = getattr(error, "strerror", None) or str(error)
        return MediaError("VideoNotFound", f"cannot be opened: {reason}", "Check that it is connected and not in use.")
    if file is not None and file.failure:
        return MediaError("VideoUnreadable", f"cannot be read: {file.failure}")
    if isinstance(file, MediaFile) and _index_is_missing(file):
        return MediaError("VideoUnreadable", "index missing (the file was cut)", "Copy or record it again.")
    if isinstance(file, MediaPipe) and file.empty:
        return MediaError(
            "VideoUnreadable", "standard input is empty", "Look for an error of the program before the pipe."
        )
    return MediaError("VideoUnreadable", "not a known video container", "Convert it to MP4, MKV, WebM, AVI or MPEG.")


def _index_is_missing(file: MediaFile) -> bool:
    """Return whether the file is an MP4 without its ``moov`` box; reads box headers only."""
    place, names = 0, []
    for _ in range(64):
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            break
        size, name = int.from_bytes(head[:4], "big"), head[4:8]
        names.append(name)
        if size == 1 and len(head) == 16:
            size = int.from_bytes(head[8:], "big")
        if size < 8:
            break
        place += size
    return names[:1] == [b"ftyp"] and b"moov" not in names


def video_stream(container: Any) -> Any:
    kinds = av.stream.Disposition
    tiles = [s for s in container.streams.video if s.disposition & kinds.dependent]
    moving = [s for s in container.streams.video if not s.disposition & kinds.attached_pic and s not in tiles]
    if tiles and not moving:
        raise MediaError("VideoUnreadable", "is an image in tiles (HEIC)", "Convert it to JPEG or PNG.")
    if not moving:
        raise MediaError("VideoNoStream", "has no video stream", "Give a video, not a sound file.")
    best = container.streams.best("video")
    stream = best if best in moving else moving[0]
    if stream.codec_context is None:
        raise MediaError("VideoUnreadable", "has video of an unknown codec", "Convert it to H.264.")
    name = stream.codec_context.name
    if name not in VIDEO_CODECS:
        raise MediaError(
            "VideoForbiddenFormat", f"has video of codec {name!r}, which is not allowed", "Convert it to H.264."
        )
    return stream


def _too_large(size: str, most: int) -> MediaError:
    said = f"has frames of {size} pixels, more than the limit of {most / 1e6:.0f} million"
    return MediaError("VideoTooLarge", said, "Scale it down first, or raise the limit.")


class _VideoDecoder:
    """One pass over a video stream."""

    def __init__(
        self, job: dict[str, Any], server: IpcServer, container: Any, file: Media | None, log: StderrLog
    ) -> None:
        self.job, self.server, self.container, self.file, self.log = job, server, container, file, log
        self.demuxer = str(container.format.name).split(",")[0]
        self.stream = video_stream(container)
        self.context = self.stream.codec_context
        self.reformatter = VideoReformatter()
        self.orientation: Orientation | None = None
        self.shape = (0, 0)
        self.first_stamp = 0.0
        self.packets = self.decoded = self.attached = self.moved_up = 0
        self.done = self.cycle = False
        self.bits = 8
        width, height, most = self.context.width, self.context.height, self.job["max_pixels"]
        if width * height > most:
            raise _too_large(f"{width}x{height}", most)
        self.refused: re.Match[str] | None = None
        self.context.options = {"max_pixels": _coded_pixels(most)}
        # Slices and frames in parallel cost memory and blur which packet was bad; only large frames are
        # worth it.
        large = width * height > _SINGLE_THREAD_PIXELS
        self.context.thread_count = min(4, os.cpu_count() or 1) if large else 1
        self.context.thread_type = "FRAME" if large else "SLICE"
        rate = self.stream.average_rate or self.stream.guessed_rate
        self.rate = float(rate) if rate and 0 < float(rate) < 10_000 else None
        base = self.stream.time_base
        reordered_avi = self.demuxer == "avi" and bool(self.context.has_b_frames)
        self.timeline = Timeline(
            time_base=float(base) if base else 0.0,
            step=1 / self.rate if self.rate else 1 / 25,
            stamped=bool(base) and self.demuxer not in _UNSTAMPED and not reordered_avi,
            joinable=self.demuxer in _BROADCAST,
            head_gaps=self.demuxer not in _UNSTAMPED | _BROADCAST | {"mjpeg"},
        )
        # Only the container's messages count: damage that a decoder prints it also raises or flags. MPEG-TS packets
        # carry a counter; FFmpeg prints its jumps at debug level only.
        ts = self.demuxer == "mpegts"
        self.demux_log = av.logging.DEBUG if ts else av.logging.ERROR
        said = rf" Continuity check failed for pid {self.stream.id} |resync" if ts else ""
        self.complaint = re.compile(rf"\[{re.escape(container.format.name)} @ \w+\]{said}")
        self.numbers = MpegNumbers() if self.context.name in ("mpeg1video", "mpeg2video", "mpegvideo") else None
        entries = ((e.pos, e.timestamp) for e in self.stream.index_entries) if self.demuxer == "avi" else ()
        self.index = AviIndex(entries)

    def run(self) -> None:
        """Send rows until the end of the source or of the slice. Raises ``MediaError``, ``ReaderGone``."""
        for packet in self._packets():
            self._decode(packet)
            if self.done:
                break
        if not self.done:
            self._flush()
        if self.decoded == 0:
            if self.file is not None and self.file.failure:
                raise MediaError("VideoUnreadable", f"cannot be read: {self.file.failure}")
            if refused := self.refused or _REFUSED_SIZE.search(self.log.take()):
                raise _too_large(refused[1], self.job["max_pixels"])
            raise MediaError(
                "VideoEmpty",
                "has a video stream, but not one frame of it decodes",
                "Record or copy it again; instead of standard input give the path (an MP4's index may be last).",
            )
        if not self.done:
            self._send_gaps(self.timeline.finish())
        self.server.send("end", bad=self.timeline.bad, **self._ending())

    def _packets(self) -> Iterator[Any]:
        """Packets in file order; goes on behind places that the container cannot parse."""
        failures = 0
        while failures < _MAX_FAILURES:
            try:
                av.logging.set_libav_level(self.demux_log)
                for packet in self.container.demux(self.stream):
                    av.logging.set_libav_level(av.logging.ERROR)
                    if packet.size == 0 and packet.dts is None:
                        return
                    failures = 0
                    if not self._is_attached(packet):
                        yield packet
                    av.logging.set_libav_level(self.demux_log)
            except MemoryError:
                raise
            except av.EOFError:
                return
            except DAMAGE:
                failures += 1
                self.timeline.damaged()
            else:
                return

    def _is_attached(self, packet: Any) -> bool:
        """Return whether the packet is an image that belongs to the photo before it; move later ones up."""
        if self.demuxer not in _JPEG_STREAMS:
            return False
        if self.attached:
            self.attached, self.moved_up = self.attached - 1, self.moved_up + packet.duration
            return True
        if found := _MPF.search(bytes(packet)[: 1 << 17]):
            self.attached = min(99, max(0, int.from_bytes(found[1] or found[2][::-1], "little") - 1))
        if packet.pts is not None:
            packet.pts -= self.moved_up
        return False

    def _decode(self, packet: Any) -> None:
        if self.cycle:  # a frame and its side data hold each other; the one before is not needed any more
            gc.collect()
            self.cycle = False
        self._find_lost(packet)
        if not packet.is_discard:
            self.packets += 1
            self.timeline.packet(packet.pts, key=packet.is_keyframe)
        try:
            frames = self.context.decode(packet)
        except MemoryError:
            raise
        except DAMAGE:
            self.timeline.damaged()
            return
        if packet.is_corrupt:
            self.timeline.bad += 1
            self.timeline.alert()
        for frame in frames:
            self._send(frame)

    def _find_lost(self, packet: Any) -> None:
        """Count packets that the container has skipped before this one."""
        lost, stamp = self.index.packet(packet.pos)
        self.packets += len(lost)
        self.timeline.lost(lost)
        if stamp is not None and self.timeline.stamped:
            packet.pts = packet.dts = stamp
        said = self.log.take()
        self.refused = self.refused or _REFUSED_SIZE.search(said)
        if self.complaint.search(said) or (self.numbers and self.numbers.lost(bytes(packet)[:1024])):
            self.timeline.alert()

    def _flush(self) -> None:
        for _ in range(_MAX_FAILURES):
            try:
                for frame in self.context.decode(None):
                    self._send(frame)
            except MemoryError:
                raise
            except av.EOFError:
                return
            except DAMAGE:
                self.timeline.damaged()
            else:
                return

    def _send(self, frame: Any) -> None:
        if self.done:
            return
        if self.orientation is None or self.context.name in _IMAGE_CODECS:
            found, self.cycle = orientation_of(frame), True
            if self.orientation is None:
                self._send_info(frame, found)
            self.orientation = found
        self.decoded += 1
        if frame.is_corrupt:
            self.timeline.alert(broken=True)
        rows = self.timeline.frame(frame.pts, key=frame.key_frame)
        if not rows:
            return
        self._send_gaps(rows[:-1])
        row = rows[-1]
        if not self._wanted(row):
            if row.index % _SKIPPED == 0:
                self.server.send("wait")  # a late start does not hang
            return
        width, height = self.orientation.size(frame.width, frame.height)
        if width * height > self.job["max_pixels"]:
            self._send_gaps([row])
            return
        flags = ["size-changed"] if (height, width) != self.shape else []
        flags += ["damaged"] if frame.is_corrupt else []
        slot = self.server.reserve(height, width)
        self.orientation.apply(self._rgb(frame), slot.pixels)
        self.server.send_frame(slot, index=row.index, seconds=row.seconds, flags=flags, bad=self.timeline.bad)

    def _rgb(self, frame: Any) -> Image:
        """As ``rgb_of``; an image file of 16 bits by the bits that the largest value so far needs."""
        if self.context.name not in _IMAGE_CODECS or all(part.bits < 16 for part in frame.format.components):
            return rgb_of(frame, self.reformatter)
        deep = np.asarray(self.reformatter.reformat(frame, format="rgb48le", threads=1).to_ndarray(), dtype=np.uint16)
        self.bits = max(self.bits, needed_bits(int(deep.max())))
        return np.asarray(deep >> (self.bits - 8), dtype=np.uint8)

    def _send_gaps(self, rows: list[Row]) -> None:
        for row in rows:
            if self._wanted(row):
                self.server.send("gap", index=row.index, seconds=row.seconds, bad=self.timeline.bad)

    def _wanted(self, row: Row) -> bool:
        """Return whether the row is in the slice; its last row, or one after it, ends the reading."""
        start, end, stride = self.job["start"], self.job["end"], self.job["stride"]
        self.done = self.done or (end is not None and row.index >= end - 1)
        inside = start <= row.index and (end is None or row.index < end)
        return bool(inside and (row.index - start) % stride == 0)

    def _send_info(self, frame: Any, orientation: Orientation) -> None:
        """Send the facts of the source; they need the first frame, whose matrix holds its orientation."""
        width, height = orientation.size(frame.width, frame.height)
        self.shape = (height, width)
        if frame.pts is not None and self.stream.time_base:
            self.first_stamp = float(frame.pts * self.stream.time_base)
        aspect = float(self.stream.sample_aspect_ratio or 0) or float(self.context.sample_aspect_ratio or 0) or 1.0
        if not 0.05 < aspect < 20 or abs(aspect - 1) < 0.005:  # nonsense, or rounding: 1280:1281 in 854x480
            aspect = 1.0
        matrix = int(frame.colorspace)
        self.server.send(
            "info",
            width=width,
            height=height,
            rate=self.rate,
            frames=self._promised(),
            seconds=self._duration(),
            rotation=orientation.rotation,
            mirrored=orientation.mirrored,
            audio=bool(self.container.streams.audio),
            sample_aspect=1 / aspect if orientation.rotation in (90, 270) else aspect,
            warnings=[] if matrix in _MATRICES else [f"color matrix {matrix} (H.273) is read as BT.601"],
        )

    def _promised(self) -> int | None:
        """Number of frames that the container promises."""
        if not isinstance(self.file, MediaFile):
            return None
        # The header of an AVI file counts repeats as well, and that of an MP4 what its edit list (a trimmed video)
        # leaves out; their indices do not.
        frames, entries = int(self.stream.frames), self.stream.index_entries
        if self.demuxer == "mov" and frames and len(entries) and (len(entries) != frames or entries[0].is_discard):
            frames = sum(not entry.is_discard for entry in entries)
        return len(self.index) or frames or None

    def _duration(self) -> float | None:
        """Seconds that the container promises."""
        if not isinstance(self.file, MediaFile):
            return None
        if self.stream.duration and self.stream.time_base:
            return float(self.stream.duration * self.stream.time_base)
        return self.container.duration / 1e6 if self.container.duration else None

    def _ending(self) -> dict[str, Any]:
        """End of the reading: with a failure, before the promised end, or complete."""
        if self.file is not None and self.file.failure:
            return {"failure": f"reading stopped: {self.file.failure}"}
        if isinstance(self.file, MediaFile) and self.file.shrunk():
            return {"failure": "the file became shorter while it was read"}
        if self.done:
            return {}
        return {"truncated": self._is_truncated(), "lost_track": self.timeline.dropped_gaps}

    def _is_truncated(self) -> bool:
        promised, duration = self._promised(), self._duration()
        if promised is not None:
            return self.packets < (promised if self.demuxer == "mov" else 0.99 * promised - 1)
        if duration is None or len(self.container.streams) > 1 or self.demuxer != "matroska":
            return False
        # Matroska's duration runs from zero, not from the first frame.
        return self.timeline.last_seconds + self.first_stamp < min(duration - 1.0, 0.97 * duration)


def rgb_of(frame: av.VideoFrame, reformatter: VideoReformatter) -> Image:
    """Convert a decoded frame to RGB uint8 (H, W, 3) as stored; valid until the reformatter's next frame.

    Matrix and range are the ones that the stream states; a stream that states none, or a matrix that libswscale
    cannot convert (YCgCo, constant luminance, ICtCp), is taken as BT.601, and as limited range unless its pixel
    format is a full-range one (the same choice as FFmpeg and OpenCV). More
    than 8 bits are scaled to 8, gray is repeated, palettes are looked up, alpha is dropped. Pixels stay as
    stored: a sample aspect ratio is reported, not applied.

    Args:
        frame: of any pixel format.
        reformatter: keeps the scaling tables between frames of the same format.

    Raises:
        av.FFmpegError, ValueError: the pixel format cannot be converted.
    """
    if frame.colorspace not in _MATRICES:
        frame.colorspace = _UNSPECIFIED
    deep = any(component.bits > 8 for component in frame.format.components)
    converted = reformatter.reformat(
        frame, format="rgb24", dst_color_range=_FULL_RANGE, interpolation=_ACCURATE if deep else None, threads=1
    )
    return np.asarray(converted.to_ndarray(), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Orientation:
    """Orientation of stored pixels: mirrored left to right, then rotated clockwise by ``rotation``."""

    rotation: int = 0
    mirrored: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Displayed (width, height) of a stored size."""
        return (height, width) if self.rotation in (90, 270) else (width, height)

    def apply(self, image: Image, out: Image) -> None:
        """Write the displayed image of a stored RGB (H, W, 3) into ``out``."""
        # As (H, W) cells of three bytes: rotating moves whole pixels, twice as fast.
        source: NDArray[np.void] = image.view("V3")[..., 0]
        target: NDArray[np.void] = out.view("V3")[..., 0]
        if self.mirrored:
            source = source[:, ::-1]
        target[...] = np.rot90(source, -self.rotation // 90)


def _unknown_side_data(kind: type[SideDataType], value: Any) -> SideDataType:
    """A member for side data that this PyAV has no name for (EXIF), which ``Frame.side_data`` else raises on."""
    member = object.__new__(kind)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return member


SideDataType._missing_ = classmethod(_unknown_side_data)  # type: ignore[assignment]


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Orientation of a frame by its display matrix (H.273, ISO 14496-12: nine 32-bit numbers).

    The linear part of the matrix is x' = a x + c y, y' = b x + d y; it is rounded to a right angle.
    """
    side: Any = frame.side_data.get("DISPLAYMATRIX")
    if side is None or side.buffer_size < 36:
        return Orientation()
    a, b, _, c, d = struct.unpack_from("=5i", memoryview(side))
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(0 if a + d >= 0 else 180, mirrored)
    return Orientation(90 if b - c > 0 else 270, mirrored)


class AviIndex:
    """The index of an AVI file; finds the packets that were skipped between two packets that were read.

    AVI packets carry no time. Behind damage FFmpeg goes on counting as if nothing were lost; the index at the
    end of the file still has the right numbers.

    Args:
        entries: (place in the file, time stamp) of every packet in file order.
    """

    def __init__(self, entries: Iterable[tuple[int, int]]) -> None:
        table = np.array(list(entries), dtype=np.int64).reshape(-1, 2)
        # Packets begin behind their chunk header of 8 bytes, index entries at it.
        self._places, self._stamps = table[:, 0] + 8, table[:, 1]
        self.usable = len(table) > 0 and bool((np.diff(self._places) > 0).all())
        self._next = 0

    def __len__(self) -> int:
        return len(self._places) if self.usable else 0

    def packet(self, place: int | None) -> tuple[list[int], int | None]:
        """Time stamps of the packets lost before the one at ``place``, and its own if the index has it."""
        if not self.usable or place is None:
            return [], None
        entry = int(np.searchsorted(self._places, place))
        if entry >= len(self._places) or self._places[entry] != place or entry < self._next:
            self._next += 1
            return [], None
        lost = self._stamps[self._next : entry].tolist()
        self._next = entry + 1
        return lost, int(self._stamps[entry])
