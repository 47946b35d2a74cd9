"""Referring expressions in single images (COCO, RefCOCO, RefCOCO+, RefCOCOg, Visual Genome).

Images are decoded on access. In file names ``{split}`` is the split's name; files call RefCOCO ``unc``,
RefCOCO+ ``unc+``, RefCOCOg with Google's splits ``gref`` and with those of UMD ``gref_umd``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vltrack.core.errors import DataError
from vltrack.core.types import Box, Image
from vltrack.datasets.images import read_rgb
from vltrack.datasets.referring_json import ReferringSplit, read_coco, read_lines, read_regions

_READERS = {"coco": read_coco, "regions": read_regions, "lines": read_lines}
_PACKED = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".lmdb")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferringLayout:
    """One set of referring expressions on disk.

    Attributes:
        name, title: identifier, and name in papers.
        splits: official names, in the order of the papers.
        format: COCO's JSON, Visual Genome's regions, or the lines that ``datasets convert`` writes.
        annotations: files below the root; for each split the first that exists counts.
        images: folders of images below the root; an image is looked for in one after the other.
        raw: pickles that have to be converted first.
        fetch: what to download and where to unpack it, one item per line.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    format: Literal["coco", "regions", "lines"]
    annotations: tuple[str, ...]
    images: tuple[str, ...]
    raw: tuple[str, ...] = ()
    fetch: tuple[str, ...] = ()


def _refer(name: str, title: str, folder: str, refs: str, short: str, splits: tuple[str, ...]) -> ReferringLayout:
    """Return a set over COCO's images of 2014, in the files of REFER (``refs(..).p``) or VLTVG (``.pth``)."""
    places = (f"split/data/{short}/{short}_{{split}}", f"{short}/{short}_{{split}}", f"{short}_{{split}}")
    complete = (f"{folder}/{refs}", refs)
    return ReferringLayout(
        name=name,
        title=title,
        splits=splits,
        format="lines",
        annotations=tuple(f"{place}.jsonl" for place in (*places, *complete)),
        images=(
            "train2014",
            "images/train2014",
            "images/mscoco/images/train2014",
            "other/images/mscoco/images/train2014",
            "../train2014",
            "../coco/train2014",
        ),
        raw=(*(f"{place}.pth" for place in places), *(f"{place}.p" for place in complete)),
        fetch=(
            "images: train2014.zip from cocodataset.org, unpacked to ROOT/train2014/",
            f"phrases, either: {folder}.zip of github.com/lichengunc/refer, unpacked to ROOT/{folder}/ "
            f"({refs}.p and instances.json)",
            f"or: the data split of github.com/yangli18/VLTVG, unpacked to ROOT/split/data/{short}/",
            f"then, for each of these pickles: vltrack datasets convert 'ROOT/{folder}/{refs}.p'",
        ),
    )


_TEST_AB = ("train", "val", "testA", "testB")

