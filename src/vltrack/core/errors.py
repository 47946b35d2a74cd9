"""The errors of vltrack.

Every error that a user can cause is a ``VltrackError`` with a ``message`` (what is wrong, and the offending
value) and a ``hint`` (what to do). The command prints ``vltrack: error[CODE]: message hint`` and exits with
``exit_code``; the Python API raises the class.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class VltrackError(Exception):
    """Base of all errors that vltrack raises on purpose.

    Attributes:
        message: the error in one sentence, with the offending value.
        hint: what to do about it, "" where there is nothing to say.
        code: name of the error's class; exit_code: status of the command that ends with it.
        context: further values of the error for programs, such as ``issues``.
        result: what the function returns, as far as it was done before the error; None without any.

    Examples:
        >>> import vltrack
        >>> try:
        ...     vltrack.track("missing.mp4", text="the dog")
        ... except vltrack.VltrackError as error:
        ...     print(error.code, error.exit_code)
        VideoNotFound 3
    """

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "Error"

    def __init__(self, message: str, *, hint: str = "", **context: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = context
        self.result: Any = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.code = cls.__name__

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(VltrackError):
    """Flags or arguments that contradict each other or are missing."""

    exit_code = 2


class InputError(VltrackError):
    """The media, the text or the box is invalid."""

    exit_code = 3


class VideoNotFound(InputError):
    """No such file or folder, or a folder without images."""


class VideoUnreadable(InputError):
    """The file exists but is not a video that can be opened."""


class VideoForbiddenFormat(InputError):
    """A playlist, pattern, address or container that is not on the list of allowed formats."""


class VideoNoStream(InputError):
    """The file has no video stream."""


class VideoEmpty(InputError):
    """The file has a video stream, but not one frame decodes."""


class VideoTooLarge(InputError):
    """Frames larger than the limit; refused before memory is allocated."""


class ImageError(InputError):
    """An array given as a frame is not a usable image."""


class PromptEmpty(InputError):
    """The text is empty, or holds no letter or digit."""


class PromptTooLong(InputError):
    """The text is longer than 4 KiB."""


class PromptInvalid(InputError):
    """The text holds control characters, NUL or broken Unicode."""


class PromptUnreadable(InputError):
    """A text without a box, of which no word is an English one."""


class BoxInvalid(InputError):
    """Not four finite numbers with positive width and height."""


class BoxOutside(InputError):
    """The box does not touch the frame."""


class BoxFrameOutOfRange(InputError):
    """The start frame is beyond the end of the video."""


class GroundingFailed(InputError):
    """Initialization from text gave no usable box."""


class DataError(VltrackError):
    """A data set or an annotation is invalid."""

    exit_code = 4


class ModelError(VltrackError):
    """A checkpoint, a configuration or a tokenizer is invalid."""

    exit_code = 5


class ModelNotFound(ModelError):
    """No model or weights of that name or path."""


class CheckpointCorrupt(ModelError):
    """The file's sha256 is not the recorded one, or the file cannot be parsed."""


class CheckpointUnsafe(ModelError):
    """The file's format can run code or hide its size when it is read."""


class CheckpointMismatch(ModelError):
    """The weights belong to another tracker, size or configuration."""


class CheckpointNonFinite(ModelError):
    """A tensor holds NaN or infinity."""


class CheckpointIncomplete(ModelError):
    """The weights are only a start for training: some parameters are still random."""


class CheckpointVersion(ModelError):
    """The file was written by a newer version of vltrack."""


class TokenizerMismatch(ModelError):
    """The vocabulary is not the one that the weights were trained with."""


class ConfigError(ModelError):
    """A configuration value is unknown, of the wrong type or out of range."""


class ResourceError(VltrackError):
    """Disk, memory, device or file descriptors ran out."""

    exit_code = 6


class PartialResult(VltrackError):
    """The work finished, but parts are missing or degraded; what exists was kept."""

    exit_code = 7


class VideoReadError(PartialResult):
    """The input ended early or vanished while it was read."""


class VideoTimeout(PartialResult):
    """The decoder gave no frame for too long and was stopped."""


class VideoDecoderCrashed(PartialResult):
    """The decoder process crashed."""


class Diverged(VltrackError):
    """The loss was not finite several times in a row."""

    exit_code = 8


class StateError(VltrackError):
    """An object is used before it is ready or twice at once, or a file does not belong to this run."""

    exit_code = 9


class NothingFits(VltrackError):
    """Nothing in the image, or in any frame waited for, fits the text."""

    exit_code = 10


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """Return a hint for a mistyped name: the nearest known one, or all of them where none is near."""
    names = list(known)
    near = difflib.get_close_matches(value.lower(), names, n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else f"Known: {', '.join(names)}."
