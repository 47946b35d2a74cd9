"""One run of ``vltrack audit``: targets from data or clip, every sentence followed, results told and written.

Knows the order of things. A target whose video fails does not keep the others back; the exit code is then 7.
Ctrl-C keeps the targets that are done.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltrack.api.console import EXIT_INTERRUPTED, EXIT_TERMINATED, Terminated, emit, say, shown
from vltrack.api.inputs import NamedTarget, Request
from vltrack.api.progress import AuditProgress
from vltrack.api.track import check_policy
from vltrack.core.errors import DataError, ResourceError, UsageError, VltrackError
from vltrack.core.types import Mode

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vltrack.evaluation.audit import AuditTarget, FailedTarget, Frames, TargetAudit
    from vltrack.evaluation.audit_report import Audit
    from vltrack.evaluation.distractors import DistractorAudit
    from vltrack.metrics.bootstrap import Interval
    from vltrack.plots.timelines import Panel
    from vltrack.tracking.tracker import MultiTracker, Tracker


# MERGED api/audit.py
# An audit as lines for people and as panels of a picture. Computes nothing new.


def sentences(audit: Audit) -> list[str]:
    """A block a mode: verdict, then a line for each other sentence."""
    lines: list[str] = []
    for mode, result in audit.modes.items():
        auc = "" if result.auc is None else f"; success AUC with the true sentence {result.auc:.2f}"
        refused = f"; {result.refused} starts by words refused" if result.refused else ""
        lines.append(f"{mode}: {result.verdict_text}{auc}{refused}")
        rows = [["instead of the sentence", "moved (1 - overlap)", "in target sizes", "gain of the sentence"]]
        for variant, total in result.totals.items():
            gain = "no truth" if total.gain is None else total.gain.describe()
            rows.append([str(variant), _ends(total.moved, 3), _ends(total.distance, 2), gain])
        lines += [f"  {line}" for line in columns(rows)]
    count = len(audit.targets)
    lines.append(
        "one target: no interval."
        if count == 1
        else f"{count} targets; intervals: 95 %, paired bootstrap over targets."
    )
    if audit.left_out:
        lines.append(f"left out, no sentence: {len(audit.left_out)}")
    lines += [f"failed: {shown(one.name)}: {shown(one.error.message)}" for one in audit.failed]
    return lines


def twins(audit: DistractorAudit) -> list[str]:
    """The verdict and every number of twin scenes."""
    rows = [
        ["frames on the twin that is named", _ends(audit.named, 3)],
        ["frames on the other one", _ends(audit.other, 3)],
        ["lead (0: does not read, 1: reads)", _ends(audit.lead, 3)],
        ["scenes that flip with the sentence", _ends(audit.flip, 3)],
        ["moved (1 - overlap)", _ends(audit.moved, 3)],
        ["starts refused", f"{audit.refused} of {2 * len(audit.scenes)}"],
    ]
    count = len(audit.scenes)
    last = (
        "one scene: no interval."
        if count == 1
        else f"{count} scenes; intervals: 95 %, bootstrap over scenes."
    )
    return [f"twins: {audit.verdict_text}", *(f"  {line}" for line in columns(rows)), last]


def columns(rows: list[list[str]]) -> list[str]:
    """Cells below each other, two blanks apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _ends(interval: Interval, digits: int) -> str:
    if interval.sequences == 0:
        return "-"
    if not interval.is_interval:
        return f"{interval.mean:.{digits}f}"
    return f"{interval.mean:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def panels_of(audit: Audit, model: str) -> Figure | None:
    """The picture: gain of the true sentence target by target over the other one that the verdict rests on;
    without truth the movement by every other sentence. None where nothing was followed."""
    from vltrack.plots.timelines import audit_figure

    panels: list[Panel] = []
    for mode, result in audit.modes.items():
        against = result.decided_by
        gain = None if against is None else result.totals[against].gain
        panel = _movements(audit, mode) if gain is None else _gains(audit, mode, str(against), gain)
        if panel is not None:
            panels.append(panel)
    if not panels:
        return None
    verdict = "; ".join(f"{mode}: {result.verdict_text}" for mode, result in audit.modes.items())
    return audit_figure(f"What the sentence does for {model}", verdict, panels)


