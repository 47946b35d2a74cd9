"""Where the steps go: rows on standard output, tables, the annotated video, the contact sheet. Knows no
tracker.

Tables are saved before the video is finished, so that a full disk costs the video and not the boxes. What is
not whole never gets its name: every file is written under a temporary one and renamed.
"""

from __future__ import annotations

import json
import os
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from vltrack.api.console import EXIT_PIPE_CLOSED
from vltrack.api.inputs import SHEETS, TABLES, VIDEOS
from vltrack.core.errors import ResourceError, VltrackError
from vltrack.core.files import as_resource_error, write_bytes, write_text

if TYPE_CHECKING:
    from vltrack.api.console import Shield
    from vltrack.core.track import Track
    from vltrack.core.types import Frame, Image, Status, Step
    from vltrack.video.base import SourceInfo
    from vltrack.video.writer import VideoWriter


# MERGED api/outputs.py
# Rows of boxes: one ``Step`` as a line of data, and all steps of a run as a file. Knows CSV and JSON, no
# terminal.
#
# One target is written as a ``Track``. Several share a file: CSV has a first column ``target``; JSON
# holds one
# track a name.


class Recorder:
    """The steps of one target, kept as plain numbers (64 bytes a frame), until they become a ``Track``."""

    def __init__(self) -> None:
        self._numbers = array("d")
        self._status: list[Status] = []

    def add(self, step: Step) -> None:
        """Keep one step."""
        self._numbers.extend((*map(float, step.box), step.score, step.visible, step.index, step.seconds))
        self._status.append(step.status)

    def __len__(self) -> int:
        return len(self._status)

    def track(self, meta: Mapping[str, Any]) -> Track:
        """Everything kept so far, with ``meta`` as its head."""
        import numpy as np

        from vltrack.core.track import Track

        table = np.array(self._numbers, dtype=np.float64).reshape(-1, 8)
        return Track(
            boxes=table[:, :4],
            scores=table[:, 4],
            visible=table[:, 5].astype(np.bool_),
            indices=table[:, 6].astype(np.int64),
            seconds=table[:, 7],
            status=tuple(self._status),
            meta=dict(meta),
        )


def step_row(step: Step) -> dict[str, Any]:
    """One step with the keys of a track's rows."""
    from vltrack.core.track import Track

    return next(Track.from_steps([step]).rows())


def csv_line(row: Mapping[str, Any]) -> str:
    """The values of a row; numbers read back exactly. A target's name is quoted where it must be."""
    cells = []
    for value in row.values():
        cell = str(value).lower() if isinstance(value, bool) else str(value)
        cells.append('"' + cell.replace('"', '""') + '"' if any(c in cell for c in ',"\n\r;') else cell)
    return ",".join(cells)


