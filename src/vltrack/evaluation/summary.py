"""All that is said of one tracker's results on one data set, as plain data for tables, files and pictures.

Knows scores and how they are put into words; draws and prints nothing, and needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vltrack.core.errors import DataError
from vltrack.core.files import as_resource_error, counted, write_text
from vltrack.core.json_io import read_json
from vltrack.core.types import Floats, iou_xywh
from vltrack.datasets.reader import Dataset
from vltrack.evaluation.results import read_results, results_of_run
from vltrack.evaluation.third_party import TrackerResults, match_names
from vltrack.metrics.annotations import Annotation, Annotations, Flags
from vltrack.metrics.frame_errors import NO_ROW
from vltrack.metrics.protocol_search import causes, trivial_hits
from vltrack.metrics.protocols import RULES, Rule, benchmark_of
from vltrack.metrics.scoring import CURVES, MEASURES, Scores, align, score, upper_bound, webuav

FORMAT = "vltrack.scores"
VERSION = 1
SCORES = "scores.json"
Short = Literal["refuse", "misses", "cut"]
OWN_FIRST = "own first frame"


@dataclass(frozen=True, kw_only=True, slots=True)
class Subset:
    """The part of a data set that is scored: what it is called, and its ``n`` of ``of`` sequences."""

    name: str
    n: int
    of: int

    def __str__(self) -> str:
        return f"{self.name} {self.n}/{self.of}"


def annotations_of(dataset: Dataset) -> Annotations:
    """The annotations of a data set for the scorer.

    Raises:
        DataError: the boxes of a sequence are held back by its authors.
    """
    hidden = [sequence.name for sequence in dataset.sequences if sequence.annotations_withheld]
    if hidden:
        raise DataError(
            f"{len(hidden)} of {len(dataset.sequences)} sequences have only their first box annotated"
            f" ({hidden[0]}, ...): the truth is held back.",
            hint="Pack the results (--pack) and send them to the benchmark's server.",
        )
    return Annotations.join(
        Annotation(
            name=sequence.name,
            boxes=sequence.boxes,
            absent=sequence.absent,
            cover=sequence.cover,
            size=sequence.size,
            attributes=sequence.attributes,
        )
        for sequence in dataset.sequences
    )


def rename_results(names_of_data: Collection[str], results: TrackerResults) -> TrackerResults:
    """The same results under the data set's names. Raises ``DataError`` where two fit one name."""
    names = match_names(names_of_data, results.boxes)
    return replace(
        results,
        nothing=tuple(match_names(names_of_data, results.nothing)),
        boxes={name: results.boxes[other] for name, other in names.items()},
        seconds={name: results.seconds[other] for name, other in names.items() if other in results.seconds},
    )


def summarize(
    results: TrackerResults,
    truth: Annotations,
    *,
    data: str,
    split: str,
    place: str = "",
    subset: Subset | None = None,
    short: Short = "refuse",
    more_rules: Iterable[str] = (),
) -> dict[str, Any]:
    """Everything that is known of these results (the form of ``scores.json``; docs/evaluate.md).

    Args:
        results: boxes under the data set's names (``rename_results``).
        truth: of the sequences that are scored.
        data, split: names of the data set and its part.
        place: what its folder is called; it tells two sets of clips of one's own apart.
        subset: said beside every number where ``truth`` is not the whole data set.
        short: what to do with results that have fewer rows than a rule wants: an error; the frames that are
            not there count as misses; or both are cut to the shorter.
        more_rules: names of conventions to score by beside the data set's own.

    Raises:
        DataError: results are missing or do not fit the annotation.
    """
    results = _with_misses(results, truth)
    columns = columns_of(data, results.mode)
    for name in more_rules:
        if RULES[name] not in columns.values():  # the column vlt-python is another rule for some data sets
            columns[f"{name}, plain" if name in columns else name] = RULES[name]
    rules = {column: with_short(rule, short) for column, rule in columns.items()}
    scored = {column: _scored(truth, results, rule) for column, rule in rules.items()}
    return {
        "format": FORMAT,
        "version": VERSION,
        "tracker": results.tracker,
        "mode": results.mode,
        "data": data,
        "split": split,
        "place": place,
        "subset": None if subset is None else asdict(subset),
        "note": benchmark_of(data).note,
        "notes": [*results.notes, *remarks(results, truth, short)],
        "sequences": _sequences(truth, results),
        "causes": asdict(causes(truth)),
        "speed": _speed(results),
        "rules": {
            column: _told(truth, scores, rules[column], _extra(truth, results, rules[column]))
            for column, scores in scored.items()
        },
    }


