"""What every source of frames promises: limits, facts, a report, an iterator. Knows no media format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
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
