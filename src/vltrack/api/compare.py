"""``vltrack.compare``: several trackers over one video that is decoded once, and how much they agree.

An error of one tracker leaves the others unaffected: it is reported, the rest is written, and the function
raises ``PartialResult`` at the end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from vltrack.api import inputs
from vltrack.api.outputs import StepRecorder, VideoOutput, csv_line, safe_cell
from vltrack.api.reporter import QUIET, Interrupted, Reporter, Shield, interrupted, shielded, warn_of
from vltrack.api.track import follow, frames_expected, open_frames, track_meta
from vltrack.checkpoints.cards import model_names
from vltrack.checkpoints.outside import find_outside
from vltrack.core.errors import DataError, ModelNotFound, PartialResult, UsageError, VltrackError
from vltrack.core.files import printable, write_bytes, write_text
from vltrack.core.json_io import finite_or_none
from vltrack.core.track import Track
from vltrack.core.types import BoxLike, Floats, Frame, Step, Target
from vltrack.datasets.reader import read_ground_truth
from vltrack.metrics.agreement import Agreement, agreement
from vltrack.metrics.success import success_auc
from vltrack.plots.compare import ComparisonData, Keyframe, KeyframeSelector, comparison_image
from vltrack.plots.compare_video import LOW_AGREEMENT, Band, compose, draw_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vltrack.api.track import Source
    from vltrack.tracking.compare import TrackerFailure, TrackerGroup
    from vltrack.tracking.postprocess import Policy

    GroundTruth = tuple[Floats, NDArray[np.bool_]]

FORMAT, VERSION = "vltrack.compare", 1
MOST = 7
"""As many trackers as there are colors that can be distinguished (``plots.draw.COLORS``)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Comparison:
    """Several trackers on one video.

    Attributes:
        frames: number and seconds of each of the N frames.
        tracks: by tracker, as far as each came.
        agreement: of the T trackers in the order of ``tracks``.
        lost: share of a tracker's decoded frames in which it did not see the target; NaN without any.
        frames_per_second: of each tracker alone, without decoding; None without any frame.
        failures: trackers that failed, by name, also those that never started.
        left_out: trackers that cannot start from what was given, and why.
        auc: success AUC by name, with ground truth, of the trackers that came to the end.
        files: that were written.
    """

    frames: list[tuple[int, float]] = field(repr=False)
    tracks: dict[str, Track]
    agreement: Agreement = field(repr=False)
    lost: dict[str, float]
    frames_per_second: dict[str, float | None]
    failures: Mapping[str, TrackerFailure]
    left_out: Mapping[str, str]
    auc: dict[str, float] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    def scores(self, name: str) -> dict[str, float | None]:
        """Return agreement with the others, share of frames lost and, with ground truth, success AUC."""
        overall = float(self.agreement.overall_T[list(self.tracks).index(name)])
        scores = {"agreement": finite_or_none(overall), "lost": finite_or_none(self.lost[name])}
        return scores | ({"success_auc": self.auc[name]} if name in self.auc else {})

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one row per tracker, for pandas: the scores and frames per second."""
        for name in self.tracks:
            yield {"tracker": name, **self.scores(name), "frames_per_second": self.frames_per_second[name]}

    def to_dict(self) -> dict[str, Any]:
        """Return the summary that ``vltrack compare --json`` prints."""
        rates = {name: rate if rate is None else round(rate, 2) for name, rate in self.frames_per_second.items()}
        return {
            "frames": len(self.frames),
            "trackers": {name: self.scores(name) | {"frames_per_second": rates[name]} for name in self.tracks},
            "failed": {name: failure.to_dict() for name, failure in self.failures.items()},
            "left_out": dict(self.left_out),
            "outputs": [printable(path) for path in self.files],
        }


def compare(
    source: Source,
    *,
    box: BoxLike | None = None,
    text: str | None = None,
    models: str | Path | Sequence[str | Path] | None = None,
    box_format: str = "xywh",
    box_unit: str = "px",
    start: int = 0,
    end: int | None = None,
    stride: int = 1,
    out: str | Path | None = None,
    video: bool = True,
    truth: str | Path | None = None,
    overwrite: bool = False,
    allow_network: bool = False,
    device: str = "auto",
    threads: int | None = None,
    backend: str = "auto",
    precision: str = "auto",
    policy: Policy | Mapping[str, Any] | None = None,
    reporter: Reporter = QUIET,
) -> Comparison:
    """Run several trackers over one video and measure how much their boxes agree.

    Args:
        source, box, text, box_format, box_unit, start, end, stride: as in ``vltrack.track``. Each tracker
            starts from what it can take.
        models: name of a model or path of weights, or several, at most seven; None takes all whose weights ship.
        out: folder for the files (docs/compare.md); None writes none. ``video`` is False without the video.
        truth: file with one line x, y, w, h per frame of the input: adds success AUC.
        overwrite, allow_network, device, threads, backend, precision, policy, reporter: as in ``vltrack.track``.

    Returns:
        Tracks, agreement and scores; ``pandas.DataFrame(comparison.rows())`` has one row per tracker.

    Raises:
        UsageError: arguments that do not fit together, an output that exists, or no tracker can start.
        InputError, ModelNotFound, ResourceError: as in ``vltrack.track``.
        DataError: the ground truth does not fit the video.
        PartialResult: some of the trackers failed, or parts of the video could not be read; the comparison
            so far is ``error.result``. An error that all trackers failed with is raised itself.

    Examples:
        >>> import vltrack
        >>> comparison = vltrack.compare(
        ...     "clip.mp4", box=(313, 88, 342, 194), models=["litetrack-tiny", "sa-tracker-tiny"], end=2
        ... )
        >>> [row["tracker"] for row in comparison.rows()], comparison.agreement.each_TN.shape
        (['litetrack-tiny', 'sa-tracker-tiny'], (2, 2))
    """
    inputs.check_options(box_format, box_unit, device, threads)
    start, end, stride = inputs.check_range(start, end, stride)
    given = inputs.one_target(box, text)
    named = _named(_chosen(models))
    folder = None if out is None else Path(out)
    files = {} if folder is None else compare_files(folder, list(named), video=video)
    if folder is not None:
        inputs.check_folder(folder)
        if folder.is_dir():
            inputs.check_outputs(list(files.values()), source, overwrite=overwrite)
    inputs.check_policy(policy)
    annotations = None if truth is None else read_ground_truth(Path(truth))
    stopped: KeyboardInterrupt | None = None
    part = (start, end, stride)
    with open_frames(source, *part, allow_network) as frames, inputs.new_folder(folder), shielded() as shield:
        target = inputs.pixel_targets(given, box_format, box_unit, frames.info)["1"]
        loading = {"device": device, "threads": threads, "backend": backend, "precision": precision}
        group = _load(named, reporter, settings=policy, **loading)
        targets, left_out = _targets(group, target, reporter)
        heads = {name: track_meta(frames.info, one, named[name], start, end, stride) for name, one in targets.items()}
        total = frames_expected(frames.info.frames, *part)
        run = _Run(heads, group, left_out, frames, target, total, files, annotations)
        try:
            with run.saved(shield):
                reported = set(group.failures)
                with closing(follow(frames, group, targets, heads, part, reporter)) as followed:
                    for frame, steps in followed:
                        for name in group.failures.keys() - reported:
                            reporter.warn(f"{name} {group.failures[name]}")
                            reported.add(name)
                        if not steps:
                            break
                        with shield:
                            run.add(frame, steps)
        except KeyboardInterrupt as stop:
            stopped = stop
        except VltrackError as error:
            error.result = run.comparison()
            raise
    for warning in frames.report.warnings:
        reporter.warn(warning)
    if stopped is not None:
        raise Interrupted(interrupted(len(run.frames)), run.comparison()) from stopped
    return run.result(reporter)


# -- before the first frame ---------------------------------------------------------------------------


def _chosen(models: str | Path | Sequence[str | Path] | None) -> list[str]:
    """Return the models that were named, else all whose weights ship."""
    names = [inputs.check_model(name) for name in ([models] if isinstance(models, str | Path) else models or ())]
    names = names or [name for name, weights in model_names().items() if weights is not None]
    if not names:
        raise ModelNotFound("No weights ship with vltrack.", hint="Train them: vltrack train --help.")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f"The model {printable(twice[0])} is named twice.", hint="Name each one once.")
    if len(names) > MOST:
        raise UsageError(
            f"{len(names)} trackers are too many; at most {MOST} can be compared.", hint="Name some of them (--models)."
        )
    return names


def _named(models: Sequence[str]) -> dict[str, str]:
    """Return models and paths by their names in the results: a file's stem, numbered if it is taken."""
    named: dict[str, str] = {}
    for model in models:
        path, outside = Path(model), find_outside(model)
        name = first = (
            outside.name if outside else path.stem[:80] if path.suffix == ".safetensors" or path.is_file() else model
        )
        number = 1
        while name in named:
            number += 1
            name = f"{first}-{number}"
        named[name] = model
    return named