def _gains(audit: Audit, mode: Mode, against: str, gain: Interval) -> Panel:
    from vltrack.plots.timelines import Panel

    values = {
        one.name: math.nan if effect.gain is None else effect.gain
        for one in audit.targets
        for effect in one.effects
        if (effect.mode, effect.variant) == (mode, against)
    }
    return Panel(
        title=f"{mode}: the true sentence over a {against} one",
        summary=gain.describe().replace("sequence", "target"),
        unit="points of success AUC",
        names=list(values),
        values_S=list(values.values()),
        interval=(gain.low, gain.high) if gain.is_interval else None,
    )


def _movements(audit: Audit, mode: Mode) -> Panel | None:
    from vltrack.plots.timelines import Panel

    several = len(audit.targets) > 1
    values = {
        f"{one.name} {effect.variant}" if several else str(effect.variant): effect.moved
        for one in audit.targets
        for effect in one.effects
        if effect.mode is mode and math.isfinite(effect.moved)
    }
    if not values:
        return None
    return Panel(
        title=f"{mode}: how far another sentence moves the box",
        summary="no truth: whether it helps is not known",
        unit="1 - overlap with the true run",
        names=list(values),
        values_S=list(values.values()),
        limits=(0.0, 1.0),
    )


def twin_panels(audit: DistractorAudit, model: str) -> Figure:
    """The picture of twin scenes: the lead of each."""
    from vltrack.plots.timelines import Panel, audit_figure

    lead = audit.lead
    panel = Panel(
        title="twins: frames on the named one minus frames on the other",
        summary=lead.describe().replace("sequence", "scene"),
        unit="share of frames, mean of both sentences",
        names=[_twin_name(*scene.sentences) for scene in audit.scenes],
        values_S=[scene.lead for scene in audit.scenes],
        interval=(lead.low, lead.high) if lead.is_interval else None,
        limits=(-1.0, 1.0),
    )
    return audit_figure(f"Does {model} follow the words?", audit.verdict_text, [panel])


def _twin_name(one: str, two: str) -> str:
    """``the red star``, ``the blue star`` -> ``red, blue star``."""
    first, second = one.split(), two.split()
    own = " ".join(word for word in first if word not in second)
    return f"{own}, {' '.join(second[1:])}"


_ANNOTATIONS = (".json", ".npz", ".csv", ".txt")
"""Endings of files that hold boxes or sentences and no frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What was asked: a model, and a data set, a clip with its target, or a number of twin scenes."""

    model: str
    data: str | None = None
    split: str | None = None
    targets: tuple[NamedTarget, ...] = ()
    box_format: str = "xywh"
    box_unit: str = "px"
    twins: int | None = None
    modes: tuple[str, ...] | None = None
    limit: int | None = None
    end: int | None = None
    frames: int = 20
    seed: int = 0
    out: Path | None = None
    as_json: bool = False
    device: str = "auto"
    threads: int | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    quiet: bool = False


def run(job: Job) -> int:
    """Do what ``job`` asks; return 0, or 130 / 143 where the user stopped it (what was done is kept).

    Raises:
        UsageError: the model claims no mode with text, or not the one that is asked for.
        PartialResult: the model ignores the sentence, or targets failed; what was found is told and written.
        VltrackError: what stops it before that.
    """
    check_policy(job.settings)
    subjects, left_out = ([], {}) if job.twins is not None else _subjects(job)
    tracker = _load(job)
    modes = _chosen_modes(job, tracker)
    head = _head(job, tracker)
    from vltrack.tracking.tracker import MultiTracker

    follower = MultiTracker(tracker)
    if job.twins is not None:
        return _twins(job, follower, head)
    return _sentences(job, follower, head, subjects, left_out, modes)


