"""Summarize the scores of one tracker on one data set as plain data: the content of ``scores.json``.

Tables, reports and figures are made from it. Needs no torch.
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
from vltrack.datasets.parsing import read_names
from vltrack.datasets.published import published
from vltrack.datasets.reader import Dataset
from vltrack.evaluation.results import read_results, results_of_run
from vltrack.evaluation.third_party import SCORES, TrackerResults, match_names
from vltrack.metrics.annotations import Annotation, Annotations, Flags, is_box, listed
from vltrack.metrics.protocol_search import causes, trivial_hits
from vltrack.metrics.protocols import RULES, Rule, benchmark_of
from vltrack.metrics.scoring import (
    CURVES,
    FIRST_MISSING,
    MEASURES,
    NO_ROW,
    Scores,
    align,
    count_rows,
    score,
    upper_bound,
    webuav,
)

FORMAT = "vltrack.scores"
VERSION = 1
Short = Literal["refuse", "misses", "cut"]
OWN_FIRST = "own first frame"


@dataclass(frozen=True, kw_only=True, slots=True)
class Subset:
    """The part that is scored: its name, and its ``n`` of ``of`` sequences; see ``part_of``."""

    name: str
    n: int
    of: int


def part_of(dataset: Dataset, n: int, name: str = "") -> Subset | None:
    """Return the part ``name`` with ``n`` sequences of a data set; None if they are all of it.

    Without a name: the part of the published split that is on the disk.
    """
    of = len(dataset.sequences) if name else dataset.of
    return None if n == of else Subset(name=name or "on disk", n=n, of=of)


def choose_part(
    wanted: str | None, dataset: Dataset, annotations: Annotations, results: TrackerResults
) -> tuple[Annotations, Subset | None]:
    """Return the sequences to score: those that a file lists, ``present`` ones, or all.

    Raises ``DataError`` where a listed one does not exist.
    """
    if wanted is None:
        if not results.left_out:
            return annotations, part_of(dataset, len(annotations))
        part = annotations.only(set(annotations.names) - set(results.left_out))
        return part, part_of(dataset, len(part), "with a sentence")
    names = sorted({*results.boxes, *results.not_found}) if wanted == "present" else read_names(Path(wanted))
    if not names:
        raise DataError("No sequence of the data set has a result.", hint="Check the names of the files.")
    part = annotations.only(names)
    chosen = part_of(dataset, len(part), "present" if wanted == "present" else Path(wanted).stem)
    return part, chosen or part_of(dataset, len(part))


def annotations_of(dataset: Dataset) -> Annotations:
    """Collect the annotations of a data set for the scorer.

    Raises:
        DataError: the boxes of a sequence are withheld by its authors.
    """
    withheld = [sequence.name for sequence in dataset.sequences if sequence.annotations_withheld]
    if withheld:
        raise DataError(
            f"The annotations are withheld: {len(withheld)} of {len(dataset.sequences)} sequences have only"
            f" their first box ({withheld[0]}, ...).",
            hint="Send the results to the benchmark's server; --pack writes its archive for GOT-10k and TrackingNet.",
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


def rename_results(names: Collection[str], results: TrackerResults, data: str = "") -> TrackerResults:
    """Rename results to the ``names`` of the sequences of the data set ``data``; note the files of no sequence.

    Raises ``DataError`` where two match one name, or the file of a sequence cannot be read.
    """
    matches = match_names(names, results.boxes, data)
    broken = match_names([name for name in names if name not in matches], results.unreadable, data)
    for error in map(results.unreadable.__getitem__, broken.values()):
        raise error
    notes = list(results.notes)
    if results.passed_over:
        notes.append(f"passed over, no results: {listed(results.passed_over, 5)}.")
    others = sorted(set(results.boxes) - set(matches.values()))
    if others and matches:
        notes.append(
            f"{counted(len(others), 'result')} of no sequence of the data set, not scored: {listed(others, 5)}."
        )
    return replace(
        results,
        not_found=tuple(match_names(names, results.not_found, data)),
        boxes={name: results.boxes[other] for name, other in matches.items()},
        seconds={name: results.seconds[other] for name, other in matches.items() if other in results.seconds},
        notes=tuple(notes),
    )


def summarize(
    results: TrackerResults,
    annotations: Annotations,
    *,
    data: str,
    split: str,
    place: str = "",
    subset: Subset | None = None,
    short: Short = "refuse",
    more_rules: Iterable[str] = (),
) -> dict[str, Any]:
    """Score results by every rule of their data set (the form of ``scores.json``; docs/evaluate.md).

    Args:
        results: boxes under the data set's names (``rename_results``).
        annotations: of the sequences that are scored.
        data, split: names of the data set and its part.
        place: name of its folder, which distinguishes two sets of clips of your own.
        subset: reported with every number if ``annotations`` are not those of the whole data set.
        short: how to treat results with fewer rows than a rule wants: raise an error; count the missing
            frames as misses; or cut both to the shorter.
        more_rules: names of rules to score by in addition to the data set's own.

    Raises:
        DataError: results are missing or do not fit the annotations.
    """
    lengths = dict(zip(annotations.names, annotations.lengths.tolist(), strict=True))
    missed = {name: np.full((lengths[name], 4), NO_ROW) for name in results.not_found if name in lengths}
    results = replace(results, boxes={**results.boxes, **missed})
    columns = columns_of(data, results.mode)
    for name in more_rules:
        if RULES[name] not in columns.values():  # the column vlt-python is another rule for some data sets
            columns[f"{name}, plain" if name in columns else name] = RULES[name]
    return {
        "format": FORMAT,
        "version": VERSION,
        "tracker": results.tracker,
        "mode": results.mode,
        "data": data,
        "split": split,
        "place": place,
        "subset": None if subset is None else asdict(subset),
        "published": published(data, split) or None,
        "note": benchmark_of(data).note,
        "notes": [*results.notes, *row_notes(results, annotations, short)],
        "sequences": _sequences(annotations, results),
        "causes": causes(annotations),
        "speed": _speed(results),
        "rules": {
            column: _rule_record(results, annotations, with_short(rule, short)) for column, rule in columns.items()
        },
    }


def columns_of(data: str, mode: str = "") -> dict[str, Rule]:
    """Return the rules that a data set is scored by, by column.

    ``official``; ``vlt-python`` where that is another rule; for text-only initialization also ``own first
    frame``: the official rule with the tracker's own box in the first frame, which every toolkit replaces by
    the ground truth.
    """
    benchmark = benchmark_of(data)
    columns = benchmark.rules
    if benchmark.official == benchmark.papers:
        del columns["vlt-python"]
    if mode == "nl" and columns["official"].first == "truth":
        columns[OWN_FIRST] = replace(columns["official"], first="keep", drops_empty=False)
    return columns


def with_short(rule: Rule, short: Short) -> Rule:
    """Change how a rule treats results with too few rows; a cut is the same for every rule."""
    if short == "refuse" or (short == "misses" and rule.short != "refuse"):
        return rule
    return replace(rule, short=short)


def _rule_record(results: TrackerResults, annotations: Annotations, rule: Rule) -> dict[str, Any]:
    aligned, boxes = align(annotations, results.boxes, rule)
    scores = score(aligned, boxes, rule)
    return {
        "rule": rule.name,
        "title": rule.title,
        "measures": _deviations(rule),
        "first": rule.first,
        **_values(scores),
        **{f"{curve}_curve": _json_list(scores.curve(curve)) for curve in CURVES},
        "success_thresholds": _json_list(rule.success_thresholds),
        "precision_thresholds": _json_list(rule.precision_thresholds),
        "norm_precision_thresholds": _json_list(rule.norm_thresholds),
        "per_sequence": {name: _json_list(100 * scores.each(name)) for name in MEASURES},
        "attributes": {
            name: {"sequences": int(flags.sum()), **_values(scores, flags)}
            for name, flags in annotations.attributes.items()
            if flags.sum() > 1
        },
        "ceiling": _values(upper_bound(annotations, rule)),
        "free_hits": trivial_hits(annotations, rule),
        "extra": _extra(aligned, boxes, rule),
    }


def _values(scores: Scores, among: Flags | None = None) -> dict[str, float | None]:
    return {name: _json_number(100 * scores.value(name, among)) for name in MEASURES}


def _extra(annotations: Annotations, boxes: Floats, rule: Rule) -> dict[str, float]:
    """Measures that only one benchmark has, in percent."""
    if rule.name == "trackingnet" and rule.first == "truth":
        there = is_box(boxes)
        there[annotations.starts[:-1]] = True
        return {"coverage": 100 * float(there.mean())}
    if rule.name == "webuav" and rule.first == "truth":
        accuracy, complete = webuav(annotations, boxes, np.array(np.isnan(boxes).all(axis=1)))
        return {"mean_accuracy": 100 * accuracy, "complete_auc": 100 * complete}
    return {}


def _deviations(rule: Rule) -> dict[str, str]:
    """Definitions of the rule's measures that differ from those of most toolkits."""
    definitions = {
        ("auc", rule.success_score): {"area": "area under the success curve"},
        ("precision", rule.precision_score): {"area": "area under the precision curve to 50 px"},
        ("norm_precision", rule.norm_score): {
            "mean": "mean of the curve to 0.5",
            "area": "area under the curve to 0.5",
        },
    }
    return {measure: texts[how] for (measure, how), texts in definitions.items() if how in texts}


