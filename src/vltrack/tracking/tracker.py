"""The tracker of one target: ``init``, ``update``, ``stream``; and ``track``, a whole video in one call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Self

# Before torch: threads that wait must sleep, or a second busy process makes every step many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from vltrack.checkpoints import store
from vltrack.core.errors import BoxFrameOutOfRange, UsageError, VltrackError
from vltrack.core.track import Track
from vltrack.core.types import Frame, Image, Step, Target
from vltrack.models import MODELS
from vltrack.nn.device import choose_device, use_threads
from vltrack.prep.vocabularies import Reader, open_vocabulary
from vltrack.tracking.engine import Engine
from vltrack.tracking.policy import Policy
from vltrack.tracking.session import Session
from vltrack.video.source import FrameSource, open_source

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

        ``policy`` is a whole one, or the options that shall differ from the tracker's own (``house_policy``).
        ``threads`` sets torch's threads for the whole process; None leaves them alone on a GPU and takes 1
        for the tiny sizes, which is fastest.

        Raises:
            ModelNotFound, CheckpointCorrupt, CheckpointMismatch, CheckpointNonFinite, CheckpointVersion: see
                ``checkpoints.store.load``.
            ConfigError: the policy has no such option, or not with that value.
            ResourceError: this machine has no such device.
        """
        chosen = choose_device(device)
        path = store.find(name_or_path)
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
            policy = house_policy(card["tracker"], card["size"]).changed(policy or {})
        return cls(Engine(model, chosen, policy, reader), card)

    def with_policy(self, policy: Policy) -> Tracker:
        """Another tracker with the same weights (shared) and another policy; it starts without a target."""
        engine = self.engine
        return Tracker(Engine(engine.model, engine.device, policy, engine.reader), self.card)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the user should know of the start: a box that was cut to the frame, words left unread."""
        return self._now.remarks[_ONE] if self._now is not None else ()

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


def _reader(model: Any, card: dict[str, Any], folder: Path) -> Reader:
    """The vocabulary that a model reads sentences with, from the folder of its weights, and that it fits."""
    reader = open_vocabulary(model.vocabulary, folder)
    store.check_vocabulary(card, model, sha256=reader.sha256, pieces=reader.size, table=reader.table)
    return reader


def house_policy(tracker: str, size: str) -> Policy:
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
    remarks = list(tracker.remarks)
    if not isinstance(frames, FrameSource):
        return {"source": "frames", "warnings": remarks}
    info = frames.info
    return {
        "source": info.name,
        "width": info.width,
        "height": info.height,
        "warnings": [*remarks, *frames.report.warnings],
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
