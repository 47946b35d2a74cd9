"""Inputs of a report: scores of trackers, read, named and checked; boxes and frames of single sequences.

Shapes: T trackers, N frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vltrack.api.inputs import named_path
from vltrack.core.errors import DataError, UsageError, VltrackError
from vltrack.core.files import printable
from vltrack.core.json_io import read_json
from vltrack.core.types import Floats, iou_xywh
from vltrack.datasets import reader
from vltrack.datasets.sequences import Sequence as Clip
from vltrack.evaluation.results import RUN_FILE, StoredResults, open_results, read_results
from vltrack.evaluation.summary import (
    Short,
    annotations_of,
    columns_of,
    part_of,
    read_scores,
    rename_results,
    share_of,
    summarize,
)
from vltrack.evaluation.third_party import SCORES
from vltrack.metrics.agreement import agreement
from vltrack.metrics.protocols import RULES
from vltrack.plots.contact_sheet import Snapshot, select_keyframes, snapshot
from vltrack.plots.report_data import FORMAT, check_scores, row_record, snapshot_record
from vltrack.plots.timelines import downsampled, true_spans

POINTS = 700
"""Points of a timeline at most: more cannot be distinguished on paper."""
_NAMED = 8
"""Folders that a hint names at most."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Source:
    """One tracker: its name in the report, its scores (as ``scores.json``), the folder of its boxes."""

    name: str
    scores: dict[str, Any]
    folder: Path | None

    @property
    def sequences(self) -> list[str]:
        """Names of its sequences."""
        return [row["name"] for row in self.scores["sequences"]]

    @property
    def data(self) -> str:
        """Name of its data set, and of the split if there is one."""
        return printable(" ".join(filter(None, (self.scores["data"], self.scores["split"]))))


def report_document(words: Sequence[str]) -> dict[str, Any] | None:
    """Return the document where one ``report.json`` is given; None for results. Raises ``UsageError`` for both."""
    for word in words:
        path = Path(word)
        document = read_json(path) if path.suffix.lower() == ".json" and path.is_file() else None
        if isinstance(document, dict) and document.get("format") == FORMAT:
            if len(words) == 1:
                return document
            raise UsageError(
                f"{printable(word)} is a report; it cannot be combined with other results.",
                hint="Give scores.json files or folders of results, or one report.json alone.",
            )
    return None


# -- scores -------------------------------------------------------------------------------------------


def read_sources(
    words: Sequence[str], data: Path | None, short: Short = "refuse"
) -> tuple[list[Source], reader.Dataset | None]:
    """Read the trackers in the order given, and the data set; names that occur twice get their mode.

    Args:
        words: ``scores.json`` files or folders of results, each as ``PATH`` or ``NAME=PATH``.
        data: folder of the data set, which is opened with the split of the first scores; with it, a folder
            that has not been scored yet is scored.
        short: treatment of results with too few rows then, as in ``evaluation.summary``.

    Raises:
        UsageError: two with the same name.
        DataError: no scores there, or scores of another format.
    """
    named = [named_path(word) for word in words]
    scored = [_read(path) for _, path in named]
    dataset = None
    if data is not None:
        split = next((source.scores["split"] for source in scored if source is not None), None)
        dataset = reader.open_dataset(data, split=split or None)
    read = [source or _score(path, dataset, short) for source, (_, path) in zip(scored, named, strict=True)]
    trackers = [name or source.name for (name, _), source in zip(named, read, strict=True)]
    sources = []
    for (given, _), tracker, source in zip(named, trackers, read, strict=True):
        mode = source.scores.get("mode")
        twice = trackers.count(tracker) > 1 and not given
        sources.append(replace(source, name=f"{tracker} ({mode})" if twice and mode else tracker))
    names = [source.name for source in sources]
    for name, word in zip(names, words, strict=True):
        if names.count(name) > 1:
            raise UsageError(
                f"{names.count(name)} results are called {printable(name)}.", hint=f"Name them: first={printable(word)}"
            )
    _check_one_data(sources, dataset)
    return sources, dataset


def _read(path: Path) -> Source | None:
    """Return the scores of a file, or in a folder; None where they have yet to be made."""
    if not path.exists():
        raise DataError(f"{printable(path)} does not exist.", hint="Give a scores.json or a folder of results.")
    file = path / SCORES if path.is_dir() else path
    if not file.is_file() or file.suffix.lower() != ".json":
        return None
    scores = read_scores(file)
    check_scores(scores, printable(file))
    has_boxes = (file.parent / RUN_FILE).is_file() or (path.is_dir() and any(one != file for one in path.iterdir()))
    return Source(name=scores["tracker"], scores=scores, folder=file.parent if has_boxes else None)


