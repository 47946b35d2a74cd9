"""Read results that other people's code wrote: boxes of one tracker by sequence.

Accepted are

- a folder with one text file per sequence (OTB, LaSOT, TNL2K, pytracking, TrackingNet: ``airplane-1.txt``),
  numbers between commas, tabs or spaces; ``airplane-1_time.txt`` next to it holds seconds per frame;
- a folder with one folder per sequence (GOT-10k: ``GOT-10k_Val_000001/GOT-10k_Val_000001_001.txt``);
- a zip of either (a submission);
- ``.npz`` with ``names``, ``lens`` and ``boxes`` (all frames one after the other);
- a folder with one JSON file per sequence in OTB's own form (``[{"res": [[x, y, w, h], ...]}]``);
- a folder with one track per sequence that ``vltrack track`` wrote (``airplane-1.csv``).

Boxes stay as they are written: rounding, shifting and repairing is up to the protocols (``vltrack.metrics``).
A row that is empty, or the single number 0, means "absent" (WebUAV-3M): NaN.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from vltrack.core.errors import DataError
from vltrack.core.files import ZIP_DAMAGE
from vltrack.core.json_io import read_json
from vltrack.core.track import Track
from vltrack.core.types import Floats
from vltrack.datasets.parsing import parse_table, read_bytes

_FORMS = (
    "Give a folder with one text file per sequence (x,y,w,h per row), GOT-10k's folders, a zip of them, or an"
    " .npz with names, lens and boxes."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerResults:
    """One tracker's boxes.

    Attributes:
        tracker: name of the tracker: that of the folder or file.
        mode: "nl", "bbox" or "nlbbox" where it is known, else "".
        boxes: (N, 4) xywh by sequence, as written; NaN where the tracker reported "absent".
        seconds: (N,) seconds per frame by sequence, where they are known.
        not_found: sequences in which the text found no target to start with: a miss in every frame.
        left_out: sequences that were not to be run, because they have no sentence.
        notes: remarkable facts of what was read, for the reader of the scores.
    """

    tracker: str
    boxes: Mapping[str, Floats]
    mode: str = ""
    seconds: Mapping[str, Floats] = field(default_factory=dict)
    not_found: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_third_party(path: Path) -> TrackerResults:
    """Read the results at ``path``.

    Raises:
        DataError: nothing there in a known format, or a file that cannot be parsed (file and line are named).
    """
    name = path.resolve().name
    if path.suffix.lower() == ".npz" and path.is_file():
        return TrackerResults(tracker=path.stem, boxes=_read_npz(path))
    if path.suffix.lower() == ".zip" and path.is_file():
        return _read_texts(path.stem, _unzip(path))
    if path.is_dir():
        tracks = {file.stem: file for file in sorted(path.glob("*.csv"))}
        if tracks:
            return TrackerResults(tracker=name, boxes={key: Track.load(file).boxes for key, file in tracks.items()})
        texts = sorted({*path.glob("*.txt"), *path.glob("*/*.txt")})
        if texts:
            named = ((file.relative_to(path).as_posix(), read_bytes(file)) for file in texts)
            return _read_texts(name, named, str(path))
        lists = sorted(path.glob("*.json"))
        if lists:
            return TrackerResults(tracker=name, boxes={file.stem: _read_otb_json(file) for file in lists})
    raise _no_results(str(path))


def _no_results(where: str) -> DataError:
    return DataError(f"No tracking results found in {where}.", hint=_FORMS)


def _read_texts(tracker: str, files: Iterable[tuple[str, bytes]], folder: str = "") -> TrackerResults:
    """Results from text files by their path inside the folder or archive."""
    boxes: dict[str, Floats] = {}
    seconds: dict[str, Floats] = {}
    runs: dict[str, int] = {}
    for path, data in files:
        inside = PurePosixPath(path)
        repetition = re.match(r"(.+)_\d{3}$", inside.stem) if inside.parent.name else None
        name = inside.stem
        where = f"{folder}/{path}" if folder else f"{tracker}.zip:{path}"
        if repetition and repetition[1] == inside.parent.name:
            name = repetition[1]
            runs[name] = runs.get(name, 0) + 1
            if name in boxes:
                continue
        elif re.search(r"_(time|times|confidence|conf|scores?|fps|attribute)$", name):
            if name.endswith("_time") and data.strip():
                seconds[name.removesuffix("_time")] = parse_table(data, where, (0,))[:, 0]
            continue
        elif folder and inside.parent.name:
            raise DataError(
                f"{folder} holds several folders of results, such as {inside.parent}.",
                hint="Name one tracker's folder.",
            )
        if name in boxes:
            raise DataError(f"{where}: a second result for {name}.", hint="Keep one of them.")
        boxes[name] = read_boxes(data, where)
    if not boxes:
        raise _no_results(folder or tracker)
    most = max(runs.values(), default=1)
    notes = (f"{most} runs per sequence; the first one is scored.",) if most > 1 else ()
    return TrackerResults(tracker=tracker, boxes=boxes, seconds=seconds, notes=notes)


def read_boxes(data: bytes, where: str) -> Floats:
    """(N, 4) boxes of one result file. Raises ``DataError`` with ``where``, line and column."""
    lines = data.decode("utf-8", "replace").removesuffix("\n").split("\n")
    absent = [bool(re.fullmatch(r"[ \t]*0?[ \t]*\r?", line)) for line in lines]
    if not any(absent):
        return parse_table(data, where)
    if all(absent):
        raise DataError(f"No box in any row of {where}.", hint="Run the tracker on it again.")
    # Absent rows are read as boxes of zeros and then set to NaN, so that line numbers in errors stay right.
    rows = ("0 0 0 0" if gone else line for line, gone in zip(lines, absent, strict=True))
    boxes = parse_table("\n".join(rows).encode(), where)
    boxes[absent] = np.nan
    return boxes


def _unzip(path: Path) -> Iterable[tuple[str, bytes]]:
    """Yield the text files of an archive; nothing is unpacked to disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".txt")]
            total = sum(member.file_size for member in members)
            packed = sum(member.compress_size for member in members)
            if total > 1 << 30 or total > 100 * max(packed, 1 << 20):
                raise DataError(f"{path} unpacks to {total:,} bytes. That is not a submission.")
            for member in sorted(members, key=lambda member: member.filename):
                inside = PurePosixPath(member.filename)
                if inside.is_absolute() or ".." in inside.parts:
                    raise DataError(f"{path} holds {member.filename!r}, a path outside of it.")
                yield member.filename, archive.read(member)
    except ZIP_DAMAGE as error:
        raise DataError(f"Cannot read {path} as a zip: {error}.") from error


