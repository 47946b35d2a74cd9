"""``vltrack.evaluate``: run trackers over a data set, or take results of others, and score them.

``which_rule`` and ``verify`` answer questions about results that exist already.

A failing sequence costs only the score of its mode: it is reported, the others run, and the function raises
``PartialResult`` at the end.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vltrack.api.inputs import DEVICES, SHORT, check_choice, check_model, check_modes, make_folder, named_path
from vltrack.api.reporter import QUIET, Bar, Reporter, pace, time_left
from vltrack.checkpoints.outside import find_outside
from vltrack.core.errors import DataError, GroundingFailed, ModelNotFound, PartialResult, StateError, UsageError
from vltrack.core.files import counted, printable, write_text
from vltrack.core.types import Mode
from vltrack.datasets.parsing import read_names
from vltrack.datasets.reader import Dataset, open_dataset
from vltrack.datasets.referring import is_referring, open_referring
from vltrack.evaluation.results import (
    RUN_FILE,
    ResultIssue,
    holds_only_runs,
    label_of,
    open_results,
    read_results,
    results_of_run,
)
from vltrack.evaluation.results import verify as verify_run
from vltrack.evaluation.submission import SERVERS, pack
from vltrack.evaluation.summary import (
    Short,
    annotations_of,
    choose_part,
    read_scores,
    rename_results,
    share_of,
    summarize,
    with_short,
    write_scores,
)
from vltrack.evaluation.third_party import SCORES, TrackerResults
from vltrack.metrics.protocol_search import ProtocolMatch, ProtocolSearch
from vltrack.metrics.protocol_search import which_rule as search_protocols
from vltrack.metrics.protocols import RULES
from vltrack.metrics.scoring import MEASURES

if TYPE_CHECKING:
    from vltrack.datasets.referring import ReferringSet
    from vltrack.evaluation.plan import Missing, Plan
    from vltrack.evaluation.run import ProgressEvent, RunReport
    from vltrack.metrics.annotations import Annotations

FOLDER = Path("evaluation")
PERFECT = "a perfect tracker"
Entry = tuple[Path | None, TrackerResults]
"""Results to score, after their folder if they are of a run of ours."""
_VOT_NAME = re.compile(r"vots?-?20\d\d", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Evaluation:
    """Scores of trackers on one data set.

    Attributes:
        summaries: one per tracker and mode, as ``scores.json`` holds it (docs/evaluate.md); for referring
            expressions one per tracker, as ``grounding.json`` does.
        runs: reports of the trackers that were run: finished, failed and degraded sequences, folders.
        archives: submissions that were written.
    """

    summaries: tuple[dict[str, Any], ...]
    runs: tuple[RunReport, ...] = ()
    archives: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        lines = []
        for row in self.rows():
            where = " ".join(filter(None, (row["tracker"], row.get("mode"), "on", row["data"], row["split"])))
            if "auc" in row:
                auc = "-" if row["auc"] is None else f"{row['auc']:.2f}"
                lines.append(f"{where}: AUC {auc} ({row['protocol']}, {row['sequences']}/{row['of']} sequences)")
            else:
                lines.append(f"{where}: Acc@0.50 {row['acc_50']:.2f}")
        return f"<Evaluation: {'; '.join(lines) or 'no scores'}>"

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield flat rows for pandas: one per tracker, mode and protocol (or split), measures in percent."""
        for summary in self.summaries:
            head = {key: summary[key] for key in ("tracker", "mode", "data", "split") if key in summary}
            if "splits" in summary:
                for split, values in summary["splits"].items():
                    yield head | {"split": split} | values
                continue
            for column, rule in summary["rules"].items():
                measures = {name: rule[name] for name in MEASURES} | rule["extra"]
                count, of = share_of(summary)
                yield head | {"protocol": column, "rule": rule["rule"], "sequences": count, "of": of} | measures


