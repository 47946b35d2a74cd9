"""Layout of a video data set on disk, as plain data; ``layouts`` has one row per data set.

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
ALL = "all"
"""Name of the split that has every sequence that is there."""
META_KEYS = ("root_class", "major_class", "object_class", "motion_class", "motion_adverb")
"""Keys of GOT-10k's meta_info.ini that make its sentence, in the order used by vision-language trackers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One part of a data set.

    Attributes:
        name: "test", "train", ...
        folders: values of {split}: globs, of which the first that match anything count.
        listed: file with the names, one per line; or a pattern with {seq} whose files name them. Without it,
            every sequence that is found belongs to the split.
        indices: the list holds 0-based positions in ``list.txt`` of the split's folder instead of names.
        withheld: only the first box of a sequence is published.
    """

    name: str
    folders: Patterns = ("",)
    listed: Patterns = ()
    indices: bool = False
    withheld: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Format of a row of boxes.

    Attributes:
        box: columns of the box; where other columns come before it, others may follow.
        corners: the box is xmin, ymin, xmax, ymax instead of x, y, w, h.
        lost: column that is 1 where the target is absent.
        rate: rows per image, where boxes may have been annotated at a higher frame rate (8 for NFS).
        slack: allowed difference between the number of rows and of images; both are cut to the shorter.
    """

    box: tuple[int, int, int, int] = (0, 1, 2, 3)
    corners: bool = False
    lost: int | None = None
    rate: int = 1
    slack: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Flags:
    """A file with 0 or 1 per frame; 1 where the target is absent.

    Attributes:
        files: its path.
        needed: a sequence without the file is an error.
    """

    files: Patterns
    needed: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Images of a sequence: numbers ``first`` to ``last`` of ``folder`` (by default its own)."""

    first: int
    last: int
    folder: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """Where to get a data set.

    Attributes:
        page: an address; where it may move, what to search for instead.
        parts: what to download and where to unpack it, one item per line.
        size: approximate size, or "".
    """

    page: str
    parts: tuple[str, ...]
    size: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One data set in one form on disk.

    Attributes:
        name: identifier ("lasot").
        title: name in papers.
        form: "" for the data set as its authors publish it, else a description of this form.
        splits: its parts; the first that is there is opened by default.
        boxes: file with the boxes of a sequence.
        frames: its folder of images, or a video file; () where only annotations are published.
        marks: groups of globs that identify this layout: every glob of one group has to match something.
        names: regular expression of its sequence names.
        rows: format of a row of boxes.
        first: number of the first image (None: any).
        flags: files with absence flags.
        absent_box: boxes that mark absence: only "nan", also "zero" (0,0,0,0) or "flat" (no width or height).
        own: clips of the user, in which a box with negative size is an error.
        cover: file with 0 to 8 per frame: visible eighths of the target.
        sentence: file with the sentence.
        sentence_form: "line" (first line), "text" (whole file), "meta" (composed from meta_info.ini), "sheet"
            (a column in the last row of a table).
        meta: file of "key: value" lines with the frame size.
        attributes: short names of the attributes, in the file's order.
        attribute_files: file with the attribute flags of a sequence.
        spans, aliases, cuts: exceptions by sequence name: its images; its other names on disk; number of rows
            that count (None: the shortest of rows, flags and images).
        other_files: regular expression of files that may lie in the folder of images.
        spans_file: file that overrides ``spans`` where it exists.
        json: name of a pysot annotation file.
        archive: a .zip of ``boxes`` files is read without unpacking it.
        download: where to get it.
    """

    name: str
    title: str
    form: str = ""
    splits: tuple[Split, ...]
    boxes: Patterns = ()
    frames: Patterns = ()
    marks: tuple[Patterns, ...] = ()
    names: str = ".+"
    rows: Rows = Rows()
    first: int | None = 1
    flags: tuple[Flags, ...] = ()
    absent_box: Literal["nan", "zero", "flat"] = "nan"
    own: bool = False
    cover: Patterns = ()
    sentence: Patterns = ()
    sentence_form: Literal["line", "text", "meta", "sheet"] = "line"
    meta: Patterns = ()
    attributes: tuple[str, ...] = ()
    attribute_files: Patterns = ()
    spans: Mapping[str, Span] = field(default_factory=dict)
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cuts: Mapping[str, int | None] = field(default_factory=dict)
    other_files: str = ""
    spans_file: str = ""
    json: str = ""
    archive: bool = False
    download: Download | None = None
