"""A folder with the results of one tracker on one data set in one mode: its files, reading and checking them.

Knows the folder; knows no tracker and no scoring rule, loads no torch. ``recording.py`` writes it::

    OUT/<tracker>/<data set>_<mode>/
        run.json             what the results depend on (``fingerprint``), and the names of the sequences
        boxes/<seq>.txt      x,y,w,h a frame in pixels; numbers read back as the same float64
        scores/<seq>.txt     score,visible (0 or 1) a frame
        times/<seq>.txt      seconds that the tracker took, a frame; the last line is their sha256
        done/<seq>.json      rows, counts, sha256 of boxes and scores: a result counts only if this fits
        failures/<seq>.json  why a sequence has no result
        claims/              locks while somebody is at work; gone afterwards

All but ``times`` is the same, byte for byte, however often the work was broken off and however many processes
did it.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError, GroundingFailed, StateError
from vltrack.core.files import read_checksummed, sha256_bytes
from vltrack.core.types import Floats
from vltrack.evaluation.third_party import TrackerResults, read_third_party

# MERGED evaluation/results.py
# Rows of numbers as text: boxes, scores, times. Knows lines and columns; knows no folder.
#
# Numbers are written such that they read back as the same float64.


AGAIN = "Run the evaluation again: it will redo this sequence."


def lines_of(rows: list[tuple[Any, ...]]) -> bytes:
    """A line a row, commas between the numbers."""
    return "".join(",".join(repr(v) for v in row) + "\n" for row in rows).encode()


def read_boxes(data: bytes, path: Path, rows: int) -> Floats:
    """(rows, 4) boxes from the bytes of a file. Raises ``DataError`` that names the line (E08)."""
    boxes = _table(data, path, rows, 4)
    sound = np.isfinite(boxes) & (boxes > (-np.inf, -np.inf, 0, 0))
    _all_good(sound.min(axis=1), path, "is no box: finite x,y,w,h with w and h > 0 are needed")
    return boxes


def read_scores(data: bytes, path: Path, rows: int) -> Floats:
    """(rows, 2) score in [0, 1] and visible, 0 or 1. Raises ``DataError`` that names the line."""
    table = _table(data, path, rows, 2)
    good = (table[:, 0] >= 0) & (table[:, 0] <= 1) & np.isin(table[:, 1], (0, 1))
    _all_good(good, path, "is no score in 0..1 and 0 or 1")
    return table


def read_times(data: bytes, path: Path, rows: int) -> Floats:
    """(rows,) seconds, sealed by the last line. Raises ``DataError``; ``StateError`` if they were changed."""
    body = checked_times(data, path)
    seconds = _table(body, path, rows, 1)[:, 0]
    _all_good(np.isfinite(seconds) & (seconds >= 0), path, "is no time")
    return seconds


def checked_times(data: bytes, path: Path) -> bytes:
    """The lines above the seal. Raises ``StateError`` if they are not the ones that were sealed."""
    body, mark, seal = data.rpartition(b"# sha256 ")
    if (mark + seal).decode(errors="replace") != times_checksum(body) + "\n":
        raise StateError(f"{path} was changed after it was written.", hint=AGAIN)
    return body


def times_checksum(body: bytes) -> str:
    """The last line of a file of times: the sha256 of the lines above it."""
    return f"# sha256 {sha256_bytes(body)}"


def _table(data: bytes, path: Path, rows: int, columns: int) -> Floats:
    text = data.decode(errors="replace")
    lines = text.removesuffix("\n").split("\n")
    if len(lines) != rows:
        raise DataError(f"{path} has {len(lines)} lines, there were {rows} frames.", hint=AGAIN)
    try:
        table: Floats = np.loadtxt(io.StringIO(text), dtype=np.float64, delimiter=",", ndmin=2, comments=None)
        if table.shape == (rows, columns):
            return table
    except ValueError:
        pass
    number = next((n for n, line in enumerate(lines, 1) if not _is_row(line, columns)), 1)
    raise DataError(f"{path}:{number}: {lines[number - 1][:80]!r} is not {columns} numbers.", hint=AGAIN)


def _is_row(line: str, columns: int) -> bool:
    try:
        return len([float(field) for field in line.split(",")]) == columns
    except ValueError:
        return False


def _all_good(good: NDArray[np.bool_], path: Path, fault: str) -> None:
    if not good.all():
        raise DataError(f"{path}:{int(np.argmin(good)) + 1}: the row {fault}.", hint=AGAIN)


RUN_FILE = "run.json"
RUN, DONE, FAILED = "vltrack.run", "vltrack.done", "vltrack.failure"
SUFFIXES = {"boxes": ".txt", "scores": ".txt", "times": ".txt", "done": ".json", "failures": ".json"}
_LONGEST = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultIssue:
    """Something wrong in a folder of results.

    ``name`` is the sequence's, "" where it is none's; ``unfinished``: not damaged, but left behind where a
    run was broken off.
    """

    path: Path
    name: str
    message: str
    unfinished: bool = False


@dataclass(frozen=True, kw_only=True)
class StoredResults:
    """Results of one tracker on one data set in one mode, read lazily.

    Attributes:
        folder: where they lie.
        tracker: name of the weights, as the folder above is called.
        data, split: the data set.
        mode: ``nl``, ``bbox`` or ``nlbbox``.
        fingerprint: all that the results depend on (see ``evaluation.plan``).
        planned: names of all sequences that were to be run, in the data set's order.
        left_out: names of those that have no sentence and were left out on the user's wish.
        names: those of ``planned`` that are finished, in the same order.
        failures: by name, the record of a sequence that failed (``kind, message, traceback, exit_signal``).
        records: by name, the content of ``done/<seq>.json``.
    """

    folder: Path
    tracker: str
    data: str
    split: str
    mode: str
    fingerprint: dict[str, Any]
    planned: tuple[str, ...]
    left_out: tuple[str, ...]
    names: tuple[str, ...]
    failures: Mapping[str, dict[str, Any]]
    records: Mapping[str, dict[str, Any]]

    @property
    def complete(self) -> bool:
        """Whether every planned sequence has a result."""
        return len(self.names) == len(self.planned)

    def named(self, name: str) -> str:
        """What named the target in the first frame of a sequence: ``sentence``, ``box`` or ``both``."""
        return str(self.records[name]["named"])

    def statuses(self, name: str) -> dict[str, int]:
        """Frames of a sequence by status: ``ok``, ``lost``, ``missing`` (undecodable), ``invalid``."""
        return dict(self.records[name]["statuses"])

    def boxes(self, name: str) -> Floats:
        """(N, 4) float64 x, y, w, h in pixels; finite, w and h > 0. Row 1 is the tracker's own first box in
        NL mode and the start box otherwise.

        Raises:
            StateError: the file is gone or not the one that was written.
            DataError: a row is no box (file:line).
        """
        return read_boxes(self._checked("boxes", name), self._path("boxes", name), self._rows(name))

    def scores(self, name: str) -> Floats:
        """(N,) presence in [0, 1]. Raises as ``boxes``."""
        return self._score_rows(name)[:, 0]

    def visible(self, name: str) -> NDArray[np.bool_]:
        """(N,) bool: whether the tracker believed that the target was in the frame. Raises as ``boxes``."""
        seen: NDArray[np.bool_] = self._score_rows(name)[:, 1] != 0
        return seen

    def seconds(self, name: str) -> Floats:
        """(N,) seconds that the tracker took for each frame, decoding not counted. Raises as ``boxes``."""
        path = self._path("times", name)
        return read_times(_bytes(path), path, self._rows(name))

    def _rows(self, name: str) -> int:
        return int(self.records[name]["rows"])

    def _path(self, kind: str, name: str) -> Path:
        return file_of(self.folder, kind, name)

    def _score_rows(self, name: str) -> Floats:
        return read_scores(self._checked("scores", name), self._path("scores", name), self._rows(name))

    def _checked(self, kind: str, name: str) -> bytes:
        path = self._path(kind, name)
        data = _bytes(path)
        if sha256_bytes(data) != self.records[name]["sha256"][kind]:
            raise StateError(f"{path} was changed after it was written.", hint=AGAIN)
        return data


def read_results(folder: Path) -> StoredResults:
    """The results in a folder that ``evaluation.run`` wrote. Only finished sequences are among ``names``.

    The files of boxes, scores and times are read and checked when they are asked for.

    Raises:
        DataError: no folder of results, or names in it that are no names of files.
        StateError: a record in it was changed after it was written.
    """
    try:
        run = read_checksummed(folder / RUN_FILE, RUN)
    except OSError as error:
        raise DataError(
            f"{folder} holds no results of vltrack evaluate (no run.json).",
            hint="Name a folder such as OUT/litetrack-tiny/lasot_nlbbox.",
        ) from error
    planned = check_names(run["sequences"])
    records = {name: record for name in planned if (record := done_record(folder, name)) is not None}
    failures = {}
    for name in planned:
        path = file_of(folder, "failures", name)
        if name not in records and path.is_file():
            failures[name] = read_checksummed(path, FAILED)
    return StoredResults(
        folder=folder,
        tracker=run["tracker"],
        data=run["fingerprint"]["data"]["name"],
        split=run["fingerprint"]["data"]["split"],
        mode=run["fingerprint"]["mode"],
        fingerprint=run["fingerprint"],
        planned=planned,
        left_out=tuple(run["left_out"]),
        names=tuple(records),
        failures=failures,
        records=records,
    )


def done_record(folder: Path, name: str) -> dict[str, Any] | None:
    """The content of ``done/<seq>.json`` or None. Raises ``StateError`` if it was changed."""
    path = file_of(folder, "done", name)
    try:
        record = read_checksummed(path, DONE)
    except FileNotFoundError:
        return None
    if record["name"] != name:
        raise StateError(f"{path} is of sequence {record['name']!r}.", hint=AGAIN)
    return record


def is_finished(folder: Path, name: str) -> bool:
    """Whether a sequence's record is whole and fits its files of boxes and scores, and there are times."""
    try:
        record = done_record(folder, name)
        if record is None:
            return False
        files = {kind: _bytes(file_of(folder, kind, name)) for kind in ("boxes", "scores", "times")}
        checked_times(files["times"], file_of(folder, "times", name))
    except (StateError, DataError):
        return False
    return all(sha256_bytes(files[kind]) == record["sha256"][kind] for kind in ("boxes", "scores"))


