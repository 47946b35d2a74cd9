"""Trackers: ``Tracker`` follows one target, ``MultiTracker`` several. Public API."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np

from vltrack.checkpoints import cards
from vltrack.checkpoints.outside import Outside, find_outside
from vltrack.core.errors import BoxFrameOutOfRange, ImageError, NothingFits, PromptUnreadable, StateError, UsageError
from vltrack.core.threads import check_threads
from vltrack.core.types import BoxLike, Candidate, Frame, Image, Status, Step, Target, check_str, iou_xywh
from vltrack.export.prepare import graphs_if_possible
from vltrack.models import MODELS, ModelCard
from vltrack.nn.runtime import choose_cpu_or_gpu, choose_runtime
from vltrack.prep.prompts import check_box, check_image
from vltrack.prep.tokenizers import TextTokenizer, check_readable, load_tokenizer
from vltrack.tracking.engine import Engine, State
from vltrack.tracking.grounding import Grounding
from vltrack.tracking.network import Network
from vltrack.tracking.outside import OutsideEngine
from vltrack.tracking.postprocess import Policy, default_policy
from vltrack.tracking.starts import CLEAR_ABOVE, MEANT_ABOVE, SHARED_FRAMES, SHARED_OBJECT, Start, choose_starts
from vltrack.video.base import Limits
from vltrack.video.source import FrameSource, is_place, open_source

ARRAY_RATE = Limits.folder_rate
"""Frames per second assumed for arrays, which carry no time: the same as for folders of images."""
_ONE = "target"


WAIT_EVERY = 10
"""Frames between two looks for a target that has not come into view: a look takes some 0.1 s on one thread."""


@dataclass(frozen=True, kw_only=True)
class _SessionState:
    """Everything that changes from frame to frame, by target; ``index`` is the last frame's number.

    Attributes:
        states: of the targets that have started; ``warnings``: of all, in the order in which they were given.
        waiting: targets that have not come into view, and since ``waited`` frames were not looked for.
        by_text: targets that the grounder found.
        shared: for how many frames two targets have been on one object.
        frame_size: (width, height) of the last image.
    """

    states: dict[str, State]
    warnings: dict[str, tuple[str, ...]]
    index: int
    frame_size: tuple[int, int]
    waiting: dict[str, Target] = field(default_factory=dict)
    waited: int = 0
    by_text: frozenset[str] = frozenset()
    shared: dict[tuple[str, str], int] = field(default_factory=dict)


class Session:
    """Targets by name, followed with an engine; what ``Tracker`` and ``MultiTracker`` have in common.

    Holds one immutable state, replaced by one assignment after a frame is done: an exception before that, an
    interrupt too, leaves the session unchanged. One thread at a time.

    Attributes:
        engine: network, policy and tokenizer.
        card: facts about the weights, from the JSON file next to them.
    """

    def __init__(self, engine: Engine, card: Mapping[str, Any]) -> None:
        self.engine = engine
        self.card = card
        self._distinct = False
        self._state: _SessionState | None = None
        self._lock = threading.Lock()
        self._process = os.getpid()

    def reset(self) -> None:
        """Drop all targets. Raises ``StateError`` while another thread is using this tracker."""
        with self._exclusive():
            self._state = None

    @property
    def state(self) -> object:
        """What the next step depends on, besides weights and policy; it never changes. None before a start."""
        return self._state

    @property
    def device(self) -> str:
        """Where the network runs: ``cpu``, ``cuda:0``."""
        return self.engine.network.device

    @property
    def runtime(self) -> str:
        """Backend and number type of the network: ``openvino fp32``."""
        return self.engine.network.runtime

    def restore(self, state: Any) -> None:
        """Go on from a ``state`` of the same weights and policy. Raises ``StateError`` as ``reset``."""
        with self._exclusive():
            self._state = state

    @property
    def settings(self) -> dict[str, Any]:
        """Weights and options that a ``state`` belongs to, as JSON values."""
        policy = {f"policy.{key}": value for key, value in asdict(self.engine.policy).items()}
        runtime = f"{self.device} {self.runtime}"
        return {"weights": self.card.get("sha256"), "runtime": runtime, "anyway": self.engine.anyway, **policy}

    def __repr__(self) -> str:
        names = "-".join(str(self.card[key]) for key in ("tracker", "size") if key in self.card)
        followed = "not started" if self._state is None else f"{len(self._state.warnings)} targets"
        return f"{type(self).__name__}({names or 'model'}, {self.device}, {self.runtime}, {followed})"

    def find(self, frame: Frame | Image, text: str) -> list[Candidate]:
        """Find what a text may name in a frame; targets that are being followed are not affected.

        Returns:
            Distinct candidates, best first. One minus the sum of their scores is the probability that nothing
            fits. With ``own_grounding`` (``Policy``): the one box of the model itself, with its score.

        Raises:
            ImageError, PromptEmpty, PromptTooLong, PromptUnreadable, ModelNotFound: see ``Tracker.init``.
            TypeError: not a str.
            PromptInvalid: control characters.
            GroundingFailed: the model itself found no usable box.
        """
        check_str(text)
        try:
            if not self.engine.anyway:
                check_readable(text)
        except PromptUnreadable as error:
            error.hint = "Say it in English."
            raise
        image, index, _ = _image_of(frame, 0)
        if image is None:
            raise ImageError(f"Frame {index} could not be decoded.", hint="Choose another frame.")
        return self.engine.find(image, [text])[0]

    def _initialize(self, frame: Frame | Image, targets: Mapping[str, Target], wait: bool) -> dict[str, Step]:
        """Start all targets on one frame; if one fails, none is started and the former ones stay."""
        if wait and (self.engine.grounder is None or self.engine.anyway):
            raise UsageError(
                "Only the grounder waits for a target, and only where it may refuse one.",
                hint="Leave out own_grounding, or anyway.",
            )
        with self._exclusive():
            image, index, seconds = _image_of(frame, 0)
            if image is None:
                raise ImageError(
                    f"Frame {index}, where the target is given, could not be decoded.", hint="Start at a later frame."
                )
            untrained = {name: _text_warning(self.card, target) for name, target in targets.items()}
            now = _SessionState(states={}, warnings=untrained, index=index, frame_size=image.shape[1::-1])
            now, refused = self._started(image, targets, now, CLEAR_ABOVE if wait else 0.0)
            if refused and not wait:
                raise next(iter(refused.values()))
            now = replace(now, waiting={name: targets[name] for name in refused})
            steps = {name: self._step(now, name, seconds) for name in targets}
            self._state = now
            return steps

    def _started(
        self, image: Image, targets: Mapping[str, Target], now: _SessionState, least: float
    ) -> tuple[_SessionState, dict[str, NothingFits]]:
        """The session after a start of ``targets``, and the errors of those that nothing in the image fits."""
        engine = self.engine
        texts = {
            name: target.text for name, target in targets.items() if target.box is None and target.text is not None
        }
        for text in texts.values():
            if not engine.anyway:
                check_readable(text)
        starts: dict[str, Start | NothingFits] = {}
        if texts and engine.grounder is not None:
            candidates = engine.find(image, list(texts.values()))
            found = {name: (texts[name], each) for name, each in zip(texts, candidates, strict=True)}
            given = {name: target.box for name, target in targets.items() if target.box is not None}
            taken = {name: check_box(box, *now.frame_size).box for name, box in given.items()}
            taken |= {name: state.box for name, state in now.states.items() if state.status is Status.OK}
            rules = {"anyway": engine.anyway, "distinct": self._distinct}
            starts = choose_starts(found, taken, now.frame_size, **rules, least=least)
        states, warnings = dict(now.states), dict(now.warnings)
        refused: dict[str, NothingFits] = {}
        for name, target in targets.items():
            start = starts.get(name)
            if isinstance(start, NothingFits):
                refused[name] = start
                continue
            if start is None:
                states[name], said = engine.start(image, target)
            else:
                x, y, w, h = start.box.tolist()
                states[name], said = engine.start(image, replace(target, box=(x, y, w, h)), start.claim)
                said = start.warnings + said
            warnings[name] = said + warnings[name]
        by_text = now.by_text | (starts.keys() - refused.keys())
        return replace(now, states=states, warnings=warnings, by_text=by_text), refused

    def _update(self, frame: Frame | Image) -> dict[str, Step]:
        """All targets in the next frame. Raises ``StateError`` before a start."""
        with self._exclusive():
            now = self._state
            if now is None:
                raise StateError("Call init() before update().", hint="Call init with the first frame.")
            image, index, seconds = _image_of(frame, now.index + 1)
            before = now.states
            if image is None:  # not decoded: the target counts as missing, and nothing else changes
                lost = {n: replace(s, age=s.age + 1, score=0.0, status=Status.MISSING) for n, s in before.items()}
                new = replace(now, states=lost, index=index)
            else:
                stepped = self.engine.step(image, list(before.values())) if before else []
                after = dict(zip(before, stepped, strict=True))
                new = replace(now, states=after, index=index, frame_size=image.shape[1::-1], waited=now.waited + 1)
                if self._distinct:
                    new = _settled(now, new)
                if new.waiting and new.waited >= WAIT_EVERY:
                    new, refused = self._started(image, new.waiting, replace(new, waited=0), CLEAR_ABOVE)
                    new = replace(new, waiting={name: new.waiting[name] for name in refused})
            steps = {name: self._step(new, name, seconds, before.get(name), image is None) for name in new.warnings}
            self._state = new
            return steps

    def _step(
        self, now: _SessionState, name: str, seconds: float, before: State | None = None, missing: bool = False
    ) -> Step:
        """The result that the caller gets for a target: its score is never above the claim of its start."""
        state = now.states.get(name)
        if state is None:
            box = np.array([0.0, 0.0, *now.frame_size])
            status = Status.MISSING if missing else Status.WAITING
            return Step(box=box, score=0.0, visible=False, index=now.index, seconds=seconds, status=status)
        unsure = state.presence < self.engine.policy.visible_above or state.claim < MEANT_ABOVE
        status = Status.LOST if unsure and state.status is Status.OK else state.status
        return Step(
            box=state.box.copy(),
            score=state.score * state.claim,
            visible=status is Status.OK,
            index=now.index,
            seconds=seconds,
            status=status,
            extras={
                "lost_for": state.lost_for,
                "resized": before is not None and state.frame_size != before.frame_size,
                "claim": state.claim,
                "rivalry": state.rivalry,
                "rival_near": state.rival_near,
            },
        )

    def _exclusive(self) -> threading.Lock:
        """The lock, for ``with``. Raises ``StateError`` if another thread has it, or in a forked process."""
        if os.getpid() != self._process and self.engine.network.threads > 1:
            # The threads of the backend are not there after a fork: the first parallel operation would wait for ever.
            raise StateError(
                f"This tracker was loaded in process {self._process}, of which this one is a fork.",
                hint="Start processes with spawn and load in each, or load with threads=1.",
            )
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
    cannot be pickled, and a forked process may use it only with one thread (``threads=1``). Start processes
    with ``spawn`` and load in each.

    Examples:
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
        anyway: bool = False,
        backend: str = "auto",
        precision: str = "auto",
    ) -> Self:
        """Load a tracker with its weights, tokenizer and post-processing.

        Args:
            name_or_path: name of a model (``vltrack models`` lists them), path of a .safetensors file with its card
                next to it, or a tracker from outside the package: ``FILE.py:CLASS``, ``opencv:csrt``, the name of an
                entry point (docs/add-a-tracker.md).
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            threads: of the network, with torch for the whole process. None takes all cores, of which a tiny size
                uses one per target; torch then has one for a tiny size, and on a GPU its own number.
            policy: a ``Policy``, or only the options that differ from the tracker's own
                (``default_policy``), for example ``{"window": 0.2}``.
            anyway: start from text even where nothing in the frame fits it, or no word of it is English.
            backend: ``torch``, ``openvino`` or ``onnx``; ``auto`` is OpenVINO on the CPU, torch elsewhere and where
                graphs cannot be cached.
            precision: ``fp32``, ``bf16`` or ``int8`` (docs/speed.md); ``auto`` is bf16 where the CPU computes it
                in hardware, else fp32.

        Raises:
            ModelNotFound: no weights of that name or path, or no vocabulary for them.
            CheckpointCorrupt, CheckpointMismatch, CheckpointNonFinite, CheckpointVersion: damaged or unknown
                weights, see ``checkpoints.store.load``.
            ConfigError: an unknown policy option, or a value out of range.
            ResourceError: the device is not available.
            UsageError: a file of a tracker that cannot be imported, or options that such a tracker does not take.

        Examples:
            >>> import vltrack
            >>> vltrack.load("litetrack-tiny", device="cpu", policy={"window": 0.2}).card["size"]
            'tiny'
        """
        check_threads(threads)
        outside = find_outside(name_or_path)
        if outside and not isinstance(outside.made, ModelCard):
            return cls(*_outside(outside, policy, anyway, {"device": device, "backend": backend}))
        path = cards.find_file(name_or_path)
        network, card, reader = _load(path, device, backend, precision, threads)
        if not isinstance(policy, Policy):
            policy = default_policy(card["tracker"], card["size"]).changed(policy or {})
        grounder = None if policy.own_grounding else partial(_grounding, network)
        return cls(Engine(network, policy, reader, grounder, anyway), card)

    def with_policy(self, policy: Policy) -> Tracker:
        """Another tracker with the same weights (shared) and another policy; it starts without a target."""
        old = self.engine
        grounder = None if policy.own_grounding else old.grounder or partial(_grounding, old.network)
        return Tracker(Engine(old.network, policy, old.reader, grounder, old.anyway), self.card)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the start, for the user: a box cut to the frame, text that was not read."""
        return self._state.warnings[_ONE] if self._state is not None else ()

    def init(
        self, frame: Frame | Image, box: BoxLike | None = None, text: str | None = None, *, wait: bool = False
    ) -> Step:
        """Start on a frame with a box, a text or both; a former target is dropped.

        Args:
            frame: a ``Frame``, or an RGB uint8 array (H, W, 3), which counts as frame 0;
                ``prep.prompts.check_image`` lists what else is accepted.
            box: x, y, w, h in pixels of this frame; cut to the frame where it reaches outside.
            text: an English sentence that describes the target.
            wait: where nothing in the frame fits the text, start as soon as something does; until then steps
                have the status ``waiting``.

        Returns:
            The first step: the given box with score 1, or the box found from the text; its score is the
            probability that it is what was meant, and later scores are multiplied by it.

        Raises:
            UsageError: neither box nor text; or text only, for weights that were trained without text; or
                ``wait`` with ``anyway`` or without the grounder.
            NothingFits: nothing in the frame fits the text, and it is given alone, without ``wait``.
            PromptUnreadable: no word of a text that is given alone is English.
            ImageError: not an image, or a ``Frame`` without one.
            BoxInvalid, BoxOutside, PromptEmpty, PromptTooLong, PromptInvalid: see ``prep.prompts``.
            GroundingFailed: the text gave no usable box.
            StateError: another thread is using this tracker.
        """
        return self._initialize(frame, {_ONE: Target(box=box, text=text)}, wait)[_ONE]

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
        wait: bool = False,
        start: int = 0,
        end: int | None = None,
        stride: int = 1,
    ) -> Iterator[Step]:
        """Yield one ``Step`` per frame of a video file, folder, camera or iterable; memory stays constant.

        Closing the generator early stops the decoder; an iterable of the caller, an open ``FrameSource`` too,
        is left open.

        Args:
            source: what ``open_source`` takes, or an iterable of frames as ``init`` takes them.
            box, text, wait: the target in the first frame that is read, as in ``init``.
            start, end, stride: frame numbers of a file, folder or camera; ``end`` is exclusive.

        Raises:
            TypeError: not a source, see ``open_source``.
            UsageError: ``start``, ``end`` or ``stride`` with an iterable, which has no frame numbers.
            BoxFrameOutOfRange: the video ends before ``start``.
            VideoReadError, VideoTimeout, VideoDecoderCrashed: reading broke off; after the last step.
            And what ``init``, ``update``, ``open_source`` and the iterable raise.
        """
        opened: AbstractContextManager[Iterable[Frame | Image]]
        if is_place(source):
            opened = open_source(source, start=start, end=end, stride=stride)
        elif (start, end, stride) != (0, None, 1):
            raise UsageError("A range needs a file, a folder or a camera.", hint="Slice the frames before.")
        else:
            opened = nullcontext(source)  # type: ignore[arg-type]  # the caller's frames stay open
        with opened as frames:
            number = -1
            for number, frame in enumerate(frames):
                yield self.init(frame, box=box, text=text, wait=wait) if number == 0 else self.update(frame)
            if isinstance(frames, FrameSource):
                if frames.report.failure is not None:
                    raise frames.report.failure
                if number < 0:
                    raise BoxFrameOutOfRange(
                        f"{frames.info.name} ends before the frame where the target is given.",
                        hint="Choose a smaller start; frames count from 0.",
                    )


