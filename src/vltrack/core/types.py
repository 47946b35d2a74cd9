"""What flows between the floors: ``Frame``, ``Target``, ``Step``. Knows no file and no model.

Boxes everywhere are ``x, y, w, h`` float64 in pixels of the displayed frame (top left corner first).
Images are RGB uint8 of shape (H, W, 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Box = NDArray[np.float64]


class Mode(StrEnum):
    """How a target was named. Follows from the ``Target``, never from a configuration."""

    NL = "nl"
    BBOX = "bbox"
    NLBBOX = "nlbbox"


class Status(StrEnum):
    """What is known of one frame of a ``Track``."""

    OK = "ok"
    LOST = "lost"
    MISSING = "missing"
    INVALID = "invalid"


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One displayed frame.

    Attributes:
        image: RGB uint8 (H, W, 3), rotation applied; ``None`` where it could not be decoded (a gap row).
        index: 0-based number of the frame in presentation order; gaps keep their numbers.
        seconds: presentation time from the first frame of the file; for image folders index / rate.
        flags: short remarks, for example ``("size-changed",)``.
    """

    image: Image | None
    index: int
    seconds: float
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What to follow: a box (x, y, w, h in pixels), a sentence, or both."""

    box: tuple[float, float, float, float] | None = None
    text: str | None = None

    @property
    def mode(self) -> Mode:
        """NL, BBOX or NLBBOX, from what is given. Raises ``ValueError`` if nothing is."""
        if self.box is None and self.text is None:
            raise ValueError("a Target needs a box, a sentence or both")
        if self.box is None:
            return Mode.NL
        return Mode.BBOX if self.text is None else Mode.NLBBOX


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One target in one frame.

    Attributes:
        box: (x, y, w, h) float64, always finite, w and h > 0. The last credible box while the target is lost.
        score: presence in [0, 1]; falls when the target leaves.
        visible: whether the tracker believes that the target is in the frame.
        status: ``ok``, ``lost`` (not seen, box held), ``missing`` (frame not decodable), ``invalid`` (the
            network gave no finite box; the last one is held).
        index, seconds: of the frame.
        extras: numbers that a policy wants to show (frames since lost, ...); never needed by a reader.
    """

    box: Box
    score: float
    visible: bool
    index: int
    seconds: float
    status: Status = Status.OK
    extras: dict[str, Any] = field(default_factory=dict)
