"""Open any frame source (video, image folder, camera, stdin) from a path or address: ``open_source``."""

from __future__ import annotations

import glob
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from vltrack.core.errors import ResourceError, VideoForbiddenFormat, VideoNotFound, VideoUnreadable
from vltrack.core.files import printable
from vltrack.core.process import open_standard_streams
from vltrack.video.base import (
    CONTAINERS,
    DEFAULT_LIMITS,
    FOREIGN_IMAGES,
    IMAGE_SUFFIXES,
    PIPES,
    FrameSlice,
    FrameSource,
    Kind,
    Limits,
    ReadReport,
    SourceInfo,
)
from vltrack.video.client import StreamSource
from vltrack.video.images import ImagesSource, image_pages, sort_images

__all__ = ["FrameSource", "Limits", "ReadReport", "SourceInfo", "open_source"]

_LOCAL = "Give a file, a folder of images, a camera number or - for standard input."
_ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+:|^(subfile|concatf?|crypto|async|cache)[,:]", re.ASCII)
_PLAYLISTS = (
    (re.compile(rb"^(\xef\xbb\xbf)?\s*#EXTM3U"), "an M3U playlist"),
    (re.compile(rb"^(\xef\xbb\xbf)?\s*ffconcat\b"), "an ffconcat list"),
    (re.compile(rb"^\s*v=0\s*\r?\n\s*o="), "an SDP description"),
    (re.compile(rb"^(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?<(MPD|Smooth\w+|asx|smil)\b"), "a manifest"),
    (re.compile(rb"^\s*\[(playlist|Reference)\]", re.I), "a playlist"),
    (re.compile(rb"^RTSPtext"), "a redirection"),
    (re.compile(rb"^\s*file\s+'?[^\n]*\n", re.I), "a list of files"),
)  # fmt: skip
_CAMERAS = {"linux": ("video4linux2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}


def open_source(
    source: str | Path | int | Sequence[str | Path],
    *,
    start: int = 0,
    end: int | None = None,
    stride: int = 1,
    allow_network: bool = False,
    limits: Limits | None = None,
    input_format: str | None = None,
) -> FrameSource:
    """Open a video, an image folder, a camera or a stream as an iterator of frames.

    Videos are decoded in a process of their own, which has no access to files and network; the first frame
    is decoded before this returns. Frames are ``Frame`` objects: RGB uint8 of shape (H, W, 3) with rotation
    applied, their number in the source and their time in seconds.

    Args:
        source: a video file, an image, a folder of images (natural order, any names), a glob
            (``frames/*.jpg``), a list of images in their order, a camera number (``0``), ``-`` for a video or
            concatenated images on standard input, or an ``rtsp://`` address. A name that exists as a file is that
            file, whatever it looks like.
        start, end, stride: frame numbers to return; ``end`` is not included. ``Frame.index`` keeps the number
            in the whole source.
        allow_network: allow ``rtsp://`` addresses.
        limits: bounds on size, memory and waiting time; default: ``Limits()``.
        input_format: FFmpeg's name of the container, where it cannot be detected (raw H.264 on standard
            input).

    Returns:
        A source to iterate and to close; it is a context manager. ``info`` holds its facts (size, rate,
        number of frames), ``report`` what could not be read. Damage after the first frame ends the iteration
        or leaves a frame whose ``image`` is ``None``; it does not raise.

    Raises:
        TypeError: not a source: bytes, an open file, a ``cv2.VideoCapture``, an array.
        VideoNotFound: no such file, folder, camera, or no permission.
        VideoUnreadable: not a known video format, or its index is missing.
        VideoForbiddenFormat: an address, a playlist, a pattern or a format that is not allowed.
        VideoNoStream, VideoEmpty, VideoTooLarge: no video stream, no frame that decodes, too many pixels.
        VideoTimeout, VideoDecoderCrashed: the decoder failed before the first frame.
        UsageError: the slice does not run forward.
        ResourceError: the decoder process cannot be started; always on Windows, which has no descriptors to
            pass to it.

    Examples:
        >>> import vltrack
        >>> with vltrack.open_source("clip.mp4", start=10, stride=2) as frames:
        ...     frame = next(frames)
        >>> frame.index, frame.image.shape
        (10, (480, 854, 3))
    """
    if sys.platform == "win32":
        raise ResourceError("Frames cannot be read on Windows.", hint="Use Linux, macOS or WSL.")
    open_standard_streams()
    options: dict[str, Any] = {
        "frames": FrameSlice(start=start, end=end, stride=stride),
        "limits": limits or DEFAULT_LIMITS,
    }
    if input_format is not None and input_format not in CONTAINERS + PIPES:
        raise VideoForbiddenFormat(
            f"Input format {input_format!r} is not allowed.", hint=f"Allowed: {', '.join(CONTAINERS + PIPES)}."
        )
    if not is_place(source):
        raise TypeError(f"Frames of a {type(source).__name__} need no opening: iterate over them.")
    if isinstance(source, list | tuple):
        paths = [Path(path) for path in source]
        if missing := [path for path in paths if not path.is_file()]:
            raise VideoNotFound(f"{printable(missing[0])}: no such file.", hint="All images of a list must exist.")
        name = f"{printable(paths[0])} and {len(paths) - 1} more"
        return ImagesSource(paths, kind="frames", name=name, ignored=0, **options)
    text = os.fspath(source) if isinstance(source, os.PathLike) else str(source)
    if isinstance(source, int) or (text.isdecimal() and not _exists(text)):
        return _open_camera(int(text), options)
    if text == "-":
        media = _standard_input()
        return StreamSource(kind="stdin", name="-", media=media, input_format=input_format, **options)
    if _exists(text):
        return _open_path(Path(text), input_format, options)
    if is_address(text):
        return _open_network(text, options, allowed=allow_network)
    if glob.has_magic(text):
        names = glob.glob(text, recursive=True, include_hidden=False)
        return _open_images([Path(name) for name in names if _is_file_or_broken(name)], "frames", text, options)
    if re.search(r"%0?\d*d", text):
        raise VideoForbiddenFormat(
            f"{printable(text)} is a pattern.", hint="Give the folder, or a glob such as 'x/*.jpg'."
        )
    raise VideoNotFound(f"{printable(text) or 'an empty name'}: no such file or folder.", hint=_LOCAL)


def is_place(source: object) -> TypeGuard[str | Path | int | Sequence[str | Path]]:
    """Return whether ``open_source`` takes it; False for an iterable of frames. Raises ``TypeError`` for neither."""
    if isinstance(source, str | os.PathLike | int | np.integer) and not isinstance(source, bool):
        return True
    if isinstance(source, list | tuple) and source and isinstance(source[0], str | os.PathLike):
        return True
    kind = type(source).__name__
    if isinstance(source, bytes | bytearray | memoryview):
        remedy = "Give a path as str (os.fsdecode), or write the data to a file."
    elif hasattr(source, "read") and hasattr(source, "seek"):
        name = getattr(source, "name", None)
        remedy = f"Give its name: {name!r:.100}." if isinstance(name, str) else "Write it to a file and give the path."
    elif kind == "VideoCapture":
        remedy = "Give the path or the camera number that it was opened with."
    elif getattr(source, "ndim", 4) != 4:
        remedy = "Put images into a list: [image]."
    elif not hasattr(source, "__iter__") or isinstance(source, Mapping | Set):
        remedy = "Give a path, a camera number or an iterable of frames."
    else:
        return False
    raise TypeError(f"A {kind} is not a source of frames. {remedy}")


def is_address(text: str) -> bool:
    """Return whether the text reads as a URL or an FFmpeg protocol and not as a path (``C:`` is a drive)."""
    return _ADDRESS.match(text) is not None


def playlist_kind(head: bytes) -> str | None:
    """Kind of playlist whose first bytes these are, ``None`` if none. Playlists name other files."""
    return next((kind for expression, kind in _PLAYLISTS if expression.match(head)), None)


def _exists(text: str) -> bool:
    """Return whether the path exists. A folder on the way without permission counts: opening then says so."""
    try:
        os.stat(text)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _standard_input() -> int:
    try:
        if not os.isatty(0):
            return os.dup(0)
    except OSError as error:
        raise VideoNotFound("Standard input is closed.", hint=_LOCAL) from error
    raise VideoNotFound("Standard input is a terminal.", hint="Pipe a video into the command, or give a file.")


def _open_images(paths: list[Path], kind: Kind, name: str, options: dict[str, Any]) -> FrameSource:
    images, ignored = sort_images(paths)
    if not paths:
        raise VideoNotFound(f"{printable(name)} holds no file.", hint=_LOCAL)
    if not images:
        raise VideoNotFound(
            f"{printable(name)} contains no images that can be read ({ignored} other files: {_suffixes(paths)}).",
            hint=f"Images end in {' '.join(sorted(IMAGE_SUFFIXES))}.",
        )
    source = ImagesSource(images, kind=kind, name=printable(name), ignored=ignored, **options)
    foreign = [p for p in paths if p.suffix.lower() in FOREIGN_IMAGES and not p.name.startswith(".")]
    if foreign:
        said = f"{printable(name)}: {len(foreign)} images of another format are left out ({_suffixes(foreign)})."
        source.report.warnings.append(f"{said} Convert them to JPEG or PNG.")
    return source


def _suffixes(paths: list[Path]) -> str:
    """What the names of files end in, the most frequent first."""
    counts = Counter(path.suffix.lower() or "no extension" for path in paths).most_common(5)
    return ", ".join(f"{printable(suffix)} {count}" for suffix, count in counts) or "none"


def _is_file_or_broken(path: str) -> bool:
    """Return whether the path is a file, or a link that leads to none: a frame that is missing, and named as such."""
    return os.path.isfile(path) or (os.path.islink(path) and not os.path.isdir(path))


def _open_path(path: Path, input_format: str | None, options: dict[str, Any]) -> FrameSource:
    name = printable(str(path))
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            with os.scandir(path) as entries:
                files = [
                    path / entry.name
                    for entry in entries
                    if entry.is_file(follow_symlinks=False) or _is_file_or_broken(entry.path)
                ]
            return _open_images(files, "folder", str(path), options)
        media = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except PermissionError as error:
        raise VideoNotFound(f"{name}: permission denied.", hint="Change its permissions.") from error
    except OSError as error:
        raise VideoNotFound(f"{name}: {error.strerror}.") from error
    is_image = path.suffix.lower() in IMAGE_SUFFIXES and input_format is None
    try:
        if is_image and stat.S_ISREG(mode):
            head = os.pread(media, 1 << 16, 0)
            is_image = not (head.startswith(b"\x89PNG") and image_pages(head))  # an animated PNG is a video
        if not stat.S_ISREG(mode):
            raise VideoUnreadable(f"{name} is neither a file nor a folder.", hint=_LOCAL)
        if not is_image:
            _check_head(media, name)
    except BaseException:
        os.close(media)
        raise
    if not is_image:
        return StreamSource(kind="file", name=name, media=media, input_format=input_format, **options)
    os.close(media)
    return _open_images([path], "frames", str(path), options)


def _open_camera(number: int, options: dict[str, Any]) -> FrameSource:
    if sys.platform not in _CAMERAS:
        raise VideoNotFound(f"Cameras are not supported on {sys.platform}.", hint="Record a file first.")
    driver, device = _CAMERAS[sys.platform]
    address, name = device.format(number), f"camera {number}"
    if address.startswith("/") and not os.path.exists(address):
        raise VideoNotFound(f"Camera {number}: {address} does not exist.", hint="Connect a camera or give a file.")
    return StreamSource(kind="camera", name=name, media=None, input_format=driver, address=address, **options)


def _open_network(address: str, options: dict[str, Any], *, allowed: bool) -> FrameSource:
    name = printable(_without_password(address))
    if not address.lower().startswith(("rtsp://", "rtsps://")):
        raise VideoForbiddenFormat(f"{name}: only local files are read.", hint=f"Download it first. {_LOCAL}")
    if not allowed:
        raise VideoForbiddenFormat(f"{name}: network streams are off.", hint="Pass allow_network (--allow-network).")
    return StreamSource(kind="network", name=name, media=None, input_format="rtsp", address=address, **options)


def _check_head(media: int, name: str) -> None:
    """Refuse empty files and playlists by the first bytes."""
    try:
        head = os.pread(media, 4096, 0)
    except OSError as error:
        raise VideoUnreadable(f"{name}: {error.strerror}.") from error
    if not head:
        raise VideoUnreadable(f"{name}: not a known video container (the file is empty).")
    kind = playlist_kind(head)
    if kind is not None:
        raise VideoForbiddenFormat(f"{name} is {kind}, which can name other files.", hint="Give the video itself.")


def _without_password(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:
        return address.split("@")[-1]
    return urlunsplit(parts._replace(netloc=parts.netloc.split("@")[-1])) if parts.netloc else address
