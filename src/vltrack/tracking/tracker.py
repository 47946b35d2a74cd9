"""Trackers: ``Tracker`` follows one target, ``MultiTracker`` several. Public API."""

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
from vltrack.core.errors import BoxFrameOutOfRange, ImageError, StateError, UsageError
from vltrack.core.types import BoxLike, Frame, Image, Status, Step, Target
from vltrack.models import MODELS
from vltrack.nn.device import choose_device, use_threads
from vltrack.prep.prompts import check_image
from vltrack.prep.tokenizers import TextTokenizer, load_tokenizer
from vltrack.tracking.engine import Engine, State
from vltrack.tracking.postprocess import Policy
from vltrack.video.base import Limits
from vltrack.video.source import FrameSource, open_source

ARRAY_RATE = Limits.folder_rate
"""Frames per second assumed for arrays, which carry no time: the same as for folders of images."""
_ONE = "target"


@dataclass(frozen=True, kw_only=True)
class _SessionState:
    """Everything that changes from frame to frame, by target; ``index`` is the last frame's number."""

    states: dict[str, State]
    warnings: dict[str, tuple[str, ...]]
    index: int


class Session:
    """Targets by name, followed with an engine; what ``Tracker`` and ``MultiTracker`` have in common.

    Holds one immutable state, replaced by one assignment after a frame is done: an exception before that, an
    interrupt too, leaves the session unchanged. One thread at a time.

    Attributes:
        engine: model, device, policy and tokenizer.
        card: facts about the weights, from the JSON file next to them.
    """

    def __init__(self, engine: Engine, card: Mapping[str, Any]) -> None:
        self.engine = engine
        self.card = card
        self._state: _SessionState | None = None
        self._lock = threading.Lock()

    def reset(self) -> None:
        """Drop all targets. Raises ``StateError`` while another thread is using this tracker."""
        with self._exclusive():
            self._state = None

    def _initialize(self, frame: Frame | Image, targets: Mapping[str, Target]) -> dict[str, Step]:
        """Start all targets on one frame; if one fails, none is started and the former ones stay."""
        with self._exclusive():
            image, index, seconds = _image_of(frame, 0)
            if image is None:
                raise ImageError(
                    f"Frame {index}, where the target is given, could not be decoded.", hint="Start at a later frame."
                )
            states, warnings, steps = {}, {}, {}
            for name, target in targets.items():
                untrained = _text_warning(self.card, target)
                states[name], found = self.engine.start(image, target)
                warnings[name] = found + untrained
                steps[name] = self._step(states[name], index, seconds)
            self._state = _SessionState(states=states, warnings=warnings, index=index)
            return steps

    def _update(self, frame: Frame | Image) -> dict[str, Step]:
        """All targets in the next frame. Raises ``StateError`` before a start."""
        with self._exclusive():
            now = self._state
            if now is None:
                raise StateError("Call init() before update().", hint="Call init with the first frame.")
            image, index, seconds = _image_of(frame, now.index + 1)
            before = list(now.states.values())
            if image is None:  # not decoded: the target counts as missing, and nothing else changes
                after = [replace(s, age=s.age + 1, score=0.0, status=Status.MISSING) for s in before]
            else:
                after = self.engine.step(image, before)
            steps = {
                name: self._step(state, index, seconds, resized=state.frame_size != old.frame_size)
                for name, state, old in zip(now.states, after, before, strict=True)
            }
            self._state = replace(now, states=dict(zip(now.states, after, strict=True)), index=index)
            return steps

    def _step(self, state: State, index: int, seconds: float, *, resized: bool = False) -> Step:
        """The result that the caller gets for a state."""
        unsure = state.status is Status.OK and state.score < self.engine.policy.visible_above
        status = Status.LOST if unsure else state.status
        return Step(
            box=state.box.copy(),
            score=state.score,
            visible=status is Status.OK,
            index=index,
            seconds=seconds,
            status=status,
            extras={"lost_for": state.lost_for, "resized": resized},
        )

    def _exclusive(self) -> threading.Lock:
        """The lock, for ``with``. Raises ``StateError`` if another thread has it."""
        # Not acquire(blocking=False): an interrupt right behind it would leave the lock taken for ever.
        if self._lock.locked():
            raise StateError("This tracker is in use by another thread.", hint="Load one tracker per thread.")
        return self._lock

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"A {type(self).__name__} cannot be pickled or copied. Load it where it is needed.")


