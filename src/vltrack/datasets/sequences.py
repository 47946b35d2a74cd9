"""Annotated sequences in folders: frames read lazily, boxes, presence and a sentence. Knows the folder layout
only.

One folder a target: ``img/`` with one image a frame or ``video.<ext>``; ``groundtruth.txt`` with x, y, w, h a
    row
(comma, tab or space; zeros or NaN where absent); ``absent.txt`` with 0 or 1 a row and ``nlp.txt``, both
optional.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vltrack.core.errors import DataError
from vltrack.core.types import Frame

_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_LAYOUT = (
    "A sequence is a folder with img/ or video.*, groundtruth.txt and, where known, nlp.txt and absent.txt."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequence:
    """One annotated target.

    Attributes:
        name: the folder's name.
        source: folder of images, or video file.
        boxes: (N, 4) float64 x, y, w, h in pixels; zeros where absent.
        absent: (N,) bool.
        sentence: what names the target, or "" where none is given.
    """

    name: str
    source: Path
    boxes: NDArray[np.float64]
    absent: NDArray[np.bool_]
    sentence: str

    def __len__(self) -> int:
        return len(self.boxes)

    def frames(self) -> Iterator[Frame]:
        """All frames in order, decoded as they are asked for; the reader is closed when the iterator is.

        Raises:
            DataError: the source has fewer or more frames than there are boxes (seen at the end).
            InputError, PartialResult: the source cannot be read (see ``vltrack.video``).
        """
        from vltrack.video.source import open_source

        count = 0
        with open_source(self.source) as frames:
            for frame in frames:
                count += 1
                if count <= len(self.boxes):
                    yield frame
        if count != len(self.boxes):
            raise DataError(
                f"{self.source} has {count} frames, its groundtruth.txt has {len(self.boxes)} rows.",
                hint="Every frame needs one row.",
            )


def read_sequences(root: Path) -> list[Sequence]:
    """All sequences under ``root`` (or ``root`` itself, if it is one), in the order of their names.

    Raises:
        DataError: nothing there, a row that is not four numbers (file:line), or counts that disagree.
    """
    if (root / "groundtruth.txt").is_file():
        return [read_sequence(root)]
    if not root.is_dir():
        raise DataError(f"{root} is no folder.", hint=_LAYOUT)
    folders = sorted(path.parent for path in root.glob("*/groundtruth.txt"))
    if not folders:
        raise DataError(f"no sequence in {root}.", hint=_LAYOUT)
    return [read_sequence(folder) for folder in folders]


def read_sequence(folder: Path) -> Sequence:
    """The sequence of one folder. Raises ``DataError`` as ``read_sequences``."""
    source, count = _source_of(folder)
    boxes, absent = read_truth(folder / "groundtruth.txt")
    if count is not None and count != len(boxes):
        raise DataError(
            f"{folder / 'groundtruth.txt'} has {len(boxes)} rows, {source} has {count} images.",
            hint="Every frame needs one row.",
        )
    words = folder / "nlp.txt"
    sentence = " ".join(_lines(words)).strip() if words.is_file() else ""
    return Sequence(
        name=folder.resolve().name,
        source=source,
        boxes=np.where(absent[:, None], 0.0, boxes),
        absent=absent,
        sentence=sentence,
    )


def read_truth(path: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Boxes (N, 4) and absences (N,) from a file like ``groundtruth.txt``, and ``absent.txt`` beside it.

    Raises:
        DataError: a row that is not four numbers (file:line), or counts that disagree.
    """
    boxes = _read_boxes(path)
    absent = _read_absent(path.parent / "absent.txt", len(boxes)) | (boxes[:, 2:].min(axis=1) <= 0)
    return boxes, absent


def _source_of(folder: Path) -> tuple[Path, int | None]:
    images = folder / "img"
    if images.is_dir():
        return images, sum(path.suffix.lower() in _IMAGES for path in images.iterdir())
    videos = sorted(path for path in folder.glob("video.*") if path.is_file())
    if len(videos) != 1:
        raise DataError(f"{folder} has no img folder and {len(videos)} files video.*.", hint=_LAYOUT)
    return videos[0], None


def _read_boxes(path: Path) -> NDArray[np.float64]:
    rows = []
    for number, line in enumerate(_lines(path), 1):
        fields = [field for field in re.split(r"[,\s]+", line.strip()) if field]
        try:
            row = [float(field) for field in fields]
        except ValueError:
            row = []
        if len(row) != 4 or np.isinf(row).any():
            raise DataError(
                f"{path}:{number}: {line.strip()[:80]!r} is not x,y,w,h.", hint="Correct the row."
            )
        if np.isnan(row).any():
            row = [0.0] * 4
        if min(row[2:]) < 0:
            raise DataError(f"{path}:{number}: width or height is negative.", hint="Correct the row.")
        rows.append(row)
    if not rows:
        raise DataError(f"{path} has no row.", hint=_LAYOUT)
    return np.array(rows, dtype=np.float64)


def _read_absent(path: Path, count: int) -> NDArray[np.bool_]:
    if not path.is_file():
        return np.zeros(count, dtype=bool)
    flags = [field for line in _lines(path) for field in re.split(r"[,\s]+", line.strip()) if field]
    for number, flag in enumerate(flags, 1):
        if flag not in ("0", "1"):
            raise DataError(f"{path}:{number}: {flag[:40]!r} is neither 0 nor 1.", hint="Correct the row.")
    if len(flags) != count:
        raise DataError(f"{path} has {len(flags)} values for {count} boxes.", hint="Every frame needs one.")
    return np.array([flag == "1" for flag in flags], dtype=bool)


def _lines(path: Path) -> list[str]:
    """Lines of a text file without empty ones at the end."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}.", hint="Check the data folder.") from error
    return text.rstrip().splitlines()