def _score(path: Path, dataset: reader.Dataset | None, short: Short) -> Source:
    """Score a folder of boxes."""
    if path.is_dir() and not (path / RUN_FILE).is_file():
        files = [file for depth in ("*", "*/*") for name in (SCORES, RUN_FILE) for file in path.glob(f"{depth}/{name}")]
        below = sorted({printable(file.parent) for file in files})
        if below:
            more = f" and {len(below) - _NAMED} more" if len(below) > _NAMED else ""
            raise DataError(
                f"{printable(path)} holds folders of results, but no results itself.",
                hint=f"Give those of one data set: {' '.join(below[:_NAMED])}{more}",
            )
    if dataset is None:
        raise DataError(
            f"{printable(path)} has no {SCORES}.", hint="Name the data (--data PATH), or run vltrack evaluate first."
        )
    annotations = annotations_of(dataset)
    found = rename_results(annotations.names, open_results(path, annotations.names), dataset.name)
    missing = len(set(annotations.names) - {*found.boxes, *found.not_found})
    if missing and any(rule.missing == "refuse" for rule in columns_of(dataset.name, found.mode).values()):
        what = f"{printable(path)} --data {printable(dataset.root)}"
        how = f"vltrack evaluate {what} --subset present --out FOLDER"
        raise DataError(
            f"{printable(path)} has no result of {missing} of {len(annotations)} sequences.",
            hint=f"Score what is there first: {how}; then report the {SCORES} within FOLDER.",
        )
    scores = summarize(
        found, annotations, data=dataset.name, split=dataset.split, short=short, place=dataset.root.name,
        subset=part_of(dataset, len(annotations)),
    )  # fmt: skip
    return Source(name=found.tracker, scores=scores, folder=path)


def _check_one_data(sources: Sequence[Source], dataset: reader.Dataset | None) -> None:
    """Check that all scores, and the data if given, are of one data set and split. Raises ``UsageError``."""
    first = sources[0]
    for source in sources[1:]:
        if source.data != first.data:
            raise UsageError(
                f"{printable(first.name)} is on {first.data}, {printable(source.name)} on {source.data}.",
                hint="One report is about one data set and split.",
            )
    if dataset is not None and dataset.name != first.scores["data"]:
        raise UsageError(
            f"The data are {dataset.name}, the scores are of {first.data}.", hint="Give the data set that was scored."
        )


def common(sources: Sequence[Source], *, wanted: bool) -> tuple[list[Source], str, int]:
    """Return the trackers on the sequences that all have, the subset's name ("" for none), and N of n/N.

    Raises:
        UsageError: they have different sequences and it was not ``wanted`` to keep the common ones; or they
            have none in common; or a score cannot be taken over some of its sequences.
    """
    sets = [source.sequences for source in sources]
    subsets = [subset for source in sources if isinstance(subset := source.scores.get("subset"), dict)]
    sizes = [of for source in sources if isinstance(of := share_of(source.scores)[1], int)]
    if all(names == sets[0] for names in sets):
        name = str(subsets[0].get("name", "")) if subsets else ""
        return list(sources), name, max(sizes, default=len(sets[0]))
    every = {name for names in sets for name in names}
    kept = [name for name in sets[0] if all(name in names for names in map(set, sets))]
    if not wanted:
        raise UsageError(
            f"The trackers have different sequences: {len(kept)} of {len(every)} in all of them.",
            hint="Pass subset_common (--subset-common): the sequences that all have, with n/N next to every number.",
        )
    if not kept:
        raise UsageError("The trackers have no sequence in common.", hint="Score them on the same data.")
    # The same sequences in another order are not a subset.
    name = "" if len(kept) == len(every) and not subsets else "common"
    restricted = [replace(source, scores=_restricted(source.scores, kept, name)) for source in sources]
    return restricted, name, max([len(every), *sizes])


def _restricted(scores: dict[str, Any], kept: Sequence[str], subset: str) -> dict[str, Any]:
    """Return the scores over the sequences ``kept``, in this order."""
    place = {row["name"]: k for k, row in enumerate(scores["sequences"])}
    rows = [scores["sequences"][place[name]] for name in kept]
    is_part = len(kept) < len(place)
    rules = {}
    for key, ruled in scores["rules"].items():
        each = {m: [row[place[name]] for name in kept] for m, row in (ruled.get("per_sequence") or {}).items()}
        rules[key] = _means(ruled, each, rows) if is_part else ruled | {"per_sequence": each}
    of = share_of(scores)[1]
    part = {"causes": None, "subset": {"name": subset, "n": len(kept), "of": of}} if is_part else {}
    return scores | {"sequences": rows, "rules": rules} | part


