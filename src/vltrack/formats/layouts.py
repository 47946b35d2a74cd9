"""Folders and files of single-target benchmarks: LaSOT, GOT-10k and its submissions, VOT.

One line per frame, the first line is the first frame; x, y, w, h as they are in the file (LaSOT, GOT-10k and OTB count
pixels from 1, and their toolkits shift nothing). Several targets are one folder each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from vltrack.core.errors import DataError, UsageError
from vltrack.core.files import printable, write_text
from vltrack.core.track import Track
from vltrack.core.types import Box
from vltrack.formats.base import (
    Clip,
    Found,
    Key,
    box_line,
    box_of,
    clip_of,
    dense,
    facts_of,
    has_area,
    number,
    rate_of,
    read_lines,
    tracks_of,
)

_ABSENT = ("full_occlusion.txt", "out_of_view.txt", "absent.txt", "absence.label")
IMAGE_FOLDERS = ("img", "imgs", "color", "images")
_UNSAFE = re.compile(r"[/\\:\x00-\x1f\x7f]")


def sequences_of(folder: Path, pattern: str) -> dict[str, Path]:
    """Return the file ``pattern`` of a folder, or those of its folders, by name. Raises ``DataError`` for videos."""
    own = _file(folder, pattern)
    if own.is_file():
        return {folder.resolve().name: own}
    parts = {part.name: _file(part, pattern) for part in sorted(folder.iterdir()) if _file(part, pattern).is_file()}
    with_images = [name for name, file in parts.items() if any((file.parent / one).is_dir() for one in IMAGE_FOLDERS)]
    if len(with_images) > 1:
        raise DataError(
            f"{printable(folder)} holds {len(with_images)} sequences, each with its own images.",
            hint=f"Give one of them: {printable(folder / with_images[0])}.",
        )
    if not parts:
        raise DataError(f"{printable(folder)} has no {pattern.format(name=folder.name)}.")
    return parts


def _file(folder: Path, pattern: str) -> Path:
    return folder / pattern.format(name=folder.resolve().name)


def _rows(file: Path) -> Iterator[tuple[str, list[float] | None]]:
    """Yield place and x, y, w, h of every line; None where it says that the target is absent."""
    for place, line in enumerate(read_lines(file), 1):
        where = f"{printable(file)}:{place}"
        if line.strip()[:1] == "m":
            raise DataError(f"{where} is a mask.", hint="Only boxes and polygons are read.")
        try:
            values = [float(cell) for cell in re.findall(r"[^\s,;]+", line)]
        except ValueError as error:
            raise DataError(f"{where}: {printable(line.strip()[:60])!r} is not a row of numbers.") from error
        if len(values) == 8:
            xs, ys = values[::2], values[1::2]
            values = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
        if (len(values) == 1 and values[0] in (0, 1, 2)) or (len(values) == 4 and np.isnan(values).any()):
            yield where, None  # VOT's codes; NaN of its long-term sequences
        elif len(values) == 4:
            yield where, values
        else:
            raise DataError(f"{where}: {len(values)} numbers; x,y,w,h or four corners are needed.")


def _read(path: Path, clip: Clip, pattern: str, kind: str) -> dict[str, Track]:
    files = sequences_of(path, pattern) if path.is_dir() else {path.stem: path}
    found: list[Found] = []
    for name, file in files.items():
        folder, one = file.parent, Found(label=printable(name), number=len(found) + 1)
        for frame, (where, values) in enumerate(_rows(file)):
            if values is not None and has_area(box := box_of(values, where)):
                one.keys[frame] = Key(box=box, on=False)
            one.last = frame
        for flags in (folder / mark for mark in _ABSENT if path.is_dir() and (folder / mark).is_file()):
            digits = re.findall(r"\d", "\n".join(read_lines(flags)))
            if len(digits) != one.last + 1:
                raise DataError(f"{printable(flags)} has {len(digits)} values for {one.last + 1} frames.")
            for frame in (frame for frame, digit in enumerate(digits) if digit == "1"):
                one.keys.pop(frame, None)
        for text in (folder / "nlp.txt", folder / "language.txt"):
            if path.is_dir() and text.is_file() and (lines := read_lines(text)):
                one.meta["sentence"] = lines[0].strip()
        if path.is_dir() and (prompts := facts_of(folder / "sequence").get("prompts")):
            one.meta["sentence"] = prompts.partition(";")[0]
        clip = clip.or_else(_facts(folder if path.is_dir() else None, name, one.last + 1))
        found.append(one)
    return tracks_of(found, clip, printable(path), kind)


def _facts(folder: Path | None, name: str, frames: int) -> Clip:
    """Facts of GOT-10k's meta_info.ini and VOT's sequence file."""
    if folder is None:
        return Clip(frames=frames)
    facts = facts_of(folder / "meta_info.ini") | facts_of(folder / "sequence")
    shown = facts.get("resolution", "") or f"{facts.get('width', '')},{facts.get('height', '')}"
    size = re.fullmatch(r"\(?(\d{1,6}), ?(\d{1,6})\)?", shown, re.ASCII)
    width, height = (int(size[1]), int(size[2])) if size else (None, None)
    rate = rate_of(facts.get("anno_fps") or facts.get("fps"))
    return Clip(name=printable(name), width=width, height=height, frames=frames, rate=rate)


def read_lasot(path: Path, clip: Clip) -> dict[str, Track]:
    """Read a sequence of LaSOT: its boxes, sentence, and flags of occlusion and view. Raises ``DataError``."""
    return _read(path, clip, "groundtruth.txt", "lasot")


def read_got10k(path: Path, clip: Clip) -> dict[str, Track]:
    """Read a sequence of GOT-10k: its boxes, flags of absence, size and rate. Raises ``DataError``."""
    return _read(path, clip, "groundtruth.txt", "got10k")


def read_results(path: Path, clip: Clip) -> dict[str, Track]:
    """Read one sequence of a submission to GOT-10k, ``NAME/NAME_001.txt``. Raises ``DataError``."""
    return _read(path, clip, "{name}_001.txt", "got10k-results")


def read_vot(path: Path, clip: Clip) -> dict[str, Track]:
    """Read a sequence of VOT, or one file of regions. Raises ``DataError``."""
    return _read(path, clip, "groundtruth.txt", "vot")


# -- writing ------------------------------------------------------------------------------------------

_Files = Mapping[str, str]


def _write(tracks: Mapping[str, Track], path: Path, clip: Clip, files: Callable[[str, Track, Clip], _Files]) -> None:
    """Write the ``files`` of a target into ``path``, of several into a folder each."""
    clip = clip_of(tracks, clip)
    for name, track in tracks.items():
        part = path if len(tracks) == 1 else path / _folder(name)
        part.mkdir(parents=True, exist_ok=True)
        for file, text in files(part.name, track, clip).items():
            write_text(part / file, text)


def _folder(name: str) -> str:
    if _UNSAFE.search(name) or name in (".", "..") or not name:
        raise UsageError(f"The target {printable(name)!r} cannot be the name of a folder.", hint="Rename it.")
    return name


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _boxes(boxes: Box) -> str:
    return _text([box_line(box) for box in boxes.tolist()])


def write_lasot(tracks: Mapping[str, Track], path: Path, clip: Clip) -> None:
    """Write LaSOT's files; a target that is not visible is written as out of view, its box as zeros."""

    def files(_: str, track: Track, clip: Clip) -> _Files:
        boxes, visible, _scores = dense(track, clip.frames or 0)
        hidden = ",".join("0" if seen else "1" for seen in visible)
        sentence = " ".join(str(track.meta.get("sentence") or "").split())
        return {
            "groundtruth.txt": _boxes(boxes),
            "full_occlusion.txt": ",".join("0" * len(visible)) + "\n",
            "out_of_view.txt": hidden + "\n",
            "nlp.txt": sentence + "\n",
        }

    _write(tracks, path, clip, files)


