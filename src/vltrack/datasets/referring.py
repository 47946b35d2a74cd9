"""Pictures in which a phrase names a box: the sets of ``phrases_layouts``, opened. Knows no video, no model.

Pictures are decoded when they are asked for. For training on single pictures and for measuring grounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.types import Box, Image
from vltrack.datasets.images import read_rgb
from vltrack.datasets.referring_json import Columns, read_coco, read_lines, read_regions

# MERGED datasets/referring.py
# The sets of pictures with phrases, a row each: splits, files, folders, what to fetch. Knows no reader.
#
# Names in files: ``{split}`` is the split's name. Files call the sets otherwise than papers: ``unc`` is
# RefCOCO, ``unc+`` RefCOCO+, ``gref`` RefCOCOg with Google's splits, ``gref_umd`` with those of UMD.


class AnnotationFormat(StrEnum):
    """How annotations are written: COCO's JSON, Visual Genome's regions, or our lines (see the converter)."""

    COCO = "coco"
    REGIONS = "regions"
    LINES = "lines"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferringLayout:
    """One set.

    Attributes:
        name, title: as the command takes it, as papers write it.
        splits: official names, in the order of the papers.
        kind: how its annotations are written.
        annotations: where, below the root; the first that is there counts, for each split.
        pictures: folders of pictures below the root; a picture is looked for in one after the other.
        raw: files that are there before conversion (pickles); empty where nothing is to convert.
        fetch: what to fetch from where, and how it is unpacked; a line each.
        tree: how the root has to look, a line each.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    kind: AnnotationFormat
    annotations: tuple[str, ...]
    pictures: tuple[str, ...]
    raw: tuple[str, ...] = ()
    fetch: tuple[str, ...] = ()
    tree: tuple[str, ...] = ()


_TRAIN_2014 = (
    "train2014",
    "images/train2014",
    "images/mscoco/images/train2014",
    "other/images/mscoco/images/train2014",
    "../train2014",
    "../coco/train2014",
)


def _refer(
    name: str, title: str, folder: str, refs: str, short: str, splits: tuple[str, ...]
) -> ReferringLayout:
    """A set of phrases over COCO's pictures of 2014, as REFER (``refs(..).p``) or VLTVG (``.pth``) has it."""
    places = (f"split/data/{short}/{short}_{{split}}", f"{short}/{short}_{{split}}", f"{short}_{{split}}")
    whole = (f"{folder}/{refs}", refs)
    return ReferringLayout(
        name=name,
        title=title,
        splits=splits,
        kind=AnnotationFormat.LINES,
        annotations=tuple(f"{place}.jsonl" for place in (*places, *whole)),
        pictures=_TRAIN_2014,
        raw=(*(f"{place}.pth" for place in places), *(f"{place}.p" for place in whole)),
        fetch=(
            "pictures: train2014.zip from cocodataset.org, unpacked to ROOT/train2014/",
            f"phrases, either: {folder}.zip of github.com/lichengunc/refer, unpacked to ROOT/{folder}/ "
            f"({refs}.p and instances.json)",
            f"or: the data split of github.com/yangli18/VLTVG, unpacked to ROOT/split/data/{short}/",
            f"then, for each of these pickles: vltrack datasets convert 'ROOT/{folder}/{refs}.p'",
        ),
        tree=(
            "ROOT/train2014/COCO_train2014_000000000009.jpg",
            f"ROOT/{folder}/{refs}.p and ROOT/{folder}/instances.json",
            f"or ROOT/split/data/{short}/{short}_<split>.pth",
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
            kind=AnnotationFormat.COCO,
            annotations=("annotations/instances_{split}2017.json",),
            pictures=("images/{split}2017", "{split}2017"),
            fetch=(
                "train2017.zip and val2017.zip from cocodataset.org, unpacked to ROOT/images/ or to ROOT/",
                "annotations_trainval2017.zip from cocodataset.org, unpacked to ROOT/",
            ),
            tree=(
                "ROOT/images/<split>2017/000000000009.jpg or ROOT/<split>2017/000000000009.jpg",
                "ROOT/annotations/instances_<split>2017.json",
            ),
        ),
        _refer("refcoco", "RefCOCO", "refcoco", "refs(unc)", "unc", _TEST_AB),
        _refer("refcoco+", "RefCOCO+", "refcoco+", "refs(unc)", "unc+", _TEST_AB),
        _refer("refcocog", "RefCOCOg (Google)", "refcocog", "refs(google)", "gref", ("train", "val")),
        _refer(
            "refcocog-umd", "RefCOCOg (UMD)", "refcocog", "refs(umd)", "gref_umd", ("train", "val", "test")
        ),
        ReferringLayout(
            name="visual-genome",
            title="Visual Genome regions",
            splits=("all",),
            kind=AnnotationFormat.REGIONS,
            annotations=("region_descriptions.json",),
            pictures=("VG_100K", "VG_100K_2", "images/VG_100K", "images/VG_100K_2"),
            fetch=(
                "images.zip and images2.zip (version 1.2) from the Visual Genome page of the University of "
                "Washington, unpacked to ROOT/ (makes ROOT/VG_100K/ and ROOT/VG_100K_2/)",
                "region_descriptions.json.zip from the same page, unpacked to ROOT/",
            ),
            tree=("ROOT/VG_100K/2.jpg", "ROOT/VG_100K_2/1.jpg", "ROOT/region_descriptions.json"),
        ),
    )
}