class MultiTracker(Session):
    """Follows several targets in one video, which is decoded once.

    Each target's boxes are, to the last bit, those that a ``Tracker`` of its own would give, but that a target
    given by text alone never starts on the object of another one. Where it comes to lie on one later, for several
    frames, the better of the two (claim times score) keeps the object, and the other counts as lost while it lies
    there. Weights and policy come from a loaded ``Tracker``, which stays independent.

    Args:
        distinct: False lets several targets follow one object.

    Examples:
        >>> import vltrack
        >>> trackers = vltrack.MultiTracker(vltrack.load("litetrack-tiny"))
        >>> car, light = vltrack.Target(text="the silver car"), vltrack.Target(box=(610, 106, 24, 68))
        >>> with vltrack.open_source("clip.mp4", end=2) as frames:
        ...     steps = trackers.init(next(frames), {"car": car, "rear light": light})
        ...     steps = trackers.update(next(frames))
        >>> {name: step.index for name, step in steps.items()}
        {'car': 1, 'rear light': 1}
    """

    def __init__(self, tracker: Tracker, *, distinct: bool = True) -> None:
        super().__init__(tracker.engine, tracker.card)
        self._distinct = distinct

    @property
    def warnings(self) -> dict[str, tuple[str, ...]]:
        """Warnings about each target so far, by its name; see ``Tracker.warnings``."""
        return dict(self._state.warnings) if self._state is not None else {}

    def init(self, frame: Frame | Image, targets: Mapping[str, Target], *, wait: bool = False) -> dict[str, Step]:
        """Start all targets on one frame; former ones are dropped. If one fails, none is started.

        Args:
            frame: as in ``Tracker.init``.
            targets: by name; boxes are x, y, w, h in pixels of this frame.
            wait: as in ``Tracker.init``, for each target.

        Returns:
            The first step of each target, by name.

        Raises:
            UsageError: no targets. And what ``Tracker.init`` raises.
        """
        if not targets:
            raise UsageError("No target given.", hint="Give a box, a sentence or both.")
        return self._initialize(frame, targets, wait)

    def update(self, frame: Frame | Image) -> dict[str, Step]:
        """Locate all targets in the next frame. Raises what ``Tracker.update`` raises."""
        return self._update(frame)


