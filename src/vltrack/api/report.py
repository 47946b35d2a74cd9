"""Makes a report: sources to one document, the document to files. Knows the order of things; parses no flag.

Everything is drawn from the document alone, also the first time: drawing it again gives the same bytes.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vltrack.api.console import shown
from vltrack.api.report_sources import Source, check_one_data, common, read_sources, report_document, split_of
from vltrack.core.errors import ResourceError, UsageError
from vltrack.core.files import as_resource_error, write_bytes
from vltrack.core.json_io import parse_json

if TYPE_CHECKING:
    from vltrack.evaluation.summary import Short


PAGE, DOCUMENT, TABLE, PICTURES = "report.html", "report.json", "table.tex", "pictures"
_OURS = re.compile(
    r"(success|precision|norm-precision|attributes|speed|likeness|(strip|sheet)-\d+|gain-\d+-over-\d+)\.(svg|png)"
)
_MAIN = {True: ["overlap", "op50", "op75"], False: ["auc", "norm_precision", "precision"]}
_DRAWS = 10_000
_MEASURES = {
    "auc": "success: mean over thresholds of the share of frames whose overlap is above them",
    "precision": "precision: share of frames whose centre is within 20 pixels",
    "norm_precision": "normalised precision: the same within 0.20 of the target's width and height",
    "norm_precision_mean": "normalised precision: mean over thresholds up to 0.5",
    "op50": "share of frames whose overlap is above 0.50",
    "op75": "share of frames whose overlap is above 0.75",
    "overlap": "mean overlap",
}
"""What the measures are, unless a convention says otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A checked command: ``cli/report.py`` tells of each flag. ``command`` and ``date`` are for the page."""

    results: tuple[str, ...]
    out: Path
    data: Path | None
    against: str | None
    worst: int
    rule: str
    formats: tuple[str, ...]
    subset_common: bool
    short: Short
    overwrite: bool
    command: str
    date: str


def run(job: Job) -> dict[str, Any]:
    """Write the report; what was written and what may be said of it.

    Raises:
        UsageError: files are there already, or the results do not belong together.
        DataError: something that is read is at fault.
        ResourceError: something cannot be written.
    """
    _check_out(job)
    document = report_document(job.results)
    if document is None:
        document = _document(job)
    elif job.data is not None or job.against is not None or job.subset_common or job.short != "refuse":
        raise UsageError(
            "a report.json is drawn again as it is.",
            hint="Leave out --data, --against, --short and --subset-common.",
        )
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"

    from vltrack.plots.report import draw_pictures, report_page
    from vltrack.plots.report_data import read_report
    from vltrack.plots.report_table import latex_of, pair_verdict, places, verdict

    report = read_report(parse_json(text, DOCUMENT), DOCUMENT)
    pictures = draw_pictures(report, job.formats)
    files = {
        f"{PICTURES}/{picture.name}.{kind}": picture.data[kind]
        for picture in pictures
        for kind in job.formats
    }
    files[TABLE] = latex_of(report).encode()
    files[DOCUMENT] = text.encode("utf-8", "backslashreplace")  # a lone surrogate: JSON knows the same escape
    files[PAGE] = report_page(report, pictures).encode("utf-8", "backslashreplace")
    _write(job, files)
    return {
        "out": str(job.out),
        "files": sorted(files),
        "sequences": len(report.sequences),
        "of": report.of,
        "rule": report.rule,
        "verdict": verdict(report),
        "places": [
            {"tracker": report.entries[place.tracker].name, "first": place.first, "last": place.last}
            for place in places(report)
        ],
        "pairs": [
            {
                "a": report.entries[pair.a].name, "b": report.entries[pair.b].name, "measure": pair.measure,
                "mean": pair.mean if pair.mean == pair.mean else None, "low": pair.low, "high": pair.high,
                "verdict": pair_verdict(report, pair),
            }
            for pair in report.pairs
        ],
        "notes": report.notes,
    }  # fmt: skip


def _check_out(job: Job) -> None:
    """That nothing is in the way, before anything is read."""
    if job.out.exists() and not job.out.is_dir():
        raise ResourceError(f"{shown(job.out)} is a file.", hint="Choose a folder with --out.")
    taken = [name for name in (PAGE, DOCUMENT, TABLE, PICTURES) if (job.out / name).exists()]
    if taken and not job.overwrite:
        raise UsageError(
            f"{shown(job.out / taken[0])} is there already.", hint="Add --overwrite, or choose another --out."
        )


def _write(job: Job, files: dict[str, bytes]) -> None:
    """Every file whole, the page last; pictures of an earlier report that this one does not have go."""
    folder = job.out / PICTURES
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise as_resource_error(error, folder) from error
    for name, data in files.items():
        write_bytes(job.out / name, data)
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and f"{PICTURES}/{path.name}" not in files:
            path.unlink(missing_ok=True)


def _document(job: Job) -> dict[str, Any]:
    """Everything that the report says and shows, from results and data."""
    from vltrack.plots.report_data import FORMAT, MOST, VERSION

    if len(job.results) > MOST:
        raise UsageError(
            f"{len(job.results)} trackers are too many to tell apart; at most {MOST}.",
            hint="Make two reports.",
        )
    dataset = None
    if job.data is not None:
        from vltrack.datasets.reader import open_dataset

        dataset = open_dataset(job.data, split=split_of(job.results))
    sources = read_sources(job.results, dataset, job.short)
    check_one_data(sources, dataset)
    sources, subset, of = common(sources, wanted=job.subset_common)
    _check_rule(sources, job.rule)
    notes = _notes(sources)
    if subset == "common":
        notes.append("Means over the common sequences; curves and ceilings need all trackers scored on them.")
    against = _against(sources, job.against)
    shown_of: dict[str, Any] = {"films": [], "worst_by": "", "likeness": None, "likeness_note": ""}
    if dataset is not None:
        shown_of = _shown(job, sources, dataset.sequences, against, notes)
    elif job.worst:
        notes.append("No strips and contact sheets: they need --data and folders of results.")
    return {
        "format": FORMAT,
        "version": VERSION,
        "command": job.command,
        "date": job.date,
        "rule": job.rule,
        "against": against,
        "subset": subset,
        "of": of,
        "scores": [source.scores | {"name": source.name} for source in sources],
        "pairs": _pairs(sources, job.rule),
        **shown_of,
        "notes": notes,
        **_rule_words(sources, job.rule),
        "measures": _MEASURES | (sources[0].scores["rules"][job.rule].get("measures") or {}),
    }


def _check_rule(sources: Sequence[Source], rule: str) -> None:
    for source in sources:
        if rule not in source.scores["rules"]:
            known = ", ".join(map(shown, source.scores["rules"]))
            raise UsageError(
                f"{shown(source.name)} has no scores under {shown(rule)!r}.", hint=f"There is: {known}."
            )


def _notes(sources: Sequence[Source]) -> list[str]:
    """What the evaluations had to say; what all say is said once."""
    notes = []
    said = [[s.scores.get("note"), *(s.scores.get("notes") or [])] for s in sources]
    for source, own in zip(sources, said, strict=True):
        for note in (str(n) for n in own if n):
            everyone = all(note in map(str, other) for other in said)
            line = note if everyone else f"{source.name}: {note}"
            if line not in notes:
                notes.append(line)
    return notes


def _against(sources: Sequence[Source], name: str | None) -> int | None:
    """The tracker that the others are compared with: the one that was named, else the last."""
    names = [source.name for source in sources]
    if name is not None and name not in names:
        raise UsageError(
            f"--against {shown(name)!r} is none of the trackers.",
            hint=f"There is: {', '.join(map(shown, names))}.",
        )
    if len(sources) < 2:
        return None
    return len(sources) - 1 if name is None else names.index(name)


def _pairs(sources: Sequence[Source], rule: str) -> list[dict[str, Any]]:
    """The paired interval of every pair and measure."""
    from vltrack.metrics.bootstrap import paired_bootstrap
    from vltrack.plots.report import PAIRED

    rows = []
    for measure in PAIRED:
        each = [_row(source, rule, measure) for source in sources]
        for a, b in combinations(range(len(sources)), 2):
            if len(each[a]) and len(each[a]) == len(each[b]):
                told = paired_bootstrap(each[a], each[b], draws=_DRAWS, seed=0).to_dict()
                rows.append({"a": a, "b": b, "measure": measure, **told})
    return rows


def _row(source: Source, rule: str, measure: str) -> NDArray[np.float64]:
    """(S,) one measure of every sequence, NaN where there is none; (0,) where it is not in the scores."""
    values = (source.scores["rules"][rule].get("per_sequence") or {}).get(measure) or []
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _rule_words(sources: Sequence[Source], rule: str) -> dict[str, Any]:
    """Each convention switch by switch, and the measures that a table for a paper shows."""
    from vltrack.metrics.protocols import RULES

    texts = {}
    for source in sources:
        for key, ruled in source.scores["rules"].items():
            row = RULES.get(str(ruled.get("rule")))
            if row is not None:
                texts[key] = {switch.replace("_", " "): str(value) for switch, value in asdict(row).items()}
    own = RULES.get(str(sources[0].scores["rules"][rule].get("rule")))
    return {"rule_texts": texts, "main": _MAIN[own is not None and own.pooled == "frames"]}


def _shown(
    job: Job, sources: Sequence[Source], clips: Sequence[Any], against: int | None, notes: list[str]
) -> dict[str, Any]:
    """Films and likeness, as far as there are boxes; ``notes`` says what is not there and why."""
    from vltrack.api.report_sources import film_record, likeness, open_evidence
    from vltrack.plots.report_data import row_record

    nothing: dict[str, Any] = {"films": [], "worst_by": "", "likeness": None, "likeness_note": ""}
    without = [source.name for source in sources if source.folder is None]
    if without:
        notes.append(f"No strips and contact sheets: there are no boxes beside the scores of {without[0]}.")
        return nothing
    names = sources[0].sequences
    by_name = {clip.name: clip for clip in clips}
    absent = [name for name in names if name not in by_name]
    if absent:
        raise UsageError(
            f"--data has no sequence {shown(absent[0])} ({len(absent)} of {len(names)} are not there).",
            hint="Give the data set that was scored.",
        )
    evidence = [open_evidence(source.folder, names) for source in sources if source.folder is not None]
    picked, words = _worst(sources, job.rule, against, job.worst)
    films, reasons = [], defaultdict(list)
    for name in picked:
        record, reason = film_record(by_name[name], evidence)
        films.append(record)
        if reason:
            reasons[reason].append(name)
    notes += [f"No contact sheet of {', '.join(some)}: {reason}" for reason, some in reasons.items()]
    matrix = likeness([by_name[name] for name in names], evidence)
    note = (
        f"mean overlap where the target is there \u00b7 {len(names)} sequence{'s' if len(names) != 1 else ''}"
    )
    return {
        "films": films,
        "worst_by": words,
        "likeness": row_record(matrix.ravel(), 4),
        "likeness_note": note,
    }


def _worst(sources: Sequence[Source], rule: str, against: int | None, count: int) -> tuple[list[str], str]:
    """The sequences to look at, and by what they were picked."""
    table = np.nan_to_num(np.stack([_row(source, rule, "auc") for source in sources]))
    if against is None:
        value, words = table[0], "Those of least success AUC."
    else:
        others = np.delete(table, against, axis=0)
        value = others.mean(axis=0) - table[against]
        words = f"Those where the others lose most success AUC against {sources[against].name}."
    order = sorted(range(len(value)), key=lambda s: (value[s], sources[0].sequences[s]))
    return [sources[0].sequences[s] for s in order[:count]], words
