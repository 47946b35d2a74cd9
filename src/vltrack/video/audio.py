"""The sound of a video: decoded in a process as limited as that of its frames, which sends plain samples."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import VltrackError
from vltrack.video.base import CONTAINERS, DEFAULT_LIMITS
from vltrack.video.client import Canceled, DecoderProcess
from vltrack.video.decoder_main import MediaFile, StderrLog, forbid_new_descriptors
from vltrack.video.ipc import IpcServer, MediaError

RATE = 48_000
CODECS = (
    "aac aac_latm mp3 mp3float mp2 mp2float mp1 mp1float ac3 eac3 dca opus libopus vorbis flac alac wavpack amrnb amrwb"
    " wmav1 wmav2 wmapro cook adpcm_ms adpcm_ima_wav adpcm_ima_qt adpcm_swf nellymoser speex pcm_s16le pcm_s16be"
    " pcm_s24le pcm_s24be pcm_s32le pcm_f32le pcm_u8 pcm_s8 pcm_mulaw pcm_alaw pcm_s16le_planar pcm_dvd pcm_bluray qdm2"
)
_PIECE = 1 << 14
"""Samples of one message at most."""


def serve_audio(job: dict[str, Any], server: IpcServer) -> None:
    """Send the first sound of a file as pieces of stereo samples, int16, ``RATE`` per second, each with its time.

    Runs in the decoder process. Times count from the first frame of the video.

    Raises:
        MediaError: no sound that can be decoded. ReaderGone: the reader has closed its end.
    """
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.FATAL)
    StderrLog()
    options = {
        "protocol_whitelist": "none",
        "format_whitelist": ",".join(CONTAINERS),
        "codec_whitelist": ",".join(CODECS.split()),
    }
    try:
        container: Any = av.open(MediaFile(job["media"]), options=options, metadata_errors="replace")
        stream = container.streams.audio[0]
        resampler: Any = av.AudioResampler(format="s16", layout="stereo", rate=RATE)
        start = next((float(one.start_time * one.time_base) for one in container.streams.video if one.start_time), 0.0)
        forbid_new_descriptors()
        for frame in container.decode(stream):
            if frame.time is None:
                continue
            for part in resampler.resample(frame):
                samples = part.to_ndarray().reshape(-1, 2)
                seconds = frame.time - start if part.time is None else part.time - start
                for first in range(0, len(samples), _PIECE):
                    _send(server, samples[first : first + _PIECE], seconds + first / RATE)
    except (av.FFmpegError, OSError, ValueError, IndexError, AttributeError) as error:
        raise MediaError("VideoUnreadable", "has no sound that can be decoded") from error
    server.send("end")


def _send(server: IpcServer, samples: NDArray[np.int16], seconds: float) -> None:
    # As an image of one row, whose pixels have four bytes.
    slot = server.reserve(1, len(samples), 4)
    slot.pixels[0] = np.ascontiguousarray(samples, dtype="<i2").view(np.uint8).reshape(-1, 4)
    server.send_frame(slot, seconds=seconds)


class AudioReader:
    """Sound of a video file, piece by piece; where it cannot be read, it ends.

    Args:
        path: of the file.
        start: seconds from which on sound is wanted.
    """

    def __init__(self, path: Path, start: float) -> None:
        self._pieces = self._read(path, start)
        self._next = next(self._pieces, None)

    def until(self, seconds: float) -> Iterator[tuple[int, NDArray[np.int16]]]:
        """Yield what comes before ``seconds``: number of the first sample from time 0, and (N, 2) samples."""
        limit = round(seconds * RATE)
        while self._next is not None and self._next[0] < limit:
            place, samples = self._next
            now, rest = np.split(samples, [limit - place])
            self._next = (limit, rest) if len(rest) else next(self._pieces, None)
            yield place, now

    def close(self) -> None:
        """Stop reading."""
        self._next = None
        self._pieces.close()

    @staticmethod
    def _read(path: Path, start: float) -> Any:
        with suppress(OSError, VltrackError, Canceled, KeyError, TypeError, ValueError):
            media = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if not stat.S_ISREG(os.fstat(media).st_mode):
                    return
                decoder = DecoderProcess({"source": "audio"}, name=path.name, limits=DEFAULT_LIMITS, media=media)
            finally:
                os.close(media)
            try:
                while (message := decoder.receive())["kind"] == "frame":
                    samples = message["image"].reshape(-1, 4).view("<i2").astype(np.int16)
                    place = round(float(message["seconds"]) * RATE)
                    late = max(0, round(start * RATE) - place)
                    if late < len(samples):
                        yield place + late, samples[late:]
            finally:
                decoder.close()
