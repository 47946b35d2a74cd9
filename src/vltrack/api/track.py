"""``vltrack.track``: follow targets through a video; whatever ends the run, the results so far are kept."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from vltrack import __version__
from vltrack.api import inputs
from vltrack.api.outputs import Outputs, finished_tracks
from vltrack.api.part import PartFile
from vltrack.api.reporter import QUIET, Interrupted, Reporter, interrupted, pace, shielded, warn_of
from vltrack.checkpoints.cards import DEFAULT_MODEL
from vltrack.core.errors import BoxFrameOutOfRange, NothingFits, PartialResult, UsageError, VideoEmpty, VltrackError
from vltrack.core.files import counted, printable
from vltrack.core.track import Mark, Track
from vltrack.core.types import BoxLike, Frame, Image, Step, Target
from vltrack.prep.prompts import check_image
from vltrack.video.base import FrameSource, ReadReport, SourceInfo, prefetch
from vltrack.video.source import is_place, open_source

if TYPE_CHECKING:
    from vltrack.tracking.compare import TrackerGroup
    from vltrack.tracking.postprocess import Policy
    from vltrack.tracking.tracker import MultiTracker, Tracker

    Source = str | Path | int | Sequence[str | Path] | Iterable[Frame | Image]

PREFETCHED = 8
LOADED: ContextVar[dict[str, Tracker] | None] = ContextVar("LOADED", default=None)
"""Trackers by their options, where they are kept for the next video."""
_BYTES_PER_PIXEL = 0.27  # of an output video, per second: 2 Mbit/s at 720p


class RunOptions(TypedDict, total=False):
    """Options of ``track`` and ``track_many``, described in ``track``."""

    box_format: str
    box_unit: str
    start: int
    end: int | None
    stride: int
    model: str | Path
    overwrite: bool
    device: str
    threads: int | None
    backend: str
    precision: str
    policy: Policy | Mapping[str, Any] | None
    effects: Sequence[str]
    anyway: bool
    wait: bool
    fail_if_lost: bool
    partial_ok: bool
    resume: bool
    doubt: bool


class TrackOptions(RunOptions, total=False):
    """Options of ``track`` alone, described there."""

    outputs: str | Path | Sequence[str | Path]
    allow_network: bool
    record: bool
    backward: bool
    progress: Callable[[int, int | None], object] | None
    reporter: Reporter


@overload
def track(
    source: Source,
    *,
    box: BoxLike | None = None,
    text: str | None = None,
    keyframes: Sequence[Mark] | None = None,
    **options: Unpack[TrackOptions],
) -> Track: ...


@overload
def track(source: Source, *, targets: Mapping[str, Target], **options: Unpack[TrackOptions]) -> dict[str, Track]: ...


@overload
def track(
    source: Source,
    *,
    text: str | Mapping[str, str] | None = None,
    keyframes: Mapping[str, Sequence[Mark]],
    **options: Unpack[TrackOptions],
) -> dict[str, Track]: ...


def track(
    source: Source,
    *,
    box: BoxLike | None = None,
    text: str | Mapping[str, str] | None = None,
    targets: Mapping[str, Target] | None = None,
    keyframes: Sequence[Mark] | Mapping[str, Sequence[Mark]] | None = None,
    backward: bool = False,
    box_format: str = "xywh",
    box_unit: str = "px",
    start: int = 0,
    end: int | None = None,
    stride: int = 1,
    model: str | Path = DEFAULT_MODEL,
    outputs: str | Path | Sequence[str | Path] = (),
    overwrite: bool = False,
    allow_network: bool = False,
    device: str = "auto",
    threads: int | None = None,
    backend: str = "auto",
    precision: str = "auto",
    policy: Policy | Mapping[str, Any] | None = None,
    effects: Sequence[str] = (),
    anyway: bool = False,
    wait: bool = False,
    fail_if_lost: bool = False,
    partial_ok: bool = True,
    record: bool = True,
    resume: bool = False,
    doubt: bool = False,
    progress: Callable[[int, int | None], object] | None = None,
    reporter: Reporter = QUIET,
) -> Track | dict[str, Track]:
    """Follow a target through a video: what ``box``, ``text`` or both name in the first frame.

    Args:
        source: video file, folder of images, glob, camera number, ``-`` for standard input, or an iterable
            of frames (``Frame``, or RGB uint8 arrays of shape (H, W, 3)).
        box: four numbers in the first frame that is read, by default x, y, w, h in pixels of the displayed
            frame (top left corner and size).
        text: a sentence that names the target, in English.
        targets: several targets by name, in place of ``box`` and ``text``.
        keyframes: marks of a person in several frames, in place of ``box``, or by name for several targets: between two
            boxes a target is tracked from both ends (``vltrack.correct``). Rows begin at the first mark. ``text`` is
            then the sentence of all, or sentences by name.
        backward: also track from the frame where the target is named, ``start``, back to the first frame.
        box_format: ``xywh``, ``xyxy`` (two corners) or ``cxcywh`` (center and size).
        box_unit: ``px``, or ``rel`` for shares of the frame's width and height.
        start, end, stride: frames to read; ``end`` is exclusive, None reads to the last.
        model: name of a model (``vltrack models``) or path of weights.
        outputs: file or files to write, by extension: ``.csv`` and ``.json`` (boxes), ``.xml`` (CVAT),
            ``.mp4`` and ``.gif`` (annotated video), ``.png`` (contact sheet).
        overwrite: replace outputs that exist.
        allow_network: allow ``rtsp://`` addresses.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; ``threads``: of the network.
        backend, precision: as in ``vltrack.load``.
        policy: options of the post-processing that differ from the tracker's own.
        effects: of output videos: ``blur`` (targets, in place of boxes), ``crop`` (the view follows the targets) and
            ``trail`` (their way through the last two seconds).
        anyway: start from text even where nothing in the first frame fits it.
        wait: where nothing in the first frame fits the text, start as soon as something does (status
            ``waiting`` until then).
        fail_if_lost: raise ``PartialResult`` if a target was lost in any frame.
        partial_ok: accept a video of which parts could not be decoded (status ``missing`` in the track).
        record: keep the steps. Without it the returned track is empty and memory stays constant: for streams
            without end, whose steps ``reporter`` takes.
        resume: continue where an earlier run with the same arguments was killed or stopped, after the rows that it
            has left next to the first ``.csv`` or ``.json`` of ``outputs``; without any, start as usual. Where it was
            finished, its rows are returned.
        doubt: give every row a number in [0, 1] that says how much it deserves a look (``vltrack.review``).
        progress: called after each frame with the frames done and their expected number, None if unknown.
        reporter: receives warnings, progress, steps and the summary.

    Returns:
        The track of the target, N rows for N frames; with ``targets`` a dict of tracks by name.

    Raises:
        TypeError: a text that is not a str, a frame number that is not whole, or a source of another type.
        UsageError: arguments that do not fit together, or an output that exists.
        StateError: ``resume`` with other arguments than before; or another run is writing the same output.
        InputError: a video, text or box that cannot be used (``VideoNotFound``, ``BoxInvalid``, ...).
        NothingFits: nothing in the first frame fits the text; with ``wait``: in no frame, and ``error.result``
            holds the rows.
        ModelNotFound, CheckpointCorrupt, ...: see ``Tracker.load``.
        PartialResult: see ``fail_if_lost`` and ``partial_ok``; or reading broke off (``VideoReadError``,
            ``VideoTimeout``, ``VideoDecoderCrashed``). ``error.result`` holds what was done before.
        ResourceError: an output cannot be written.
        KeyboardInterrupt: Ctrl-C, after the outputs are finished with what was done.

    Examples:
        >>> import vltrack
        >>> track = vltrack.track("clip.mp4", box=(313, 88, 342, 194), text="the silver car", end=3)
        >>> track.boxes.shape, track.boxes[0].tolist()
        ((3, 4), [313.0, 88.0, 342.0, 194.0])
    """
    inputs.check_options(box_format, box_unit, device, threads, progress)
    start, end, stride = inputs.check_range(start, end, stride)
    if keyframes is not None or backward:
        from vltrack.api.keyframes import Request, follow_keyframes

        loading = {"device": device, "threads": threads, "backend": backend, "precision": precision, "anyway": anyway}
        return follow_keyframes(Request(
            source=source, box=box, text=text, targets=targets, keyframes=keyframes, backward=backward,
            box_format=box_format, box_unit=box_unit, part=(start, end, stride), model=inputs.check_model(model),
            policy=policy, loading=loading, outputs=inputs.as_paths(outputs), overwrite=overwrite,
            effects=effects, allow_network=allow_network, fail_if_lost=fail_if_lost, partial_ok=partial_ok, doubt=doubt,
            progress=progress, reporter=reporter,
        ), resume=resume, wait=wait)  # fmt: skip
    given = given_targets(box, text, targets, wait=wait, anyway=anyway)
    paths = inputs.as_paths(outputs)
    inputs.check_effects(effects, paths)
    inputs.check_policy(policy)
    model = inputs.check_model(model)
    counts = Counts()
    stopped: KeyboardInterrupt | None = None
    with (
        PartFile(paths, source, resume=resume, overwrite=overwrite, lasting=not inputs.runs_itself(model)) as part,
        open_frames(source, part.first(start), end, stride, allow_network) as frames,
        shielded() as shield,
    ):
        named = inputs.pixel_targets(given, box_format, box_unit, frames.info)
        metas = {name: track_meta(frames.info, one, model, start, end, stride, policy) for name, one in named.items()}
        report, total = frames.report, frames_expected(frames.info.frames, start, end, stride)
        ours = not isinstance(frames, _CallerFrames)
        files = Outputs(
            paths,
            frames.info,
            metas,
            lambda: part.warnings(report.warnings),
            shield,
            record=record,
            effects=effects,
            later=ours,
        )

        def result() -> Track | dict[str, Track]:
            tracks = files.tracks()
            return tracks["1"] if targets is None else tracks

        try:
            if part.complete:
                _take_finished(paths, source, metas, {backend, precision} - {"auto"}, files, counts, reporter)
            else:
                _check_room(paths, frames.info, reporter)
                with files:
                    loading = {"device": device, "threads": threads, "backend": backend, "precision": precision}
                    trackers = _load(model, policy=policy, anyway=anyway, **loading)
                    span = {"start": start, "end": end, "stride": stride}
                    settings = trackers.settings
                    part.check({**settings, "targets": named, **span, "wait": wait})
                    for meta in metas.values():
                        meta["runtime"] = settings["runtime"]
                    _take_up(part, metas, trackers, frames, files, counts, reporter)
                    began = time.monotonic()
                    followed = follow(
                        frames, trackers, named, metas, (start, end, stride), reporter, wait=wait, done=counts.frames
                    )
                    with closing(followed):
                        for frame, steps in followed:
                            with shield:
                                files.add(frame, _doubted(steps, doubt))
                                part.add(metas, part.warnings(report.warnings), steps, trackers.state)
                                reporter.steps(steps)
                                counts.add(steps, time.monotonic() - began)
                            reporter.frame(frame, steps)
                            if progress is not None:
                                progress(counts.frames, total)
                part.finished = report.failure is None
        except KeyboardInterrupt as stop:
            stopped = stop
        except VltrackError as error:
            error.result = result() if counts.frames else None
            raise
    for warning in report.warnings:
        reporter.warn(warning)
    counts.report(paths, reporter)
    if stopped is not None:
        raise Interrupted(_kept_of(part, counts.frames), result()) from stopped
    degraded = report.degraded or (part.complete and counts.missing > 0)
    failure = (
        report.failure
        or counts.unseen(named)
        or counts.failure(source, degraded=degraded and not partial_ok, lost=fail_if_lost)
    )
    if failure is not None:
        failure.result = result()
        raise failure
    return result()


def _kept_of(part: PartFile, frames: int) -> str:
    """The message of a run that was stopped after so many frames."""
    resumable = part.path is not None and part.resumable and frames
    return interrupted(frames) + (" Continue with resume (--resume)." if resumable else "")


def given_targets(
    box: BoxLike | None,
    text: str | Mapping[str, str] | None,
    targets: Mapping[str, Target] | None,
    *,
    wait: bool,
    anyway: bool,
) -> dict[str, Target]:
    """Return the targets. Raises ``UsageError`` for arguments that do not fit together, ``TypeError`` for others."""
    if isinstance(text, Mapping):
        raise UsageError("A text for each name needs keyframes.", hint="Put every target into targets.")
    if wait and anyway:
        raise UsageError("A target cannot be waited for (--wait) with anyway (--anyway).", hint="Leave one out.")
    if targets is not None and (box is not None or text is not None):
        raise UsageError("Targets cannot be mixed with box or text.", hint="Put every target into targets.")
    given = inputs.one_target(box, text) if targets is None else inputs.check_targets(targets)
    if wait and all(target.box is not None for target in given.values()):
        raise UsageError(
            "A target with a box is there from the start: nothing to wait for (--wait).",
            hint="Name it by a text alone, or leave --wait out.",
        )
    return given


def _take_up(
    part: PartFile,
    metas: dict[str, dict[str, Any]],
    trackers: MultiTracker,
    frames: FrameSource | _CallerFrames,
    files: Outputs,
    counts: Counts,
    reporter: Reporter,
) -> None:
    """Continue after the rows that an earlier run has left, if there are any: they are drawn again, not tracked."""
    if (kept := part.kept) is None:
        if part.resume:
            reporter.note("nothing to resume: starting at the first frame.")
        return
    reporter.note(f"resumed after frame {kept.frame}: {counted(len(kept.steps), 'frame')} done.")
    metas.update(kept.metas)
    trackers.restore(part.state_on(trackers.device))
    for steps in kept.steps.values():
        files.record(steps)
        counts.add(steps, 0.0)
    counts.before = counts.frames
    for frame in frames:
        if frame.index in kept.steps:
            files.draw(frame, kept.steps[frame.index])
        if frame.index >= kept.frame:
            break


def _take_finished(
    paths: Sequence[Path],
    source: object,
    metas: dict[str, dict[str, Any]],
    runtime: set[str],
    files: Outputs,
    counts: Counts,
    reporter: Reporter,
) -> None:
    """Take the rows of outputs that an earlier run has finished; ``UsageError`` if it was another run."""
    tracks = finished_tracks(paths, metas, runtime)
    if tracks is None:
        inputs.check_outputs(paths, source, overwrite=False)
        return
    reporter.note(f"already finished: {', '.join(map(printable, paths))}.")
    for name, track in tracks.items():
        metas[name] |= {key: track.meta[key] for key in ("warnings", "runtime") if key in track.meta}
    for steps in zip(*tracks.values(), strict=True):
        files.record(named := dict(zip(tracks, steps, strict=True)))
        counts.add(named, 0.0)


def _check_room(paths: Sequence[Path], info: SourceInfo, reporter: Reporter) -> None:
    """Warn where a video of the whole source will probably not fit on its disk."""
    for path in paths:
        if path.suffix.lower() not in inputs.VIDEOS or info.seconds is None:
            continue
        needed, free = info.seconds * info.width * info.height * _BYTES_PER_PIXEL, shutil.disk_usage(path.parent).free
        if needed > free:
            reporter.warn(f"{printable(path)} may need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free.")


def _load(model: str, **options: Any) -> MultiTracker:
    """Load the tracker; options as in ``Tracker.load``. Its backend is imported here and not before."""
    from vltrack.tracking.tracker import MultiTracker, Tracker

    key, kept = repr((model, sorted(options.items()))), LOADED.get()
    if kept is None:
        return MultiTracker(Tracker.load(model, **options))
    if key not in kept:
        kept[key] = Tracker.load(model, **options)
    return MultiTracker(kept[key])


def _doubted(steps: Mapping[str, Step], wanted: bool) -> Mapping[str, Step]:
    """The steps, with their doubt where it is wanted."""
    from vltrack.tracking.doubt import doubt_of_step

    if not wanted:
        return steps
    return {name: replace(step, extras={**step.extras, "doubt": doubt_of_step(step)}) for name, step in steps.items()}


def track_meta(
    info: SourceInfo,
    target: Target,
    model: str,
    start: int,
    end: int | None,
    stride: int,
    policy: Policy | Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the head of a target's table; options of the policy are in it where some are given."""
    options: dict[str, Any] = dict(policy) if isinstance(policy, Mapping) else asdict(policy) if policy else {}
    return {
        "source": printable(info.name),
        "sentence": target.text,
        "box": target.box,
        "mode": str(target.mode),
        "model": model,
        **({"policy": options} if options else {}),
        "width": info.width,
        "height": info.height,
        **({} if info.sample_aspect == 1 else {"sample_aspect": round(info.sample_aspect, 6)}),
        "start": start,
        **({} if end is None else {"end": end}),
        "stride": stride,
        "warnings": [],
        "versions": {"vltrack": __version__},
    }


