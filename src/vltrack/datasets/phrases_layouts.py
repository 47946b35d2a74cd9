"""The sets of pictures with phrases, a row each: splits, files, folders, what to fetch. Knows no reader.

Names in files: ``{split}`` is the split's name. Files call the sets otherwise than papers: ``unc`` is
RefCOCO, ``unc+`` RefCOCO+, ``gref`` RefCOCOg with Google's splits, ``gref_umd`` with those of UMD.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How annotations are written: COCO's JSON, Visual Genome's regions, or our lines (see the converter)."""

    COCO = "coco"
    REGIONS = "regions"
    LINES = "lines"


@dataclass(frozen=True, kw_only=True, slots=True)
class PhraseLayout:
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
    kind: Kind
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
) -> PhraseLayout:
    """A set of phrases over COCO's pictures of 2014, as REFER (``refs(..).p``) or VLTVG (``.pth``) has it."""
    places = (f"split/data/{short}/{short}_{{split}}", f"{short}/{short}_{{split}}", f"{short}_{{split}}")
    whole = (f"{folder}/{refs}", refs)
    return PhraseLayout(
        name=name,
        title=title,
        splits=splits,
        kind=Kind.LINES,
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

LAYOUTS: dict[str, PhraseLayout] = {
    layout.name: layout
    for layout in (
        PhraseLayout(
            name="coco2017",
            title="COCO 2017",
            splits=("train", "val"),
            kind=Kind.COCO,
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
        PhraseLayout(
            name="visual-genome",
            title="Visual Genome regions",
            splits=("all",),
            kind=Kind.REGIONS,
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
