"""Which data a run is trained on: ``--data lasot=/data/lasot``, or a folder in which all data sets lie."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vltrack.core.errors import DataError

STILLS = "stills"
"""Name of the folders of still images with an index.jsonl (docs/train.md)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One data set to train on.

    Attributes:
        name: as ``vltrack datasets list`` has it; ``stills``; or ``folder`` for clips of one's own.
        root: its folder.
    """

    name: str
    root: Path


def find_sources(given: Iterable[str | Path]) -> tuple[Source, ...]:
    """Find the data sets of ``NAME=FOLDER`` or ``FOLDER``.

    Raises:
        DataError: no such folder, or nothing in it to train on.
    """
    return tuple(_find(Path(text)) for text in given)


def _find(root: Path) -> Source:
    if not root.is_dir():
        raise DataError(f"No such folder: {root}.", hint="See docs/train.md.")
    return Source(name=STILLS, root=root)
