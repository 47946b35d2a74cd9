"""Results at a path, whoever wrote them: our own runs or other people's files. Knows which is which."""

from __future__ import annotations

from pathlib import Path

from vltrack.core.errors import PartialResult
from vltrack.evaluation.foreign import Results, read_foreign
from vltrack.evaluation.store import StoredResults, read_results


def open_results(path: Path) -> Results:
    """The results of one tracker in one mode.

    Raises:
        DataError: nothing there that is known, or a file that does not read.
        StateError: a file of ours was changed after it was written.
    """
    return of_run(read_results(path)) if (path / "run.json").is_file() else read_foreign(path)


def of_run(stored: StoredResults) -> Results:
    """A run of our own, all its finished sequences read. Raises as ``open_results``."""
    notes = []
    if stored.left_out:
        notes.append(f"{len(stored.left_out)} sequences without a sentence were left out.")
    by_box = sum(stored.named(name) == "box" for name in stored.names)
    if stored.mode != "bbox" and by_box:
        notes.append(f"{by_box} sequences without a sentence were started by the box alone.")
    missing = sum(stored.statuses(name).get("missing", 0) for name in stored.names)
    if missing:
        notes.append(f"{missing} frames could not be decoded.")
    return Results(
        tracker=stored.tracker,
        mode=stored.mode,
        boxes={name: stored.boxes(name) for name in stored.names},
        seconds={name: stored.seconds(name) for name in stored.names},
        notes=tuple(notes),
    )


def whole(stored: StoredResults) -> StoredResults:
    """The run itself, if every sequence of it is finished.

    Raises:
        PartialResult: sequences failed or were not run; all are named.
    """
    if stored.complete:
        return stored
    open_ones = [name for name in stored.planned if name not in stored.records]
    failed = [name for name in open_ones if name in stored.failures]
    raise PartialResult(
        f"{stored.tracker}, {stored.mode}: {len(open_ones)} of {len(stored.planned)} sequences have no result"
        f" ({len(failed)} failed): {', '.join(open_ones[:5])}.",
        hint="Run the evaluation again, or score what is there with --subset present.",
    )
