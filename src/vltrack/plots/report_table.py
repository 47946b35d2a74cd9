"""Tables of a report: rankings, verdicts and columns by protocol, and the LaTeX table.

A tracker ranks before another only where the paired interval of their difference excludes 0, over enough
sequences that one being better in all of them is unlikely by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby, pairwise

from vltrack.plots.report_data import MEASURES, PairedDifference, ReportData
from vltrack.plots.text import escaped

LEADING = "auc"
"""The measure by which trackers are ranked."""
FEWEST = 6
"""Sequences below which no tracker is ahead: of two equal trackers one is better in all of n sequences with
probability 2 ** (1 - n), which is more than one in twenty up to n = 5. A bootstrap would separate them.
"""
TOO_FEW = f"fewer than {FEWEST} are not enough"
SIDES = ("official", "vlt-python", "own first frame")
"""Protocols that are shown next to the chosen one, where a score has them; of the last only ``LEADING``."""
_ATTRIBUTES = {
    "ARC": "aspect ratio change", "AS": "adversarial sample", "BC": "background clutter",
    "CM": "camera motion", "DEF": "deformation", "FM": "fast motion",
    "FOC": "full occlusion", "INV": "invisibility", "IPR": "in-plane rotation",
    "IV": "illumination variation", "LR": "low resolution", "MB": "motion blur",
    "MS": "modality switch", "OCC": "occlusion", "OPR": "out-of-plane rotation",
    "OV": "out of view", "POC": "partial occlusion", "ROT": "rotation",
    "SOB": "similar object", "SV": "scale variation", "TC": "thermal crossover",
    "VC": "viewpoint change",
}  # fmt: skip
"""Attributes by their short names, spelled as in the papers of the data sets."""
_CAUSES = {
    "frames": "frames in all",
    "absent": "frames in which the target is absent",
    "absent_with_box": "of these, frames that have a box nevertheless",
    "no_size": "frames in which the target is seen but its box has no size",
    "xy_not_positive": "frames with a box whose x or y is 0 or less (no box for the official toolkits)",
    "nan": "frames annotated as NaN",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One measure under one protocol (``rule`` is its key), with one number per tracker or None."""

    measure: str
    title: str
    rule: str
    head: str
    values: list[float | None]
    upper_bound: float | None

    @property
    def written(self) -> list[str]:
        """The numbers as they are written, the upper bound last."""
        return [number(value) for value in [*self.values, self.upper_bound]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """A tracker's rank: between ``first`` and ``last``, given those significantly better and worse."""

    tracker: int
    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}\u2013{self.last}"


# -- columns ------------------------------------------------------------------------------------------


def rules_of(report: ReportData) -> list[str]:
    """Protocols to show: the report's own, then those of ``SIDES`` that any tracker has."""
    sides = [key for key in SIDES if any(key in entry.rules for entry in report.entries)]
    return list(dict.fromkeys([report.rule, *sides]))


def columns_of(report: ReportData, measures: list[str] | None = None) -> list[Column]:
    """A column for each measure (of ``measures``, or all), followed by those of other protocols where any
    number differs. Normalized precision is not repeated under a second name with the same numbers.
    """
    more = [m for entry in report.entries for rule in entry.rules.values() for m in rule.numbers]
    columns: list[Column] = []
    for measure in measures or dict.fromkeys([*MEASURES, *more]):
        kept = _columns_by_rule(report, measure)
        plain = [c.written[:-1] for c in columns if c.measure == "norm_precision"]
        if not kept or (measure.startswith("norm_precision_") and all(c.written[:-1] in plain for c in kept)):
            continue
        same = [c for c in kept if c.written == kept[0].written]
        columns.append(replace(kept[0], head=" = ".join(c.head for c in same)))
        columns += [c for c in kept if c not in same]
    return columns


def _columns_by_rule(report: ReportData, measure: str) -> list[Column]:
    """One column per protocol under which any tracker has the measure."""
    columns = []
    for key in rules_of(report):
        scored = [entry.rules.get(key) for entry in report.entries]
        values = [None if scores is None else scores.numbers.get(measure) for scores in scored]
        if any(value is not None for value in values) and (key != SIDES[2] or measure == LEADING):
            title = MEASURES.get(measure, measure.replace("_", " "))
            bound = next(scores.upper_bound.get(measure) for scores in scored if scores is not None)
            columns.append(Column(measure=measure, title=title, rule=key, head=key, values=values, upper_bound=bound))
    return columns