def row_notes(results: TrackerResults, annotations: Annotations, short: Short) -> list[str]:
    """Sentences on the rows of the results that are missing, too many, or not a box."""
    lengths = dict(zip(annotations.names, annotations.lengths.tolist(), strict=True))
    rows = {name: count_rows(results.boxes[name], lengths[name]) for name in lengths if name in results.boxes}
    missing = [name for name in annotations.names if name not in rows]
    fewer = [f"{name} {rows[name]:,} of {lengths[name]:,}" for name in rows if rows[name] < lengths[name]]
    more = [f"{name} {rows[name]:,} for {lengths[name]:,}" for name in rows if rows[name] > lengths[name]]
    broken = {}
    for name in rows:
        later = results.boxes[name][1 : lengths[name]]
        # A row of NO_ROW is not written by a tracker; the miss is reported by ``not_found``.
        count = int((~is_box(later) & ~np.isposinf(later[:, 0])).sum())
        if count:
            broken[name] = count
    notes = []
    if missing:
        notes.append(f"{counted(len(missing), 'sequence')} without a result, zeros: {listed(missing, 5)}.")
    if fewer:
        how = {"cut": "frames without a row do not count", "misses": "frames without a row are misses"}
        fate = how.get(short, "each rule fills them in its own way")
        first = FIRST_MISSING if all(rows[name] in (lengths[name] - 1, lengths[name]) for name in rows) else ""
        notes.append(f"{counted(len(fewer), 'result')} with too few rows, {fate}: {listed(fewer, 5)}.{first}")
    if more:
        other = sum(rows[name] > 1.5 * lengths[name] for name in rows) > len(rows) / 2
        hint = " Most have far more: is this another version of the data?" if other else ""
        notes.append(f"{counted(len(more), 'result')} with too many rows, cut: {listed(more, 5)}.{hint}")
    if broken:
        notes.append(
            f"{counted(sum(broken.values()), 'row')} without a box (NaN, or no width or height) in"
            f" {counted(len(broken), 'result')}; the box before is repeated or it is a miss: {listed(list(broken), 5)}."
        )
    forms: dict[str, list[str]] = {}
    for index, name in enumerate(annotations.names):
        if name in rows and (form := _other_form(results.boxes[name], annotations.boxes[annotations.rows(index)])):
            forms.setdefault(form, []).append(name)
    notes += [
        f"{counted(len(some), 'result')} may be {form}, not x,y,w,h: {listed(some)}." for form, some in forms.items()
    ]
    return notes


