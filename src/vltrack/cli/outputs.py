"""Where the steps go: rows on standard output, tables, the annotated video, the contact sheet. Knows no tracker.

Tables are saved before the video is finished, so that a full disk costs the video and not the boxes. What is not
whole never gets its name: every file is written under a temporary one and renamed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from vltrack.cli.console import EXIT_PIPE_CLOSED
from vltrack.cli.request import SHEETS, TABLES, VIDEOS, Request
from vltrack.cli.tables import Recorder, csv_line, safe_cell, save_tracks, step_row
from vltrack.core.errors import VltrackError
from vltrack.core.files import as_resource_error

if TYPE_CHECKING:
    from vltrack.core.types import Frame, Image, Step
    from vltrack.video.contract import SourceInfo

SHEET_TILES = 12


class PipeClosed(VltrackError):
    """The reader of standard output went away."""

    exit_code = EXIT_PIPE_CLOSED


class Rows:
    """Rows on standard output as they come: CSV, or one JSON object a line. One column more with several targets."""

    def __init__(self, *, as_json: bool, several: bool) -> None:
        self._as_json = as_json
        self._several = several
        self._began = False

    def add(self, steps: Mapping[str, Step]) -> None:
        """Write one row a target. Raises ``PipeClosed``, or ``ResourceError`` where the disk behind it is full."""
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
