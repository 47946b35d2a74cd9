"""What a report is drawn from: the document ``report.json``, read with every value checked. Knows no picture.

The document holds the scores of each tracker as ``vltrack evaluate`` writes them (format ``vltrack.scores``),
the paired intervals, and the moments and lanes of the worst sequences; whoever has it needs no data to draw
again. T trackers, S sequences.
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
from vltrack.plots.compare_video import COLORS
from vltrack.plots.contact_sheet import Snapshot

FORMAT, VERSION = "vltrack.report", 1
MOST = len(COLORS)
"""Trackers that can be told apart."""
CURVES = ("success", "precision", "norm_precision")
MEASURES = {
    "auc": "AUC",
    "precision": "P",
    "norm_precision": "NP",
    "norm_precision_at_20": "NP at 0.20",
    "norm_precision_mean": "NP mean",
    "op50": "OP50",
    "op75": "OP75",
    "overlap": "AO",
}
"""The numbers of a score that every rule has, as papers call them."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Ruled:
    """One tracker's scores under one rule; numbers in points (0..100), what is missing is not a key.

    Attributes:
        rule, title: its name and what people call it.
        numbers: measure -> score; beside those of ``MEASURES`` whatever else the rule has.
        curves: of ``CURVES``: (K,) thresholds and (K,) shares.
        per_sequence: measure -> (S,) points, NaN where there is none.
        attributes: short name -> (sequences, measure -> score), in the data set's order.
        ceiling: measure -> what a perfect tracker gets.
        free_hits: measure -> frames that count as hits whatever a tracker says.
    """

    rule: str
    title: str
    numbers: dict[str, float]
    curves: dict[str, tuple[Floats, Floats]]
    per_sequence: dict[str, Floats]
    attributes: dict[str, tuple[int, dict[str, float]]]
    ceiling: dict[str, float]
    free_hits: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Entry:
    """One tracker: the name it has in this report, how targets were named, its speed, its scores by rule.

    ``causes`` counts what conventions treat differently in the annotations, such as absent frames; ``notes``
    are what the evaluation had to say.
    """

    name: str
    mode: str
    fps: float | None
    first_overlap: float | None
    rules: dict[str, Ruled]
    causes: dict[str, int]
    notes: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A minus B (places of the trackers) over the sequences that both have, in points."""

    a: int
    b: int
    measure: str
    mean: float
    low: float | None
    high: float | None
    sequences: int
    excludes_zero: bool


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Film:
    """One of the worst sequences: lanes over time, and moments of it where there were pictures.

    ``overlaps`` and ``scores`` have a row (K,) a tracker; NaN where there is nothing.
    """

    name: str
    sentence: str
    frames: int
    absent: list[tuple[int, int]]
    overlaps: list[Floats]
    scores: list[Floats]
    snapshots: list[Snapshot]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Report:
    """Everything that is drawn and said; see ``read_report``. ``rule`` is the key that pictures follow.

    ``place`` is what the folder of one's own clips is called, "" where the scores do not tell.
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
    entries: list[Entry]
    sequences: list[str]
    pairs: list[Pair]
    films: list[Film]
    likeness: Floats | None
    likeness_note: str
    main: list[str]
    measures: dict[str, str]
    rule_texts: dict[str, dict[str, str]]
    notes: list[str]

    @property
    def count(self) -> str:
        """How many sequences: ``280 sequences``, or ``31/280 sequences`` of a subset."""
        number = len(self.sequences)
        many = f"{number}/{self.of}" if self.is_subset else str(number)
        return f"{many} sequence{'' if many == '1' else 's'}"

    @property
    def is_subset(self) -> bool:
        """Whether the numbers are over a part of the data set only."""
        return bool(self.subset) or self.of != len(self.sequences)


def read_report(document: Mapping[str, Any], where: str) -> Report:
    """The report in a document of format ``vltrack.report``.

    Args:
        document: as parsed from JSON.
        where: names the file in errors.

    Raises:
        DataError: another format or version, or any value that is not what it must be; names its place.
    """
    top = Fields(document, where)
    if top.value.get("format") != FORMAT or top.value.get("version") != VERSION:
        raise DataError(f"{where} is no {FORMAT} of version {VERSION}.", hint="Make it with vltrack report.")
    scores = top.nodes("scores")
    if not 0 < len(scores) <= MOST:
        top.fault("scores", f"{len(scores)} trackers; 1 to {MOST} can be told apart")
    entries = [_entry(node) for node in scores]
    sequences = _names(scores[0])
    for node in scores[1:]:
        if _names(node) != sequences:
            node.fault("sequences", "are not the same as those of the first tracker")
    rule = top.text("rule")
    if any(rule not in entry.rules for entry in entries):
        top.fault("rule", f"{rule!r} is not among the rules of every tracker")
    likeness = top.value.get("likeness")
    return Report(
        data=scores[0].text("data"),
        place=scores[0].text("place") if scores[0].value.get("place") else "",
        split=scores[0].text("split"),
        subset=top.text("subset"),
        of=top.whole("of"),
        command=top.text("command"),
        date=top.text("date"),
        rule=rule,
        against=None if top.value.get("against") is None else top.place("against", len(entries)),
        worst_by=top.text("worst_by"),
        entries=entries,
        sequences=sequences,
        pairs=[_pair(node, len(entries)) for node in top.nodes("pairs")],
        films=[_film(node, len(entries)) for node in top.nodes("films")],
        likeness=None if likeness is None else _square(top, len(entries) + 1),
        likeness_note=top.text("likeness_note"),
        main=[str(measure) for measure in top.listed("main")],
        measures=top.node("measures").texts(),
        rule_texts={k: n.texts() for k, n in top.node("rule_texts").items()},
        notes=[str(note) for note in top.listed("notes")],
    )