def _other_form(boxes: Floats, truth: Floats) -> str:
    """Return what the ``boxes`` (N, 4) of one sequence may be, as they fit far better so; "" for x,y,w,h."""
    count = min(len(boxes), len(truth))
    both = np.isfinite(boxes[:count]).all(axis=1) & is_box(truth[:count])
    both[:1] = False  # many trackers copy the first box
    if both.sum() < 2:
        return ""
    boxes, truth = boxes[:count][both], truth[:count][both]
    if boxes.max() <= 1.5 and truth[:, 2:].min() > 1.5:
        return "shares of the frame"
    first, last = boxes[:, :2], boxes[:, 2:]
    forms = {
        "corners x1,y1,x2,y2": np.c_[first, last - first],
        "center x, center y, w, h": np.c_[first - last / 2, last],
    }
    given = float(iou_xywh(boxes, truth).mean())
    for form, other in forms.items():
        fit = np.where(is_box(other), iou_xywh(np.maximum(other, [-np.inf, -np.inf, 0, 0]), truth), 0).mean()
        if fit > max(0.5, given + 0.25):
            return form
    return ""


def _sequences(annotations: Annotations, results: TrackerResults) -> list[dict[str, Any]]:
    records = []
    for index, name in enumerate(annotations.names):
        part = annotations.rows(index)
        pair = np.concatenate([results.boxes.get(name, np.zeros((0, 4)))[:1], annotations.boxes[part][:1]])
        both = len(pair) == 2 and is_box(pair).all()
        records.append(
            {
                "name": name,
                "frames": part.stop - part.start,
                "absent": int(annotations.absent[part].sum()),
                "attributes": [key for key, flags in annotations.attributes.items() if flags[index]],
                "first_overlap": min(1.0, float(iou_xywh(*pair))) if both else None,
            }
        )
    return records


