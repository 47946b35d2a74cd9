"""The network as the tracking loop calls it: arrays in, arrays out, one target at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vltrack.core.types import Image
from vltrack.tracking.postprocess import Maps

Float32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class BoxedImage:
    """A crop with a box in it.

    Attributes:
        image: (S, S, 3) RGB uint8.
        box: (4,) cx, cy, w, h in units of the crop's side.
        padded: (S, S) pixels outside the frame, for networks with ``mask_padding``.
    """

    image: Image
    box: Float32
    padded: NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """A prediction: maps of the search region, and ``raw``, which ``Network.update`` takes."""

    maps: Maps
    raw: Any


class Network(Protocol):
    """A tracker's network on a backend. Text and memory are its own values, which never change.

    Attributes:
        template_size, search_size, template_factor, search_factor, max_words: see ``models.base.TrackerConfig``.
        history, mask_padding, vocabulary: see ``models.base.TrackerBase``.
        device: where it runs, as torch names it.
        runtime: backend and number type: ``openvino fp32``.
        threads: of the backend. targets_at_once: calls that gain from running side by side.
    """

    template_size: int
    search_size: int
    template_factor: float
    search_factor: float
    max_words: int
    history: int
    mask_padding: bool
    vocabulary: str
    device: str
    runtime: str
    targets_at_once: int

    @property
    def threads(self) -> int: ...

    def read_text(self, ids: NDArray[np.int64], valid: NDArray[np.bool_]) -> Any:
        """Encode a sentence, once per target: (L,) word-piece ids, and which of them are not padding."""

    def init(self, template: BoxedImage, context: BoxedImage, text: Any = None) -> Any:
        """Memory of a target from a template crop and a search-sized crop of the same frame."""

    def locate(
        self, search: Image, memory: Any, past: Float32 | None = None, padded: NDArray[np.bool_] | None = None
    ) -> Found:
        """Predict the target in a search crop (S, S, 3); ``past`` (H, 4) in units of this crop."""

    def ground(self, scene: Image, text: Any) -> Found:
        """Find the target from its text in a letterboxed frame (S, S, 3)."""

    def update(self, memory: Any, found: Found, box: Float32, template: BoxedImage | None = None) -> Any:
        """Memory after a confident frame: the target's box (4,) in its search crop, and a new template."""
