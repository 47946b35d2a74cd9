"""``Track``: the boxes of one target in all frames of a video, written and read as CSV or JSON.

Both formats hold the same: ``meta`` (source, model, target, ...), then one row per frame with ``frame,
seconds, x, y, w, h, score, visible, status``, and ``doubt`` where the track has it. Seconds have three decimals,
pixels two, scores and doubt four. In CSV ``meta`` is in lines that begin with ``#``;
``pandas.read_csv(path, comment="#")`` skips them.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import BoxInvalid, DataError, UsageError, VltrackError
from vltrack.core.files import write_text
from vltrack.core.json_io import parse_json, read_text
from vltrack.core.types import Box, BoxLike, ByValue, Status, Step, check_str, whole, xywh_to_xyxy

FORMAT = "vltrack.track"
VERSION = 1
COLUMNS = ("frame", "seconds", "x", "y", "w", "h", "score", "visible", "status")
MAX_FILE_BYTES = 256 << 20
_ARRAYS: dict[str, type[np.generic]] = {
    "boxes": np.float64,
    "scores": np.float64,
    "visible": np.bool_,
    "indices": np.int64,
    "seconds": np.float64,
}
_OPTIONAL: dict[str, type[np.generic]] = {"doubt": np.float64}
"""Columns after ``COLUMNS`` that a track may have."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a person says about one frame: the box of the target, that it is not here, or a sentence that finds it here.

    Attributes:
        frame: 0-based number of the frame.
        box: (x, y, w, h) in pixels of the displayed frame; absent: the target is not in view, until the next mark;
            text: a sentence. One of the three.

    Raises:
        UsageError: none of the three or several, or a negative frame. TypeError: a frame that is not whole.
        BoxInvalid: not four finite numbers with a positive size.

    Examples:
        >>> import vltrack
        >>> vltrack.Mark(12, box=(120, 40, 60, 80)).record()
        {'frame': 12, 'box': [120.0, 40.0, 60.0, 80.0]}
        >>> vltrack.Mark(40, absent=True)
        Mark(frame=40, box=None, absent=True, text=None)
    """

    frame: int
    _: KW_ONLY
    box: BoxLike | None = None
    absent: bool = False
    text: str | None = None

    def __post_init__(self) -> None:
        frame = whole("The frame of a mark", self.frame)
        object.__setattr__(self, "frame", frame)
        if frame < 0:
            raise UsageError(f"The frame {frame} of a mark is negative; frames count from 0.")
        if (self.box is not None) + bool(self.absent) + (self.text is not None) != 1:
            raise UsageError(
                f"The mark of frame {frame} says several things, or nothing.", hint="Give box, absent or text."
            )
        if self.text is not None:
            check_str(self.text)
        if self.box is None:
            return
        try:
            x, y, w, h = (float(side) for side in self.box)
        except (TypeError, ValueError) as error:
            raise BoxInvalid(f"The box of frame {frame} is not four numbers: {self.box!r:.80}.") from error
        if not (all(map(math.isfinite, (x, y, w, h))) and w > 0 and h > 0):
            raise BoxInvalid(f"The box of frame {frame} is not finite or has no size: {x:g},{y:g},{w:g},{h:g}.")
        object.__setattr__(self, "box", (x, y, w, h))

    def record(self) -> dict[str, Any]:
        """Return the mark as a JSON value of a track's ``meta["marks"]``."""
        said = {"absent": True} if self.absent else {"text": self.text} if self.box is None else {"box": [*self.box]}
        return {"frame": self.frame, **said}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Track(ByValue):
    """One target in one video: N rows, one per presented frame. The arrays are read-only, in copies too.

    Attributes:
        boxes: (N, 4) x, y, w, h float64 in pixels of the displayed frame; finite, w and h > 0. While the
            target is lost the row holds the place that scores best, with the size held (below 0.1 the place too): ask
            ``visible`` before using it.
        scores: (N,) presence in [0, 1].
        visible: (N,) bool.
        indices: (N,) int64, 0-based frame numbers, rising.
        seconds: (N,) float64 presentation times.
        status: N of ``Status``.
        meta: JSON values: ``source``, ``sentence``, ``box``, ``model``, ``width``, ``height``, ``warnings``,
            ``versions``, ``marks`` and others.
        doubt: (N,) how much a frame deserves a look, in [0, 1]; None where it was not asked for.

    Raises:
        DataError: lengths differ, a number is not finite or out of range, frames do not rise.
        TypeError: ``meta`` holds a value that is not JSON.

    Examples:
        >>> import numpy as np, vltrack
        >>> step = vltrack.Step(box=np.array([12, 4, 6, 8.0]), score=0.9, visible=True, index=0, seconds=0.0)
        >>> track = vltrack.Track.from_steps([step], {"model": "litetrack-tiny"})
        >>> track.boxes
        array([[12.,  4.,  6.,  8.]])
    """

    boxes: Box
    scores: NDArray[np.float64]
    visible: NDArray[np.bool_]
    indices: NDArray[np.int64]
    seconds: NDArray[np.float64]
    status: tuple[Status, ...]
    meta: dict[str, Any] = field(default_factory=dict)
    doubt: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        count = len(self.status)
        for name, kind in self._arrays().items():
            shape = (count, 4) if name == "boxes" else (count,)
            array: NDArray[Any] = np.array(getattr(self, name), dtype=kind)
            if array.size != math.prod(shape):
                raise DataError(f"A track of {count} rows has {array.size} numbers in {name}.")
            array = array.reshape(shape)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        # As a file would give it back: tuples become lists, keys become strings.
        object.__setattr__(self, "meta", json.loads(json.dumps(self.meta, allow_nan=False)))
        self._check_numbers()

    def _arrays(self) -> dict[str, type[np.generic]]:
        return _ARRAYS if self.doubt is None else _ARRAYS | _OPTIONAL

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of its files: ``COLUMNS``, and ``doubt`` where it has it."""
        return COLUMNS if self.doubt is None else (*COLUMNS, *_OPTIONAL)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """What a person has said about it, by frame: ``meta["marks"]``, or else how it was started.

        Raises:
            DataError: ``meta["marks"]`` is not a list of marks, each frame once.
        """
        given = self.meta.get("marks")
        try:
            if given is not None:
                marks = {mark.frame: mark for mark in (Mark(**record) for record in given)}
                if len(marks) < len(given):
                    raise UsageError("A frame is named twice.")
                return tuple(marks[frame] for frame in sorted(marks))
            if not len(self) or not (self.meta.get("box") or self.meta.get("sentence")):
                return ()
            first = int(self.indices[0])
            if self.meta.get("box"):
                return (Mark(first, box=self.meta["box"]),)
            return (Mark(first, text=self.meta["sentence"]),)
        except (TypeError, VltrackError) as error:
            raise DataError(f"The marks of the track cannot be read: {error}") from error

    def correct(
        self,
        frame: int,
        box: BoxLike | None = None,
        *,
        absent: bool = False,
        text: str | None = None,
        source: Any = None,
        **options: Any,
    ) -> Track:
        """Say where the target is in one frame, or that it is not there; the frames next to it are tracked again.

        Args:
            frame, box, absent, text: as of ``Mark``; an earlier mark of this frame is replaced.
            source: the video; None is the ``source`` of ``meta``.
            options: more of ``vltrack.correct``, which says what is raised.

        Returns:
            The corrected track; rows beyond the neighboring marks are the same.
        """
        mark = Mark(frame, box=box, absent=absent, text=text)
        marks = [*(one for one in self.marks if one.frame != mark.frame), mark]
        # By name: tracking needs the floors above, which this one must not import.
        corrected: Track = import_module("vltrack.api.correct").correct(self, source, marks, **options)
        return corrected

    def _check_numbers(self) -> None:
        good = {
            "a box that is not finite or has no size": np.isfinite(self.boxes).all(axis=1)
            & (self.boxes[:, 2:] > 0).all(axis=1),
            "a score outside 0..1": (self.scores >= 0) & (self.scores <= 1),
            "a time that is not finite": np.isfinite(self.seconds),
            "a frame number that does not rise": np.diff(self.indices, prepend=-1) > 0,
        }
        if self.doubt is not None:
            good["a doubt outside 0..1"] = (self.doubt >= 0) & (self.doubt <= 1)
        for fault, rows in good.items():
            if not rows.all():
                raise DataError(f"Row {int(np.argmin(rows)) + 1} of the track has {fault}.")

    @classmethod
    def from_steps(cls, steps: Iterable[Step], meta: Mapping[str, Any] | None = None) -> Track:
        """Make a track of a tracker's steps, one per frame. Of their ``extras`` only ``doubt`` is kept, where all
        have it.
        """
        rows = list(steps)
        doubts = [step.extras["doubt"] for step in rows if "doubt" in step.extras]
        return cls(
            boxes=np.array([step.box for step in rows]),
            scores=np.array([step.score for step in rows]),
            visible=np.array([step.visible for step in rows]),
            indices=np.array([step.index for step in rows]),
            seconds=np.array([step.seconds for step in rows]),
            status=tuple(Status(step.status) for step in rows),
            meta=dict(meta or {}),
            doubt=np.array(doubts) if rows and len(doubts) == len(rows) else None,
        )

    def __reduce__(self) -> tuple[Callable[[], Track], tuple[()]]:
        names = (*_ARRAYS, *_OPTIONAL, "status", "meta")
        return partial(Track, **{name: getattr(self, name) for name in names}), ()

    def __repr__(self) -> str:
        about = "".join(f", {key}={self.meta[key]!r:.60}" for key in ("source", "model") if key in self.meta)
        return f"Track({len(self)} rows, visible in {int(self.visible.sum())}{about})"

    def __len__(self) -> int:
        return len(self.status)

    def __iter__(self) -> Iterator[Step]:
        return (self[row] for row in range(len(self)))

    @overload
    def __getitem__(self, key: int) -> Step: ...

    @overload
    def __getitem__(self, key: slice | list[Any] | NDArray[Any]) -> Track: ...

    def __getitem__(self, key: Any) -> Step | Track:
        """A row as a ``Step``; or rows of a slice, a mask or a list, in rising order, as a ``Track`` with the same
        ``meta``.
        """
        if isinstance(key, slice) or (np.ndim(key) == 1 and not isinstance(key, tuple)):
            rows = np.arange(len(self))[key]
            arrays = {name: getattr(self, name)[rows] for name in self._arrays()}
            return replace(self, status=tuple(self.status[row] for row in rows), **arrays)
        key = whole("A row", key)
        return Step(
            box=self.boxes[key],
            score=float(self.scores[key]),
            visible=bool(self.visible[key]),
            index=int(self.indices[key]),
            seconds=float(self.seconds[key]),
            status=self.status[key],
            extras={} if self.doubt is None else {"doubt": float(self.doubt[key])},
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one dict per frame with the keys ``columns``: plain Python values, rounded as in the files."""
        return map(row_of, self)

    @property
    def xyxy(self) -> Box:
        """(N, 4) the boxes as two corners x1, y1, x2, y2, float64 in pixels."""
        return xywh_to_xyxy(self.boxes)

    def to_df(self) -> Any:
        """Return the rows as a ``pandas.DataFrame``. Raises ``ImportError`` without pandas."""
        return _optional("pandas").DataFrame(self.rows(), columns=self.columns)

    def to_supervision(self) -> list[Any]:
        """Return one ``supervision.Detections`` per frame, empty where the target is not visible.

        Raises:
            ImportError: supervision is not installed.
        """
        detections = _optional("supervision").Detections
        corners, scores = self.xyxy.astype(np.float32), self.scores.astype(np.float32)
        one = {"class_id": np.zeros(1, dtype=int), "tracker_id": np.ones(1, dtype=int)}
        return [
            detections(xyxy=corners[n, None], confidence=scores[n, None], **one) if seen else detections.empty()
            for n, seen in enumerate(self.visible)
        ]

    def plot(self, axes: Any = None) -> Any:
        """Draw the score over the seconds, on gray where the target is not visible; return the matplotlib axes.

        Args:
            axes: to draw in; None makes a figure.
        """
        if axes is None:
            _, axes = import_module("matplotlib.pyplot").subplots()
        axes.plot(self.seconds, self.scores)
        axes.fill_between(self.seconds, 0, 1, where=~self.visible, color="0.85", linewidth=0)
        axes.set(xlabel="seconds", ylabel="score", ylim=(0, 1))
        return axes

    def to_csv(self) -> str:
        """Return the track as CSV text.

        No cell starts with ``= + - @`` unless it is a number: every ``#`` line is one cell, as commas in its
        strings are written ``\\u002c``, so that a spreadsheet finds no formula in a text.
        """
        out = io.StringIO()
        out.write(f"# {FORMAT} {VERSION}\n")
        for key, value in self.meta.items():
            out.write(f"# {one_cell(key)}: {one_cell(value)}\n")
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self.rows():
            writer.writerow([str(v).lower() if isinstance(v, bool) else v for v in row.values()])
        return out.getvalue()

    def to_json(self) -> str:
        """Return the track as JSON text, one frame per line."""
        head = _json_text(self.meta)
        rows = ",\n".join("  " + json.dumps(row, allow_nan=False) for row in self.rows())
        return f'{{"format": "{FORMAT}", "version": {VERSION},\n "meta": {head},\n "rows": [\n{rows}\n]}}\n'

    def save(self, path: Path | str, overwrite: bool = False, *, source: Any = None, format: str | None = None) -> None:
        """Write ``.csv``, ``.json`` (boxes), ``.mp4``, ``.gif`` (video) or ``.png`` (contact sheet), atomically.

        With ``format``, or as ``.xml`` (CVAT) or ``.parquet``, it is ``vltrack.write_tracks``.

        Args:
            path: file to write, by extension.
            overwrite: replace a file that exists.
            source: of videos and ``.png``: what ``vltrack.track`` takes; None is the ``source`` of ``meta``.
            format: of another program: ``cvat``, ``coco``, ``mot``, ...; see ``vltrack.convert``.

        Raises:
            UsageError: another extension, the file exists and ``overwrite`` is false, or no source is known.
            ResourceError: the disk is full, the folder is missing or cannot be written.
            VideoNotFound, ...: see ``open_source``.
        """
        file = Path(path)
        makers = {".csv": self.to_csv, ".json": self.to_json}
        kind = file.suffix.lower()
        if format is not None or kind in (".xml", ".parquet"):
            # By name, as below.
            import_module("vltrack.api.convert").write_tracks(self, file, format=format, overwrite=overwrite)
            return
        if kind not in (*makers, ".mp4", ".gif", ".png"):
            raise UsageError(
                f"Cannot write a track as {file.name!r}.", hint="Name it .csv, .json, .xml, .mp4, .gif or .png."
            )
        if file.exists() and not overwrite:
            raise UsageError(f"{file} already exists.", hint="Choose another name, or give overwrite=True.")
        if kind in makers:
            write_text(file, makers[kind]())
        else:
            # By name: drawing over a video needs the floors above, which this one must not import.
            import_module("vltrack.api.outputs").draw_track(self, file, source)

    @classmethod
    def load(cls, path: Path | str) -> Track:
        """Read what ``save`` wrote as ``.csv`` or ``.json``; ``vltrack.read_tracks`` reads other formats.

        Raises:
            DataError: no such file, or an invalid value, named with its place.
            UsageError: neither ``.csv`` nor ``.json``.
        """
        file = Path(path)
        readers = {".csv": _read_csv, ".json": _read_json}
        if file.suffix.lower() not in readers:
            raise UsageError(f"Cannot read a track from {file.name!r}.", hint="It must be named .csv or .json.")
        text = read_text(file, MAX_FILE_BYTES)
        meta, rows = readers[file.suffix.lower()](text, file)
        try:
            return cls.from_steps(rows, meta)
        except DataError as error:
            raise DataError(f"{file}: {error.message}") from error