def number(value: float | None, missing: str = "\u2013") -> str:
    """Two decimals, or a dash."""
    return missing if value is None else f"{value:.2f}"


def signed(value: float) -> str:
    """Two decimals with a sign, or a dash for NaN."""
    return "\u2013" if value != value else f"{value:+.2f}".replace("-", "\u2212")


def highest(values: Sequence[float | None]) -> str:
    """The highest of several numbers as written, so that equal text is bold alike; "" if there is only one."""
    known = [value for value in values if value is not None]
    return number(max(known)) if len(known) > 1 else ""


def grouped(columns: list[Column]) -> list[tuple[str, list[Column]]]:
    """Columns of one measure together, under its title."""
    return [(title, list(group)) for (_, title), group in groupby(columns, lambda c: (c.measure, c.title))]


# -- verdicts -----------------------------------------------------------------------------------------


def pair_of(report: ReportData, a: int, b: int, measure: str = LEADING) -> PairedDifference | None:
    """Tracker ``a`` minus ``b``, negated where it is stored the other way round."""
    pairs = {(pair.a, pair.b): pair for pair in reversed(report.pairs) if pair.measure == measure}
    if (pair := pairs.get((a, b))) is not None:
        return pair
    if (pair := pairs.get((b, a))) is None:
        return None
    low, high = (None if end is None else -end for end in (pair.high, pair.low))
    return replace(pair, a=a, b=b, mean=-pair.mean, low=low, high=high)


def is_significant(pair: PairedDifference) -> bool:
    """Return whether the interval excludes 0 and rests on ``FEWEST`` sequences or more."""
    return pair.excludes_zero and pair.sequences >= FEWEST


def surely_above(report: ReportData, a: int, b: int) -> bool:
    """Return whether tracker ``a`` is significantly above ``b``."""
    pair = pair_of(report, a, b)
    return pair is not None and is_significant(pair) and pair.mean > 0


def ranking(report: ReportData) -> list[Rank]:
    """The rank of each tracker, in the order of their numbers (best first)."""
    everyone = range(len(report.entries))
    scores = [entry.rules[report.rule].numbers.get(LEADING, float("-inf")) for entry in report.entries]
    made = []
    for t in sorted(everyone, key=lambda t: (-scores[t], t)):
        above = sum(surely_above(report, u, t) for u in everyone if u != t)
        below = sum(surely_above(report, t, u) for u in everyone if u != t)
        made.append(Rank(tracker=t, first=1 + above, last=len(everyone) - below))
    return made


def verdict(report: ReportData) -> str:
    """One or two sentences on the best tracker, by success AUC under the report's rule."""
    first, *rest = (rank.tracker for rank in ranking(report))
    best = report.entries[first]
    score = number(best.rules[report.rule].numbers.get(LEADING))
    if not rest:
        return f"{best.name}: success AUC {score} on {report.count}."
    unsure = [report.entries[t].name for t in rest if not surely_above(report, first, t)]
    if unsure:
        names = ", ".join([best.name, *unsure[:-1]]) + " and " + unsure[-1]
        lead = f"Highest success AUC: {best.name} ({score})."
        return f"{lead} {names} are not distinguishable on {_these(report)}."
    others, intervals = f"all {len(rest)} others", "every paired interval"
    if len(rest) == 1:
        others, intervals = "the other", "the paired interval"
    return (
        f"{best.name} is ahead of {others} in success AUC ({score}): {intervals} of "
        f"the difference excludes 0 on {report.count}."
    )


def pair_verdict(report: ReportData, pair: PairedDifference) -> str:
    """The verdict on one pair."""
    if not is_significant(pair):
        few = f" ({TOO_FEW})" if pair.sequences < FEWEST else ""
        return f"not distinguishable on {_these(report)}{few}"
    return f"{report.entries[pair.a if pair.mean > 0 else pair.b].name} ahead"


def _these(report: ReportData) -> str:
    return "this 1 sequence" if report.count == "1 sequence" else f"these {report.count}"


# -- names and other facts ----------------------------------------------------------------------------


def causes_of(report: ReportData) -> list[tuple[str, int]]:
    """Causes of differences between protocols with the number of their frames, if counted and not 0."""
    first = report.entries[0]
    rows = [(_CAUSES.get(cause, cause.replace("_", " ")), count) for cause, count in first.causes.items()]
    for key in rules_of(report):
        hits = first.rules[key].free_hits if key in first.rules else {}
        for measure, count in hits.items():
            what = MEASURES.get(measure, measure)
            rows.append((f"frames that count as hits in {what} with any box ({key})", count))
    return [(cause, count) for cause, count in rows if count]


