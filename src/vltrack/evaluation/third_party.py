"""Read results that other people's code wrote: boxes of one tracker by sequence.

Accepted are

- a folder with one text file per sequence (OTB, LaSOT, TNL2K, pytracking, TrackingNet: ``airplane-1.txt``),
  numbers between commas, tabs or spaces; ``airplane-1_time.txt`` next to it holds seconds per frame;
- a folder with one folder per sequence (GOT-10k: ``GOT-10k_Val_000001/GOT-10k_Val_000001_001.txt``);
- a folder with one table per sequence (``airplane-1.csv``), with or without a header; a column "frame" says which
  frame a row is of, as in the tracks that ``vltrack track`` writes;
- a zip of any of these (a submission);
- ``.npz`` with ``names``, ``lens`` and ``boxes`` (all frames one after the other);
- a folder with one JSON file per sequence: a track, or OTB's own form (``[{"res": [[x, y, w, h], ...]}]``).

Other files next to them (scores, logs, what macOS adds to a zip) are passed over; a file that cannot be read is an
error where it has the name of a sequence.

Boxes stay as they are written: rounding, shifting and repairing is up to the protocols (``vltrack.metrics``).
A row that is empty, or the single number 0, means "absent" (WebUAV-3M): NaN.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vltrack.core.archives import ZIP_DAMAGE, open_zip, read_member, read_npz
from vltrack.core.errors import DataError
from vltrack.core.files import open_limited
from vltrack.core.json_io import read_json
from vltrack.core.track import FORMAT as TRACK
from vltrack.core.track import Track
from vltrack.core.types import Floats
from vltrack.datasets.parsing import MAX_BYTES, parse_boxes, parse_table, read_bytes
from vltrack.metrics.scoring import NO_ROW

SCORES = "scores.json"
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
        boxes: (N, 4) xywh by sequence, as written; NaN where the tracker reported "absent", ``NO_ROW`` for a frame
            without a row.
        seconds: (N,) seconds per frame by sequence, where they are known.
        not_found: sequences in which the text found no target to start with: a miss in every frame.
        left_out: sequences that were not to be run, because they have no sentence.
        passed_over: files that are not results of a sequence.
        unreadable: by name, the error of a file that cannot be read.
        notes: remarkable facts of what was read, for the reader of the scores.
    """

    tracker: str
    boxes: Mapping[str, Floats]
    mode: str = ""
    seconds: Mapping[str, Floats] = field(default_factory=dict)
    not_found: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    unreadable: Mapping[str, DataError] = field(default_factory=dict)


def read_third_party(path: Path, names: Collection[str] = ()) -> TrackerResults:
    """Read the results at ``path``; a file called as one of the sequences ``names`` is its result.

    Raises:
        DataError: nothing there in a known format, or a file that cannot be parsed (file and line are named).
    """
    name = path.resolve().name
    if path.suffix.lower() == ".npz" and path.is_file():
        return TrackerResults(tracker=path.stem, boxes=_read_npz(path))
    if path.suffix.lower() == ".zip" and path.is_file():
        return _read_files(path.stem, _unzip(path), names)
    if path.is_dir():
        files = [file for depth in ("*", "*/*") for file in path.glob(depth) if _is_table(file) and file.is_file()]
        if files:
            named = ((file.relative_to(path).as_posix(), read_bytes(file)) for file in sorted(files, key=_depth))
            return _read_files(name, named, names, str(path))
        lists = sorted(file for file in path.glob("*.json") if not file.name.startswith("._"))
        lists = [file for file in lists if file.name != SCORES or file.stem in names]
        if lists:
            return TrackerResults(tracker=name, boxes={file.stem: _read_json(file) for file in lists})
    if (path / SCORES).is_file():
        hint = "Name the folder of the tracker's boxes; vltrack report takes the scores."
        raise DataError(f"{path} holds scores, not boxes.", hint=hint)
    raise _no_results(str(path))


def _depth(path: Path) -> tuple[int, Path]:
    return len(path.parts), path


_MOST_FRAMES = 1 << 23


def _is_table(path: PurePath) -> bool:
    return path.suffix.lower() in (".txt", ".csv") and not path.name.startswith("._") and "__MACOSX" not in path.parts


def _no_results(where: str) -> DataError:
    return DataError(f"No tracking results found in {where}.", hint=_FORMS)


_SIDE = re.compile(
    r"(.+)_(time|times|confidence|conf|prob|(all_|object_presence_)?scores?|all_boxes|fps|attribute)", re.IGNORECASE
)
"""Names of what toolkits write next to the boxes of a sequence."""


