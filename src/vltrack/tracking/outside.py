"""Trackers from outside the package, called frame by frame: their own ``init`` and ``update`` in place of a network."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from vltrack.checkpoints.outside import Outside, text_parameter
from vltrack.core.errors import ImageError, ModelError, StateError, UsageError, VltrackError
from vltrack.core.types import Box, Image, Status, Target
from vltrack.prep.prompts import check_box, clean_text
from vltrack.tracking.engine import Engine, State
from vltrack.tracking.network import Network
from vltrack.tracking.postprocess import default_policy


class Followed:
    """One target's tracker after its start, and the number of frames that it has seen since.

    It changes, unlike a network's memory; ``again`` is one after the same start.
    """

    def __init__(self, outside: Outside, image: Image, box: Box, text: str | None) -> None:
        name = outside.name
        try:
            tracker = cast("Callable[[], Any]", outside.made)()
        except VltrackError:
            raise
        except Exception as error:
            said = f"{name} cannot be made: {type(error).__name__}: {error}."
            raise ModelError(said, hint="Give a class or function that takes no arguments.") from error
        self.tracker, self.name, self.frames = tracker, name, 0
        self.again = partial(Followed, outside, image, box, text)
        self._opencv = type(tracker).__module__.split(".")[0] == "cv2"
        self._init = next((m for m in ("init", "initialize") if callable(getattr(tracker, m, None))), "")
        self._update = next((m for m in ("update", "track") if callable(getattr(tracker, m, None))), "")
        if not self._init or not self._update:
            said = f"{name} gives {type(tracker).__name__}, which has no init(image, box) and update(image)."
            raise UsageError(said, hint="docs/add-a-tracker.md shows the two methods.")
        self._start(image, box, text)

    def _start(self, image: Image, box: Box, text: str | None) -> None:
        x, y, w, h = (float(value) for value in box)
        given: Any = [x, y, w, h]
        named = None if self._opencv else text_parameter(getattr(self.tracker, self._init))
        more = {named: text} if named and text is not None else {}
        if named == "info":
            given, more = {"init_bbox": given, "init_nlp": text or "", "language": text or ""}, {}
        elif self._opencv:
            height, width = image.shape[:2]
            left, top = max(0, math.floor(x)), max(0, math.floor(y))
            given = (left, top, max(1, min(round(w), width - left)), max(1, min(round(h), height - top)))
        self._call(self._init, image, given, **more)

    def update(self, image: Image) -> tuple[Box | None, float]:
        """The box in the next frame, None where the tracker has none, and its score in 0 to 1."""
        answer = self._call(self._update, image)
        score: Any = None
        if self._opencv:
            found, box = answer
            box = box if found else None
            if found and type(self.tracker).__name__ in ("TrackerNano", "TrackerVit", "TrackerDaSiamRPN"):
                score = self.tracker.getTrackingScore()
        elif isinstance(answer, Mapping):
            box = next((answer[key] for key in ("target_bbox", "box", "bbox") if key in answer), answer)
            score = next((answer[key] for key in ("best_score", "score", "conf_score") if key in answer), None)
        elif isinstance(answer, Sequence) and len(answer) == 2:
            box, score = answer if not isinstance(answer[0], bool | np.bool_) else (answer[1] if answer[0] else None, 1)
        else:
            box = answer
        self.frames += 1
        if box is None:
            return None, 0.0
        try:
            values = np.asarray(box, dtype=np.float64).reshape(-1)
            score = 1.0 if score is None else float(score)
        except (TypeError, ValueError):
            values = np.zeros(0)
        if values.shape != (4,):
            said = f"{self.name}.{self._update} returned {answer!r:.80}, not x, y, w, h (or None; or box and score)."
            raise ModelError(said, hint="docs/add-a-tracker.md shows what it may return.")
        usable = np.isfinite(values).all() and (values[2:] > 0).all() and np.abs(values).max() < 1e6
        return (values, min(max(score, 0.0), 1.0)) if usable and math.isfinite(score) else (None, 0.0)

    def _call(self, method: str, image: Image, *given: Any, **more: Any) -> Any:
        try:
            return getattr(self.tracker, method)(self._converted(image), *given, **more)
        except (VltrackError, KeyboardInterrupt):
            raise
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{self.name}.{method} raised {type(error).__name__}: {error} ({last.filename}:{last.lineno})."
            raise ModelError(said, hint="Mend it there; --debug shows the whole trace.") from error

    def _converted(self, image: Image) -> Any:
        """A copy of the frame, RGB unless the tracker's attribute ``images`` is ``bgr`` or ``pil``."""
        kind = "bgr" if self._opencv else getattr(self.tracker, "images", "rgb")
        if kind == "bgr":
            return np.ascontiguousarray(image[..., ::-1])
        if kind == "pil":
            try:
                from PIL import Image as Pillow
            except ImportError:
                raise ImageError(f"{self.name} takes images of Pillow, which is not installed.") from None
            return Pillow.fromarray(image)
        return image.copy()


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A target's tracker as it was after ``frames`` frames."""

    followed: Followed
    frames: int


class OutsideEngine(Engine):
    """Calls trackers from outside the package, one for each target; text alone is located by the grounder."""

    def __init__(self, outside: Outside, grounder: Callable[[], Any], anyway: bool) -> None:
        runs = {"device": "cpu", "runtime": "", "threads": 1, "targets_at_once": 1, "vocabulary": "", "history": 0}
        super().__init__(
            cast("Network", SimpleNamespace(**runs)), default_policy("", ""), cast("Any", None), grounder, anyway
        )
        self.outside = outside

    def start(self, image: Image, target: Target, claim: float | None = None) -> tuple[State, tuple[str, ...]]:
        if target.box is None:
            raise UsageError(f"{self.outside.name} starts from a box, and none is given.")
        height, width = image.shape[:2]
        checked = check_box(target.box, width, height)
        text = None if target.text is None else clean_text(target.text)
        followed = Followed(self.outside, image, checked.box, text)
        state = State(
            box=checked.box, memory=Moment(followed=followed, frames=0), frame_size=(width, height),
            past=np.zeros((0, 4)), claim=1.0 if claim is None else claim,
        )  # fmt: skip
        return state, checked.warnings

    def step(self, image: Image, states: Sequence[State]) -> list[State]:
        return [self._next(image, state) for state in states]

    def _next(self, image: Image, state: State) -> State:
        height, width = image.shape[:2]
        followed, frames = state.memory.followed, state.memory.frames
        if followed.frames != frames:
            if frames:
                said = f"{followed.name} has seen later frames and cannot go back to this one."
                raise StateError(said, hint="Track from the start.")
            followed = followed.again()
        box, score = followed.update(image)
        after = partial(replace, state, age=state.age + 1, frame_size=(width, height), score=score, presence=score)
        memory = Moment(followed=followed, frames=frames + 1)
        if box is None:
            return after(memory=memory, status=Status.LOST, lost_for=state.lost_for + 1)
        return after(memory=memory, box=box, status=Status.OK, lost_for=0)
