"""CVAT for video 1.1: one XML file with a track per target.

Frames count from 0 in the whole video; corners are float pixels whose origin is the top left edge of the frame. CVAT
keeps the boxes with ``keyframe="1"`` and interpolates between them, until a box with ``outside="1"``. Our own
``marked="1"``, which CVAT drops, is on the keyframes that a person set.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path

from vltrack.core.errors import DataError
from vltrack.core.files import printable, read_limited, write_text
from vltrack.core.track import MAX_FILE_BYTES, Track
from vltrack.formats.base import (
    Clip,
    Found,
    Key,
    box_of,
    clip_of,
    frame_number,
    keyframes,
    label_of,
    marks_of,
    parse_xml,
    runs,
    spacing,
    tracks_of,
    whole_of,
    xml_parser,
)

_FACTS = ("size", "start_frame", "stop_frame", "frame_filter", "width", "height", "source")
_CORNERS = ("xtl", "ytl", "xbr", "ybr")


class _Reader:
    """Collects tracks from the events of a parser; a document type, and with it every entity, is refused."""

    def __init__(self, path: Path) -> None:
        self.where = printable(path)
        self.facts: dict[str, str] = {}
        self.found: list[Found] = []
        self.others: dict[str, int] = {}
        self.marked: list[list[int]] = []
        self._open: list[str] = []
        self._text = ""
        self._parser = parser = xml_parser(self.where)
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._characters

    def read(self, data: bytes) -> None:
        """Parse the file. Raises ``DataError``."""
        parse_xml(self._parser, data, self.where)

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        within = self._open[-1] if self._open else ""
        if not within and tag != "annotations":
            raise DataError(f"{self.where} is not an export of CVAT: it begins with <{printable(tag[:40])}>.")
        if len(self._open) > 64:
            raise DataError(f"{self.where} is nested too deeply.")
        self._open.append(tag)
        self._text = ""
        if tag == "track" and within == "annotations":
            label = printable(attributes.get("label", "track"))
            by_hand = attributes.get("source") not in ("auto", "file")
            self.found.append(Found(label=label, number=attributes.get("id", len(self.found)), by_hand=by_hand))
            self.marked.append([])
        elif tag == "box" and self._open[:-1] == ["annotations", "track"]:
            self._box(attributes)
        elif tag in ("image", "task", "polygon", "mask", "skeleton", "polyline", "points", "cuboid", "ellipse"):
            self.others[tag] = self.others.get(tag, 0) + 1

    def _box(self, attributes: dict[str, str]) -> None:
        where = f"{self.where} line {self._parser.CurrentLineNumber}"
        keys, frame = self.found[-1].keys, frame_number(attributes.get("frame"), where)
        if attributes.get("keyframe", "1") != "1":
            self.found[-1].last = max(self.found[-1].last, frame)
            return
        if frame in keys:
            raise DataError(f"{where}: the track has two keyframes {frame}.")
        if attributes.get("rotation", "").strip("0."):
            raise DataError(f"{where}: the box is rotated.", hint="Only upright boxes are read.")
        x1, y1, x2, y2 = box_of((attributes.get(name) for name in _CORNERS), where)
        shown = attributes.get("outside", "0") != "1"
        if shown and not (x2 > x1 and y2 > y1):
            raise DataError(f"{where}: the box has no size.")
        keys[frame] = Key(box=(x1, y1, x2 - x1, y2 - y1), shown=shown, on=shown)
        if attributes.get("marked") == "1":
            self.marked[-1].append(frame)

    def _characters(self, text: str) -> None:
        self._text = (self._text + text)[:4096]

    def _end(self, tag: str) -> None:
        self._open.pop()
        if tag in _FACTS and "meta" in self._open:
            self.facts.setdefault(tag, self._text.strip())
        self._text = ""


def read(path: Path, clip: Clip) -> dict[str, Track]:
    """Read the tracks of boxes. Raises ``DataError``."""
    try:
        data = read_limited(path, MAX_FILE_BYTES)
    except OSError as error:
        raise DataError(f"Cannot read {printable(path)}: {error.strerror}.") from error
    reader = _Reader(path)
    reader.read(data)
    if not reader.found and reader.others.get("image"):
        raise DataError(
            f"{reader.where} is CVAT for images, which has no tracks.", hint="Export it as CVAT for video 1.1."
        )
    if reader.others.get("task", 0) > 1:
        raise DataError(
            f"{reader.where} holds {reader.others['task']} tasks, each with its own video.", hint="Export one task."
        )
    for shape, count in reader.others.items():
        if shape not in ("task", "image"):
            raise DataError(f"{reader.where} has {count} shapes of the kind {shape}.", hint="Only boxes are read.")
    facts = reader.facts
    filtered = re.search(r"step\s*=\s*(\d{1,6})", facts.get("frame_filter", ""))
    step = max(1, int(filtered[1])) if filtered else 1
    stop = whole_of(facts.get("stop_frame"))
    size = whole_of(facts.get("size"))
    if stop is None and size:
        stop = ((whole_of(facts.get("start_frame")) or 0) // step + size - 1) * step
    clip = clip.or_else(
        Clip(
            name=printable(facts.get("source", "")),
            width=whole_of(facts.get("width")),
            height=whole_of(facts.get("height")),
            frames=None if stop is None else stop + 1,
        )
    )
    for one, marked in zip(reader.found, reader.marked, strict=True):
        one.by_hand = one.by_hand and (marked or True)  # what CVAT has written does not say which: all keyframes
        one.step = step if all((frame - min(one.keys)) % step == 0 for frame in one.keys) else 1
        if one.keys and one.keys[max(one.keys)].on:  # CVAT shows the last box to the end of the task
            one.last = max(one.last, (clip.frames or 1) - 1)
    return tracks_of([one for one in reader.found if one.keys], clip, reader.where, "cvat")


def write(tracks: Mapping[str, Track], path: Path, clip: Clip) -> None:
    """Write ``tracks``: a box for every visible row, and ``outside="1"`` wherever the target disappears."""
    clip = clip_of(tracks, clip)
    labels = dict.fromkeys(label_of(name, track) for name, track in tracks.items())
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        "<annotations>",
        "  <version>1.1</version>",
        *_meta(clip, labels),
    ]
    for number, (name, track) in enumerate(tracks.items()):
        source = "manual" if marks_of(track) else "auto"
        boxes = _boxes(track, clip)
        if boxes:
            label = html.escape(label_of(name, track))
            lines += [f'  <track id="{number}" label="{label}" source="{source}">', *boxes, "  </track>"]
    write_text(path, "\n".join([*lines, "</annotations>", ""]))


def _meta(clip: Clip, labels: Mapping[str, None]) -> list[str]:
    name, last = html.escape(printable(clip.name)), (clip.frames or 1) - 1
    head = [
        f"<id>0</id><name>{name}</name><size>{last + 1}</size><mode>interpolation</mode><overlap>0</overlap>",
        f"<start_frame>0</start_frame><stop_frame>{last}</stop_frame><frame_filter></frame_filter>",
        "<labels>",
        *(
            f"  <label><name>{html.escape(label)}</name><type>rectangle</type><attributes></attributes></label>"
            for label in labels
        ),
        "</labels>",
    ]
    if clip.width and clip.height:
        head += [f"<original_size><width>{clip.width}</width><height>{clip.height}</height></original_size>"]
    head += [f"<source>{name}</source>"]
    return ["  <meta>", "    <task>", *(f"      {line}" for line in head), "    </task>", "  </meta>"]


def _boxes(track: Track, clip: Clip) -> list[str]:
    keys = keyframes(track)
    step = spacing(track.indices.tolist())
    marks = marks_of(track)
    absent = [frame for frame, mark in marks.items() if mark.get("absent")]
    lines: dict[int, str] = {}
    stretches = list(runs(track))
    for first, end in stretches:
        for row in range(first, end):
            frame = int(track.indices[row])
            lines[frame] = _line(track, row, frame, keyframe=bool(keys[row]), marked=frame in marks)
        gone = int(track.indices[end]) if end < len(track) else int(track.indices[-1]) + step
        if gone < (clip.frames or 0):
            lines[gone] = _line(track, end - 1, gone, outside=True)
    for frame in absent if stretches else ():
        row = int(track.indices.searchsorted(frame))
        if row > stretches[0][0] and row < len(track) and track.indices[row] == frame and not track.visible[row]:
            lines[frame] = _line(track, row, frame, outside=True, marked=True)
    return [lines[frame] for frame in sorted(lines)]


def _line(
    track: Track, row: int, frame: int, *, outside: bool = False, keyframe: bool = True, marked: bool = False
) -> str:
    """The box of a row, in a frame; with ``outside`` the target is not there from there on."""
    x, y, w, h = (round(value, 2) for value in track.boxes[row].tolist())
    right, bottom = max(x + w, x + 0.01), max(y + h, y + 0.01)
    mark = ' marked="1"' if marked else ""
    return (
        f'    <box frame="{frame}" keyframe="{int(keyframe)}" outside="{int(outside)}" occluded="0" xtl="{x:.2f}"'
        f' ytl="{y:.2f}" xbr="{right:.2f}" ybr="{bottom:.2f}" z_order="0"{mark}></box>'
    )
