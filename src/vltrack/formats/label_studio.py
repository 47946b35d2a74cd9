"""Label Studio: a JSON list with one task, whose regions are ``videorectangle`` with a ``sequence`` of keyframes.

Frames count from 1; x, y, width, height are percent of the frame. Label Studio interpolates between keyframes; one
with ``enabled: false`` is the last frame in which the target is visible, until the next keyframe.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vltrack.core.errors import DataError
from vltrack.core.files import printable, sha256_bytes, write_text
from vltrack.core.json_io import read_json
from vltrack.core.track import MAX_FILE_BYTES, Track
from vltrack.formats.base import (
    Clip,
    Found,
    Key,
    box_of,
    clip_of,
    frame_number,
    has_area,
    keyframes,
    label_of,
    marks_of,
    runs,
    tracks_of,
)

_SIDES = ("x", "y", "width", "height")


def read(path: Path, clip: Clip) -> dict[str, Track]:
    """Read the regions of one task: of its annotations, by a person, else of its predictions. Raises ``DataError``."""
    where = printable(path)
    try:
        return _read(read_json(path, max_bytes=MAX_FILE_BYTES), clip, where)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, ArithmeticError) as error:
        missing = f"it lacks {error}" if isinstance(error, KeyError) else str(error)[:80]
        raise DataError(f"{where} is not an export of Label Studio: {printable(missing)}.") from error


def _read(data: Any, clip: Clip, where: str) -> dict[str, Track]:
    tasks = data if isinstance(data, list) else [data]
    names = [Path(str(next(iter(task["data"].values()), ""))).name for task in tasks]
    if len(tasks) > 1:
        matching = [n for n, name in enumerate(names) if Path(name).stem.endswith(Path(clip.name).stem) and clip.name]
        if len(matching) != 1:
            raise DataError(
                f"{where} has {len(tasks)} tasks: {', '.join(map(printable, names[:4]))}.",
                hint="Give the video of one of them (--video), or export one task.",
            )
        tasks, names = [tasks[matching[0]]], [names[matching[0]]]
    task = tasks[0]
    kept = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
    results = kept or task.get("predictions") or ()
    if len(results) > 1:
        raise DataError(f"{where} has {len(results)} annotations of one video.", hint="Export one of them.")
    regions = [one for each in results for one in each["result"] if "sequence" in one.get("value", {})]
    if not regions:
        raise DataError(f"{where} has no region of a video (videorectangle).")
    # A video that is read has the number of frames; the browser's is an estimate.
    value = regions[0]["value"]
    count, seconds = value.get("framesCount"), value.get("duration")
    rate = count / seconds if count and seconds else None
    # Percent fit a video of any size.
    sides = () if clip.width else ("width", "height")
    size = {key: side for key in sides if isinstance(side := regions[0].get(f"original_{key}"), int)}
    facts = Clip(name=printable(names[0]), frames=int(count) if count else None, rate=rate, **size)
    clip = clip.or_else(facts)
    width, height = clip.size("Label Studio's boxes are percent of it")
    found = []
    for number, region in enumerate(regions, 1):
        labels = region["value"].get("labels") or [str(number)]
        texts = (region.get("meta") or {}).get("text")
        sentence = {"sentence": texts[0]} if isinstance(texts, list) and texts and isinstance(texts[0], str) else {}
        target = Found(label=printable(str(labels[0])), number=number, by_hand=_by_hand(region, kept), meta=sentence)
        for key in region["value"]["sequence"]:
            frame = frame_number(key["frame"], f"{where}: region {number}", 1)
            place = f"{where}: region {number}, frame {frame + 1}"
            x, y, w, h = box_of((key[side] for side in _SIDES), place)
            box = box_of((x * width / 100, y * height / 100, w * width / 100, h * height / 100), place)
            if key.get("rotation") or not has_area(box):
                raise DataError(f"{place}: the box is {'rotated' if key.get('rotation') else 'empty'}.")
            target.keys[frame] = Key(box=box, on=key.get("enabled", True) is not False)
        target.last = (clip.frames or 1) - 1  # an enabled keyframe holds to the end
        found.append(target)
    return tracks_of([one for one in found if one.keys], clip, where, "label-studio")


def _by_hand(region: dict[str, Any], kept: Any) -> bool | list[int]:
    """Whether a person set the keyframes of a region: all of an annotation, but for a track of ours those it names."""
    named = (region.get("meta") or {}).get("marks")
    if isinstance(named, list) and all(type(frame) is int for frame in named):
        return [frame - 1 for frame in named]
    return bool(kept)


def write(tracks: Mapping[str, Track], path: Path, clip: Clip) -> None:
    """Write one task: annotations where a person set marks, else predictions."""
    clip = clip_of(tracks, clip)
    width, height = clip.size("Label Studio's boxes are percent of it")
    rate, frames = clip.rate or 1.0, clip.frames or 0
    by_hand = any(marks_of(track) for track in tracks.values())
    result: list[dict[str, Any]] = []
    for name, track in tracks.items():
        sequence = [
            {
                "frame": int(track.indices[row]) + 1, "time": round((int(track.indices[row]) + 1) / rate, 6),
                "enabled": on, "rotation": 0,
                **{
                    side: round(float(value) / full * 100, 6)
                    for side, value, full in zip(
                        _SIDES, track.boxes[row], (width, height, width, height), strict=True
                    )
                },
            }
            for row, on in _keys(track, frames)
        ]  # fmt: skip
        if sequence:
            about: dict[str, Any] = {"text": [track.meta["sentence"]]} if track.meta.get("sentence") else {}
            if marks := marks_of(track):
                about["marks"] = [frame + 1 for frame in marks]
            value = {
                "framesCount": frames,
                "duration": round(frames / rate, 6),
                "sequence": sequence,
                "labels": [label_of(name, track)],
            }
            ident = sha256_bytes(f"{len(result)} {name}".encode("utf-8", "replace"))[:10]
            result.append(
                {
                    "id": ident,
                    "type": "videorectangle",
                    "from_name": "box",
                    "to_name": "video",
                    "origin": "manual" if by_hand else "prediction",
                    "original_width": width,
                    "original_height": height,
                    "value": value,
                    **({"meta": about} if about else {}),
                }
            )
    regions = {"result": result} if by_hand else {"result": result, "model_version": "vltrack"}
    task = {"data": {"video": printable(clip.name)}, "annotations" if by_hand else "predictions": [regions]}
    write_text(path, json.dumps([task], allow_nan=False, ensure_ascii=False, indent=1) + "\n")


def _keys(track: Track, frames: int) -> Iterator[tuple[int, bool]]:
    """Yield the rows of the keyframes, and whether the target stays visible after them."""
    keys = keyframes(track)
    for first, end in runs(track):
        for row in range(first, end):
            ends = row == end - 1 and int(track.indices[row]) + 1 < frames
            if keys[row]:
                yield row, not ends
