"""Contact sheets: a whole track in one image, and one sequence of a report with annotation and predictions.

Keyframes of a report are cut out once (``snapshot``) and kept as compressed images with their boxes, so that
the sheet can be drawn again without the data. T trackers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import ArrayLike

from vltrack.core.errors import DataError
from vltrack.core.types import Floats, Image, Step
from vltrack.plots.compare import COLUMNS, SHOWN, TILE, cut, evenly, grid
from vltrack.plots.compare_video import RIM, SHIFT, clock, draw_boxes
from vltrack.plots.draw import COLORS, DARK, Color, check_count, draw_steps, outline
from vltrack.plots.figures import tracker_color
from vltrack.plots.text import number_width, shortened, width_of, write, write_number

_PAPER: Color = (245, 245, 245)
_GAP, _WIDTH = 8, 320
_REPORT_GAP = 14
WIDTH = COLUMNS * TILE + (COLUMNS + 1) * _REPORT_GAP
LETTERS = 15
"""Pixels: the height of letters below a keyframe."""
ANNOTATION: Color = (255, 255, 255)
"""Color of the annotated box."""
_WHITE, _INK, _FAINT = (255, 255, 255), (26, 28, 33), (107, 115, 128)


# -- the sheet of a track -----------------------------------------------------------------------------


def contact_sheet(frames: Sequence[tuple[Any, ...]], count: int = 12, labels: Sequence[str] = ()) -> Image:
    """Evenly chosen frames with their boxes; frame number, time and score below; absent ones in gray.

    Args:
        frames: tuples ``(image, step, ...)`` in order, one step per target.
        count: tiles at most; the first and the last frame are always among them.
        labels: one per target; that of a single target is written on the first tile only.

    Returns:
        (H, W, 3) RGB uint8.

    Raises:
        DataError: no frame.
    """
    if not frames:
        raise DataError("No frames for a contact sheet.")
    chosen = [frames[pick] for pick in evenly(len(frames), count)]
    tiles = [
        _tile(image, steps, labels if k == 0 or len(labels) > 1 else ()) for k, (image, *steps) in enumerate(chosen)
    ]
    sheet = grid(tiles, min(COLUMNS, len(tiles)), _GAP, _PAPER)
    return np.pad(sheet, ((_GAP, 0), (0, 0), (0, 0)), constant_values=_PAPER[0])


def _tile(image: Image, steps: Sequence[Step], labels: Sequence[str]) -> Image:
    """A small frame with its boxes, gray if no target is visible, and a caption below."""
    scale = _WIDTH / image.shape[1]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = cast(Image, cv2.resize(image, (_WIDTH, max(1, round(image.shape[0] * scale))), interpolation=how))
    absent = bool(steps) and not any(step.visible for step in steps)
    if absent:
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        pale = cv2.addWeighted(gray, 0.6, np.full_like(gray, 200), 0.4, 0)
        image = cast(Image, cv2.cvtColor(pale, cv2.COLOR_GRAY2RGB))
    drawn = draw_steps(image, [replace(step, box=step.box * scale) for step in steps], labels)
    strip = np.full((LETTERS + 8, _WIDTH, 3), _PAPER, dtype=np.uint8)
    if steps:
        scores = " ".join(f"{step.score:.2f}" for step in steps)
        if "doubt" in steps[0].extras:
            scores += "   doubt " + " ".join(f"{step.extras['doubt']:.2f}" for step in steps if "doubt" in step.extras)
        caption = f"frame {steps[0].index}   {clock(steps[0].seconds)}   {scores}"
        caption = shortened(caption + ("   not visible" if absent else ""), LETTERS - 2, _WIDTH - 4)
        write(strip, caption, (2, 3), LETTERS - 2, (120, 120, 120) if absent else DARK)
    return np.vstack([drawn, strip])


# -- the sheet of a sequence in a report --------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Snapshot:
    """One keyframe: a JPEG as wide as ``TILE`` and the boxes in its pixels; a missing box is NaN.

    Attributes:
        frame: number of the frame.
        jpeg: the image without any box.
        truth_4, boxes_T4: x, y, w, h of annotation and predictions.
        overlaps_T: of each box with the annotation; NaN where the target is absent.
    """

    frame: int
    jpeg: bytes
    truth_4: Floats
    boxes_T4: Floats
    overlaps_T: Floats


def snapshot(image: Image, frame: int, truth_4: ArrayLike, boxes_T4: ArrayLike, overlaps_T: ArrayLike) -> Snapshot:
    """Cut out the part of a frame with the annotation and all boxes; the image is not modified."""
    truth = np.asarray(truth_4, dtype=np.float64)
    boxes = np.asarray(boxes_T4, dtype=np.float64)
    tile, moved = cut(image, np.vstack([boxes, truth]))
    done, data = cv2.imencode(".jpg", tile[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not done:
        raise DataError(f"Frame {frame} cannot be encoded as JPEG.")
    return Snapshot(
        frame=frame,
        jpeg=data.tobytes(),
        truth_4=moved[-1],
        boxes_T4=moved[:-1],
        overlaps_T=np.asarray(overlaps_T, dtype=np.float64),
    )


def select_keyframes(overlaps_TN: ArrayLike) -> list[int]:
    """Frames to show: ``SHOWN`` evenly spread ones, and the first in which all trackers have lost the target.

    Lost means an overlap below 0.1; where that never happens it is the frame of least mean overlap. It
    replaces the evenly spread one next to it; the first or last only where it is nearly the same.

    Args:
        overlaps_TN: (T, N) overlap with the annotation; NaN where the target is absent.
    """
    overlaps = np.asarray(overlaps_TN, dtype=np.float64)
    frames = overlaps.shape[1]
    picks = evenly(frames, SHOWN)
    there = np.asarray(np.isfinite(overlaps).all(axis=0))
    if len(picks) < 3 or not there[1:-1].any():
        return picks
    mean = np.where(there, np.nan_to_num(overlaps).mean(axis=0), np.inf)
    mean[[0, -1]] = np.inf
    lost = np.flatnonzero(np.where(there, np.nan_to_num(overlaps).max(axis=0), 1.0)[1:-1] < 0.1) + 1
    keyframe = int(lost[0]) if lost.size else int(mean.argmin())
    if keyframe not in picks:
        near = (frames - 1) / (min(SHOWN, frames) - 1) / 4
        ends = [k for k in (0, len(picks) - 1) if abs(picks[k] - keyframe) < near]
        nearest = min(ends or range(1, len(picks) - 1), key=lambda k: abs(picks[k] - keyframe))
        picks[nearest] = keyframe
    return sorted(picks)


def sequence_sheet(title: str, note: str, names: Sequence[str], snapshots: Sequence[Snapshot]) -> Image:
    """The sheet of one sequence: (H, ``WIDTH``, 3) RGB uint8. The same input gives the same image.

    Args:
        title: the sequence.
        note: its sentence, or other text below the title; without both no space is left for them.
        names: of the trackers, in the order of their colors.
        snapshots: in the order of time.

    Raises:
        DataError: no snapshot, or an image that does not decode.
        ValueError: more names than colors.
    """
    if not snapshots:
        raise DataError(f"No frames of {title} to show.")
    check_count(names)
    body = grid([_snapshot_tile(shot, names) for shot in snapshots], COLUMNS, _REPORT_GAP, _WHITE)
    return np.vstack([_head(title, note, names), body])


def _head(title: str, note: str, names: Sequence[str]) -> Image:
    """Title and note, if any, and a legend of the boxes."""
    cells = ["ground truth", *names]
    top = 72 if title or note else 6
    head = np.full((top + 26 * -(-len(cells) // COLUMNS) + 12, WIDTH, 3), _WHITE, dtype=np.uint8)
    room = WIDTH - 2 * _REPORT_GAP
    write(head, shortened(title, 26, room, bold=True), (_REPORT_GAP, 8), 26, _INK, bold=True)
    write(head, shortened(note, 18, room), (_REPORT_GAP, 42), 18, _FAINT)
    step = room // COLUMNS
    for number, (name, color) in enumerate(zip(cells, (ANNOTATION, *COLORS), strict=False)):
        x, y = _REPORT_GAP + (number % COLUMNS) * step, top + 2 + 26 * (number // COLUMNS)
        cv2.rectangle(head, (x, y + 4), (x + 22, y + 18), color, cv2.FILLED)
        cv2.rectangle(head, (x, y + 4), (x + 22, y + 18), RIM, 1)
        write(head, shortened(name, 17, step - 44), (x + 32, y), 17, _INK)
    return head


def _snapshot_tile(shot: Snapshot, names: Sequence[str]) -> Image:
    """The keyframe with its boxes; below it the frame's number and each tracker's overlap."""
    read = cv2.imdecode(np.frombuffer(shot.jpeg, dtype=np.uint8), cv2.IMREAD_COLOR)
    if read is None or read.shape[1] != TILE or shot.boxes_T4.shape != (len(names), 4):
        raise DataError(f"The image of frame {shot.frame} is damaged.", hint="Make the report from the data.")
    image = cast(Image, read[:, :, ::-1].copy())
    if np.isfinite(shot.truth_4).all() and (shot.truth_4[2:] > 0).all():
        for thickness, color in ((5, RIM), (3, ANNOTATION)):
            outline(image, shot.truth_4, color, thickness, far=4 * thickness, shift=SHIFT)
    image = draw_boxes(image, shot.boxes_T4, [True] * len(names), names, [False] * len(names))
    strip = np.full((26, TILE, 3), _WHITE, dtype=np.uint8)
    write(strip, f"frame {shot.frame}", (0, 4), LETTERS, _FAINT)
    x = TILE
    if not np.isfinite(shot.overlaps_T).any():
        write(strip, "target absent", (x - width_of("target absent", LETTERS), 4), LETTERS, _FAINT)
    else:
        for t, value in reversed(list(enumerate(shot.overlaps_T))):
            text = f"{value:.2f}" if np.isfinite(value) else "\u2013"
            ink = cast(Color, tuple(round(255 * part) for part in tracker_color(t)))
            write_number(strip, text, x, 4, LETTERS, ink, bold=True)
            x -= number_width(text, LETTERS, bold=True) + 9
    return np.vstack([image, strip])
