"""The tracker of one target: ``init``, ``update``, ``stream``; and ``track``, a whole video in one call."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Self

import torch

from vltrack.checkpoints import cards, store
from vltrack.core.errors import BoxFrameOutOfRange, ImageError, StateError, UsageError, VltrackError
from vltrack.core.threads import wait_passively
from vltrack.core.track import Track
from vltrack.core.types import Frame, Image, Status, Step, Target
from vltrack.models import MODELS
from vltrack.nn.device import choose_device, use_threads
from vltrack.prep.prompts import check_image
from vltrack.prep.tokenizers import TextTokenizer, load_tokenizer
from vltrack.tracking.engine import Engine, State
from vltrack.tracking.postprocess import Policy
from vltrack.video.base import Limits
from vltrack.video.source import FrameSource, open_source

# MERGED tracking/tracker.py
# What one target and several have in common: start, next frame, forget. Knows no file and no weights.
#
# A session holds one immutable value, replaced by one assignment after a frame is done: whatever is raised
# before, an interrupt too, leaves the session as it was.


ARRAY_RATE = Limits.folder_rate
"""Frames a second assumed for arrays, which carry no time: the same assumption as for folders of images."""


@dataclass(frozen=True, kw_only=True)
class _Now:
    """Everything that changes from frame to frame, by target; ``index`` is the last frame's number."""

    states: dict[str, State]
    warnings: dict[str, tuple[str, ...]]
    index: int


class Session:
    """Follows named targets with an engine. One thread at a time; sessions do not know each other."""

    def __init__(self, engine: Engine, card: Mapping[str, Any]) -> None:
        self.engine = engine
        self.card = card
        self._now: _Now | None = None
        self._lock = threading.Lock()

    def reset(self) -> None:
        """Forget the targets."""
        with self._alone():
            self._now = None

    def _begin(self, frame: Frame | Image, targets: Mapping[str, Target]) -> dict[str, Step]:
        """Start all targets on one frame; if one fails, none is started and the former ones stay."""
        with self._alone():
            image, index, seconds = _opened(frame, 0)
            if image is None:
                raise ImageError(
                    f"frame {index}, where the target is named, could not be decoded.",
                    hint="Start at a later frame.",
                )
            untaught = {name: _untaught(self.card, target) for name, target in targets.items()}
            started = {name: self.engine.start(image, target) for name, target in targets.items()}
            states = {name: state for name, (state, _) in started.items()}
            steps = {name: self._step(state, index, seconds) for name, state in states.items()}
            warnings = {name: said + untaught[name] for name, (_, said) in started.items()}
            self._now = _Now(states=states, warnings=warnings, index=index)
            return steps

    def _advance(self, frame: Frame | Image) -> dict[str, Step]:
        """All targets in the next frame. Raises ``StateError`` before a start."""
        with self._alone():
            now = self._now
            if now is None:
                raise StateError("update before init.", hint="Call init with the first frame.")
            image, index, seconds = _opened(frame, now.index + 1)
            before = list(now.states.values())
            after = [_missed(s) for s in before] if image is None else self.engine.step(image, before)
            states = dict(zip(now.states, after, strict=True))
            steps = {
                name: self._step(state, index, seconds, resized=state.frame_size != old.frame_size)
                for (name, state), old in zip(states.items(), before, strict=True)
            }
            self._now = replace(now, states=states, index=index)
            return steps

    def _step(self, state: State, index: int, seconds: float, *, resized: bool = False) -> Step:
        """What the user is told of a state."""
        doubted = state.status is Status.OK and state.score < self.engine.policy.visible_above
        status = Status.LOST if doubted else state.status
        return Step(
            box=state.box.copy(),
            score=state.score,
            visible=status is Status.OK,
            index=index,
            seconds=seconds,
            status=status,
            extras={"lost_for": state.lost_for, "resized": resized},
        )

    def _alone(self) -> threading.Lock:
        """The lock, for ``with``. Raises ``StateError`` if another thread has it.

        Not ``acquire(blocking=False)``: an interrupt right behind it would leave the lock taken for ever,
        which ``with`` on the lock itself cannot. Two threads that pass here together still take turns.
        """
        if self._lock.locked():
            raise StateError("this tracker is in use by another thread.", hint="Load one tracker a thread.")
        return self._lock

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied; load it where it is needed")


def _untaught(card: Mapping[str, Any], target: Target) -> tuple[str, ...]:
    """What to say where imported weights learnt to follow a box and no words: their card names the modes.

    Raises:
        UsageError: the target is named by words alone.
    """
    if target.text is None or "nlbbox" in card.get("modes", ("nlbbox",)):
        return ()
    if target.box is None:
        raise UsageError("these weights never learnt words.", hint="Name the target by a box.")
    return ("these weights never learnt words: what the sentence does to the result means nothing.",)


