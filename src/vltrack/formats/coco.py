"""COCO for video: one JSON file with ``videos``, ``images``, ``tracks`` and ``annotations`` (as TAO), or one entry of
``bboxes`` per track (as YouTube-VIS), which is read only.

``frame_index`` counts from 0; boxes are x, y, w, h in float pixels whose origin is the top left edge of the frame. A
frame without an annotation of a track says that it is absent there. What a person marked has ``"marked": true`` in the
``attributes`` of its annotation; where a person said that the target is absent is ``marked_absent`` of its track.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vltrack.core.errors import DataError
from vltrack.core.files import printable, write_text
from vltrack.core.json_io import read_json
from vltrack.core.track import MAX_FILE_BYTES, Track
from vltrack.formats.base import (
    Clip,
    Found,
    Key,
    box_of,
    clip_of,
    frame_number,
    frames_to_list,
    has_area,
    has_gaps,
    label_of,
    marks_of,
    tracks_of,
)


def read(path: Path, clip: Clip) -> dict[str, Track]:
    """Read the tracks of the only video, or of the one that ``clip`` names. Raises ``DataError``."""
    where = printable(path)
    data = read_json(path, max_bytes=MAX_FILE_BYTES)
    try:
        return _read(data, clip, where)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, ArithmeticError) as error:
        missing = f"it lacks {error}" if isinstance(error, KeyError) else str(error)[:80]
        raise DataError(f"{where} is not COCO with videos: {printable(missing)}.") from error


def _read(data: Mapping[str, Any], clip: Clip, where: str) -> dict[str, Track]:
    video = _video(data["videos"], clip, where)
    labels = {one["id"]: printable(str(one["name"])) for one in data.get("categories", ())}
    about = {one["id"]: one for one in data.get("tracks", ())}
    parts = [one for one in data["annotations"] if "bboxes" in one]
    found: dict[Any, Found] = {}
    marked: dict[Any, set[int]] = {}

    def target(number: Any, category: Any, **more: Any) -> Found:
        if number not in found:
            label = printable(str(about.get(number, {}).get("name") or labels.get(category, "target")))
            caption = about.get(number, {}).get("caption")
            meta = {"sentence": caption} if isinstance(caption, str) else {}
            found[number] = Found(label=label, number=printable(str(number)), meta=meta, **more)
            absent = about.get(number, {}).get("marked_absent")
            marked[number] = {frame for frame in absent if type(frame) is int} if isinstance(absent, list) else set()
        return found[number]

    if parts:
        frames = list(range(len(video["file_names"]))) if "file_names" in video else []
        for one in (one for one in parts if one["video_id"] == video["id"]):
            for frame, box in enumerate(one["bboxes"]):
                if box is not None:
                    _add(target(one["id"], one["category_id"]), frame, box, one, where)
            frames = frames or list(range(len(one["bboxes"])))
    else:
        images = {one["id"]: one for one in data["images"] if one["video_id"] == video["id"]}
        numbers = {
            key: frame_number(one["frame_index"] if "frame_index" in one else one["frame_id"], where)
            for key, one in images.items()
        }
        frames = sorted(set(numbers.values()))
        if len(frames) < len(images):
            raise DataError(f"{where} has two images of one frame.")
        for one in data["annotations"]:
            if one["image_id"] in numbers:
                number = one["track_id"] if "track_id" in one else one["instance_id"]
                _add(target(number, one.get("category_id")), numbers[one["image_id"]], one["bbox"], one, where)
                if (one.get("attributes") or {}).get("marked") is True:
                    marked[number].add(numbers[one["image_id"]])
    facts = Clip(
        name=Path(printable(str(video.get("name") or video.get("file_name") or ""))).name,
        **{key: value for key in ("width", "height") if isinstance(value := video.get(key), int) and value > 0},
        rate=float(video["fps"]) if isinstance(video.get("fps"), int | float) and video["fps"] > 0 else None,
        frames=int(video["length"]) if isinstance(video.get("length"), int) else max(frames, default=-1) + 1,
    )
    for number, one in found.items():  # where only every 30th frame is annotated (TAO) all are marks
        one.frames, one.by_hand = frames, marked[number] or has_gaps(frames)
    return tracks_of(list(found.values()), clip.or_else(facts), where, "coco")


def _video(videos: Sequence[Mapping[str, Any]], clip: Clip, where: str) -> Mapping[str, Any]:
    if len(videos) == 1:
        return videos[0]
    names = [Path(str(one.get("name") or one.get("file_name") or one["id"])).stem for one in videos]
    wanted = Path(clip.name).stem
    if names.count(wanted) != 1:
        some = ", ".join(map(printable, names[:5]))
        raise DataError(
            f"{where} has {len(videos)} videos: {some}{', ...' if len(names) > 5 else ''}.",
            hint="Give the video of that name (--video).",
        )
    return videos[names.index(wanted)]


def _add(target: Found, frame: int, box: Any, one: Mapping[str, Any], where: str) -> None:
    if frame in target.keys:
        raise DataError(f"{where}: the track {target.number} has two boxes in frame {frame}.")
    place = box_of(box, f"{where}: track {target.number}, frame {frame}")
    score = one.get("score", 1.0)
    if has_area(place):
        known = isinstance(score, int | float) and 0 <= score <= 1
        target.keys[frame] = Key(box=place, on=False, score=float(score) if known else 1.0)


def write(tracks: Mapping[str, Track], path: Path, clip: Clip) -> None:
    """Write an image per frame (per row, where these leave frames out), an annotation wherever a target is visible."""
    clip = clip_of(tracks, clip)
    size = {"width": clip.width, "height": clip.height} if clip.width and clip.height else {}
    stem = Path(printable(clip.name)).stem or "video"
    images = [
        {"id": n, "video_id": 1, "frame_index": frame, "frame_id": frame, "file_name": _image(stem, frame), **size}
        for n, frame in enumerate(frames_to_list(tracks, clip.frames or 0), 1)
    ]
    ids = {one["frame_index"]: one["id"] for one in images}
    labels = {label: n for n, label in enumerate(dict.fromkeys(label_of(*each) for each in tracks.items()), 1)}
    about, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for number, (name, track) in enumerate(tracks.items(), 1):
        kind = labels[label_of(name, track)]
        caption = {"caption": track.meta["sentence"]} if track.meta.get("sentence") else {}
        marks = marks_of(track)
        absent = [frame for frame, mark in marks.items() if mark.get("absent")]
        gone = {"marked_absent": absent} if absent else {}
        about.append({"id": number, "category_id": kind, "video_id": 1, "name": printable(name), **caption, **gone})
        for step_ in (one for one in track if one.visible):
            box = [round(float(value), 2) for value in step_.box]
            box[2:] = [max(side, 0.01) for side in box[2:]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": ids[step_.index],
                    "video_id": 1,
                    "track_id": number,
                    "category_id": kind,
                    "bbox": box,
                    "area": round(box[2] * box[3], 2),
                    "iscrowd": 0,
                    "segmentation": [],
                    "score": round(step_.score, 4),
                    **({"attributes": {"marked": True}} if step_.index in marks else {}),
                }
            )
    video = {"id": 1, "name": printable(clip.name) or stem, "length": clip.frames, "fps": clip.rate, **size}
    heads = {
        "info": {"description": "vltrack", "version": "1.0"}, "licenses": [], "videos": [video],
        "categories": [{"id": n, "name": label} for label, n in labels.items()], "tracks": about,
    }  # fmt: skip
    lists = {"images": images, "annotations": annotations}
    body = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in heads.items()]
    for key, rows in lists.items():
        lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
        body.append(f"{json.dumps(key)}: [\n{lines}\n]")
    write_text(path, "{" + ",\n".join(body) + "}\n")


def _image(stem: str, frame: int) -> str:
    return f"{stem}/frame_{frame:06d}.jpg"