def attributes_of(report: ReportData) -> list[tuple[str, int]]:
    """Short names of the attributes that every tracker has a number for, with their sequences."""
    each = [entry.rules[report.rule].attributes for entry in report.entries]
    return [
        (name, count) for name, (count, _) in each[0].items() if all(LEADING in a.get(name, (0, {}))[1] for a in each)
    ]


def spelled(names: list[str]) -> list[tuple[str, str]]:
    """The short names that are known, each with its meaning."""
    return [(name, _ATTRIBUTES[name]) for name in names if name in _ATTRIBUTES]


def titles_of(report: ReportData) -> dict[str, str]:
    """The full name of each protocol that is shown."""
    return {
        key: next(entry.rules[key].title for entry in report.entries if key in entry.rules) for key in rules_of(report)
    }


def set_of(report: ReportData) -> str:
    """The data set and its split; the user's own clips by the name of their folder, where it is known."""
    if report.data == "folder" and report.place:
        return report.place if report.split in ("", "all") else f"{report.place} {report.split}"
    return " ".join(part for part in (report.data, report.split) if part)


# -- LaTeX (package booktabs) -------------------------------------------------------------------------


def latex_of(report: ReportData) -> str:
    """The overall table for a paper."""
    columns, entries = columns_of(report, report.main), report.entries
    first, *rest = order = [rank.tracker for rank in ranking(report)]
    unsure = [t for t in rest if not surely_above(report, first, t)]
    titles = "; ".join(f"{key}: {title}" for key, title in titles_of(report).items())
    caption = f"{set_of(report)}, {report.count}. {titles}. Highest number in bold."
    leading = [c.measure == LEADING and c.rule == report.rule for c in columns]
    if unsure and any(leading):
        caption += (
            f" A dagger: not distinguishable from {entries[first].name} on {_these(report)} "
            "(paired 95% bootstrap interval of the difference in AUC over sequences)."
        )
    return table(
        [(title, [c.head for c in group]) for title, group in grouped(columns)],
        [(entries[t].name, [c.values[t] for c in columns]) for t in order],
        marked=[[mark and t in unsure for mark in leading] for t in order],
        last=("perfect tracker", [c.upper_bound for c in columns]) if any(c.upper_bound for c in columns) else None,
        caption=caption,
    )


def table(
    groups: Sequence[tuple[str, Sequence[str]]],
    rows: Sequence[tuple[str, Sequence[float | None]]],
    *,
    marked: Sequence[Sequence[bool]],
    last: tuple[str, Sequence[float | None]] | None,
    caption: str,
) -> str:
    """A ``table`` with booktabs rules; the highest number of each column in bold.

    Args:
        groups: (rule, names of its columns); the rule is printed above them.
        rows: (tracker, numbers in the order of all columns); None leaves a dash.
        marked: for each row and column, whether a dagger follows the number.
        last: a row below a line, never in bold: the upper bound.
        caption: of the table; it is escaped.
    """
    heads = [head for _, names in groups for head in names]
    best = [highest([numbers[k] for _, numbers in rows]) for k in range(len(heads))]
    ends = accumulate((len(names) for _, names in groups), initial=1)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escaped(caption)}}}",
        r"  \label{tab:vltrack}",
        rf"  \begin{{tabular}}{{l{'r' * len(heads)}}}",
        r"    \toprule",
        "    " + " ".join(rf"& \multicolumn{{{len(c)}}}{{c}}{{{escaped(g)}}}" for g, c in groups) + r" \\",
        "    " + " ".join(rf"\cmidrule(lr){{{a + 1}-{b}}}" for a, b in pairwise(ends)),
        _row("tracker", map(escaped, heads)),
        r"    \midrule",
    ]
    for (name, numbers), daggers in zip(rows, marked, strict=True):
        cells = []
        for value, top, dagger in zip(numbers, best, daggers, strict=True):
            text = number(value, "--")
            cells.append((rf"\textbf{{{text}}}" if text == top else text) + (r"$^\dagger$" if dagger else ""))
        lines.append(_row(name, cells))
    if last is not None:
        lines += [r"    \midrule", _row(last[0], [number(value, "--") for value in last[1]])]
    lines += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}", ""]
    return "\n".join(lines)


def _row(name: str, cells: Iterable[str]) -> str:
    return "    " + " & ".join([escaped(name), *cells]) + r" \\"