@dataclass(kw_only=True, slots=True)
class Counts:
    """Frames of a run (``before``: of the one that it continues), in how many each target was visible or lost, and
    who has not come into view."""

    frames: int = 0
    before: int = 0
    seconds: float = 0.0
    seen: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    missing: int = 0
    waiting: set[str] = field(default_factory=set)

    def add(self, steps: Mapping[str, Step], seconds: float) -> None:
        """Count the steps of one frame, done ``seconds`` after the first was begun."""
        self.frames += 1
        self.seconds = seconds
        for name, step in steps.items():
            self.seen[name] = self.seen.get(name, 0) + int(step.visible)
            self.lost[name] = self.lost.get(name, 0) + int(step.status == "lost")
            (self.waiting.add if step.status == "waiting" else self.waiting.discard)(name)
        self.missing += int(any(step.status == "missing" for step in steps.values()))

    def report(self, paths: Sequence[Path], reporter: Reporter) -> None:
        record = {
            "frames": self.frames,
            "seen": self.seen,
            "lost": self.lost,
            "missing": self.missing,
            "frames_per_second": round((self.frames - self.before) / self.seconds, 2) if self.seconds > 0 else 0.0,
            "outputs": [printable(path) for path in paths if path.exists()],
        }
        reporter.summary(record)

    def unseen(self, targets: Mapping[str, Target]) -> NothingFits | None:
        """Return the error for targets that were waited for in vain."""
        texts = ", ".join(repr(targets[name].text) for name in targets if name in self.waiting)
        return NothingFits(f"Nothing in {self.frames} frames fits the text: {texts}.") if texts else None

    def failure(self, source: object, *, degraded: bool, lost: bool) -> PartialResult | None:
        """Return the error for parts that are missing, or for a target that was lost and must not be."""
        if degraded:
            return PartialResult(
                f"Parts of {printable(str(source))} could not be read ({self.missing} frames missing)."
            )
        often = {name: count for name, count in self.lost.items() if count}
        if lost and often:
            text = ", ".join(f"{printable(name)} in {count} frames" for name, count in often.items())
            return PartialResult(f"Lost: {text}, and fail_if_lost (--fail-if-lost) is set.")
        return None