def _missed(state: State) -> State:
    """The state after a frame that could not be decoded: nothing was seen, nothing is concluded."""
    return replace(state, age=state.age + 1, score=0.0, status=Status.MISSING)


def _opened(frame: Frame | Image, index: int) -> tuple[Image | None, int, float]:
    """Picture, number and time of a frame; ``index`` is the number of an array. Raises ``ImageError``."""
    if isinstance(frame, Frame):
        return None if frame.image is None else check_image(frame.image), frame.index, frame.seconds
    return check_image(frame), index, index / ARRAY_RATE


wait_passively()


DEFAULT_MODEL = "litetrack-tiny"
_ONE = "target"

BoxLike = tuple[float, float, float, float]


class Tracker(Session):
    """Follows one target. Two trackers in one process are independent; one is for one thread at a time.

    A tracker stays in its process: it cannot be pickled, and a process that is forked after torch has worked
    may hang. Start processes with ``spawn`` and load in each.

    Example::

        tracker = Tracker.load()
        step = tracker.init(first_frame, box=(120, 40, 60, 80), text="the white car")
        for frame in frames:
            step = tracker.update(frame)  # step.box is x, y, w, h; step.score in [0, 1]
    """

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = DEFAULT_MODEL,
        *,
        device: str = "auto",
        threads: int | None = None,
        policy: Policy | Mapping[str, Any] | None = None,
    ) -> Self:
        """A tracker with the weights of that name (in the package) or path (.safetensors).

        ``policy`` is a whole one, or the options that shall differ from the tracker's own (``default_policy``).
        ``threads`` sets torch's threads for the whole process; None leaves them alone on a GPU and takes 1
        for the tiny sizes, which is fastest.

        Raises:
            ModelNotFound, CheckpointCorrupt, CheckpointMismatch, CheckpointNonFinite, CheckpointVersion: see
                ``checkpoints.store.load``.
            ConfigError: the policy has no such option, or not with that value.
            ResourceError: this machine has no such device.
        """
        chosen = choose_device(device)
        path = cards.find(name_or_path)
        model, card = store.load(path)
        reader = partial(_reader, model, card, path.parent)
        if model.vocabulary == "bert":
            reader()  # it ships, so a wrong one is told at once; any other when the first sentence comes
        if threads is not None:
            use_threads(threads)
        elif chosen.type == "cpu" and card["size"] == "tiny":
            use_threads(1)
        model = model.to(chosen, memory_format=torch.channels_last)
        if not isinstance(policy, Policy):
            policy = default_policy(card["tracker"], card["size"]).changed(policy or {})
        return cls(Engine(model, chosen, policy, reader), card)

    def with_policy(self, policy: Policy) -> Tracker:
        """Another tracker with the same weights (shared) and another policy; it starts without a target."""
        engine = self.engine
        return Tracker(Engine(engine.model, engine.device, policy, engine.reader), self.card)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know of the start: a box that was cut to the frame, words left unread."""
        return self._now.warnings[_ONE] if self._now is not None else ()

    def init(self, frame: Frame | Image, box: BoxLike | None = None, text: str | None = None) -> Step:
        """Start on a frame with a box (x, y, w, h in its pixels), a sentence or both; forget what was before.

        An array is RGB uint8 (H, W, 3) and frame 0; ``prep.prompts.check_image`` tells what else is taken.

        Raises:
            UsageError: neither box nor sentence.
            ImageError: the frame is no picture, or a ``Frame`` without one.
            BoxInvalid, BoxOutside, PromptEmpty, PromptTooLong, PromptInvalid: see ``prep.prompts``.
            GroundingFailed: the words gave no usable box.
            StateError: another thread is using this tracker.
        """
        return self._begin(frame, {_ONE: Target(box=box, text=text)})[_ONE]

    def update(self, frame: Frame | Image) -> Step:
        """The target in the next frame. A ``Frame`` without an image gives a step of status ``missing``.

        The frame may change its size: the box keeps its place relative to the frame, and ``extras`` of that
        step has ``resized``.

        Raises:
            StateError: before ``init``, or while another thread is using this tracker.
            ImageError: the array is no picture.
        """
        return self._advance(frame)[_ONE]

    def stream(
        self,
        source: str | Path | int | Iterable[Frame | Image],
        *,
        box: BoxLike | None = None,
        text: str | None = None,
        start: int = 0,
        end: int | None = None,
    ) -> Iterator[Step]:
        """One ``Step`` a frame of a file, folder, camera number or any iterable of frames; constant memory.

        ``start`` and ``end`` are frame numbers of a file, folder or camera. Closing the generator early frees
        the decoder; an iterable of yours, an open ``FrameSource`` too, stays yours to close.

        Raises:
            UsageError: ``start`` or ``end`` with an iterable, which has no frame numbers.
            BoxFrameOutOfRange: the video ends before ``start``.
            VideoReadError, VideoTimeout, VideoDecoderCrashed: reading broke off; after the last step.
            And what ``init``, ``update``, ``video.source.open_source`` and the iterable raise.
        """
        with _frames_of(source, start, end) as frames:
            number = -1
            for number, frame in enumerate(frames):
                yield self.init(frame, box=box, text=text) if number == 0 else self.update(frame)
            if isinstance(frames, FrameSource):
                if frames.report.failure is not None:
                    raise frames.report.failure
                if number < 0:
                    raise BoxFrameOutOfRange(
                        f"{frames.info.name} ends before the frame where the target is to be named.",
                        hint="Choose a smaller start; frames count from 0.",
                    )


def _reader(model: Any, card: dict[str, Any], folder: Path) -> TextTokenizer:
    """The vocabulary that a model reads sentences with, from the folder of its weights, and that it fits."""
    reader = load_tokenizer(model.vocabulary, folder)
    store.check_vocabulary(card, model, sha256=reader.sha256, pieces=reader.size, table=reader.table)
    return reader


def default_policy(tracker: str, size: str) -> Policy:
    """The policy of a tracker's size: the house's, with what ``models.ModelCard.policies`` says of it."""
    return Policy().changed(MODELS[tracker].policies.get(size, {}))


def track(
    source: str | Path | int | Iterable[Frame | Image],
    *,
    box: BoxLike | None = None,
    text: str | None = None,
    model: str | Path = DEFAULT_MODEL,
    start: int = 0,
    end: int | None = None,
    device: str = "auto",
    policy: Policy | Mapping[str, Any] | None = None,
) -> Track:
    """Follow one target through a whole video: ``Tracker.load`` and ``Tracker.stream`` in one.

    Raises what they raise; ``context["track"]`` of a ``VltrackError`` on the way holds the rows so far.
    """
    tracker = Tracker.load(model, device=device, policy=policy)
    meta: dict[str, Any] = {
        "sentence": text,
        "box": [float(v) for v in box] if box is not None else None,
        "model": str(model),
    }
    steps: list[Step] = []
    with _frames_of(source, start, end) as frames:
        try:
            for step in tracker.stream(frames, box=box, text=text):
                steps.append(step)
        except VltrackError as error:
            error.context["track"] = Track.from_steps(steps, meta | _facts(frames, tracker))
            raise
        return Track.from_steps(steps, meta | _facts(frames, tracker))


def _facts(frames: Iterable[Frame | Image], tracker: Tracker) -> dict[str, Any]:
    """What a track's head tells of the reading and the start, once they are over."""
    warnings = list(tracker.warnings)
    if not isinstance(frames, FrameSource):
        return {"source": "frames", "warnings": warnings}
    info = frames.info
    return {
        "source": info.name,
        "width": info.width,
        "height": info.height,
        "warnings": [*warnings, *frames.report.warnings],
    }


