"""What a report is made of: scores of trackers, read, named and checked to be of one kind. Draws nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vltrack.api.console import shown
from vltrack.core.errors import DataError, UsageError, VltrackError
from vltrack.core.json_io import read_json
from vltrack.core.types import Floats, iou_xywh
from vltrack.plots.contact_sheet import Snapshot, select_keyframes, snapshot
from vltrack.plots.report_data import row_record, snapshot_record
from vltrack.plots.timelines import downsampled, spans

if TYPE_CHECKING:
    from vltrack.datasets.reader import Dataset
    from vltrack.datasets.sequences import Sequence as Clip
    from vltrack.evaluation.summary import Short
    from vltrack.evaluation.third_party import TrackerResults


SCORES, REPORT = "vltrack.scores", "vltrack.report"
FILE, RUN = "scores.json", "run.json"
_NAMED = 8
"""Folders that a hint names at most."""
_COMMON = "Add --subset-common to compare what all have; n/N then stands beside every number."


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


def report_document(words: Sequence[str]) -> dict[str, Any] | None:
    """The document, where the only thing given is a ``report.json``; None where it is results.

    Raises:
        DataError: a file that is no JSON.
        UsageError: a report among other things.
    """
    found = [word for word in words if Path(word).is_file() and _kind(Path(word)) == REPORT]
    if not found:
        return None
    if len(words) > 1:
        raise UsageError(
            f"{shown(found[0])} is a whole report; nothing else can be drawn with it.",
            hint="Give scores.json files or folders of results, or one report.json alone.",
        )
    document: dict[str, Any] = read_json(Path(found[0]))
    return document


def _kind(path: Path) -> str:
    document = read_json(path) if path.suffix.lower() == ".json" else None
    return str(document.get("format")) if isinstance(document, dict) else ""


def read_sources(words: Sequence[str], dataset: Dataset | None, short: Short = "refuse") -> list[Source]:
    """The trackers in the order given; names that occur twice get their mode.

    Args:
        words: ``scores.json`` files or folders of results, each as ``PATH`` or ``NAME=PATH``.
        dataset: with it, a folder that has not been scored yet is scored.
        short: what is then done with results that have too few rows, as in ``evaluation.summary``.

    Raises:
        UsageError: two that cannot be told apart by name.
        DataError: no scores there, or scores of another format.
    """
    named = [_split(word) for word in words]
    read = [_read(path, dataset, short) for _, path in named]
    trackers = [name or source.name for (name, _), source in zip(named, read, strict=True)]
    sources = []
    for (given, _), tracker, source in zip(named, trackers, read, strict=True):
        mode = source.scores.get("mode") or ""
        twice = trackers.count(tracker) > 1 and not given
        sources.append(replace(source, name=f"{tracker} ({mode})" if twice and mode else tracker))
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"{names.count(name)} results are called {shown(name)}.",
                hint=f"Name them: first={shown(words[names.index(name)])}",
            )
    return sources


def split_of(words: Sequence[str]) -> str | None:
    """The split that the first scored results are of; None where none are scored yet.

    Raises:
        DataError: a score file that does not read.
    """
    for _, path in map(_split, words):
        file = path / FILE if path.is_dir() else path
        if file.is_file() and file.suffix.lower() == ".json":
            split = read_json(file).get("split") if _kind(file) == SCORES else None
            return split if isinstance(split, str) and split else None
    return None


def _split(word: str) -> tuple[str, Path]:
    """Name and path of ``NAME=PATH``; a path that exists as it stands has no name."""
    name, sign, path = word.partition("=")
    if Path(word).exists() or not sign or not name:
        return "", Path(word)
    return name, Path(path)


def _read(path: Path, dataset: Dataset | None, short: Short) -> Source:
    if not path.exists():
        raise DataError(f"{shown(path)} is not there.", hint="Give a scores.json or a folder of results.")
    file = path / FILE if path.is_dir() else path
    if file.is_file() and file.suffix.lower() == ".json":
        from vltrack.evaluation.summary import read_scores
        from vltrack.plots.report_data import check_scores

        scores = read_scores(file)
        check_scores(scores, shown(file))
        beside = path if path.is_dir() else path.parent
        folder = beside if path.is_dir() or (beside / RUN).is_file() else None
        return Source(name=scores["tracker"], scores=scores, folder=folder)
    _check_depth(path)
    if dataset is None:
        raise DataError(
            f"{shown(path)} has no {FILE}.",
            hint="Add --data PATH to score it, or run vltrack evaluate first.",
        )
    return _scored(path, dataset, short)


def _check_depth(path: Path) -> None:
    """That ``path`` is no folder of folders of results. Raises ``DataError``, which names those below it."""
    if not path.is_dir() or (path / RUN).is_file():
        return
    files = [file for depth in ("*", "*/*") for name in (FILE, RUN) for file in path.glob(f"{depth}/{name}")]
    below = sorted({file.parent for file in files})
    if not below:
        return
    more = f" and {len(below) - _NAMED} more" if len(below) > _NAMED else ""
    raise DataError(
        f"{shown(path)} holds folders of results, no results itself.",
        hint=f"Give those of one data set: {' '.join(shown(folder) for folder in below[:_NAMED])}{more}",
    )


def _scored(path: Path, dataset: Dataset, short: Short) -> Source:
    """A folder of boxes, scored here."""
    from vltrack.evaluation.results import open_results
    from vltrack.evaluation.summary import annotations_of, columns_of, rename_results, summarize

    truth = annotations_of(dataset)
    results: TrackerResults = rename_results(truth.names, open_results(path))
    missing = len(set(truth.names) - {*results.boxes, *results.nothing})
    if missing and any(r.missing == "refuse" for r in columns_of(dataset.name, results.mode).values()):
        how = f"vltrack evaluate {shown(path)} --data {shown(dataset.root)} --subset present --out FOLDER"
        raise DataError(
            f"{shown(path)} has no result of {missing} of {len(truth)} sequences.",
            hint=f"Score what is there first: {how}; then report the scores.json within FOLDER.",
        )
    scores = summarize(
        results, truth, data=dataset.name, split=dataset.split, short=short, place=dataset.root.name
    )
    return Source(name=results.tracker, scores=scores, folder=path)


def check_one_data(sources: Sequence[Source], dataset: Dataset | None) -> None:
    """That all scores, and the data where there are any, are of one data set and split.

    Raises:
        UsageError: they are not.
    """
    first = sources[0]
    for source in sources[1:]:
        if _set(source) != _set(first):
            raise UsageError(
                f"{shown(first.name)} is on {_set(first)}, {shown(source.name)} on {_set(source)}.",
                hint="One report is about one data set and split.",
            )
    if dataset is not None and dataset.name != first.scores["data"]:
        raise UsageError(
            f"--data is {dataset.name}, the scores are of {_set(first)}.",
            hint="Give the data set that was scored.",
        )


def _set(source: Source) -> str:
    return shown(" ".join(part for part in (source.scores["data"], source.scores["split"]) if part))


def common(sources: Sequence[Source], *, wanted: bool) -> tuple[list[Source], str, int]:
    """The trackers on the sequences that all have, the subset's name ("" for none), and N of n/N.

    Raises:
        UsageError: they have different sequences and it was not ``wanted`` to keep the common ones; or they
            have none in common; or a score cannot be taken over some of its sequences.
    """
    first = sources[0]
    sets = [source.sequences for source in sources]
    subsets = [source.scores.get("subset") for source in sources]
    if all(names == sets[0] for names in sets):
        named = [s for s in subsets if isinstance(s, dict)]
        size = len(sets[0])
        if not named:
            return list(sources), "", size
        of = named[0].get("of")
        return list(sources), str(named[0].get("name", "")), of if isinstance(of, int) else size
    every = {name for names in sets for name in names}
    kept = [name for name in first.sequences if all(name in names for names in map(set, sets))]
    if not wanted:
        raise UsageError(
            f"the trackers have different sequences: {len(kept)} of {len(every)} in all of them.",
            hint=_COMMON,
        )
    if not kept:
        raise UsageError("the trackers have no sequence in common.", hint="Score them on the same data.")
    totals = [s["of"] for s in subsets if isinstance(s, dict) and isinstance(s.get("of"), int)]
    # The same sequences in another order are no subset.
    name = "" if len(kept) == len(every) and not any(subsets) else "common"
    restricted = [replace(s, scores=_restricted(s.scores, kept, name)) for s in sources]
    return restricted, name, max([len(every), *totals])


def _restricted(scores: dict[str, Any], kept: Sequence[str], subset: str) -> dict[str, Any]:
    """The scores over some sequences: means of the numbers of each. What those do not tell is left out."""
    place = {row["name"]: k for k, row in enumerate(scores["sequences"])}
    rows = [scores["sequences"][place[name]] for name in kept]
    rules = {}
    for key, ruled in scores["rules"].items():
        each = {m: [row[place[n]] for n in kept] for m, row in (ruled.get("per_sequence") or {}).items()}
        if len(kept) == len(place):
            rules[key] = ruled | {"per_sequence": each}
            continue
        if _pooled(ruled):
            raise UsageError(
                f"scores of {shown(str(ruled.get('title')))} are over all frames together.",
                hint="Score every tracker on the same sequences: vltrack evaluate --subset.",
            )
        names = list(ruled.get("attributes") or {})
        having = {a: [k for k, row in enumerate(rows) if a in (row.get("attributes") or ())] for a in names}
        rules[key] = {
            "rule": ruled.get("rule"),
            "title": ruled.get("title"),
            **{m: _mean(row) for m, row in each.items()},
            "per_sequence": each,
            "attributes": {
                a: {"sequences": len(some), **{m: _mean([row[k] for k in some]) for m, row in each.items()}}
                for a, some in having.items()
                if len(some) > 1
            },
        }
    if len(kept) == len(place):
        return scores | {"sequences": rows, "rules": rules}
    return scores | {
        "sequences": rows, "rules": rules, "causes": None,
        "subset": {"name": subset, "n": len(kept), "of": len(place)},
    }  # fmt: skip


def _mean(row: Sequence[float | None]) -> float | None:
    known = [value for value in row if value is not None]
    return fsum(known) / len(known) if known else None


def _pooled(ruled: dict[str, Any]) -> bool:
    from vltrack.metrics.protocols import RULES

    rule = RULES.get(str(ruled.get("rule")))
    return rule is not None and rule.pooled == "frames"


# MERGED api/report_sources.py
# What a report shows of single frames: lanes and moments of the worst sequences, how alike boxes are.
#
# Knows boxes, truth and frames; knows no scoring rule. T trackers, N frames.


POINTS = 700
"""Of a lane at most: more cannot be told apart on paper."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evidence:
    """One tracker's boxes by the data set's names, and its own scores where the files hold them."""

    boxes: Mapping[str, Floats]
    folder: Path | None

    def own_scores(self, name: str) -> Floats | None:
        """(N,) scores of one sequence, None where there are none."""
        from vltrack.evaluation.results import read_results

        return None if self.folder is None else read_results(self.folder).scores(name)


