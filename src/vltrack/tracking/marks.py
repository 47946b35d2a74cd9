"""Tracking between the marks of a person: from both ends, blended where the two passes agree.

Between two boxes a target is tracked forward from the earlier and backward from the later one, after the last box
forward, before the first one backward if asked (else it is waited for); from "not here" to the next box it is not
visible. Unpublished; our design. ``benchmarks/corrections.py`` measures the rules of ``join``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vltrack.core.track import Mark
from vltrack.core.types import Box, Floats, Frame, Status, Step, cxcywh_to_xywh, iou_xywh, xywh_to_cxcywh
from vltrack.tracking.doubt import doubt_of_step
from vltrack.tracking.tracker import Tracker
from vltrack.video.spool import Spool

AGREE = 0.5
"""Overlap from which two passes, or a pass and a mark, are on the same object."""
ASTRAY = 0.1
"""Trust in a pass that arrives at the other end's mark with no overlap; one that arrives exactly has 1 more."""
JITTER = 0.03
"""Error of a box, in its sides, that both passes share."""


def follow_marks(
    tracker: Tracker,
    frames: Iterable[Frame],
    marks: Sequence[Mark],
    *,
    text: str | None = None,
    backward: bool = False,
    before: Step | None = None,
    done: Callable[[], object] = lambda: None,
    warn: Callable[[str], object] = lambda _: None,
) -> Iterator[Step]:
    """Yield one step per frame, in order; each frame is read once, and few are in memory.

    Args:
        tracker: is started anew at each mark.
        frames: rising; those of the marks are among them.
        marks: rising, at least one.
        text: the target's sentence, given to the tracker with each box.
        backward: track from the first box back to the first frame; else the target is not visible before.
        before: where the target was seen last, if the first mark says that it is not here.
        done: called after each pass of the tracker over a frame. ``warn`` takes warnings of the starts.

    Raises:
        ImageError: the frame of a mark was not decoded. And what ``Tracker.init`` raises.
    """
    at = {mark.frame: mark for mark in marks}
    after = dict(zip((mark.frame for mark in marks), [*marks[1:], None], strict=True))
    last: Mark | None = None
    start = before
    ahead: Mark | None = marks[0]  # the mark that ends the open span
    going: list[Step] = []
    with Spool() as spool:
        for frame in frames:
            mark = at.get(frame.index)
            tracked = last is not None and not last.absent
            both = ahead is not None and not ahead.absent and (tracked or (last is None and backward))
            step = tracker.update(frame) if tracked else _unseen(frame, start)
            if tracked:
                done()
            if mark is None:
                if both:
                    spool.add(frame)
                    going.append(step)
                else:
                    yield _with_doubt(step) if tracked else step
                continue
            if mark.absent:
                start = replace(step, score=0.0, visible=False, status=_absent(frame), extras={"doubt": 0.0})
            else:
                begun = tracker.init(frame, box=mark.box, text=mark.text or text)
                for warning in tracker.warnings:
                    warn(f"frame {frame.index}: {warning}")
                done()
                if mark.box is not None:
                    begun = replace(begun, box=np.array(mark.box), score=1.0, visible=True, status=Status.OK)
                if both:
                    yield from _both_ways(tracker, spool, start, begun, [*going, step], done)
                start = replace(begun, extras={"doubt": 0.0})
            yield start
            last, ahead = mark, after[mark.frame]
            spool.clear()
            going = []
            if ahead is not None and not mark.absent and not ahead.absent:
                spool.add(frame)
        yield from map(_with_doubt, going)  # the frames have ended before their time


def _both_ways(
    tracker: Tracker, spool: Spool, start: Step | None, end: Step, going: Sequence[Step], done: Callable[[], object]
) -> Iterator[Step]:
    """The steps between two boxes (before the first one: the backward pass alone); the tracker stands at ``end``."""
    state = tracker.state
    coming = []
    for frame in reversed(spool):
        coming.append(tracker.update(frame))
        done()
    tracker.restore(state)
    coming.reverse()
    if start is None:
        yield from map(_with_doubt, coming)
    else:
        yield from join(start, end, going, coming)


