"""What is wrong with a data set: single findings and the list that collects them. Knows no file format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, ParamSpec, TypeVar

from vltrack.core.errors import DataError
from vltrack.core.text import counted, printable

Severity = Literal["error", "warning"]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: short name, the same for findings of one sort ("rows", "text", "sentence", ...).
        severity: "error" stops strict reading; "warning" is told and does not stop it.
        where: file, file:line or file:line:column, or the folder.
        message: what was found there.
        hint: what to do.
    """

    kind: str
    severity: Severity
    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{printable(self.where)}: {printable(self.message)}"


def wrong(kind: str, where: object, message: str, hint: str = "") -> DataError:
    """The error that a reader raises for one finding; ``Findings.attempt`` turns it into the finding."""
    return DataError(f"{printable(str(where))}: {printable(message)}", hint=hint, kind=kind, where=str(where))


@dataclass(slots=True)
class Findings:
    """Collects findings while reading goes on."""

    found: list[Finding] = field(default_factory=list)

    def error(self, kind: str, where: object, message: str, hint: str = "") -> None:
        """Note something that stops strict reading."""
        self.found.append(Finding(kind=kind, severity="error", where=str(where), message=message, hint=hint))

    def warn(self, kind: str, where: object, message: str, hint: str = "") -> None:
        """Note something that a reader has to know and can live with."""
        self.found.append(
            Finding(kind=kind, severity="warning", where=str(where), message=message, hint=hint)
        )

    def attempt(self, read: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What ``read`` returns, or None where it raises ``DataError``: then that is a finding."""
        try:
            return read(*args, **kwargs)
        except DataError as error:
            where = str(error.context.get("where", ""))
            message = error.message.removeprefix(f"{printable(where)}: ")
            self.error(str(error.context.get("kind", "data")), where, message, error.hint)
            return None

    @property
    def errors(self) -> list[Finding]:
        """Those that stop strict reading."""
        return [finding for finding in self.found if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """Those that do not."""
        return [finding for finding in self.found if finding.severity == "warning"]

    def raise_errors(self, remedy: str) -> None:
        """Raises ``DataError`` that names the first error and counts the others; nothing where none is."""
        errors = self.errors
        if not errors:
            return
        others = len(errors) - 1
        more = f" (and {counted(others, 'more finding')})" if others else ""
        hint = f"{errors[0].hint} {remedy if others else ''}".strip() or remedy
        raise DataError(f"{errors[0]}{more}", hint=hint, findings=tuple(errors))
