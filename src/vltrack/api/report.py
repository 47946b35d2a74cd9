"""``vltrack.report``: curves, tables and worst sequences of trackers on one data set, as one page.

Results become one document, and every file is drawn from the document alone: drawing it again gives the same
bytes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from inspect import signature
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vltrack.api.doctor import published_on
from vltrack.api.inputs import SHORT, check_choice, check_folder, make_folder
from vltrack.api.report_sources import (
    Source,
    common,
    is_pooled,
    open_evidence,
    read_sources,
    report_document,
    sequence_record,
    similarity,
)
from vltrack.core.errors import UsageError
from vltrack.core.files import printable, write_bytes
from vltrack.core.json_io import finite_or_none, parse_json
from vltrack.datasets.sequences import Sequence as Clip
from vltrack.evaluation.summary import Short
from vltrack.metrics.bootstrap import paired_bootstrap
from vltrack.metrics.protocols import RULES
from vltrack.plots.report_data import FORMAT, MOST, VERSION, read_report, row_record

FORMATS = ("svg", "png")
KNOWN_FORMATS = (*FORMATS, "pdf", "pgf")
PAGE, DOCUMENT, TABLE, PICTURES = "report.html", "report.json", "table.tex", "pictures"
_OURS = re.compile(
    r"(success|precision|norm-precision|attributes|speed|likeness|(strip|sheet)-\d+|gain-\d+-over-\d+)\.(svg|png|pdf|pgf)"
)
_MEASURES = {
    "auc": "success: mean over thresholds of the share of frames whose overlap is above them",
    "precision": "precision: share of frames whose center is within 20 pixels",
    "norm_precision": "normalized precision: the same within 0.20 of the target's width and height",
    "norm_precision_mean": "normalized precision: mean over thresholds up to 0.5",
    "op50": "share of frames whose overlap is above 0.50",
    "op75": "share of frames whose overlap is above 0.75",
    "overlap": "mean overlap",
}
"""Meaning of the measures, unless a protocol defines them otherwise."""
_NO_FRAMES: dict[str, Any] = {"films": [], "worst_by": "", "likeness": None, "likeness_note": ""}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportResult:
    """A report that was written.

    Attributes:
        out, files: folder, and the files in it.
        sequences, of: scored sequences, and those of the whole data set.
        rule: protocol of figures and intervals.
        verdict: the comparison in one sentence.
        places: first and last place of each tracker that the intervals allow.
        pairs: paired intervals of each two trackers: mean, low and high in percentage points.
        notes: what a reader should know.
    """

    out: str
    files: list[str]
    sequences: int
    of: int
    rule: str
    verdict: str
    places: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    notes: list[str]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one row per pair of trackers and measure, for pandas."""
        return iter(self.pairs)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``vltrack report --json`` prints."""
        return asdict(self)


def report(
    results: str | Path | Sequence[str | Path],
    *,
    out: str | Path = "report",
    data: str | Path | None = None,
    against: str | None = None,
    worst: int = 4,
    rule: str = "official",
    formats: Sequence[str] = FORMATS,
    subset_common: bool = False,
    short: Short = "refuse",
    overwrite: bool = False,
) -> ReportResult:
    """Write one page with all figures and tables for one or several trackers on one data set.

    Args:
        results: folders of results or ``scores.json`` files, each ``PATH`` or ``NAME=PATH``; or one
            ``report.json``, which is drawn again.
        out: folder for page, figures, table and JSON.
        data: the data set: adds overlap timelines and contact sheets, and scores results that have no scores yet.
        against: name of the tracker that the others are compared with; None takes the last.
        worst: number of the worst sequences to show.
        rule: protocol of figures and intervals: ``official`` or ``vlt-python``.
        formats: of the figures, of ``svg``, ``png``, ``pdf`` and ``pgf``. Contact sheets are pixels: their PNG takes
            the place of the last two.
        subset_common: compare the sequences that all trackers have.
        short: results scored here with too few rows: ``refuse``, count as ``misses``, or ``cut``.
        overwrite: replace a report that exists.

    Returns:
        The files, and what they say: verdict, places, and paired bootstrap intervals.

    Raises:
        UsageError: files exist already, or the results do not belong together.
        DataError: results or data cannot be read. ResourceError: a file cannot be written.

    Examples:
        >>> import vltrack
        >>> done = vltrack.report(["a/scores.json", "b/scores.json"], formats=["svg"], worst=0)
        >>> done.verdict.split(":")[0], "report.html" in done.files
        ('a is ahead of the other in success AUC (50.00)', True)
    """
    words = [os.fspath(word) for word in ([results] if isinstance(results, str | Path) else results)]
    formats = tuple(dict.fromkeys(str(kind).lower() for kind in formats))
    unknown = next((kind for kind in formats if kind not in KNOWN_FORMATS), None)
    if not formats or unknown is not None:
        hint = f"Known: {', '.join(KNOWN_FORMATS)}."
        raise UsageError(f"The figure format {printable(unknown or '')!r} is unknown.", hint=hint)
    check_choice("short", short, SHORT)
    out = Path(out)
    check_folder(out)
    taken = [name for name in (PAGE, DOCUMENT, TABLE, PICTURES) if (out / name).exists()]
    if taken and not overwrite:
        raise UsageError(
            f"{printable(out / taken[0])} exists already.", hint="Pass overwrite (--overwrite), or another folder."
        )
    document = report_document(words)
    if document is None:
        options = {
            "out": out, "data": data, "against": against, "worst": worst, "rule": rule,
            "format": ",".join(formats), "short": short,
        }  # fmt: skip
        usual = {name: one.default for name, one in signature(report).parameters.items()}
        usual |= {"out": None, "format": ",".join(FORMATS)}  # the folder is always named
        more = [text for name, value in options.items() if value != usual[name] for text in (f"--{name}", str(value))]
        more += ["--subset-common"] if subset_common else []
        head = {
            "format": FORMAT,
            "version": VERSION,
            "command": shlex.join(["vltrack", "report", *words, *more]),
            "date": time.strftime("%Y-%m-%d"),
        }
        place = None if data is None else Path(data)
        document = head | _document(words, place, against, worst, rule, short, subset_common=subset_common)
    elif data is not None or against is not None or subset_common or short != "refuse":
        raise UsageError(
            "A report.json can only be drawn again.", hint="Leave out data, against, short, subset-common."
        )
    return _write(document, out, formats)


def _write(document: dict[str, Any], out: Path, formats: Sequence[str]) -> ReportResult:
    """Draw everything from the document and write it; figures of an earlier report are removed."""
    from vltrack.plots.report import draw_figures, report_page
    from vltrack.plots.report_table import latex_of, pair_verdict, ranking, verdict

    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
    found = read_report(parse_json(text, DOCUMENT), DOCUMENT)
    figures = draw_figures(found, formats)
    files = {
        f"{PICTURES}/{one.name}.{kind}": one.data[kind]
        for one in figures
        for kind in (kind if kind in one.data else "png" for kind in formats)
    }
    files[TABLE] = latex_of(found).encode()
    files[DOCUMENT] = text.encode("utf-8", "backslashreplace")  # a lone surrogate: JSON has the same escape
    files[PAGE] = report_page(found, figures).encode("utf-8", "backslashreplace")
    folder = make_folder(out / PICTURES)
    for name, data in files.items():  # the page last
        write_bytes(out / name, data)
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and f"{PICTURES}/{path.name}" not in files:
            path.unlink(missing_ok=True)
    return ReportResult(
        out=str(out),
        files=sorted(files),
        sequences=len(found.sequences),
        of=found.of,
        rule=found.rule,
        verdict=verdict(found),
        places=[
            {"tracker": found.entries[place.tracker].name, "first": place.first, "last": place.last}
            for place in ranking(found)
        ],
        pairs=[
            {
                "a": found.entries[pair.a].name, "b": found.entries[pair.b].name, "measure": pair.measure,
                "mean": finite_or_none(pair.mean), "low": pair.low, "high": pair.high,
                "verdict": pair_verdict(found, pair),
            }
            for pair in found.pairs
        ],
        notes=found.notes,
    )  # fmt: skip


def _document(
    words: Sequence[str],
    data: Path | None,
    against: str | None,
    worst: int,
    rule: str,
    short: Short,
    *,
    subset_common: bool,
) -> dict[str, Any]:
    """Return everything that the report says and shows, from results and data."""
    if len(words) > MOST:
        raise UsageError(f"{len(words)} trackers are too many; at most {MOST} fit a report.", hint="Make two reports.")
    sources, dataset = read_sources(words, data, short)
    sources, subset, of = common(sources, wanted=subset_common)
    for source in sources:
        if rule not in source.scores["rules"]:
            known = ", ".join(map(printable, source.scores["rules"]))
            raise UsageError(
                f"{printable(source.name)} has no scores under {printable(rule)!r}.", hint=f"There is: {known}."
            )
    notes = _notes(sources)
    if subset == "common":
        notes.append("Means over the common sequences; curves and upper bounds need all trackers scored on them.")
    reference = _against(sources, against)
    shown = _NO_FRAMES
    if dataset is not None:
        shown = _shown(sources, dataset.sequences, rule, reference, worst, notes)
    elif worst:
        notes.append("No overlap timelines and contact sheets: they need the data set (--data) and folders of results.")
    first = sources[0].scores["rules"][rule]
    return {
        "rule": rule,
        "against": reference,
        "subset": subset,
        "of": of,
        "scores": [source.scores | {"name": source.name} for source in sources],
        "pairs": _pairs(sources, rule),
        **shown,
        "published": _published(sources[0].scores),
        "notes": notes,
        "rule_texts": _rule_texts(sources),
        "main": ["overlap", "op50", "op75"] if is_pooled(first) else ["auc", "norm_precision", "precision"],
        "measures": _MEASURES | (first.get("measures") or {}),
    }


def _published(scores: dict[str, Any]) -> list[dict[str, str]]:
    """Return what others have published on the data set, as texts. Papers report test splits."""
    if scores["split"] in ("train", "val"):
        return []
    return [
        {
            "model": one["model"], "start": one["from"], "conditions": one["conditions"], "source": one["source"],
            "values": " ".join(f"{name} {value:.1f}" for name, value in one["values"].items()),
        }
        for one in published_on(scores["data"])
    ]  # fmt: skip


def _notes(sources: Sequence[Source]) -> list[str]:
    """Return the notes of the evaluations; a note that all have appears once."""
    own = [[str(n) for n in (s.scores.get("note"), *(s.scores.get("notes") or [])) if n] for s in sources]
    lines = [
        note if all(note in others for others in own) else f"{source.name}: {note}"
        for source, notes in zip(sources, own, strict=True)
        for note in notes
    ]
    return list(dict.fromkeys(lines))


def _against(sources: Sequence[Source], name: str | None) -> int | None:
    """Return the number of the tracker that the others are compared with: the named one, else the last."""
    names = [source.name for source in sources]
    if name is not None and name not in names:
        raise UsageError(
            f"{printable(name)!r} (--against) is none of the trackers.",
            hint=f"There is: {', '.join(map(printable, names))}.",
        )
    if len(sources) < 2:
        return None
    return len(sources) - 1 if name is None else names.index(name)


def _pairs(sources: Sequence[Source], rule: str) -> list[dict[str, Any]]:
    """Return the paired interval of every pair and measure."""
    from vltrack.plots.report import PAIRED

    rows = []
    for measure in PAIRED:
        each = [_row(source, rule, measure) for source in sources]
        for a, b in combinations(range(len(sources)), 2):
            if len(each[a]) and len(each[a]) == len(each[b]):
                interval = paired_bootstrap(each[a], each[b], seed=0).to_dict()
                rows.append({"a": a, "b": b, "measure": measure, **interval})
    return rows


def _row(source: Source, rule: str, measure: str) -> NDArray[np.float64]:
    """Return one measure of every sequence (S,), NaN where undefined; (0,) where the scores lack it."""
    values = (source.scores["rules"][rule].get("per_sequence") or {}).get(measure) or []
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _rule_texts(sources: Sequence[Source]) -> dict[str, dict[str, str]]:
    """Return each protocol switch by switch."""
    texts = {}
    for source in sources:
        for key, ruled in source.scores["rules"].items():
            row = RULES.get(str(ruled.get("rule")))
            if row is not None:
                texts[key] = {switch.replace("_", " "): str(value) for switch, value in asdict(row).items()}
    return texts


def _shown(
    sources: Sequence[Source], clips: Sequence[Clip], rule: str, against: int | None, worst: int, notes: list[str]
) -> dict[str, Any]:
    """Return the worst sequences and the similarity of boxes; ``notes`` gets what is missing and why."""
    without = [source.name for source in sources if source.folder is None]
    if without:
        notes.append(f"No overlap timelines and contact sheets: the boxes of {without[0]} are not next to its scores.")
        return _NO_FRAMES
    names = sources[0].sequences
    by_name = {clip.name: clip for clip in clips}
    absent = [name for name in names if name not in by_name]
    if absent:
        raise UsageError(
            f"The data set has no sequence {printable(absent[0])} ({len(absent)} of {len(names)} are not there).",
            hint="Give the data set that was scored.",
        )
    evidence = [open_evidence(source.folder, names) for source in sources if source.folder is not None]
    picked, by = _worst(sources, rule, against, worst)
    records, reasons = [], defaultdict(list)
    for name in picked:
        record, reason = sequence_record(by_name[name], evidence)
        records.append(record)
        if reason:
            reasons[reason].append(name)
    notes += [f"No contact sheet of {', '.join(some)}: {reason}" for reason, some in reasons.items()]
    matrix = similarity([by_name[name] for name in names], evidence)
    note = f"mean overlap where the target is there \u00b7 {len(names)} sequence{'s' if len(names) != 1 else ''}"
    return {"films": records, "worst_by": by, "likeness": row_record(matrix.ravel(), 4), "likeness_note": note}


def _worst(sources: Sequence[Source], rule: str, against: int | None, count: int) -> tuple[list[str], str]:
    """Return the ``count`` worst sequences, and by what they were picked."""
    table = np.nan_to_num(np.stack([_row(source, rule, "auc") for source in sources]))
    if against is None:
        value, reason = table[0], "Lowest success AUC."
    else:
        others = np.delete(table, against, axis=0)
        value = others.mean(axis=0) - table[against]
        reason = f"Largest loss of success AUC against {sources[against].name}."
    order = sorted(range(len(value)), key=lambda s: (value[s], sources[0].sequences[s]))
    return [sources[0].sequences[s] for s in order[:count]], reason
