"""One run of ``vltrack compare``: every frame to all trackers, everything kept. Knows the order of things.

What one tracker meets costs the others nothing: it is told, the rest is written, and the exit code is 7.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltrack.api.console import (
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    Shield,
    Terminated,
    emit,
    say,
    shielded,
    shown,
    warn,
)
from vltrack.api.inputs import Request
from vltrack.api.outputs import Recorder, csv_line, safe_cell
from vltrack.api.track import check_policy, follow, meta_of, pixel_targets, total_frames
from vltrack.core.errors import DataError, PartialResult, ResourceError, UsageError
from vltrack.core.files import write_bytes, write_text

if TYPE_CHECKING:
    from vltrack.core.types import Frame, Image, Step, Target
    from vltrack.plots.compare import ComparisonData, Keyframe
    from vltrack.plots.compare_video import Band
    from vltrack.tracking.compare import TrackerGroup
    from vltrack.video.base import FrameSource, SourceInfo
    from vltrack.video.writer import VideoWriter


# MERGED api/compare.py
# How several trackers fared on one video, counted from their steps. Knows no file and runs no tracker.


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vltrack.core.track import Track
    from vltrack.core.types import Box, Frame, Step
    from vltrack.metrics.agreement import Agreement
    from vltrack.tracking.compare import TrackerFailure

    Truth = tuple[NDArray[np.float64], NDArray[np.bool_]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Now:
    """One frame: boxes (T, 4) with NaN where a tracker has none, agreement, and what each says of itself."""

    frame: tuple[int, float]
    boxes: Box
    mean: float
    each: list[float]
    scores: list[float]
    visible: list[bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """How all trackers fared, once the last frame is done.

    Attributes:
        frames: number and seconds of each frame.
        tracks: by name, as far as each came.
        agreement: of the trackers in the order of ``tracks``.
        lost: share of a tracker's decoded frames in which it did not see the target; NaN without any.
        failures: those that failed, by name, also those that never started.
        left_out: those that cannot start in this way, and why.
        auc: success AUC by name where the truth is known, of those that came to the end.
        truth_error: why there is no ``auc`` although the truth was given.
    """

    frames: list[tuple[int, float]]
    tracks: dict[str, Track]
    agreement: Agreement
    lost: dict[str, float]
    failures: Mapping[str, TrackerFailure]
    left_out: Mapping[str, str]
    auc: dict[str, float] = field(default_factory=dict)
    truth_error: DataError | None = None

    def fare(self, name: str) -> dict[str, float | None]:
        """Agreement with the others, share of frames lost; success AUC where it is known. None: unknown."""
        overall = float(self.agreement.overall_T[list(self.tracks).index(name)])
        fare = {"agreement": number_or_none(overall), "lost": number_or_none(self.lost[name])}
        return fare | ({"success_auc": self.auc[name]} if name in self.auc else {})


class Counter:
    """Takes the steps of all trackers frame by frame.

    Args:
        heads: what the head of each tracker's track tells, by name, in the order of their colours.
        truth: boxes and absences of every frame of the input, or None.
    """

    def __init__(self, heads: Mapping[str, dict[str, Any]], truth: Truth | None = None) -> None:
        self._heads, self._truth = heads, truth
        self._recorders = {name: Recorder() for name in heads}
        self._frames: list[tuple[int, float]] = []

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: Frame, steps: Mapping[str, Step]) -> Now:
        """Count the steps of those that still run."""
        import numpy as np

        from vltrack.metrics.agreement import agreement

        self._frames.append((frame.index, frame.seconds))
        for name, step in steps.items():
            self._recorders[name].add(step)
        nothing = np.full(4, np.nan)
        boxes = np.array([steps[name].box if name in steps else nothing for name in self._heads])
        found = agreement(boxes[:, None])
        return Now(
            frame=self._frames[-1],
            boxes=boxes,
            mean=float(found.mean_N[0]),
            each=[float(value) for value in found.each_TN[:, 0]],
            scores=[steps[name].score if name in steps else math.nan for name in self._heads],
            visible=[name in steps and steps[name].visible for name in self._heads],
        )

    def tally(
        self, failures: Mapping[str, TrackerFailure], left_out: Mapping[str, str], warnings: list[str]
    ) -> Tally:
        """Everything so far; ``warnings`` on the reading of the video go into every head."""
        import numpy as np

        from vltrack.metrics.agreement import agreement

        tracks: dict[str, Track] = {}
        lost: dict[str, float] = {}
        boxes = np.full((len(self._heads), len(self._frames), 4), np.nan)
        for row, (name, recorder) in zip(boxes, self._recorders.items(), strict=True):
            head = self._heads[name] | {"warnings": [*self._heads[name]["warnings"], *warnings]}
            if name in failures:
                head["failed"] = failures[name].to_dict()
            tracks[name] = track = recorder.track(head)
            decoded = np.array([status != "missing" for status in track.status], dtype=np.bool_)
            row[: len(track)][decoded] = track.boxes[decoded]
            lost[name] = float((~track.visible[decoded]).mean()) if decoded.any() else math.nan
        finished = {name: track for name, track in tracks.items() if name not in failures}
        auc, error = self._scored(finished)
        return Tally(
            frames=self._frames,
            tracks=tracks,
            agreement=agreement(boxes),
            lost=lost,
            failures=failures,
            left_out=left_out,
            auc=auc,
            truth_error=error,
        )

    def _scored(self, tracks: Mapping[str, Track]) -> tuple[dict[str, float], DataError | None]:
        """Success AUC by name; or nothing, and why the truth does not fit the video."""
        from vltrack.metrics.success import success_auc

        if self._truth is None:
            return {}, None
        boxes, absent = self._truth
        last = self._frames[-1][0]
        if last >= len(boxes):
            return {}, DataError(
                f"the true boxes end at frame {len(boxes) - 1}, the video goes on to frame {last}.",
                hint="Every frame of the input needs one row.",
            )
        try:
            return {
                name: success_auc(track.boxes, boxes[track.indices], absent[track.indices])
                for name, track in tracks.items()
            }, None
        except DataError as error:
            return {}, error


def number_or_none(value: float) -> float | None:
    """The number as JSON can hold it: None for what is not finite."""
    return float(value) if math.isfinite(value) else None


# MERGED api/compare.py
# What ``vltrack compare`` writes: boxes of each tracker, agreement, one picture, one video. Counts nothing.
#
# Every file is written under a temporary name and renamed.


FORMAT, VERSION = "vltrack.compare", 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """Where everything goes: boxes of each tracker, agreement, all of it in one file, picture, video."""

    folder: Path
    boxes: Mapping[str, Path]
    agreement: Path
    summary: Path
    picture: Path
    video: Path | None

    @classmethod
    def under(cls, folder: Path, names: Sequence[str], *, video: bool) -> Files:
        """The usual names in a folder."""
        return cls(
            folder=folder,
            boxes={name: folder / f"boxes-{name}.csv" for name in names},
            agreement=folder / "agreement.csv",
            summary=folder / "compare.json",
            picture=folder / "compare.png",
            video=folder / "compare.mp4" if video else None,
        )

    def all(self) -> tuple[Path, ...]:
        """Every path, the most useful first."""
        video = () if self.video is None else (self.video,)
        return (self.picture, *video, self.summary, self.agreement, *self.boxes.values())


class Film:
    """The video with all boxes and the band below it. Frames that did not decode are left out."""

    def __init__(self, path: Path, info: SourceInfo, names: Sequence[str], total: int | None) -> None:
        self._path, self._info, self._names, self._total = path, info, names, total
        self._band: Band | None = None
        self._writer: VideoWriter | None = None
        self._open = ExitStack()

    def add(self, image: Image, now: Now) -> None:
        """Draw and write one frame. Raises ``ResourceError``; the file is gone then."""
        from vltrack.plots.compare_video import LOW_AGREEMENT, Band, compose, draw_boxes

        size = (self._info.width, self._info.height)
        if self._band is None:
            self._band = Band(self._names, size[0], self._total)
        tagged = [value < LOW_AGREEMENT for value in now.each]
        picture = draw_boxes(image, now.boxes, now.visible, self._names, tagged)
        band = self._band.draw(now.frame, now.mean, now.each, now.scores, now.visible)
        try:
            if self._writer is None:
                self._writer = self._begin(size[0], size[1] + self._band.height)
            self._writer.write(compose(picture, band, size), now.frame[1])
        except ResourceError as error:
            self._open.__exit__(type(error), error, error.__traceback__)
            raise

    def _begin(self, width: int, height: int) -> VideoWriter:
        from vltrack.video.writer import VideoWriter

        info = self._info
        writer = VideoWriter(
            self._path,
            width=width,
            height=height,
            rate=info.rate,
            sample_aspect=info.sample_aspect,
            overwrite=True,
        )
        return self._open.enter_context(writer)

    def finish(self) -> None:
        """Finish the file and give it its name, also where the run was stopped. Raises ``ResourceError``."""
        self._open.close()


def save_tables(files: Files, tally: Tally, source: str) -> None:
    """Boxes of each tracker, agreement, and everything in one file. Raises ``ResourceError``."""
    for name, track in tally.tracks.items():
        if len(track):
            track.save(files.boxes[name], overwrite=True)
    write_text(files.agreement, _agreement_csv(tally))
    document = json.dumps(_document(tally, source), allow_nan=False)
    write_text(files.summary, document + "\n")


def save_picture(files: Files, tally: Tally, target: Target, source: str, moments: Sequence[Keyframe]) -> None:
    """The picture, where at least one frame was decoded. Raises ``ResourceError``."""
    import cv2

    from vltrack.plots.compare import comparison_image

    if moments:
        picture = comparison_image(_story(tally, target, source), moments)
        write_bytes(files.picture, cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes())


def _agreement_csv(tally: Tally) -> str:
    """A row a frame: mean of all pairs, then each tracker with the others; empty where there is nothing."""
    found = tally.agreement
    lines = [csv_line({name: name for name in ("frame", "seconds", "mean", *map(safe_cell, tally.tracks))})]
    for row, (index, seconds) in enumerate(tally.frames):
        values = [number_or_none(value) for value in (found.mean_N[row], *found.each_TN[:, row])]
        cells: list[Any] = [index, seconds, *("" if value is None else value for value in values)]
        lines.append(csv_line(dict(enumerate(cells))))  # type: ignore[arg-type]
    return "\n".join(lines) + "\n"


def _document(tally: Tally, source: str) -> dict[str, Any]:
    """Everything in one object; null where there is nothing to tell."""
    found = tally.agreement
    return {
        "format": FORMAT,
        "version": VERSION,
        "source": shown(source),
        "trackers": {name: tally.fare(name) for name in tally.tracks},
        "failed": {name: failure.to_dict() for name, failure in tally.failures.items()},
        "left_out": dict(tally.left_out),
        "pairs": [[number_or_none(value) for value in row] for row in found.matrix_TT],
        "frames": [index for index, _ in tally.frames],
        "seconds": [seconds for _, seconds in tally.frames],
        "agreement": [number_or_none(value) for value in found.mean_N],
        "agreement_of": {
            name: [number_or_none(value) for value in row]
            for name, row in zip(tally.tracks, found.each_TN, strict=True)
        },
        "tracks": {name: json.loads(track.to_json()) for name, track in tally.tracks.items()},
    }


def _story(tally: Tally, target: Target, source: str) -> ComparisonData:
    """What the picture tells."""
    import numpy as np

    from vltrack.plots.compare import ComparisonData

    shape = (len(tally.tracks), len(tally.frames))
    scores, visible = np.full(shape, np.nan), np.zeros(shape, dtype=np.bool_)
    for row, track in enumerate(tally.tracks.values()):
        scores[row, : len(track)] = track.scores
        visible[row, : len(track)] = track.visible
    named = [] if target.text is None else [f"\u201c{target.text}\u201d"]
    if target.box is not None:
        named.append("box " + ", ".join(f"{value:g}" for value in target.box))
    return ComparisonData(
        title="/".join(Path(source).parts[-2:]) if Path(source).is_dir() else Path(source).name or source,
        subtitle="   \u00b7   ".join([*named, f"{shape[1]} frames"]),
        names=list(tally.tracks),
        notes=[_note(tally, name) for name in tally.tracks],
        seconds_N=np.array([seconds for _, seconds in tally.frames]),
        mean_N=tally.agreement.mean_N,
        each_TN=tally.agreement.each_TN,
        matrix_TT=tally.agreement.matrix_TT,
        scores_TN=scores,
        visible_TN=visible,
    )


def _note(tally: Tally, name: str) -> str:
    """A tracker's line in the legend."""
    if name in tally.failures:
        return str(tally.failures[name])
    known = {key: value for key, value in tally.fare(name).items() if value is not None}
    words = {"agreement": "agreement {:.2f}", "lost": "lost {:.0%}", "success_auc": "AUC {:.3f}"}
    return " \u00b7 ".join(text.format(known[key]) for key, text in words.items() if key in known)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What was asked: a request with one target, weights by their names in the results, where it all goes."""

    request: Request
    models: Mapping[str, str]
    files: Files
    truth: Path | None = None


def run(job: Comparison) -> int:
    """Do what ``job`` asks; return 0, or 130 / 143 where the user stopped it (all that was done is kept).

    Raises:
        VltrackError: with its exit code; what was done before it is kept. What all trackers failed with is
            raised as it is; where only some failed it is ``PartialResult``.
    """
    from vltrack.video.source import open_source

    request = job.request
    check_policy(request.settings)
    truth = _read_truth(job.truth)
    stopped: KeyboardInterrupt | None = None
    with (
        open_source(
            request.source,
            start=request.start,
            end=request.end,
            stride=request.stride,
            allow_network=request.allow_network,
        ) as source,
        _made(job.files.folder),
    ):
        target = pixel_targets(request, source.info)["1"]
        team = _load(job)
        results = Results(job, source, team, target, truth)
        try:
            with shielded() as shield, results.kept(shield):
                _track(request, source, team, results, shield)
        except KeyboardInterrupt as stop:
            stopped = stop
        report = source.report
    for warning in report.warnings:
        warn(warning)
    tally = results.tally
    if tally is not None:
        _summarise(job, tally, team)
    if stopped is not None:
        say(f"interrupted after {len(results.counter)} frames; what was done is kept.")
        return EXIT_TERMINATED if isinstance(stopped, Terminated) else EXIT_INTERRUPTED
    if report.failure is not None:
        raise report.failure
    _judge(team, tally)
    if report.degraded:
        raise PartialResult(f"parts of {shown(request.source)} could not be read ({report.missing} missing).")
    return 0


class Results:
    """Takes the steps of all trackers that start, and writes the files at the end, whatever that is."""

    def __init__(
        self, job: Comparison, source: FrameSource, team: TrackerGroup, target: Target, truth: Truth | None
    ) -> None:
        from vltrack.plots.compare import KeyframeSelector

        self.targets, remarks = team.targets_for(target)
        self.left_out = {name: remark for name, remark in remarks.items() if name not in self.targets}
        for name, remark in remarks.items():
            warn(f"{name}: {remark}")
        if not self.targets:
            raise UsageError("none of the trackers can start in this way.", hint="Give a box and a sentence.")
        if len(self.targets) == 1:
            warn("only one tracker can start: there is nothing to compare it with.")
        self.heads = {
            name: meta_of(job.request, source.info, part) | {"model": job.models[name]}
            for name, part in self.targets.items()
        }
        self.counter = Counter(self.heads, truth)
        self.tally: Tally | None = None
        self._job, self._source, self._team, self._target = job, source, team, target
        names, total = list(self.targets), total_frames(job.request, source.info.frames)
        self._moments = KeyframeSelector(names)
        self._film = Film(job.files.video, source.info, names, total) if job.files.video is not None else None

    def add(self, frame: Frame, steps: Mapping[str, Step]) -> None:
        """Take the steps of one frame, of those that still run. Raises ``ResourceError``."""
        now = self.counter.add(frame, steps)
        if frame.image is None:
            return
        self._moments.add(frame.image, now.frame, now.boxes, now.visible, now.mean, now.each)
        if self._film is not None:
            self._film.add(frame.image, now)

    @contextmanager
    def kept(self, shield: Shield) -> Iterator[None]:
        """Whatever ends the block, what was done is written; Ctrl-C waits until it is."""
        try:
            yield
        finally:
            if len(self.counter):
                with shield:
                    self._save()

    def _save(self) -> None:
        # Last in, first out: tables, then the picture, then the video. Every one is tried.
        files, name = self._job.files, self._source.info.name
        with ExitStack() as last_first:
            if self._film is not None:
                last_first.callback(self._film.finish)
            warnings = list(self._source.report.warnings)
            self.tally = tally = self.counter.tally(self._team.failures, self.left_out, warnings)
            last_first.callback(save_picture, files, tally, self._target, name, self._moments.chosen())
            last_first.callback(save_tables, files, tally, name)


def _track(request: Request, source: FrameSource, team: TrackerGroup, results: Results, shield: Shield) -> None:
    """Every frame to all trackers, until the end or until none is left."""
    told: set[str] = set(team.failures)
    with closing(follow(request, source, team, results.targets, results.heads)) as followed:
        for frame, steps in followed:
            for name in team.failures.keys() - told:
                warn(f"{name} {team.failures[name]}")
                told.add(name)
            if not steps:
                return
            with shield:
                results.add(frame, steps)


def _load(job: Comparison) -> TrackerGroup:
    """All trackers. Torch is loaded here and not before. Raises what all of them failed with."""
    from vltrack.tracking.compare import TrackerGroup

    request = job.request
    team = TrackerGroup.load(
        job.models, device=request.device, threads=request.threads, settings=request.settings
    )
    if not team.trackers:
        raise next(iter(team.failures.values())).error
    for name, failure in team.failures.items():
        warn(f"{name} {failure}")
    return team


def _read_truth(path: Path | None) -> Truth | None:
    """True boxes of every frame of the input. Raises ``DataError``."""
    if path is None:
        return None
    from vltrack.datasets.reader import read_ground_truth

    return read_ground_truth(path)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder is there while the block runs; one that was made for it and stayed empty goes again."""
    there = folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"cannot make the folder {shown(folder)}: {error.strerror}.", hint="Choose another with --out."
        ) from error
    try:
        yield
    finally:
        if not there and not any(folder.iterdir()):
            folder.rmdir()


