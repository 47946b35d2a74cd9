"""Miniatures of the sets of pictures with phrases: same folders, same files, drawn pictures. Knows no reader.

The pickles of RefCOCO, RefCOCO+ and RefCOCOg are pickles here, too (``phrases_pickle``), both as REFER and as
VLTVG write them, and the converter has put its lines beside them, so that a miniature opens as it is. Boxes
and phrases are true of the pictures. Each set has its oddities: a crowd and a small box in COCO, a region
without size in Visual Genome.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vltrack.core.errors import ResourceError
from vltrack.core.files import as_resource_error
from vltrack.core.types import Image
from vltrack.datasets.referring import referring_layout
from vltrack.datasets.referring_convert import convert
from vltrack.datasets.synthetic import synthesize_clip

# MERGED datasets/miniatures_referring.py
# Plain data written as the pickles that sets of phrases come in. Writes only; knows no class.
#
# Numbers, texts, None, lists, tuples and dictionaries become the few instructions of pickle's protocol 2 that
# make them: enough for miniatures of REFER's and VLTVG's files.


def plain_pickle(value: object) -> bytes:
    """The pickle of plain data. Raises ``TypeError`` for any other thing."""
    return b"\x80\x02" + b"".join(_parts(value)) + b"."


def torch_archive(value: object, name: str) -> bytes:
    """What ``torch.save`` makes of plain data: an archive with the pickle as ``NAME/data.pkl``."""
    made = BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for entry, data in (("data.pkl", plain_pickle(value)), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(zipfile.ZipInfo(f"{name}/{entry}"), data)  # no time of day in it
    return made.getvalue()


def _parts(value: object) -> list[bytes]:
    match value:
        case None:
            return [b"N"]
        case bool():
            return [b"\x88" if value else b"\x89"]
        case int():
            length = value.bit_length() // 8 + 1
            return [b"\x8a", bytes([length]), value.to_bytes(length, "little", signed=True)]
        case float():
            return [b"G", struct.pack(">d", value)]
        case str():
            data = value.encode()
            return [b"X", struct.pack("<I", len(data)), data]
        case list():
            return [b"](", *_all(value), b"e"]
        case tuple():
            return [b"(", *_all(value), b"t"]
        case dict():
            return [b"}(", *_all(part for pair in value.items() for part in pair), b"u"]
    raise TypeError(f"a {type(value).__name__} is no plain data")


def _all(values: Iterable[object]) -> list[bytes]:
    return [part for value in values for part in _parts(value)]


_SIZE = (320, 240)
_PICTURES = 3  # a split


@dataclass(frozen=True, kw_only=True, slots=True)
class _Thing:
    """A drawn thing: number, number of its picture, box x, y, w, h, what it is called."""

    number: int
    picture: int
    box: list[float]
    phrase: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scene:
    """A drawn picture with its things."""

    number: int
    image: Image
    things: tuple[_Thing, ...]


def write_referring_miniature(name: str, out: Path, seed: int = 0) -> Path:
    """Write a miniature of the set ``name`` into the folder ``out``, which it returns; same seed, same bytes.

    Raises:
        DataError: no set of that name.
        ResourceError: ``out`` is not empty, or cannot be written.
    """
    layout = referring_layout(name)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ResourceError(f"{out} exists and is not empty.", hint="Choose another folder or remove it.")
    scenes = {
        split: _scenes(seed * 1000 + 100 * place, place * 1000) for place, split in enumerate(layout.splits)
    }
    try:
        _WRITERS[name](out, scenes)
    except OSError as error:
        raise as_resource_error(error, out) from error
    return out


def _scenes(seed: int, first: int) -> list[_Scene]:
    """Pictures whose target has at least 20 pixels a side and lies wholly inside."""
    found: list[_Scene] = []
    while len(found) < _PICTURES:
        clip = synthesize_clip(seed, 1, _SIZE)
        seed += 1
        number = first + len(found) + 1
        named = [(clip.boxes[0], clip.sentence)]
        if clip.distractor_boxes is not None:
            named.append((clip.distractor_boxes[0], clip.distractor_sentence))
        if min(box[2:].min() for box, _ in named) >= 20:
            things = tuple(
                _Thing(number=10 * number + k, picture=number, box=np.round(box, 2).tolist(), phrase=phrase)
                for k, (box, phrase) in enumerate(named)
            )
            found.append(_Scene(number=number, image=clip.frames[0], things=things))
    return found


def _coco(out: Path, scenes: dict[str, list[_Scene]]) -> None:
    for split, pictures in scenes.items():
        _draw(out / "images" / f"{split}2017", pictures, "{:012d}.jpg")
        made = _instances(pictures, "{:012d}.jpg")
        first = pictures[0].number
        counts = {"counts": [0, 100, _SIZE[0] * _SIZE[1] - 100], "size": [_SIZE[1], _SIZE[0]]}
        crowd = {"id": 900001, "iscrowd": 1, "bbox": [1.0, 1.0, 90.0, 80.0], "segmentation": counts}
        small = {"id": 900002, "iscrowd": 0, "bbox": [5.0, 5.0, 12.0, 9.0], "segmentation": []}
        for odd in (crowd, small):
            made["annotations"].append(odd | {"image_id": first, "category_id": 1, "area": 100.0})
        _write_json(out / "annotations" / f"instances_{split}2017.json", made)


def _regions(out: Path, scenes: dict[str, list[_Scene]]) -> None:
    (pictures,) = scenes.values()
    _draw(out / "VG_100K", pictures[:2], "{}.jpg")
    _draw(out / "VG_100K_2", pictures[2:], "{}.jpg")
    made: list[dict[str, Any]] = []
    for scene in pictures:
        regions = [_region(thing, [round(side) for side in thing.box]) for thing in scene.things]
        made.append({"id": scene.number, "regions": regions})
    made[0]["regions"].append(
        _region(_Thing(number=9, picture=pictures[0].number, box=[], phrase="a line"), [3, 4, 0, 7])
    )
    _write_json(out / "region_descriptions.json", made)


def _region(thing: _Thing, box: list[int]) -> dict[str, Any]:
    sides = dict(zip(("x", "y", "width", "height"), box, strict=True))
    return {"region_id": thing.number, "image_id": thing.picture, "phrase": thing.phrase, **sides}


def _refer(folder: str, refs: str, short: str) -> Callable[[Path, dict[str, list[_Scene]]], None]:
    """The writer of a set as REFER and VLTVG have it, both of the same pictures."""
    picture = "COCO_train2014_{:012d}.jpg"

    def write(out: Path, scenes: dict[str, list[_Scene]]) -> None:
        home, lists = out / folder, out / "split" / "data" / short
        home.mkdir(parents=True)
        lists.mkdir(parents=True)
        pictures = [scene for part in scenes.values() for scene in part]
        _draw(out / "train2014", pictures, picture)
        _write_json(home / "instances.json", _instances(pictures, picture))
        entries = [_entry(thing, split, picture) for split, part in scenes.items() for thing in _things(part)]
        (home / f"{refs}.p").write_bytes(plain_pickle(entries))
        convert(home / f"{refs}.p")
        for split, part in scenes.items():
            file = lists / f"{short}_{split}.pth"
            rows = [
                (picture.format(thing.picture), f"{thing.number}.pth", thing.box, phrase, [("r1", ["none"])])
                for thing in _things(part)
                for phrase in _phrases(thing)
            ]
            file.write_bytes(torch_archive(rows, file.stem))
            convert(file)

    return write


def _entry(thing: _Thing, split: str, picture: str) -> dict[str, Any]:
    """One thing as REFER lists it, with two sentences."""
    sentences = [
        {"tokens": words.split(), "raw": words, "sent_id": 2 * thing.number + k, "sent": words}
        for k, words in enumerate(_phrases(thing))
    ]
    name = picture.format(thing.picture).replace(".jpg", f"_{thing.number}.jpg")
    return {
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "file_name": name,
        "ann_id": thing.number,
        "ref_id": thing.number,
        "image_id": thing.picture,
        "split": split,
        "sentences": sentences,
        "category_id": 1,
    }


def _phrases(thing: _Thing) -> tuple[str, str]:
    return thing.phrase, thing.phrase.removeprefix("the ")


def _things(scenes: Iterable[_Scene]) -> list[_Thing]:
    return [thing for scene in scenes for thing in scene.things]


def _instances(scenes: list[_Scene], picture: str) -> dict[str, Any]:
    """COCO's file: each shape that occurs is a category."""
    things = _things(scenes)
    shapes = sorted({thing.phrase.split()[-1] for thing in things})
    annotations = [
        {
            "segmentation": [_corners(thing.box)],
            "area": round(thing.box[2] * thing.box[3], 2),
            "iscrowd": 0,
            "image_id": thing.picture,
            "bbox": thing.box,
            "category_id": shapes.index(thing.phrase.split()[-1]) + 1,
            "id": thing.number,
        }
        for thing in things
    ]
    return {
        "info": {"description": "a miniature with drawn pictures", "version": "1.0"},
        "licenses": [],
        "images": [
            {
                "id": scene.number,
                "file_name": picture.format(scene.number),
                "width": _SIZE[0],
                "height": _SIZE[1],
            }
            for scene in scenes
        ],
        "annotations": annotations,
        "categories": [{"supercategory": "shape", "id": k, "name": name} for k, name in enumerate(shapes, 1)],
    }


def _corners(box: list[float]) -> list[float]:
    x, y, w, h = box
    return [round(side, 2) for side in (x, y, x + w, y, x + w, y + h, x, y + h)]


def _draw(folder: Path, scenes: list[_Scene], picture: str) -> None:
    folder.mkdir(parents=True)
    for scene in scenes:
        done, data = cv2.imencode(".jpg", scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        if not done:
            raise OSError("a picture could not be encoded")
        (folder / picture.format(scene.number)).write_bytes(data.tobytes())


def _write_json(file: Path, made: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(made), encoding="utf-8")


_WRITERS: dict[str, Callable[[Path, dict[str, list[_Scene]]], None]] = {
    "coco2017": _coco,
    "visual-genome": _regions,
    "refcoco": _refer("refcoco", "refs(unc)", "unc"),
    "refcoco+": _refer("refcoco+", "refs(unc)", "unc+"),
    "refcocog": _refer("refcocog", "refs(google)", "gref"),
    "refcocog-umd": _refer("refcocog", "refs(umd)", "gref_umd"),
}
