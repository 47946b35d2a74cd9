"""What a report shows of single frames: lanes and moments of the worst sequences, how alike boxes are.

Knows boxes, truth and frames; knows no scoring rule. T trackers, N frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vltrack.core.boxes import iou_xywh
from vltrack.core.errors import DataError, VltrackError
from vltrack.plots.report_data import row_record, snapshot_record
from vltrack.plots.strips import spans, thinned
from vltrack.plots.worst import Snapshot, moments_of, snapshot

if TYPE_CHECKING:
    from vltrack.datasets.sequences import Sequence as Clip

Floats = NDArray[np.float64]
POINTS = 700
"""Of a lane at most: more cannot be told apart on paper."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evidence:
    """One tracker's boxes by the data set's names, and its own scores where the files hold them."""

    boxes: Mapping[str, Floats]
    folder: Path | None

    def own_scores(self, name: str) -> Floats | None:
        """(N,) scores of one sequence, None where there are none."""
        from vltrack.evaluation.store import read_results

        return None if self.folder is None else read_results(self.folder).scores(name)


def open_evidence(folder: Path, names: Sequence[str]) -> Evidence:
    """The boxes in a folder of results. Raises ``DataError`` where a sequence of ``names`` has none."""
    from vltrack.evaluation.naming import matched
    from vltrack.evaluation.results import open_results

    results = open_results(folder)
    fitting = matched(names, results.boxes)
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
                "overlaps": row_record(thinned(overlaps, POINTS), 4),
                "scores": row_record(thinned(scores, POINTS), 4),
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
    picks = moments_of(overlaps_TN)
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
