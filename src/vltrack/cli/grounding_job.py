"""``vltrack evaluate`` over pictures with phrases: is the named thing found? Knows the order of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from vltrack.cli.console import emit, progress, shown
from vltrack.cli.evaluate import Request
from vltrack.cli.score_table import aligned
from vltrack.core.errors import DataError, UsageError
from vltrack.core.files import as_resource_error, write_text
from vltrack.datasets.phrases import PhraseSet, open_phrases, recognise
from vltrack.datasets.phrases_layouts import LAYOUTS
from vltrack.evaluation.grounding import evaluate_grounding

_SHOWN = {"acc_25": "Acc@0.25", "acc_50": "Acc@0.50", "acc_75": "Acc@0.75", "mean_iou": "mean IoU"}


def holds_phrases(path: Path, name: str | None) -> bool:
    """Whether the data are pictures with phrases: by their name, else by their files."""
    if name is not None:
        return name in LAYOUTS
    try:
        recognise(path)
    except DataError:
        return False
    return True


def run(request: Request) -> int:
    """Score every model on every split that is there; return 0.

    Raises:
        UsageError: results of others, which have no form of their own here.
        VltrackError: as ``open_phrases`` and ``Tracker.load``.
    """
    if request.results or request.modes not in (None, ("nl",)):
        raise UsageError(
            "pictures with phrases are found by words alone.", hint="Name models, without --modes bbox."
        )
    phrases = open_phrases(request.data, name=request.dataset, split=request.split)
    told = [_told(request, phrases, name or Path(model).stem, model) for name, model in request.models]
    for one in told:
        _keep(request.out, one)
    if request.as_json:
        for one in told:
            emit(one)
        return 0
    rows = [["tracker", "split", *_SHOWN.values(), "phrases"]]
    for one in told:
        for split, values in one["splits"].items():
            numbers = [f"{values[key]:.2f}" for key in _SHOWN]
            rows.append([one["tracker"], split, *numbers, str(values["count"])])
    sys.stdout.write(f"{phrases.name}: found by words alone, overlap strictly above the threshold\n")
    for line in aligned(rows):
        sys.stdout.write(shown(line) + "\n")
    return 0


def _told(request: Request, phrases: PhraseSet, name: str, model: str) -> dict[str, Any]:
    with progress(f"{name} on {phrases.name}", len(phrases), quiet=request.quiet) as advance:
        scores = evaluate_grounding(
            phrases, model, progress=advance, device=request.device, policy=request.policy
        )
    return {
        "format": "vltrack.grounding",
        "version": 1,
        "tracker": name,
        "data": phrases.name,
        "splits": {split: found.told() for split, found in scores.items()},
    }


def _keep(out: Path | None, told: dict[str, Any]) -> None:
    """Write the scores where a folder was named."""
    if out is None:
        return
    folder = out / str(told["tracker"]) / f"{told['data']}_grounding"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise as_resource_error(error, folder) from error
    write_text(folder / "grounding.json", json.dumps(told, indent=1, allow_nan=False) + "\n")
