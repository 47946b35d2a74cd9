"""Results of one tracker on one data set in one mode: reading and checking a folder that ``writing`` wrote.

::

    OUT/<tracker>/<data set>_<mode>/
        run.json             what the results depend on (``fingerprint``), and the names of the sequences
        boxes/<seq>.txt      x,y,w,h per frame in pixels; numbers read back as the same float64
        scores/<seq>.txt     score,visible (0 or 1) per frame
        times/<seq>.txt      seconds that the tracker took per frame; the last line is their sha256
        done/<seq>.json      rows, counts, sha256 of boxes and scores: a result counts only if these match
        failures/<seq>.json  why a sequence has no result
        claims/              lock files while an evaluator is at work; removed afterwards

All but ``times`` is the same, byte for byte, however often the run was interrupted and however many processes
shared it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError, GroundingFailed, StateError
from vltrack.core.files import read_checksummed, read_limited, sha256_bytes
from vltrack.core.types import Floats
from vltrack.datasets.parsing import MAX_BYTES, parse_table
from vltrack.evaluation.third_party import SCORES, TrackerResults, read_third_party
from vltrack.metrics.annotations import is_box

RUN_FILE = "run.json"
RUN, DONE, FAILED = "vltrack.run", "vltrack.done", "vltrack.failure"
SUFFIXES = {"boxes": ".txt", "scores": ".txt", "times": ".txt", "done": ".json", "failures": ".json"}
_AGAIN = "Run the evaluation again: it will redo this sequence."


def open_results(path: Path, names: Collection[str] = ()) -> TrackerResults:
    """Read the results of one tracker in one mode, on the sequences ``names``: our own run, or third-party files.

    Raises:
        DataError: nothing there in a known format, or a file that cannot be parsed.
        StateError: a file of our own was changed after it was written.
    """
    if (path / RUN_FILE).is_file():
        return results_of_run(read_results(path))
    runs = sorted(run.parent for depth in ("*", "*/*") for run in path.glob(f"{depth}/{RUN_FILE}"))
    if runs:
        named = ", ".join(str(run) for run in runs[:3])
        raise DataError(f"{path} holds several folders of results: {named}.", hint="Name one of them.")
    return read_third_party(path, names)


def holds_only_runs(folder: Path) -> bool:
    """Return whether a folder holds several folders of runs or scores, or no file."""
    if not folder.is_dir():
        return False
    files = [file for depth in ("*", "*/*") for file in folder.glob(depth) if file.is_file()]
    return not files or any(file.name in (RUN_FILE, SCORES) and file.parent != folder for file in files)


def results_of_run(stored: StoredResults) -> TrackerResults:
    """Read all finished sequences of a run of our own. Raises as ``open_results``."""
    notes = []
    if stored.left_out:
        notes.append(f"{len(stored.left_out)} sequences without a sentence were left out.")
    by_box = sum(record["named"] == "box" for record in stored.records.values())
    if stored.mode != "bbox" and by_box:
        notes.append(f"{by_box} sequences without a sentence were started by the box alone.")
    not_found = tuple(name for name, failure in stored.failures.items() if failure["error"] == GroundingFailed.code)
    if not_found:
        notes.append(f"in {len(not_found)} sequences the words found nothing to start with; their frames are misses.")
    missing = sum(record["statuses"].get("missing", 0) for record in stored.records.values())
    if missing:
        notes.append(f"{missing} frames could not be decoded.")
    return TrackerResults(
        tracker=stored.tracker,
        mode=stored.mode,
        boxes={name: stored.boxes(name) for name in stored.names},
        seconds={name: stored.seconds(name) for name in stored.names},
        not_found=not_found,
        left_out=stored.left_out,
        notes=tuple(notes),
    )


# -- a folder -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StoredResults:
    """Results of one tracker on one data set in one mode; boxes, scores and times are read when asked for.

    Attributes:
        folder: of the results.
        tracker: name of the weights, also of the folder above.
        mode: ``nl``, ``bbox`` or ``nlbbox``.
        fingerprint: all that the results depend on, such as the data set (see ``evaluation.plan``).
        planned: names of all sequences that were to be run, in the data set's order.
        left_out: names of those without a sentence that the user chose to leave out.
        failures: by name, the record of a sequence that failed (fields of ``SequenceFailure``).
        records: by name, the content of ``done/<seq>.json`` of those of ``planned`` that are finished: among
            others ``named``, how the target was given (``sentence``, ``box`` or ``both``), and ``statuses``,
            the number of frames by status.
    """

    folder: Path
    tracker: str
    mode: str
    fingerprint: dict[str, Any]
    planned: tuple[str, ...]
    left_out: tuple[str, ...]
    failures: Mapping[str, dict[str, Any]]
    records: Mapping[str, dict[str, Any]]

    @property
    def names(self) -> tuple[str, ...]:
        """The finished sequences, in the order of ``planned``."""
        return tuple(self.records)

    @property
    def complete(self) -> bool:
        """Return whether every planned sequence has a result."""
        return len(self.records) == len(self.planned)

    def boxes(self, name: str) -> Floats:
        """(N, 4) float64 x, y, w, h in pixels; finite, w and h > 0.

        Row 1 is the tracker's own first box in NL mode and the given box otherwise.

        Raises:
            StateError: the file is missing or not the one that was written.
            DataError: a row is not a box (file:line).
        """
        return self._read("boxes", name)

    def scores(self, name: str) -> Floats:
        """(N,) presence in [0, 1]. Raises as ``boxes``."""
        return self._read("scores", name)[:, 0]

    def seconds(self, name: str) -> Floats:
        """(N,) seconds that the tracker took per frame, without decoding. Raises as ``boxes``."""
        return self._read("times", name)

    def _read(self, kind: str, name: str) -> Floats:
        record = self.records[name]
        return _READERS[kind](_intact(self.folder, kind, record), file_of(self.folder, kind, name), record["rows"])


def read_results(folder: Path) -> StoredResults:
    """Read the records of a folder that ``evaluation.run`` wrote.

    Raises:
        DataError: not a folder of results, or names in it that cannot be file names.
        StateError: a record was changed after it was written.
    """
    run, planned = _read_run(folder)
    records = {name: record for name in planned if (record := done_record(folder, name)) is not None}
    failed = {name: file_of(folder, "failures", name) for name in planned if name not in records}
    return StoredResults(
        folder=folder,
        tracker=run["tracker"],
        mode=run["fingerprint"]["mode"],
        fingerprint=run["fingerprint"],
        planned=planned,
        left_out=tuple(run["left_out"]),
        failures={name: read_checksummed(path, FAILED) for name, path in failed.items() if path.is_file()},
        records=records,
    )


def _read_run(folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    try:
        run = read_checksummed(folder / RUN_FILE, RUN)
    except OSError as error:
        raise DataError(
            f"No results of vltrack evaluate in {folder} (no run.json).",
            hint="Name a folder such as OUT/litetrack-tiny/lasot_nlbbox.",
        ) from error
    return run, check_names(run["sequences"])


def done_record(folder: Path, name: str) -> dict[str, Any] | None:
    """The content of ``done/<seq>.json`` or None. Raises ``StateError`` if it was changed."""
    path = file_of(folder, "done", name)
    try:
        record = read_checksummed(path, DONE)
    except FileNotFoundError:
        return None
    if record["name"] != name:
        raise StateError(f"{path} is of sequence {record['name']!r}.", hint=_AGAIN)
    return record


def is_finished(folder: Path, name: str) -> bool:
    """Return whether a sequence's record is intact, its boxes and scores match it, and there are times."""
    try:
        record = done_record(folder, name)
        for kind in _READERS:
            if record is not None:
                _intact(folder, kind, record)
    except (StateError, DataError):
        return False
    return record is not None


