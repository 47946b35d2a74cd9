"""``Frame``, ``Target``, ``Step`` and conversions of box formats.

Boxes are ``x, y, w, h`` float64 in pixels of the displayed frame (top left corner first) unless a name says
otherwise: ``xyxy`` are two corners, ``cxcywh`` center and size. Images are RGB uint8 of shape (H, W, 3). A displayed
frame is rotated as its file says; pixels that are not square stay as stored.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Image = NDArray[np.uint8]
Box = NDArray[np.float64]
BoxLike = tuple[float, float, float, float]
Floats = NDArray[np.float64]


class ByValue:
    """Equality and hash of a dataclass that may hold arrays: two are equal where all their fields are."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        pairs = ((getattr(self, each.name), getattr(other, each.name)) for each in fields(self))  # type: ignore[arg-type]
        return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)

    def __hash__(self) -> int:
        values = (getattr(self, each.name) for each in fields(self))  # type: ignore[arg-type]
        return hash(
            tuple((v + 0).tobytes() if isinstance(v, np.ndarray) else v for v in values if not isinstance(v, dict))
        )


class Mode(StrEnum):
    """Initialization mode: text, box or both; follows from the ``Target``."""

    NL = "nl"
    BBOX = "bbox"
    NLBBOX = "nlbbox"


class Status(StrEnum):
    """State of the target in one frame of a ``Track``; see ``Step``."""

    OK = "ok"
    LOST = "lost"
    MISSING = "missing"
    INVALID = "invalid"
    WAITING = "waiting"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Frame(ByValue):
    """One displayed frame.

    Attributes:
        image: RGB uint8 (H, W, 3), rotation applied; ``None`` if the frame could not be decoded.
        index: 0-based number of the frame in presentation order; gaps keep their numbers.
        seconds: presentation time from the first frame of the file; for image folders index / rate.
        flags: short notes, for example ``("size-changed",)``.

    Examples:
        >>> import numpy as np, vltrack
        >>> frame = vltrack.Frame(image=np.zeros((360, 640, 3), np.uint8), index=0, seconds=0.0)
        >>> frame.image.shape
        (360, 640, 3)
    """

    image: Image | None
    index: int
    seconds: float
    flags: tuple[str, ...] = ()

    def __repr__(self) -> str:
        size = "not decoded" if self.image is None else "x".join(map(str, np.shape(self.image)[1::-1]))
        return f"Frame({size}, index={self.index}, seconds={self.seconds:.3f})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The target to track: a box (x, y, w, h in pixels), a text, or both.

    Raises:
        TypeError: the text is not a str (NaN of a table, bytes, a list).

    Examples:
        >>> import vltrack
        >>> vltrack.Target(text="the white car", box=(120, 40, 60, 80)).mode
        <Mode.NLBBOX: 'nlbbox'>
    """

    box: BoxLike | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if self.text is not None:
            check_str(self.text)
        box: object = self.box
        if isinstance(box, np.ndarray | list):
            object.__setattr__(self, "box", tuple(box))

    @property
    def mode(self) -> Mode:
        """The mode of what is given. Raises ``ValueError`` if neither box nor text is."""
        if self.box is None and self.text is None:
            raise ValueError("A Target needs a box, a text or both.")
        if self.box is None:
            return Mode.NL
        return Mode.BBOX if self.text is None else Mode.NLBBOX


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Step(ByValue):
    """One target in one frame.

    Attributes:
        box: (x, y, w, h) float64, always finite, w and h > 0; while it is lost the place that scores best, with
            the size held.
        score: presence in [0, 1]; falls when the target leaves.
        visible: whether the tracker believes that the target is in the frame.
        status: ``ok``, ``lost`` (not visible), ``missing`` (frame not decodable),
            ``invalid`` (the network gave no finite box; the last one is held), ``waiting`` (what the text
            names has not come into view yet; the box is the whole frame).
        index, seconds: of the frame.
        extras: further numbers of the post-processing (frames since lost, ...), for display.

    Examples:
        >>> import numpy as np, vltrack
        >>> step = vltrack.Step(box=np.array([12, 4, 6, 8.0]), score=0.9, visible=True, index=0, seconds=0.0)
        >>> str(step.status)
        'ok'
    """

    box: Box
    score: float
    visible: bool
    index: int
    seconds: float
    status: Status = Status.OK
    extras: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidate(ByValue):
    """One box of an image that a sentence may name.

    Attributes:
        box: (x, y, w, h) float64 in pixels of the image.
        score: probability in [0, 1] that the sentence names it.
        label: the detector's class, such as ``person``, or a part: ``head of person``.

    Examples:
        >>> import numpy as np, vltrack
        >>> vltrack.Candidate(box=np.array([12, 4, 6, 8.0]), score=0.7, label="person").label
        'person'
    """

    box: Box
    score: float
    label: str


def check_str(text: object) -> str:
    """Return the text. Raises ``TypeError`` for one that is not a str, such as the NaN of a table."""
    if not isinstance(text, str):
        raise TypeError(f"The text must be a str, not {type(text).__name__}: {text!r:.60}.")
    return text


def whole(name: str, value: Any) -> int:
    """Return a frame number or a count as a plain integer; integers of numpy are taken. Raises ``TypeError``."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}: {value!r:.40}.") from None