def _outside(
    outside: Outside, policy: Policy | Mapping[str, Any] | None, anyway: bool, options: Mapping[str, str]
) -> tuple[Engine, dict[str, Any]]:
    """The engine that calls a tracker from outside, and a card. Raises ``UsageError``: options without effect."""
    asked = [name for name, value in options.items() if value not in ("auto", "cpu", "its own")]
    asked += ["policy"] if policy and policy != default_policy("", "") else []
    if asked:
        said = f"{outside.name} runs as its own code does: no {' or '.join(asked)} of vltrack applies."
        raise UsageError(said, hint="Leave it out.")
    grounder = partial(_load_grounding, "cpu", choose_runtime("auto", "auto", "cpu")[0], None)
    card = {"tracker": outside.name, "sha256": outside.sha256, "modes": list(outside.modes)}
    return OutsideEngine(outside, grounder, anyway), card


def _load(
    path: Path, device: str, backend: str, precision: str, threads: int | None
) -> tuple[Network, dict[str, Any], Callable[[], TextTokenizer]]:
    """The network of a weights file or of an export, its card, and what loads the vocabulary that it reads with."""
    if path.is_dir():
        from vltrack.tracking.graph_network import GraphNetwork

        exported, card = GraphNetwork.read(path, device, backend, precision, threads)
        return exported, card, partial(_reader, exported.vocabulary, card, path)
    device = choose_cpu_or_gpu(device)
    wanted, (backend, precision) = backend, choose_runtime(backend, precision, device)
    if backend == "torch":
        return _load_torch(path, device, precision, threads)
    from vltrack.tracking.graph_network import GraphNetwork

    card = cards.identify(path)
    if not MODELS[card["tracker"]].packaged:  # graphs are made by a process that does not know it
        if wanted != "auto":
            said = f"{card['tracker']} is from outside the package and runs in torch, not in {wanted}."
            raise UsageError(said, hint="Leave out --backend.")
        return _load_torch(path, device, "fp32", threads)
    if wanted == "auto" and precision != "int8" and graphs_if_possible(path, card["sha256"], precision) is None:
        return _load_torch(path, device, precision, threads)
    network = GraphNetwork.load(path, card, backend, precision, threads)
    return network, card, partial(_reader, network.vocabulary, card, path)


