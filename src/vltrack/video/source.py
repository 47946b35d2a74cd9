"""The one door for pictures: decides what a name stands for and opens it. Decodes nothing."""

from __future__ import annotations

import glob
import os
import stat
import sys
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit, urlunsplit

from vltrack.core.errors import VideoForbiddenFormat, VideoNotFound, VideoUnreadable
from vltrack.video.base import (
    CONTAINERS,
    IMAGE_SUFFIXES,
    PIPES,
    FrameSource,
    Kind,
    Limits,
    ReadReport,
    SourceInfo,
    is_address,
    is_pattern,
    playlist_kind,
    shown,
)
from vltrack.video.client import StreamSource, check_slice
from vltrack.video.images import ImagesSource, sort_images

_LOCAL = "Give a file, a folder of images, a camera number or - for standard input."
_CAMERAS = {"linux": ("video4linux2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}


def open_source(
    source: str | Path | int,
    *,
    start: int = 0,
    end: int | None = None,
    stride: int = 1,
    allow_network: bool = False,
    limits: Limits | None = None,
    input_format: str | None = None,
) -> FrameSource:
    """Open anything that has frames.

    Args:
        source: a video file, an image, a folder of images (natural order, any names), a glob
            (``frames/*.jpg``), a camera number (``0``), ``-`` for a video or concatenated pictures on
            standard input, or an ``rtsp://`` address. A name that exists as a file is that file, whatever it
            looks like.
        start, end, stride: frame numbers to hand out; ``end`` is not included. ``Frame.index`` keeps the
            number in the whole source.
        allow_network: let ``rtsp://`` addresses through.
        limits: bounds on size, memory and silence.
        input_format: FFmpeg's name of the container, where it cannot be recognised (raw H.264 on standard
            input).

    Returns:
        A source to iterate and to close (it is a context manager). Its first frame is decoded already.

    Raises:
        VideoNotFound: no such file, folder, camera, or no permission.
        VideoUnreadable: not a video that is known here, or its index is missing.
        VideoForbiddenFormat: an address, a playlist, a pattern or a format that is not let in.
        VideoNoStream, VideoEmpty, VideoTooLarge: as their names say.
        VideoTimeout, VideoDecoderCrashed: the decoder failed before the first frame.
        UsageError: the slice does not run forward.
    """
    check_slice(start, end, stride)
    limits = limits or Limits()
    slice_ = {"start": start, "end": end, "stride": stride}
    if input_format is not None and input_format not in CONTAINERS + PIPES:
        raise VideoForbiddenFormat(
            f"input format {input_format!r} is not allowed.",
            hint=f"Allowed: {', '.join(CONTAINERS + PIPES)}.",
        )
    text = str(source)
    if isinstance(source, int) or (text.isdecimal() and not _exists(text)):
        return _camera(int(text), limits, slice_)
    if text == "-":
        return _stream("stdin", "-", _standard_input(), limits, slice_, input_format)
    if _exists(text):
        return _path(Path(text), limits, slice_, input_format)
    if is_address(text):
        return _network(text, allow_network, limits, slice_)
    if glob.has_magic(text):
        found = [
            Path(name)
            for name in glob.glob(text, recursive=True, include_hidden=False)
            if os.path.isfile(name)
        ]
        return _images(found, "frames", text, limits, slice_)
    if is_pattern(text):
        raise VideoForbiddenFormat(
            f"{shown(text)} is a pattern.", hint="Give the folder, or a glob such as 'x/*.jpg'."
        )
    return _refuse_missing(text)


def _refuse_missing(text: str) -> NoReturn:
    raise VideoNotFound(f"{shown(text) or 'an empty name'}: no such file or folder.", hint=_LOCAL)


def _exists(text: str) -> bool:
    """Whether the path is there. A folder on the way without permission counts: opening then says so."""
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
        raise VideoNotFound("standard input is closed.", hint=_LOCAL) from error
    raise VideoNotFound(
        "standard input is a terminal.", hint="Pipe a video into the command, or name a file."
    )


def _path(path: Path, limits: Limits, slice_: dict[str, int | None], input_format: str | None) -> FrameSource:
    name = shown(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            with os.scandir(path) as entries:
                files = [path / entry.name for entry in entries if entry.is_file()]
            return _images(files, "folder", name, limits, slice_)
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except PermissionError as error:
        raise VideoNotFound(f"{name}: permission denied.", hint="Change its permissions.") from error
    except OSError as error:
        raise VideoNotFound(f"{name}: {error.strerror}.") from error
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise VideoUnreadable(f"{name} is neither a file nor a folder.", hint=_LOCAL)
    if path.suffix.lower() in IMAGE_SUFFIXES and input_format is None:
        os.close(handle)
        return _images([path], "frames", name, limits, slice_)
    try:
        head = os.pread(handle, 4096, 0)
    except OSError as error:
        os.close(handle)
        raise VideoUnreadable(f"{name}: {error.strerror}.") from error
    kind = playlist_kind(head)
    if kind is not None or not head:
        os.close(handle)
        if kind is not None:
            raise VideoForbiddenFormat(
                f"{name} is {kind}, which can name other files.", hint="Give the video itself."
            )
        raise VideoUnreadable(f"{name}: not a known video container (the file is empty).")
    return _stream("file", name, handle, limits, slice_, input_format)


def _stream(
    kind: Kind,
    name: str,
    media: int | None,
    limits: Limits,
    slice_: dict[str, int | None],
    input_format: str | None,
    address: str | None = None,
) -> FrameSource:
    job = {"source": kind, "format": input_format, "address": address}
    start, stride = slice_["start"] or 0, slice_["stride"] or 1
    return StreamSource(
        kind=kind,
        name=name,
        job=job,
        media=media,
        start=start,
        end=slice_["end"],
        stride=stride,
        limits=limits,
    )


def _images(
    paths: list[Path], kind: Kind, name: str, limits: Limits, slice_: dict[str, int | None]
) -> FrameSource:
    images, ignored = sort_images(paths)
    if not images:
        raise VideoNotFound(
            f"{shown(name)} holds no images ({ignored} other files).",
            hint=f"Images end in {' '.join(sorted(IMAGE_SUFFIXES))}.",
        )
    return ImagesSource(
        images,
        kind=kind,
        name=shown(name),
        ignored=ignored,
        start=slice_["start"] or 0,
        end=slice_["end"],
        stride=slice_["stride"] or 1,
        limits=limits,
    )


def _camera(number: int, limits: Limits, slice_: dict[str, int | None]) -> FrameSource:
    if sys.platform not in _CAMERAS:
        raise VideoNotFound(f"cameras are not supported on {sys.platform}.", hint="Record a file first.")
    driver, device = _CAMERAS[sys.platform]
    address = device.format(number)
    if address.startswith("/") and not os.path.exists(address):
        raise VideoNotFound(
            f"camera {number}: there is no {address}.", hint="Connect a camera or give a file."
        )
    return _stream("camera", f"camera {number}", None, limits, slice_, driver, address)


def _network(text: str, allowed: bool, limits: Limits, slice_: dict[str, int | None]) -> FrameSource:
    if not text.lower().startswith(("rtsp://", "rtsps://")):
        raise VideoForbiddenFormat(
            f"{shown(_without_password(text))}: only local files are read.",
            hint=f"Download it first. {_LOCAL}",
        )
    if not allowed:
        raise VideoForbiddenFormat(
            f"{shown(_without_password(text))}: network streams are off.",
            hint="Add --allow-network to read it.",
        )
    return _stream("network", shown(_without_password(text)), None, limits, slice_, "rtsp", text)


def _without_password(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:
        return address.split("@")[-1]
    return urlunsplit(parts._replace(netloc=parts.netloc.split("@")[-1])) if parts.netloc else address


__all__ = ["FrameSource", "Limits", "ReadReport", "SourceInfo", "open_source"]
