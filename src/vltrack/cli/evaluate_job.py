"""One ``vltrack evaluate``: trackers are run, results are read, scored, told and kept. Knows the order of it.

A sequence that fails keeps nothing back but the score: it is told, the rest is run, and the exit code is 7.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vltrack.cli import score_table
from vltrack.cli.console import emit, say, shown, warn
from vltrack.cli.evaluate import FOLDER, Request
from vltrack.core.errors import DataError, GroundingFailed, PartialResult, UsageError
from vltrack.datasets.opening import Dataset, open_dataset
from vltrack.datasets.text import read_names
from vltrack.evaluation.foreign import Results
from vltrack.evaluation.results import of_run, open_results
from vltrack.evaluation.store import RUN_FILE, label_of, read_results, verify
from vltrack.evaluation.submission import pack
from vltrack.evaluation.summary import Short, Subset, renamed, summarise, truth_of, write_scores

if TYPE_CHECKING:
    from vltrack.evaluation.plan import Missing, Plan
    from vltrack.evaluation.run import RunReport
    from vltrack.metrics.truth import Truth


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Results to be scored, and the folder where they lie if they are of a run of ours."""

    folder: Path | None
    results: Results


def run(request: Request) -> int:
    """Do what ``request`` asks; return the exit code.

    Raises:
        VltrackError: with its exit code; results that are finished are kept.
    """
    dataset = open_dataset(request.data, name=request.dataset, split=request.split)
    if request.pack is not None and dataset.name != request.pack:
        raise UsageError(
            f"--pack {request.pack} makes archives of {request.pack}, but this is {dataset.name}.",
            hint="Leave --pack out, or name that data set with --data.",
        )
    for warning in dataset.warnings[:5]:
        warn(str(warning))
    if len(dataset.warnings) > 5:
        warn(f"{len(dataset.warnings) - 5} more: vltrack datasets check {shown(request.data)}.")
    plans = [_plan(request, dataset, name, model) for name, model in request.models]
    _check_names(plans)
    runs = [_run(request, plan) for plan in plans]
    broken = sum(len(_without_result(report)) for report in runs)
    entries = [entry for report in runs for entry in _entries(report, partial=request.subset is not None)]
    entries += [Entry(folder=None, results=_opened(name, path)) for name, path in request.results]
    if not entries and not runs:
        entries = [Entry(folder=None, results=_annotation(dataset))]
    names = [sequence.name for sequence in dataset.sequences]
    entries = [replace(entry, results=renamed(names, entry.results)) for entry in entries]
    for report in runs:
        _tell_degraded(report)
    if request.pack is not None:
        _pack(request, dataset, entries)
    if any(sequence.truth_held_back for sequence in dataset.sequences):
        if request.pack is None:
            say("the truth of this split is held back: nothing to score. Write an archive with --pack.")
    elif entries:
        _score(request, dataset, entries)
    if broken:
        raise PartialResult(
            f"{broken} sequences have no result; their trackers have no score in that mode.",
            hint="Run the command again to try them again; --subset present scores what is there.",
        )
    return max((report.exit_code for report in runs), default=0)


def _opened(name: str, path: Path) -> Results:
    results = open_results(path)
    return replace(results, tracker=name) if name else results


def _without_result(report: RunReport) -> list[tuple[str, str]]:
    """(mode, name) of the sequences that failed. Words that find nothing are an answer, if a poor one."""
    return [(one.mode, one.name) for one in report.failed if one.error != GroundingFailed.code]


def _entries(report: RunReport, *, partial: bool) -> Iterator[Entry]:
    """The results of a run by mode; a mode in which a sequence failed only if ``partial``."""
    broken = {mode for mode, _ in _without_result(report)}
    for mode, folder in report.folders.items():
        if partial or mode not in broken:
            yield Entry(folder=folder, results=of_run(read_results(folder)))


def _annotation(dataset: Dataset) -> Results:
    """The results of a perfect tracker."""
    say("no tracker was named: this is what the annotation itself reaches")
    return Results(tracker=score_table.PERFECT, boxes={one.name: one.boxes for one in dataset.sequences})


def _plan(request: Request, dataset: Dataset, name: str, model: str) -> Plan:
    """What is to be run of one model; whatever is wrong is told before any of them runs."""
    from vltrack.evaluation.plan import make_plan

    return make_plan(
        dataset,
        model,
        request.modes or _modes_for(dataset, model),
        request.out or FOLDER,
        request.policy,
        cast("Missing", request.missing_sentence),
        name=name or None,
        device=request.device,
    )


def _check_names(plans: list[Plan]) -> None:
    """That no two models write into one folder. Raises ``UsageError``."""
    names = [plan.tracker for plan in plans]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"two models are called {shown(name)}.", hint="Name them: first=PATH second=OTHER-PATH."
            )