def _means(ruled: dict[str, Any], each: dict[str, list[float | None]], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return scores by one rule as means over some sequences; values that cannot be derived are left out."""
    if is_pooled(ruled):
        raise UsageError(
            f"Scores of {printable(str(ruled.get('title')))} are over all frames together.",
            hint="Score every tracker on the same sequences: vltrack evaluate --subset.",
        )
    attributes = {}
    for name in ruled.get("attributes") or ():
        some = [k for k, row in enumerate(rows) if name in (row.get("attributes") or ())]
        if len(some) > 1:
            means = {m: _mean([row[k] for k in some]) for m, row in each.items()}
            attributes[name] = {"sequences": len(some), **means}
    means = {m: _mean(row) for m, row in each.items()}
    head = {"rule": ruled.get("rule"), "title": ruled.get("title")}
    return head | means | {"per_sequence": each, "attributes": attributes}


def _mean(row: Sequence[float | None]) -> float | None:
    known = [value for value in row if value is not None]
    return fmean(known) if known else None


def is_pooled(ruled: Mapping[str, Any]) -> bool:
    """Return whether scores are over the frames of all sequences together, by the rule that they name."""
    rule = RULES.get(str(ruled.get("rule")))
    return rule is not None and rule.pooled == "frames"


# -- single frames ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evidence:
    """Boxes of one tracker by the data set's names, and the run that they are of, if it is one of ours."""

    boxes: Mapping[str, Floats]
    run: StoredResults | None


def open_evidence(folder: Path, names: Sequence[str]) -> Evidence:
    """Read the boxes in a folder of results. Raises ``DataError`` if a sequence of ``names`` has none."""
    boxes = rename_results(names, open_results(folder, names)).boxes
    missing = [name for name in names if name not in boxes]
    if missing:
        raise DataError(
            f"{folder} has no boxes of {missing[0]}" + (f" and {len(missing) - 1} others." if missing[1:] else "."),
            hint="Give the folder that the scores were made from.",
        )
    return Evidence(boxes=boxes, run=read_results(folder) if (folder / RUN_FILE).is_file() else None)


def sequence_record(clip: Clip, evidence: Sequence[Evidence]) -> tuple[dict[str, Any], str]:
    """Return one sequence as ``report.json`` holds it, and why it has no images ("" if it has)."""
    boxes_TN4 = _boxes(clip, evidence)
    overlaps_TN = _overlaps(clip, boxes_TN4)
    count = overlaps_TN.shape[1]
    lanes = []
    for each, overlaps in zip(evidence, overlaps_TN, strict=True):
        own = np.empty((0, 1)) if each.run is None else each.run.scores(clip.name)[:, None]
        rows = {"overlaps": overlaps, "scores": _fitted(own, count)[:, 0]}
        lanes.append({key: row_record(downsampled(row, POINTS), 4) for key, row in rows.items()})
    shots, reason = _snapshots(clip, boxes_TN4, overlaps_TN)
    record = {
        "name": clip.name,
        "sentence": clip.sentence,
        "frames": count,
        "absent": [list(span) for span in true_spans(~_there(clip))],
        "lanes": lanes,
        "snapshots": [snapshot_record(shot) for shot in shots],
    }
    return record, reason


def _snapshots(clip: Clip, boxes_TN4: Floats, overlaps_TN: Floats) -> tuple[list[Snapshot], str]:
    if clip.files == ():
        return [], "there is only the annotation, without images."
    picks = select_keyframes(overlaps_TN)
    some = clip if clip.files is None else replace(clip, files=tuple(clip.files[pick] for pick in picks))
    shots = []
    try:
        with closing(some.frames()) as frames:
            for number, frame in enumerate(frames):
                index = number if clip.files is None else picks[number]
                if index in picks and frame.image is not None:
                    truth = clip.boxes[index] if _there(clip)[index] else np.full(4, np.nan)
                    shots.append(snapshot(frame.image, index, truth, boxes_TN4[:, index], overlaps_TN[:, index]))
                if index >= picks[-1]:
                    break
    except VltrackError as error:
        return [], error.message
    return shots, ""


def similarity(clips: Sequence[Clip], evidence: Sequence[Evidence]) -> Floats:
    """Return the mean overlap (T + 1, T + 1) of each pair, the ground truth first: over the frames of a
    sequence with the target, then over the sequences; NaN where there is none.
    """
    each = []
    for clip in clips:
        boxes = np.concatenate([clip.boxes[None], _boxes(clip, evidence)])
        each.append(agreement(boxes[:, _there(clip)]).matrix_TT)
    means: Floats = np.ma.masked_invalid(each).mean(axis=0).filled(np.nan)
    return means


def _there(clip: Clip) -> NDArray[np.bool_]:
    """Return in which frames (N,) the ground truth has a box."""
    seen: NDArray[np.bool_] = ~clip.absent & np.isfinite(clip.boxes).all(axis=1) & (clip.boxes[:, 2:] > 0).all(axis=1)
    return seen


def _boxes(clip: Clip, evidence: Sequence[Evidence]) -> Floats:
    """Return the boxes (T, N, 4); NaN where a tracker has no row."""
    return np.stack([_fitted(each.boxes[clip.name], len(clip.boxes)) for each in evidence])


def _fitted(rows: Floats, count: int) -> Floats:
    """Return ``count`` rows (count, C): cut, or filled up with NaN."""
    fitted = np.full((count, rows.shape[1]), np.nan)
    fitted[: min(count, len(rows))] = rows[:count]
    return fitted


def _overlaps(clip: Clip, boxes_TN4: Floats) -> Floats:
    """Return the overlap (T, N) with the ground truth; NaN without any, 0 where a tracker has no box."""
    known = np.isfinite(boxes_TN4).all(axis=2)
    overlaps = np.where(known, iou_xywh(np.nan_to_num(boxes_TN4), np.nan_to_num(clip.boxes)), 0.0)
    known_TN: Floats = np.where(_there(clip), overlaps, np.nan)
    return known_TN
