"""Scores as lines of text: a block a convention, a line a tracker. Knows ``evaluation.summary``'s form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vltrack.core.text import counted
from vltrack.evaluation.summary import OWN_FIRST, differing, first_frames

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
