"""Pascal VOC: a folder with one XML file per frame, an ``object`` with name and corners for each target.

Corners are float pixels, not shifted, as CVAT and LabelImg write them. Files are numbered, and have no identity, as in
``formats.yolo``: a target is a class. A frame without an object of it says that it is absent.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

from vltrack.core.errors import DataError
from vltrack.core.files import printable, read_limited
from vltrack.core.track import Track
from vltrack.formats.base import (
    Clip,
    Found,
    Key,
    box_of,
    clip_of,
    frames_to_list,
    has_area,
    has_gaps,
    parse_xml,
    tracks_of,
    whole_of,
    xml_parser,
)
from vltrack.formats.yolo import class_names, files_of, of_one_video

_LARGEST = 4 << 20
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def files_in(folder: Path) -> list[tuple[str, int, Path]]:
    """Return name without number, frame number and path of the files of frames, as ``yolo.files_of``."""
    return files_of(folder, ("Annotations", ""), ".xml")


class _Reader:
    """Objects of one file, and the size of the frame."""

    def __init__(self, path: Path) -> None:
        self.where = printable(path)
        self.size: dict[str, str] = {}
        self.objects: list[dict[str, str]] = []
        self._open: list[str] = []
        self._text = ""
        parser = xml_parser(self.where)
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._characters
        try:
            parse_xml(parser, read_limited(path, _LARGEST), self.where)
        except OSError as error:
            raise DataError(f"Cannot read {self.where}: {error.strerror}.") from error

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self._open and tag != "annotation":
            raise DataError(f"{self.where} is not Pascal VOC: it begins with <{printable(tag[:40])}>.")
        if len(self._open) > 64:
            raise DataError(f"{self.where} is nested too deeply.")
        self._open.append(tag)
        self._text = ""
        if self._open == ["annotation", "object"]:
            self.objects.append({})

    def _characters(self, text: str) -> None:
        self._text = (self._text + text)[:4096]

    def _end(self, tag: str) -> None:
        within = self._open[1:-1]
        if within == ["size"]:
            self.size[tag] = self._text.strip()
        elif (within == ["object"] and tag == "name") or within == ["object", "bndbox"]:
            self.objects[-1][tag] = self._text.strip()
        self._open.pop()
        self._text = ""


def read(path: Path, clip: Clip) -> dict[str, Track]:
    """Read a folder. Raises ``DataError``."""
    found: dict[str, Found] = {}
    frames: list[int] = []
    size: dict[str, str] = {}
    for _, frame, file in of_one_video(path, files_in(path)):
        reader = _Reader(file)
        frames.append(frame)
        size = size or reader.size
        for each in reader.objects:
            label = printable(each.get("name") or "object")
            target = found.setdefault(label, Found(label=label, number=len(found) + 1))
            if frame in target.keys:
                raise DataError(
                    f"{reader.where}: two objects {label!r} in one frame, and Pascal VOC has no identity.",
                    hint="Export the tracks as MOTChallenge, COCO or CVAT.",
                )
            x1, y1, x2, y2 = box_of((each.get(corner) for corner in _CORNERS), f"{reader.where}: {label!r}")
            if has_area(box := (x1, y1, x2 - x1, y2 - y1)):
                target.keys[frame] = Key(box=box, on=False)
    for one in found.values():
        one.frames, one.by_hand = frames, has_gaps(frames)
    clip = clip.or_else(Clip(width=whole_of(size.get("width")), height=whole_of(size.get("height"))))
    return tracks_of([one for one in found.values() if one.keys], clip, printable(path), "voc")


def write(tracks: Mapping[str, Track], path: Path, clip: Clip) -> None:
    """Write a folder: one class per target, one file per frame, without an object where no target is visible."""
    clip = clip_of(tracks, clip)
    width, height = clip.size("every file of Pascal VOC states it")
    names = class_names(tracks)
    objects: dict[int, list[str]] = {frame: [] for frame in frames_to_list(tracks, clip.frames or 0)}
    for name, track in zip(names, tracks.values(), strict=True):
        for step in (one for one in track if one.visible):
            x, y, w, h = (round(value, 2) for value in step.box.tolist())
            corners = zip(_CORNERS, (x, y, max(x + w, x + 0.01), max(y + h, y + 0.01)), strict=True)
            box = "".join(f"<{corner}>{value:.2f}</{corner}>" for corner, value in corners)
            objects[step.index].append(
                f"  <object><name>{html.escape(name)}</name><pose>Unspecified</pose><truncated>0</truncated>"
                f"<difficult>0</difficult><bndbox>{box}</bndbox></object>\n"
            )
    (path / "Annotations").mkdir(parents=True, exist_ok=True)
    for old in (path / "Annotations").glob("frame_*.xml"):
        old.unlink()
    source = html.escape(printable(clip.name))
    for frame, lines in objects.items():
        text = (
            f"<annotation>\n  <folder></folder><filename>frame_{frame:06d}.jpg</filename>\n"
            f"  <source><database>{source}</database></source>\n"
            f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
            f"  <segmented>0</segmented>\n{''.join(lines)}</annotation>\n"
        )
        # Not one by one onto the disk: the folder appears as a whole.
        (path / "Annotations" / f"frame_{frame:06d}.xml").write_text(text, encoding="utf-8")
