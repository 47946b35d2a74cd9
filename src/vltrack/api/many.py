"""``vltrack.track_many``: follow targets through many videos, several at once, in processes or on a Ray cluster."""

from __future__ import annotations

import csv
import glob
import io
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, Unpack

from vltrack.api import inputs
from vltrack.api.part import rows_beside
from vltrack.api.reporter import QUIET, STOPS, Bar, Interrupted, Reporter
from vltrack.api.track import LOADED, RunOptions, given_targets, track
from vltrack.checkpoints.cards import DEFAULT_MODEL
from vltrack.core.errors import (
    DataError,
    InputError,
    ModelError,
    PartialResult,
    ResourceError,
    UsageError,
    VideoNotFound,
    VltrackError,
)
from vltrack.core.files import counted, printable, read_limited
from vltrack.core.process import reported_error
from vltrack.core.types import BoxLike, Target
from vltrack.evaluation.run import start_pool
from vltrack.evaluation.workers import (
    NOT_FOR_WORKERS,
    PIECE,
    THREADS,
    Heartbeat,
    LocalPool,
    SequenceFailure,
    TaskFinished,
    Timeouts,
    TrackerSpec,
)
from vltrack.prep.prompts import clean_text, parse_box
from vltrack.video.base import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from vltrack.evaluation.workers_ray import RayPool
    from vltrack.tracking.tracker import Tracker