def _read_files(
    tracker: str, files: Iterable[tuple[str, bytes]], names: Collection[str], folder: str = ""
) -> TrackerResults:
    """Results from tables by their path inside the folder or archive."""
    boxes: dict[str, Floats] = {}
    seconds: dict[str, Floats] = {}
    runs: dict[str, int] = {}
    unreadable: dict[str, DataError] = {}
    passed_over = []
    for path, data in files:
        inside = PurePosixPath(path)
        repetition = re.match(r"(.+)_\d{3}$", inside.stem) if inside.parent.name else None
        name = inside.stem
        where = f"{folder}/{path}" if folder else f"{tracker}.zip:{path}"
        side = None if name in names else _SIDE.fullmatch(name)
        if repetition and repetition[1] == inside.parent.name:
            name = repetition[1]
            runs[name] = runs.get(name, 0) + 1
            if name in boxes:
                continue
        elif side or (folder and inside.parent.name and boxes):
            passed_over.append(path)
            if side and side[2] in ("time", "times"):
                passed_over.pop()
                seconds[side[1]] = _seconds(data, where)
            continue
        elif folder and inside.parent.name:
            raise DataError(
                f"{folder} holds several folders of results, such as {inside.parent}.",
                hint="Name one tracker's folder.",
            )
        if name in boxes:
            raise DataError(f"{where}: a second result for {name}.", hint="Keep one of them.")
        try:
            boxes[name] = _read_table(data, where)
        except DataError as error:
            passed_over.append(path)
            unreadable[name] = error
    if not boxes:
        raise next(iter(unreadable.values()), _no_results(folder or tracker))
    most = max(runs.values(), default=1)
    notes = (f"{most} runs per sequence; the first one is scored.",) if most > 1 else ()
    return TrackerResults(
        tracker=tracker,
        boxes=boxes,
        seconds=seconds,
        notes=notes,
        passed_over=tuple(passed_over),
        unreadable=unreadable,
    )


def _seconds(data: bytes, where: str) -> Floats:
    return parse_table(data, where, (0,))[:, 0] if data.strip() else np.zeros(0)


def _read_table(data: bytes, where: str) -> Floats:
    """(N, 4) boxes by rows, or by the column "frame" of a table. Raises ``DataError``."""
    head = data[:256].partition(b"\n")[0]
    try:
        return read_boxes(data, where)
    except DataError:
        if not where.lower().endswith(".csv") and not re.search(rb"[A-Za-z;#\xfe]", head):
            raise
    table = parse_boxes(data, where)
    boxes, frames = table.boxes, table.frames
    if not table.form:  # a box is scored even if a named column says that the tracker was not sure
        boxes[table.lost] = np.nan
    first = 0 if data.startswith(f"# {TRACK} ".encode()) else 1
    if frames is None or (first and frames[0] in (0, 1) and frames[-1] - frames[0] + 1 == len(frames)):
        return boxes
    if first and frames[0] > 1:
        said = f"{where}: the frame numbers begin at {frames[0]}, and may count from 0 or from 1."
        raise DataError(said, hint="Write a row for every frame.")
    return _placed(boxes, frames - min(first, int(frames[0])), where)


def _placed(boxes: Floats, frames: NDArray[np.int64], where: object) -> Floats:
    """(N, 4) boxes at their frames, counted from 0."""
    if len(frames) and frames[-1] >= _MOST_FRAMES:
        raise DataError(f"{where}: frame {frames[-1]:,} is beyond the limit of {_MOST_FRAMES:,}.", hint=_FORMS)
    if not len(frames):
        return boxes
    placed = np.full((int(frames[-1]) + 1, 4), NO_ROW)
    placed[frames] = boxes
    return placed


def read_boxes(data: bytes, where: str) -> Floats:
    """(N, 4) boxes of one result file. Raises ``DataError`` with ``where``, line and column."""
    lines = data.decode("utf-8", "replace").removesuffix("\n").split("\n")
    absent = [line.strip(" \t\r") in ("", "0") for line in lines]
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
    """Yield the tables of an archive; nothing is unpacked to disk."""
    try:
        with open_limited(path, MAX_BYTES) as file, open_zip(file) as archive:
            members = [(member, member.filename.replace("\\", "/")) for member in archive.infolist()]  # Windows' zips
            members = [(member, name) for member, name in members if _is_table(PurePosixPath(name))]
            total = sum(member.file_size for member, _ in members)
            packed = sum(member.compress_size for member, _ in members)
            if total > 1 << 30 or total > 100 * max(packed, 1 << 20):
                raise DataError(f"{path} unpacks to {total:,} bytes. That is not a submission.")
            for member, name in sorted(members, key=lambda member: member[1]):
                inside = PurePosixPath(name)
                if inside.is_absolute() or ".." in inside.parts or ":" in inside.parts[0]:
                    raise DataError(f"{path} holds {member.filename!r}, a path outside of it.")
                yield name, read_member(archive, member)
    except ZIP_DAMAGE as error:
        raise DataError(f"Cannot read {path} as a zip: {error}.") from error


def _read_npz(path: Path) -> dict[str, Floats]:
    try:
        arrays = read_npz(path, MAX_BYTES)
        names, lens, boxes = (arrays[key] for key in ("names", "lens", "boxes"))
    except (KeyError, *ZIP_DAMAGE) as error:
        raise DataError(f"No names, lens and boxes in {path}: {error}.", hint=_FORMS) from error
    lengths = np.asarray(lens).astype(np.int64)
    if boxes.shape != (lengths.sum(), 4) or len(names) != len(lengths):
        said = f"{path}: boxes of shape {list(boxes.shape)} for {len(names)} names and {lengths.sum()} frames in lens"
        raise DataError(f"{said}; [{lengths.sum()}, 4] are needed.", hint=_FORMS)
    keys = [str(name) for name in names]
    if twice := [key for key, count in Counter(keys).items() if count > 1]:
        raise DataError(f"{path}: duplicate sequence name {twice[0]!r}.")
    rows, ends = np.asarray(boxes, dtype=np.float64), np.cumsum(lengths)
    return {key: rows[end - count : end] for key, count, end in zip(keys, lengths, ends, strict=True)}