def row_of(step: Step) -> dict[str, Any]:
    """Return a step with the keys ``COLUMNS``, and ``doubt`` where its ``extras`` have it."""
    head = {"frame": step.index, "seconds": round(step.seconds, 3), **box_of(step.box)}
    more = {name: round(step.extras[name], 4) for name in _OPTIONAL if name in step.extras}
    return {**head, "score": round(step.score, 4), "visible": step.visible, "status": str(step.status), **more}


def box_of(box: Box) -> dict[str, float]:
    """Return x, y, w, h in hundredths of a pixel; a size never rounds to nothing."""
    x, y, w, h = (round(value, 2) + 0.0 for value in box.tolist())  # no -0.0
    return {"x": x, "y": y, "w": max(w, 0.01), "h": max(h, 0.01)}


def _optional(package: str) -> Any:
    """A package that is not a dependency. Raises ``ImportError`` with the command that installs it."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ImportError(f"{package} is not installed. Run: pip install {package}", name=package) from error


def _json_text(value: Any) -> str:
    """JSON with letters as they are, or with escapes if a file name holds bytes that are not UTF-8."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    broken = any("\ud800" <= character <= "\udfff" for character in text)
    return json.dumps(value, allow_nan=False) if broken else text


def one_cell(value: Any) -> str:
    """JSON without comma, semicolon or tab inside its strings, at which spreadsheets split."""
    if isinstance(value, str):
        return _json_text(value).replace(",", "\\u002c").replace(";", "\\u003b")
    if isinstance(value, list):
        return "[" + ", ".join(one_cell(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{one_cell(key)}: {one_cell(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def _read_csv(text: str, file: Path) -> tuple[dict[str, Any], list[Step]]:
    # Not splitlines: it would also break at a line separator inside a sentence.
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    meta: dict[str, Any] = {}
    start = 0
    if not lines or not lines[0].startswith(f"# {FORMAT} "):
        raise DataError(
            f"{file} is not a track of one target: line 1 should be '# {FORMAT} {VERSION}'.",
            hint="A table of several targets is read as plain CSV; its first column names the target.",
        )
    _check_version(lines[0].split()[-1], file)
    for start, line in enumerate(lines[1:], start=1):
        if not line.startswith("#"):
            break
        meta.update(parse_json("{" + line[1:] + "}", f"{file} line {start + 1}, {line[:60]!r},"))
    columns = columns_of(",".join(lines[start:][:1]))
    if columns is None:
        raise DataError(f"{file} line {start + 1}: the header should be {','.join(COLUMNS)}.")
    steps = []
    for number, line in enumerate(lines[start + 1 :], start=start + 2):
        cells = line.split(",")
        if len(cells) != len(columns):
            raise DataError(f"{file} line {number}: {len(cells)} cells, {len(columns)} are needed.")
        steps.append(read_row(dict(zip(columns, cells, strict=True)), f"{file} line {number}"))
    return meta, steps


def columns_of(header: str) -> tuple[str, ...] | None:
    """Return the columns that a line of CSV names: ``COLUMNS``, perhaps with ``doubt``; None for others."""
    columns = tuple(header.split(","))
    return columns if columns in (COLUMNS, (*COLUMNS, *_OPTIONAL)) else None


def _read_json(text: str, file: Path) -> tuple[dict[str, Any], list[Step]]:
    data = parse_json(text, str(file))
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise DataError(
            f"{file} is not a track of one target: its 'format' is not {FORMAT!r}.",
            hint="A file of several targets has one such object per target under 'tracks'.",
        )
    _check_version(data.get("version"), file)
    meta, rows = data.get("meta"), data.get("rows")
    if not isinstance(meta, dict) or not isinstance(rows, list):
        raise DataError(f"{file}: 'meta' must be an object and 'rows' a list.")
    steps = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or set(row) - set(_OPTIONAL) != set(COLUMNS):
            found = sorted(row) if isinstance(row, dict) else type(row).__name__
            raise DataError(f"{file} row {number}: {found} found, {', '.join(COLUMNS)} are needed.")
        steps.append(read_row(row, f"{file} row {number}"))
    return meta, steps


def _check_version(found: Any, file: Path) -> None:
    try:
        version = int(found)
    except (TypeError, ValueError) as error:
        raise DataError(f"{file}: the version {found!r} is not a number.") from error
    if version != VERSION:
        raise DataError(f"{file} has version {version}; this program reads {VERSION}.", hint="Update vltrack.")


def read_row(cells: Mapping[str, Any], place: str) -> Step:
    """Return what ``row_of`` made. ``DataError`` names place, column and value of a cell that is invalid."""

    def number(column: str) -> float:
        value = cells[column]
        try:
            if isinstance(value, bool) or (isinstance(value, str) and re.search(r"[\s_]", value)):
                raise ValueError
            result = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{place}: {column} is {str(value)[:40]!r}, not a number.") from error
        if not math.isfinite(result):
            raise DataError(f"{place}: {column} is {result}.")
        return result

    index = number("frame")
    if index != int(index) or not 0 <= index < 2**53:
        raise DataError(f"{place}: frame is {cells['frame']!r}, not a whole number from 0.")
    visible = cells["visible"]
    if isinstance(visible, str):
        visible = {"true": True, "false": False}.get(visible)
    if not isinstance(visible, bool):
        raise DataError(f"{place}: visible is {str(cells['visible'])[:40]!r}, not true or false.")
    if cells["status"] not in tuple(Status):
        raise DataError(f"{place}: status is {str(cells['status'])[:40]!r}, not one of {', '.join(Status)}.")
    return Step(
        box=np.array([number(side) for side in "xywh"]),
        score=number("score"),
        visible=visible,
        index=int(index),
        seconds=number("seconds"),
        status=Status(cells["status"]),
        extras={name: number(name) for name in _OPTIONAL if name in cells},
    )