def _run(request: Request, plan: Plan) -> RunReport:
    from vltrack.cli.evaluate_progress import RunProgress
    from vltrack.evaluation.run import run as run_plan

    if not request.rerun:
        _tell_damage(plan.folders.values())
    with RunProgress(plan.tracker, modes=len(plan.modes), quiet=request.quiet) as progress:
        return run_plan(
            plan,
            jobs=request.jobs,
            engine="ray" if request.engine == "ray" else "local",
            rerun=request.rerun,
            progress=progress,
        )


def _tell_damage(folders: Iterable[Path]) -> None:
    """Results that are not as they were written are run again; that is said."""
    for folder in folders:
        if (folder / RUN_FILE).is_file():
            for name in dict.fromkeys(one.name for one in verify(folder) if one.name and not one.unfinished):
                warn(f"{name} in {shown(folder)} was changed after it was written; it is run again.")


def _modes_for(dataset: Dataset, model: str) -> tuple[str, ...]:
    """All modes that the weights have learnt; without the words where the data has none."""
    from vltrack.evaluation.weights import find_weights

    learnt = find_weights(model).modes
    if any(sequence.sentence.strip() for sequence in dataset.sequences):
        return tuple(str(mode) for mode in learnt)
    return tuple(str(mode) for mode in learnt if mode == "bbox")


def _tell_degraded(report: RunReport) -> None:
    for one in report.degraded:
        warn(
            f"{one.name}, {one.mode}: {one.missing} frames did not decode, in {one.invalid} the network gave"
            " no finite box; the last box was kept there."
        )


def _score(request: Request, dataset: Dataset, entries: list[Entry]) -> None:
    truth = truth_of(dataset)
    summaries = []
    for entry in entries:
        part, subset = _part(request, truth, entry.results)
        told = _summary(
            entry.results,
            part,
            data=dataset.name,
            split=dataset.split,
            place=dataset.root.resolve().name,
            subset=subset,
            short=cast("Short", request.short),
            more_rules=request.rules,
        )
        place = entry.folder or _place(
            request.out, told, label_of(dataset.name, dataset.split, dataset.root.resolve().name)
        )
        if place is not None:
            write_scores(place, told)
        summaries.append(told)
    if request.as_json:
        for told in summaries:
            emit(told)
        return
    for group in _alike(summaries):
        for line in score_table.lines(group, attributes=request.attributes):
            sys.stdout.write(shown(line) + "\n")


def _summary(results: Results, truth: Truth, **more: Any) -> dict[str, Any]:
    """The summary; an error names whose results it is about."""
    try:
        return summarise(results, truth, **more)
    except DataError as error:
        who = " ".join(filter(None, (results.tracker, results.mode)))
        raise DataError(f"{who}: {error.message}", hint=error.hint) from error


def _alike(summaries: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Those scored over the same sequences stand in one table."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for told in summaries:
        groups.setdefault(tuple(row["name"] for row in told["sequences"]), []).append(told)
    yield from groups.values()


def _place(out: Path | None, told: Mapping[str, Any], data: str) -> Path | None:
    """Where the scores of other people's results go: nowhere unless a folder was named."""
    if out is None:
        return None
    return out / str(told["tracker"]) / "_".join(filter(None, (data, told["mode"])))


def _part(request: Request, truth: Truth, results: Results) -> tuple[Truth, Subset | None]:
    """The sequences that are scored. Raises ``DataError`` where a listed one is not there."""
    wanted = request.subset
    if wanted is None and not results.left_out:
        return truth, None
    if wanted is None:
        part = truth.only(set(truth.names) - set(results.left_out))
        return part, Subset(name="with a sentence", n=len(part), of=len(truth))
    names = sorted({*results.boxes, *results.nothing}) if wanted == "present" else read_names(Path(wanted))
    if not names:
        raise DataError("no sequence of the data set has a result.", hint="Check the names of the files.")
    part = truth.only(names)
    if len(part) == len(truth):
        return truth, None
    name = "present" if wanted == "present" else Path(wanted).stem
    return part, Subset(name=name, n=len(part), of=len(truth))


def _pack(request: Request, dataset: Dataset, entries: list[Entry]) -> None:
    frames = {sequence.name: len(sequence) for sequence in dataset.sequences}
    folder = request.out or FOLDER
    for entry in entries:
        results = entry.results
        if not results.boxes:
            raise UsageError(f"{results.tracker} has no results to pack.")
        name = "_".join(filter(None, (results.tracker, dataset.name, dataset.split, results.mode)))
        path = (entry.folder.parent if entry.folder else folder) / f"{name}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest = pack(str(request.pack), frames, results.boxes, results.seconds, path)
        say(f"wrote {shown(path)} and {shown(manifest.name)}; the server scores it")