def _load(named: Mapping[str, str], reporter: Reporter, **loading: Any) -> TrackerGroup:
    """Load all trackers. Torch is imported here and not before. Raises what all of them failed with."""
    from vltrack.tracking.compare import TrackerGroup

    group = TrackerGroup.load(named, **loading)
    if not group.trackers:
        raise next(iter(group.failures.values())).error
    for name, failure in group.failures.items():
        reporter.warn(f"{name} {failure}")
    return group


def _targets(group: TrackerGroup, target: Target, reporter: Reporter) -> tuple[dict[str, Target], dict[str, str]]:
    """Return what each tracker starts from, and why others are left out; ``UsageError`` if none can start."""
    targets, warnings = group.targets_for(target)
    warn_of({name: [warning] for name, warning in warnings.items()}, len(group.trackers), reporter)
    if not targets:
        raise UsageError("None of the trackers can start from this.", hint="Give a box and a text.")
    if len(targets) == 1:
        reporter.warn("only one tracker can start: there is nothing to compare it with.")
    return targets, {name: warning for name, warning in warnings.items() if name not in targets}


# -- the run ------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Run:
    """Takes the steps of all trackers that start, counts them, and writes the files at the end."""

    heads: Mapping[str, dict[str, Any]]
    group: TrackerGroup
    left_out: Mapping[str, str]
    source: Any
    target: Target
    total: int | None
    files: Mapping[str, Path]
    annotations: GroundTruth | None

    def __post_init__(self) -> None:
        self.frames: list[tuple[int, float]] = []
        self._annotation_error: DataError | None = None
        self._comparison: Comparison | None = None
        self._recorders = {name: StepRecorder() for name in self.heads}
        self._keyframes = KeyframeSelector(list(self.heads))
        self._band = Band(list(self.heads), self.source.info.width, self.total)
        info = replace(self.source.info, width=self._band.width)
        self._video = VideoOutput(self.files["video"], info) if "video" in self.files else None

    def add(self, frame: Frame, steps: Mapping[str, Step]) -> None:
        """Take the steps of one frame, of the trackers that still run. Raises ``ResourceError``."""
        self.frames.append((frame.index, frame.seconds))
        for name, step in steps.items():
            self._recorders[name].add(step)
        if frame.image is None or not self.files:
            return
        names, info = list(self.heads), self.source.info
        boxes = np.array([steps[n].box if n in steps else np.full(4, np.nan) for n in names])
        found = agreement(boxes[:, None])
        mean, each = float(found.mean_N[0]), [float(value) for value in found.each_TN[:, 0]]
        visible = [name in steps and steps[name].visible for name in names]
        self._keyframes.add(frame.image, self.frames[-1], boxes, visible, mean, each)
        if self._video is not None:
            scores = [steps[name].score if name in steps else math.nan for name in names]
            image = draw_boxes(frame.image, boxes, visible, names, [value < LOW_AGREEMENT for value in each])
            band = self._band.draw(self.frames[-1], mean, each, scores, visible)
            composed = compose(image, band, (self._band.width, info.height))
            self._video.write(composed, frame.seconds, more_rows=self._band.height)

    @contextmanager
    def saved(self, shield: Shield) -> Iterator[None]:
        """Write what was done, whatever ends the block; Ctrl-C waits until it is written."""
        try:
            yield
        finally:
            if self.frames:
                with shield, ExitStack() as last_first:
                    # Last in, first out: tables, then the image, then the video. Each is tried.
                    if self._video is not None:
                        last_first.callback(self._video.finish)
                    self._comparison = found = self._compared()
                    if self.files:
                        name, keyframes = self.source.info.name, self._keyframes.chosen()
                        last_first.callback(save_image, self.files["image"], found, self.target, name, keyframes)
                        last_first.callback(save_tables, self.files, found, name)

    def comparison(self) -> Comparison | None:
        """Return the comparison with the files that exist by now; None before the first row."""
        files = tuple(path for path in self.files.values() if path.exists())
        return None if self._comparison is None else replace(self._comparison, files=files)

    def _compared(self) -> Comparison:
        tracks: dict[str, Track] = {}
        lost: dict[str, float] = {}
        boxes = np.full((len(self.heads), len(self.frames), 4), np.nan)
        warnings, failures = list(self.source.report.warnings), self.group.failures
        for row, (name, recorder) in zip(boxes, self._recorders.items(), strict=True):
            head = self.heads[name] | {"warnings": [*self.heads[name]["warnings"], *warnings]}
            if name in failures:
                head["failed"] = failures[name].to_dict()
            tracks[name] = track = recorder.track(head)
            decoded = np.array([status != "missing" for status in track.status], dtype=np.bool_)
            row[: len(track)][decoded] = track.boxes[decoded]
            lost[name] = float((~track.visible[decoded]).mean()) if decoded.any() else math.nan
        return Comparison(
            frames=self.frames,
            tracks=tracks,
            agreement=agreement(boxes),
            lost=lost,
            frames_per_second={name: self.group.rate(name) for name in tracks},
            failures=failures,
            left_out=self.left_out,
            auc=self._scored({name: track for name, track in tracks.items() if name not in failures}),
        )

    def _scored(self, tracks: Mapping[str, Track]) -> dict[str, float]:
        """Return success AUC by name; {} without ground truth or where it does not fit the video."""
        if self.annotations is None:
            return {}
        boxes, absent = self.annotations
        last = self.frames[-1][0]
        try:
            if last >= len(boxes):
                raise DataError(
                    f"The ground truth ends at frame {len(boxes) - 1}, the video goes on to frame {last}.",
                    hint="Every frame of the input needs one row.",
                )
            return {
                name: success_auc(track.boxes, boxes[track.indices], absent[track.indices])
                for name, track in tracks.items()
            }
        except DataError as error:
            self._annotation_error = error
            return {}

    def result(self, reporter: Reporter) -> Comparison:
        """Return the comparison, or raise the error that the run ends with."""
        report, comparison = self.source.report, self.comparison()
        error: Exception | None = report.failure or self._tracker_error(reporter)
        if error is None and report.degraded:
            name = printable(self.source.info.name)
            error = PartialResult(f"Parts of {name} could not be read ({report.missing} missing).")
        if isinstance(error, VltrackError):
            error.result = comparison
        if error is not None or comparison is None:
            raise error or DataError("The video has no frame.")
        return comparison

    def _tracker_error(self, reporter: Reporter) -> Exception | None:
        """Return the error for trackers that failed, or for ground truth that does not fit."""
        failures = self.group.failures
        if not self.frames and failures:  # all that started failed at once
            return next(iter(failures.values())).error
        if not failures:
            return self._annotation_error
        if self._annotation_error is not None:
            reporter.warn(str(self._annotation_error))
        names = ", ".join(map(printable, failures))
        return PartialResult(f"{len(failures)} trackers failed: {names}; the rest is written.")


