"""Boxes and labels on frames. Knows ``Step`` and ``Track``; reads no video and writes no file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from vltrack.core.track import Track
from vltrack.core.types import Frame, Image, Step
from vltrack.plots import pen


def draw_step(
    image: Image,
    box: ArrayLike,
    score: float | None = None,
    label: str = "",
    colour: pen.Colour = pen.PALETTE[0],
    visible: bool = True,
) -> Image:
    """A copy of the frame with one target's box and a plate that names it.

    Args:
        image: (H, W, 3) RGB uint8; not modified.
        box: x, y, w, h in pixels of the frame; may reach outside.
        score: presence in [0, 1], shown after the label; ``None`` = not shown.
        label: what to write, for example the sentence; control characters are shown as escapes.
        colour: RGB of box and plate.
        visible: false draws a grey dashed box, marked as lost: it is only where the target was last seen.

    Returns:
        (H, W, 3) RGB uint8.
    """
    picture = image.copy()
    _draw(picture, box, score, label, colour, visible)
    return picture


def draw_steps(image: Image, steps: Sequence[Step], labels: Sequence[str] = ()) -> Image:
    """A copy of the frame with several targets, each in the colour of its place (``pen.colour_for``)."""
    picture = image.copy()
    for number, step in enumerate(steps):
        label = labels[number] if number < len(labels) else ""
        _draw(picture, step.box, step.score, label, pen.colour_for(number), step.visible)
    return picture


def draw_tracks(
    frames: Iterable[Frame], tracks: Sequence[Track], labels: Sequence[str] = ()
) -> Iterator[Image]:
    """The frames of a video with the boxes of its tracks, one picture a frame that has one.

    Args:
        frames: in order; matched to rows by ``index``. A frame without a row is passed on as it is.
        tracks: one a target.
        labels: one a target; default: the sentence of each track's ``meta``.
    """
    rows = [{int(index): row for row, index in enumerate(track.indices)} for track in tracks]
    names = labels or [str(track.meta.get("sentence") or "") for track in tracks]
    for frame in frames:
        if frame.image is None:
            continue
        picture = frame.image.copy()
        for number, (track, row_of) in enumerate(zip(tracks, rows, strict=True)):
            row = row_of.get(frame.index)
            if row is not None:
                step = track[row]
                _draw(picture, step.box, step.score, names[number], pen.colour_for(number), step.visible)
        yield picture


def _draw(
    picture: Image, box: ArrayLike, score: float | None, label: str, colour: pen.Colour, visible: bool
) -> None:
    """Box and plate into ``picture``."""
    x, y, w, h = (float(v) for v in np.asarray(box, dtype=np.float64))
    ink = colour if visible else pen.GREY
    pen.rectangle(picture, (x, y, w, h), ink, dashed=not visible)
    number = "" if score is None else f"{score:.2f}"
    text = _label(picture, label, number if visible else f"lost {number}".strip())
    half = pen.line_width(picture) / 2
    pen.plate(picture, text, (x - half, y - half), y + h + half, ink)


def _label(picture: Image, label: str, tail: str) -> str:
    """The label, shortened so that a long sentence never pushes the score off the plate."""
    scale, weight = pen.label_style(picture)
    room = round(picture.shape[1] * 0.6) - pen.text_size("  " + tail, scale, weight)[0]
    return "  ".join(part for part in (pen.fitted(label, scale, weight, room), tail) if part)
