"""What a look at a data set finds. Knows no layout and no reader; all checks speak through it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is: an ``error`` makes a check fail (exit 4), a ``warning`` and a ``note`` do not."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that a check has to say.

    Attributes:
        severity: error, warning or note.
        where: the file or folder, with the line where there is one: ``lasot/dog/dog-1/nlp.txt:1``.
        message: one sentence that says what was found and what to do.
    """

    severity: Severity
    where: str
    message: str
