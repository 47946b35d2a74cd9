"""Inputs of a report: scores of trackers, read, named and checked; boxes and frames of single sequences.

Shapes: T trackers, N frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError, UsageError, VltrackError
from vltrack.core.files import printable
from vltrack.core.json_io import read_json
from vltrack.core.types import Floats, iou_xywh
from vltrack.plots.contact_sheet import Snapshot, select_keyframes, snapshot
from vltrack.plots.report_data import row_record, snapshot_record
from vltrack.plots.timelines import downsampled, true_spans

if TYPE_CHECKING:
    from vltrack.datasets.reader import Dataset
    from vltrack.datasets.sequences import Sequence as Clip
    from vltrack.evaluation.summary import Short
    from vltrack.evaluation.third_party import TrackerResults


SCORES, REPORT = "vltrack.scores", "vltrack.report"
FILE, RUN = "scores.json", "run.json"
_NAMED = 8
"""Folders that a hint names at most."""
_COMMON = "Add --subset-common to compare the sequences that all have, with n/N next to every number."


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
    """Return the document where one ``report.json`` is given; None for results.

    Raises:
        DataError: a file that is not JSON.
        UsageError: a report among other things.
    """
    found = [word for word in words if Path(word).is_file() and _kind(Path(word)) == REPORT]
    if not found:
        return None
    if len(words) > 1:
        raise UsageError(
            f"{printable(found[0])} is a report; it cannot be combined with other results.",
            hint="Give scores.json files or folders of results, or one report.json alone.",
        )
    document: dict[str, Any] = read_json(Path(found[0]))
    return document


def _kind(path: Path) -> str:
    document = read_json(path) if path.suffix.lower() == ".json" else None
    return str(document.get("format")) if isinstance(document, dict) else ""


def read_sources(words: Sequence[str], dataset: Dataset | None, short: Short = "refuse") -> list[Source]:
    """Read the trackers in the order given; names that occur twice get their mode.

    Args:
        words: ``scores.json`` files or folders of results, each as ``PATH`` or ``NAME=PATH``.
        dataset: with it, a folder that has not been scored yet is scored.
        short: treatment of results with too few rows then, as in ``evaluation.summary``.

    Raises:
        UsageError: two with the same name.
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
                f"{names.count(name)} results are called {printable(name)}.",
                hint=f"Name them: first={printable(words[names.index(name)])}",
            )
    return sources


def split_of(words: Sequence[str]) -> str | None:
    """Return the split of the first results that are scored; None if there are none.

    Raises:
        DataError: a score file that cannot be read.
    """
    for _, path in map(_split, words):
        file = path / FILE if path.is_dir() else path
        if file.is_file() and file.suffix.lower() == ".json":
            split = read_json(file).get("split") if _kind(file) == SCORES else None
            return split if isinstance(split, str) and split else None
    return None


def _split(word: str) -> tuple[str, Path]:
    """Return name and path of ``NAME=PATH``; the name is "" where the whole word is an existing path."""
    name, sign, path = word.partition("=")
    if Path(word).exists() or not sign or not name:
        return "", Path(word)
    return name, Path(path)


def _read(path: Path, dataset: Dataset | None, short: Short) -> Source:
    if not path.exists():
        raise DataError(f"{printable(path)} does not exist.", hint="Give a scores.json or a folder of results.")
    file = path / FILE if path.is_dir() else path
    if file.is_file() and file.suffix.lower() == ".json":
        from vltrack.evaluation.summary import read_scores
        from vltrack.plots.report_data import check_scores

        scores = read_scores(file)
        check_scores(scores, printable(file))
        beside = path if path.is_dir() else path.parent
        folder = beside if path.is_dir() or (beside / RUN).is_file() else None
        return Source(name=scores["tracker"], scores=scores, folder=folder)
    _check_depth(path)
    if dataset is None:
        raise DataError(
            f"{printable(path)} has no {FILE}.", hint="Add --data PATH to score it, or run vltrack evaluate first."
        )
    return _scored(path, dataset, short)


def _check_depth(path: Path) -> None:
    """Raise ``DataError`` for a folder that only holds folders of results; it names them."""
    if not path.is_dir() or (path / RUN).is_file():
        return
    files = [file for depth in ("*", "*/*") for name in (FILE, RUN) for file in path.glob(f"{depth}/{name}")]
    below = sorted({file.parent for file in files})
    if not below:
        return
    more = f" and {len(below) - _NAMED} more" if len(below) > _NAMED else ""
    raise DataError(
        f"{printable(path)} holds folders of results, but no results itself.",
        hint=f"Give those of one data set: {' '.join(printable(folder) for folder in below[:_NAMED])}{more}",
    )


