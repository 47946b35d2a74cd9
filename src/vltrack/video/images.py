"""Image files: folders and lists as a ``FrameSource`` (order, gaps, damage, mixed sizes), and single ones.

Pixels are decoded in the decoder process; this side reads the bytes and checks the claimed size first.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from vltrack.core.errors import (
    DataError,
    InputError,
    PartialResult,
    VideoDecoderCrashed,
    VideoEmpty,
    VideoTimeout,
    VideoTooLarge,
    VideoUnreadable,
)
from vltrack.core.files import printable, read_limited
from vltrack.core.types import Frame, Image
from vltrack.video.base import DEFAULT_LIMITS, IMAGE_SUFFIXES, WHOLE, FrameSlice, Kind, Limits, ReadReport, SourceInfo
from vltrack.video.client import DecodedSource, DecoderProcess, decoder_error
from vltrack.video.ipc import MAX_IMAGE_BYTES

_PIXELS_AHEAD = 1 << 27
"""Pages of so many pixels of an animation are decoded together: each time, its decoder begins at the first page."""


class ImagesSource(DecodedSource):
    """Image files in the given order, one frame each.

    ``Frame.index`` is the place in the whole list; ``seconds`` is ``index / limits.folder_rate``. A damaged
    image is a gap row and makes the result degraded.

    A single file with several pages (TIFF, animated WebP) is a frame for each; of several such files the first
    page of each is read, with a warning.

    Args:
        images: the files.
        kind, name: for ``info``.
        ignored: files of the folder that were left out.
        frames: slice of the list to return.
        limits: bounds.

    Raises:
        VideoTooLarge: the header of the first image claims more pixels than ``limits`` allow.
        VideoEmpty: no image decodes.
        VideoTimeout, VideoDecoderCrashed: before the first frame.
    """

    def __init__(
        self,
        images: Sequence[Path],
        *,
        kind: Kind,
        name: str,
        ignored: int = 0,
        frames: FrameSlice = WHOLE,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._name, self._limits = name, limits
        self._pages, self._ahead = _pages_of(images[0], limits.max_pixels) if len(images) == 1 else ([], 1)
        self._images = [images[0]] * len(self._pages) if self._pages else images
        self._begins = list(accumulate((s or 1 / limits.folder_rate for _, s in self._pages), initial=0.0))
        count = len(self._images)
        self._todo = deque(range(count)[frames.start : frames.end : frames.stride])
        self._first = self._todo[0] if self._todo else 0
        self._sent: deque[tuple[int, str | None]] = deque()
        self._ready: deque[Frame] = deque()
        self._size: tuple[int, int] | None = None
        self._paged = False
        warnings = [f"{name}: {warning}" for warning in numbering_warnings(images)]
        self.report = ReadReport(expected=count, ignored_files=ignored, warnings=warnings, bad_share=0.0)
        self._decoder = DecoderProcess({"source": "images", "sequence": True}, name=name, limits=limits)
        try:
            height, width = self._first_size()
        except BaseException:
            self._decoder.close()
            raise
        self.info = SourceInfo(
            kind=kind,
            name=name,
            width=width,
            height=height,
            rate=limits.folder_rate,
            frames=count,
            seconds=self._begins[-1] if self._pages else count / limits.folder_rate,
        )

    def _first_size(self) -> tuple[int, int]:
        """(height, width) of the first good image; frames up to it are kept for the iterator."""
        while self._todo or self._sent:
            frame = self._take()
            self._ready.append(frame)
            if frame.image is not None:
                self._size = frame.image.shape[:2]
                return self._size
        if self._ready:
            raise VideoEmpty(
                f"{self._name}: none of {len(self._ready)} images decodes ({self._ready[0].flags[-1]}).",
                hint="Check that the files open in another viewer.",
            )
        # The slice begins after the last image: facts come from the first image all the same.
        self._todo.append(0)
        frame = self._take()
        if frame.image is None:
            raise VideoEmpty(f"{self._name}: the first image does not decode.")
        return frame.image.shape[:2]

    def _fetch(self) -> Frame | None:
        if not (self._ready or self._todo or self._sent):
            return None
        frame = self._ready.popleft() if self._ready else self._take()
        if frame.image is not None:
            self.report.decoded += 1
            return frame
        self.report.missing += 1
        self.report.bad_packets += 1
        if self.report.missing <= 20:
            name = printable(str(self._images[frame.index]))
            self.report.warnings.append(f"{name} is damaged: {frame.flags[-1]}.")
        return frame

    def _take(self) -> Frame:
        """The next frame; raises what ``DecoderProcess.receive`` raises."""
        # Two are sent ahead, so that one is decoded while the next is read; never more than the ring has slots.
        while self._todo and len(self._sent) < 2:
            self._send(self._todo.popleft())
        index, fault = self._sent.popleft()
        seconds = self._begins[index] if self._pages else index / self._limits.folder_rate
        if fault is not None:
            return Frame(image=None, index=index, seconds=seconds, flags=(fault,))
        try:
            message = self._decoder.receive()
        except (VideoTimeout, VideoDecoderCrashed) as error:
            where = printable(self._images[index].name)
            text = f"{error.message.rstrip('.')} (at frame {index}, {where})."
            raise type(error)(text, last_index=index) from error
        if message["kind"] == "error":
            raise decoder_error(message, self._name)
        if message["kind"] != "frame":
            reason = str(message.get("reason", "damaged"))
            return Frame(image=None, index=index, seconds=seconds, flags=(reason,))
        image = message["image"]
        changed = self._size is not None and image.shape[:2] != self._size
        return Frame(image=image, index=index, seconds=seconds, flags=("size-changed",) if changed else ())

    def _send(self, index: int) -> None:
        """Read one file and send it to the decoder, or note its fault."""
        path, fault, data = self._images[index], None, b""
        try:
            if not self._pages or index == self._first:
                data = _bytes_of(path, self._limits.max_pixels)
        except VideoTooLarge as error:
            fault = error.message
            if index == self._first:
                raise VideoTooLarge(f"{printable(str(path))}: {fault}.", hint=error.hint) from error
        except VideoUnreadable as error:
            fault = error.message
        self._sent.append((index, fault))
        if self._pages and fault is None:  # the decoder keeps the file
            page, ahead = self._pages[index][0], self._pages[index : index + self._ahead][-1][0] + 1
            self._decoder.request(data, b"P" + struct.pack(">II", page, ahead))
        elif fault is None:
            self._warn_of_pages(path, data)
            self._decoder.request(data)

    def _warn_of_pages(self, path: Path, data: bytes) -> None:
        if not self._paged and (pages := image_pages(data)):
            said = f"{printable(str(path))} has {len(pages)} pages, of which the first is read."
            self.report.warnings.append(f"{said} Give it alone to get all of them.")
            self._paged = True


def _pages_of(path: Path, max_pixels: int) -> tuple[list[tuple[int, float]], int]:
    """Pages of a TIFF or WebP file as ``image_pages``, [] if it cannot be read; how many to decode at once."""
    try:
        data = _bytes_of(path, max_pixels)
    except InputError:
        return [], 1
    width, height = image_size(data) or (1, 1)
    ahead = max(1, min(32, _PIXELS_AHEAD // (width * height))) if data.startswith(b"RIFF") else 1
    return [] if data.startswith(_PNG) else image_pages(data), ahead


def _bytes_of(path: Path, max_pixels: int) -> bytes:
    """The bytes of an image file that a decoder may be given.

    Raises:
        VideoUnreadable: no image file, or one that was cut. The message is a part of a sentence.
        VideoTooLarge: its header claims more pixels, or it has more bytes, than is allowed; message as above.
    """
    try:
        data = read_limited(path, MAX_IMAGE_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise VideoTooLarge(f"{error.strerror}", hint="Scale it down.") from error
        raise VideoUnreadable(f"cannot be read: {error.strerror}") from error
    size = image_size(data)
    if size is None or min(size) < 1:
        raise VideoUnreadable("not a known image")
    if size[0] * size[1] > max_pixels:
        said = f"{size[0]}x{size[1]} pixels are more than the limit of {max_pixels / 1e6:.0f} million"
        raise VideoTooLarge(said, hint="Scale it down, or raise the limit.")
    if data[:2] in (b"II", b"MM") and (bits := next(_tiff_pages(data), {}).get(258, 8)) > 16:
        raise VideoUnreadable(f"{bits} bits per sample; convert it to 8 or 16")
    if is_cut(data):
        raise VideoUnreadable("the file was cut")
    return data


class ImageReader:
    """Single image files, decoded in one decoder process that is started on first use and stays.

    After a crash the next image gets a new decoder. Safe to use from several threads, which take turns; a
    forked process needs a reader of its own (``shared_reader``).

    Args:
        limits: bounds.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits, self._lock = limits, threading.Lock()
        self._decoder: DecoderProcess | None = None

    def read(self, path: Path, *, alpha: bool = False, stored: bool = False) -> Image:
        """RGB uint8 (H, W, 3), as displayed: EXIF orientation is applied. Strict: damage is an error.

        Args:
            path: of an image file.
            alpha: RGBA (H, W, 4) of the stored pixels; opaque where the file has no alpha.
            stored: the stored pixels, orientation ignored.

        Raises:
            DataError: the file cannot be read or is incomplete, claims more pixels than the limits allow, or
                its decoder crashed or did not answer; names the path.
            ResourceError: the decoder cannot be started.
        """
        try:
            data = _bytes_of(path, self._limits.max_pixels * 3 // 4 if alpha else self._limits.max_pixels)
            with self._lock:
                return self._decoded(data, b"A" if alpha else b"R" if stored else b"I")
        except (InputError, PartialResult) as error:
            said = f"Image cannot be decoded: {printable(path)} ({error.message.rstrip('.')})."
            raise DataError(said, hint="Copy or download the file again.") from error

    def _decoded(self, data: bytes, mode: bytes) -> Image:
        try:
            try:
                message = self._exchange(data, mode)
            except VideoDecoderCrashed:  # perhaps of something else: a decoder lives long
                self.close()
                message = self._exchange(data, mode)
            if message["kind"] == "error":
                raise decoder_error(message, "image")
        except BaseException:
            self.close()
            raise
        if message["kind"] != "frame":
            raise VideoUnreadable(str(message.get("reason", "damaged")))
        image: Image = message["image"]
        return image

    def _exchange(self, data: bytes, mode: bytes) -> dict[str, Any]:
        if self._decoder is None:
            self._decoder = DecoderProcess({"source": "images"}, name="image", limits=self._limits)
        self._decoder.request(data, mode)
        return self._decoder.receive()

    def close(self) -> None:
        """Stop the decoder. The next ``read`` starts another."""
        decoder, self._decoder = self._decoder, None
        if decoder is not None:
            decoder.close()


_readers: dict[int, ImageReader] = {}


def shared_reader() -> ImageReader:
    """The reader of this process, with ``DEFAULT_LIMITS``; it ends with the process."""
    process = os.getpid()
    if process not in _readers:
        _readers.setdefault(process, ImageReader())
        for parent in _readers.keys() - {process}:  # after a fork: let go of its pipes
            _readers.pop(parent, None)
    return _readers[process]


# -- order and numbering of files ----------------------------------------------------------------------------


def natural_key(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key that puts ``f2`` before ``f10``."""
    parts = re.split(r"(\d+)", name.casefold())
    return tuple((1, int(p), "") if p.isdecimal() else (0, 0, p) for p in parts if p), name


def sort_images(paths: Iterable[Path]) -> tuple[list[Path], int]:
    """Image files in natural order, and how many files were left out (hidden ones, other types)."""
    files = list(paths)
    images = [p for p in files if not p.name.startswith(".") and p.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(images, key=lambda path: natural_key(str(path))), len(files) - len(images)


def numbering_warnings(images: Sequence[Path]) -> list[str]:
    """Warnings about the numbers in the file names: missing ones, repeated ones."""
    numbers = [int(found[-1]) for path in images if (found := re.findall(r"\d+", path.stem))]
    if len(numbers) != len(images) or len(numbers) < 2:
        return []
    warnings = []
    unique = sorted(set(numbers))
    steps = [b - a for a, b in pairwise(unique)]
    step = min(steps, default=1)
    missing = sum(s // step - 1 for s in steps)
    if 0 < missing <= len(images):
        warnings.append(f"{missing} numbers are missing between {unique[0]} and {unique[-1]}.")
    repeated = len(numbers) - len(unique)
    if repeated:
        warnings.append(f"{repeated} numbers occur more than once (first: {images[0].name}).")
    return warnings


# -- width, height and completeness of image files from their bytes ------------------------------------------

Size = tuple[int, int]
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MARKERS = 10_000
"""How many markers of a JPEG are looked at: of 64 KiB at most each."""
_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_PAGES = 1 << 16
_REDUCED = 0b101
"""Bits of a TIFF page that is a thumbnail or a mask of another."""
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def image_size(data: bytes) -> Size | None:
    """Stored (width, height) that the header of an image file claims; ``None`` for an unknown format.

    Reads JPEG, PNG, BMP, WebP, TIFF and PNM headers; works on hostile bytes.
    """
    try:
        for magic, parse in _PARSERS:
            if data.startswith(magic):
                return parse(data)
    except (struct.error, IndexError, ValueError):
        return None
    return None


def image_pages(data: bytes) -> list[tuple[int, float]]:
    """Pages of a TIFF file, of an animated WebP or PNG, as (number in the file, seconds shown or 0); [] if one."""
    pages: list[tuple[int, float]] = []
    if data.startswith((b"II", b"MM")):
        pages = [(page, 0.0) for page, tags in enumerate(_tiff_pages(data)) if not tags.get(254, 0) & _REDUCED]
    elif data.startswith(b"RIFF") and data[12:16] == b"VP8X":
        place = 12
        for _ in range(_MAX_PAGES):
            if data[place : place + 4] == b"ANMF":
                pages.append((len(pages), int.from_bytes(data[place + 20 : place + 23], "little") / 1000))
            size = int.from_bytes(data[place + 4 : place + 8], "little")
            place += 8 + size + size % 2
    elif data.startswith(_PNG) and 0 < (place := data.find(b"acTL", 33)) < data.find(b"IDAT", 33):
        pages = [(page, 0.0) for page in range(min(int.from_bytes(data[place + 4 : place + 8], "big"), _MAX_PAGES))]
    return pages if len(pages) > 1 else []


def is_cut(data: bytes) -> bool:
    """Return whether a JPEG or PNG lacks its end marker (others: ``False``). Cut files decode to half-gray."""
    if data.startswith(b"\xff\xd8"):
        return data.rfind(b"\xff\xd9", 2) < 0
    if data.startswith(_PNG):
        return data.rfind(b"IEND") < 0
    return False


def _jpeg(data: bytes) -> Size | None:
    place = 2
    for _ in range(_MARKERS):
        place = data.find(b"\xff", place)
        if place < 0 or place + 4 > len(data):
            return None
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
        elif marker in _STANDALONE or marker == 0:
            place += 2
        elif marker in _SOF:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        else:
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return None


def _png(data: bytes) -> Size | None:
    if data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _bmp(data: bytes) -> Size | None:
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)


def _webp(data: bytes) -> Size | None:
    kind = data[12:16]
    if data[8:12] != b"WEBP":
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff(data: bytes) -> Size | None:
    """The largest width and height of any page."""
    sizes = [(tags[256], tags[257]) for tags in _tiff_pages(data) if 256 in tags and 257 in tags]
    return (max(w for w, _ in sizes), max(h for _, h in sizes)) if sizes else None


def _tiff_pages(data: bytes) -> Iterator[dict[int, int]]:
    """First values of the tags of every page that is there: 254 (kind), 256 and 257 (size), 258 (bits of a sample)."""
    order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
    word, many, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    seen, entries = {0}, 0
    try:
        (place,) = struct.unpack_from(order + word, data, 8 if big else 4)
        while place not in seen and len(seen) < _MAX_PAGES and entries < 16 * _MAX_PAGES:
            seen.add(place)
            (count,) = struct.unpack_from(order + many, data, place)
            place += struct.calcsize(many)
            tags, entries = {}, entries + count
            for at in range(place, place + entry * min(count, 4096), entry):
                tag, kind = struct.unpack_from(order + "HH", data, at)
                if tag in (254, 256, 257, 258):
                    (length,) = struct.unpack_from(order + word, data, at + 4)
                    value = at + 4 + struct.calcsize(word)
                    if tag == 258 and length * 2 > struct.calcsize(word):
                        (value,) = struct.unpack_from(order + word, data, value)
                    (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, value)
            yield tags
            (place,) = struct.unpack_from(order + word, data, place + entry * count)
    except (struct.error, OverflowError):
        return


def _pnm(data: bytes) -> Size | None:
    words: list[bytes] = []
    for line in data[2:512].split(b"\n"):
        words += line.split(b"#")[0].split()
    return int(words[0]), int(words[1])


_PARSERS = (
    (b"\xff\xd8\xff", _jpeg),
    (_PNG, _png),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    *((magic, _tiff) for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((b"P%d" % k, _pnm) for k in range(1, 7)),
)
