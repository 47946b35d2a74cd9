"""Files of a tracking run: tables, the annotated video, the contact sheet.

Tables are saved before the video is finished, so that a full disk costs the video and not the boxes. Every
file is written under a temporary name and renamed.
"""

from __future__ import annotations

import csv
import glob
import json
import math
import os
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from vltrack.api import inputs
from vltrack.api.inputs import EXPORTS, SHEETS, TABLES, VIDEOS
from vltrack.core.errors import DataError, ResourceError, UsageError
from vltrack.core.files import printable, write_bytes, write_text
from vltrack.core.json_io import parse_json, read_text
from vltrack.core.track import COLUMNS, MAX_FILE_BYTES, Track, columns_of, one_cell, read_row, row_of
from vltrack.core.types import Frame, Image, Status, Step
from vltrack.formats import cvat
from vltrack.formats.base import Clip
from vltrack.tracking.doubt import doubt_of
from vltrack.video.source import is_place

if TYPE_CHECKING:
    from vltrack.api.reporter import Shield
    from vltrack.plots.effects import Effects
    from vltrack.video.base import SourceInfo
    from vltrack.video.gif import GifWriter
    from vltrack.video.writer import VideoWriter

SHEET_TILES, SHEET_WIDTH = 12, 320
DRAWN_LATER, _LATER_BYTES = 8, 64 << 20
"""Frames, and bytes of them, that wait to be drawn at most."""


class StepRecorder:
    """Steps of one target as plain numbers (72 bytes per frame), until they become a ``Track``."""

    def __init__(self) -> None:
        self._numbers = array("d")
        self._status: list[Status] = []

    def add(self, step: Step) -> None:
        """Keep one step."""
        doubt = step.extras.get("doubt", math.nan)
        self._numbers.extend((*map(float, step.box), step.score, step.visible, step.index, step.seconds, doubt))
        self._status.append(step.status)

    def __len__(self) -> int:
        return len(self._status)

    def track(self, meta: Mapping[str, Any]) -> Track:
        """Return the steps so far as a track with the head ``meta``."""
        table = np.array(self._numbers, dtype=np.float64).reshape(-1, 9)
        doubt = np.where(np.isnan(table[:, 8]), doubt_of(table[:, 4]), table[:, 8])  # rows of an earlier run have none
        return Track(
            boxes=table[:, :4],
            scores=table[:, 4],
            visible=table[:, 5].astype(np.bool_),
            indices=table[:, 6].astype(np.int64),
            seconds=table[:, 7],
            status=tuple(self._status),
            meta=dict(meta),
            doubt=None if np.isnan(table[:, 8]).all() else doubt,
        )


def csv_line(values: Iterable[object]) -> str:
    """Return one line of CSV; text is quoted where it must be."""
    cells = [str(value).lower() if isinstance(value, bool) else str(value) for value in values]
    return ",".join(
        '"' + cell.replace('"', '""') + '"' if any(c in cell for c in ',"\n\r;') else cell for cell in cells
    )


def safe_cell(name: str) -> str:
    """Return a target's name on one line, so that no spreadsheet takes it for a formula."""
    return f"'{printable(name)}" if name[:1] in ("=", "+", "-", "@") else printable(name)