# -- frames -------------------------------------------------------------------------------------------


class _CallerFrames:
    """Frames of an iterable of the caller, with the facts that a ``FrameSource`` has."""

    def __init__(self, frames: Iterable[Frame | Image]) -> None:
        from vltrack.tracking.tracker import ARRAY_RATE

        rest = iter(frames)
        first = next(rest, None)
        if first is None:
            raise VideoEmpty("The iterable holds no frame.")
        height, width = check_image(getattr(first, "image", first)).shape[:2]
        self.info = SourceInfo(
            kind="frames", name="<frames>", width=width, height=height, rate=ARRAY_RATE, frames=None, seconds=None
        )
        self.report = ReadReport()
        self._frames = chain([first], rest)

    def __iter__(self) -> Iterator[Frame]:
        for index, item in enumerate(self._frames):
            if isinstance(item, Frame):
                yield item
            else:
                yield Frame(image=check_image(item), index=index, seconds=index / self.info.rate)  # type: ignore[operator]


@contextmanager
def open_frames(
    source: Source, start: int, end: int | None, stride: int, allow_network: bool
) -> Iterator[FrameSource | _CallerFrames]:
    """Open a path, address or camera and close it again; what the caller has opened is left to the caller.

    Raises ``UsageError`` for a range with an iterable, which has no frame numbers.
    """
    if is_place(source):
        with open_source(source, start=start, end=end, stride=stride, allow_network=allow_network) as frames:
            yield frames
        return
    if (start, end, stride) != (0, None, 1):
        raise UsageError("A range needs a file, a folder or a camera.", hint="Slice the frames before.")
    yield source if isinstance(source, FrameSource) else _CallerFrames(source)  # type: ignore[arg-type]


