"""Tables of a report: rankings, verdicts and columns by convention, and the LaTeX table.

A tracker ranks before another only where the paired interval of their difference excludes 0, over enough
sequences that one being better in all of them is unlikely by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vltrack.core.files import printable
from vltrack.plots.report_data import MEASURES, PairedDifference, ReportData, RuleScores

LEADING = "auc"
"""The measure by which trackers are ranked."""
FEWEST = 6
"""Sequences below which no tracker is ahead: of two equal trackers one is better in all of n sequences with
probability 2 ** (1 - n), which is more than one in twenty up to n = 5. A bootstrap would separate them.
"""
TOO_FEW = f"fewer than {FEWEST} are not enough"
SIDES = ("official", "vlt-python", "own first frame")
"""Conventions that are shown next to the chosen one, where a score has them; of the last only ``LEADING``."""
_OWN = "folder"
"""Name of the data set for the user's own clips."""
_ATTRIBUTES = {
    "ARC": "aspect ratio change",
    "AS": "adversarial sample",
    "BC": "background clutter",
    "CM": "camera motion",
    "DEF": "deformation",
    "FM": "fast motion",
    "FOC": "full occlusion",
    "INV": "invisibility",
    "IPR": "in-plane rotation",
    "IV": "illumination variation",
    "LR": "low resolution",
    "MB": "motion blur",
    "MS": "modality switch",
    "OCC": "occlusion",
    "OPR": "out-of-plane rotation",
    "OV": "out of view",
    "POC": "partial occlusion",
    "ROT": "rotation",
    "SOB": "similar object",
    "SV": "scale variation",
    "TC": "thermal crossover",
    "VC": "viewpoint change",
}
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
    """One measure under one convention (``rule`` is its key), with one number per tracker or None."""

    measure: str
    title: str
    rule: str
    head: str
    values: list[float | None]
    upper_bound: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """A tracker's rank: between ``first`` and ``last``, given those significantly better and worse."""

    tracker: int
    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}\u2013{self.last}"


def rules_of(report: ReportData) -> list[str]:
    """Conventions to show: the report's own, then those of ``SIDES`` that any tracker has."""
    sides = [key for key in SIDES if any(key in entry.rules for entry in report.entries)]
    return [report.rule, *(key for key in sides if key != report.rule)]


def columns_of(report: ReportData, measures: list[str] | None = None) -> list[Column]:
    """A column for each measure (of ``measures``, or all), followed by those of other conventions where any
    number differs. Normalized precision is not repeated under a second name with the same numbers.
    """
    columns: list[Column] = []
    for measure in measures or _measures(report):
        kept = [c for c in (_column(report, measure, key) for key in rules_of(report)) if _any(c)]
        if not kept or (measure.startswith("norm_precision_") and _is_repeated(kept, columns)):
            continue
        same = [c for c in kept[1:] if _written(c) == _written(kept[0])]
        others = [c for c in kept[1:] if c not in same]
        head = " = ".join(c.head for c in [kept[0], *same])
        columns += [replace(kept[0], head=head), *others]
    return columns


def _measures(report: ReportData) -> list[str]:
    """Those of ``MEASURES``, then other measures that any rule has."""
    found = list(MEASURES)
    for entry in report.entries:
        for ruled in entry.rules.values():
            found += [m for m in ruled.numbers if m not in found]
    return found


def _is_repeated(kept: list[Column], columns: list[Column]) -> bool:
    plain = [list(map(number, c.values)) for c in columns if c.measure == "norm_precision"]
    return all(list(map(number, c.values)) in plain for c in kept)


def _any(column: Column) -> bool:
    if column.rule == SIDES[2] and column.measure != LEADING:
        return False
    return any(value is not None for value in column.values)


def _column(report: ReportData, measure: str, key: str) -> Column:
    ruled = [entry.rules.get(key) for entry in report.entries]
    return Column(
        measure=measure,
        title=MEASURES.get(measure, measure.replace("_", " ")),
        rule=key,
        head=key,
        values=[None if r is None else r.numbers.get(measure) for r in ruled],
        upper_bound=next((r.upper_bound.get(measure) for r in ruled if r is not None), None),
    )


def _written(column: Column) -> list[str]:
    """The numbers as they are written, with the upper bound."""
    return [number(v) for v in [*column.values, column.upper_bound]]


def number(value: float | None, missing: str = "\u2013") -> str:
    """Two decimals, or a dash."""
    return missing if value is None else f"{value:.2f}"


def signed(value: float | None) -> str:
    """Two decimals with a sign, or a dash."""
    return "\u2013" if value is None or value != value else f"{value:+.2f}".replace("-", "\u2212")