class Tracker(Session):
    """Follows one target through the frames of a video.

    Boxes are x, y, w, h (top left corner and size) in pixels of the displayed frame. Two trackers in one
    process are independent; one may be used by one thread at a time. A tracker stays in its process: it
    cannot be pickled, and a process that is forked after torch has run may hang. Start processes with
    ``spawn`` and load in each.

    Example:
        >>> import vltrack
        >>> tracker = vltrack.Tracker.load("litetrack-tiny")
        >>> with vltrack.open_source("clip.mp4", end=3) as frames:  # or RGB uint8 arrays of shape (H, W, 3)
        ...     step = tracker.init(next(frames), box=(313, 88, 342, 194), text="the silver car")
        ...     for frame in frames:
        ...         step = tracker.update(frame)
        >>> step.index, step.box.shape, step.visible
        (2, (4,), True)
    """

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = cards.DEFAULT_MODEL,
        *,
        device: str = "auto",
        threads: int | None = None,
        policy: Policy | Mapping[str, Any] | None = None,
    ) -> Self:
        """Load a tracker with its weights, tokenizer and post-processing.

        Args:
            name_or_path: name of a model (``vltrack models`` lists them) or path of a .safetensors file with
                its card next to it.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            threads: of torch, for the whole process; None leaves them unchanged on a GPU and takes 1 for the
                tiny sizes, which is fastest.
            policy: a ``Policy``, or only the options that differ from the tracker's own
                (``default_policy``), for example ``{"window": 0.2}``.

        Raises:
            ModelNotFound: no weights of that name or path, or no vocabulary for them.
            CheckpointCorrupt, CheckpointMismatch, CheckpointNonFinite, CheckpointVersion: damaged or unknown
                weights, see ``checkpoints.store.load``.
            ConfigError: an unknown policy option, or a value out of range.
            ResourceError: the device is not available.

        Example:
            >>> import vltrack
            >>> vltrack.load("litetrack-tiny", device="cpu", policy={"window": 0.2}).card["size"]
            'tiny'
        """
        chosen = choose_device(device)
        path = cards.find_file(name_or_path)
        model, card = store.load(path)
        reader = partial(_reader, model, card, path.parent)
        if model.vocabulary == "bert":
            reader()  # it ships, so a wrong one is an error now; any other when the first text comes
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
        """Warnings about the start, for the user: a box cut to the frame, text that was not read."""
        return self._state.warnings[_ONE] if self._state is not None else ()

    def init(self, frame: Frame | Image, box: BoxLike | None = None, text: str | None = None) -> Step:
        """Start on a frame with a box, a text or both; a former target is dropped.

        Args:
            frame: a ``Frame``, or an RGB uint8 array (H, W, 3), which counts as frame 0;
                ``prep.prompts.check_image`` lists what else is accepted.
            box: x, y, w, h in pixels of this frame; cut to the frame where it reaches outside.
            text: an English sentence that describes the target.

        Returns:
            The first step: the given box with score 1, or the box found from the text with its score.

        Raises:
            UsageError: neither box nor text; or text only, for weights that were trained without text.
            ImageError: not an image, or a ``Frame`` without one.
            BoxInvalid, BoxOutside, PromptEmpty, PromptTooLong, PromptInvalid: see ``prep.prompts``.
            GroundingFailed: the text gave no usable box.
            StateError: another thread is using this tracker.
        """
        return self._initialize(frame, {_ONE: Target(box=box, text=text)})[_ONE]

    def update(self, frame: Frame | Image) -> Step:
        """Locate the target in the next frame.

        A ``Frame`` without an image gives a step of status ``missing``. The frame may change its size: the
        box keeps its place relative to the frame, and ``extras["resized"]`` of that step is true.

        Raises:
            StateError: before ``init``, or while another thread is using this tracker.
            ImageError: the array is not an image.
        """
        return self._update(frame)[_ONE]

    def stream(
        self,
        source: str | Path | int | Iterable[Frame | Image],
        *,
        box: BoxLike | None = None,
        text: str | None = None,
        start: int = 0,
        end: int | None = None,
    ) -> Iterator[Step]:
        """Yield one ``Step`` per frame of a video file, folder, camera or iterable; memory stays constant.

        Closing the generator early stops the decoder; an iterable of the caller, an open ``FrameSource`` too,
        is left open.

        Args:
            source: what ``open_source`` takes, or an iterable of frames as ``init`` takes them.
            box, text: the target in the first frame that is read, as in ``init``.
            start, end: frame numbers of a file, folder or camera; ``end`` is exclusive.

        Raises:
            UsageError: ``start`` or ``end`` with an iterable, which has no frame numbers.
            BoxFrameOutOfRange: the video ends before ``start``.
            VideoReadError, VideoTimeout, VideoDecoderCrashed: reading broke off; after the last step.
            And what ``init``, ``update``, ``open_source`` and the iterable raise.
        """
        opened: AbstractContextManager[Iterable[Frame | Image]]
        if isinstance(source, str | Path | int):
            opened = open_source(source, start=start, end=end)
        elif start != 0 or end is not None:
            raise UsageError("Start and end need a file, a folder or a camera.", hint="Slice the frames before.")
        else:
            opened = nullcontext(source)  # the caller's frames stay open
        with opened as frames:
            number = -1
            for number, frame in enumerate(frames):
                yield self.init(frame, box=box, text=text) if number == 0 else self.update(frame)
            if isinstance(frames, FrameSource):
                if frames.report.failure is not None:
                    raise frames.report.failure
                if number < 0:
                    raise BoxFrameOutOfRange(
                        f"{frames.info.name} ends before the frame where the target is given.",
                        hint="Choose a smaller start; frames count from 0.",
                    )