# -- at the end ---------------------------------------------------------------------------------------


def _summarise(job: Comparison, tally: Tally, team: TrackerGroup) -> None:
    """A line a tracker for people; with ``--json`` one object on standard output."""
    request = job.request
    rates = {name: team.rate(name) for name in tally.tracks}
    outputs = [path for path in job.files.all() if path.exists()]
    if request.as_json:
        fares: dict[str, Any] = {
            name: tally.fare(name)
            | {"frames_per_second": None if rates[name] is None else round(rates[name] or 0.0, 2)}
            for name in tally.tracks
        }
        failed = {name: failure.to_dict() for name, failure in tally.failures.items()}
        emit(
            {
                "frames": len(tally.frames),
                "trackers": fares,
                "failed": failed,
                "left_out": dict(tally.left_out),
                "outputs": [shown(path) for path in outputs],
            }
        )
    if request.quiet:
        return
    for line in _table(tally, rates):
        say(line)
    for path in outputs:
        say(f"wrote {shown(path)}")


def _table(tally: Tally, rates: Mapping[str, float | None]) -> list[str]:
    """Heads and a line a tracker, in columns."""
    rows = [["", "agreement", "frames/s", "lost", *(["AUC"] if tally.auc else [])]]
    for name in tally.tracks:
        fare, rate = tally.fare(name), rates[name]
        texts = (
            ("{:.2f}", fare["agreement"]),
            ("{:.1f}", rate),
            ("{:.0%}", fare["lost"]),
            ("{:.3f}", fare.get("success_auc")),
        )
        rows.append([shown(name), *("-" if value is None else text.format(value) for text, value in texts)])
    rows = [row[: len(rows[0])] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    ends = [
        f"{shown(name).ljust(widths[0])}  {shown(str(failure))}" for name, failure in tally.failures.items()
    ]
    left = [f"{shown(name).ljust(widths[0])}  {remark}" for name, remark in tally.left_out.items()]
    return [*lines, *ends, *left]


def _judge(team: TrackerGroup, tally: Tally | None) -> None:
    """Raise what there is to raise of trackers that failed and of a truth that does not fit."""
    if tally is None:  # not one row: all that started failed at once
        raise next(iter(team.failures.values())).error
    error = tally.truth_error
    if team.failures:
        if error is not None:
            warn(str(error))
        names = ", ".join(map(shown, team.failures))
        raise PartialResult(f"{len(team.failures)} trackers failed: {names}; the rest is written.")
    if error is not None:
        raise error