def write_got10k(tracks: Mapping[str, Track], path: Path, clip: Clip) -> None:
    """Write GOT-10k's files: the visible share is 8 of 8, or 0 where the target is not visible."""

    def files(_: str, track: Track, clip: Clip) -> _Files:
        boxes, visible, _scores = dense(track, clip.frames or 0)
        width, height = clip.size("GOT-10k's meta_info.ini states it")
        beyond = (boxes[:, :2] < 0).any(axis=1) | (boxes[:, :2] + boxes[:, 2:] > (width, height)).any(axis=1)
        columns = {"absence": ~visible, "cover": visible * 8, "cut_by_image": beyond & visible}
        head = f"[METAINFO]\nanno_fps: {number(clip.rate or 0)}Hz\nresolution: ({width}, {height})\n"
        labels = {f"{name}.label": _text([str(int(value)) for value in values]) for name, values in columns.items()}
        return {"groundtruth.txt": _boxes(boxes), "meta_info.ini": head, **labels}

    _write(tracks, path, clip, files)


def write_results(tracks: Mapping[str, Track], path: Path, clip: Clip) -> None:
    """Write the boxes of a submission to GOT-10k, which has no form for "absent": the last box is repeated.

    Times are those of a tracker (``vltrack evaluate --pack``); a track has none.
    """

    def files(name: str, track: Track, clip: Clip) -> _Files:
        boxes, visible, _scores = dense(track, clip.frames or 0)
        if not visible.any():
            raise UsageError(f"The target {printable(name)!r} is never visible.")
        held = np.maximum.accumulate(np.where(visible, np.arange(len(visible)), -1))
        return {f"{name}_001.txt": _boxes(boxes[np.where(held < 0, np.argmax(visible), held)])}

    _write(tracks, path, clip, files)


def write_vot(tracks: Mapping[str, Track], path: Path, clip: Clip) -> None:
    """Write VOT's regions, ``0`` where the target is not visible; one file where ``path`` ends in .txt."""

    def regions(track: Track, clip: Clip) -> str:
        boxes, visible, _scores = dense(track, clip.frames or 0)
        return _text([box_line(box) if seen else "0" for box, seen in zip(boxes.tolist(), visible, strict=True)])

    def files(name: str, track: Track, clip: Clip) -> _Files:
        size = f"width={clip.width}\nheight={clip.height}\n" if clip.width and clip.height else ""
        sentence = " ".join(str(track.meta.get("sentence") or "").split()).replace(";", ",")
        prompt = f"prompts={sentence}\n" if sentence else ""
        head = f"name={name}\nfps={number(clip.rate or 0)}\nlength={clip.frames}\n{size}{prompt}"
        return {"groundtruth.txt": regions(track, clip), "sequence": head}

    if not path.suffix:
        _write(tracks, path, clip, files)
    elif len(tracks) > 1:
        raise UsageError(f"One .txt of VOT holds one target, not {len(tracks)}.", hint="Name a folder, or a target.")
    else:
        write_text(path, regions(next(iter(tracks.values())), clip_of(tracks, clip)))
