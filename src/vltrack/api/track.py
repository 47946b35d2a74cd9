"""One run of ``vltrack track``: frames in, steps out, everything kept whatever happens. Knows the order of
things only.

Cheap checks first, then the input is opened (a wrong one is told at once), then torch is loaded and the
tracker.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vltrack.api.console import (
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    Shield,
    Terminated,
    emit,
    progress,
    say,
    shielded,
    shown,
    warn,
)
from vltrack.api.inputs import Request, check_model
from vltrack.api.outputs import Outputs
from vltrack.core.errors import BoxFrameOutOfRange, ConfigError, PartialResult, UsageError, VideoEmpty

if TYPE_CHECKING:
    from vltrack.core.types import Frame, Step, Target
    from vltrack.tracking.compare import SideBySide
    from vltrack.tracking.tracker import MultiTracker
    from vltrack.video.base import FrameSource, SourceInfo


PREFETCHED = 8


@dataclass(kw_only=True, slots=True)
class Tally:
    """What the summary tells: how many frames, and how each target fared."""

    frames: int = 0
    seconds: float = 0.0
    seen: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    missing: int = 0
    invalid: int = 0

    def add(self, steps: dict[str, Step], seconds: float) -> None:
        """Count the steps of one frame, done ``seconds`` after the first was begun."""
        self.frames += 1
        self.seconds = seconds
        for name, step in steps.items():
            self.seen[name] = self.seen.get(name, 0) + int(step.visible)
            self.lost[name] = self.lost.get(name, 0) + int(step.status == "lost")
            self.invalid += int(step.status == "invalid")
        self.missing += int(any(step.status == "missing" for step in steps.values()))


def run(request: Request) -> int:
    """Do what ``request`` asks; return the exit code 0, or 130 / 143 where the user stopped it (all that was
    done is kept).

    Raises:
        VltrackError: with its exit code; what was done before it is kept.
    """
    from vltrack.video.source import open_source

    check_policy(request.settings)
    request = replace(request, model=check_model(request.model))
    tally = Tally()
    stopped: KeyboardInterrupt | None = None
    with open_source(
        request.source,
        start=request.start,
        end=request.end,
        stride=request.stride,
        allow_network=request.allow_network,
    ) as source:
        targets = pixel_targets(request, source.info)
        metas = {name: meta_of(request, source.info, target) for name, target in targets.items()}
        report = source.report
        try:
            with shielded() as shield, _outputs(request, source, metas, shield) as outputs:
                trackers = _load(request)
                began = time.monotonic()
                with closing(follow(request, source, trackers, targets, metas)) as followed:
                    for frame, steps in followed:
                        with shield:
                            outputs.add(frame, steps)
                            tally.add(steps, time.monotonic() - began)
        except KeyboardInterrupt as stop:
            stopped = stop
    for warning in report.warnings:
        warn(warning)
    _summarise(request, tally)
    if stopped is not None:
        say(f"interrupted after {tally.frames} frames; what was done is kept.")
        return EXIT_TERMINATED if isinstance(stopped, Terminated) else EXIT_INTERRUPTED
    if report.failure is not None:
        raise report.failure
    _judge(request, tally, degraded=report.degraded)
    return 0


def _outputs(
    request: Request, source: FrameSource, metas: dict[str, dict[str, Any]], shield: Shield
) -> Outputs:
    """Everything that takes the steps."""
    report = source.report
    return Outputs(
        request.outputs,
        source.info,
        metas,
        lambda: report.warnings,
        as_json=request.as_json,
        shield=shield,
    )


def _load(request: Request) -> MultiTracker:
    """The tracker for all targets. Torch is loaded here and not before."""
    from vltrack.tracking.tracker import MultiTracker, Tracker

    tracker = Tracker.load(
        request.model, device=request.device, threads=request.threads, policy=request.settings
    )
    return MultiTracker(tracker)


def check_policy(settings: Mapping[str, object]) -> None:
    """That ``--set policy.key=value`` names what there is, before anything is loaded.

    Raises:
        UsageError: an unknown key (names the nearest), or a value that the policy refuses.
    """
    from vltrack.tracking.postprocess import Policy

    try:
        Policy().changed(settings)
    except ConfigError as error:
        raise UsageError(f"--set: {error.message}", hint=error.hint) from error


def pixel_targets(request: Request, info: SourceInfo) -> dict[str, Target]:
    """The targets with boxes as x, y, w, h in pixels of the frame. Raises ``BoxInvalid``, ``BoxOutside``."""
    from vltrack.core.types import Target
    from vltrack.prep.prompts import check_box, convert_box

    targets: dict[str, Target] = {}
    for named in request.targets:
        box: tuple[float, float, float, float] | None = None
        if named.box is not None:
            box = convert_box(named.box, request.box_format, request.box_unit, info.width, info.height)
            check_box(box, info.width, info.height)
        targets[named.name] = Target(box=box, text=named.text)
    return targets


def meta_of(request: Request, info: SourceInfo, target: Target) -> dict[str, Any]:
    """What the head of a target's table tells of the run."""
    from vltrack import __version__

    return {
        "source": shown(info.name),
        "sentence": target.text,
        "box": target.box,
        "mode": str(target.mode),
        "model": request.model,
        "width": info.width,
        "height": info.height,
        "start": request.start,
        "stride": request.stride,
        "warnings": [],
        "versions": {"vltrack": __version__},
    }


