"""A tracker for the VOT toolkit's protocol ``python``. Knows that contract; imports nothing of the toolkit.

The toolkit (0.9) makes the object in a process of its own and calls ``init(frame, new, properties)`` and
``update(frame, new, properties)``: ``frame`` is a file's name, or one a channel; ``new`` the objects that
begin in this frame, each ``(region, properties)``. In ``trackers.ini``::

    protocol = python
    command = vltrack.evaluation.harnesses.vot_python:VotTracker
    arg_model = litetrack-tiny
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vltrack.core.errors import DataError, ImageError, VltrackError
from vltrack.core.types import Image, Step
from vltrack.evaluation.harnesses.vot_regions import BoxTuple, box_around
from vltrack.metrics.regions import Polygon, Rectangle
from vltrack.tracking.tracker import DEFAULT_MODEL, Tracker
from vltrack.video.headers import is_cut

Answer = tuple[BoxTuple, dict[str, float]]


class VotTracker:
    """Any number of objects, each with a tracker of its own over the same weights.

    An object whose properties have a ``prompt`` starts by box and words, any other by its box.

    Raises:
        RuntimeError: in place of every ``VltrackError``, with the same text: the toolkit passes on this one
            and waits half a minute for an answer after any other.
    """

    multiobject = True

    def __init__(self, model: str = DEFAULT_MODEL, device: str = "auto") -> None:
        with _as_runtime_error():
            self._loaded = Tracker.load(model, device=device)
        self._objects: list[Tracker] = []

    def init(self, frame: str | Mapping[str, str], new: Any, properties: object = None) -> list[Answer]:
        """Forget all objects and start those of this frame; the answers in their order."""
        self._objects = []
        return self.update(frame, new, properties)

    def update(
        self, frame: str | Mapping[str, str], new: Any = None, properties: object = None
    ) -> list[Answer]:
        """Follow the objects so far and start those of this frame; the answers in the order they came.

        An answer is ``((x, y, w, h), {"score": ...})``: the box in pixels, the score in [0, 1].
        """
        starts = new if isinstance(new, list) else [new] if new else []
        with _as_runtime_error():
            image = read_rgb(_color_file(frame))
            answers = [_answer(tracker.update(image)) for tracker in self._objects]
            for region, facts in starts:
                tracker = self._loaded.with_policy(self._loaded.engine.policy)
                step = tracker.init(image, box=_start_box(region), text=facts.get("prompt"))
                self._objects.append(tracker)
                answers.append(_answer(step))
        return answers


def read_rgb(path: Path) -> Image:
    """One picture of a data set as RGB uint8 (H, W, 3), decoded as all our frames are.

    Raises:
        ImageError: it cannot be read, is cut, or is no picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read the frame {path}: {error.strerror}.") from error
    image = (
        None if is_cut(data) or not data else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    )
    if image is None:
        raise ImageError(f"the frame {path} is damaged or no picture.", hint="Fetch the sequence again.")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _color_file(frame: str | Mapping[str, str]) -> Path:
    """The frame's file; of several channels the one of colour."""
    if isinstance(frame, str):
        return Path(frame)
    if "color" not in frame:
        raise DataError(f"the frame has the channels {', '.join(sorted(frame))}, none of colour.")
    return Path(frame["color"])


def _start_box(region: Any) -> BoxTuple | None:
    """The box (x, y, w, h) of a region as this protocol hands it over: four numbers, or corners in a list."""
    if isinstance(region, tuple) and len(region) == 4:
        return box_around(Rectangle(*map(float, region)))
    if isinstance(region, list) and len(region) >= 3:
        return box_around(Polygon(tuple((float(x), float(y)) for x, y in region)))
    raise DataError(
        f"an object starts with {type(region).__name__}, not with a rectangle or polygon.",
        hint="Put 'convert = rectangle' into trackers.ini.",
    )


def _answer(step: Step) -> Answer:
    x, y, w, h = (float(value) for value in step.box)
    return (x, y, w, h), {"score": step.score}


@contextmanager
def _as_runtime_error() -> Iterator[None]:
    try:
        yield
    except VltrackError as error:
        raise RuntimeError(f"{error.code}: {error}") from error
