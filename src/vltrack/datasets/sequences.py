"""One annotated target: its frames, boxes, presence and sentence. Knows no data set and no folder layout."""

from __future__ import annotations

import os
import re
from collections import abc
from collections.abc import Generator
from collections.abc import Sequence as AbcSequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.files import counted
from vltrack.core.types import Frame
from vltrack.datasets.layout import Layout, Span
from vltrack.datasets.parsing import Issues
from vltrack.video.base import IMAGE_SUFFIXES
from vltrack.video.images import natural_key

if TYPE_CHECKING:
    from vltrack.video.source import FrameSource


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequence:
    """One annotated target over N frames, with R annotated rows (R = N, or 1 where the truth is held back).

    Attributes:
        name: official name, as result files are called.
        source: folder of images, or video file; the annotation where there are no pictures.
        files: the images in order (a tuple, or ``frames.ImageList`` that makes paths when asked); None for a
            video file; () where only the annotation is there.
        boxes: (R, 4) float64 x, y, w, h in pixels as annotated: NaN rows and zeros are kept, and nothing is
            shifted, even where the authors counted pixels from 1.
        absent: (R,) bool by the data set's own rule.
        sentence: what names the target, or "" where none is given.
        attributes: short names of the flags that are set, such as ("IV", "OCC").
        cover: (R,) float64 0..8, how much of the target is seen in eighths (GOT-10k), else None.
        size: (width, height) of the frames in pixels where the annotation says so, else None.
    """

    name: str
    source: Path
    files: abc.Sequence[Path] | None
    boxes: NDArray[np.float64]
    absent: NDArray[np.bool_]
    sentence: str = ""
    attributes: tuple[str, ...] = ()
    cover: NDArray[np.float64] | None = None
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Number of frames; of annotated rows where there are no pictures, or a video."""
        return len(self.files) if self.files else len(self.boxes)

    @property
    def annotations_withheld(self) -> bool:
        """Whether the authors keep the boxes after the first to themselves."""
        return len(self.boxes) == 1 and len(self) > 1

    def frames(self) -> Generator[Frame, None, None]:
        """All frames in order, decoded as they are asked for; the reader is closed when the iterator is.

        Raises:
            DataError: there are no pictures, an image cannot be decoded (the path is named), or a video has
                fewer or more frames than there are boxes (seen at the end).
            InputError, PartialResult: the source cannot be read (see ``vltrack.video``).
        """
        if self.files is None:
            return self._from_video()
        if not self.files:
            raise DataError(
                f"{self.name}: only the annotation is in {self.source}, there are no pictures.",
                hint="Open the data set itself to run a tracker over it.",
            )
        return self._from_images(self.files)

    def open_frames(self) -> FrameSource:
        """The source that ``frames`` reads, for those who want to see its gaps; close it."""
        from vltrack.video.images import ImagesSource
        from vltrack.video.source import Limits, open_source

        if self.files is None:
            return open_source(self.source)
        return ImagesSource(
            self.files,
            kind="folder",
            name=str(self.source),
            ignored=0,
            start=0,
            end=None,
            stride=1,
            limits=Limits(),
        )

    def _from_images(self, files: abc.Sequence[Path]) -> Generator[Frame, None, None]:
        with self.open_frames() as source:
            for frame in source:
                if frame.image is None:
                    raise DataError(
                        f"{files[frame.index]} cannot be decoded.", hint="Copy or download the image again."
                    )
                yield frame

    def _from_video(self) -> Generator[Frame, None, None]:
        count = 0
        with self.open_frames() as frames:
            for frame in frames:
                count += 1
                if count <= len(self.boxes):
                    yield frame
        if count != len(self.boxes):
            rows = counted(len(self.boxes), "row")
            raise DataError(
                f"{self.source} has {counted(count, 'frame')}, its groundtruth.txt {rows}.",
                hint="Every frame needs one row.",
            )


# MERGED datasets/sequences.py
# The images of a sequence in their order. Knows file names and numbers; decodes nothing.


_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class ImageList(AbcSequence[Path]):
    """Images of one folder. A path is made when it is asked for: a data set has up to millions."""

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


def list_images(folder: Path, layout: Layout, span: Span | None, issues: Issues) -> ImageList:
    """The images of ``folder``, those of ``span`` only, in the order of their numbers.

    Their first number is that of the layout. A number twice is an error, a gap or a foreign
    file a warning; hidden files are passed over. Names need not be padded: 2.jpg comes before 10.jpg.
    """
    try:
        names = os.listdir(folder)
    except OSError as error:
        issues.error("unreadable", folder, f"cannot be listed ({error.strerror}).")
        return ImageList(folder, ())
    images = [name for name in names if _suffix(name) in IMAGE_SUFFIXES and name[0] != "."]
    first, beside = layout.first, re.compile(layout.beside or "(?!)")
    foreign = {name for name in names if name[0] != "." and not beside.fullmatch(name)} - set(images)
    if foreign:
        others = f"{counted(len(foreign), 'file')} besides the images ({min(foreign)}), not read."
        issues.warn("foreign", folder, others)
    images.sort()
    if not _is_plain(images):
        images.sort(key=natural_key)
        images = _unique(images, folder, span, first, issues)
    elif span is not None:
        images = [name for name in images if span.first <= int(name.partition(".")[0]) <= span.last]
    elif images and first is not None and int(images[0].partition(".")[0]) != first:
        issues.error("numbers", folder, f"the first image is {images[0]}, not number {first}.")
    return ImageList(folder, tuple(images))


def _suffix(name: str) -> str:
    return name[name.rfind(".") :].lower() if "." in name else ""


def _is_plain(images: list[str]) -> bool:
    """Whether the sorted names are one number each, padded alike, without gap and of one type: then their
    order is right.
    """
    if not images:
        return True
    low, suffix = os.path.splitext(images[0])
    high, other = os.path.splitext(images[-1])
    return (
        low.isdecimal()
        and high.isdecimal()
        and len(low) == len(high)
        and suffix == other
        and int(high) - int(low) + 1 == len(images)
        and all(len(name) == len(images[0]) for name in images)
    )


def _unique(
    images: list[str], folder: Path, span: Span | None, first: int | None, issues: Issues
) -> list[str]:
    """The images in natural order, with what is odd about their numbers told."""
    numbered = [(int(found[-1]), name) for name in images if (found := _NUMBER.findall(name))]
    if len(numbered) < len(images):
        if span is not None or first is not None:
            issues.error("numbers", folder, f"{len(images) - len(numbered)} images carry no number.")
        return images
    if span is not None:
        numbered = [(number, name) for number, name in numbered if span.first <= number <= span.last]
    seen: dict[int, str] = {}
    for number, name in numbered:
        if number in seen:
            issues.error("numbers", folder, f"{seen[number]} and {name} carry the same number.")
            return [name for _, name in numbered]
        seen[number] = name
    if not seen:
        return []
    low, high = min(seen), max(seen)
    if first is not None and span is None and low != first:
        issues.error("numbers", folder, f"the first image is {seen[low]}, not number {first}.")
    if gaps := high - low + 1 - len(seen):
        issues.warn("numbers", folder, f"{gaps} numbers are missing between {low} and {high}.")
    return [name for _, name in numbered]