def grouped(columns: list[Column]) -> list[tuple[str, list[Column]]]:
    """Columns of one measure together, under its title."""
    groups: list[tuple[str, list[Column]]] = []
    for column in columns:
        if groups and groups[-1][1][0].measure == column.measure:
            groups[-1][1].append(column)
        else:
            groups.append((column.title, [column]))
    return groups


def pair_of(report: ReportData, a: int, b: int, measure: str = LEADING) -> PairedDifference | None:
    """Tracker ``a`` minus ``b``, negated where it is stored the other way round."""
    for pair in report.pairs:
        if pair.measure != measure:
            continue
        if (pair.a, pair.b) == (a, b):
            return pair
        if (pair.a, pair.b) == (b, a):
            return replace(
                pair,
                a=a,
                b=b,
                mean=-pair.mean,
                low=None if pair.high is None else -pair.high,
                high=None if pair.low is None else -pair.low,
            )
    return None


def is_significant(pair: PairedDifference) -> bool:
    """Whether the interval excludes 0 and rests on ``FEWEST`` sequences or more."""
    return pair.excludes_zero and pair.sequences >= FEWEST


def surely_above(report: ReportData, a: int, b: int) -> bool:
    """Whether tracker ``a`` is significantly above ``b``."""
    pair = pair_of(report, a, b)
    return pair is not None and is_significant(pair) and pair.mean > 0


def ranking(report: ReportData) -> list[Rank]:
    """The rank of each tracker, in the order of their numbers (best first)."""
    everyone = range(len(report.entries))
    made = []
    for t in everyone:
        above = sum(surely_above(report, u, t) for u in everyone if u != t)
        below = sum(surely_above(report, t, u) for u in everyone if u != t)
        made.append(Rank(tracker=t, first=1 + above, last=len(everyone) - below))
    return sorted(made, key=lambda p: (-_leading(report, p.tracker), p.tracker))


def _leading(report: ReportData, tracker: int) -> float:
    return report.entries[tracker].rules[report.rule].numbers.get(LEADING, float("-inf"))


def verdict(report: ReportData) -> str:
    """One or two sentences on the best tracker, by success AUC under the report's rule."""
    entries, order = report.entries, ranking(report)
    first = order[0].tracker
    score = number(entries[first].rules[report.rule].numbers.get(LEADING))
    if len(entries) == 1:
        return f"{entries[first].name}: success AUC {score} on {report.count}."
    unsure = [p.tracker for p in order[1:] if not surely_above(report, first, p.tracker)]
    if not unsure:
        alone = len(entries) == 2
        others = "the other" if alone else f"all {len(entries) - 1} others"
        intervals = "the paired interval" if alone else "every paired interval"
        return (
            f"{entries[first].name} is ahead of {others} in success AUC ({score}): {intervals} of "
            f"the difference excludes 0 on {report.count}."
        )
    names = _listed([entries[t].name for t in (first, *unsure)])
    lead = f"Highest success AUC: {entries[first].name} ({score})."
    return f"{lead} {names} are not distinguishable on {_these(report)}."


def pair_verdict(report: ReportData, pair: PairedDifference) -> str:
    """The verdict on one pair."""
    if not is_significant(pair):
        few = f" ({TOO_FEW})" if pair.sequences < FEWEST else ""
        return f"not distinguishable on {_these(report)}{few}"
    return f"{report.entries[pair.a if pair.mean > 0 else pair.b].name} ahead"


def _these(report: ReportData) -> str:
    return "this 1 sequence" if report.count == "1 sequence" else f"these {report.count}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def causes_of(report: ReportData) -> list[tuple[str, int]]:
    """Causes of differences between conventions with the number of their frames, if counted and not 0."""
    counts = {cause: count for cause, count in report.entries[0].causes.items() if count}
    rows = [(_CAUSES.get(cause, cause.replace("_", " ")), count) for cause, count in counts.items()]
    for key in rules_of(report):
        ruled = report.entries[0].rules.get(key)
        for measure, count in ({} if ruled is None else ruled.free_hits).items():
            what = MEASURES.get(measure, measure)
            if count:
                rows.append((f"frames that count as hits in {what} with any box ({key})", count))
    return rows


def attributes_of(report: ReportData) -> list[tuple[str, int]]:
    """Short names of the attributes that every tracker has a number for, with their sequences."""
    ruled: list[RuleScores] = [entry.rules[report.rule] for entry in report.entries]
    return [
        (name, count)
        for name, (count, _) in ruled[0].attributes.items()
        if all(LEADING in r.attributes.get(name, (0, {}))[1] for r in ruled)
    ]


