"""``vltrack.audit``: language ablation. Follow targets with the true sentence and with others, and compare.

A target whose video fails does not keep the others back, and Ctrl-C keeps the targets that are done.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from vltrack import __version__
from vltrack.api import inputs
from vltrack.api.reporter import QUIET, Bar, Interrupted, Reporter, pace
from vltrack.checkpoints.cards import modes_of
from vltrack.core.errors import DataError, UsageError, VltrackError
from vltrack.core.files import printable, write_bytes
from vltrack.core.types import BoxLike, Frame, Image, Mode, Step, Target
from vltrack.datasets.reader import open_dataset
from vltrack.evaluation import audit_report, distractors
from vltrack.evaluation.audit import (
    AuditTarget,
    FailedTarget,
    Frames,
    TargetAudit,
    audit_one,
    audit_targets_of,
    truncated,
)
from vltrack.evaluation.audit_sentences import wordings
from vltrack.plots.figures import encoded
from vltrack.plots.timelines import Panel, audit_figure
from vltrack.video.source import open_source

if TYPE_CHECKING:
    from vltrack.tracking.postprocess import Policy
    from vltrack.tracking.tracker import MultiTracker, Tracker

FILES = ("audit.json", "audit.csv", "audit.png", "audit.svg")
_ANNOTATIONS = (".json", ".npz", ".csv", ".txt")
"""Suffixes of files that hold boxes or sentences and no frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditResult:
    """The language ablation of one model.

    Attributes:
        found: ``evaluation.audit_report.Audit`` over targets with sentences (verdict by mode), or
            ``evaluation.distractors.DistractorAudit`` over synthetic scenes.
        head: model, weights, data, seed, versions, and whether the audit is complete.
        files: that were written.
    """

    found: audit_report.Audit | distractors.DistractorAudit = field(repr=False)
    head: Mapping[str, Any]
    files: tuple[Path, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the document that ``audit.json`` holds (docs/audit.md)."""
        if isinstance(self.found, distractors.DistractorAudit):
            return distractors.document(self.found, self.head)
        return audit_report.document(self.found, self.head)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield flat rows for pandas: one per target, mode and other sentence; or one per scene."""
        document = self.to_dict()
        yield from document.get("scenes", ())
        for target in document.get("sequences", ()):
            for run in target["runs"]:
                yield {"sequence": target["name"], **run, "auc_true": target["auc"][run["mode"]]}


def audit(
    model: str | Path,
    *,
    data: str | Path | None = None,
    split: str | None = None,
    text: str | None = None,
    box: BoxLike | None = None,
    box_format: str = "xywh",
    box_unit: str = "px",
    scenes: int | None = None,
    modes: Sequence[str] | None = None,
    limit: int | None = None,
    end: int | None = None,
    frames: int = 20,
    seed: int = 0,
    out: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    threads: int | None = None,
    backend: str = "auto",
    precision: str = "auto",
    policy: Policy | Mapping[str, Any] | None = None,
    reporter: Reporter = QUIET,
) -> AuditResult:
    """Measure what the sentence does for a model: does another sentence move the box, does the true one help?

    Each target is followed with its true sentence, with none, with the sentence of another target (shuffled)
    and with one that contradicts.

    Args:
        model: name of a model or path of weights.
        data, split: a data set or folder of clips; or one video, with ``text`` and perhaps ``box``.
        text, box, box_format, box_unit: target of the one video, as in ``vltrack.track``.
        scenes: instead of data, number of synthetic scenes with a distractor pair: two objects of one shape
            in two colors, which only the sentence distinguishes. ``frames``: of each scene.
        modes: ``nl``, ``nlbbox``; None takes all that the model supports.
        limit: only the first sequences. ``end``: only the frames before this one.
        seed: of sentence shuffling, synthetic scenes and bootstrap.
        out: folder for audit.json, .csv, .png and .svg; None writes none.
        overwrite, device, threads, backend, precision, policy, reporter: as in ``vltrack.track``.

    Returns:
        Movement in 1 - overlap, gain in points of success AUC, and a verdict per mode.

    Raises:
        UsageError: arguments that do not fit together, or a model without the mode.
        DataError: no sequence has a sentence, or the data cannot be read.
        PartialResult: the model ignores the sentence, or targets failed; ``error.result`` is the audit.
        KeyboardInterrupt: Ctrl-C; its ``result`` holds the targets that are done.

    Examples:
        >>> import vltrack
        >>> try:
        ...     found = vltrack.audit("litetrack-tiny", scenes=2, frames=3)
        ... except vltrack.VltrackError as error:  # it ignores the sentence in these scenes
        ...     found = error.result
        >>> sorted(next(found.rows()))[:4]
        ['flipped', 'lead', 'moved', 'named']
    """
    inputs.check_options(box_format, box_unit, device)
    if (data is None) == (scenes is None):
        raise UsageError("An audit needs either data (--data) or scenes (--twins).", hint="Give one of them.")
    if scenes is not None and any((text is not None, box is not None, modes, split, limit, end)):
        raise UsageError("Scenes (--twins) take no other target, data or mode.", hint="Leave these out.")
    if modes is not None:
        modes = inputs.check_modes(modes, (Mode.NL, Mode.NLBBOX))
    given = _clip_target(text, box, split, limit)
    inputs.check_policy(policy)
    model = inputs.check_model(model)
    folder = None if out is None else Path(out)
    if folder is not None:
        inputs.check_folder(folder, FILES, overwrite=overwrite)
    targets: list[AuditTarget] = []
    left_out: dict[str, str] = {}
    if data is not None:
        clip = None if given is None else (given, box_format, box_unit)
        targets, left_out = _targets(Path(data), clip, split, limit, end)
    tracker = _load(model, device=device, threads=threads, policy=policy, backend=backend, precision=precision)
    usable = _usable_modes(model, tracker, modes, scenes=scenes is not None, given=given)
    head = _head(model, tracker, data, split, seed)
    from vltrack.tracking.tracker import MultiTracker

    lengths = (
        [None if one.boxes is None else len(one.boxes) for one in targets] if scenes is None else [frames] * scenes
    )
    what = "targets" if scenes is None else "scenes"
    with reporter.bar("auditing", _sum(lengths)) as bar:
        watch = _Watch(MultiTracker(tracker, distinct=False), bar, what, lengths)
        found: audit_report.Audit | distractors.DistractorAudit
        if scenes is None:
            found, stop = _audit_targets(watch, targets, left_out, usable, seed)
        else:
            found, stop = _audit_scenes(watch, scenes, frames, seed)
            head["frames"] = frames
    result = AuditResult(found=found, head=head | {"complete": stop is None})
    try:
        if folder is not None:
            result = _save(result, inputs.make_folder(folder), model)
        if stop is None and isinstance(found, distractors.DistractorAudit):
            distractors.judge_pairs(found, printable(model))
        elif stop is None and isinstance(found, audit_report.Audit):
            audit_report.judge(found, printable(model))
    except VltrackError as error:
        error.result = result
        raise
    if stop is not None:
        done = len(found.scenes if isinstance(found, distractors.DistractorAudit) else found.targets)
        message = f"interrupted after {done} of {len(lengths)} {what}; what was done is kept."
        raise Interrupted(message, result) from stop
    return result


def _load(model: str, **loading: Any) -> Tracker:
    """Load the tracker. Its backend is imported here and not before."""
    from vltrack.tracking.tracker import Tracker

    return Tracker.load(model, anyway=True, **loading)


def _usable_modes(
    model: str, tracker: Tracker, modes: Sequence[str] | None, *, scenes: bool, given: Target | None
) -> tuple[Mode, ...]:
    """Return the modes to audit. Raises ``UsageError`` where the model does not support them."""
    supported = [mode for mode in (Mode.NL, Mode.NLBBOX) if mode in modes_of(tracker.card)]
    if scenes:
        supported = [mode for mode in supported if mode is Mode.NL]
    name = printable(model)
    if not supported:
        how = " alone, which scenes (--twins) need" if scenes else ""
        raise UsageError(f"{name} claims to read no sentence{how}: there is nothing to audit.")
    missing = [mode for mode in modes or () if mode not in supported]
    if missing:
        raise UsageError(f"{name} has no mode {', '.join(missing)}.", hint=f"It has {', '.join(supported)}.")
    if given is not None and given.box is None:
        if modes and Mode.NLBBOX in modes:
            raise UsageError("The mode nlbbox needs a box (--box), which is missing.")
        supported = [mode for mode in supported if mode is Mode.NL]
        if not supported:
            raise UsageError(f"{name} cannot start from text alone.", hint="Give a box (--box) too.")
    return tuple(mode for mode in supported if modes is None or mode in modes)


def _head(model: str, tracker: Tracker, data: str | Path | None, split: str | None, seed: int) -> dict[str, Any]:
    return {
        "model": model,
        "weights_sha256": tracker.card.get("sha256"),
        "data": None if data is None else Path(data).name,
        "split": split,
        "seed": seed,
        "versions": {"vltrack": __version__},
    }


# -- targets ------------------------------------------------------------------------------------------


def _clip_target(text: str | None, box: BoxLike | None, split: str | None, limit: int | None) -> Target | None:
    """Return the target of one clip, None for a data set. Raises ``UsageError``."""
    if text is None and box is None:
        return None
    if text is None:
        raise UsageError("An audit of a clip needs a text (--text).", hint="Say what the target is.")
    if split or limit:
        raise UsageError("Split and limit (--split, --limit) belong to a data set, text and box to one clip.")
    return Target(box=box, text=text)


def _targets(
    path: Path, clip: tuple[Target, str, str] | None, split: str | None, limit: int | None, end: int | None
) -> tuple[list[AuditTarget], dict[str, str]]:
    """Return the targets to audit with, and why others are left out. Raises ``DataError`` without a sentence."""
    if path.suffix.lower() in _ANNOTATIONS and path.is_file():
        raise UsageError(
            f"{printable(path)} is an annotation without images: an audit follows frames.",
            hint="Give the folder that holds the images.",
        )
    if clip is not None:
        return [_clip(path, *clip, end)], {}
    if path.is_file():
        raise UsageError(
            f"{printable(path)} is one file: nothing says what to follow in it.",
            hint='Give a text (--text "the white car"), and a box (--box) where it is known.',
        )
    found, left_out = audit_targets_of(open_dataset(path, split=split).sequences)
    if not found:
        raise DataError(f"No sequence in {printable(path)} has a sentence.", hint="An audit needs sentences.")
    found = found[:limit]
    return ([truncated(one, end) for one in found] if end is not None else found), left_out


def _clip(path: Path, given: Target, box_format: str, box_unit: str, end: int | None) -> AuditTarget:
    """Return the target of one video."""
    with open_source(path, end=end) as video:
        info = video.info
        target = inputs.pixel_targets({"1": given}, box_format, box_unit, info)["1"]

    def frames() -> Frames:
        with open_source(path, end=end) as again:
            yield from again
            if again.report.failure is not None:
                raise again.report.failure

    return AuditTarget(name=info.name, sentence=target.text or "", frames=frames, start=target.box)


# -- runs ---------------------------------------------------------------------------------------------


class _Watch:
    """A multi-target tracker that shows its progress in frames.

    Args:
        what: plural noun of what is audited one by one; ``lengths``: frames of each, None where unknown.
    """

    def __init__(self, follower: MultiTracker, bar: Bar, what: str, lengths: Sequence[int | None]) -> None:
        self._follower, self._bar, self._what, self._lengths = follower, bar, what, lengths
        self._total = _sum(lengths)
        self._done, self._frames, self._finished_frames = 0, 0, 0
        self._began = time.monotonic()

    def init(self, frame: Frame | Image, targets: Mapping[str, Target]) -> dict[str, Step]:
        """Start the targets; may be called several times for one frame, and is not counted."""
        return self._follower.init(frame, targets)

    def update(self, frame: Frame | Image) -> dict[str, Step]:
        """Follow the targets and count the frame."""
        steps = self._follower.update(frame)
        self._frames += 1
        self._show()
        return steps

    def finished(self, name: str = "") -> None:
        """Count all frames of one more target as done, also where it failed."""
        length = self._lengths[self._done]
        self._finished_frames = self._frames if length is None else self._finished_frames + length
        self._frames = self._finished_frames
        self._done += 1
        self._show(name)

    def _show(self, name: str = "") -> None:
        frames = f"{self._frames} frames" if self._total is None else f"{self._frames}/{self._total} frames"
        speed = pace(self._frames, self._total, time.monotonic() - self._began)
        text = f"{self._done}/{len(self._lengths)} {self._what}, {frames}, {speed}"
        self._bar.show(self._frames, text, note=name)


def _sum(lengths: Sequence[int | None]) -> int | None:
    known = [length for length in lengths if length is not None]
    return sum(known) if len(known) == len(lengths) else None


def _audit_targets(
    watch: _Watch, targets: Sequence[AuditTarget], left_out: dict[str, str], modes: tuple[Mode, ...], seed: int
) -> tuple[audit_report.Audit, KeyboardInterrupt | None]:
    """Return the audit, and the interrupt that ended it."""
    done: list[TargetAudit] = []
    failed: list[FailedTarget] = []
    stop = None
    variants = wordings([target.sentence for target in targets], seed)
    try:
        for target, wording in zip(targets, variants, strict=True):
            try:
                done.append(audit_one(watch, target, wording, modes))
            except VltrackError as error:
                if len(targets) == 1:
                    raise
                failed.append(FailedTarget(name=target.name, error=error))
            watch.finished(target.name)
    except KeyboardInterrupt as interrupt:
        stop = interrupt
    return audit_report.summarize(done, modes, failed=failed, left_out=left_out, seed=seed), stop


def _audit_scenes(
    watch: _Watch, count: int, frames: int, seed: int
) -> tuple[distractors.DistractorAudit, KeyboardInterrupt | None]:
    """Return the audit, and the interrupt that ended it."""
    done: list[distractors.DistractorPair] = []
    stop = None
    try:
        for number, clip in distractors.distractor_scenes(count, frames, seed):
            done.append(distractors.audit_scene(watch, number, clip))
            watch.finished()
    except KeyboardInterrupt as interrupt:
        stop = interrupt
    return distractors.summarize_pairs(done, seed), stop


# -- files --------------------------------------------------------------------------------------------


def _save(result: AuditResult, folder: Path, model: str) -> AuditResult:
    """Write the files; return the result with their paths. Raises ``ResourceError``."""
    found = result.found
    if isinstance(found, distractors.DistractorAudit):
        distractors.save(found, result.head, folder)
    else:
        audit_report.save(found, result.head, folder)
    figure = figure_of(found, model)
    if figure is not None:
        for kind in ("png", "svg"):
            write_bytes(folder / f"audit.{kind}", encoded(figure, kind))
    return replace(result, files=tuple(folder / name for name in FILES if (folder / name).exists()))


def figure_of(found: audit_report.Audit | distractors.DistractorAudit, model: str) -> Figure | None:
    """Draw the lead of each synthetic scene; or by mode and target the gain of the true sentence over the other
    one that the verdict rests on, without ground truth the movement by every other sentence. None where no
    target was followed.
    """
    if isinstance(found, distractors.DistractorAudit):
        title, verdict = f"Does {model} follow the text?", found.verdict_text
        panels = [_leads(found)] if found.scenes else []
    else:
        title = f"What the sentence does for {model}"
        verdict = "; ".join(f"{mode}: {result.verdict_text}" for mode, result in found.modes.items())
        drawn = (_mode_panel(found, mode, result) for mode, result in found.modes.items())
        panels = [panel for panel in drawn if panel is not None]
    return audit_figure(title, verdict, panels) if panels else None


def _mode_panel(audit: audit_report.Audit, mode: Mode, result: audit_report.ModeResult) -> Panel | None:
    against = result.decided_by
    gain = None if against is None else result.totals[against].gain
    runs = [(one, effect) for one in audit.targets for effect in one.effects if effect.mode is mode]
    if gain is not None:
        gains = {one.name: effect.gain for one, effect in runs if effect.variant == against}
        return Panel(
            title=f"{mode}: the true sentence over a {against} one",
            summary=gain.describe().replace("sequence", "target"),
            unit="points of success AUC",
            names=list(gains),
            values_S=[math.nan if value is None else value for value in gains.values()],
            interval=(gain.low, gain.high) if gain.is_interval else None,
        )
    several = len(audit.targets) > 1
    moved = {
        f"{one.name} {effect.variant}" if several else str(effect.variant): effect.moved
        for one, effect in runs
        if math.isfinite(effect.moved)
    }
    if not moved:
        return None
    return Panel(
        title=f"{mode}: how far another sentence moves the box",
        summary="no ground truth: whether it helps is not known",
        unit="1 - overlap with the true run",
        names=list(moved),
        values_S=list(moved.values()),
        limits=(0.0, 1.0),
    )


def _leads(audit: distractors.DistractorAudit) -> Panel:
    lead = audit.lead
    return Panel(
        title="distractor pairs: frames on the named object minus frames on the other",
        summary=lead.describe().replace("sequence", "scene"),
        unit="share of frames, mean of both sentences",
        names=[_pair_name(*scene.sentences) for scene in audit.scenes],
        values_S=[scene.lead for scene in audit.scenes],
        interval=(lead.low, lead.high) if lead.is_interval else None,
        limits=(-1.0, 1.0),
    )


def _pair_name(one: str, two: str) -> str:
    """``the red star``, ``the blue star`` -> ``red, blue star``."""
    first, second = one.split(), two.split()
    own = " ".join(word for word in first if word not in second)
    return f"{own}, {' '.join(second[1:])}"
