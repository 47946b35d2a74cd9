"""Contact sheets: a whole track in one picture. Knows frames with their steps; touches no file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

import cv2
import numpy as np

from vltrack.core.errors import DataError
from vltrack.core.track import Track
from vltrack.core.types import Frame, Image, Step
from vltrack.plots import pen
from vltrack.plots.overlay import draw_steps

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
