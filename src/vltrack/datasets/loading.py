"""Reads one sequence by its layout. Knows how boxes, presence, sentence and images go together; knows no data
set's name.
"""

from __future__ import annotations

import re
from collections import abc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vltrack.core.text import counted
from vltrack.datasets.findings import Findings, wrong
from vltrack.datasets.frames import list_images
from vltrack.datasets.layout import Layout, Patterns
from vltrack.datasets.sentences import read_meta, read_sentence
from vltrack.datasets.sequences import Sequence
from vltrack.datasets.text import read_digits, read_table
from vltrack.datasets.tree import Tree

Boxes = NDArray[np.float64]


@dataclass(slots=True)
class _Series:
    """Something with one entry a frame, and the file that it comes from."""

    path: Path
    values: NDArray[np.float64] | NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.values)


def load_sequence(tree: Tree, name: str, findings: Findings) -> Sequence | None:
    """The sequence ``name`` of ``tree``; what is wrong with it goes to ``findings``. None where it has no
    usable boxes or images.
    """
    layout = tree.layout
    before = len(findings.errors)
    truth = _read_truth(tree, name, findings)
    images = _find_images(tree, name, findings)
    flags = _read_flags(tree, name, findings)
    cover = _read_digits(tree, name, layout.cover, 8, findings)
    sentence = read_sentence(tree, name, findings)
    attributes = _read_attributes(tree, name, findings)
    size = findings.attempt(_read_size, tree, name)
    if truth is None or images is None or len(findings.errors) > before:
        return None
    series = [truth, *(found for _, found in flags), *([] if cover is None else [cover])]
    source, files = images
    files = findings.attempt(_fit, tree, name, series, files)
    if len(findings.errors) > before:
        return None
    boxes = truth.values[:, :4].astype(np.float64)
    absent = _empty(boxes, layout)
    if layout.rows.lost is not None:
        absent |= truth.values[:, 4] == 1
    for value, found in flags:
        absent |= found.values == value
    if cover is not None:
        absent |= cover.values == 0
    if layout.own and (rows := np.nonzero(boxes[:, 2:].min(axis=1) < 0)[0]).size:
        findings.error(
            "box", f"{truth.path}:{rows[0] + 1}", "width or height is negative.", "Correct the row."
        )
    return Sequence(
        name=name,
        source=source,
        files=files,
        boxes=boxes,
        absent=absent,
        sentence=sentence,
        attributes=attributes,
        cover=None if cover is None else cover.values.astype(np.float64),
        size=size,
    )


def _read_truth(tree: Tree, name: str, findings: Findings) -> _Series | None:
    """The boxes as x, y, w, h, and the field that says "lost" where there is one."""
    rows = tree.layout.rows
    path = tree.find(tree.layout.truth, name)
    if path is None:
        findings.error(
            "missing", tree.expected(tree.layout.truth, name), "the file with the boxes is missing."
        )
        return None
    columns = rows.box if rows.lost is None else (*rows.box, rows.lost)
    table = findings.attempt(read_table, path, columns)
    if table is None:
        return None
    if rows.corners:
        table[:, 2:4] -= table[:, :2]
    return _Series(path, table)


def _read_flags(tree: Tree, name: str, findings: Findings) -> list[tuple[int, _Series]]:
    """The files of flags, each with the number that says "absent"."""
    found = []
    for flags in tree.layout.flags:
        needed = flags.needed and not tree.split.held_back
        series = _read_digits(tree, name, flags.files, 1, findings, needed=needed)
        if series is not None:
            found.append((flags.absent, series))
    return found


def _read_digits(
    tree: Tree, name: str, patterns: Patterns, high: int, findings: Findings, *, needed: bool = False
) -> _Series | None:
    path = tree.find(patterns, name)
    if path is None:
        if needed:
            findings.error("missing", tree.expected(patterns, name), "the file with the flags is missing.")
        return None
    digits = findings.attempt(read_digits, path, high)
    return None if digits is None else _Series(path, digits)