# -- files --------------------------------------------------------------------------------------------


def compare_files(folder: Path, names: Sequence[str], *, video: bool) -> dict[str, Path]:
    """Return the files of a comparison by their kind, the most useful first; ``boxes-NAME`` are a tracker's."""
    files = {"image": folder / "compare.png", "video": folder / "compare.mp4"}
    files |= {"summary": folder / "compare.json", "agreement": folder / "agreement.csv"}
    files |= {f"boxes-{name}": folder / f"boxes-{name}.csv" for name in names}
    return {kind: path for kind, path in files.items() if video or kind != "video"}


def save_tables(files: Mapping[str, Path], found: Comparison, source: str) -> None:
    """Write boxes of each tracker, agreement, and everything in one file. Raises ``ResourceError``."""
    for name, track in found.tracks.items():
        if len(track):
            track.save(files[f"boxes-{name}"], overwrite=True)
    rows: list[list[Any]] = [["frame", "seconds", "mean", *map(safe_cell, found.tracks)]]
    for row, (index, seconds) in enumerate(found.frames):
        values = (found.agreement.mean_N[row], *found.agreement.each_TN[:, row])
        numbers = ("" if (v := finite_or_none(one)) is None else round(v, 4) for one in values)
        rows.append([index, round(seconds, 3), *numbers])
    write_text(files["agreement"], "\n".join(map(csv_line, rows)) + "\n")
    write_text(files["summary"], json.dumps(_document(found, source), allow_nan=False) + "\n")


