"""Contact sheets: a whole track in one picture. Knows frames with their steps; touches no file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import ArrayLike

from vltrack.core.errors import DataError
from vltrack.core.track import Track
from vltrack.core.types import Floats, Frame, Image, Step
from vltrack.plots import draw as pen
from vltrack.plots import figures as paper
from vltrack.plots import text as lettering
from vltrack.plots.compare import TILE, cut
from vltrack.plots.compare_video import COLORS, RIM, Color, draw_boxes, outline
from vltrack.plots.draw import draw_steps

T = TypeVar("T")
S = TypeVar("S")
_PAPER = 245
_GAP = 8
_HELD = 6
"""Small pictures held for each one chosen: the more, the more even the choice from a stream."""


def contact_sheet(
    frames: Iterable[tuple[Any, ...]],
    columns: int = 4,
    count: int = 12,
    tile_width: int = 320,
    labels: Sequence[str] = (),
) -> Image:
    """Evenly chosen frames with their boxes; frame number, time and score below; absent ones in grey.

    Args:
        frames: tuples ``(image, step, ...)`` in order, one step a target; read once, so the length need
            not be known. Only small pictures are held, a few for each tile.
        columns: tiles in a row.
        count: tiles at most; the first and the last frame are always among them.
        tile_width: width of a tile in pixels.
        labels: one a target, written on the first tile only.

    Returns:
        (H, W, 3) RGB uint8.

    Raises:
        DataError: there is no frame.
        ValueError: ``columns`` or ``count`` below 1.
    """
    if columns < 1 or count < 1:
        raise ValueError(f"columns is {columns} and count is {count}; both must be at least 1")
    chosen = _evenly(frames, count, lambda item: _shrink(item[0], item[1:], tile_width))
    if not chosen:
        raise DataError("there is no frame to put on a contact sheet.")
    tiles = [_tile(*item, labels if number == 0 else ()) for number, item in enumerate(chosen)]
    columns = min(columns, len(tiles))
    height = max(tile.shape[0] for tile in tiles)
    rows = -(-len(tiles) // columns)
    sheet = np.full(
        (rows * (height + _GAP) + _GAP, columns * (tile_width + _GAP) + _GAP, 3), _PAPER, dtype=np.uint8
    )
    for number, tile in enumerate(tiles):
        top, left = (
            _GAP + place * (size + _GAP)
            for place, size in zip(divmod(number, columns), (height, tile_width), strict=True)
        )
        sheet[top : top + tile.shape[0], left : left + tile_width] = tile
    return sheet


def track_sheet(
    frames: Iterable[Frame], track: Track, columns: int = 4, count: int = 12, tile_width: int = 320
) -> Image:
    """``contact_sheet`` of a saved track and the frames of its video, matched by ``index``."""
    rows = {int(index): row for row, index in enumerate(track.indices)}

    def pairs() -> Iterator[tuple[Image, Step]]:
        for frame in frames:
            row = rows.get(frame.index)
            if frame.image is not None and row is not None:
                yield frame.image, track[row]

    return contact_sheet(pairs(), columns, count, tile_width, [str(track.meta.get("sentence") or "")])


def _evenly(items: Iterable[T], count: int, keep: Callable[[T], S]) -> list[S]:
    """``keep`` of at most ``count`` evenly spread items of a stream of unknown length, both ends among them.

    Every ``stride``-th item is held; when ``_HELD * count`` are, every second goes and the stride doubles.
    """
    held: list[S] = []
    last: list[T] = []
    stride, number = 1, -1
    for number, item in enumerate(items):
        last = [item]
        if number % stride == 0:
            held.append(keep(item))
            if len(held) > _HELD * count:
                held, stride = held[::2], 2 * stride
    if last and number % stride != 0:
        held.append(keep(last[0]))
    steps = max(1, min(count, len(held)) - 1)
    picks = {round(step * (len(held) - 1) / steps) for step in range(steps + 1)} if held else set()
    return [held[pick] for pick in sorted(picks)[:count]]


def _shrink(image: Image, steps: Sequence[Step], width: int) -> tuple[Image, list[Step]]:
    """The frame at the tile's width, and its steps moved along."""
    scale = width / image.shape[1]
    size = (width, max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return cast(Image, small), [replace(step, box=step.box * scale) for step in steps]


def _tile(image: Image, steps: Sequence[Step], labels: Sequence[str]) -> Image:
    """A small frame with its boxes, grey if no target is visible, and a caption strip below."""
    absent = bool(steps) and not any(step.visible for step in steps)
    width = image.shape[1]
    if absent:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        pale = cv2.addWeighted(grey, 0.6, np.full_like(grey, 200), 0.4, 0)
        image = cast(Image, cv2.cvtColor(pale, cv2.COLOR_GRAY2RGB))
    picture = draw_steps(image, steps, labels)
    text_scale = 0.45 * max(0.6, width / 320)
    _, up, down = pen.text_size("0123", text_scale, 1)
    strip = np.full((up + down + 6, width, 3), _PAPER, dtype=np.uint8)
    if steps:
        caption = f"frame {steps[0].index}   {_clock(steps[0].seconds)}   " + " ".join(
            f"{s.score:.2f}" for s in steps
        )
        caption = pen.fitted(caption + ("   not visible" if absent else ""), text_scale, 1, width - 4)
        pen.words(strip, caption, (2, up + 3), text_scale, (120, 120, 120) if absent else pen.DARK)
    return np.vstack([picture, strip])


def _clock(seconds: float) -> str:
    """Minutes, seconds and hundredths."""
    minutes, rest = divmod(round(max(0.0, seconds) * 100), 6000)
    return f"{minutes}:{rest // 100:02d}.{rest % 100:02d}"


# MERGED plots/contact_sheet.py
# A contact sheet of one sequence: truth and every tracker's box on moments of it. Knows pixels and boxes.
#
# KeyframeSelector are cut out once (``snapshot``) and kept as compressed pictures with their boxes, so that the sheet
# can be drawn again without the data. T trackers.


COLUMNS = 4
SHOWN = 8
"""KeyframeSelector on a sheet."""
TRUTH: Color = (255, 255, 255)
_WORST_GAP = 14
WIDTH = COLUMNS * TILE + (COLUMNS + 1) * _WORST_GAP
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


def select_keyframes(overlaps_TN: ArrayLike, count: int = SHOWN) -> list[int]:
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
        names: one a tracker, whose colors are those of their places.
        snapshots: in the order of time.

    Raises:
        DataError: nothing to show, or a picture that does not decode.
        ValueError: more names than colors.
    """
    if not snapshots:
        raise DataError(f"there is no frame of {title} to show.")
    if not 0 < len(names) <= len(COLORS):
        raise ValueError(f"{len(names)} trackers; 1 to {len(COLORS)} can be told apart")
    tiles = [_worst_tile(shot, names) for shot in snapshots]
    rows = -(-len(tiles) // COLUMNS)
    height = max(tile.shape[0] for tile in tiles) + _WORST_GAP
    head = _head(title, note, names)
    body = np.full((rows * height, WIDTH, 3), _WHITE, dtype=np.uint8)
    for number, tile in enumerate(tiles):
        top, left = (number // COLUMNS) * height, _WORST_GAP + (number % COLUMNS) * (TILE + _WORST_GAP)
        body[top : top + tile.shape[0], left : left + TILE] = tile
    return cast(Image, np.vstack([head, body]))


def _head(title: str, note: str, names: Sequence[str]) -> Image:
    """Title and sentence, where there are any, and a legend of the boxes."""
    cells = ["truth", *names]
    columns = 4
    rows = -(-len(cells) // columns)
    top = 72 if title or note else 6
    head = np.full((top + 26 * rows + 12, WIDTH, 3), _WHITE, dtype=np.uint8)
    room = WIDTH - 2 * _WORST_GAP
    title = lettering.shortened(title, 26, room, bold=True)
    lettering.write(head, title, (_WORST_GAP, 8), 26, _INK, bold=True)
    lettering.write(head, lettering.shortened(note, 18, room), (_WORST_GAP, 42), 18, _FAINT)
    step = room // columns
    for number, name in enumerate(cells):
        x, y = _WORST_GAP + (number % columns) * step, top + 2 + 26 * (number // columns)
        shade = TRUTH if number == 0 else COLORS[number - 1]
        cv2.rectangle(head, (x, y + 4), (x + 22, y + 18), shade, cv2.FILLED)
        cv2.rectangle(head, (x, y + 4), (x + 22, y + 18), RIM, 1)
        lettering.write(head, lettering.shortened(name, 17, step - 44), (x + 32, y), 17, _INK)
    return head


def _worst_tile(shot: Snapshot, names: Sequence[str]) -> Image:
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
        ink = cast(Color, tuple(round(255 * part) for part in paper.color(t)))
        lettering.numerals(strip, text, x, 4, LETTERS, ink, bold=True)
        x -= sum(lettering.width_of(c, LETTERS, bold=True) + 1 for c in text) + 9
    return cast(Image, np.vstack([picture, strip]))
