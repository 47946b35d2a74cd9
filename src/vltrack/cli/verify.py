"""``vltrack verify``: are results still what a run wrote? Knows flags; ``evaluation.store`` looks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vltrack.cli.console import emit, say, shown, warn
from vltrack.cli.track import AsJson, Debug
from vltrack.core.errors import DataError, StateError
from vltrack.core.text import counted

Folders = Annotated[
    list[Path],
    typer.Argument(metavar="FOLDER...", help="Folders of results, or a folder that holds such folders."),
]


def verify(folders: Folders, json: AsJson = False, debug: Debug = False) -> None:
    """Hold results of vltrack evaluate against the sha256 that were noted when they were written.

    Leaves with 9 if anything was changed, cut or added since.

    \b
    vltrack verify evaluation
    """
    from vltrack.evaluation.store import read_results
    from vltrack.evaluation.store import verify as look

    runs = [run for folder in folders for run in _runs(folder)]
    findings = [finding for run in runs for finding in look(run)]
    if json:
        emit(
            {
                "folders": [shown(run) for run in runs],
                "findings": [{"path": shown(f.path), "message": f.message} for f in findings],
            }
        )
    else:
        for finding in findings:
            warn(finding.message)
    if findings:
        raise StateError(
            f"{counted(len(findings), 'file')} not as written.",
            hint="Run the evaluation again: it redoes what is damaged.",
        )
    say(f"{counted(len(runs), 'folder')} of results: as written")
    for run in runs:
        stored = read_results(run)
        if not stored.complete:
            say(f"{shown(run)}: {len(stored.names)} of {len(stored.planned)} sequences are finished")


def _runs(folder: Path) -> list[Path]:
    """The folders of results at or under ``folder``. Raises ``DataError`` where there is none."""
    from vltrack.evaluation.store import RUN_FILE

    runs = sorted(path.parent for path in folder.glob(f"**/{RUN_FILE}"))
    if not runs:
        raise DataError(f"{shown(folder)}: no results of vltrack evaluate here.", hint="Name their folder.")
    return runs