def _read_npz(path: Path) -> dict[str, Floats]:
    try:
        with np.load(path, allow_pickle=False) as file:
            names, lens, boxes = (file[key] for key in ("names", "lens", "boxes"))
    except (ValueError, KeyError, *ZIP_DAMAGE) as error:
        raise DataError(f"No names, lens and boxes in {path}: {error}.", hint=_FORMS) from error
    lengths = np.asarray(lens).astype(np.int64)
    if boxes.shape != (lengths.sum(), 4) or len(names) != len(lengths):
        raise DataError(f"{path}: {boxes.shape} boxes for {len(names)} names and {lengths.sum()} frames.")
    keys = [str(name) for name in names]
    for key in keys:
        if keys.count(key) > 1:
            raise DataError(f"{path}: duplicate sequence name {key!r}.")
    rows, ends = np.asarray(boxes, dtype=np.float64), np.cumsum(lengths)
    return {key: rows[end - count : end] for key, count, end in zip(keys, lengths, ends, strict=True)}


def _read_otb_json(path: Path) -> Floats:
    data = read_json(path)
    entry = data[0] if isinstance(data, list) and data else data
    rows = entry.get("res") if isinstance(entry, dict) else None
    try:
        boxes = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: 'res' is not a list of boxes.", hint=_FORMS) from error
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"{path}: 'res' has shape {boxes.shape}, not (frames, 4).", hint=_FORMS)
    return boxes


# -- names of sequences -------------------------------------------------------------------------------------

_PREFIXES = ("uav", "nfs", "lasot", "tnl2k", "otb")
"""pytracking puts these before a name, as in ``uav_bike1``."""
_SAME = {"human4": "human42", "skating2": "skating21", "skating3": "skating22", "jogging": "jogging1"}
"""OTB's targets that share a video: their names in the packed release of OTB99-Lang, and in OTB."""


def match_names(names: Iterable[str], results: Iterable[str]) -> dict[str, str]:
    """For each of ``names`` that has a result, its name among ``results``; toolkits spell names differently.

    The same name comes first; then the same letters and digits, whatever their case and punctuation; with or
    without a data set's prefix; then OTB's other names. If none matches, what all results end in from a "_"
    on, such as their tracker's name, is dropped.

    Raises:
        DataError: two results match one name equally well.
    """
    wanted, there = list(names), list(results)
    found = _match(wanted, there)
    ending = _shared_ending(there)
    if found or not ending:
        return found
    whole = {result.removesuffix(ending): result for result in there}
    return {name: whole[short] for name, short in _match(wanted, list(whole)).items()}


def _shared_ending(results: list[str]) -> str:
    """Common ending of all names, from a "_" on; "" if nothing, or for a single name."""
    if len(results) < 2:
        return ""
    endings = ("_" + "_".join(results[0].split("_")[k:]) for k in range(1, results[0].count("_") + 1))
    return next((ending for ending in endings if all(name.endswith(ending) for name in results)), "")


def _match(wanted: list[str], there: list[str]) -> dict[str, str]:
    exact = set(there)
    by_key: dict[str, list[str]] = {}
    for result in there:
        for key in _keys(result):
            by_key.setdefault(key, []).append(result)
    found: dict[str, str] = {}
    taken = exact & set(wanted)
    for name in wanted:
        if name in exact:
            found[name] = name
            continue
        fits = sorted({fit for key in _keys(name) for fit in by_key.get(key, ())} - taken)
        if len(fits) > 1:
            raise DataError(
                f"The results {fits[0]} and {fits[1]} both match the sequence {name}.",
                hint=f"Rename the right one to {name}.",
            )
        if fits:
            found[name] = fits[0]
    return found


def _keys(name: str) -> set[str]:
    bare = re.sub(r"[\W_]+", "", name).casefold()
    keys = {bare, _SAME.get(bare, bare)}
    for prefix in _PREFIXES:
        if re.match(rf"{prefix}[_-]", name.casefold()):
            keys.add(bare.removeprefix(prefix))
    return keys