def check_scores(document: Any, where: str) -> None:
    """That a document of format ``vltrack.scores`` holds what a report asks of it.

    Raises:
        DataError: any value is not what it must be; names its place.
    """
    node = Fields(document, where)
    for key in ("tracker", "data", "split", *(("place",) if node.value.get("place") else ())):
        node.text(key)
    _entry(node, name="tracker")


def _names(node: Fields) -> list[str]:
    return [row.text("name") for row in node.nodes("sequences")]


def _entry(node: Fields, name: str = "name") -> Entry:
    rules = {key: _ruled(ruled) for key, ruled in node.node("rules").items()}
    speed = node.value.get("speed")
    names, rows = _names(node), node.nodes("sequences")
    if not names or len(set(names)) < len(names):
        node.fault("sequences", "are none, or one is named twice")
    for ruled in rules.values():
        for measure, row in ruled.per_sequence.items():
            if len(row) != len(names):
                node.fault(f"per_sequence.{measure}", f"has {len(row)} numbers, not {len(names)}")
    for each in rows:
        if each.value.get("attributes") is not None:
            each.listed("attributes")
    overlaps = [each.number("first_overlap") for each in rows]
    known = [value for value in overlaps if value is not None]
    return Entry(
        name=node.text(name),
        mode=node.text("mode"),
        fps=None if speed is None else node.node("speed").number("fps"),
        first_overlap=sum(known) / len(known) if known else None,
        rules=rules,
        causes=node.node("causes").counts() if node.value.get("causes") else {},
        notes=[str(note) for note in node.listed("notes")] if node.value.get("notes") else [],
    )


def _ruled(node: Fields) -> Ruled:
    value = node.value
    extra = node.node("extra").numbers() if value.get("extra") else {}
    measured = {key: node.number(key) for key in MEASURES}
    curves = {}
    for name in CURVES:
        if value.get(f"{name}_curve") is not None:
            thresholds = node.row(f"{name}_thresholds")
            shares = node.row(f"{name}_curve", len(thresholds))
            if len(thresholds) < 2 or not np.isfinite([*thresholds, *shares]).all():
                node.fault(f"{name}_curve", "is no curve")
            curves[name] = (thresholds, shares)
    rows = node.node("per_sequence") if value.get("per_sequence") else None
    found = node.node("attributes").items() if value.get("attributes") else []
    return Ruled(
        rule=node.text("rule"),
        title=node.text("title"),
        numbers={k: v for k, v in measured.items() if v is not None} | extra,
        curves=curves,
        per_sequence={} if rows is None else {key: rows.row(key) for key in rows.value},
        attributes={k: (a.whole("sequences"), a.numbers()) for k, a in found},
        ceiling=node.node("ceiling").numbers() if value.get("ceiling") else {},
        free_hits=node.node("free_hits").counts() if value.get("free_hits") else {},
    )


def _pair(node: Fields, count: int) -> Pair:
    mean = node.number("mean")
    return Pair(
        a=node.place("a", count),
        b=node.place("b", count),
        measure=node.text("measure"),
        mean=math.nan if mean is None else mean,
        low=node.number("low"),
        high=node.number("high"),
        sequences=node.whole("sequences"),
        excludes_zero=node.value.get("excludes_zero") is True,
    )


def _film(node: Fields, count: int) -> Film:
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
    return Film(
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
        raise DataError(f"{node.where}: jpeg is no base64.") from error
    return Snapshot(
        frame=node.whole("frame"),
        jpeg=jpeg,
        truth_4=node.row("truth", 4),
        boxes_T4=node.row("boxes", 4 * count).reshape(count, 4),
        overlaps_T=node.row("overlaps", count),
    )


def _square(top: Fields, count: int) -> Floats:
    """The (count, count) numbers under ``likeness``, given row by row in one list."""
    return top.row("likeness", count * count).reshape(count, count)


def snapshot_record(shot: Snapshot) -> dict[str, Any]:
    """The inverse of what ``read_report`` reads: numbers rounded to what can be seen."""
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
