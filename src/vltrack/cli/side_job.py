"""One run of ``vltrack compare``: every frame to all trackers, everything kept. Knows the order of things.

What one tracker meets costs the others nothing: it is told, the rest is written, and the exit code is 7.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltrack.cli.console import EXIT_INTERRUPTED, EXIT_TERMINATED, emit, say, shown, warn
from vltrack.cli.interrupts import Shield, Terminated, shielded
from vltrack.cli.job import check_policy, follow, meta_of, pixel_targets, total_frames
from vltrack.cli.request import Request
from vltrack.cli.side_files import Files, Film, save_picture, save_tables
from vltrack.cli.side_tally import Counter, Tally
from vltrack.core.errors import PartialResult, ResourceError, UsageError

if TYPE_CHECKING:
    from vltrack.cli.side_tally import Truth
    from vltrack.core.types import Frame, Step, Target
    from vltrack.tracking.side_by_side import SideBySide
    from vltrack.video.contract import FrameSource


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
        self, job: Comparison, source: FrameSource, team: SideBySide, target: Target, truth: Truth | None
    ) -> None:
        from vltrack.plots.moments import Moments

        self.targets, remarks = team.suited(target)
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
        self._moments = Moments(names)
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


def _track(request: Request, source: FrameSource, team: SideBySide, results: Results, shield: Shield) -> None:
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


def _load(job: Comparison) -> SideBySide:
    """All trackers. Torch is loaded here and not before. Raises what all of them failed with."""
    from vltrack.tracking.side_by_side import SideBySide

    request = job.request
    team = SideBySide.load(
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
    from vltrack.datasets.opening import read_truth

    return read_truth(path)


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


def _summarise(job: Comparison, tally: Tally, team: SideBySide) -> None:
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
        failed = {name: failure.told() for name, failure in tally.failures.items()}
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


def _judge(team: SideBySide, tally: Tally | None) -> None:
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
