"""The images of a sequence in their order. Knows file names and numbers; decodes nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from vltrack.core.text import counted
from vltrack.datasets.findings import Findings
from vltrack.datasets.layout import Layout, Span
from vltrack.video.formats import IMAGE_SUFFIXES
from vltrack.video.images import natural_key

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class ImageList(Sequence[Path]):
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


def list_images(folder: Path, layout: Layout, span: Span | None, findings: Findings) -> ImageList:
    """The images of ``folder``, those of ``span`` only, in the order of their numbers.

    Their first number is that of the layout. A number twice is an error, a gap or a foreign
    file a warning; hidden files are passed over. Names need not be padded: 2.jpg comes before 10.jpg.
    """
    try:
        names = os.listdir(folder)
    except OSError as error:
        findings.error("unreadable", folder, f"cannot be listed ({error.strerror}).")
        return ImageList(folder, ())
    images = [name for name in names if _suffix(name) in IMAGE_SUFFIXES and name[0] != "."]
    first, beside = layout.first, re.compile(layout.beside or "(?!)")
    foreign = {name for name in names if name[0] != "." and not beside.fullmatch(name)} - set(images)
    if foreign:
        others = f"{counted(len(foreign), 'file')} besides the images ({min(foreign)}), not read."
        findings.warn("foreign", folder, others)
    images.sort()
    if not _is_plain(images):
        images.sort(key=natural_key)
        images = _unique(images, folder, span, first, findings)
    elif span is not None:
        images = [name for name in images if span.first <= int(name.partition(".")[0]) <= span.last]
    elif images and first is not None and int(images[0].partition(".")[0]) != first:
        findings.error("numbers", folder, f"the first image is {images[0]}, not number {first}.")
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
    images: list[str], folder: Path, span: Span | None, first: int | None, findings: Findings
) -> list[str]:
    """The images in natural order, with what is odd about their numbers told."""
    numbered = [(int(found[-1]), name) for name in images if (found := _NUMBER.findall(name))]
    if len(numbered) < len(images):
        if span is not None or first is not None:
            findings.error("numbers", folder, f"{len(images) - len(numbered)} images carry no number.")
        return images
    if span is not None:
        numbered = [(number, name) for number, name in numbered if span.first <= number <= span.last]
    seen: dict[int, str] = {}
    for number, name in numbered:
        if number in seen:
            findings.error("numbers", folder, f"{seen[number]} and {name} carry the same number.")
            return [name for _, name in numbered]
        seen[number] = name
    if not seen:
        return []
    low, high = min(seen), max(seen)
    if first is not None and span is None and low != first:
        findings.error("numbers", folder, f"the first image is {seen[low]}, not number {first}.")
    if gaps := high - low + 1 - len(seen):
        findings.warn("numbers", folder, f"{gaps} numbers are missing between {low} and {high}.")
    return [name for _, name in numbered]
