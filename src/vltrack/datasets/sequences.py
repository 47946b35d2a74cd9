"""One annotated target: its frames, boxes, presence and sentence. Knows no data set and no folder layout."""

from __future__ import annotations

from collections import abc
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.text import counted
from vltrack.core.types import Frame

if TYPE_CHECKING:
    from vltrack.video.source import FrameSource


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequence:
    """One annotated target over N frames, with R annotated rows (R = N, or 1 where the truth is held back).

    Attributes:
        name: official name, as result files are called.
        source: folder of images, or video file; the annotation where there are no pictures.
        files: the images in order (a tuple, or ``frames.ImageList`` that makes paths when asked); None for a
            video file; () where only the annotation is there.
        boxes: (R, 4) float64 x, y, w, h in pixels as annotated: NaN rows and zeros are kept, and nothing is
            shifted, even where the authors counted pixels from 1.
        absent: (R,) bool by the data set's own rule.
        sentence: what names the target, or "" where none is given.
        attributes: short names of the flags that are set, such as ("IV", "OCC").
        cover: (R,) float64 0..8, how much of the target is seen in eighths (GOT-10k), else None.
        size: (width, height) of the frames in pixels where the annotation says so, else None.
    """

    name: str
    source: Path
    files: abc.Sequence[Path] | None
    boxes: NDArray[np.float64]
    absent: NDArray[np.bool_]
    sentence: str = ""
    attributes: tuple[str, ...] = ()
    cover: NDArray[np.float64] | None = None
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Number of frames; of annotated rows where there are no pictures, or a video."""
        return len(self.files) if self.files else len(self.boxes)

    @property
    def truth_held_back(self) -> bool:
        """Whether the authors keep the boxes after the first to themselves."""
        return len(self.boxes) == 1 and len(self) > 1

    def frames(self) -> Generator[Frame, None, None]:
        """All frames in order, decoded as they are asked for; the reader is closed when the iterator is.

        Raises:
            DataError: there are no pictures, an image cannot be decoded (the path is named), or a video has
                fewer or more frames than there are boxes (seen at the end).
            InputError, PartialResult: the source cannot be read (see ``vltrack.video``).
        """
        if self.files is None:
            return self._from_video()
        if not self.files:
            raise DataError(
                f"{self.name}: only the annotation is in {self.source}, there are no pictures.",
                hint="Open the data set itself to run a tracker over it.",
            )
        return self._from_images(self.files)

    def open_frames(self) -> FrameSource:
        """The source that ``frames`` reads, for those who want to see its gaps; close it."""
        from vltrack.video.images import ImagesSource
        from vltrack.video.source import Limits, open_source

        if self.files is None:
            return open_source(self.source)
        return ImagesSource(
            self.files,
            kind="folder",
            name=str(self.source),
            ignored=0,
            start=0,
            end=None,
            stride=1,
            limits=Limits(),
        )

    def _from_images(self, files: abc.Sequence[Path]) -> Generator[Frame, None, None]:
        with self.open_frames() as source:
            for frame in source:
                if frame.image is None:
                    raise DataError(
                        f"{files[frame.index]} cannot be decoded.", hint="Copy or download the image again."
                    )
                yield frame

    def _from_video(self) -> Generator[Frame, None, None]:
        count = 0
        with self.open_frames() as frames:
            for frame in frames:
                count += 1
                if count <= len(self.boxes):
                    yield frame
        if count != len(self.boxes):
            rows = counted(len(self.boxes), "row")
            raise DataError(
                f"{self.source} has {counted(count, 'frame')}, its groundtruth.txt {rows}.",
                hint="Every frame needs one row.",
            )