def _empty(boxes: Boxes, layout: Layout) -> NDArray[np.bool_]:
    """Where a row of boxes itself says that the target is absent."""
    absent = np.isnan(boxes)
    if layout.empty == "zero":
        absent |= (boxes == 0).all(axis=1, keepdims=True)
    elif layout.empty == "flat":
        absent |= (boxes[:, 2:] <= 0).any(axis=1, keepdims=True)
    return np.asarray(absent.any(axis=1))


def _fit(
    tree: Tree, name: str, series: list[_Series], files: abc.Sequence[Path] | None
) -> abc.Sequence[Path] | None:
    """Bring boxes, flags and images to one length, as far as the layout lets it; returns the images.

    Raises ``DataError`` with both counts where they disagree.
    """
    layout, truth = tree.layout, series[0]
    span = tree.spans.get(name)
    if span is not None:  # rows may be counted from the first image of the folder
        for one in series:
            if len(one) == span.last:
                one.values = one.values[span.first - 1 :]
    if files and layout.rows.rate > 1 and abs(len(truth) / len(files) - layout.rows.rate) < 1:
        truth.values = truth.values[:: layout.rows.rate]
    if name in layout.cuts:
        count = layout.cuts[name] or min([len(one) for one in series] + ([len(files)] if files else []))
        files = files and files[:count]
        for one in series:
            one.values = one.values[:count]
    held_back = tree.split.held_back and len(truth) == 1
    for one in series[1:]:
        one.values = one.values[:1] if held_back else one.values
        if len(one) != len(truth):
            said = f"{counted(len(one), 'value')} for {counted(len(truth), 'box', 'boxes')}."
            raise wrong("rows", one.path, said, "Every frame needs one; download the file again.")
    if not files or held_back:
        return files
    if 0 < abs(len(files) - len(truth)) <= layout.rows.slack:
        files = files[: len(truth)]
        truth.values = truth.values[: len(files)]
    if len(files) != len(truth):
        said = f"{counted(len(truth), 'row')} for the {counted(len(files), 'image')} in {files[0].parent}."
        raise wrong("rows", truth.path, said, "Every frame needs one row; unpack the sequence again.")
    return files


def _find_images(tree: Tree, name: str, findings: Findings) -> tuple[Path, abc.Sequence[Path] | None] | None:
    """Where the pictures are, and the images of a folder (None: a video, (): only the annotation)."""
    layout = tree.layout
    if not layout.frames:
        return tree.root, ()
    path = tree.find(layout.frames, name)
    if path is None:
        where = tree.expected(layout.frames, name)
        findings.error("missing", where, "there are no images (or the video) of this sequence.")
        return None
    if path.is_file():
        others = [other.name for other in path.parent.glob(f"{path.stem}.*") if other != path]
        if others:
            findings.error("duplicate", path, f"there is {others[0]} beside it.", "Keep one video.")
        return path, None
    files = list_images(path, layout, tree.spans.get(name), findings)
    if not files:
        findings.error("empty", path, "holds no images.", "Unpack the sequence again.")
        return None
    return path, files


def _read_attributes(tree: Tree, name: str, findings: Findings) -> tuple[str, ...]:
    """Short names of the attributes that are set."""
    layout = tree.layout
    found = _read_digits(tree, name, layout.attribute_files, 9, findings)
    if found is None:
        return ()
    if len(found) != len(layout.attributes):
        said = f"{len(found)} flags, {len(layout.attributes)} are needed ({' '.join(layout.attributes)})."
        findings.error("rows", found.path, said)
        return ()
    return tuple(short for short, flag in zip(layout.attributes, found.values, strict=True) if flag)


def _read_size(tree: Tree, name: str) -> tuple[int, int] | None:
    """(width, height) from meta_info.ini, where there is one. Raises ``DataError``."""
    path = tree.find(tree.layout.meta, name)
    text = None if path is None else read_meta(path).get("resolution")
    if text is None:
        return None
    numbers = re.findall(r"\d+", text)
    if len(numbers) != 2:
        raise wrong("text", path, f"resolution is {text[:40]!r}, not (width, height).")
    return int(numbers[0]), int(numbers[1])