def _with_misses(results: TrackerResults, truth: Annotations) -> TrackerResults:
    """The results with rows for the sequences in which nothing was found."""
    lengths = dict(zip(truth.names, truth.lengths.tolist(), strict=True))
    missed = {name: np.full((lengths[name], 4), NO_ROW) for name in results.nothing if name in lengths}
    return replace(results, boxes={**results.boxes, **missed})


def columns_of(data: str, mode: str = "") -> dict[str, Rule]:
    """The rules that a data set is scored by, by column.

    ``official``; ``vlt-python`` where that is another rule; for a start by words also ``own first frame``:
    the official rule with the box that the words found in the first frame, which every toolkit replaces by
    the truth.
    """
    benchmark = benchmark_of(data)
    columns = benchmark.rules
    if benchmark.official == benchmark.papers:
        del columns["vlt-python"]
    if mode == "nl" and columns["official"].first == "truth":
        columns[OWN_FIRST] = replace(columns["official"], first="keep", drops_empty=False)
    return columns


def with_short(rule: Rule, short: Short) -> Rule:
    """The rule with another answer to results that have too few rows; a cut is the same for every rule."""
    if short == "refuse" or (short == "misses" and rule.short != "refuse"):
        return rule
    return replace(rule, short=short)


def _scored(truth: Annotations, results: TrackerResults, rule: Rule) -> Scores:
    laid, boxes = align(truth, results.boxes, rule)
    return score(laid, boxes, rule)


def _told(truth: Annotations, scores: Scores, rule: Rule, extra: dict[str, float]) -> dict[str, Any]:
    top = upper_bound(truth, rule)
    return {
        "rule": rule.name,
        "title": rule.title,
        "measures": _unusual(rule),
        "first": rule.first,
        **_values(scores),
        **{f"{curve}_curve": _plain(scores.curve(curve)) for curve in CURVES},
        "success_thresholds": _plain(rule.success_thresholds),
        "precision_thresholds": _plain(rule.precision_thresholds),
        "norm_precision_thresholds": _plain(rule.norm_thresholds),
        "per_sequence": {name: _plain(100 * scores.each(name)) for name in MEASURES},
        "attributes": {
            name: {"sequences": int(flags.sum()), **_values(scores, flags)}
            for name, flags in truth.attributes.items()
            if flags.sum() > 1
        },
        "ceiling": _values(top),
        "free_hits": trivial_hits(truth, rule),
        "extra": extra,
    }


def _values(scores: Scores, among: Flags | None = None) -> dict[str, float | None]:
    return {name: _number(100 * scores.value(name, among)) for name in MEASURES}


def _extra(truth: Annotations, results: TrackerResults, rule: Rule) -> dict[str, float]:
    """What only one benchmark has, in percent."""
    if rule.name not in ("webuav", "trackingnet") or rule.first != "truth":
        return {}
    laid, boxes = align(truth, results.boxes, rule)
    if rule.name == "trackingnet":
        there = np.array((boxes[:, 2:] > 0).all(axis=1) & np.isfinite(boxes).all(axis=1))
        there[laid.starts[:-1]] = True
        return {"coverage": 100 * float(there.mean())}
    own = webuav(laid, boxes, np.isnan(boxes).all(axis=1))
    return {"mean_accuracy": 100 * own.accuracy, "complete_auc": 100 * own.complete_auc}


def _unusual(rule: Rule) -> dict[str, str]:
    """What the rule means by its measures, where it is not what most toolkits mean."""
    unusual = {
        "auc": rule.success_score == "area" and "area under the success curve",
        "precision": rule.precision_score == "area" and "area under the precision curve to 50 px",
        "norm_precision": {"mean": "mean of the curve to 0.5", "area": "area under the curve to 0.5"}.get(
            rule.norm_score
        ),
    }
    return {name: words for name, words in unusual.items() if isinstance(words, str)}


def remarks(results: TrackerResults, truth: Annotations, short: Short) -> list[str]:
    """What a reader of the score has to know of the rows: those that are missing, too many, or no box."""
    rows = {name: len(results.boxes[name]) for name in truth.names if name in results.boxes}
    lengths = dict(zip(truth.names, truth.lengths.tolist(), strict=True))
    missing = [name for name in truth.names if name not in rows]
    fewer = [f"{name} {rows[name]:,} of {lengths[name]:,}" for name in rows if rows[name] < lengths[name]]
    more = [f"{name} {rows[name]:,} for {lengths[name]:,}" for name in rows if rows[name] > lengths[name]]
    broken = {name: _broken(results.boxes[name][: lengths[name]]) for name in rows}
    broken = {name: count for name, count in broken.items() if count}
    told = []
    if missing:
        told.append(f"{counted(len(missing), 'sequence')} without a result, zeros: {_some(missing)}.")
    if fewer:
        how = {"cut": "the annotation is cut to them", "misses": "frames without a row are misses"}
        fate = how.get(short, "each rule fills them in its own way")
        told.append(f"{counted(len(fewer), 'result')} with too few rows, {fate}: {_some(fewer)}.")
    if more:
        other = sum(rows[name] > 1.5 * lengths[name] for name in rows) > len(rows) / 2
        hint = " Most have far more: is this another version of the data?" if other else ""
        told.append(f"{counted(len(more), 'result')} with too many rows, cut: {_some(more)}.{hint}")
    if broken:
        told.append(
            f"{counted(sum(broken.values()), 'row')} without a box (NaN, or no width or height) in"
            f" {counted(len(broken), 'result')}; the box before is repeated or it is a miss: {_some(broken)}."
        )
    return told