ENGINES = ("local", "ray")
LOADER = "vltrack.api.many:no_trackers"
PROGRESS_EVERY = 0.2
"""Seconds between two counts of frames that a worker sends."""
STOP_SECONDS = 60.0
"""How long workers may finish their files after Ctrl-C before they are killed."""
SILENCE = Timeouts(first=3600.0, next=3600.0)
"""The decoder has its own, short limit; frames that an earlier run has done are drawn again without a message."""
_LARGEST_TABLE = 64 << 20
_APART = (
    'Name a folder (-o FOLDER), or distinguish them: -o "FOLDER/{parent}-{name}.csv", or {file} with its extension.'
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackedVideo:
    """What became of one video of ``track_many``.

    Attributes:
        source: as given.
        outputs: its files; those that it did not come to are missing.
        summary: counts as ``Reporter.summary`` gets them, None where it did not finish.
        error: why it failed; None otherwise, also where the run was stopped before.
    """

    source: str
    outputs: tuple[Path, ...]
    summary: Mapping[str, Any] | None = None
    error: VltrackError | None = None


def track_many(
    sources: Sequence[str | Path] | Mapping[str, Mapping[str, Target]],
    *,
    outputs: str | Path | Sequence[str | Path],
    box: BoxLike | None = None,
    text: str | None = None,
    targets: Mapping[str, Target] | None = None,
    jobs: int | None = None,
    engine: str = "local",
    reporter: Reporter = QUIET,
    **options: Unpack[RunOptions],
) -> dict[str, TrackedVideo]:
    """Follow targets through many videos, each in a process with one thread; a video that fails costs only itself.

    The files of a video are, byte for byte, those of ``vltrack.track`` with ``threads=1``, for any ``jobs`` and
    ``engine``. A script that calls this needs ``if __name__ == "__main__"``.

    Args:
        sources: video files, folders of images, or patterns (``videos/*.mp4``); or, by video, its targets by name.
        outputs: a folder, which gets ``NAME.csv`` of every video; or files with ``{name}`` (of the video, without its
            extension), ``{file}`` (with it) or ``{parent}`` (its folder's name) in them: ``out/{name}.mp4``.
        box, text, targets: what to follow in every video, as of ``vltrack.track``.
        jobs: videos at once, 0 for one per core; None: one; with Ray, all cores of the cluster.
        engine: ``local``, or ``ray`` for a Ray cluster, whose machines need the same paths (extra ``vltrack[ray]``).
        reporter: receives warnings, progress, and the summary of every video, with its ``source``.
        options: more of ``vltrack.track``; ``threads`` is 1 by default. With ``resume``, videos that are finished are
            not tracked again.

    Returns:
        By source, what became of it.

    Raises:
        UsageError: arguments that do not fit together, outputs that exist or that two videos share.
        VideoNotFound: a source that is not there. InputError: a text or a box that cannot be used.
        ModelNotFound, CheckpointCorrupt, ...: see ``Tracker.load``.
        PartialResult: some videos failed; ``error.result`` is what else would be returned. The error of a single
            video is raised itself.
        ResourceError: no process can be started, or a folder cannot be made.
        KeyboardInterrupt: Ctrl-C, after the files of the videos under way are finished with what was done.

    Examples:
        >>> import vltrack
        >>> done = vltrack.track_many(["clip.mp4"], outputs="out", text="the silver car", end=3)
        >>> done["clip.mp4"].summary["frames"], done["clip.mp4"].outputs[0].name
        (3, 'clip.csv')
    """
    inputs.check_choice("engine", engine, ENGINES)
    if jobs is not None and jobs < 0:
        raise UsageError(f"Negative number of worker processes: {jobs}.", hint="Use 1 or more, 0 for all.")
    if engine == "ray":
        from vltrack.evaluation.workers_ray import check_ray

        check_ray()
    options = _checked(options, inputs.as_paths(outputs))
    start = {"wait": options.get("wait", False), "anyway": options.get("anyway", False)}
    if isinstance(sources, Mapping):
        if any(each is not None for each in (box, text, targets)):
            raise UsageError("Targets are given by video and for all videos.", hint="Leave one of them out.")
        given = {os.fspath(source): given_targets(None, None, each, **start) for source, each in sources.items()}
    else:
        one = given_targets(box, text, targets, **start)
        given = {os.fspath(source): one for source in sources}
    named = {found: each for source, each in given.items() for found in _expanded(source)}
    files = _files(list(named), inputs.as_paths(outputs))
    if options.get("resume") and not any(path.suffix.lower() in inputs.TABLES for path in next(iter(files.values()))):
        raise UsageError("A run can only be resumed (--resume) with a .csv or .json as output (-o).")
    for source, paths in files.items():
        for path in paths:
            inputs.make_folder(path.parent)
        again = options.get("overwrite", False) or options.get("resume", False)
        inputs.check_outputs(paths, source, overwrite=again)
    videos = [
        _Video(source=source, outputs=tuple(files[source]), targets=each, options=options, folder=os.getcwd())
        for source, each in named.items()
    ]
    jobs = (0 if engine == "ray" else 1) if jobs is None else jobs
    spec = TrackerSpec(weights=os.fspath(options["model"]), policy={}, loader=LOADER)
    run = _Run(videos, reporter)
    with reporter.bar("tracking", len(videos)) as bar, closing(start_pool(spec, engine, jobs, SILENCE)) as pool:
        run.follow(pool, bar)
    return run.result()


def _checked(options: RunOptions, outputs: Sequence[Path]) -> RunOptions:
    """Return the options with full names and one thread. Raises what ``track`` raises for them."""
    given: Callable[..., Any] = options.get
    inputs.check_options(
        given("box_format", "xywh"), given("box_unit", "px"), given("device", "auto"), given("threads", None)
    )
    inputs.check_range(given("start", 0), given("end"), given("stride", 1))
    inputs.check_policy(given("policy"))
    inputs.check_effects(given("effects", ()), outputs)
    model = inputs.check_model(given("model", DEFAULT_MODEL))
    return {**options, "model": model, "threads": given("threads") or THREADS}


# -- sources and files --------------------------------------------------------------------------------


def _expanded(source: str) -> list[str]:
    """Return what a pattern matches, sorted; any other source unchanged."""
    found = sorted(glob.glob(source)) if glob.has_magic(source) and not os.path.exists(source) else []
    return found or [source]


def _files(sources: Sequence[str], outputs: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the files of each source. Raises ``VideoNotFound`` and ``UsageError``."""
    if not sources:
        raise UsageError("No video is given.")
    if not outputs:
        raise UsageError(
            f"The results of {counted(len(sources), 'input')} need a folder.", hint=f"Give -o FOLDER. {inputs.QUOTES}"
        )
    if len(sources) > 1 and all(Path(source).suffix.lower() in IMAGE_SUFFIXES for source in sources):
        raise UsageError(f"The {len(sources)} inputs are images.", hint="Name their folder, or quote the pattern.")
    patterns = [os.fspath(path / "{name}.csv" if inputs.is_folder(path) else path) for path in outputs]
    files: dict[str, list[Path]] = {}
    owner: dict[str, str] = {}
    originals = {os.path.realpath(source) for source in sources}
    for source in sources:
        place = Path(os.path.abspath(source))
        if not place.exists():
            hint = "Every one of several inputs is a file or a folder. " + inputs.QUOTES
            raise VideoNotFound(f"{printable(source)}: no such file or folder.", hint=hint)
        paths = [_named(pattern, place) for pattern in patterns]
        tables = [path for path in paths if path.suffix.lower() in inputs.TABLES]
        for path in [*paths, *map(rows_beside, tables[:1])]:
            if os.path.realpath(path) in originals:
                raise UsageError(f"The output {printable(path)} is an input.", hint="Choose another name.")
            other = owner.setdefault(os.path.realpath(path), source)
            if other != source:
                raise UsageError(
                    f"{printable(other)} and {printable(source)} would both be written to {printable(path)}.",
                    hint=_APART,
                )
        files[source] = paths
    return files


def _named(pattern: str, video: Path) -> Path:
    words = {"name": video.stem if video.is_file() else video.name, "parent": video.parent.name, "file": video.name}
    return Path(inputs.PLACE.sub(lambda found: words[found[1]], pattern))


def read_videos(path: Path, box_format: str = "xywh") -> dict[str, dict[str, Target]]:
    """Read a CSV of videos and their targets: columns ``video``, ``text``, ``box``, ``target`` (its name, default 1).

    Relative paths start at the folder of the file.

    Raises:
        DataError: not such a file. InputError: a text or a box that cannot be used; both name the line.
    """
    try:
        text = read_limited(path, _LARGEST_TABLE).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(f"{printable(path)}: {reason}.", hint="Give a CSV of videos (--videos).") from error
    rows = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    known, columns = ("video", "text", "box", "target"), rows.fieldnames or ()
    if "video" not in columns or not {"text", "box"} & set(columns) or set(columns) - set(known):
        raise DataError(
            f"{printable(path)} has the columns {printable(','.join(columns)[:80])}.",
            hint="Its first line names video, then text, box or both, and target where a video has several.",
        )
    found: dict[str, dict[str, Target]] = {}
    try:
        for row in rows:
            cells = {key: (row.get(key) or "").strip() for key in known}
            if None in row or not cells["video"]:
                raise DataError("it has no video, or too many cells; a box is quoted.")
            targets = found.setdefault(os.fspath(path.parent / cells["video"]), {})
            name = cells["target"] or "1"
            if name in targets or not name.isprintable() or len(name) > 64:
                raise DataError(f"the target {printable(name[:80])!r} is there twice, or not short and printable.")
            if not (cells["text"] or cells["box"]):
                raise DataError("it has neither a text nor a box.")
            targets[name] = Target(
                box=parse_box(cells["box"], box_format) if cells["box"] else None,
                text=clean_text(cells["text"]) if cells["text"] else None,
            )
    except (csv.Error, DataError, InputError) as error:
        known_error = error if isinstance(error, VltrackError) else DataError(f"{error}.")
        message = f"{printable(path)}, line {rows.line_num}: {known_error.message}"
        raise type(known_error)(message, hint=known_error.hint) from error
    if not found:
        raise DataError(f"{printable(path)} names no video.")
    return found


# -- in a worker --------------------------------------------------------------------------------------


def no_trackers(spec: TrackerSpec) -> dict[str, Tracker]:
    """What a worker begins with: trackers are loaded with their first video, and kept."""
    import cv2

    cv2.setNumThreads(THREADS)
    return {}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Video:
    """One video, its files and targets, and the working folder that relative paths start from."""

    source: str
    outputs: tuple[Path, ...]
    targets: Mapping[str, Target]
    options: RunOptions
    folder: str

    def run(self, trackers: dict[str, Tracker], send: Callable[[tuple[str, Any]], None]) -> None:
        """Track in this process; sends warnings, counts of frames, and the summary, or ``stopped``."""
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise ResourceError(f"Cannot use the folder {printable(self.folder)}: {error.strerror}.") from error
        LOADED.set(trackers)
        try:
            with _stoppable():
                track(self.source, targets=self.targets, outputs=self.outputs, reporter=_Relay(send), **self.options)
        except KeyboardInterrupt:
            send(("stopped", None))

    def failed(self, kind: str, message: str, **more: Any) -> SequenceFailure:
        """The event that this video failed; arguments as the fields of ``SequenceFailure``."""
        return SequenceFailure(mode="", name=self.source, kind=kind, message=message, **more)


class _Relay(Reporter):
    """Sends what a run reports to the process that started the worker."""

    def __init__(self, send: Callable[[tuple[str, Any]], None]) -> None:
        self._send, self._frames, self._sent = send, 0, 0.0

    def warn(self, message: str) -> None:
        self._send(("warning", message[:PIECE]))

    def steps(self, steps: Mapping[str, Any]) -> None:
        self._frames += 1
        if time.monotonic() - self._sent > PROGRESS_EVERY:
            self._sent = time.monotonic()
            self._send(("frames", self._frames))

    def summary(self, record: Mapping[str, Any]) -> None:
        self._send(("summary", dict(record)))


@contextmanager
def _stoppable() -> Iterator[None]:
    """Heed SIGINT and SIGTERM, which a worker of ours else blocks and ignores; one that came before comes now."""
    if multiprocessing.parent_process() is None:  # of Ray, which has its own way
        yield
        return
    before = {number: signal.signal(number, _stop) for number in NOT_FOR_WORKERS}
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, NOT_FOR_WORKERS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, NOT_FOR_WORKERS)
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise STOPS[number]


# -- in the process that starts them ------------------------------------------------------------------


@dataclass
class _Run:
    """State of a run over many videos."""

    videos: Sequence[_Video]
    reporter: Reporter
    done: dict[str, TrackedVideo] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    stopped: int = 0

    def follow(self, pool: LocalPool | RayPool, bar: Bar) -> None:
        """Run all videos, the largest first. Raises ``ModelError``, which all of them would, and ``Interrupted``."""
        pending = sorted(self.videos, key=lambda video: -os.stat(video.source).st_size)
        began = time.monotonic()
        try:
            while len(self.done) < len(self.videos):
                while pending and pool.has_idle():
                    pool.submit(pending.pop(0))
                for event in pool.events(0.5):
                    self._take(event)
                self._show(bar, time.monotonic() - began)
        except KeyboardInterrupt as stop:
            under_way = len(self.videos) - len(pending) - len(self.done)
            pool.stop()
            until = time.monotonic() + STOP_SECONDS
            while self.stopped + len(self.done) < len(self.videos) - len(pending) and time.monotonic() < until:
                for event in pool.events(0.5):
                    self._take(event)
            message = f"interrupted; {len(self.done)} of {counted(len(self.videos), 'video')} done"
            kept = f", and what was done of {under_way} more is kept" if under_way else ""
            raise Interrupted(f"{message}{kept}. Continue with resume (--resume).", self._found()) from stop

    def _take(self, event: Heartbeat | TaskFinished | SequenceFailure) -> None:
        if isinstance(event, SequenceFailure):
            self._fail(event)
        elif isinstance(event, Heartbeat):
            for kind, value in event.rows:
                if kind == "frames":
                    self.frames[event.task.source] = value
                elif kind == "warning":
                    self.reporter.warn(_about(event.task.source, value))
        elif (last := event.rows[-1])[0] == "stopped":
            self.stopped += 1
        else:
            video, record = event.task, last[1]
            self.frames[video.source] = record["frames"]
            self.done[video.source] = TrackedVideo(source=video.source, outputs=video.outputs, summary=record)
            self.reporter.summary({"source": printable(video.source), **record})

    def _fail(self, failure: SequenceFailure) -> None:
        """Note the error of a video. Raises it if it is one of the model."""
        error = reported_error(failure.error, failure.message, "", otherwise=PartialResult)
        if error.code != failure.error and failure.error:
            error.message = f"{failure.error}: {failure.message}"  # a bug
        if isinstance(error, ModelError):
            raise error
        error.context["traceback"] = failure.traceback
        self.reporter.warn(f"failed: {_about(failure.name, error.message)}")
        outputs = next(video.outputs for video in self.videos if video.source == failure.name)
        self.done[failure.name] = TrackedVideo(source=failure.name, outputs=outputs, error=error)

    def _show(self, bar: Bar, seconds: float) -> None:
        failed = sum(one.error is not None for one in self.done.values())
        frames = sum(self.frames.values())
        parts = [
            f"{len(self.done)}/{counted(len(self.videos), 'video')}",
            f"{counted(frames, 'frame')}, {frames / max(seconds, 1e-9):.1f} frames/s" if frames else "",
            f"{failed} failed" if failed else "",
        ]
        bar.show(len(self.done), ", ".join(filter(None, parts)), line=frames > 0)

    def _found(self) -> dict[str, TrackedVideo]:
        blank = {one.source: TrackedVideo(source=one.source, outputs=one.outputs) for one in self.videos}
        return {source: self.done.get(source, one) for source, one in blank.items()}

    def result(self) -> dict[str, TrackedVideo]:
        """Return what became of every video. Raises ``PartialResult`` where some failed, or a single one's error."""
        found = self._found()
        failed = {source: one.error for source, one in found.items() if one.error is not None}
        if failed:
            names = ", ".join(map(printable, [*failed][:3])) + (", ..." if len(failed) > 3 else "")
            error = PartialResult(
                f"{len(failed)} of {counted(len(found), 'video')} failed: {names}.",
                hint="The others are done; --resume tries again without them.",
            )
            if len(found) == 1:
                (error,) = failed.values()  # type: ignore[assignment]
            error.result = found
            raise error
        return found


def _about(source: str, message: str) -> str:
    name = printable(source)
    return message if message.startswith(name) else f"{name}: {message}"
