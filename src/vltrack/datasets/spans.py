"""Which images belong to which sequence, from the file that a toolkit keeps of it. Knows that one format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vltrack.core.strict_json import read_json
from vltrack.datasets.findings import wrong
from vltrack.datasets.layout import Span
from vltrack.datasets.text import is_safe


def read_spans(path: Path, title: str) -> Mapping[str, Span]:
    """The parts of the set called ``title``: start_frame, end_frame and folder_name of each sequence.

    Raises ``DataError`` that names the sequence at fault.
    """
    sets = read_json(path)
    parts = sets.get(title) if isinstance(sets, dict) else None
    if not isinstance(parts, dict):
        return {}
    return {name: _span(path, name, part) for name, part in parts.items()}


def _span(path: Path, name: str, part: Any) -> Span:
    fields = part if isinstance(part, dict) else {}
    first, last, folder = (fields.get(key) for key in ("start_frame", "end_frame", "folder_name"))
    if not (type(first) is type(last) is int and isinstance(folder, str) and is_safe(folder)):
        raise wrong("json", path, f"{name}: not start_frame, end_frame and folder_name.")
    return Span(first=first, last=last, folder=folder)