def spelled(names: list[str]) -> list[tuple[str, str]]:
    """The short names that are known, each with its meaning."""
    return [(name, _ATTRIBUTES[name]) for name in names if name in _ATTRIBUTES]


def titles_of(report: ReportData) -> dict[str, str]:
    """The full name of each convention that is shown."""
    return {
        key: next(entry.rules[key].title for entry in report.entries if key in entry.rules) for key in rules_of(report)
    }


def set_of(report: ReportData) -> str:
    """The data set and its split; the user's own clips by the name of their folder, where it is known."""
    if report.data == _OWN and report.place:
        return report.place if report.split in ("", "all") else f"{report.place} {report.split}"
    return " ".join(part for part in (report.data, report.split) if part)


# -- LaTeX (package booktabs) -------------------------------------------------------------------------


def latex_of(report: ReportData) -> str:
    """The overall table for a paper."""
    columns, entries = columns_of(report, report.main), report.entries
    order = [place.tracker for place in ranking(report)]
    first = order[0]
    marked = [
        [c.measure == LEADING and c.rule == report.rule and t != first and not surely_above(report, first, t)
         for c in columns]
        for t in order
    ]  # fmt: skip
    titles = "; ".join(f"{key}: {title}" for key, title in titles_of(report).items())
    caption = f"{set_of(report)}, {report.count}. {titles}. Highest number in bold."
    if any(any(row) for row in marked):
        caption += (
            f" A dagger: not distinguishable from {entries[first].name} on {_these(report)} "
            "(paired 95% bootstrap interval of the difference in AUC over sequences)."
        )
    return table(
        [(title, [c.head for c in group]) for title, group in grouped(columns)],
        [(entries[t].name, [c.values[t] for c in columns]) for t in order],
        marked=marked,
        last=("perfect tracker", [c.upper_bound for c in columns]) if any(c.upper_bound for c in columns) else None,
        caption=caption,
        label="tab:vltrack",
    )


_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip


def escaped(text: str) -> str:
    """Text for LaTeX: special characters as commands, no line break."""
    return "".join(_SPECIAL.get(c, c) for c in printable(text))


def table(
    groups: Sequence[tuple[str, Sequence[str]]],
    rows: Sequence[tuple[str, Sequence[float | None]]],
    *,
    marked: Sequence[Sequence[bool]],
    last: tuple[str, Sequence[float | None]] | None,
    caption: str,
    label: str,
) -> str:
    """A ``table`` with booktabs rules; the highest number of each column in bold.

    Args:
        groups: (rule, names of its columns); the rule is printed above them.
        rows: (tracker, numbers in the order of all columns); None leaves a dash.
        marked: for each row and column, whether a dagger follows the number.
        last: a row below a line, never in bold: the upper bound.
        caption, label: of the table; the caption is escaped, the label is used unchanged.
    """
    count = sum(len(columns) for _, columns in groups)
    best = [_best([numbers[k] for _, numbers in rows]) for k in range(count)]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escaped(caption)}}}",
        rf"  \label{{{label}}}",
        rf"  \begin{{tabular}}{{l{'r' * count}}}",
        r"    \toprule",
        "    " + "".join(rf" & \multicolumn{{{len(c)}}}{{c}}{{{escaped(g)}}}" for g, c in groups).strip() + r" \\",
        "    " + " ".join(_rules(groups)),
        "    tracker & " + " & ".join(escaped(name) for _, names in groups for name in names) + r" \\",
        r"    \midrule",
    ]
    for (name, numbers), daggers in zip(rows, marked, strict=True):
        cells = []
        for value, top, dagger in zip(numbers, best, daggers, strict=True):
            text = number(value, "--")
            text = rf"\textbf{{{text}}}" if value is not None and text == top else text
            cells.append(text + (r"$^\dagger$" if dagger else ""))
        lines.append(f"    {escaped(name)} & " + " & ".join(cells) + r" \\")
    if last is not None:
        lines.append(r"    \midrule")
        lines.append(f"    {escaped(last[0])} & " + " & ".join(number(value, "--") for value in last[1]) + r" \\")
    lines += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _rules(groups: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """A short line under each group's head."""
    made, at = [], 2
    for _, columns in groups:
        made.append(rf"\cmidrule(lr){{{at}-{at + len(columns) - 1}}}")
        at += len(columns)
    return made


def _best(values: Sequence[float | None]) -> str:
    """The highest number as written, so that equal text is bold alike."""
    known = [value for value in values if value is not None]
    return number(max(known)) if len(known) > 1 else ""