REFERRING_LAYOUTS: dict[str, ReferringLayout] = {
    layout.name: layout
    for layout in (
        ReferringLayout(
            name="coco2017",
            title="COCO 2017",
            splits=("train", "val"),
            format="coco",
            annotations=("annotations/instances_{split}2017.json",),
            images=("images/{split}2017", "{split}2017"),
            fetch=(
                "train2017.zip and val2017.zip from cocodataset.org, unpacked to ROOT/images/ or to ROOT/",
                "annotations_trainval2017.zip from cocodataset.org, unpacked to ROOT/",
            ),
        ),
        _refer("refcoco", "RefCOCO", "refcoco", "refs(unc)", "unc", _TEST_AB),
        _refer("refcoco+", "RefCOCO+", "refcoco+", "refs(unc)", "unc+", _TEST_AB),
        _refer("refcocog", "RefCOCOg (Google)", "refcocog", "refs(google)", "gref", ("train", "val")),
        _refer("refcocog-umd", "RefCOCOg (UMD)", "refcocog", "refs(umd)", "gref_umd", ("train", "val", "test")),
        ReferringLayout(
            name="visual-genome",
            title="Visual Genome regions",
            splits=("all",),
            format="regions",
            annotations=("region_descriptions.json",),
            images=("VG_100K", "VG_100K_2", "images/VG_100K", "images/VG_100K_2"),
            fetch=(
                "images.zip and images2.zip (version 1.2) from the Visual Genome page of the University of "
                "Washington, unpacked to ROOT/ (makes ROOT/VG_100K/ and ROOT/VG_100K_2/)",
                "region_descriptions.json.zip from the same page, unpacked to ROOT/",
            ),
        ),
    )
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReferringExpression:
    """One referring expression.

    Attributes:
        file: the image; it need not exist until it is read.
        box: (4,) x, y, w, h float64 in pixels of the image, as annotated; w and h > 0.
        phrase: describes the object in the box; for COCO 2017 its category.
        split: split of the set, such as ``testA``.
        reference: identifies the object within the split: the same for all phrases of one object.
    """

    file: Path
    box: Box
    phrase: str
    split: str
    reference: str

    def image(self) -> Image:
        """Decode the image to RGB uint8 (H, W, 3). Raises ``DataError`` that names the file."""
        return read_rgb(self.file)


class ReferringSet:
    """Referring expressions of some splits of a set, one split after the other; a sequence."""

    def __init__(self, layout: ReferringLayout, root: Path, splits: tuple[ReferringSplit, ...]) -> None:
        self.layout, self.root, self.splits = layout, root, splits
        self._ends = np.cumsum([len(split) for split in splits])

    @property
    def name(self) -> str:
        """Identifier of the set, such as ``refcoco+``."""
        return self.layout.name

    @property
    def left_out(self) -> Counter[str]:
        """Number of entries that were not used, by reason, over all splits."""
        return sum((split.left_out for split in self.splits), Counter())

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> ReferringExpression:
        if not 0 <= index < len(self):
            raise IndexError(f"Index {index} is outside of {len(self)} phrases.")
        which = int(np.searchsorted(self._ends, index, side="right"))
        split = self.splits[which]
        row = index - (int(self._ends[which]) - len(split))
        return ReferringExpression(
            file=image_file(self.layout, self.root, split.split, split.names[split.image[row]]),
            box=split.boxes[row],
            phrase=split.phrases[row],
            split=split.split,
            reference=split.references[row],
        )

    def __iter__(self) -> Iterator[ReferringExpression]:
        return (self[index] for index in range(len(self)))

    def samples(self) -> Iterator[tuple[Image, str, Box]]:
        """Yield (image as RGB uint8 (H, W, 3), phrase, box x, y, w, h) of each, to measure grounding.

        An image with several phrases in a row is decoded once. Raises ``DataError`` for the first one that
        cannot be read.
        """
        file, image = Path(), np.empty((0, 0, 3), dtype=np.uint8)
        for one in self:
            if one.file != file:
                file, image = one.file, one.image()
            yield image, one.phrase, one.box


def open_referring(
    path: Path, *, name: str | None = None, split: str | None = None, min_side: float = 0.0
) -> ReferringSet:
    """Open the set in the folder ``path``, which is detected by its files unless ``name`` is given.

    Args:
        path: root folder of the set.
        name: a key of ``REFERRING_LAYOUTS``.
        split: only this split; default: all that are there.
        min_side: keep only boxes whose width and height are greater, in pixels (50 where trackers are trained on COCO).

    Raises:
        DataError: no such folder, none or several of the known sets in it, no such set or split, annotations
            that are still pickles, or an error in an annotation file.
    """
    layout = referring_layout(name) if name is not None else detect_referring(path)
    if split is not None and split not in layout.splits:
        raise DataError(f"Unknown split of {layout.title}: {split!r}.", hint=f"It has {', '.join(layout.splits)}.")
    files = annotation_files(layout, path)
    if not files or (split is not None and split not in files):
        raise missing_annotations(layout, path, split)
    chosen = [split] if split is not None else list(files)
    return ReferringSet(layout, path, tuple(_read(layout, files[each], each, min_side) for each in chosen))


def detect_referring(path: Path) -> ReferringLayout:
    """Return the one set that the folder's files are of, converted or not yet. Raises ``DataError``."""
    if not path.is_dir():
        raise _no_folder(path)
    layouts = REFERRING_LAYOUTS.values()
    found = [layout for layout in layouts if annotation_files(layout, path)]
    found = found or [layout for layout in layouts if raw_files(layout, path)]
    found = [layout for layout in found if layout.name == path.resolve().name.lower()] or found
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(layout.name for layout in found)
        raise DataError(f"Ambiguous data set: {path} may be {names}.", hint="Give its name.")
    raise DataError(
        f"No data set of {', '.join(REFERRING_LAYOUTS)} in {path}.",
        hint="`vltrack datasets fetch-help NAME` says where its files belong.",
    )


def annotation_files(layout: ReferringLayout, root: Path) -> dict[str, Path]:
    """Return the annotation file of each split that has one."""
    found: dict[str, Path] = {}
    for split in layout.splits:
        places = (root / place.format(split=split) for place in layout.annotations)
        file = next((place for place in places if place.is_file()), None)
        if file is not None:
            found[split] = file
    return found


def raw_files(layout: ReferringLayout, root: Path) -> list[Path]:
    """Return the pickles of the set that have to be converted before it can be opened."""
    places = (root / place.format(split=split) for place in layout.raw for split in layout.splits)
    return list(dict.fromkeys(place for place in places if place.is_file()))


def image_file(layout: ReferringLayout, root: Path, split: str, name: str) -> Path:
    """Return the path of an image; where it should be, if it does not exist."""
    places = [root / folder.format(split=split) / name for folder in layout.images]
    return next((place for place in places if place.is_file()), places[0])


def missing_annotations(layout: ReferringLayout, root: Path, split: str | None) -> DataError:
    """Return the error for a set, or a split of it, without an annotation file."""
    raw = raw_files(layout, root)
    if raw:
        return DataError(
            f"{raw[0]} is a pickle, which is not read directly because reading one can run code.",
            hint=f"Convert it once: vltrack datasets convert '{raw[0]}'",
        )
    if not root.is_dir():
        return _no_folder(root)
    what = layout.title if split is None else f"split {split!r} of {layout.title}"
    places = ", ".join(place.format(split=split or "<split>") for place in layout.annotations)
    return DataError(
        f"No annotations of {what} in {root}: none of {places}.",
        hint=f"`vltrack datasets fetch-help {layout.name}` says what to fetch.",
    )


def referring_layout(name: str) -> ReferringLayout:
    """Return a layout by name. Raises ``DataError`` that lists the names."""
    if name not in REFERRING_LAYOUTS:
        known = f"Known: {', '.join(REFERRING_LAYOUTS)}."
        raise DataError(f"Unknown set of referring expressions: {name[:60]!r}.", hint=known)
    return REFERRING_LAYOUTS[name]


def _no_folder(path: Path) -> DataError:
    if path.suffix.lower() in _PACKED:
        return DataError(f"Packed data set: {path}.", hint="Unpack it first and give the folder.")
    return DataError(f"No such folder: {path}.", hint="Give the root folder of the set.")


def _read(layout: ReferringLayout, file: Path, split: str, min_side: float) -> ReferringSplit:
    found = ReferringSplit(split=split, annotations=file, min_side=min_side)
    _READERS[layout.format](found)
    if not len(found):
        why = ", ".join(f"{count} times {reason}" for reason, count in found.left_out.items())
        raise DataError(f"No usable phrase of split {split!r} in {file}.", hint=why)
    return found
