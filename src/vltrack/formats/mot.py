"""MOTChallenge: lines ``frame,id,x,y,w,h,conf,class,visibility`` in one file, or in ``gt/gt.txt`` of a folder with
``seqinfo.ini`` and ``gt/labels.txt`` (the names of the classes, as CVAT and Datumaro have them).

Frames and ids count from 1. The challenge's text counts pixels from 1, too, but the programs that read it
(TrackEval, Datumaro, CVAT) shift nothing, and neither do we: x, y, w, h in float pixels. No line: absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vltrack.core.errors import DataError
from vltrack.core.files import printable, write_text
from vltrack.core.track import Track
from vltrack.formats.base import (
    Clip,
    Found,
    Key,
    box_line,
    box_of,
    clip_of,
    facts_of,
    frame_number,
    has_area,
    label_of,
    number,
    rate_of,
    read_lines,
    read_numbers,
    spacing,
    tracks_of,
    whole_of,
)


def read(path: Path, clip: Clip) -> dict[str, Track]:
    """Read a file, or the ground truth of a sequence's folder. Raises ``DataError``."""
    file, labels = path, list[str]()
    if path.is_dir():
        file = path / "gt" / "gt.txt"
        facts = facts_of(path / "seqinfo.ini")
        clip = clip.or_else(
            Clip(
                name=printable(facts.get("name", path.name)),
                width=whole_of(facts.get("imwidth")),
                height=whole_of(facts.get("imheight")),
                frames=whole_of(facts.get("seqlength")),
                rate=rate_of(facts.get("framerate")),
            )
        )
        if (names := path / "gt" / "labels.txt").is_file():
            labels = [printable(line.strip()) for line in read_lines(names)]
    found: dict[float, Found] = {}
    frames = set[int]()
    for where, row in read_numbers(file):
        if len(row) < 6 or not row[1].is_integer():
            raise DataError(f"{where}: a row is frame,id,x,y,w,h,... and has a whole number as id.")
        frame, box = frame_number(row[0], where, 1), box_of(row[2:6], where)
        frames.add(frame)
        kind = int(row[7]) if len(row) > 7 and abs(row[7]) < 1e6 else 0
        target = found.get(row[1])
        if target is None:
            label = labels[kind - 1] if 0 < kind <= len(labels) else str(int(row[1]))
            target = found[row[1]] = Found(label=label, number=int(row[1]))
        if frame in target.keys:
            raise DataError(f"{where}: the id {row[1]:g} has two boxes in frame {frame + 1}.")
        if has_area(box):
            score = row[6] if len(row) > 6 and 0 <= row[6] <= 1 else 1.0
            target.keys[frame] = Key(box=box, on=False, score=score)
    step, last = spacing(frames), max(frames, default=0)
    for one in found.values():  # boxes in every tenth frame alone are sparse, and marks
        one.step, one.by_hand = step, step > 1
        one.last = max(last, clip.frames - 1) if clip.frames and step == 1 else last
    return tracks_of(list(found.values()), clip, printable(path), "mot")


def write(tracks: Mapping[str, Track], path: Path, clip: Clip) -> None:
    """Write one file where ``path`` ends in .txt, else the folder of a sequence."""
    clip = clip_of(tracks, clip)
    labels = list(dict.fromkeys(label_of(name, track) for name, track in tracks.items()))
    named = all(name.isascii() and name.isdigit() and int(name) for name in tracks)
    rows = []
    for place, (name, track) in enumerate(tracks.items(), 1):
        kind, ident = labels.index(label_of(name, track)) + 1, int(name) if named else place
        rows += [
            (step.index, ident, f"{box_line(step.box)},{max(round(step.score, 4), 0.0001):g},{kind},1")
            for step in track
            if step.visible
        ]
    text = "".join(f"{frame + 1},{ident},{rest}\n" for frame, ident, rest in sorted(rows))
    if path.suffix:
        write_text(path, text)
        return
    width, height = clip.size("seqinfo.ini of a MOTChallenge folder states it (a .txt needs none)")
    (path / "gt").mkdir(parents=True, exist_ok=True)
    write_text(path / "gt" / "gt.txt", text)
    write_text(path / "gt" / "labels.txt", "\n".join(labels) + "\n")
    facts = {
        "name": printable(clip.name) or path.name, "imDir": "img1", "frameRate": number(clip.rate or 0),
        "seqLength": clip.frames, "imWidth": width, "imHeight": height, "imExt": ".jpg",
    }  # fmt: skip
    lines = "".join(f"{key}={value}\n" for key, value in facts.items())
    write_text(path / "seqinfo.ini", f"[Sequence]\n{lines}")
