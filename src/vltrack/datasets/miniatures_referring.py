"""Miniatures of the sets of referring expressions: synthetic images in the exact files and folders.

RefCOCO, RefCOCO+ and RefCOCOg come as pickles of REFER and of VLTVG, together with the converter's lines, so
that a miniature opens directly. Boxes and phrases are true of the images. Oddities of the real sets are
included: a crowd and a small box in COCO, a region without size in Visual Genome.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from vltrack.core.types import Image
from vltrack.datasets.referring import ReferringLayout, referring_layout
from vltrack.datasets.referring_convert import convert
from vltrack.datasets.synthetic import new_folder, synthesize_clip, write_image

_SIZE = (320, 240)
_NAME_2014 = "COCO_train2014_{:012d}.jpg"
_NAME_2017 = "{:012d}.jpg"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Object:
    """An object in an image: its id, that of the image, box x, y, w, h, and the phrase that describes it."""

    number: int
    image: int
    box: list[float]
    phrase: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scene:
    """An image with its objects."""

    number: int
    image: Image
    objects: tuple[_Object, ...]


_Splits = dict[str, list[_Scene]]


def write_referring_miniature(name: str, out: Path, seed: int = 0) -> Path:
    """Write a miniature of the set ``name`` into the folder ``out`` and return ``out``.

    Raises:
        DataError: unknown name.
        ResourceError: ``out`` is not empty, or cannot be written.
    """
    layout = referring_layout(name)
    splits = {split: _scenes(seed * 1000 + 100 * k, k * 1000) for k, split in enumerate(layout.splits)}
    with new_folder(out):
        if name == "coco2017":
            _write_coco(out, splits)
        elif name == "visual-genome":
            _write_regions(out, splits)
        else:
            _write_refer(out, splits, layout)
    return out


def _scenes(seed: int, first: int) -> list[_Scene]:
    """Return three images whose objects are at least 20 pixels wide and high."""
    found: list[_Scene] = []
    while len(found) < 3:
        clip = synthesize_clip(seed, 1, _SIZE)
        seed += 1
        number = first + len(found) + 1
        named = [(clip.boxes[0], clip.sentence)]
        if clip.distractor_boxes is not None:
            named.append((clip.distractor_boxes[0], clip.distractor_sentence))
        if min(box[2:].min() for box, _ in named) >= 20:
            objects = tuple(
                _Object(number=10 * number + k, image=number, box=np.round(box, 2).tolist(), phrase=phrase)
                for k, (box, phrase) in enumerate(named)
            )
            found.append(_Scene(number=number, image=clip.frames[0], objects=objects))
    return found


def _write_coco(out: Path, splits: _Splits) -> None:
    for split, scenes in splits.items():
        _write_images(out / "images" / f"{split}2017", scenes, _NAME_2017)
        made = _instances(scenes, _NAME_2017)
        counts = {"counts": [0, 100, _SIZE[0] * _SIZE[1] - 100], "size": [_SIZE[1], _SIZE[0]]}
        crowd = {"id": 900001, "iscrowd": 1, "bbox": [1.0, 1.0, 90.0, 80.0], "segmentation": counts}
        small = {"id": 900002, "iscrowd": 0, "bbox": [5.0, 5.0, 12.0, 9.0], "segmentation": []}
        for odd in (crowd, small):
            made["annotations"].append(odd | {"image_id": scenes[0].number, "category_id": 1, "area": 100.0})
        _write_json(out / "annotations" / f"instances_{split}2017.json", made)


def _write_regions(out: Path, splits: _Splits) -> None:
    (scenes,) = splits.values()
    _write_images(out / "VG_100K", scenes[:2], "{}.jpg")
    _write_images(out / "VG_100K_2", scenes[2:], "{}.jpg")
    made: list[dict[str, Any]] = []
    for scene in scenes:
        regions = [_region(one, [round(side) for side in one.box]) for one in scene.objects]
        made.append({"id": scene.number, "regions": regions})
    flat = _Object(number=9, image=scenes[0].number, box=[], phrase="a line")
    made[0]["regions"].append(_region(flat, [3, 4, 0, 7]))
    _write_json(out / "region_descriptions.json", made)


def _region(one: _Object, box: list[int]) -> dict[str, Any]:
    sides = dict(zip(("x", "y", "width", "height"), box, strict=True))
    return {"region_id": one.number, "image_id": one.image, "phrase": one.phrase, **sides}


def _write_refer(out: Path, splits: _Splits, layout: ReferringLayout) -> None:
    """Write a set as VLTVG and as REFER have it, both of the same images."""
    lists = out / layout.raw[0]
    refs = out / next(place for place in layout.raw if place.endswith(".p"))
    refs.parent.mkdir(parents=True)
    lists.parent.mkdir(parents=True)
    scenes = [scene for part in splits.values() for scene in part]
    _write_images(out / "train2014", scenes, _NAME_2014)
    _write_json(refs.with_name("instances.json"), _instances(scenes, _NAME_2014))
    entries = [_reference(one, split) for split, part in splits.items() for one in _objects(part)]
    refs.write_bytes(pickle.dumps(entries, 2))
    convert(refs)
    for split, part in splits.items():
        file = lists.with_name(lists.name.format(split=split))
        rows = [
            (_NAME_2014.format(one.image), f"{one.number}.pth", one.box, phrase, [("r1", ["none"])])
            for one in _objects(part)
            for phrase in _phrases(one)
        ]
        file.write_bytes(torch_archive(rows, file.stem))
        convert(file)


def _reference(one: _Object, split: str) -> dict[str, Any]:
    """Return one object as REFER lists it, with two sentences."""
    sentences = [
        {"tokens": phrase.split(), "raw": phrase, "sent_id": 2 * one.number + k, "sent": phrase}
        for k, phrase in enumerate(_phrases(one))
    ]
    return {
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "file_name": _NAME_2014.format(one.image).replace(".jpg", f"_{one.number}.jpg"),
        "ann_id": one.number,
        "ref_id": one.number,
        "image_id": one.image,
        "split": split,
        "sentences": sentences,
        "category_id": 1,
    }


def _phrases(one: _Object) -> tuple[str, str]:
    return one.phrase, one.phrase.removeprefix("the ")


def _objects(scenes: Iterable[_Scene]) -> list[_Object]:
    return [one for scene in scenes for one in scene.objects]


def _instances(scenes: list[_Scene], file_name: str) -> dict[str, Any]:
    """Return COCO's file: each shape that occurs is a category."""
    shape = {one.number: one.phrase.split()[-1] for one in _objects(scenes)}
    shapes = sorted(set(shape.values()))
    annotations = [
        {
            "segmentation": [_corners(one.box)],
            "area": round(one.box[2] * one.box[3], 2),
            "iscrowd": 0,
            "image_id": one.image,
            "bbox": one.box,
            "category_id": shapes.index(shape[one.number]) + 1,
            "id": one.number,
        }
        for one in _objects(scenes)
    ]
    width, height = _SIZE
    images = [
        {"id": scene.number, "file_name": file_name.format(scene.number), "width": width, "height": height}
        for scene in scenes
    ]
    return {
        "info": {"description": "a miniature with drawn images", "version": "1.0"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"supercategory": "shape", "id": k, "name": name} for k, name in enumerate(shapes, 1)],
    }


def _corners(box: list[float]) -> list[float]:
    x, y, w, h = box
    return [round(side, 2) for side in (x, y, x + w, y, x + w, y + h, x, y + h)]


def _write_images(folder: Path, scenes: list[_Scene], file_name: str) -> None:
    folder.mkdir(parents=True)
    for scene in scenes:
        write_image(folder / file_name.format(scene.number), scene.image)


def _write_json(file: Path, made: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(made), encoding="utf-8")


def torch_archive(value: object, name: str) -> bytes:
    """Return the file that ``torch.save`` writes of plain data: an archive with ``NAME/data.pkl``."""
    made = BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for entry, data in (("data.pkl", pickle.dumps(value, 2)), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(zipfile.ZipInfo(f"{name}/{entry}"), data)  # without a time
    return made.getvalue()