def open_evidence(folder: Path, names: Sequence[str]) -> Evidence:
    """The boxes in a folder of results. Raises ``DataError`` where a sequence of ``names`` has none."""
    from vltrack.evaluation.results import open_results
    from vltrack.evaluation.third_party import match_names

    results = open_results(folder)
    fitting = match_names(names, results.boxes)
    missing = [name for name in names if name not in fitting]
    if missing:
        raise DataError(
            f"{folder} has no boxes of {missing[0]}"
            + (f" and {len(missing) - 1} others." if missing[1:] else "."),
            hint="Give the folder that the scores were made from.",
        )
    stored = folder if (folder / "run.json").is_file() else None
    return Evidence(boxes={name: results.boxes[other] for name, other in fitting.items()}, folder=stored)


def film_record(clip: Clip, evidence: Sequence[Evidence]) -> tuple[dict[str, Any], str]:
    """One sequence as ``report.json`` holds it, and why it has no pictures ("" where it has)."""
    boxes_TN4 = _boxes(clip, evidence)
    overlaps_TN = _overlaps(clip, boxes_TN4)
    count = overlaps_TN.shape[1]
    lanes = []
    for each, overlaps in zip(evidence, overlaps_TN, strict=True):
        own = each.own_scores(clip.name)
        scores = np.full(count, np.nan) if own is None else _fitted(own[:, None], count)[:, 0]
        lanes.append(
            {
                "overlaps": row_record(downsampled(overlaps, POINTS), 4),
                "scores": row_record(downsampled(scores, POINTS), 4),
            }
        )
    shots, reason = _snapshots(clip, boxes_TN4, overlaps_TN)
    record = {
        "name": clip.name,
        "sentence": clip.sentence,
        "frames": count,
        "absent": [list(span) for span in spans(~_there(clip))],
        "lanes": lanes,
        "snapshots": [snapshot_record(shot) for shot in shots],
    }
    return record, reason


