"""What a ``Layout`` is: where the files of a data set of videos lie and how they are read, as plain data.

Knows the words that a layout is written in. The data sets themselves are in ``layouts``; who reads files by a
layout is ``loading``.

Paths are patterns relative to the root, alternatives in order of preference, with these fields:

    {split}   a folder of the split that is read, such as "train" or "TRAIN_3"
    {part}    the last name of that folder
    {seq}     the sequence's name (or an alias of it)
    {stem}    its name without the last "-number": the class in LaSOT's airplane-1
    {k}       that number
    {folder}  the folder of its images where several sequences share one (``Span.folder``)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Patterns = tuple[str, ...]
ALL = "all"  # the split of everything that is there


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One part of a data set.

    Attributes:
        name: "test", "train", ...
        folders: what {split} stands for; globs, the first that match anything.
        listed: file with the names, one a line; or a pattern with {seq} whose files name them. Without it,
            every sequence that is found belongs to the split.
        indices: the list holds 0-based places in ``list.txt`` of the split's folder instead of names.
        held_back: the authors keep all boxes but the first to themselves.
    """

    name: str
    folders: Patterns = ("",)
    listed: Patterns = ()
    indices: bool = False
    held_back: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """How a row of the truth file reads.

    Attributes:
        box: which fields of a row are the box; where others come before it, others may come behind.
        corners: the box is xmin, ymin, xmax, ymax instead of x, y, w, h.
        lost: the field that is 1 where the target is absent.
        rate: rows an image, where the boxes may have been drawn at a higher rate (8 for NFS).
        slack: by how many rows truth and images may differ; both are cut to the shorter.
    """

    box: tuple[int, int, int, int] = (0, 1, 2, 3)
    corners: bool = False
    lost: int | None = None
    rate: int = 1
    slack: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Flags:
    """A file with 0 or 1 for every frame.

    Attributes:
        files: where it lies.
        absent: the number that says "absent".
        needed: a sequence without the file is at fault.
    """

    files: Patterns
    absent: int = 1
    needed: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Which images belong to a sequence: those numbered ``first`` .. ``last`` of ``folder`` (its own by
    default)."""

    first: int
    last: int
    folder: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """Where people get the data set.

    Attributes:
        page: an address; where it may move, what to search for instead.
        parts: what to download, a line each.
        size: how large, roughly; "" where we do not know.
    """

    page: str
    parts: tuple[str, ...]
    size: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One data set in one form on disk.

    Attributes:
        name: what it is called everywhere ("lasot").
        title: how papers call it.
        form: "" for the data set as its authors ship it, else a word for this form.
        splits: its parts; the first is the one that is opened when none is named.
        truth: the boxes of a sequence.
        frames: its folder of images, or a video file; none where only the annotation is there.
        marks: groups of globs that tell this layout from others: all of one group have to match something.
        names: regular expression that the names of its sequences match.
        rows: how a row of the truth reads.
        first: number of the first image (None: any).
        flags: files that say where the target is absent.
        empty: boxes that say so too: "never", "zero" (all four are 0), "flat" (no width or no height).
            NaN rows always do.
        own: the clips are the user's own: a box with negative size is then a mistake.
        cover: file with 0..8 a frame, how many eighths of the target are seen.
        sentence: file with the words.
        words: how they stand in it: "line" (the first line), "text" (all of it), "meta" (made from
            meta_info.ini), "sheet" (a column of a table, its last row).
        meta: file of "key: value" lines with the frames' size.
        attributes: short names of the flags, in the file's order.
        attribute_files: where the flags of a sequence lie.
        spans, aliases, cuts: what is odd about single sequences: their images; other names of theirs on disk;
            how many rows count (None: as many as the shorter of rows, flags and images).
        beside: regular expression of other files that lie in the folder of the images.
        spans_file: file that holds the spans instead, where it is there.
        json: name of the one file of a pysot annotation.
        archive: may be read from a .zip of ``truth`` files as it is.
        download: where to get it.
    """

    name: str
    title: str
    form: str = ""
    splits: tuple[Split, ...]
    truth: Patterns = ()
    frames: Patterns = ()
    marks: tuple[Patterns, ...] = ()
    names: str = ".+"
    rows: Rows = Rows()
    first: int | None = 1
    flags: tuple[Flags, ...] = ()
    empty: Literal["never", "zero", "flat"] = "never"
    own: bool = False
    cover: Patterns = ()
    sentence: Patterns = ()
    words: Literal["line", "text", "meta", "sheet"] = "line"
    meta: Patterns = ()
    attributes: tuple[str, ...] = ()
    attribute_files: Patterns = ()
    spans: Mapping[str, Span] = field(default_factory=dict)
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cuts: Mapping[str, int | None] = field(default_factory=dict)
    beside: str = ""
    spans_file: str = ""
    json: str = ""
    archive: bool = False
    download: Download | None = None


def short_names(text: str) -> tuple[str, ...]:
    """The names in ``text``, in its order."""
    return tuple(text.split())


def inside(homes: Patterns, *names: str) -> Patterns:
    """Each of ``names`` in each of the folders ``homes``."""
    return tuple(f"{home}/{name}" for home in homes for name in names)
