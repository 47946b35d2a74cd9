"""The VOT challenge's sequences and result folders on disk. Knows names and layouts; scores nothing.

Truth, one of

- the toolkit's folder: ``list.txt``, and for each sequence a folder with ``groundtruth.txt`` (or
  ``groundtruth_<object>.txt``), ``*.tag``/``*.label`` (a 0 or 1 a frame), ``anchor.value`` (positive: a start
  forward, negative: backward) and ``sequence`` (``key=value``: width, height, prompts); also its parent with
  the folder ``sequences``;
- pysot's JSON (``VOT2018.json``, or a folder that holds it): by sequence ``gt_rect`` and the flags by frame.

Results: ``<tracker>/<experiment>/<sequence>/<sequence>_001.txt`` and so on, or ``.bin``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.strict_json import read_json
from vltrack.metrics.regions import Region, parse_region, read_regions
from vltrack.video.headers import image_size

Size = tuple[int, int]

TAGS = ("camera_motion", "illum_change", "motion_change", "size_change", "occlusion")
"""The flags by frame of the supervised years, as files and in pysot's JSON."""
_HEADER = 1 << 18
"""Bytes of an image that are read for its size."""
_PROPERTY = re.compile(r"([A-Za-z0-9_.\-]+) *= *(.*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class VotSequence:
    """One sequence's annotation.

    Attributes:
        name: as its folder of results is called.
        truth: one region a frame.
        size: (width, height) of the frames where it can be told, or None.
        tags: (N,) bool by name of a flag.
        anchors: (frame, backward) of each start of the multi-start experiment, frames from 0.
        prompts: the entry ``prompts`` as it stands.
        ignore: regions, one a frame, whose pixels do not count.
    """

    name: str
    truth: tuple[Region, ...]
    size: Size | None = None
    tags: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    anchors: tuple[tuple[int, bool], ...] = ()
    prompts: str = ""
    ignore: tuple[Region, ...] = ()


def read_truth(path: Path) -> tuple[VotSequence, ...]:
    """All sequences of a VOT data set: its folder, the folder's parent, or pysot's JSON.

    Raises:
        DataError: nothing of the kind is there, or a file is damaged (named, with its line).
    """
    if path.is_file():
        return _read_json_truth(path)
    if not path.is_dir():
        raise DataError(f"{path} does not exist.", hint="Give VOT's folder of sequences or VOT2018.json.")
    root = path / "sequences" if (path / "sequences").is_dir() else path
    folders = _folders(root)
    if folders:
        return tuple(_read_folder(folder) for folder in folders)
    tables = sorted(path.glob("*.json"))
    if len(tables) == 1:
        return _read_json_truth(tables[0])
    found = f"{len(tables)} JSON files" if tables else "nothing of it"
    raise DataError(
        f"{path} holds no VOT data set ({found}).",
        hint="Expected <sequence>/groundtruth.txt, or one VOT2018.json.",
    )


def _folders(root: Path) -> list[Path]:
    """The sequences' folders: those of ``list.txt``, else all that hold a truth."""
    listed = root / "list.txt"
    if not listed.is_file():
        return [path for path in sorted(root.iterdir()) if path.is_dir() and _truths(path)]
    names = [line.strip() for line in _text(listed).splitlines() if line.strip()]
    unsafe = [name for name in names if Path(name).name != name or name in (".", "..")]
    if unsafe:
        raise DataError(f"{listed}: {unsafe[0]!r} is no name of a folder.", hint="One name a line.")
    missing = [name for name in names if not (root / name).is_dir() or not _truths(root / name)]
    if missing:
        raise DataError(
            f"{listed} names {len(missing)} sequences without groundtruth.txt: {_some(missing)}.",
            hint="Unpack the annotations of all sequences.",
        )
    return [root / name for name in names]


def _truths(folder: Path) -> list[Path]:
    """The truth of each object; files of objects whose name begins with ``_`` are helpers."""
    objects = [p for p in sorted(folder.glob("groundtruth_*.txt")) if p.stem[12:13] != "_"]
    whole = folder / "groundtruth.txt"
    return objects or ([whole] if whole.is_file() else [])


def _read_folder(folder: Path) -> VotSequence:
    files = _truths(folder)
    if len(files) > 1:
        raise DataError(
            f"{folder} has {len(files)} objects ({_some([p.name for p in files])}).",
            hint="Sequences with several targets are not scored here; use the VOT toolkit.",
        )
    truth = read_regions(files[0])
    if not truth:
        raise DataError(f"{files[0]} is empty.", hint="Unpack the annotations again.")
    entries = _properties(folder / "sequence")
    hidden = folder / "groundtruth__ignore.txt"
    return VotSequence(
        name=folder.name,
        truth=truth,
        size=_size_of(entries, folder),
        tags=_tags(folder, len(truth)),
        anchors=_anchors(folder / "anchor.value", len(truth)),
        prompts=entries.get("prompts", ""),
        ignore=read_regions(hidden) if hidden.is_file() else (),
    )


def _properties(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    found = (_PROPERTY.fullmatch(line.strip()) for line in _text(path).splitlines())
    return {match[1]: match[2] for match in found if match}


def _size_of(entries: Mapping[str, str], folder: Path) -> Size | None:
    """From ``sequence``, else from the first picture; None where neither tells."""
    width, height = entries.get("width", ""), entries.get("height", "")
    if width.isdecimal() and height.isdecimal() and int(width) > 0 and int(height) > 0:
        return int(width), int(height)
    for place in (folder / "color", folder):
        for name in ("00000001.jpg", "00000000.jpg", "00000001.png"):
            if size := _picture_size(place / name):
                return size
    return None


def _picture_size(path: Path) -> Size | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return image_size(file.read(_HEADER))


def _tags(folder: Path, frames: int) -> dict[str, NDArray[np.bool_]]:
    """Flags by frame; a file that ends early leaves the rest unset, as in the toolkit."""
    tags = {}
    for name in TAGS:
        for path in (folder / f"{name}.tag", folder / f"{name}.label"):
            if path.is_file():
                tags[name] = _flags([line.strip() == "1" for line in _text(path).splitlines()], frames)
                break
    return tags


def _flags(values: Iterable[Any], frames: int) -> NDArray[np.bool_]:
    given = np.array([bool(value) for value in values][:frames], dtype=bool)
    return np.concatenate([given, np.zeros(frames - len(given), dtype=bool)])


def _anchors(path: Path, frames: int) -> tuple[tuple[int, bool], ...]:
    if not path.is_file():
        return ()
    lines = _text(path).split()
    try:
        values = [float(line) for line in lines]
    except ValueError:
        raise DataError(f"{path} holds something that is no number.", hint="Unpack it again.") from None
    if len(values) > frames:
        raise DataError(f"{path} has {len(values)} lines for {frames} frames.", hint="Unpack it again.")
    return tuple((frame, value < 0) for frame, value in enumerate(values) if value != 0)


def _read_json_truth(path: Path) -> tuple[VotSequence, ...]:
    table = read_json(path)
    if not isinstance(table, dict) or not table:
        raise DataError(f"{path} is no table of sequences.", hint="Expected pysot's VOT2018.json.")
    return tuple(_json_sequence(name, entry, path) for name, entry in table.items())


def _json_sequence(name: str, entry: Any, path: Path) -> VotSequence:
    rows = entry.get("gt_rect") if isinstance(entry, dict) else None
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: {name!r} has no gt_rect.", hint="Expected pysot's VOT2018.json.")
    truth = tuple(_json_region(row, f"{path}: {name} frame {k + 1}") for k, row in enumerate(rows))
    lists = {tag: entry.get(tag) for tag in TAGS}
    return VotSequence(
        name=name,
        truth=truth,
        size=_json_size(entry, path.parent),
        tags={
            tag: _flags(flags, len(truth))
            for tag, flags in lists.items()
            if isinstance(flags, list) and flags
        },
    )


def _json_region(row: Any, where: str) -> Region:
    if isinstance(row, list) and len(row) == 1 and isinstance(row[0], list):
        row = row[0]
    values = row if isinstance(row, list) else [row]
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        raise DataError(f"{where}: {str(row)[:60]} is no region.", hint="A row is x,y,w,h or a polygon.")
    return parse_region(",".join(map(repr, values)), where)


def _json_size(entry: Mapping[str, Any], folder: Path) -> Size | None:
    width, height = entry.get("width"), entry.get("height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    names = entry.get("img_names")
    if isinstance(names, list) and names and isinstance(names[0], str) and ".." not in Path(names[0]).parts:
        home = entry.get("video_dir")
        inside = folder / home if isinstance(home, str) and ".." not in Path(home).parts else folder
        return _picture_size(folder / names[0]) or _picture_size(inside / names[0])
    return None


def results_root(path: Path, experiment: str) -> Path:
    """The folder with a folder a sequence: ``path/experiment``, that of the only tracker in ``path``, or
    ``path`` itself.

    Raises:
        DataError: no such folder, or one with several trackers.
    """
    if not path.is_dir():
        raise DataError(f"{path} is no folder.", hint="Give one tracker's folder of VOT results.")
    if (path / experiment).is_dir():
        return path / experiment
    trackers = sorted(child for child in path.iterdir() if (child / experiment).is_dir())
    if len(trackers) > 1:
        names = _some([tracker.name for tracker in trackers])
        raise DataError(f"{path} holds {len(trackers)} trackers: {names}.", hint="Give the folder of one.")
    return trackers[0] / experiment if trackers else path


def repetitions(root: Path, sequence: str) -> list[Path]:
    """``<sequence>_001`` and so on, in order; text before binary where both are there."""
    pattern = re.compile(re.escape(sequence) + r"_(\d{3})\.(?:txt|bin)")
    folder = root / sequence
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), reverse=True) if folder.is_dir() else ():
        if match := pattern.fullmatch(path.name):
            found.setdefault(match[1], path)
    return [found[number] for number in sorted(found)]


def result_file(root: Path, sequence: str, stem: str) -> Path | None:
    """A result called ``stem`` in the sequence's folder, text before binary; None where there is none."""
    for ending in (".txt", ".bin"):
        path = root / sequence / (stem + ending)
        if path.is_file():
            return path
    return None


def missing_error(root: Path, missing: list[str], wanted: int) -> DataError:
    """What to say of results that are not there."""
    return DataError(
        f"{root} lacks {len(missing)} of {wanted} results: {_some(missing)}.",
        hint="Run the tracker on them, or give a truth with only the others.",
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", hint="Check its permissions.") from error
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text.", hint="Unpack it again.") from None
