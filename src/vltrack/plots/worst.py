"""A contact sheet of one sequence: truth and every tracker's box on moments of it. Knows pixels and boxes.

Moments are cut out once (``snapshot``) and kept as compressed pictures with their boxes, so that the sheet
can be drawn again without the data. T trackers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vltrack.core.errors import DataError
from vltrack.core.types import Image
from vltrack.plots import lettering, paper
from vltrack.plots.lanes import COLOURS, RIM, Colour, draw_boxes, outline
from vltrack.plots.moments import TILE, cut

Floats = NDArray[np.float64]

COLUMNS = 4
SHOWN = 8
"""Moments on a sheet."""
TRUTH: Colour = (255, 255, 255)
_GAP = 14
WIDTH = COLUMNS * TILE + (COLUMNS + 1) * _GAP
LETTERS = 15
"""Pixels: the height of letters below a moment."""
_QUALITY = 88
_WHITE, _INK, _FAINT = (255, 255, 255), (26, 28, 33), (107, 115, 128)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Snapshot:
    """One moment: a JPEG as wide as ``TILE`` and the boxes in its pixels; a box that is not there is NaN.

    Attributes:
        frame: number of the frame.
        jpeg: the picture without any box.
        truth_4, boxes_T4: x, y, w, h.
        overlaps_T: of each box with the truth; NaN where the target is absent.
    """

    frame: int
    jpeg: bytes
    truth_4: Floats
    boxes_T4: Floats
    overlaps_T: Floats


def snapshot(
    image: Image, frame: int, truth_4: ArrayLike, boxes_T4: ArrayLike, overlaps_T: ArrayLike
) -> Snapshot:
    """Cut out what shows the truth and all boxes; the picture is not modified."""
    truth = np.asarray(truth_4, dtype=np.float64)
    boxes = np.asarray(boxes_T4, dtype=np.float64)
    tile, moved = cut(image, np.vstack([boxes, truth]))
    done, data = cv2.imencode(".jpg", tile[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise DataError(f"frame {frame} cannot be written as a picture.")
    return Snapshot(
        frame=frame,
        jpeg=data.tobytes(),
        truth_4=moved[-1],
        boxes_T4=moved[:-1],
        overlaps_T=np.asarray(overlaps_T, dtype=np.float64),
    )


def moments_of(overlaps_TN: ArrayLike, count: int = SHOWN) -> list[int]:
    """Which frames to show: evenly spread ones, and the first in which all trackers have lost the target.

    Lost means an overlap below 0.1; where that never happens it is the frame of least mean overlap. It takes
    the place of the evenly spread one next to it; of the first or last only where it is nearly the same.

    Args:
        overlaps_TN: (T, N) overlap with the truth; NaN where the target is absent.
        count: frames at most.
    """
    overlaps = np.asarray(overlaps_TN, dtype=np.float64)
    frames = overlaps.shape[1]
    steps = max(1, min(count, frames) - 1)
    picks = sorted({round(step * (frames - 1) / steps) for step in range(steps + 1)})[:count]
    there = np.asarray(np.isfinite(overlaps).all(axis=0))
    if len(picks) < 3 or not there[1:-1].any():
        return picks
    mean = np.where(there, np.nan_to_num(overlaps).mean(axis=0), np.inf)
    mean[[0, -1]] = np.inf
    lost = np.flatnonzero(np.where(there, np.nan_to_num(overlaps).max(axis=0), 1.0)[1:-1] < 0.1) + 1
    moment = int(lost[0]) if lost.size else int(mean.argmin())
    if moment not in picks:
        near = (frames - 1) / steps / 4
        ends = [k for k in (0, len(picks) - 1) if abs(picks[k] - moment) < near]
        nearest = min(ends or range(1, len(picks) - 1), key=lambda k: abs(picks[k] - moment))
        picks[nearest] = moment
    return sorted(picks)


def worst_sheet(title: str, note: str, names: Sequence[str], snapshots: Sequence[Snapshot]) -> Image:
    """The sheet: (H, ``WIDTH``, 3) RGB uint8. The same input gives the same picture.

    Args:
        title: the sequence.
        note: its sentence, or whatever else stands below the title; without both there is no room for them.
        names: one a tracker, whose colours are those of their places.
        snapshots: in the order of time.

    Raises:
        DataError: nothing to show, or a picture that does not decode.
        ValueError: more names than colours.
    """
    if not snapshots:
        raise DataError(f"there is no frame of {title} to show.")
    if not 0 < len(names) <= len(COLOURS):
        raise ValueError(f"{len(names)} trackers; 1 to {len(COLOURS)} can be told apart")
    tiles = [_tile(shot, names) for shot in snapshots]
    rows = -(-len(tiles) // COLUMNS)
    height = max(tile.shape[0] for tile in tiles) + _GAP
    head = _head(title, note, names)
    body = np.full((rows * height, WIDTH, 3), _WHITE, dtype=np.uint8)
    for number, tile in enumerate(tiles):
        top, left = (number // COLUMNS) * height, _GAP + (number % COLUMNS) * (TILE + _GAP)
        body[top : top + tile.shape[0], left : left + TILE] = tile
    return cast(Image, np.vstack([head, body]))


def _head(title: str, note: str, names: Sequence[str]) -> Image:
    """Title and sentence, where there are any, and a legend of the boxes."""
    cells = ["truth", *names]
    columns = 4
    rows = -(-len(cells) // columns)
    top = 72 if title or note else 6
    head = np.full((top + 26 * rows + 12, WIDTH, 3), _WHITE, dtype=np.uint8)
    room = WIDTH - 2 * _GAP
    title = lettering.shortened(title, 26, room, bold=True)
    lettering.write(head, title, (_GAP, 8), 26, _INK, bold=True)
    lettering.write(head, lettering.shortened(note, 18, room), (_GAP, 42), 18, _FAINT)
    step = room // columns
    for number, name in enumerate(cells):
        x, y = _GAP + (number % columns) * step, top + 2 + 26 * (number // columns)
        shade = TRUTH if number == 0 else COLOURS[number - 1]
        cv2.rectangle(head, (x, y + 4), (x + 22, y + 18), shade, cv2.FILLED)
        cv2.rectangle(head, (x, y + 4), (x + 22, y + 18), RIM, 1)
        lettering.write(head, lettering.shortened(name, 17, step - 44), (x + 32, y), 17, _INK)
    return head


def _tile(shot: Snapshot, names: Sequence[str]) -> Image:
    """The moment with its boxes; below it the frame's number and each tracker's overlap."""
    read = cv2.imdecode(np.frombuffer(shot.jpeg, dtype=np.uint8), cv2.IMREAD_COLOR)
    if read is None or read.shape[1] != TILE or shot.boxes_T4.shape != (len(names), 4):
        raise DataError(
            f"the picture of frame {shot.frame} is damaged.", hint="Make the report from the data."
        )
    picture = cast(Image, read[:, :, ::-1].copy())
    if np.isfinite(shot.truth_4).all() and (shot.truth_4[2:] > 0).all():
        for thickness, shade in ((5, RIM), (3, TRUTH)):
            outline(picture, shot.truth_4, shade, thickness, dashed=False, line=3)
    nothing = [False] * len(names)
    picture = draw_boxes(picture, shot.boxes_T4, [True] * len(names), names, nothing)
    strip = np.full((26, TILE, 3), _WHITE, dtype=np.uint8)
    lettering.write(strip, f"frame {shot.frame}", (0, 4), LETTERS, _FAINT)
    absent = not np.isfinite(shot.overlaps_T).any()
    x = TILE
    if absent:
        lettering.write(
            strip, "target absent", (TILE - lettering.width_of("target absent", LETTERS), 4), LETTERS, _FAINT
        )
    for t in reversed(range(0 if absent else len(names))):
        value = shot.overlaps_T[t]
        text = f"{value:.2f}" if np.isfinite(value) else "\u2013"
        ink = cast(Colour, tuple(round(255 * part) for part in paper.colour(t)))
        lettering.numerals(strip, text, x, 4, LETTERS, ink, bold=True)
        x -= sum(lettering.width_of(c, LETTERS, bold=True) + 1 for c in text) + 9
    return cast(Image, np.vstack([picture, strip]))