def total_frames(request: Request, frames: int | None) -> int | None:
    """How many frames will come, where that is known."""
    if frames is None:
        return None if request.end is None else -(-(request.end - request.start) // request.stride)
    last = frames if request.end is None else min(frames, request.end)
    return max(0, -(-(last - request.start) // request.stride))


def follow(
    request: Request,
    source: FrameSource,
    trackers: MultiTracker | SideBySide,
    targets: dict[str, Target],
    metas: dict[str, dict[str, Any]],
) -> Generator[tuple[Frame, dict[str, Step]], None, None]:
    """Every frame of the source with the steps of all targets. The frames before the first that decodes are
    left out. Raises ``BoxFrameOutOfRange``, ``VideoEmpty``, and what the trackers raise.
    """
    from vltrack.video.base import prefetch

    started = False
    with (
        prefetch(source, PREFETCHED) as frames,
        progress("tracking", total_frames(request, source.info.frames), quiet=request.quiet) as advance,
    ):
        for frame in frames:
            if started:
                steps = trackers.update(frame)
            elif frame.image is None:
                # Nothing can be named in a frame that did not decode; the first one that did is the start.
                warn(f"frame {frame.index} could not be decoded; starting later.")
                continue
            else:
                steps = trackers.init(frame, targets)
                started = True
                for name, remarks in trackers.remarks.items():
                    metas[name]["warnings"] = list(remarks)
                    for remark in remarks:
                        warn(remark if len(targets) == 1 else f"{name}: {remark}")
            yield frame, steps
            advance(", ".join(f"{name} {step.score:.2f}" for name, step in steps.items()))
    if not started:
        if request.start:
            raise BoxFrameOutOfRange(
                f"the video ends before frame {request.start}, where the target was to be named.",
                hint="Choose a smaller --start; frames count from 0.",
            )
        raise VideoEmpty(f"{shown(request.source)} has no frame that decodes.")


def _summarise(request: Request, tally: Tally) -> None:
    """One line for people; with ``--json`` and files, one object on standard output."""
    rate = tally.frames / tally.seconds if tally.seconds > 0 else 0.0
    if request.as_json and request.outputs:
        emit(
            {
                "frames": tally.frames,
                "seen": tally.seen,
                "lost": tally.lost,
                "missing": tally.missing,
                "frames_per_second": round(rate, 2),
                "outputs": [shown(path) for path in request.outputs if path.exists()],
            }
        )
    if request.quiet or tally.frames == 0:
        return
    seen = ", ".join(
        f"{count} of {tally.frames} frames" if len(tally.seen) == 1 else f"{shown(name)} in {count}"
        for name, count in tally.seen.items()
    )
    say(f"{tally.frames} frames, {rate:.1f} a second; target seen in {seen}.")
    for path in request.outputs:
        if path.exists():
            say(f"wrote {shown(path)}")


def _judge(request: Request, tally: Tally, *, degraded: bool) -> None:
    """Raise ``PartialResult`` (exit code 7) where parts are missing, or a target was lost that should not
    be.
    """
    if degraded:
        raise PartialResult(
            f"parts of {shown(request.source)} could not be read ({tally.missing} frames missing)."
        )
    lost = {name: count for name, count in tally.lost.items() if count}
    if request.fail_if_lost and lost:
        text = ", ".join(f"{shown(name)} in {count} frames" for name, count in lost.items())
        raise PartialResult(f"lost: {text} (--fail-if-lost).")
