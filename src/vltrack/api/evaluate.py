"""One ``vltrack evaluate``: trackers are run, results are read, scored, told and kept. Knows the order of it.

A sequence that fails keeps nothing back but the score: it is told, the rest is run, and the exit code is 7.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vltrack.api.console import emit, progress, say, shown, warn
from vltrack.core.errors import DataError, GroundingFailed, PartialResult, UsageError
from vltrack.core.files import as_resource_error, counted, write_text
from vltrack.datasets.parsing import read_names
from vltrack.datasets.reader import Dataset, open_dataset
from vltrack.datasets.referring import REFERRING_LAYOUTS, ReferringSet, detect_referring, open_referring
from vltrack.evaluation.grounding import evaluate_grounding
from vltrack.evaluation.results import RUN_FILE, label_of, open_results, read_results, results_of_run, verify
from vltrack.evaluation.submission import pack
from vltrack.evaluation.summary import (
    OWN_FIRST,
    Short,
    Subset,
    annotations_of,
    differing,
    first_frames,
    rename_results,
    summarize,
    write_scores,
)
from vltrack.evaluation.third_party import TrackerResults

if TYPE_CHECKING:
    from vltrack.evaluation.plan import Missing, Plan
    from vltrack.evaluation.run import RunReport
    from vltrack.metrics.annotations import Annotations


FOLDER = Path("evaluation")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A checked ``vltrack evaluate``: what is run, what is scored, over what, and how."""

    models: tuple[tuple[str, str], ...]
    results: tuple[tuple[str, Path], ...]
    data: Path
    dataset: str | None
    split: str | None
    modes: tuple[str, ...] | None
    jobs: int
    out: Path | None
    engine: str
    rerun: bool
    missing_sentence: str
    short: str
    subset: str | None
    rules: tuple[str, ...]
    attributes: bool
    pack: str | None
    policy: dict[str, Any]
    device: str
    as_json: bool
    quiet: bool


# MERGED api/evaluate.py
# Scores as lines of text: a block a convention, a line a tracker. Knows ``evaluation.summary``'s form.


Told = Mapping[str, Any]
PERFECT = "a perfect tracker"
_OPE = {
    "auc": "AUC",
    "precision": "P",
    "norm_precision": "NP",
    "norm_precision_mean": "NP mean",
    "op50": "OP50",
    "op75": "OP75",
}
NAMES = {**_OPE, "norm_precision_at_20": "NP 0.20", "overlap": "AO"}
"""How measures are called in tables."""
_POOLED = {"overlap": "AO", "op50": "SR 0.50", "op75": "SR 0.75"}
_CAUSES = {
    "absent": "frames without the target",
    "absent_with_box": "of them annotated with a box all the same",
    "no_size": "seen frames annotated without a size",
    "xy_not_positive": "seen frames with x or y at 0 or less, which toolkits take for no box",
    "nan": "frames annotated as NaN",
}
_BOTH = ("official", "vlt-python")
_FIRST = {
    "truth": "{} takes the truth for the tracker's box",
    "keep": "{} takes the tracker's own box",
    "drop": "{} counts nothing",
}
_EXTRA = {"mean_accuracy": "mAcc", "complete_auc": "cAUC", "coverage": "coverage"}


def lines(summaries: Sequence[Told], *, attributes: bool = False) -> Iterator[str]:
    """All that is said of trackers on one data set."""
    first = summaries[0]
    count = first["causes"]
    name = first["data"] if first["data"] != "folder" else f"{first['place']} (clips of your own)"
    yield (
        f"{name}, {first['split']}: {counted(len(first['sequences']), 'sequence')},"
        f" {counted(count['frames'], 'frame')}, target absent in {count['absent']:,}"
    )
    if first["subset"]:
        yield _subset(first["subset"])
    if first["note"]:
        yield first["note"]
    for column in _columns(summaries):
        shown = [told for told in summaries if column in told["rules"]]
        yield ""
        yield from _block(column, shown)
        if attributes:
            yield from _attributes(column, shown)
    yield from _same(summaries)
    for told in summaries:
        yield from _remarks(told)


def _columns(summaries: Sequence[Told]) -> list[str]:
    """The conventions that are shown: ``vlt-python`` only where it differs for a tracker."""
    known = list(dict.fromkeys(column for told in summaries for column in told["rules"]))
    if not any(map(differing, summaries)):
        known = [column for column in known if column != "vlt-python"]
    return known


def _same(summaries: Sequence[Told]) -> Iterator[str]:
    if "vlt-python" in summaries[0]["rules"] and not any(map(differing, summaries)):
        yield ""
        yield "vlt-python (as papers of this field report): the same to the second decimal."


def _block(column: str, summaries: Sequence[Told]) -> Iterator[str]:
    rule = summaries[0]["rules"][column]
    names = _measures(summaries[0], column)
    more = ", the box that the words found scored as it is" if column == OWN_FIRST else ""
    yield f"{column}: {rule['title']}{more}"
    if any(key in names for key in rule["measures"]):
        yield "  " + "; ".join(
            f"{names[key]}: {words}" for key, words in rule["measures"].items() if key in names
        )
    rows = [["tracker", "mode", *names.values()]]
    for told in summaries:
        if told["tracker"] != PERFECT:
            rows.append([told["tracker"], told["mode"] or "-", *_cells(told["rules"][column], names)])
    rows.append([PERFECT, "", *_cells({**rule["ceiling"], "extra": {}}, names)])
    yield from aligned(rows)
    if column == "vlt-python":
        yield from _why(summaries[0])