def _document(found: Comparison, source: str) -> dict[str, Any]:
    """Return everything as one object; null where a number is not defined."""

    def numbers(row: Any) -> list[float | None]:
        return [finite_or_none(value) for value in row]

    return {
        "format": FORMAT,
        "version": VERSION,
        "source": printable(source),
        "trackers": {name: found.scores(name) for name in found.tracks},
        "failed": {name: failure.to_dict() for name, failure in found.failures.items()},
        "left_out": dict(found.left_out),
        "pairs": [numbers(row) for row in found.agreement.matrix_TT],
        "frames": [index for index, _ in found.frames],
        "seconds": [seconds for _, seconds in found.frames],
        "agreement": numbers(found.agreement.mean_N),
        "agreement_of": {name: numbers(row) for name, row in zip(found.tracks, found.agreement.each_TN, strict=True)},
        "tracks": {name: json.loads(track.to_json()) for name, track in found.tracks.items()},
    }


def save_image(path: Path, found: Comparison, target: Target, source: str, keyframes: Sequence[Keyframe]) -> None:
    """Write the image, where at least one frame was decoded. Raises ``ResourceError``."""
    if keyframes:
        image = comparison_image(_image_data(found, target, source), keyframes)
        write_bytes(path, cv2.imencode(".png", image[:, :, ::-1])[1].tobytes())


