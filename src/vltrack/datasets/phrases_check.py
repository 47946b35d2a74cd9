"""A look at a set of pictures with phrases that tells everything at once. Knows no video; changes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from vltrack.core.errors import DataError
from vltrack.core.text import counted
from vltrack.datasets.findings import Finding, Findings
from vltrack.datasets.phrases import (
    PhraseSplit,
    annotation_files,
    layout_named,
    missing_annotations,
    open_phrases,
    picture_file,
    raw_files,
    recognise,
)
from vltrack.datasets.phrases_layouts import PhraseLayout
from vltrack.datasets.pictures import read_rgb

_SHOWN = 3
_DECODED = 16
_NUMBERS = re.compile(r"[\d\s.,;+-]+")


def check_phrases(path: Path, name: str | None = None) -> list[Finding]:
    """All findings over the set in ``path``, errors first; none where it is as it should be.

    Every split's annotations are read whole and every picture is looked for. Of each split about 16 pictures,
    evenly spread, are decoded. Nothing is written.
    """
    findings = Findings()
    try:
        layout = layout_named(name) if name is not None else recognise(path)
    except DataError as error:
        findings.error("set", path, error.message, error.hint)
        return findings.found
    files = annotation_files(layout, path)
    if not files:
        missing = missing_annotations(layout, path, None)
        findings.error("annotations", path, missing.message, missing.hint)
        return findings.found
    _missing_splits(findings, layout, path, files)
    for split, file in files.items():
        try:
            (read,) = open_phrases(path, name=layout.name, split=split).splits
        except DataError as error:
            findings.error("annotations", file, error.message, error.hint)
            continue
        _annotations(findings, read)
        _pictures(findings, layout, path, read)
    return [*findings.errors, *findings.warnings]


def _missing_splits(findings: Findings, layout: PhraseLayout, root: Path, files: dict[str, Path]) -> None:
    for split in layout.splits:
        if split not in files:
            raw = [file for file in raw_files(layout, root) if file.stem.endswith(f"_{split}")]
            remedy = f"Convert it: vltrack datasets convert '{raw[0]}'" if raw else "It is left out."
            findings.warn("split", root, f"the split {split} has no annotations here.", remedy)


def _annotations(findings: Findings, read: PhraseSplit) -> None:
    for why, count in read.left_out.items():
        if why != "a crowd":  # belongs to COCO
            findings.warn("unusable", read.annotations, f"{read.split}: {count} times {why}; left out.")
    pasted = sum(_NUMBERS.fullmatch(phrase) is not None for phrase in read.phrases)
    if pasted:
        findings.warn(
            "sentence", read.annotations, f"{read.split}: only numbers in {counted(pasted, 'phrase')}."
        )
    sizes = np.array([read.sizes.get(name, (0, 0)) for name in read.names], dtype=np.float64)[read.image]
    corner = read.boxes[:, :2] + read.boxes[:, 2:]
    over = (read.boxes[:, :2] < -1) | (corner > sizes + 1)
    outside = (sizes > 0).all(axis=1) & over.any(axis=1)
    if outside.any():
        first = read.names[read.image[int(np.argmax(outside))]]
        findings.warn(
            "boxes",
            read.annotations,
            f"{read.split}: {int(outside.sum())} boxes reach over the edge of their picture by more than a "
            f"pixel, first in {first}.",
        )


def _pictures(findings: Findings, layout: PhraseLayout, root: Path, read: PhraseSplit) -> None:
    names = [read.names[which] for which in np.unique(read.image)]
    files = {name: picture_file(layout, root, read.split, name) for name in names}
    there = [name for name in names if files[name].is_file()]
    if len(there) < len(names):
        missing = [files[name] for name in names if not files[name].is_file()]
        findings.error(
            "pictures",
            missing[0].parent,
            f"{read.split}: {len(missing)} of {len(names)} pictures are missing, first "
            f"{', '.join(file.name for file in missing[:_SHOWN])}.",
            f"`vltrack datasets fetch-help {layout.name}` says what to fetch.",
        )
    for name in there[:: max(1, len(there) // _DECODED)]:
        try:
            height, width = read_rgb(files[name]).shape[:2]
        except DataError as error:
            findings.error("image", files[name], error.message, error.hint)
            continue
        told = read.sizes.get(name, (width, height))
        if told != (width, height):
            message = f"it is {width}x{height}, its annotation says {told[0]}x{told[1]}."
            findings.error("image", files[name], message, "Fetch the pictures of the same release.")
