"""The reader's side of the decoder process: start, watch, listen, stop. Knows no media format.

The process is stopped by SIGKILL at any time without harm: it holds nothing but memory and descriptors. Needs
POSIX (descriptors are handed over when the process starts).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np

import vltrack
from vltrack.core import errors
from vltrack.core.errors import (
    ResourceError,
    VideoDecoderCrashed,
    VideoTimeout,
    VideoUnreadable,
    VltrackError,
)
from vltrack.core.types import Image
from vltrack.video.channel import Receiver, Ring, Timeout, send
from vltrack.video.contract import Limits

_PACKAGE_ROOT = str(Path(vltrack.__file__).resolve().parent.parent)
# -P: nothing is imported from the folder that the user happens to be in.
COMMAND = (sys.executable, "-P", "-m", "vltrack.video.decoder")

_BURIAL_S = 5.0


class Cancelled(Exception):
    """The source was closed while somebody waited for it."""


class DecoderProcess:
    """One running decoder.

    Args:
        job: what to decode, see ``decoder.main``.
        name: of the source, for messages.
        limits: bounds.
        media: descriptor of the media that the decoder may read; stays owned by the caller.
        command: how to start the decoder; tests put a misbehaving one here.
    """

    def __init__(
        self,
        job: dict[str, Any],
        *,
        name: str,
        limits: Limits,
        media: int | None = None,
        command: tuple[str, ...] = COMMAND,
    ) -> None:
        self.name = name
        self._timeout_s = limits.frame_timeout_s
        self._ring = Ring.create(limits.max_pixels)
        self._complaints, complaints = os.pipe()
        os.set_blocking(self._complaints, False)
        os.set_blocking(complaints, False)
        handles = [self._ring.handle] + ([media] if media is not None else [])
        try:
            self.process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                pass_fds=handles,
                env=_environment(),
                bufsize=0,
            )
        except OSError as error:
            self._ring.close()
            os.close(self._complaints)
            raise ResourceError(f"the decoder process cannot be started: {error.strerror}.") from error
        finally:
            os.close(complaints)
        assert self.process.stdin is not None  # noqa: S101
        assert self.process.stdout is not None  # noqa: S101
        self._finalizer = weakref.finalize(self, _reap, self.process, self._ring, self._complaints)
        self._in = self.process.stdin.fileno()
        os.set_blocking(self._in, False)
        self._receiver = Receiver(self.process.stdout.fileno())
        self._lock = threading.Lock()
        self._cancelled = False
        facts = {
            "ring": self._ring.handle,
            "slot_bytes": self._ring.slot_bytes,
            "memory_bytes": limits.memory_bytes,
            "max_pixels": limits.max_pixels,
            "timeout_s": limits.frame_timeout_s,
            "media": media,
        }
        self._send(json.dumps(job | facts).encode())

    def request(self, data: bytes) -> None:
        """Ask for one image to be decoded. Raises ``VideoTimeout`` if the decoder does not take it."""
        try:
            self._send(b"I" + data)
        except Timeout as error:
            raise self._silence() from error

    def receive(self) -> dict[str, Any]:
        """The next message; a frame's pixels are copied out into ``message["image"]``.

        Raises:
            VideoTimeout: the decoder was silent for too long; it is stopped.
            VideoDecoderCrashed: the decoder died or talks nonsense.
            Cancelled: ``cancel`` or ``close`` was called meanwhile.
        """
        with self._lock:
            if self._cancelled:
                raise Cancelled
            while (message := self._message())["kind"] == "wait":
                if self._cancelled:
                    raise Cancelled
            return message

    def _message(self) -> dict[str, Any]:
        try:
            raw = self._receiver.receive(self._timeout_s)
            if raw is None:
                raise self._crash()
            message: dict[str, Any] = json.loads(raw)
            if message["kind"] == "frame":
                message["image"] = self._picture(message)
        except Timeout as error:
            raise self._silence() from error
        except (ValueError, KeyError, TypeError) as error:
            self.process.kill()
            raise VideoDecoderCrashed(f"{self.name}: the decoder sent nonsense and was stopped.") from error
        return message

    def _picture(self, message: dict[str, Any]) -> Image:
        slot = int(message["slot"])
        image: Image = np.array(self._ring.view(slot, int(message["height"]), int(message["width"])))
        self._send(b"S" + bytes([slot]))
        return image

    def _send(self, payload: bytes) -> None:
        try:
            send(self._in, payload, self._timeout_s)
        except BrokenPipeError:
            # It has ended; what it said before that, or its end, is read next.
            return

    def _silence(self) -> VideoTimeout:
        self.process.kill()
        return VideoTimeout(
            f"{self.name}: the decoder gave no frame for {self._timeout_s:g} s and was stopped.",
            hint="The file is probably damaged there.",
        )

    def _crash(self) -> Exception:
        if self._cancelled:
            return Cancelled()
        try:
            status = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        try:
            words = os.read(self._complaints, 1 << 16).decode(errors="replace").strip().splitlines()
        except BlockingIOError:
            words = []
        how = f"signal {_signal_name(-status)}" if status < 0 else f"exit status {status}"
        said = f" ({words[-1][:200]})" if words else ""
        return VideoDecoderCrashed(
            f"{self.name}: the decoder process died, {how}{said}.", hint="The file may be damaged or hostile."
        )

    def cancel(self) -> None:
        """Stop the process; whoever waits for it is told at once. Any thread."""
        self._cancelled = True
        if self._finalizer.alive:
            self.process.kill()

    def close(self) -> None:
        """Stop the process and free everything."""
        self.cancel()
        with self._lock:
            self._finalizer()


def _reap(process: subprocess.Popen[bytes], ring: Ring, complaints: int) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    ring.close()
    os.close(complaints)
    try:
        process.wait(_BURIAL_S)
    except subprocess.TimeoutExpired:
        # Stuck in the kernel (a network drive that is gone); the system buries it when it can.
        return


def _environment() -> dict[str, str]:
    paths = [_PACKAGE_ROOT] + [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return os.environ | threads | {"PYTHONPATH": os.pathsep.join(paths)}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def refusal(message: dict[str, Any], name: str) -> VltrackError:
    """The error that an ``error`` message of the decoder stands for. Unknown: ``VideoUnreadable``."""
    kind = getattr(errors, str(message.get("code")), VideoUnreadable)
    if not (isinstance(kind, type) and issubclass(kind, VltrackError)):
        kind = VideoUnreadable
    return kind(f"{name}: {message.get('message')}.", hint=str(message.get("hint", "")))