def _image_data(found: Comparison, target: Target, source: str) -> ComparisonData:
    shape = (len(found.tracks), len(found.frames))
    scores, visible = np.full(shape, np.nan), np.zeros(shape, dtype=np.bool_)
    for row, track in enumerate(found.tracks.values()):
        scores[row, : len(track)] = track.scores
        visible[row, : len(track)] = track.visible
    start = [] if target.text is None else [f"\u201c{target.text}\u201d"]
    if target.box is not None:
        start.append("box " + ", ".join(f"{value:g}" for value in target.box))
    return ComparisonData(
        title="/".join(Path(source).parts[-2:]) if Path(source).is_dir() else Path(source).name or source,
        subtitle="   \u00b7   ".join([*start, f"{shape[1]} frames"]),
        names=list(found.tracks),
        notes=[_legend(found, name) for name in found.tracks],
        seconds_N=np.array([seconds for _, seconds in found.frames]),
        mean_N=found.agreement.mean_N,
        each_TN=found.agreement.each_TN,
        matrix_TT=found.agreement.matrix_TT,
        scores_TN=scores,
        visible_TN=visible,
    )


def _legend(found: Comparison, name: str) -> str:
    """Return a tracker's line in the legend."""
    if name in found.failures:
        return str(found.failures[name])
    texts = {"agreement": "agreement {:.2f}", "lost": "lost {:.0%}", "success_auc": "AUC {:.3f}"}
    known = {key: value for key, value in found.scores(name).items() if value is not None}
    return " \u00b7 ".join(text.format(known[key]) for key, text in texts.items() if key in known)
