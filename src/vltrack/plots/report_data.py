"""The data of a report: the document ``report.json``, read with every value checked.

The document holds the scores of each tracker as ``vltrack evaluate`` writes them (format ``vltrack.scores``),
the paired intervals, and keyframes and timelines of the worst sequences, so that the report can be drawn
again without the data. T trackers, S sequences.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vltrack.core.errors import DataError
from vltrack.core.json_io import Fields
from vltrack.core.types import Floats
from vltrack.plots.contact_sheet import Snapshot
from vltrack.plots.draw import COLORS

FORMAT, VERSION = "vltrack.report", 1
MOST = len(COLORS)
"""Trackers of a report at most: as many as there are colors."""
CURVES = ("success", "precision", "norm_precision")
MEASURES = {
    "auc": "AUC", "precision": "P", "norm_precision": "NP", "norm_precision_at_20": "NP at 0.20",
    "norm_precision_mean": "NP mean", "op50": "OP50", "op75": "OP75", "overlap": "AO",
}  # fmt: skip
"""Measures that every rule has, by the names that papers use."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RuleScores:
    """One tracker's scores under one rule; numbers in points (0..100), a missing one is not a key.

    Attributes:
        rule, title: its key and its full name.
        numbers: measure -> score; those of ``MEASURES`` and whatever else the rule has.
        curves: of ``CURVES``: (K,) thresholds and (K,) shares.
        per_sequence: measure -> (S,) points, NaN where missing.
        attributes: short name -> (sequences, measure -> score), in the data set's order.
        upper_bound: measure -> score of a perfect tracker.
        free_hits: measure -> frames that count as hits with any box.
    """

    rule: str
    title: str
    numbers: dict[str, float]
    curves: dict[str, tuple[Floats, Floats]]
    per_sequence: dict[str, Floats]
    attributes: dict[str, tuple[int, dict[str, float]]]
    upper_bound: dict[str, float]
    free_hits: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrackerScores:
    """One tracker: its name in this report, mode, speed (frames per second) and scores by rule.

    ``causes`` counts what protocols treat differently in the annotations, such as absent frames; ``notes``
    are warnings of the evaluation.
    """

    name: str
    mode: str
    fps: float | None
    first_overlap: float | None
    rules: dict[str, RuleScores]
    causes: dict[str, int]
    notes: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDifference:
    """Tracker ``a`` minus tracker ``b`` (their numbers) over the sequences that both have, in points."""

    a: int
    b: int
    measure: str
    mean: float
    low: float | None
    high: float | None
    sequences: int
    excludes_zero: bool


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WorstSequence:
    """One of the worst sequences: timelines, and keyframes if there were images.

    ``overlaps`` and ``scores`` have one row (K,) per tracker; NaN where a value is missing.
    """

    name: str
    sentence: str
    frames: int
    absent: list[tuple[int, int]]
    overlaps: list[Floats]
    scores: list[Floats]
    snapshots: list[Snapshot]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReportData:
    """All contents of a report; see ``read_report``. ``rule`` is the key that figures follow.

    ``place`` is the folder name of the user's own clips, "" where the scores do not contain it.
    """

    data: str
    place: str
    split: str
    subset: str
    of: int
    command: str
    date: str
    rule: str
    against: int | None
    worst_by: str
    entries: list[TrackerScores]
    sequences: list[str]
    pairs: list[PairedDifference]
    worst: list[WorstSequence]
    similarity: Floats | None
    similarity_note: str
    main: list[str]
    measures: dict[str, str]
    rule_texts: dict[str, dict[str, str]]
    notes: list[str]
    published: list[dict[str, str]]

    @property
    def count(self) -> str:
        """Number of sequences: ``280 sequences``, or ``31/280 sequences`` of a subset."""
        number = len(self.sequences)
        many = f"{number}/{self.of}" if self.is_subset else str(number)
        return f"{many} sequence{'' if many == '1' else 's'}"

    @property
    def is_subset(self) -> bool:
        """Return whether the numbers are over a part of the data set only."""
        return bool(self.subset) or self.of != len(self.sequences)