def _read_json(path: Path) -> Floats:
    """(N, 4) boxes of OTB's own form, or of a track of ``vltrack track``."""
    data = read_json(path)
    entry = data[0] if isinstance(data, list) and data else data
    if isinstance(entry, dict) and entry.get("format") == TRACK:
        track = Track.load(path)
        return _placed(track.boxes, track.indices, path)
    rows = entry.get("res") if isinstance(entry, dict) else None
    try:
        boxes = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: 'res' is not a list of boxes.", hint=_FORMS) from error
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"{path}: 'res' has shape {boxes.shape}, not (frames, 4).", hint=_FORMS)
    return boxes


# -- names of sequences -------------------------------------------------------------------------------------

_PREFIXES = {
    "uav123": ("uav", "uav123"), "uav123_10fps": ("uav", "uav123"), "nfs": ("nfs",), "lasot": ("lasot",),
    "lasot_ext": ("lasot_ext", "lasotext", "lasot"), "tnl2k": ("tnl2k",), "otb100": ("otb", "otb100"),
    "otb99": ("otb99", "otb_lang", "otb"), "dtb70": ("dtb70", "dtb"), "vasttrack": ("vasttrack",),
    "webuav3m": ("webuav3m",),
}  # fmt: skip
"""pytracking and its family put these before the names of a data set, as in ``uav_bike1``."""
_SAME = {"human4": "human42", "skating2": "skating21", "skating3": "skating22", "jogging": "jogging1"}
"""OTB's targets that share a video: their names in the packed release of OTB99-Lang, and in OTB."""


def match_names(names: Iterable[str], results: Iterable[str], data: str = "") -> dict[str, str]:
    """For each of ``names`` that has a result, its name among ``results``; toolkits spell names differently.

    A name with the prefix of the data set ``data`` comes first, as folders hold results of several; then the same
    name; then the same letters and digits, whatever their case and punctuation; then OTB's other names. Names with the
    prefix of another data set count only where ``data`` has none. If none matches, what all results begin with up to a
    "_", or end in from a "_" on, such as their tracker's name, is dropped.

    Raises:
        DataError: two results match one name equally well.
    """
    wanted, there = list(names), list(results)
    found = _match(wanted, {name: name for name in there}, data)
    cuts = [slice(k, None) for k in _shared(there, 1)] + [slice(-k) for k in _shared(there, -1)]
    for cut in cuts:
        found = found or _match(wanted, {name: name[cut] for name in there}, data)
    return found


def _shared(names: list[str], step: Literal[1, -1]) -> list[int]:
    """Lengths of what all names begin with up to a "_" (``step`` 1), or end in from a "_" on (-1)."""
    turned = [name[::step] for name in names]
    some = [match.end() for match in re.finditer("_", turned[0])] if len(names) > 1 else []
    return [k for k in some if k < min(map(len, turned)) and len({name[:k] for name in turned}) == 1]


def _match(wanted: list[str], texts: Mapping[str, str], data: str) -> dict[str, str]:
    """Match by the ``texts`` of the results, from the closest spelling to the loosest."""
    own = _PREFIXES.get(data, ())
    mine = _without_prefix(texts, own)
    others = {} if own else _without_prefix(texts, tuple(one for some in _PREFIXES.values() for one in some))
    found: dict[str, str] = {}
    taken: set[str] = set()
    for some, key in (
        (mine, str), (mine, str.casefold), (texts, str), (texts, str.casefold), (mine, _bare), (texts, _bare),
        ({**texts, **mine}, _official), (others, _bare),
    ):  # fmt: skip
        by_key: dict[str, list[str]] = {}
        for result, text in some.items():
            if result not in taken:
                by_key.setdefault(key(text), []).append(result)
        for name in wanted:
            fits = by_key.get(key(name), []) if name not in found else []
            if len(fits) > 1:
                raise DataError(
                    f"The results {fits[0]} and {fits[1]} both match the sequence {name}.",
                    hint=f"Rename the right one to {name}.",
                )
            if fits and fits[0] not in taken:
                found[name] = fits[0]
                taken.add(fits[0])
    return found


def _without_prefix(texts: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, str]:
    """Return the texts that begin with one of the prefixes, without it."""
    pattern = re.compile(rf"({'|'.join(sorted(prefixes, key=len, reverse=True)) or '(?!)'})[_-]", re.IGNORECASE)
    return {name: text[match.end() :] for name, text in texts.items() if (match := pattern.match(text))}


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _official(name: str) -> str:
    return _SAME.get(_bare(name), _bare(name))