def evaluate(
    what: str | Path | Sequence[str | Path] = (),
    *,
    data: str | Path,
    dataset: str | None = None,
    split: str | None = None,
    modes: Sequence[str] | None = None,
    jobs: int | None = None,
    out: str | Path | None = None,
    engine: str = "local",
    rerun: bool = False,
    missing_sentence: Missing = "refuse",
    short: Short = "refuse",
    subset: str | None = None,
    rules: Sequence[str] = (),
    pack: str | None = None,
    policy: Mapping[str, Any] | None = None,
    device: str = "cpu",
    backend: str = "auto",
    precision: str = "fp32",
    reporter: Reporter = QUIET,
) -> Evaluation:
    """Run trackers over a data set, or take results of any tracker, and score them by the benchmark's protocol.

    Args:
        what: names of models or paths of weights, which are run; folders, zips or ``.npz`` of results, which
            are scored. ``NAME=PATH`` gives either a name. None of them scores the ground truth itself.
        data: folder of the data set, or annotations of a toolkit. Data sets of referring expressions are
            scored by the box in each single image.
        dataset, split: name and split of the data set, where they are not detected or others are wanted.
        modes: ``nl`` (start from the text), ``bbox`` (from the box of frame 1), ``nlbbox`` (both); None takes
            all that the weights and the data support.
        jobs: worker processes with one thread each, 0 for one per core; None: one; with Ray, all of the cluster.
        out: folder of results and scores; None is ``evaluation`` for runs and none for results of others.
        engine: ``local``, or ``ray`` for a Ray cluster.
        rerun: delete existing results and start over; otherwise finished sequences are kept.
        missing_sentence: sequences without a sentence: ``refuse``, ``skip``, or start from their ``box``.
        short: results with too few rows: ``refuse``, count them as ``misses``, or ``cut`` the ground truth.
        subset: file with names of sequences, or ``present`` for those that have a result.
        rules: names of more protocols to score by; ``all`` for every one.
        pack: write the archive for a server: ``got10k`` or ``trackingnet``.
        policy: options of the post-processing that differ from the tracker's own.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        backend, precision: as in ``vltrack.load``; fp32 by default, so that machines give the same scores.
        reporter: receives messages and progress.

    Returns:
        The scores in percent; ``pandas.DataFrame(evaluation.rows())`` is a table of them.

    Raises:
        UsageError: arguments that do not fit together, or a mode that the weights do not support.
        ModelNotFound: neither a model nor a file or folder. DataError: the data or results are at fault.
        PartialResult: sequences failed, or their results are not flawless; the rest is ``error.result``.
        StateError: ``out`` holds results of other weights, options, data or code.
        KeyboardInterrupt: Ctrl-C; finished sequences are kept, and the same call goes on from there.

    Examples:
        >>> import vltrack
        >>> scores = vltrack.evaluate("others=results/tnl2k", data="data/tnl2k")
        >>> [(row["tracker"], row["protocol"], round(row["op75"], 1)) for row in scores.rows()]
        [('others', 'official', 88.9), ('others', 'vlt-python', 94.4)]
    """
    check_choice("engine", engine, ("local", "ray"))
    check_choice("missing_sentence", missing_sentence, ("refuse", "skip", "box"))
    check_choice("short", short, SHORT)
    check_choice("device", device, DEVICES)
    if pack is not None:
        check_choice("pack", pack, SERVERS)
    if modes is not None:
        modes = check_modes(modes, tuple(Mode))
    rules = _known_rules(rules)
    _check_files(Path(data), out, subset)
    models, results = _sorted_out([what] if isinstance(what, str | Path) else what, reporter)
    data, out = Path(data), None if out is None else Path(out)
    loading = {"device": device, "backend": backend, "precision": precision}
    if is_referring(data, dataset):
        if results or modes not in (None, ("nl",)):
            raise UsageError("Referring expressions are found from text alone.", hint="Name models, mode nl.")
        phrases = open_referring(data, name=dataset, split=split)
        return _grounding(phrases, models, out, reporter, policy=policy or {}, **loading)
    opened = open_dataset(data, name=dataset, split=split, part=subset is not None)
    if pack is not None and opened.name != pack:
        raise UsageError(
            f"The archive for {pack} needs results on {pack}, but this is {opened.name}.",
            hint="Leave pack (--pack) out, or name that data set (--data).",
        )
    for warning in sorted(opened.warnings, key=lambda one: one.kind not in ("units", "absent"))[:5]:
        reporter.warn(str(warning))
    if len(opened.warnings) > 5:
        reporter.warn(f"{len(opened.warnings) - 5} more: vltrack datasets check {printable(data)}.")
    plans = [
        _plan(opened, model, modes, out or FOLDER, policy, missing_sentence, name=name or None, **loading)
        for name, model in models
    ]
    _check_names(plans)
    jobs = (0 if engine == "ray" else 1) if jobs is None else jobs
    runs = [_run(plan, jobs, "ray" if engine == "ray" else "local", rerun, reporter) for plan in plans]
    entries = [entry for report in runs for entry in _entries(report, partial=subset is not None)]
    names = [sequence.name for sequence in opened.sequences]
    entries += _opened(results, names)
    if not entries and not runs:
        reporter.note("no tracker was named: these are the scores of the ground truth itself")
        boxes = {one.name: one.boxes for one in opened.sequences}
        entries = [(None, TrackerResults(tracker=PERFECT, boxes=boxes))]
    entries = [(folder, rename_results(names, found, opened.name)) for folder, found in entries]
    for report in runs:
        _warn_of_degraded(report, reporter)
    archives = () if pack is None else _packed(pack, opened, entries, out or FOLDER, reporter)
    summaries: tuple[dict[str, Any], ...] = ()
    if not any(sequence.annotations_withheld for sequence in opened.sequences):
        annotations = annotations_of(opened)
        summaries = tuple(
            _scored(opened, annotations, *entry, out, subset, short=short, more_rules=rules) for entry in entries
        )
    elif pack is None:
        reporter.warn(f"the ground truth is withheld: nothing to score. Archives (--pack): for {', '.join(SERVERS)}.")
    found = Evaluation(summaries=summaries, runs=tuple(runs), archives=archives)
    _raise_partial(found)
    return found