def read_report(document: Mapping[str, Any], where: str) -> ReportData:
    """Read a document of format ``vltrack.report``.

    Args:
        document: as parsed from JSON.
        where: name of the file, for errors.

    Raises:
        DataError: another format or version, or an invalid value; the message has its key.
    """
    top = Fields(document, where)
    if top.value.get("format") != FORMAT or top.value.get("version") != VERSION:
        raise DataError(f"{where} is not a {FORMAT} of version {VERSION}.", hint="Make it with vltrack report.")
    scores = top.nodes("scores")
    if not 0 < len(scores) <= MOST:
        top.fault("scores", f"{len(scores)} trackers, but a report has 1 to {MOST}")
    entries = [_entry(node) for node in scores]
    sequences = _names(scores[0])
    for node in scores[1:]:
        if _names(node) != sequences:
            node.fault("sequences", "are not the same as those of the first tracker")
    rule = top.text("rule")
    if any(rule not in entry.rules for entry in entries):
        top.fault("rule", f"{rule!r} is not among the rules of every tracker")
    first, count = scores[0], len(entries)
    similarity = None
    if top.value.get("likeness") is not None:
        similarity = top.row("likeness", (count + 1) ** 2).reshape(count + 1, count + 1)
    return ReportData(
        data=first.text("data"),
        place=first.text("place") if first.value.get("place") else "",
        split=first.text("split"),
        subset=top.text("subset"),
        of=top.whole("of"),
        command=top.text("command"),
        date=top.text("date"),
        rule=rule,
        against=None if top.value.get("against") is None else top.index("against", count),
        worst_by=top.text("worst_by"),
        entries=entries,
        sequences=sequences,
        pairs=[_pair(node, count) for node in top.nodes("pairs")],
        worst=[_worst(node, count) for node in top.nodes("films")],
        similarity=similarity,
        similarity_note=top.text("likeness_note"),
        main=[str(measure) for measure in top.listed("main")],
        measures=top.node("measures").texts(),
        rule_texts={k: n.texts() for k, n in top.node("rule_texts").items()},
        notes=[str(note) for note in top.listed("notes")],
        published=[each.texts() for each in top.nodes("published")] if top.value.get("published") else [],
    )


def check_scores(document: Any, where: str) -> None:
    """Check that a document of format ``vltrack.scores`` has all values that a report needs.

    Raises:
        DataError: an invalid value; the message has its key.
    """
    node = Fields(document, where)
    for key in ("tracker", "data", "split", *(("place",) if node.value.get("place") else ())):
        node.text(key)
    _entry(node, name="tracker")


def _names(node: Fields) -> list[str]:
    return [row.text("name") for row in node.nodes("sequences")]


def _part(node: Fields, key: str) -> Fields:
    """The object under ``key``, an empty one if there is none."""
    return node.node(key) if node.value.get(key) else Fields({}, node.where)


def _entry(node: Fields, name: str = "name") -> TrackerScores:
    rules = {key: _rule_scores(scores) for key, scores in node.node("rules").items()}
    names, rows = _names(node), node.nodes("sequences")
    if not names or len(set(names)) < len(names):
        node.fault("sequences", "are none, or one is named twice")
    for scores in rules.values():
        for measure, row in scores.per_sequence.items():
            if len(row) != len(names):
                node.fault(f"per_sequence.{measure}", f"has {len(row)} numbers, not {len(names)}")
    for each in rows:
        if each.value.get("attributes") is not None:
            each.listed("attributes")
    overlaps = [value for each in rows if (value := each.number("first_overlap")) is not None]
    return TrackerScores(
        name=node.text(name),
        mode=node.text("mode"),
        fps=None if node.value.get("speed") is None else node.node("speed").number("fps"),
        first_overlap=sum(overlaps) / len(overlaps) if overlaps else None,
        rules=rules,
        causes=_part(node, "causes").counts(),
        notes=[str(note) for note in node.listed("notes")] if node.value.get("notes") else [],
    )