def _measures(told: Told, column: str) -> dict[str, str]:
    rule = told["rules"][column]
    if rule["rule"] == "got10k":
        return _POOLED
    extra = {key: title for key, title in _EXTRA.items() if key in rule["extra"]}
    return _OPE | extra


def _cells(values: Told, names: Mapping[str, str]) -> list[str]:
    cells = []
    for key in names:
        value = values["extra"].get(key) if key in _EXTRA else values[key]
        cells.append("-" if value is None else f"{value:.2f}")
    return cells


def _why(told: Told) -> Iterator[str]:
    """What makes the conventions differ, counted."""
    found = [f"{told['causes'][key]:,} {words}" for key, words in _CAUSES.items() if told["causes"][key]]
    if len({told["rules"][column]["first"] for column in _BOTH}) > 1:
        found += [f"in the first frame {_FIRST[told['rules'][c]['first']].format(c)}" for c in _BOTH]
    for column in _BOTH:
        hits = told["rules"][column]["free_hits"]
        found += [
            f"{column} takes {hits[key]:,} frames for hits in {name} whatever the box"
            for key, name in (("precision", "P"), ("norm_precision", "NP"))
            if hits[key]
        ]
    if found:
        yield "why they differ: " + "; ".join(found) + "."


def _attributes(column: str, summaries: Sequence[Told]) -> Iterator[str]:
    known = summaries[0]["rules"][column]["attributes"]
    if not known:
        return
    yield f"{column}, AUC by attribute (number of sequences)"
    rows = [["tracker", "mode", *(f"{name} ({known[name]['sequences']})" for name in known)]]
    for told in summaries:
        own = told["rules"][column]["attributes"]
        rows.append([told["tracker"], told["mode"] or "-", *(f"{own[name]['auc']:.2f}" for name in known)])
    yield from aligned(rows)


def _remarks(told: Told) -> Iterator[str]:
    who = " ".join(filter(None, (told["tracker"], told["mode"])))
    if told["mode"] == "nl":
        right, of, mean = first_frames(told)
        yield (
            f"{who}: the words found the target in the first frame in {right} of {of} sequences"
            f" (overlap above 0.5; mean {mean:.3f}). Toolkits replace that box by the truth."
        )
    if told.get("speed"):
        yield f"{who}: {told['speed']['fps']:.1f} frames a second while tracking (this machine, one thread)."
    for note in told["notes"]:
        yield f"{who}: {note}"


def _subset(subset: Mapping[str, Any]) -> str:
    return (
        f"ONLY {subset['n']} of {subset['of']} sequences ({subset['name']}): no score of the whole data set."
    )


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns of equal width: names to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  " + "  ".join(cells).rstrip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Results to be scored, and the folder where they lie if they are of a run of ours."""

    folder: Path | None
    results: TrackerResults


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
    entries = [replace(entry, results=rename_results(names, entry.results)) for entry in entries]
    for report in runs:
        _tell_degraded(report)
    if request.pack is not None:
        _pack(request, dataset, entries)
    if any(sequence.annotations_withheld for sequence in dataset.sequences):
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


def _opened(name: str, path: Path) -> TrackerResults:
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
            yield Entry(folder=folder, results=results_of_run(read_results(folder)))


def _annotation(dataset: Dataset) -> TrackerResults:
    """The results of a perfect tracker."""
    say("no tracker was named: this is what the annotation itself reaches")
    return TrackerResults(tracker=PERFECT, boxes={one.name: one.boxes for one in dataset.sequences})


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
    from vltrack.api.progress import RunProgress
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
    from vltrack.checkpoints.cards import find_weights

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
    truth = annotations_of(dataset)
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
        for line in lines(group, attributes=request.attributes):
            sys.stdout.write(shown(line) + "\n")


def _summary(results: TrackerResults, truth: Annotations, **more: Any) -> dict[str, Any]:
    """The summary; an error names whose results it is about."""
    try:
        return summarize(results, truth, **more)
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


def _part(request: Request, truth: Annotations, results: TrackerResults) -> tuple[Annotations, Subset | None]:
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


# MERGED api/evaluate.py
# ``vltrack evaluate`` over pictures with phrases: is the named thing found? Knows the order of it.


_SHOWN = {"acc_25": "Acc@0.25", "acc_50": "Acc@0.50", "acc_75": "Acc@0.75", "mean_iou": "mean IoU"}


def holds_phrases(path: Path, name: str | None) -> bool:
    """Whether the data are pictures with phrases: by their name, else by their files."""
    if name is not None:
        return name in REFERRING_LAYOUTS
    try:
        detect_referring(path)
    except DataError:
        return False
    return True


def run_grounding(request: Request) -> int:
    """Score every model on every split that is there; return 0.

    Raises:
        UsageError: results of others, which have no form of their own here.
        VltrackError: as ``open_referring`` and ``Tracker.load``.
    """
    if request.results or request.modes not in (None, ("nl",)):
        raise UsageError(
            "pictures with phrases are found by words alone.", hint="Name models, without --modes bbox."
        )
    phrases = open_referring(request.data, name=request.dataset, split=request.split)
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


def _told(request: Request, phrases: ReferringSet, name: str, model: str) -> dict[str, Any]:
    with progress(f"{name} on {phrases.name}", len(phrases), quiet=request.quiet) as advance:
        scores = evaluate_grounding(
            phrases, model, progress=advance, device=request.device, policy=request.policy
        )
    return {
        "format": "vltrack.grounding",
        "version": 1,
        "tracker": name,
        "data": phrases.name,
        "splits": {split: found.to_dict() for split, found in scores.items()},
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
