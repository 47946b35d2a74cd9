"""What all formats share: facts of a video, keyframes to rows and back, bounded reading, numbers in text."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn
from xml.parsers import expat
from xml.parsers.expat import XMLParserType

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError, UsageError
from vltrack.core.files import printable
from vltrack.core.json_io import read_text
from vltrack.core.track import MAX_FILE_BYTES, Track
from vltrack.core.types import Box, BoxLike, Status

Mark = dict[str, Any]
"""What a person set: ``{"frame": 12, "box": [x, y, w, h]}`` or ``{"frame": 40, "absent": true}``."""

MAX_ROWS = 2_000_000
"""Rows of all targets of one file, absent frames included."""
MAX_SIDE = 1e6
DEFAULT_RATE = 25.0
"""Frames per second where a format states none: as of folders of images."""
TOLERANCE = 0.25
"""Pixels by which a side of a box may differ from the line between its keyframes: less than a person can place it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """Facts about a video that formats state or need; None where unknown.

    Attributes:
        name: file name of the video, or of its folder of images.
        width, height: pixels of the displayed frame.
        frames: how many the video has.
        rate: frames per second.
    """

    name: str = ""
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    rate: float | None = None

    def or_else(self, other: Clip) -> Clip:
        """Return these facts, those that are unknown from ``other``. Raises ``UsageError`` where the sizes differ."""
        sizes = [(one.width, one.height) for one in (self, other) if one.width and one.height]
        if len(set(sizes)) > 1:
            (w, h), (width, height) = sizes
            raise UsageError(
                f"The video has {w}x{h} pixels, the boxes are of one with {width}x{height}.",
                hint="Give the video that they belong to.",
            )
        names = ("name", "width", "height", "frames", "rate")
        return Clip(**{name: getattr(self, name) or getattr(other, name) for name in names})

    def size(self, why: str) -> tuple[int, int]:
        """Return (width, height). Raises ``UsageError`` with ``why`` it is needed where it is unknown."""
        if self.width and self.height:
            return self.width, self.height
        raise UsageError(f"The size of the frame is unknown: {why}.", hint="Give the video (--video).")


def clip_of(tracks: Mapping[str, Track], known: Clip) -> Clip:
    """Return the facts in ``known``, completed from the tracks' ``meta`` and times.

    Where nothing says how many frames there are, the last row is taken for the last frame.
    """
    found = known
    for track in tracks.values():
        meta, moves = track.meta, len(track) > 1 and track.seconds[-1] > track.seconds[0]
        rate = (track.indices[-1] - track.indices[0]) / (track.seconds[-1] - track.seconds[0]) if moves else 0
        found = found.or_else(
            Clip(
                name=Path(str(meta.get("source") or "")).name,
                **{key: value for key in ("width", "height", "frames") if isinstance(value := meta.get(key), int)},
                rate=round(float(rate), 3) or None,
            )
        )
    last = max((int(track.indices[-1]) + 1 for track in tracks.values() if len(track)), default=0)
    return replace(found, frames=max(last, found.frames or 0), rate=found.rate or DEFAULT_RATE)


# -- reading ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A box that a file states; ``shown``: the target is visible in its frame, ``on``: until the next key too."""

    box: BoxLike
    shown: bool = True
    on: bool = True
    score: float = 1.0


@dataclass(kw_only=True, slots=True)
class Found:
    """One target of a file.

    Attributes:
        label: its class; ``number``: its number in the file, which distinguishes several of one class.
        keys: by frame number.
        last: its last row, if that is after its last key.
        step: frames between two rows; between keys that are ``on`` boxes are interpolated linearly.
        frames: the frames that the file lists, where it lists them: its only rows.
        by_hand: a person set the keys, so that they are marks; or the frames of those that a person set, absent where
            they have no key.
        meta: further entries of ``Track.meta``.
    """

    label: str
    number: int | str
    keys: dict[int, Key] = field(default_factory=dict)
    last: int = 0
    step: int = 1
    frames: Sequence[int] = ()
    by_hand: bool | Collection[int] = False
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> Sequence[int]:
        """The frame numbers of its rows, from its first key on."""
        first = min(self.keys)
        if self.frames:
            return self.frames[bisect_left(self.frames, first) :]
        return range(first, max(*self.keys, self.last) + 1, self.step)


def frame_number(value: Any, where: str, first: int = 0) -> int:
    """Return a frame number that counts from ``first`` as one from 0. Raises ``DataError``."""
    try:
        number = int(value)
        if isinstance(value, bool) or (isinstance(value, float) and number != value):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        number = -1
    if not first <= number < MAX_ROWS + first:
        raise DataError(f"{where}: the frame {printable(str(value)[:40])!r} is not a number from {first}.")
    return number - first


