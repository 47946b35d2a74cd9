"""What one target and several have in common: start, next frame, forget. Knows no file and no weights.

A session holds one immutable value, replaced by one assignment after a frame is done: whatever is raised
before, an interrupt too, leaves the session as it was.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from vltrack.core.errors import ImageError, StateError, UsageError
from vltrack.core.types import Frame, Image, Status, Step, Target
from vltrack.prep.prompts import check_image
from vltrack.tracking.engine import Engine, State
from vltrack.video.contract import Limits

ARRAY_RATE = Limits.folder_rate
"""Frames a second assumed for arrays, which carry no time: the same assumption as for folders of images."""


@dataclass(frozen=True, kw_only=True)
class _Now:
    """Everything that changes from frame to frame, by target; ``index`` is the last frame's number."""

    states: dict[str, State]
    remarks: dict[str, tuple[str, ...]]
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
            steps = {name: self._told(state, index, seconds) for name, state in states.items()}
            remarks = {name: said + untaught[name] for name, (_, said) in started.items()}
            self._now = _Now(states=states, remarks=remarks, index=index)
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
                name: self._told(state, index, seconds, resized=state.frame_size != old.frame_size)
                for (name, state), old in zip(states.items(), before, strict=True)
            }
            self._now = replace(now, states=states, index=index)
            return steps

    def _told(self, state: State, index: int, seconds: float, *, resized: bool = False) -> Step:
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
