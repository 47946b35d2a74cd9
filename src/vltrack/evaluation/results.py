"""Results at a path, whoever wrote them: our own runs or other people's files. Knows which is which."""

from __future__ import annotations

from pathlib import Path

from vltrack.core.errors import DataError, GroundingFailed
from vltrack.evaluation.foreign import Results, read_foreign
from vltrack.evaluation.store import RUN_FILE, StoredResults, read_results


def open_results(path: Path) -> Results:
    """The results of one tracker in one mode.

    Raises:
        DataError: nothing there that is known, or a file that does not read.
        StateError: a file of ours was changed after it was written.
    """
    if (path / RUN_FILE).is_file():
        return of_run(read_results(path))
    runs = sorted(run.parent for depth in ("*", "*/*") for run in path.glob(f"{depth}/{RUN_FILE}"))
    if runs:
        named = ", ".join(str(run) for run in runs[:3])
        raise DataError(f"{path} holds folders of results: {named}.", hint="Name one of them.")
    return read_foreign(path)


def of_run(stored: StoredResults) -> Results:
    """A run of our own, all its finished sequences read. Raises as ``open_results``."""
    notes = []
    if stored.left_out:
        notes.append(f"{len(stored.left_out)} sequences without a sentence were left out.")
    by_box = sum(stored.named(name) == "box" for name in stored.names)
    if stored.mode != "bbox" and by_box:
        notes.append(f"{by_box} sequences without a sentence were started by the box alone.")
    nothing = tuple(
        name for name, failure in stored.failures.items() if failure["error"] == GroundingFailed.code
    )
    if nothing:
        notes.append(
            f"in {len(nothing)} sequences the words found nothing to start with; their frames are misses."
        )
    missing = sum(stored.statuses(name).get("missing", 0) for name in stored.names)
    if missing:
        notes.append(f"{missing} frames could not be decoded.")
    return Results(
        tracker=stored.tracker,
        mode=stored.mode,
        boxes={name: stored.boxes(name) for name in stored.names},
        seconds={name: stored.seconds(name) for name in stored.names},
        nothing=nothing,
        left_out=stored.left_out,
        notes=tuple(notes),
    )