def box_of(values: Iterable[Any], where: str) -> BoxLike:
    """Return x, y, w, h as floats. Raises ``DataError`` for anything else than four finite numbers in pixels."""
    try:
        x, y, w, h = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: a box is not four numbers.") from error
    if not all(abs(value) <= MAX_SIDE for value in (x, y, w, h)):
        raise DataError(f"{where}: the box {x:g}, {y:g}, {w:g}, {h:g} is not finite, or beyond any frame.")
    return x, y, w, h


def has_area(box: BoxLike) -> bool:
    """Whether width and height are above 0."""
    return box[2] > 0 and box[3] > 0


def tracks_of(found: Sequence[Found], clip: Clip, where: object, kind: str) -> dict[str, Track]:
    """Return the targets that a file of the format ``kind`` states as tracks by name: rows from the first key on.

    Raises ``DataError`` where there is none, or more rows than any annotation has.
    """
    found = [one for one in found if any(key.shown for key in one.keys.values())]
    if not found:
        raise DataError(f"{where} holds no box.", hint="Is it the right file?")
    if (rows := sum(len(one.rows) for one in found)) > MAX_ROWS:
        raise DataError(f"{where} has {rows:,} rows of boxes; at most {MAX_ROWS:,} are read.")
    labels = [one.label for one in found]
    tracks: dict[str, Track] = {}
    for one in found:
        name = one.label if labels.count(one.label) == 1 else f"{one.label}-{one.number}"
        tracks[name if name not in tracks else f"{name}-{len(tracks)}"] = _track(one, clip, kind)
    return tracks


def _track(one: Found, clip: Clip, kind: str) -> Track:
    frames = np.array(sorted(one.keys))
    keys = [one.keys[frame] for frame in frames.tolist()]
    rows = np.array(one.rows)
    at = np.searchsorted(frames, rows, side="right") - 1
    exact = frames[at] == rows
    visible = np.where(exact, np.array([key.shown for key in keys])[at], np.array([key.on for key in keys])[at])
    stated = np.array([key.box for key in keys])
    boxes = np.stack([np.interp(rows, frames, side) for side in stated.T], axis=1)
    visible &= (boxes[:, 2:] > 0).all(axis=1)
    held = np.maximum.accumulate(np.where(visible, np.arange(len(rows)), -1))  # absent: the last box is held
    boxes = boxes[np.where(held < 0, np.argmax(visible), held)]
    marks: list[Mark] = []
    seen = dict(zip(rows.tolist(), visible.tolist(), strict=True))
    for frame in sorted((one.keys if one.by_hand else ()) if isinstance(one.by_hand, bool) else one.by_hand):
        key = one.keys.get(frame)
        if key is not None and key.shown:
            marks.append({"frame": frame, "box": [round(side, 2) for side in key.box]})
        elif seen.get(frame) is False:
            marks.append({"frame": frame, "absent": True})
    rate = clip.rate or DEFAULT_RATE
    meta = {
        "source": clip.name, "sentence": None, "width": clip.width, "height": clip.height, "frames": clip.frames,
        "label": one.label, "format": kind, **one.meta, **({"marks": marks} if marks else {}),
    }  # fmt: skip
    return Track(
        boxes=boxes,
        scores=np.where(visible, np.array([key.score for key in keys])[at], 0.0),
        visible=visible,
        indices=rows,
        seconds=rows / rate,
        status=tuple(Status.OK if seen else Status.LOST for seen in visible.tolist()),
        meta={key: value for key, value in meta.items() if value is not None or key == "sentence"},
    )


def has_gaps(frames: Sequence[int]) -> bool:
    """Whether sorted frame numbers leave some out."""
    return bool(frames) and frames[-1] - frames[0] >= len(frames)


def frames_to_list(tracks: Mapping[str, Track], frames: int) -> Sequence[int]:
    """Return the frames that a file lists: all, or those of the rows where a track leaves some out."""
    if not any(has_gaps(track.indices.tolist()) for track in tracks.values()):
        return range(frames)
    return sorted({frame for track in tracks.values() for frame in track.indices.tolist()})


def spacing(frames: Iterable[int]) -> int:
    """Return the number of frames between two annotated ones: what all distances are multiples of, at least 1."""
    return math.gcd(*np.diff(sorted(set(frames))).tolist()) or 1


# -- writing ------------------------------------------------------------------------------------------


def label_of(name: str, track: Track) -> str:
    """Return the class of a target: that of the file it came from, else its name."""
    return printable(str(track.meta.get("label") or name))


def marks_of(track: Track) -> dict[int, Mark]:
    """Return the boxes and absences that a person set, by frame."""
    marks = track.meta.get("marks")
    found = (one for one in marks if isinstance(one, dict)) if isinstance(marks, list) else ()
    return {one["frame"]: one for one in found if "box" in one or one.get("absent")}