def verify(folder: Path) -> list[ResultIssue]:
    """Everything in a folder of results that is not as it was written; an empty list where all is well.

    A changed bit in any file, a result without its record and a file of no sequence are findings; a sequence
    that was never finished is none (``StoredResults.complete`` tells).

    Raises:
        DataError, StateError: there is no readable ``run.json``.
    """
    run = read_checksummed(folder / RUN_FILE, RUN) if (folder / RUN_FILE).is_file() else None
    if run is None:
        raise DataError(f"{folder} holds no results of vltrack evaluate (no run.json).")
    names = check_names(run["sequences"])
    found: list[ResultIssue] = []
    for name in names:
        try:
            found += _damages(folder, name)
        except (StateError, DataError) as error:
            found.append(ResultIssue(path=file_of(folder, "done", name), name=name, message=error.message))
    for kind in SUFFIXES:
        known = {file_of(folder, kind, name) for name in names}
        for path in sorted(set((folder / kind).glob("*")) - known):
            found.append(
                ResultIssue(path=path, name="", message=f"{path} belongs to no sequence of this run.")
            )
    return found


def _damages(folder: Path, name: str) -> list[ResultIssue]:
    """What is wrong with the files of one sequence. Raises ``StateError`` if its record itself is damaged."""
    record = done_record(folder, name)
    paths = {kind: file_of(folder, kind, name) for kind in ("boxes", "scores", "times")}
    if record is None:
        failure = file_of(folder, "failures", name)
        if failure.is_file():
            read_checksummed(failure, FAILED)
        return [
            ResultIssue(
                path=path,
                name=name,
                message=f"{path} has no record in done/ and does not count.",
                unfinished=True,
            )
            for path in paths.values()
            if path.is_file()
        ]
    readers = {"boxes": read_boxes, "scores": read_scores, "times": read_times}
    found = []
    for kind, path in paths.items():
        try:
            data = _bytes(path)
            readers[kind](data, path, record["rows"])
            if kind != "times" and sha256_bytes(data) != record["sha256"][kind]:
                raise StateError(f"{path} was changed after it was written.")
        except (StateError, DataError) as error:
            found.append(ResultIssue(path=path, name=name, message=error.message))
    return found