READERS: dict[AnnotationFormat, Callable[[Path, str], Columns]] = {
    AnnotationFormat.COCO: read_coco,
    AnnotationFormat.REGIONS: read_regions,
    AnnotationFormat.LINES: read_lines,
}
_PACKED = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".lmdb")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReferringExpression:
    """One phrase in one picture.

    Attributes:
        file: the picture; it need not be there until it is read.
        box: (4,) x, y, w, h float64 in pixels of the picture, as annotated; w and h > 0.
        phrase: names the thing in the box; for COCO 2017 its category.
        split: of the set, such as ``testA``.
        reference: the same for all phrases of one thing, else different within the split.
    """

    file: Path
    box: Box
    phrase: str
    split: str
    reference: str

    def image(self) -> Image:
        """RGB uint8 (H, W, 3), decoded now. Raises ``DataError`` naming the file."""
        return read_rgb(self.file)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReferringSplit:
    """One split as columns of N rows.

    Attributes:
        split, annotations: its name, and the file that it was read from.
        names: names of the pictures; ``image`` (N,) int64 are indices into them.
        boxes: (N, 4) x, y, w, h float64 in pixels.
        phrases, references: N texts.
        sizes: width and height by picture name, where the annotations say so.
        left_out: why and how often something was not taken.
    """

    split: str
    annotations: Path
    names: tuple[str, ...]
    image: NDArray[np.int64]
    boxes: NDArray[np.float64]
    phrases: tuple[str, ...]
    references: tuple[str, ...]
    sizes: dict[str, tuple[int, int]]
    left_out: Counter[str]

    def __len__(self) -> int:
        return len(self.phrases)


class ReferringSet:
    """The phrases of the chosen splits of a set, one after the other. ``len``, index and iteration."""

    def __init__(self, layout: ReferringLayout, root: Path, splits: tuple[ReferringSplit, ...]) -> None:
        self.layout, self.root, self.splits = layout, root, splits
        self._ends = np.cumsum([len(split) for split in splits])

    @property
    def name(self) -> str:
        """As the command takes it, such as ``refcoco+``."""
        return self.layout.name

    @property
    def left_out(self) -> Counter[str]:
        """Why and how often something was not taken, over all splits."""
        return sum((split.left_out for split in self.splits), Counter())

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> ReferringExpression:
        if not 0 <= index < len(self):
            raise IndexError(f"{index} of {len(self)} phrases")
        which = int(np.searchsorted(self._ends, index, side="right"))
        split = self.splits[which]
        row = index - (int(self._ends[which]) - len(split))
        return ReferringExpression(
            file=picture_file(self.layout, self.root, split.split, split.names[split.image[row]]),
            box=split.boxes[row],
            phrase=split.phrases[row],
            split=split.split,
            reference=split.references[row],
        )

    def __iter__(self) -> Iterator[ReferringExpression]:
        return (self[index] for index in range(len(self)))

    def samples(self) -> Iterator[tuple[Image, str, Box]]:
        """IndexedImage (RGB uint8 (H, W, 3)), phrase and box x, y, w, h of each, for a measure of grounding.

        A picture that serves several phrases in a row is decoded once. Raises ``DataError`` for the first one
        that cannot be read.
        """
        file, image = Path(), np.empty((0, 0, 3), dtype=np.uint8)
        for one in self:
            if one.file != file:
                file, image = one.file, one.image()
            yield image, one.phrase, one.box


def open_referring(
    path: Path, *, name: str | None = None, split: str | None = None, min_side: float = 0.0
) -> ReferringSet:
    """The set in the folder ``path``; which one follows from its files unless ``name`` says so.

    ``split``: only this one, else all that are there. ``min_side`` keeps boxes whose width and height are
    greater, in pixels (50 where trackers are trained on COCO).

    Raises:
        DataError: no such folder, none or several of the known sets in it, no such set or split, annotations
            that are still pickles, or what is wrong in an annotation file.
    """
    layout = referring_layout(name) if name is not None else detect_referring(path)
    if split is not None and split not in layout.splits:
        raise DataError(
            f"{layout.title} has no split {split!r}.", hint=f"There are {', '.join(layout.splits)}."
        )
    files = annotation_files(layout, path)
    if not files or (split is not None and split not in files):
        raise missing_annotations(layout, path, split)
    chosen = [split] if split is not None else list(files)
    return ReferringSet(layout, path, tuple(_read(layout, files[each], each, min_side) for each in chosen))


