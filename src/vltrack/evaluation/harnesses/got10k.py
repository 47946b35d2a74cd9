"""Our trackers inside the got10k package, with the interface of its ``got10k.trackers.Tracker`` (0.1.3).

Boxes are x, y, w, h in pixels, images RGB ``PIL.Image``. Annotations are used unchanged, also those that
count pixels from 1, as the field does. The package is imported only by ``track``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vltrack.checkpoints.cards import DEFAULT_MODEL
from vltrack.core.errors import DataError, UsageError
from vltrack.core.types import Image, Mode
from vltrack.tracking.tracker import Tracker


class Got10kTracker:
    """A tracker for ``ExperimentOTB(...).run`` or any other experiment of got10k.

    The package has no sentences, so the modes with text take ``sentences``: one per folder of a sequence. The
    same target in the same images gives the same boxes, so GOT-10k's three repetitions are one.

    Attributes:
        name: name of the results' folder.
        sentence: text for the next ``init``; set by ``track``.
    """

    is_deterministic = True

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        *,
        name: str | None = None,
        mode: str = "bbox",
        sentences: Mapping[str, str] | None = None,
        device: str = "auto",
    ) -> None:
        """Load the weights.

        Args:
            model: a name of ``vltrack models`` or the path of weights.
            name: of the results' folder; by default the model's name and the mode.
            mode: ``bbox``, ``nl`` (the box of the first frame is ignored) or ``nlbbox``.
            sentences: sentence by name of the folder.
            device: passed to ``Tracker.load``.

        Raises:
            UsageError: no such mode, or a mode with text without sentences.
            ModelError, ResourceError: see ``Tracker.load``.
        """
        if mode not in tuple(Mode):
            raise UsageError(f"Unknown mode: {mode!r}.", hint=f"Known: {', '.join(Mode)}.")
        self._mode = Mode(mode)
        if self._mode is not Mode.BBOX and not sentences:
            raise UsageError(f"Mode {mode} needs sentences.", hint="Give one per folder.")
        self._sentences = sentences or {}
        self._tracker = Tracker.load(model, device=device, anyway=True)
        self._first: NDArray[np.float64] | None = None
        self.name = name if name is not None else f"{Path(model).stem}_{self._mode}"
        self.sentence: str | None = None

    def init(self, image: Any, box: Sequence[float] | NDArray[np.float64]) -> None:
        """Start on an RGB image (``PIL.Image`` or uint8 (H, W, 3)) with a box x, y, w, h in its pixels.

        Raises what ``Tracker.init`` raises; ``UsageError`` in the mode ``nl`` before ``sentence`` is set.
        """
        x, y, w, h = (float(value) for value in box)
        step = self._tracker.init(
            _pixels(image),
            box=None if self._mode is Mode.NL else (x, y, w, h),
            text=None if self._mode is Mode.BBOX else self.sentence,
        )
        self._first = step.box

    def update(self, image: Any) -> NDArray[np.float64]:
        """Return the box (4,) x, y, w, h in the next image. Raises what ``Tracker.update`` raises."""
        return self._tracker.update(_pixels(image)).box

    def track(
        self, img_files: Sequence[str], box: NDArray[np.float64], visualize: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Track one sequence by the package's own loop, which reads the images and takes the times.

        Returns:
            boxes: (N, 4) x, y, w, h; the first is the given one, or in mode ``nl`` the tracker's own.
            times: (N,) seconds of ``init`` and each ``update``.

        Raises:
            UsageError: got10k is not installed.
            DataError: the mode needs a sentence and there is none for this folder.
            GroundingFailed: the text gave no usable box.
        """
        if self._mode is not Mode.BBOX:
            self.sentence = self._sentence_of(img_files)
        try:
            theirs = import_module("got10k.trackers").Tracker
        except ImportError as error:
            raise UsageError(f"Cannot import the got10k package: {error}.", hint="See docs/harnesses.md.") from error
        boxes, times = theirs.track(self, img_files, box, visualize)
        if self._mode is Mode.NL:
            boxes[0] = self._first
        return boxes, times

    def _sentence_of(self, files: Sequence[str]) -> str:
        """Sentence of the nearest folder above the images: OTB has them in SEQ/img, GOT-10k in SEQ."""
        folders = [folder.name for folder in Path(files[0]).parents]
        found = next((self._sentences[folder] for folder in folders if folder in self._sentences), None)
        if found is None:
            raise DataError(
                f"No sentence for the sequence in {Path(files[0]).parent}.",
                hint=f"Give one for {' or '.join(map(repr, folders[:2]))}.",
            )
        return found


def _pixels(image: Any) -> Image:
    """RGB uint8 (H, W, 3) of a ``PIL.Image`` or an array."""
    convert = getattr(image, "convert", None)
    return np.asarray(convert("RGB") if convert is not None else image)
