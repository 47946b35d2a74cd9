"""A tracker that the got10k package can run. Knows that package's contract: ``name``, ``is_deterministic``,
``init``, ``update``, ``track``; imports it only where its loop is asked for.

The contract is that of ``got10k.trackers.Tracker`` (got10k 0.1.3): boxes x, y, w, h in pixels, pictures as
RGB ``PIL.Image``. Annotations go in unchanged, also those that count from 1, as the field does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError, UsageError
from vltrack.core.types import Image, Mode
from vltrack.tracking.tracker import DEFAULT_MODEL, Tracker


class Got10kTracker:
    """Give it to ``ExperimentOTB(...).run`` or any other experiment of got10k.

    The package never hands out a sentence, so the modes that read one take ``sentences``: a sentence for the
    name of the folder that holds a sequence. The same target in the same pictures gives the same boxes, so
    GOT-10k's three repetitions are one.

    Attributes:
        name: the folder of the results.
        sentence: what the next ``init`` reads; ``track`` sets it.
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
            name: the folder of the results; by default the model's name and the mode.
            mode: ``bbox``, ``nl`` (the box of the first frame is not looked at) or ``nlbbox``.
            sentences: folder's name -> sentence.
            device: as ``Tracker.load`` takes it.

        Raises:
            UsageError: no such mode, or a mode that reads sentences without any.
            ModelError, ResourceError: see ``Tracker.load``.
        """
        if mode not in tuple(Mode):
            raise UsageError(f"there is no mode {mode!r}.", hint=f"Modes: {', '.join(Mode)}.")
        self._mode = Mode(mode)
        if self._mode is not Mode.BBOX and not sentences:
            raise UsageError(f"the mode {mode} needs sentences.", hint="Give a sentence for each folder.")
        self._sentences = sentences or {}
        self._tracker = Tracker.load(model, device=device)
        self._first: NDArray[np.float64] | None = None
        self.name = name if name is not None else f"{Path(model).stem}_{self._mode}"
        self.sentence: str | None = None

    def init(self, image: Any, box: Sequence[float] | NDArray[np.float64]) -> None:
        """Start on an RGB picture (``PIL.Image`` or uint8 (H, W, 3)) with x, y, w, h in its pixels.

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
        """The box (4,) x, y, w, h in the next picture. Raises what ``Tracker.update`` raises."""
        return self._tracker.update(_pixels(image)).box

    def track(
        self, img_files: Sequence[str], box: NDArray[np.float64], visualize: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """One sequence, by the package's own loop: it reads the pictures and takes the times.

        Returns:
            boxes: (N, 4) x, y, w, h; the first is the given one, or in the mode ``nl`` what the words found.
            times: (N,) seconds of ``init`` and each ``update``.

        Raises:
            UsageError: got10k is not installed.
            DataError: the mode reads a sentence and there is none for this folder.
            GroundingFailed: the words gave no usable box.
        """
        if self._mode is not Mode.BBOX:
            self.sentence = self._sentence_of(img_files)
        try:
            theirs = import_module("got10k.trackers").Tracker
        except ImportError as error:
            raise UsageError(
                f"the got10k package cannot be imported ({error}).", hint="See docs/harnesses.md."
            ) from error
        boxes, times = theirs.track(self, img_files, box, visualize)
        if self._mode is Mode.NL:
            boxes[0] = self._first
        return boxes, times

    def _sentence_of(self, files: Sequence[str]) -> str:
        """That of the nearest folder above the pictures: OTB keeps them in SEQ/img, GOT-10k in SEQ."""
        folders = [folder.name for folder in Path(files[0]).parents]
        for folder in folders:
            if folder in self._sentences:
                return self._sentences[folder]
        raise DataError(
            f"{Path(files[0]).parent}: no sentence for this sequence.",
            hint=f"Name one of {', '.join(repr(folder) for folder in folders[:2])} in the sentences.",
        )


def _pixels(image: Any) -> Image:
    """RGB uint8 (H, W, 3) of a ``PIL.Image`` or an array."""
    convert = getattr(image, "convert", None)
    return np.asarray(convert("RGB") if convert is not None else image)
