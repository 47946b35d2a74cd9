"""The verbs ``doctor`` and ``models``."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from vltrack.cli.console import emit, emit_lines, say
from vltrack.cli.track import AsJson, Debug
from vltrack.core.errors import ResourceError

Seconds = Annotated[float, Option(min=0.1, help="How long the self test may track.")]


def doctor(seconds: Seconds = 3.0, json: AsJson = False, debug: Debug = False) -> None:
    """Check versions, devices, codecs, OpenCV, weights and speed, with a remedy. Exit code 0 or 6."""
    from vltrack.api.doctor import diagnose

    bad = []
    for one in diagnose(seconds):
        if json:
            emit(one.to_dict())
        else:
            line = f"{'ok ' if one.good else 'BAD'}  {one.name}: {one.found}"
            emit_lines([f"{line}  -> {one.remedy}" if one.remedy else line])
        if not one.good:
            bad.append(one.name)
    if bad:
        raise ResourceError(f"Not ready: {', '.join(bad)}.", hint="See the remedy printed for each of them.")


Names = Annotated[list[str] | None, Argument(metavar="[NAME]...", help="Only these trackers or sizes of trackers.")]


def models(names: Names = None, json: AsJson = False, debug: Debug = False) -> None:
    """List the trackers: paper, modes, weights at hand, how large, what each claims and what is ours."""
    from vltrack.api.doctor import list_models
    from vltrack.cli.tables import LEGEND, model_lines

    rows = list_models(names or ())
    if json:
        for row in rows:
            emit(row)
        return
    emit_lines(model_lines(rows))
    say(LEGEND)
