"""Videos, cameras and streams as a ``FrameSource``: turns the decoder's messages into frames and a report."""

from __future__ import annotations

import os
from typing import Any

from vltrack.core.errors import UsageError, VideoDecoderCrashed, VideoReadError, VideoTimeout, VltrackError
from vltrack.core.types import Frame
from vltrack.video.client import COMMAND, Cancelled, DecoderProcess, refusal
from vltrack.video.contract import FrameSource, Kind, Limits, ReadReport, SourceInfo


class StreamSource(FrameSource):
    """One pass over a video file, a camera, standard input or a network stream.

    Args:
        kind, name: for ``info``.
        job: what the decoder has to open: ``source`` (file, stdin, camera, network), ``address``, ``format``.
        media: open descriptor of the media, owned by this object from now on; ``None`` for cameras and
            networks.
        start, end, stride: the slice of frame numbers that is handed out.
        limits: bounds.
        command: how to start the decoder.

    Raises:
        InputError: the source cannot be read, see ``open_source``.
        VideoTimeout, VideoDecoderCrashed: before the first frame.
    """

    def __init__(
        self,
        *,
        kind: Kind,
        name: str,
        job: dict[str, Any],
        media: int | None,
        start: int,
        end: int | None,
        stride: int,
        limits: Limits,
        command: tuple[str, ...] = COMMAND,
    ) -> None:
        self.report = ReadReport(bad_share=limits.bad_share)
        self._last_index = -1
        self._ended = False
        slice_ = {"start": start, "end": end, "stride": stride}
        try:
            self._decoder = DecoderProcess(
                job | slice_, name=name, limits=limits, media=media, command=command
            )
        finally:
            if media is not None:
                os.close(media)
        try:
            self.info = self._introduction(kind, name)
        except BaseException:
            self._decoder.close()
            raise
        self.report.expected = self.info.frames

    @property
    def pid(self) -> int:
        """Process id of the decoder."""
        return self._decoder.process.pid

    def _introduction(self, kind: Kind, name: str) -> SourceInfo:
        message = self._decoder.receive()
        if message["kind"] == "error":
            raise refusal(message, name)
        if message["kind"] != "info":
            raise VideoDecoderCrashed(f"{name}: the decoder sent nonsense and was stopped.")
        frames, rate, seconds = message["frames"], message["rate"], message["seconds"]
        return SourceInfo(
            kind=kind,
            name=name,
            width=int(message["width"]),
            height=int(message["height"]),
            rate=None if rate is None else float(rate),
            frames=None if frames is None else int(frames),
            seconds=None if seconds is None else float(seconds),
            rotation=int(message["rotation"]),
            mirrored=bool(message["mirrored"]),
            sample_aspect=float(message["sample_aspect"]),
        )

    def __next__(self) -> Frame:
        if self._ended:
            raise StopIteration
        try:
            message = self._decoder.receive()
        except Cancelled:
            self._finish(None)
            raise StopIteration from None
        except (VideoTimeout, VideoDecoderCrashed) as error:
            self._finish(self._located(error))
            raise StopIteration from error
        if message["kind"] in ("frame", "gap"):
            return self._row(message)
        if message["kind"] == "end":
            self._conclude(message)
        else:
            self._finish(self._located(refusal(message, self.info.name)))
        raise StopIteration

    def _row(self, message: dict[str, Any]) -> Frame:
        self.report.bad_packets = int(message["bad"])
        image = message.get("image")
        if image is None:
            self.report.missing += 1
        else:
            self.report.decoded += 1
        self._last_index = int(message["index"])
        flags = tuple(str(flag) for flag in message.get("flags", ()))
        self.report.damaged += "damaged" in flags
        return Frame(image=image, index=self._last_index, seconds=float(message["seconds"]), flags=flags)

    def _conclude(self, message: dict[str, Any]) -> None:
        self.report.bad_packets = int(message["bad"])
        self.report.truncated = bool(message.get("truncated", False))
        found = self.report.decoded + self.report.missing
        if self.report.truncated:
            promise = f"{self.info.frames} frames" if self.info.frames else f"{self.info.seconds:.1f} s"
            self.report.warnings.append(
                f"{self.info.name} ends early: {promise} promised, the last one is {self._last_index}."
            )
        if self.report.missing:
            self.report.warnings.append(
                f"{self.info.name}: {self.report.missing} of {found} frames could not be decoded "
                f"({self.report.bad_packets} damaged packets)."
            )
        elif self.report.bad_packets:
            self.report.warnings.append(f"{self.info.name}: {self.report.bad_packets} packets are damaged.")
        if self.report.damaged:
            self.report.warnings.append(
                f"{self.info.name}: {self.report.damaged} of {found} frames show damage."
            )
        if message.get("lost_track"):
            self.report.warnings.append(
                f"{self.info.name}: a damaged stretch is too long to count; later frame numbers are too low."
            )
        reason = message.get("failure")
        self._finish(self._located(VideoReadError(f"{self.info.name}: {reason}.")) if reason else None)

    def _located(self, error: VltrackError) -> VltrackError:
        where = f"after frame {self._last_index}" if self._last_index >= 0 else "before the first frame"
        return type(error)(
            f"{error.message.rstrip('.')} ({where}).", hint=error.hint, last_index=self._last_index
        )

    def _finish(self, failure: VltrackError | None) -> None:
        self._ended = True
        if failure is not None:
            self.report.failure = failure
            self.report.warnings.append(str(failure))
        self._decoder.close()

    def cancel(self) -> None:
        """Make a waiting ``next()`` end."""
        self._decoder.cancel()

    def close(self) -> None:
        """Stop the decoder."""
        self._ended = True
        self._decoder.close()


def check_slice(start: int, end: int | None, stride: int) -> None:
    """Raises ``UsageError`` unless the slice runs forward from a frame that exists."""
    if start < 0 or stride < 1 or (end is not None and end <= start):
        raise UsageError(
            f"frames {start} to {end} in steps of {stride} is no forward range.",
            hint="The first frame is 0, the end is not included, the step is at least 1.",
        )