def _rule_scores(node: Fields) -> RuleScores:
    curves = {}
    for name in CURVES:
        if node.value.get(f"{name}_curve") is not None:
            thresholds = node.row(f"{name}_thresholds")
            shares = node.row(f"{name}_curve", len(thresholds))
            if len(thresholds) < 2 or not np.isfinite([*thresholds, *shares]).all():
                node.fault(f"{name}_curve", "is not a curve")
            curves[name] = (thresholds, shares)
    rows = _part(node, "per_sequence")
    return RuleScores(
        rule=node.text("rule"),
        title=node.text("title"),
        numbers={k: v for k in MEASURES if (v := node.number(k)) is not None} | _part(node, "extra").numbers(),
        curves=curves,
        per_sequence={key: rows.row(key) for key in rows.value},
        attributes={k: (a.whole("sequences"), a.numbers()) for k, a in _part(node, "attributes").items()},
        upper_bound=_part(node, "ceiling").numbers(),
        free_hits=_part(node, "free_hits").counts(),
    )


def _pair(node: Fields, count: int) -> PairedDifference:
    mean = node.number("mean")
    return PairedDifference(
        a=node.index("a", count),
        b=node.index("b", count),
        measure=node.text("measure"),
        mean=math.nan if mean is None else mean,
        low=node.number("low"),
        high=node.number("high"),
        sequences=node.whole("sequences"),
        excludes_zero=node.value.get("excludes_zero") is True,
    )


def _worst(node: Fields, count: int) -> WorstSequence:
    lanes = node.nodes("lanes")
    if len(lanes) != count:
        node.fault("lanes", f"are {len(lanes)} for {count} trackers")
    points = len(lanes[0].listed("overlaps"))
    frames = node.whole("frames")
    if not 0 < points <= max(frames, 1):
        node.fault("lanes", f"have {points} points over {frames} frames")
    absent = []
    for span in node.listed("absent"):
        if not (isinstance(span, list) and len(span) == 2 and all(isinstance(v, int) for v in span)):
            node.fault("absent", "is not a list of spans")
        absent.append((span[0], span[1]))
    return WorstSequence(
        name=node.text("name"),
        sentence=node.text("sentence"),
        frames=frames,
        absent=absent,
        overlaps=[lane.row("overlaps", points) for lane in lanes],
        scores=[lane.row("scores", points) for lane in lanes],
        snapshots=[_snapshot(shot, count) for shot in node.nodes("snapshots")],
    )


def _snapshot(node: Fields, count: int) -> Snapshot:
    try:
        jpeg = base64.b64decode(node.text("jpeg"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{node.where}: jpeg is not base64.") from error
    return Snapshot(
        frame=node.whole("frame"),
        jpeg=jpeg,
        truth_4=node.row("truth", 4),
        boxes_T4=node.row("boxes", 4 * count).reshape(count, 4),
        overlaps_T=node.row("overlaps", count),
    )


def snapshot_record(shot: Snapshot) -> dict[str, Any]:
    """A snapshot for JSON, numbers rounded; the inverse of what ``read_report`` reads."""
    return {
        "frame": shot.frame,
        "jpeg": base64.b64encode(shot.jpeg).decode("ascii"),
        "truth": row_record(shot.truth_4, 2),
        "boxes": row_record(shot.boxes_T4.ravel(), 2),
        "overlaps": row_record(shot.overlaps_T, 4),
    }


def row_record(row: Floats, digits: int) -> list[float | None]:
    """(K,) numbers for JSON, NaN as null."""
    return [round(float(v), digits) if math.isfinite(v) else None for v in row]