def _speed(results: TrackerResults) -> dict[str, float] | None:
    """Frames per second and the median frame in milliseconds, without first frames; None if not known."""
    later = [seconds[1:] for seconds in results.seconds.values() if len(seconds) > 1]
    every = np.concatenate(later) if later else np.zeros(0)
    every = every[np.isfinite(every) & (every > 0)]
    if not len(every):
        return None
    return {"fps": float(1 / every.mean()), "ms_median": 1000 * float(np.median(every))}


def _json_list(values: Floats) -> list[float | None]:
    return [_json_number(value) for value in values]


def _json_number(value: float) -> float | None:
    """Number for JSON, null if not finite; twelve digits keep files the same on every machine."""
    return float(f"{float(value):.12g}") if np.isfinite(value) else None


# -- reading a summary --------------------------------------------------------------------------------------


def share_of(summary: Mapping[str, Any]) -> tuple[int, int]:
    """Number of sequences that are scored, and of those of the published split, or else of the data set.

    The scores are the benchmark's own only where the two are equal.
    """
    n = len(summary["sequences"])
    return n, summary.get("published") or (summary.get("subset") or {"of": n})["of"]


def protocols_differ(summary: Mapping[str, Any]) -> bool:
    """Return whether the two protocols of a summary give different numbers, to the second decimal."""
    rules = summary["rules"]
    if "vlt-python" not in rules:
        return False
    pairs = [(rules["official"][name], rules["vlt-python"][name]) for name in ("auc", "precision", "norm_precision")]
    return any(round(a or 0, 2) != round(b or 0, 2) for a, b in pairs)


def first_frames(summary: Mapping[str, Any]) -> tuple[int, int, float]:
    """Number of first boxes that are right (overlap above 0.5), number of all, and their mean overlap."""
    values = [row["first_overlap"] for row in summary["sequences"] if row["first_overlap"] is not None]
    return sum(value > 0.5 for value in values), len(values), float(np.mean(values)) if values else 0.0


def write_scores(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write ``scores.json`` into a folder, without the speed: the same results give the same bytes.

    Raises:
        ResourceError: the folder cannot be made or written.
    """
    path = folder / SCORES
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise as_resource_error(error, folder) from error
    kept = {key: value for key, value in summary.items() if key != "speed"}
    write_text(path, json.dumps(kept, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_scores(path: Path) -> dict[str, Any]:
    """Read what ``write_scores`` wrote, from the file or its folder; with the speed if its times are there.

    Raises:
        DataError: no such file, or not one of ours.
        StateError: a file of the run was changed after it was written.
    """
    folder = path if path.is_dir() else path.parent
    summary = read_json(path / SCORES if path.is_dir() else path)
    ours = isinstance(summary, dict) and (summary.get("format"), summary.get("version")) == (FORMAT, VERSION)
    if not ours:
        raise DataError(f"No scores of this version of vltrack in {path}.", hint="Score the results: vltrack evaluate.")
    speed = _speed(results_of_run(read_results(folder))) if (folder / "run.json").is_file() else None
    return {**summary, "speed": speed}
