"""Results that other people's code wrote: boxes of one tracker by sequence. Knows files, scores nothing.

Read are

- a folder with a text file a sequence (OTB, LaSOT, TNL2K, pytracking, TrackingNet: ``airplane-1.txt``),
  numbers between commas, tabs or spaces; ``airplane-1_time.txt`` beside it holds seconds a frame;
- a folder with a folder a sequence (GOT-10k: ``GOT-10k_Val_000001/GOT-10k_Val_000001_001.txt``);
- a zip of either (a submission);
- ``.npz`` with ``names``, ``lens`` and ``boxes`` (all frames one after the other);
- a folder with a JSON file a sequence as OTB keeps its own (``[{"res": [[x, y, w, h], ...]}]``);
- a folder with a track a sequence that ``vltrack track`` wrote (``airplane-1.csv``).

Boxes stay as they are written: nothing is rounded, shifted, repaired or cut here; that is the rules' matter
(``vltrack.metrics``). A row that is empty, or the single number 0, says "absent" (WebUAV-3M): NaN.
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

MAX_TABLE_BYTES = 1 << 30
_BESIDE = re.compile(r"_(time|times|confidence|conf|scores?|fps|attribute)$")
_REPEAT = re.compile(r"(?P<name>.+)_(?P<run>\d{3})$")
_SAYS_ABSENT = re.compile(r"[ \t]*0?[ \t]*\r?")
_FORMS = (
    "Give a folder with one text file a sequence (x,y,w,h a row), GOT-10k's folders, a zip of them, or an"
    " .npz with names, lens and boxes."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerResults:
    """One tracker's boxes.

    Attributes:
        tracker: what it is called: the name of the folder or file.
        mode: "nl", "bbox" or "nlbbox" where it is known, else "".
        boxes: (N, 4) xywh by sequence, as written; NaN where the tracker said "absent".
        seconds: (N,) seconds a frame by sequence, where they are known.
        nothing: sequences in which the words found nothing to start with: a miss in every frame.
        left_out: sequences that were not to be run, because they have no sentence.
        notes: what a reader should know of what was read.
    """

    tracker: str
    boxes: Mapping[str, Floats]
    mode: str = ""
    seconds: Mapping[str, Floats] = field(default_factory=dict)
    nothing: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_third_party(path: Path) -> TrackerResults:
    """The results at ``path``.

    Raises:
        DataError: nothing there that is known, or a file that does not read; names file and line.
    """
    if path.suffix.lower() == ".npz" and path.is_file():
        return TrackerResults(tracker=path.stem, boxes=_read_npz(path))
    if path.suffix.lower() == ".zip" and path.is_file():
        return _of_texts(path.stem, _zipped(path))
    if not path.is_dir():
        raise DataError(f"{path}: there are no results here.", hint=_FORMS)
    tracks = {file.stem: file for file in sorted(path.glob("*.csv"))}
    if tracks:
        return TrackerResults(
            tracker=path.resolve().name, boxes={name: Track.load(file).boxes for name, file in tracks.items()}
        )
    lists = {file.stem: file for file in sorted(path.glob("*.json"))}
    texts = sorted({*path.glob("*.txt"), *path.glob("*/*.txt")})
    if lists and not texts:
        boxes = {name: _read_otb_json(file) for name, file in lists.items()}
        return TrackerResults(tracker=path.resolve().name, boxes=boxes)
    if not texts:
        raise DataError(f"{path}: there are no results here.", hint=_FORMS)
    named = ((file.relative_to(path).as_posix(), read_bytes(file)) for file in texts)
    return _of_texts(path.resolve().name, named, str(path))


def _of_texts(tracker: str, files: Iterable[tuple[str, bytes]], where: str = "") -> TrackerResults:
    """Results from text files by their path inside the folder or archive."""
    boxes: dict[str, Floats] = {}
    seconds: dict[str, Floats] = {}
    runs: dict[str, int] = {}
    for path, data in files:
        inside = PurePosixPath(path)
        repeat = _REPEAT.match(inside.stem) if inside.parent.name else None
        name = inside.stem
        spot = f"{where}/{path}" if where else f"{tracker}.zip:{path}"
        if repeat and repeat["name"] == inside.parent.name:
            name = repeat["name"]
            runs[name] = runs.get(name, 0) + 1
            if name in boxes:
                continue
        elif _BESIDE.search(name):
            if name.endswith("_time") and data.strip():
                seconds[name.removesuffix("_time")] = parse_table(data, spot, (0,))[:, 0]
            continue
        elif where and inside.parent.name:
            raise DataError(
                f"{where} holds folders of results, such as {inside.parent}.",
                hint="Name one tracker's folder.",
            )
        if name in boxes:
            raise DataError(f"{spot}: there are two results for {name}.", hint="Keep one of them.")
        boxes[name] = read_boxes(data, spot)
    if not boxes:
        raise DataError(f"{where or tracker}: there are no results here.", hint=_FORMS)
    most = max(runs.values(), default=1)
    notes = (f"{most} runs a sequence; the first one is scored.",) if most > 1 else ()
    return TrackerResults(tracker=tracker, boxes=boxes, seconds=seconds, notes=notes)


def read_boxes(data: bytes, where: str) -> Floats:
    """(N, 4) boxes of one result file. Raises ``DataError`` that names ``where``, line and column."""
    lines = data.decode("utf-8", "replace").removesuffix("\n").split("\n")
    silent = [number for number, line in enumerate(lines) if _SAYS_ABSENT.fullmatch(line)]
    if not silent:
        return parse_table(data, where)
    if len(silent) == len(lines):
        raise DataError(f"{where} has no box in any row.", hint="Run the tracker on it again.")
    kept = np.ones(len(lines), dtype=bool)
    kept[silent] = False
    # Numbers of lines in errors stay right: what is silent is read as a box of zeros and then blanked.
    filled = "\n".join(line if keep else "0 0 0 0" for line, keep in zip(lines, kept, strict=True))
    boxes = parse_table(filled.encode(), where)
    boxes[~kept] = np.nan
    return boxes


def _zipped(path: Path) -> Iterable[tuple[str, bytes]]:
    """The text files of an archive; nothing is unpacked to disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".txt")]
            total = sum(member.file_size for member in members)
            packed = sum(member.compress_size for member in members)
            if total > MAX_TABLE_BYTES or total > 100 * max(packed, 1 << 20):
                raise DataError(f"{path} unpacks to {total:,} bytes; that is no submission.")
            for member in sorted(members, key=lambda member: member.filename):
                inside = PurePosixPath(member.filename)
                if inside.is_absolute() or ".." in inside.parts:
                    raise DataError(f"{path} holds {member.filename!r}, which leads out of it.")
                yield member.filename, archive.read(member)
    except ZIP_DAMAGE as error:
        raise DataError(f"{path} cannot be read as a zip: {error}.") from error