def _scored(path: Path, dataset: Dataset, short: Short) -> Source:
    """Score a folder of boxes."""
    from vltrack.evaluation.results import open_results
    from vltrack.evaluation.summary import annotations_of, columns_of, rename_results, summarize

    truth = annotations_of(dataset)
    results: TrackerResults = rename_results(truth.names, open_results(path))
    missing = len(set(truth.names) - {*results.boxes, *results.not_found})
    if missing and any(r.missing == "refuse" for r in columns_of(dataset.name, results.mode).values()):
        what = f"{printable(path)} --data {printable(dataset.root)}"
        how = f"vltrack evaluate {what} --subset present --out FOLDER"
        raise DataError(
            f"{printable(path)} has no result of {missing} of {len(truth)} sequences.",
            hint=f"Score what is there first: {how}; then report the scores.json within FOLDER.",
        )
    scores = summarize(results, truth, data=dataset.name, split=dataset.split, short=short, place=dataset.root.name)
    return Source(name=results.tracker, scores=scores, folder=path)


def check_one_data(sources: Sequence[Source], dataset: Dataset | None) -> None:
    """Check that all scores, and the data if given, are of one data set and split.

    Raises:
        UsageError: they are not.
    """
    first = sources[0]
    for source in sources[1:]:
        if _set(source) != _set(first):
            raise UsageError(
                f"{printable(first.name)} is on {_set(first)}, {printable(source.name)} on {_set(source)}.",
                hint="One report is about one data set and split.",
            )
    if dataset is not None and dataset.name != first.scores["data"]:
        raise UsageError(
            f"--data is {dataset.name}, the scores are of {_set(first)}.", hint="Give the data set that was scored."
        )


def _set(source: Source) -> str:
    return printable(" ".join(part for part in (source.scores["data"], source.scores["split"]) if part))


def common(sources: Sequence[Source], *, wanted: bool) -> tuple[list[Source], str, int]:
    """Return the trackers on the sequences that all have, the subset's name ("" for none), and N of n/N.

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
            f"the trackers have different sequences: {len(kept)} of {len(every)} in all of them.", hint=_COMMON
        )
    if not kept:
        raise UsageError("the trackers have no sequence in common.", hint="Score them on the same data.")
    totals = [s["of"] for s in subsets if isinstance(s, dict) and isinstance(s.get("of"), int)]
    # The same sequences in another order are not a subset.
    name = "" if len(kept) == len(every) and not any(subsets) else "common"
    restricted = [replace(s, scores=_restricted(s.scores, kept, name)) for s in sources]
    return restricted, name, max([len(every), *totals])


def _restricted(scores: dict[str, Any], kept: Sequence[str], subset: str) -> dict[str, Any]:
    """Return the scores over some sequences as means; values that cannot be derived are left out."""
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
                f"scores of {printable(str(ruled.get('title')))} are over all frames together.",
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


# -- single frames -----------------------------------------------------------------------------------

POINTS = 700
"""Of a time line at most: more cannot be distinguished on paper."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evidence:
    """Boxes of one tracker by the data set's names, and its own scores where the files hold them."""

    boxes: Mapping[str, Floats]
    folder: Path | None

    def own_scores(self, name: str) -> Floats | None:
        """Return the scores (N,) of one sequence, None without any."""
        from vltrack.evaluation.results import read_results

        return None if self.folder is None else read_results(self.folder).scores(name)


def open_evidence(folder: Path, names: Sequence[str]) -> Evidence:
    """Read the boxes in a folder of results. Raises ``DataError`` if a sequence of ``names`` has none."""
    from vltrack.evaluation.results import open_results
    from vltrack.evaluation.third_party import match_names

    results = open_results(folder)
    fitting = match_names(names, results.boxes)
    missing = [name for name in names if name not in fitting]
    if missing:
        raise DataError(
            f"{folder} has no boxes of {missing[0]}" + (f" and {len(missing) - 1} others." if missing[1:] else "."),
            hint="Give the folder that the scores were made from.",
        )
    stored = folder if (folder / "run.json").is_file() else None
    return Evidence(boxes={name: results.boxes[other] for name, other in fitting.items()}, folder=stored)


def sequence_record(clip: Clip, evidence: Sequence[Evidence]) -> tuple[dict[str, Any], str]:
    """Return one sequence as ``report.json`` holds it, and why it has no images ("" if it has)."""
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
    sequence with the target, then over the sequences.
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
    """Return in which frames (N,) the ground truth has a box."""
    boxes = clip.boxes
    seen: NDArray[np.bool_] = (
        ~clip.absent & np.isfinite(boxes).all(axis=1) & (np.nan_to_num(boxes)[:, 2:] > 0).all(axis=1)
    )
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
