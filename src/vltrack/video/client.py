"""The decoder process as seen by its reader, and the sources that read videos and streams from it.

The process can be stopped by SIGKILL at any time without harm: it holds nothing but memory and descriptors.
Needs POSIX, as descriptors are passed on when the process starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import weakref
from abc import abstractmethod
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

import numpy as np

import vltrack
from vltrack.core.errors import (
    ResourceError,
    VideoDecoderCrashed,
    VideoReadError,
    VideoTimeout,
    VideoUnreadable,
    VltrackError,
)
from vltrack.core.process import describe_exit, kill, open_standard_streams, reported_error
from vltrack.core.threads import ONE_THREAD
from vltrack.core.types import Frame
from vltrack.video.base import DEFAULT_LIMITS, WHOLE, FrameSlice, FrameSource, Kind, Limits, ReadReport, SourceInfo
from vltrack.video.ipc import Receiver, Ring, Timeout, send

_PACKAGE_ROOT = str(Path(vltrack.__file__).resolve().parent.parent)
# -P: nothing is imported from the folder that the user happens to be in.
_PIPE_BYTES = 1 << 20
COMMAND = (sys.executable, "-P", "-m", "vltrack.video.decoder_main")


class Canceled(Exception):
    """The source was closed while another thread waited for a frame."""


class DecoderProcess:
    """One running decoder.

    Args:
        job: source and options for ``decoder_main.main``.
        name: of the source, for messages.
        limits: bounds.
        media: descriptor of the media that the decoder may read; stays owned by the caller.

    Raises:
        ResourceError: the process cannot be started.
    """

    def __init__(self, job: dict[str, Any], *, name: str, limits: Limits, media: int | None = None) -> None:
        self.name = name
        self._timeout_s = limits.frame_timeout_s
        open_standard_streams()
        self._ring = Ring.create(limits.max_pixels)
        self._stderr, stderr = os.pipe()
        for descriptor in (self._stderr, stderr):
            os.set_blocking(descriptor, False)
        path = [_PACKAGE_ROOT, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        try:
            self.process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                pass_fds=[handle for handle in (self._ring.handle, media) if handle is not None and handle >= 0],
                env=os.environ | ONE_THREAD | {"PYTHONPATH": os.pathsep.join(path)},
                bufsize=0,
            )
        except OSError as error:
            self._ring.close()
            os.close(self._stderr)
            raise ResourceError(f"Cannot start the decoder process: {error.strerror}.") from error
        finally:
            os.close(stderr)
        assert self.process.stdin is not None  # noqa: S101
        assert self.process.stdout is not None  # noqa: S101
        self._finalizer = weakref.finalize(self, _reap, self.process, self._ring, self._stderr)
        self._in = self.process.stdin.fileno()
        os.set_blocking(self._in, False)
        if sys.platform == "linux":
            with suppress(OSError):  # refused to a user with many pipes; then an image goes in more pieces
                fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._receiver = Receiver(self.process.stdout.fileno())
        self._lock = threading.Lock()
        self._canceled = False
        bounds = {"memory_bytes": limits.memory_bytes, "max_pixels": limits.max_pixels}
        handles = {"ring": self._ring.handle, "slot_bytes": self._ring.slot_bytes, "media": media}
        self._send(json.dumps(job | bounds | handles | {"timeout_s": self._timeout_s}).encode())

    def request(self, data: bytes, mode: bytes = b"I") -> None:
        """Send one image to be decoded: as displayed, stored (``R``), or stored with alpha (``A``).

        Raises ``VideoTimeout`` if the decoder does not read it.
        """
        try:
            self._send(mode + data)
        except Timeout as error:
            raise self._timeout() from error

    def receive(self) -> dict[str, Any]:
        """The next message but ``wait``; a frame's pixels are copied out into ``message["image"]``.

        Raises:
            VideoTimeout: the decoder sent nothing for too long; it is stopped.
            VideoDecoderCrashed: the decoder crashed or sent invalid data.
            Canceled: ``cancel`` or ``close`` was called meanwhile.
        """
        with self._lock:
            try:
                while not self._canceled:
                    raw = self._receiver.receive(self._timeout_s)
                    if raw is None:
                        raise self._crash()
                    message: dict[str, Any] = json.loads(raw)
                    if message["kind"] == "frame":
                        slot, *shape = (int(message[key]) for key in ("slot", "height", "width", "channels"))
                        message["image"] = np.array(self._ring.view(slot, *shape))
                        self._send(b"S" + bytes([slot]))
                    if message["kind"] != "wait":
                        return message
            except Timeout as error:
                raise self._timeout() from error
            except (ValueError, KeyError, TypeError) as error:
                self.process.kill()
                raise VideoDecoderCrashed(f"{self.name}: the decoder sent invalid data.") from error
            raise Canceled

    def _send(self, payload: bytes) -> None:
        # If the process has ended, its last messages, or its end, are read next.
        with suppress(BrokenPipeError):
            send(self._in, payload, self._timeout_s)

    def _timeout(self) -> VideoTimeout:
        self.process.kill()
        return VideoTimeout(
            f"{self.name}: the decoder gave no frame for {self._timeout_s:g} s and was stopped.",
            hint="The file is probably damaged there.",
        )

    def _crash(self) -> Exception:
        if self._canceled:
            return Canceled()
        status = kill(self.process, after=1.0)
        try:
            lines = os.read(self._stderr, 1 << 16).decode(errors="replace").strip().splitlines()
        except BlockingIOError:
            lines = []
        printed = f" ({lines[-1][:200]})" if lines else ""
        return VideoDecoderCrashed(
            f"{self.name}: the decoder process {describe_exit(status)}{printed}.",
            hint="The file may be damaged or hostile.",
        )

    def cancel(self) -> None:
        """Stop the process; a ``receive`` that waits raises ``Canceled``. Safe from any thread."""
        self._canceled = True
        if self._finalizer.alive:
            self.process.kill()

    def close(self) -> None:
        """Stop the process, close its pipes and free the shared memory."""
        self.cancel()
        with self._lock:
            self._finalizer()


def _reap(process: subprocess.Popen[bytes], ring: Ring, stderr: int) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    ring.close()
    os.close(stderr)
    kill(process)


def decoder_error(message: dict[str, Any], name: str) -> VltrackError:
    """The error in an ``error`` message of the decoder; ``VideoUnreadable`` for an unknown code."""
    code, hint = str(message.get("code")), str(message.get("hint", ""))
    return reported_error(code, f"{name}: {message.get('message')}.", hint, otherwise=VideoUnreadable)


class DecodedSource(FrameSource):
    """A source whose images come from a decoder process; it ends with the first error."""

    _decoder: DecoderProcess
    _ended = False

    def __next__(self) -> Frame:
        frame = None
        if not self._ended:
            try:
                frame = self._fetch()
            except Canceled:
                pass
            except VltrackError as error:
                self.report.failure = error
                self.report.warnings.append(str(error))
        if frame is None:
            self.close()
            raise StopIteration
        return frame

    @abstractmethod
    def _fetch(self) -> Frame | None:
        """The next frame, None after the last. Raises what ``DecoderProcess.receive`` and ``decoder_error`` name."""

    def cancel(self) -> None:
        self._decoder.cancel()

    def close(self) -> None:
        self._ended = True
        self._decoder.close()


class StreamSource(DecodedSource):
    """One pass over a video file, a camera, standard input or a network stream.

    Args:
        kind, name: for ``info``.
        media: open descriptor of a file or of standard input, owned by this object from now on; ``None`` for
            cameras and networks.
        input_format: FFmpeg's name of the container or device driver, ``None`` to detect it.
        address: of a camera or network stream.
        frames: slice of frame numbers to return.
        limits: bounds.

    Raises:
        InputError: the source cannot be read, see ``open_source``.
        VideoTimeout, VideoDecoderCrashed: before the first frame.
    """

    def __init__(
        self,
        *,
        kind: Kind,
        name: str,
        media: int | None,
        input_format: str | None = None,
        address: str | None = None,
        frames: FrameSlice = WHOLE,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.report = ReadReport(bad_share=limits.bad_share)
        self._last_index = -1
        job = {"source": kind, "format": input_format, "address": address, **asdict(frames)}
        try:
            self._decoder = DecoderProcess(job, name=name, limits=limits, media=media)
        finally:
            if media is not None:
                os.close(media)
        try:
            self.info = self._read_info(kind, name)
        except BaseException:
            self._decoder.close()
            raise
        self.report.expected = self.info.frames

    def _read_info(self, kind: Kind, name: str) -> SourceInfo:
        message = self._decoder.receive()
        if message["kind"] == "error":
            raise decoder_error(message, name)
        if message["kind"] != "info":
            raise VideoDecoderCrashed(f"{name}: the decoder sent invalid data and was stopped.")
        types = {"width": int, "height": int, "rotation": int, "mirrored": bool, "sample_aspect": float}
        facts: dict[str, Any] = {key: of(message[key]) for key, of in types.items()}
        for key, of in {"rate": float, "frames": int, "seconds": float}.items():
            facts[key] = None if message[key] is None else of(message[key])
        facts["audio"] = kind == "file" and message.get("audio") is True
        warnings = [str(text) for text in message.get("warnings", ())]
        if facts["sample_aspect"] != 1:
            warnings.append(
                f"pixels are not square (sample aspect {facts['sample_aspect']:.4g}); boxes are in pixels as stored"
            )
        self.report.warnings += [f"{name}: {text}." for text in warnings]
        return SourceInfo(kind=kind, name=name, **facts)

    def _fetch(self) -> Frame | None:
        try:
            message = self._decoder.receive()
            if message["kind"] in ("frame", "gap"):
                return self._frame(message)
            if message["kind"] != "end":
                raise decoder_error(message, self.info.name)
            self._conclude(message)
        except VltrackError as error:
            where = f"after frame {self._last_index}" if self._last_index >= 0 else "before the first frame"
            text = f"{error.message.rstrip('.')} ({where})."
            raise type(error)(text, hint=error.hint, last_index=self._last_index) from error
        return None

    def _frame(self, message: dict[str, Any]) -> Frame:
        image = message.get("image")
        flags = tuple(str(flag) for flag in message.get("flags", ()))
        self._last_index = int(message["index"])
        self.report.bad_packets = int(message["bad"])
        self.report.missing += image is None
        self.report.decoded += image is not None
        self.report.damaged += "damaged" in flags
        return Frame(image=image, index=self._last_index, seconds=float(message["seconds"]), flags=flags)

    def _conclude(self, message: dict[str, Any]) -> None:
        """Complete the report with the last message. Raises ``VideoReadError`` if reading broke off."""
        report, info = self.report, self.info
        report.bad_packets = int(message["bad"])
        report.truncated = bool(message.get("truncated", False))
        found = report.decoded + report.missing
        warnings = []
        if report.truncated:
            promise = f"{info.frames} frames" if info.frames else f"{info.seconds:.1f} s"
            warnings.append(f" ends early: {promise} promised, the last one is {self._last_index}.")
        if report.missing:
            lost = f"{report.missing} of {found} frames could not be decoded"
            warnings.append(f": {lost} ({report.bad_packets} damaged packets).")
        elif report.bad_packets:
            warnings.append(f": damaged packets, or joints of two streams: {report.bad_packets}.")
        if report.damaged:
            warnings.append(f": {report.damaged} of {found} frames show damage.")
        if message.get("lost_track"):
            warnings.append(": a damaged stretch is too long to count; later frame numbers are too low.")
        report.warnings += [info.name + warning for warning in warnings]
        if message.get("failure"):
            raise VideoReadError(f"{info.name}: {message['failure']}.")
