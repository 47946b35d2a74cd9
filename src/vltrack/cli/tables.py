"""Results of the verbs as lines of text."""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vltrack.core.files import counted, printable

if TYPE_CHECKING:
    from vltrack.api.ablate import Ablation
    from vltrack.api.compare import Comparison
    from vltrack.api.datasets import DataCheck
    from vltrack.api.evaluate import RuleSearch
    from vltrack.api.tune import TuneResult
    from vltrack.checkpoints.importing import Imported
    from vltrack.evaluation.audit_report import Audit
    from vltrack.evaluation.distractors import DistractorAudit
    from vltrack.metrics.bootstrap import Interval

Summary = Mapping[str, Any]


def aligned(rows: list[list[str]], *, names: int | None = None, indent: str = "") -> list[str]:
    """Return rows as lines with columns of equal width, to the right after the first ``names`` columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = len(widths) if names is None else names
    return [
        (
            indent
            + "  ".join(
                cell.ljust(width) if column < right else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        ).rstrip()
        for row in rows
    ]


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else f"{value:{form}}"


# -- compare ------------------------------------------------------------------------------------------


def comparison_lines(found: Comparison) -> Iterator[str]:
    """Yield one line per tracker with its scores, and one for each that failed or is left out."""
    columns = {"agreement": ("agreement", ".2f"), "frames_per_second": ("frames/s", ".1f"), "lost": ("lost", ".0%")}
    if found.auc:
        columns["success_auc"] = ("AUC", ".3f")
    rows = [["", *(title for title, _ in columns.values())]]
    for row in found.rows():
        cells = [_number(row.get(key), form) for key, (_, form) in columns.items()]
        rows.append([printable(row["tracker"]), *cells])
    yield from aligned(rows, names=1)
    width = max(len(row[0]) for row in rows)
    for name, why in {**found.failures, **found.left_out}.items():
        yield f"{printable(name).ljust(width)}  {why}"


# -- evaluate -----------------------------------------------------------------------------------------

_OPE = {
    "auc": "AUC", "precision": "P", "norm_precision": "NP",
    "norm_precision_mean": "NP mean", "op50": "OP50", "op75": "OP75",
}  # fmt: skip
NAMES = {**_OPE, "norm_precision_at_20": "NP 0.20", "overlap": "AO"}
"""Names of the measures in tables."""
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
    "truth": "{} takes the ground truth for the tracker's box",
    "keep": "{} takes the tracker's own box",
    "drop": "{} counts nothing",
}
_EXTRA = {"mean_accuracy": "mAcc", "complete_auc": "cAUC", "coverage": "coverage"}
_GROUNDING = {"acc_25": "Acc@0.25", "acc_50": "Acc@0.50", "acc_75": "Acc@0.75", "mean_iou": "mean IoU"}


def score_lines(summaries: Sequence[Summary], *, attributes: bool = False) -> Iterator[str]:
    """Yield all tables: one block for each group of summaries over the same sequences."""
    if summaries and "splits" in summaries[0]:
        yield from _grounding_lines(summaries)
        return
    groups: dict[tuple[str, ...], list[Summary]] = {}
    for summary in summaries:
        groups.setdefault(tuple(row["name"] for row in summary["sequences"]), []).append(summary)
    for group in groups.values():
        yield from _group_lines(group, attributes)


def _grounding_lines(summaries: Sequence[Summary]) -> Iterator[str]:
    yield f"{summaries[0]['data']}: found from text alone, overlap strictly above the threshold"
    rows = [["tracker", "split", *_GROUNDING.values(), "phrases"]]
    for one in summaries:
        for split, values in one["splits"].items():
            numbers = [f"{values[key]:.2f}" for key in _GROUNDING]
            rows.append([one["tracker"], split, *numbers, str(values["count"])])
    yield from aligned(rows, names=2, indent="  ")


def _group_lines(summaries: Sequence[Summary], attributes: bool) -> Iterator[str]:
    from vltrack.evaluation.summary import protocols_differ

    first = summaries[0]
    count = first["causes"]
    name = first["data"] if first["data"] != "folder" else f"{first['place']} (clips of your own)"
    yield (
        f"{name}, {first['split']}: {counted(len(first['sequences']), 'sequence')},"
        f" {counted(count['frames'], 'frame')}, target absent in {count['absent']:,}"
    )
    if (subset := first["subset"]) is not None:
        yield f"ONLY {subset['n']} of {subset['of']} sequences ({subset['name']}): no score of the whole data set."
    if first["note"]:
        yield first["note"]
    rules = list(dict.fromkeys(column for summary in summaries for column in summary["rules"]))
    same = not any(map(protocols_differ, summaries))
    for column in rules:
        if same and column == "vlt-python":  # shown only where it differs for a tracker
            continue
        those = [summary for summary in summaries if column in summary["rules"]]
        yield ""
        yield from _rule_lines(column, those)
        if attributes:
            yield from _attribute_lines(column, those)
    if same and "vlt-python" in first["rules"]:
        yield ""
        yield "vlt-python (as papers of this field report): the same to the second decimal."
    for summary in summaries:
        yield from _note_lines(summary)


def _rule_lines(column: str, summaries: Sequence[Summary]) -> Iterator[str]:
    from vltrack.api.evaluate import PERFECT
    from vltrack.evaluation.summary import OWN_FIRST, share_of

    rule = summaries[0]["rules"][column]
    extra = {key: title for key, title in _EXTRA.items() if key in rule["extra"]}
    names = _POOLED if rule["rule"] == "got10k" else _OPE | extra
    more = ", the box that the text gave scored unchanged" if column == OWN_FIRST else ""
    yield f"{column}: {rule['title']}{more}"
    if any(key in names for key in rule["measures"]):
        yield "  " + "; ".join(f"{names[key]}: {text}" for key, text in rule["measures"].items() if key in names)

    def cells(values: Summary) -> list[str]:
        return [_number(values["extra"].get(key) if key in _EXTRA else values[key]) for key in names]

    n, of = share_of(summaries[0])
    part = [] if n == of else [f"{n}/{of}"]
    rows = [["tracker", "mode", *names.values(), *("sequences" for _ in part)]]
    rows += [
        [summary["tracker"], summary["mode"] or "-", *cells(summary["rules"][column]), *part]
        for summary in summaries
        if summary["tracker"] != PERFECT
    ]
    rows.append([PERFECT, "", *cells({**rule["ceiling"], "extra": {}}), *part])
    yield from aligned(rows, names=2, indent="  ")
    if column == "vlt-python":
        yield from _cause_lines(summaries[0])


def _cause_lines(summary: Summary) -> Iterator[str]:
    """Yield the reasons why the protocols differ, counted."""
    found = [f"{summary['causes'][key]:,} {text}" for key, text in _CAUSES.items() if summary["causes"][key]]
    rules = summary["rules"]
    if len({rules[column]["first"] for column in _BOTH}) > 1:
        found += [f"in the first frame {_FIRST[rules[column]['first']].format(column)}" for column in _BOTH]
    for column in _BOTH:
        hits = rules[column]["free_hits"]
        found += [
            f"{column} takes {hits[key]:,} frames for hits in {name} whatever the box"
            for key, name in (("precision", "P"), ("norm_precision", "NP"))
            if hits[key]
        ]
    if found:
        yield "why they differ: " + "; ".join(found) + "."


def _attribute_lines(column: str, summaries: Sequence[Summary]) -> Iterator[str]:
    known = summaries[0]["rules"][column]["attributes"]
    if not known:
        return
    yield f"{column}, AUC by attribute (number of sequences)"
    rows = [["tracker", "mode", *(f"{name} ({known[name]['sequences']})" for name in known)]]
    for summary in summaries:
        own = summary["rules"][column]["attributes"]
        rows.append([summary["tracker"], summary["mode"] or "-", *(f"{own[name]['auc']:.2f}" for name in known)])
    yield from aligned(rows, names=2, indent="  ")


def _note_lines(summary: Summary) -> Iterator[str]:
    from vltrack.evaluation.summary import first_frames

    who = " ".join(filter(None, (summary["tracker"], summary["mode"])))
    if summary["mode"] == "nl":
        right, of, mean = first_frames(summary)
        yield (
            f"{who}: the text found the target in the first frame in {right} of {of} sequences"
            f" (overlap above 0.5; mean {mean:.3f}). Toolkits replace that box by the ground truth."
        )
    if summary.get("speed"):
        rate = summary["speed"]["fps"]
        yield f"{who}: {rate:.1f} frames per second while tracking (this machine, one thread)."
    for note in summary["notes"]:
        yield f"{who}: {note}"


def rule_lines(found: RuleSearch) -> tuple[list[str], list[str]]:
    """Return one line per protocol that gives the number, and warnings on those that were not tried."""
    from vltrack.metrics.protocol_search import CHANGES
    from vltrack.metrics.protocols import benchmark_of

    official = {rule.name: column for column, rule in benchmark_of(found.data).rules.items()}

    def named(rule: str) -> str:
        return f"{rule} ({official[rule]})" if rule in official else rule

    lines = [
        f"{fit.value:7.3f}  {NAMES.get(fit.measure, fit.measure):<8} {CHANGES[fit.change][0]}: "
        + ", ".join(map(named, fit.rules))
        for fit in found.fits
    ]
    warnings = []
    if found.sequences != found.of:
        warnings.append(f"these are {found.sequences} of {found.of} sequences; published numbers are over all of them.")
    for why in sorted(set(found.refused.values())):
        who = ", ".join(named(rule) for rule in found.refused if found.refused[rule] == why)
        warnings.append(f"not tried: {who}. {why}{' See --short.' if 'fewer' in why else ''}")
    return lines, warnings


# -- audit --------------------------------------------------------------------------------------------


def audit_lines(audit: Audit | DistractorAudit) -> list[str]:
    """Return the verdict of each mode with a line for each other sentence; for synthetic scenes every number."""
    from vltrack.evaluation.distractors import DistractorAudit

    if isinstance(audit, DistractorAudit):
        rows = [
            ["frames on the named object", _ends(audit.named, 3)],
            ["frames on the other one", _ends(audit.other, 3)],
            ["lead (0: the text has no effect, 1: always right)", _ends(audit.lead, 3)],
            ["scenes that flip with the sentence", _ends(audit.flip, 3)],
            ["moved (1 - overlap)", _ends(audit.moved, 3)],
            ["starts refused", f"{audit.refused} of {2 * len(audit.scenes)}"],
        ]
        lines = [f"distractor pairs: {audit.verdict_text}", *aligned(rows, indent="  ")]
        return [*lines, _intervals(len(audit.scenes), "scene", "bootstrap")]
    lines = []
    for mode, result in audit.modes.items():
        auc = "" if result.auc is None else f"; success AUC with the true sentence {result.auc:.2f}"
        refused = f"; {result.refused} starts from text refused" if result.refused else ""
        lines.append(f"{mode}: {result.verdict_text}{auc}{refused}")
        rows = [["instead of the sentence", "moved (1 - overlap)", "in target sizes", "gain of the sentence"]]
        for variant, total in result.totals.items():
            gain = "no ground truth" if total.gain is None else total.gain.describe()
            rows.append([str(variant), _ends(total.moved, 3), _ends(total.distance, 2), gain])
        lines += aligned(rows, indent="  ")
    lines.append(_intervals(len(audit.targets), "target", "paired bootstrap"))
    if audit.left_out:
        lines.append(f"left out, no sentence: {len(audit.left_out)}")
    return lines + [f"failed: {one.name}: {one.error.message}" for one in audit.failed]


def _intervals(count: int, noun: str, method: str) -> str:
    if count == 1:
        return f"one {noun}: no interval."
    return f"{count} {noun}s; intervals: 95 %, {method} over {noun}s."


def _ends(interval: Interval, digits: int) -> str:
    if interval.sequences == 0:
        return "-"
    ends = f" [{interval.low:.{digits}f}, {interval.high:.{digits}f}]" if interval.is_interval else ""
    return f"{interval.mean:.{digits}f}{ends}"


def tune_lines(found: TuneResult) -> list[str]:
    """Return a table with a row for each trial, and the options to set."""
    cells = [["policy", *found.models, "gain", "taken"]]
    for number, row in enumerate(found.rows()):
        gain = f"{_number(row['gain'], '+.2f')} +- {_number(row['error'])}" if number else ""
        cells.append([row["changes"], *(f"{row[name]:.2f}" for name in found.models), gain, "*" * row["taken"]])
    better = " ".join(f"--set policy.{key}={value}" for key, value in found.policy.items())
    return [
        *aligned(cells, names=1),
        f"success AUC over {counted(len(found.targets), 'target')}, {found.mode}; gain over the row taken last,"
        " +- its standard error over the targets",
        better or "nothing gained more than its standard error.",
    ]


def ablation_lines(found: Ablation) -> list[str]:
    """Return a Markdown table: success AUC of each variant and what the idea adds, with its interval."""
    lines = [
        f"Success AUC after {counted(found.steps, 'step')}, over {counted(len(found.targets), 'target')}; +- deviation"
        " over the seeds. Adds: AUC with the idea minus without it, 95 % bootstrap interval over the targets.",
        "",
        "| tracker | without | start | AUC | adds |",
        "|---|---|---|---|---|",
    ]
    for row in found.rows():
        auc = f"{row['auc']:.1f}" + ("" if row["deviation"] is None else f" +- {row['deviation']:.1f}")
        adds = f"{row['adds']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]" if row["off"] else ""
        start = {"bbox": "box", "nlbbox": "box and text"}[row["mode"]]
        lines.append(f"| {row['model']} | {row['off'] or 'nothing'} | {start} | {auc} | {adds} |")
    return lines


# -- datasets -----------------------------------------------------------------------------------------

_SHOWN = 20


def dataset_lines(rows: Sequence[Summary]) -> list[str]:
    """Return the list of known data sets as a table."""
    cells = [["name", "splits", "sentence", "absent"]]
    for row in rows:
        more = f" (+{len(row['splits']) - 4})" if len(row["splits"]) > 4 else ""
        cells.append([row["name"], " ".join(row["splits"][:4]) + more, row["sentence"], row["absent"]])
    return aligned(cells)


def fetch_lines(found: Summary) -> Iterator[str]:
    """Yield where a data set is from, and how its folders have to look."""
    yield f"{found['title']}" + (f": {found['size']}" if found["size"] else "")
    if found["page"]:
        yield f"from {found['page']}"
    yield from (f"  - {part}" for part in found["parts"])
    yield "so that there is"
    yield from (f"  {line}" for line in found["tree"])
    yield f"then: vltrack datasets check ROOT --name {found['name']}"


def check_lines(check: DataCheck) -> Iterator[str]:
    """Yield name, contents and findings of a data set, at most 20 findings of a kind."""
    form = f" ({check.form})" if check.form else ""
    yield f"{check.title}{form} in {check.path}"
    for split in check.splits:
        sequences, frames = counted(split["sequences"], "sequence"), counted(split["frames"], "frame")
        line = f"  {split['split']}: {sequences}, {frames}, absent in {split['absent']:,}"
        bare = split["without_sentence"]
        yield line if bare is None else f"{line}; {bare} without a sentence"
    counts: Counter[tuple[str, str]] = Counter()
    for issue in check.issues:
        counts[issue.severity, issue.kind] += 1
        if counts[issue.severity, issue.kind] <= _SHOWN:
            yield f"{issue.severity}: {issue}" + (f" {issue.hint}" if issue.hint else "")
    for (severity, kind), count in counts.items():
        if count > _SHOWN:
            yield f"{severity}: {count - _SHOWN} more of the kind {kind} (--json lists all)"


# -- models -------------------------------------------------------------------------------------------

_HEADS = {
    "name": "name", "year": "year", "modes": "modes", "weights": "weights", "parameters": "parameters",
    "parameters_trained": "trained", "parameters_running": "running", "frame": "frame", "ground": "from text",
}  # fmt: skip
"""Columns of the list of models."""
LEGEND = (
    "trained: at the start of training. running: used by a tracker. frame, from text: multiply-adds "
    "(papers call them FLOPs) of a tracked frame and of one that is searched from text alone. Published: "
    "base sizes on whole benchmarks by their authors; not measured here, not comparable with a tiny size."
)


def model_lines(rows: Sequence[Summary]) -> Iterator[str]:
    """Yield the table of models, then paper, claims and what is ours of each, then figures."""
    cells = [list(_HEADS.values())]
    for row in rows:
        values = {**row, **(row["multiplications"] or {})}
        cells.append([_model_cell(key, values.get(key)) for key in _HEADS])
    yield from aligned(cells, names=4)
    width = max(60, min(shutil.get_terminal_size().columns, 110))
    for row in {row["tracker"]: row for row in rows}.values():
        yield ""
        yield f"{row['tracker']} ({row['year']})"
        for head in ("paper", "claims", "ours"):
            yield from textwrap.wrap(row[head], width, initial_indent=f"  {head:<8}", subsequent_indent=" " * 10)
    figures = [figure for row in rows for figure in row["figures"]]
    cells = []
    for by, head in (("published", "published, in %"), ("measured", "measured here, in %")):
        some = [figure for figure in figures if (figure["by"] == "measured") == (by == "measured")]
        cells += [[head, "start", "data", "", "conditions", "source"]] if some else []
        for one in some:
            shown = " ".join(f"{name} {value:.1f}" for name, value in one["values"].items()) or one["by"]
            cells.append([one["model"], one["from"], one["data"], shown, one["conditions"], one["source"]])
    if cells:
        yield ""
        yield from aligned(cells, names=6)


def measured_lines(rows: Iterable[Summary]) -> Iterator[str]:
    """Yield a head, and a line for each model once it is measured."""
    for number, row in enumerate(rows):
        if number == 0:  # the first one may raise
            yield f"{'name':<24}  {'runtime':<14}  ms a frame  frames/s  memory MB  load s"
        yield (
            f"{row['name']:<24}  {row['runtime']:<14}  {row['milliseconds']:>10.1f}  {row['frames_per_second']:>8.1f}"
            f"  {row['peak_mb']:>9.0f}  {row['load_seconds']:>6.2f}"
        )


def _model_cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "weights":
        return "at hand"
    if isinstance(value, list):
        return " ".join(value)
    if key in ("name", "year"):
        return str(value)
    return f"{value / 1e6:.2f} M" if key.startswith("parameters") else f"{value / 1e9:.2f} G"


# -- import-weights -----------------------------------------------------------------------------------

_COUNTERS = ".num_batches_tracked"
"""Suffix of counters of training steps in batch norms, which no tracker reads."""
_NAMED = 10


def import_lines(done: Imported, name: str) -> tuple[list[str], list[str]]:
    """Return one line per file and one for the weights, and warnings on parameters that no file set."""
    lines, warnings = [], []
    for part in done.parts:
        ignored = [one for one in part.ignored if not one.endswith(_COUNTERS)]
        first = ", ".join(ignored[:_NAMED]) + (", ..." if len(ignored) > _NAMED else "")
        more = f", {len(ignored)} without a place here ({first})" if ignored else ""
        lines.append(
            f"{part.file} is {part.title}: {counted(len(part.loaded), 'tensor')} set{more}."
            f" Its license: {part.license}."
        )
        if part.prepared:
            lines.append(f"  {part.prepared}")
    fresh = [one for one in done.kept_fresh if not one.endswith(_COUNTERS)]
    if fresh:
        counts = Counter(one.partition(".")[0] + ("." if "." in one else "") for one in fresh)
        groups = (key if not key.endswith(".") else f"{key}* ({n})" for key, n in counts.items())
        warnings.append(f"set by no file, so at their initial values: {', '.join(groups)}.")
    lines.append(f"wrote {done.path} and its card {done.path.with_suffix('.json').name}")
    if not done.complete:
        warnings.append(f"this is a start for training {name}, not a tracker yet: vltrack track refuses it.")
    elif set(done.modes) != {"nl", "bbox", "nlbbox"}:
        how = "box" if done.modes == ("bbox",) else ", ".join(done.modes)
        lines.append(f"trained for targets named by {how}.")
    return lines, warnings