def detect_referring(path: Path) -> ReferringLayout:
    """The one set that the folder's files are of, converted or not yet. Raises ``DataError``."""
    _check_folder(path)
    found = [layout for layout in REFERRING_LAYOUTS.values() if annotation_files(layout, path)]
    found = found or [layout for layout in REFERRING_LAYOUTS.values() if raw_files(layout, path)]
    named = [layout for layout in found if layout.name == path.resolve().name.lower()]
    found = named or found
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{path} may be {', '.join(layout.name for layout in found)}.", hint="Say which by its name."
        )
    raise DataError(
        f"{path} is none of the sets {', '.join(REFERRING_LAYOUTS)}.",
        hint="`vltrack datasets fetch-help NAME` says where its files belong.",
    )


def annotation_files(layout: ReferringLayout, root: Path) -> dict[str, Path]:
    """The annotation file of each split that has one."""
    found: dict[str, Path] = {}
    for split in layout.splits:
        places = (root / place.format(split=split) for place in layout.annotations)
        file = next((place for place in places if place.is_file()), None)
        if file is not None:
            found[split] = file
    return found


def raw_files(layout: ReferringLayout, root: Path) -> list[Path]:
    """Files of the set that the converter has to read before it can be opened."""
    places = (root / place.format(split=split) for place in layout.raw for split in layout.splits)
    return list(dict.fromkeys(place for place in places if place.is_file()))


def picture_file(layout: ReferringLayout, root: Path, split: str, name: str) -> Path:
    """Where the picture is; where it should be, if it is nowhere."""
    places = [root / folder.format(split=split) / name for folder in layout.pictures]
    return next((place for place in places if place.is_file()), places[0])


def missing_annotations(layout: ReferringLayout, root: Path, split: str | None) -> DataError:
    """The error for a set, or a split of it, that has no annotation file."""
    what = layout.title if split is None else f"the split {split} of {layout.title}"
    raw = raw_files(layout, root)
    if raw:
        return DataError(
            f"{raw[0]} is a pickle, which is not read directly because reading one can run code.",
            hint=f"Convert it once: vltrack datasets convert '{raw[0]}'",
        )
    if not root.is_dir():
        return _no_folder(root)
    return DataError(
        f"{root} has no annotations of {what}: none of {', '.join(layout.annotations)}.",
        hint=f"`vltrack datasets fetch-help {layout.name}` says what to fetch.",
    )


def referring_layout(name: str) -> ReferringLayout:
    """The row of ``REFERRING_LAYOUTS``. Raises ``DataError`` that lists the names."""
    if name not in REFERRING_LAYOUTS:
        raise DataError(
            f"no set of pictures is called {name[:60]!r}.", hint=f"There are {', '.join(REFERRING_LAYOUTS)}."
        )
    return REFERRING_LAYOUTS[name]


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        raise _no_folder(path)


def _no_folder(path: Path) -> DataError:
    if path.suffix.lower() in _PACKED:
        return DataError(f"{path} is packed.", hint="Unpack it first and give the folder.")
    return DataError(f"{path} is no folder.", hint="Give the root folder of the set.")


def _read(layout: ReferringLayout, file: Path, split: str, min_side: float) -> ReferringSplit:
    columns = READERS[layout.kind](file, split)
    boxes = np.frombuffer(columns.boxes, dtype=np.float64).reshape(-1, 4)
    image = np.frombuffer(columns.image, dtype=np.int64)
    phrases, references = columns.phrases, columns.references
    if min_side > 0:
        keep = np.flatnonzero((boxes[:, 2:] > min_side).all(axis=1))
        columns.left_out[f"a box of {min_side:g} pixels or less"] += len(boxes) - len(keep)
        boxes, image = boxes[keep], image[keep]
        phrases, references = [phrases[k] for k in keep], [references[k] for k in keep]
    if not phrases:
        raise DataError(
            f"{file} has no phrase of the split {split} that can be used.",
            hint=", ".join(f"{count} times {why}" for why, count in columns.left_out.items()),
        )
    return ReferringSplit(
        split=split,
        annotations=file,
        names=tuple(columns.images),
        image=image,
        boxes=boxes,
        phrases=tuple(phrases),
        references=tuple(references),
        sizes=columns.sizes,
        left_out=+columns.left_out,
    )