def save_tracks(tracks: Mapping[str, Track], path: Path) -> None:
    """Write one track as ``Track.save`` does, several into one file. Replaces ``path``. Raises
    ``ResourceError``.
    """
    if len(tracks) == 1:
        next(iter(tracks.values())).save(path, overwrite=True)
    elif path.suffix.lower() == ".json":
        body = {name: json.loads(track.to_json()) for name, track in tracks.items()}
        document = {"format": "vltrack.tracks", "version": 1, "tracks": body}
        write_text(path, json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        write_text(path, _joint_csv(tracks))


def _joint_csv(tracks: Mapping[str, Track]) -> str:
    from vltrack.core.track import COLUMNS

    lines = ["# vltrack.tracks 1", "target," + ",".join(COLUMNS)]
    named = [{"target": safe_cell(name), **row} for name, track in tracks.items() for row in track.rows()]
    # Frame by frame, as the rows also come on standard output; the sort is stable, so targets keep their
    # order.
    named.sort(key=lambda row: int(row["frame"]))
    return "\n".join([*lines, *map(csv_line, named)]) + "\n"


def safe_cell(name: str) -> str:
    """A target's name that no spreadsheet takes for a formula."""
    return f"'{name}" if name[:1] in "=+-@" else name


SHEET_TILES = 12
SHEET_WIDTH = 320


class PipeClosed(VltrackError):
    """The reader of standard output went away."""

    exit_code = EXIT_PIPE_CLOSED


class Rows:
    """Rows on standard output as they come: CSV, or one JSON object a line. One column more with several
    targets.
    """

    def __init__(self, *, as_json: bool, several: bool) -> None:
        self._as_json = as_json
        self._several = several
        self._began = False

    def add(self, steps: Mapping[str, Step]) -> None:
        """Write one row a target. Raises ``PipeClosed``, or ``ResourceError`` where the disk behind it is
        full.
        """
        lines = []
        for name, step in steps.items():
            row = step_row(step)
            if self._several:
                row = {"target": name if self._as_json else safe_cell(name), **row}
            if not self._as_json and not self._began:
                lines.append(",".join(row))
            self._began = True
            lines.append(
                json.dumps(row, ensure_ascii=False, allow_nan=False) if self._as_json else csv_line(row)
            )
        try:
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()
        except BrokenPipeError as error:
            # What is still buffered can go nowhere; without this the interpreter complains once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise PipeClosed("the reader of standard output went away.") from error
        except OSError as error:
            raise as_resource_error(error, Path("standard output")) from error


class Film:
    """The annotated video. Frames that did not decode are left out; the others keep their time."""

    def __init__(self, path: Path, info: SourceInfo, labels: Sequence[str]) -> None:
        self._path = path
        self._info = info
        self._labels = labels
        self._writer: VideoWriter | None = None
        self._open = ExitStack()

    def add(self, frame: Frame, steps: Mapping[str, Step]) -> None:
        """Draw and write one frame. Raises ``ResourceError``; the file is gone then."""
        if frame.image is None:
            return
        if self._writer is None:
            self._writer = self._begin()
        from vltrack.plots.draw import draw_steps

        try:
            self._writer.write(draw_steps(frame.image, list(steps.values()), self._labels), frame.seconds)
        except ResourceError as error:
            self._open.__exit__(type(error), error, error.__traceback__)
            raise

    def _begin(self) -> VideoWriter:
        from vltrack.video.writer import VideoWriter

        info = self._info
        writer = VideoWriter(
            self._path,
            width=info.width,
            height=info.height,
            rate=info.rate,
            sample_aspect=info.sample_aspect,
            overwrite=True,
        )
        return self._open.enter_context(writer)

    def finish(self) -> None:
        """Finish the file and give it its name, also where the run was stopped. Raises ``ResourceError``."""
        self._open.close()


class Sheet:
    """The contact sheet. Holds a few small pictures, spread evenly over a video of unknown length."""

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        self._path = path
        self._labels = labels
        self._held: list[tuple[Any, ...]] = []
        self._last: tuple[Any, ...] | None = None
        self._every = 1
        self._met = 0

    def add(self, frame: Frame, steps: Mapping[str, Step]) -> None:
        """Keep the frame if it is its turn; where twice too many are held, every other one goes."""
        if frame.image is None:
            return
        self._last = _smaller(frame.image, steps.values())
        if self._met % self._every == 0:
            self._held.append(self._last)
            self._last = None
            if len(self._held) >= 2 * SHEET_TILES:
                self._held = self._held[::2]
                self._every *= 2
        self._met += 1

    def finish(self) -> None:
        """Write the picture. Raises ``ResourceError``."""
        import cv2

        from vltrack.plots.contact_sheet import contact_sheet

        held = [*self._held, self._last] if self._last is not None else self._held
        if held:
            sheet = contact_sheet(held, count=SHEET_TILES, labels=self._labels)
            write_bytes(self._path, cv2.imencode(".png", sheet[:, :, ::-1])[1].tobytes())


def _smaller(image: Image, steps: Iterable[Step]) -> tuple[Any, ...]:
    """A frame and its steps at the size that a sheet can show, so that two dozen of 8K stay small."""
    import cv2

    scale = SHEET_WIDTH / image.shape[1]
    if scale >= 1:
        return (image, *steps)
    size = (SHEET_WIDTH, max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return (small, *(replace(step, box=step.box * scale) for step in steps))


class Outputs:
    """All outputs of one run, as a context: leaving it, for whatever reason, saves what was done.

    Args:
        paths: files to write, by extension; none means rows on standard output.
        metas: for each target what the head of its table tells.
        warnings: asked at the end for what else belongs into the head.
        shield: holds Ctrl-C back while the files are finished.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        info: SourceInfo,
        metas: Mapping[str, dict[str, Any]],
        warnings: Callable[[], Sequence[str]],
        *,
        as_json: bool,
        shield: Shield,
    ) -> None:
        self._shield = shield
        self._warnings = warnings
        self._metas = metas
        alone = len(metas) == 1
        labels = [meta["sentence"] or "" if alone else name for name, meta in metas.items()]
        self._tables = [path for path in paths if path.suffix.lower() in TABLES]
        self._pictures: list[Film | Sheet] = [
            *(Film(path, info, labels) for path in paths if path.suffix.lower() in VIDEOS),
            *(Sheet(path, labels) for path in paths if path.suffix.lower() in SHEETS),
        ]
        self._rows = None if paths else Rows(as_json=as_json, several=len(metas) > 1)
        self._recorders = {name: Recorder() for name in metas} if paths else {}

    def add(self, frame: Frame, steps: Mapping[str, Step]) -> None:
        """Take the steps of one frame. Raises ``ResourceError``, ``PipeClosed``."""
        for name, recorder in self._recorders.items():
            recorder.add(steps[name])
        if self._rows is not None:
            self._rows.add(steps)
        for picture in self._pictures:
            picture.add(frame, steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not all(len(recorder) for recorder in self._recorders.values()):
            return
        # Last in, first out: tables, then contact sheets, then videos. Every one is tried, whatever the
        # others do.
        with self._shield, ExitStack() as last_first:
            for picture in self._pictures:
                last_first.callback(picture.finish)
            last_first.callback(self._save_tables)

    def _save_tables(self) -> None:
        if not self._tables:
            return
        more = {"warnings": list(self._warnings())}
        tracks = {
            name: recorder.track(self._metas[name] | more) for name, recorder in self._recorders.items()
        }
        for path in self._tables:
            save_tracks(tracks, path)