def _snapshots(clip: Clip, boxes_TN4: Floats, overlaps_TN: Floats) -> tuple[list[Snapshot], str]:
    if clip.files == ():
        return [], "only the annotation is there, no pictures."
    picks = select_keyframes(overlaps_TN)
    some = clip if clip.files is None else replace(clip, files=tuple(clip.files[pick] for pick in picks))
    shots = []
    try:
        with closing(some.frames()) as frames:
            for number, frame in enumerate(frames):
                index = number if clip.files is None else picks[number]
                if index in picks and frame.image is not None:
                    truth = clip.boxes[index] if _there(clip)[index] else np.full(4, np.nan)
                    shots.append(
                        snapshot(frame.image, index, truth, boxes_TN4[:, index], overlaps_TN[:, index])
                    )
                if index >= picks[-1]:
                    break
    except VltrackError as error:
        return [], error.message
    return shots, ""


def likeness(clips: Sequence[Clip], evidence: Sequence[Evidence]) -> Floats:
    """(T + 1, T + 1) mean overlap of each pair, the truth first: over the frames of a sequence in which the
    target is there, then over the sequences.
    """
    total = np.zeros((len(evidence) + 1, len(evidence) + 1))
    counted = np.zeros_like(total)
    for clip in clips:
        there = _there(clip)
        if not there.any():
            continue
        boxes = np.concatenate([clip.boxes[None], _boxes(clip, evidence)])[:, there]
        for a in range(len(boxes)):
            for b in range(a + 1, len(boxes)):
                both = np.isfinite(boxes[a]).all(axis=1) & np.isfinite(boxes[b]).all(axis=1)
                if both.any():
                    mean = iou_xywh(boxes[a][both], boxes[b][both]).mean()
                    total[[a, b], [b, a]] += mean
                    counted[[a, b], [b, a]] += 1
    means: Floats = np.where(counted > 0, total / np.maximum(counted, 1), np.nan)
    return means