def label_of(data: str, split: str, place: str) -> str:
    """What folders of results are called after: the data set, its split where that is not the usual one; for
    clips of one's own the folder ``place`` that they lie in.
    """
    name = place if data == "folder" and place else data
    return name if split in ("test", "all") else f"{name}-{split}"


def file_of(folder: Path, kind: str, name: str) -> Path:
    """Where one kind of file of a sequence lies; ``name`` has passed ``check_names``."""
    return folder / kind / (name + SUFFIXES[kind])


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names, if each can be a file's name on every system and no two are the same there (FAULTS.md D10).

    Raises:
        DataError: lists the names that cannot.
    """
    names = tuple(names)
    bad = [name for name in names if not _is_file_name(name)]
    if bad:
        said = ", ".join(repr(name[:80]) for name in bad[:10])
        raise DataError(
            f"{len(bad)} of {len(names)} names cannot be names of files: {said}.",
            hint="No / \\ : .. or control characters, no dot in front, at most 200 bytes.",
        )
    seen: dict[str, str] = {}
    for name in names:
        plain = unicodedata.normalize("NFC", name).casefold()
        if plain in seen:
            raise DataError(
                f"the names {seen[plain]!r} and {name!r} would be one file on some systems.",
                hint="Rename one of the sequences.",
            )
        seen[plain] = name
    return names


def _is_file_name(name: str) -> bool:
    return (
        name.isprintable()
        and name == name.strip()
        and 0 < len(name.encode(errors="replace")) <= _LONGEST
        and not re.search(r'[/\\:<>"|?*]|\.\.|^\.|\.$', name)
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StateError(f"{path} cannot be read ({error.strerror}).", hint=AGAIN) from error


# MERGED evaluation/results.py
# Results at a path, whoever wrote them: our own runs or other people's files. Knows which is which.


def open_results(path: Path) -> TrackerResults:
    """The results of one tracker in one mode.

    Raises:
        DataError: nothing there that is known, or a file that does not read.
        StateError: a file of ours was changed after it was written.
    """
    if (path / RUN_FILE).is_file():
        return results_of_run(read_results(path))
    runs = sorted(run.parent for depth in ("*", "*/*") for run in path.glob(f"{depth}/{RUN_FILE}"))
    if runs:
        named = ", ".join(str(run) for run in runs[:3])
        raise DataError(f"{path} holds folders of results: {named}.", hint="Name one of them.")
    return read_third_party(path)


def results_of_run(stored: StoredResults) -> TrackerResults:
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
    return TrackerResults(
        tracker=stored.tracker,
        mode=stored.mode,
        boxes={name: stored.boxes(name) for name in stored.names},
        seconds={name: stored.seconds(name) for name in stored.names},
        nothing=nothing,
        left_out=stored.left_out,
        notes=tuple(notes),
    )
