"""Colour words for pixels: which one English colour a set of pixels clearly has. Knows no object and no
sentence.

Thresholds in HSV (OpenCV's: hue 0..180, saturation and value 0..255) are ours, set by looking at swatches.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

COLOURS = (
    "black", "white", "gray", "red", "orange", "brown", "yellow", "green", "blue", "purple", "pink",
)  # fmt: skip
_HUES = (
    (6, "red"),
    (20, "orange"),
    (34, "yellow"),
    (85, "green"),
    (131, "blue"),
    (150, "purple"),
    (170, "pink"),
)


def colour_table() -> NDArray[np.uint8]:
    """(16, 16, 16) lookup: index into ``COLOURS`` for a colour given by the upper four bits of R, G and B."""
    level = (np.arange(16, dtype=np.uint8) << 4) + 8
    cube = np.stack(np.meshgrid(level, level, level, indexing="ij"), axis=-1).reshape(1, -1, 3)
    hsv = cv2.cvtColor(cube, cv2.COLOR_RGB2HSV).reshape(-1, 3).astype(int)
    words = [COLOURS.index(_word(h, s, v)) for h, s, v in hsv]
    return np.array(words, dtype=np.uint8).reshape(16, 16, 16)


def _word(hue: int, saturation: int, value: int) -> str:
    if value < 52:
        return "black"
    chroma = saturation * value / 255
    if saturation < 46 or chroma < 32:
        return "white" if value > 190 else ("black" if value < 75 else "gray")
    name = next((word for limit, word in _HUES if hue < limit), "red")
    if name in ("red", "orange", "yellow") and (value < 150 or (name != "red" and saturation < 125)):
        if name == "yellow":
            return "green" if hue > 28 and saturation > 90 else "brown"
        return "red" if name == "red" and saturation > 150 else "brown"
    if name in ("red", "pink") and saturation < 130 and value > 170:
        return "pink"
    return name


_TABLE = colour_table()


# Black and brown is no pair: shading makes it of any brown thing.
_PAIRS = {
    frozenset(pair.split())
    for pair in (
        "black white", "brown white", "red white", "blue white", "yellow black",
        "red black", "green white", "orange black", "orange white", "yellow white", "blue red",
        "yellow blue", "pink white", "yellow red", "green red", "blue black", "yellow green",
    )
}  # fmt: skip


def dominant_colour(pixels: NDArray[np.uint8], share: float = 0.55) -> str:
    """The colour word that at least ``share`` of the (N, 3) RGB pixels have; "black and white" where two
    colours that contrast fill three quarters; ``""`` where none is clear."""
    if len(pixels) < 12:
        return ""
    red, green, blue = (pixels[:, channel] >> 4 for channel in range(3))
    counts = np.bincount(_TABLE[red, green, blue], minlength=len(COLOURS)) / len(pixels)
    second, best = (int(i) for i in counts.argsort()[-2:])
    if counts[best] >= share:
        return COLOURS[best]
    contrast = frozenset((COLOURS[best], COLOURS[second])) in _PAIRS
    if contrast and counts[second] >= 0.28 and counts[best] + counts[second] >= 0.75:
        return f"{COLOURS[best]} and {COLOURS[second]}"
    return ""