def _there(clip: Clip) -> NDArray[np.bool_]:
    """(N,) whether the truth has a box in a frame."""
    boxes = clip.boxes
    seen: NDArray[np.bool_] = (
        ~clip.absent & np.isfinite(boxes).all(axis=1) & (np.nan_to_num(boxes)[:, 2:] > 0).all(axis=1)
    )
    return seen


def _boxes(clip: Clip, evidence: Sequence[Evidence]) -> Floats:
    """(T, N, 4); NaN where a tracker has no row."""
    return np.stack([_fitted(each.boxes[clip.name], len(clip.boxes)) for each in evidence])


def _fitted(rows: Floats, count: int) -> Floats:
    """(count, C) rows: cut, or filled up with NaN."""
    fitted = np.full((count, rows.shape[1]), np.nan)
    fitted[: min(count, len(rows))] = rows[:count]
    return fitted


def _overlaps(clip: Clip, boxes_TN4: Floats) -> Floats:
    """(T, N) overlap with the truth; NaN where there is none, 0 where a tracker has no box."""
    known = np.isfinite(boxes_TN4).all(axis=2)
    overlaps = np.where(known, iou_xywh(np.nan_to_num(boxes_TN4), np.nan_to_num(clip.boxes)), 0.0)
    shown: Floats = np.where(_there(clip), overlaps, np.nan)
    return shown
