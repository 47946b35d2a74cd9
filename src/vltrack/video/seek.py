"""Any frame of a video file by its number, inside the decoder process: seek to the key frame before, decode up to it.

The number of a frame is its place among the time stamps of all packets, as in one pass over the file. Only containers
and codecs of which that holds are served; ``video.reader.FrameReader`` reads the others in one pass.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import av
import av.logging
from av.video.reformatter import VideoReformatter

from vltrack.video.decode import DAMAGE, open_container, orientation_of, rgb_of, video_stream
from vltrack.video.decoder_main import StderrLog, forbid_new_descriptors
from vltrack.video.ipc import IpcServer, MediaError

_CONTAINERS = frozenset({"mov", "matroska"})
_CODECS = frozenset({"h264", "hevc", "av1", "libdav1d", "vp9", "libvpx-vp9", "mpeg4"})


def serve_frames(job: dict[str, Any], server: IpcServer) -> None:
    """Send the frames that are asked for, one per request, until the reader is gone.

    Raises:
        MediaError: the media cannot be read, or its frames have no reliable numbers (code ``Unnumbered``).
        ReaderGone: the reader has closed its end.
    """
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.ERROR)
    StderrLog()
    container, _ = open_container(job, server)
    forbid_new_descriptors()
    frames = _Numbered(container, job["max_pixels"])
    server.send("ready", frames=len(frames.stamps))
    while True:
        request = server.request()
        frames.send(int(request[1:]), server)


class _Numbered:
    """The time stamps of all frames, and the place up to which the file is decoded."""

    def __init__(self, container: Any, max_pixels: int) -> None:
        self.container, self.stream = container, video_stream(container)
        self.context, self.most = self.stream.codec_context, max_pixels
        if str(container.format.name).split(",")[0] not in _CONTAINERS or self.context.name not in _CODECS:
            raise MediaError("Unnumbered", "has no table of frames")
        self.context.thread_count = 2
        self.reformatter = VideoReformatter()
        stamps, keys = [], []
        for packet in container.demux(self.stream):
            if packet.size == 0 or packet.is_discard:
                continue
            if packet.pts is None or packet.is_corrupt:
                raise MediaError("Unnumbered", "has frames without a time")
            stamps.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
        self.stamps, self.keys = sorted(stamps), sorted(keys)
        if len(set(stamps)) < len(stamps) or not keys or keys[0] != self.stamps[0]:
            raise MediaError("Unnumbered", "has frames at the same time, or none to begin with")
        self._decoded: Iterator[Any] | None = None
        self._at = -1

    def send(self, index: int, server: IpcServer) -> None:
        """Send one frame; a ``gap`` where it does not decode."""
        stamp = self.stamps[index]
        seconds = float((stamp - self.stamps[0]) * self.stream.time_base)
        frame = self._find(index, stamp)
        if frame is None:
            server.send("gap", index=index, seconds=seconds, bad=0)
            return
        orientation = orientation_of(frame)
        width, height = orientation.size(frame.width, frame.height)
        if width * height > self.most:
            raise MediaError("VideoTooLarge", f"has a frame of {width}x{height} pixels", "Scale it down first.")
        slot = server.reserve(height, width)
        orientation.apply(rgb_of(frame, self.reformatter), slot.pixels)
        server.send_frame(slot, index=index, seconds=seconds, flags=[], bad=0)

    def _find(self, index: int, stamp: int) -> Any:
        place = bisect_right(self.keys, stamp) - 1
        first = bisect_right(self.stamps, self.keys[place]) - 1
        if not first <= self._at < index:  # else going on from here is shorter
            self._seek(self.keys[place])
        for _ in range(2):
            frame = self._forward(stamp)
            if frame is not None or place == 0:
                break
            place -= 1  # an index that lists a key frame too late
            self._seek(self.keys[place])
        self._at = index if frame is not None else -1
        return frame

    def _seek(self, stamp: int) -> None:
        self.container.seek(stamp, stream=self.stream, backward=True)
        self._decoded = self.container.decode(self.stream)

    def _forward(self, stamp: int) -> Any:
        """The frame with this stamp; None where a later one, the end or damage comes first."""
        assert self._decoded is not None  # noqa: S101
        try:
            for frame in self._decoded:
                if frame.pts is not None and frame.pts >= stamp:
                    return frame if frame.pts == stamp else None
        except MemoryError:
            raise
        except DAMAGE:
            self._decoded = None
        return None