def _load_torch(
    path: Path, device: str, precision: str, threads: int | None
) -> tuple[Network, dict[str, Any], Callable[[], TextTokenizer]]:
    import torch

    from vltrack.checkpoints import store
    from vltrack.nn.device import use_threads
    from vltrack.tracking.torch_network import TorchNetwork

    model, card = store.load(path)
    if threads is not None:
        use_threads(threads)
    elif device == "cpu" and card["size"] == "tiny":
        use_threads(1)
    model = model.to(device, memory_format=torch.channels_last)
    return TorchNetwork(model, device, precision), card, partial(_reader, model.vocabulary, card, path)


def _reader(vocabulary: str, card: dict[str, Any], path: Path) -> TextTokenizer:
    """The vocabulary that a model reads sentences with, from the folder of its weights, and that it fits."""
    folder, shapes = (path, {}) if path.is_dir() else (path.parent, cards.shapes_of(path))
    reader = load_tokenizer(vocabulary, folder)
    cards.check_vocabulary(card, shapes, sha256=reader.sha256, pieces=reader.size, table=reader.table)
    return reader


def _grounding(network: Network) -> Grounding:
    """The grounder where a network runs. Raises ``ModelNotFound``."""
    backend = network.runtime.split()[0]
    return _load_grounding(network.device, backend, None if backend == "torch" else network.threads)