class MultiTracker(Session):
    """Follows several targets in one video; the crops of all go through the network in one batch.

    Each target's boxes are those that a ``Tracker`` of its own would give. Weights and policy come from a
    loaded ``Tracker``, which stays independent.

    Example:
        >>> import vltrack
        >>> trackers = vltrack.MultiTracker(vltrack.load("litetrack-tiny"))
        >>> car, light = vltrack.Target(text="the silver car"), vltrack.Target(box=(610, 106, 24, 68))
        >>> with vltrack.open_source("clip.mp4", end=2) as frames:
        ...     steps = trackers.init(next(frames), {"car": car, "rear light": light})
        ...     steps = trackers.update(next(frames))
        >>> {name: step.index for name, step in steps.items()}
        {'car': 1, 'rear light': 1}
    """

    def __init__(self, tracker: Tracker) -> None:
        super().__init__(tracker.engine, tracker.card)

    @property
    def warnings(self) -> dict[str, tuple[str, ...]]:
        """Warnings about the start of each target, by its name; see ``Tracker.warnings``."""
        return dict(self._state.warnings) if self._state is not None else {}

    def init(self, frame: Frame | Image, targets: Mapping[str, Target]) -> dict[str, Step]:
        """Start all targets on one frame; former ones are dropped. If one fails, none is started.

        Args:
            frame: as in ``Tracker.init``.
            targets: by name; boxes are x, y, w, h in pixels of this frame.

        Returns:
            The first step of each target, by name.

        Raises:
            UsageError: no targets. And what ``Tracker.init`` raises.
        """
        if not targets:
            raise UsageError("No target given.", hint="Give a box, a sentence or both.")
        return self._initialize(frame, targets)

    def update(self, frame: Frame | Image) -> dict[str, Step]:
        """Locate all targets in the next frame. Raises what ``Tracker.update`` raises."""
        return self._update(frame)


def default_policy(tracker: str, size: str) -> Policy:
    """Post-processing of a tracker's size: the defaults, changed by ``models.ModelCard.policies``."""
    return Policy().changed(MODELS[tracker].policies.get(size, {}))


def _reader(model: Any, card: dict[str, Any], folder: Path) -> TextTokenizer:
    """The vocabulary that a model reads sentences with, from the folder of its weights, and that it fits."""
    reader = load_tokenizer(model.vocabulary, folder)
    store.check_vocabulary(card, model, sha256=reader.sha256, pieces=reader.size, table=reader.table)
    return reader


def _text_warning(card: Mapping[str, Any], target: Target) -> tuple[str, ...]:
    """A warning where the target has a text and the weights were trained without.

    Raises:
        UsageError: the target has only a text.
    """
    if target.text is None or "nlbbox" in cards.modes_of(card):
        return ()
    if target.box is None:
        raise UsageError("This model was trained without language.", hint="Provide a box.")
    return ("this model was trained without language: the text has no defined effect on the result.",)


def _image_of(frame: Frame | Image, index: int) -> tuple[Image | None, int, float]:
    """Image, number and time of a frame; ``index`` is the number of an array. Raises ``ImageError``."""
    if isinstance(frame, Frame):
        return None if frame.image is None else check_image(frame.image), frame.index, frame.seconds
    return check_image(frame), index, index / ARRAY_RATE
