"""A folder of VOT results and a VOT data set in, the challenge's scores out. Knows which years score how."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from vltrack.core.errors import DataError, UsageError
from vltrack.evaluation.vot_files import (
    VotSequence,
    missing_error,
    read_truth,
    repetitions,
    result_file,
    results_root,
)
from vltrack.metrics.eao import WINDOWS, Run, supervised
from vltrack.metrics.multistart import AnchorRun, multistart
from vltrack.metrics.referral import Referred, prompts_of, referral, result_name
from vltrack.metrics.regions import Region, read_regions

Kind = Literal["supervised", "multistart", "referral"]


def score_vot(
    results: Path,
    truth: Path,
    *,
    year: int | None = None,
    kind: Kind | None = None,
    experiment: str = "baseline",
    boxes_as_masks: bool = False,
) -> dict[str, Any]:
    """Score one tracker's results of the VOT challenge.

    Args:
        results: the tracker's folder (with ``baseline`` in it), or the folder with a folder a sequence.
        truth: the data set: the toolkit's folder of sequences, or pysot's ``VOT2018.json``.
        year: of the challenge; it decides the experiment and the lengths that EAO is averaged over. None:
            what the name of ``truth`` says.
        kind: the experiment, where the year does not tell. None: by the year, else by what ``truth`` holds
            (anchors: multi-start; prompts: referral; else supervised).
        experiment: the folder inside ``results``.
        boxes_as_masks: in the referral experiment, fill boxes instead of counting them as empty.

    Returns:
        For JSON: "format", "version", "tracker", "data", "year", "notes" (sentences on what a reader should
        know) and the experiment's own numbers ("experiment", "eao", "accuracy", ... in 0..1, "sequences").

    Raises:
        DataError: a file is missing, too short or damaged (named; all missing ones at once).
        UsageError: the year is needed and cannot be told, or year and kind contradict each other.
    """
    sequences = read_truth(truth)
    truth = truth.parent if truth.name == "sequences" else truth
    year = year if year is not None else _year_in(truth)
    kind = _kind(sequences, year, kind)
    root = results_root(results, experiment)
    notes: list[str] = []
    if kind == "supervised":
        scores = _supervised(root, sequences, _window(year), notes)
    elif kind == "multistart":
        scores = _multistart(root, sequences, notes)
    else:
        scores = _referral(root, sequences, boxes_as_masks, notes)
    if kind != "referral" and any(sequence.size is None for sequence in sequences):
        notes.append("Frame sizes are not known, so pixels outside the frame count too (EAO +-0.001).")
    return {
        "format": "vltrack.vot",
        "version": 1,
        "tracker": root.parent.name if root.name == experiment else root.name,
        "data": truth.stem if truth.is_file() else truth.name,
        "year": year,
        **scores,
        "notes": notes,
    }


def _year_in(truth: Path) -> int | None:
    """The year in the name of the data set or of its only JSON file."""
    names = [truth.name, *(path.name for path in sorted(truth.glob("*.json")))]
    found = (re.search(r"vots?[-_]?(?:st|lt)?[-_]?(20\d\d)", name, re.IGNORECASE) for name in names)
    return next((int(match[1]) for match in found if match), None)


def _kind(sequences: tuple[VotSequence, ...], year: int | None, kind: Kind | None) -> Kind:
    by_year: Kind | None = None
    if year is not None:
        if not 2013 <= year <= 2022 and year < 2026:
            raise UsageError(
                f"VOT {year} has no experiment that is scored here.",
                hint="2013 to 2019 are supervised, 2020 to 2022 multi-start, from 2026 on there is referral.",
            )
        by_year = "supervised" if year < 2020 else "multistart" if year < 2023 else "referral"
    if kind is not None:
        if by_year not in (None, kind):
            raise UsageError(f"VOT {year} is {by_year}, not {kind}.", hint="Name the year or the kind alone.")
        return kind
    if by_year is not None:
        return by_year
    if any(sequence.anchors for sequence in sequences):
        return "multistart"
    return "referral" if any(sequence.prompts for sequence in sequences) else "supervised"


def _window(year: int | None) -> tuple[int, int] | None:
    if year is None:
        raise UsageError(
            "the year of the VOT challenge cannot be told from the data set's name.",
            hint="Name it: the lengths that EAO is averaged over differ from year to year.",
        )
    return WINDOWS.get(year)


def _supervised(
    root: Path, sequences: tuple[VotSequence, ...], window: tuple[int, int] | None, notes: list[str]
) -> dict[str, Any]:
    files = {sequence.name: repetitions(root, sequence.name) for sequence in sequences}
    missing = [name for name, paths in files.items() if not paths]
    if missing:
        raise missing_error(root, missing, len(sequences))
    runs = []
    for sequence in sequences:
        for path in files[sequence.name]:
            result = _as_long(read_regions(path), sequence, path, notes)
            runs.append(
                Run.of(sequence.name, result, sequence.truth, sequence.size, sequence.tags, where=str(path))
            )
    counts = sorted({len(paths) for paths in files.values()})
    if len(counts) > 1:
        notes.append(
            f"Sequences have {counts[0]} to {counts[-1]} repetitions; each sequence weighs the same."
        )
    if window is None:
        notes.append("There was no EAO in that year.")
    scores = supervised(runs, window).told()
    if window is not None and scores["eao"] is None:
        notes.append(f"No sequence has {window[0]} frames, so there is no EAO.")
    return scores | {"repetitions": counts[-1]}


def _as_long(
    result: tuple[Region, ...], sequence: VotSequence, path: Path, notes: list[str]
) -> tuple[Region, ...]:
    """The result over exactly the frames of the truth; a longer one is cut and noted."""
    frames = len(sequence.truth)
    if len(result) < frames:
        raise DataError(
            f"{path} has {len(result)} lines for {frames} frames.",
            hint="Run the tracker on this sequence again.",
        )
    if len(result) > frames:
        notes.append(f"{path.name} has {len(result)} lines for {frames} frames; the rest is left out.")
    return result[:frames]


def _multistart(root: Path, sequences: tuple[VotSequence, ...], notes: list[str]) -> dict[str, Any]:
    without = [sequence.name for sequence in sequences if not sequence.anchors]
    if without:
        raise DataError(
            f"{len(without)} sequences have no anchor, such as {without[0]}.",
            hint="Unpack anchor.value of VOT 2020 to 2022 beside groundtruth.txt.",
        )
    wanted = [
        (sequence, frame, backward, f"{sequence.name}_{frame:08d}")
        for sequence in sequences
        for frame, backward in sequence.anchors
    ]
    files = [result_file(root, sequence.name, stem) for sequence, _, _, stem in wanted]
    missing = [stem for (*_, stem), path in zip(wanted, files, strict=True) if path is None]
    if missing:
        raise missing_error(root, missing, len(wanted))
    runs = [
        AnchorRun.of(
            sequence.name, read_regions(path), sequence.truth, frame, backward=backward, size=sequence.size
        )
        for (sequence, frame, backward, _), path in zip(wanted, files, strict=True)
        if path is not None
    ]
    scores = multistart(runs).told()
    if scores["eao"] is None:
        notes.append(f"No run is as long as {scores['window'][0]} frames, so there is no EAO.")
    return scores


def _referral(
    root: Path, sequences: tuple[VotSequence, ...], boxes_as_masks: bool, notes: list[str]
) -> dict[str, Any]:
    without = [sequence.name for sequence in sequences if not prompts_of(sequence.prompts)]
    if without:
        raise DataError(
            f"{len(without)} sequences have no prompts, such as {without[0]}.",
            hint="The file 'sequence' of each must have a line prompts=...;...",
        )
    wanted = [(sequence, prompt) for sequence in sequences for prompt in prompts_of(sequence.prompts)]
    files = [result_file(root, s.name, result_name(s.name, prompt)) for s, prompt in wanted]
    missing = [
        f"{result_name(sequence.name, prompt)} ({prompt!r})"
        for (sequence, prompt), path in zip(wanted, files, strict=True)
        if path is None
    ]
    if missing:
        raise missing_error(root, missing, len(wanted))
    scores = referral(
        Referred.of(
            sequence.name,
            prompt,
            read_regions(path),
            sequence.truth,
            size=sequence.size,
            ignore=sequence.ignore,
            boxes_as_masks=boxes_as_masks,
        )
        for (sequence, prompt), path in zip(wanted, files, strict=True)
        if path is not None
    ).told()
    if scores["not_masks"]:
        notes.append(
            f"{scores['not_masks']} of {scores['pairs']} predictions are boxes or polygons; the toolkit"
            " counts them as empty. Write masks, or ask for boxes as masks."
        )
    return scores