def join(start: Step, end: Step, going: Sequence[Step], coming: Sequence[Step]) -> Iterator[Step]:
    """Join the two passes of a span; yields the steps between its ends, without these.

    Where both see the target in the same place (overlap ``AGREE``), the box passes smoothly from the forward to the
    backward pass, and what it deviates from the straight line between the two marks is kept as far as the passes are
    one about it. A run of frames where they differ is cut once, so that the box jumps once: forward before the cut,
    backward after it, where the sum of weights is the greatest. A weight is the score of the pass, its nearness to its
    own mark, and how well it arrives at the other one.

    Args:
        start, end: the steps of the two marks.
        going: forward pass, from the frame after ``start`` to that of ``end``.
        coming: backward pass, from the frame of ``start`` to the one before ``end``, in the order of time.
    """
    forward, back = going[:-1], coming[1:]
    if not forward:
        return
    there = np.array([(step.index - start.index) / (end.index - start.index) for step in forward])
    boxes = np.stack([[step.box for step in each] for each in (forward, back)])
    visible = np.array([[step.visible for step in each] for each in (forward, back)])
    scores = np.array([[step.score for step in each] for each in (forward, back)])
    overlap = iou_xywh(boxes[0], boxes[1])
    agree = np.asarray(visible.all(axis=0) & (overlap >= AGREE))
    arrived = np.array([_arrival(going[-1], end), _arrival(coming[0], start)])
    weights = scores * np.stack([1 - there, there]) * (ASTRAY + arrived[:, None])
    share = np.where(agree, there**2 * (3 - 2 * there), _cut(agree, weights))
    placed = (1 - share)[:, None] * boxes[0] + share[:, None] * boxes[1]
    if agree.any():
        straight = _between(start.box, end.box, there[agree])
        ways = [_deviation(each[agree], straight) for each in (placed, *boxes)]
        placed[agree] = _deviated(ways[0] * _kept(*ways), straight)
    for n, (one, other) in enumerate(zip(forward, back, strict=True)):
        of = other if share[n] > 0.5 else one
        score = float((1 - share[n]) * scores[0, n] + share[n] * scores[1, n])
        apart = 1 - float(overlap[n]) if of.status is not Status.MISSING else None
        yield replace(of, box=placed[n], score=score, extras={"doubt": doubt_of_step(of, apart)})


def _arrival(arriving: Step, mark: Step) -> float:
    return float(iou_xywh(arriving.box, mark.box)) if arriving.visible else 0.0


def _cut(agree: NDArray[np.bool_], weights: Floats) -> Floats:
    """Per frame 1 where the backward pass is taken: each run of frames without agreement is cut once."""
    taken = np.zeros(len(agree))
    edges = np.flatnonzero(np.diff(np.concatenate([[1], agree.astype(int), [1]])))
    for low, high in zip(edges[::2], edges[1::2], strict=True):
        gains = np.concatenate([[0.0], np.cumsum(weights[0, low:high] - weights[1, low:high])])
        taken[low + int(np.argmax(gains)) : high] = 1.0
    return taken


def _between(start: Box, end: Box, there: Floats) -> Box:
    """(N, 4) boxes cx, cy, w, h on the straight line from one xywh box to another; sizes change by factors."""
    low, high = xywh_to_cxcywh(start), xywh_to_cxcywh(end)
    part = there[:, None]
    center = (1 - part) * low[:2] + part * high[:2]
    return np.concatenate([center, np.exp((1 - part) * np.log(low[2:]) + part * np.log(high[2:]))], axis=1)


def _deviation(boxes: Box, straight: Box) -> Floats:
    """(N, 4) of xywh boxes from cx, cy, w, h ones: centers in sides, logarithms of the sizes."""
    now = xywh_to_cxcywh(boxes)
    return np.concatenate([(now[:, :2] - straight[:, :2]) / straight[:, 2:], np.log(now[:, 2:] / straight[:, 2:])], 1)


def _deviated(deviation: Floats, straight: Box) -> Box:
    """The xywh boxes with such deviations."""
    center = straight[:, :2] + deviation[:, :2] * straight[:, 2:]
    return cxcywh_to_xywh(np.concatenate([center, straight[:, 2:] * np.exp(deviation[:, 2:])], axis=1))


def _kept(joined: Floats, one: Floats, other: Floats) -> Floats:
    """(4,) share of the deviation to keep: the part of its variance that is not the error of the passes' mean."""
    error = np.square(one - other).mean(axis=0) / 8 + JITTER**2
    signal = np.clip(np.square(joined).mean(axis=0) - error, 0.0, None)
    kept: Floats = signal / (signal + error)
    return kept


def _with_doubt(step: Step) -> Step:
    return replace(step, extras={"doubt": doubt_of_step(step)})


def _absent(frame: Frame) -> Status:
    return Status.MISSING if frame.image is None else Status.LOST


def _unseen(frame: Frame, before: Step | None) -> Step:
    """A frame without the target: the box is held after "not here", and is the whole frame before the first mark."""
    height, width = (1, 1) if frame.image is None else frame.image.shape[:2]
    box = np.array([0.0, 0.0, width, height]) if before is None else before.box
    status = Status.WAITING if before is None and frame.image is not None else _absent(frame)
    return Step(
        box=box, score=0.0, visible=False, index=frame.index, seconds=frame.seconds, status=status,
        extras={"doubt": 0.0},
    )  # fmt: skip
