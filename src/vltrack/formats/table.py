"""Parquet: the rows of all targets, ``meta`` in the attributes; by pandas and pyarrow, where they are installed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from vltrack.core.errors import DataError
from vltrack.core.files import atomic_path, printable, read_limited
from vltrack.core.track import COLUMNS, MAX_FILE_BYTES, Track, read_row
from vltrack.formats.base import MAX_ROWS, Clip


def _packages() -> tuple[Any, Any]:
    for name in ("pandas", "pyarrow.parquet"):
        try:
            import_module(name)
        except ImportError as error:
            package = name.partition(".")[0]
            raise ImportError(f"{package} is not installed. Run: pip install {package}", name=package) from error
    return import_module("pandas"), import_module("pyarrow.parquet")


def read(path: Path, clip: Clip) -> dict[str, Track]:
    """Read what ``write`` wrote. Raises ``DataError``; ``ImportError`` without pandas and pyarrow."""
    pandas, parquet = _packages()
    where = printable(path)
    try:
        data = io.BytesIO(read_limited(path, MAX_FILE_BYTES))
        if (rows := parquet.ParquetFile(data).metadata.num_rows) > MAX_ROWS:
            raise DataError(f"{where} has {rows:,} rows; at most {MAX_ROWS:,} are read.")
        frame = pandas.read_parquet(data)
        metas = frame.attrs["vltrack"]
        steps: dict[str, list[Any]] = {name: [] for name in metas}
        for row in frame.to_dict("records"):
            steps[row.pop("target")].append(read_row(row, where))
        return {name: Track.from_steps(steps[name], meta) for name, meta in metas.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where} is not a parquet file of tracks: {printable(str(error)[:120])}.") from error


def write(tracks: Mapping[str, Track], path: Path, clip: Clip) -> None:
    """Write columns ``target`` and those of the CSV. Raises ``ImportError`` without pandas and pyarrow."""
    pandas, _ = _packages()
    rows = [{"target": name, **row} for name, track in tracks.items() for row in track.rows()]
    frame = pandas.DataFrame(rows, columns=["target", *COLUMNS])
    frame.attrs["vltrack"] = {name: track.meta for name, track in tracks.items()}
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, engine="pyarrow")