def _intact(folder: Path, kind: str, record: Mapping[str, Any]) -> bytes:
    """Lines of one file of a finished sequence. Raises ``StateError`` if it is missing or was changed."""
    path = file_of(folder, kind, record["name"])
    data = _bytes(path)
    if kind == "times":
        body = data.rpartition(_CHECKSUM)[0]
        if with_checksum(body) != data:
            raise _changed(path)
        return body
    if sha256_bytes(data) != record["sha256"][kind]:
        raise _changed(path)
    return data


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultIssue:
    """A problem in a folder of results.

    Attributes:
        path: the file.
        name: of the sequence, "" if the file belongs to none.
        message: what is wrong.
        unfinished: not damaged, but left behind where a run was interrupted.
    """

    path: Path
    name: str
    message: str
    unfinished: bool = False


def verify(folder: Path) -> list[ResultIssue]:
    """List everything in a folder of results that is not as it was written; empty if all is well.

    A changed bit in any file, a result without its record and a file of no sequence are issues; a sequence
    that was never finished is not (see ``StoredResults.complete``).

    Raises:
        DataError, StateError: ``run.json`` is missing or unreadable.
    """
    _, names = _read_run(folder)
    found: list[ResultIssue] = []
    for name in names:
        try:
            found += _issues(folder, name)
        except (StateError, DataError) as error:
            found.append(ResultIssue(path=file_of(folder, "done", name), name=name, message=error.message))
    for kind in SUFFIXES:
        known = {file_of(folder, kind, name) for name in names}
        for path in sorted(set((folder / kind).glob("*")) - known):
            found.append(ResultIssue(path=path, name="", message=f"{path} belongs to no sequence of this run."))
    return found


def _issues(folder: Path, name: str) -> list[ResultIssue]:
    """Issues in the files of one sequence. Raises ``StateError`` if its record itself is damaged."""
    record = done_record(folder, name)
    paths = {kind: file_of(folder, kind, name) for kind in _READERS}
    if record is None:
        failure = file_of(folder, "failures", name)
        if failure.is_file():
            read_checksummed(failure, FAILED)
        left = [path for path in paths.values() if path.is_file()]
        why = "has no record in done/ and does not count."
        return [ResultIssue(path=path, name=name, message=f"{path} {why}", unfinished=True) for path in left]
    found = []
    for kind, path in paths.items():
        try:
            if kind != "times":
                _READERS[kind](_bytes(path), path, record["rows"])  # names the line of a row that was damaged
            _READERS[kind](_intact(folder, kind, record), path, record["rows"])
        except (StateError, DataError) as error:
            found.append(ResultIssue(path=path, name=name, message=error.message))
    return found