# -- what is run and what is scored -------------------------------------------------------------------


def _sorted_out(what: Sequence[str | Path], reporter: Reporter) -> tuple[list[tuple[str, str]], list[tuple[str, Path]]]:
    """Return the models and the results among what was named, each after its given name ("" if none).

    The name of a model is that even where a folder of runs, as ``--out .`` makes it, has the same name.

    Raises ``ModelNotFound``, or ``UsageError`` where something is named twice or is one file of results.
    """
    words = [os.fspath(word) for word in what]
    models, results = [], []
    for word in words:
        if words.count(word) > 1:
            raise UsageError(f"{printable(word)} is named twice.", hint="Name each model and results once.")
        name, path = named_path(word)
        if find_outside(str(path)):
            models.append((name, check_model(str(path))))
            continue
        if word.endswith(path.name) and word.removesuffix(path.name) in ("", f"{name}=") and holds_only_runs(path):
            with suppress(ModelNotFound):
                models.append((name, check_model(path)))
                reporter.note(f"{printable(path)} is the model; the folder is ./{printable(path)}")
                continue
        if path.is_dir() or (path.is_file() and path.suffix.lower() in (".npz", ".zip")):
            results.append((name, path))
        elif path.suffix.lower() in (".txt", ".csv", ".json"):
            raise UsageError(f"{printable(path)} is one file.", hint="Name the folder with one file per sequence.")
        elif len(path.parts) > 1 and path.suffix != ".safetensors" and not path.exists():
            raise ModelNotFound(f"Neither results nor weights at {printable(path)}.", hint="Check the path.")
        else:
            models.append((name, check_model(path)))
    return models, results


