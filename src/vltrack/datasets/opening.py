"""The door to data sets of videos: reads a folder strictly, or tells all that is wrong with it.

Knows only the order of things: ``recognise`` tells what it is, ``tree`` finds files, ``loading`` reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.text import counted
from vltrack.datasets.archives import read_zip
from vltrack.datasets.findings import Finding, Findings, wrong
from vltrack.datasets.loading import load_sequence
from vltrack.datasets.pysot import read_pysot
from vltrack.datasets.recognise import Place, recognise
from vltrack.datasets.sequences import Sequence
from vltrack.datasets.text import read_digits, read_table
from vltrack.datasets.tree import Tree

CHECK = "`vltrack datasets check` lists everything that is wrong."


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """One split of a data set.

    Attributes:
        name: "lasot", "tnl2k", ..., "folder" for clips of one's own.
        split: "test", "train", ..., or "all": everything that is there.
        root: its folder.
        sequences: in the order of the split's list, else of their names.
        warnings: what is odd and does not hinder (an empty sentence, a gap in the numbers).
    """

    name: str
    split: str
    root: Path
    sequences: tuple[Sequence, ...]
    warnings: tuple[Finding, ...] = ()


def open_dataset(path: Path, *, name: str | None = None, split: str | None = None) -> Dataset:
    """The data set in ``path``, annotation read and every count checked; no picture is decoded.

    Args:
        path: the data set's folder, the folder of one split, or one clip of one's own.
        name: what it is, where that should not be found out.
        split: "test", "train", ...; "all" takes every sequence that is there. By default the first that the
            data set has of its own splits, else "all".

    Raises:
        DataError: it is not there, at another level, not known, or anything in it is at fault; the first
            finding is named and the others are counted.
    """
    findings = Findings()
    dataset = read_dataset(path, findings, name=name, split=split)
    findings.raise_errors(CHECK)
    return dataset


def read_dataset(
    path: Path, findings: Findings, *, name: str | None = None, split: str | None = None
) -> Dataset:
    """As ``open_dataset``, but what is wrong inside goes to ``findings`` and reading goes on: the result has
    the sequences that are sound.

    Raises:
        DataError: there is no data set here to look into.
    """
    return read_place(recognise(resolved(path), name, split), findings)


def read_place(place: Place, findings: Findings) -> Dataset:
    """The sound sequences of a place; what is wrong goes to ``findings``."""
    sequences = _read(place, findings)
    if not findings.errors:
        for one, two in _same_names(sequences):
            findings.error("duplicate", place.root, f"{one} and {two} differ in upper and lower case only.")
    return Dataset(
        name=place.layout.name,
        split=place.split.name,
        root=place.root,
        sequences=tuple(sequences),
        warnings=tuple(findings.warnings),
    )


def _read(place: Place, findings: Findings) -> list[Sequence]:
    """The sequences at a place: one file's, or those of a tree of folders."""
    layout, root = place.layout, place.root
    if layout.json:
        return read_pysot(root if root.is_file() else root / layout.json, layout, findings)
    if root.is_file():
        return read_zip(root, layout, findings)
    tree = Tree(root, layout, place.split, findings)
    names = tree.names if place.only is None else [place.only]
    loaded = (load_sequence(tree, name, findings) for name in names)
    return [sequence for sequence in loaded if sequence is not None]


def _same_names(sequences: Iterable[Sequence]) -> Iterator[tuple[str, str]]:
    """Names that would be one file on a disk that does not tell upper from lower case."""
    seen: dict[str, str] = {}
    for sequence in sequences:
        other = seen.setdefault(sequence.name.casefold(), sequence.name)
        if other != sequence.name:
            yield other, sequence.name


def read_sequences(root: Path) -> list[Sequence]:
    """The clips of one's own under ``root``, or the one that ``root`` is, in the order of their names.

    Raises ``DataError`` as ``open_dataset``.
    """
    return list(open_dataset(root, name="folder").sequences)


def read_sequence(folder: Path) -> Sequence:
    """The one clip in ``folder``. Raises ``DataError`` as ``open_dataset``."""
    return read_sequences(folder)[0]


def read_truth(path: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Boxes (R, 4) x, y, w, h as annotated and absences (R,) of one file such as groundtruth.txt, with
    absent.txt beside it where there is one.

    Raises:
        DataError: a row that is not four numbers (file:line), a negative size, or counts that disagree.
    """
    boxes = read_table(path)
    if (negative := np.nonzero(boxes[:, 2:].min(axis=1) < 0)[0]).size:
        raise wrong("box", f"{path}:{negative[0] + 1}", "width or height is negative.", "Correct the row.")
    absent = ~(boxes[:, 2:].min(axis=1) > 0)
    beside = path.parent / "absent.txt"
    if beside.is_file():
        flags = read_digits(beside)
        if len(flags) != len(boxes):
            said = f"{counted(len(flags), 'value')} for {counted(len(boxes), 'box', 'boxes')}."
            raise wrong("rows", beside, said, "Every frame needs one.")
        absent |= flags == 1
    return boxes, absent


def resolved(path: str | Path) -> Path:
    """The real path. Raises ``DataError`` where there is none, or links lead in a circle."""
    try:
        return Path(path).resolve(strict=True)
    except FileNotFoundError as error:
        raise DataError(f"{path} is no folder and no file.", hint="Check the path.") from error
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path} cannot be followed (links in a circle?).", hint="Check the path.") from error