def xywh_to_xyxy(box: ArrayLike) -> Box:
    """(..., 4) corner and size -> two corners."""
    b = np.asarray(box, dtype=np.float64)
    return np.concatenate([b[..., :2], b[..., :2] + b[..., 2:]], axis=-1)


def xyxy_to_xywh(box: ArrayLike) -> Box:
    """(..., 4) two corners -> corner and size."""
    b = np.asarray(box, dtype=np.float64)
    return np.concatenate([b[..., :2], b[..., 2:] - b[..., :2]], axis=-1)


def xywh_to_cxcywh(box: ArrayLike) -> Box:
    """(..., 4) corner and size -> center and size."""
    b = np.asarray(box, dtype=np.float64)
    return np.concatenate([b[..., :2] + b[..., 2:] / 2, b[..., 2:]], axis=-1)


def cxcywh_to_xywh(box: ArrayLike) -> Box:
    """(..., 4) center and size -> corner and size."""
    b = np.asarray(box, dtype=np.float64)
    return np.concatenate([b[..., :2] - b[..., 2:] / 2, b[..., 2:]], axis=-1)


def clip_xywh(box: ArrayLike, width: float, height: float, *, margin: float = 0.0, min_side: float = 1.0) -> Box:
    """Clip an xywh box to the frame: ``margin`` pixels stay inside, sides are at least ``min_side``."""
    x1, y1, x2, y2 = xywh_to_xyxy(box)
    x1 = min(max(0.0, x1), width - margin)
    x2 = min(max(margin, x2), width)
    y1 = min(max(0.0, y1), height - margin)
    y2 = min(max(margin, y2), height)
    return np.array([x1, y1, max(min_side, x2 - x1), max(min_side, y2 - y1)], dtype=np.float64)


def iou_xywh(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of xywh boxes, broadcast over (..., 4); 0 where the union is empty."""
    a1, b1 = xywh_to_xyxy(a), xywh_to_xyxy(b)
    side = np.minimum(a1[..., 2:], b1[..., 2:]) - np.maximum(a1[..., :2], b1[..., :2])
    inter = np.clip(side, 0, None).prod(axis=-1)
    area_a = np.asarray(a, dtype=np.float64)[..., 2:].prod(axis=-1)
    area_b = np.asarray(b, dtype=np.float64)[..., 2:].prod(axis=-1)
    union = area_a + area_b - inter
    overlap: NDArray[np.float64] = np.where(union > 0, inter / np.where(union > 0, union, 1.0), 0.0)
    return overlap
