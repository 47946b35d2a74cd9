"""Checks of data sets: everything that is wrong with the files of one, at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vltrack.core.errors import DataError
from vltrack.core.files import printable
from vltrack.datasets.check import check_dataset, check_referring
from vltrack.datasets.parsing import Issue
from vltrack.datasets.referring import REFERRING_LAYOUTS, is_referring


@dataclass(frozen=True, kw_only=True, slots=True)
class DataCheck:
    """A data set and the issues in it.

    Attributes:
        path, name, title, form: of the data set; form is "" or the variant of its layout.
        splits: per split its counts of sequences, frames, absent frames and sequences without a sentence.
        issues: errors first.
    """

    path: str
    name: str
    title: str
    form: str
    splits: tuple[dict[str, Any], ...]
    issues: tuple[Issue, ...]

    @property
    def errors(self) -> int:
        """Number of issues that are errors; the others are warnings."""
        return sum(issue.severity == "error" for issue in self.issues)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``vltrack datasets check --json`` prints."""
        record = asdict(self)
        issues = record.pop("issues")
        counts = {"errors": self.errors, "warnings": len(issues) - self.errors}
        texts = [{key: printable(issue[key]) for key in ("where", "message")} for issue in issues]
        return record | counts | {"findings": [issue | text for issue, text in zip(issues, texts, strict=True)]}


def check(path: str | Path, *, name: str | None = None, split: str | None = None, images: bool = False) -> DataCheck:
    """Check a data set of videos or of referring expressions. Writes nothing.

    Args:
        path: its folder.
        name: of the data set, if it cannot be detected.
        split: only this split.
        images: decode every image, which is slow.

    Raises:
        DataError: it cannot be detected.
    """
    path = Path(path)
    if name in REFERRING_LAYOUTS:
        return _check_referring(path, name)
    try:
        report = check_dataset(path, name=name, split=split, images=images)
    except DataError:
        if name is not None or not is_referring(path, None):
            raise
        return _check_referring(path, None)
    layout = report.detected.layout
    splits = tuple(
        {
            "split": dataset.split,
            "sequences": len(dataset.sequences),
            "frames": sum(len(sequence) for sequence in dataset.sequences),
            "absent": int(sum(sequence.absent.sum() for sequence in dataset.sequences)),
            "without_sentence": sum(not sequence.sentence for sequence in dataset.sequences)
            if layout.sentence
            else None,
        }
        for dataset in report.datasets
    )
    return DataCheck(
        path=printable(report.detected.root),
        name=layout.name,
        title=layout.title,
        form=layout.form,
        splits=splits,
        issues=(*report.issues.errors, *report.issues.warnings),
    )


def _check_referring(path: Path, name: str | None) -> DataCheck:
    issues = tuple(check_referring(path, name))
    title = name or "images with referring expressions"
    return DataCheck(path=printable(path), name=name or "", title=title, form="", splits=(), issues=issues)
