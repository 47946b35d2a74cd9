"""Tables for a paper as LaTeX text (package booktabs). Knows cells; computes no score."""

from __future__ import annotations

from collections.abc import Sequence

from vltrack.core.text import printable

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip


def escaped(text: str) -> str:
    """Text that LaTeX sets as it stands: its special characters as commands, no line break."""
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
        groups: (rule, names of its columns); the rule stands above them.
        rows: (tracker, numbers in the order of all columns); None leaves a dash.
        marked: for each row and column, whether a dagger stands behind the number.
        last: a row below a line, never in bold: what a perfect tracker gets.
        caption, label: of the table; the caption is escaped, the label is used as it is.
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
        "    "
        + "".join(rf" & \multicolumn{{{len(c)}}}{{c}}{{{escaped(g)}}}" for g, c in groups).strip()
        + r" \\",
        "    " + " ".join(_rules(groups)),
        "    tracker & " + " & ".join(escaped(name) for _, names in groups for name in names) + r" \\",
        r"    \midrule",
    ]
    for (name, numbers), daggers in zip(rows, marked, strict=True):
        cells = []
        for value, top, dagger in zip(numbers, best, daggers, strict=True):
            text = _number(value)
            text = rf"\textbf{{{text}}}" if value is not None and text == top else text
            cells.append(text + (r"$^\dagger$" if dagger else ""))
        lines.append(f"    {escaped(name)} & " + " & ".join(cells) + r" \\")
    if last is not None:
        lines.append(r"    \midrule")
        lines.append(f"    {escaped(last[0])} & " + " & ".join(map(_number, last[1])) + r" \\")
    lines += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _rules(groups: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """A short rule under each group's head."""
    made, at = [], 2
    for _, columns in groups:
        made.append(rf"\cmidrule(lr){{{at}-{at + len(columns) - 1}}}")
        at += len(columns)
    return made


def _best(values: Sequence[float | None]) -> str:
    """The highest number as it is written, so that what reads the same is bold alike."""
    known = [value for value in values if value is not None]
    return _number(max(known)) if len(known) > 1 else ""


def _number(value: float | None) -> str:
    return "--" if value is None else f"{value:.2f}"
