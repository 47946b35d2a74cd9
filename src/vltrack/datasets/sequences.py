"""One annotated target (frames, boxes, absence flags, sentence), and the images of a folder in order."""

from __future__ import annotations

import os
import re
from collections import abc
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.files import counted, open_limited
from vltrack.core.types import Floats, Frame
from vltrack.datasets.layouts import Layout, Span
from vltrack.datasets.parsing import Issues
from vltrack.video.base import IMAGE_SUFFIXES
from vltrack.video.images import image_size, natural_key
from vltrack.video.ipc import MAX_IMAGE_BYTES

if TYPE_CHECKING:
    from vltrack.video.source import FrameSource


HEADER_BYTES = 256 << 10
"""Bytes that hold the header of any usual image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequence:
    """One annotated target over N frames with R annotated rows (R = N, or 1 if only the first is published).

    Attributes:
        name: official name, which is that of result files.
        source: folder of images, or video file; the annotation file where images are missing.
        files: the images in order (a tuple or ``ImageList``); None for a video file; () without images.
        boxes: (R, 4) float64 x, y, w, h in pixels as annotated: NaN rows and zeros are kept, and nothing is
            shifted, even where the authors counted pixels from 1.
        absent: (R,) bool by the data set's own rule.
        sentence: description of the target, "" without any.
        attributes: short names of the attributes, such as ("IV", "OCC").
        cover: (R,) float64 0..8, visible eighths of the target (GOT-10k), else None.
        size: (width, height) of the frames in pixels where the annotation has it, else None.
        sentences: all descriptions of the target, where there are several; the first is ``sentence``.
    """

    name: str
    source: Path
    files: abc.Sequence[Path] | None
    boxes: Floats
    absent: NDArray[np.bool_]
    sentence: str = ""
    attributes: tuple[str, ...] = ()
    cover: Floats | None = None
    size: tuple[int, int] | None = None
    sentences: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of frames; of annotated rows for a video or without images."""
        return len(self.files) if self.files else len(self.boxes)

    @property
    def annotations_withheld(self) -> bool:
        """Return whether only the first box is published."""
        return len(self.boxes) == 1 and len(self) > 1

    def open_frames(self) -> FrameSource:
        """Open the source that ``frames`` reads, with its gaps; the caller closes it."""
        from vltrack.video.images import ImagesSource
        from vltrack.video.source import open_source

        if self.files is None:
            return open_source(self.source)
        return ImagesSource(self.files, kind="folder", name=str(self.source))

    def frames(self) -> Generator[Frame, None, None]:
        """Yield all frames in order, decoded one by one; the source is closed with the generator.

        Raises:
            DataError: images are missing, an image cannot be decoded (the path is named), or a video has
                another number of frames than there are boxes (seen at the end).
            InputError, PartialResult: the source cannot be read (see ``vltrack.video``).
        """
        if self.files is not None and not self.files:
            raise DataError(
                f"{self.name} has no images: {self.source} is only an annotation.",
                hint="Open the data set itself to run a tracker over it.",
            )
        count = 0
        with self.open_frames() as source:
            for frame in source:
                count += 1
                if self.files is not None and frame.image is None:
                    path = self.files[frame.index]
                    raise DataError(f"Image cannot be decoded: {path}.", hint="Copy or download it again.")
                if self.files is not None or count <= len(self.boxes):
                    yield frame
        if self.files is None and count != len(self.boxes):
            rows = counted(len(self.boxes), "row")
            raise DataError(
                f"{self.source} has {counted(count, 'frame')}, its groundtruth.txt {rows}.",
                hint="Every frame needs one row.",
            )


@dataclass(frozen=True, slots=True)
class ImageList(abc.Sequence[Path]):
    """Images of one folder. Paths are made on access: a data set has up to millions."""

    folder: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> ImageList: ...
    def __getitem__(self, index: int | slice) -> Path | ImageList:
        if isinstance(index, slice):
            return ImageList(self.folder, self.names[index])
        return self.folder / self.names[index]


def size_of_first(files: abc.Sequence[Path]) -> tuple[int, int] | None:
    """Return (width, height) of the first image by its header; None without one, or where it cannot be read."""
    try:
        with open_limited(files[0], MAX_IMAGE_BYTES) as file:
            return image_size(file.read(HEADER_BYTES))
    except (IndexError, OSError):
        return None


def list_images(folder: Path, layout: Layout, span: Span | None, issues: Issues) -> ImageList:
    """List the images of ``folder``, or those of ``span``, ordered by number: 2.jpg comes before 10.jpg.

    A number that occurs twice and a first number other than the layout's are errors; gaps and other files are
    warnings. Hidden files are skipped.
    """
    try:
        names = [name for name in os.listdir(folder) if name[0] != "."]
    except OSError as error:
        issues.error("unreadable", folder, f"The folder cannot be listed ({error.strerror}).")
        return ImageList(folder, ())
    images = [name for name in names if name.lower().endswith(tuple(IMAGE_SUFFIXES))]
    expected = re.compile(layout.other_files or "(?!)")
    others = {name for name in names if not expected.fullmatch(name)} - set(images)
    if others:
        said = f"{counted(len(others), 'file')} among the images not read, such as {min(others)!r}."
        issues.warn("foreign", folder, said)
    images.sort()
    if not _is_plain(images):
        images.sort(key=natural_key)
        images = _select(images, folder, span, layout.first, issues)
    elif span is not None:
        images = [name for name in images if span.first <= int(name.partition(".")[0]) <= span.last]
    elif images and layout.first not in (None, int(images[0].partition(".")[0])):
        _report_first(issues, folder, images[0], layout.first)
    return ImageList(folder, tuple(images))


def _is_plain(images: list[str]) -> bool:
    """Return whether sorted names are in order: one number each, padded alike, without gap, of one type."""
    stem, suffix = os.path.splitext(images[0]) if images else ("0", "")
    if not stem.isdecimal():
        return False
    return images == [f"{number:0{len(stem)}d}{suffix}" for number in range(int(stem), int(stem) + len(images))]


def _select(images: list[str], folder: Path, span: Span | None, first: int | None, issues: Issues) -> list[str]:
    """Return the images of ``span`` in natural order; oddities of their numbers go to ``issues``."""
    numbered = [(int(found[-1]), name) for name in images if (found := re.findall(r"\d+", name))]
    if len(numbered) < len(images):
        if span is not None or first is not None:
            issues.error("numbers", folder, f"{len(images) - len(numbered)} images have no number.")
        return images
    if span is not None:
        numbered = [(number, name) for number, name in numbered if span.first <= number <= span.last]
    seen: dict[int, str] = {}
    for number, name in numbered:
        if number in seen:
            issues.error("numbers", folder, f"{seen[number]} and {name} have the same number.")
            return [name for _, name in numbered]
        seen[number] = name
    if not seen:
        return []
    low, high = min(seen), max(seen)
    if span is None and first not in (None, low):
        _report_first(issues, folder, seen[low], first)
    if gaps := high - low + 1 - len(seen):
        issues.warn("numbers", folder, f"{gaps} numbers are missing between {low} and {high}.")
    return [name for _, name in numbered]


def _report_first(issues: Issues, folder: Path, name: str, first: int | None) -> None:
    issues.error("numbers", folder, f"The first image is {name}, not number {first}.")
