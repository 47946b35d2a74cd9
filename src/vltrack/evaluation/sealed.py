"""JSON files that tell when they were changed: canonical text with its own sha256. Knows no content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vltrack.core.errors import StateError
from vltrack.core.files import sha256_bytes, write_text

_LARGEST = 1 << 26
"""No record is larger than 64 MiB; a file that is was not written here."""


def write_sealed(path: Path, record: Mapping[str, Any]) -> None:
    """Write ``record`` (what JSON can hold, finite numbers) as canonical text with a key ``seal``.

    The same record gives the same bytes. Raises ``ResourceError``.
    """
    write_text(path, _text({**record, "seal": _seal(record)}))


def read_sealed(path: Path, kind: str) -> dict[str, Any]:
    """The record of a file that ``write_sealed`` wrote; ``kind`` is its ``format``.

    Raises:
        FileNotFoundError: no such file.
        StateError: one bit differs from what was written, or it is another kind of file.
    """
    hint = "Run the evaluation again with --rerun, or restore the file."
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    try:
        record = json.loads(data) if len(data) <= _LARGEST else None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or record.get("format") != kind or "seal" not in record:
        raise StateError(f"{path} is no {kind} file.", hint=hint)
    seal = record.pop("seal")
    if seal != _seal(record) or data != _text({**record, "seal": seal}).encode():
        raise StateError(f"{path} was changed after it was written.", hint=hint)
    return record


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _seal(record: Mapping[str, Any]) -> str:
    return sha256_bytes(_text(record).encode())