_load_grounding = cache(Grounding.load)


def _settled(old: _SessionState, new: _SessionState) -> _SessionState:
    """The session after two targets on one object are parted; targets given by a box never are from each other."""
    states, warnings, shared = dict(new.states), dict(new.warnings), dict(old.shared)
    for pair in combinations(new.states, 2):
        one, two = (states[name] for name in pair)
        apart = one.status is not Status.OK or two.status is not Status.OK or new.by_text.isdisjoint(pair)
        parted = shared.get(pair, 0) >= SHARED_FRAMES
        if apart or iou_xywh(one.box, two.box) < SHARED_OBJECT:
            shared[pair] = SHARED_FRAMES if parted else 0
            continue
        shared[pair] = shared.get(pair, 0) + 1
        if shared[pair] < SHARED_FRAMES:
            continue
        # Who was lost before has come to the other's object, however well it matches now.
        loser, keeper = sorted(pair, key=lambda n: (old.states[n].lost_for == 0, states[n].claim * states[n].score))
        was = old.states[loser]
        states[loser] = replace(was, age=was.age + 1, score=0.0, status=Status.LOST, lost_for=was.lost_for + 1)
        if not parted:
            said = f"came to lie on the object of {keeper!r} at frame {new.index}, and counts as lost while it does."
            warnings[loser] = (*warnings[loser], said)
    return replace(new, states=states, warnings=warnings, shared=shared)


def _text_warning(card: Mapping[str, Any], target: Target) -> tuple[str, ...]:
    """A warning where the target has a text and the weights were trained without.

    Raises:
        UsageError: the target has only a text.
    """
    modes = cards.modes_of(card)
    if target.text is None or "nlbbox" in modes or (target.box is None and "nl" in modes):
        return ()
    if target.box is None:
        raise UsageError("This model was trained without language.", hint="Provide a box.")
    if (own := card.get("tracker")) and own not in MODELS:
        return (f"{own} takes no text: the box decides.",)
    return ("this model was trained without language: the text has no defined effect on the result.",)


def _image_of(frame: Frame | Image, index: int) -> tuple[Image | None, int, float]:
    """Image, number and time of a frame; ``index`` is the number of an array. Raises ``ImageError``."""
    if isinstance(frame, Frame):
        return None if frame.image is None else check_image(frame.image), frame.index, frame.seconds
    return check_image(frame), index, index / ARRAY_RATE