def _changed(path: Path) -> StateError:
    return StateError(f"{path} was changed after it was written.", hint=_AGAIN)


def _bytes(path: Path) -> bytes:
    try:
        return read_limited(path, MAX_BYTES)
    except OSError as error:
        raise StateError(f"Cannot read {path} ({error.strerror}).", hint=_AGAIN) from error


# -- names --------------------------------------------------------------------------------------------------


def label_of(data: str, split: str, place: str) -> str:
    """Name of a folder of results: the data set, with its split unless it is the usual one; for clips of your
    own the folder ``place`` that holds them.
    """
    name = place if data == "folder" and place else data
    return name if split in ("test", "all") else f"{name}-{split}"


def file_of(folder: Path, kind: str, name: str) -> Path:
    """Path of one kind of file of a sequence; ``name`` has passed ``check_names``."""
    return folder / kind / (name + SUFFIXES[kind])


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names if each can be a file name on every system and no two are the same there.

    Raises:
        DataError: lists the names that cannot (fault D10, docs/faults.md).
    """
    names = tuple(names)
    bad = [name for name in names if not _is_file_name(name)]
    if bad:
        shown = ", ".join(repr(name[:80]) for name in bad[:10])
        raise DataError(
            f"{len(bad)} of {len(names)} names cannot be file names: {shown}.",
            hint="No / \\ : .. or control characters, no dot in front, at most 200 bytes.",
        )
    seen: dict[str, str] = {}
    for name in names:
        plain = unicodedata.normalize("NFC", name).casefold()
        if plain in seen:
            raise DataError(
                f"The names {seen[plain]!r} and {name!r} are one file on some systems.",
                hint="Rename one of the sequences.",
            )
        seen[plain] = name
    return names


def _is_file_name(name: str) -> bool:
    return (
        name.isprintable()
        and name == name.strip()
        and 0 < len(name.encode(errors="replace")) <= 200
        and not re.search(r'[/\\:<>"|?*]|\.\.|^\.|\.$', name)
    )


# -- rows ---------------------------------------------------------------------------------------------------


def lines_of(rows: list[tuple[Any, ...]]) -> bytes:
    """Text of a table: one line per row, commas between numbers that read back as the same float64."""
    return "".join(",".join(repr(v) for v in row) + "\n" for row in rows).encode()


def read_boxes(data: bytes, path: Path, rows: int) -> Floats:
    """(rows, 4) boxes from the bytes of a file. Raises ``DataError`` with the line (E08, docs/faults.md)."""
    boxes = _table(data, path, rows, 4)
    _check_rows(is_box(boxes), path, "is not a box: finite x,y,w,h with w and h > 0 are needed")
    return boxes


def read_scores(data: bytes, path: Path, rows: int) -> Floats:
    """(rows, 2) score in [0, 1] and visible, 0 or 1. Raises ``DataError`` with the line."""
    table = _table(data, path, rows, 2)
    good = (table[:, 0] >= 0) & (table[:, 0] <= 1) & np.isin(table[:, 1], (0, 1))
    _check_rows(good, path, "is not a score in 0..1 and 0 or 1")
    return table


def read_times(data: bytes, path: Path, rows: int) -> Floats:
    """(rows,) seconds. Raises ``DataError`` with the line."""
    seconds = _table(data, path, rows, 1)[:, 0]
    _check_rows(np.isfinite(seconds) & (seconds >= 0), path, "is not a time")
    return seconds


_READERS = {"boxes": read_boxes, "scores": read_scores, "times": read_times}
_CHECKSUM = b"# sha256 "


def with_checksum(body: bytes) -> bytes:
    """The content of a file of times: its lines, and their sha256 in the last one."""
    return body + _CHECKSUM + sha256_bytes(body).encode() + b"\n"


def _table(data: bytes, path: Path, rows: int, columns: int) -> Floats:
    count = data.removesuffix(b"\n").count(b"\n") + 1
    if count != rows:
        raise DataError(f"{path} has {count} lines for {rows} frames.", hint=_AGAIN)
    try:
        table = parse_table(data, path, range(columns))
    except DataError as error:
        raise DataError(error.message, hint=_AGAIN) from error
    if len(table) != rows:
        raise DataError(f"{path}:{len(table) + 1}: the line is empty.", hint=_AGAIN)
    return table


def _check_rows(good: NDArray[np.bool_], path: Path, fault: str) -> None:
    if not good.all():
        raise DataError(f"{path}:{int(np.argmin(good)) + 1}: the row {fault}.", hint=_AGAIN)
