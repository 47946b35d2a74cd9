"""YOLO: a folder with ``classes.txt`` and one text file per frame, lines ``class cx cy w h [score]``.

Center and size are shares of the frame's width and height. Files named ``frame_000000.txt`` count frames from 0 (as
CVAT's), all others with a number at the end from 1 (``clip_1.txt`` as Ultralytics', ``00000001.txt`` after images). The
format has no identity, so that a target is a class; a frame without a line of it says that it is absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from vltrack.core.errors import DataError, UsageError
from vltrack.core.files import printable, write_text
from vltrack.core.track import Track
from vltrack.core.types import cxcywh_to_xywh, xywh_to_cxcywh
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
    read_lines,
    read_numbers,
    tracks_of,
)

NAMES = ("classes.txt", "obj.names")
_OTHERS = (*NAMES, "train.txt")
_NUMBER = re.compile(r"(.*?)(\d{1,9})")


def files_of(
    folder: Path, places: Sequence[str] = ("labels", "obj_train_data", ""), suffix: str = ".txt"
) -> list[tuple[str, int, Path]]:
    """Return name without number, frame number and path of the files of frames in the first of ``places`` with any."""
    for place in (folder / each for each in places):
        if place.is_dir():
            hits = (
                (_NUMBER.fullmatch(file.stem), file) for file in place.glob(f"*{suffix}") if file.name not in _OTHERS
            )
            found = [(hit[1], int(hit[2]) - (hit[1] != "frame_"), file) for hit, file in hits if hit]
            if found:
                return sorted(found, key=lambda one: one[1])
    return []


def of_one_video(path: Path, files: Sequence[tuple[str, int, Path]]) -> Sequence[tuple[str, int, Path]]:
    """Return ``files``, the files of frames in ``path``. Raises ``DataError`` for two of one frame, or two videos."""
    if len(names := {name for name, _, _ in files}) > 1:
        some = ", ".join(map(printable, sorted(names)[:4]))
        raise DataError(f"{printable(path)} holds the frames of {len(names)} videos: {some}.", hint="Give one.")
    for (_, before, _), (_, frame, file) in pairwise([("", -1, path), *files]):
        frame_number(frame, printable(file))
        if before == frame:
            raise DataError(f"{printable(path)} has two files of frame {frame}.")
    return files


def class_names(tracks: Mapping[str, Track]) -> list[str]:
    """Return the classes of targets, their names. Raises ``UsageError`` where two are the same."""
    names = list(map(printable, tracks))
    if len(set(names)) < len(names):
        raise UsageError("Two targets have the same name, which a format without identity cannot distinguish.")
    return names


def read(path: Path, clip: Clip) -> dict[str, Track]:
    """Read a folder; ``clip`` has to have the size of the frame. Raises ``DataError``, ``UsageError`` without size."""
    files = of_one_video(path, files_of(path))
    listed = next((path / name for name in NAMES if (path / name).is_file()), None)
    classes = [] if listed is None else [printable(line.strip()) for line in read_lines(listed)]
    width, height = clip.size("YOLO's boxes are shares of it")
    found: dict[float, Found] = {}
    frames: list[int] = []
    for _, frame, file in files:
        frames.append(frame)
        for where, row in read_numbers(file):
            if len(row) not in (5, 6, 7) or not row[0].is_integer() or not 0 <= row[0] < 1e6:
                raise DataError(f"{where}: a row is class cx cy w h, and maybe a score.")
            if not all(-1 <= value <= 2 for value in row[1:5]):
                raise DataError(f"{where}: {row[1:5]} are not shares of the frame.")
            kind = int(row[0])
            label = classes[kind] if kind < len(classes) else str(kind)
            target = found.setdefault(row[0], Found(label=label, number=kind))
            if frame in target.keys:
                raise DataError(
                    f"{where}: two boxes of the class {label!r} in one frame, and YOLO has no identity.",
                    hint="Export the tracks as MOTChallenge, COCO or CVAT.",
                )
            shares = cxcywh_to_xywh(row[1:5]).tolist()
            box = box_of((shares[0] * width, shares[1] * height, shares[2] * width, shares[3] * height), where)
            if has_area(box):
                score = row[5] if len(row) > 5 and 0 <= row[5] <= 1 else 1.0
                target.keys[frame] = Key(box=box, on=False, score=score)
    for one in found.values():
        one.frames, one.by_hand = frames, has_gaps(frames)
    return tracks_of(list(found.values()), clip, printable(path), "yolo")


def write(tracks: Mapping[str, Track], path: Path, clip: Clip) -> None:
    """Write a folder: one class per target, one file per frame, empty where no target is visible."""
    clip = clip_of(tracks, clip)
    width, height = clip.size("YOLO's boxes are shares of it")
    names = class_names(tracks)
    lines: dict[int, list[str]] = {frame: [] for frame in frames_to_list(tracks, clip.frames or 0)}
    for kind, track in enumerate(tracks.values()):
        for step in (one for one in track if one.visible):
            shares = xywh_to_cxcywh(step.box) / (width, height, width, height)
            lines[step.index].append(f"{kind} " + " ".join(f"{share:.8f}" for share in shares))
    (path / "labels").mkdir(parents=True, exist_ok=True)
    for old in (path / "labels").glob("frame_*.txt"):
        old.unlink()
    write_text(path / "classes.txt", "\n".join(names) + "\n")
    for frame, text in lines.items():
        # Not one by one onto the disk: the folder appears as a whole.
        (path / "labels" / f"frame_{frame:06d}.txt").write_text("".join(map("{}\n".format, text)), encoding="utf-8")