def _frames_of(
    source: str | Path | int | Iterable[Frame | Image], start: int, end: int | None
) -> AbstractContextManager[Iterable[Frame | Image]]:
    """What is opened here is closed here; what the caller has opened is left to the caller."""
    if isinstance(source, str | Path | int):
        return open_source(source, start=start, end=end)
    if start != 0 or end is not None:
        raise UsageError("start and end need a file, a folder or a camera.", hint="Slice the frames before.")
    return nullcontext(source)


# MERGED tracking/tracker.py
# Several targets in one video: one pass of decoding, the crops of all targets in one batch.


class MultiTracker(Session):
    """Follows named targets. Each one's boxes are those that a ``Tracker`` of its own would give.

    Takes weights and policy from a loaded ``Tracker``, and nothing else: that one goes on by itself.
    """

    def __init__(self, tracker: Tracker) -> None:
        super().__init__(tracker.engine, tracker.card)

    @property
    def warnings(self) -> dict[str, tuple[str, ...]]:
        """What the user should know of the start of each target, by its name."""
        return dict(self._now.warnings) if self._now is not None else {}

    def init(self, frame: Frame | Image, targets: Mapping[str, Target]) -> dict[str, Step]:
        """Start all targets on one frame; forgets what was before. If one fails, none is started.

        Raises:
            UsageError: no targets. And what ``Tracker.init`` raises.
        """
        if not targets:
            raise UsageError("no target is named.", hint="Give a box, a sentence or both.")
        return self._begin(frame, targets)

    def update(self, frame: Frame | Image) -> dict[str, Step]:
        """All targets in the next frame. Raises what ``Tracker.update`` raises."""
        return self._advance(frame)