def _read_npz(path: Path) -> dict[str, Floats]:
    try:
        with np.load(path, allow_pickle=False) as file:
            names, lens, boxes = (file[key] for key in ("names", "lens", "boxes"))
    except (ValueError, KeyError, *ZIP_DAMAGE) as error:
        raise DataError(f"{path} has no names, lens and boxes: {error}.", hint=_FORMS) from error
    lengths = np.asarray(lens).astype(np.int64)
    if boxes.shape != (lengths.sum(), 4) or len(names) != len(lengths):
        raise DataError(f"{path}: {boxes.shape} boxes for {len(names)} names and {lengths.sum()} frames.")
    if len({str(name) for name in names}) < len(names):
        raise DataError(f"{path}: a name stands twice in it.")
    ends = np.cumsum(lengths)
    return {
        str(name): np.asarray(boxes[end - count : end], dtype=np.float64)
        for name, count, end in zip(names, lengths, ends, strict=True)
    }


def _read_otb_json(path: Path) -> Floats:
    data = read_json(path)
    entry = data[0] if isinstance(data, list) and data else data
    rows = entry.get("res") if isinstance(entry, dict) else None
    try:
        boxes = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: its 'res' is no list of boxes.", hint=_FORMS) from error
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"{path}: its 'res' has shape {boxes.shape}, not (frames, 4).", hint=_FORMS)
    return boxes


# MERGED evaluation/third_party.py
# Which result belongs to which sequence, where toolkits spell names differently. Knows names only.


_PREFIXES = ("uav", "nfs", "lasot", "tnl2k", "otb")
"""pytracking puts these before a name, as in ``uav_bike1``."""
_SAME = {"human4": "human42", "skating2": "skating21", "skating3": "skating22", "jogging": "jogging1"}
"""OTB's targets that share a video, as the packed release of OTB99-Lang calls them, and as OTB does."""


def match_names(names: Iterable[str], results: Iterable[str]) -> dict[str, str]:
    """For each of ``names`` that has one, its name among ``results``.

    The same name first; else the same letters and digits, whatever their case and the signs between them;
    with or without a data set's prefix; else OTB's other names. Where none fits, what all results end in from
    a "_" on, such as their tracker's name, is left away.

    Raises:
        DataError: two results fit one name equally well.
    """
    wanted, there = list(names), list(results)
    found = _matched(wanted, there)
    ending = _shared_ending(there)
    if found or not ending:
        return found
    whole = {result.removesuffix(ending): result for result in there}
    return {name: whole[short] for name, short in _matched(wanted, list(whole)).items()}


def _shared_ending(results: list[str]) -> str:
    """What all names end in, from a "_" on; "" where there is nothing or one name only."""
    if len(results) < 2:
        return ""
    endings = ("_" + "_".join(results[0].split("_")[k:]) for k in range(1, results[0].count("_") + 1))
    return next((ending for ending in endings if all(name.endswith(ending) for name in results)), "")


def _matched(wanted: list[str], there: list[str]) -> dict[str, str]:
    exact = set(there)
    plain: dict[str, list[str]] = {}
    for result in there:
        for key in _keys(result):
            plain.setdefault(key, []).append(result)
    found: dict[str, str] = {}
    taken = exact & set(wanted)
    for name in wanted:
        if name in exact:
            found[name] = name
            continue
        fits = sorted({fit for key in _keys(name) for fit in plain.get(key, ())} - taken)
        if len(fits) > 1:
            raise DataError(
                f"the results {fits[0]} and {fits[1]} both fit the sequence {name}.",
                hint=f"Call the right one {name}.",
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
