"""Rows of boxes: one ``Step`` as a line of data, and all steps of a run as a file. Knows CSV and JSON, no
terminal.

One target is written as a ``Track``. Several share a file: CSV has a first column ``target``; JSON holds one
track a name.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltrack.core.files import write_text

if TYPE_CHECKING:
    from vltrack.core.track import Track
    from vltrack.core.types import Status, Step


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