def frames_expected(frames: int | None, start: int, end: int | None, stride: int) -> int | None:
    """Return how many frames will come from a source of ``frames``, None where that is unknown."""
    if frames is None:
        return None if end is None else -(-(end - start) // stride)
    last = frames if end is None else min(frames, end)
    return max(0, -(-(last - start) // stride))


def follow(
    source: FrameSource | _CallerFrames,
    trackers: MultiTracker | TrackerGroup,
    targets: Mapping[str, Target],
    metas: Mapping[str, dict[str, Any]],
    part: tuple[int, int | None, int],
    reporter: Reporter,
    *,
    wait: bool = False,
    done: int = 0,
) -> Generator[tuple[Frame, dict[str, Step]], None, None]:
    """Yield every frame with the steps of all targets; frames before the first that decodes are left out.

    ``part`` is start, end and stride of all frames, of which ``done`` were followed before by these trackers; ``wait``
    as in ``MultiTracker.init``. Raises ``BoxFrameOutOfRange`` or ``VideoEmpty`` where no frame decodes, and what the
    trackers raise.
    """
    started, count, began = done > 0, 0, time.monotonic()
    options: dict[str, Any] = {"wait": True} if wait else {}
    total = frames_expected(source.info.frames_about, *part)
    # Frames of the caller stay in the caller's thread.
    ahead = nullcontext(iter(source)) if isinstance(source, _CallerFrames) else prefetch(source, PREFETCHED)
    with ahead as frames, reporter.bar("tracking", total) as bar:
        for frame in frames:
            if started:
                steps = trackers.update(frame)
            elif frame.image is None:
                # A target cannot be named in a frame that did not decode; the first that did is the start.
                reporter.warn(f"frame {frame.index} could not be decoded; starting later.")
                continue
            else:
                steps = trackers.init(frame, targets, **options)
                started = True
            said = trackers.warnings
            warn_of({name: each[len(metas[name]["warnings"]) :] for name, each in said.items()}, len(targets), reporter)
            for name, warnings in said.items():
                metas[name]["warnings"] = list(warnings)
            yield frame, steps
            count += 1
            note = ", ".join(f"{name} {step.score:.2f}" for name, step in steps.items())
            left = None if total is None else max(total, done + count) - done
            bar.show(done + count, pace(count, left, time.monotonic() - began), note=note, line=False)
    if not started:
        if part[0]:
            raise BoxFrameOutOfRange(
                f"The video ends before frame {part[0]}, where the target is to be named.",
                hint="Choose a smaller start (--start); frames count from 0.",
            )
        raise VideoEmpty(f"{printable(source.info.name)} has no frame that decodes.")