def _known_rules(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of protocols; ``all`` is every one. Raises ``UsageError``."""
    if "all" in names:
        return tuple(RULES)
    for name in names:
        check_choice("protocol", name, (*RULES, "all"))
    return tuple(dict.fromkeys(names))


def _check_files(data: Path, out: str | Path | None, subset: str | None) -> None:
    """Refuse what cannot be read or written before anything runs."""
    if out == "":
        raise UsageError("The folder for results (out, --out) has no name.", hint="Name one; . is the current folder.")
    if subset not in (None, "present"):
        read_names(Path(subset))
    if _VOT_NAME.match(data.resolve().name):
        raise UsageError(
            f"{printable(data)} is a VOT challenge, which has rules of its own.",
            hint="Score it with the VOT toolkit; docs/harnesses.md shows how to run a tracker inside it.",
        )
    if not data.exists():
        raise DataError(f"{printable(data)}: no such file or folder.", hint="Check the path of the data (--data).")


def _opened(results: Iterable[tuple[str, Path]], names: Sequence[str]) -> Iterator[Entry]:
    for name, path in results:
        read = open_results(path, names)
        yield None, replace(read, tracker=name or read.tracker)


def _without_result(report: RunReport) -> list[tuple[str, str]]:
    """Return (mode, name) of the sequences that failed. A text without a box is an answer, if a poor one."""
    return [(one.mode, one.name) for one in report.failed if one.error != GroundingFailed.code]


def _entries(report: RunReport, *, partial: bool) -> Iterator[Entry]:
    """Yield the results of a run by mode; a mode in which a sequence failed only if ``partial``."""
    broken = {mode for mode, _ in _without_result(report)}
    for mode, folder in report.folders.items():
        if partial or mode not in broken:
            yield folder, results_of_run(read_results(folder))


def _plan(
    dataset: Dataset,
    model: str,
    modes: Sequence[str] | None,
    out: Path,
    policy: Mapping[str, Any] | None,
    missing_sentence: Missing,
    **more: Any,
) -> Plan:
    """Return the plan for one model; every error in it is raised before any of them runs."""
    from vltrack.checkpoints.cards import find_weights
    from vltrack.evaluation.plan import make_plan

    if modes is None:
        has_text = any(sequence.sentence.strip() for sequence in dataset.sequences)
        modes = [mode for mode in find_weights(model).modes if has_text or mode == Mode.BBOX]
    return make_plan(dataset, model, tuple(map(str, modes)), out, policy, missing_sentence, **more)


def _check_names(plans: Sequence[Plan]) -> None:
    """Check that no two models write into one folder. Raises ``UsageError``."""
    names = [plan.tracker for plan in plans]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"Two models are called {printable(name)}.", hint="Name them: one=PATH other=OTHER-PATH.")


def _run(plan: Plan, jobs: int, engine: Literal["local", "ray"], rerun: bool, reporter: Reporter) -> RunReport:
    from vltrack.evaluation.run import run as run_plan

    if not rerun:
        _warn_of_changes(plan.folders.values(), reporter)
    with reporter.bar("evaluating", None) as bar:
        return run_plan(
            plan,
            jobs=jobs,
            engine=engine,
            rerun=rerun,
            progress=lambda event: _show(event, plan.tracker, len(plan.modes), bar, reporter),
        )


def _show(event: ProgressEvent, tracker: str, modes: int, bar: Bar, reporter: Reporter) -> None:
    """Show one event of a run."""
    done, total = event.sequences_done, event.sequences_total
    what = f"sequences in {modes} modes" if modes > 1 else "sequences"
    if event.kind == "failed":
        reporter.warn(f"{event.name} ({event.mode}) failed: {event.message}")
    if event.kind == "looked" and done:
        reporter.note(f"{tracker}: {done} of {total} {what} have results already")
    failed = f"{event.failures} failed" if event.failures else ""
    parts = [
        f"{tracker}: {done}/{total} {what}",
        f"{event.frames_per_second:.1f} frames/s" if event.frames_per_second else "",
        "" if event.seconds_left is None else time_left(event.seconds_left),
        failed,
    ]
    waiting = event.kind == "waiting"
    bar.show(
        event.frames_done,
        ", ".join(filter(None, parts)),
        note="waiting for another evaluation" if waiting else f"{event.name} ({event.mode})" * bool(event.name),
        total=event.frames_total,
        line=event.kind == "finished",
        force=done == total,
    )


def _warn_of_changes(folders: Iterable[Path], reporter: Reporter) -> None:
    """Name the results that are not as they were written: they are run again."""
    for folder in folders:
        if (folder / RUN_FILE).is_file():
            issues = verify_run(folder)
            for name in dict.fromkeys(one.name for one in issues if one.name and not one.unfinished):
                reporter.warn(f"{name} in {printable(folder)} was changed after it was written; it is run again.")


def _warn_of_degraded(report: RunReport, reporter: Reporter) -> None:
    for one in report.degraded:
        reporter.warn(
            f"{one.name}, {one.mode}: {one.missing} frames did not decode, in {one.invalid} the network gave"
            " no finite box; the last box was kept there."
        )


def _raise_partial(found: Evaluation) -> None:
    """Raise ``PartialResult`` with the evaluation where a run is not flawless."""
    broken = sum(len(_without_result(report)) for report in found.runs)
    error = None
    if broken:
        error = PartialResult(
            f"{broken} sequences have no result; their trackers have no score in that mode.",
            hint="Run it again to retry them; subset present (--subset present) scores what is there.",
        )
    elif any(report.exit_code for report in found.runs):
        nothing = sum(len(report.failed) for report in found.runs)
        degraded = sum(len(report.degraded) for report in found.runs)
        error = PartialResult(
            f"In {counted(nothing, 'sequence')} the text found no target; {counted(degraded, 'sequence')}"
            " had frames that did not decode or boxes that were not finite."
        )
    if error is not None:
        error.result = found
        raise error


# -- scores -------------------------------------------------------------------------------------------


def _scored(
    dataset: Dataset,
    annotations: Annotations,
    folder: Path | None,
    results: TrackerResults,
    out: Path | None,
    wanted: str | None,
    **options: Any,
) -> dict[str, Any]:
    """Score one entry and write ``scores.json`` where there is a folder for it."""
    place = dataset.root.resolve().name
    who = " ".join(filter(None, (results.tracker, results.mode)))
    part, subset = choose_part(wanted, dataset, annotations, results)
    try:
        summary = summarize(
            results, part, data=dataset.name, split=dataset.split, place=place, subset=subset, **options
        )
    except DataError as error:
        raise DataError(f"{who}: {error.message}", hint=error.hint) from error
    if folder is None and out is not None:
        label = label_of(dataset.name, dataset.split, place)
        folder = out / results.tracker / "_".join(filter(None, (label, results.mode)))
    if folder is not None:
        write_scores(folder, summary)
    return summary


def _packed(server: str, dataset: Dataset, entries: Sequence[Entry], out: Path, reporter: Reporter) -> tuple[Path, ...]:
    frames = {sequence.name: len(sequence) for sequence in dataset.sequences}
    if len(frames) != dataset.of:
        reporter.warn(f"only {len(frames)} of the {dataset.of} published sequences are packed; the server wants all.")
    archives = []
    for folder, results in entries:
        if not results.boxes:
            raise UsageError(f"{results.tracker} has no results to pack.")
        name = "_".join(filter(None, (results.tracker, dataset.name, dataset.split, results.mode)))
        path = (folder.parent if folder else out) / f"{name}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest = pack(server, frames, results.boxes, results.seconds, path)
        reporter.note(f"wrote {printable(path)} and {printable(manifest.name)}; the server scores it")
        archives.append(path)
    return tuple(archives)


# -- referring expressions ----------------------------------------------------------------------------


def _grounding(
    phrases: ReferringSet, models: Sequence[tuple[str, str]], out: Path | None, reporter: Reporter, **loading: Any
) -> Evaluation:
    """Score every model on every split that is there."""
    if not models:
        raise UsageError("Referring expressions have no upper bound to score.", hint="Name a model to run.")
    from vltrack.evaluation.run import evaluate_grounding

    summaries = []
    for name, model in models:
        tracker, count, began = name or Path(model).stem, 0, time.monotonic()
        with reporter.bar(f"{tracker} on {phrases.name}", len(phrases)) as bar:

            def advance(bar: Bar = bar, began: float = began) -> None:
                nonlocal count
                count += 1
                text = pace(count, len(phrases), time.monotonic() - began)
                bar.show(count, text.replace("frames/s", "sentences/s"), line=False)

            scores = evaluate_grounding(phrases, model, progress=advance, **loading)
        summary = {
            "format": "vltrack.grounding",
            "version": 1,
            "tracker": tracker,
            "data": phrases.name,
            "splits": {split: found.to_dict() for split, found in scores.items()},
        }
        if out is not None:
            folder = make_folder(out / tracker / f"{phrases.name}_grounding")
            write_text(folder / "grounding.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
        summaries.append(summary)
    return Evaluation(summaries=tuple(summaries))


# -- questions about results that exist ---------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleSearch:
    """Protocols under which results give a published number.

    Attributes:
        number, tolerance: in percent and percentage points.
        data: name of the data set.
        sequences, of: number of scored sequences, and of those of the published split.
        fits: the protocols with measure and value, the nearest first.
        refused: protocols that do not score these results, and why.
    """

    number: float
    tolerance: float
    data: str
    sequences: int
    of: int
    fits: tuple[ProtocolMatch, ...]
    refused: Mapping[str, str]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one row per fit, for pandas."""
        return (fit.to_dict() for fit in self.fits)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``vltrack which-rule --json`` prints."""
        head = {"number": self.number, "tolerance": self.tolerance, "sequences": self.sequences, "of": self.of}
        return head | {"fits": list(self.rows()), "refused": dict(self.refused)}


def which_rule(
    number: float | str,
    results: str | Path,
    *,
    data: str | Path | None = None,
    dataset: str | None = None,
    split: str | None = None,
    tolerance: float | None = None,
    short: Short = "refuse",
) -> RuleSearch:
    """Search the protocols under which results give a published ``number`` (percent, as printed).

    Args:
        results: folder, zip or ``.npz`` of the tracker's results.
        data: the data set; without it only the protocols in ``scores.json`` of ``results`` are searched.
        dataset, split, short: as in ``evaluate``.
        tolerance: in percentage points; None is half a unit in the last digit of ``number``.

    Raises:
        UsageError: not a percentage, or neither data nor scores. DataError: data or results are at fault.
    """
    check_choice("short", short, SHORT)
    value, digits = _percentage(str(number))
    within = 0.5 * 10**-digits + 1e-9 if tolerance is None else tolerance
    if data is None:
        found, name, share = _search_scores(Path(results), value, within)
    else:
        if not Path(data).exists():
            raise DataError(f"{printable(data)}: no such file or folder.", hint="Check the path of the data (--data).")
        opened = open_dataset(Path(data), name=dataset, split=split)
        annotations = annotations_of(opened)
        boxes = rename_results(annotations.names, open_results(Path(results), annotations.names), opened.name).boxes
        candidates = [with_short(rule, short) for rule in RULES.values()]
        found = search_protocols(value, annotations, boxes, tolerance=within, rules=candidates)
        name, share = opened.name, (len(annotations), opened.of)
    return RuleSearch(
        number=value, tolerance=within, data=name, sequences=share[0], of=share[1], fits=found.fits,
        refused=found.refused,
    )  # fmt: skip


def _search_scores(results: Path, number: float, tolerance: float) -> tuple[ProtocolSearch, str, tuple[int, int]]:
    """Search the protocols in ``scores.json``; return the data set's name, and n of N sequences, too."""
    file = results if results.is_file() else results / SCORES
    if not file.is_file() or results.suffix in (".npz", ".zip"):
        raise UsageError(
            f"{printable(results)} holds no scores, and without the data there is nothing to score it by.",
            hint="Name the data set (--data PATH).",
        )
    summary = read_scores(results)
    fits = [
        ProtocolMatch(rules=(rule["rule"],), measure=measure, change="as given", value=value, off=value - number)
        for rule in summary["rules"].values()
        for measure in MEASURES
        if (value := rule[measure]) is not None and abs(value - number) <= tolerance
    ]
    fits.sort(key=lambda fit: abs(fit.off))
    return ProtocolSearch(fits=tuple(fits), refused={}), summary["data"], share_of(summary)


def _percentage(text: str) -> tuple[float, int]:
    """Return the number and how many digits it has after its point. Raises ``UsageError``."""
    plain = text.strip().removesuffix("%")
    try:
        value = float(plain)
    except ValueError as error:
        raise UsageError(f"{printable(text)!r} is not a number.", hint="Give it in percent: 63.1") from error
    if not 0 <= value <= 100:
        raise UsageError(f"{printable(text)} is not a percentage.", hint="Give it in percent: 63.1, not 0.631.")
    return value, len(plain.partition(".")[2])


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """Folders of results, what differs from what was written, and (finished, planned) of incomplete ones."""

    folders: tuple[Path, ...]
    issues: tuple[ResultIssue, ...]
    incomplete: Mapping[Path, tuple[int, int]]

    def to_dict(self) -> dict[str, Any]:
        """Return what ``vltrack verify --json`` prints."""
        return {
            "folders": [printable(folder) for folder in self.folders],
            "findings": [{"path": printable(one.path), "message": one.message} for one in self.issues],
        }


def verify(folders: Sequence[str | Path]) -> Verification:
    """Check results against the sha256 that were recorded when they were written.

    Raises:
        DataError: a folder without results.
        StateError: a file was changed, cut or added since; ``error.result`` lists them.
    """
    runs = [run for folder in folders for run in _result_folders(Path(folder))]
    issues = tuple(issue for run in runs for issue in verify_run(run))
    incomplete = {}
    if not issues:
        stored = {run: read_results(run) for run in runs}
        incomplete = {run: (len(one.names), len(one.planned)) for run, one in stored.items() if not one.complete}
    found = Verification(folders=tuple(runs), issues=issues, incomplete=incomplete)
    if issues:
        error = StateError(
            f"{counted(len(issues), 'file')} not as written.",
            hint="Run the evaluation again: it redoes what is damaged.",
        )
        error.result = found
        raise error
    return found


def _result_folders(folder: Path) -> list[Path]:
    """Return the folders of results at or under ``folder``. Raises ``DataError`` where there is none."""
    runs = sorted(path.parent for path in folder.glob(f"**/{RUN_FILE}"))
    if not runs:
        raise DataError(f"{printable(folder)}: no results of vltrack evaluate here.", hint="Name their folder.")
    return runs