def _load(job: Job) -> Tracker:
    """Torch is loaded here and not before."""
    from vltrack.tracking.tracker import Tracker

    return Tracker.load(job.model, device=job.device, threads=job.threads, policy=job.settings)


def _chosen_modes(job: Job, tracker: Tracker) -> tuple[Mode, ...]:
    """The modes to audit. Raises ``UsageError`` where the model does not claim them."""
    from vltrack.tracking.compare import modes_of

    claimed = [mode for mode in (Mode.NL, Mode.NLBBOX) if mode in modes_of(tracker)]
    if job.twins is not None:
        claimed = [mode for mode in claimed if mode is Mode.NL]
    name = shown(job.model)
    if not claimed:
        how = " alone, which twins need" if job.twins is not None else ""
        raise UsageError(f"{name} claims to read no sentence{how}: there is nothing to audit.")
    missing = [mode for mode in job.modes or () if mode not in claimed]
    if missing:
        raise UsageError(f"{name} has no mode {', '.join(missing)}.", hint=f"It has {', '.join(claimed)}.")
    if job.targets and job.targets[0].box is None:
        if job.modes and Mode.NLBBOX in job.modes:
            raise UsageError("--modes nlbbox needs --box, which is missing.")
        claimed = [mode for mode in claimed if mode is Mode.NL]
        if not claimed:
            raise UsageError(f"{name} cannot start by words alone.", hint="Give --box too.")
    return tuple(mode for mode in claimed if job.modes is None or mode in job.modes)


def _head(job: Job, tracker: Tracker) -> dict[str, Any]:
    """What a file of results tells of the run."""
    from vltrack import __version__

    return {
        "model": job.model,
        "weights_sha256": tracker.card.get("sha256"),
        "data": None if job.data is None else Path(job.data).name,
        "split": job.split,
        "seed": job.seed,
        "versions": {"vltrack": __version__},
    }


# -- targets --------------------------------------------------------------------------------------------


def _subjects(job: Job) -> tuple[list[AuditTarget], dict[str, str]]:
    """The targets to audit with, and why others are left out.

    Raises:
        DataError: no sequence has a sentence; and what ``datasets.reader.open_dataset`` raises.
    """
    from vltrack.datasets.reader import open_dataset
    from vltrack.evaluation.audit import audit_targets_of, truncated

    if job.data is None:
        raise UsageError("an audit needs --data.")
    path = Path(job.data)
    if path.suffix.lower() in _ANNOTATIONS and path.is_file():
        raise UsageError(
            f"{shown(path)} is an annotation without pictures: an audit follows frames.",
            hint="Give the folder that holds the pictures.",
        )
    if job.targets:
        return [_clip(job, job.data)], {}
    if path.is_file():
        raise UsageError(
            f"{shown(path)} is one file: nothing says what to follow in it.",
            hint='Add --text "the white car", and --box where it is known.',
        )
    found, left_out = audit_targets_of(open_dataset(path, split=job.split).sequences)
    if not found:
        raise DataError(f"no sequence in {shown(path)} has a sentence.", hint="An audit needs sentences.")
    found = found[: job.limit]
    end = job.end
    return ([truncated(one, end) for one in found] if end is not None else found), left_out


def _clip(job: Job, source: str) -> AuditTarget:
    """One video with its target as given on the command line."""
    from vltrack.api.track import pixel_targets
    from vltrack.evaluation.audit import AuditTarget
    from vltrack.video.source import open_source

    request = Request(source=source, targets=job.targets, box_format=job.box_format, box_unit=job.box_unit)
    with open_source(source, end=job.end) as video:
        info = video.info
        target = pixel_targets(request, info)["1"]

    def frames() -> Frames:
        with open_source(source, end=job.end) as again:
            yield from again
            if again.report.failure is not None:
                raise again.report.failure

    return AuditTarget(name=info.name, sentence=target.text or "", frames=frames, start=target.box)


# -- runs -----------------------------------------------------------------------------------------------