def dense(track: Track, frames: int) -> tuple[Box, NDArray[np.bool_], NDArray[np.float64]]:
    """Return (N, 4) boxes, (N,) visible and (N,) scores of all ``frames``: absent, with zeros, where it has no row."""
    boxes, visible, scores = np.zeros((frames, 4)), np.zeros(frames, dtype=np.bool_), np.zeros(frames)
    boxes[track.indices] = np.where(track.visible[:, None], track.boxes, 0)
    visible[track.indices], scores[track.indices] = track.visible, track.scores
    return boxes, visible, scores


def runs(track: Track) -> Iterator[tuple[int, int]]:
    """Yield (first, end) rows of each stretch in which the target is visible."""
    edges = np.flatnonzero(np.diff(track.visible, prepend=False, append=False))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def keyframes(track: Track) -> NDArray[np.bool_]:
    """Return (N,) whether a row is a keyframe: the ends of every run, all marks, and as many more that linear
    interpolation between them gives every other visible row to ``TOLERANCE``.
    """
    keys = np.isin(track.indices, list(marks_of(track))) & track.visible
    places = np.round(track.boxes, 2).tolist()
    frames = track.indices.tolist()
    for first, end in runs(track):
        keys[[first, end - 1]] = True
        start = first
        low, high = [-math.inf] * 4, [math.inf] * 4
        for row in range(first + 1, end):
            gap = frames[row] - frames[start]
            slopes = [(b - a) / gap for a, b in zip(places[start], places[row], strict=True)]
            if not all(a <= slope <= b for a, slope, b in zip(low, slopes, high, strict=True)):
                # The row before was on every line so far: it ends this one and starts the next.
                start = row - 1
                keys[start] = True
                gap = frames[row] - frames[start]
                slopes = [(b - a) / gap for a, b in zip(places[start], places[row], strict=True)]
                low, high = [-math.inf] * 4, [math.inf] * 4
            low = [max(a, slope - TOLERANCE / gap) for a, slope in zip(low, slopes, strict=True)]
            high = [min(b, slope + TOLERANCE / gap) for b, slope in zip(high, slopes, strict=True)]
            if keys[row]:
                start, low, high = row, [-math.inf] * 4, [math.inf] * 4
    return keys


def number(value: float) -> str:
    """Return a number with at most two decimals."""
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")  # no -0


def box_line(box: Iterable[float]) -> str:
    """Return ``x,y,w,h`` with at most two decimals; a size above 0 stays so."""
    x, y, w, h = box
    return ",".join(map(number, (x, y, w and max(w, 0.01), h and max(h, 0.01))))


# -- text ---------------------------------------------------------------------------------------------

_CELL = re.compile(r"[^\s,;]+")


def xml_parser(where: str) -> XMLParserType:
    """Return a parser of XML that refuses a document type, and with it every entity."""

    def refuse(*_: Any) -> NoReturn:
        raise DataError(f"{where} declares a document type, which may hide entities.", hint="Remove <!DOCTYPE>.")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.buffer_text = True
    return parser


def parse_xml(parser: XMLParserType, data: bytes, where: str) -> None:
    """Parse a file. Raises ``DataError``."""
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise DataError(f"{where} line {error.lineno} is not XML: {reason}.", hint="Export it again.") from error


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, without empty ones at its end. Raises ``DataError``."""
    return read_text(path, MAX_FILE_BYTES).rstrip().splitlines()


def read_numbers(path: Path) -> Iterator[tuple[str, list[float]]]:
    """Yield place and numbers of every line that is not empty. Raises ``DataError`` that names file:line."""
    for place, line in enumerate(read_lines(path), 1):
        cells = _CELL.findall(line)
        try:
            values = [float(cell) for cell in cells]
        except ValueError:
            _not_numbers(f"{printable(path)}:{place}", line)
        if cells:
            yield f"{printable(path)}:{place}", values


def _not_numbers(where: str, line: str) -> NoReturn:
    raise DataError(f"{where}: {printable(line.strip()[:60])!r} is not a row of numbers.")


def facts_of(path: Path) -> dict[str, str]:
    """Return the ``key=value`` or ``key: value`` lines of a file, keys in lower case; none where it is missing."""
    pairs = (re.split(r"\s*[=:]\s*", line.strip(), maxsplit=1) for line in (read_lines(path) if path.is_file() else ()))
    return {pair[0].lower(): pair[1] for pair in pairs if len(pair) == 2}


def whole_of(text: str | None) -> int | None:
    """Return a whole number from 1 to ten million, None for anything else."""
    return int(text) if text and text.isascii() and text.isdigit() and 0 < len(text) < 8 and int(text) else None


def rate_of(text: str | None) -> float | None:
    """Return a rate such as ``25``, ``29.97`` or ``10Hz``, None for anything else."""
    hit = re.match(r"\d{1,4}(\.\d{1,9})?", text or "", re.ASCII)
    return float(hit[0]) or None if hit else None
