"""Annotation formats of other programs, read into tracks and written from them; docs/formats.md has their conventions.

A format is one row of ``FORMATS``. Readers take a path and what is known about the video, and are bounded; writers
replace what is there, so that their caller checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vltrack.core.errors import DataError, UsageError
from vltrack.core.files import open_limited, printable
from vltrack.core.json_io import walk_json
from vltrack.core.track import MAX_FILE_BYTES, Track
from vltrack.formats import coco, cvat, label_studio, layouts, mot, table, voc, yolo
from vltrack.formats.base import Clip

_HEAD = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """One format.

    Attributes:
        read, write: see ``formats``.
        suffixes: of its files; "" stands for a folder.
    """

    read: Callable[[Path, Clip], dict[str, Track]]
    write: Callable[[Mapping[str, Track], Path, Clip], None]
    suffixes: tuple[str, ...]


FORMATS = {
    "cvat": Format(read=cvat.read, write=cvat.write, suffixes=(".xml",)),
    "coco": Format(read=coco.read, write=coco.write, suffixes=(".json",)),
    "mot": Format(read=mot.read, write=mot.write, suffixes=(".txt", "")),
    "yolo": Format(read=yolo.read, write=yolo.write, suffixes=("",)),
    "voc": Format(read=voc.read, write=voc.write, suffixes=("",)),
    "label-studio": Format(read=label_studio.read, write=label_studio.write, suffixes=(".json",)),
    "lasot": Format(read=layouts.read_lasot, write=layouts.write_lasot, suffixes=("",)),
    "got10k": Format(read=layouts.read_got10k, write=layouts.write_got10k, suffixes=("",)),
    "got10k-results": Format(read=layouts.read_results, write=layouts.write_results, suffixes=("",)),
    "vot": Format(read=layouts.read_vot, write=layouts.write_vot, suffixes=("", ".txt")),
    "parquet": Format(read=table.read, write=table.write, suffixes=(".parquet",)),
}


def detect(path: Path) -> str:
    """Return the name of the format that a file or a folder has by its content; ``csv`` and ``json`` are our own.

    Raises:
        DataError: nothing is there, it cannot be read, or it is in none of the formats.
        UsageError: it may be in several, which are named.
    """
    found = _in_folder(path) if path.is_dir() else _in_file(path)
    if not found:
        known = ", ".join(("csv", "json", *FORMATS))
        raise DataError(f"{printable(path)} is in none of the formats that are read: {known}.")
    if len(found) > 1:
        raise UsageError(
            f"{printable(path)} may be {', '.join(found[:-1])} or {found[-1]}.", hint="Say which (--from NAME)."
        )
    return found[0]


def _in_folder(path: Path) -> list[str]:
    if (path / "gt" / "gt.txt").is_file():
        return ["mot"]
    names = {file.name for folder in (path, *_parts(path)) for file in folder.glob("*")}
    if "groundtruth.txt" in names:
        signs = {
            "lasot": {"nlp.txt", "full_occlusion.txt", "out_of_view.txt"},
            "got10k": {"absence.label", "cover.label", "meta_info.ini"},
            "vot": {"sequence"},
        }
        return [name for name, files in signs.items() if files & names] or list(signs)
    if any(name.endswith("_001.txt") for name in names) and not names & set(yolo.NAMES):
        return ["got10k-results"]
    return [name for name, files in (("yolo", yolo.files_of), ("voc", voc.files_in)) if files(path)]


def _parts(path: Path) -> list[Path]:
    return [part for part in sorted(path.iterdir())[:1000] if part.is_dir()]


def _in_file(path: Path) -> list[str]:
    try:
        with open_limited(path, MAX_FILE_BYTES) as file:
            data = file.read(_HEAD)
    except OSError as error:
        raise DataError(f"Cannot read {printable(path)}: {error.strerror}.", hint="Check the path.") from error
    if data[:4] == b"PAR1":
        return ["parquet"]
    text = data.decode("utf-8-sig", "replace").lstrip()
    if text.startswith("<"):
        return ["cvat"]
    if text.startswith("# vltrack.track"):
        return ["csv"]
    if text[:1] in ("{", "["):
        return _in_json(path, text)
    lines = [re.findall(r"[^\s,]+", line) for line in text.splitlines()[:-1] or text.splitlines()]
    counts = {len(cells) for cells in lines if cells}
    if not all(re.fullmatch(r"[-+.eEnaN\d]+|m\d*", cell) for cells in lines for cell in cells):
        return []
    if counts and counts <= {1, 4, 8}:
        return ["vot"]
    return ["mot"] if counts and min(counts) >= 6 else []


def _in_json(path: Path, text: str) -> list[str]:
    if re.match(r'\{\s*"format"\s*:\s*"vltrack\.tracks?"', text):
        return ["json"]
    names = set[str]()
    for key, element in walk_json(path):
        names |= {key} if key else set(element if isinstance(element, dict) else ())
        if not key or names >= {"videos", "annotations"}:  # of a list the first element says it
            break
    if "annotations" in names and "videos" in names:
        return ["coco"]
    if "annotations" in names and "images" in names:
        raise DataError(
            f"{printable(path)} is COCO of single images: it has no videos.", hint="Tracks need videos and track_id."
        )
    return ["label-studio"] if "data" in names and names & {"annotations", "predictions"} else []