def _sentences(
    job: Job,
    follower: MultiTracker,
    head: dict[str, Any],
    subjects: Sequence[AuditTarget],
    left_out: dict[str, str],
    modes: tuple[Mode, ...],
) -> int:
    from vltrack.evaluation import audit_report
    from vltrack.evaluation.audit import FailedTarget, audit_one
    from vltrack.evaluation.audit_sentences import wordings

    heard: list[TargetAudit] = []
    failed: list[FailedTarget] = []
    said = wordings([subject.sentence for subject in subjects], job.seed)
    lengths = [None if one.boxes is None else len(one.boxes) for one in subjects]
    watch = AuditProgress(follower, "targets", lengths, quiet=job.quiet)
    with _until_stopped() as stop, watch:
        for subject, wording in zip(subjects, said, strict=True):
            try:
                heard.append(audit_one(watch.watched, subject, wording, modes))
            except VltrackError as error:
                if len(subjects) == 1:
                    raise
                failed.append(FailedTarget(name=subject.name, error=error))
            watch.finished(subject.name)
    head = head | {"complete": not stop.code}
    found = audit_report.summarize(heard, modes, failed=failed, left_out=left_out, seed=job.seed)
    if job.as_json:
        emit(audit_report.document(found, head))
    if not job.quiet:
        for line in sentences(found):
            say(line)
    if job.out is not None:
        with _folder(job.out) as folder:
            audit_report.save(found, head, folder)
            _draw(folder, panels_of(found, job.model), quiet=job.quiet)
    if stop.code:
        say(f"interrupted after {len(heard)} of {len(subjects)} targets; what was done is kept.")
        return stop.code
    audit_report.judge(found, shown(job.model))
    return 0


def _twins(job: Job, follower: MultiTracker, head: dict[str, Any]) -> int:
    from vltrack.evaluation import distractors

    scenes: list[distractors.DistractorPair] = []
    count = job.twins or 0
    watch = AuditProgress(follower, "scenes", [job.frames] * count, quiet=job.quiet)
    with _until_stopped() as stop, watch:
        for seed, clip in distractors.distractor_scenes(count, job.frames, job.seed):
            scenes.append(distractors.audit_scene(watch.watched, seed, clip))
            watch.finished()
    found = distractors.summarize_pairs(scenes, job.seed)
    head = head | {"frames": job.frames, "complete": not stop.code}
    if job.as_json:
        emit(distractors.document(found, head))
    if not job.quiet:
        for line in twins(found):
            say(line)
    if job.out is not None:
        with _folder(job.out) as folder:
            distractors.save(found, head, folder)
            if scenes:
                _draw(folder, twin_panels(found, job.model), quiet=job.quiet)
    if stop.code:
        say(f"interrupted after {len(scenes)} of {count} scenes; what was done is kept.")
        return stop.code
    distractors.judge_pairs(found, shown(job.model))
    return 0


@dataclass(kw_only=True, slots=True)
class _Stop:
    """The exit code of whoever stopped the run; 0 while nobody did."""

    code: int = 0


@contextmanager
def _until_stopped() -> Iterator[_Stop]:
    """Ctrl-C and SIGTERM end the block, not the run."""
    stop = _Stop()
    try:
        yield stop
    except KeyboardInterrupt as signal:
        stop.code = EXIT_TERMINATED if isinstance(signal, Terminated) else EXIT_INTERRUPTED


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """The folder of the results, made if it is not there. Raises ``ResourceError``."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"cannot make the folder {shown(path)}: {error.strerror}.", hint="Choose another --out."
        ) from error
    yield path


def _draw(folder: Path, figure: Figure | None, *, quiet: bool) -> None:
    """Write the picture, where there is something to show, and say where everything is."""
    from vltrack.core.files import write_bytes
    from vltrack.plots import figures as paper

    if figure is not None:
        for kind in ("png", "svg"):
            write_bytes(folder / f"audit.{kind}", paper.encoded(figure, kind))
    if not quiet:
        for name in ("audit.json", "audit.csv", "audit.png", "audit.svg"):
            if (folder / name).exists():
                say(f"wrote {shown(folder / name)}")
