"""Where the steps go: rows on standard output, tables, the annotated video, the contact sheet. Knows no
tracker.

Tables are saved before the video is finished, so that a full disk costs the video and not the boxes. What is
not whole never gets its name: every file is written under a temporary one and renamed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from vltrack.cli.console import EXIT_PIPE_CLOSED
from vltrack.cli.request import SHEETS, TABLES, VIDEOS
from vltrack.cli.tables import Recorder, csv_line, safe_cell, save_tracks, step_row
from vltrack.core.errors import ResourceError, VltrackError
from vltrack.core.files import as_resource_error

if TYPE_CHECKING:
    from vltrack.core.types import Frame, Image, Step
    from vltrack.video.contract import SourceInfo
    from vltrack.video.writer import VideoWriter

SHEET_TILES = 12


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

    def __init__(self, path: Path, info: SourceInfo, sentences: Mapping[str, str | None]) -> None:
        self._path = path
        self._info = info
        self._sentences = sentences
        self._writer: VideoWriter | None = None
        self._open = ExitStack()

    def add(self, frame: Frame, steps: Mapping[str, Step]) -> None:
        """Draw and write one frame. Raises ``ResourceError``; the file is gone then."""
        if frame.image is None:
            return
        if self._writer is None:
            self._writer = self._begin()
        try:
            self._writer.write(annotated(frame.image, steps, self._sentences), frame.seconds)
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


class Tiles:
    """Pictures spread evenly over a video of unknown length: when twice too many, every other is dropped."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._every = 1
        self._taken: list[tuple[Image, dict[str, Step]]] = []
        self._met = 0

    def add(self, image: Image, steps: Mapping[str, Step]) -> None:
        """Keep the picture if it is its turn."""
        if self._met % self._every == 0:
            self._taken.append((image, dict(steps)))
            if len(self._taken) >= 2 * self._count:
                self._taken = self._taken[::2]
                self._every *= 2
        self._met += 1

    def chosen(self) -> list[tuple[Image, dict[str, Step]]]:
        """At most ``count`` pictures, evenly spread, the first always among them."""
        have = len(self._taken)
        if have <= self._count:
            return self._taken
        return [self._taken[round(i * (have - 1) / (self._count - 1))] for i in range(self._count)]


class Outputs:
    """All outputs of one run, as a context: leaving it, for whatever reason, saves what was done.

    Args:
        paths: files to write, by extension; none means rows on standard output.
        metas: for each target what the head of its table tells.
        warnings: asked at the end for what else belongs into the head.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        info: SourceInfo,
        metas: Mapping[str, dict[str, Any]],
        warnings: Callable[[], Sequence[str]],
        *,
        as_json: bool,
    ) -> None:
        self._warnings = warnings
        self._metas = metas
        sentences = {name: meta["sentence"] for name, meta in metas.items()}
        self._tables = [path for path in paths if path.suffix.lower() in TABLES]
        self._films = [Film(path, info, sentences) for path in paths if path.suffix.lower() in VIDEOS]
        self._sheets = [path for path in paths if path.suffix.lower() in SHEETS]
        self._rows = None if paths else Rows(as_json=as_json, several=len(metas) > 1)
        self._recorders = {name: Recorder() for name in metas} if paths else {}
        self._tiles = Tiles(SHEET_TILES)

    def add(self, frame: Frame, steps: Mapping[str, Step]) -> None:
        """Take the steps of one frame. Raises ``ResourceError``, ``PipeClosed``."""
        for name, recorder in self._recorders.items():
            recorder.add(steps[name])
        if self._rows is not None:
            self._rows.add(steps)
        if self._sheets and frame.image is not None:
            self._tiles.add(frame.image, steps)
        for film in self._films:
            film.add(frame, steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not all(len(recorder) for recorder in self._recorders.values()):
            return
        # Last in, first out: tables, then contact sheets, then videos. Every one is tried, whatever the
        # others do.
        with ExitStack() as last_first:
            for film in self._films:
                last_first.callback(film.finish)
            last_first.callback(self._save_sheets)
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

    def _save_sheets(self) -> None:
        for path in self._sheets:
            save_sheet(path, self._tiles.chosen())