def _broken(boxes: Floats) -> int:
    """Rows after the first that are no box; ``NO_ROW`` is told elsewhere."""
    rows = boxes[1:][~np.isposinf(boxes[1:, 0])]
    return int((~(np.isfinite(rows).all(axis=1) & (rows[:, 2:] > 0).all(axis=1))).sum())


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


def _sequences(truth: Annotations, results: TrackerResults) -> list[dict[str, Any]]:
    rows = []
    for index, name in enumerate(truth.names):
        part = truth.rows(index)
        boxes = results.boxes.get(name)
        first = None if boxes is None or not len(boxes) else _overlap(boxes[0], truth.boxes[part][0])
        rows.append(
            {
                "name": name,
                "frames": part.stop - part.start,
                "absent": int(truth.absent[part].sum()),
                "attributes": [key for key, flags in truth.attributes.items() if flags[index]],
                "first_overlap": first,
            }
        )
    return rows


def _overlap(box: Floats, true: Floats) -> float | None:
    pair = np.stack([box, true])
    if not (np.isfinite(pair).all() and (pair[:, 2:] > 0).all()):
        return None
    return min(1.0, float(iou_xywh(box, true)))


def _speed(results: TrackerResults) -> dict[str, float] | None:
    """Frames a second and the median frame in milliseconds, each first frame left out; None if not known."""
    later = [seconds[1:] for seconds in results.seconds.values() if len(seconds) > 1]
    every = np.concatenate(later) if later else np.zeros(0)
    every = every[np.isfinite(every) & (every > 0)]
    if not len(every):
        return None
    return {"fps": float(1 / every.mean()), "ms_median": 1000 * float(np.median(every))}


def _plain(values: Floats) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float) -> float | None:
    """JSON has no NaN: what there is no number for is null. Twelve digits keep files the same everywhere."""
    return None if not np.isfinite(value) else float(f"{float(value):.12g}")


def differing(told: Mapping[str, Any]) -> bool:
    """Whether the two conventions of a summary give different numbers, to the second decimal."""
    rules = told["rules"]
    if "vlt-python" not in rules:
        return False
    pairs = [
        (rules["official"][name], rules["vlt-python"][name])
        for name in ("auc", "precision", "norm_precision")
    ]
    return any(round(a or 0, 2) != round(b or 0, 2) for a, b in pairs)


def first_frames(told: Mapping[str, Any]) -> tuple[int, int, float]:
    """How many first boxes are right (overlap above 0.5), of how many, and their mean overlap."""
    values = [row["first_overlap"] for row in told["sequences"] if row["first_overlap"] is not None]
    return sum(value > 0.5 for value in values), len(values), float(np.mean(values)) if values else 0.0


def write_scores(folder: Path, told: Mapping[str, Any]) -> Path:
    """Write ``scores.json`` into a folder of results, all but the speed: the same results, the same bytes.

    Raises:
        ResourceError: the folder cannot be made or written.
    """
    path = folder / SCORES
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise as_resource_error(error, folder) from error
    kept = {key: value for key, value in told.items() if key != "speed"}
    write_text(path, json.dumps(kept, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_scores(path: Path) -> dict[str, Any]:
    """What ``write_scores`` wrote, from the file or its folder; with the speed where its times are there.

    Raises:
        DataError: no such file, or not one of ours.
        StateError: a file of the run was changed after it was written.
    """
    folder = path if path.is_dir() else path.parent
    told = read_json(path / SCORES if path.is_dir() else path)
    if not isinstance(told, dict) or told.get("format") != FORMAT or told.get("version") != VERSION:
        raise DataError(
            f"{path} holds no scores of this version of vltrack.", hint="Score the results: vltrack evaluate."
        )
    speed = _speed(results_of_run(read_results(folder))) if (folder / "run.json").is_file() else None
    return {**told, "speed": speed}