def table_head(metas: Mapping[str, Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> str:
    """Return what comes before the rows of a CSV: of ``Track.to_csv``, or of several targets with these columns."""
    if len(metas) == 1:
        return Track.from_steps([], next(iter(metas.values()))).to_csv()
    heads = [f"# {one_cell(name)}: {one_cell(meta)}" for name, meta in metas.items()]
    return "\n".join(["# vltrack.tracks 1", *heads, ",".join(("target", *columns)), ""])


def table_lines(steps: Mapping[str, Step], *, several: bool) -> Iterator[str]:
    """Yield the rows of one frame as lines of CSV."""
    for name, step in steps.items():
        yield csv_line(([safe_cell(name)] if several else []) + list(row_of(step).values()))


def save_tracks(tracks: Mapping[str, Track], path: Path, frames: int | None = None) -> None:
    """Write one track as ``Track.save`` does, several into one file. Raises ``ResourceError``.

    ``.xml`` is CVAT's, of a video with so many ``frames``.
    With several targets CSV has a first column ``target``, and JSON holds one track per name; the name of a single one
    is ``target`` in its head, unless it is 1.
    """
    if path.suffix.lower() in EXPORTS:
        cvat.write(tracks, path, Clip(frames=frames))
    elif len(tracks) == 1:
        ((name, track),) = tracks.items()
        named = track if name == "1" else replace(track, meta={**track.meta, "target": name})
        named.save(path, overwrite=True)
    elif path.suffix.lower() == ".json":
        body = {name: json.loads(track.to_json()) for name, track in tracks.items()}
        document = {"format": "vltrack.tracks", "version": 1, "tracks": body}
        write_text(path, json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        if any(track.doubt is None for track in tracks.values()):
            tracks = {name: replace(track, doubt=None) for name, track in tracks.items()}
        # Frame by frame; targets may begin and end in different ones.
        numbered = enumerate(track.indices.tolist() for track in tracks.values())
        rows = sorted((frame, n, row) for n, numbers in numbered for row, frame in enumerate(numbers))
        names = list(tracks)
        lines = (line for _, n, row in rows for line in table_lines({names[n]: tracks[names[n]][row]}, several=True))
        head = table_head({name: track.meta for name, track in tracks.items()}, next(iter(tracks.values())).columns)
        write_text(path, head + "".join(map("{}\n".format, lines)))


def load_tracks(path: Path) -> dict[str, Track]:
    """Read several targets from what ``save_tracks`` wrote. Raises ``DataError``."""
    text = read_text(path, MAX_FILE_BYTES)
    try:
        if path.suffix.lower() == ".json":
            found = parse_json(text, str(path))["tracks"]
            heads = {name: one["meta"] for name, one in found.items()}
            rows = [(name, row) for name, one in found.items() for row in one["rows"]]
        else:
            lines = text.split("\n")
            begin = next(number for number, line in enumerate(lines) if line.startswith("target,"))
            columns = columns_of(lines[begin].removeprefix("target,")) or COLUMNS
            heads = parse_json("{" + ",".join(line[1:] for line in lines[1:begin]) + "}", str(path))
            names = {safe_cell(name): name for name in heads}
            cells = csv.reader(lines[begin + 1 :])
            rows = [(names[name], dict(zip(columns, values, strict=True))) for name, *values in filter(None, cells)]
        steps: dict[str, list[Step]] = {name: [] for name in heads}
        for name, row in rows:
            steps[name].append(read_row(row, str(path)))
        return {name: Track.from_steps(steps[name], head) for name, head in heads.items()}
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError) as error:
        raise DataError(f"{path} is not a file of several targets.") from error


def finished_tracks(
    paths: Sequence[Path], metas: Mapping[str, Mapping[str, Any]], runtime: set[str]
) -> dict[str, Track] | None:
    """Return the tracks of a finished run from its first table; None where it was another run.

    Its heads are those of ``metas``, and their runtime has the words ``runtime``, a backend or a precision.
    """
    table = next(path for path in paths if path.suffix.lower() in TABLES)
    try:
        tracks = load_tracks(table) if len(metas) > 1 else dict.fromkeys(metas, Track.load(table))
    except DataError:
        return None

    def settings(meta: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in meta.items() if key not in ("warnings", "versions", "runtime", "target")}
        return Track.from_steps([], kept).meta  # as a file gives it back

    same = tracks.keys() == metas.keys()
    same &= all(runtime <= set(str(track.meta.get("runtime", "")).split()) for track in tracks.values())
    return tracks if same and all(settings(tracks[n].meta) == settings(metas[n]) for n in metas) else None


def draw_track(track: Track, path: Path, source: Any = None) -> None:
    """Write ``Track.save``'s video or contact sheet: the track's frames of ``source``, by default its own."""
    draw_tracks({"1": track}, path, source)


def draw_tracks(tracks: Mapping[str, Track], path: Path, source: Any = None, effects: Sequence[str] = ()) -> None:
    """Write the video (with ``effects``) or contact sheet of tracks with the same frames; see ``draw_track``."""
    from vltrack.api.track import open_frames

    track = next(iter(tracks.values()))
    labels = [one.meta.get("sentence") or "" if len(tracks) == 1 else name for name, one in tracks.items()]
    if source is None:
        source = str(track.meta.get("source", ""))
        if not (os.path.exists(source) or glob.glob(source)):
            raise UsageError(
                f"The video of this track is not there: {source!r}.", hint="Pass the frames: save(..., source=frames)."
            )
    inputs.check_outputs([path], source, overwrite=True)
    if not len(track):
        raise UsageError("A track without rows cannot be drawn.")
    steps = {one[0].index: dict(zip(tracks, one, strict=True)) for one in zip(*tracks.values(), strict=True)}
    # Frames of the caller have no range.
    start, end = (min(steps), max(steps) + 1) if is_place(source) else (0, None)
    with open_frames(source, start, end, 1, allow_network=False) as frames, ExitStack() as last:
        inputs.check_video_of(track, frames.info)
        visual = visual_of(path, frames.info, labels, effects)
        if isinstance(visual, AnnotatedVideo):
            last.push(visual.abandon)
        drawn = 0
        for frame in frames:
            if frame.index in steps:
                visual.add(frame, steps[frame.index])
                drawn += 1
        if drawn < len(steps):
            raise UsageError(
                f"The source has {drawn} of the {len(steps)} frames of this track.", hint="Give what was tracked."
            )
        visual.finish()


class VideoOutput:
    """A video that is opened with its first image and gets its name when it is finished."""

    def __init__(self, path: Path, info: SourceInfo) -> None:
        self._path, self._info = path, info
        self._writer: VideoWriter | GifWriter | None = None
        self._open = ExitStack()

    def write(self, image: Image, seconds: float, *, more_rows: int = 0) -> None:
        """Write one image, ``more_rows`` higher than the frames. Where it cannot be, raise and remove the file."""
        try:
            if self._writer is None:
                writer = self._new(self._info.height + more_rows)
                self._open.enter_context(writer)
                self._writer = writer
            self._writer.write(image, seconds)
        except ResourceError as error:
            self.abandon(None, error, None)
            raise

    def _new(self, height: int) -> VideoWriter | GifWriter:
        from vltrack.video.gif import GifWriter
        from vltrack.video.writer import VideoWriter

        info = self._info
        if self._path.suffix.lower() == ".gif":
            return GifWriter(self._path, width=info.width, height=height)
        return VideoWriter(
            self._path,
            width=info.width,
            height=height,
            rate=info.rate,
            sample_aspect=info.sample_aspect,
            audio=Path(info.name) if info.audio else None,
            overwrite=True,
        )

    def abandon(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Remove the file if there is an error; arguments as of ``__exit__``."""
        if error is not None:
            self._open.__exit__(type(error), error, error.__traceback__)

    def finish(self) -> None:
        """Finish and name the file, also after an interrupt. Raises ``ResourceError``."""
        self._open.close()


class AnnotatedVideo:
    """The input with all boxes drawn, and ``effects``. Frames that did not decode are left out; the others keep their
    time.
    """

    def __init__(self, path: Path, info: SourceInfo, labels: Sequence[str], effects: Sequence[str] = ()) -> None:
        self._video, self._about = VideoOutput(path, info), (effects, labels)
        self._effects: Effects | None = None
        self.finish, self.abandon = self._video.finish, self._video.abandon

    def add(self, frame: Frame, steps: Mapping[str, Step]) -> None:
        """Draw and write one frame. Raises ``ResourceError``."""
        if self._effects is None:
            from vltrack.plots.effects import Effects

            self._effects = Effects(*self._about)
        if frame.image is not None:
            self._video.write(self._effects.draw(frame.image, list(steps.values())), frame.seconds)


class ContactSheet:
    """A few small images, spread evenly over a video of unknown length."""

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        self._path, self._labels = path, labels
        self._kept: list[tuple[Any, ...]] = []
        self._last: tuple[Any, ...] | None = None
        self._every = 1
        self._count = 0

    def add(self, frame: Frame, steps: Mapping[str, Step]) -> None:
        """Keep the frame if it is its turn; where twice too many are kept, every other one goes."""
        if frame.image is None:
            return
        self._last = _reduced(frame.image, steps.values())
        if self._count % self._every == 0:
            self._kept.append(self._last)
            self._last = None
            if len(self._kept) >= 2 * SHEET_TILES:
                self._kept = self._kept[::2]
                self._every *= 2
        self._count += 1

    def finish(self) -> None:
        """Write the image. Raises ``ResourceError``."""
        import cv2

        from vltrack.plots.contact_sheet import contact_sheet

        kept = [*self._kept, self._last] if self._last is not None else self._kept
        if kept:
            sheet = contact_sheet(kept, count=SHEET_TILES, labels=self._labels)
            write_bytes(self._path, cv2.imencode(".png", sheet[:, :, ::-1])[1].tobytes())


def _reduced(image: Image, steps: Iterable[Step]) -> tuple[Any, ...]:
    """Return a frame and its steps at the size of a tile, so that two dozen frames of 8K stay small."""
    import cv2

    scale = SHEET_WIDTH / image.shape[1]
    if scale >= 1:
        return (image, *steps)
    size = (SHEET_WIDTH, max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return (small, *(replace(step, box=step.box * scale) for step in steps))


def visual_of(
    path: Path, info: SourceInfo, labels: Sequence[str], effects: Sequence[str] = ()
) -> AnnotatedVideo | ContactSheet:
    """The drawing that the extension of ``path`` names."""
    return AnnotatedVideo(path, info, labels, effects) if path.suffix.lower() in VIDEOS else ContactSheet(path, labels)


class Outputs:
    """All files of one run, as a context: leaving it, for whatever reason, saves what was done.

    Videos and contact sheets are drawn and encoded in a thread, while the next frames are decoded and tracked.

    Args:
        paths: files to write, by extension.
        metas: head of each target's table, by target.
        warnings: called at the end for more warnings of the heads.
        shield: defers Ctrl-C while the files are finished.
        record: keep the steps in memory; needed for tables.
        effects: of videos; see ``plots.effects``.
        later: False draws before ``add`` returns: for frames whose memory the caller may use again.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        info: SourceInfo,
        metas: Mapping[str, dict[str, Any]],
        warnings: Callable[[], Sequence[str]],
        shield: Shield,
        *,
        record: bool,
        effects: Sequence[str] = (),
        later: bool = True,
    ) -> None:
        self._shield, self._warnings, self._metas = shield, warnings, metas
        labels = [meta["sentence"] or "" if len(metas) == 1 else name for name, meta in metas.items()]
        self._tables = [path for path in paths if path.suffix.lower() in TABLES + EXPORTS]
        self._frames = info.frames
        # Videos are finished last.
        drawn = [path for kinds in (VIDEOS, SHEETS) for path in paths if path.suffix.lower() in kinds]
        self._visuals = [visual_of(path, info, labels, effects) for path in drawn]
        self._recorders = {name: StepRecorder() for name in metas}
        self._record = record or bool(self._tables)
        self._later = later
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vltrack-draw")  # starts with the first frame
        self._waiting: deque[Future[None]] = deque()
        self._failed = False

    def add(self, frame: Frame, steps: Mapping[str, Step]) -> None:
        """Take the steps of one frame. Raises ``ResourceError``."""
        self.record(steps)
        self.draw(frame, steps)

    def record(self, steps: Mapping[str, Step]) -> None:
        """Take the steps of one frame for the tables."""
        if self._record:
            for name, recorder in self._recorders.items():
                recorder.add(steps[name])

    def draw(self, frame: Frame, steps: Mapping[str, Step]) -> None:
        """Take the steps of one frame for videos and contact sheets.

        Raises ``ResourceError``, perhaps of a frame before.
        """
        if not self._visuals:
            return
        size = 0 if frame.image is None else frame.image.nbytes
        most = min(DRAWN_LATER, max(1, _LATER_BYTES // max(1, size))) if self._later else 0
        self._waiting.append(self._thread.submit(self._draw, frame, steps))
        self._wait(most)

    def _draw(self, frame: Frame, steps: Mapping[str, Step]) -> None:
        if self._failed:
            return
        try:
            for visual in self._visuals:
                visual.add(frame, steps)
        except BaseException:
            self._failed = True
            raise

    def _wait(self, most: int = 0) -> None:
        """Wait until at most so many frames are to be drawn."""
        while len(self._waiting) > most:
            self._waiting.popleft().result()

    def tracks(self) -> dict[str, Track]:
        """Return the tracks so far, by target."""
        tracks = {}
        for name, recorder in self._recorders.items():
            head = self._metas[name]
            warnings = [*head["warnings"], *self._warnings()]
            tracks[name] = recorder.track(head | {"warnings": warnings})
        return tracks

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        # Last in, first out: frames that wait, tables, contact sheets, videos; each is tried even if another fails.
        with self._shield, ExitStack() as last_first:
            if not self._record or all(len(recorder) for recorder in self._recorders.values()):
                for visual in self._visuals:
                    last_first.callback(visual.finish)
                last_first.callback(self._save_tables)
            last_first.callback(self._thread.shutdown)
            last_first.callback(self._wait)

    def _save_tables(self) -> None:
        tracks = self.tracks() if self._tables else {}
        for path in self._tables:
            try:
                save_tracks(tracks, path, self._frames)
            except ResourceError as error:  # perhaps a video has taken the space
                for visual in self._visuals:
                    if isinstance(visual, AnnotatedVideo):
                        visual.abandon(None, error, None)
                save_tracks(tracks, path, self._frames)
                raise
